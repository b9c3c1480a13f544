"""The rules for growing: tables that can be sharded, searches that run on a standby; and that each is checked."""

from __future__ import annotations

import re

import growing
import pytest
from functions import READING, WRITING
from support import CORPUS, CountingEmbedder, rows

from pgseek import Client
from pgseek.db.connection import connect
from pgseek.db.sqltext import FUNCTIONS, function_sql

CATALOGUE_RULES = [
    growing.keys,
    growing.types,
    growing.counters,
    growing.triggers,
    growing.functions,
    growing.queue,
]


@pytest.mark.parametrize("rule", CATALOGUE_RULES, ids=lambda rule: rule.__name__)
def test_the_catalogue_keeps_the_rule(client, dsn, rule):
    client.create_collection("docs", embedder=CountingEmbedder())
    assert "embeddings_1" in {row["table"] for row in rows(dsn, growing._COLUMNS)}
    assert rule(dsn) == []


@pytest.mark.parametrize(
    ("rule", "statement", "problem"),
    [
        (growing.keys, "ALTER TABLE pgseek.documents ADD UNIQUE (external_id)", "without collection_id and"),
        (
            growing.keys,
            "ALTER TABLE pgseek.chunks ADD UNIQUE (collection_id, ordinal)",
            "without document_id",
        ),
        (growing.keys, "CREATE UNIQUE INDEX bad ON pgseek.term_statistics (lexeme)", "without collection_id"),
        (
            growing.keys,
            "CREATE TABLE pgseek.bad (document_id uuid, collection_id int, PRIMARY KEY (document_id))",
            "bad_pkey is unique without collection_id",
        ),
        (
            growing.keys,
            "CREATE TABLE pgseek.bad (collection_id int, document_id uuid, d uuid, PRIMARY KEY (collection_id,"
            " document_id), FOREIGN KEY (collection_id, d) REFERENCES pgseek.documents ON DELETE CASCADE)",
            "lacks document_id",
        ),
        (
            growing.keys,
            "ALTER TABLE pgseek.embedding_spaces ADD COLUMN d uuid, ADD FOREIGN KEY (collection_id, d)"
            " REFERENCES pgseek.documents",
            "from a copied table to a sharded one",
        ),
        (
            growing.keys,
            "CREATE TABLE pgseek.plain (id int PRIMARY KEY); ALTER TABLE pgseek.chunks ADD COLUMN id int"
            " REFERENCES pgseek.plain",
            "neither sharded nor copied",
        ),
        (
            growing.keys,
            "ALTER TABLE pgseek.chunks ADD FOREIGN KEY (collection_id, document_id) REFERENCES pgseek.documents"
            " ON DELETE SET NULL",
            "changes key columns",
        ),
        (
            growing.keys,
            "ALTER TABLE pgseek.documents ADD EXCLUDE USING btree (collection_id WITH =, document_id WITH =)",
            "excludes rows",
        ),
        (
            growing.types,
            "CREATE TABLE pgseek.bad (collection_id bigint, document_id text)",
            "bad.collection_id is bigint",
        ),
        (
            growing.counters,
            "ALTER TABLE pgseek.chunks ADD COLUMN n int GENERATED ALWAYS AS IDENTITY",
            "chunks.n counts up",
        ),
        (
            growing.triggers,
            "CREATE TRIGGER bad BEFORE UPDATE ON pgseek.documents FOR EACH ROW EXECUTE FUNCTION"
            " suppress_redundant_updates_trigger()",
            "documents: trigger bad",
        ),
        (
            growing.functions,
            "CREATE FUNCTION pgseek.bad() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM pgseek.chunks'",
            "bad is LANGUAGE sql",
        ),
        (
            growing.functions,
            "ALTER FUNCTION pgseek.bm25_terms SET hnsw.ef_search = 100",
            "bm25_terms has SET hnsw.ef_search=100",
        ),
        (
            growing.queue,
            "ALTER TABLE pgseek.ingest_queue ADD FOREIGN KEY (collection_id, document_id)"
            " REFERENCES pgseek.documents",
            "ingest_queue: ingest_queue_",
        ),
    ],
)
def test_the_check_of_the_catalogue_sees_what_breaks_the_rule(dsn, rule, statement, problem):
    for one in statement.split(";"):
        rows(dsn, one)
    found = rule(dsn)
    assert any(problem in line for line in found), found


