"""What signs in a query mean, what is corrected, and how a hit explains itself."""

from __future__ import annotations

import pytest
from support import CORPUS, CountingEmbedder, rows

from pgseek import Client, InvalidInput, Match
from pgseek.db.connection import connect

DOCUMENTS = {
    "quick": "the quick brown fox jumps over the lazy dog",
    "brown": "a brown bear, quick to anger",
    "fox": "a fox that is not brown at all, nor quick",
    "caching": "caching the cached caches of a cache",
    "cat": "a cat and its category",
    "catalog": "catalogues and catalogs",
    "empty": "something else entirely",
}


@pytest.fixture
def docs(client):
    made = client.create_collection("docs", embedder=CountingEmbedder())
    made.ingest({"id": name, "text": text} for name, text in DOCUMENTS.items())
    return made


def found(docs, query, **options):
    return {hit.id for hit in docs.search(query, **{"alpha": 0, "k": 20, "typos": False, **options})}


def test_plain_words_are_any_of_them(docs):
    assert found(docs, "quick bear") == {"quick", "brown", "fox"}


def test_words_in_quotes_stand_side_by_side(docs):
    assert found(docs, '"quick brown"') == {"quick"}
    assert found(docs, '"brown quick"') == set()
    assert found(docs, "“quick brown”") == {"quick"}
    # Stop words keep their place, and stems are compared as everywhere.
    assert found(docs, '"jumped over the lazy"') == {"quick"}
    assert found(docs, '"fox jumps" bear') == {"quick"}


def test_a_quoted_name_is_that_name(client):
    docs = client.create_collection("names", embedder=CountingEmbedder())
    docs.ingest([{"id": "dash", "text": "error E-4021 seen"}, {"id": "line", "text": "error E_4021 seen"}])
    assert found(docs, '"E-4021"') == {"dash"}
    assert found(docs, '"error E_4021"') == {"line"}
    assert found(docs, "E 4021") == {"dash", "line"}


def test_excluded_words_are_in_no_hit_of_either_leg(docs):
    assert found(docs, "quick -fox") == {"brown"}
    assert found(docs, "quick -fox", alpha=1) == set(DOCUMENTS) - {"quick", "fox"}
    assert found(docs, "quick -fox", alpha=0.5) == set(DOCUMENTS) - {"quick", "fox"}
    assert found(docs, 'brown -"quick brown"') == {"brown", "fox"}
    assert found(docs, "cat -catalog*") == {"cat"}


def test_required_words_are_in_every_hit_of_either_leg(docs):
    assert found(docs, "+quick bear") == {"quick", "brown", "fox"}
    assert found(docs, "+quick +bear") == {"brown"}
    assert found(docs, "+bear fox", alpha=1) == {"brown"}
    assert found(docs, "+bear fox", fusion="rrf", alpha=None) == {"brown"}
    # What must be there and is nowhere leaves nothing, whatever else matches.
    assert found(docs, "+zebra quick") == set()
    assert found(docs, "+zebra quick", alpha=0.5) == set()


def test_a_prefix_finds_every_word_that_begins_so(docs):
    assert found(docs, "categ*") == {"cat"}
    assert found(docs, "cat*") == {"cat", "catalog"}
    assert found(docs, "+cat* category") == {"cat", "catalog"}
    # Stems are shorter than words: what is left of it is the stem's beginning.
    assert found(docs, "cachin*") == {"caching"}
    assert found(docs, "zeb*") == set()


def test_a_prefix_weighs_as_one_word(docs):
    first = docs.search("ca*", alpha=0)
    assert {hit.id for hit in first} == {"caching", "cat", "catalog"}
    weights = {match.lexeme: match.weight for hit in first for match in hit.matched}
    # With an idf of its own, "categori" (one document) would beat "cat" (one word among shorter ones).
    assert all(match.origin == "ca*" for hit in first for match in hit.matched)
    assert weights.keys() == {"cach", "cat", "categori", "catalogu", "catalog"}


def test_a_prefix_finds_words_written_since_the_last_refresh(docs, dsn):
    docs.refresh_statistics()
    rows(dsn, "SELECT pgseek.put_document('docs', 'new', 'a zebrafish swims')")
    assert found(docs, "zebraf*") == {"new"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("-4021", {"number"}),
        ("exit code -1", {"minus one"}),
        ("+49 30 901820", {"phone"}),
        ("--verbose", {"flag"}),
        ("-fox", {"quick", "fox"}),
        ('an "unbalanced quote', {"quote"}),
        ("a - b", set()),
        ('""', None),
        ("+", None),
        ("*", None),
        ("C*+", None),
        ("x' OR '1'='1", None),
        ("a:*", None),
        ("foo\\*", None),
        ("'*", None),
    ],
)
def test_signs_that_are_no_operators_are_text(docs, query, expected):
    docs.ingest(
        [
            {"id": "number", "text": "code -4021 came up"},
            {"id": "minus one", "text": "it left with exit code -1 again"},
            {"id": "phone", "text": "call +49 30 901820"},
            {"id": "flag", "text": "say --verbose"},
            {"id": "quote", "text": "unbalanced quote"},
        ]
    )
    ids = found(docs, query)
    assert expected is None or expected <= ids
    assert docs.search(query) is not None


