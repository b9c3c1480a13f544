"""What becomes of a ranking after the fusion: boosts, least scores, diversity, repetitions, passages, feedback."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from support import CountingEmbedder, rows

from pgseek import Client, DimensionMismatch, InvalidInput, Search
from pgseek.db.connection import connect

WORDS = [f"word{n}" for n in range(30)]
SIZE = 120


@pytest.fixture(scope="module")
def filled(module_dsn):
    """A collection whose documents have ratings, dates, and some of them each other's vectors."""
    chosen = random.Random(7)
    texts = {f"d{n}": " ".join(chosen.choices(WORDS, k=12)) + f" number{n}" for n in range(SIZE)}
    embedder = CountingEmbedder(8)
    # Every tenth repeats the one before it, almost.
    for n in range(10, SIZE, 10):
        near = embedder._vector(texts[f"d{n - 1}"]) + 0.01
        embedder.given[texts[f"d{n}"]] = near / np.linalg.norm(near)
    with Client(module_dsn) as client:
        docs = client.create_collection("docs", embedder=embedder)
        docs.ingest(
            {
                "id": name,
                "text": text,
                "metadata": {
                    "rating": n % 5,
                    "pinned": n % 7 == 0,
                    "deep": {"at": f"20{n % 25:02d}-0{1 + n % 9}-1{n % 10}"},
                    **({"odd": [n]} if n % 2 else {}),
                },
            }
            for n, (name, text) in enumerate(texts.items())
        )
        yield docs


def everything(docs, query, **options):
    return docs.search(query, k=SIZE, candidates=SIZE, snippets=False, **options)


def boost(dsn, metadata, *boosts, at="2026-01-01T00:00:00Z"):
    (row,) = rows(
        dsn, "SELECT pgseek.boost(%s, %s, %s::timestamptz) AS factor", [Jsonb(metadata), Jsonb(boosts), at]
    )
    return row["factor"]


@pytest.mark.parametrize(
    ("metadata", "given_boost", "factor"),
    [
        ({"pinned": True}, {"when": "$.pinned == true", "factor": 3}, 3),
        ({"pinned": False}, {"when": "$.pinned == true", "factor": 3}, 1),
        ({}, {"when": "$.pinned == true", "factor": 0}, 1),
        ({"at": "2025-12-02"}, {"newer": "at", "half_life": 30}, 0.5),
        ({"at": "2025-12-02T00:00:00Z"}, {"newer": "at", "half_life": 30}, 0.5),
        ({"at": "2025-12-02T02:00:00+02:00"}, {"newer": "at", "half_life": 30}, 0.5),
        ({"at": "2025-12-01T19:00-0500"}, {"newer": "at", "half_life": 30}, 0.5),
        ({"at": 1764633600}, {"newer": "at", "half_life": 30}, 0.5),
        ({"deep": {"at": "2025-12-02"}}, {"newer": "deep.at", "half_life": 30}, 0.5),
        ({"at": "2025-12-02"}, {"newer": "at", "half_life": 30, "weight": 0.4}, 0.8),
        ({"at": "2027-01-01"}, {"newer": "at", "half_life": 30}, 1),
        ({"at": "1000-01-01"}, {"newer": "at", "half_life": 1}, 0),
        # Neither a date nor a number: as old as one half-life.
        ({"at": "last year"}, {"newer": "at", "half_life": 30}, 0.5),
        ({}, {"newer": "at", "half_life": 30}, 0.5),
        ({"at": "2020-01-01"}, {"newer": "at", "half_life": 365, "at": "2020-12-31"}, 0.5),
        ({"stars": 3}, {"field": "stars"}, 4),
        ({"stars": -3}, {"field": "stars"}, 0),
        ({"stars": 9}, {"field": "stars", "scale": "sqrt", "weight": 0.5}, 2.5),
        ({"stars": math.e - 1}, {"field": "stars", "scale": "log"}, 2),
        ({"stars": -1}, {"field": "stars", "scale": "log"}, 1),
        ({"stars": 10}, {"field": "stars", "scale": "saturate", "pivot": 10}, 1.5),
        ({"stars": "many"}, {"field": "stars"}, 1),
        ({"rating": 4}, {"expression": "1 + 0.25 * $.rating"}, 2),
        ({"rating": "x"}, {"expression": "1 + 0.25 * $.rating"}, 1),
        ({}, {"expression": "$.rating / 0"}, 1),
    ],
)
def test_a_boost_is_this_factor(dsn, metadata, given_boost, factor):
    assert boost(dsn, metadata, given_boost) == pytest.approx(factor, abs=1e-9)
    assert boost(dsn, metadata, given_boost, {"when": "1 == 1", "factor": 2}) == pytest.approx(2 * factor)


