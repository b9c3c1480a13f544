"""Documents to chunks, by meaningful boundaries and with character offsets.

The splitter is semantic-text-splitter (Rust): it prefers paragraph, then sentence, then word
borders, and reports offsets in characters. ``benchmarks/chunkers.py`` compares it with chonkie.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from semantic_text_splitter import TextSplitter

from pgseek.errors import InvalidInput
from pgseek.types import Chunk

DEFAULT_SIZE = 2000
MAX_SIZE = 100_000
# How much more than its even share a piece may have.
EVEN_MARGIN = 1.15


def chunk_text(text: str, size: int = DEFAULT_SIZE, overlap: int = 0) -> list[Chunk]:
    """Split ``text`` into chunks of at most ``size`` characters, at most ``overlap`` shared.

    ``text[chunk.char_start:chunk.char_end] == chunk.text`` for each; chunks hold no white space at
    their ends, and text of white space alone has none.

    Raises:
        InvalidInput: ``size`` outside 1..100,000, or ``overlap`` not below ``size``.
    """
    check_chunking(size, overlap)
    return [
        Chunk(ordinal, piece, start, start + len(piece))
        for ordinal, (start, piece) in enumerate(_splitter(size, overlap).chunk_indices(text))
    ]


def divide(chunk: Chunk, most: int, length: Callable[[str], int]) -> list[Chunk]:
    """Split a chunk into ones of at most ``most`` by ``length``, which must not shrink when a text grows.

    They are as many as need be and of like size: a last piece of a few words would say little by itself.
    Offsets stay those of the document. A single character may be longer than ``most``.
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
    return [
        Chunk(n, text, chunk.char_start + start, chunk.char_start + start + len(text))
        for n, (start, text) in enumerate(pieces)
    ]


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


def check_chunking(size: int, overlap: int) -> None:
    """Raise `InvalidInput` unless ``size`` is in 1..100,000 and ``overlap`` in 0..size-1."""
    if type(size) is not int or not 1 <= size <= MAX_SIZE:
        raise InvalidInput(f"chunk size is {size!r}, but must be from 1 to {MAX_SIZE:,} characters")
    if type(overlap) is not int or not 0 <= overlap < size:
        raise InvalidInput(f"chunk overlap is {overlap!r}, but must be from 0 to below {size}")


@lru_cache(maxsize=16)
def _splitter(size: int, overlap: int) -> TextSplitter:
    return TextSplitter(size, overlap=overlap)
