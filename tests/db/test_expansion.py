"""Queries expanded by a model: what is asked, embedded, joined, stored, reported, and what a failure leaves."""

from __future__ import annotations

import asyncio
import logging
import threading

import numpy as np
import openai
import pytest
from providers import Fault, ProviderServer
from support import CORPUS, CountingEmbedder, rows

from pgseek import (
    AsyncClient,
    Client,
    EmbedderError,
    Expansion,
    GeneratorError,
    InvalidInput,
    SearchTimeout,
    create_expansion,
)
from pgseek.expansion import as_expansion, joined
from pgseek.generators.chat import ChatGenerator

QUERY = "remember results"
ANSWER = "A memoizing decorator saves what a function returned."


@pytest.fixture
def embedder():
    return CountingEmbedder(16)


@pytest.fixture
def docs(client, embedder):
    made = client.create_collection("docs", embedder=embedder)
    made.ingest(CORPUS)
    embedder.documents.clear()
    embedder.queries.clear()
    return made


@pytest.fixture
def server():
    with ProviderServer() as made:
        made.chat = said
        yield made


@pytest.fixture
def chat(server):
    with openai.DefaultHttpxClient(verify=False) as plain:
        client = openai.OpenAI(api_key="k", base_url=server.base_url + "/v1", http_client=plain)
        made = ChatGenerator("tiny", provider="openai-compatible", client=client, base_url=server.base_url)
        made.backoff = 0.001
        yield made


def said(request):
    """Answer as the chat model is told to."""
    told, query = (message["content"] for message in request.arguments["messages"])
    query = query.removeprefix("Query:\n")
    if "that answers the query" in told:
        return f"An answer to {query}.\nIn two lines.", "stop"
    return f"1. {query} again\n- {query} once more\n{query}, please", "stop"


def ranked(hits):
    return [(hit.id, hit.score) for hit in hits]


def unit(vector):
    return vector / np.linalg.norm(vector)


# The vector.


def test_the_mean_is_of_directions_and_as_long_as_they_are():
    own, other = np.array([2, 0], np.float32), np.array([0, 2], np.float32)
    np.testing.assert_allclose(joined(own, [other], 1.0), unit(np.array([1, 1])) * 2, rtol=1e-6)
    np.testing.assert_allclose(joined(own, [other, other], 1.0), unit(np.array([1, 1])) * 2, rtol=1e-6)
    np.testing.assert_allclose(joined(own, [other], 3.0), unit(np.array([1, 3])) * 2, rtol=1e-6)
    # Longer ones do not weigh more.
    np.testing.assert_allclose(unit(joined(own, [other * 9], 1.0)), unit(np.array([1, 1])), rtol=1e-6)
    assert joined(own, [other], 1.0).dtype == np.float32


def test_nothing_written_and_opposites_leave_the_querys_own():
    own = np.array([1, 0], np.float32)
    assert joined(own, [], 1.0) is own
    assert joined(own, [-own], 1.0) is own


# HyDE and other queries.


def test_hyde_embeds_an_answer_as_a_document(docs, embedder, chat, server):
    reports = []
    hits = docs.search(QUERY, expand=Expansion(chat, "hyde"), report=reports.append)
    answer = f"An answer to {QUERY}. In two lines."
    assert (embedder.documents, embedder.queries) == ([answer], [QUERY])
    vector = unit(unit(embedder._vector(QUERY)) + unit(embedder._vector(answer)))
    expected = docs.search(QUERY, model=str(docs.info().identity), query_embedding=vector)
    assert [hit.id for hit in hits] == [hit.id for hit in expected]
    np.testing.assert_allclose([h.dense_score for h in hits], [h.dense_score for h in expected], atol=1e-5)
    assert reports[0].texts == (answer,)
    assert list(reports[0].stages) == ["embed", "expand", "search"]
    assert hits[0].degraded is None
    (request,) = server.requests
    assert request.arguments["messages"][1]["content"] == f"Query:\n{QUERY}"


def test_other_queries_are_embedded_as_queries(docs, embedder, chat):
    reports = []
    docs.search(QUERY, expand=Expansion(chat, "queries", count=2), report=reports.append)
    others = (f"{QUERY} again", f"{QUERY} once more")
    assert reports[0].texts == others
    assert (embedder.documents, embedder.queries) == ([], [QUERY, *others])


