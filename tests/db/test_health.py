"""`Client.health()` and the plain `pgseek doctor`: a sound database is quiet, each condition is told and mended.

Every condition is made in a real server, and what the finding says mends it is run as it stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import threading
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from support import CORPUS, CountingEmbedder, drop_database, rows

from pgseek import AsyncClient, Client, HealthFinding
from pgseek.db import embedded, schema
from pgseek.db.connection import connect
from pgseek.demo.run import collect
from pgseek.health import indexes, recall, settings, tables, work
from pgseek.health.finding import command

# The server of the tests keeps nothing for a crash.
OF_THE_TESTS = {"fsync_off", "full_page_writes_off", "synchronous_commit_off"}
MANY = [{"id": f"n{n}", "text": f"entry {n} of many about topic {n % 7}"} for n in range(1100)]


def found(dsn, **given):
    with Client(dsn, **given) as client:
        return [one for one in client.health() if one.name not in OF_THE_TESTS]


def only(dsn, name, **given):
    """The one finding there is, which has this name."""
    findings = found(dsn, **given)
    assert [one.name for one in findings] == [name], findings
    return findings[0]


@pytest.fixture
def mend(commands, dsn):
    """Run what mends a finding, as it stands."""

    def run(finding, dsn=dsn):
        if finding.mend.startswith("pgseek "):
            for one in finding.mend.split("; then "):
                made = commands.run("--dsn", dsn, *shlex.split(one)[1:])
                assert made.returncode == 0, made.stderr.decode()
        else:
            for statement in finding.mend.split("; "):
                rows(dsn, statement)

    return run


def fill(dsn, documents=MANY, name="docs", dimensions=8, **options):
    with Client(dsn) as client:
        docs = client.create_collection(name, embedder=CountingEmbedder(dimensions), **options)
        docs.ingest(documents)
    return docs


def flushed(dsn, *statements):
    """Execute statements; what they count is there when the connection has ended."""
    with connect(dsn) as connection:
        backend = connection.info.backend_pid
        for statement in statements:
            connection.execute(statement)
    until = time.monotonic() + 20
    while rows(dsn, "SELECT FROM pg_stat_activity WHERE pid = %s", [backend]):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_new_database_and_one_with_documents_are_quiet(dsn):
    assert found(dsn) == []
    fill(dsn, CORPUS, "small")
    assert found(dsn) == []
    fill(dsn)
    assert found(dsn) == []


@pytest.fixture(scope="module")
def own_server(server_folder):
    """The DSN of a server as the embedded one is made, with the demo's documents."""
    folder = server_folder / "health"
    dsn = embedded.start(folder)
    schema.upgrade(dsn)
    with Client(dsn) as client:
        client.create_collection("python-docs").ingest(collect())
    yield dsn
    embedded.stop(folder)


@contextlib.contextmanager
def altered(dsn, **values):
    """A server with settings, put back in the end; without a restart."""
    with connect(dsn) as connection:
        for name, value in values.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        connection.execute("SELECT pg_reload_conf()")
    _await_settings(dsn, values)
    try:
        yield
    finally:
        with connect(dsn) as connection:
            for name in values:
                connection.execute(f"ALTER SYSTEM RESET {name}")
            connection.execute("SELECT pg_reload_conf()")


def _await_settings(dsn, values):
    until = time.monotonic() + 20
    for name, value in values.items():
        while rows(dsn, "SELECT current_setting(%s) AS value", [name])[0]["value"] != value:
            assert time.monotonic() < until, name
            time.sleep(0.02)


def test_the_demo_is_nothing_but_ok(own_server, commands):
    made = commands.run("--dsn", own_server, "doctor")
    lines = made.stdout.decode().splitlines()
    assert (made.returncode, made.stderr) == (0, b"")
    assert [line.split()[0] for line in lines] == ["ok"] * len(lines)
    assert lines[-1].split() == ["ok", "health", "nothing", "to", "mend"]
    made = commands.run("--dsn", own_server, "doctor", "--json")
    assert made.returncode == 0
    shown = json.loads(made.stdout)
    assert shown["health"] == []
    assert all(check["ok"] for check in shown["checks"])