def test_plain_syntax_gives_no_sign_a_meaning(docs):
    assert found(docs, "quick -fox", syntax="plain") == {"quick", "brown", "fox"}
    assert found(docs, '"brown quick"', syntax="plain") == {"quick", "brown", "fox"}
    assert found(docs, "cat*", syntax="plain") == {"cat"}


def test_operators_work_with_every_lexical_leg_and_filter(docs):
    for lexical in ("bm25", "ts_rank_cd", "ts_rank"):
        assert found(docs, '"quick brown"', lexical=lexical) == {"quick"}
        assert found(docs, "quick -fox", lexical=lexical) == {"brown"}
    docs.ingest([{"id": "tagged", "text": "quick brown again", "metadata": {"tag": 1}}])
    for filter_ in ({"tag": 1}, "$.tag == 1"):
        assert found(docs, '"quick brown"', filter=filter_) == {"tagged"}
        assert found(docs, '"quick brown"', filter=filter_, alpha=0.5) == {"tagged"}


@pytest.fixture(scope="module")
def many(module_dsn):
    """A collection large enough for the paths of frequent words."""
    with Client(module_dsn) as client:
        made = client.create_collection("many", embedder=CountingEmbedder(), language="simple")
        made.ingest(
            {
                "id": str(n),
                "text": f"common w{n % 50} x{n % 7}"
                + (" rare" if n % 997 == 0 else "")
                + (" wanted phrase" if n % 2 == 0 else " phrase wanted"),
                "metadata": {"n": n, "half": n % 2},
            }
            for n in range(13_000)
        )
        yield made


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("+common w7 x3", lambda n: True),
        ("+rare common w7", lambda n: n % 997 == 0),
        ('"wanted phrase" w7', lambda n: n % 2 == 0),
        ('-"wanted phrase" w7 common', lambda n: n % 2 == 1),
        ("common w7 -x3", lambda n: n % 7 != 3),
        ("common w7 -x3 -rare", lambda n: n % 7 != 3 and n % 997 != 0),
        ('"wanted phrase" -x1 +common', lambda n: n % 2 == 0 and n % 7 != 1),
    ],
)
@pytest.mark.parametrize("filtered", [False, True])
def test_restrictions_keep_the_best_rows_that_fulfil_them(many, query, rule, filtered):
    """Against all rows, ranked by the same words without a restriction."""
    words = query.replace('"', " ").replace("+", " ")
    words = " ".join(word for word in words.split() if not word.startswith("-"))
    if '-"' in query:
        words = "w7 common"
    options = {"filter": {"half": 0}} if filtered else {}
    with connect(many._client._dsn.get_secret_value()) as connection:
        every = connection.execute(
            "SELECT d.external_id AS id, -(c.terms <#> pgseek.bm25_query(t.dimensions, t.weights)) AS score"
            " FROM pgseek.bm25_bag('{simple}', %s) w, pgseek.bm25_terms(1, w.lexemes, w.frequencies) t, pgseek.chunks c"
            " JOIN pgseek.documents d USING (collection_id, document_id)",
            [words],
        ).fetchall()
    allowed = [r for r in every if rule(int(r["id"])) and not (filtered and int(r["id"]) % 2)]
    best = sorted((r["score"] for r in allowed if r["score"] > 0), reverse=True)[:20]
    hits = many.search(query, alpha=0, k=20, snippets=False, typos=False, budget=1e6, **options)
    assert [h.lexical_score for h in hits] == pytest.approx(best, rel=1e-5)
    assert {h.id for h in hits} <= {r["id"] for r in allowed}
    dense = many.search(query, alpha=1, k=20, snippets=False, typos=False, **options)
    assert {h.id for h in dense} <= {r["id"] for r in allowed}
    assert len(dense) == min(20, len(allowed))


# Typos.


@pytest.fixture
def spelled(client):
    made = client.create_collection("spelled", embedder=CountingEmbedder())
    made.ingest(CORPUS)
    return made


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("memoizng", "lru_cache"),
        ("decoratr", "lru_cache"),
        ("cahce", "lru_cache"),
        ("exeption", "suppress"),
        ("itertor", "heapq.merge"),
        ("xymbols", "errno"),
        ("cumulativelly", "reduce"),
    ],
)
def test_a_word_that_no_document_has_is_corrected_and_says_so(spelled, typed, wanted):
    hits = spelled.search(typed, alpha=0)
    assert wanted in [hit.id for hit in hits]
    assert all(match.origin == typed for hit in hits for match in hit.matched)
    assert "<b>" in hits[0].snippet


