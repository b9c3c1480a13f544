"""Helpers of the crash tests: two versions of a corpus, children to kill, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np
from providers import ProviderServer, Request, vector_of
from support import rows, snapshot

from pgseek import Client
from pgseek.chunking import chunk_text
from pgseek.db.connection import connect
from pgseek.embedding import embedding_text
from pgseek.indexes import INDEX_FROM
from pgseek.integrity import examine

MODEL, DIMENSIONS = "text-embedding-3-small", 16
EMBEDDER = f"openai:{MODEL}@{DIMENSIONS}"
WORDS = ["index", "page", "tuple", "vacuum", "lock", "snapshot", "commit", "buffer", "replica", "vector"]
CHILD = Path(__file__).parent / "crash_child.py"
PIECE = 20_000


def corpus(version: int, size: int) -> dict[str, dict[str, Any]]:
    """Return the documents of version 1 or 2 by id.

    Between the two a fifth is the same, a fifth has another title only, some are in one version only, some
    share their text, and every tenth has several chunks.
    """
    made: dict[str, dict[str, Any]] = {}
    for n in range(size):
        if n % 13 == version:
            continue
        kind = n % 5
        own = Random(f"{n} {1 if kind in (0, 1) else version}")
        count = 900 if n % 10 == 3 else 12
        body = f"number {n} " + " ".join(own.choices(WORDS, k=count))
        if n % 11 == 5:
            body = f"shared by many in version {version}"
        title = f"title {version if kind == 1 else 0} of {n}" if n % 2 else ""
        made[f"d{n}"] = {"id": f"d{n}", "title": title, "text": body, "metadata": {"n": n}}
    return made


@dataclass(slots=True)
class Child:
    """A process at work; ``told`` is what it printed so far."""

    process: subprocess.Popen[str]
    told: list[dict[str, Any]] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)
    errors: list[str] = field(default_factory=list)

    @classmethod
    def spawn(cls, dsn: str, environment: dict[str, str], *arguments: str) -> Child:
        process = subprocess.Popen(
            [sys.executable, str(CHILD), dsn, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        child = cls(process)
        for read in (child._listen, child._complaints):
            threading.Thread(target=read, daemon=True).start()
        return child

    def _listen(self) -> None:
        with contextlib.suppress(ValueError):
            for line in self.process.stdout or ():
                # The last line of one that is killed may be torn.
                with contextlib.suppress(json.JSONDecodeError):
                    self.told.append(json.loads(line))
                    self.ready.set()
        self.ready.set()

    def _complaints(self) -> None:
        with contextlib.suppress(ValueError):
            self.errors += list(self.process.stderr or ())

    def go(self) -> None:
        """Let it begin, once it is ready."""
        assert self.ready.wait(60)
        assert self.told, "".join(self.errors)
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> bool:
        """Kill it; return whether it was still at work."""
        self.process.send_signal(signal.SIGKILL)
        return self.wait() == -signal.SIGKILL and "done" not in self.told[-1]

    def wait(self, seconds: float = 120) -> int:
        code = self.process.wait(seconds)
        # What it had written is read before anybody looks at it.
        deadline = time.monotonic() + 5
        while code == 0 and "done" not in self.told[-1] and time.monotonic() < deadline:
            time.sleep(0.001)
        assert code in (0, 1, -signal.SIGKILL), "".join(self.errors)
        return code

    @property
    def stored(self) -> int:
        """How many documents it said were stored."""
        return max((one["stored"] for one in list(self.told) if "stored" in one), default=0)

    @property
    def error(self) -> str:
        return next((one["message"] for one in self.told if "error" in one), "")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


@dataclass
class Bench:
    """A collection ``docs`` in a database, a service that embeds for it, and what is known of both."""

    dsn: str
    service: ProviderServer
    folder: Path
    seed: int
    size: int
    kills: Counter[str] = field(default_factory=Counter)
    # Texts that were on their way, or answered and not kept yet, when a process was killed.
    in_flight: Counter[str] = field(default_factory=Counter)
    children: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.versions = {v: corpus(v, self.size) for v in (1, 2)}
        self.files = {}
        for version, documents in self.versions.items():
            self.files[version] = self.folder / f"version{version}.jsonl"
            self.files[version].write_text("".join(json.dumps(d) + "\n" for d in documents.values()))
        self.forms = {
            (name, version): self._form(document)
            for version, documents in self.versions.items()
            for name, document in documents.items()
        }

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": self.service.base_url + "/v1",
            "NO_PROXY": "127.0.0.1",
            "PGSEEK_CONNECT_TIMEOUT": "1",
        }

    def create(self) -> None:
        """Make the collection, with its embedder in the environment as children have it."""
        with mock.patch.dict(os.environ, self.environment), Client(self.dsn) as client:
            client.create_collection("docs", embedder=EMBEDDER)
        self.service.reset()

    def child(self, *arguments: str | Path) -> Child:
        made = Child.spawn(self.dsn, self.environment, *map(str, arguments))
        self.children.append(made)
        return made

    def ingest(self, version: int) -> Child:
        return self.child("ingest", self.files[version], "sync")

    def close(self) -> None:
        for child in self.children:
            child.close()

    def lost(self, since: int) -> list[Request]:
        """Note the requests after the first ``since`` whose vectors nobody kept; return them."""
        time.sleep(0.05)  # One that was sent just before the kill has arrived by then.
        made = self.service.requests[since:]
        texts = {text for request in made for text in request.texts}
        kept = {
            bytes(row["text_hash"])
            for row in rows(
                self.dsn,
                "SELECT text_hash FROM pgseek.embedding_cache WHERE text_hash IN"
                " (SELECT sha256(convert_to(t, 'UTF8')) FROM unnest(%s::text[]) AS t)",
                [list(texts)],
            )
        }
        found = [r for r in made if any(_hash(text) not in kept for text in r.texts)]
        self.in_flight.update(text for request in found for text in request.texts if _hash(text) not in kept)
        return found

    def check_whole(self) -> Counter[int]:
        """Every document is of one version, with its own chunks and vectors; the deep examination agrees.

        Returns how many documents read as in version 1 and in version 2; some read the same in both.
        """
        broken = [f for f in examine(self.dsn).findings if not f.harmless and f.key != "index_missing"]
        assert broken == []
        found: dict[str, list[tuple[Any, ...]]] = {}
        with connect(self.dsn) as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            documents = connection.execute(
                "SELECT external_id, title, body, metadata, q.document_id IS NOT NULL AS queued FROM pgseek.documents d"
                " LEFT JOIN pgseek.ingest_queue q USING (collection_id, document_id)"
            ).fetchall()
            chunks = connection.execute(
                "SELECT d.external_id, c.ordinal, c.title, c.text, e.embedding::text AS vector FROM pgseek.documents d"
                " JOIN pgseek.chunks c USING (collection_id, document_id) LEFT JOIN pgseek.embeddings_1 e"
                " USING (collection_id, document_id, ordinal) ORDER BY c.ordinal"
            ).fetchall()
        for row in chunks:
            found.setdefault(row["external_id"], []).append(
                (row["ordinal"], row["title"], row["text"], row["vector"])
            )
        matching: Counter[int] = Counter()
        for row in documents:
            name = row["external_id"]
            of = [
                v
                for v in (1, 2)
                if (name, v) in self.forms
                and (row["title"], row["body"], row["metadata"])
                == tuple(self.versions[v][name][key] for key in ("title", "text", "metadata"))
            ]
            assert of, f"{name} is of no version: {row}"
            matching.update(of)
            whole = [self.forms[name, v][row["queued"]] for v in of]
            stored = found.get(name, [])
            assert any(_same(stored, form) for form in whole), f"{name}: {stored} is none of {whole}"
        return matching

    def _form(self, document: dict[str, Any]) -> dict[bool, list[tuple[Any, ...]]]:
        """The chunks of a document: as ingest writes them, and (True) as SQL writers do before a drain."""
        title, body = document["title"], document["text"]
        return {
            False: [
                (
                    c.ordinal,
                    title,
                    c.text,
                    vector_of(MODEL, embedding_text(title, c.text), DIMENSIONS),
                )
                for c in chunk_text(body)
            ],
            True: [(0, title, body[:PIECE], None)],
        }

    def check_finished(self, reference: dict[str, list[tuple[Any, ...]]]) -> None:
        """All is as if nobody had been killed, and both indexes are there."""
        self.check_whole()
        found = examine(self.dsn)
        assert found.ok, found.findings
        assert state(self.dsn) == reference
        valid = rows(
            self.dsn,
            "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE indisvalid AND indisready"
            " AND indexrelid IN (to_regclass('pgseek.chunks_codes_idx'), to_regclass('pgseek.embeddings_1_hnsw'))",
        )
        due = {"pgseek.chunks_codes_idx"}
        if found.collections[0].embeddings >= INDEX_FROM:
            due.add("pgseek.embeddings_1_hnsw")
        assert {row["name"] for row in valid} == due

    def forget(self) -> None:
        """Check what was paid, and let nothing be cached any more: another ingest has all to embed."""
        self.check_paid()
        rows(self.dsn, "DELETE FROM pgseek.embedding_cache")
        self.service.reset()
        self.in_flight.clear()

    def check_paid(self) -> None:
        """A text was embedded again only where a kill had lost it on its way."""
        asked: Counter[str] = Counter()
        for request in self.service.requests:
            asked.update(set(request.texts))
        again = [text[:60] for text, count in asked.items() if count > 1 + self.in_flight[text]]
        assert not again, f"{len(again)} texts were embedded again without need, such as {again[:3]}"


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _same(stored: Sequence[tuple[Any, ...]], form: Sequence[tuple[Any, ...]]) -> bool:
    if [one[:3] for one in stored] != [one[:3] for one in form]:
        return False
    return all(
        (have is None) == (want is None) and (want is None or np.allclose(json.loads(have), want, atol=1e-5))
        for (*_, have), (*_, want) in zip(stored, form, strict=True)
    )


def state(dsn: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that is stored, in an order that does not hang on where rows lie."""
    return {name: sorted(part) for name, part in snapshot(dsn).items()}


@contextlib.contextmanager
def when(dsn: str, pattern: str, act: Callable[[int], None]) -> Iterator[list[str]]:
    """Call ``act`` with the backend's pid once a statement of pgseek matches; the list then holds it."""
    hit: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        with contextlib.suppress(Exception), connect(dsn, application_name="watcher") as connection:
            while not stop.is_set() and not hit:
                found = connection.execute(
                    "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'pgseek' AND state = 'active' AND query ~ %s LIMIT 1",
                    [pattern],
                ).fetchall()
                if found:
                    hit.append(found[0]["query"])
                    act(found[0]["pid"])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield hit
    finally:
        stop.set()
        thread.join()
