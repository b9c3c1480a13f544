"""Ingest: what a change costs, sync, strictness, and indexes that are built after a large load."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support import CORPUS, CountingEmbedder, rows, snapshot

from pgseek import (
    AsyncClient,
    Client,
    DatabaseError,
    Document,
    DocumentRejected,
    InvalidInput,
    SyncRefused,
)
from pgseek import loading as loading_scripts
from pgseek.db.connection import connect


@pytest.fixture
def embedder():
    return CountingEmbedder()


@pytest.fixture
def docs(client, embedder):
    return client.create_collection("docs", embedder=embedder, chunk_size=200)


def numbered(first, last=None):
    start, end = (0, first) if last is None else (first, last)
    return [{"id": str(n), "text": f"text number {n}", "metadata": {"n": n}} for n in range(start, end)]


def stored(dsn, table="chunks", columns="ordinal, ctid::text"):
    return rows(dsn, f"SELECT {columns} FROM pgseek.{table} ORDER BY document_id, ordinal")


def paragraphs(*names):
    return "\n\n".join(f"Paragraph {name}. " + f"{name} " * 35 for name in names)


# --- What a change costs -------------------------------------------------------------------


def test_an_edited_paragraph_replaces_its_chunk_and_no_other(docs, dsn, embedder):
    docs.ingest([Document("a", paragraphs("one", "two", "three", "four"))])
    chunks, vectors = stored(dsn), stored(dsn, "embeddings_1")
    assert len(chunks) >= 4
    embedder.documents.clear()
    report = docs.ingest([Document("a", paragraphs("one", "zwo", "three", "four"))])
    assert report.changed == 1
    assert len(embedder.documents) == report.embedded < len(chunks) / 2
    now = stored(dsn)
    assert sum(row in now for row in chunks) == len(chunks) - report.embedded
    assert sum(row in stored(dsn, "embeddings_1") for row in vectors) == len(chunks) - report.embedded
    # As if it had been written so at once.
    after = snapshot(dsn)
    docs.delete("a")
    docs.ingest([Document("a", paragraphs("one", "zwo", "three", "four"))])
    assert snapshot(dsn) == after


def test_chunks_that_only_moved_keep_their_vectors(docs, dsn):
    docs.ingest([Document("a", paragraphs("one", "two", "three"))])
    vectors = stored(dsn, "embeddings_1")
    # Two signs more before it: every later chunk begins two characters later.
    report = docs.ingest([Document("a", "Eh" + paragraphs("one", "two", "three"))])
    assert report.embedded == 1
    assert sum(row in vectors for row in stored(dsn, "embeddings_1")) == len(vectors) - 1
    body = docs.get("a").text
    for row in stored(dsn, columns="text, char_start, char_end"):
        assert body[row["char_start"] : row["char_end"]] == row["text"]


def test_another_title_or_language_replaces_every_chunk(docs, dsn, embedder):
    docs.ingest([Document("a", paragraphs("one", "two"))])
    before = stored(dsn)
    embedder.documents.clear()
    docs.ingest([Document("a", paragraphs("one", "two"), title="Numbers")])
    assert len(embedder.documents) == len(before)
    assert not [row for row in stored(dsn) if row in before]
    before = stored(dsn)
    embedder.documents.clear()
    docs.ingest([Document("a", paragraphs("one", "two"), title="Numbers", language="german")])
    # The words are read in another way; the text that was embedded is the same.
    assert embedder.documents == []
    assert not [row for row in stored(dsn) if row in before]
    assert {row["language"] for row in stored(dsn, columns="language")} == {"german"}


def test_a_document_put_through_sql_gets_its_vector_though_its_chunk_is_the_same(docs, dsn):
    rows(dsn, "SELECT pgseek.put_document('docs', 'a', 'short text')")
    assert docs.drain_queue().changed == 1
    assert docs.search("short", alpha=1)[0].id == "a"


def test_new_names_and_another_order_embed_nothing(docs, embedder):
    docs.ingest(numbered(20))
    embedder.documents.clear()
    assert docs.ingest(numbered(20)[::-1]).unchanged == 20
    renamed = [{**document, "id": f"new {document['id']}"} for document in numbered(20)]
    report = docs.ingest(renamed, sync=True, max_removed=1)
    assert (report.new, report.removed, report.embedded, report.cached) == (20, 20, 0, 20)
    assert embedder.documents == []


# --- Sync ----------------------------------------------------------------------------------


def test_a_sync_removes_what_the_source_no_longer_has(docs, dsn):
    docs.ingest(numbered(20))
    report = docs.ingest([*numbered(5, 20), {"id": "5", "text": "again"}], sync=True)
    assert (report.unchanged, report.removed, docs.count()) == (15, 5, 15)
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.embeddings_1") == [{"n": 15}]
    assert docs.get("3") is None


def test_a_sync_that_would_remove_too_much_is_refused(docs):
    docs.ingest(numbered(20))
    with pytest.raises(SyncRefused, match=r"12 of 20 documents are not in the source \(\w+, \w+, \w+, …\)"):
        docs.ingest(numbered(12, 20), sync=True)
    assert docs.count() == 20
    with pytest.raises(SyncRefused, match="20 of 20"):
        docs.ingest([], sync=True)
    assert docs.ingest(numbered(12, 20), sync=True, max_removed=0.6).removed == 12
    assert docs.ingest([], sync=True, max_removed=1).removed == 8
    assert docs.ingest([], sync=True).removed == 0


@pytest.mark.parametrize("value", [-0.1, 1.5, True, "half"])
def test_a_share_out_of_its_range_is_named(docs, value):
    with pytest.raises(InvalidInput, match=r"must lie in 0\.\.1"):
        docs.ingest([], sync=True, max_removed=value)


def test_a_sync_within_a_filter_leaves_the_others(docs):
    docs.ingest(numbered(20))
    report = docs.ingest(numbered(3, 10), sync={"n": {"$lt": 10}})
    assert (report.removed, docs.count()) == (3, 17)


def test_a_document_that_became_bad_is_not_gone(docs):
    docs.ingest(numbered(4))
    report = docs.ingest([*numbered(3), {"id": "3", "text": "\x00"}], sync=True)
    assert (len(report.rejected), report.removed) == (1, 0)
    assert docs.get("3").text == "text number 3"


def test_a_sync_with_records_that_have_no_name_removes_nothing(docs):
    docs.ingest(numbered(4))
    with pytest.raises(SyncRefused, match="1 records of the source could not be read and have no id"):
        docs.ingest([*numbered(3), {"text": "who am I"}], sync=True)
    assert docs.count() == 4


def test_a_source_that_fails_removes_nothing(docs):
    docs.ingest(numbered(4))

    def source():
        yield from numbered(3)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        docs.ingest(source(), sync=True)
    assert docs.count() == 4


def test_what_others_write_during_a_sync_stays(client, docs):
    docs.ingest(numbered(4))

    def source():
        yield from numbered(4)
        client.collection("docs", embedder=CountingEmbedder()).ingest([{"id": "other", "text": "in between"}])

    assert docs.ingest(source(), sync=True).removed == 0
    assert docs.get("other") is not None


# --- Strictness and rejects ----------------------------------------------------------------


def test_a_strict_ingest_ends_at_the_first_bad_document(docs):
    with pytest.raises(DocumentRejected, match=r"document 4 \('bad'\): the document has no text") as caught:
        docs.ingest([*numbered(3), {"id": "bad", "text": ""}, *numbered(3, 9)], strict=True)
    assert caught.value.rejection.position == 4
    assert docs.count() == 3


def test_a_strict_ingest_ends_at_a_text_the_embedder_cannot_embed(client):
    embedder = CountingEmbedder(given={"bad": [0.0] * 8})
    docs = client.create_collection("docs", embedder=embedder)
    with pytest.raises(DocumentRejected, match="no usable vector"):
        docs.ingest([{"id": "1", "text": "good"}, {"id": "2", "text": "bad"}], strict=True)
    assert docs.ingest([{"id": "1", "text": "good"}, {"id": "2", "text": "bad"}]).new == 1


def test_rejects_come_with_their_record(client):
    embedder = CountingEmbedder(given={"bad": [float("nan")] * 8})
    docs = client.create_collection("docs", embedder=embedder)
    seen = []
    bad = [
        {"id": "1", "text": ""},
        Document("2", "bad", metadata={"n": 1}),
        {"id": "3", "text": "x", "metadata": {"a": {"b": {"c": {"d": {}}}}}},
    ]
    report = docs.ingest([*bad, {"id": "4", "text": "x"}], on_reject=lambda *given: seen.append(given))
    assert sorted(rejection.id for rejection, _ in seen) == ["1", "2", "3"]
    assert sorted(report.rejected, key=lambda r: r.position) == sorted(
        (rejection for rejection, _ in seen), key=lambda r: r.position
    )
    records = {rejection.id: record for rejection, record in seen}
    assert records["1"] is bad[0]
    assert records["2"] == {"id": "2", "text": "bad", "metadata": {"n": 1}, "language": "english"}
    # What was mended goes in as it came out.
    embedder.given.clear()
    assert docs.ingest([records["2"]]).new == 1
    assert docs.get("2").metadata == {"n": 1}


# --- Indexes -------------------------------------------------------------------------------

INDEXES = (
    "SELECT indexrelid::regclass::text AS name, indexrelid::int AS oid FROM pg_index"
    " WHERE indrelid IN ('pgseek.chunks'::regclass, 'pgseek.embeddings_1'::regclass) AND NOT indisprimary"
    " AND indisvalid ORDER BY 1"
)
BOTH = ["pgseek.chunks_codes_idx", "pgseek.embeddings_1_hnsw"]


def indexes(dsn):
    return {row["name"]: row["oid"] for row in rows(dsn, INDEXES)}


def test_a_large_load_builds_its_indexes_in_the_end(docs, dsn):
    before = indexes(dsn)
    during = []

    def look(report):
        if report.new:
            during.append(set(indexes(dsn)))

    docs.ingest(numbered(3000), batch_size=500, progress=look)
    after = indexes(dsn)
    assert list(after) == BOTH
    assert after[BOTH[0]] != before[BOTH[0]]
    assert set() in during
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.chunks") == [{"n": 3000}]
    assert docs.search("number 2999", alpha=0)[0].id == "2999"


def test_a_load_that_fails_builds_its_indexes_all_the_same(docs, dsn):
    def source():
        yield from numbered(3000)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        docs.ingest(source())
    assert list(indexes(dsn)) == BOTH
    assert docs.count() == 3000


def test_search_is_exact_while_the_index_of_words_is_missing(docs, dsn):
    docs.ingest(numbered(2000))
    query = {"query": "number 7 text 8", "alpha": 0, "k": 20, "budget": 1e6}
    filtered = {**query, "filter": {"n": {"$gt": 5}}}
    required = {**query, "query": "+number 7 text 8"}
    # (Which of a thousand equal ones come first is the index's business.)
    expected = [[hit.score for hit in docs.search(**given)] for given in (query, filtered, required)]
    rows(dsn, "DROP INDEX pgseek.chunks_codes_idx")
    found = [docs.search(**given) for given in (query, filtered, required)]
    assert [[hit.score for hit in hits] for hits in found] == expected
    assert [sorted(hit.id for hit in hits[:2]) for hits in found] == [["7", "8"]] * 3
    assert not any(hit.degraded for hits in found for hit in hits)
    # Any ingest builds it again.
    docs.ingest(numbered(1))
    assert list(indexes(dsn)) == BOTH


def test_a_small_addition_keeps_the_indexes(docs, dsn):
    docs.ingest(numbered(1100))
    before = indexes(dsn)
    docs.ingest(numbered(1100, 1200))
    assert indexes(dsn) == before
    # More than twice as many as there are pay for a new index of either kind.
    docs.ingest(numbered(1200, 4600), indexes="keep")
    assert indexes(dsn) == before
    docs.ingest(numbered(4600, 14_500))
    after = indexes(dsn)
    assert list(after) == BOTH
    assert not set(after.values()) & set(before.values())


def test_a_graph_that_stays_is_asked_for_once(docs, dsn, monkeypatch):
    docs.ingest(numbered(3000))
    before = indexes(dsn)
    asked = []
    suspend = loading_scripts.indexes.suspend_graph

    def noted(space):
        asked.append(space.space_id)
        return suspend(space)

    monkeypatch.setattr(loading_scripts.indexes, "suspend_graph", noted)
    # As many as that: too many for the graph, not for the index of words. Somebody reads meanwhile.
    with connect(dsn) as other, other.transaction():
        other.execute("SELECT * FROM pgseek.embeddings_1")
        docs.ingest(iter(numbered(3000, 5400)), batch_size=200)
    assert asked == [1]
    assert indexes(dsn) == before


def test_an_index_in_use_is_left_out_only_where_asked_for(docs, dsn, monkeypatch):
    docs.ingest(numbered(1100))
    monkeypatch.setattr(loading_scripts, "SERVING_FROM", 1000)
    before = indexes(dsn)
    docs.ingest(numbered(1100, 4500))
    assert indexes(dsn) == before
    docs.ingest(numbered(4500, 14_500), indexes="rebuild")
    after = indexes(dsn)
    assert list(after) == BOTH
    assert not set(after.values()) & set(before.values())


def test_a_table_that_others_work_with_keeps_its_index(docs, dsn):
    before = indexes(dsn)
    with connect(dsn) as other, other.transaction():
        other.execute("SELECT * FROM pgseek.chunks")
        docs.ingest(numbered(3000))
        after = indexes(dsn)
    assert after[BOTH[0]] == before[BOTH[0]]
    assert list(after) == BOTH


def test_other_collections_keep_their_index_of_words(client, dsn):
    client.create_collection("large", embedder=CountingEmbedder()).ingest(numbered(4000))
    before = indexes(dsn)
    client.create_collection("small", embedder=CountingEmbedder()).ingest(numbered(1500))
    assert indexes(dsn)[BOTH[0]] == before[BOTH[0]]


def test_an_unknown_way_with_indexes_is_refused(docs):
    with pytest.raises(InvalidInput, match="indexes is 'none', but must be one of auto, keep, rebuild"):
        docs.ingest([], indexes="none")


def test_memory_for_a_build_does_not_outlive_it(docs, dsn):
    docs.ingest(numbered(3000))
    client = docs._client
    with client._runner._pool.connection() as connection:
        held = connection.execute("SHOW maintenance_work_mem").fetchone()
        temporary = connection.execute("SHOW search_path").fetchone()
    with connect(dsn) as connection:
        assert connection.execute("SHOW maintenance_work_mem").fetchone() == held
        assert connection.execute("SHOW search_path").fetchone() == temporary


# --- Both clients --------------------------------------------------------------------------


def test_the_asynchronous_client_does_the_same(dsn):
    async def main():
        async with AsyncClient(dsn) as client:
            docs = await client.create_collection("docs", embedder=CountingEmbedder())
            first = await docs.ingest(numbered(3000))
            again = await docs.ingest(numbered(2000, 3000), sync=True, max_removed=0.7)
            with pytest.raises(DocumentRejected):
                await docs.ingest([{"id": "x", "text": ""}], strict=True)
            return first.new, again.unchanged, again.removed, await docs.count()

    assert asyncio.run(main()) == (3000, 1000, 2000, 1000)
    assert list(indexes(dsn)) == BOTH


def test_a_failing_write_leaves_no_task_behind(dsn):
    async def main():
        async with AsyncClient(dsn) as client:
            docs = await client.create_collection("docs", embedder=CountingEmbedder())
            rows(dsn, "ALTER TABLE pgseek.documents ADD CONSTRAINT none CHECK (external_id <> '150')")
            with pytest.raises(DatabaseError, match="none"):
                await docs.ingest(numbered(1000), batch_size=100)
            # (The pool has workers of its own.)
            return [task for task in asyncio.all_tasks() if task.get_coro().__qualname__ == "AsyncRunner.run"]

    assert asyncio.run(main()) == []


def test_a_pool_of_one_connection_is_enough(dsn, monkeypatch):
    monkeypatch.setenv("PGSEEK_POOL_SIZE", "1")
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder())
        done = []
        thread = threading.Thread(target=lambda: done.append(docs.ingest(numbered(3000)).new))
        thread.start()
        thread.join(60)
        assert done == [3000]
        assert docs.ingest(CORPUS).new == len(CORPUS)
