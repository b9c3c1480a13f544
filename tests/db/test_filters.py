"""Filters in PostgreSQL: what they keep, with an index and without, and that nothing they keep is missed."""

from __future__ import annotations

import json
import shlex
import threading
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from support import CountingEmbedder, rows

from pgseek import Client, CollectionNotFound, DatabaseError, F, InvalidInput, MetadataIndex, copies
from pgseek.db.connection import connect
from pgseek.filters import to_jsonpath
from pgseek.integrity import examine
from pgseek.metadata_indexes import declared, index_name

# Keys that look like syntax, and values that nearly are equal.
KEYS = ["a", "b", 'q"\\;', "x.y"]
TEXTS = [
    "",
    "x",
    "xy",
    "X",
    "日本",
    "\U0010ffff",
    "\x01",
    "it's; --",
    'say "\\n"',
    "$.a == 1",
    "2020-01-31",
    "x" * 300,
]
NUMBERS = [
    0,
    1,
    2,
    -1,
    Decimal("0.1"),
    Decimal("1.50"),
    2**63,
    Decimal("12345678901234567890.1"),
    Decimal("1e400"),
]
NUMBERS += [Decimal("3" * 2000), Decimal("3" * 1999 + "4")]
SCALARS = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(TEXTS))
METADATA = st.dictionaries(
    st.sampled_from(KEYS),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=4,
)
PATHS = st.lists(st.sampled_from(KEYS), min_size=1, max_size=2)


def written(metadata):
    """JSON with every digit of decimals."""
    if isinstance(metadata, Decimal):
        return str(metadata)
    if isinstance(metadata, list):
        return f"[{', '.join(map(written, metadata))}]"
    if isinstance(metadata, dict):
        return f"{{{', '.join(f'{json.dumps(k)}: {written(v)}' for k, v in metadata.items())}}}"
    return json.dumps(metadata)


def values_at(metadata, path):
    """What jsonpath's lax mode finds: arrays on the way are walked into, one level."""
    found = [metadata]
    for key in path:
        found = [one[key] for one in elements(found) if isinstance(one, dict) and key in one]
    return found


def elements(found):
    return [part for one in found for part in (one if isinstance(one, list) else [one])]


def kind(value):
    if isinstance(value, bool) or value is None:
        return type(value)
    return Decimal if isinstance(value, int | Decimal) else type(value)


def compares(value, sign, wanted):
    if kind(value) is not kind(wanted):
        return False
    if value is None:
        return sign in {"==", "<=", ">="}
    if isinstance(value, str):
        value, wanted = value.encode(), wanted.encode()
    return {
        "==": value == wanted,
        "<": value < wanted,
        "<=": value <= wanted,
        ">": value > wanted,
        ">=": value >= wanted,
    }[sign]


def some(path, test):
    return lambda metadata: any(test(value) for value in elements(values_at(metadata, path)))


def contains(path, wanted):
    def holds(metadata):
        found = values_at(metadata, path)
        element = any(isinstance(one, list) for one in found) and some(
            path, lambda v: compares(v, "==", wanted)
        )(metadata)
        text = isinstance(wanted, str) and any(isinstance(one, str) for one in found)
        return element or (text and some(path, lambda v: isinstance(v, str) and wanted in v)(metadata))

    return holds


SIGNS = {
    "$eq": (F.__eq__, "=="),
    "$lt": (F.__lt__, "<"),
    "$lte": (F.__le__, "<="),
    "$gt": (F.__gt__, ">"),
    "$gte": (F.__ge__, ">="),
}
OPERATORS = [*SIGNS, "$ne", "$in", "$nin", "$between", "$contains", "$prefix", "$exists", "$null"]


def one_of(path, wanted):
    return some(path, lambda v: any(compares(v, "==", w) for w in wanted))


def expression_of(field, path, operator, value, values):
    """The expression, the argument of the operator in a mapping, and what the expression asks."""
    if operator in SIGNS:
        method, sign = SIGNS[operator]
        return method(field, value), value, some(path, lambda v: compares(v, sign, value))
    low = some(path, lambda v: compares(v, ">=", values[0]))
    high = some(path, lambda v: compares(v, "<=", values[-1]))
    prefix = value if isinstance(value, str) else "x"
    return {
        "$ne": lambda: (field != value, value, lambda m: not one_of(path, [value])(m)),
        "$in": lambda: (field.in_(values), values, one_of(path, values)),
        "$nin": lambda: (field.not_in(values), values, lambda m: not one_of(path, values)(m)),
        "$between": lambda: (
            field.between(values[0], values[-1]),
            [values[0], values[-1]],
            lambda m: low(m) and high(m),
        ),
        "$contains": lambda: (field.contains(value), value, contains(path, value)),
        "$prefix": lambda: (
            field.starts_with(prefix),
            prefix,
            some(path, lambda v: isinstance(v, str) and v.startswith(prefix)),
        ),
        "$exists": lambda: (field.exists(), True, lambda m: bool(values_at(m, path))),
        "$null": lambda: (field.is_null(), True, some(path, lambda v: v is None)),
    }[operator]()