def test_a_correction_is_off_by_a_flag(spelled, dsn):
    assert spelled.search("memoizng", alpha=0, typos=False) == []
    assert rows(dsn, "SELECT FROM pgseek.search('spelled', 'memoizng', alpha => 0, typos => false)") == []
    assert len(rows(dsn, "SELECT FROM pgseek.search('spelled', 'memoizng', alpha => 0)")) == 1


def test_words_that_some_document_has_numbers_and_names_are_left_alone(spelled):
    for query in ("cache", "functions", "E-4021", "12345", "abc", "zzzzzzzz", "lru_cahc3"):
        for hit in spelled.search(query, alpha=0):
            assert all(match.origin is None for match in hit.matched), query


def test_two_letters_wrong_are_corrected_where_pg_trgm_is_installed(spelled, dsn):
    assert spelled.search("memorising", alpha=0) == []
    rows(dsn, "CREATE EXTENSION pg_trgm")
    (hit,) = spelled.search("memorizing", alpha=0)
    assert (hit.id, hit.matched[0].origin) == ("lru_cache", "memorizing")


def test_pg_trgm_may_live_in_any_schema(spelled, dsn):
    rows(dsn, 'CREATE SCHEMA "Ext Schema"')
    rows(dsn, 'CREATE EXTENSION pg_trgm SCHEMA "Ext Schema"')
    assert [hit.id for hit in spelled.search("memorizing", alpha=0)] == ["lru_cache"]


# Explanations.


def test_contributions_add_up_to_the_score(spelled):
    for options in (
        {},
        {"alpha": 0.7},
        {"fusion": "rrf"},
        {"normalization": "max"},
        {"normalization": "minmax"},
    ):
        for hit in spelled.search("cache a function", **options):
            assert hit.dense_contribution + hit.lexical_contribution == pytest.approx(hit.score, rel=1e-12)
    (hit, *_) = spelled.search("cache a function", alpha=0)
    assert (hit.dense_contribution, hit.lexical_contribution) == (None, hit.score)
    (hit, *_) = spelled.search("cache a function", alpha=1)
    assert (hit.dense_contribution, hit.lexical_contribution) == (hit.score, None)


def test_matched_lexemes_add_up_to_the_lexical_score(spelled):
    hits = spelled.search("memoizing a function of arguments", alpha=0)
    for hit in hits:
        assert sum(match.weight for match in hit.matched) == pytest.approx(hit.lexical_score, rel=1e-5)
        weights = [match.weight for match in hit.matched]
        assert weights == sorted(weights, reverse=True)
    assert {m.lexeme for m in hits[0].matched} == {"memoiz", "function", "argument"}


def test_other_lexical_legs_name_their_lexemes_without_weights(spelled):
    (hit, *_) = spelled.search("memoizing", alpha=0, lexical="ts_rank")
    assert hit.matched == (Match("memoiz"),)


def test_a_hit_of_the_dense_leg_alone_matched_nothing(spelled):
    hits = spelled.search("memoizing", alpha=0.5)
    assert {hit.matched for hit in hits if hit.lexical_rank is None} == {()}


def test_thousands_of_prefixes_are_refused(docs):
    assert found(docs, " ".join(f"qu{n}*" for n in range(31)) + " bro*") == {"quick", "brown", "fox"}
    with pytest.raises(InvalidInput, match=r"more than 32 words that end in \*"):
        docs.search(" ".join(f"qu{n}*" for n in range(33)))
    assert found(docs, " ".join(f"qu{n}*" for n in range(33)) + " bear", syntax="plain") == {"brown"}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"syntax": "lucene"}, "syntax is 'lucene', but must be one of web, plain"),
        ({"normalization": "z"}, "normalization is 'z', but must be one of max, minmax"),
        ({"budget": 0}, "budget is 0, but must be above 0"),
        ({"typos": "no"}, "typos is 'no'"),
    ],
)
def test_wrong_arguments_name_the_value_and_the_choice(spelled, argument, message):
    with pytest.raises(InvalidInput, match=message):
        spelled.search("x", **argument)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("syntax => 'lucene'", "syntax is 'lucene', but must be 'web' or 'plain'"),
        ("syntax => NULL", "syntax is NULL"),
        ("normalization => 'z'", "normalization is 'z', but must be 'max' or 'minmax'"),
    ],
)
def test_sql_names_them_too(spelled, dsn, arguments, message):
    with connect(dsn) as connection, pytest.raises(Exception, match=message):
        connection.execute(f"SELECT * FROM pgseek.search('spelled', 'x', {arguments})")
