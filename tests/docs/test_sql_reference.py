"""docs/sql.md against the catalogue: arguments, defaults, ranges, columns, errors, and that no function is missing."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
from functions import INTERNAL_BY_NAME, PUBLIC, READING, WRITING
from support import rows

from pgseek import Client
from pgseek.db.connection import connect
from pgseek.db.sqltext import FUNCTIONS, function_sql

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text()
# By the name of the function that each is about.
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
SECTIONS = {name: text for name, text in SECTIONS.items() if name in FUNCTIONS}
VECTOR = "array_fill(0.0625, ARRAY[256])::vector"
MODEL = "'wordllama:l2_supercat'"
ASKED = f"'books', 'lamp', query_embedding => {VECTOR}, model => {MODEL}"
# A call of each function with an argument more.
CALLS = {
    "search": f"pgseek.search({ASKED}, {{}})",
    "search_page": "pgseek.search_page('books', 'lamp', {})",
    "similar": "pgseek.similar('books', 'lamps', {})",
    "recommend": "pgseek.recommend('books', '{{lamps}}', {})",
    "facets": "pgseek.facets('books', 'lamp', {})",
    "reweigh": "pgseek.reweigh('books', {})",
}
OTHER = "query_embedding => '[1]', model => 'other:model'"
WRONG_MODEL = f"query_embedding => {VECTOR}, model => 'other:model'"
# Calls that fail with each of the codes that a section names.
FAILING = {
    "search": {
        "PGS01": "search('no', 'x')",
        "PGS02": "search('books', ' ')",
        "PGS04": f"search('books', 'x', {OTHER})",
        "PGS05": f"search('books', 'x', {WRONG_MODEL})",
    },
    "search_page": {
        "PGS01": "search_page('no', 'x')",
        "PGS02": "search_page('books', 'x', cursor => 'x')",
        "PGS04": f"search_page('books', 'x', {OTHER})",
        "PGS05": f"search_page('books', 'x', {WRONG_MODEL})",
    },
    "similar": {
        "PGS01": "similar('no', 'x')",
        "PGS02": "similar('books', 'never_stored')",
        "PGS05": """similar('books', 'lamps', options => '{"space": 99}')""",
    },
    "recommend": {
        "PGS01": "recommend('no', '{x}')",
        "PGS02": "recommend('books', '{never_stored}')",
        "PGS05": """recommend('books', '{lamps}', options => '{"space": 99}')""",
    },
    "facets": {
        "PGS01": "facets('no', 'x')",
        "PGS02": "facets('books', 'x', '{year:century}')",
        "PGS04": f"facets('books', 'x', over => 'candidates', {OTHER})",
        "PGS05": f"facets('books', 'x', over => 'candidates', {WRONG_MODEL})",
    },
    "explain": {
        "PGS01": "explain('no', 'x')",
        "PGS02": """explain('books', 'x', options => '{"K": 1}')""",
        "PGS04": f"explain('books', 'x', {OTHER})",
        "PGS05": f"explain('books', 'x', {WRONG_MODEL})",
    },
    "put_documents": {"PGS01": "put_documents('no', '[]')", "PGS02": "put_documents('books', '{}')"},
    "put_document": {"PGS01": "put_document('no', 'a', 'x')", "PGS02": "put_document('books', 'a', '')"},
    "delete_documents": {"PGS01": "delete_documents('no', '{}')"},
    "delete_document": {"PGS01": "delete_document('no', 'a')"},
    "put_embeddings": {
        "PGS01": "put_embeddings('no', 'm', '{}', '{}', '{}')",
        "PGS02": f"put_embeddings('books', {MODEL}, '{{lamps}}', '{{}}', '{{}}')",
        "PGS04": f"put_embeddings('books', {MODEL}, '{{lamps}}', '{{0}}', ARRAY['[1]'::vector])",
        "PGS05": f"put_embeddings('books', 'other:model', '{{lamps}}', '{{0}}', ARRAY[{VECTOR}])",
    },
    "refresh_statistics": {"PGS01": "refresh_statistics('no')"},
    "reweigh": {"PGS01": "reweigh('no')", "PGS02": "reweigh('books', b => 2)"},
    "mean_embedding": {"PGS02": "mean_embedding('{}')"},
    "find_answer": {
        "PGS01": "find_answer('no', 'x')",
        "PGS02": "find_answer('books', ' ')",
        "PGS04": "find_answer('books', 'x', '[1]', model => 'wordllama:l2_supercat')",
        "PGS05": f"find_answer('books', 'x', {VECTOR}, model => 'other:model')",
    },
    "put_answer": {
        "PGS01": "put_answer('no', 'x', 'y')",
        "PGS02": "put_answer('books', 'x', 'y', documents => '{never_stored}')",
        "PGS04": "put_answer('books', 'x', 'y', '[1]', model => 'wordllama:l2_supercat')",
        "PGS05": f"put_answer('books', 'x', 'y', {VECTOR}, model => 'other:model')",
    },
    "clear_answers": {"PGS01": "clear_answers('no')"},
    "tell_apart": {},
    "query_kind": {},
    "boost": {"PGS02": "boost('{}', '{}', now())"},
    "document_id": {},
}


@pytest.fixture(scope="module")
def filled(module_dsn):
    """The DSN of a database with a collection of one document."""
    with Client(module_dsn) as client:
        client.create_collection("books").ingest([{"id": "lamps", "text": "An oil lamp."}])
    return module_dsn


@pytest.fixture(scope="module")
def catalogue(module_dsn):
    """What the catalogue says of each function."""
    statement = (
        "SELECT p.proname AS name, pg_get_function_arguments(p.oid) AS arguments,"
        " pg_get_function_result(p.oid) AS result,"
        " ARRAY(SELECT a.name || ' ' || format_type(a.type, NULL)"
        "         FROM unnest(p.proargnames, p.proallargtypes, p.proargmodes) WITH ORDINALITY"
        "              AS a (name, type, mode, place)"
        "        WHERE a.mode IN ('o', 't') ORDER BY a.place) AS columns"
        " FROM pg_proc p WHERE p.pronamespace = 'pgseek'::regnamespace"
    )
    return {row["name"]: row for row in rows(module_dsn, statement)}


def arguments(row):
    """The arguments in the form of the page: without casts, and without those that are results."""
    text = re.sub(r",? ?OUT \w+ [\w ]+", "", row["arguments"])
    return re.sub(r"::(?:double precision|\w+)(?:\[\])?", "", text)


def defaults(row):
    """Each argument's default, '' where it has none."""
    split = re.split(
        r", (?=\w+ (?:\w+|double precision|timestamp with time zone)(?:\[\])?(?: DEFAULT|,|$))",
        arguments(row),
    )
    return {one.split(" ")[0]: one.partition(" DEFAULT ")[2] for one in split if one}


