"""Hidden copies of collections: other chunks are made beside those that are searched, and take their place."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import Counter

import psycopg
import pytest
from crashes import Child
from support import CORPUS, CountingEmbedder, rows

from pgseek import (
    AsyncClient,
    Client,
    CollectionNotFound,
    ConfigurationError,
    DimensionMismatch,
    InvalidInput,
    SpaceMismatch,
    collections,
    copies,
)
from pgseek.chunking import chunk_text
from pgseek.db.connection import connect
from pgseek.errors import ChangeRefused
from pgseek.integrity import examine

SIZE = 60
DOCUMENTS = """
SELECT c.{which} AS collection, d.document_id, d.external_id, d.title, d.body, d.language, d.format, d.metadata,
       d.content_hash, d.created_at, d.updated_at
  FROM pgseek.documents d JOIN pgseek.collections c USING (collection_id) ORDER BY 1, 2
"""


def long_text(n, sentences=6):
    return " ".join(
        f"Sentence {k} of number {n} speaks of word{n}x{k} and of nothing else." for k in range(sentences)
    )


def corpus(size):
    return [
        {"id": f"d{n}", "title": f"title {n}", "text": long_text(n), "metadata": {"n": n}}
        for n in range(size)
    ]


@pytest.fixture
def docs(client):
    return client.create_collection("docs", embedder=CountingEmbedder())


@pytest.fixture
def change(client):
    return Change(client)


class Change:
    """A change of chunks, step by step, of the collection ``docs``."""

    def __init__(self, client, embedder=None):
        self.client, self.embedder = client, embedder or CountingEmbedder()

    @property
    def info(self):
        return self.client._run(collections.find("docs"))

    @property
    def copy(self):
        return self.client._run(collections.find_copy(self.info))

    @property
    def status(self):
        return self.client._run(collections.copy_status(self.info))

    def begin(self, embedder=None, **changes):
        changes = changes or {"chunk_size": SIZE}
        return self.client._run(copies.begin(self.info, embedder or self.embedder, changes))

    def fill(self, **options):
        return self.client._run(copies.fill(self.copy, **options))

    def drain(self):
        return self.client.collection(self.copy.name, embedder=self.embedder).drain_queue()

    def switch(self, **options):
        return self.client._run(copies.switch(self.info, self.copy, **options))

    def rollback(self):
        return self.client._run(copies.rollback(self.info))

    def retire(self, **options):
        self.client._run(copies.retire(self.copy, **options))

    def ready(self):
        """Everything up to the switch."""
        self.begin()
        self.fill()
        self.drain()


def stored(dsn):
    """The documents of every collection, by its hidden or open name."""
    documents = {}
    for row in rows(dsn, DOCUMENTS.format(which="name")):
        documents.setdefault(row.pop("collection"), []).append(row)
    return documents


def assert_in_step(dsn):
    """Both of a pair hold the same documents; every one has chunks that cover it, or waits for them in the queue."""
    pair = stored(dsn)
    first, second = pair.values() if len(pair) == 2 else ([], [])
    assert first == second
    assert len(pair) in {0, 2}
    assert found(dsn) == []


def found(dsn):
    """What is wrong with the database."""
    return [str(finding) for finding in examine(dsn).findings if not finding.harmless]


def texts(docs, query="word1x1", **options):
    return [hit.text for hit in docs.search(query, **options)]


def test_other_chunks_take_the_place_and_give_it_back(docs, change, dsn):
    docs.ingest(corpus(30))
    whole = long_text(1)
    assert texts(docs, k=1) == [whole]

    copy = change.begin()
    assert copy.name == f"docs~{copy.collection_id}"
    assert (copy.original, copy.copy_of, copy.kept) == ("docs", docs._info.collection_id, False)
    assert copy.settings == {**docs.info().settings, "chunk_size": SIZE}
    assert (change.status.of, change.status.documents, change.status.complete) == (30, 0, False)
    assert found(dsn) == []

    status = change.fill()
    assert (status.documents, status.surplus, status.queued, status.complete) == (30, 0, 30, True)
    assert_in_step(dsn)
    assert texts(docs, k=1) == [whole]

    assert change.drain().changed == 30
    assert change.status.queued == 0
    assert_in_step(dsn)
    assert texts(docs, k=1) == [whole]

    now = change.switch()
    assert (now.name, now.collection_id, now.copy_of) == ("docs", copy.collection_id, None)
    (piece,) = texts(docs, k=1)
    assert piece in whole
    assert "word1x1" in piece
    assert len(piece) <= SIZE
    assert docs.info().settings["chunk_size"] == SIZE
    assert (change.copy.name, change.copy.kept) == (
        f"docs~{docs._given[0] and change.copy.collection_id}",
        True,
    )
    assert_in_step(dsn)

    assert change.rollback().collection_id != copy.collection_id
    assert texts(docs, k=1) == [whole]
    assert_in_step(dsn)

    change.switch()
    change.retire()
    assert change.copy is None
    assert texts(docs, k=1) == [piece]
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.collections") == [{"n": 1}]
    assert rows(dsn, "SELECT count(*) AS n FROM pg_tables WHERE tablename ~ '^embeddings_'") == [{"n": 1}]
    assert found(dsn) == []


def test_a_copy_is_not_among_the_collections(docs, client, change, dsn):
    docs.ingest(CORPUS)
    name = change.begin().name
    assert [info.name for info in client.list_collections()] == ["docs"]
    for ask in (client.collection, client.drop_collection):
        with pytest.raises(CollectionNotFound) as caught:
            ask("zzz")
        assert str(caught.value).endswith("there are: docs")
    with pytest.raises(psycopg.Error) as refused:
        rows(dsn, "SELECT pgseek.put_document('zzz', '1', 'x')")
    assert refused.value.diag.message_hint == "collections here: docs"
    with pytest.raises(InvalidInput, match="is not allowed"):
        client.create_collection(name)
    # It has a queue of its own, and is examined with its original.
    assert [status.collection for status in client.queue_status()] == ["docs", name]
    assert [one.name for one in examine(dsn, ["docs"]).collections] == ["docs", name]
    assert docs.info().copy.name == name


def test_begin_goes_on_with_the_copy_that_was_begun_the_same_way(docs, client, change):
    docs.ingest(CORPUS)
    first = change.begin()
    embedded = len(change.embedder.documents)
    with Client(client._dsn.get_secret_value()) as another:
        assert Change(another, change.embedder).begin() == first
    assert len(change.embedder.documents) == embedded
    with pytest.raises(ChangeRefused) as caught:
        change.begin(chunk_size=70)
    assert f"a copy under way, '{first.name}', that is made otherwise (chunk_size 60)" in str(caught.value)
    assert f"pgseek collections drop {first.name}" in str(caught.value)
    with pytest.raises(ChangeRefused, match="vectors of tests:hash@8"):
        change.begin(CountingEmbedder(model="other"), chunk_size=SIZE)
    with pytest.raises(InvalidInput, match="is a copy itself; begin with 'docs'"):
        client._run(copies.begin(first, change.embedder, {}))
    change.fill()
    change.drain()
    change.switch()
    with pytest.raises(ChangeRefused, match="which had its name before, to go back to"):
        change.begin(chunk_size=70)
    client.drop_collection(change.copy.name)
    assert change.begin(chunk_size=70).settings["chunk_size"] == 70


def test_two_that_begin_at_once_get_the_same_copy(docs, change, dsn):
    docs.ingest(CORPUS)
    names = []

    def begin():
        with Client(dsn) as client:
            names.append(Change(client).begin().name)

    threads = [threading.Thread(target=begin) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == [change.copy.name] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk_size": 0}, "chunk size is 0"),
        ({"chunksize": 5}, "setting 'chunksize' is unknown"),
        ({"language": "german"}, "setting 'language' is unknown"),
        ({"questions": 2}, "questions and summaries need somebody to write them"),
    ],
)
def test_bad_changes_make_no_copy(docs, change, dsn, changes, message):
    with pytest.raises(InvalidInput, match=message):
        change.begin(**changes)
    assert change.copy is None


def test_settings_are_the_originals_and_defaults_follow_what_they_depend_on(client, dsn):
    client.create_collection("docs", embedder=CountingEmbedder(), b=0.4, candidates=70, metric="l2").ingest(
        CORPUS
    )
    rows(dsn, "SELECT pgseek.reweigh('docs', k1 => 1.7)")
    change = Change(client)
    made = change.begin(document_vectors=True, chunk_overlap=10, chunk_size=SIZE)
    wanted = {"b": 0.4, "k1": 1.7, "candidates": 70, "document_vectors": True, "chunk_overlap": 10}
    assert {name: made.settings[name] for name in wanted} == wanted
    # Where whole documents are searched, too, each is given once.
    assert (made.settings["collapse"], made.space.metric) == (True, "l2")
    client.drop_collection("docs")
    client.create_collection("docs", embedder=CountingEmbedder(), alpha=0.9, collapse=True)
    made = change.begin("wordllama")
    assert (made.settings["alpha"], made.settings["collapse"]) == (0.9, True)
    assert (made.settings["normalization"], made.identity.provider) == ("max", "wordllama")
    assert made.space.metric == "cosine"


def test_the_words_of_a_copy_are_weighed_by_its_own_chunks(docs, change, dsn):
    docs.ingest(corpus(40))
    change.begin()
    weighting = "SELECT weighting FROM pgseek.collection_statistics WHERE collection_id = %s"
    (before,) = rows(dsn, weighting, [change.copy.collection_id])
    change.fill()
    change.drain()
    change.switch()
    change.client.collection("docs", embedder=change.embedder).refresh_statistics(reweigh=True)
    (after,) = rows(dsn, weighting, [change.info.collection_id])
    (first,) = rows(dsn, weighting, [change.copy.collection_id])
    assert before["weighting"][2] == pytest.approx(after["weighting"][2], rel=0.05)
    assert first["weighting"][2] > 3 * after["weighting"][2]


# Every way to write: each is done by a client and by a connection of their own, opened before there was a copy.
def ingest(docs, sql, ids, text):
    docs.ingest([{"id": i, "text": f"{text} {i}", "metadata": {"by": "ingest"}} for i in ids])


def put_one(docs, sql, ids, text):
    for i in ids:
        sql.execute("SELECT pgseek.put_document('docs', %s, %s, title => 'one')", [i, f"{text} {i}"])


def put_many(docs, sql, ids, text):
    documents = [{"id": i, "text": f"{text} {i}", "metadata": {"by": "put"}} for i in ids]
    sql.execute(
        "SELECT count(*) FROM pgseek.put_documents('docs', %s)", [psycopg.types.json.Jsonb(documents)]
    )


def put_german(docs, sql, ids, text):
    for i in ids:
        sql.execute("SELECT pgseek.put_document('docs', %s, %s, language => 'german')", [i, f"{text} {i}"])


def metadata_by_ingest(docs, sql, ids, text):
    found = [docs.get(i) for i in ids]
    docs.ingest([{"id": d.id, "text": d.text, "title": d.title, "metadata": {"m": text}} for d in found if d])


def metadata_by_sql(docs, sql, ids, text):
    for d in filter(None, map(docs.get, ids)):
        sql.execute(
            "SELECT pgseek.put_document('docs', %s, %s, title => %s, metadata => jsonb_build_object('s', %s::text),"
            " language => %s)",
            [d.id, d.text, d.title, text, d.language],
        )


def delete(docs, sql, ids, text):
    docs.delete(ids)


def delete_by_sql(docs, sql, ids, text):
    sql.execute("SELECT pgseek.delete_document('docs', %s)", [ids[0]])
    sql.execute("SELECT pgseek.delete_documents('docs', %s)", [ids[1:]])


def sync(docs, sql, ids, text):
    left = [
        i
        for i in rows(sql.info.dsn, "SELECT external_id FROM pgseek.documents")
        if i["external_id"] not in ids
    ]
    left = [docs.get(i) for i in sorted({i["external_id"] for i in left})]
    documents = [
        {"id": d.id, "text": d.text, "title": d.title, "metadata": d.metadata, "language": d.language}
        for d in left
    ]
    docs.ingest(documents, sync=True, max_removed=1.0)


WAYS = [
    ingest,
    put_one,
    put_many,
    put_german,
    metadata_by_ingest,
    metadata_by_sql,
    delete,
    delete_by_sql,
    sync,
]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_reaches_the_copy_in_the_same_transaction(docs, client, dsn, change, way):
    docs.ingest(corpus(10))
    change.begin()
    change.fill()
    with Client(dsn) as other, connect(dsn) as sql:
        handle = other.collection("docs", embedder=CountingEmbedder())
        before = stored(dsn)
        way(handle, sql, ["d1", "d2", "new"], "fresh")
        after = stored(dsn)
        assert after != before
        assert_in_step(dsn)
        change.drain()
        assert_in_step(dsn)
        here = handle.search("fresh", alpha=0, k=100)
        copy = client.collection(change.copy.name, embedder=CountingEmbedder())
        there = copy.search("fresh", alpha=0, k=100)
        assert {hit.id for hit in here} == {hit.id for hit in there}


def test_what_is_undone_is_undone_in_both(docs, dsn, change):
    docs.ingest(corpus(3))
    change.begin()
    change.fill()
    before = stored(dsn)
    with connect(dsn) as sql:
        sql.execute("BEGIN")
        sql.execute("SELECT pgseek.put_document('docs', 'd1', 'other')")
        sql.execute("SELECT pgseek.delete_document('docs', 'd2')")
        sql.execute("ROLLBACK")
    assert stored(dsn) == before


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_writes_keeps_the_two_in_step(docs, client, dsn, change, seed):
    own = random.Random(seed)
    docs.ingest(corpus(12))
    steps = iter([change.begin, change.fill, change.switch, change.rollback, change.switch])
    late = client.collection("docs", embedder=CountingEmbedder())
    with connect(dsn) as sql:
        for turn in range(40):
            if turn % 8 == 0:
                step = next(steps)
                _ = step(allow_queued=True) if step == change.switch else step()
            if change.copy is not None and turn % 7 == 3:
                change.drain()
            ids = own.sample([f"d{n}" for n in range(16)], 3)
            # The late one was opened before there was a copy and does not look again by itself.
            handle = own.choice([docs, late])
            own.choice(WAYS)(handle, sql, ids, f"turn{turn} {long_text(turn, 3)}")
            if turn > 8:
                assert_in_step(dsn)
    change.drain()
    assert_in_step(dsn)


def test_a_document_that_was_not_changed_is_not_embedded_again(docs, change, dsn):
    docs.ingest(corpus(5))
    change.begin()
    change.fill()
    change.drain()
    of_copy = "SELECT document_id, ordinal, text, xmin::text FROM pgseek.chunks WHERE collection_id = %s ORDER BY 1, 2"
    before = rows(dsn, of_copy, [change.copy.collection_id])
    docs.ingest([{**document, "metadata": {"other": True}} for document in corpus(5)])
    assert rows(dsn, of_copy, [change.copy.collection_id]) == before
    assert change.status.queued == 0
    change.fill()
    assert rows(dsn, of_copy, [change.copy.collection_id]) == before


def test_a_fill_that_was_broken_off_goes_on_where_it_was(docs, client, change, dsn, monkeypatch):
    monkeypatch.setattr(copies, "BATCH_SIZE", 10)
    docs.ingest(corpus(95))
    change.begin()
    stop = threading.Event()
    told = []

    def progress(seen, of):
        told.append((seen, of))
        if seen >= 30:
            stop.set()

    status = change.fill(progress=progress, stop=stop)
    assert (told[-1], status.documents, status.complete) == ((30, 95), 30, False)
    with pytest.raises(ChangeRefused, match="65 documents are not in it as they are; fill it again"):
        change.switch(allow_queued=True)
    times = "SELECT document_id, xmin::text FROM pgseek.documents WHERE collection_id = %s ORDER BY 1"
    before = rows(dsn, times, [change.copy.collection_id])
    docs.delete(["d1", "d2", "d3"])
    docs.ingest([{"id": "d5", "text": "changed meanwhile"}])
    status = change.fill()
    assert status.complete
    after = rows(dsn, times, [change.copy.collection_id])
    assert len([row for row in before if row in after]) >= 25
    assert_in_step(dsn)


def test_a_fill_that_is_killed_goes_on_where_it_was(docs, change, dsn):
    docs.ingest(corpus(600))
    change.begin()
    child = Child.spawn(dsn, dict(os.environ), "fill")
    try:
        child.go()
        while child.stored < 100:
            time.sleep(0.002)
        assert child.kill()
    finally:
        child.close()
    there = change.status.documents
    assert 100 <= there < 600
    assert found(dsn) == []
    times = "SELECT document_id, xmin::text FROM pgseek.documents WHERE collection_id = %s"
    before = rows(dsn, times, [change.copy.collection_id])
    assert len(before) == there
    assert change.fill().complete
    after = rows(dsn, times, [change.copy.collection_id])
    assert [row for row in before if row not in after] == []
    assert_in_step(dsn)


def test_what_got_into_the_copy_only_is_removed(docs, change, dsn):
    docs.ingest(corpus(5))
    change.begin()
    change.fill()
    # As no writer does: past all functions.
    rows(
        dsn,
        "DELETE FROM pgseek.documents WHERE collection_id = %s AND external_id = 'd1'",
        [change.info.collection_id],
    )
    rows(
        dsn,
        "SELECT pgseek.delete_embeddings(%s, ARRAY[pgseek.document_id('d1')])",
        [change.info.collection_id],
    )
    assert (change.status.surplus, change.status.complete) == (1, False)
    with pytest.raises(ChangeRefused, match="1 documents are in it only"):
        change.switch(allow_queued=True)
    assert change.fill().complete
    assert_in_step(dsn)


def test_a_writer_that_began_before_the_copy_is_waited_for(docs, change, dsn):
    docs.ingest(corpus(5))
    with connect(dsn) as early, early.transaction():
        early.execute("SELECT pgseek.put_document('docs', 'early', 'written early')")
        change.begin()
        with pytest.raises(ChangeRefused, match=f"a transaction of process {early.info.backend_pid} "):
            change.fill(patience=0.1)
        # The next to begin knows of the copy, and is not waited for.
        with connect(dsn) as late, late.transaction():
            late.execute("SELECT pgseek.put_document('docs', 'late', 'written late')")
            filling = threading.Thread(target=change.fill)
            filling.start()
            filling.join(0.3)
            assert filling.is_alive()
            early.execute("COMMIT")
            filling.join()
            assert {"early", "d1"} <= {row["external_id"] for row in stored(dsn)[change.copy.name]}
        early.execute("BEGIN")
    assert change.status.complete
    assert_in_step(dsn)


def test_a_transaction_that_cannot_see_the_copy_does_not_write_past_it(docs, change, dsn):
    docs.ingest(corpus(3))
    with connect(dsn) as blind:
        blind.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        blind.execute("SELECT count(*) FROM pgseek.documents")
        change.begin()
        with pytest.raises(psycopg.errors.SerializationFailure):
            blind.execute("SELECT pgseek.put_document('docs', 'blind', 'written blindly')")
        blind.execute("ROLLBACK")
        change.fill()
        blind.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        blind.execute("SELECT pgseek.put_document('docs', 'seeing', 'written')")
        blind.execute("COMMIT")
    assert_in_step(dsn)


def test_neither_the_switch_nor_who_writes_waits_for_the_other(docs, change, dsn):
    docs.ingest(corpus(5))
    change.ready()
    with connect(dsn) as writer, writer.transaction():
        writer.execute("SELECT pgseek.put_document('docs', 'during', 'written during the switch')")
        change.switch(patience=5)
        writer.execute("SELECT pgseek.put_document('docs', 'during', 'written beyond the switch')")
        change.rollback()
        change.switch(allow_queued=True)
    assert [hit.id for hit in docs.search("beyond", alpha=0)] == ["during"]
    assert_in_step(dsn)


def test_nothing_may_be_missing_at_the_switch(docs, change):
    docs.ingest(corpus(4))
    change.begin()
    with pytest.raises(ChangeRefused, match="4 documents are not in it as they are; fill it again"):
        change.switch()
    change.fill()
    with pytest.raises(ChangeRefused, match=r"4 documents wait in its queue; pgseek queue drain docs~\d"):
        change.switch()
    change.drain()
    docs.ingest([{"id": "late", "text": "came late"}])
    with pytest.raises(ChangeRefused, match="1 documents wait in its queue"):
        change.switch()
    copy = change.copy
    change.switch(allow_queued=True)
    assert [hit.id for hit in docs.search("late", alpha=0)] == ["late"]
    with pytest.raises(ChangeRefused, match="is no longer the copy of collection 'docs'"):
        change.client._run(copies.switch(change.info, copy))


def test_there_is_nothing_to_roll_back_to_before_a_switch(docs, change):
    docs.ingest(CORPUS)
    for _ in range(2):
        with pytest.raises(ChangeRefused, match="keeps no other one that had its name before"):
            change.rollback()
        change.begin()
    with pytest.raises(ChangeRefused, match="'docs' is not a copy of another"):
        change.client._run(copies.retire(change.info))


def test_handles_follow_the_name(docs, client, change, dsn):
    docs.ingest(corpus(6))
    handles = [client.collection("docs", embedder=CountingEmbedder()) for _ in range(12)]
    change.ready()
    change.switch()
    assert len(texts(handles.pop(), k=1)[0]) <= SIZE
    assert len(texts(handles.pop(), k=1, alpha=0)[0]) <= SIZE
    vector = CountingEmbedder().embed_query("word1x1")
    assert len(texts(handles.pop(), k=1, query_embedding=vector, model="tests:hash@8")[0]) <= SIZE
    handles.pop().ingest([{"id": "mine", "text": "by an old handle"}])
    assert handles.pop().delete("d5") == 1
    assert handles.pop().queue_status().collection == "docs"
    assert_in_step(dsn)
    change.retire()
    assert len(texts(handles.pop(), k=1)[0]) <= SIZE
    assert handles.pop().get("mine").text == "by an old handle"
    assert handles.pop().count() == 6
    assert handles.pop().delete("d4") == 1
    handles.pop().ingest([{"id": "late", "text": "after everything"}])
    assert handles.pop().get("none") is None
    assert {hit.id for hit in docs.search("handle everything", alpha=0)} == {"mine", "late"}


def test_a_handle_is_not_taken_to_another_collection_of_the_same_name(docs, client, change):
    docs.ingest(CORPUS)
    old = client.collection("docs", embedder=CountingEmbedder())
    client.drop_collection("docs")
    client.create_collection("docs", embedder=CountingEmbedder(model="another")).ingest(CORPUS)
    change.embedder = CountingEmbedder(model="another")
    change.ready()
    change.switch()
    with pytest.raises(SpaceMismatch):
        old.search("cache")
    for read in (lambda: old.get("errno"), old.count, lambda: old.delete("errno")):
        with pytest.raises(CollectionNotFound):
            read()


def test_threads_that_share_a_handle_all_follow(docs, change):
    docs.ingest(corpus(6))
    change.ready()
    barrier = threading.Barrier(8)
    hits, failed = [], []

    def search():
        barrier.wait()
        try:
            hits.extend(texts(docs, k=1))
        except Exception as error:
            failed.append(error)

    for _ in range(3):
        change.switch()
        threads = [threading.Thread(target=search) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    assert len(hits) == 24


def test_the_asynchronous_client_follows(docs, change, dsn):
    docs.ingest(corpus(6))

    async def run():
        async with AsyncClient(dsn) as client:
            mine = await client.collection("docs", embedder=CountingEmbedder())
            await asyncio.to_thread(change.ready)
            await asyncio.to_thread(change.switch)
            (hit,) = await mine.search("word1x1", k=1)
            assert len(hit.text) <= SIZE
            await asyncio.to_thread(change.rollback)
            await asyncio.to_thread(change.switch)
            await asyncio.to_thread(change.retire)
            assert await mine.count() == 6
            assert (
                await mine.ingest([{"id": "d1", "text": long_text(1), "title": "title 1"}])
            ).metadata_changed == 1

    asyncio.run(run())


def test_a_handle_of_the_copy_stays_with_it(docs, client, change):
    docs.ingest(corpus(4))
    change.ready()
    copy = client.collection(change.copy.name, embedder=CountingEmbedder())
    assert len(texts(copy, k=1)[0]) <= SIZE
    change.switch()
    assert len(texts(copy, k=1)[0]) <= SIZE
    assert copy.name == "docs"


@pytest.mark.parametrize("retired", [False, True])
def test_an_ingest_goes_on_over_a_switch(docs, client, change, dsn, retired):
    docs.ingest(corpus(20))
    change.ready()
    other = Client(dsn)

    def source():
        for n in range(60):
            if n == 30:
                apart = Change(other)
                apart.switch(allow_queued=True)
                if retired:
                    apart.retire()
            yield {"id": f"d{n}", "text": f"version two of {n}, {long_text(n, 2)}"}

    report = docs.ingest(source(), batch_size=5)
    other.close()
    assert (report.new, report.changed, report.rejected) == (40, 20, ())
    assert docs.count() == 60
    assert {hit.id for hit in docs.search("version", alpha=0, k=500)} == {f"d{n}" for n in range(60)}
    docs.drain_queue()
    assert len(texts(docs, "version", k=1)[0]) <= SIZE
    if retired:
        assert found(dsn) == []
    else:
        assert_in_step(dsn)


def test_an_attached_table_is_followed_all_along(docs, client, change, dsn):
    rows(dsn, "CREATE TABLE pages (id int PRIMARY KEY, body text)")
    rows(dsn, "INSERT INTO pages SELECT n, 'page' || n || ' of the book' FROM generate_series(1, 30) AS n")
    client.attach("pages", "docs", id="id", text="body", apply=True)

    def ids(query):
        return [hit.id for hit in docs.search(query, alpha=0)]

    change.begin()
    rows(dsn, "UPDATE pages SET body = 'rewritten first' WHERE id = 3")
    change.fill()
    rows(dsn, "DELETE FROM pages WHERE id = 4")
    rows(dsn, "INSERT INTO pages VALUES (31, 'added second')")
    assert_in_step(dsn)
    change.drain()
    change.switch()
    assert ids("rewritten") == ["3"]
    rows(dsn, "UPDATE pages SET body = 'rewritten third' WHERE id = 5")
    rows(dsn, "DELETE FROM pages WHERE id = 31")
    assert_in_step(dsn)
    assert (ids("third"), ids("added")) == (["5"], [])
    change.rollback()
    assert (ids("third"), ids("added")) == (["5"], [])
    rows(dsn, "TRUNCATE pages")
    assert docs.count() == 0
    assert change.status.of == 0
    change.retire()
    rows(dsn, "INSERT INTO pages VALUES (1, 'the last')")
    assert ids("last") == ["1"]
    assert found(dsn) == []


def test_who_may_write_may_still_write(docs, change, dsn, server_dsn):
    docs.ingest(corpus(3))
    rows(server_dsn, "CREATE ROLE pgseek_copier LOGIN PASSWORD 'x'")
    try:
        for grant in (
            "USAGE ON SCHEMA pgseek",
            "EXECUTE ON ALL FUNCTIONS IN SCHEMA pgseek",
            "SELECT, UPDATE ON pgseek.collections, pgseek.collection_statistics",
            "SELECT ON pgseek.embedding_spaces",
            "SELECT, INSERT, UPDATE, DELETE ON pgseek.documents, pgseek.chunks, pgseek.ingest_queue",
            f"SELECT, DELETE ON pgseek.embeddings_{docs._info.space_id}",
        ):
            rows(dsn, f"GRANT {grant} TO pgseek_copier")
        change.ready()
        with connect(dsn) as writer:
            writer.execute("SET ROLE pgseek_copier")
            for step in (lambda: None, lambda: change.switch(allow_queued=True), change.rollback):
                step()
                writer.execute(
                    "SELECT pgseek.put_document('docs', 'd1', 'by a role of few rights ' || now())"
                )
                writer.execute(
                    "SELECT pgseek.put_document('docs', 'd9', 'by a role of few rights ' || now())"
                )
                writer.execute("SELECT pgseek.delete_document('docs', 'd9')")
        assert_in_step(dsn)
    finally:
        rows(dsn, "DROP OWNED BY pgseek_copier")
        rows(server_dsn, "DROP ROLE pgseek_copier")


def test_workers_serve_a_copy_with_its_original(docs, client, change, dsn):
    docs.ingest(corpus(30))
    change.begin()
    change.fill()
    workers = [Client(dsn) for _ in range(3)]
    done = []
    # One by the name of the original, one for all there are, one with the original's own embedder.
    calls = [
        lambda: workers[0].work(["docs"], embedders={"docs": CountingEmbedder()}, once=True, batch_size=4),
        lambda: workers[1].work(embedders={"docs": CountingEmbedder()}, once=True, batch_size=4),
        lambda: workers[2].collection("docs", embedder=CountingEmbedder()).work(once=True, batch_size=4),
    ]
    threads = [threading.Thread(target=lambda call=call: done.append(call())) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.documents for report in done) == 30
    assert change.status.queued == 0
    assert_in_step(dsn)
    for worker in workers:
        worker.close()


def test_a_worker_hears_of_a_copy_by_the_name_of_its_original(docs, client, change, dsn):
    docs.ingest(corpus(5))
    stop = threading.Event()
    with Client(dsn) as other:
        handle = other.collection("docs", embedder=CountingEmbedder())
        working = threading.Thread(target=lambda: handle.work(stop=stop, poll=600))
        working.start()
        try:
            change.begin()
            change.fill()
            end = time.monotonic() + 60
            while change.status.queued and time.monotonic() < end:
                time.sleep(0.05)
        finally:
            stop.set()
            working.join()
    assert change.status.queued == 0
    change.switch()


def test_a_copy_may_have_another_embedder(docs, client, change, dsn):
    docs.ingest(corpus(4))
    other = CountingEmbedder(12, model="other")
    change.begin(other)
    change.fill()
    both = client.collection("docs", embedder=[CountingEmbedder(), other])
    with pytest.raises(ConfigurationError, match=r"'docs~\d' is passed over: .* pass the same one"):
        docs.work(once=True)
    assert both.work(once=True).documents == 4
    change.switch()
    assert len(texts(both, k=1)[0]) <= SIZE
    # A handle that was not given the other embedder cannot search any more, and says so.
    with pytest.raises(
        SpaceMismatch, match="holds vectors of tests:other@12, but the embedder is tests:hash@8"
    ):
        docs.search("word1x1")
    with pytest.raises(DimensionMismatch):
        both.search("word1x1", model=str(both.info().identity), query_embedding=[1.0] * 8)
    change.rollback()
    assert texts(docs, k=1) == [long_text(1)]


def test_dropping_a_collection_drops_its_copy(docs, client, change, dsn):
    docs.ingest(corpus(4))
    change.begin()
    change.fill()
    client.drop_collection("docs")
    for table in (
        "collections",
        "embedding_spaces",
        "documents",
        "chunks",
        "ingest_queue",
        "term_statistics",
    ):
        assert rows(dsn, f"SELECT count(*) AS n FROM pgseek.{table}") == [{"n": 0}]
    assert rows(dsn, "SELECT FROM pg_tables WHERE tablename ~ '^embeddings_'") == []


def test_a_transaction_that_is_open_holds_up_the_end_of_a_copy_and_nobody_else(docs, client, change, dsn):
    docs.ingest(corpus(4))
    change.ready()
    with connect(dsn) as reader, reader.transaction():
        # It resolved the name when the copy had it; it may search it for as long as it likes.
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        search = "SELECT text FROM pgseek.search('docs', 'word1x1', k => 1, alpha => 0)"
        before = reader.execute(search).fetchall()
        change.switch()
        with pytest.raises(ChangeRefused, match=f"process {reader.info.backend_pid} .* is open, for 0 s"):
            change.retire(patience=0.1)
        assert reader.execute(search).fetchall() == before
        # It is kept in step no more, so that there is no way back to it.
        docs.ingest([{"id": "new", "text": "goes on"}])
        with pytest.raises(ChangeRefused, match="keeps no other one"):
            change.rollback()
        (finding,) = [f for f in examine(dsn).findings if f.key == "copy_retired"]
        assert finding.harmless
    # Who begins another one drops it first.
    assert change.begin(chunk_size=70).settings["chunk_size"] == 70
    assert len(rows(dsn, "SELECT FROM pgseek.collections")) == 2
    assert found(dsn) == []


def test_a_copy_that_is_dropped_is_left_out_by_who_writes(docs, change, dsn):
    docs.ingest(corpus(4))
    change.begin()
    change.fill()
    with connect(dsn) as writer, writer.transaction():
        writer.execute("SELECT pgseek.put_document('docs', 'open', 'in a transaction')")
        retiring = threading.Thread(target=change.retire)
        retiring.start()
        retiring.join(0.3)
        assert retiring.is_alive()
        rows(dsn, "SET lock_timeout = '5s'; SELECT pgseek.put_document('docs', 'open2', 'in another')")
    retiring.join()
    assert {hit.id for hit in docs.search("transaction another", alpha=0)} == {"open", "open2"}
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.collections") == [{"n": 1}]
    assert found(dsn) == []


def pieces(document):
    """The texts of a document's chunks under both settings."""
    return {size: {chunk.text for chunk in chunk_text(document["text"], size, 0)} for size in (SIZE, 2000)}


