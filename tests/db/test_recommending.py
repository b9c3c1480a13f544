"""Recommendations: both strategies against an independent computation, histories, what is left out, and where it holds."""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
from datetime import UTC, date, datetime, timedelta

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb
from support import CORPUS, CountingEmbedder, rows

from pgseek import AsyncClient, Client, CollectionNotFound, Event, InvalidInput, SearchTimeout, SpaceMismatch
from pgseek.db.connection import connect

SIZE = 80
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def filled(module_dsn):
    chosen = random.Random(5)
    with Client(module_dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder(8))
        docs.ingest(
            {
                "id": f"d{n}",
                "text": f"text {n} " + " ".join(chosen.choices(["a", "b", "c"], k=5)),
                "metadata": {"kind": "even" if n % 2 == 0 else "odd", "stars": n % 5},
            }
            for n in range(SIZE)
        )
        yield docs


@pytest.fixture(scope="module")
def stored(module_dsn, filled):
    found = rows(
        module_dsn,
        "SELECT d.external_id AS id, e.embedding::text AS v FROM pgseek.embeddings_1 e"
        " JOIN pgseek.documents d USING (collection_id, document_id)",
    )
    return {row["id"]: np.array(json.loads(row["v"])) for row in found}


def unit(vector):
    return vector / np.linalg.norm(vector)


def best(scores, left_out, k=10):
    """The ids with the highest scores."""
    return sorted((name for name in scores if name not in left_out), key=lambda name: -scores[name])[:k]


def rocchio(stored, liked, disliked=(), share=0.2, weights=None):
    weights = weights or {}
    vector = np.average([stored[n] for n in liked], axis=0, weights=[weights.get(n, 1) for n in liked])
    if disliked:
        vector = vector - share * np.mean([stored[n] for n in disliked], axis=0)
    return {name: float(unit(vector) @ one) for name, one in stored.items()}


def best_score(stored, liked, disliked=(), weights=None):
    weights = weights or {}
    scores = {}
    for name, vector in stored.items():
        near = {one: float(stored[one] @ vector) for one in liked}
        if all(float(stored[one] @ vector) <= max(near.values()) for one in disliked):
            weighted = [s * w if s >= 0 else s / w for one, s in near.items() for w in [weights.get(one, 1)]]
            scores[name] = max(weighted)
    return scores


# The strategies.


@pytest.mark.parametrize("disliked", [[], ["d3"], ["d3", "d4", "d5"]])
@pytest.mark.parametrize("share", [None, 0.0, 0.7])
def test_rocchio_is_near_the_mean_of_the_liked_and_away_from_the_disliked(filled, stored, disliked, share):
    liked = ["d0", "d1", "d2"]
    scores = rocchio(stored, liked, disliked, 0.2 if share is None else share)
    found = filled.recommend(liked, disliked, disliked_weight=share)
    assert [hit.id for hit in found] == best(scores, liked + disliked)
    assert [hit.rank for hit in found] == list(range(1, 11))
    for hit in found:
        assert hit.dense_score == pytest.approx(scores[hit.id], abs=1e-5)
        assert hit.score == pytest.approx(scores[hit.id] / scores[found[0].id], abs=1e-5)
    assert found[0].lexical_score is None
    assert found[0].degraded is None


@pytest.mark.parametrize("disliked", [[], ["d3"], [f"d{n}" for n in range(3, 12)]])
def test_best_score_is_near_any_liked_one_and_nearer_than_to_all_disliked(filled, stored, disliked):
    liked = ["d0", "d1", "d2"]
    scores = best_score(stored, liked, disliked)
    found = filled.recommend(liked, disliked, strategy="best_score", k=SIZE)
    assert [hit.id for hit in found] == best(scores, liked + disliked, SIZE)
    assert all(hit.dense_score == pytest.approx(scores[hit.id], abs=1e-5) for hit in found)
    # The disliked turn some away, the more of them the more.
    assert (len(found) < SIZE - len(liked) - len(disliked)) == bool(disliked)


