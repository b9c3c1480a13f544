"""Migrations: the catalogue at head, up and down, the frozen SQL, and other people's schemas."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Integer, MetaData, Table
from support import CORPUS, CountingEmbedder, rows

from pgseek import Client, InvalidInput, collections, copies
from pgseek.db import revisions, schema
from pgseek.db.connection import connect
from pgseek.db.sqltext import FUNCTIONS, function_sql
from pgseek.embedders.base import identity_hash
from pgseek.embedders.wordllama import WordLlamaEmbedder
from pgseek.integrity import examine

SQL = Path(__file__).parents[2] / "src" / "pgseek" / "db" / "sql"

CATALOGUE = {
    "functions": "SELECT p.oid::regprocedure::text AS name, pg_get_functiondef(p.oid) AS definition"
    " FROM pg_proc p WHERE pronamespace = 'pgseek'::regnamespace ORDER BY 1",
    "columns": "SELECT table_name, column_name, data_type, udt_name, is_nullable, column_default,"
    " generation_expression, identity_generation FROM information_schema.columns"
    " WHERE table_schema = 'pgseek' ORDER BY 1, 2",
    "constraints": "SELECT conrelid::regclass::text AS table, conname, pg_get_constraintdef(oid) AS definition"
    " FROM pg_constraint WHERE connamespace = 'pgseek'::regnamespace ORDER BY 1, 2",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'pgseek' ORDER BY 1",
    "triggers": "SELECT tgrelid::regclass::text AS table, tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
}


def catalogue(dsn):
    return {name: rows(dsn, statement) for name, statement in CATALOGUE.items()}


def scripts():
    config = Config()
    config.set_main_option("script_location", str(schema.migrations_path()))
    return ScriptDirectory.from_config(config)


def test_the_known_revisions_are_the_scripts():
    walked = [script.revision for script in scripts().walk_revisions()]
    assert tuple(reversed(walked)) == revisions.KNOWN
    assert scripts().get_current_head() == revisions.HEAD


def test_up_down_up_leaves_the_catalogue_equal(empty_dsn):
    schema.upgrade(empty_dsn)
    first = catalogue(empty_dsn)
    assert len(first["functions"]) == len(FUNCTIONS)
    with Client(empty_dsn) as client:
        client.create_collection("docs", embedder=CountingEmbedder()).ingest(CORPUS)
    assert schema.downgrade(empty_dsn, "base") is None
    left = rows(
        empty_dsn,
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('pgseek')"
        " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace('pgseek')",
    )
    assert left == []
    assert rows(empty_dsn, "SELECT to_regnamespace('pgseek') AS schema") == [{"schema": None}]
    schema.upgrade(empty_dsn)
    assert catalogue(empty_dsn) == first


def test_every_step_down_and_up_restores_the_catalogue(empty_dsn):
    for revision in revisions.KNOWN:
        schema.upgrade(empty_dsn, revision)
        before = catalogue(empty_dsn)
        if revision != revisions.HEAD:
            schema.upgrade(empty_dsn, "+1")
            schema.downgrade(empty_dsn, "-1")
            assert catalogue(empty_dsn) == before


WORDS = ("zebra grazes", "zebra", "lion and zebra and lion", "a lion sleeps", "no animal at all")


def at_revision(dsn, revision):
    """A database at an earlier revision with a collection, documents and two embeddings.

    Beside its active space it has one that is ready, one that is being built, and one that was retired.
    """
    schema.upgrade(dsn, revision)
    identity = WordLlamaEmbedder().identity
    rows(
        dsn,
        "INSERT INTO pgseek.collections (name, language, languages, settings, active_space_id)"
        ' VALUES (\'docs\', \'english\', \'{english}\', \'{"fusion": "weighted", "alpha": 0.4, "lexical":'
        f' "{"ts_rank_cd" if revision == "0001" else "bm25"}", "candidates": 100, "chunk_size": 2000,'
        ' "chunk_overlap": 0}\', 1)',
    )
    rows(
        dsn,
        "INSERT INTO pgseek.embedding_spaces (collection_id, provider, model, dimensions, metric, storage, prompts,"
        ' normalized, identity, state) VALUES (1, %s, %s, 256, \'cosine\', \'vector\', \'{"query": "", "document": ""}\','
        " true, %s, 'active')",
        [identity.provider, identity.model, identity_hash(identity)],
    )
    rows(
        dsn,
        "CREATE TABLE pgseek.embeddings_1 (collection_id int, document_id uuid, ordinal int,"
        " embedding vector(256) NOT NULL, PRIMARY KEY (collection_id, document_id, ordinal))",
    )
    for space, (dimensions, state) in enumerate(
        ((64, "ready"), (128, "building"), (256, "retired")), start=2
    ):
        other = WordLlamaEmbedder(dimensions=dimensions).identity
        rows(
            dsn,
            "INSERT INTO pgseek.embedding_spaces (collection_id, provider, model, dimensions, metric, storage, prompts,"
            " normalized, identity, state) VALUES (1, %s, %s, %s, 'cosine', 'vector',"
            ' \'{"query": "", "document": ""}\', true, %s, %s)',
            [other.provider, other.model, dimensions, identity_hash(other), state],
        )
        if state != "retired":
            rows(
                dsn,
                f"CREATE TABLE pgseek.embeddings_{space} (collection_id int, document_id uuid, ordinal int,"
                f" embedding vector({dimensions}) NOT NULL, PRIMARY KEY (collection_id, document_id, ordinal))",
            )
    if revision >= "0002":
        rows(
            dsn,
            "INSERT INTO pgseek.collection_statistics (collection_id, weighting)"
            f" VALUES (1, '{{1.2,0.75,3,2{',0.5,0.6,0.67,0.74,0.8,0.85' if revision == '0002' else ''}}}')",
        )
    for number, text in enumerate(WORDS):
        rows(
            dsn,
            "SELECT pgseek.put_document('docs', %s, %s, title => 'title ' || %s)",
            [f"d{number}", text, number],
        )
    rows(
        dsn,
        "INSERT INTO pgseek.embeddings_1 SELECT 1, document_id, 0, array_fill(1, ARRAY[256])::vector"
        " FROM pgseek.documents WHERE external_id IN ('d0', 'd1')",
    )
    if revision >= "0003":
        # The way down from later revisions weighs nothing anew: the ranking before is that of what is there.
        rows(dsn, "SELECT pgseek.reweigh('docs')")


def lexical(dsn):
    found = rows(dsn, "SELECT external_id, score FROM pgseek.search('docs', 'lion zebra', alpha => 0)")
    return [(row["external_id"], row["score"]) for row in found]


@pytest.mark.parametrize("revision", revisions.KNOWN[:-1])
def test_data_of_each_revision_survives_the_way_up_and_down(empty_dsn, revision):
    at_revision(empty_dsn, revision)
    stored = "SELECT document_id, external_id, title, body, language, metadata, content_hash FROM pgseek.documents ORDER BY 1"
    before, ranked = rows(empty_dsn, stored), lexical(empty_dsn)
    assert {external_id for external_id, _ in ranked} == {"d0", "d1", "d2", "d3"}
    schema.upgrade(empty_dsn)
    assert schema.check(empty_dsn) == []
    assert rows(empty_dsn, stored) == before
    assert {external_id for external_id, _ in lexical(empty_dsn)} == {"d0", "d1", "d2", "d3"}
    with Client(empty_dsn) as client:
        docs = client.collection("docs")
        assert docs.info().settings["lexical"] == "bm25"
        assert docs.search("lion", alpha=0)[0].id in {"d2", "d3"}
        assert [(s.space_id, s.state, s.metric) for s in docs.spaces()] == [
            (1, "active", "cosine"),
            (2, "ready", "cosine"),
            (3, "building", "cosine"),
            (4, "retired", "cosine"),
        ]
        assert docs.drain_queue().changed == len(WORDS)
        assert docs.ingest([{"id": "new", "text": "another lion"}]).new == 1
        # Writes go to all of them, so that each can be gone on with, and switched to.
        assert [(s.rows, s.missing) for s in docs.spaces()] == [(6, 0), (6, 0), (6, 0), (None, None)]
        assert docs.activate(2) == 0
        assert docs.reembed("wordllama@128").space_id == 3
        assert docs.search("lion")[0].dense_rank is not None
        docs.activate(1)
        assert docs.search("lion")[0].dense_rank is not None
        docs.delete("new")
        docs.refresh_statistics(reweigh=True)
        # Names are read anew in what was there before, not only in what came after.
        assert {hit.id for hit in docs.search('"lion and zebra"', alpha=0)} == {"d2"}
    schema.downgrade(empty_dsn, revision)
    assert rows(empty_dsn, stored) == before
    assert [i for i, _ in lexical(empty_dsn)] == [i for i, _ in ranked]
    schema.upgrade(empty_dsn)
    assert schema.check(empty_dsn) == []


def test_cached_vectors_survive_the_way_up_and_down(empty_dsn):
    at_revision(empty_dsn, "0003")
    identity = WordLlamaEmbedder().identity
    text = b"how do lions graze"
    stored = (
        "SELECT identity, input_type, text_hash, embedding::text, created_at FROM pgseek.embedding_cache"
        " ORDER BY input_type, text_hash"
    )
    for input_type, key in (
        ("document", b"one"),
        ("document", b"two"),
        ("query", hashlib.sha256(text).digest()),
    ):
        rows(
            empty_dsn,
            "INSERT INTO pgseek.embedding_cache (identity, input_type, text_hash, embedding, created_at)"
            " VALUES (%s, %s, %s, array_fill(0.1::real, ARRAY[256])::vector, '2024-02-29')",
            [identity_hash(identity), input_type, key],
        )
    before = rows(empty_dsn, stored)
    search = "SELECT external_id, dense_score FROM pgseek.search('docs', %s, alpha => 1)"
    ranked = rows(empty_dsn, search, [text.decode()])
    assert {row["external_id"] for row in ranked} == {"d0", "d1"}
    schema.upgrade(empty_dsn)
    assert rows(empty_dsn, stored) == before
    assert rows(
        empty_dsn,
        "SELECT DISTINCT used_at > now() - interval '1 minute' AS now, expires_at FROM pgseek.embedding_cache",
    ) == [{"now": True, "expires_at": None}]
    assert rows(empty_dsn, search, [text.decode()]) == ranked
    # What has expired at head is not found again at a revision that knows no expiry.
    rows(empty_dsn, "UPDATE pgseek.embedding_cache SET expires_at = now() WHERE text_hash = 'two'")
    rows(
        empty_dsn,
        "UPDATE pgseek.embedding_cache SET expires_at = now() + interval '1 day' WHERE text_hash = 'one'",
    )
    schema.downgrade(empty_dsn, "0003")
    assert rows(empty_dsn, stored) == [row for row in before if row["text_hash"] != b"two"]
    assert rows(empty_dsn, search, [text.decode()]) == ranked


@pytest.mark.parametrize("switched", [False, True])
def test_a_copy_goes_on_the_way_down_and_who_has_the_name_stays(dsn, switched):
    embedder = CountingEmbedder()
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=embedder)
        docs.ingest(CORPUS)
        others = client.create_collection("others", embedder=embedder)
        others.ingest(CORPUS[:2])
        client._run(copies.begin(docs._info, embedder, {"chunk_size": 50}))
        copy = client._run(collections.find_copy(docs._info))
        client._run(copies.fill(copy))
        client.collection(copy.name, embedder=embedder).drain_queue()
        if switched:
            client._run(copies.switch(docs._info, copy))
        docs.ingest([{"id": "waits", "text": "in the queue of the copy"}])
        stays = client._run(collections.find("docs"))
    assert schema.downgrade(dsn, "0005") == "0005"
    assert rows(dsn, "SELECT name, collection_id FROM pgseek.collections ORDER BY 1") == [
        {"name": "docs", "collection_id": stays.collection_id},
        {"name": "others", "collection_id": others._info.collection_id},
    ]
    for table in (
        "documents",
        "chunks",
        "embedding_spaces",
        "collection_statistics",
        "term_statistics",
        "ingest_queue",
    ):
        left = rows(
            dsn,
            f"SELECT FROM pgseek.{table} t WHERE collection_id NOT IN (SELECT collection_id FROM pgseek.collections)",
        )
        assert left == [], table
    tables = rows(
        dsn, "SELECT tablename FROM pg_tables WHERE tablename ~ '^embeddings_' AND schemaname = 'pgseek'"
    )
    assert len(tables) == 2
    assert rows(dsn, "SELECT pgseek.put_document('docs', 'new', 'zebra') AS status") == [{"status": "new"}]
    assert rows(dsn, "SELECT external_id FROM pgseek.search('docs', 'zebra', alpha => 0)") == [
        {"external_id": "new"}
    ]
    schema.upgrade(dsn)
    assert schema.check(dsn) == []
    with Client(dsn) as client:
        docs = client.collection("docs", embedder=embedder)
        docs.drain_queue()
        assert docs.search("cache")[0].id == "lru_cache"
    assert examine(dsn).ok


def test_the_database_at_head_is_what_the_models_say(dsn):
    assert schema.check(dsn) == []


def test_check_reports_a_difference(dsn):
    rows(dsn, "ALTER TABLE pgseek.documents ADD COLUMN extra integer")
    (difference,) = schema.check(dsn)
    assert "extra" in difference


def test_check_reports_a_function_that_was_changed(dsn):
    rows(
        dsn,
        "CREATE OR REPLACE FUNCTION pgseek.dimension(lexeme text) RETURNS integer LANGUAGE plpgsql IMMUTABLE"
        " STRICT PARALLEL SAFE AS $$ BEGIN RETURN 1; END $$",
    )
    assert schema.check(dsn) == [f"function dimension is not the one of revision {revisions.HEAD}"]


def test_somebodys_own_table_in_our_schema_survives_a_downgrade(dsn):
    rows(dsn, "CREATE TABLE pgseek.mine (x int)")
    assert schema.downgrade(dsn, "base") is None
    assert rows(dsn, "SELECT * FROM pgseek.mine") == []


def test_the_functions_at_head_are_the_files_at_head(dsn):
    before = rows(dsn, CATALOGUE["functions"])
    for name in FUNCTIONS:
        rows(dsn, function_sql(name))
    assert rows(dsn, CATALOGUE["functions"]) == before
    assert {path.stem for path in SQL.glob("*.sql")} == set(FUNCTIONS)


def test_every_file_at_head_is_the_newest_frozen_copy():
    folders = sorted((schema.migrations_path() / "sql").iterdir(), reverse=True)
    for name in FUNCTIONS:
        newest = next(folder / f"{name}.sql" for folder in folders if (folder / f"{name}.sql").is_file())
        assert newest.read_text() == (SQL / f"{name}.sql").read_text(), f"freeze {name}.sql in a new revision"


def test_every_function_pins_its_search_path_and_is_plpgsql(dsn):
    found = rows(
        dsn,
        "SELECT proname, l.lanname, proconfig, prosecdef FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang"
        " WHERE pronamespace = 'pgseek'::regnamespace",
    )
    for function in found:
        assert function["lanname"] == "plpgsql", function
        assert "search_path=pg_catalog, pg_temp" in function["proconfig"], function
        assert not function["prosecdef"], function


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_sql_file_tells_purpose_arguments_and_volatility(name):
    text = (SQL / f"{name}.sql").read_text()
    for part in ("-- Purpose:", "-- Arguments:", "-- Volatility:"):
        assert part in text


def test_no_column_stops_pg_upgrade(dsn):
    # What pg_upgrade refuses: columns of these types hold identifiers of the old catalogue.
    found = rows(
        dsn,
        "SELECT attrelid::regclass, attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relnamespace = 'pgseek'::regnamespace AND c.relkind IN ('r', 'p') AND atttypid::regtype::text ="
        " ANY ('{regcollation,regconfig,regdictionary,regnamespace,regoper,regoperator,regproc,regprocedure}')",
    )
    assert found == []


def test_upgrades_at_once_take_turns(empty_dsn):
    command = [sys.executable, "-m", "pgseek", "--dsn", empty_dsn, "db", "upgrade"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = []
    threads = [threading.Thread(target=lambda: results.append(schema.upgrade(empty_dsn))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [revisions.HEAD] * 2
    printed = [process.communicate()[0] for process in processes]
    assert printed == [f"the schema is at revision {revisions.HEAD}\n"] * 2


def test_pgvector_in_another_schema(empty_dsn):
    rows(empty_dsn, 'CREATE SCHEMA "Ext Schema"')
    rows(empty_dsn, 'CREATE EXTENSION vector SCHEMA "Ext Schema"')
    schema.upgrade(empty_dsn)
    with Client(empty_dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder())
        docs.ingest([{"id": str(n), "text": f"text {n}"} for n in range(1001)])
        assert docs.search("text 7", query_embedding=[1] * 8)
        assert docs.search("text 7")
    assert schema.downgrade(empty_dsn, "base") is None


def test_the_wrong_search_path_changes_nothing(dsn):
    with Client(dsn) as client:
        client.create_collection("docs").ingest(CORPUS)
        expected = [hit.id for hit in client.collection("docs").search("cache a function")]
    with connect(dsn) as connection:
        connection.execute("CREATE SCHEMA trap")
        connection.execute(
            "CREATE FUNCTION trap.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT ''::bytea $$"
        )
        connection.execute("CREATE TABLE trap.chunks (x int)")
        connection.execute("SET search_path = trap")
        found = connection.execute("SELECT * FROM pgseek.search('docs', 'cache a function')").fetchall()
    assert [row["external_id"] for row in found] == expected


def test_a_users_own_autogenerate_sees_nothing_of_ours(dsn):
    with Client(dsn) as client:
        client.create_collection("docs", embedder=CountingEmbedder()).ingest(CORPUS)
    own = MetaData()
    Table("users_table", own, Column("id", Integer, primary_key=True))
    rows(dsn, "CREATE TABLE users_table (id serial PRIMARY KEY)")
    with schema.engine_for(dsn).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), own) == []


def test_an_unknown_revision_is_named(dsn):
    with pytest.raises(InvalidInput, match="0001"):
        schema.upgrade(dsn, "nonsense")
    with pytest.raises(InvalidInput, match="0001"):
        schema.downgrade(dsn, "nonsense")


def test_the_revision_as_sql_can_be_reviewed(capsys):
    from alembic import command

    config = Config()
    config.set_main_option("script_location", str(schema.migrations_path()))
    command.upgrade(config, "head", sql=True)
    printed = capsys.readouterr().out
    assert "CREATE TABLE pgseek.documents" in printed
    assert "CREATE OR REPLACE FUNCTION pgseek.search(" in printed
    assert "@vector@" not in printed
