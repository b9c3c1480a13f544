"""Answers kept by their questions: what is found, what is told apart, and what is not served any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import numpy as np
import psycopg
import pytest
from support import CORPUS, CountingEmbedder, rows

from pgseek import (
    AsyncClient,
    Client,
    CollectionNotFound,
    InvalidInput,
)
from pgseek.db.connection import connect

ASKED = "how do I keep what a function returned"
NEAR = "how can I keep what a function returned"
OTHER = "what is the capital of France"


def direction(*values):
    vector = np.zeros(8)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


GIVEN = {ASKED: direction(1), NEAR: direction(1, 0.2), OTHER: direction(0, 1)}


@pytest.fixture
def embedder():
    return CountingEmbedder(given=GIVEN)


@pytest.fixture
def docs(client, embedder):
    made = client.create_collection("docs", embedder=embedder)
    made.ingest(CORPUS)
    return made


def threshold(dsn, value, space=1):
    rows(
        dsn,
        "UPDATE pgseek.embedding_spaces SET searching = jsonb_set(searching, '{thresholds}',"
        " jsonb_build_object('answer_cache', jsonb_build_object('similarity', %s::float8)))"
        " WHERE space_id = %s",
        [value, space],
    )


def test_the_same_question_is_found_without_a_vector(docs, embedder):
    assert docs.find_answer(ASKED) is None
    docs.put_answer(ASKED, "Use lru_cache.", documents="lru_cache", metadata={"by": "me"})
    asked = len(embedder.queries)
    for query in (ASKED, f"  {ASKED.upper()} ?!", ASKED.replace(" ", "\n\t")):
        found = docs.find_answer(query)
        assert (found.answer, found.question, found.exact, found.similarity) == (
            "Use lru_cache.",
            ASKED,
            True,
            None,
        )
    assert len(embedder.queries) == asked
    assert (found.metadata, found.documents, found.expires_at) == ({"by": "me"}, ("lru_cache",), None)
    assert docs.find_answer(OTHER) is None


def test_a_near_question_is_answered_from_the_threshold_on(docs, dsn):
    docs.put_answer(ASKED, "Use lru_cache.")
    similarity = float(GIVEN[ASKED] @ GIVEN[NEAR])
    # Without a threshold only the same question counts.
    assert docs.find_answer(NEAR) is None
    found = docs.find_answer(NEAR, min_similarity=0.9)
    assert (found.answer, found.exact, found.question) == ("Use lru_cache.", False, ASKED)
    assert found.similarity == pytest.approx(similarity, abs=1e-6)
    assert docs.find_answer(NEAR, min_similarity=0.99) is None
    threshold(dsn, 0.95)
    assert docs.find_answer(NEAR).question == ASKED
    threshold(dsn, 0.99)
    assert docs.find_answer(NEAR) is None
    # What is given comes before what is stored.
    assert docs.find_answer(NEAR, min_similarity=0.9) is not None
    assert docs.answer_counts.asked == 6
    assert (docs.answer_counts.same, docs.answer_counts.near) == (0, 3)


def test_of_several_the_nearest_that_is_not_told_apart_is_served(docs, embedder):
    embedder.given["cancel order 123"] = direction(1)
    embedder.given["cancel order 124"] = direction(1, 0.01)
    embedder.given["please cancel order 124"] = direction(1, 0.1)
    docs.put_answer("cancel order 123", "123 is cancelled")
    docs.put_answer("please cancel order 124", "124 is cancelled")
    assert docs.find_answer("cancel order 124", min_similarity=0.9).answer == "124 is cancelled"
    assert docs.find_answer("cancel order 124", min_similarity=0.9, guard=False).answer == "123 is cancelled"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cancel order 123", "cancel order 124"),
        ("how do I enable dark mode", "how do I disable dark mode"),
        ("turn the lights on", "turn the lights off"),
        ("what does E-4021 mean", "what does E-4022 mean"),
        ("what does E-4021 mean", "what does it mean"),
        ("functools.lru_cache size", "functools.cache size"),
        ("is it allowed", "is it not allowed"),
        ("why can I log in", "why can't I log in"),
        ("sort with a key", "sort without a key"),
        ("who wrote it", "when was it written"),
        ("in what year was it", "where was it"),
        ("is Paris in France", "is Lyon in France"),
        ("how many points", "how much time"),
        ("the first king", "the last king"),
        ("two tickets", "three tickets"),
        ("two tickets", "some tickets"),
        ("wie aktiviere ich es nicht", "wie aktiviere ich es"),
        ("Wann war es", "Wo war es"),
        ("is C++ fast", "is C# fast"),
        ("upgrade to 3.1", "upgrade to 3.2"),
    ],
)
def test_what_tells_questions_apart(module_dsn, one, other):
    for a, b in ((one, other), (other, one)):
        (found,) = rows(module_dsn, "SELECT pgseek.tell_apart(%s, %s) AS why", [a, b])
        assert found["why"], (a, b)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("how do I enable dark mode", "enabling dark mode"),
        ("How do I turn dark mode on?", "enable dark mode"),
        ("what is the capital of France", "france: its capital"),
        ("two tickets", "2 tickets"),
        ("What year was it", "when was it"),
        ("is Paris in France", "Paris: is it in france?"),
        ("don't stop", "do not stop"),
        ("is C++ fast", "how fast is c++"),
        ("", ""),
    ],
)
def test_what_does_not_tell_questions_apart(module_dsn, one, other):
    for a, b in ((one, other), (other, one)):
        assert rows(module_dsn, "SELECT pgseek.tell_apart(%s, %s) AS why", [a, b]) == [{"why": None}]


def test_an_answer_is_of_its_scope(docs):
    docs.put_answer(ASKED, "for all")
    docs.put_answer(ASKED, "for anna", scope="user=anna")
    assert docs.find_answer(ASKED).answer == "for all"
    assert docs.find_answer(ASKED, scope="user=anna").answer == "for anna"
    assert docs.find_answer(ASKED, scope="user=bob") is None
    assert docs.find_answer(NEAR, scope="user=bob", min_similarity=0) is None


def test_the_last_answer_counts(docs, dsn):
    docs.put_answer(ASKED, "old", ttl=60, documents=["errno"])
    docs.put_answer(f"{ASKED}?", "new")
    found = docs.find_answer(ASKED)
    assert (found.answer, found.expires_at, found.documents) == ("new", None, ())
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.answers") == [{"n": 1}]


def test_what_has_expired_is_not_served(docs, dsn):
    docs.put_answer(ASKED, "soon gone", ttl=timedelta(hours=1))
    found = docs.find_answer(ASKED)
    assert found.expires_at - found.stored_at == timedelta(hours=1)
    rows(dsn, "UPDATE pgseek.answers SET expires_at = statement_timestamp() - interval '1 second'")
    assert docs.find_answer(ASKED) is None
    assert docs.find_answer(NEAR, min_similarity=0.5) is None
    assert [(one.expired, one.outdated) for one in docs.answer_stats()] == [(1, 0)]
    assert docs.clear_answers(only_stale=True) == 1
    assert docs.answer_stats() == []


def test_an_answer_goes_with_the_documents_it_cites(docs):
    docs.put_answer(ASKED, "by the cache", documents=["lru_cache", "errno"])
    docs.put_answer(OTHER, "another", documents=["reduce"])
    assert docs.find_answer(ASKED).documents == ("lru_cache", "errno")
    # Other metadata is the same text.
    docs.ingest([{**CORPUS[0], "metadata": {"module": "x"}}])
    assert docs.find_answer(ASKED) is not None
    docs.ingest([{**CORPUS[0], "text": "Something else."}])
    assert docs.find_answer(ASKED) is None
    assert docs.find_answer(NEAR, min_similarity=0.5) is None
    # As it was again, so is what was said of it.
    docs.ingest([CORPUS[0]])
    assert docs.find_answer(ASKED) is not None
    docs.delete("errno")
    assert docs.find_answer(ASKED) is None
    (stats,) = docs.answer_stats()
    assert (stats.scope, stats.answers, stats.embedded, stats.outdated) == ("", 2, 2, 1)
    assert docs.clear_answers(only_stale=True) == 1
    assert docs.find_answer(OTHER).answer == "another"


def test_answers_are_cleared_by_question_scope_and_document(docs):
    def fill():
        docs.put_answer(ASKED, "a", documents=["lru_cache"])
        docs.put_answer(OTHER, "b", documents=["errno", "reduce"])
        docs.put_answer(ASKED, "c", scope="s")

    for arguments, gone in (
        ({"query": f"{ASKED}?"}, 2),
        ({"query": ASKED, "scope": ""}, 1),
        ({"scope": "s"}, 1),
        ({"documents": "reduce"}, 1),
        ({"documents": ["reduce", "lru_cache"]}, 2),
        ({"documents": ["nobody"]}, 0),
        ({"only_stale": True}, 0),
        ({}, 3),
    ):
        fill()
        assert docs.clear_answers(**arguments) == gone, arguments


def test_answers_belong_to_the_model_that_is_searched_by(client, docs, dsn, embedder):
    docs.put_answer(ASKED, "by the first model")
    other = CountingEmbedder(model="other", given=GIVEN)
    docs.reembed(other)
    docs.activate(2)
    both = client.collection("docs", embedder=[embedder, other])
    assert both.find_answer(ASKED) is None
    assert both.find_answer(NEAR, min_similarity=-1) is None
    (stats,) = both.answer_stats()
    assert stats.of_other_spaces == 1
    both.put_answer(ASKED, "by the second")
    assert both.find_answer(ASKED).answer == "by the second"
    # The old handle follows; the vectors of the two are never compared.
    assert docs.find_answer(ASKED).answer == "by the second"
    both.rollback()
    assert both.find_answer(ASKED).answer == "by the first model"
    assert both.clear_answers(only_stale=True) == 1


def test_it_is_dropped_with_its_collection(client, docs, dsn):
    docs.put_answer(ASKED, "a")
    client.drop_collection("docs")
    assert rows(dsn, "SELECT FROM pgseek.answers") == []
    with pytest.raises(CollectionNotFound):
        docs.find_answer(ASKED)


def test_looking_up_writes_nothing(docs, dsn):
    docs.put_answer(ASKED, "a")
    with connect(dsn) as connection:
        connection.execute("SET default_transaction_read_only = on")
        call = "SELECT answer, exact FROM pgseek.find_answer('docs', %s, %s::vector, 0.5, space_id => 1)"
        vector = str(GIVEN[NEAR].tolist())
        assert connection.execute(call, [NEAR, vector]).fetchall() == [{"answer": "a", "exact": False}]
        before = connection.execute("SELECT xmin::text FROM pgseek.answers").fetchall()
    assert rows(dsn, "SELECT xmin::text FROM pgseek.answers") == before


def test_signs_of_vectors_find_what_exact_comparison_finds(client, dsn):
    rng = np.random.default_rng(1)
    base = rng.normal(size=(600, 256))
    given = {f"near {n}": one + 0.3 * rng.normal(size=256) for n, one in enumerate(base[:20])}
    docs = client.create_collection("docs", embedder=CountingEmbedder(dimensions=256, given=given))
    rows(
        dsn,
        "SELECT pgseek.put_answer('docs', 'number ' || n, n::text, v::vector, space_id => 1)"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS u (v, n)",
        [[str(one.tolist()) for one in base]],
    )
    for n in range(20):
        found = docs.find_answer(f"near {n}", min_similarity=0.8, guard=False)
        assert found.answer == str(n + 1)


def test_a_vector_has_to_be_of_the_model(dsn, docs):
    call = "SELECT pgseek.find_answer('docs', 'x', {})"
    put = "SELECT pgseek.put_answer('docs', 'x', 'y', {})"
    for statement in (call, put):
        for given, code in (
            ("'[1,0,0,0,0,0,0,0]'", "PGS05"),
            ("'[1,0]', space_id => 1", "PGS04"),
            ("'[0,0,0,0,0,0,0,0]', space_id => 1", "PGS02"),
            ("'[1,0,0,0,0,0,0,0]', space_id => 99", "PGS05"),
            ("'[1,0,0,0,0,0,0,0]', model => 'tests:else'", "PGS05"),
        ):
            with pytest.raises(psycopg.Error) as raised:
                rows(dsn, statement.format(given))
            assert raised.value.sqlstate == code, (statement, given)


def test_wrong_input_is_refused(docs, dsn):
    for call, message in (
        (lambda: docs.find_answer(" "), "the query is empty"),
        (lambda: docs.find_answer("x", min_similarity=1.5), r"min_similarity is 1.5, but must lie in -1..1"),
        (lambda: docs.find_answer("x", scope=3), "scope is 3, but must be a text"),
        (lambda: docs.find_answer("x", scope="s" * 501), "the scope has 501 characters"),
        (lambda: docs.put_answer("x", None), "answer is None, but must be a text"),
        (lambda: docs.put_answer("x", "y\0"), "answer holds a NUL byte at character 1"),
        (lambda: docs.put_answer("x", "y", scope="\ud800"), "scope holds a lone surrogate at character 0"),
        (lambda: docs.put_answer("x", "y", documents="\0"), "an id of documents holds a NUL byte"),
        (lambda: docs.put_answer("x", "y", metadata=[1]), "metadata is a list, but must be a JSON object"),
        (lambda: docs.put_answer("x", "y", metadata={"n": float("nan")}), "cannot be written as JSON"),
        (lambda: docs.clear_answers(scope="\0"), "scope holds a NUL byte"),
        (lambda: docs.put_answer("x", "y", ttl=0), "ttl is 0, but must be above 0"),
        (lambda: docs.put_answer("x", "y", ttl="1 h"), "ttl is '1 h', but must be seconds"),
        (lambda: docs.put_answer("x", "y", ttl=float("nan")), "ttl is nan, but must be seconds"),
        (lambda: docs.put_answer("x", "y", documents=["nowhere"]), "cites document 'nowhere', which"),
        (lambda: docs.put_answer("x", "y", documents=[3]), r"documents is \[3\], but must be the ids"),
        (lambda: docs.clear_answers(documents=[""]), r"documents is \[''\], but must be the ids"),
    ):
        with pytest.raises(InvalidInput, match=message):
            call()
    with pytest.raises(psycopg.Error, match="metadata is a JSON array, but must be a JSON object"):
        rows(dsn, "SELECT pgseek.put_answer('docs', 'x', 'y', metadata => '[]')")


def test_a_tenant_has_answers_of_its_own(dsn):
    for tenant in ("acme", "beta"):
        with Client(dsn, tenant=tenant) as client:
            made = client.create_collection("docs", embedder=CountingEmbedder(given=GIVEN))
            assert made.find_answer(NEAR, min_similarity=-1, guard=False) is None
            made.put_answer(ASKED, f"of {tenant}")
            assert made.find_answer(ASKED).answer == f"of {tenant}"
            assert made.clear_answers() == 1


def test_asynchronously(dsn, docs):
    async def run():
        async with AsyncClient(dsn) as client:
            opened = await client.collection("docs", embedder=CountingEmbedder(given=GIVEN))
            await opened.put_answer(ASKED, "a", ttl=3600)
            assert (await opened.find_answer(NEAR, min_similarity=0.9)).answer == "a"
            assert opened.answer_counts.near == 1
            assert [one.answers for one in await opened.answer_stats()] == [1]
            assert await opened.clear_answers() == 1

    asyncio.run(run())


def test_an_embedder_that_fails_leaves_the_same_question(docs, embedder):
    docs.put_answer(ASKED, "a")

    def fail(text):
        raise RuntimeError("no")

    embedder.embed_query = fail
    assert docs.find_answer(ASKED).answer == "a"
    with pytest.raises(Exception, match="no"):
        docs.find_answer("never asked", min_similarity=0.9)
