"""What the demo stores and asks."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from pgseek.errors import PgseekError

COLLECTION = "python-docs"

# Title, query, filter: a question in plain words, an exact identifier, an error's name, a phrase,
# and a query with a filter on metadata.
QUERIES: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    ("A question", "how do I cache the results of a function", None),
    ("An identifier", "functools.lru_cache", None),
    ("An error's name", "ENOENT", None),
    ("A phrase", "context manager that suppresses exceptions", None),
    ("With a filter", "remove the first matching element", {"module": "collections", "kind": "method"}),
)


def collect() -> list[dict[str, Any]]:
    """Return the corpus of this interpreter, made by a process of its own."""
    made = subprocess.run(
        [sys.executable, "-m", "pgseek.demo.corpus"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if made.returncode != 0:
        raise PgseekError(f"reading the standard library failed: {made.stderr.strip()[-300:]}")
    return [json.loads(line) for line in made.stdout.splitlines()]
