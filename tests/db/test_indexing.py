"""Indexes of vectors in their life: built while searches go on, broken off, taken turns at, tuned, judged, dropped."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from psycopg.conninfo import make_conninfo
from support import CountingEmbedder, rows
from vectors import clustered, document, fill, nearest

from pgseek import AsyncClient, Client, DatabaseError, InvalidInput, VectorIndex, indexes
from pgseek.db.connection import connect
from pgseek.indexing.building import progress_of

DIMENSIONS = 32
QUICK = "hnsw,m=4,ef_construction=8"
INDEXES = (
    "SELECT i.relname AS name, x.indisvalid AS valid, pg_get_indexdef(i.oid) AS definition FROM pg_index x"
    " JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = 'pgseek.embeddings_1'::regclass AND NOT x.indisprimary"
    " ORDER BY 1"
)


def filled(client, dsn, number, index=QUICK, dimensions=DIMENSIONS, **options):
    """Return a collection whose space 1 has so many vectors, without an index yet, and the vectors."""
    docs = client.create_collection("docs", embedder=CountingEmbedder(dimensions), index=index, **options)
    vectors, queries = clustered(number, 50, dimensions)
    fill(dsn, 1, docs.info().space.storage, vectors)
    return docs, vectors, queries


def names(dsn):
    return {row["name"]: row["valid"] for row in rows(dsn, INDEXES)}


def indexing(dsn):
    (row,) = rows(dsn, "SELECT indexing, searching FROM pgseek.embedding_spaces WHERE space_id = 1")
    return row["indexing"], row["searching"]


# Built and changed.


def test_another_index_takes_the_place_of_the_old_one_with_what_searches_know_of_it(client, dsn):
    docs, *_ = filled(client, dsn, 1200)
    assert names(dsn) == {}
    first = docs.build_index()
    assert (first.built, first.reason, first.replaced) == (True, "", None)
    assert (first.name, first.rows) == ("embeddings_1_hnsw", 1200)
    assert min(first.bytes, first.seconds) > 0
    assert first.maintenance_work_mem >= 1024
    assert names(dsn) == {"embeddings_1_hnsw": True}
    rows(dsn, """UPDATE pgseek.embedding_spaces SET searching = '{"ef_search": 20}'""")
    for given, method, definition, searching in (
        ("hnsw,m=6,ef_construction=12", "hnsw", "m='6', ef_construction='12'", {"ef_search": 20}),
        ("binary,m=4,ef_construction=8", "hnsw", "bit_hamming_ops", {}),
        ("prefix=8,m=4,ef_construction=8", "hnsw", "subvector", {}),
        ("ivfflat,lists=3", "ivfflat", "lists='3'", {}),
        (VectorIndex(m=4, ef_construction=8), "hnsw", "vector_cosine_ops", {}),
    ):
        before = docs.info().space.index
        built = docs.build_index(given)
        assert built.built
        assert built.replaced == before
        assert docs.info().space.index == built.index == VectorIndex.parse(given)
        assert indexing(dsn) == (built.index.to_json(), searching)
        assert names(dsn) == {f"embeddings_1_{method}": True}
        (there,) = rows(dsn, INDEXES)
        assert definition in there["definition"]
        assert built.name == there["name"]


def test_an_index_that_is_there_is_built_again_only_on_demand(client, dsn):
    docs, *_ = filled(client, dsn, 1200)
    docs.build_index()
    made = "SELECT 'pgseek.embeddings_1_hnsw'::regclass::oid AS oid"
    before = rows(dsn, made)
    again = docs.build_index()
    assert (again.built, again.reason) == (False, "it is there already; rebuild builds it anew")
    assert rows(dsn, made) == before
    assert docs.build_index(rebuild=True).built
    assert rows(dsn, made) != before
    assert names(dsn) == {"embeddings_1_hnsw": True}


def test_few_rows_keep_the_wish_until_an_ingest_builds_it(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder(DIMENSIONS))
    docs.ingest({"id": str(n), "text": f"text {n}"} for n in range(999))
    built = docs.build_index(f"binary,{QUICK[5:]}")
    assert not built.built
    assert built.reason.startswith("999 rows are compared exactly, faster and better than by an index")
    assert names(dsn) == {}
    docs.ingest([{"id": "1000", "text": "one more"}])
    (there,) = rows(dsn, INDEXES)
    assert "bit_hamming_ops" in there["definition"]


def test_dropped_it_stays_away_until_it_is_asked_for(client, dsn):
    docs, *_ = filled(client, dsn, 1200, index=None)
    docs.build_index()
    gone = docs.drop_index()
    assert (gone.built, gone.name, gone.index) == (False, None, VectorIndex("none"))
    assert names(dsn) == {}
    assert not client._run(indexes.ensure_graph(docs.info().space))
    assert docs.build_index().index == VectorIndex()
    assert names(dsn) == {"embeddings_1_hnsw": True}


@pytest.mark.parametrize("concurrently", [True, False])
def test_a_build_has_the_memory_and_the_workers_it_was_given_and_nobody_else_has(client, dsn, concurrently):
    docs, *_ = filled(client, dsn, 1200)
    built = docs.build_index(maintenance_work_mem="77MB", workers=0, concurrently=concurrently)
    assert built.maintenance_work_mem == 77 * 1024
    (after,) = client._run(_settings())
    assert after["memory"] != "77MB"
    with pytest.raises(
        InvalidInput, match="maintenance_work_mem is 'much', but must be written as PostgreSQL"
    ):
        docs.build_index(rebuild=True, maintenance_work_mem="much")
    with pytest.raises(InvalidInput, match="workers is -1, but must be a whole number from 0 to 1,024"):
        docs.build_index(workers=-1)
    assert names(dsn) == {"embeddings_1_hnsw": True}


def _settings():
    from pgseek.steps import fetch

    return (yield from fetch("SELECT current_setting('maintenance_work_mem') AS memory"))


def test_more_memory_than_can_be_shared_is_built_by_one_process(client, dsn):
    # A terabyte of shared memory is nowhere; without workers the memory is not shared, and taken as needed.
    docs, *_ = filled(client, dsn, 20_000, dimensions=8)
    rows(dsn, "ALTER TABLE pgseek.embeddings_1 SET (parallel_workers = 2)")
    assert docs.build_index(maintenance_work_mem="1TB").built
    assert names(dsn) == {"embeddings_1_hnsw": True}


def test_lists_that_need_more_memory_than_the_build_was_given_say_so(client, dsn):
    docs, *_ = filled(client, dsn, 1200, index="ivfflat,lists=1000")
    with pytest.raises(
        DatabaseError,
        match=r"memory required is .* maintenance_work_mem is 1 MB: give it more .* or fewer lists",
    ):
        docs.build_index(maintenance_work_mem="1MB")
    assert names(dsn) == {}
    assert docs.build_index().built


def test_only_the_owner_of_the_tables_builds(client, dsn, server_dsn):
    docs, *_ = filled(client, dsn, 1200)
    role = f"pgseek_reader_{os.getpid()}"
    rows(server_dsn, f"CREATE ROLE {role} LOGIN")
    try:
        rows(dsn, f"GRANT pgseek_reader TO {role}")
        with Client(make_conninfo(dsn, user=role)) as reader:
            collection = reader.collection("docs", embedder=CountingEmbedder(DIMENSIONS))
            with pytest.raises(DatabaseError, match="embeddings_1 belongs to another role; only its owner"):
                collection.build_index()
    finally:
        rows(dsn, f"DROP OWNED BY {role}")
        rows(server_dsn, f"DROP ROLE {role}")
    assert names(dsn) == {}
    assert docs.describe_index().built is False


def test_there_is_no_such_space(client, dsn):
    docs, *_ = filled(client, dsn, 1200)
    for method in (docs.build_index, docs.tune_index, docs.advise_index, docs.describe_index):
        with pytest.raises(InvalidInput, match="has no embedding space 7; it has 1: tests:hash@32"):
            method(space=7)
    with pytest.raises(InvalidInput, match="prefix is 32, but must be below the 32 dimensions"):
        docs.build_index("prefix=32")
    assert names(dsn) == {}


# While others work.


def test_searches_always_have_an_index_that_fits_what_they_know_of_it(client, dsn):
    docs, vectors, queries = filled(client, dsn, 3000, index=None)
    docs.build_index()
    over, problems, seen = threading.Event(), [], set()
    marks = {"full": "(embedding vector_cosine_ops)", "binary": "bit_hamming_ops", "prefix": "subvector"}

    def look():
        with connect(dsn) as connection:
            while not over.is_set():
                # One snapshot for both.
                (found,) = connection.execute(
                    "SELECT s.indexing ->> 'form' AS form, (SELECT pg_get_indexdef(x.indexrelid) FROM pg_index x"
                    " WHERE x.indexrelid = to_regclass('pgseek.embeddings_1_' || (s.indexing ->> 'method'))"
                    " AND x.indisvalid) AS definition FROM pgseek.embedding_spaces s"
                ).fetchall()
                seen.add(found["form"])
                if marks[found["form"]] not in (found["definition"] or ""):
                    problems.append(found)

    def search():
        best = set(map(document, nearest(vectors, queries[:1], 5)[0]))
        with connect(dsn) as connection:
            while not over.is_set():
                found = connection.execute(
                    "SELECT document_id FROM pgseek.nearest(1, %s::vector, 5, rerank => 100)",
                    [str(queries[0].tolist())],
                ).fetchall()
                if len({row["document_id"] for row in found} & best) < 4:
                    problems.append(found)

    threads = [threading.Thread(target=work) for work in (look, search)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            for given in ("binary", "prefix=16", "hnsw"):
                assert docs.build_index(given).built
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert problems == []
    assert seen == {"full", "binary", "prefix"}


def test_progress_says_what_is_done_and_for_whom_the_build_waits(client, dsn):
    docs, *_ = filled(client, dsn, 1200)
    told = []
    with connect(dsn) as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        (me,) = old.execute("SELECT pg_backend_pid() AS pid, count(*) FROM pgseek.embeddings_1").fetchall()

        def progress(now):
            told.append(now)
            if now.waiting_for is not None:
                old.execute("COMMIT")

        assert docs.build_index(progress=progress).built
    assert {now.waiting_for for now in told} >= {me["pid"]}
    (waited, *_) = [now for now in told if now.waiting_for is not None]
    assert waited.phase.startswith("waiting for ")
    assert waited.unit == "transactions"
    assert all(0 <= now.done <= now.total or now.total == 0 for now in told)
    assert [now.seconds for now in told] == sorted(now.seconds for now in told)


def test_progress_counts_rows(client, dsn):
    docs, *_ = filled(client, dsn, 8000, index="hnsw,m=16,ef_construction=200")
    told = []
    described = []

    def progress(now):
        told.append(now)
        if now.phase == "building index: loading tuples" and not described:
            with Client(dsn) as other:
                described.append(other.collection("docs", embedder=CountingEmbedder(32)).describe_index())

    docs.build_index(progress=progress, workers=0)
    counted = [now for now in told if now.phase == "building index: loading tuples"]
    assert counted
    assert {now.total for now in counted} == {8000}
    assert [now.done for now in counted] == sorted(now.done for now in counted)
    (state,) = described
    assert not state.built
    assert state.building.phase.startswith("building index")
    assert state.building.total == 8000
    assert client._run(progress_of(1, 8000, 0.0)) is None


def test_two_builders_take_turns(client, dsn):
    docs, *_ = filled(client, dsn, 1500)
    wanted = ["binary,m=4,ef_construction=8", "prefix=8,m=4,ef_construction=8", "ivfflat,lists=3", QUICK]
    results, errors = [], []

    def work(given):
        try:
            with Client(dsn) as own:
                collection = own.collection("docs", embedder=CountingEmbedder(DIMENSIONS))
                results.append(collection.build_index(given).index)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(given,)) for given in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(results) == len(wanted)
    last = docs.info().space.index
    assert last in results
    assert names(dsn) == {f"embeddings_1_{last.method}": True}


def test_an_ingest_and_a_build_at_once_wait_for_each_other_and_leave_one_index(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder(DIMENSIONS), index=QUICK)
    docs.ingest({"id": str(n), "text": f"text {n}"} for n in range(1500))
    errors = []

    def load():
        try:
            with Client(dsn) as own:
                collection = own.collection("docs", embedder=CountingEmbedder(DIMENSIONS))
                for round_ in range(4):
                    collection.ingest(
                        {"id": f"{round_} {n}", "text": f"more {round_} {n}"} for n in range(1200)
                    )
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    for given in ("binary,m=4,ef_construction=8", QUICK, "prefix=8,m=4,ef_construction=8", "ivfflat,lists=3"):
        docs.build_index(given)
    thread.join()
    assert errors == []
    client._run(indexes.ensure_graph(docs.info().space))
    assert names(dsn) == {"embeddings_1_ivfflat": True}
    (row,) = rows(dsn, "SELECT count(*) AS n FROM pgseek.embeddings_1")
    assert row["n"] == 1500 + 4 * 1200


def test_who_knows_the_index_of_yesterday_does_not_build_it(client, dsn):
    docs, *_ = filled(client, dsn, 1200)
    stale = docs.info().space
    docs.build_index("ivfflat,lists=3")
    client._run(indexes.ensure_graph(stale))
    assert names(dsn) == {"embeddings_1_ivfflat": True}


# Broken off.


def test_what_a_broken_off_build_left_is_dropped_by_the_next(client, dsn):
    docs, *_ = filled(client, dsn, 1200)
    docs.build_index()
    for left in ("next", "before", "ivfflat"):
        rows(dsn, f"CREATE INDEX embeddings_1_{left} ON pgseek.embeddings_1 (ordinal)")
    rows(
        dsn, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgseek.embeddings_1_next'::regclass"
    )
    rows(dsn, "CREATE INDEX embeddings_1_mine ON pgseek.embeddings_1 (document_id)")
    docs.build_index()
    assert names(dsn) == {"embeddings_1_hnsw": True, "embeddings_1_mine": True}
    rows(
        dsn, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgseek.embeddings_1_hnsw'::regclass"
    )
    assert docs.describe_index().built is False
    assert docs.build_index().built
    assert names(dsn) == {"embeddings_1_hnsw": True, "embeddings_1_mine": True}


class Enough(Exception):
    """Raised by a progress callback."""


def stop_when_building(now):
    if now.phase.startswith("building index"):
        raise Enough


def wait_until(found, seconds=60):
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def no_build(dsn):
    return not rows(dsn, "SELECT FROM pg_stat_progress_create_index") and "embeddings_1_next" not in names(
        dsn
    )


def test_stopped_by_the_caller_the_old_index_stays_and_the_new_one_goes(client, dsn):
    docs, *_ = filled(client, dsn, 10_000)
    docs.build_index()
    for _ in range(2):
        with pytest.raises(Enough):
            docs.build_index("hnsw,m=64,ef_construction=500", progress=stop_when_building)
        wait_until(lambda: no_build(dsn))
        assert names(dsn) == {"embeddings_1_hnsw": True}
        assert docs.info().space.index == VectorIndex.parse(QUICK)
    assert docs.build_index("ivfflat,lists=5").built


def test_a_cancelled_task_ends_its_build(client, dsn):
    docs, *_ = filled(client, dsn, 10_000)
    docs.build_index()

    async def main():
        async with AsyncClient(dsn) as other:
            collection = await other.collection("docs", embedder=CountingEmbedder(DIMENSIONS))
            building = asyncio.Event()

            def progress(now):
                if now.phase.startswith("building index"):
                    building.set()

            task = asyncio.create_task(
                collection.build_index("hnsw,m=64,ef_construction=500", progress=progress)
            )
            await asyncio.wait_for(building.wait(), 60)
            task.cancel()
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
            await asyncio.to_thread(wait_until, lambda: no_build(dsn))
            built = await collection.build_index("ivfflat,lists=5")
            assert built.built
            assert (await collection.describe_index()).built
            assert (await collection.drop_index()).name is None

    asyncio.run(main())
    assert names(dsn) == {}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_ends_amid_a_build_leaves_nothing_that_the_next_does_not_mend(client, dsn, how):
    docs, *_ = filled(client, dsn, 10_000)
    docs.build_index()
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pgseek",
            "--dsn",
            dsn,
            "index",
            "build",
            "docs",
            "--index",
            "hnsw,m=64,ef_construction=400",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: "embeddings_1_next" in names(dsn))
        child.send_signal(how)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
    if how == signal.SIGINT:
        assert child.returncode == 130
        assert b"interrupted" in err
        assert no_build(dsn)
    assert names(dsn)["embeddings_1_hnsw"]
    assert docs.info().space.index == VectorIndex.parse(QUICK)
    # After a kill the server may still build; whoever comes next waits for it, and drops what is left.
    assert docs.build_index("ivfflat,lists=5").built
    assert names(dsn) == {"embeddings_1_ivfflat": True}


def test_a_closed_client_ends_its_build(client, dsn):
    docs, *_ = filled(client, dsn, 10_000)
    with Client(dsn) as other:
        collection = other.collection("docs", embedder=CountingEmbedder(DIMENSIONS))

        def progress(now):
            if now.phase.startswith("building index"):
                other.close()

        with pytest.raises(Exception, match=r"close|pool"):
            collection.build_index("hnsw,m=64,ef_construction=500", progress=progress)
    wait_until(lambda: no_build(dsn))
    assert names(dsn) == {}
    assert docs.build_index().built


# Measured and tuned.


def test_the_smallest_ef_search_that_holds_a_recall_is_found_and_used(client, dsn):
    docs, *_ = filled(client, dsn, 4000, index="hnsw,m=4,ef_construction=16")
    docs.build_index()
    tuned = docs.tune_index(0.9, sample=60)
    assert (tuned.held, tuned.stored, tuned.source, tuned.queries, tuned.rows) == (
        True,
        True,
        "vectors",
        60,
        4000,
    )
    assert tuned.after.recall >= 0.9
    assert min(tuned.after.p50, tuned.before.p50) > 0
    assert tuned.before.settings == {}
    ((name, value),) = tuned.after.settings.items()
    assert name == "ef_search"
    # The next smaller was tried, and fell short, unless there is none.
    smaller = [one for one in tuned.tried if one.settings == {"ef_search": value - 1}]
    assert value == 10 or [one.recall < 0.9 for one in smaller] == [True]
    stored = indexing(dsn)[1]
    assert stored["ef_search"] == value
    assert stored["tuned"] == {
        "recall": 0.9,
        "k": 10,
        "rows": 4000,
        "measured": pytest.approx(tuned.after.recall, abs=1e-4),
    }
    again = docs.tune_index(0.9, sample=60)
    assert again.before.recall == tuned.after.recall
    state = docs.describe_index()
    assert (state.searching, state.built, state.rows) == (stored, True, 4000)
    assert (state.metric, state.storage, state.index) == (
        "cosine",
        "vector",
        VectorIndex(m=4, ef_construction=16),
    )
    assert state.table_bytes > 4000 * 4 * DIMENSIONS
    assert state.index_bytes > 0
    assert "USING hnsw" in state.definition


def test_recall_is_what_numpy_says(client, dsn):
    docs, vectors, queries = filled(client, dsn, 3000, index="hnsw,m=4,ef_construction=8")
    docs.build_index()
    rows(
        dsn,
        "INSERT INTO pgseek.embedding_cache (identity, input_type, text_hash, embedding)"
        " SELECT s.identity, 'query', sha256(v::bytea), v::vector FROM pgseek.embedding_spaces s, unnest(%s::text[]) v",
        [[str(query.tolist()) for query in queries]],
    )
    tuned = docs.tune_index(0.5, sample=50, store=False)
    assert (tuned.source, tuned.queries, tuned.stored) == ("queries", 50, False)
    assert indexing(dsn)[1] == {}
    shares = []
    with connect(dsn) as connection:
        connection.execute("SET enable_seqscan = off")
        for query, best in zip(queries, nearest(vectors, queries, 10), strict=True):
            found = connection.execute(
                "SELECT document_id FROM pgseek.nearest(1, %s::vector, 10)", [str(query.tolist())]
            ).fetchall()
            shares.append(len({row["document_id"] for row in found} & set(map(document, best))) / 10)
    assert tuned.before.recall == pytest.approx(float(np.mean(shares)))
    assert 0 < tuned.before.recall < 1


def test_a_recall_that_no_value_holds_is_said_and_nothing_is_stored(client, dsn):
    docs, *_ = filled(client, dsn, 4000, index="binary,m=4,ef_construction=8", dimensions=8)
    docs.build_index()
    tuned = docs.tune_index(1.0, sample=20)
    assert not tuned.held
    assert not tuned.stored
    assert tuned.after.recall < 1
    assert tuned.after.settings == {"ef_search": 1000, "rerank": 100}
    assert indexing(dsn)[1] == {}


@pytest.mark.parametrize(
    ("index", "searched"),
    [
        ("binary,m=8,ef_construction=32", {"ef_search", "rerank"}),
        ("prefix=16,m=8,ef_construction=32", {"ef_search", "rerank"}),
        ("ivfflat,lists=12", {"probes"}),
        ("ivfflat,binary,lists=12", {"probes", "rerank"}),
    ],
)
def test_every_kind_of_index_is_tuned_by_what_it_has(client, dsn, index, searched):
    docs, *_ = filled(client, dsn, 2000, index=index)
    docs.build_index()
    tuned = docs.tune_index(0.9, sample=30)
    assert tuned.held
    assert set(tuned.after.settings) == searched
    stored = indexing(dsn)[1]
    # A stored vector's nearest are eleven with itself: for ten candidates it is a little more.
    scale = {"rerank": math.sqrt(11 / 10)}
    assert {name: stored[name] for name in searched} == {
        name: math.ceil(value * scale.get(name, 1)) for name, value in tuned.after.settings.items()
    }
    assert docs.tune_index(0.9, sample=30).before.recall >= tuned.after.recall


def test_rerank_is_stored_as_for_ten_candidates(client, dsn):
    docs, *_ = filled(client, dsn, 2000, index="binary,m=8,ef_construction=32")
    docs.build_index()
    tuned = docs.tune_index(0.9, k=40, sample=20)
    assert tuned.held
    assert indexing(dsn)[1]["rerank"] == math.ceil(tuned.after.settings["rerank"] * math.sqrt(41 / 10))
    assert docs.tune_index(0.9, k=40, sample=20).before.recall >= tuned.after.recall


def test_nothing_to_tune_without_an_index(client, dsn):
    docs, *_ = filled(client, dsn, 1200)
    with pytest.raises(
        InvalidInput, match="space 1 of collection 'docs' has no index: every search is exact"
    ):
        docs.tune_index()
    for options, says in (
        ({"recall": 1.5}, "recall is 1.5, but must be above 0 and at most 1, such as 0.98"),
        ({"recall": 0}, "recall is 0"),
        ({"k": 0}, "k is 0, but must be a whole number from 1 to 1,000"),
        ({"sample": 3}, "sample is 3, but must be a whole number from 10 to 10,000"),
    ):
        with pytest.raises(InvalidInput, match=says):
            docs.tune_index(**options)


def test_an_index_changed_while_it_is_tuned_is_not_given_the_settings(client, dsn):
    docs, *_ = filled(client, dsn, 2000)
    docs.build_index()
    changed = []

    def progress(now):
        if now.phase.startswith("searching with ef_search") and not changed:
            changed.append(
                rows(dsn, """UPDATE pgseek.embedding_spaces SET indexing = '{"method": "none"}'""")
            )

    with pytest.raises(
        DatabaseError, match="the index of space 1 was changed while it was tuned; nothing was"
    ):
        docs.tune_index(0.5, sample=20, progress=progress)
    assert changed
    assert indexing(dsn)[1] == {}


def test_equal_vectors_are_as_good_as_each_other(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder(8))
    fill(dsn, 1, "vector", np.repeat(clustered(400, 1, 8)[0], 3, axis=0))
    docs.build_index()
    # The tenth of each is one of three.
    assert docs.tune_index(0.99, sample=50, store=False).before.recall == 1


# Advice.


def test_advice_measures_estimates_and_leaves_a_good_index_alone(client, dsn):
    docs, *_ = filled(client, dsn, 3000, index=None)
    docs.build_index()
    phases = set()
    advice = docs.advise_index(sample=30, progress=lambda now: phases.add(now.phase))
    assert (advice.rows, advice.k, advice.recall, advice.queries, advice.source) == (
        3000,
        10,
        0.95,
        30,
        "vectors",
    )
    (found,) = advice.measured
    assert found.recall >= 0.95
    assert min(found.p50, advice.exact_p50) > 0
    assert advice.name == "embeddings_1_hnsw"
    assert advice.table_bytes > advice.rows * 4 * DIMENSIONS
    assert advice.index_bytes == rows(dsn, "SELECT pg_relation_size('pgseek.embeddings_1_hnsw') AS n")[0]["n"]
    assert (
        advice.shared_buffers
        == rows(dsn, "SELECT pg_size_bytes(current_setting('shared_buffers')) AS n")[0]["n"]
    )
    assert advice.fits
    assert (advice.proposal, advice.command, advice.sql) == (None, "", ())
    assert advice.reasons[0].startswith("recall@10 is ")
    options = {(one.storage, str(one.index)): one for one in advice.options}
    assert set(options) == {
        ("vector", "hnsw"),
        ("vector", "hnsw,m=24,ef_construction=128"),
        ("vector", "ivfflat"),
        ("vector", "hnsw,binary"),
        ("halfvec", "hnsw"),
    }
    for one in advice.options:
        assert min(one.build_seconds, one.build_bytes, one.index_bytes) > 0
        assert one.timed_rows == 3000
    # All rows were timed, so the size is that of the index itself.
    assert options["vector", "hnsw"].index_bytes == pytest.approx(advice.index_bytes, rel=0.1)
    assert options["halfvec", "hnsw"].reachable > 0.99
    assert options["vector", "hnsw,binary"].reachable < 1
    assert options["vector", "hnsw"].reachable is None
    assert {"searching exactly", "timing a build of vector ivfflat"} <= phases
    # Nothing is left behind.
    assert names(dsn) == {"embeddings_1_hnsw": True}


def test_what_a_sketch_can_reach_is_what_numpy_finds_by_signs(client, dsn):
    docs, vectors, queries = filled(client, dsn, 2000, index=None)
    docs.build_index()
    rows(
        dsn,
        "INSERT INTO pgseek.embedding_cache (identity, input_type, text_hash, embedding)"
        " SELECT s.identity, 'query', sha256(v::bytea), v::vector FROM pgseek.embedding_spaces s, unnest(%s::text[]) v",
        [[str(query.tolist()) for query in queries]],
    )
    advice = docs.advise_index(sample=30)
    assert advice.source == "queries"
    used = rows(dsn, "SELECT embedding::text AS v FROM pgseek.embedding_cache ORDER BY text_hash LIMIT 20")
    used = np.array([np.fromstring(row["v"][1:-1], sep=",") for row in used], dtype=np.float32)
    shares = []
    for query, best in zip(used, nearest(vectors, used, 10), strict=True):
        differ = ((vectors > 0) != (query > 0)).sum(axis=1)
        # Among rows of equal distance any may have been taken: count those that surely are, and those that may be.
        edge = np.sort(differ)[319]
        shares.append([np.mean(differ[best] < edge), np.mean(differ[best] <= edge)])
    low, high = np.mean(shares, axis=0)
    (binary,) = [one for one in advice.options if str(one.index) == "hnsw,binary"]
    assert low <= binary.reachable <= high


def test_advice_to_a_poor_index_is_to_search_wider_or_to_build_another(client, dsn):
    docs, *_ = filled(client, dsn, 3000, index="hnsw,m=4,ef_construction=8")
    docs.build_index()
    rows(dsn, """UPDATE pgseek.embedding_spaces SET searching = '{"ef_search": 10}'""")
    advice = docs.advise_index(0.95, sample=30)
    assert [one.settings for one in advice.measured] == [{}, {"ef_search": 800}]
    assert advice.measured[0].recall < 0.95
    assert advice.command == "pgseek index tune docs --recall 0.95"
    assert advice.proposal is None
    docs.build_index("binary,m=4,ef_construction=8", rebuild=True)
    advice = docs.advise_index(0.999, sample=30)
    assert advice.measured[-1].recall < 0.999
    assert advice.proposal is not None
    assert str(advice.proposal.index) == "hnsw,m=24,ef_construction=128"
    memory = f"{max(64, -(-advice.proposal.build_bytes // 2**20))}MB"
    assert advice.command == (
        f"pgseek index build docs --index hnsw,m=24,ef_construction=128 --maintenance-work-mem {memory}"
    )
    with connect(dsn) as connection:
        for statement in advice.sql:
            connection.execute(statement)
    assert names(dsn) == {"embeddings_1_hnsw": True}
    assert docs.info().space.index == advice.proposal.index
    assert docs.build_index().reason.startswith("it is there already")


def test_advice_without_an_index_and_for_few_rows(client, dsn):
    docs, *_ = filled(client, dsn, 1500, index="none")
    advice = docs.advise_index(sample=10)
    assert (advice.name, advice.measured, advice.index_bytes) == (None, (), 0)
    assert advice.command == "pgseek index build docs --index hnsw --maintenance-work-mem 64MB"
    few = client.create_collection("few", embedder=CountingEmbedder(8))
    with pytest.raises(
        InvalidInput, match="space 2 of collection 'few' has no vectors to search for; ingest"
    ):
        few.advise_index()
    few.ingest({"id": str(n), "text": f"text {n}"} for n in range(50))
    advice = few.advise_index()
    assert (advice.rows, advice.options, advice.command) == (50, (), "")
    assert advice.reasons[0].startswith("50 rows are compared exactly")
