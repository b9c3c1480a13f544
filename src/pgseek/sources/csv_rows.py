"""CSV and TSV: a document a row, under a header of names.

A malformed row costs itself only, where it is certain that it ends: if the quotes read so far come in
pairs, the next line begins a row whichever way the bad one was meant. If one is left open, no one can
tell text from rows any more, and the rest of the file is not read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO, Any

from pgseek.errors import InvalidInput
from pgseek.sources.columns import Columns, Layout, layout
from pgseek.types import Located, Rejection

# A cell may be as long as a document; csv's own limit is 128 KiB.
csv.field_size_limit(2**31 - 1)
# Characters: a quote that is never closed does not bring the rest of a file into memory.
MAX_ROW = 256 * 2**20


def csv_rows(
    stream: IO[bytes], source: str, columns: Columns | None = None, delimiter: str = ","
) -> Iterator[Located | Rejection]:
    """Yield the rows of a stream; the place of a row is the line it begins in."""
    # What is not UTF-8 arrives as surrogates, so that one bad row does not end the reading.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _rows(text, source, columns or Columns(), delimiter)
    finally:
        text.detach()


def _rows(text: IO[str], source: str, columns: Columns, delimiter: str) -> Iterator[Located | Rejection]:
    lines = _Lines(text)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    try:
        header = next(reader, [])
        if any(_surrogates(name) for name in header):
            raise InvalidInput("the header is not UTF-8")
        if repeated := sorted({name for name in header if header.count(name) > 1}):
            raise InvalidInput(f"the header has the column {repeated[0]!r} more than once")
        found = layout(columns, header)
    except (csv.Error, InvalidInput) as error:
        reason = f"not CSV: {error}" if isinstance(error, csv.Error) else str(error)
        yield Rejection(1, None, reason, source)
        return
    while True:
        lines.begin()
        try:
            row = next(reader, None)
        except csv.Error as error:
            place = _place(lines)
            if lines.balanced:
                yield Rejection(lines.first, None, f"{place}: not CSV: {error}", source)
                continue
            reason = f"not CSV: {error} ({place} has a quote too many); the rest of the file was not read"
            yield Rejection(lines.first, None, reason, source)
            return
        if row is None:
            return
        if row:
            yield _row(row, header, found, lines.first, source)


def _row(cells: list[str], header: list[str], found: Layout, line: int, source: str) -> Located | Rejection:
    where = f"line {line}"
    row: dict[str, Any] = dict(zip(header, cells, strict=False))
    given: str | None = row.get(found.id)
    if len(cells) != len(header):
        more = "more" if len(cells) > len(header) else "fewer"
        return Rejection(line, given, f"{where} has {more} cells than the header has names", source)
    if any(map(_surrogates, cells)):
        return Rejection(line, None, f"{where} is not UTF-8", source)
    try:
        return Located(found.record(row, where), line, source)
    except InvalidInput as error:
        return Rejection(line, given, str(error), source)


def _surrogates(text: str) -> bool:
    return not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text)


def _place(lines: _Lines) -> str:
    return f"line {lines.first}" if lines.first == lines.number else f"lines {lines.first} to {lines.number}"


class _Lines:
    """The lines of a text, counted, with what was read since a row began."""

    def __init__(self, text: IO[str]) -> None:
        self.text = text
        self.number = 0
        self.begin()

    def begin(self) -> None:
        """A row begins."""
        self.first = self.number + 1
        self.quotes = 0
        self.characters = 0

    @property
    def balanced(self) -> bool:
        """Whether the quotes of the row come in pairs."""
        return self.quotes % 2 == 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.text.readline(MAX_ROW + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.quotes += line.count('"')
        self.characters += len(line)
        if self.characters > MAX_ROW:
            # Neither a row nor the beginning of one: whatever comes next is not read.
            self.quotes = 1
            raise csv.Error(f"a row of more than {MAX_ROW:,} characters")
        return line