def table(section, first):
    """The cells of the section's tables whose first column is headed so."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
        lines = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|\n"))]
            for line in block.splitlines()
        ]
        if lines[0][0].strip() == first:
            found += lines[2:]
    return found


def names(cell):
    return re.findall(r"`(\w+)`", cell)


def test_every_public_function_is_on_the_page_and_no_other():
    assert tuple(SECTIONS) == PUBLIC


def test_whatever_is_called_by_a_collections_name_is_public_or_named_internal(catalogue):
    by_name = {n for n, row in catalogue.items() if row["arguments"].startswith("collection text")}
    assert (
        by_name
        == {n for n in PUBLIC if catalogue[n]["arguments"].startswith("collection text")} | INTERNAL_BY_NAME
    )
    assert set(PUBLIC) <= READING.keys() | WRITING.keys()


@pytest.mark.parametrize("name", PUBLIC)
def test_the_signature_is_that_of_the_catalogue(catalogue, name):
    (shown,) = re.findall(rf"^```text\n(pgseek\.{name}\(.*?)^```", SECTIONS[name], re.MULTILINE | re.DOTALL)
    assert " ".join(shown.split()) == f"pgseek.{name}({arguments(catalogue[name])})"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_argument_is_described_with_its_default(catalogue, name):
    described = {
        argument: cells[2] for cells in table(SECTIONS[name], "argument") for argument in names(cells[0])
    }
    assert described == defaults(catalogue[name])


@pytest.mark.parametrize("name", PUBLIC)
def test_results_are_those_of_the_catalogue(catalogue, name):
    own = [f"{cells[0].strip('`')} {cells[1]}" for cells in table(SECTIONS[name], "column")]
    (said,) = re.findall(r"^\*\*Returns\*\* ([^.:,;]+)", SECTIONS[name], re.MULTILINE)
    if said.startswith(
        "the columns of [search](#search) but for `dense_candidates` and `lexical_candidates`"
    ):
        own = catalogue["search"]["columns"][:-2] + own
    assert own == catalogue[name]["columns"]
    if not own:
        kind = catalogue[name]["result"]
        assert said == ("an object" if kind == "jsonb" else kind)


def test_options_are_those_that_the_functions_know(filled):
    (section,) = re.findall(r"^### options\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    with pytest.raises(psycopg.Error) as caught:
        rows(filled, """SELECT pgseek.explain('books', 'x', options => '{"nonsense": 1}')""")
    known = caught.value.diag.message_hint.removeprefix("known are ").split(", ")
    assert names(section.partition("ranges and defaults:")[2].partition(". A filter")[0]) == known


def accepted(dsn, call):
    """Whether a call is answered, and rolled back; anything but a refused value is an error."""
    try:
        with connect(dsn) as connection, connection.transaction(force_rollback=True):
            connection.execute(f"SELECT * FROM {call}")
    except psycopg.Error as error:
        if error.sqlstate != "PGS02":
            raise
        return False
    return True


RANGES = [
    (name, argument, low, high)
    for name in CALLS
    for cells in table(SECTIONS[name], "argument")
    for low, high in re.findall(r"^(\d+)\.\.([\d,]+)$", cells[1])
    for argument in names(cells[0])
]
CHOICES = [
    (name, names(cells[0])[0], re.findall(r"`(\w+)`", cells[1]))
    for name in CALLS
    for cells in table(SECTIONS[name], "argument")
    if re.fullmatch(r"`\w+`(, `\w+`)+", cells[1])
]


def test_ranges_and_choices_are_found():
    assert len(RANGES) >= 14
    assert {(name, argument) for name, argument, _ in CHOICES} == {
        ("search", "syntax"),
        ("search", "fusion"),
        ("search", "normalization"),
        ("search", "lexical"),
        ("facets", "over"),
    }


@pytest.mark.parametrize(("name", "argument", "low", "high"), RANGES)
def test_a_range_is_as_the_page_says(filled, name, argument, low, high):
    least, most = int(low), int(high.replace(",", ""))
    tried = {
        value: accepted(filled, CALLS[name].format(f"{argument} => {value}"))
        for value in (least - 1, least, most, most + 1)
    }
    assert tried == {least - 1: False, least: True, most: True, most + 1: False}


@pytest.mark.parametrize(("name", "argument", "choices"), CHOICES)
def test_choices_are_as_the_page_says(filled, name, argument, choices):
    tried = [
        accepted(filled, CALLS[name].format(f"{argument} => '{value}'")) for value in [*choices, "nonsense"]
    ]
    assert tried == [True] * len(choices) + [False]


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "tenant"])
def test_each_error_that_is_named_happens(filled, name):
    said = re.search(r"\*\*Errors:\*\* (.*?)(?:\n\n|$)", SECTIONS[name], re.DOTALL)
    assert (re.findall(r"`(\w{5})`", said[1]) if said else []) == list(FAILING[name])
    for state, call in FAILING[name].items():
        with pytest.raises(psycopg.Error) as caught:
            rows(filled, f"SELECT * FROM pgseek.{call}")
        assert caught.value.sqlstate == state, caught.value


def test_every_code_of_the_functions_is_explained():
    raised = {code for name in FUNCTIONS for code in re.findall(r"ERRCODE = '(\w{5})'", function_sql(name))}
    explained = {cells[0].strip("`") for cells in table(PAGE, "SQLSTATE")}
    assert raised <= explained
    assert {code for code in explained if code.startswith("PGS")} <= raised


@pytest.mark.parametrize(
    ("state", "statement"),
    [
        ("42883", "SELECT * FROM pgseek.search('books', 'x', kk => 1)"),
        ("42601", "SELECT * FROM pgseek.search('books', 'x', filter => '$.a ==')"),
        ("PGS02", """SELECT pgseek.explain('books', 'x', options => '{"filter": "$.a =="}')"""),
        ("57014", "SET LOCAL statement_timeout = '1ms'; SELECT count(*) FROM generate_series(1, 100000000)"),
        (
            "42501",
            "INSERT INTO pgseek.tenant_roles (role, tenant) VALUES (session_user, 'beta');"
            " SET LOCAL pgseek.tenant = 'acme'; SELECT pgseek.tenant()",
        ),
    ],
)
def test_the_other_codes_are_what_happens(filled, state, statement):
    # Several statements sent as one are one transaction.
    with connect(filled) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute(statement)
    assert caught.value.sqlstate == state


def test_every_function_has_an_example():
    for name, section in SECTIONS.items():
        examples = re.findall(r"^```sql\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        assert any(f"pgseek.{name}(" in text for text in examples), name