def test_settings_of_a_server_that_hurt(own_server, commands, mend):
    given = {
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "autovacuum": "off",
        "track_counts": "off",
    }
    rows(own_server, "VACUUM ANALYZE")
    with altered(own_server, **given):
        with Client(own_server) as client:
            findings = client.health()
        assert [(one.severity, one.name, one.about) for one in findings] == [
            ("warn", "autovacuum_off", "autovacuum"),
            ("warn", "autovacuum_off", "track_counts"),
            ("warn", "fsync_off", "fsync"),
            ("warn", "full_page_writes_off", "full_page_writes"),
            ("note", "synchronous_commit_off", "synchronous_commit"),
        ]
        assert findings[2].values == {"setting": "off", "unit": None, "source": "configuration file"}
        # Warnings are no failure.
        made = commands.run("--dsn", own_server, "doctor")
        assert made.returncode == 0
        assert "warn  fsync_off  fsync: off, set by configuration file\n" in made.stdout.decode()
        for one in findings:
            assert one.mend == f"ALTER SYSTEM SET {one.about} = 'on'; SELECT pg_reload_conf()"
            mend(one, own_server)
        _await_settings(own_server, dict.fromkeys(given, "on"))
        assert found(own_server) == []


def test_a_slot_that_nobody_reads_holds_wal(own_server, mend):
    rows(own_server, "SELECT pg_create_physical_replication_slot('left', true)")
    try:
        assert found(own_server) == []
        with altered(own_server, max_wal_size="32MB"):
            for _ in range(4):
                rows(own_server, "SELECT pg_logical_emit_message(false, 'test', 'x')")
                rows(own_server, "SELECT pg_switch_wal()")
            one = only(own_server, "slot_holds_wal")
            assert one.values["bytes"] > one.values["max_wal_size"] == 32 << 20
            mend(one, own_server)
            assert found(own_server) == []
    finally:
        rows(own_server, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


def test_indexes_that_find_no_room_in_memory(own_server, server_folder):
    folder = server_folder / "health"
    rows(own_server, "ALTER SYSTEM SET shared_buffers = '4MB'")
    embedded.stop(folder)
    assert embedded.start(folder) == own_server
    try:
        one = only(own_server, "shared_buffers_small")
        assert (one.severity, one.values["shared_buffers"]) == ("warn", 4 << 20)
        assert one.values["largest"] == "embeddings_1_hnsw"
        assert "pgseek index advise python-docs" in one.mend
        # What is proposed is enough.
        rows(own_server, one.mend.split(" (")[0])
    finally:
        embedded.stop(folder)
        embedded.start(folder)
    assert found(own_server) == []
    rows(own_server, "ALTER SYSTEM RESET shared_buffers")


def test_a_build_that_broke_off_leaves_an_invalid_index(dsn, mend):
    fill(dsn)
    with connect(dsn) as writer, writer.transaction():
        # A build waits for who has written before it began.
        writer.execute("UPDATE pgseek.embeddings_1 SET ordinal = ordinal WHERE false")
        building = threading.Event()

        def build():
            with connect(dsn) as connection, contextlib.suppress(psycopg.errors.QueryCanceled):
                connection.execute("SET search_path = public")
                connection.execute("SET statement_timeout = '3s'")
                building.set()
                connection.execute(
                    "CREATE INDEX CONCURRENTLY embeddings_1_next ON pgseek.embeddings_1"
                    " USING hnsw (embedding vector_cosine_ops)"
                )

        thread = threading.Thread(target=build)
        thread.start()
        building.wait(10)
        until = time.monotonic() + 10
        invalid = "SELECT FROM pg_index WHERE indexrelid = to_regclass('pgseek.embeddings_1_next')"
        while not rows(dsn, invalid):
            assert time.monotonic() < until
            time.sleep(0.02)
        # It is being built, and nothing is wrong with it.
        assert found(dsn) == []
        thread.join()
    one = only(dsn, "index_invalid")
    assert (one.severity, one.about, one.collection) == ("warn", "embeddings_1_next", "docs")
    assert one.mend == "pgseek index build docs"
    mend(one)
    assert found(dsn) == []
    assert not rows(dsn, invalid)


def test_an_index_of_somebody_else_that_is_invalid_is_dropped(dsn, mend):
    fill(dsn)
    with pytest.raises(psycopg.errors.UniqueViolation):
        rows(dsn, 'CREATE UNIQUE INDEX CONCURRENTLY "my Index" ON pgseek.chunks (language)')
    one = only(dsn, "index_invalid")
    assert one.mend == 'DROP INDEX CONCURRENTLY "pgseek"."my Index"'
    mend(one)
    assert found(dsn) == []


def test_indexes_that_are_missing(dsn, commands, mend):
    fill(dsn, name="my-docs")
    fill(dsn, CORPUS, "small")
    rows(dsn, "DROP INDEX pgseek.embeddings_1_hnsw")
    one = only(dsn, "index_missing")
    assert (one.severity, one.collection, one.mend) == ("fail", "my-docs", "pgseek index build my-docs")
    made = commands.run("--dsn", dsn, "doctor")
    assert made.returncode == 1
    assert (
        "FAIL  index_missing  index of embeddings_1: missing, of 1,000 vectors or more\n"
        "      Searches of my-docs compare every vector\n"
        "      mend: pgseek index build my-docs\n"
    ) in made.stdout.decode()
    # The examination tells of it itself.
    shown = json.loads(commands.run("--dsn", dsn, "doctor", "--deep", "--json").stdout)
    assert [one["key"] for one in shown["examination"]["findings"]] == ["index_missing"]
    assert "index_missing" not in {one["name"] for one in shown["health"]}
    mend(one)
    assert found(dsn) == []
    rows(dsn, "DROP INDEX pgseek.chunks_codes_idx")
    one = only(dsn, "index_missing")
    assert (one.severity, one.about) == ("fail", "chunks_codes_idx")
    # Whoever is about to load has left it out.
    with Client(dsn) as writer:
        writer.collection("small", embedder=CountingEmbedder()).delete(["errno"])
        assert only(dsn, "index_missing").severity == "note"
    with connect(dsn) as connection:
        connection.execute("SET search_path = public")
        connection.execute(one.mend)
    assert found(dsn) == []


def test_indexes_of_metadata_that_do_not_fit_their_collection(dsn, mend):
    docs = fill(dsn, CORPUS)
    with Client(dsn) as client:
        docs = client.collection("docs", embedder=CountingEmbedder())
        docs.index_metadata("year", "number")
        docs.index_metadata(["a.b"], "text")
    assert found(dsn) == []
    (name,) = [
        row["name"]
        for row in rows(
            dsn,
            "SELECT indexrelid::regclass::text AS name FROM pg_index"
            " WHERE indrelid = 'pgseek.documents'::regclass AND pg_get_indexdef(indexrelid) LIKE '%a.b%'",
        )
    ]
    rows(dsn, f"DROP INDEX {name}")
    one = only(dsn, "index_missing")
    assert (one.severity, one.values) == ("warn", {"field": ["a.b"], "type": "text"})
    mend(one)
    assert found(dsn) == []
    rows(dsn, "UPDATE pgseek.collections SET metadata_indexes = metadata_indexes - 0")
    one = only(dsn, "index_stray")
    mend(one)
    assert found(dsn) == []


def test_an_index_that_nobody_uses(dsn, mend, monkeypatch):
    fill(dsn)
    rows(dsn, "CREATE INDEX mine ON pgseek.documents (title)")
    with Client(dsn) as client:
        client.collection("docs", embedder=CountingEmbedder()).index_metadata("year", "number")
    # Neither is large, and nothing was counted for long.
    assert found(dsn) == []
    monkeypatch.setattr(indexes, "UNUSED_BYTES", 0)
    assert found(dsn) == []
    monkeypatch.setattr(indexes, "UNUSED_SECONDS", 0.0)
    # Their table was hardly searched either.
    assert found(dsn) == []
    monkeypatch.setattr(indexes, "UNUSED_SCANS", 1)
    first, second = found(dsn)
    assert {first.name, second.name} == {"index_unused"}
    assert (second.about, second.mend) == ("mine", 'DROP INDEX CONCURRENTLY "pgseek"."mine"')
    assert (first.collection, first.mend) == (
        "docs",
        "pgseek collections drop-metadata-index docs '[\"year\"]'",
    )
    mend(first)
    mend(second)
    assert found(dsn) == []
    # Statistics that were reset a moment ago say nothing.
    rows(dsn, "CREATE INDEX mine ON pgseek.documents (title)")
    monkeypatch.setattr(indexes, "UNUSED_SECONDS", 3600.0)
    rows(dsn, "VACUUM ANALYZE")
    rows(dsn, "UPDATE pgseek.collections SET created_at = now() - interval '1 year'")
    assert [one.name for one in found(dsn)] == ["index_unused"]
    flushed(dsn, "SELECT pg_stat_reset()")
    assert found(dsn) == []


def test_a_space_that_is_kept_for_long(dsn, mend):
    fill(dsn, CORPUS)
    with Client(dsn) as client:
        docs = client.collection("docs", embedder=CountingEmbedder())
        docs.reembed(CountingEmbedder(16, model="other"))
        docs.activate(2)
    assert [
        space["state"] for space in rows(dsn, "SELECT state FROM pgseek.embedding_spaces ORDER BY space_id")
    ] == [
        "ready",
        "active",
    ]
    assert found(dsn) == []
    rows(
        dsn,
        "UPDATE pgseek.embedding_spaces SET activated_at = now() - interval '20 days' WHERE state = 'active'",
    )
    one = only(dsn, "space_kept")
    assert one.mend == "pgseek spaces retire docs 1"
    assert "since 20 days" in one.seen


def vectors(dsn, number, dimensions):
    """Put vectors beside those of collection 1, as rows and nothing else."""
    numbers = np.random.default_rng(1).normal(size=(number, dimensions)).round(3)
    with connect(dsn) as connection:
        copy = "COPY pgseek.embeddings_1 (collection_id, document_id, ordinal, embedding) FROM STDIN"
        with connection.cursor().copy(copy) as target:
            for n, one in enumerate(numbers):
                target.write_row((1, f"00000000-0000-8000-8000-{n:012}", 0, str(one.tolist())))


def test_indexes_that_are_larger_than_their_rows(dsn, commands, mend, monkeypatch):
    docs = [
        {"id": f"n{n}", "text": " ".join(f"w{n * 31 % 9000 + i * 97}" for i in range(40))}
        for n in range(2000)
    ]
    fill(dsn, docs, dimensions=64)
    vectors(dsn, 3000, 64)
    monkeypatch.setattr(indexes, "BLOAT_BYTES", 1 << 19)
    # The estimate is not below what the indexes take: VACUUM tells how many rows there are.
    rows(dsn, "VACUUM ANALYZE")
    assert found(dsn) == []
    with Client(dsn) as client:
        client.collection("docs", embedder=CountingEmbedder(64)).delete([f"n{n}" for n in range(1900)])
    flushed(dsn, "DELETE FROM pgseek.embeddings_1 WHERE document_id::text LIKE '00000000-%'")
    # Before that the rows may still be there.
    rows(dsn, "VACUUM ANALYZE")
    with Client(dsn) as client:
        client.collection("docs", embedder=CountingEmbedder(64)).refresh_statistics()
    monkeypatch.setattr(tables, "MODIFIED_ROWS", 10**9)
    findings = {one.about: one for one in found(dsn)}
    assert {one.name for one in findings.values()} == {"index_bloated"}
    assert set(findings) >= {"embeddings_1_hnsw", "chunks_codes_idx"}
    graph = findings["embeddings_1_hnsw"]
    assert (graph.mend, graph.severity) == ("pgseek index build docs --rebuild", "warn")
    assert findings["chunks_codes_idx"].mend == 'REINDEX INDEX CONCURRENTLY "pgseek"."chunks_codes_idx"'
    for one in findings.values():
        if one is graph:
            continue
        mend(one)
    # Below 1,000 rows a graph is not built again by pgseek.
    mend(HealthFinding("", "note", "", "", "", "REINDEX INDEX pgseek.embeddings_1_hnsw", {}))
    assert found(dsn) == []


@pytest.mark.parametrize(
    ("dimensions", "index"), [(8, None), (64, "hnsw,m=32"), (300, "binary"), (64, "prefix=16")]
)
def test_the_expected_size_of_a_graph_is_what_a_new_one_takes(dsn, dimensions, index):
    fill(dsn, MANY[:10], dimensions=dimensions, **({"index": index} if index else {}))
    vectors(dsn, 2000, dimensions)
    with Client(dsn) as client:
        built = client.collection("docs", embedder=CountingEmbedder(dimensions)).build_index()
    space = rows(dsn, "SELECT * FROM pgseek.embedding_spaces")[0]
    expected = indexes.graph_bytes(space, 2010)
    assert 0.85 * built.bytes < expected < 1.15 * built.bytes


def test_rows_that_vacuum_did_not_take_away(dsn, mend):
    fill(dsn)
    # autovacuum will come for them.
    flushed(dsn, "DELETE FROM pgseek.ingest_queue", "UPDATE pgseek.documents SET title = title")
    assert found(dsn) == []
    rows(dsn, "VACUUM ANALYZE pgseek.documents")
    rows(dsn, "ALTER TABLE pgseek.documents SET (autovacuum_enabled = off)")
    one = only(dsn, "autovacuum_off")
    assert (one.severity, one.about) == ("warn", "documents")
    flushed(
        dsn,
        "UPDATE pgseek.documents SET title = title WHERE document_id > '55555555-0000-0000-0000-000000000000'",
    )
    off, dead = found(dsn)
    assert (off.name, dead.name, dead.about, dead.severity) == (
        "autovacuum_off",
        "vacuum_missing",
        "documents",
        "warn",
    )
    assert dead.values["dead"] > 500
    flushed(dsn, "UPDATE pgseek.documents SET title = title")
    assert [one.name for one in found(dsn)] == ["analyze_missing", "autovacuum_off", "vacuum_missing"]
    for one in found(dsn):
        if one.name != "vacuum_missing":
            mend(one)
    rows(dsn, "ALTER TABLE pgseek.documents SET (autovacuum_enabled = off)")
    mend(dead)
    assert [one.name for one in found(dsn)] == ["autovacuum_off"]
    mend(off)
    assert found(dsn) == []


def test_a_table_that_autovacuum_has_left_for_long_is_told_of(dsn, mend):
    fill(dsn)
    rows(dsn, "ANALYZE")
    flushed(dsn, "UPDATE pgseek.documents SET title = title")
    assert found(dsn) == []
    # Never vacuumed in the year that it is in use.
    rows(dsn, "UPDATE pgseek.collections SET created_at = now() - interval '1 year'")
    one = only(dsn, "vacuum_missing")
    assert "last VACUUM: never" in one.seen
    mend(one)
    assert found(dsn) == []


def test_rows_that_are_not_frozen(dsn, mend):
    fill(dsn, CORPUS)
    rows(dsn, "ALTER TABLE pgseek.documents SET (autovacuum_freeze_max_age = 100000)")
    assert found(dsn) == []
    rows(
        dsn,
        "DO $$ BEGIN FOR i IN 1..155000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$",
    )
    one = only(dsn, "freeze_overdue")
    assert one.values["transactions"] > 150_000
    mend(one)
    assert found(dsn) == []


def test_statistics_of_words_that_are_behind(dsn, commands, mend):
    fill(dsn)
    with Client(dsn) as client:
        docs = client.collection("docs", embedder=CountingEmbedder())
        docs.delete([f"n{n}" for n in range(100)])
        rows(dsn, "VACUUM ANALYZE")
        assert found(dsn) == []
        docs.delete([f"n{n}" for n in range(100, 400)])
    rows(dsn, "VACUUM ANALYZE")
    one = only(dsn, "statistics_behind")
    assert one.values == {"chunks": 700, "counted": 1100}
    mend(one)
    assert found(dsn) == []
    # A count that was lost is no statistic that is behind.
    flushed(dsn, "SELECT pg_stat_reset()")
    assert found(dsn) == []


@pytest.mark.parametrize(
    ("setting", "value", "name", "severity"),
    [
        ("enable_indexscan", "off", "planner_restricted", "warn"),
        ("enable_bitmapscan", "off", "planner_restricted", "warn"),
        ("statement_timeout", "1s", "statement_timeout_short", "warn"),
        ("work_mem", "1MB", "work_mem_small", "warn"),
        ("hnsw.ef_search", "20", "walk_setting_low", "note"),
        ("hnsw.iterative_scan", "off", "walk_setting_low", "note"),
        ("max_parallel_maintenance_workers", "0", "parallel_builds_off", "note"),
    ],
)
def test_settings_of_a_database_that_hurt(dsn, mend, setting, value, name, severity):
    fill(dsn)
    with connect(dsn) as connection:
        database = connection.info.dbname
    rows(dsn, f"ALTER DATABASE {database} SET {setting} = '{value}'")
    one = only(dsn, name)
    assert (one.severity, one.about) == (severity, setting)
    assert one.mend == f'ALTER DATABASE "{database}" RESET {setting}'
    mend(one)
    assert found(dsn) == []


def test_settings_that_do_not_hurt_are_not_told_of(dsn):
    fill(dsn)
    with connect(dsn) as connection:
        database = connection.info.dbname
    for setting in ("hnsw.ef_search = 400", "statement_timeout = '1min'", "work_mem = '64MB'", "jit = on"):
        rows(dsn, f"ALTER DATABASE {database} SET {setting}")
    assert found(dsn) == []


def test_a_setting_that_the_client_brings_itself(dsn):
    one = only(make_conninfo(dsn, options="-c enable_hashjoin=off"), "planner_restricted")
    assert (one.values["source"], "DSN's options" in one.mend) == ("client", True)


def test_costs_of_a_turning_disk_where_there_is_much(dsn, monkeypatch):
    assert found(dsn) == []
    monkeypatch.setattr(settings, "MUCH_DATA", 0)
    one = only(dsn, "random_page_cost_high")
    assert one.mend == "ALTER SYSTEM SET random_page_cost = '1.1'; SELECT pg_reload_conf()"


def test_a_pool_that_the_server_cannot_serve(dsn, monkeypatch):
    monkeypatch.setenv("PGSEEK_POOL_SIZE", "1000")
    one = only(dsn, "pool_too_large")
    assert one.values == {"pool_size": 1000, "allowed": 97}
    assert "PGSEEK_POOL_SIZE to 97 or less" in one.mend
    assert "max_connections = '1020'" in one.mend


def test_a_locale_that_knows_no_letters(server_dsn):
    name = f"pgseek_plain_{os.getpid()}"
    rows(server_dsn, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    try:
        dsn = make_conninfo(server_dsn, dbname=name)
        schema.upgrade(dsn)
        one = only(dsn, "locale_without_letters")
        assert one.values == {"ctype": "C"}
    finally:
        drop_database(server_dsn, name)


@pytest.mark.filterwarnings("ignore")
def test_a_collation_that_has_changed_under_its_indexes(dsn, mend):
    if rows(dsn, "SELECT FROM pg_database WHERE datname = current_database() AND datcollversion IS NULL"):
        pytest.skip("this collation has no version")
    rows(dsn, "UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database()")
    one = only(dsn, "collation_changed")
    assert one.values["version"] == "0"
    mend(one)
    assert found(dsn) == []


def test_documents_that_wait_and_that_were_given_up(dsn, commands, mend):
    with Client(dsn) as client:
        client.create_collection("docs").ingest(CORPUS)
    rows(dsn, "SELECT pgseek.put_document('docs', '1', 'one'), pgseek.put_document('docs', '2', 'two')")
    assert only(dsn, "queue_waiting").severity == "note"
    assert commands.run("--dsn", dsn, "doctor").returncode == 0
    rows(dsn, "UPDATE pgseek.ingest_queue SET enqueued_at = now() - interval '1 hour'")
    one = only(dsn, "queue_waiting")
    assert (one.severity, one.values["waiting"], one.values["oldest_seconds"] >= 3600) == ("fail", 2, True)
    assert commands.run("--dsn", dsn, "doctor").returncode == 1
    mend(one)
    assert found(dsn) == []
    rows(dsn, "SELECT pgseek.put_document('docs', '3', 'three')")
    rows(dsn, "UPDATE pgseek.ingest_queue SET failed_at = now(), error = 'refused'")
    one = only(dsn, "queue_failed")
    assert (one.severity, one.values) == ("fail", {"failed": 1})
    mend(one)
    assert only(dsn, "queue_waiting").severity == "note"


def test_a_cache_that_has_expired(dsn, mend):
    fill(dsn, CORPUS)
    rows(
        dsn,
        "INSERT INTO pgseek.embedding_cache (identity, input_type, text_hash, embedding, expires_at)"
        " SELECT 'x', 'query', sha256(n::text::bytea), '[1,2]'::vector, now() + interval '1 day'"
        " FROM generate_series(1, 1500) n",
    )
    assert found(dsn) == []
    rows(dsn, "UPDATE pgseek.embedding_cache SET expires_at = now() - interval '1 day' WHERE identity = 'x'")
    one = only(dsn, "cache_expired")
    assert one.values["expired"] == 1500
    mend(one)
    assert found(dsn) == []


def test_a_role_that_may_only_read_sees_its_own(dsn, server_dsn):
    for tenant in ("acme", "beta"):
        with Client(dsn, tenant=tenant) as client:
            client.create_collection("docs", embedder=CountingEmbedder()).ingest(MANY)
    rows(dsn, "SELECT pgseek.protect()")
    role = f"pgseek_reading_{os.getpid()}"
    rows(server_dsn, f"CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT 5")
    try:
        rows(dsn, f"GRANT pgseek_reader TO {role}")
        rows(dsn, "INSERT INTO pgseek.tenant_roles VALUES (%s, 'beta')", [role])
        reader = make_conninfo(dsn, user=role, password="x")
        with Client(reader) as client:
            (measured,) = client.recall(queries=10)
        assert (measured.tenant, measured.space_id, measured.queries) == ("beta", 2, 10)
        assert measured.recall is not None
        rows(dsn, "DROP INDEX pgseek.embeddings_1_hnsw, pgseek.embeddings_2_hnsw")
        missing, pool = found(reader)
        assert (missing.name, missing.about, missing.tenant) == (
            "index_missing",
            "index of embeddings_2",
            "beta",
        )
        assert missing.mend == "pgseek --tenant beta index build docs"
        assert (pool.name, pool.values["allowed"]) == ("pool_too_large", 5)
    finally:
        drop_role = ("DROP OWNED BY", "DROP ROLE")
        rows(dsn, f"{drop_role[0]} {role}")
        rows(server_dsn, f"{drop_role[1]} {role}")
    assert {one.tenant for one in found(dsn)} == {"acme", "beta"}
    assert [one.tenant for one in found(dsn, tenant="acme")] == ["acme"]


def test_it_waits_for_nobody_and_reads_no_documents(dsn):
    fill(dsn)
    with connect(dsn) as other, other.transaction():
        # As an index build, a migration or a DROP holds it.
        other.execute(
            "LOCK TABLE pgseek.chunks, pgseek.documents, pgseek.embeddings_1 IN ACCESS EXCLUSIVE MODE"
        )
        assert found(make_conninfo(dsn, options="-c statement_timeout=20s")) == []


def test_the_asynchronous_client_finds_the_same(dsn):
    fill(dsn)
    rows(dsn, "DROP INDEX pgseek.embeddings_1_hnsw")

    async def look():
        async with AsyncClient(dsn) as client:
            return await client.health(), await client.recall()

    health, measured = asyncio.run(look())
    assert [one.about for one in health if one.name not in OF_THE_TESTS] == ["index of embeddings_1"]
    assert [one.detail for one in measured] == ["left out: it has no index: every search is exact"]


def test_commands_are_written_for_a_shell():
    assert (
        command("my tenant", "queue drain", "it's") == "pgseek --tenant 'my tenant' queue drain 'it'\"'\"'s'"
    )
    assert shlex.split(command("", "index build", "a b", "--space", 3)) == [
        "pgseek",
        "index",
        "build",
        "a b",
        "--space",
        "3",
    ]


def poor(dsn):
    """A collection whose graph finds little."""
    fill(dsn, [], dimensions=64, name="docs")
    vectors(dsn, 3000, 64)
    with Client(dsn) as client:
        client.collection("docs", embedder=CountingEmbedder(64)).build_index("hnsw,m=6,ef_construction=12")
    rows(dsn, """UPDATE pgseek.embedding_spaces SET searching = '{"ef_search": 1}'""")


def test_recall_is_measured_and_what_falls_short_is_mended(dsn, commands, mend):
    poor(dsn)
    fill(dsn, CORPUS, "small")
    with Client(dsn) as client:
        docs, small = client.recall(queries=100)
    assert (docs.collection, docs.queries, docs.source, docs.k, docs.rows) == (
        "docs",
        100,
        "vectors",
        10,
        3000,
    )
    assert docs.settings == {"ef_search": 1}
    assert docs.recall < 0.9
    assert docs.finding is not None
    assert (docs.finding.severity, docs.finding.name) == ("fail", "recall_low")
    assert docs.finding.mend == "pgseek index tune docs --recall 0.95 -k 10"
    assert (small.recall, small.ok) == (None, True)
    assert small.detail.startswith("left out: 6 rows are compared exactly")
    made = commands.run("--dsn", dsn, "doctor", "--recall", "docs", "--queries", "100", "--json")
    assert made.returncode == 1
    (shown,) = json.loads(made.stdout)["recall"]
    assert (shown["recall"], shown["finding"]["name"]) == (docs.recall, "recall_low")
    mend(docs.finding)
    made = commands.run("--dsn", dsn, "doctor", "--recall", "--queries", "100")
    assert made.returncode == 0, made.stdout.decode()
    with Client(dsn) as client:
        after, _other = client.recall(queries=100)
        assert after.ok
        assert after.recall >= 0.95
        assert after.settings["ef_search"] > 1
        # What is asked for is what counts.
        (strict,) = client.recall(["docs"], queries=100, recall=1.0, k=100)
    assert strict.ok is (strict.recall >= 1.0)
    text = made.stdout.decode()
    assert f"ok    recall of docs, space 1 (tests:hash@64)  {after.recall:.4f} of the 10 nearest" in text
    assert "note  recall of small, space 2 (tests:hash@8)  left out: 6 rows" in text


def test_recall_goes_by_queries_that_were_asked(dsn):
    poor(dsn)
    with Client(dsn) as client:
        docs = client.collection("docs", embedder=CountingEmbedder(64))
        for number in range(30):
            docs.search(f"a question {number}", k=1)
        (found_now,) = client.recall(queries=30)
    assert (found_now.source, found_now.queries) == ("queries", 30)


def test_what_is_asked_in_error_is_said(dsn, commands):
    fill(dsn, CORPUS)
    for arguments, code, message in (
        (["docs"], 2, "naming collections needs --deep, --probe or --recall"),
        (["--recall", "--queries", "3"], 2, "sample is 3"),
        (["--recall", "--at-least", "2"], 2, "recall is 2.0"),
        (["--recall", "nothing"], 3, "nothing"),
    ):
        made = commands.run("--dsn", dsn, "doctor", *arguments)
        assert (made.returncode, message in made.stderr.decode()) == (code, True), made.stderr


def test_each_finding_is_described():
    """docs/health.md has a row for each name that the code can give."""
    root = Path(__file__).parents[2]
    names = {"fsync_off", "statement_timeout_short", "transaction_timeout_short"}
    for module in (indexes, settings, tables, work, recall):
        text = Path(module.__file__).read_text()
        names |= set(re.findall(r'HealthFinding\(\s+"(\w+)"', text))
        names |= set(re.findall(r'_finding\(facts, [\w"\[\]]+, "(\w+)"', text))
    assert len(names) > 25
    text = (root / "docs" / "health.md").read_text()
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