def test_what_was_written_is_known_the_next_time(docs, dsn, embedder, chat, server):
    for _ in range(3):
        docs.search(QUERY, expand=Expansion(chat, "hyde"))
        docs.search(QUERY, expand=Expansion(chat, "queries"))
    assert len(server.requests) == 2
    assert (len(embedder.documents), len(embedder.queries)) == (1, 4)
    # Another number of them is another request.
    docs.search(QUERY, expand=Expansion(chat, "queries", count=1))
    assert len(server.requests) == 3
    assert len(rows(dsn, "SELECT * FROM pgseek.generated_texts")) == 3


def test_the_weight_is_that_of_all_of_them(docs, embedder):
    def write(query):
        return ["one", "two"]

    found = docs.search(QUERY, expand=Expansion(write, weight=0.000001))
    assert [hit.id for hit in found] == [hit.id for hit in docs.search(QUERY)]
    hits = docs.search(QUERY, alpha=1, expand=Expansion(write, weight=100))
    vector = unit(embedder._vector("one")) + unit(embedder._vector("two"))
    expected = docs.search(
        QUERY,
        alpha=1,
        model=str(docs.info().identity),
        query_embedding=unit(0.02 * unit(embedder._vector(QUERY)) + vector),
    )
    np.testing.assert_allclose([h.dense_score for h in hits], [h.dense_score for h in expected], atol=1e-5)


def test_a_function_writes_queries_and_is_asked_each_time_unless_it_has_a_name(docs, embedder):
    asked = []

    def write(query):
        asked.append(query)
        return ANSWER

    docs.search(QUERY, expand=write)
    docs.search(QUERY, expand=write)
    assert asked == [QUERY, QUERY]
    assert embedder.queries == [QUERY, ANSWER]
    docs.search(QUERY, expand=Expansion(write, "hyde", model="mine"))
    docs.search(QUERY, expand=Expansion(write, "hyde", model="mine"))
    assert asked == [QUERY] * 3
    assert embedder.documents == [ANSWER]


def test_by_words_alone_nothing_is_written(docs):
    docs.search(QUERY, alpha=0, expand=lambda query: pytest.fail("it was asked"))


def test_names_of_both_kinds(server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url + "/v1")
    hyde = create_expansion("hyde:openai-compatible:tiny")
    assert (hyde.method, hyde.name) == ("hyde", "openai-compatible:tiny")
    assert as_expansion("queries:openai:gpt-4.1-mini").name == "openai:gpt-4.1-mini"


# What is wrong.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: create_expansion("hide:openai:x"), "'hide:openai:x' is unknown: give hyde:PROVIDER:MODEL"),
        (lambda: create_expansion(""), "is unknown"),
        (lambda: create_expansion("hyde:nobody:x"), "'nobody' is unknown"),
        (lambda: create_expansion("hyde:openai"), "names no model"),
        (lambda: Expansion(5), "the writer is a int"),
        (lambda: Expansion(str, "other"), "method is 'other'"),
        (lambda: Expansion(str, count=0), "count is 0"),
        (lambda: Expansion(str, count=17), "from 1 to 16"),
        (lambda: Expansion(str, weight=0), "weight is 0"),
        (lambda: Expansion(str, weight=True), "weight is True"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()


def test_a_vector_of_the_callers_is_not_expanded(docs, embedder):
    with pytest.raises(InvalidInput, match="leave query_embedding out"):
        docs.search(QUERY, model=str(docs.info().identity), query_embedding=[1.0] * 16, expand=str)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda query: [], "wrote nothing"),
        (lambda query: ["", " "], "wrote nothing"),
        (lambda query: 5, "gave a int, but must give a list of texts"),
        (lambda query: [1], "gave a int among its texts"),
        (lambda query: 1 / 0, "failed: division by zero"),
    ],
)
def test_what_is_no_text_is_an_error_or_leaves_the_query_as_it_is(docs, write, message, caplog):
    with pytest.raises(GeneratorError, match=message):
        docs.search(QUERY, expand=write)
    with caplog.at_level(logging.WARNING, "pgseek"):
        hits = docs.search(QUERY, expand=write, on_embedder_error="lexical")
    assert ranked(hits) == ranked(docs.search(QUERY))
    for hit in hits:
        assert hit.degraded.startswith("not expanded: callable:<lambda>")
        assert message in hit.degraded
        assert hit.dense_score is not None
    (record,) = caplog.records
    assert "the query was not expanded by callable:<lambda> (GeneratorError" in record.getMessage()
    assert QUERY not in record.getMessage()


