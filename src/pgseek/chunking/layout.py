"""How a text is laid out: where it may be divided first, by what, and what is known of a place in it."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

from semantic_text_splitter import TextSplitter

Span = tuple[int, int]
Place = tuple[tuple[str, ...], Mapping[str, Any]]

# The splitters take a time that grows with the square of a text's length: they are shown so much of it, or so
# many chunks, at once.
WINDOW = 100_000
WINDOW_CHUNKS = 8
# A part shorter than this share of a chunk goes together with the one after it.
LEAST_SHARE = 4


class Splitter(Protocol):
    """What semantic-text-splitter's classes have in common."""

    def chunk_indices(self, text: str) -> list[tuple[int, str]]:
        """Return each chunk with the character it begins at."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text, in characters. One of a lower ``level`` never joins what is before it."""

    start: int
    end: int
    level: int = 0


class Layout:
    """Plain text: one part, and nothing is known of a place but its offsets."""

    def parts(self, span: Span, size: int) -> list[Part]:  # noqa: ARG002 (other layouts need it)
        """Return the parts of ``span`` for chunks of ``size``; they follow each other without a gap."""
        return [Part(*span)]

    def splitter(self, size: int, overlap: int) -> Splitter:
        """Return what divides a part."""
        return text_splitter(size, overlap)

    def place(self, start: int, end: int) -> Place:  # noqa: ARG002 (other layouts need them)
        """Return the headings that a chunk stands under, and its provenance; see `types.Chunk`."""
        return (), {}


class Lines(Layout):
    """A text whose chunks know their lines, counted from 1 as editors do."""

    def __init__(self, text: str) -> None:
        self._breaks = [found.start() for found in re.finditer("\n", text)]

    def lines(self, start: int, end: int) -> list[int]:
        """Return the first and the last line of a chunk."""
        return [bisect_left(self._breaks, start) + 1, bisect_left(self._breaks, end - 1) + 1]

    def place(self, start: int, end: int) -> Place:
        """Return the lines."""
        return (), {"lines": self.lines(start, end)}


class Pages(Layout):
    """Pages with form feeds between them, as pdftotext and printers write them.

    A page that ends with a sentence ends a part. One that ends in the midst of a sentence runs on: what
    stands across the break is found together, and the chunk names both pages.
    """

    # A full stop in any script, what may close it, and white space.
    _ENDS = re.compile(r"[.!?…。!?．:;][\"'”’»)\]}]*\s*\f")

    def __init__(self, text: str) -> None:
        self._breaks = [found.start() for found in re.finditer("\f", text)]
        self._ends = [found.end() for found in self._ENDS.finditer(text)]

    def parts(self, span: Span, size: int) -> list[Part]:
        """Return runs of pages, short ones together with the next."""
        first, last = span
        borders = self._ends[bisect_right(self._ends, first) : bisect_left(self._ends, last)]
        edges = [first, *borders, last]
        return joined([Part(a, b) for a, b in pairwise(edges)], size)

    def place(self, start: int, end: int) -> Place:
        """Return the first page and the last, counted from 1."""
        pages = (bisect_left(self._breaks, start) + 1, bisect_left(self._breaks, end - 1) + 1)
        return (), {"page": pages[0], "last_page": pages[1]}


@lru_cache(maxsize=16)
def text_splitter(size: int, overlap: int) -> Splitter:
    """Return the splitter of plain text: paragraphs before sentences before words."""
    made: Splitter = TextSplitter(size, overlap=overlap)
    return made


def joined(parts: Sequence[Part], size: int) -> list[Part]:
    """Join parts that are short for a chunk of ``size`` to the one after, as far as both fit into one."""
    made: list[Part] = []
    for part in parts:
        before = made[-1] if made else None
        if (
            before is not None
            and (before.end - before.start) * LEAST_SHARE < size
            and part.level >= before.level
            and part.end - before.start <= size
        ):
            made[-1] = Part(before.start, part.end, before.level)
        else:
            made.append(part)
    return made


def spans(layout: Layout, text: str, span: Span, size: int, overlap: int) -> list[Span]:
    """Divide ``text[slice(*span)]`` into spans of at most ``size``, without white space at their ends."""
    splitter = layout.splitter(size, overlap)
    return [
        (start, start + len(piece))
        for part in layout.parts(span, size)
        for start, piece in _windows(splitter, text, part, size)
    ]


def _windows(splitter: Splitter, text: str, part: Part, size: int) -> Iterator[tuple[int, str]]:
    """Yield what the splitter makes of a part, shown to it in windows.

    What it does at a place depends on the next ``size`` characters only: the last chunks of a window are left
    to the next one.
    """
    window = max(WINDOW, WINDOW_CHUNKS * size)
    start = part.start
    while start < part.end:
        end = min(start + window, part.end)
        made = splitter.chunk_indices(text[start:end])
        cut = end - start - 2 * size if end < part.end else end - start
        yield from ((start + offset, piece) for offset, piece in made if offset < cut)
        start += next((offset for offset, _ in made if offset >= cut), end - start)