@pytest.mark.parametrize(
    ("metadata", "given_boost", "factor"),
    [
        # What no double precision holds, or no product of two.
        ({"stars": 10**400}, {"field": "stars"}, 1e100),
        ({"stars": 10**400}, {"field": "stars", "weight": -1}, 0),
        ({"stars": 1e300}, {"field": "stars", "weight": 1e300}, 1e100),
        ({"stars": 10**400}, {"expression": "$.stars"}, 1e100),
        ({"at": 10**400}, {"newer": "at", "half_life": 1}, 1),
        ({"at": -(10**400)}, {"newer": "at", "half_life": 1e-300}, 0),
    ],
)
def test_no_number_of_a_document_keeps_a_search_from_being_answered(dsn, metadata, given_boost, factor):
    assert boost(dsn, metadata, given_boost) == factor
    assert boost(dsn, metadata, given_boost, given_boost) == factor


@pytest.mark.parametrize(
    ("given_boost", "message"),
    [
        ({}, "is not one that can be computed"),
        (5, "is not one that can be computed"),
        ({"when": "$.a == 1"}, "needs a factor of 0 or more"),
        ({"when": "$.a == 1", "factor": -1}, "needs a factor of 0 or more"),
        ({"when": "$.a == 1", "factor": "2"}, "is not one that can be computed"),
        ({"when": "$.a ==", "factor": 2}, "syntax error"),
        ({"newer": "at"}, "needs a half_life above 0"),
        ({"newer": "at", "half_life": 0}, "needs a half_life above 0"),
        ({"newer": "at", "half_life": 1, "weight": 2}, "weight outside of 0..1"),
        ({"newer": "at", "half_life": 1, "at": "soon"}, '"at" that is not a date'),
        ({"field": "a", "scale": "cubic"}, "'cubic', but there are linear, sqrt, log and saturate"),
        ({"field": "a", "scale": "saturate"}, "needs a pivot above 0"),
        ({"field": "a", "half_life": 1}, "is not one that can be computed"),
    ],
)
def test_what_is_no_boost_is_refused_before_the_search(filled, given_boost, message):
    with pytest.raises(InvalidInput) as caught:
        filled.search("word1", boosts=[given_boost] if isinstance(given_boost, dict) else given_boost)
    assert message in str(caught.value) or "must be a list of mappings" in str(caught.value)


def test_boosts_reorder_all_candidates_by_score_times_factor(filled):
    boosts = [{"when": "$.pinned == true", "factor": 1.5}, {"expression": "1 + 0.1 * $.rating"}]
    plain = everything(filled, "word1 word2 word3")
    boosted = everything(filled, "word1 word2 word3", boosts=boosts)
    factors = {
        hit.id: (1.5 if hit.metadata["pinned"] else 1) * (1 + 0.1 * hit.metadata["rating"]) for hit in plain
    }
    for hit in boosted:
        assert hit.boost == pytest.approx(factors[hit.id])
        fused = hit.dense_contribution + hit.lexical_contribution
        assert hit.score == pytest.approx(fused * hit.boost if fused >= 0 else fused / hit.boost)
    expected = sorted(boosted, key=lambda hit: (-hit.score, hit.document_id.bytes))
    assert [hit.id for hit in boosted] == [hit.id for hit in expected]
    assert {hit.id for hit in boosted} == {hit.id for hit in plain}
    # The few that are asked for are the first of these, though the fusion had others before them.
    few = filled.search("word1 word2 word3", k=5, candidates=SIZE, snippets=False, boosts=boosts)
    assert few == boosted[:5]
    assert [hit.id for hit in few] != [hit.id for hit in plain[:5]]


