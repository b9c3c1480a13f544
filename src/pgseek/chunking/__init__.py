"""Documents to chunks, by meaningful boundaries and with character offsets.

The splitters are semantic-text-splitter's (Rust). Before they see a text it is divided where its format
says that a part ends: at headings, pages, definitions. A border then depends on what stands near it: an
edit leaves the chunks of other parts as they are, and what is known of them (vectors, questions) is kept.
``benchmarks/chunkers.py`` compares libraries, ``benchmarks/edits.py`` counts the chunks an edit leaves alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace

from semantic_text_splitter import TextSplitter

from pgseek.chunking.code import LANGUAGES, outline
from pgseek.chunking.layout import Layout, Lines, Pages, spans
from pgseek.chunking.markdown import Markdown
from pgseek.errors import InvalidInput
from pgseek.types import Chunk

__all__ = [
    "DEFAULT_SIZE",
    "FORMATS",
    "MAX_SIZE",
    "check_chunking",
    "check_format",
    "chunk_text",
    "cut_text",
    "divide",
]

DEFAULT_SIZE = 2000
MAX_SIZE = 100_000
# A section is read, not embedded: it may be as long as one wants to read.
MAX_SECTION = 1_000_000
# How much more than its even share a piece may have.
EVEN_MARGIN = 1.15
#: What a document may be written in. '' is plain text; 'text' is as well, but its chunks know their lines.
FORMATS = ("", "text", "markdown", "pages", *LANGUAGES)


def chunk_text(
    text: str,
    size: int = DEFAULT_SIZE,
    overlap: int = 0,
    format: str = "",  # noqa: A002 (the field's word)
    section_size: int = 0,
) -> list[Chunk]:
    """Split ``text`` into chunks of at most ``size`` characters, at most ``overlap`` shared.

    ``text[chunk.char_start:chunk.char_end] == chunk.text`` for each; chunks hold no white space at
    their ends (but in Markdown and code the indentation of their first line), and text of white space
    alone has none. ``format`` is one of `FORMATS`. With
    ``section_size`` the text is divided into sections of at most so many characters first, and each
    chunk knows the span of its own; 0 is off.

    Raises:
        InvalidInput: ``size`` outside 1..100,000, ``overlap`` not below ``size``, ``section_size`` neither
            0 nor in ``size``..1,000,000, or a format that is not known.
    """
    check_chunking(size, overlap, section_size)
    layout = _layout(format, text)
    sections = spans(layout, text, (0, len(text)), section_size, 0) if section_size else [(0, len(text))]
    chunks: list[Chunk] = []
    for section in sections:
        for start, end in spans(layout, text, section, size, overlap):
            heading, provenance = layout.place(start, end)
            own = section if section_size else None
            chunks.append(Chunk(len(chunks), text[start:end], start, end, "chunk", heading, provenance, own))
    return chunks


def _layout(format: str, text: str) -> Layout:  # noqa: A002
    check_format(format)
    match format:
        case "":
            return Layout()
        case "text":
            return Lines(text)
        case "pages":
            return Pages(text)
        case "markdown":
            return Markdown(text)
        case _:
            return outline(format, text)


def divide(chunk: Chunk, most: int, length: Callable[[str], int]) -> list[Chunk]:
    """Split a chunk into ones of at most ``most`` by ``length``, which must not shrink when a text grows.

    They are as many as need be and of like size: a last piece of a few words would say little by itself.
    Offsets stay those of the document, and each piece knows its own lines and pages. A single character may
    be longer than ``most``.
    """
    # The splitter takes lengths to add up: what each piece has besides its text, its title, is set aside.
    each = length("")
    room = max(1, most - each)
    whole = length(chunk.text) - each
    parts = max(1, -(-whole // room))
    # The borders of sentences lie where they lie.
    even = min(room, int(whole / parts * EVEN_MARGIN) + 1)
    pieces = TextSplitter.from_callback(lambda text: max(0, length(text) - each), even).chunk_indices(
        chunk.text
    )
    return [_piece(chunk, n, start, text) for n, (start, text) in enumerate(pieces)]


def _piece(chunk: Chunk, ordinal: int, start: int, text: str) -> Chunk:
    place = dict(chunk.provenance)
    if "lines" in place:
        first = place["lines"][0] + chunk.text.count("\n", 0, start)
        place["lines"] = [first, first + text.count("\n")]
    if "page" in place:
        place["page"] += chunk.text.count("\f", 0, start)
        place["last_page"] = place["page"] + text.count("\f")
    begin = chunk.char_start + start
    return replace(
        chunk, ordinal=ordinal, text=text, char_start=begin, char_end=begin + len(text), provenance=place
    )


def cut_text(text: str, most: int, length: Callable[[str], int]) -> str:
    """Return the longest beginning of ``text`` of at most ``most`` by ``length``; '' if there is none."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if length(text[:middle]) <= most:
            low = middle
        else:
            high = middle - 1
    return text[:low]


def check_chunking(size: int, overlap: int, section_size: int = 0) -> None:
    """Raise `InvalidInput` unless the sizes fit: see `chunk_text`."""
    if type(size) is not int or not 1 <= size <= MAX_SIZE:
        raise InvalidInput(f"chunk size is {size!r}, but must be from 1 to {MAX_SIZE:,} characters")
    if type(overlap) is not int or not 0 <= overlap < size:
        raise InvalidInput(f"chunk overlap is {overlap!r}, but must be from 0 to below {size}")
    if type(section_size) is not int or (section_size and not size <= section_size <= MAX_SECTION):
        raise InvalidInput(
            f"section size is {section_size!r}, but must be 0, or from the chunk size, {size:,}, to "
            f"{MAX_SECTION:,} characters"
        )


def check_format(format: str) -> None:  # noqa: A002
    """Raise `InvalidInput`, naming the formats there are, unless ``format`` is one of them."""
    if format not in FORMATS:
        near = difflib.get_close_matches(format, FORMATS, 1) if isinstance(format, str) else []
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(filter(None, FORMATS))
        raise InvalidInput(f"format {format!r} is unknown; {hint}known are {known}, and '' for plain text")