@st.composite
def conditions(draw):
    """An expression, the mapping that says the same, and whether a metadata object fulfils it."""
    path, operator = draw(PATHS), draw(st.sampled_from(OPERATORS))
    values = draw(st.lists(SCALARS, min_size=1, max_size=3))
    expression, argument, holds = expression_of(F(path), path, operator, draw(SCALARS), values)
    # As a mapping only names without a dot can be written.
    dotted = any("." in key for key in path)
    return expression, (expression if dotted else {".".join(path): {operator: argument}}), holds


FILTERS = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(
            lambda p: (p[0][0] & p[1][0], {"$and": [p[0][1], p[1][1]]}, lambda m: p[0][2](m) and p[1][2](m))
        ),
        st.tuples(inner, inner).map(
            lambda p: (p[0][0] | p[1][0], {"$or": [p[0][1], p[1][1]]}, lambda m: p[0][2](m) or p[1][2](m))
        ),
        inner.map(lambda p: (~p[0], {"$not": p[1]}, lambda m: not p[2](m))),
    ),
    max_leaves=5,
)
PROPERTY = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@pytest.fixture(scope="module")
def module_connection(module_dsn):
    with connect(module_dsn) as connection:
        yield connection


@PROPERTY
@given(FILTERS, st.lists(METADATA, min_size=1, max_size=8))
def test_a_filter_keeps_what_the_language_says(module_connection, made, documents):
    expression, mapping, holds = made
    predicate = to_jsonpath(expression)
    assert to_jsonpath(mapping) == predicate
    kept = module_connection.execute(
        "SELECT coalesce(d::jsonb @@ %s::jsonpath, false) AS kept FROM unnest(%s::text[]) WITH ORDINALITY AS u (d, n)"
        " ORDER BY n",
        [predicate, [written(one) for one in documents]],
    ).fetchall()
    assert [row["kept"] for row in kept] == [holds(one) for one in documents]
    complement = module_connection.execute(
        "SELECT coalesce(d::jsonb @@ %s::jsonpath, false) AS kept FROM unnest(%s::text[]) WITH ORDINALITY AS u (d, n)"
        " ORDER BY n",
        [to_jsonpath(~expression), [written(one) for one in documents]],
    ).fetchall()
    assert [row["kept"] for row in complement] == [not row["kept"] for row in kept]


FIELDS = [
    (["a"], "number"),
    (["b"], "text"),
    (["a", "b"], "number"),
    (['q"\\;'], "date"),
    (["x.y", "a"], "text"),
]


@pytest.fixture(scope="module")
def indexed(module_dsn):
    """A collection with indexes and without documents; the second has neither."""
    with Client(module_dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder())
        client.create_collection("other", embedder=CountingEmbedder())
        for field, of_type in FIELDS:
            docs.index_metadata(field, of_type)
    return module_dsn


@PROPERTY
@given(FILTERS, st.lists(METADATA, min_size=1, max_size=12))
def test_the_same_is_found_with_an_index_and_without(indexed, module_connection, made, documents):
    predicate = to_jsonpath(made[0])
    with module_connection.transaction(force_rollback=True):
        insert = (
            "INSERT INTO pgseek.documents (collection_id, document_id, external_id, body, language, metadata,"
            " content_hash) SELECT c, pgseek.document_id(n::text), n::text, 'x', 'simple', d::jsonb, 'x'"
            " FROM generate_series(1, 2) AS c, unnest(%s::text[]) WITH ORDINALITY AS u (d, n)"
        )
        module_connection.execute(insert, [[written(one) for one in documents]])
        # So small a table would be read whole.
        module_connection.execute("SET LOCAL enable_seqscan = off")
        (with_index,) = module_connection.execute(
            "SELECT pgseek.matching_documents(1, %s::jsonpath) AS ids, pgseek.filter_conditions(1, %s::jsonpath) AS used",
            [predicate, predicate],
        ).fetchall()
        plain = module_connection.execute(
            "SELECT document_id FROM pgseek.documents WHERE collection_id = 2 AND metadata @@ %s::jsonpath",
            [predicate],
        ).fetchall()
        assert sorted(with_index["ids"]) == sorted(row["document_id"] for row in plain)
        # What the index is asked for is implied, whatever plan was taken.
        (missed,) = module_connection.execute(
            "SELECT count(*) AS n FROM pgseek.documents d WHERE d.collection_id = 1 AND d.metadata @@ %s::jsonpath"
            f" AND NOT coalesce((true {with_index['used'].replace('%', '%%')}), false)",
            [predicate],
        ).fetchall()
        assert missed["n"] == 0


