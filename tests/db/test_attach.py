"""Attached tables: emitted revisions run by Alembic in a user's own project, and a collection that stays in step."""

from __future__ import annotations

import textwrap
import threading
import time

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier
from sqlalchemy import Column, Integer, MetaData, Table, Text, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from support import CountingEmbedder, rows

import pgseek
from pgseek import Client, CollectionNotFound, InvalidInput
from pgseek.attach import _python, as_revision, as_sql
from pgseek.attachment import Attachment, attach_sql, cut, fill_sql
from pgseek.db import schema
from pgseek.db.connection import connect


@pytest.fixture
def docs(client):
    return client.create_collection("docs", embedder=CountingEmbedder())


@pytest.fixture
def products(dsn):
    """A table of the user's own, with rows."""
    rows(
        dsn,
        "CREATE TABLE products (id integer PRIMARY KEY, title text, description text, price numeric(8, 2), brand text,"
        " stock integer NOT NULL DEFAULT 0)",
    )
    rows(
        dsn,
        "INSERT INTO products SELECT n, 'product ' || n, 'thing' || n || ' of use', n * 1.5, 'acme'"
        " FROM generate_series(1, 1203) AS n",
    )
    return "public.products"


GIVEN = {"id": "id", "text": "description", "title": "title", "metadata": ["price", "brand"]}


class Project:
    """A user's project with an alembic.ini, an env.py and versions of its own."""

    def __init__(self, folder, dsn, commands):
        self.folder, self.dsn, self.commands = folder, dsn, commands
        self.versions = folder / "migrations" / "versions"
        self.run("init", "migrations", alembic=True)
        (folder / "migrations" / "env.py").write_text(
            textwrap.dedent(
                f"""
                import psycopg
                from alembic import context
                from sqlalchemy import create_engine, pool
                engine = create_engine("postgresql+psycopg://", poolclass=pool.NullPool,
                                       creator=lambda: psycopg.connect({dsn!r}))
                if context.is_offline_mode():
                    context.configure(dialect_name="postgresql", literal_binds=True)
                    with context.begin_transaction():
                        context.run_migrations()
                else:
                    with engine.connect() as connection:
                        context.configure(connection=connection)
                        with context.begin_transaction():
                            context.run_migrations()
                """
            )
        )

    def run(self, *arguments, alembic=False):
        if alembic:
            made = self.commands.run(*arguments, module="alembic", cwd=self.folder)
        else:
            made = self.commands.run("--dsn", self.dsn, *arguments, cwd=self.folder)
        made.stdout, made.stderr = made.stdout.decode(), made.stderr.decode()
        if alembic:
            assert made.returncode == 0, made.stdout + made.stderr
        return made

    def alembic(self, *arguments):
        return self.run(*arguments, alembic=True).stdout


@pytest.fixture
def project(tmp_path, dsn, commands):
    return Project(tmp_path, dsn, commands)


def stored(dsn, collection="docs"):
    return {
        row["external_id"]: row
        for row in rows(
            dsn,
            "SELECT d.external_id, d.title, d.body, d.metadata, d.language FROM pgseek.documents d"
            " JOIN pgseek.collections c USING (collection_id) WHERE c.name = %s",
            [collection],
        )
    }


def bodies(dsn):
    return {name: row["body"] for name, row in stored(dsn).items()}


def expected(dsn, where="true"):
    return {
        row["id"]: row["body"]
        for row in rows(
            dsn, f"SELECT id::text, description AS body FROM products WHERE description ~ '\\S' AND {where}"
        )
    }


# The whole way, through Alembic.