def test_the_texts_checked_are_the_functions_and_what_python_sends():
    places = dict(growing.texts())
    assert {f"{name}.sql" for name in FUNCTIONS} <= set(places)
    joined = {place.split(":")[0] for place in places}
    assert {"writing.py", "cache.py", "queue.py", "syncing.py", "db/limits.py"} <= joined
    upserting = {place.split(":")[0] for place, text in places.items() if "DO UPDATE" in text}
    assert {"writing.py", "cache.py", "put_documents.sql", "refresh_statistics.sql"} <= upserting
    assert any("SET LOCAL hnsw." in text for text in places.values())


@pytest.mark.parametrize("rule", [growing.upserts, growing.settings], ids=lambda rule: rule.__name__)
def test_every_text_keeps_the_rule(rule):
    assert {place: found for place, text in growing.texts() if (found := rule(text))} == {}


@pytest.mark.parametrize(
    ("rule", "text", "problem"),
    [
        (growing.upserts, "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET at = now()", "now"),
        (
            growing.upserts,
            "… DO UPDATE\n SET n = excluded.n, at = CURRENT_TIMESTAMP WHERE t.n > 1",
            "current_timestamp",
        ),
        (
            growing.upserts,
            "… DO UPDATE SET n = 1 WHERE t.at < clock_timestamp() RETURNING n",
            "clock_timestamp",
        ),
        (growing.upserts, "WITH a AS (… DO UPDATE SET n = random()) SELECT now()", "random"),
        (growing.upserts, "… DO UPDATE SET n = pgseek.weigh(excluded.n)", "pgseek.weigh"),
        (growing.settings, "SELECT set_config('hnsw.ef_search', '100', true)", "set_config('hnsw.ef_search"),
        (
            growing.settings,
            "CREATE FUNCTION f() … SET hnsw.iterative_scan = off AS",
            "SET hnsw.iterative_scan",
        ),
        (growing.settings, "EXECUTE 'SET ivfflat.probes = 3'", "ivfflat.probes"),
        (growing.settings, "EXECUTE format('SET LOCAL %I = 3', 'hnsw.ef_search')", "hnsw.ef_search"),
    ],
)
def test_the_check_of_a_text_sees_what_breaks_the_rule(rule, text, problem):
    (found,) = rule(text)
    assert problem in found


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (growing.upserts, "… DO UPDATE SET n = excluded.n, at = excluded.at RETURNING now()"),
        (growing.upserts, "WITH a AS (… DO UPDATE SET n = coalesce(excluded.n, 1)) SELECT now()"),
        (growing.upserts, "… DO NOTHING; UPDATE t SET at = now()"),
        (growing.settings, "EXECUTE format('SET LOCAL hnsw.ef_search = %s', 100)"),
        (growing.settings, "old := current_setting('hnsw.ef_search', true)"),
    ],
)
def test_the_check_of_a_text_lets_pass_what_keeps_the_rule(rule, text):
    assert rule(text) == []


