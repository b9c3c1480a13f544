"""Hits ordered anew: the order, what is told of it, its budget, and what its failure leaves."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from providers import ProviderServer, relevance_of
from support import CORPUS, CountingEmbedder

from pgseek import AsyncClient, CallableReranker, InvalidInput, RerankerError, SearchTimeout

QUERY = "cache a function"


@pytest.fixture
def docs(client):
    made = client.create_collection("docs", embedder=CountingEmbedder())
    made.ingest(CORPUS)
    return made


class Recording:
    """Prefers short texts; remembers what it read, and in which thread."""

    model_id = "tests:recording"

    def __init__(self):
        self.read = []
        self.threads = set()

    def rerank(self, query, texts):
        self.read.append((query, list(texts)))
        self.threads.add(threading.current_thread())
        return [-len(text) for text in texts]


class Hanging:
    """Answers when it is released or stopped."""

    model_id = "tests:hanging"

    def __init__(self):
        self.stop = None

    def rerank(self, query, texts):
        raise AssertionError("score is there")

    def score(self, query, texts, stop):
        self.stop = stop
        assert stop.wait(60)
        return [0.0] * len(texts)


def told(hits):
    return [(hit.rank, hit.id, hit.ordinal) for hit in hits]


def test_the_order_is_the_rerankers_and_each_hit_tells_where_it_was(docs):
    fused = docs.search(QUERY, k=6)
    recording = Recording()
    hits = docs.search(QUERY, k=6, reranker=recording)
    assert recording.read == [(QUERY, [f"{hit.title}\n\n{hit.text}" for hit in fused])]
    by_length = sorted(fused, key=lambda hit: len(f"{hit.title}\n\n{hit.text}"))
    assert [hit.id for hit in hits] == [hit.id for hit in by_length]
    assert [hit.id for hit in hits] != [hit.id for hit in fused]
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5, 6]
    for hit in hits:
        before = fused[hit.fused_rank - 1]
        assert (before.id, before.rank, before.score) == (hit.id, hit.fused_rank, hit.score)
        assert hit.rerank_score == -len(f"{hit.title}\n\n{hit.text}")
        assert hit.degraded is None
    assert {(hit.rerank_score, hit.fused_rank) for hit in fused} == {(None, None)}


def test_more_than_k_are_read_and_k_returned(docs):
    recording = Recording()
    (best,) = docs.search(QUERY, k=1, reranker=recording)
    assert len(recording.read[0][1]) == len(CORPUS)
    assert best.fused_rank > 1


def test_what_is_not_read_follows_as_it_was(docs):
    fused = docs.search(QUERY, k=6)
    hits = docs.search(QUERY, k=6, reranker=lambda query, texts: range(len(texts)), rerank_top=2)
    assert [hit.id for hit in hits] == [fused[place].id for place in (1, 0, 2, 3, 4, 5)]
    assert [hit.fused_rank for hit in hits] == [2, 1, 3, 4, 5, 6]
    assert [hit.rerank_score for hit in hits] == [1, 0, None, None, None, None]


def test_equal_scores_leave_the_fused_order(docs):
    hits = docs.search(QUERY, k=6, reranker=lambda query, texts: [0.5] * len(texts))
    assert told(hits) == told(docs.search(QUERY, k=6))


def test_no_hits_are_not_read(docs):
    recording = Recording()
    assert docs.search(QUERY, filter={"module": "none"}, reranker=recording) == []
    assert recording.read == []


def test_a_vector_of_the_callers_is_reranked_too(docs):
    vector = docs._embedder.embed_query(QUERY)
    hits = docs.search(QUERY, model=str(docs.info().identity), query_embedding=vector, reranker=Recording())
    assert told(hits) == told(docs.search(QUERY, reranker=Recording()))


def test_past_its_budget_the_fused_order_is_returned_and_marked(docs, caplog):
    hanging = Hanging()
    fused = docs.search(QUERY, k=3)
    with caplog.at_level(logging.WARNING, "pgseek"):
        hits = docs.search(QUERY, k=3, reranker=hanging, rerank_budget=0.05)
    assert told(hits) == told(fused)
    assert {hit.degraded for hit in hits} == {
        "fused order: tests:hanging had not re-ranked 6 hits after 0.05 s"
    }
    assert {(hit.rerank_score, hit.fused_rank) for hit in hits} == {(None, None)}
    assert [record.getMessage() for record in caplog.records] == [
        "search of 'docs' is degraded: tests:hanging had not re-ranked 6 hits after 0.05 s"
    ]
    # It hears that nobody waits any more.
    assert hanging.stop.is_set()


def test_within_its_budget_nothing_is_marked(docs):
    hits = docs.search(QUERY, reranker=Recording(), rerank_budget=60, timeout=60)
    assert told(hits) == told(docs.search(QUERY, reranker=Recording()))
    assert hits[0].degraded is None


def test_when_the_searchs_time_is_over_there_are_still_the_hits(docs):
    docs.search(QUERY)
    hits = docs.search(QUERY, k=3, reranker=Hanging(), timeout=1)
    assert told(hits) == told(docs.search(QUERY, k=3))
    assert "fused order: tests:hanging had not re-ranked 6 hits" in hits[0].degraded
    with pytest.raises(SearchTimeout):
        docs.search(QUERY, k=3, reranker=Hanging(), timeout=0.000001)


def test_a_reranker_that_fails_is_an_error_or_leaves_the_fused_order(docs, caplog):
    def fails(query, texts):
        raise RuntimeError(f"no such {query}")

    with pytest.raises(RerankerError, match="callable:fails failed: no such cache"):
        docs.search(QUERY, reranker=fails)
    with caplog.at_level(logging.WARNING, "pgseek"):
        hits = docs.search(QUERY, reranker=fails, on_embedder_error="lexical")
    assert told(hits) == told(docs.search(QUERY))
    assert hits[0].degraded == "fused order: callable:fails failed: no such cache a function"
    (record,) = caplog.records
    assert record.getMessage().endswith("callable:fails did not re-rank (RerankerError from RuntimeError)")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reranker": 5}, "reranker is a int"),
        ({"reranker": "nobody:x"}, "'nobody' is unknown"),
        ({"rerank_top": 5}, "give reranker, too"),
        ({"rerank_budget": 1.0}, "give reranker, too"),
        ({"reranker": Recording(), "rerank_top": 0}, "rerank_top is 0"),
        ({"reranker": Recording(), "rerank_top": 10_001}, "1 to 10,000"),
        ({"reranker": Recording(), "rerank_budget": 0}, "rerank_budget is 0"),
    ],
)
def test_wrong_arguments_are_named(docs, given, message):
    with pytest.raises(InvalidInput, match=message):
        docs.search(QUERY, **given)


def test_a_report_tells_what_was_done_and_how_long_each_part_took(docs):
    reports = []
    docs.search(QUERY, k=2, report=reports.append)
    docs.search(QUERY, k=2, reranker=Recording(), report=reports.append)
    docs.search(QUERY, k=2, alpha=0, report=reports.append)
    docs.search(QUERY, k=2, reranker=Hanging(), rerank_budget=0.01, report=reports.append)
    first, second, third, fourth = reports
    assert {(report.collection, report.hits) for report in reports} == {("docs", 2)}
    assert (first.cached, second.cached, third.cached) == (False, True, None)
    assert [list(report.stages) for report in reports] == [
        ["embed", "search"],
        ["embed", "search", "rerank"],
        ["search"],
        ["embed", "search", "rerank"],
    ]
    assert (first.reranked, second.reranked, fourth.reranked) == (0, 6, 0)
    assert [len(report.degraded) for report in reports] == [0, 0, 0, 1]
    for report in reports:
        assert all(seconds >= 0 for seconds in report.stages.values())
        assert sum(report.stages.values()) <= report.seconds


def test_cohere_by_its_name_end_to_end(docs, monkeypatch):
    with ProviderServer() as server:
        for name, value in {
            "NO_PROXY": "127.0.0.1",
            "CO_API_KEY": "k",
            "CO_API_URL": server.base_url,
        }.items():
            monkeypatch.setenv(name, value)
        hits = docs.search(QUERY, k=6, reranker="cohere:rerank-v3.5")
        assert [hit.rerank_score for hit in hits] == sorted(
            (relevance_of(QUERY, f"{hit.title}\n\n{hit.text}") for hit in hits), reverse=True
        )
        docs.search(QUERY, k=6, reranker="cohere:rerank-v3.5")
        # One object for the client, whose limits the database keeps.
        (made,) = docs._client._models.values()
        assert len(server.requests) == 2
        made._client._client_wrapper.httpx_client.httpx_client.close()


def test_the_asynchronous_client_does_the_same_in_a_thread(docs, dsn):
    expected = told(docs.search(QUERY, k=3, reranker=Recording()))

    async def main():
        async with AsyncClient(dsn) as client:
            own = await client.collection("docs", embedder=CountingEmbedder())
            recording = Recording()
            assert told(await own.search(QUERY, k=3, reranker=recording)) == expected
            assert threading.current_thread() not in recording.threads
            hanging = Hanging()
            hits = await own.search(QUERY, k=3, reranker=hanging, rerank_budget=0.05)
            assert "fused order" in hits[0].degraded
            assert hanging.stop.is_set()

            stopped = Hanging()
            task = asyncio.create_task(own.search(QUERY, reranker=stopped))
            while stopped.stop is None:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(stopped.stop.wait, 30)

    asyncio.run(main())


def test_a_function_may_have_a_name(docs):
    made = CallableReranker(lambda query, texts: None, model="mine")
    with pytest.raises(RerankerError, match="callable:mine"):
        docs.search(QUERY, reranker=made)