def test_a_revision_keeps_a_collection_in_step_and_its_downgrade_ends_that(docs, dsn, products, project):
    project.alembic("revision", "-m", "the user's own")
    project.alembic("upgrade", "head")
    made = project.run(
        "attach", products, "--collection", "docs", "--id", "id", "--text", "description", "--title", "title",
        "--metadata", "price,brand", "--directory", "migrations/versions",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "wrote migrations/versions/" in made.stderr
    assert len(list(project.versions.glob("*.py"))) == 2
    assert stored(dsn) == {}
    project.alembic("upgrade", "head")
    assert bodies(dsn) == expected(dsn)
    assert stored(dsn)["7"] == {
        "external_id": "7",
        "title": "product 7",
        "body": "thing7 of use",
        "metadata": {"price": 10.5, "brand": "acme"},
        "language": "english",
    }
    # Words at once, vectors after the queue was drained.
    assert docs.search("thing1203")[0].dense_score is None
    assert docs.drain_queue().changed == 1203
    assert docs.search("thing1203")[0].dense_score is not None

    rows(dsn, "INSERT INTO products VALUES (2000, 'new', 'a zebra', 1, 'zoo')")
    assert docs.search("zebra", alpha=0, filter={"brand": "zoo"})[0].id == "2000"
    rows(dsn, "UPDATE products SET description = 'an okapi' WHERE id = 2000")
    assert docs.search("zebra", alpha=0) == []
    assert docs.search("okapi", alpha=0)[0].id == "2000"
    rows(dsn, "UPDATE products SET id = 3000 WHERE id = 2000")
    assert docs.search("okapi", alpha=0)[0].id == "3000"
    rows(dsn, "UPDATE products SET description = NULL WHERE id = 5")
    rows(dsn, "UPDATE products SET description = ' ' WHERE id = 6")
    assert {"5", "6"}.isdisjoint(stored(dsn))
    rows(dsn, "UPDATE products SET description = 'back again' WHERE id = 5")
    assert "5" in stored(dsn)
    rows(
        dsn,
        "INSERT INTO products VALUES (3000, 'x', 'an upserted gnu', 1, 'zoo'), (3001, 'x', 'another gnu', 1, 'zoo')"
        " ON CONFLICT (id) DO UPDATE SET description = excluded.description",
    )
    assert {hit.id for hit in docs.search("gnu", alpha=0)} == {"3000", "3001"}
    with (
        connect(dsn) as connection,
        connection.cursor().copy("COPY products (id, description) FROM STDIN") as copy,
    ):
        for n in range(4000, 4700):
            copy.write_row((n, f"copied {n}"))
    rows(dsn, "DELETE FROM products WHERE id BETWEEN 100 AND 800")
    # Two rows change places, in one statement.
    rows(dsn, "ALTER TABLE products DROP CONSTRAINT products_pkey, ADD PRIMARY KEY (id) DEFERRABLE")
    rows(dsn, "UPDATE products SET id = 9 - id WHERE id IN (4, 5)")
    assert bodies(dsn) == expected(dsn)
    docs.drain_queue()
    assert (
        rows(dsn, "SELECT count(DISTINCT document_id) AS n FROM pgseek.embeddings_1")[0]["n"] == docs.count()
    )

    project.alembic("downgrade", "-1")
    rows(dsn, "INSERT INTO products (id, description) VALUES (9999, 'unseen')")
    assert "9999" not in stored(dsn)
    assert rows(dsn, "SELECT FROM pg_proc WHERE proname LIKE 'pgseek_products%%'") == []
    project.alembic("upgrade", "head")
    assert "9999" in stored(dsn)
    rows(dsn, "TRUNCATE products")
    assert stored(dsn) == {}
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.ingest_queue") == [{"n": 0}]


def test_detach_undoes_it_and_its_downgrade_attaches_again(docs, dsn, products, project):
    attach = ("attach", products, "--collection", "docs", "--id", "id", "--text", "description")
    project.run(*attach, "--directory", "migrations", "-m", "follow products")
    project.alembic("upgrade", "head")
    made = project.run(*attach)
    assert (made.returncode, "attached to 'docs' already" in made.stderr) == (2, True)
    made = project.run("detach", products, "--directory", "migrations", "--delete-documents")
    assert made.returncode == 0, made.stderr
    assert [path.name[13:] for path in sorted(project.versions.glob("*follow_products.py"))] == [
        "follow_products.py"
    ]
    rows(dsn, "SELECT pgseek.put_document('docs', 'other', 'of somebody else')")
    project.alembic("upgrade", "head")
    assert stored(dsn).keys() == {"other"}
    rows(dsn, "UPDATE products SET description = description || ' changed'")
    assert stored(dsn).keys() == {"other"}
    project.alembic("downgrade", "-1")
    assert len(stored(dsn)) == 1204
    assert stored(dsn)["1"]["body"] == "thing1 of use changed"
    assert project.run("detach", products, "--collection", "nothing").returncode == 2
    # A table with another name is the same table.
    rows(dsn, "ALTER TABLE products RENAME TO goods")
    rows(dsn, "INSERT INTO goods (id, description) VALUES (7777, 'after the renaming')")
    assert "7777" in stored(dsn)
    assert project.run("detach", "public.goods", "--apply").returncode == 0
    assert rows(dsn, "SELECT FROM pg_trigger WHERE NOT tgisinternal") == []
    assert rows(dsn, "SELECT FROM pg_proc WHERE proname LIKE 'pgseek_products%%'") == []
    made = project.run("detach", "public.goods")
    assert (made.returncode, "attached to no collection" in made.stderr) == (2, True)


def test_autogenerate_of_the_user_sees_nothing_of_ours(client, docs, dsn, products):
    client.attach(products, "docs", **GIVEN, apply=True)
    own = MetaData()
    Table(
        "products",
        own,
        Column("id", Integer, primary_key=True),
        Column("title", Text),
        Column("description", Text),
        Column("price", schema_type(dsn)),
        Column("brand", Text),
        Column("stock", Integer, nullable=False, server_default="0"),
    )
    with schema.engine_for(dsn).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), own) == []


