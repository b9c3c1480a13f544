"""Collections and their embedding spaces: names, embedders, and what must not be mixed."""

from __future__ import annotations

import pytest
from support import CORPUS, CountingEmbedder, rows

from pgseek import (
    Client,
    CollectionExists,
    CollectionNotFound,
    EmbedderIdentity,
    InvalidInput,
    SpaceMismatch,
)
from pgseek.db.connection import connect


def test_an_unknown_name_suggests_the_nearest(client):
    with pytest.raises(CollectionNotFound, match="there are no collections yet"):
        client.collection("docs")
    client.create_collection("python-docs")
    with pytest.raises(CollectionNotFound, match="'pyton-docs'; did you mean 'python-docs'"):
        client.collection("pyton-docs")
    with pytest.raises(CollectionNotFound, match="there are: python-docs"):
        client.drop_collection("zzz")


@pytest.mark.parametrize("name", ["", "a" * 64, "it's", 'a"b', "a b", "a;drop", "-x", "ü", "x\n", None, 5])
def test_a_name_that_is_not_allowed_is_refused(client, name):
    with pytest.raises(InvalidInput, match="1 to 63 ASCII letters"):
        client.create_collection(name)
    assert client.list_collections() == []


def test_the_longest_name_and_every_sign_work(client):
    name = "A_b-c.9" + "x" * 56
    client.create_collection(name).ingest([{"id": "1", "text": "word"}])
    assert client.collection(name).search("word")[0].id == "1"


def test_a_taken_name_is_refused_unless_that_is_fine(client):
    client.create_collection("docs")
    with pytest.raises(CollectionExists, match="'docs' exists already"):
        client.create_collection("docs")
    assert client.create_collection("docs", exist_ok=True).name == "docs"
    with pytest.raises(
        SpaceMismatch, match="wordllama:l2_supercat@256, but the embedder is wordllama:l2_supercat@64"
    ):
        client.create_collection("docs", embedder="wordllama@64", exist_ok=True)


def test_same_dimensions_of_another_model_are_refused(client):
    client.create_collection("docs", embedder=CountingEmbedder(model="one"))
    with pytest.raises(SpaceMismatch, match="tests:one@8, but the embedder is tests:two@8"):
        client.collection("docs", embedder=CountingEmbedder(model="two"))


def test_other_prompts_are_another_space(client):
    client.create_collection("docs", embedder=CountingEmbedder())
    other = CountingEmbedder()
    other.identity = EmbedderIdentity("tests", "hash", 8, True, query_prompt="query: ")
    with pytest.raises(SpaceMismatch, match="query prompt 'query: '"):
        client.collection("docs", embedder=other)


def test_an_embedder_object_must_be_given_again(client):
    client.create_collection("docs", embedder=CountingEmbedder()).ingest(CORPUS)
    opened = client.collection("docs")
    with pytest.raises(InvalidInput, match="not one of pgseek's embedders; pass the same one"):
        opened.search("cache")
    assert client.collection("docs", embedder=CountingEmbedder()).search("cache")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedder": "wordlama"}, "did you mean 'wordllama'"),
        ({"embedder": "wordllama@100"}, "64, 128, 256 dimensions, not 100"),
        ({"embedder": "wordllama", "dimensions": 5}, "64, 128, 256 dimensions, not 5"),
        ({"embedder": CountingEmbedder(8), "dimensions": 9}, "dimensions is 9, but tests:hash@8 gives 8"),
        ({"embedder": CountingEmbedder(16_001)}, "16001 dimensions cannot be stored"),
        ({"metric": "angle"}, "metric is 'angle', but must be one of cosine, inner_product, l2, l1"),
        ({"storage": "bit"}, "storage is 'bit', but must be one of vector, halfvec"),
        ({"index": "hsnw"}, "'hsnw' is none of hnsw, ivfflat, none, full, binary, prefix"),
        ({"index": "hnsw,m=1"}, "m is 1, but must be a whole number from 2 to 100"),
        ({"index": "hnsw,m=40"}, "ef_construction is 64, but must be at least twice m, which is 40"),
        ({"index": "prefix=256"}, "prefix is 256, but must be below the 256 dimensions"),
        ({"index": "ivfflat", "metric": "l1"}, "IVFFlat has no l1 metric"),
        ({"index": "hnsw,lists=10"}, "lists is 10, but belongs to an index of method 'ivfflat'"),
        (
            {"embedder": CountingEmbedder(3000), "storage": "vector", "index": "hnsw"},
            "takes 2,000 dimensions of vector, but these have 3,000; store them as halfvec",
        ),
        ({"embedder": object()}, "embedder is a object"),
        (
            {"language": "englisch"},
            "language 'englisch' is not a text-search configuration; did you mean 'english'",
        ),
        ({"alpha": 2}, "alpha is 2"),
        ({"fusion": "sum"}, "fusion is 'sum'"),
        ({"chunk_size": 0}, "chunk size is 0"),
        ({"chunk_overlap": 2000}, "chunk overlap is 2000"),
        ({"colour": "red"}, "setting 'colour' is unknown"),
    ],
)
def test_bad_arguments_create_nothing(client, dsn, arguments, message):
    with pytest.raises(InvalidInput) as caught:
        client.create_collection("docs", **arguments)
    assert message in str(caught.value)
    assert client.list_collections() == []
    assert rows(dsn, "SELECT FROM pg_tables WHERE tablename ~ '^embeddings_'") == []


