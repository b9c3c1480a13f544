"""Rows to records: which column is the id, which are the text, and what goes into the metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgseek.errors import InvalidInput
from pgseek.sources.values import json_value, text_value


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a table, or the fields of JSON lines, mean.

    ``id``, ``title`` and ``language`` name a column each; None means the column of that name if there is
    one (``_id`` will do for the id), '' that there is none. ``text`` names one column or several, which
    are joined by blank lines; empty ones are left out. ``metadata`` names the columns that go there, None
    means all others. A column called ``metadata`` that holds a JSON object is merged into it.
    ``text_format`` says what the texts are written in, such as 'markdown'; see `Document.format`.
    """

    id: str | None = None
    text: str | tuple[str, ...] = "text"
    title: str | None = None
    language: str | None = None
    metadata: tuple[str, ...] | None = None
    text_format: str = ""

    def __post_init__(self) -> None:
        if self.id == "":
            raise InvalidInput("the id column is '', but every document needs an id; name a column")
        object.__setattr__(self, "text", _names("text", self.text))
        if not self.text:
            raise InvalidInput("text names no column; name at least one")
        if self.metadata is not None:
            object.__setattr__(self, "metadata", _names("metadata", self.metadata))


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one table, found: ``title`` and ``language`` are '' where there are none."""

    id: str
    texts: tuple[str, ...]
    title: str
    language: str
    format: str
    metadata: tuple[str, ...]
    text_format: str

    def record(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the document of a row as a mapping; ``where`` is its place, for messages.

        Raises:
            InvalidInput: a column holds what it cannot be made of.
        """
        made: dict[str, Any] = {"id": _id(row[self.id]), "text": self._text(row)}
        if self.title:
            made["title"] = text_value(self.title, row[self.title])
        if self.language:
            made["language"] = text_value(self.language, row[self.language]) or None
        written_in = text_value(self.format, row[self.format]) if self.format else ""
        if written_in or self.text_format:
            made["format"] = written_in or self.text_format
        if self.metadata:
            made["metadata"] = self._metadata(row, where)
        return made

    def _text(self, row: Mapping[str, Any]) -> str:
        parts = (text_value(name, row[name]) for name in self.texts)
        return "\n\n".join(part for part in parts if part.strip()) if len(self.texts) > 1 else next(parts)

    def _metadata(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        made = {name: json_value(row[name]) for name in self.metadata if name != "metadata"}
        if "metadata" in self.metadata:
            made |= _object(row["metadata"], where)
        return made


def layout(columns: Columns, names: Sequence[str], *, sparse: bool = False) -> Layout:
    """Find ``columns`` among the ``names`` of a table.

    With ``sparse``, as JSON has it, a row need not have every column: one of the texts will do.

    Raises:
        InvalidInput: a column is missing; the message lists those there are.
    """
    known = set(names)
    texts = tuple(columns.text)
    present = tuple(name for name in texts if name in known)
    key = columns.id or ("id" if "id" in known or "_id" not in known else "_id")
    wanted = [key, *(texts if not sparse else present or texts[:1])]
    if not sparse:
        wanted += [name for name in (columns.title, columns.language) if name]
        wanted += columns.metadata or ()
    for name in wanted:
        if name not in known:
            raise InvalidInput(f"there is no column {name!r}; there are: {', '.join(names) or 'none'}")
    title = _optional(columns.title, "title", known, texts)
    language = _optional(columns.language, "language", known, texts)
    written_in = "" if columns.text_format else _optional(None, "format", known, texts)
    used = {key, *texts, title, language, written_in}
    metadata = columns.metadata
    if metadata is None:
        metadata = tuple(name for name in names if name not in used)
    return Layout(
        key,
        present if sparse else texts,
        title,
        language,
        written_in,
        tuple(name for name in metadata if name in known),
        columns.text_format,
    )


def _optional(given: str | None, field: str, known: Iterable[str], texts: tuple[str, ...]) -> str:
    if given is None:
        return field if field in known and field not in texts else ""
    return given if given in known else ""


def _names(field: str, given: object) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else None
    if names is None or not all(isinstance(name, str) and name for name in names):
        raise InvalidInput(f"{field} is {given!r}, but must be names of columns")
    return names


def _id(value: Any) -> Any:
    # A missing id, a number's range and the like are checked where all documents are.
    return value if value is None or isinstance(value, str | int | float) else text_value("id", value)


def _object(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"the metadata in {where} is not JSON: {json_reason(error)}") from error
    value = json_value({} if value is None else value)
    if not isinstance(value, dict):
        raise InvalidInput(f"the metadata in {where} is a {type(value).__name__}, not an object")
    return value


def json_reason(error: ValueError | RecursionError) -> str:
    """Return why a text is not JSON."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
