"""Files that are one document each: read, decoded or parsed, and given a title."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from pgseek.errors import MissingExtra
from pgseek.sources.formats import Format
from pgseek.sources.values import not_utf8
from pgseek.types import Located, Rejection

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*?)(?:[ \t]+#+)?[ \t\r]*$", re.MULTILINE)
# Bytes: a server's text ends at a gigabyte, and what is read is in memory several times.
MAX_FILE = 256 * 2**20
# Characters: a longer title is none, whatever a file's properties say.
MAX_TITLE = 1000


class Unreadable(Exception):
    """A file's content is no document; the message is the reason of its rejection."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a file holds. ``format`` is that of ``text``, see `Document.format`; ``title`` may be ''."""

    text: str
    format: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def open_file(path: str | Path) -> IO[bytes]:
    """Open a file for reading; ``.gz`` is decompressed."""
    path = Path(path)
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def read_file(path: str, kind: Format) -> Located | Rejection:
    """Return the document that a file is, or why it is none. Raises `MissingExtra`."""
    try:
        with open_file(path) as stream:
            return read_stream(stream, path, kind)
    except (OSError, EOFError, zlib.error) as error:
        # With its id: a file that cannot be read today is not gone.
        return Rejection(0, path, f"cannot be read: {error}", path)


def read_stream(stream: IO[bytes], source: str, kind: Format) -> Located | Rejection:
    """Return the document that a stream holds, or why it holds none.

    Raises:
        MissingExtra: the package that reads its format is not installed.
        OSError, EOFError, zlib.error: the stream cannot be read.
    """
    content = stream.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        reason = f"the file is longer than {MAX_FILE:,} bytes; divide it, a document can be no longer"
        return Rejection(1, source, reason, source)
    try:
        parsed = _parse(content, kind)
    except Unreadable as error:
        return Rejection(1, source, str(error), source)
    if not parsed.text.strip("\f \t\r\n") and kind not in {"text", "markdown"}:
        return Rejection(1, source, f"the {kind} file has no text", source)
    title = " ".join(parsed.title.split())
    record = {
        "id": source,
        "title": title if 0 < len(title) <= MAX_TITLE else Path(source).name,
        "text": parsed.text,
        "format": parsed.format,
        "metadata": {"path": source, "format": kind, **parsed.metadata},
    }
    return Located(record, 1, source)


def _parse(content: bytes, kind: Format) -> Parsed:
    try:
        match kind:
            # Each loads its package with it.
            case "html":
                from pgseek.sources.html import parse_html  # noqa: PLC0415

                return parse_html(content)
            case "pdf":
                from pgseek.sources.pdf import parse_pdf  # noqa: PLC0415

                return parse_pdf(content)
            case "docx":
                from pgseek.sources.docx import parse_docx  # noqa: PLC0415

                return parse_docx(content)
            case _:
                return _decoded(content, kind)
    except (Unreadable, MissingExtra):
        raise
    except Exception as error:
        # Parsers fail in their own ways on what is damaged; the next file has nothing to do with it.
        detail = " ".join(str(error).split())
        raise Unreadable(f"cannot be read as {kind}: {type(error).__name__}: {detail}") from error


def _decoded(content: bytes, kind: Format) -> Parsed:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(not_utf8(error)) from error
    if "\x00" in text:
        raise Unreadable(f"not text: a NUL byte at character {text.index(chr(0))}")
    return Parsed(text, kind, first_heading(text) if kind == "markdown" else "")


def first_heading(text: str) -> str:
    """Return the first heading of a Markdown text, '' without one."""
    heading = _HEADING.search(_FENCE.sub("", text))
    return heading.group(1) if heading else ""


def clean(text: str) -> str:
    """Return extracted text without what PostgreSQL cannot store, should a damaged file hold it."""
    return text.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