@pytest.mark.parametrize(
    ("expression", "used"),
    [
        (F("a") == 1, "number"),
        (F("a") >= Decimal("0.5"), "number"),
        (F("a").between(1, 2), "number"),
        (F("a").in_([1, 2, 3]), "number"),
        (F("a.b") < 5, "number"),
        (F("b") == "x", "text"),
        (F("b").starts_with("x"), "text"),
        (F("b").in_(["x", "y"]), "text"),
        (F('q"\\;') > date(2020, 1, 1), "text"),
        (F(["x.y", "a"]) == "x", "text"),
        ((F("a") == 1) & (F("z").exists()), "number"),
        ((F("z") == 1) & ((F("a") == 1) | (F("a") > 7)), "number"),
        ((F("z").contains("(")) & (F("b") == '")') & ~(F("z") == 1), "text"),
        (((F("z") == 1) | (F("y") == 1)) & (F("a") == 1), "number"),
        # One of two fields that both have an index.
        ((F("a") == 1) | (F("b") == "x"), "number"),
        # Nothing an index could be asked.
        ((F("a") == 1) | (F("z") == 1), None),
        (~(F("a") == 1), None),
        (F("a") != 1, None),
        (F("a") == "x", None),
        (F("b") == 1, None),
        (F("a") == None, None),  # noqa: E711
        (F("a").in_([1, "x"]), None),
        (F("z") == 1, None),
        (F("a").exists(), None),
        (F("b").contains("x"), None),
        (((F("a") == 1) & (F("b") == "x")) | (F("z") == 1), None),
        (((F("a") == 1) & (F("b") == "x")) | ((F("a") == 2) & (F("b") == "y")), None),
    ],
    ids=str,
)
def test_what_of_a_filter_an_index_is_asked(indexed, expression, used):
    (row,) = rows(
        indexed, "SELECT pgseek.filter_conditions(1, %s::jsonpath) AS used", [to_jsonpath(expression)]
    )
    assert ("metadata_" in row["used"]) == (used is not None)
    if used:
        assert f"metadata_{used}(" in row["used"]
    (other,) = rows(
        indexed, "SELECT pgseek.filter_conditions(2, %s::jsonpath) AS used", [to_jsonpath(expression)]
    )
    assert other["used"] == ""


@pytest.mark.parametrize(
    "predicate",
    [
        "strict $.a == 1",
        "$.a[*] == 1",
        "$.a + 1 == 2",
        "1 == $.a",
        "$.a ? (@ > 1) == 2",
        "$.**.a == 1",
        "exists($.a ? (@ == 1))",
        '$.a.type() == "number"',
        "$.a == 1 || $.b == $.c",
        "$.a == $.b",
        "$.*.a == 1",
        "$.a == 1 && $.b == 1 || $.z == 1",
        "($.a == 1 || $.z == 1) is unknown",
        "!($.a == 1 && $.a == 2)",
    ],
)
def test_jsonpath_written_by_hand_asks_no_index_more_than_it_says(indexed, predicate):
    (row,) = rows(indexed, "SELECT pgseek.filter_conditions(1, %s::jsonpath) AS used", [predicate])
    assert row["used"] == ""


def test_jsonpath_written_by_hand_uses_an_index_as_python_does(indexed):
    for by_hand, expression in (
        ("$.a>=1&&$.a<3", (F("a") >= 1) & (F("a") < 3)),
        ('(($.b starts with "x"))', F("b").starts_with("x")),
        ("$.a == 1 || ($.a == 2 || $.a == 3)", F("a").in_([1, 2, 3])),
    ):
        (row,) = rows(
            indexed,
            "SELECT pgseek.filter_conditions(1, %s::jsonpath) AS one, pgseek.filter_conditions(1, %s::jsonpath) AS two",
            [by_hand, to_jsonpath(expression)],
        )
        assert row["one"] == row["two"] != ""


