"""Migrations: the catalogue at head, up and down, the frozen SQL, and other people's schemas."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from functions import OWNERS_RIGHTS
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Column, Integer, MetaData, Table
from support import CORPUS, CountingEmbedder, rows

from pgseek import Client, DatabaseError, InvalidInput, collections, copies
from pgseek.db import embedded, revisions, roles, schema
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
        assert function["prosecdef"] == (function["proname"] in OWNERS_RIGHTS), function


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
        assert docs.search("text 7", model=str(docs.info().identity), query_embedding=[1] * 8)
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


def policies(dsn):
    """Tables with row-level security, and whether each has a policy; rights of the two roles; targets of statistics."""
    return {
        "tables": rows(
            dsn,
            "SELECT c.relname, c.relrowsecurity, ARRAY(SELECT pg_get_expr(p.polqual, p.polrelid) FROM pg_policy p"
            " WHERE p.polrelid = c.oid) AS rules FROM pg_class c WHERE c.relnamespace = 'pgseek'::regnamespace"
            " AND c.relkind = 'r' ORDER BY 1",
        ),
        "rights": rows(
            dsn,
            "SELECT c.relname, a.privilege_type, a.grantee::regrole::text FROM pg_class c, aclexplode(c.relacl) AS a"
            " WHERE c.relnamespace = 'pgseek'::regnamespace AND a.grantee <> c.relowner ORDER BY 1, 2, 3",
        ),
        "statistics": rows(
            dsn,
            "SELECT attrelid::regclass::text, attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
            " WHERE c.relnamespace = 'pgseek'::regnamespace AND a.attnum > 0 AND a.attstattarget = 0 ORDER BY 1, 2",
        ),
    }


@pytest.mark.parametrize("revision", revisions.KNOWN[:-1])
def test_what_was_there_is_protected_like_what_is_made_now(empty_dsn, dsn, revision):
    at_revision(empty_dsn, revision)
    rows(empty_dsn, "ANALYZE")
    schema.upgrade(empty_dsn)
    with Client(dsn) as client:
        for _ in range(3):
            client.create_collection(f"docs{_}", embedder=CountingEmbedder())
    now, then = policies(dsn), policies(empty_dsn)
    for kind in ("rights", "statistics"):
        assert then[kind] == now[kind]
    # The spaces of one collection there, one of each here.
    for row in (*now["tables"], *then["tables"]):
        row["rules"] = [re.sub(r"is_of_tenant\(\d\)", "is_of_tenant(1)", rule) for rule in row["rules"]]
    assert then["tables"] == now["tables"]
    known = rows(
        empty_dsn,
        "SELECT FROM pg_stats WHERE schemaname = 'pgseek' AND attname IN ('title', 'body', 'text', 'lexeme', 'name')",
    )
    assert known == []
    schema.downgrade(empty_dsn, "0006")
    left = policies(empty_dsn)
    assert [row for row in left["tables"] if row["relrowsecurity"] or row["rules"]] == []
    assert left["statistics"] == []
    assert [row for row in left["rights"] if row["grantee"].startswith("pgseek_")] == []
    assert rows(
        empty_dsn, "SELECT has_function_privilege('public', 'pgseek.dimension(text)', 'execute') AS may"
    ) == [{"may": True}]


def test_who_had_rights_on_tables_can_do_what_he_could(empty_dsn, server_dsn):
    at_revision(empty_dsn, "0006")
    reader, writer, nobody = (f"pgseek_{kind}_{os.getpid()}" for kind in ("rd", "wr", "no"))
    try:
        for role in (reader, writer, nobody):
            rows(server_dsn, f"CREATE ROLE {role}")
            rows(empty_dsn, f"GRANT USAGE ON SCHEMA pgseek TO {role}")
        rows(empty_dsn, f"GRANT SELECT ON ALL TABLES IN SCHEMA pgseek TO {reader}")
        rows(empty_dsn, f"GRANT SELECT ON pgseek.chunks TO {nobody}")
        for grant in (
            "SELECT, UPDATE ON pgseek.collections, pgseek.collection_statistics",
            "SELECT ON pgseek.embedding_spaces",
            "SELECT, INSERT, UPDATE, DELETE ON pgseek.documents, pgseek.chunks, pgseek.ingest_queue",
            "SELECT, DELETE ON pgseek.embeddings_1, pgseek.embeddings_2, pgseek.embeddings_3",
        ):
            rows(empty_dsn, f"GRANT {grant} TO {writer}")
        schema.upgrade(empty_dsn)
        search = "SELECT FROM pgseek.search('docs', 'lion', alpha => 0)"
        put = "SELECT pgseek.put_document('docs', 'by', 'a writer')"
        delete = "SELECT pgseek.delete_document('docs', 'by')"
        count = "SELECT FROM pgseek.chunks"
        for role, may, may_not in (
            (reader, (search, count), (put, delete)),
            (writer, (search, count, put, delete), ("SELECT pgseek.reweigh('docs')",)),
            (nobody, (count,), (search, put, delete)),
        ):
            with connect(empty_dsn) as connection:
                connection.execute(f"SET ROLE {role}")
                for statement in may:
                    assert connection.execute(statement).rowcount > 0, (role, statement)
                for statement in may_not:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(statement)
    finally:
        for role in (reader, writer, nobody):
            rows(empty_dsn, f"DROP OWNED BY {role}")
            rows(server_dsn, f"DROP ROLE {role}")


def test_the_way_down_keeps_what_is_nobodys_and_takes_what_is_a_tenants(dsn):
    for tenant in (None, "acme", "beta"):
        with Client(dsn, tenant=tenant) as client:
            client.create_collection("docs", embedder=CountingEmbedder()).ingest(CORPUS)
    schema.downgrade(dsn, "0006")
    assert rows(dsn, "SELECT name FROM pgseek.collections") == [{"name": "docs"}]
    assert rows(dsn, "SELECT count(DISTINCT collection_id) AS n FROM pgseek.term_statistics") == [{"n": 1}]
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.embedding_cache") == [{"n": len(CORPUS)}]
    tables = "SELECT tablename FROM pg_tables WHERE tablename ~ '^embeddings_' AND schemaname = 'pgseek'"
    assert len(rows(dsn, tables)) == 1
    schema.upgrade(dsn)
    assert schema.check(dsn) == []
    with Client(dsn) as client:
        assert client.collection("docs", embedder=CountingEmbedder()).search("cache")


def test_an_owner_who_may_make_no_roles_owns_all_there_is(empty_dsn, server_dsn):
    owner, reader = (f"pgseek_{kind}_{os.getpid()}" for kind in ("owner", "login"))
    for role in (owner, reader):
        rows(server_dsn, f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        rows(empty_dsn, "CREATE EXTENSION vector")
        rows(empty_dsn, f"GRANT CREATE ON DATABASE {conninfo_to_dict(empty_dsn)['dbname']} TO {owner}")
        own = make_conninfo(empty_dsn, user=owner, password="x")
        schema.upgrade(own)
        for tenant in ("acme", "beta"):
            with Client(own, tenant=tenant) as client:
                client.create_collection("docs", embedder=CountingEmbedder()).ingest(
                    [{"id": tenant, "text": f"a zebra of {tenant}"}]
                )
        rows(server_dsn, f"GRANT pgseek_reader TO {reader}")
        with Client(make_conninfo(empty_dsn, user=reader, password="x"), tenant="beta") as client:
            (hit,) = client.collection("docs", embedder=CountingEmbedder()).search("zebra")
            assert hit.id == "beta"
        with Client(own, tenant="acme") as client:
            (hit,) = client.collection("docs", embedder=CountingEmbedder()).search("zebra")
            assert hit.id == "acme"
        assert schema.downgrade(own, "base") is None
    finally:
        rows(empty_dsn, f"DROP OWNED BY {owner} CASCADE")
        for role in (owner, reader):
            rows(server_dsn, f"DROP ROLE {role}")


ROLES = "SELECT rolname FROM pg_roles WHERE rolname IN ('pgseek_reader', 'pgseek_writer') ORDER BY 1"


def test_roles_are_the_clusters(data_dir):
    """Two databases make them at once, and the last one drops them, unless somebody is their member."""
    first = embedded.start(data_dir)
    rows(first, "CREATE DATABASE second")
    both = [first, make_conninfo(first, dbname="second")]
    command = [sys.executable, "-m", "pgseek", "--dsn"]
    processes = [subprocess.Popen([*command, dsn, "db", "upgrade"], stderr=subprocess.PIPE) for dsn in both]
    assert [process.communicate()[1] for process in processes] == [b"", b""]
    there = [{"rolname": "pgseek_reader"}, {"rolname": "pgseek_writer"}]
    assert rows(first, ROLES) == there
    for dsn in both:
        assert roles.statements(dsn) == ["SELECT pgseek.protect()"]
        assert policies(dsn) == policies(first)
    schema.downgrade(both[1], "0006")
    assert rows(first, ROLES) == there
    rows(first, "CREATE ROLE app LOGIN; GRANT pgseek_reader TO app")
    schema.downgrade(first, "0006")
    assert rows(first, ROLES) == [{"rolname": "pgseek_reader"}]
    rows(first, "DROP ROLE app")
    # An owner who may not make them leaves that to whoever may.
    rows(
        first,
        "CREATE ROLE owner LOGIN; GRANT CREATE ON DATABASE second TO owner; ALTER DATABASE second OWNER TO owner",
    )
    rows(first, "DROP ROLE pgseek_reader")
    schema.downgrade(both[1], "base")
    own = make_conninfo(both[1], user="owner")
    schema.upgrade(own)
    assert rows(first, ROLES) == []
    made = [
        "CREATE ROLE pgseek_reader NOLOGIN",
        "CREATE ROLE pgseek_writer NOLOGIN",
        "GRANT pgseek_reader TO pgseek_writer",
    ]
    assert roles.statements(own) == [*made, "SELECT pgseek.protect()"]
    with pytest.raises(
        DatabaseError, match="the database user may not do this: permission denied to create role"
    ):
        roles.apply(own)
    printed = subprocess.run(
        [*command, both[1], "db", "roles", "--apply"], capture_output=True, check=True, text=True
    )
    assert printed.stdout.splitlines() == [f"{s};" for s in (*made, "SELECT pgseek.protect()")]
    assert roles.apply(own) == ["SELECT pgseek.protect()"]
    rows(first, "CREATE ROLE app LOGIN; GRANT pgseek_writer TO app")
    bound = subprocess.run(
        [*command, own, "db", "bind", "app", "acme"], capture_output=True, check=True, text=True
    )
    assert bound.stdout == "app works for tenant acme\n"
    with pytest.raises(InvalidInput, match="there is no role 'ap'; make it first"):
        roles.bind(own, "ap", "acme")
    with Client(own, tenant="acme") as client:
        client.create_collection("docs", embedder=CountingEmbedder())
    with Client(make_conninfo(own, user="app")) as client:
        docs = client.collection("docs", embedder=CountingEmbedder())
        docs.ingest(CORPUS)
        assert docs.search("cache")