def test_a_single_liked_one_is_a_search_for_its_likes(filled):
    similar = [hit.id for hit in filled.similar("d7", alpha=1)]
    for strategy in ("rocchio", "best_score"):
        assert [hit.id for hit in filled.recommend("d7", strategy=strategy)] == similar


@pytest.mark.parametrize("metric", ["l2", "l1", "inner_product"])
def test_other_metrics_compare_by_their_own_distance(client, metric):
    rng = np.random.default_rng(2)
    given = {f"t{n}": rng.normal(size=4) * (1 + n % 3) for n in range(40)}
    embedder = CountingEmbedder(4, given=given)
    embedder.identity = type(embedder.identity)("tests", "given", 4, normalized=False)
    docs = client.create_collection("docs", embedder=embedder, metric=metric)
    docs.ingest({"id": name, "text": name} for name in given)
    liked, disliked = ["t0", "t1"], ["t2"]

    def similarity(a, b):
        order = {"l2": 2, "l1": 1}.get(metric)
        return float(a @ b) if order is None else 1 / (1 + float(np.linalg.norm(a - b, ord=order)))

    mean, away = np.mean([given[n] for n in liked], axis=0), given["t2"]
    asked = mean - 0.2 * away if metric == "inner_product" else mean + 0.2 * (mean - away)
    scores = {name: similarity(asked, vector) for name, vector in given.items()}
    assert [hit.id for hit in docs.recommend(liked, disliked)] == best(scores, liked + disliked)
    near = {name: max(similarity(given[one], vector) for one in liked) for name, vector in given.items()}
    kept = {name: score for name, score in near.items() if similarity(away, given[name]) <= score}
    found = docs.recommend(liked, disliked, strategy="best_score")
    assert [hit.id for hit in found] == best(kept, liked + disliked)
    plain = docs.recommend(["t0"])
    assert [hit.id for hit in plain] == best(
        {name: similarity(given["t0"], vector) for name, vector in given.items()}, ["t0"]
    )


def test_filters_boosts_and_diversity_are_those_of_a_search(filled, stored):
    liked = ["d0", "d1"]
    scores = rocchio(stored, liked)
    for strategy, of in (("rocchio", scores), ("best_score", best_score(stored, liked))):
        found = filled.recommend(liked, filter={"kind": "odd"}, strategy=strategy)
        odd = [f"d{n}" for n in range(0, SIZE, 2)]
        assert [hit.id for hit in found] == best(of, liked + odd)
    boosted = filled.recommend(liked, boosts=[{"when": "$.stars == 4", "factor": 5}])
    assert boosted[0].metadata["stars"] == 4
    assert boosted[0].boost == 5
    diverse = [hit.id for hit in filled.recommend(liked, diversity=0.7)]
    assert diverse[0] == best(scores, liked)[0]
    assert diverse != best(scores, liked)

    def repeats(names):
        return np.mean([stored[a] @ stored[b] for a in names for b in names if a < b])

    assert repeats(diverse) < repeats(best(scores, liked)) - 0.1
    least = filled.recommend(liked, k=SIZE, min_dense_score=0.5)
    assert [hit.id for hit in least] == [n for n in best(scores, liked, SIZE) if scores[n] >= 0.5]


def test_each_document_comes_once_unless_told_otherwise(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), chunk_size=40, chunk_overlap=0)
    text = "One sentence of the text. Another sentence of the text. A third sentence of the text."
    docs.ingest([{"id": name, "text": f"{text} {name}."} for name in "abc"])
    assert sorted(hit.id for hit in docs.recommend("a")) == ["b", "c"]
    assert len(docs.recommend("a", collapse=False)) > 2
    assert "a" not in {hit.id for hit in docs.recommend("a", collapse=False, k=50)}


# What is left out.


def test_everything_seen_is_left_out_however_much_it_is(filled, stored):
    scores = rocchio(stored, ["d0"])
    seen = best(scores, ["d0"], 60)
    others = [f"nobody{n}" for n in range(20_000)]
    for strategy in ("rocchio", "best_score"):
        found = filled.recommend("d0", exclude=[*seen, *others], strategy=strategy)
        assert [hit.id for hit in found] == best(scores, ["d0", *seen])
        found = filled.recommend("d0", exclude=seen, filter={"kind": "even"}, strategy=strategy)
        odd = {f"d{n}" for n in range(1, SIZE, 2)}
        assert [hit.id for hit in found] == best(scores, {"d0", *seen, *odd})
    assert filled.recommend("d0", exclude=list(stored)) == []
    looked_at = [Event(name, weight=0) for name in seen]
    assert [hit.id for hit in filled.recommend("d0", history=looked_at)] == best(scores, ["d0", *seen])