def test_readers_and_writers_notice_nothing(docs, client, dsn):  # noqa: PLR0915 (all at the same time)
    """Two readers, of which one speaks SQL, and three writers run all along; no query fails or mixes chunkings."""
    first = corpus(300)
    docs.ingest(first)
    known = {d["id"]: pieces(d) for d in first}
    ended = threading.Event()
    failed, answers, written, deleted = [], Counter(), {}, set()
    lock = threading.Lock()

    def look(ids_and_texts):
        sizes = [{size for size in (SIZE, 2000) if text in known[i][size]} for i, text in ids_and_texts]
        assert all(sizes), "a text of neither"
        both = set.intersection(*sizes) if sizes else {0}
        assert both, ids_and_texts
        answers[tuple(sorted(both))] += 1

    def loop(action):
        own = random.Random(action.__name__)
        n = 0
        with Client(dsn) as apart, connect(dsn) as sql:
            handle = apart.collection("docs", embedder=CountingEmbedder())
            while not ended.is_set():
                try:
                    action(handle, sql, own, n)
                except Exception as error:
                    failed.append((action.__name__, error))
                    return
                n += 1

    def read(handle, sql, own, n):
        word = f"word{own.randrange(300)}x{own.randrange(6)} number sentence"
        hits = handle.search(word, k=10, filter={"n": {"$gte": 0}}, alpha=own.choice([0, 0.3, 1]))
        assert len(hits) == 10
        look([(hit.id, hit.text) for hit in hits])
        n = own.randrange(300)
        assert handle.get(f"d{n}").metadata == {"n": n}

    def read_by_sql(handle, sql, own, n):
        hits = sql.execute(
            "SELECT external_id, text FROM pgseek.search('docs', %s, k => 10, alpha => 0, filter => '$.n >= 0')",
            [f"word{own.randrange(300)}x{own.randrange(6)} number sentence"],
        ).fetchall()
        assert len(hits) == 10
        look([(row["external_id"], row["text"]) for row in hits])

    def ingest_more(handle, sql, own, n):
        handle.ingest([{"id": f"i{n}", "text": f"ingested{n} {long_text(n)}", "metadata": {"n": -1}}])
        with lock:
            written[f"i{n}"] = f"ingested{n}"
        time.sleep(0.02)

    def put_more(handle, sql, own, n):
        sql.execute("SELECT pgseek.put_document('docs', %s, %s)", [f"p{n % 40}", f"put{n} {long_text(n)}"])
        with lock:
            written[f"p{n % 40}"] = f"put{n}"
        time.sleep(0.02)

    def come_and_go(handle, sql, own, n):
        handle.ingest([{"id": "comes", "text": "comes and goes", "metadata": {"n": -1}}])
        assert handle.delete("comes") == 1
        with lock:
            deleted.add("comes")
        time.sleep(0.02)

    def work(handle, sql, own, n):
        handle.work(once=True, batch_size=50)
        time.sleep(0.05)

    actions = (read, read_by_sql, ingest_more, put_more, come_and_go, work)
    threads = [threading.Thread(target=loop, args=[action]) for action in actions]
    for thread in threads:
        thread.start()
    change = Change(client)
    handle = client.collection("docs", embedder=CountingEmbedder())

    def everything_is_found():
        with lock:
            expected = dict(written)
        for i, word in expected.items():
            # Written again meanwhile: then by a later word.
            hits = [hit.id for hit in handle.search(f"+{word}", alpha=0, k=5)]
            assert hits == [i] or i.startswith("p"), (i, word, hits)

    try:
        for step in (
            change.begin,
            change.fill,
            change.drain,
            lambda: change.switch(allow_queued=True),
            everything_is_found,
            change.rollback,
            everything_is_found,
            lambda: change.switch(allow_queued=True),
            everything_is_found,
            change.retire,
            everything_is_found,
        ):
            step()
            before = sum(answers.values())
            while sum(answers.values()) < before + 20 and not failed:
                time.sleep(0.02)
            assert failed == []
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failed == []
    # Both chunkings were met, and every answer was of one of them.
    assert {answer[0] for answer in answers if len(answer) == 1} == {SIZE, 2000}
    for i, word in written.items():
        assert [hit.id for hit in handle.search(f"+{word}", alpha=0, k=5)] == [i]
    assert deleted == {"comes"}
    assert handle.get("comes") is None
    handle.drain_queue()
    assert found(dsn) == []