def schema_type(dsn):
    from sqlalchemy import inspect

    with schema.engine_for(dsn).connect() as connection:
        return next(c["type"] for c in inspect(connection).get_columns("products") if c["name"] == "price")


def test_offline_the_revision_is_sql(docs, dsn, products, project):
    project.run(
        "attach",
        products,
        "--collection",
        "docs",
        "--id",
        "id",
        "--text",
        "description",
        "--directory",
        "migrations",
    )
    printed = project.alembic("upgrade", "head", "--sql")
    assert "CREATE OR REPLACE TRIGGER pgseek_docs_insert" in printed
    fill = printed.index("DO $pgseek$")
    assert "COMMIT;" in printed[:fill]


def test_plain_sql_does_the_same(client, docs, dsn, products):
    plan = client.attach(products, "docs", **GIVEN)
    first, *statements = as_sql(plan).split(";\n\n")
    assert first.endswith("BEGIN")
    ended = statements.index("COMMIT")
    with connect(dsn) as connection:
        for statement in ("BEGIN", *statements[:ended], "COMMIT", plan.fill_up):
            connection.execute(statement)
    assert as_sql(plan).endswith(f"{plan.fill_up};\n")
    assert bodies(dsn) == expected(dsn)
    rows(dsn, "DELETE FROM products WHERE id > 3")
    assert len(stored(dsn)) == 3


# What may be a table, and what not.


def test_the_python_function_returns_the_text(docs, dsn, products):
    made = pgseek.attach(
        products, "docs", **GIVEN, dsn=dsn, down_revision="abc123", message='with "quotes" \\ in it'
    )
    assert "down_revision = 'abc123'" in made
    compile(made, "revision.py", "exec")
    assert pgseek.attach(products, "docs", **GIVEN, dsn=dsn, sql=True).startswith(
        "-- keep collection docs in step"
    )
    with Client(dsn) as client:
        client.attach(products, "docs", **GIVEN, apply=True)
    assert "DROP TRIGGER IF EXISTS" in pgseek.detach(products, dsn=dsn)


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("public.produkte", {}, "there is no table public.produkte"),
        ("products_view", {}, "products_view is a view: only tables"),
        ("pgseek.documents", {}, "is pgseek's own"),
        ("products", {"text": ["description", "titel"]}, "has no column 'titel'; did you mean 'title'"),
        (
            "products",
            {"id": "brand"},
            "the id (brand) may occur twice in public.products.*use --id id, or make one",
        ),
        ("products", {"id": ["price"]}, "may occur twice"),
        ("products", {"text": []}, "text names no column"),
        ("products", {"id": ""}, "id is ''"),
        ("", {}, "table is ''"),
        ("partial", {"id": "a", "text": "b", "title": None, "metadata": []}, "not partial, not deferrable"),
    ],
)
def test_what_cannot_be_attached_is_refused_with_the_way_out(
    client, docs, dsn, products, table, change, message
):
    rows(dsn, "CREATE VIEW products_view AS SELECT * FROM products")
    rows(dsn, "CREATE TABLE partial (a int, b text)")
    rows(dsn, "CREATE UNIQUE INDEX ON partial (a) WHERE b <> ''")
    rows(dsn, "ALTER TABLE partial ADD CONSTRAINT later UNIQUE (a) DEFERRABLE")
    with pytest.raises(InvalidInput, match=message.replace("(", r"\(").replace(")", r"\)")):
        client.attach(table, "docs", **{**GIVEN, **change})
    with pytest.raises(CollectionNotFound, match="did you mean 'docs'"):
        client.attach("products", "dosc", **GIVEN)


