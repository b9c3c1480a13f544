"""Golden sets on a real database: kept, exchanged, moved with a collection's name, and dropped with it."""

from __future__ import annotations

import pytest
from support import CORPUS, CountingEmbedder, rows

from pgseek import Client, CollectionNotFound, InvalidInput
from pgseek.evaluation import (
    drop_golden,
    evaluate,
    list_golden,
    read_golden,
    read_qrels,
    read_queries,
    save_golden,
    write_qrels,
    write_queries,
)
from pgseek.evaluation.golden import missing_of

QUERIES = {"q1": "cache results", "q2": "O'Reilly; DROP TABLE x--", "q3": "nobody judged it"}
QRELS = {"q1": {"lru_cache": 2, "reduce": 0, "gone": 1}, "q2": {"path.join": 1}, "lost": {"errno": 1}}


@pytest.fixture
def docs(client):
    made = client.create_collection("docs", embedder=CountingEmbedder())
    made.ingest(CORPUS)
    return made


def test_a_set_reads_back_and_evaluates(docs):
    made = save_golden(docs, "first", QUERIES, QRELS)
    assert (made.name, made.queries, made.judgements) == ("first", 2, 4)
    found = read_golden(docs, "first")
    assert found.queries == {name: QUERIES[name] for name in ("q1", "q2")}
    assert found.qrels == {name: QRELS[name] for name in ("q1", "q2")}
    assert missing_of(docs, found) == 1
    assert evaluate(docs, found.queries, found.qrels).mode("lexical").per_query["RR@10"]["q1"] == 1


def test_sets_are_listed_exchanged_and_deleted(docs):
    assert list_golden(docs) == ()
    save_golden(docs, "b", QUERIES, QRELS)
    save_golden(docs, "a", QUERIES, {"q1": {"errno": 1}})
    assert [(one.name, one.queries, one.judgements) for one in list_golden(docs)] == [
        ("a", 1, 1),
        ("b", 2, 4),
    ]
    with pytest.raises(
        InvalidInput, match="has a golden set 'a' already; choose another name, or replace it"
    ):
        save_golden(docs, "a", QUERIES, QRELS)
    assert read_golden(docs, "a").qrels == {"q1": {"errno": 1}}
    save_golden(docs, "a", QUERIES, QRELS, replace=True)
    assert len(read_golden(docs, "a").queries) == 2
    drop_golden(docs, "b")
    assert [one.name for one in list_golden(docs)] == ["a"]
    for call in (read_golden, drop_golden):
        with pytest.raises(InvalidInput, match="has no golden set 'aa'; did you mean 'a'"):
            call(docs, "aa")
        with pytest.raises(InvalidInput, match="has no golden set 'b'; there are a"):
            call(docs, "b")


@pytest.mark.parametrize(
    ("name", "queries", "qrels", "message"),
    [
        ("", QUERIES, QRELS, "the golden set's name is '', but must begin with a letter"),
        ("a/b", QUERIES, QRELS, "the golden set's name is 'a/b'"),
        ("g", QUERIES, {"other": {"a": 1}}, "none of the 1 judged queries is among the 3 queries given"),
        ("g", {"q": " "}, {"q": {"a": 1}}, "query 'q' is empty"),
        ("g", {"q": "x"}, {"q": {}}, "query 'q' has no judged document"),
        (
            "g",
            {"q": "x"},
            {"q": {"a": 0.5}},
            "has the relevance 0.5 for query 'q', but it must be a whole number",
        ),
        ("g", {"q": "x"}, {"q": {"a": 2**40}}, "has the relevance 1099511627776"),
        ("g", {"q": "x\0"}, {"q": {"a": 1}}, "holds a sign that PostgreSQL cannot store"),
        ("g", {"q": "x"}, {"q": {"\ud800": 1}}, "holds a sign that PostgreSQL cannot store"),
    ],
)
def test_sets_that_cannot_be_kept(docs, name, queries, qrels, message):
    with pytest.raises(InvalidInput, match=message):
        save_golden(docs, name, queries, qrels)
    assert list_golden(docs) == ()


def test_a_set_stays_with_the_name_through_other_chunks_and_back(docs, dsn):
    save_golden(docs, "first", QUERIES, QRELS)
    found = read_golden(docs, "first")
    old = docs.info().collection_id
    docs.rechunk(chunk_size=100, switch=False)
    assert read_golden(docs, "first") == found
    docs.rechunk(chunk_size=100)
    assert docs.info().collection_id != old
    assert read_golden(docs, "first") == found
    # One that was made since goes back, too.
    save_golden(docs, "second", QUERIES, QRELS)
    docs.rollback()
    assert docs.info().collection_id == old
    assert [one.name for one in list_golden(docs)] == ["first", "second"]
    assert read_golden(docs, "first") == found
    assert rows(
        dsn, "SELECT count(*) AS n FROM pgseek.golden_judgements WHERE collection_id <> %s", [old]
    ) == [{"n": 0}]


def test_a_set_goes_with_its_collection(docs, client, dsn):
    save_golden(docs, "first", QUERIES, QRELS)
    client.create_collection("other", embedder=CountingEmbedder())
    save_golden(client.collection("other", embedder=CountingEmbedder()), "first", QUERIES, QRELS)
    client.drop_collection("docs")
    for table in ("golden_sets", "golden_queries", "golden_judgements"):
        assert len(rows(dsn, f"SELECT DISTINCT collection_id FROM pgseek.{table}")) == 1
    for call in (list_golden, lambda one: save_golden(one, "g", QUERIES, QRELS)):
        with pytest.raises(CollectionNotFound):
            call(docs)


def test_tenants_have_sets_of_their_own(dsn):
    with Client(dsn, tenant="acme") as acme, Client(dsn, tenant="beta") as beta:
        for client in (acme, beta):
            client.create_collection("docs", embedder=CountingEmbedder()).ingest(CORPUS)
        own = acme.collection("docs", embedder=CountingEmbedder())
        save_golden(own, "first", QUERIES, QRELS)
        other = beta.collection("docs", embedder=CountingEmbedder())
        assert list_golden(other) == ()
        save_golden(other, "first", QUERIES, {"q1": {"errno": 1}})
        drop_golden(other, "first")
        assert len(read_golden(own, "first").queries) == 2


def test_files_read_back(tmp_path):
    queries = {"1": "one “quoted”\ttext", "x y": "two"}
    qrels = {"1": {"d 1": 2, "d2": 0}, "x y": {"d3": 1}}
    write_queries(tmp_path / "q.jsonl", queries)
    write_qrels(tmp_path / "qrels.tsv", qrels)
    assert read_queries(tmp_path / "q.jsonl") == queries
    assert read_qrels(tmp_path / "qrels.tsv") == qrels
    with pytest.raises(InvalidInput, match="one holds a tab or a line break"):
        write_qrels(tmp_path / "qrels.tsv", {"1": {"a\tb": 1}})
