"""Write src/pgseek/aclient.py from src/pgseek/client.py, so that the two cannot drift apart.

``python tools/make_async.py`` writes the file; ``--check`` exits with 1 if it would change.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "pgseek" / "client.py"
TARGET = SOURCE.with_name("aclient.py")

HEADER = '''"""The asynchronous client. Written from client.py by tools/make_async.py; edit that one.

Embedders, and the scripts' own work between two steps, run in threads: the loop is never blocked.
"""'''

NAMES = [
    ("import threading\nimport time\n", "import asyncio\n"),
    ("for _ in connection.notifies(", "async for _ in connection.notifies("),
    ("from concurrent.futures import wait\n", ""),
    ("self._background.start(self.run, script())", "asyncio.create_task(self.run(script()))"),
    ("running.future.result()", "await running.future"),
    (" wait(running)", " await asyncio.wait(running)"),
    ("wait([underway.future],", "await asyncio.wait([asyncio.wrap_future(underway.future)],"),
    ("time.sleep(", "await asyncio.sleep("),
    ("threading.Lock()", "asyncio.Lock()"),
    ("with self._model_lock", "async with self._model_lock"),
    ("with self._lock", "async with self._lock"),
    ("ConnectionPool", "AsyncConnectionPool"),
    ("psycopg.Connection[", "psycopg.AsyncConnection["),
    ("session.configure", "session.configure_async"),
    ("Callable[[Step], Any]", "Callable[[Step], Awaitable[Any]]"),
    ("import Callable, Iterable", "import Awaitable, Callable, Iterable"),
    ("def __enter__", "async def __aenter__"),
    ("def __exit__", "async def __aexit__"),
    ("with self._pool.connection(", "async with self._pool.connection("),
    ("waiting = future", "waiting = asyncio.wrap_future(future)"),
    ("wait([waiting],", "await asyncio.wait([waiting],"),
    ("            case Call(function, None):\n                result = function()\n", ""),
    ("with connection.cursor().copy", "async with connection.cursor().copy"),
]
CLASSES = re.compile(r"\b(Client|Collection|Runner)\b")
COROUTINES = (
    "close|open|create_collection|collection|list_collections|drop_collection|_run|run|info|"
    "ingest|plan|search|search_page|facets|explain|similar|find_answer|put_answer|clear_answers|answer_stats|recommend|_answer|_embedding|set_calibration|get|delete|count|drain_queue|refresh_statistics|_own_embedder|_own_generator|_own_model|_renew|_follow|_follow_search|_search|"
    "_perform|_ask|_transact|"
    "cache_stats|prune_cache|clear_cache|work|_serve|queue_status|retry_queue|failed_documents|attach|detach|"
    "spaces|space|plan_reembed|reembed|plan_rechunk|rechunk|activate|rollback|retire|probe|health|recall|compare_spaces|"
    "index_metadata|drop_metadata_index|build_index|drop_index|advise_index|tune_index|describe_index"
)
AWAITED = re.compile(
    r"self\._run\(|self\._serve\(|self\._client\.(?:_run|_serve|work)\(|self\.build_index\(|"
    r"self\._runner\.close\(|runner\.run\(|runner\.open\(|"
    r"self\._pool\.(?:open|close)\(|self\._transact\(|self\._ask\(|self\.close\(|self\._own_embedder\(|self\._renew\(|self\._follow\(|self\._follow_search\(|self\._search\(|self\._answer\(|self\._embedding\(|"
    r"self\._own_generator\(|self\._client\._own_model\(|"
    r"(?<=return )(?:_drive|_perform_on|_listen_on)\(|(?<== )perform\(|connection\.execute\(|"
    r"cursor\.fetchall\(|copy\.write_row\("
)
THREADED = re.compile(
    r"(?<== )(advance|make_model|Session|planning\.target|rechunking\.wanted|comparing\.Wanted|"
    r"collection_scripts\.(?:embedder_of|own_generator))\("
)


def make() -> str:
    """Return the text of the asynchronous client."""
    text = SOURCE.read_text(encoding="utf-8")
    text = HEADER + text[text.index('"""', 3) + 3 :]
    for old, new in NAMES:
        text = text.replace(old, new)
    text = CLASSES.sub(r"Async\1", text)
    text = re.sub(rf"^    def ({COROUTINES})\(", r"    async def \1(", text, flags=re.M)
    text = re.sub(r"^def (_drive|_perform_on|_listen_on)\(", r"async def \1(", text, flags=re.M)
    text = AWAITED.sub(lambda found: f"await {found[0]}", text)
    text = THREADED.sub(lambda f: f"await asyncio.to_thread({f[1]}, ", text)
    for arguments in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
        text = subprocess.run(  # noqa: S603 (our own arguments)
            [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(TARGET), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return text


if __name__ == "__main__":
    made = make()
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text(encoding="utf-8") == made else f"{TARGET.name} is stale")
    TARGET.write_text(made, encoding="utf-8")
