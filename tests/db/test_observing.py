"""Spans, metrics and the slow-query log: what they hold, what they never hold, and that they cost nothing if absent."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import subprocess
import sys
import textwrap

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support import CORPUS, CountingEmbedder, rows

from pgseek import AsyncClient, Client, EmbedderError, Expansion, InvalidInput, observing
from pgseek.embedders.base import PROBES

QUERY = "zebra function"


class Recorded:
    """What was exported."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])

    def spans(self):
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def points(self, name):
        """Return the values of a metric: sums of counters, counts and sums of histograms, by its attributes."""
        found = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else []:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        for point in metric.data.data_points:
                            key = tuple(sorted(point.attributes.items()))
                            found[key] = point.value if hasattr(point, "value") else (point.count, point.sum)
        return found

    def everything(self):
        return "".join(span.to_json() for span in self.exporter.get_finished_spans()) + str(
            self.reader.get_metrics_data()
        )


@pytest.fixture
def recorded(monkeypatch):
    """The application's providers, which the process may set only once: here each test has its own."""
    made = Recorded()
    monkeypatch.setattr(trace, "get_tracer", made.tracers.get_tracer)
    monkeypatch.setattr(metrics, "get_meter", made.meters.get_meter)
    observing.telemetry.cache_clear()
    yield made
    observing.telemetry.cache_clear()
    made.tracers.shutdown()
    made.meters.shutdown()


class Failing(CountingEmbedder):
    def embed_query(self, text):
        if text in PROBES:
            return super().embed_query(text)
        raise RuntimeError(f"no vector for {text}")


def filled(client, embedder=None):
    docs = client.create_collection("docs", embedder=embedder or CountingEmbedder())
    docs.ingest(CORPUS)
    return docs


# Spans.


def test_a_search_is_a_span_with_its_stages_within(recorded, client):
    docs = filled(client)
    recorded.exporter.clear()
    with recorded.tracers.get_tracer("application").start_as_current_span("request"):
        hits = docs.search(
            QUERY,
            k=3,
            reranker=lambda query, texts: range(len(texts)),
            expand=Expansion(lambda query: "words"),
        )
    spans = recorded.spans()
    stages = ["embed", "expand", "search", "rerank"]
    assert set(spans) == {"request", "pgseek.search", *(f"pgseek.search.{stage}" for stage in stages)}
    search = spans["pgseek.search"]
    assert search.parent.span_id == spans["request"].context.span_id
    for before, after in itertools.pairwise(stages):
        assert spans[f"pgseek.search.{before}"].end_time <= spans[f"pgseek.search.{after}"].start_time
    for stage in stages:
        span = spans[f"pgseek.search.{stage}"]
        assert span.parent.span_id == search.context.span_id
        assert search.start_time <= span.start_time <= span.end_time <= search.end_time
    assert dict(search.attributes) == {
        "pgseek.collection": "docs",
        "pgseek.k": 3,
        "pgseek.hits": 3,
        "pgseek.reranked": 6,
        "pgseek.written": 1,
        "pgseek.degraded": False,
        "pgseek.cached": False,
        "pgseek.candidates.dense": hits[0].dense_candidates,
        "pgseek.candidates.lexical": hits[0].lexical_candidates,
    }


def test_what_a_model_records_is_within_the_search(recorded, dsn):
    tracer = recorded.tracers.get_tracer("model")

    def scores(query, texts):
        with tracer.start_as_current_span("model"):
            return [0.0] * len(texts)

    with Client(dsn) as client:
        docs = filled(client)
        recorded.exporter.clear()
        docs.search(QUERY, reranker=scores, rerank_budget=60)

    async def main():
        async with AsyncClient(dsn) as client:
            await (await client.collection("docs", embedder=CountingEmbedder())).search(
                QUERY, reranker=scores
            )

    asyncio.run(main())
    spans = recorded.exporter.get_finished_spans()
    searches = [span.context.span_id for span in spans if span.name == "pgseek.search"]
    assert len(searches) == 2
    assert [span.parent.span_id for span in spans if span.name == "model"] == searches


def test_no_text_of_a_query_is_recorded_unless_asked_for(recorded, dsn):
    with Client(dsn) as client:
        docs = filled(client, Failing())
        recorded.exporter.clear()
        with pytest.raises(EmbedderError, match="zebra"):
            docs.search(QUERY)
        docs.search(QUERY, on_embedder_error="lexical")
        docs.search(QUERY, alpha=0, reranker=lambda query, texts: [0.0] * len(texts))
        assert "zebra" not in recorded.everything()
        failed, degraded, _ = (s for s in recorded.exporter.get_finished_spans() if s.name == "pgseek.search")
    assert (failed.status.status_code.name, failed.status.description) == ("ERROR", None)
    assert failed.attributes["error.type"] == "EmbedderError"
    assert failed.events == ()
    assert degraded.status.status_code.name == "UNSET"
    assert degraded.attributes["pgseek.degraded"] is True
    assert degraded.attributes["pgseek.without"] == (
        "tests:hash@8 did not embed the query (EmbedderError from RuntimeError)",
    )
    with Client(dsn, record_queries=True) as client:
        client.collection("docs", embedder=Failing()).search(QUERY, alpha=0)
    assert recorded.exporter.get_finished_spans()[-1].attributes["pgseek.query"] == QUERY


