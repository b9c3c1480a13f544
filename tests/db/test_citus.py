"""The whole way on a Citus cluster: migrate, distribute, ingest, search, delete, drop.

TEST_CITUS_DSN names a superuser's database on the coordinator; without it, only the run that leaves the
distribution out is made, on the test server: it holds the test itself to be right.
"""

from __future__ import annotations

import contextlib
import os

import numpy as np
import pytest
from psycopg.conninfo import make_conninfo
from support import CountingEmbedder, create_database, drop_database, rows

from pgseek import Client
from pgseek.db import distribute as distribution
from pgseek.db import schema
from pgseek.db.connection import connect

CITUS = os.environ.get("TEST_CITUS_DSN")
NAME = f"pgseek_citus_{os.getpid()}"
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "kelp"]
# More than an exact scan is good for, so that each shard has a graph.
DOCUMENTS = [
    {
        "id": f"n{n}",
        "text": f"{WORDS[n % 11]} beside {WORDS[n * 7 % 11]} and {WORDS[n * 3 % 10]}, place {n}",
        "metadata": {"place": n, "kind": WORDS[n % 3]},
    }
    for n in range(1500)
]


def distributed(by):
    """What the rows are distributed by; skipped where there is no cluster."""
    return pytest.param(
        by,
        id=f"by {by}",
        marks=pytest.mark.skipif(CITUS is None, reason="TEST_CITUS_DSN names no Citus coordinator"),
    )


NOT_DISTRIBUTED = pytest.param(None, id="not distributed")


@pytest.fixture
def dsn(request, server_dsn):
    """The DSN of a new database: on the cluster, with all its nodes, if the test is to distribute it."""
    with contextlib.ExitStack() as stack:
        if request.getfixturevalue("by") is None:
            stack.callback(drop_database, server_dsn, NAME)
            create_database(server_dsn, NAME)
            dsn = make_conninfo(server_dsn, dbname=NAME)
        else:
            dsn = _on_every_node(stack)
        schema.upgrade(dsn)
        yield dsn


def _on_every_node(stack):
    """Make the database and the extension on each node, as Citus leaves to whoever makes one."""
    nodes = rows(
        CITUS,
        "SELECT groupid, nodename AS host, nodeport AS port FROM pg_dist_node WHERE noderole = 'primary'"
        " ORDER BY groupid",
    )
    workers = [make_conninfo(CITUS, host=n["host"], port=n["port"]) for n in nodes if n["groupid"] != 0]
    for server in (CITUS, *workers):
        stack.callback(drop_database, server, NAME)
        create_database(server, NAME)
        rows(make_conninfo(server, dbname=NAME), "CREATE EXTENSION citus")
    made = make_conninfo(CITUS, dbname=NAME)
    for node in nodes:
        function = "citus_add_node" if node["groupid"] != 0 else "citus_set_coordinator_host"
        rows(made, f"SELECT {function}(%s, %s)", [node["host"], node["port"]])
    return made


def spread(dsn, by):
    """Distribute what is not distributed yet; nothing without ``by``."""
    return [] if by is None else distribution.distribute(dsn, by)


@pytest.mark.parametrize("by", [NOT_DISTRIBUTED, distributed("collection_id")])
def test_collections_live_on_a_cluster(dsn, by):
    if by is not None:
        assert distribution.distribute(dsn, by, shards=4)
    embedder = CountingEmbedder(16)
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=embedder)
        other = client.create_collection("other", embedder=CountingEmbedder(4, model="other"))
        # The tables of vectors of both, and nothing else: the rest was distributed before.
        assert len(spread(dsn, by)) == (0 if by is None else 2)
        assert spread(dsn, by) == []
        check_placement(dsn, by)

        report = docs.ingest(DOCUMENTS)
        assert (report.new, report.rejected) == (1500, ())
        other.ingest({**document, "text": "only in the other collection"} for document in DOCUMENTS[:20])
        again = docs.ingest([*DOCUMENTS[:-1], {**DOCUMENTS[-1], "text": "amber alone now"}])
        assert (again.unchanged, again.changed) == (1499, 1)
        check_searches(docs, embedder)
        check_sql_writers(dsn, docs)

        assert docs.delete([f"n{n}" for n in range(0, 1500, 2)]) == 750
        assert docs.count() == 750
        assert {int(hit.id[1:]) % 2 for hit in docs.search("amber", k=100)} == {1}
        assert left(dsn) == {"documents": 750, "chunks": 750, "embeddings": 750}
        client.drop_collection("docs")
        assert [info.name for info in client.list_collections()] == ["other"]
        assert rows(dsn, "SELECT DISTINCT collection_id FROM pgseek.chunks") == [{"collection_id": 2}]


@pytest.mark.parametrize("by", [NOT_DISTRIBUTED, distributed("document_id")])
def test_a_collection_that_is_loaded_first_is_searched_on_all_nodes(dsn, by):
    embedder = CountingEmbedder(16)
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=embedder)
        docs.ingest([*DOCUMENTS[:-1], {**DOCUMENTS[-1], "text": "amber alone now"}])
    spread(dsn, by)
    check_placement(dsn, by)
    with Client(dsn) as client:
        check_searches(client.collection("docs", embedder=embedder), embedder)