def test_several_heads_and_no_folder_of_alembics_are_refused(docs, dsn, products, project):
    attach = ("attach", products, "--collection", "docs", "--id", "id", "--text", "description")
    made = project.run(*attach, "--directory", ".")
    assert (made.returncode, "--down-revision" in made.stderr) == (2, True)
    project.alembic("revision", "-m", "one")
    project.alembic("revision", "-m", "two", "--head", "base", "--splice")
    made = project.run(*attach, "--directory", "migrations")
    assert (made.returncode, "several heads" in made.stderr) == (2, True)
    made = project.run(*attach, "--output", "here.py", "--down-revision", "base")
    assert made.returncode == 0
    assert "down_revision = None" in (project.folder / "here.py").read_text()
    made = project.run(*attach, "--output", "here.py", "--down-revision", "base")
    assert (made.returncode, "cannot be written" in made.stderr) == (2, True)


WEIRD = 'We\'ird "T\\able" :x %s $pgseek$'


def test_names_of_any_kind(client, dsn):
    client.create_collection("a.b-C", embedder=CountingEmbedder())
    names = {name: Identifier(f"{name} {WEIRD}"[:60]) for name in ("id", "text", "more", "meta")}
    table = SQL("{}.{}").format(Identifier("user"), Identifier(WEIRD))
    with connect(dsn) as connection:
        connection.execute('CREATE SCHEMA "user"')
        connection.execute(
            SQL(
                'CREATE TABLE {} ({} text, "select" int, {} text, {} text, {} jsonb, PRIMARY KEY ({}, "select"))'
            ).format(table, names["id"], names["text"], names["more"], names["meta"], names["id"])
        )
        insert = f"INSERT INTO {table.as_string().replace('%', '%%')} VALUES (%s, %s, %s, %s, %s)"
        connection.execute(insert, ["a", 1, "one", "two", '{"deep": [1, {"x": null}]}'])
        plan = client.attach(
            table.as_string(),
            "a.b-C",
            id=[names["id"]._obj[0], "select"],
            text=[names["text"]._obj[0], names["more"]._obj[0]],
            metadata=[names["meta"]._obj[0], "select"],
        )
        # As Alembic would do it.
        namespace = {}
        exec(compile(as_revision(plan, "r", None), "r.py", "exec"), namespace)
        with schema.engine_for(dsn).execution_options(isolation_level="AUTOCOMMIT").connect() as engine:
            for statement in [*namespace["UP"], namespace["FILL"]]:
                engine.execute(text(statement))
        assert bodies_of(dsn, "a.b-C") == {'["a", 1]': "one\n\ntwo"}
        connection.execute(insert, ["b\"',", 2, "", "only", None])
        connection.execute(insert, ["[", 3, None, "", "5"])
        (first, second) = sorted(stored(dsn, "a.b-C").items())
        assert first[1]["metadata"] == {names["meta"]._obj[0]: {"deep": [1, {"x": None}]}, "select": 1}
        assert (second[0], second[1]["body"]) == ('["b\\"\',", 2]', "only")
        connection.execute(SQL("TRUNCATE {}").format(table))
        assert stored(dsn, "a.b-C") == {}
        client.detach(table.as_string(), apply=True)


def bodies_of(dsn, collection):
    return {name: row["body"] for name, row in stored(dsn, collection).items()}