# Histories.


def test_a_history_counts_by_its_age(filled, stored):
    days = {"d0": 0, "d1": 30, "d2": 60}
    history = [(name, NOW - timedelta(days=age)) for name, age in days.items()]
    weights = {name: 0.5 ** (age / 30) for name, age in days.items()}
    liked = list(days)
    expected = best(rocchio(stored, liked, weights=weights), liked)
    for half_life in (timedelta(days=30), 30 * 86400, "30 days"):
        found = filled.recommend(history=history, half_life=half_life, now=NOW)
        assert [hit.id for hit in found] == expected
    # Years later nothing of it has changed, but for what is new.
    later = filled.recommend(history=history, half_life="30 days", now=NOW + timedelta(days=5000))
    assert [hit.id for hit in later] == expected
    found = filled.recommend(history=history, half_life="30 days", now=NOW, strategy="best_score")
    assert [hit.id for hit in found] == best(best_score(stored, liked, weights=weights), liked)
    unaged = filled.recommend(history=history)
    assert [hit.id for hit in unaged] == best(rocchio(stored, liked), liked)


def test_events_add_up_and_may_be_dislikes(filled, stored):
    history = [
        {"id": "d0", "at": "2026-02-01", "weight": 2},
        {"id": "d0", "at": date(2026, 2, 1), "weight": 1},
        Event("d1", NOW.timestamp()),
        Event("d2", NOW, weight=-1),
        # Liked once and disliked once: seen.
        Event("d3", NOW),
        Event("d3", NOW, weight=-1),
        # Not yet over, or by another clock.
        Event("d4", NOW + timedelta(days=3)),
    ]
    age = (NOW - datetime(2026, 2, 1, tzinfo=UTC)).days
    weights = {"d0": 3 * 0.5 ** (age / 7), "d1": 1, "d4": 1}
    scores = rocchio(stored, list(weights), ["d2"], weights=weights)
    found = filled.recommend(history=history, half_life="7 days", now="2026-03-01T00:00:00Z")
    assert [hit.id for hit in found] == best(scores, [f"d{n}" for n in range(5)])


def test_a_liked_one_beside_a_history_is_of_today(filled, stored):
    history = [("d1", NOW - timedelta(days=10))]
    found = filled.recommend("d0", history=history, half_life="10 days", now=NOW)
    assert [hit.id for hit in found] == best(rocchio(stored, ["d0", "d1"], weights={"d1": 0.5}), ["d0", "d1"])


def test_what_is_very_old_is_seen_and_no_more(filled, stored):
    history = [("d1", "1990-01-01")]
    found = filled.recommend("d0", history=history, half_life=1, now=NOW)
    assert [hit.id for hit in found] == best(rocchio(stored, ["d0"]), ["d0", "d1"])


def test_a_table_of_events_becomes_a_history_in_sql(filled, stored, module_dsn):
    rows(
        module_dsn,
        "CREATE TABLE IF NOT EXISTS views (reader integer, page text, at timestamptz, stars integer)",
    )
    rows(
        module_dsn,
        "INSERT INTO views VALUES (1, 'd0', '2026-02-20 10:00+01', 5), (1, 'd1', '2026-01-01', 4), (1, 'd2', '2026-02-28', 1),"
        " (2, 'd9', '2026-02-01', 5)",
    )
    found = rows(
        module_dsn,
        "SELECT r.external_id FROM pgseek.recommend('docs', options => jsonb_build_object('half_life', '14 days',"
        " 'now', %s::timestamptz, 'history', (SELECT jsonb_agg(jsonb_build_object('id', v.page, 'at', v.at, 'weight', v.stars - 3))"
        " FROM views v WHERE v.reader = 1))) AS r",
        [NOW],
    )
    weights = {"d0": 2 * 0.5 ** (8.625 / 14), "d1": 0.5 ** (59 / 14)}
    scores = rocchio(stored, ["d0", "d1"], ["d2"], weights=weights)
    assert [row["external_id"] for row in found] == best(scores, ["d0", "d1", "d2"])


