"""What a Citus cluster would be told: every table has its place, and comes after what it refers to."""

from __future__ import annotations

import re
from pathlib import Path

import growing
import pytest
from psycopg.conninfo import conninfo_to_dict
from support import CountingEmbedder, rows

from pgseek import Client, InvalidInput, SchemaNotMigrated, UnsupportedServer
from pgseek.db import distribute as distribution
from pgseek.db.connection import connect

BY = ["collection_id", "document_id"]


@pytest.fixture
def filled(dsn):
    with Client(dsn) as client:
        for n in range(11):
            client.create_collection(f"c{n}", embedder=CountingEmbedder())
        client.drop_collection("c4")
    return dsn


def tables(steps):
    """The tables in the order they are placed: whether each is copied, and its shards' companion."""
    found = {}
    for step in steps:
        if match := re.fullmatch(r"SELECT create_reference_table\('pgseek\.(\w+)'\)", step.statement):
            found[match.group(1)] = None
        elif match := re.fullmatch(
            r"SELECT create_distributed_table\('pgseek\.(\w+)', '(\w+)', colocate_with => '([\w.]+)'"
            r"(?:, shard_count => \d+)?\)",
            step.statement,
        ):
            found[match.group(1)] = match.groups()[1:]
    return found


@pytest.mark.parametrize("by", BY)
def test_every_table_has_a_place(filled, by):
    placed = tables(distribution.plan(filled, by))
    there = {row["table"] for row in rows(filled, growing._COLUMNS)}
    assert placed.keys() & set(distribution.LOCAL[by]) == set()
    assert placed.keys() | set(distribution.LOCAL[by]) == there
    # What names documents is sharded, the tables of vectors in the order they were made.
    vectors = [name for name in placed if name.startswith("embeddings_")]
    assert vectors == [f"embeddings_{n}" for n in range(1, 12) if n != 5]
    assert all(placed[name] == (by, "pgseek.documents") for name in ("chunks", *vectors))
    assert placed["documents"] == (by, "none")


@pytest.mark.parametrize("by", BY)
def test_what_is_referred_to_comes_first_and_lies_where_its_keys_can_be_checked(filled, by):
    placed = tables(distribution.plan(filled, by))
    order = list(placed)
    keys = [found for found in rows(filled, growing._CONSTRAINTS) if found["kind"] == "f"]
    assert {found["table"] for found in keys} >= {"chunks", "documents", "embedding_spaces"}
    for found in keys:
        # Nothing that stays local has a foreign key.
        assert order.index(found["of_table"]) < order.index(found["table"])
        if placed[found["of_table"]] is not None:
            assert placed[found["table"]] is not None
            assert by in found["columns"]


@pytest.mark.parametrize("by", BY)
def test_every_unique_key_of_a_sharded_table_holds_the_column(filled, by):
    placed = tables(distribution.plan(filled, by))
    unique = [i for i in rows(filled, growing._UNIQUE_INDEXES) if placed.get(i["table"]) is not None]
    assert {i["table"] for i in unique} == {name for name, how in placed.items() if how is not None}
    assert [i for i in unique if by not in i["columns"]] == []
    types = {
        (row["column"], row["type"])
        for row in rows(filled, growing._COLUMNS)
        if row["column"] == by and placed.get(row["table"]) is not None
    }
    assert len(types) == 1


@pytest.mark.parametrize("by", BY)
def test_functions_go_to_the_nodes_between_the_rows_they_take_and_the_index_that_calls_them(filled, by):
    statements = [step.statement for step in distribution.plan(filled, by)]
    (functions,) = [n for n, s in enumerate(statements) if "create_distributed_function" in s]
    assert statements[0] == "SET citus.enable_local_reference_table_foreign_keys = off"
    assert all("create_distributed_table" not in s for s in statements[:functions])
    assert all("create_reference_table" not in s for s in statements[functions:])
    generic = [s for s in statements if s.startswith("ALTER FUNCTION")]
    assert {re.findall(r"pgseek\.(\w+)\(", s)[0] for s in generic} == {
        row["proname"]
        for row in rows(
            filled,
            "SELECT proname FROM pg_proc WHERE pronamespace = 'pgseek'::regnamespace"
            " AND proconfig::text LIKE '%force_generic_plan%'",
        )
    }
    database = conninfo_to_dict(filled)["dbname"]
    assert statements[-1] == f"ALTER DATABASE \"{database}\" SET citus.propagate_set_commands = 'local'"