@pytest.mark.parametrize(
    ("kind", "value", "name"),
    [
        ("bigint", "9007199254740993", "9007199254740993"),
        ("uuid", "'00000000-0000-4000-8000-000000000001'", "00000000-0000-4000-8000-000000000001"),
        ("numeric", "1.50", "1.50"),
        ("date", "'2024-02-29'", "2024-02-29"),
        ("timestamptz", "'2024-02-29 12:00+02'", "2024-02-29T10:00:00+00:00"),
        ("bytea", "'\\x00ff'", "\\x00ff"),
        ("float8", "0.1::float8 + 0.2", "0.30000000000000004"),
        ("boolean", "true", "true"),
        ("interval", "'90 minutes'", "01:30:00"),
        ("citext_like", "'Any'", "Any"),
    ],
)
def test_an_id_of_any_type_is_one_text_whoever_writes_it(client, docs, dsn, kind, value, name):
    rows(dsn, "CREATE DOMAIN citext_like AS text")
    rows(dsn, f"CREATE TABLE t (id {kind} PRIMARY KEY, body text)")
    rows(dsn, f"INSERT INTO t VALUES ({value}, 'filled')")
    client.attach("t", "docs", id="id", text="body", apply=True)
    assert bodies(dsn) == {name: "filled"}
    with connect(dsn) as connection:
        for setting in (
            "timezone = 'Asia/Tokyo'",
            "datestyle = 'German'",
            "intervalstyle = 'iso_8601'",
            "bytea_output = 'escape'",
            "extra_float_digits = 0",
        ):
            connection.execute(f"SET {setting}")
        connection.execute("UPDATE t SET body = 'changed'")
        assert bodies(dsn) == {name: "changed"}
        connection.execute("DELETE FROM t")
    assert stored(dsn) == {}


def test_metadata_of_any_type_and_languages(client, docs, dsn):
    rows(
        dsn,
        "CREATE TABLE t (id int PRIMARY KEY, body text, lang text, n numeric, d date, j jsonb, a text[], b boolean,"
        " f float8, e interval)",
    )
    client.attach(
        "t",
        "docs",
        id="id",
        text="body",
        language="lang",
        metadata=["n", "d", "j", "a", "b", "f", "e"],
        apply=True,
    )
    rows(
        dsn,
        "INSERT INTO t VALUES (1, 'Häuser', 'german', 1.10, '2024-01-02', '{\"x\": [1]}', '{p,q}', false, 'NaN', '1 day'),"
        " (2, 'plain', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    assert stored(dsn)["1"]["metadata"] == {
        "n": 1.10, "d": "2024-01-02", "j": {"x": [1]}, "a": ["p", "q"], "b": False, "f": "NaN", "e": "1 day",
    }  # fmt: skip
    assert stored(dsn)["2"]["metadata"] == dict.fromkeys("ndjabfe")
    assert (stored(dsn)["1"]["language"], stored(dsn)["2"]["language"]) == ("german", "english")
    assert docs.search("Haus", alpha=0)[0].id == "1"


def test_more_metadata_than_a_function_has_arguments(client, docs, dsn):
    names = [f"c{n}" for n in range(130)]
    rows(
        dsn,
        f"CREATE TABLE t (id int PRIMARY KEY, body text, {', '.join(f'{n} int DEFAULT 7' for n in names)})",
    )
    client.attach("t", "docs", id="id", text="body", metadata=names, apply=True)
    rows(dsn, "INSERT INTO t VALUES (1, 'x')")
    assert stored(dsn)["1"]["metadata"] == dict.fromkeys(names, 7)


def test_partitioned_tables_rows_that_move_and_composite_keys(client, docs, dsn):
    rows(
        dsn,
        "CREATE TABLE t (region text, id int, body text, PRIMARY KEY (region, id)) PARTITION BY LIST (region)",
    )
    for region in ("eu", "us"):
        rows(dsn, f"CREATE TABLE t_{region} PARTITION OF t FOR VALUES IN ('{region}')")
    rows(
        dsn,
        "INSERT INTO t SELECT CASE WHEN n % 2 = 0 THEN 'eu' ELSE 'us' END, n, 'row ' || n FROM generate_series(1, 1100) n",
    )
    client.attach("t", "docs", id=["region", "id"], text="body", apply=True)
    assert len(stored(dsn)) == 1100
    assert stored(dsn)['["eu", 2]']["body"] == "row 2"
    rows(dsn, "UPDATE t SET region = 'us', body = 'moved' WHERE id = 2")
    assert '["eu", 2]' not in stored(dsn)
    assert stored(dsn)['["us", 2]']["body"] == "moved"
    rows(dsn, "DELETE FROM t WHERE region = 'us'")
    assert len(stored(dsn)) == 549
    rows(dsn, "TRUNCATE t")
    assert stored(dsn) == {}