# What cannot be.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing is liked: liked is empty, and history has no event of a stored document"),
        ({"disliked": "d1"}, "nothing is liked: what is disliked alone tells what to keep away from"),
        ({"history": [Event("d1", weight=-1)]}, "nothing is liked: what is disliked alone"),
        ({"history": [Event("d1", weight=0)]}, "nothing is liked: liked is empty"),
        ({"liked": ["d1", "nope", "no"]}, "collection 'docs' has no document 'no', 'nope'"),
        ({"liked": "d1", "disliked": "nope"}, "collection 'docs' has no document 'nope'"),
        ({"liked": "d1", "history": [Event("nope")]}, "has no document 'nope'"),
        ({"liked": [f"no{n}" for n in range(9)]}, "'no4', nor 4 more"),
        (
            {"liked": "no", "on_missing": "ignore"},
            "nothing is liked: liked is empty, and history has no event",
        ),
        ({"liked": "d1", "on_missing": "skip"}, "on_missing is 'skip', but must be 'raise' or 'ignore'"),
        ({"liked": ["d1", "d2"], "disliked": ["d2"]}, "'d2' is both liked and disliked"),
        ({"liked": "d1", "k": 0}, "k is 0, but must be a whole number from 1 to 1,000"),
        ({"liked": "d1", "strategy": "mean"}, "strategy is 'mean', but must be 'rocchio' or 'best_score'"),
        ({"liked": "d1", "disliked_weight": 1.5}, r"disliked_weight is 1.5, but must lie in 0\.\.1"),
        ({"liked": [1]}, "liked holds 1, but must hold ids of documents"),
        ({"liked": 1}, "liked is 1, but must be a document's id or several"),
        ({"liked": "d\0"}, "an id of liked holds a NUL byte at character 1"),
        ({"liked": "d1", "exclude": ["d\ud800"]}, "an id of exclude holds a lone surrogate at character 1"),
        ({"history": [Event("d\0")]}, "an id of history holds a NUL byte"),
        ({"liked": "d1", "half_life": "soon"}, 'half_life is "soon", but must be a number of seconds'),
        ({"liked": "d1", "half_life": 0}, "half_life is 0, but must be a number of seconds above 0"),
        ({"liked": "d1", "half_life": -3.0}, "half_life is -3.0"),
        ({"liked": "d1", "now": "today"}, 'now is "today", but must be a date and time'),
        ({"history": ["d1"]}, "history holds 'd1', which is no event"),
        ({"history": [{"id": "d1", "when": 3}]}, "which is no event"),
        ({"history": [Event("d1", weight=float("nan"))]}, "which is no event"),
        ({"history": [Event("d1")], "half_life": 5}, 'the event .*"d1".* of history cannot be read'),
        ({"history": [Event("d1", at="soon")]}, "the event .* of history cannot be read"),
        ({"history": [Event("d1", weight=1e10)]}, "the event .* of history cannot be read"),
        ({"liked": "d1", "diversity": 2}, "diversity is 2"),
    ],
)
def test_what_cannot_be_is_told(filled, arguments, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        filled.recommend(**arguments)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("'{d1,NULL}'", "liked holds NULL"),
        ("'{d1}', options => '[]'", "options is [], but must be an object"),
        ("'{d1}', options => NULL", "options is NULL, but must be an object"),
        ("'{d1}', k => NULL", "k is NULL, but must be from 1 to 1000"),
        ("""'{d1}', options => '{"alpha": 0.5}'""", "unknown options: 'alpha'"),
        ("""'{d1}', options => '{"exclude": "d2"}'""", "exclude is d2, but must be an array of ids"),
        ("""'{d1}', options => '{"exclude": [2]}'""", "exclude is [2], but must be an array of ids"),
        ("""'{d1}', options => '{"history": {"id": "d1"}}'""", "but must be an array of objects"),
        ("""'{d1}', options => '{"history": [3]}'""", "the event 3 of history cannot be read"),
        ("""'{d1}', options => '{"history": [{"id": 3}]}'""", "of history cannot be read"),
        ("""'{d1}', options => '{"history": [{"id": "d1", "weight": "2"}]}'""", "of history cannot be read"),
        ("""'{d1}', options => '{"disliked_weight": "0.1"}'""", 'disliked_weight is "0.1"'),
        ("""'{d1}', options => '{"half_life": true}'""", "half_life is true"),
        ("""'{d1}', options => '{"collapse": "yes"}'""", "collapse is yes"),
    ],
)
def test_sql_callers_are_told_what_is_wrong(filled, module_dsn, call, message):
    with pytest.raises(psycopg.Error) as caught:
        rows(module_dsn, f"SELECT * FROM pgseek.recommend('docs', {call})")
    assert (caught.value.sqlstate, message in str(caught.value)) == ("PGS02", True), caught.value