@pytest.mark.parametrize(
    ("name", "of", "least"),
    [
        ("min_score", "score", 0.5),
        ("min_dense_score", "dense_score", 0.3),
        ("min_lexical_score", "lexical_score", 1.0),
    ],
)
def test_hits_below_a_least_score_are_left_out_and_no_others(filled, name, of, least):
    query = "word4 word5"
    kept = everything(filled, query, **{name: least})
    wanted = [hit.id for hit in everything(filled, query) if getattr(hit, of) >= least]
    assert 0 < len(wanted) < SIZE
    assert [hit.id for hit in kept] == wanted
    assert [hit.rank for hit in kept] == list(range(1, len(kept) + 1))


def vectors(dsn):
    found = rows(dsn, "SELECT document_id, embedding::text AS v FROM pgseek.embeddings_1")
    return {row["document_id"]: np.array(json.loads(row["v"])) for row in found}


def picked(hits, stored, k, diversity, same_from):
    """Return the ids that maximal marginal relevance picks, as its definition says."""
    near, chosen = dict.fromkeys([hit.id for hit in hits], 0.0), []
    while len(chosen) < k:
        left = [
            hit
            for hit in hits
            if hit not in chosen and (same_from is None or near[hit.id] < same_from - 1e-6)
        ]
        if not left:
            break
        top = hits[0].score
        best = max(left, key=lambda hit: (1 - diversity) * hit.score / top - diversity * near[hit.id])
        chosen.append(best)
        for hit in hits:
            near[hit.id] = max(near[hit.id], float(stored[hit.document_id] @ stored[best.document_id]))
    return [hit.id for hit in chosen]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True),
    diversity=st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]),
    same_from=st.sampled_from([None, 0.8, 0.99]),
    k=st.integers(1, 15),
)
def test_diversity_picks_as_its_definition_says(filled, module_dsn, query, diversity, same_from, k):
    text = " ".join(query)
    hits = everything(filled, text)
    found = filled.search(
        text,
        k=k,
        candidates=SIZE,
        snippets=False,
        diversity=diversity,
        near_duplicates=same_from,
    )
    assert [hit.id for hit in found] == picked(hits, vectors(module_dsn), k, diversity, same_from)
    assert [hit.rank for hit in found] == list(range(1, len(found) + 1))


def test_near_duplicates_are_left_out_and_named(filled, module_dsn):
    hits = everything(filled, "word6 word7", near_duplicates=0.97)
    stored = vectors(module_dsn)
    for one in hits:
        for other in hits:
            assert one is other or stored[one.document_id] @ stored[other.document_id] < 0.97
    named = [name for hit in hits for name in hit.duplicates]
    assert sorted([hit.id for hit in hits] + named) == sorted(
        hit.id for hit in everything(filled, "word6 word7")
    )
    assert named
    by_id = {hit.id: hit for hit in everything(filled, "word6 word7")}
    for hit in hits:
        for name in hit.duplicates:
            assert stored[hit.document_id] @ stored[by_id[name].document_id] >= 0.97 - 1e-6
            assert by_id[name].score <= hit.score


def test_what_has_no_vector_yet_repeats_nothing(filled, module_dsn):
    rows(
        module_dsn,
        "SELECT pgseek.put_documents('docs', %s)",
        [Jsonb([{"id": f"new{n}", "text": "fresh arrival"} for n in range(3)])],
    )
    try:
        hits = filled.search("fresh arrival", k=3, near_duplicates=0.5, diversity=0.3)
        assert {hit.id for hit in hits} == {"new0", "new1", "new2"}
        assert all(hit.dense_score is None for hit in hits)
    finally:
        filled.delete([f"new{n}" for n in range(3)])


