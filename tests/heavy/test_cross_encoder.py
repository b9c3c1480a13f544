"""Cross-encoders of sentence-transformers, with random weights: that they are loaded and asked, not how good they are.

Run by `make test-all`.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support import CORPUS, CountingEmbedder
from tiny_models import save_cross_encoder

from pgseek import InvalidInput, RerankerError, create_reranker
from pgseek.rerankers.base import checked_scores

pytestmark = [
    pytest.mark.slow,
    # Libraries below sentence-transformers warn about their own future.
    pytest.mark.filterwarnings("default"),
]
TEXTS = ["sorted inputs", "cache the results of a function", "a function", "a cache", "merge " * 200]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_cross_encoder(tmp_path_factory.mktemp("models") / "tiny")


def test_scores_are_the_models_own_in_the_order_of_the_texts(folder):
    from sentence_transformers import CrossEncoder

    expected = CrossEncoder(str(folder)).predict([("cache a function", text) for text in TEXTS])
    for batch_size in (1, 2, 16):
        made = create_reranker(f"cross-encoder:{folder}", batch_size=batch_size)
        np.testing.assert_allclose(checked_scores(made, "cache a function", TEXTS), expected, atol=1e-5)
    assert len(set(np.round(expected, 6))) > 1


def test_it_can_be_stopped_between_two_batches(folder):
    made = create_reranker(f"cross-encoder:{folder}", batch_size=1)
    stop = threading.Event()
    calls = []
    predict = made._model.predict

    def watched(pairs, **options):
        calls.append(len(pairs))
        stop.set()
        return predict(pairs, **options)

    made._model.predict = watched
    with pytest.raises(RerankerError, match="stopped"):
        checked_scores(made, "cache", TEXTS, stop)
    assert calls == [1]


def test_what_cannot_be_a_reranker_is_refused(tmp_path):
    with pytest.raises(RerankerError, match="cannot load cross-encoder"):
        create_reranker(f"cross-encoder:{tmp_path / 'nothing'}")
    several = save_cross_encoder(tmp_path / "several", labels=3)
    with pytest.raises(InvalidInput, match="gives 3 numbers for a pair"):
        create_reranker(f"cross-encoder:{several}")


def test_a_search_is_ordered_by_it(client, folder):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest(CORPUS)
    hits = docs.search("cache a function", k=6, reranker=f"cross-encoder:{folder}")
    scores = [hit.rerank_score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert sorted(hit.fused_rank for hit in hits) == [1, 2, 3, 4, 5, 6]