def test_the_number_of_shards_is_that_of_the_first_table_which_the_others_follow(filled):
    with_shards = [s.statement for s in distribution.plan(filled, shards=64) if "shard_count" in s.statement]
    assert with_shards == [
        "SELECT create_distributed_table('pgseek.documents', 'collection_id', colocate_with => 'none',"
        " shard_count => 64)"
    ]
    assert "shard_count" not in str(distribution.plan(filled))


@pytest.mark.parametrize("by", BY)
def test_every_statement_is_one_that_a_server_reads(filled, by):
    """Against functions of the same signatures that note what they were called with, PostgreSQL reads it all."""
    with connect(filled) as connection:
        for signature in (
            "create_reference_table(table_name regclass)",
            "create_distributed_table(table_name regclass, distribution_column text, distribution_type text"
            " DEFAULT 'hash', colocate_with text DEFAULT 'default', shard_count int DEFAULT NULL)",
            "create_distributed_function(function_name regprocedure)",
        ):
            connection.execute(
                f"CREATE FUNCTION public.{signature} RETURNS text LANGUAGE sql RETURN $1::oid::text"
            )
        connection.execute("CREATE TABLE public.pg_dist_object (classid oid, objid oid)")
        answers = []
        for step in distribution.plan(filled, by, 16):
            cursor = connection.execute(step.statement)
            answers += cursor.fetchall() if cursor.description else []
    functions = rows(filled, "SELECT count(*) AS n FROM pg_proc WHERE pronamespace = 'pgseek'::regnamespace")
    assert len(answers) == functions[0]["n"] + len(tables(distribution.plan(filled, by)))
    # What needs no Citus is in force and not asked for again.
    again = [step.statement for step in distribution.plan(filled, by)]
    assert not any(statement.startswith("ALTER") for statement in again)
    assert rows(filled, "SHOW citus.propagate_set_commands") == [{"citus.propagate_set_commands": "local"}]


def test_without_citus_it_says_what_to_install_and_changes_nothing(filled):
    before = rows(filled, "SELECT proname, proconfig FROM pg_proc ORDER BY oid")
    with pytest.raises(
        UnsupportedServer, match=r"no extension citus; install Citus .*; pgseek db distribute --dry-run"
    ):
        distribution.distribute(filled)
    assert rows(filled, "SELECT proname, proconfig FROM pg_proc ORDER BY oid") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "external_id"}, "by is 'external_id', but must be 'collection_id' or 'document_id'"),
        ({"shards": 0}, "shards is 0, but must be from 1 to 64,000"),
        ({"shards": 64_001}, "shards is 64001"),
        ({"shards": True}, "shards is True"),
    ],
)
@pytest.mark.parametrize("call", [distribution.plan, distribution.distribute], ids=lambda call: call.__name__)
def test_arguments_out_of_their_range(dsn, call, arguments, message):
    with pytest.raises(InvalidInput, match=message):
        call(dsn, **arguments)


def test_a_database_without_schema(empty_dsn):
    with pytest.raises(SchemaNotMigrated, match="pgseek db upgrade"):
        distribution.plan(empty_dsn)


@pytest.fixture
def command(commands):
    def run(dsn, *arguments):
        made = commands.run("--dsn", dsn, "db", "distribute", *arguments)
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


def test_the_page_on_growing_shows_the_statements_in_their_order(dsn):
    with Client(dsn) as client:
        client.create_collection("docs", embedder=CountingEmbedder())
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    database = conninfo_to_dict(dsn)["dbname"]
    shown = "".join(f"{step.statement};\n" for step in distribution.plan(dsn))
    assert shown.replace(database, "pgseek") in page


def test_the_command_prints_what_psql_can_be_given(filled, command):
    code, out, err = command(filled, "--dry-run", "--by", "document_id", "--shards", "8")
    assert (code, err) == (0, "")
    steps = distribution.plan(filled, "document_id", 8)
    assert out == "".join(f"-- {step.why}\n{step.statement};\n" for step in steps)
    assert re.findall(r"^(?!-- |[A-Z]+ .*;$).*$", out.rstrip(), re.MULTILINE) == []


def test_the_command_fails_in_one_line(filled, command):
    code, out, err = command(filled)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "no extension citus" in err
    code, out, err = command(filled, "--by", "id", "--dry-run")
    assert (code, out) == (2, "")
    assert "by is 'id'" in err
