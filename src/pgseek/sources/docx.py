"""DOCX to Markdown: headings, lists and tables in the order of the text.

python-docx opens the package and knows the styles; the text is read from the elements themselves, since
its ``paragraph.text`` leaves out what is inserted under revision and what stands in content controls.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from pgseek.sources.extra import required
from pgseek.sources.whole import MAX_FILE, Parsed, Unreadable, clean, first_heading

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
# Deleted or moved away under revision, said twice for older readers, and boxes, which have paragraphs.
_NOT_TEXT = {f"{_W}del", f"{_W}moveFrom", _FALLBACK, f"{_W}pPr", f"{_W}rPr", f"{_W}txbxContent"}
_SIGNS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_HEADING = re.compile(r"(?:heading )([1-9])", re.IGNORECASE)


def parse_docx(content: bytes) -> Parsed:
    """Return the text of a Word document as Markdown.

    Raises:
        Unreadable: not a Word document, or one with a password.
        MissingExtra: python-docx is not installed.
    """
    (docx,) = required("docx")
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        raise Unreadable("an encrypted DOCX or an old DOC file; save it as DOCX without a password")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as package:
            unpacked = sum(part.file_size for part in package.infolist())
        if unpacked > MAX_FILE:
            raise Unreadable(f"the DOCX file unpacks to {unpacked:,} bytes; at most {MAX_FILE:,} are allowed")
        document = docx.Document(io.BytesIO(content))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise Unreadable(f"not a DOCX file: {error}") from error
    styles = {style.style_id: style for style in document.styles}
    text = clean("\n".join(_blocks(document.element.body, styles)).strip("\n") + "\n")
    properties = document.core_properties
    stated = {"author": properties.author, "date": properties.created and properties.created.isoformat()}
    metadata = {name: clean(value) for name, value in stated.items() if value}
    return Parsed(text, "markdown", clean(properties.title or "") or first_heading(text), metadata)


def _blocks(parent: Any, styles: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the blocks in an element: a blank line before each but the items of a list."""
    for element in parent:
        if element.tag == f"{_W}p":
            yield from _paragraph(element, styles)
            # What is written in a box belongs where the box is anchored.
            for box in element.iter(f"{_W}txbxContent"):
                if not any(above.tag == _FALLBACK for above in box.iterancestors()):
                    yield from _blocks(box, styles)
        elif element.tag == f"{_W}tbl":
            yield from _table(element)
        elif element.tag not in _NOT_TEXT and len(element):
            # Content controls and the like hold blocks of their own.
            yield from _blocks(element, styles)


def _paragraph(element: Any, styles: dict[str, Any]) -> Iterator[str]:
    text = _text(element).strip()
    if not text:
        return
    level, bullet = _kind(element, styles)
    if level:
        yield ""
        yield f"{'#' * min(level, 6)} {' '.join(text.split())}"
    elif bullet:
        yield f"- {text}"
    else:
        yield ""
        # A sign that would make a heading of plain text.
        yield re.sub(r"^(#{1,6}\s)", r"\\\1", text, flags=re.MULTILINE)


def _kind(element: Any, styles: dict[str, Any]) -> tuple[int, bool]:
    """Return the level of a heading, 0 for other text, and whether it is an item of a list."""
    item = element.find(f"{_W}pPr/{_W}numPr") is not None
    named = element.find(f"{_W}pPr/{_W}pStyle")
    style = styles.get(named.get(f"{_W}val")) if named is not None else None
    while style is not None:
        # The names of Word's own styles are English in every language; others may be based on them.
        if heading := _HEADING.fullmatch(style.name or ""):
            return int(heading[1]), False
        if style.name == "Title":
            return 1, False
        item = item or (style.name or "").startswith("List ")
        style = getattr(style, "base_style", None)
    return 0, item


def _table(element: Any) -> Iterator[str]:
    """Yield a table as Markdown has it; a table in a cell becomes the text of the cell."""
    rows = []
    for row in element.iter(f"{_W}tr"):
        if next(row.iterancestors(f"{_W}tbl")) is element:
            cells = (cell for cell in row.iter(f"{_W}tc") if next(cell.iterancestors(f"{_W}tr")) is row)
            rows.append([" ".join(_text(cell).split()).replace("|", "\\|") for cell in cells])
    if any(map(any, rows)):
        yield ""
        yield f"| {' | '.join(rows[0])} |"
        yield f"|{'---|' * len(rows[0])}"
        yield from (f"| {' | '.join(row)} |" for row in rows[1:])


def _text(element: Any) -> str:
    """Return the text of an element, its paragraphs in lines."""
    parts: list[str] = []
    for child in element:
        if child.tag == f"{_W}t":
            parts.append(child.text or "")
        elif child.tag in _SIGNS:
            parts.append(_SIGNS[child.tag])
        elif child.tag not in _NOT_TEXT:
            parts.append(_text(child))
            if child.tag == f"{_W}p":
                parts.append("\n")
    return "".join(parts)
