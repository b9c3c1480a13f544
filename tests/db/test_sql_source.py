"""Rows of a query as documents: from PostgreSQL through a cursor on the server, and from other databases."""

from __future__ import annotations

import datetime as dt
import logging
from decimal import Decimal

import psycopg
import pytest
import sqlalchemy as sa
from support import CountingEmbedder, rows

from pgseek import Columns, ConfigurationError, DatabaseError, InvalidInput, sql_source
from pgseek.types import Located, Rejection


@pytest.fixture
def articles(dsn):
    rows(
        dsn,
        "CREATE TABLE articles (id int PRIMARY KEY, title text, body text, published date, price numeric,"
        " tags text[], extra jsonb, at timestamptz)",
    )
    rows(
        dsn,
        "INSERT INTO articles SELECT n, 'title ' || n, 'body ' || n, '2024-01-01'::date + n, n / 4.0,"
        " ARRAY['a', 'b'], jsonb_build_object('k', n), '2024-01-01 12:00+00' FROM generate_series(1, 3000) n",
    )
    return dsn


@pytest.fixture
def engine(articles):
    made = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(articles))
    yield made
    made.dispose()


TABLE = sa.table("articles", *map(sa.column, ["id", "title", "body", "published", "price", "tags", "extra"]))
SELECT = sa.select(TABLE).order_by(sa.literal_column("id"))
BODY = Columns(text="body")


@pytest.mark.parametrize("way", ["engine", "connection", "url", "dsn"])
def test_rows_become_documents(articles, engine, way):
    with engine.connect() as connection:
        info = connection.connection.dbapi_connection.info
        database = {
            "engine": engine,
            "connection": connection,
            "url": f"postgresql://{info.user}@/{info.dbname}?host={info.host}&port={info.port}",
            "dsn": articles,
        }[way]
        found = list(sql_source(database, SELECT, BODY))
    assert len(found) == 3000
    assert found[6] == Located(
        {
            "id": 7,
            "text": "body 7",
            "title": "title 7",
            "metadata": {"published": "2024-01-08", "price": 1.75, "tags": ["a", "b"], "extra": {"k": 7}},
        },
        7,
        "sql",
    )


def test_a_table_is_ingested_and_found(client, articles, engine):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    statement = SELECT.where(sa.column("id") <= 20)
    report = docs.ingest(sql_source(engine, statement, Columns(text=("title", "body"))))
    assert (report.new, report.rejected) == (20, ())
    assert docs.get("7").text == "title 7\n\nbody 7"
    assert docs.get("7").metadata["price"] == 1.75
    assert docs.ingest(sql_source(articles, statement, Columns(text=("title", "body")))).unchanged == 20


def test_rows_are_streamed_from_a_cursor_on_the_server(articles, engine):
    seen = []
    sa.event.listen(engine, "after_cursor_execute", lambda _c, cursor, *_: seen.append(type(cursor).__name__))
    with engine.connect() as connection:
        source = sql_source(connection, SELECT, BODY, fetched=10)
        assert next(source).record["id"] == 1
        assert seen == ["ServerCursor"]
        open_cursors = connection.connection.dbapi_connection.execute(
            "SELECT count(*) FROM pg_cursors"
        ).fetchone()
        assert open_cursors == (1,)
        source.close()


def test_nothing_happens_before_the_first_row_is_asked_for():
    source = sql_source("postgresql://nobody:hunter2@127.0.0.1:1/nothing", "SELECT 1")
    with pytest.raises(DatabaseError, match="refused") as caught:
        next(source)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_a_connection_is_given_back_when_the_reading_ends_early(engine):
    source = sql_source(engine, SELECT, BODY)
    next(source)
    assert engine.pool.checkedout() == 1
    source.close()
    assert engine.pool.checkedout() == 0


def test_a_callers_connection_stays_open(engine):
    with engine.connect() as connection:
        assert len(list(sql_source(connection, SELECT.limit(3), BODY))) == 3
        assert connection.execute(sa.text("SELECT 1")).scalar() == 1