def test_options_that_are_null_are_not_given(filled, module_dsn):
    options = dict.fromkeys(
        ("history", "half_life", "now", "exclude", "on_missing", "strategy", "disliked_weight")
    )
    found = rows(module_dsn, "SELECT * FROM pgseek.recommend('docs', '{d1}', NULL, 3, %s)", [Jsonb(options)])
    assert [row["external_id"] for row in found] == [hit.id for hit in filled.recommend("d1", k=3)]


def test_vectors_that_cancel_each_other_are_told(client):
    given = {"here": [1, 0], "there": [-1, 0], "also there": [1, 0], "other": [0, 1]}
    docs = client.create_collection("docs", embedder=CountingEmbedder(2, given=given))
    docs.ingest({"id": name, "text": name} for name in given)
    with pytest.raises(InvalidInput, match="the liked and disliked vectors cancel each other"):
        docs.recommend("here", "also there", disliked_weight=1)
    with pytest.raises(InvalidInput, match="cancel each other"):
        docs.recommend(["here", "there"])
    assert [hit.id for hit in docs.recommend(["here", "there"], strategy="best_score")] == [
        "also there",
        "other",
    ]


def test_what_is_not_embedded_yet_is_said(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest(CORPUS)
    rows(dsn, "SELECT pgseek.put_document('docs', 'new', 'saves the results of a function')")
    for strategy in ("rocchio", "best_score"):
        found = docs.recommend(["lru_cache", "new"], strategy=strategy)
        assert found[0].degraded == "without 1 of the liked and disliked, not embedded yet: new"
        assert [hit.id for hit in found] == [hit.id for hit in docs.recommend("lru_cache", strategy=strategy)]
        with pytest.raises(
            InvalidInput, match=r"none of the liked documents has an embedding yet: 'new'.*pgseek worker"
        ):
            docs.recommend("new", "reduce", strategy=strategy)
    assert "new" not in {hit.id for hit in docs.recommend(["lru_cache", "new"])}


# Where it holds.


def test_a_tenants_recommendations_are_its_own(dsn):
    with Client(dsn, tenant="a") as one, Client(dsn, tenant="b") as other:
        mine = one.create_collection("docs", embedder=CountingEmbedder())
        mine.ingest(CORPUS[:3])
        theirs = other.create_collection("docs", embedder=CountingEmbedder())
        theirs.ingest(CORPUS)
        assert {hit.id for hit in mine.recommend("lru_cache", k=50)} == {"reduce", "heapq.merge"}
        # The space of another tenant's collection is none, whatever it has.
        space = theirs.info().space_id
        with pytest.raises(SpaceMismatch, match=f"cannot be searched by space {space}: it has no such space"):
            mine.recommend("lru_cache", space=space)
        with pytest.raises(InvalidInput, match="has no document 'suppress'"):
            mine.recommend("suppress")
        other.create_collection("secret", embedder=CountingEmbedder())
        with connect(dsn) as session:
            session.execute("SELECT set_config('pgseek.tenant', 'a', false)")
            with pytest.raises(psycopg.Error, match="there is no collection 'secret'"):
                session.execute("SELECT * FROM pgseek.recommend('secret', '{lru_cache}')")


def test_a_change_of_space_in_between_is_followed(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder(8, "old"))
    docs.ingest(CORPUS)
    new = CountingEmbedder(12, "new")

    def expected(embedder):
        vectors = {one["id"]: embedder._vector(f"{one['title']}\n\n{one['text']}") for one in CORPUS}
        return best(rocchio(vectors, ["lru_cache"], ["reduce"]), ["lru_cache", "reduce"])

    held = Client(dsn).collection("docs", embedder=[CountingEmbedder(8, "old"), new])
    before = [hit.id for hit in docs.recommend("lru_cache", "reduce")]
    assert before == expected(CountingEmbedder(8, "old"))
    stop, seen, failed = threading.Event(), [], []

    def ask():
        while not stop.is_set():
            try:
                seen.append([hit.id for hit in held.recommend("lru_cache", "reduce")])
            except Exception as error:
                failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    docs.reembed(new)
    docs.retire(1)
    wanted = expected(new)
    while not seen or (seen[-1] != wanted and len(seen) < 10_000 and not failed):
        pass
    stop.set()
    thread.join(20)
    held._client.close()
    assert failed == []
    assert {tuple(one) for one in seen} <= {tuple(before), tuple(wanted)}
    assert seen[-1] == wanted
    client.drop_collection("docs")
    with pytest.raises(CollectionNotFound):
        docs.recommend("lru_cache")


def test_the_async_client_recommends_the_same(filled, module_dsn):
    async def ask():
        async with AsyncClient(module_dsn) as client:
            docs = await client.collection("docs", embedder=CountingEmbedder(8))
            return await docs.recommend("d1", "d2", strategy="best_score", history=[("d3", NOW)])

    assert asyncio.run(ask()) == filled.recommend("d1", "d2", strategy="best_score", history=[("d3", NOW)])


def test_it_has_a_time_limit(filled):
    assert filled.recommend("d1", timeout=60)
    with pytest.raises(SearchTimeout):
        filled.recommend("d1", timeout=1e-6)


def test_settings_are_as_they_were(filled, module_dsn):
    with connect(module_dsn) as connection, connection.transaction():
        settings = (
            "SELECT current_setting('hnsw.ef_search') AS a, current_setting('hnsw.iterative_scan') AS b"
        )
        connection.execute("LOAD 'vector'")
        before = connection.execute(settings).fetchall()
        for strategy in ("rocchio", "best_score"):
            connection.execute(
                "SELECT * FROM pgseek.recommend('docs', '{d1,d2}', options => %s)",
                [Jsonb({"strategy": strategy})],
            )
        assert connection.execute(settings).fetchall() == before


def test_ids_with_quotes_are_ids(client):
    names = ["o'brien", 'a"b', "x,y{}", "; DROP TABLE"]
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest({"id": name, "text": f"text of {name}"} for name in names)
    found = docs.recommend(names[0], exclude=[names[1]], history=[Event(names[2])])
    assert [hit.id for hit in found] == [names[3]]
    with pytest.raises(InvalidInput, match=re.escape("no document 'l''autre'")):
        docs.recommend("l'autre")


def test_more_is_taken_from_the_index_until_there_are_enough(client):
    """The nearest 300 are nearer to what is disliked; the first 100 candidates leave nothing."""
    angles = {f"near{n}": 0.11 + n * 0.001 for n in range(300)} | {
        f"far{n}": -0.5 - n * 0.01 for n in range(7)
    }
    angles |= {"liked": 0.0, "disliked": 0.1}
    given = {name: [np.cos(angle), np.sin(angle)] for name, angle in angles.items()}
    docs = client.create_collection("docs", embedder=CountingEmbedder(2, given=given))
    docs.ingest({"id": name, "text": name} for name in given)
    found = docs.recommend("liked", "disliked", strategy="best_score", k=5)
    assert [hit.id for hit in found] == [f"far{n}" for n in range(5)]
    assert len(docs.recommend("liked", "disliked", strategy="best_score", k=50)) == 7