def test_an_ingest_and_its_batches(recorded, client):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    seen = []
    report = docs.ingest([*CORPUS, {"id": "bad", "text": ""}], batch_size=3, progress=seen.append)
    spans = recorded.exporter.get_finished_spans()
    (whole,) = (span for span in spans if span.name == "pgseek.ingest")
    batches = [span for span in spans if span.name == "pgseek.ingest.batch"]
    assert 1 <= len(batches) <= 3
    assert {span.parent.span_id for span in batches} == {whole.context.span_id}
    for name in ("new", "chunks", "embedded", "cached"):
        assert sum(span.attributes[f"pgseek.{name}"] for span in batches) == getattr(report, name), name
    assert sum(span.attributes["pgseek.rejected"] for span in batches) == 1
    assert seen[-1].new == report.new
    assert recorded.points("pgseek.cache.lookups") == {
        (("pgseek.input_type", "document"), ("pgseek.result", "miss")): report.embedded
    }
    assert recorded.points("pgseek.ingest.duration")[(("pgseek.collection", "docs"),)][0] == 1
    assert recorded.points("pgseek.ingest.batch.duration")[(("pgseek.collection", "docs"),)][0] == len(
        batches
    )


def test_an_ingest_that_fails_is_marked(recorded, client):
    docs = client.create_collection("docs", embedder=CountingEmbedder())

    def breaks():
        yield CORPUS[0]
        raise OSError("secret path")

    with pytest.raises(OSError, match="secret"):
        docs.ingest(breaks())
    span = recorded.spans()["pgseek.ingest"]
    assert (span.status.status_code.name, span.attributes["error.type"]) == ("ERROR", "OSError")
    assert "secret" not in recorded.everything()


def test_a_workers_batches_and_the_age_of_the_queue(recorded, client, dsn):
    docs = filled(client)
    recorded.exporter.clear()
    rows(
        dsn, "SELECT pgseek.put_document('docs', n::text, 'a text of ' || n) FROM generate_series(1, 5) AS n"
    )
    rows(dsn, "UPDATE pgseek.ingest_queue SET due_at = now() - interval '90 seconds' RETURNING 1")
    seen = []
    total = docs.work(once=True, progress=seen.append)
    assert (total.documents, len(seen)) == (5, 1)
    assert 90 <= total.waited == seen[0].waited
    (span,) = (span for span in recorded.exporter.get_finished_spans() if span.name == "pgseek.worker.batch")
    assert span.attributes["pgseek.documents"] == 5
    assert span.attributes["pgseek.collection"] == "docs"
    about = (("pgseek.collection", "docs"),)
    assert recorded.points("pgseek.queue.age")[about] == (1, total.waited)
    assert recorded.points("pgseek.worker.batch.duration")[about][0] == 1


# Metrics.


def test_searches_are_counted_and_measured(recorded, client):
    docs = filled(client, Failing())
    docs.search("cache", alpha=0)
    docs.search("cache", on_embedder_error="lexical")
    with contextlib.suppress(EmbedderError):
        docs.search("cache")
    docs._embedder.embed_query = lambda text: CountingEmbedder.embed_query(docs._embedder, text)
    first = docs.search("a function")[0]
    docs.search("a function")
    about = ("pgseek.collection", "docs")
    searches = recorded.points("pgseek.search.duration")
    assert {key: count for key, (count, _) in searches.items()} == {
        (about,): 4,
        (("error.type", "EmbedderError"), about): 1,
    }
    assert {key: count for key, (count, _) in recorded.points("pgseek.search.stage.duration").items()} == {
        (about, ("pgseek.stage", "embed")): 4,
        (about, ("pgseek.stage", "search")): 4,
    }
    assert recorded.points("pgseek.search.degraded") == {(about,): 1}
    queries = {
        dict(key)["pgseek.result"]: value
        for key, value in recorded.points("pgseek.cache.lookups").items()
        if ("pgseek.input_type", "query") in key
    }
    # Two that failed, one that was embedded, one that was known.
    assert queries == {"miss": 3, "hit": 1}
    candidates = recorded.points("pgseek.search.candidates")
    assert candidates[about, ("pgseek.leg", "dense")] == (2, 2 * first.dense_candidates)
    assert candidates[about, ("pgseek.leg", "lexical")][0] == 4


def test_hits_tell_how_many_candidates_each_leg_brought(client):
    docs = filled(client)
    for hit in docs.search("function", k=2):
        assert (hit.dense_candidates, hit.lexical_candidates) == (len(CORPUS), 2)
    for hit in docs.search("function", k=1, alpha=0):
        assert (hit.dense_candidates, hit.lexical_candidates) == (None, 1)


