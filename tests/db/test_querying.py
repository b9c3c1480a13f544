"""Pages over one ranking, facets, similar documents, and explanations."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from support import CORPUS, CountingEmbedder, rows

from pgseek import AsyncClient, Client, EmbedderError, FacetValue, InvalidInput, Search, SearchTimeout
from pgseek.db.connection import connect

WORDS = [f"word{n}" for n in range(20)]
SIZE = 90


def document(number, chosen):
    metadata = {
        "kind": ["a", "b", "c"][number % 3],
        "tags": [f"t{n}" for n in range(number % 4)],
        "price": round(number * 1.5, 1),
        "at": f"20{20 + number % 3}-0{1 + number % 9}-01T10:00:00Z",
        "deep": {"flag": number % 2 == 0},
    }
    if number % 5 == 0:
        del metadata["kind"]
    return {"id": f"d{number}", "text": " ".join(chosen.choices(WORDS, k=8)), "metadata": metadata}


@pytest.fixture(scope="module")
def corpus():
    chosen = random.Random(3)
    return [document(number, chosen) for number in range(SIZE)]


@pytest.fixture(scope="module")
def filled(module_dsn, corpus):
    with Client(module_dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder(8))
        docs.ingest(corpus)
        yield docs


def pages(docs, query, size, between=lambda: None):
    """Return the hits of all pages, page by page."""
    found = [docs.search_page(query, size=size)]
    while found[-1].cursor is not None:
        between()
        found.append(docs.search_page(query, size=size, cursor=found[-1].cursor))
    return found


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True),
    k=st.integers(1, 60),
    size=st.integers(1, 25),
    options=st.sampled_from(
        [
            {},
            {"alpha": 0.0},
            {"alpha": 1.0},
            {"fusion": "rrf"},
            {"filter": {"kind": "a"}},
            {"diversity": 0.4},
            {"boosts": [{"field": "price", "scale": "log"}]},
            {"collapse": True, "min_score": 0.2},
        ]
    ),
)
def test_pages_together_are_the_search(filled, words, k, size, options):
    request = Search(" ".join(words), k=k, **options)
    found = pages(filled, request, size)
    hits = [hit for page in found for hit in page.hits]
    whole = filled.search(request.query, k=k, **options)
    assert [(hit.rank, hit.id, hit.text, hit.snippet, hit.matched) for hit in hits] == [
        (hit.rank, hit.id, hit.text, hit.snippet, hit.matched) for hit in whole
    ]
    # Scores went through the cursor in single precision.
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in whole], rel=1e-6)
    assert [len(page.hits) for page in found[:-1]] == [size] * (len(found) - 1)
    assert {page.total for page in found} == {len(whole)} or not whole


def test_pages_stay_disjoint_while_documents_are_written(client, corpus):
    docs = client.create_collection("docs", embedder=CountingEmbedder(8))
    docs.ingest(corpus)
    request = Search("word1 word2 word3", k=50)
    first = [hit.id for hit in docs.search(request.query, k=50)]
    numbers = iter(range(1000))

    def write():
        number = next(numbers)
        # New ones that would be first, an edit of one that is to come, one that goes.
        docs.ingest([{"id": f"new{number}", "text": "word1 word2 word3"}])
        docs.ingest([{"id": first[-1 - number], "text": "word1 word2 word3 word1 word2 word3"}])
        docs.delete(first[25 + number])

    found = pages(docs, request, 10, write)
    ids = [hit.id for page in found for hit in page.hits]
    assert len(set(ids)) == len(ids)
    assert not any(name.startswith("new") for name in ids)
    gone = {name for name in first if docs.get(name) is None}
    assert len(gone) == 4
    assert ids == [name for name in first if name not in gone or name in ids]
    assert len(ids) >= 50 - len(gone)
    assert [hit.rank for page in found for hit in page.hits] == [first.index(name) + 1 for name in ids]


def test_a_page_of_deleted_documents_is_passed_over(client, corpus):
    docs = client.create_collection("docs", embedder=CountingEmbedder(8))
    docs.ingest(corpus)
    request = Search("word1 word2", k=15)
    page = docs.search_page(request, size=5)
    order = [hit.id for hit in docs.search(request.query, k=15)]
    docs.delete(order[5:10])
    following = docs.search_page(request, size=5, cursor=page.cursor)
    assert ([hit.id for hit in following.hits], following.cursor) == (order[10:15], None)
    docs.delete(order[10:15])
    nothing = docs.search_page(request, size=5, cursor=page.cursor)
    assert (nothing.hits, nothing.cursor) == ((), None)


def test_what_the_filter_no_longer_keeps_is_not_shown(client, corpus):
    docs = client.create_collection("docs", embedder=CountingEmbedder(8))
    docs.ingest(corpus)
    request = Search("word1 word2", k=20, filter={"kind": "a"})
    page = docs.search_page(request, size=5)
    whole = [hit.id for hit in docs.search(request.query, k=20, filter=request.filter)]
    moved = docs.get(whole[7])
    docs.ingest([{"id": moved.id, "text": moved.text, "metadata": {"kind": "b"}}])
    ids = [hit.id for hit in docs.search_page(request, size=20, cursor=page.cursor).hits]
    assert ids == [name for name in whole[5:] if name != moved.id]
    # A forged cursor shows nothing beyond the filter either.
    frozen = json.loads(base64.b64decode(page.cursor))
    other = next(one["id"] for one in corpus if one["metadata"].get("kind") == "b")
    (key,) = rows(docs._client._dsn.get_secret_value(), "SELECT pgseek.document_id(%s) AS id", [other])
    frozen["hits"][0][0] = str(key["id"])
    forged = base64.b64encode(json.dumps(frozen).encode()).decode()
    assert other not in {hit.id for hit in docs.search_page(request, size=20, cursor=forged).hits}


def test_cursors_of_other_searches_and_broken_ones_are_refused(filled):
    request = Search("word1 word2", k=20)
    cursor = filled.search_page(request, size=5).cursor
    for other in (
        Search("word1", k=20),
        Search("word1 word2", k=21),
        Search("word1 word2", k=20, filter={"kind": "a"}),
    ):
        with pytest.raises(InvalidInput, match="the cursor is of another search"):
            filled.search_page(other, size=5, cursor=cursor)
    changed = base64.b64encode(b'{"asked": 1, "hits": [[1]], "total": 1}').decode()
    for broken in (
        "",
        "x",
        "!!!",
        cursor[: len(cursor) // 2],
        changed,
        base64.b64encode(b"\xff\xfe").decode(),
    ):
        with pytest.raises(InvalidInput, match="the cursor cannot be read"):
            filled.search_page(request, size=5, cursor=broken)
    # Other texts with the same ranking are no other search.
    shown = Search("word1 word2", k=20, snippets=False, neighbours=1)
    assert filled.search_page(shown, size=5, cursor=cursor).hits[0].snippet is None


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        ("x", {"size": 0}, "size is 0, but must be a whole number from 1 to 1,000"),
        (Search("x", k=2001), {}, "k is 2001, but a cursor holds at most 2000 hits"),
        (Search("x", passages=1), {}, "passages is 1, but pages do not keep the other candidates"),
        (Search("x", filter="$.a == 1"), {"filter": {"b": 1}}, "filter is given twice"),
    ],
)
def test_pages_that_cannot_be(filled, query, options, message):
    with pytest.raises(InvalidInput, match=message):
        filled.search_page(query, **options)


# Facets.


def counts(facet):
    return {value.value: value.documents for value in facet.values}


def test_facets_count_the_documents_that_a_filter_keeps(filled, corpus):
    found = filled.facets(None, ["kind", "tags", "deep.flag", "at:year", "at:month", "none"], over="filter")
    assert (found.over, found.statement, found.documents, found.complete) == (
        "filter",
        "documents",
        SIZE,
        True,
    )
    kinds = Counter(one["metadata"].get("kind") for one in corpus)
    assert found.facets["kind"].missing == kinds.pop(None)
    assert counts(found.facets["kind"]) == kinds
    tags = Counter(tag for one in corpus for tag in one["metadata"]["tags"])
    assert counts(found.facets["tags"]) == tags
    assert [value.documents for value in found.facets["tags"].values] == sorted(tags.values(), reverse=True)
    assert counts(found.facets["deep.flag"]) == Counter(one["metadata"]["deep"]["flag"] for one in corpus)
    assert counts(found.facets["at:year"]) == Counter(one["metadata"]["at"][:4] for one in corpus)
    months = found.facets["at:month"].values
    assert [value.value for value in months] == sorted({one["metadata"]["at"][:7] for one in corpus})
    assert (found.facets["none"].values, found.facets["none"].missing) == ((), SIZE)
    kept = filled.facets(None, ["kind"], over="filter", filter={"price": {"$gte": 90}})
    assert kept.documents == sum(one["metadata"]["price"] >= 90 for one in corpus)
    assert kept.statement == "documents that the filter keeps"


def test_only_so_many_values_are_shown(filled, corpus):
    facet = filled.facets(None, ["kind:1"], over="filter").facets["kind:1"]
    kinds = Counter(one["metadata"].get("kind") for one in corpus)
    missing = kinds.pop(None)
    (best,) = kinds.most_common(1)
    assert facet.values[0].documents == best[1]
    assert (len(facet.values), facet.others, facet.missing) == (1, SIZE - missing - best[1], missing)


@pytest.mark.parametrize("buckets", [1, 4, 10])
def test_a_histogram_holds_every_number_once(filled, corpus, buckets):
    name = f"price:histogram:{buckets}"
    facet = filled.facets(None, [name], over="filter").facets[name]
    prices = [one["metadata"]["price"] for one in corpus]
    expected, edges = np.histogram(prices, bins=buckets)
    assert [value.documents for value in facet.values] == expected.tolist()
    assert [value.value for value in facet.values] == pytest.approx(edges[:-1].tolist())
    assert [value.to for value in facet.values] == pytest.approx(edges[1:].tolist())
    same = filled.facets(None, ["price:histogram"], over="filter", filter={"price": 15}).facets
    assert same["price:histogram"].values == (FacetValue(15, 1, 15),)


def test_facets_over_the_lexical_matches_and_over_the_candidates(filled, corpus):
    found = filled.facets("word1 word2", ["kind"])
    having = [one for one in corpus if {"word1", "word2"} & set(one["text"].split())]
    assert (found.documents, found.statement) == (len(having), "documents with a word of the query")
    assert counts(found.facets["kind"]) == Counter(
        one["metadata"]["kind"] for one in having if "kind" in one["metadata"]
    )
    both = filled.facets("+word1 +word2", ["kind"], filter={"deep.flag": True})
    assert both.documents == sum(
        {"word1", "word2"} <= set(one["text"].split()) and one["metadata"]["deep"]["flag"] for one in corpus
    )
    request = Search("word1 word2", candidates=10)
    among = filled.facets(request, ["kind"], over="candidates")
    candidates = filled.search("word1 word2", k=SIZE, candidates=SIZE)
    ids = {hit.id for hit in candidates if min(hit.dense_rank or 99, hit.lexical_rank or 99) <= 10}
    assert (among.documents, among.statement) == (len(ids), "documents among the candidates of the search")
    assert filled.facets("unknownword", ["kind"]).documents == 0
    few = filled.facets(None, [], over="filter", most=5)
    assert (few.documents, few.complete) == (5, False)


@pytest.mark.parametrize(
    ("query", "facets", "options", "message"),
    [
        ("x", ["a:"], {}, "the facet 'a:' cannot be read"),
        ("x", ["price:histgram"], {}, "the facet 'price:histgram' cannot be read"),
        ("x", ["a..b"], {}, "the facet 'a..b' cannot be read"),
        ("x", [""], {}, "the facet '' cannot be read"),
        ("x", "kind", {}, "facets is 'kind', but must be a list"),
        ("x", [], {"over": "all"}, "over is 'all', but must be one of lexical, candidates, filter"),
        (None, [], {}, "there is no query; count over='filter'"),
        ("x", [], {"most": 0}, "most is 0"),
    ],
)
def test_facets_that_cannot_be(filled, query, facets, options, message):
    with pytest.raises(InvalidInput, match=message):
        filled.facets(query, facets, **options)


def test_a_field_with_colons_and_quotes_is_a_facet(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest([{"id": "a", "text": "x", "metadata": {"o'b:c": 1, 'q"': {"r s": "v"}}}])
    found = docs.facets(None, ["o'b:c:values", 'q".r s'], over="filter").facets
    assert counts(found["o'b:c:values"]) == {1: 1}
    assert counts(found['q".r s']) == {"v": 1}


# Similar documents.


def test_the_most_similar_by_vectors_are_the_nearest(filled, module_dsn):
    stored = {
        row["id"]: np.array(json.loads(row["v"]))
        for row in rows(
            module_dsn,
            "SELECT d.external_id AS id, e.embedding::text AS v FROM pgseek.embeddings_1 e"
            " JOIN pgseek.documents d USING (collection_id, document_id)",
        )
    }
    found = filled.similar("d4", k=5, alpha=1)
    expected = sorted((name for name in stored if name != "d4"), key=lambda n: -(stored[n] @ stored["d4"]))
    assert [hit.id for hit in found] == expected[:5]
    assert [hit.rank for hit in found] == [1, 2, 3, 4, 5]
    assert found[0].dense_score == pytest.approx(stored[expected[0]] @ stored["d4"], abs=1e-5)
    kept = filled.similar("d4", k=5, alpha=1, filter={"kind": "a"})
    assert {hit.metadata["kind"] for hit in kept} == {"a"}


def test_the_most_similar_by_words_share_the_weightiest(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest(CORPUS)
    found = docs.similar("lru_cache", alpha=0, k=3)
    assert "lru_cache" not in {hit.id for hit in found}
    assert found[0].id == "reduce"
    assert {match.lexeme for match in found[0].matched} >= {"function", "argument"}
    assert len({hit.id for hit in docs.similar("lru_cache")}) == len(CORPUS) - 1
    with pytest.raises(InvalidInput, match="collection 'docs' has no document 'nope'"):
        docs.similar("nope")
    with pytest.raises(InvalidInput, match="k is 0"):
        docs.similar("lru_cache", k=0)
    with pytest.raises(InvalidInput, match="the id holds a NUL byte at character 1"):
        docs.similar("l\0ru")


def test_a_document_without_a_vector_is_compared_by_words(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest(CORPUS)
    rows(dsn, "SELECT pgseek.put_document('docs', 'new', 'saves the results of a function')")
    (first, *_) = docs.similar("new")
    assert first.id == "lru_cache"
    assert first.degraded == "lexical only: the document has no embedding yet"


# Explanations.


def test_an_explanation_says_what_the_search_did(filled, corpus):
    made = filled.explain(Search("word1 word2 zzz", k=3, filter={"kind": "a"}))
    hits = filled.search("word1 word2 zzz", k=3, filter={"kind": "a"})
    assert [(hit["rank"], hit["external_id"], hit["score"]) for hit in made.hits] == [
        (hit.rank, hit.id, hit.score) for hit in hits
    ]
    assert (made.options["k"], made.options["alpha"], made.options["fusion"]) == (3, 0.4, "weighted")
    assert made.space == "tests:hash@8 (space 1)"
    found = {word["lexeme"]: word for word in made.words}
    assert found["word1"]["chunks"] == sum("word1" in one["text"].split() for one in corpus)
    assert made.unknown_words == ["zzz"]
    assert made.matching == sum(one["metadata"].get("kind") == "a" for one in corpus)
    assert made.dense == {"found": made.matching, "exact": True}
    assert made.lexical["exact"]
    assert set(made.milliseconds) == {"read", "fuse", "shape", "show"}
    assert all(value >= 0 for value in made.milliseconds.values())
    assert filled.explain(Search("word1", alpha=0)).dense is None
    assert filled.explain(Search("word1", diversity=0.5)).fused > 10


def test_an_explanation_names_what_a_word_stands_for(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest(CORPUS)
    made = docs.explain("suppress exceptoin +cach*")
    origins = {word["lexeme"]: word.get("origin") for word in made.words}
    assert origins == {"suppress": None, "except": "exceptoin", "cach": "cach*"}
    assert made.restriction == "'cach':*"


def test_the_async_client_answers_the_same(filled, module_dsn):
    async def ask():
        async with AsyncClient(module_dsn) as client:
            docs = await client.collection("docs", embedder=CountingEmbedder(8))
            page = await docs.search_page("word1", size=3)
            return (
                page,
                await docs.search_page("word1", size=3, cursor=page.cursor),
                await docs.facets("word1", ["kind"]),
                await docs.similar("d1"),
                (await docs.explain("word1")).hits,
            )

    first = filled.search_page("word1", size=3)
    assert asyncio.run(ask()) == (
        first,
        filled.search_page("word1", size=3, cursor=first.cursor),
        filled.facets("word1", ["kind"]),
        filled.similar("d1"),
        filled.explain("word1").hits,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alhpa": 1}, "unknown options: 'alhpa'"),
        ({"k": "many"}, 'k is "many", but must be a whole number from 1 to 10000'),
        ({"k": 2.5}, "k is 2.5"),
        ({"alpha": "high"}, "alpha is high, but must be a number"),
        ({"collapse": "yes"}, "collapse is yes, but must be true or false"),
        ({"space": "a"}, 'space is "a", but must be a whole number'),
        ({"min_score": "NaN"}, "min_score is NaN, but must be a number"),
        (
            {"filter": "$.a =="},
            'filter is "$.a ==", but must be the text of a jsonpath predicate: syntax error',
        ),
        ({"filter": {"a": 1}}, 'filter is {"a": 1}, but must be the text of a jsonpath predicate'),
        ({"filter": 3}, "filter is 3, but must be the text of a jsonpath predicate"),
        ({"boosts": [{"when": "$.a ==", "factor": 2}]}, "which cannot be computed: syntax error"),
        ({"boosts": [1]}, "the boost 1 is not one that can be computed"),
        ([], "options is [], but must be an object"),
    ],
)
def test_options_of_sql_callers_are_checked(filled, module_dsn, options, message):
    with pytest.raises(Exception) as caught:
        rows(module_dsn, "SELECT pgseek.explain('docs', 'x', options => %s)", [Jsonb(options)])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("call", "state", "message"),
    [
        # Told of what was given, not of what became of it.
        ("similar('docs', 'd1', options => '[]')", "PGS02", "options is [], but must be an object"),
        ("similar('docs', 'd1', options => NULL)", "PGS02", "options is NULL, but must be an object"),
        (
            "similar('docs', 'd1', options => '{\"space\": \"a\"}')",
            "PGS02",
            'space is "a", but must be a whole',
        ),
        ("search_page('docs', 'x', options => '3')", "PGS02", "options is 3, but must be an object"),
        ("search('docs', 'x', space => 99)", "PGS05", "by space 99: it has no such space"),
        ("search('docs', 'x', budget => 'NaN')", "PGS02", "budget is NaN, but must be a number"),
        ("reweigh('docs', k1 => -1)", "PGS02", "k1 is -1, but must lie in 0..100"),
        ("reweigh('docs', b => 'NaN')", "PGS02", "b is NaN, but must lie in 0..1"),
        ("reweigh('docs', title_weight => 0)", "PGS02", "title_weight is 0, but must lie in 1..100"),
    ],
)
def test_sql_callers_are_told_what_is_wrong(filled, module_dsn, call, state, message):
    with pytest.raises(psycopg.Error) as caught:
        rows(module_dsn, f"SELECT * FROM pgseek.{call}")
    assert (caught.value.sqlstate, message in str(caught.value)) == (state, True), caught.value


def test_a_document_without_vectors_has_no_dense_likes(client, dsn):
    client.create_collection("docs", embedder=CountingEmbedder())
    rows(dsn, "SELECT pgseek.put_document('docs', 'one', 'words')")
    with pytest.raises(psycopg.Error, match="document 'one' has no embedding yet"):
        rows(dsn, """SELECT * FROM pgseek.similar('docs', 'one', options => '{"alpha": 1}')""")


def test_an_explanation_says_when_no_leg_can_answer(client, dsn):
    client.create_collection("docs", embedder=CountingEmbedder())
    (row,) = rows(dsn, "SELECT pgseek.explain('docs', 'the') AS made")
    assert row["made"]["degraded"].startswith("no leg can answer: the query holds no lexeme in english")


# Limits and failures.


class Failing(CountingEmbedder):
    """An embedder that works until it is told not to."""

    down = False

    def embed_query(self, text):
        if self.down:
            raise EmbedderError("no route to host")
        return super().embed_query(text)


def test_words_answer_where_the_client_lets_them(dsn, corpus):
    embedder = Failing(8)
    with Client(dsn, on_embedder_error="lexical") as client:
        docs = client.create_collection("docs", embedder=embedder)
        docs.ingest(corpus)
        embedder.down = True
        page = docs.search_page("word1 word2", size=3)
        assert {hit.degraded.split(":")[0] for hit in page.hits} == {"lexical only"}
        following = docs.search_page("word1 word2", size=3, cursor=page.cursor)
        assert {hit.degraded.split(":")[0] for hit in following.hits} == {"lexical only"}
        assert docs.explain("word1").degraded.startswith("lexical only")
    with Client(dsn) as client:
        docs = client.collection("docs", embedder=embedder)
        for ask in (docs.search_page, docs.explain):
            with pytest.raises(EmbedderError, match="no route to host"):
                ask("word1 word2")
        # What needs no vector is answered.
        assert docs.search_page("word1 word2", size=3, cursor=page.cursor).hits == following.hits
        assert docs.facets("word1", ["kind"]).documents > 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda docs, **more: docs.search_page("word1", **more),
        lambda docs, **more: docs.facets("word1", ["kind"], **more),
        lambda docs, **more: docs.explain("word1", **more),
        lambda docs, **more: docs.similar("d1", **more),
    ],
    ids=["search_page", "facets", "explain", "similar"],
)
def test_each_has_a_time_limit(filled, module_dsn, ask):
    assert ask(filled, timeout=60) is not None
    with pytest.raises(SearchTimeout, match=r"took longer than its timeout of 1e-06 s"):
        ask(filled, timeout=1e-6)
    # Who holds the table keeps the statement waiting until the server ends it.
    with connect(module_dsn) as holder, holder.transaction():
        holder.execute("LOCK pgseek.collections")
        with pytest.raises(SearchTimeout, match=r"timeout of 0.4 s"):
            ask(filled, timeout=0.4)
    assert ask(filled) is not None
