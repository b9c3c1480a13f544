"""A function as an embedder: what is asked of it, what is noticed, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pgseek import CallableEmbedder
from pgseek.embedders.base import check_probe, checked_documents
from pgseek.errors import EmbedderError, InvalidInput


def ones(texts):
    return np.ones((len(texts), 4))


def test_dimensions_and_length_are_asked_of_the_function_once():
    asked = []

    def function(texts):
        asked.append(list(texts))
        return [[0.6, 0.8]] * len(texts)

    made = CallableEmbedder(function, model="mine")
    assert (made.model_id, made.identity.normalized) == ("callable:mine@2", True)
    assert len(asked) == 1
    CallableEmbedder(function, model="mine", dimensions=2, normalized=False)
    assert len(asked) == 1
    assert not CallableEmbedder(ones, model="mine").identity.normalized
    # Nothing to embed asks nothing.
    assert made.embed_documents([]).shape == (0, 2)
    assert len(asked) == 1


def test_queries_may_have_a_function_of_their_own():
    made = CallableEmbedder(ones, model="mine", query_function=lambda texts: -ones(texts))
    assert np.array_equal(made.embed_query("x"), -made.embed_documents(["x"])[0])


def test_whoever_says_unit_length_must_keep_it():
    made = CallableEmbedder(ones, model="mine", normalized=True)
    with pytest.raises(
        EmbedderError, match=r"callable:mine@4 says that its vectors have unit length, .* length 2:"
    ):
        check_probe(made, made.embed_documents(["pgseek"]))
    free = CallableEmbedder(ones, model="mine", normalized=False)
    check_probe(free, free.embed_documents(["pgseek"]))


@pytest.mark.parametrize(
    "answer", [np.ones(3), np.ones((1, 4)), [], None, "text", [[1], [1, 2]], [[None, "x"]] * 2], ids=repr
)
def test_what_is_no_row_for_each_text_is_an_error_of_the_model(answer):
    made = CallableEmbedder(lambda texts: answer, model="mine", dimensions=4, normalized=True)
    with pytest.raises(EmbedderError, match="callable:mine@4"):
        checked_documents(made, ["a", "b"])


def test_what_the_function_raises_names_the_model():
    with pytest.raises(EmbedderError, match="callable:mine failed: division by zero") as caught:
        CallableEmbedder(lambda texts: 1 / 0, model="mine")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"function": None, "model": "m"}, "give the function"),
        ({"function": 3, "model": "m"}, "function is a int"),
        ({"function": ones, "model": ""}, "a name for its space"),
        ({"function": ones, "model": "m", "query_function": "f"}, "query_function is a str"),
    ],
)
def test_what_is_no_function_or_has_no_name_is_refused(given, words):
    with pytest.raises(InvalidInput, match=words):
        CallableEmbedder(**given)