# The slow-query log.


def lines(caplog):
    return [record for record in caplog.records if record.name == "pgseek.slow"]


def test_slow_searches_are_logged_without_their_text(dsn, caplog):
    with Client(dsn) as client:
        filled(client)
    with Client(dsn, slow_query_seconds=0) as client:
        docs = client.collection("docs", embedder=CountingEmbedder())
        docs.search(
            QUERY, k=3, filter={"module": "functools"}, reranker=lambda query, texts: [0.0] * len(texts)
        )
    (line,) = lines(caplog)
    values = line.pgseek
    assert values["collection"] == "docs"
    assert values["parameters"] == {"k": 3, "filter": '$."module" == "functools"'}
    assert list(values["stages"]) == ["embed", "search", "rerank"]
    assert values["candidates"].keys() == {"dense", "lexical"}
    assert (values["hits"], values["reranked"], values["degraded"], values["error"]) == (2, 2, [], None)
    assert sum(values["stages"].values()) <= values["seconds"] + 0.001
    assert "zebra" not in line.getMessage() + json.dumps(values)
    assert line.getMessage().startswith("slow search: collection 'docs', seconds 0.")
    assert line.levelname == "WARNING"


def test_its_text_is_logged_if_asked_for(dsn, caplog):
    with Client(dsn, slow_query_seconds=0, record_queries=True) as client:
        filled(client).search(QUERY)
    (line,) = lines(caplog)
    assert line.pgseek["query"] == QUERY
    assert f"query {QUERY!r}" in line.getMessage()


def test_failures_and_reasons_are_logged_by_their_kind(dsn, caplog):
    with Client(dsn, slow_query_seconds=0) as client:
        docs = filled(client, Failing())
        with pytest.raises(EmbedderError):
            docs.search(QUERY)
        docs.search(QUERY, on_embedder_error="lexical", budget=0.0000001)
    failed, degraded = lines(caplog)
    assert failed.pgseek["error"] == "EmbedderError"
    reasons = degraded.pgseek["degraded"]
    assert reasons[0] == "tests:hash@8 did not embed the query (EmbedderError from RuntimeError)"
    assert "zebra" not in failed.getMessage() + degraded.getMessage()


def test_fast_searches_are_not_logged(dsn, caplog, monkeypatch):
    with Client(dsn, slow_query_seconds=3600) as client:
        filled(client).search(QUERY)
    monkeypatch.setenv("PGSEEK_SLOW_QUERY_SECONDS", "3600")
    with Client(dsn) as client:
        client.collection("docs", embedder=CountingEmbedder()).search(QUERY)
    assert lines(caplog) == []
    monkeypatch.setenv("PGSEEK_SLOW_QUERY_SECONDS", "0")
    with Client(dsn) as client:
        client.collection("docs", embedder=CountingEmbedder()).search(QUERY)
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize("wrong", [-1, "5", True])
def test_a_wrong_limit_is_named(dsn, wrong):
    with pytest.raises(InvalidInput, match="slow_query_seconds is"):
        Client(dsn, slow_query_seconds=wrong)


def test_the_asynchronous_client_records_the_same(recorded, dsn, caplog):
    with Client(dsn) as client:
        filled(client)
    recorded.exporter.clear()

    async def main():
        async with AsyncClient(dsn, slow_query_seconds=0) as client:
            docs = await client.collection("docs", embedder=CountingEmbedder())
            await asyncio.gather(*(docs.search(f"function {n}") for n in range(5)))
            await docs.ingest([{"id": "more", "text": "a text"}])

    asyncio.run(main())
    names = [span.name for span in recorded.exporter.get_finished_spans()]
    assert names.count("pgseek.search") == 5
    assert names.count("pgseek.search.search") == 5
    assert names.count("pgseek.ingest.batch") == 1
    assert len(lines(caplog)) == 5


# Absent.


def test_without_the_extra_nothing_is_imported_and_all_works(dsn):
    with Client(dsn) as client:
        client.create_collection("docs").ingest(CORPUS)
    script = f"""
        import sys
        sys.modules["opentelemetry"] = None
        from pgseek import Client
        with Client({dsn!r}) as client:
            docs = client.collection("docs")
            assert client._observer.telemetry is None
            print(docs.search("cache")[0].id, docs.ingest([{{"id": "more", "text": "a text"}}]).new)
        print([name for name in sys.modules if name.startswith("opentelemetry.")])
    """
    made = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert made.stdout == "lru_cache 1\n[]\n"


def test_importing_the_package_does_not_import_it():
    script = "import sys, pgseek; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert made.stdout == "[]\n"


def test_who_does_not_look_has_a_search_passed_through():
    observer = observing.Observer()
    assert observer.work(print) is print
    with observer.ingest("docs", print) as progress:
        assert progress is print
    assert logging.getLogger("pgseek.slow").parent is logging.getLogger("pgseek")
