"""Files, folders and patterns to records, in order."""

from __future__ import annotations

import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pgseek.errors import InvalidInput, MissingExtra
from pgseek.sources.ahead import Ahead, Outcome
from pgseek.sources.columns import Columns
from pgseek.sources.counting import records_in
from pgseek.sources.csv_rows import csv_rows
from pgseek.sources.extra import check
from pgseek.sources.formats import (
    ROWS,
    TOLD,
    TOLD_FORMATS,
    Format,
    check_format,
    ending_of,
    format_of,
)
from pgseek.sources.json_lines import json_lines
from pgseek.sources.parquet import parquet_rows
from pgseek.sources.walk import Patterns, is_pattern, walk, walk_pattern
from pgseek.sources.whole import open_file, read_stream
from pgseek.types import Rejection


class Files:
    """Documents of files: an iterable for `Collection.ingest`, which may be read more than once.

    ``paths`` are files, folders, patterns such as ``docs/**/*.md``, and ``-`` for standard input. A
    folder is searched to its bottom for endings that tell a format; ``format`` is for files whose ending
    does not. Hidden files and what .gitignore leaves out are passed over, and ``include`` and
    ``exclude`` are patterns as in .gitignore; all of that is for folders and patterns: a file that is
    named is read. ``columns`` says what the columns of CSV, TSV, Parquet and JSON lines mean.
    ``processes`` help this one to parse HTML, PDF and DOCX where that takes long: None one less than there
    are processors, 0 none.

    The id of a file's document is its path as given, with slashes. ``skipped`` counts, per ending, the
    files of folders that were passed over because their ending tells no format, of the last reading.

    Raises:
        InvalidInput: a path does not exist, a folder holds nothing to read, or an ending tells no
            format. Every path is looked at before the first record is read.
        MissingExtra: a file that is named needs a package that is not installed. Files of a folder
            become rejections that say so.
    """

    def __init__(
        self,
        *paths: str | os.PathLike[str],
        format: Format | None = None,  # noqa: A002 (the field's word)
        columns: Columns | None = None,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        gitignore: bool = True,
        hidden: bool = False,
        processes: int | None = None,
        stdin: IO[bytes] | None = None,
    ) -> None:
        check_format(format)
        if isinstance(include, str) or isinstance(exclude, str):
            raise InvalidInput("include and exclude are lists of patterns, not one text")
        if processes is not None and processes < 0:
            raise InvalidInput(f"processes is {processes!r}, but must be a number from 0 up")
        self._paths = [os.fspath(path) for path in paths]
        self._format: Format | None = format
        self._columns = columns
        self._patterns = Patterns(tuple(include), tuple(exclude), gitignore, hidden)
        self._processes = _helpers() if processes is None else processes
        self._stdin = stdin
        self.skipped: Counter[str] = Counter()
        for path in self._paths:
            self._look_at(path)

    def __iter__(self) -> Iterator[Any]:
        self.skipped.clear()
        return self._read()

    def expected(self) -> int | None:
        """Return about how many documents there are, None where only reading them would tell."""
        total = 0
        for found in self._plan():
            if isinstance(found, Rejection):
                total += 1
            elif found[0] == "-" or (records := records_in(*found)) is None:
                return None
            else:
                total += records
        return total

    def _look_at(self, path: str) -> None:
        if path == "-":
            check(self._format or "jsonl")
            return
        if _searched(path):
            if next(self._found(path, Counter()), None) is None:
                what = "folder" if Path(path).is_dir() else "pattern"
                raise InvalidInput(
                    f"{what} {path} holds no file to read: none that .gitignore and the patterns leave"
                    f" and that ends in {TOLD}"
                )
            return
        file = Path(path)
        if not file.exists():
            raise InvalidInput(f"there is no file {path}")
        kind = self._format or format_of(file)
        if kind is None:
            raise InvalidInput(f"{path} ends in none of {TOLD}; say --format {TOLD_FORMATS}")
        check(kind)

    def _found(self, path: str, skipped: Counter[str]) -> Iterator[tuple[str, Format] | Rejection]:
        """Yield the files that a path stands for, with their formats."""
        if not _searched(path):
            yield Path(path).as_posix(), self._format or format_of(Path(path)) or "text"
            return
        folder = Path(path).is_dir()
        # Files that are asked for by a pattern may have any ending, if it is said what they are.
        asked = not folder or bool(self._patterns.include)
        for file in walk(Path(path), self._patterns) if folder else walk_pattern(path, self._patterns):
            if isinstance(file, Rejection):
                yield file
                continue
            kind = format_of(file)
            if kind is None and not (asked and self._format):
                skipped[ending_of(file)] += 1
            else:
                yield file.as_posix(), self._format or kind or "text"

    def _plan(self) -> Iterator[tuple[str, Format] | Rejection]:
        for path in self._paths:
            if path == "-":
                yield path, self._format or "jsonl"
                continue
            for found in self._found(path, self.skipped):
                yield found if isinstance(found, Rejection) else _checked(*found, named=not _searched(path))

    def _read(self) -> Iterator[Outcome]:
        with Ahead(self._processes) as ahead:
            for found in self._plan():
                if isinstance(found, tuple) and (found[0] == "-" or found[1] in ROWS):
                    while ahead:
                        yield ahead.take()
                    yield from self._records(*found)
                    continue
                ahead.add(found)
                while ahead.full:
                    yield ahead.take()
            while ahead:
                yield ahead.take()

    def _records(self, name: str, kind: Format) -> Iterator[Outcome]:
        if name == "-":
            yield from self._of_stream(self._stdin or sys.stdin.buffer, name, kind)
            return
        try:
            with open_file(name) as stream:
                yield from self._of_stream(stream, name, kind)
        except (OSError, EOFError, zlib.error) as error:
            yield Rejection(0, None, f"cannot be read: {error}", name)

    def _of_stream(self, stream: IO[bytes], name: str, kind: Format) -> Iterator[Outcome]:
        match kind:
            case "jsonl":
                return json_lines(stream, name, self._columns)
            case "csv" | "tsv":
                return csv_rows(stream, name, self._columns, "," if kind == "csv" else "\t")
            case "parquet":
                return parquet_rows(stream, name, self._columns)
        return iter([read_stream(stream, name, kind)])


def read_sources(
    paths: Iterable[str], given: Format | None = None, stdin: IO[bytes] | None = None
) -> Iterator[Outcome]:
    """Yield the records of `Files`."""
    return iter(Files(*paths, format=given, stdin=stdin))


def _checked(name: str, kind: Format, *, named: bool) -> tuple[str, Format] | Rejection:
    """Return a file that can be read, or why it cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        return Rejection(0, None, "the name of the file is not UTF-8, so it can be no id; rename it", shown)
    try:
        check(kind)
    except MissingExtra as error:
        if named:
            raise
        return Rejection(0, name, str(error), name)
    return name, kind


def _searched(path: str) -> bool:
    """Whether a path is a folder or a pattern; a file whose name looks like a pattern is a file."""
    return Path(path).is_dir() or (is_pattern(path) and not Path(path).exists())


def _helpers() -> int:
    """Return how many processes may help this one: none where there is no interpreter to run."""
    if not sys.executable or getattr(sys, "frozen", False):
        return 0
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return available - 1
