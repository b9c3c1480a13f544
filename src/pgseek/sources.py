"""Files to documents: text, Markdown, JSON lines and CSV, plain or gzip-compressed.

Readers stream: one record at a time, each with the place it came from. What cannot be read becomes
a `Rejection` in its place, so that the rest goes in.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, cast

from pgseek.errors import InvalidInput
from pgseek.types import Located, Rejection

Format = Literal["text", "markdown", "jsonl", "csv"]
FORMATS: tuple[Format, ...] = ("text", "markdown", "jsonl", "csv")
_SUFFIXES: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}
_FIELDS = ("id", "_id", "text", "title", "metadata", "language")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*?)(?:[ \t]+#+)?[ \t\r]*$", re.MULTILINE)
# A cell may be as long as a document; csv's own limit is 128 KiB.
csv.field_size_limit(2**31 - 1)


def read_sources(
    paths: Iterable[str], given: Format | None = None, stdin: IO[bytes] | None = None
) -> Iterator[Located | Rejection]:
    """Yield the records of files, of folders (searched for known endings) and of ``-``.

    ``given`` overrides the format the ending implies; standard input is JSON lines without it.

    Raises:
        InvalidInput: a path does not exist, or a file's ending tells no format. Every path is
            looked at before the first record is read.
    """
    if given is not None and given not in FORMATS:
        raise InvalidInput(f"format is {given!r}, but must be one of {', '.join(FORMATS)}")
    plan: list[tuple[str, Path | None, Format]] = []
    for path in paths:
        if path == "-":
            plan.append(("-", None, given or "jsonl"))
        else:
            plan += [(str(file), file, given or _format(file)) for file in _files(Path(path), given)]
    return _read(plan, stdin)


def _read(
    plan: list[tuple[str, Path | None, Format]], stdin: IO[bytes] | None
) -> Iterator[Located | Rejection]:
    for name, path, kind in plan:
        if path is None:
            yield from _records(stdin or sys.stdin.buffer, "-", kind)
            continue
        try:
            with _open(path) as stream:
                yield from _records(stream, path.as_posix(), kind)
        except (OSError, EOFError, zlib.error) as error:
            yield Rejection(0, None, f"cannot be read: {error}", name)


def _files(path: Path, given: Format | None) -> list[Path]:
    if path.is_dir():
        found = sorted(f for f in path.rglob("*") if f.is_file() and _known(f))
        if not found:
            raise InvalidInput(f"folder {path} holds no file ending in {', '.join(_SUFFIXES)}")
        return found
    if not path.exists():
        raise InvalidInput(f"there is no file {path}")
    if given is None and not _known(path):
        raise InvalidInput(
            f"{path} ends in none of {', '.join(_SUFFIXES)}; say --format {' or '.join(FORMATS)}"
        )
    return [path]


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()


def _known(path: Path) -> bool:
    return _suffix(path) in _SUFFIXES


def _format(path: Path) -> Format:
    return _SUFFIXES[_suffix(path)]


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def _records(stream: IO[bytes], source: str, kind: Format) -> Iterator[Located | Rejection]:
    if kind == "jsonl":
        return _json_lines(stream, source)
    if kind == "csv":
        return _csv_rows(stream, source)
    return iter([_whole(stream, source, kind)])


def _whole(stream: IO[bytes], source: str, kind: Format) -> Located | Rejection:
    try:
        text = stream.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Rejection(1, source, _not_utf8(error), source)
    heading = _HEADING.search(_FENCE.sub("", text)) if kind == "markdown" else None
    title = heading.group(1) if heading else Path(source).name
    record = {"id": source, "title": title, "text": text, "metadata": {"path": source, "format": kind}}
    return Located(record, 1, source)


def _json_lines(stream: IO[bytes], source: str) -> Iterator[Located | Rejection]:
    for number, line in enumerate(stream, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not text:
                continue
            record = json.loads(text)
        except UnicodeDecodeError as error:
            yield Rejection(number, None, _not_utf8(error), source)
        except (ValueError, RecursionError) as error:
            yield Rejection(number, None, f"line {number} is not JSON: {_json_reason(error)}", source)
        else:
            if isinstance(record, dict):
                yield Located(_with_metadata(record), number, source)
            else:
                kind = type(record).__name__
                yield Rejection(number, None, f"line {number} is a JSON {kind}, not an object", source)


def _csv_rows(stream: IO[bytes], source: str) -> Iterator[Located | Rejection]:
    # What is not UTF-8 arrives as surrogates, so that one bad row does not end the reading.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        rows = csv.DictReader(text, strict=True)
        try:
            header = rows.fieldnames or []
        except csv.Error as error:
            yield Rejection(1, None, f"not CSV: {error}", source)
            return
        missing = [] if "id" in header or "_id" in header else ["id"]
        missing += [] if "text" in header else ["text"]
        if missing:
            reason = f"the CSV header is {', '.join(header) or 'empty'}; it needs the column {missing[0]!r}"
            yield Rejection(1, None, reason, source)
            return
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                yield Rejection(
                    rows.reader.line_num, None, f"not CSV: {error}; the rest of the file was not read", source
                )
                return
            if row is None:
                return
            yield _csv_row(row, rows.line_num, source)
    finally:
        text.detach()


def _csv_row(row: dict[str | Any, Any], number: int, source: str) -> Located | Rejection:
    if None in row:
        reason = f"line {number} has more cells than the header has names"
        return Rejection(number, row.get("id") or row.get("_id"), reason, source)
    if any(value is None for value in row.values()):
        reason = f"line {number} has fewer cells than the header has names"
        return Rejection(number, row.get("id") or row.get("_id"), reason, source)
    if any("\udc80" <= c <= "\udcff" for value in row.values() for c in value):
        return Rejection(number, None, f"line {number} is not UTF-8", source)
    metadata = row.get("metadata")
    if metadata is not None:
        try:
            row["metadata"] = json.loads(metadata) if metadata.strip() else {}
        except (ValueError, RecursionError) as error:
            reason = f"the metadata in line {number} is not JSON: {_json_reason(error)}"
            return Rejection(number, row.get("id") or row.get("_id"), reason, source)
    row["language"] = row.get("language") or None
    return Located(_with_metadata(row), number, source)


def _with_metadata(record: dict[str, Any]) -> dict[str, Any]:
    """Move fields that a document does not have into its metadata."""
    others = {name: value for name, value in record.items() if name not in _FIELDS}
    if not others or not isinstance(record.get("metadata") or {}, dict):
        return record
    kept = {name: value for name, value in record.items() if name in _FIELDS}
    return {**kept, "metadata": {**others, **(record.get("metadata") or {})}}


def _json_reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}"
