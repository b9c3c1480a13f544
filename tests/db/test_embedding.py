"""The embedding of documents: what the model cannot read whole, what is never embedded twice, what an error leaves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter

import numpy as np
import openai
import pytest
from providers import Fault, ProviderServer
from support import CountingEmbedder, rows, snapshot

from pgseek import (
    AsyncClient,
    CallableEmbedder,
    Client,
    CostLimitReached,
    DatabaseError,
    EmbedderError,
    EmbedderIdentity,
    InvalidInput,
    Limits,
    PgseekError,
    embedding,
    ingest,
)
from pgseek.embedders.base import PROBES
from pgseek.embedders.openai import CompatibleEmbedder, OpenAIEmbedder

MODEL = "text-embedding-3-small"


class Reader(CountingEmbedder):
    """Reads so many words of a text; a token is a word."""

    exact_tokens = True

    def __init__(self, max_tokens: int | None = 10, **given) -> None:
        super().__init__(**given)
        self.max_tokens = max_tokens

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


@pytest.fixture
def service():
    with ProviderServer() as server, contextlib.ExitStack() as clients:
        server.clients = clients
        yield server


def remote(service, **given) -> OpenAIEmbedder:
    plain = openai.DefaultHttpxClient(verify=False)
    client = service.clients.enter_context(
        openai.OpenAI(api_key="key", base_url=service.base_url + "/v1", http_client=plain)
    )
    given.setdefault("limits", Limits(concurrency=4))
    return OpenAIEmbedder(MODEL, 8, client=client, **given)


def numbered(count: int, *, start: int = 0, prefix: str = "") -> list[dict[str, str]]:
    return [{"id": f"{prefix}{n}", "text": f"the text with number {n}"} for n in range(start, start + count)]


# What the model does not read whole.

LONG = " ".join(f"word{n}." for n in range(57))


def test_a_chunk_longer_than_the_model_reads_is_divided(client):
    embedder = Reader(10)
    docs = client.create_collection("docs", embedder=embedder, long_texts="chunk")
    assert docs.ingest([{"id": "1", "title": "two words", "text": LONG}]).rejected == ()
    stored = rows(
        client._runner.dsn,
        "SELECT ordinal, text, char_start, char_end FROM pgseek.chunks ORDER BY ordinal",
    )
    assert len(stored) >= 8
    assert [row["ordinal"] for row in stored] == list(range(len(stored)))
    assert all(LONG[row["char_start"] : row["char_end"]] == row["text"] for row in stored)
    # The title is read with every chunk, and counts.
    assert max(len(row["text"].split()) for row in stored) <= 8
    assert " ".join(row["text"] for row in stored).split() == LONG.split()
    assert max(map(len, map(str.split, embedder.documents))) <= 10
    # Every part of the document is found by meaning, its end too.
    (last,) = docs.search(
        "?",
        model=str(docs.info().identity),
        query_embedding=embedder.embed_query(embedder.documents[-1]),
        k=1,
        alpha=1,
    )
    assert last.text.endswith("word56.")
    assert last.dense_score == pytest.approx(1)


def test_of_a_chunk_longer_than_the_model_reads_the_parts_are_averaged(client, dsn):
    embedder = Reader(10)
    docs = client.create_collection("docs", embedder=embedder)
    report = docs.ingest([{"id": "1", "title": "two words", "text": LONG}, {"id": "2", "text": "few words"}])
    # The chunk stays as chunk_size says: its words are found together.
    assert (report.rejected, report.chunks) == ((), 2)
    assert [row["text"] for row in rows(dsn, "SELECT text FROM pgseek.chunks")].count(LONG) == 1
    parts = [text for text in embedder.documents if text != "few words"]
    assert len(parts) >= 8
    assert max(map(len, map(str.split, parts))) <= 10
    assert " ".join(part.removeprefix("two words\n\n") for part in parts).split() == LONG.split()
    mean = np.mean([embedder.embed_query(part) for part in parts], axis=0)
    (hit,) = docs.search("?", model=str(docs.info().identity), query_embedding=mean, k=1, alpha=1)
    assert (hit.id, hit.dense_score) == ("1", pytest.approx(1))
    (stored,) = rows(
        dsn,
        "SELECT vector_norm(embedding) AS n FROM pgseek.embeddings_1 WHERE document_id = pgseek.document_id('1')",
    )
    assert stored["n"] == pytest.approx(1, abs=1e-6)
    # Known parts are not embedded again, and a changed end only costs its part.
    embedder.documents.clear()
    docs.ingest([{"id": "1", "title": "two words", "text": LONG + " more"}])
    assert len(embedder.documents) < len(parts) / 2


def test_a_collection_may_refuse_what_the_model_does_not_read_whole(client):
    embedder = Reader(10)
    docs = client.create_collection("docs", embedder=embedder, long_texts="refuse")
    report = docs.ingest([{"id": "long", "text": LONG}, {"id": "short", "text": "few words"}])
    (rejection,) = report.rejected
    assert (report.new, rejection.id) == (1, "long")
    assert "57 tokens" in rejection.reason
    assert "reads 10" in rejection.reason
    assert "tests:hash@8" in rejection.reason
    assert embedder.documents == ["few words"]


def test_a_collection_may_have_the_end_left_out(client, dsn):
    embedder = Reader(10)
    docs = client.create_collection("docs", embedder=embedder, long_texts="truncate")
    docs.ingest([{"id": "1", "title": "two words", "text": LONG}])
    (embedded,) = embedder.documents
    assert len(embedded.split()) == 10
    assert embedded.startswith("two words\n\nword0. word1.")
    # Only the vector is of the beginning; the words are all found.
    assert [row["text"] for row in rows(dsn, "SELECT text FROM pgseek.chunks")] == [LONG]
    assert docs.search("word56", alpha=0)[0].id == "1"


@pytest.mark.parametrize("long_texts", ["average", "chunk", "truncate"])
def test_a_title_that_fills_the_model_alone_is_told(client, long_texts):
    docs = client.create_collection("docs", embedder=Reader(10), long_texts=long_texts)
    (rejection,) = docs.ingest([{"id": "1", "title": LONG, "text": "few words"}]).rejected
    assert "59 tokens with its title" in rejection.reason


def test_short_texts_are_not_counted_at_all(client):
    class Counted(Reader):
        counted = 0

        def count_tokens(self, texts):
            self.counted += len(texts)
            return super().count_tokens(texts)

    embedder = Counted(1000)
    docs = client.create_collection("docs", embedder=embedder)
    docs.ingest([{"id": "short", "text": "x" * 200}, {"id": "long", "text": "word " * 300}])
    assert embedder.counted == 1


def test_an_unknown_way_with_long_texts_is_refused(client):
    with pytest.raises(
        InvalidInput, match="long_texts is 'cut', but must be one of average, chunk, refuse, truncate"
    ):
        client.create_collection("docs", embedder=Reader(), long_texts="cut")


# What is embedded once.


def test_the_same_text_in_two_batches_is_embedded_once(client):
    embedder = CountingEmbedder()
    docs = client.create_collection("docs", embedder=embedder)
    # Neighbouring batches are under way together, distant ones meet in the cache.
    report = docs.ingest(({"id": str(n), "text": f"text {n % 3}"} for n in range(12)), batch_size=2)
    assert report.new == 12
    assert sorted(embedder.documents) == ["text 0", "text 1", "text 2"]
    assert report.embedded == 3


def test_ten_thousand_known_texts_need_no_call(client):
    embedder = CountingEmbedder()
    docs = client.create_collection("docs", embedder=embedder)
    docs.ingest(numbered(10_000))
    assert len(embedder.documents) == 10_000
    embedder.documents.clear()
    assert docs.ingest(numbered(10_000)).unchanged == 10_000
    # Other documents, another collection: the texts are the same.
    other = client.create_collection("other", embedder=embedder)
    report = other.ingest(numbered(10_000, prefix="other"))
    assert (report.new, report.cached, report.embedded) == (10_000, 10_000, 0)
    assert embedder.documents == []


def test_another_model_of_the_same_size_never_hits_the_old_entries(client):
    first, second = CountingEmbedder(model="one"), CountingEmbedder(model="two")
    client.create_collection("a", embedder=first).ingest(numbered(5))
    report = client.create_collection("b", embedder=second).ingest(numbered(5))
    assert (report.cached, len(second.documents)) == (0, 5)


def test_workers_at_the_same_texts_embed_each_once(dsn):
    class Slow(CountingEmbedder):
        def embed_documents(self, texts):
            time.sleep(0.02)
            return super().embed_documents(texts)

    with Client(dsn) as client:
        client.create_collection("docs", embedder=Slow())
    embedders = [Slow() for _ in range(3)]
    reports = []

    def work(embedder, own):
        with Client(dsn) as client:
            docs = client.collection("docs", embedder=embedder)
            reports.append(docs.ingest(numbered(200, prefix=f"w{own}-"), batch_size=20))

    threads = [threading.Thread(target=work, args=(e, n)) for n, e in enumerate(embedders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [report.new for report in reports] == [200, 200, 200]
    seen = Counter(text for embedder in embedders for text in embedder.documents)
    assert len(seen) == 200
    assert max(seen.values()) == 1
    assert rows(dsn, "SELECT FROM pgseek.embedding_claims") == []


def test_what_a_dead_worker_had_claimed_is_taken_over(client, dsn):
    embedder = CountingEmbedder()
    docs = client.create_collection("docs", embedder=embedder)
    rows(
        dsn,
        "INSERT INTO pgseek.embedding_claims SELECT identity, sha256('the text with number 0'),"
        " clock_timestamp() + interval '1 second' FROM pgseek.embedding_spaces",
    )
    started = time.monotonic()
    assert docs.ingest(numbered(3)).new == 3
    assert 0.8 < time.monotonic() - started < 20
    assert len(embedder.documents) == 3


def test_a_claim_lasts_while_its_text_is_being_embedded(dsn, monkeypatch):
    class Slow(CountingEmbedder):
        def embed_documents(self, texts):
            time.sleep(1.2 if PROBES[0] not in texts else 0)
            return super().embed_documents(texts)

    # Shorter than the embedding takes: only renewed claims keep the second worker off.
    monkeypatch.setattr(embedding, "CLAIM_SECONDS", 0.5)
    monkeypatch.setattr(embedding, "RENEW_SECONDS", 0.1)
    with Client(dsn) as client:
        client.create_collection("docs", embedder=Slow())
    embedders = [Slow(), Slow()]

    def work(embedder, own):
        with Client(dsn) as client:
            client.collection("docs", embedder=embedder).ingest(numbered(5, prefix=f"w{own}-"))

    threads = [threading.Thread(target=work, args=(e, n)) for n, e in enumerate(embedders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(len(embedder.documents) for embedder in embedders) == [0, 5]
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.documents")[0]["n"] == 10


def test_claims_of_the_batch_behind_last_as_long(dsn, monkeypatch):
    monkeypatch.setattr(embedding, "CLAIM_SECONDS", 1.0)
    monkeypatch.setattr(embedding, "RENEW_SECONDS", 0.2)

    class Slow(CountingEmbedder):
        def embed_documents(self, texts):
            time.sleep(2 if PROBES[0] not in texts else 0)
            return super().embed_documents(texts)

    one, two = Slow(), CountingEmbedder()
    with Client(dsn) as first, Client(dsn) as second:
        a = first.create_collection("a", embedder=one)
        b = second.create_collection("b", embedder=two)
        thread = threading.Thread(target=a.ingest, args=(numbered(4),), kwargs={"batch_size": 2})
        thread.start()
        time.sleep(0.4)
        b.ingest(numbered(2, start=2))
        thread.join(60)
    assert (len(one.documents), two.documents) == (4, [])


def test_a_local_embedder_is_called_once_at_a_time(client):
    busy = threading.Lock()
    seen = []

    def embed(texts):
        seen.append(busy.acquire(blocking=False))
        time.sleep(0.05)
        busy.release()
        return [[len(text), 1.0] for text in texts]

    docs = client.create_collection("docs", embedder=CallableEmbedder(embed, model="lengths"))
    docs.ingest(numbered(8), batch_size=2)
    assert len(seen) >= 5
    assert all(seen)


def test_parts_of_a_long_text_stay_the_same_while_an_estimate_learns(client, service):
    embedder = remote(service)
    embedder.max_tokens = 100
    documents = [{"id": str(n), "text": " ".join(f"word{n}{m:04d}" for m in range(200))} for n in range(20)]
    docs = client.create_collection("a", embedder=embedder)
    plan = docs.plan(documents)
    assert docs.ingest(documents, batch_size=5).embedded == plan.texts
    other = client.create_collection("b", embedder=embedder)
    assert other.ingest(documents, batch_size=7).embedded == 0


def test_a_slow_source_is_not_read_ahead_of(client, monkeypatch):
    monkeypatch.setattr(ingest, "SLOW_SOURCE", 0.05)
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    written = []

    def source():
        for n in range(4):
            written.append(docs.count())
            time.sleep(0.1)
            yield {"id": str(n), "text": f"text {n}"}

    docs.ingest(source(), batch_size=1)
    assert written == [0, 1, 2, 3]


# What an error leaves.


def test_what_was_answered_before_an_error_is_not_paid_again(client, service):
    embedder = remote(service)
    embedder.max_inputs = 10
    docs = client.create_collection("docs", embedder=embedder)
    service.reset()
    service.faults = lambda request: Fault(401) if "number 73" in " ".join(request.texts) else None
    with pytest.raises(EmbedderError, match="status 401"):
        docs.ingest(numbered(100), batch_size=50)
    before = set(service.answered)
    assert docs.count() == 50
    assert len(before) > 50
    service.faults = None
    report = docs.ingest(numbered(100), batch_size=50)
    assert (report.new, report.unchanged) == (50, 50)
    assert report.cached == len(before) - 50
    assert set(service.answered.values()) == {1}
    assert len(service.answered) == 100


def test_a_batch_on_its_way_is_kept_when_the_one_before_cannot_be_written(client, dsn):
    embedder = CountingEmbedder()
    docs = client.create_collection("docs", embedder=embedder)
    rows(dsn, "ALTER TABLE pgseek.documents ADD CONSTRAINT none_here CHECK (external_id <> '5')")
    with pytest.raises(DatabaseError, match="none_here"):
        docs.ingest(numbered(30), batch_size=10)
    rows(dsn, "ALTER TABLE pgseek.documents DROP CONSTRAINT none_here")
    report = docs.ingest(numbered(30), batch_size=10)
    # The batch after it may have been written beside it.
    assert report.new >= 10
    assert report.new + report.unchanged == 30
    assert max(Counter(embedder.documents).values()) == 1


def test_what_a_source_gave_before_it_failed_is_stored(client):
    def source():
        yield from numbered(25)
        raise OSError("the disk is gone")

    docs = client.create_collection("docs", embedder=CountingEmbedder())
    with pytest.raises(OSError, match="the disk is gone"):
        docs.ingest(source(), batch_size=10)
    assert docs.count() == 25


def test_an_interrupted_ingest_stops_what_is_under_way(client, service):
    embedder = remote(service, limits=Limits(concurrency=1))
    embedder.max_inputs = 1
    docs = client.create_collection("docs", embedder=embedder)
    service.latency = 0.05
    service.reset()

    def interrupt(report):
        if report.new:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        docs.ingest(numbered(300), batch_size=10, progress=interrupt)
    sent = len(service.requests)
    time.sleep(0.5)
    assert len(service.requests) <= sent + 2
    # What was being written is written, whole batches only.
    assert docs.count() in {10, 20, 30}


def test_a_drain_that_fails_keeps_what_was_answered(client, dsn, service):
    embedder = remote(service)
    embedder.max_inputs = 5
    docs = client.create_collection("docs", embedder=embedder)
    for n in range(20):
        rows(dsn, "SELECT pgseek.put_document('docs', %s, %s)", [str(n), f"the text with number {n}"])
    service.reset()
    service.faults = lambda request: Fault(401) if "number 13" in " ".join(request.texts) else None
    # It embeds a word of ours: so the text is at fault, and is found alone.
    report = docs.drain_queue()
    assert (report.changed, [(r.id, "status 401" in r.reason) for r in report.rejected]) == (
        19,
        [("13", True)],
    )
    service.faults = lambda request: Fault(401)
    docs.retry_queue()
    with pytest.raises(EmbedderError, match="status 401"):
        docs.drain_queue()
    service.faults = None
    assert docs.drain_queue().changed == 1
    assert {times for text, times in service.answered.items() if text not in PROBES} == {1}


def test_a_cancelled_ingest_asks_for_no_more(dsn, service):
    embedder = remote(service, limits=Limits(concurrency=1))
    embedder.max_inputs = 1
    service.latency = 0.1

    def source():
        yield from numbered(40)
        # The script cannot be closed while its source is at work.
        time.sleep(1)
        yield from numbered(2, start=40)

    async def main():
        async with AsyncClient(dsn) as client:
            docs = await client.create_collection("docs", embedder=embedder)
            task = asyncio.create_task(docs.ingest(source(), batch_size=40))
            await asyncio.sleep(0.6)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            sent = len(service.requests)
            await asyncio.sleep(1.5)
            return sent, len(service.requests)

    before, after = asyncio.run(main())
    assert 1 < before < 20
    assert after <= before + 2


def test_a_client_closed_while_it_works_says_so(dsn):
    class Slow(CountingEmbedder):
        def embed_documents(self, texts):
            time.sleep(0.5 if PROBES[0] not in texts else 0)
            return super().embed_documents(texts)

    client = Client(dsn)
    collections = [client.create_collection(f"c{n}", embedder=Slow(model=f"m{n}")) for n in range(3)]
    errors = []

    def work(docs):
        try:
            docs.ingest(numbered(2))
        except PgseekError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=work, args=(docs,)) for docs in collections]
    for thread in threads:
        thread.start()
    time.sleep(0.25)
    client.close()
    for thread in threads:
        thread.join(30)
    assert "the client was closed while it was working" in errors
    assert len(errors) == 3


def test_a_refused_text_rejects_its_document_alone(client, service):
    embedder = remote(service)
    docs = client.create_collection("docs", embedder=embedder)
    service.bad_text = "number 17"
    report = docs.ingest(numbered(40))
    (rejection,) = report.rejected
    assert (report.new, rejection.id, rejection.position) == (39, "17", 18)
    assert "refused its text" in rejection.reason


# What it costs.


def test_a_plan_says_what_ingest_then_does(client, dsn):
    embedder = Reader(1000)
    embedder.price = 2.0
    docs = client.create_collection("docs", embedder=embedder)
    docs.ingest([*numbered(10), {"id": "other", "text": "known already", "metadata": {"a": 1}}])
    documents = [
        *numbered(5),
        {"id": "5", "text": "changed now"},
        {"id": "other", "text": "known already", "metadata": {"a": 2}},
        {"id": "new", "text": "brand new words"},
        {"id": "same", "text": "brand new words"},
        {"id": "cached", "text": "the text with number 3"},
        {"id": "", "text": "bad"},
    ]
    before, embedder.documents = snapshot(dsn), []
    plan = docs.plan(documents)
    assert snapshot(dsn) == before
    assert embedder.documents == []
    assert (plan.new, plan.changed, plan.metadata_changed, plan.unchanged) == (3, 1, 1, 5)
    assert (plan.documents, len(plan.rejected)) == (11, 1)
    assert (plan.chunks, plan.texts, plan.cached) == (4, 2, 1)
    assert (plan.tokens, plan.exact) == (5, True)
    assert plan.cost == pytest.approx(5 * 2.0 / 1e6)
    assert plan.seconds is None
    report = docs.ingest(documents)
    assert (report.new, report.changed, report.metadata_changed, report.unchanged) == (3, 1, 1, 5)
    assert (report.chunks, report.embedded, report.cached) == (plan.chunks, plan.texts, plan.cached)


def test_a_plan_counts_equal_texts_once_over_all_batches(client):
    docs = client.create_collection("docs", embedder=Reader(1000))
    plan = docs.plan({"id": str(n), "text": "one text"} for n in range(1200))
    assert (plan.new, plan.chunks, plan.texts, plan.tokens) == (1200, 1200, 1, 2)


def test_a_plan_knows_time_and_price_of_a_service(client, service):
    embedder = remote(service, limits=Limits(requests_per_minute=60, tokens_per_minute=None))
    embedder.max_inputs = 10
    docs = client.create_collection("docs", embedder=embedder)
    service.reset()
    plan = docs.plan(numbered(95))
    assert service.requests == []
    assert plan.seconds == pytest.approx(10)
    assert not plan.exact
    assert plan.price == 0.02
    assert plan.cost == pytest.approx(plan.tokens * 0.02 / 1e6)
    # An estimate, but not of another size.
    docs.ingest(numbered(95))
    billed = sum(request.tokens for request in service.requests)
    assert 0.5 < plan.tokens / billed < 3


def test_max_cost_stops_before_the_request_that_would_pass_it(client, service):
    embedder = remote(service, limits=Limits(concurrency=1))
    embedder.max_inputs = 10
    docs = client.create_collection("docs", embedder=embedder)
    one = docs.plan(numbered(10)).cost
    service.reset()
    with pytest.raises(CostLimitReached, match=r"max_cost is \$"):
        docs.ingest(numbered(100), batch_size=20, max_cost=one * 4)
    spent = sum(request.tokens for request in service.requests) * 0.02 / 1e6
    assert 0 < spent <= one * 4
    assert 0 < len(service.answered) < 100
    report = docs.ingest(numbered(100), batch_size=20)
    assert report.new + report.unchanged == 100
    assert set(service.answered.values()) == {1}
    assert report.cost == pytest.approx(report.tokens * 0.02 / 1e6)
    with pytest.raises(InvalidInput, match="max_cost is -1"):
        docs.ingest([], max_cost=-1)


def test_max_cost_needs_a_price(client, service):
    embedder = remote(service)
    embedder.price = 0.0
    docs = client.create_collection("docs", embedder=embedder)
    service.reset()
    with pytest.raises(InvalidInput, match=r"max_cost is 2\.5, but nothing is known of what openai:.* costs"):
        docs.ingest(numbered(3), max_cost=2.5)
    assert service.requests == []
    # What runs here costs nothing, whatever may be spent.
    local = client.create_collection("local", embedder=CountingEmbedder())
    assert local.ingest(numbered(3), max_cost=0).new == 3


def test_the_report_says_what_was_billed(client, service):
    docs = client.create_collection("docs", embedder=remote(service))
    service.reset()
    report = docs.ingest(numbered(30))
    assert report.tokens == sum(request.tokens for request in service.requests) == 150
    assert report.cost == pytest.approx(150 * 0.02 / 1e6)
    assert docs.ingest(numbered(30)).tokens == 0


# Limits and spaces.


def test_a_limit_is_the_databases_from_the_first_ingest_on(client, dsn, service):
    # The collection's own embedder has sent its first request before a database was known to it.
    docs = client.create_collection("docs", embedder=remote(service, limits=Limits(requests_per_minute=6000)))
    docs.ingest(numbered(3))
    assert [row["name"] for row in rows(dsn, "SELECT name FROM pgseek.rate_limits")] == [
        f"openai:{MODEL}/requests"
    ]


def test_a_password_in_an_address_names_no_limit():
    made = CompatibleEmbedder("m", 8, base_url="http://user:secret@proxy.example/v1", api_key="k")
    assert made.account == "http://proxy.example/v1:m"


def test_two_clients_share_the_limits_of_an_account(dsn, service):
    limits = Limits(requests_per_minute=600, concurrency=4)
    with Client(dsn) as client:
        client.create_collection("docs", embedder=remote(service, limits=limits))
    service.reset()

    def work(own):
        with Client(dsn) as client:
            embedder = remote(service, limits=limits)
            embedder.max_inputs = 1
            client.collection("docs", embedder=embedder).ingest(
                numbered(30, prefix=f"w{own}-", start=own * 30)
            )

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(service.answered) == 60
    # A burst of 30, then 9.3 a second for both together.
    assert service.most_in(2) <= 30 + 2 * 9.3 + 4
    names = {row["name"] for row in rows(dsn, "SELECT name FROM pgseek.rate_limits")}
    assert names == {f"openai:{MODEL}/requests"}


def test_a_space_is_not_made_with_vectors_that_are_not_what_they_say(client):
    class Long(CountingEmbedder):
        def embed_documents(self, texts):
            return super().embed_documents(texts) * 3

    with pytest.raises(EmbedderError, match=r"unit length, but one has length 3: .*normalized=False"):
        client.create_collection("docs", embedder=Long())
    assert client.list_collections() == []
    honest = Long()
    honest.identity = EmbedderIdentity("tests", "long", 8, normalized=False)
    docs = client.create_collection("docs", embedder=honest)
    assert docs.info().identity.normalized is False
    docs.ingest(numbered(3))
    assert (
        docs.search(
            "the text with number 1", model=str(docs.info().identity), query_embedding=honest.embed_query("x")
        )[0].dense_score
        <= 1
    )


def test_a_service_that_does_not_answer_makes_no_collection(client, service):
    service.faults = lambda _: Fault(403)
    with pytest.raises(EmbedderError, match="status 403"):
        client.create_collection("docs", embedder=remote(service))
    assert client.list_collections() == []


def test_the_cache_keeps_documents_as_long_as_the_settings_say(dsn, monkeypatch):
    monkeypatch.setenv("PGSEEK_CACHE_DOCUMENT_DAYS", "7")
    monkeypatch.setenv("PGSEEK_CACHE_QUERY_DAYS", "1")
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder())
        docs.ingest(numbered(2))
        docs.search("a query")
    kept = rows(
        dsn,
        "SELECT input_type, round(extract(epoch FROM expires_at - now()) / 86400) AS days"
        " FROM pgseek.embedding_cache ORDER BY 1",
    )
    assert [(row["input_type"], int(row["days"])) for row in kept] == [
        ("document", 7),
        ("document", 7),
        ("query", 1),
    ]


def test_an_ingest_leaves_no_more_cached_than_the_settings_say(dsn, monkeypatch):
    monkeypatch.setenv("PGSEEK_CACHE_MAX_MB", "0")
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder())
        assert docs.ingest(numbered(20)).new == 20
    assert rows(dsn, "SELECT FROM pgseek.embedding_cache") == []


def test_vectors_are_those_of_the_texts(client, service):
    embedder = remote(service)
    embedder.max_inputs = 7
    docs = client.create_collection("docs", embedder=embedder)
    docs.ingest(numbered(50), batch_size=13)
    for n in (0, 12, 13, 49):
        vector = embedder.embed_documents([f"the text with number {n}"])[0]
        (hit,) = docs.search("x", model=str(docs.info().identity), query_embedding=vector, k=1, alpha=1)
        assert hit.id == str(n)
        assert hit.dense_score == pytest.approx(1, abs=1e-5)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