def test_passages_and_the_text_around_a_hit(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), chunk_size=100)
    parts = [
        f"Paragraph {n} speaks of {topic} and of nothing else in the whole wide world."
        for n, topic in enumerate(["apples", "pears", "apples again", "plums", "apples at last", "figs"])
    ]
    text = "\n\n".join(parts)
    docs.ingest([{"id": "fruit", "text": text}, {"id": "other", "text": "Apples are mentioned here, too."}])
    hits = docs.search("apples", alpha=0, collapse=True, passages=2, neighbours=1)
    assert {hit.id for hit in hits} == {"fruit", "other"}
    (fruit,) = [hit for hit in hits if hit.id == "fruit"]
    assert [passage.text in parts for passage in fruit.other_passages] == [True, True]
    places = [fruit.ordinal, *(passage.ordinal for passage in fruit.other_passages)]
    assert sorted(places) == [0, 2, 4]
    assert [p.score for p in fruit.other_passages] == sorted(
        (p.score for p in fruit.other_passages), reverse=True
    )
    for passage in fruit.other_passages:
        assert passage.text == text[passage.char_start : passage.char_end]
    first, last = max(0, fruit.ordinal - 1), min(len(parts) - 1, fruit.ordinal + 1)
    assert fruit.context == text[text.index(parts[first]) : text.index(parts[last]) + len(parts[last])]
    (other,) = [hit for hit in hits if hit.id == "other"]
    assert (other.other_passages, other.context) == ((), other.text)
    # One is enough: the best.
    (only,) = docs.search("apples", alpha=0, collapse=True, passages=1, k=1)
    assert len(only.other_passages) == (1 if only.id == "fruit" else 0)
    assert docs.search("apples", alpha=0)[0].context is None


def test_feedback_finds_what_the_first_answers_have_in_common(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest(
        [
            {"id": "a", "text": "the feline called cat purrs"},
            {"id": "b", "text": "a cat, a small feline, sleeps"},
            {"id": "c", "text": "feline habits at night"},
            *({"id": f"x{n}", "text": f"nothing of interest in sentence {n}"} for n in range(20)),
        ]
    )
    assert {hit.id for hit in docs.search("cat", alpha=0)} == {"a", "b"}
    hits = docs.search("cat", alpha=0, feedback=2)
    assert {hit.id for hit in hits} >= {"a", "b", "c"}
    assert {hit.id for hit in hits[:2]} == {"a", "b"}
    (c,) = [hit for hit in hits if hit.id == "c"]
    assert [match.lexeme for match in c.matched] == ["felin"]
    # What must be there still must.
    assert {hit.id for hit in docs.search("+cat", alpha=0, feedback=2)} == {"a", "b"}
    # Nothing found, nothing learnt.
    assert docs.search("unicorn", alpha=0, feedback=2) == []


def test_feedback_moves_the_vector_towards_the_first_answers(client, dsn):
    embedder = CountingEmbedder(4, given={"q": [1, 0, 0, 0], "a": [0.8, 0.6, 0, 0], "b": [0.6, 0, 0.8, 0]})
    docs = client.create_collection("docs", embedder=embedder)
    docs.ingest([{"id": "a", "text": "a"}, {"id": "b", "text": "b"}])
    near = docs.search("q", alpha=1, feedback=1)
    wanted = np.array([1, 0, 0, 0]) + 0.3 * np.array([0.8, 0.6, 0, 0])
    wanted /= np.linalg.norm(wanted)
    assert [hit.id for hit in near] == ["a", "b"]
    assert near[0].dense_score == pytest.approx(wanted @ [0.8, 0.6, 0, 0], abs=1e-6)
    assert near[1].dense_score == pytest.approx(wanted @ [0.6, 0, 0.8, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diversity": 1.5}, "diversity is 1.5, but must lie in 0..1"),
        ({"diversity": True}, "diversity is True"),
        ({"near_duplicates": 0}, "near_duplicates is 0, but must be above 0"),
        ({"near_duplicates": 1.1}, "near_duplicates is 1.1"),
        ({"min_score": math.nan}, "min_score is nan, but must be a number"),
        ({"min_dense_score": "x"}, "min_dense_score is 'x'"),
        ({"passages": -1}, "passages is -1, but must be a whole number from 0 to 100"),
        ({"neighbours": 101}, "neighbours is 101"),
        ({"feedback": 1.5}, "feedback is 1.5"),
        ({"boosts": {"when": "x"}}, "boosts is {'when': 'x'}, but must be a list of mappings"),
        ({"boosts": "x"}, "boosts is 'x'"),
    ],
)
def test_wrong_options_are_told_before_anything_is_asked(options, message):
    with pytest.raises(InvalidInput) as caught:
        Search("x", **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("diversity => 2", "diversity is 2, but must lie in 0..1"),
        ("diversity => 'NaN'", "diversity is NaN, but must lie in 0..1"),
        ("near_duplicates => 0", "near_duplicates is 0, but must be above 0 and at most 1"),
        ("passages => NULL", "passages is NULL, but must be from 0 to 100"),
        ("neighbours => 101", "neighbours is 101, but must be from 0 to 100"),
        ("feedback => -1", "feedback is -1, but must be from 0 to 100"),
        ("boosts => '{}'", "boosts is {}, but must be an array of objects"),
    ],
)
def test_sql_callers_are_told_the_same(filled, module_dsn, arguments, message):
    with connect(module_dsn) as connection, pytest.raises(Exception) as caught:
        connection.execute(f"SELECT * FROM pgseek.search('docs', 'x', {arguments})")
    assert message in str(caught.value)