def test_a_long_list_and_long_values_are_filters(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.index_metadata("n", "number")
    docs.index_metadata("t", "text")
    docs.ingest(
        [
            {"id": "1", "text": "word", "metadata": {"n": 7_000, "t": "y" * 100_000}},
            {"id": "2", "text": "word", "metadata": {"n": Decimal("7" * 4_000), "t": "y" * 99_999}},
            {"id": "3", "text": "word", "metadata": {"n": -1, "t": "z", "k" * 10_000: 1}},
        ]
    )

    def found(condition):
        return {hit.id for hit in docs.search("word", filter=condition)}

    assert found(F("n").in_(list(range(20_000)))) == {"1"}
    assert found(F("n") == Decimal("7" * 4_000)) == {"2"}
    assert found(F("n") > 100_000) == {"2"}
    assert found(F("t") == "y" * 100_000) == {"1"}
    assert found(F("t").starts_with("y" * 99_999)) == {"1", "2"}
    assert found(F("t") > "y" * 99_999) == {"1", "3"}
    assert found(F("t") < "y" * 100_000) == {"2"}
    assert found(F("t").contains("y" * 10_000)) == {"1", "2"}
    assert found(F("k" * 10_000) == 1) == {"3"}


def test_dates_are_found_as_they_were_given(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.index_metadata("at", "date")
    two = timezone(timedelta(hours=2))
    times = {
        "day": date(2024, 1, 31),
        "aware": datetime(2024, 1, 31, 12, tzinfo=UTC),
        "fraction": datetime(2024, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC),
        "elsewhere": datetime(2024, 1, 31, 14, 0, 1, tzinfo=two),
        "next": datetime(2024, 2, 1, 1, tzinfo=two),
    }
    report = docs.ingest({"id": n, "text": "word", "metadata": {"at": t}} for n, t in times.items())
    assert (report.new, report.rejected) == (5, ())

    def found(condition):
        return [
            hit.id for hit in sorted(docs.search("word", filter=condition), key=lambda h: h.metadata["at"])
        ]

    assert found(F("at") >= date(2024, 1, 1)) == ["day", "aware", "fraction", "elsewhere", "next"]
    assert found(F("at") > times["aware"]) == ["fraction", "elsewhere", "next"]
    assert found(F("at") <= times["fraction"].astimezone(two)) == ["day", "aware", "fraction"]
    assert found(F("at") == times["elsewhere"].astimezone(UTC)) == ["elsewhere"]
    assert found({"at": {"$gte": datetime(2024, 1, 31, 23, tzinfo=UTC)}}) == ["next"]
    assert (
        docs.ingest({"id": n, "text": "word", "metadata": {"at": t}} for n, t in times.items()).unchanged == 5
    )


def test_decimals_are_compared_by_all_their_digits(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    exact = Decimal("12345678901234567890.000000000000000001")
    docs.ingest([{"id": "1", "text": "word", "metadata": {"price": exact, "big": 2**63}}])
    for condition, hits in (
        (F("price") == exact, 1),
        (F("price") > Decimal("12345678901234567890"), 1),
        (F("price") == 12345678901234567890, 0),
        (F("big") == 2**63, 1),
        (F("big") > 2**63 - 1, 1),
        (F("big") == 2**63 + 1, 0),
    ):
        assert len(docs.search("word", filter=condition)) == hits, condition


def names(dsn):
    found = rows(
        dsn,
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'pgseek' AND indexname ~ '^documents_metadata_[0-9]'"
        " ORDER BY 1",
    )
    return [row["indexname"] for row in found]


def test_an_index_lives_and_goes(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest([{"id": "1", "text": "word", "metadata": {"year": 2020, "a": {"b": "x"}}}])
    made = docs.index_metadata("year", "number")
    assert made == MetadataIndex(("year",), "number")
    assert docs.index_metadata("year", "number") == made
    docs.index_metadata("a.b", "text")
    docs.index_metadata(["a.b"], "date")
    info = docs.info()
    assert list(map(str, info.metadata_indexes)) == ["year (number)", "a.b (text)", "['a.b'] (date)"]
    assert client.list_collections()[0].metadata_indexes == info.metadata_indexes
    assert names(dsn) == sorted(index_name(info.collection_id, index) for index in info.metadata_indexes)
    # Another type takes the place of the one before.
    docs.index_metadata("year", "text")
    assert str(docs.info().metadata_indexes[-1]) == "year (text)"
    assert len(names(dsn)) == 3
    docs.drop_metadata_index("year")
    docs.drop_metadata_index(["a.b"])
    assert list(map(str, docs.info().metadata_indexes)) == ["a.b (text)"]
    assert names(dsn) == [index_name(info.collection_id, MetadataIndex(("a", "b"), "text"))]
    with pytest.raises(InvalidInput, match=r"'year' has no index; those that have: a\.b \(text\)"):
        docs.drop_metadata_index("year")
    client.drop_collection("docs")
    assert names(dsn) == []
    with pytest.raises(CollectionNotFound):
        docs.index_metadata("year", "number")


@pytest.mark.parametrize(
    ("field", "of_type"), [("year", "int"), ("year", "boolean"), ("", "text"), ("a..b", "text")]
)
def test_what_cannot_be_indexed_is_refused(client, field, of_type):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    with pytest.raises(InvalidInput, match=r"must be one of text, number, date|is not the name"):
        docs.index_metadata(field, of_type)
    assert docs.info().metadata_indexes == ()


def test_a_copy_has_the_indexes_of_its_original(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest([{"id": "1", "text": "word", "metadata": {"year": 2020}}])
    docs.index_metadata("year", "number")
    copy = client._run(copies.begin(docs.info(), CountingEmbedder(), {"chunk_size": 500}))
    assert copy.metadata_indexes == docs.info().metadata_indexes
    assert len(names(dsn)) == 2
    docs.index_metadata("kind", "text")
    assert len(names(dsn)) == 4
    docs.drop_metadata_index("year")
    stored = rows(dsn, "SELECT metadata_indexes FROM pgseek.collections ORDER BY collection_id")
    assert [list(map(str, declared(row["metadata_indexes"]))) for row in stored] == [["kind (text)"]] * 2
    assert len(names(dsn)) == 2
    client.drop_collection("docs")
    assert names(dsn) == []


def test_who_does_not_own_the_tables_is_told(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    role = f"reader_{threading.get_ident()}"
    rows(dsn, f"CREATE ROLE {role} LOGIN")
    try:
        rows(
            dsn,
            f"GRANT USAGE ON SCHEMA pgseek TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA pgseek TO {role};"
            f" GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgseek TO {role}",
        )
        with (
            Client(f"{dsn} user={role}") as other,
            pytest.raises(DatabaseError, match="belongs to another role"),
        ):
            other.collection("docs", embedder=CountingEmbedder()).index_metadata("year", "number")
    finally:
        rows(dsn, f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert docs.info().metadata_indexes == ()


def test_what_a_broken_off_build_left_is_built_anew(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    name = index_name(docs.info().collection_id, MetadataIndex(("year",), "number"))
    rows(dsn, f"CREATE INDEX {name} ON pgseek.documents (title)")
    rows(dsn, f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgseek.{name}'::regclass")
    docs.index_metadata("year", "number")
    (row,) = rows(
        dsn,
        "SELECT pg_get_indexdef(indexrelid) AS definition, indisvalid FROM pg_index"
        f" WHERE indexrelid = 'pgseek.{name}'::regclass",
    )
    assert row["indisvalid"]
    assert "metadata_number(metadata, '{year}'::text[])" in row["definition"]
    assert f"WHERE (collection_id = {docs.info().collection_id})" in row["definition"]


def test_the_examination_finds_an_index_that_is_declared_and_not_there(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.index_metadata(["a b", "it's"], "number")
    docs.ingest([{"id": "1", "text": "word", "metadata": {"a b": {"it's": 5}}}])
    assert examine(dsn).findings == ()
    (name,) = names(dsn)
    rows(dsn, f"DROP INDEX pgseek.{name}")
    # Filters find the same without.
    assert len(docs.search("word", filter=F(["a b", "it's"]) > 4)) == 1
    (finding,) = examine(dsn).findings
    assert (finding.key, finding.collection, finding.examples) == ("index_missing", "docs", (name,))
    *command, field, of_type = shlex.split(finding.mend)
    assert command == ["pgseek", "collections", "index-metadata", "docs"]
    docs.index_metadata(json.loads(field), of_type)
    assert examine(dsn).findings == ()


def test_metadata_of_hits_is_that_of_the_filter_whatever_was_changed_meanwhile(client, dsn):
    """The ids of few matching documents are found before they are ranked: what changed in between is left out."""
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest([{"id": str(n), "text": "word", "metadata": {"of": "me"}} for n in range(50)])
    stop = threading.Event()

    def change():
        with connect(dsn) as connection:
            of = "you"
            while not stop.is_set():
                connection.execute("UPDATE pgseek.documents SET metadata = %s", [Jsonb({"of": of})])
                of = "me" if of == "you" else "you"

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(50):
            assert {hit.metadata["of"] for hit in docs.search("word", filter={"of": "me"})} <= {"me"}
    finally:
        stop.set()
        thread.join()
