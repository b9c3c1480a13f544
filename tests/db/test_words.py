"""From text to lexemes, weights and codes: the parts that the lexical leg is made of."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgseek.db.connection import connect

EDGES = (0.53, 0.58, 0.66, 0.75, 0.85)
BOUNDS = [*EDGES, 1.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cats sat", {"cat", "sat"}),
        ("functools.lru_cache()", {"functool", "lru", "cach", "functools.lru_cache"}),
        ("E-4021", {"e", "4021", "e-4021"}),
        ("C++ and C# and F#, g++", {"c++", "c#", "f#", "g++"}),
        ("counter++ and a#b", {"counter", "counter++", "b", "a#b"}),
        (".NET AT&T", {"net", ".net", "at&t"}),
        ("NameNode", {"namenod", "name", "node", "namenode"}),
        ("getURLPath", {"geturlpath", "get", "url", "path"}),
        ("APIs URLs", {"api", "url"}),
        ("path/to/file.py:12", {"path", "file", "py", "12", "file.py", "path/to/file.py:12"}),
        ("foo@bar.com", {"foo", "bar", "com", "bar.com", "foo@bar.com"}),
        ("--dry-run -v", {"dri", "run", "v", "dry-run"}),
        (
            "a well-known, state-of-the-art idea",
            {"well", "known", "state", "art", "idea", "well-known", "state-of-the-art"},
        ),
        ("end.Next sentence... done.", {"end", "next", "sentenc", "done", "end.next"}),
        ("don't O'Reilly “quoted” (brackets)", {"reilli", "o", "quot", "bracket"}),
        ("100% of $5, 1,000", {"100", "5", "$5", "1", "000"}),
        ("_emphasis_ __init__", {"emphasi", "init", "_emphasis_", "__init__"}),
        ("<b>bold</b> & x", {"b", "bold", "x"}),
        ("back\\slash it\\'s", {"back", "slash", "back\\slash"}),
        ("", set()),
        ("!?… — ** ''", set()),
    ],
)
def test_the_lexemes_of_a_text(connection, text, expected):
    (row,) = connection.execute(
        "SELECT tsvector_to_array(pgseek.words('english', %s)) AS lexemes", [text]
    ).fetchall()
    assert set(row["lexemes"]) == expected


@given(text=st.text(max_size=60))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_can_be_read_and_asked_for(connection, text):
    text = text.replace("\x00", "")
    for language in ("english", "simple", "french"):
        (row,) = connection.execute(
            "SELECT tsvector_to_array(pgseek.words(%s, %s)) AS stored, (pgseek.bm25_bag(ARRAY[%s], %s)).lexemes AS asked,"
            " pgseek.snippet(%s, %s, tsvector_to_array(pgseek.words(%s, %s)), '{[,]}') AS snippet,"
            " pgseek.match_all(ARRAY[%s], %s, true) IS NULL AS nothing",
            [language, text] * 2 + [language, text, language, text, language, text],
        ).fetchall()
        # Whatever a text is asked for by itself, it has (single letters at the edges of runs apart).
        assert set(row["asked"]) <= set(row["stored"])
        assert (row["asked"] == []) == row["nothing"]
        if len(text) <= 240:
            assert row["snippet"].replace("[", "").replace("]", "") == text.replace("[", "").replace("]", "")


@pytest.fixture(scope="module")
def connection(module_dsn):
    with connect(module_dsn) as made:
        yield made


@pytest.mark.parametrize(
    "text", ["functools.lru_cache", "plain words and C++", "a-b_c.d/e", "tab\tand\nline"]
)
def test_an_ascii_text_keeps_its_length(connection, text):
    (row,) = connection.execute("SELECT pgseek.plain(%s) AS plain", [text]).fetchall()
    assert len(row["plain"]) == len(text)


def test_words_in_quotes_stand_at_the_places_they_have_in_the_text(connection):
    for text, phrase, expected in (
        ("the lru_cache of functools.wraps here", "lru cache of functools", True),
        ("the lru_cache of functools.wraps here", "cache lru", False),
        ("a modern C++ compiler", "modern C++ compiler", True),
        ("a modern C# compiler", "modern C++ compiler", False),
        ("機械学習とデータ", "機械学習", True),
        ("学習機械", "機械学習", False),
    ):
        (row,) = connection.execute(
            "SELECT pgseek.words('english', %s) @@ pgseek.match_all('{english}', %s, true) AS matches",
            [text, phrase],
        ).fetchall()
        assert row["matches"] is expected, (text, phrase)


@given(
    words=st.lists(st.sampled_from(["ash", "birch", "cedar", "elm"]), min_size=1, max_size=30),
    title=st.lists(st.sampled_from(["ash", "fir"]), max_size=4),
    k1=st.sampled_from([0.0, 1.2, 2.0]),
    b=st.sampled_from([0.0, 0.75, 1.0]),
    average=st.sampled_from([3.0, 10.0]),
    title_weight=st.sampled_from([1.0, 2.0, 2.5]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_weights_are_bm25s(connection, words, title, k1, b, average, title_weight):
    (row,) = connection.execute(
        "SELECT terms::text FROM pgseek.analyze('simple', %s, %s, %s::real[])",
        [" ".join(title), " ".join(words), [k1, b, average, title_weight]],
    ).fetchall()
    found = dict(part.split(":") for part in row["terms"].split("}")[0].strip("{").split(",") if part)
    tf = {w: words.count(w) + title_weight * title.count(w) for w in {*words, *title}}
    length = sum(tf.values())
    dimension = {
        r["word"]: str(r["dimension"])
        for r in connection.execute(
            "SELECT word, pgseek.dimension(word) AS dimension FROM unnest(%s::text[]) AS word", [list(tf)]
        ).fetchall()
    }
    assert {w: float(found[dimension[w]]) for w in tf} == pytest.approx(
        {w: tf[w] / (tf[w] + k1 * (1 - b + b * length / average)) for w in tf}, rel=1e-6
    )
    assert len(found) == len(tf)


def test_lexemes_that_share_a_dimension_keep_the_heavier_weight(connection):
    # The smallest pair that collides among w0, w1, …; found once by trying.
    (pair,) = connection.execute(
        "SELECT min(word) AS one, max(word) AS other FROM (SELECT 'w' || n AS word FROM generate_series(0, 150000) AS n) AS words"
        " GROUP BY pgseek.dimension(word) HAVING count(*) = 2 ORDER BY 1 LIMIT 1"
    ).fetchall()
    (row,) = connection.execute(
        "SELECT a.terms::text, b.terms::text AS alone FROM pgseek.analyze('simple', '', %s, '{1.2,0,1,1}') a,"
        " pgseek.analyze('simple', '', %s, '{1.2,0,1,1}') b",
        [f"{pair['one']} {pair['other']} {pair['other']}", f"{pair['other']} {pair['other']}"],
    ).fetchall()
    assert row["terms"] == row["alone"]


def level_of(weight):
    return sum(weight >= edge for edge in EDGES)


@given(
    weights=st.dictionaries(
        st.integers(1, 10**9), st.floats(0.015625, 0.9990234375, width=32), min_size=1, max_size=8
    ),
    collection=st.integers(1, 2**31 - 1),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_index_holds_the_code_of_every_lexeme_and_of_every_edge_it_reaches(
    connection, weights, collection
):
    vector = "{" + ",".join(f"{d}:{w}" for d, w in weights.items()) + "}/1000000000"
    (row,) = connection.execute(
        "SELECT pgseek.bm25_codes(%s, %s::sparsevec) AS codes,"
        " array(SELECT pgseek.bm25_code(%s, u.d, l) FROM unnest(%s::int[], %s::int[]) AS u (d, top),"
        " generate_series(0, u.top) AS l) AS expected",
        [collection, vector, collection, list(weights), [level_of(w) for w in weights.values()]],
    ).fetchall()
    assert sorted(row["codes"]) == sorted(row["expected"])


@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_row_that_can_reach_the_need_fails_a_condition(connection, data):
    """The conditions of bm25_clauses: necessary for every row with the lead and a score of at least the need."""
    m = data.draw(st.integers(1, 8))
    weights = sorted(data.draw(st.lists(st.floats(0.5, 12), min_size=m, max_size=m)), reverse=True)
    counts = data.draw(st.lists(st.integers(1, 90_000), min_size=m, max_size=m))
    lead = data.draw(st.integers(1, m))
    need = data.draw(st.floats(0.05, 0.95)) * sum(weights[lead - 1 :])
    dimensions = list(range(11, 11 + m))
    clauses = connection.execute(
        "SELECT codes FROM pgseek.bm25_clauses(7, %s, %s, %s::int[], %s::float8[], %s::float8[], 100000,"
        " %s::float8[], '{1,0.3,0.2,0.1,0.03,0.01}')",
        [lead, need, dimensions, weights, counts, BOUNDS],
    ).fetchall()
    codes = {
        (r["d"], r["l"]): r["code"]
        for r in connection.execute(
            "SELECT d, l, pgseek.bm25_code(7, d, l) AS code FROM unnest(%s::int[]) AS d, generate_series(0, 5) AS l",
            [dimensions],
        ).fetchall()
    }
    impact = st.one_of(st.just(0.0), st.floats(0.01, 0.999), st.sampled_from(EDGES))
    for _ in range(20):
        row = [0.0] * (lead - 1) + [data.draw(impact) for _ in range(m - lead + 1)]
        row[lead - 1] = max(row[lead - 1], 0.01)
        score = math.fsum(w * x for w, x in zip(weights, row, strict=True))
        if score < need:
            continue
        held = {
            codes[d, level]
            for d, x in zip(dimensions, row, strict=True)
            if x
            for level in range(level_of(x) + 1)
        }
        for clause in clauses:
            assert held & set(clause["codes"]), (row, clause)


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_guess_is_a_number_that_can_be_reached(connection, data):
    m = data.draw(st.integers(1, 10))
    weights = sorted(data.draw(st.lists(st.floats(0.1, 14), min_size=m, max_size=m)), reverse=True)
    counts = data.draw(st.lists(st.integers(1, 99_000), min_size=m, max_size=m))
    k1, b = data.draw(st.sampled_from([(1.2, 0.75), (0.0, 0.0), (2.0, 1.0)]))
    (row,) = connection.execute(
        "SELECT pgseek.bm25_guess(10, %s::float8[], %s::float8[], 100000, %s::float8[], '{1,0.3,0.2,0.1,0.03,0.01}', %s, %s) AS guess",
        [weights, counts, BOUNDS, k1, b],
    ).fetchall()
    assert 0 <= row["guess"] <= sum(weights)
