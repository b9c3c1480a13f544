"""How many records a file holds, where a glance tells: for an estimate of the time that is left."""

from __future__ import annotations

from pathlib import Path

from pgseek.errors import MissingExtra
from pgseek.sources.extra import required
from pgseek.sources.formats import ROWS, Format

# Bytes: lines are counted in files of no more.
MOST = 2**32
CHUNK = 2**20


def records_in(name: str, kind: Format) -> int | None:
    """Return about how many records a file has, None where that takes as long as reading it."""
    if kind not in ROWS:
        return 1
    path = Path(name)
    try:
        if kind == "parquet" and path.suffix != ".gz":
            _, parquet = required("parquet")
            return int(parquet.read_metadata(path).num_rows)
        if path.suffix == ".gz" or path.stat().st_size > MOST:
            return None
        with path.open("rb") as stream:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(CHUNK), b""))
    except (OSError, ValueError, MissingExtra):
        # It is read in a moment, and says so then.
        return None
    # (A cell may hold a line break: then there are fewer.)
    return max(0, lines - (kind != "jsonl"))