def test_settings_are_kept_and_used(client):
    made = client.create_collection("docs", embedder=CountingEmbedder(), fusion="rrf", language="german")
    made.ingest([{"id": "1", "text": "Häuser"}])
    info = made.info()
    assert (info.settings["fusion"], info.language, info.documents, info.chunks) == ("rrf", "german", 1, 1)
    assert made.search("Haus")[0].score == pytest.approx(2 / 61)


def test_dropping_leaves_nothing_behind(client, dsn):
    client.create_collection("keep", embedder=CountingEmbedder()).ingest(CORPUS)
    client.create_collection("docs", embedder=CountingEmbedder()).ingest(CORPUS)
    rows(dsn, "SELECT pgseek.put_document('docs', 'queued', 'x')")
    client.drop_collection("docs")
    assert [info.name for info in client.list_collections()] == ["keep"]
    assert [
        r["tablename"] for r in rows(dsn, "SELECT tablename FROM pg_tables WHERE tablename ~ '^embeddings_'")
    ] == ["embeddings_1"]
    for table in ("documents", "chunks", "ingest_queue"):
        assert rows(dsn, f"SELECT count(*) AS n FROM pgseek.{table} WHERE collection_id = 2")[0]["n"] == 0


def test_a_handle_of_a_collection_made_anew_with_another_model_is_refused(client, dsn):
    """Same name, same dimensions, another model: its vectors must not be compared with these."""
    old = client.create_collection("docs", embedder=CountingEmbedder(model="one"))
    old.ingest(CORPUS)
    with Client(dsn) as other:
        other.drop_collection("docs")
        other.create_collection("docs", embedder=CountingEmbedder(model="two")).ingest(CORPUS)
    with pytest.raises(SpaceMismatch, match=r"now uses tests:two@8 \(space 2\); open the collection again"):
        old.search("cache")
    with pytest.raises(SpaceMismatch):
        old.search("cache", model=str(old.info().identity), query_embedding=[1] * 8)


def test_using_a_dropped_collection_says_so(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest(CORPUS)
    client.drop_collection("docs")
    with pytest.raises(CollectionNotFound, match="'docs'"):
        docs.search("cache")
    with pytest.raises(CollectionNotFound, match="there is no collection 'docs'"):
        docs.ingest([{"id": "1", "text": "x"}])
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.documents")[0]["n"] == 0


def test_making_and_dropping_a_collection_does_not_lock_the_others(client, dsn):
    client.create_collection("busy", embedder=CountingEmbedder()).ingest(CORPUS)
    gone = client.create_collection("gone", embedder=CountingEmbedder())
    gone.ingest(CORPUS)
    with connect(dsn) as connection, connection.transaction():
        connection.execute("SELECT * FROM pgseek.search('busy', 'cache')")
        connection.execute("SELECT pgseek.put_document('busy', 'open', 'an open transaction')")
        # With a lock on chunks this would wait for ever for the transaction above.
        rows(dsn, f"ALTER DATABASE {connection.info.dbname} SET lock_timeout = '5s'")
        with Client(dsn) as other:
            other.drop_collection("gone")
            other.create_collection("new", embedder=CountingEmbedder()).ingest(CORPUS)
    assert [info.name for info in client.list_collections()] == ["busy", "new"]