def test_functions_that_read_write_nothing():
    found = {name: growing.writes(growing.without_comments(function_sql(name))) for name in FUNCTIONS}
    # It writes only where the collection has a copy.
    assert {name for name in READING if found[name]} == {"mirror_documents"}
    # Those that call another that writes show nothing themselves.
    assert {name for name in WRITING if not found[name]} <= {
        "put_document",
        "delete_document",
        "delete_documents",
        "follow_rows",
    }


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO pgseek.embedding_cache VALUES (1)",
        "UPDATE pgseek.embedding_cache c SET used_at = now()",
        "DELETE FROM pgseek.rate_limits",
        "CREATE TEMPORARY TABLE found (id int)",
        "SELECT s.chunks INTO TEMP x FROM pgseek.collection_statistics s",
        "PERFORM FROM pgseek.collections FOR NO KEY UPDATE",
        "SELECT s.* FROM pgseek.collections s FOR KEY SHARE",
        "PERFORM pg_notify('searched', query)",
        "EXECUTE 'TRUNCATE pgseek.rate_limits'",
        "PERFORM nextval('searches')",
    ],
)
def test_the_check_of_writes_sees_each_in_the_search_function(statement):
    text = growing.without_comments(function_sql("search"))
    assert growing.writes(text) == []
    spoiled = text.replace("\nBEGIN\n", f"\nBEGIN\n    {statement};\n", 1)
    assert len(growing.writes(spoiled)) == 1


SEARCHES = [
    {},
    {"fusion": "rrf"},
    {"normalization": "minmax"},
    {"alpha": 0},
    {"alpha": 1},
    {"lexical": "ts_rank"},
    {"lexical": "ts_rank_cd", "alpha": 0},
    {"collapse": True},
    {"collapse": True, "alpha": 1},
    {"filter": {"year": {"$gte": 2000}}},
    {"query": "+function cache -symbols"},
]


@pytest.fixture(scope="module")
def filled(module_dsn):
    with Client(module_dsn) as client:
        client.create_collection("docs", embedder=CountingEmbedder()).ingest(CORPUS)
    return module_dsn


def statements_of(dsn, query="cache a function", **options):
    """Return the statements that a search runs which have a leg."""
    named = {"collection": "docs", "query": query, "query_embedding": "[1,0,0,0,0,0,0,0]", **options}
    named["model"] = "tests:hash"
    if "filter" in named:
        named["filter"] = "$.year >= 2000"
    told = []
    with connect(dsn) as connection:
        connection.execute("LOAD 'auto_explain'")
        connection.execute("SET auto_explain.log_min_duration = 0")
        connection.execute("SET auto_explain.log_nested_statements = on")
        connection.execute("SET auto_explain.log_level = notice")
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        arguments = ", ".join(f"{name} => %({name})s" for name in named)
        assert connection.execute(f"SELECT * FROM pgseek.search({arguments})", named).fetchall()
    statements = [
        match.group(1)
        for text in told
        if (match := re.search(r"Query Text: (.*?)\n(?=\S[^\n]*\(cost=)", text, re.DOTALL))
    ]
    return [text for text in statements if re.search(r"\b(dense|lexical) AS \(", text)]


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_the_statement_that_a_search_runs_keeps_its_legs_apart(filled, options):
    found = statements_of(filled, **options)
    assert found
    for statement in found:
        assert growing.legs(statement) == [], statement


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (" LIMIT $19),\n        dense_ranked", "),\n        dense_ranked", "dense does not limit"),
        ("AS distance", "AS distance, row_number() OVER () AS place", "dense gives places where it limits"),
        ("FROM dense r)", "FROM candidates r)", "dense is not given places by a second step"),
        ("AS distance", "AS distance, e.embedding", "dense carries the vectors"),
        ("SELECT x.*, ", "SELECT x.*, e.embedding AS v, ", "measured carries the vectors"),
    ],
)
def test_the_check_of_legs_sees_what_breaks_the_rule(filled, old, new, problem):
    (statement,) = statements_of(filled)
    assert old in statement
    found = growing.legs(statement.replace(old, new, 1))
    assert any(problem in line for line in found), found


def test_a_statement_without_legs_is_not_taken_for_one_that_keeps_the_rule():
    assert growing.legs("WITH other AS (SELECT 1) SELECT * FROM other") == ["no leg"]
