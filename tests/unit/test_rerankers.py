"""Rerankers: chosen by name, checked, and through Cohere's own client and sentence-transformers' own class."""

from __future__ import annotations

import os
import sys
import threading

import cohere
import httpx
import numpy as np
import pytest
from providers import Fault, relevance_of

from pgseek.embedders.limits import Limiter, Limits
from pgseek.errors import EmbedderError, InvalidInput, MissingExtra, RerankerError
from pgseek.rerankers.base import Reranker, checked_scores
from pgseek.rerankers.callable import CallableReranker
from pgseek.rerankers.cohere import CohereReranker
from pgseek.rerankers.registry import as_reranker, create_reranker

QUERY = "cache a function"
TEXTS = ["sorted inputs", "cache the results of a function", "a function", "a cache"]


def scores_of(reranker, texts=TEXTS, stop=None):
    return checked_scores(reranker, QUERY, texts, stop)


# Choosing.


def test_a_name_an_object_and_a_function_are_rerankers(server):
    named = as_reranker("cohere:rerank-v3.5")
    assert named.model_id == "cohere:rerank-v3.5"
    assert create_reranker("cohere").model_id == "cohere:rerank-v3.5"
    assert as_reranker(named) is named

    def by_length(query, texts):
        return [len(text) for text in texts]

    made = as_reranker(by_length)
    assert made.model_id == "callable:by_length"
    assert CallableReranker(by_length, model="mine").model_id == "callable:mine"
    assert scores_of(made).tolist() == [len(text) for text in TEXTS]
    assert isinstance(made, Reranker)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("coher:rerank-v3.5", ["'coher' is unknown", "did you mean 'cohere'?"]),
        ("jina:x", ["'jina' is unknown", "cross-encoder, cohere"]),
        ("", ["'' is unknown"]),
        ("cross-encoder", ["name a model"]),
        ("cross-encoder:", ["name a model"]),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_known_ones(spec, words):
    with pytest.raises(InvalidInput) as caught:
        create_reranker(spec)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("wrong", [5, object(), [], 0.5])
def test_what_is_no_reranker_is_named(wrong):
    with pytest.raises(InvalidInput, match=f"reranker is a {type(wrong).__name__}, but must be a function"):
        as_reranker(wrong)


# Checking.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 2.0], r"scores of shape \(2,\) for 4 texts, but must return \(4,\)"),
        ([[1.0]] * 4, r"scores of shape \(4, 1\)"),
        (0.5, r"scores of shape \(\)"),
        ([1, 2, float("nan"), 4], "returned nan for text 3 of 4"),
        ([float("inf"), 2, 3, 4], "returned inf for text 1 of 4"),
        (["a", "b", "c", "d"], "callable:mine failed: could not convert"),
    ],
)
def test_scores_are_checked(given, message):
    with pytest.raises(RerankerError, match=message):
        scores_of(CallableReranker(lambda query, texts: given, model="mine"))


def test_an_error_of_the_function_is_its_cause():
    def fails(query, texts):
        raise KeyError("weights")

    with pytest.raises(RerankerError, match=r"callable:fails failed: 'weights'") as caught:
        scores_of(as_reranker(fails))
    assert isinstance(caught.value.__cause__, KeyError)


# Cohere.


@pytest.fixture
def cohere_reranker(server):
    yield from closed(CohereReranker(limiter=Limiter("tests", Limits())), server)


@pytest.fixture
def wrong_model(server):
    yield from closed(CohereReranker("embed-v4.0", limiter=Limiter("tests", Limits())), server)


def closed(made, server):
    """Close its connections in the end."""
    made.backoff = 0.001
    with httpx.Client(verify=False) as plain:
        made._client = cohere.ClientV2(os.environ["CO_API_KEY"], base_url=server.base_url, httpx_client=plain)
        yield made


def test_cohere_answers_by_place(server, cohere_reranker):
    assert scores_of(cohere_reranker).tolist() == [relevance_of(QUERY, text) for text in TEXTS]
    (request,) = server.requests
    assert (request.path, request.model) == ("/v2/rerank", "rerank-v3.5")
    assert request.texts == tuple(TEXTS)
    assert request.arguments == {"query": QUERY, "top_n": 4}
    assert request.headers["authorization"] == f"Bearer {os.environ['CO_API_KEY']}"


def test_more_texts_than_one_request_holds_are_several(server, cohere_reranker):
    texts = [f"a text {n}" for n in range(2300)]
    texts[2200] = "cache a function"
    scores = scores_of(cohere_reranker, texts)
    assert [len(request.texts) for request in server.requests] == [1000, 1000, 300]
    assert np.argmax(scores) == 2200


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, retry_after=0.001),
        Fault(503),
        Fault(cut="before"),
        Fault(missing=True),
        Fault(duplicate_index=True),
        Fault(body="{}"),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again(server, cohere_reranker, fault):
    server.faults = [fault]
    assert scores_of(cohere_reranker).tolist() == [relevance_of(QUERY, text) for text in TEXTS]
    assert len(server.requests) == 2


def test_what_does_not_pass_is_an_error_of_the_reranker(server, cohere_reranker, wrong_model):
    server.faults = lambda _: Fault(500)
    with pytest.raises(RerankerError, match=r"cohere:rerank-v3\.5 did not answer in 4 attempts"):
        scores_of(cohere_reranker)
    server.faults = lambda _: Fault(401)
    with pytest.raises(RerankerError, match=r"401.*invalid api token") as caught:
        scores_of(cohere_reranker)
    assert os.environ["CO_API_KEY"] not in str(caught.value)
    server.faults = []
    server.bad_text = "sorted"
    with pytest.raises(RerankerError, match="refused"):
        scores_of(cohere_reranker)
    with pytest.raises(RerankerError, match="404"):
        scores_of(wrong_model)


def test_nobody_waits_so_nothing_more_is_asked(server, cohere_reranker):
    stop = threading.Event()

    def fault(_):
        stop.set()
        return Fault(503)

    server.faults = fault
    with pytest.raises(RerankerError, match="stopped"):
        scores_of(cohere_reranker, stop=stop)
    assert len(server.requests) == 1


def test_without_a_key_nothing_is_asked(server, monkeypatch):
    monkeypatch.delenv("CO_API_KEY")
    with pytest.raises(RerankerError, match="set CO_API_KEY"):
        scores_of(CohereReranker())
    assert server.requests == []


def test_its_limits_come_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("PGSEEK_RERANKER_REQUESTS_PER_MINUTE", "7")
    assert CohereReranker().limits.requests_per_minute == 7
    assert CohereReranker(limits=Limits(requests_per_minute=3)).limits.requests_per_minute == 3


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cohere", None)
    with pytest.raises(MissingExtra, match=r"pgseek\[cohere\]"):
        scores_of(CohereReranker())
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match=r"pgseek\[sentence-transformers\]"):
        create_reranker("cross-encoder:x")


# The protocol's own error, not the embedders'.


def test_an_error_of_what_services_share_is_the_rerankers():
    def fails(query, texts):
        raise EmbedderError("a service failed")

    with pytest.raises(RerankerError, match="a service failed"):
        scores_of(as_reranker(fails))
