"""JSON lines: a document a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

from pgseek.errors import InvalidInput
from pgseek.sources.columns import Columns, Layout, json_reason, layout
from pgseek.sources.values import not_utf8
from pgseek.types import DOCUMENT_FIELDS, Located, Rejection

_FIELDS = ("_id", *DOCUMENT_FIELDS)
# Bytes: a file without line ends is not read into memory whole.
MAX_LINE = 256 * 2**20


def json_lines(
    stream: IO[bytes], source: str, columns: Columns | None = None
) -> Iterator[Located | Rejection]:
    """Yield the objects of a stream; without ``columns`` their fields are those of a document."""
    keys: tuple[str, ...] = ()
    found: Layout | None = None
    for number, line in enumerate(_lines(stream), 1):
        where = f"line {number}"
        if line is None:
            yield Rejection(number, None, f"{where} is longer than {MAX_LINE:,} bytes", source)
            continue
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not text:
                continue
            record = json.loads(text)
        except UnicodeDecodeError as error:
            yield Rejection(number, None, not_utf8(error), source)
            continue
        except (ValueError, RecursionError) as error:
            yield Rejection(number, None, f"{where} is not JSON: {json_reason(error)}", source)
            continue
        if not isinstance(record, dict):
            reason = f"{where} is a JSON {type(record).__name__}, not an object"
            yield Rejection(number, None, reason, source)
        elif columns is None:
            yield Located(_with_metadata(record), number, source)
        else:
            try:
                # Lines mostly have the fields of the line before.
                if found is None or keys != tuple(record):
                    keys = tuple(record)
                    found = layout(columns, keys, sparse=True)
                yield Located(found.record(record, where), number, source)
            except (InvalidInput, RecursionError) as error:
                yield Rejection(number, None, f"{where}: {error}", source)


def _lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Yield lines, and None for one that is too long."""
    while line := stream.readline(MAX_LINE + 1):
        if len(line) <= MAX_LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE)
        yield None


def _with_metadata(record: dict[str, Any]) -> dict[str, Any]:
    """Move fields that a document does not have into its metadata."""
    others = {name: value for name, value in record.items() if name not in _FIELDS}
    if not others or not isinstance(record.get("metadata") or {}, dict):
        return record
    kept = {name: value for name, value in record.items() if name in _FIELDS}
    return {**kept, "metadata": {**others, **(record.get("metadata") or {})}}
