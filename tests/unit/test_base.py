"""The checks that every embedder's vectors pass, whoever wrote the embedder."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support import CountingEmbedder

from pgseek.embedders.base import (
    Embedder,
    checked_documents,
    checked_query,
    identity_hash,
    normalize,
    usable,
)
from pgseek.errors import EmbedderError, MissingExtra
from pgseek.types import EmbedderIdentity


class Returning:
    """An embedder of somebody else: whatever it was given comes back, or is raised."""

    def __init__(self, answer, dimensions: int = 3):
        self.identity = EmbedderIdentity("own", "model", dimensions, normalized=False)
        self.model_id = str(self.identity)
        self.answer = answer

    def embed_documents(self, texts):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def embed_query(self, text):
        return self.embed_documents([text])


CHECKS = [lambda embedder: checked_documents(embedder, ["a"]), lambda embedder: checked_query(embedder, "a")]


def test_an_object_with_the_right_methods_is_an_embedder():
    assert isinstance(Returning([]), Embedder)
    assert isinstance(CountingEmbedder(), Embedder)
    assert not isinstance(object(), Embedder)


@pytest.mark.parametrize(
    "answer",
    [
        [[1, 2, 3], [4, 5, 6]],
        ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
        np.array([[1, 2, 3], [4, 5, 6]]),
        np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float16),
        np.asfortranarray(np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float64)),
    ],
    ids=["lists", "tuples", "integers", "halves", "by column"],
)
def test_documents_are_made_contiguous_float32(answer):
    vectors = checked_documents(Returning(answer), ["a", "b"])
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert vectors.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("answer", "shape"),
    [
        ([[1, 2, 3]], "(1, 3)"),
        ([[1, 2], [3, 4]], "(2, 2)"),
        ([[1, 2, 3, 4]] * 2, "(2, 4)"),
        ([1, 2, 3], "(3,)"),
        ([], "(0,)"),
        ([[[1, 2, 3]], [[1, 2, 3]]], "(2, 1, 3)"),
    ],
)
def test_documents_of_another_shape_are_refused_with_both_shapes(answer, shape):
    with pytest.raises(EmbedderError) as caught:
        checked_documents(Returning(answer), ["a", "b"])
    assert "own:model@3" in str(caught.value)
    assert f"shape {shape} for 2 texts" in str(caught.value)
    assert "needs (2, 3)" in str(caught.value)


def test_rows_that_are_not_finite_are_left_to_the_caller():
    vectors = checked_documents(Returning([[1, 2, 3], [math.nan, 0, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert [usable(row) for row in vectors] == [True, False, False]


@pytest.mark.parametrize(
    ("answer", "shape"), [([[1, 2, 3]], "(1, 3)"), ([1, 2], "(2,)"), (5.0, "(1,)"), ([], "(0,)")]
)
def test_a_query_of_another_shape_is_refused_with_both_shapes(answer, shape):
    with pytest.raises(EmbedderError) as caught:
        checked_query(Returning(answer), "a")
    assert f"own:model@3 returned a query vector of shape {shape}" in str(caught.value)
    assert "needs (3,)" in str(caught.value)


@pytest.mark.parametrize("vector", [[0, 0, 0], [math.nan, 1, 1], [1, math.inf, 1], [1, 1, -math.inf]])
def test_an_unusable_query_vector_is_refused(vector):
    with pytest.raises(EmbedderError, match="own:model@3 returned a zero or non-finite vector"):
        checked_query(Returning(vector), "a")


@pytest.mark.parametrize(
    "answer",
    [RuntimeError("out of memory"), TypeError("bad"), KeyError("x"), ["a", "b"], [[1], [1, 2]], None],
    ids=repr,
)
@pytest.mark.parametrize("check", CHECKS, ids=["documents", "query"])
def test_a_failure_names_the_model_and_keeps_its_cause(check, answer):
    with pytest.raises(EmbedderError, match=r"own:model@3") as caught:
        check(Returning(answer))
    if isinstance(answer, Exception):
        assert caught.value.__cause__ is answer


@pytest.mark.parametrize(
    "error", [EmbedderError("rate limit"), MissingExtra("a package", "openai")], ids=repr
)
@pytest.mark.parametrize("check", CHECKS, ids=["documents", "query"])
def test_an_error_of_pgseek_passes_as_it_is(check, error):
    with pytest.raises(type(error)) as caught:
        check(Returning(error))
    assert caught.value is error


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        ([1, 0], True),
        ([-1e-30, 0], True),
        ([0, 0], False),
        ([-0.0, 0.0], False),
        ([], False),
        ([math.nan, 1], False),
        ([math.inf, 1], False),
        ([-math.inf, math.inf], False),
    ],
)
def test_a_vector_is_usable_if_it_has_a_direction(vector, expected):
    assert usable(np.array(vector, dtype=np.float32)) is expected


# Beyond 1e±18 the square of a float32 is no float32.
NUMBERS = st.just(0.0) | st.floats(2**-40, 2**40, width=32) | st.floats(-(2**40), -(2**-40), width=32)


@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 6), st.integers(1, 8)), elements=NUMBERS))
def test_normalize_scales_rows_to_unit_length_and_keeps_their_direction(vectors):
    before = vectors.copy()
    scaled = normalize(vectors)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    assert scaled.shape == vectors.shape
    assert scaled.dtype == np.float32
    assert np.array_equal(vectors, before)
    assert np.allclose(scaled * lengths[:, None], vectors, rtol=1e-5, atol=0)
    assert np.allclose(np.linalg.norm(scaled, axis=1), lengths > 0, atol=1e-5)


def test_normalize_leaves_a_zero_row_zero():
    assert normalize(np.array([[0, 0], [3, 4]], dtype=np.float32)).tolist() == [
        [0, 0],
        pytest.approx([0.6, 0.8]),
    ]


IDENTITY = EmbedderIdentity(
    "openai", "small", 256, normalized=True, query_prompt="q: ", document_prompt="d: "
)
CHANGES = {
    "provider": "other",
    "model": "large",
    "dimensions": 128,
    "normalized": False,
    "query_prompt": "query: ",
    "document_prompt": "",
    "revision": "2026-11",
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(EmbedderIdentity)])
def test_every_field_of_an_identity_changes_its_hash(name):
    changed = dataclasses.replace(IDENTITY, **{name: CHANGES[name]})
    assert identity_hash(changed) != identity_hash(IDENTITY)


def test_prompts_are_not_interchangeable():
    swapped = dataclasses.replace(IDENTITY, query_prompt="d: ", document_prompt="q: ")
    assert identity_hash(swapped) != identity_hash(IDENTITY)


def test_an_identity_hash_never_changes():
    # Stored in databases: a change here would orphan every cached vector and every space.
    assert identity_hash(EmbedderIdentity("openai", "é", 8, normalized=True)) == (
        "003dca12ca9896e116ef090f06250a2d926bf0b26b99cc765a7054ba16384b4c"
    )
