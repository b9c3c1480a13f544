"""Chunking: offsets, sizes, coverage and overlap for any text, and the errors of bad settings."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from texts import TEXTS, WHITE_SPACE

from pgseek.chunking import MAX_SIZE, chunk_text, cut_text, divide
from pgseek.errors import InvalidInput
from pgseek.types import Chunk

SIZES = st.integers(1, 60)


@given(TEXTS, SIZES, st.data())
@example("\r\n" * 5, 1, None)
def test_offsets_lead_back_to_the_text(text, size, data):
    overlap = data.draw(st.integers(0, size - 1)) if data else 0
    for chunk in chunk_text(text, size, overlap):
        assert text[chunk.char_start : chunk.char_end] == chunk.text


@given(TEXTS, SIZES)
@example("👨‍👩‍👧‍👦👨‍👩‍👧‍👦", 1)
@example("e\u0301\u0323\u0301\u0323", 2)
def test_no_chunk_is_larger_than_the_size(text, size):
    assert all(1 <= len(chunk.text) <= size for chunk in chunk_text(text, size))


@given(TEXTS, SIZES)
def test_ordinals_count_up_from_zero_in_the_order_of_the_text(text, size):
    chunks = chunk_text(text, size)
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.char_start for chunk in chunks] == sorted({chunk.char_start for chunk in chunks})


@given(TEXTS, SIZES)
def test_without_overlap_chunks_are_disjoint_and_leave_out_white_space_only(text, size):
    end = 0
    for chunk in chunk_text(text, size):
        assert text[end : chunk.char_start].strip(WHITE_SPACE) == ""
        assert chunk.char_start >= end
        end = chunk.char_end
    assert text[end:].strip(WHITE_SPACE) == ""


@given(TEXTS, st.integers(2, 60), st.data())
def test_neighbours_share_no_more_than_the_overlap_and_lose_nothing(text, size, data):
    overlap = data.draw(st.integers(1, size - 1))
    chunks = chunk_text(text, size, overlap)
    for before, after in pairwise(chunks):
        assert before.char_end - after.char_start <= overlap
        assert text[before.char_end : after.char_start].strip(WHITE_SPACE) == ""
        assert before.char_end < after.char_end
    assert all(len(chunk.text) <= size for chunk in chunks)


def test_an_overlap_is_shared():
    chunks = chunk_text("one two three four five six seven eight", 14, 7)
    shared = [before.char_end - after.char_start for before, after in pairwise(chunks)]
    assert len(chunks) > 2
    assert all(0 < count <= 7 for count in shared)


@given(TEXTS, SIZES)
def test_chunks_have_no_white_space_at_their_ends(text, size):
    assert all(chunk.text == chunk.text.strip(WHITE_SPACE) for chunk in chunk_text(text, size))


@given(st.text(WHITE_SPACE, max_size=50), SIZES)
def test_white_space_alone_has_no_chunk(text, size):
    assert chunk_text(text, size) == []


def test_a_short_text_is_one_chunk():
    (chunk,) = chunk_text("  Hello, world.\n")
    assert (chunk.ordinal, chunk.text, chunk.char_start, chunk.char_end) == (0, "Hello, world.", 2, 15)


def test_paragraphs_are_preferred_to_words():
    chunks = chunk_text("First paragraph here.\n\nSecond paragraph here.", 30)
    assert [chunk.text for chunk in chunks] == ["First paragraph here.", "Second paragraph here."]


def test_the_largest_size_takes_a_token_without_a_border():
    assert [len(chunk.text) for chunk in chunk_text("x" * 250_000, MAX_SIZE)] == [100_000, 100_000, 50_000]


@pytest.mark.parametrize("size", [0, -1, MAX_SIZE + 1, 1.5, "200", None, True])
def test_a_bad_size_is_named_with_its_range(size):
    with pytest.raises(InvalidInput) as caught:
        chunk_text("text", size)
    assert repr(size) in str(caught.value)
    assert "1 to 100,000" in str(caught.value)


@pytest.mark.parametrize("overlap", [-1, 50, 51, 1.5, "5", None, True])
def test_a_bad_overlap_is_named_with_its_range(overlap):
    with pytest.raises(InvalidInput) as caught:
        chunk_text("text", 50, overlap)
    assert repr(overlap) in str(caught.value)
    assert "0 to below 50" in str(caught.value)


def words(text):
    return len(text.split())


@given(
    st.lists(st.sampled_from(["a", "word", "Sentence.", "\n\n", "längeres", "😀"]), min_size=1, max_size=200),
    st.integers(1, 30),
    st.integers(0, 5),
)
def test_divided_chunks_fit_and_lose_no_word(parts, most, title):
    text = " ".join(parts).strip()
    assume(text)
    chunk = Chunk(3, text, 100, 100 + len(text))
    # The title of so many words is read with every piece.
    pieces = divide(chunk, most + title, lambda piece: words(piece) + title)
    assert [piece.ordinal for piece in pieces] == list(range(len(pieces)))
    assert " ".join(piece.text for piece in pieces).split() == text.split()
    for piece in pieces:
        assert text[piece.char_start - 100 : piece.char_end - 100] == piece.text
        assert words(piece.text) <= most


def test_pieces_are_of_like_size():
    text = " ".join(f"w{n}." for n in range(300))
    pieces = divide(Chunk(0, text, 0, len(text)), 256, words)
    assert sorted(words(piece.text) for piece in pieces)[0] > 100


@given(st.text(max_size=60), st.integers(0, 20))
def test_a_cut_text_is_the_longest_beginning_that_fits(text, most):
    cut = cut_text(text, most, len)
    assert cut == text[:most]
    assert words(cut_text(text, most, words)) <= most