# Trouble.


def test_a_row_that_is_refused_is_a_warning_and_leaves_the_collection(client, docs, dsn, products):
    client.attach(products, "docs", **{**GIVEN, "language": "brand"}, apply=True)
    # No language at all: every row was refused, and the table is as it was.
    assert stored(dsn) == {}
    rows(dsn, "UPDATE products SET brand = 'english' WHERE id <= 3")
    assert stored(dsn).keys() == {"1", "2", "3"}
    seen = []
    with connect(dsn) as connection:
        connection.add_notice_handler(lambda notice: seen.append((notice.severity, notice.message_primary)))
        connection.execute("UPDATE products SET brand = 'klingon' WHERE id <= 2")
        connection.execute("UPDATE products SET description = repeat('a', 60000) WHERE id = 3")
    assert [severity for severity, _ in seen] == ["WARNING", "WARNING"]
    assert seen[0][1].startswith("pgseek: 2 rows are not in collection docs, such as 1: language 'klingon'")
    assert "one word of the text" in seen[1][1]
    assert rows(dsn, "SELECT count(*) AS n FROM products WHERE brand = 'klingon'") == [{"n": 2}]
    assert stored(dsn) == {}


def test_statements_go_on_when_the_collection_is_gone(client, docs, dsn, products):
    client.attach(products, "docs", **GIVEN, apply=True)
    client.drop_collection("docs")
    seen = []
    with connect(dsn) as connection:
        connection.add_notice_handler(lambda notice: seen.append(notice.message_primary))
        connection.execute("DELETE FROM products WHERE id = 1")
    assert seen == [
        "pgseek: collection docs is gone and follows table public.products no more; pgseek detach ends this"
    ]


def test_an_update_of_other_columns_writes_nothing(client, docs, dsn, products):
    client.attach(products, "docs", **GIVEN, apply=True)
    docs.drain_queue()
    before = rows(dsn, "SELECT document_id, xmin::text, updated_at FROM pgseek.documents ORDER BY 1")
    rows(dsn, "UPDATE products SET stock = stock + 1")
    assert rows(dsn, "SELECT document_id, xmin::text, updated_at FROM pgseek.documents ORDER BY 1") == before
    assert docs.queue_status().waiting == 0


def test_a_roll_back_takes_all_of_it_back(client, docs, dsn, products):
    client.attach(products, "docs", **GIVEN, apply=True)
    before = bodies(dsn)
    with connect(dsn) as connection, connection.transaction(force_rollback=True):
        connection.execute("UPDATE products SET description = 'other'")
        connection.execute("DELETE FROM products WHERE id < 500")
    assert bodies(dsn) == before