def test_another_database_will_do(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (pk INTEGER, words TEXT, day DATE, price NUMERIC)"))
        connection.execute(
            sa.text("INSERT INTO t VALUES (1, 'some words', '2024-01-02', 1.5), (2, NULL, NULL, 2)")
        )
    table = sa.Table("t", sa.MetaData(), autoload_with=engine)
    engine.dispose()
    found = [
        one.record for one in sql_source(url, sa.select(table).order_by("pk"), Columns(id="pk", text="words"))
    ]
    assert found == [
        {"id": 1, "text": "some words", "metadata": {"day": "2024-01-02", "price": 1.5}},
        {"id": 2, "text": "", "metadata": {"day": None, "price": 2}},
    ]


def test_a_row_that_is_no_document_is_rejected_between_good_ones(articles):
    statement = "SELECT * FROM (VALUES (1, to_jsonb('a'::text)), (2, '[1]'), (3, to_jsonb('c'::text))) v (id, text) ORDER BY 1"
    first, bad, last = sql_source(articles, statement)
    assert bad == Rejection(2, "2", "row 2: column 'text' is a list, not text", "sql")
    assert (first.record["text"], last.record["text"]) == ("a", "c")


@pytest.mark.parametrize(
    ("statement", "columns", "error", "message"),
    [
        ("SELECT 1 AS id, 'x' AS body", None, InvalidInput, "no column 'text'; there are: id, body"),
        ("SELECT 1 AS id, 'x' AS text, 'y' AS text", None, InvalidInput, "'text' is there more than once"),
        ("CREATE TABLE made_here (a int)", None, DatabaseError, "CREATE"),
        ("DELETE FROM articles RETURNING id, body AS text", None, DatabaseError, "DELETE"),
        ("SELECT nonsense", None, DatabaseError, 'column "nonsense" does not exist'),
        ("SELEC", None, DatabaseError, "syntax error"),
        (
            "SELECT n AS id, 'x' AS text, 1 / (n - 1500) FROM generate_series(1, 2000) n",
            None,
            DatabaseError,
            "zero",
        ),
    ],
)
def test_what_the_database_or_the_mapping_refuses_is_told(articles, statement, columns, error, message):
    with pytest.raises(error, match=message):
        list(sql_source(articles, statement, columns))


def test_rows_before_an_error_are_given(articles):
    statement = "SELECT n AS id, 'x' AS text, 1 / (n - 1500) AS q FROM generate_series(1, 2000) n"
    source = sql_source(articles, statement, fetched=100)
    assert [next(source).record["id"] for _ in range(1400)][-1] == 1400
    with pytest.raises(DatabaseError):
        list(source)


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ("nonsense://me:hunter2@h/db", "none that SQLAlchemy knows"),
        ("://hunter2", "none that SQLAlchemy knows"),
        ("me:hunter2@h", "not a PostgreSQL connection string"),
        ("mysql+nodriver://me:hunter2@h/db", "none that SQLAlchemy knows|not installed"),
        ("mysql+pymysql://me:hunter2@h/db", "driver of the source's URL is not installed: pymysql"),
    ],
)
def test_an_unusable_url_is_told_without_the_password(database, message, caplog):
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigurationError, match=message) as caught:
        next(sql_source(database, "SELECT 1"))
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__} {caplog.text}"
    assert caught.value.__suppress_context__


def test_a_statement_without_rows_is_told():
    with pytest.raises(InvalidInput, match="the statement returns no rows; a source needs a SELECT"):
        list(sql_source("sqlite://", "CREATE TABLE t (a int)"))


@pytest.mark.parametrize(("database", "options"), [(5, {}), (None, {}), ("postgresql://h/d", {"fetched": 0})])
def test_arguments_are_checked_at_once(database, options):
    with pytest.raises(InvalidInput):
        sql_source(database, "SELECT 1", **options)


def test_typed_values_of_postgresql(articles):
    statement = (
        "SELECT 'a' AS id, 'x' AS text, 12345678901234567890.5::numeric AS big, interval '90 seconds' AS took,"
        " '10.0.0.1'::inet AS host, int4range(1, 5) AS span, '\\x00ff'::bytea AS bytes,"
        " 'NaN'::float8 AS nothing, gen_random_uuid() IS NULL AS no, timestamp '2024-01-02 03:04' AS at"
    )
    (found,) = sql_source(articles, statement)
    assert found.record["metadata"] == {
        "big": Decimal("12345678901234567890.5"),
        "took": 90.0,
        "host": "10.0.0.1",
        "span": "[1, 5)",
        "bytes": "AP8=",
        "nothing": None,
        "no": False,
        "at": dt.datetime(2024, 1, 2, 3, 4).isoformat(),
    }
