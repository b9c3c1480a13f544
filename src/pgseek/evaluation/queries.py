"""Queries in a file: one a line, or JSON lines with an id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgseek.errors import InvalidInput


def read_queries(path: str | Path) -> dict[str, str]:
    """Read queries by their ids: JSON lines with ``_id`` or ``id`` and ``text``, else a query a line.

    A plain line's id is its number, from 1; empty lines are passed over. Order is that of the file.

    Raises:
        InvalidInput: no such file, no query in it, or a malformed line or a repeated id; names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read queries from {path}: {error}") from error
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    found: dict[str, str] = {}
    for number, line in lines:
        where = f"{path}:{number}"
        name, query = (str(number), line) if not line.startswith("{") else _record(where, line)
        if name in found:
            raise InvalidInput(f"{where}: query id {name!r} is there twice")
        found[name] = query
    if not found:
        raise InvalidInput(f"{path} holds no query")
    return found


def write_queries(path: str | Path, queries: Mapping[str, str]) -> None:
    """Write queries as JSON lines that `read_queries`, and BEIR's readers, read."""
    with Path(path).open("w", encoding="utf-8") as stream:
        for name, text in queries.items():
            stream.write(json.dumps({"_id": name, "text": text}, ensure_ascii=False) + "\n")


def _record(where: str, line: str) -> tuple[str, str]:
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"{where}: not JSON: {error}") from error
    name = record.get("_id", record.get("id"))
    text = record.get("text")
    if (
        not isinstance(name, str | int)
        or isinstance(name, bool)
        or not isinstance(text, str)
        or not text.strip()
    ):
        raise InvalidInput(f'{where}: a query needs id (or _id) and text, such as {{"id": "1", "text": "…"}}')
    return str(name), text