def test_rights_of_the_writer_or_of_the_maker(client, docs, dsn, products):
    role = f"writer_{abs(hash(dsn)) % 10**8}"
    rows(dsn, f"CREATE ROLE {role}")
    try:
        rows(dsn, f"GRANT SELECT, INSERT, UPDATE ON products TO {role}")
        client.attach(products, "docs", **GIVEN, apply=True)
        insert = "INSERT INTO products (id, description) VALUES (%s, 'a zebra')"
        with connect(dsn) as connection:
            connection.execute(f"SET ROLE {role}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(insert, [5001])
        # As documented.
        for grant in (
            "USAGE ON SCHEMA pgseek",
            "EXECUTE ON ALL FUNCTIONS IN SCHEMA pgseek",
            "SELECT, UPDATE ON pgseek.collections, pgseek.collection_statistics",
            "SELECT ON pgseek.embedding_spaces",
            "SELECT, INSERT, UPDATE, DELETE ON pgseek.documents, pgseek.chunks, pgseek.ingest_queue",
            "SELECT, DELETE ON pgseek.embeddings_1",
        ):
            rows(dsn, f"GRANT {grant} TO {role}")
        with connect(dsn) as connection:
            connection.execute(f"SET ROLE {role}")
            connection.execute(insert, [5001])
            connection.execute("UPDATE products SET description = 'an okapi' WHERE id = 5001")
        assert docs.search("okapi", alpha=0)[0].id == "5001"
        rows(dsn, f"DROP OWNED BY {role}")
        rows(dsn, f"GRANT SELECT, INSERT, UPDATE ON products TO {role}")
        client.detach(products, apply=True)
        client.attach(products, "docs", **GIVEN, security_definer=True, apply=True)
        with connect(dsn) as connection:
            connection.execute(f"SET ROLE {role}")
            connection.execute(insert, [5002])
            # Nothing on the writer's search path stands in for what the function means.
            connection.execute(
                "CREATE TEMPORARY TABLE new_rows (id int, title text, description text, price int, brand text)"
            )
            connection.execute(insert, [5003])
        assert {hit.id for hit in docs.search("zebra", alpha=0)} == {"5002", "5003"}
    finally:
        rows(dsn, f"DROP OWNED BY {role}")
        rows(dsn, f"DROP ROLE {role}")


def test_writers_go_on_during_the_back_fill_and_nothing_is_lost(client, docs, dsn, products):
    rows(
        dsn,
        "INSERT INTO products (id, description) SELECT n, 'more ' || n FROM generate_series(2000, 6000) AS n",
    )
    plan = client.attach(products, "docs", **GIVEN)
    stop = threading.Event()
    problems = []

    def write(own):
        n = own
        try:
            with connect(dsn) as connection:
                while not stop.is_set():
                    n += 1
                    connection.execute(
                        "UPDATE products SET description = %s WHERE id %% 50 = %s", [f"changed {n}", n % 50]
                    )
                    connection.execute("DELETE FROM products WHERE id = %s", [2000 + n % 4000])
                    connection.execute(
                        "INSERT INTO products (id, description) VALUES (%s, 'inserted') ON CONFLICT (id) DO NOTHING",
                        [10_000 + own * 100_000 + n],
                    )
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(own,)) for own in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        client._run(pgseek.client.attach_scripts.apply(plan))
        time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    # Writers among themselves may deadlock on their own rows; none was made to by the back-fill.
    assert [
        type(problem) for problem in problems if not isinstance(problem, psycopg.errors.DeadlockDetected)
    ] == []
    assert bodies(dsn) == expected(dsn)


# Names and texts.


def test_long_names_are_cut_and_stay_apart():
    a = Attachment("s", "t" * 63, "c" * 63, ("i",), ("x",), ("i",))
    b = Attachment("s", "t" * 63, "c" * 62 + "d", ("i",), ("x",), ("i",))
    names = {a.function, a.document_function, b.function, b.document_function}
    assert len(names) == 4
    assert all(len(name.split(".")[1]) <= 63 for name in names)
    assert len({a.trigger(event) for event in ("INSERT", "UPDATE", "DELETE", "TRUNCATE")}) == 4
    assert len(cut("ü" * 60).encode()) <= 63


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
        # What SQLAlchemy reads more into than there is.
        | st.text(":\\a'", min_size=1, max_size=8),
        min_size=4,
        max_size=4,
    )
)
@example(["0", "0", "0", "\\::"])
@example([":a:", ":a:b", "\\:a:", "::a"])
def test_alembic_executes_what_was_meant_whatever_the_names(names):
    a = Attachment(names[0], names[1], "docs", (names[2],), (names[3],), (names[2],), metadata=tuple(names))
    dialect = PGDialect_psycopg()
    for statement in [*attach_sql(a), fill_sql(a)]:
        namespace = {}
        exec(f"made = {_python(statement)}", namespace)
        compiled = text(namespace["made"]).compile(dialect=dialect)
        assert compiled.params == {}
        assert (
            str(compiled).replace("%%", "%").strip()
            == statement.replace("\r\n", "\n").replace("\r", "\n").strip()
        )