def test_a_service_that_refuses_or_fails(docs, chat, server):
    server.faults = lambda _: Fault(500)
    with pytest.raises(GeneratorError, match="did not answer"):
        docs.search(QUERY, expand=Expansion(chat, "hyde"))
    server.faults = []
    server.bad_text = QUERY
    with pytest.raises(GeneratorError, match="refused"):
        docs.search(QUERY, expand=Expansion(chat, "hyde"))
    assert (
        "not expanded" in docs.search(QUERY, expand=Expansion(chat), on_embedder_error="lexical")[0].degraded
    )
    server.bad_text = None
    # Nothing of it was stored.
    assert docs.search(QUERY, expand=Expansion(chat, "hyde"))[0].degraded is None


def test_an_answer_that_cannot_be_embedded(docs, embedder):
    embedder.given["zero"] = [0.0] * 16
    for method in ("hyde", "queries"):
        with pytest.raises(EmbedderError, match="zero or non-finite"):
            docs.search(QUERY, expand=Expansion(lambda query: "zero", method))


def test_the_timeout_bounds_the_model(docs):
    released = threading.Event()

    def hangs(query):
        assert released.wait(60)
        return "late"

    try:
        with pytest.raises(
            SearchTimeout, match=r"expand 0\.\d+ s, not done \(callable:hangs had not expanded"
        ):
            docs.search(QUERY, expand=hangs, timeout=0.3)
        hits = docs.search(QUERY, expand=hangs, timeout=2, on_embedder_error="lexical")
        assert ranked(hits) == ranked(docs.search(QUERY))
        assert hits[0].degraded == "not expanded: callable:hangs had not expanded the query in time"
    finally:
        released.set()


def test_who_may_not_write_searches_all_the_same(docs, dsn, chat, server, embedder):
    rows(dsn, "DROP ROLE IF EXISTS pgseek_reads")
    rows(dsn, "CREATE ROLE pgseek_reads LOGIN")
    try:
        rows(dsn, "GRANT USAGE ON SCHEMA pgseek TO pgseek_reads")
        rows(dsn, "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgseek TO pgseek_reads")
        rows(dsn, "GRANT SELECT ON ALL TABLES IN SCHEMA pgseek TO pgseek_reads")
        with Client(f"{dsn} user=pgseek_reads") as client:
            own = client.collection("docs", embedder=embedder)
            for _ in range(2):
                assert own.search(QUERY, expand=Expansion(chat, "hyde"))[0].degraded is None
        assert len(server.requests) == 2
        assert rows(dsn, "SELECT * FROM pgseek.generated_texts") == []
    finally:
        rows(dsn, "DROP OWNED BY pgseek_reads")
        rows(dsn, "DROP ROLE pgseek_reads")


def test_the_asynchronous_client_does_the_same(docs, dsn, chat, embedder):
    expected = ranked(docs.search(QUERY, expand=Expansion(chat, "hyde")))

    async def main():
        threads = set()

        def write(query):
            threads.add(threading.current_thread())
            return ANSWER

        async with AsyncClient(dsn) as client:
            own = await client.collection("docs", embedder=embedder)
            assert ranked(await own.search(QUERY, expand=Expansion(chat, "hyde"))) == expected
            await own.search(QUERY, expand=write)
            assert threads
            assert threading.current_thread() not in threads

    asyncio.run(main())


def test_the_identity_of_what_is_written_for_chunks_has_not_changed():
    # Of questions and summaries that are stored already.
    made = ChatGenerator("gpt-4.1-mini")
    assert made.identity == "openai:gpt-4.1-mini/84265df31c5eb2c7"
