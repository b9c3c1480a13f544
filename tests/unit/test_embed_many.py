"""Embedding many texts with an embedder of somebody else: its errors are the result's."""

from __future__ import annotations

import numpy as np
import pytest

from pgseek.embedders.base import PROBE, Embedded, embed_many
from pgseek.errors import EmbedderError
from pgseek.types import EmbedderIdentity


class Own:
    """An embedder with an ``embed_many`` of its own."""

    def __init__(self, answer) -> None:
        self.identity = EmbedderIdentity("own", "model", 8, normalized=True)
        self.model_id = str(self.identity)
        self.answer = answer

    def embed_many(self, texts, spending, stop):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ValueError("no"), "failed: no"),
        (EmbedderError("own words"), "own words"),
        (Embedded(np.zeros((3, 8), np.float32)), r"shape \(3, 8\) for 1 texts"),
    ],
    ids=["any error", "own error", "shape"],
)
def test_what_goes_wrong_in_another_embedder_is_the_results_error(answer, words):
    outcome = embed_many(Own(answer), [PROBE])
    assert isinstance(outcome.error, EmbedderError)
    assert outcome.missing == {0}
    with pytest.raises(EmbedderError, match=words):
        raise outcome.error