@pytest.mark.parametrize("weights", [None, [2.0, 1.0], [1.0, -0.5]])
def test_the_mean_of_vectors_is_the_sum_of_searches_by_each(module_dsn, filled, weights):
    given_vectors = [np.array([3, 1, 0, 0, 0, 0, 0, 1.0]), np.array([0, 0, 2, 1, 0, 0, 1, 0.0])]
    (row,) = rows(
        module_dsn,
        "SELECT pgseek.mean_embedding(%s::text[]::vector[], %s::real[])::text AS mean",
        [[str(vector.tolist()) for vector in given_vectors], weights],
    )
    mean = np.array(json.loads(row["mean"]))
    shares = np.array(weights or [1, 1]) / np.abs(weights or [1, 1]).sum()
    units = np.array([vector / np.linalg.norm(vector) for vector in given_vectors])
    assert mean == pytest.approx(shares @ units, abs=1e-6)
    stored = vectors(module_dsn)
    (one,) = filled.search("x", query_embedding=mean, alpha=1, k=1, model=str(filled.info().identity))
    assert one.document_id == max(
        stored, key=lambda key: float(sum(s * (u @ stored[key]) for s, u in zip(shares, units, strict=True)))
    )


def test_several_vectors_may_be_given(filled):
    several = np.array([[3, 1, 0, 0, 0, 0, 0, 1], [0, 0, 2, 1, 0, 0, 1, 0]], dtype=np.float32)
    model = str(filled.info().identity)
    units = several / np.linalg.norm(several, axis=1, keepdims=True)
    found = filled.search("x", query_embedding=several, alpha=1, model=model)
    mean = filled.search("x", query_embedding=units.mean(axis=0), alpha=1, model=model)
    assert [(hit.id, hit.dense_score) for hit in found] == [
        (hit.id, pytest.approx(hit.dense_score, abs=1e-6)) for hit in mean
    ]
    for wrong in (several[:, :5], np.zeros((0, 8)), several[None]):
        with pytest.raises(DimensionMismatch):
            filled.search("x", query_embedding=wrong, model=model)
    with pytest.raises(InvalidInput, match="zero or holds NaN"):
        filled.search("x", query_embedding=[several[0], np.zeros(8)], model=model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("'{}'::vector[]", "embeddings is empty"),
        ("ARRAY['[1,0]', NULL]::vector[]", "partly NULL"),
        ("ARRAY['[1,0]', '[1]']::vector[]", "vector 2 has 1 dimensions, but the first has 2"),
        ("ARRAY['[0,0]']::vector[]", "vector 1 is zero"),
        ("ARRAY['[1,0]', '[-1,0]']::vector[]", "the vectors cancel each other"),
        (
            "ARRAY['[1,0]']::vector[], '{1,2}'",
            "weights is {1,2}, but must be as many finite numbers as vectors (1)",
        ),
        ("ARRAY['[1,0]']::vector[], '{NaN}'", "weights is {NaN}"),
        ("ARRAY['[1,0]']::vector[], '{-Infinity}'", "weights is {-Infinity}"),
        ("ARRAY['[1,0]']::vector[], '{0}'", "weights is {0}"),
    ],
)
def test_vectors_without_a_mean_are_refused(module_dsn, call, message):
    with connect(module_dsn) as connection, pytest.raises(Exception) as caught:
        connection.execute(f"SELECT pgseek.mean_embedding({call})")
    assert message in str(caught.value)