def check_searches(docs, embedder):
    assert docs.count() == 1500
    check_dense(docs, embedder)
    check_words(docs)
    check_filters(docs)
    check_hybrid(docs)


def check_placement(dsn, by):
    if by is None:
        return
    placed = {
        row["name"]: (row["type"], row["by"])
        for row in rows(
            dsn,
            "SELECT c.relname AS name, t.citus_table_type AS type, t.distribution_column AS by"
            " FROM citus_tables t JOIN pg_class c ON c.oid = t.table_name",
        )
    }
    for name in (*distribution.DISTRIBUTED[by], "embeddings_1"):
        assert placed[name] == ("distributed", by)
    for name in distribution.REFERENCE[by]:
        assert placed[name][0] == "reference"
    assert not set(distribution.LOCAL[by]) & placed.keys()
    groups = rows(
        dsn,
        "SELECT count(DISTINCT colocation_id) AS n FROM citus_tables WHERE citus_table_type = 'distributed'",
    )
    assert groups == [{"n": 1}]


def check_dense(docs, embedder):
    """The graphs of all shards together find what an exact scan finds, but for a few."""
    vectors = np.array([embedder._vector(document["text"]) for document in DOCUMENTS[:-1]])
    found = right = 0
    for word in WORDS:
        query = np.asarray(embedder.embed_query(word))
        exact = {f"n{n}" for n in np.argsort(-(vectors @ query), kind="stable")[:10]}
        hits = docs.search(word, model=str(docs.info().identity), query_embedding=query, alpha=1, k=10)
        assert [hit.rank for hit in hits] == list(range(1, 11))
        cosines = [hit.dense_score for hit in hits]
        assert cosines == sorted(cosines, reverse=True)
        for hit in hits:
            if hit.id != DOCUMENTS[-1]["id"]:
                assert hit.dense_score == pytest.approx(vectors[int(hit.id[1:])] @ query, abs=1e-5)
        found += len(exact & {hit.id for hit in hits})
        right += len(exact)
    assert found >= 0.95 * right


def check_words(docs):
    """BM25 finds those, and only those, that hold the word, by the weights that are stored."""
    for word in ("amber", "kelp", "place"):
        having = {d["id"] for d in DOCUMENTS[:-1] if word in d["text"]} | (
            {"n1499"} if word == "amber" else set()
        )
        hits = docs.search(word, alpha=0, k=2000, budget=60_000.0)
        assert {hit.id for hit in hits} == having
        scores = [hit.lexical_score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        ten = docs.search(word, alpha=0, k=10, budget=60_000.0)
        assert [hit.lexical_score for hit in ten] == pytest.approx(scores[:10])
    (exact,) = docs.search("place 777", alpha=0, k=1)
    assert exact.id == "n777"
    ranked = docs.search("fjord", alpha=0, lexical="ts_rank", k=5)
    assert len(ranked) == 5
    assert all("fjord" in hit.text for hit in ranked)


def check_filters(docs):
    few = docs.search("amber", filter={"place": {"$lt": 15}}, k=50)
    assert {int(hit.id[1:]) for hit in few} <= set(range(15))
    assert len(few) == 15
    assert {hit.metadata["kind"] for hit in docs.search("amber", filter={"kind": "birch"}, k=50)} == {"birch"}
    must = docs.search("+amber -birch", k=50)
    assert must
    assert all("amber" in hit.text and "birch" not in hit.text for hit in must)


def check_hybrid(docs):
    for options in ({}, {"fusion": "rrf"}, {"normalization": "minmax"}, {"collapse": True}):
        hits = docs.search("amber beside cedar", k=20, **options)
        assert len(hits) == 20
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert all("<b>" in hit.snippet for hit in hits if hit.matched)
    assert docs.search("fjrod", k=3, alpha=0)[0].matched[0].origin == "fjrod"
    assert docs.search("amb*", k=3, alpha=0)


def check_sql_writers(dsn, docs):
    with connect(dsn) as connection:
        for text in ("a zebra by an SQL writer", "a zebra twice: zebra"):
            connection.execute("SELECT pgseek.put_document('docs', 'put', %s)", [text])
    assert docs.search("zebra", alpha=0)[0].id == "put"
    assert docs.queue_status().waiting == 1
    assert docs.drain_queue().changed == 1
    assert docs.queue_status().waiting == 0
    assert docs.search("zebra")[0].dense_score is not None
    rows(dsn, "SELECT pgseek.delete_document('docs', 'put')")
    assert docs.get("put") is None


def left(dsn):
    (counted,) = rows(
        dsn,
        "SELECT (SELECT count(*) FROM pgseek.documents WHERE collection_id = 1) AS documents,"
        " (SELECT count(*) FROM pgseek.chunks WHERE collection_id = 1) AS chunks,"
        " (SELECT count(*) FROM pgseek.embeddings_1) AS embeddings",
    )
    return counted
