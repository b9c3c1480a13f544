"""Tuning on a real database: the mirror against the SQL, what is found, and what is written."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import column, select, table
from support import CORPUS, CountingEmbedder, rows

from pgseek import CallableGenerator, ChangeRefused, Client, CollectionNotFound, InvalidInput
from pgseek.evaluation import (
    Grid,
    Mode,
    Plan,
    Setting,
    evaluate,
    known_items,
    plot_alpha,
    read_clicks,
    run_mode,
    tune,
    write_winner,
)
from pgseek.evaluation.legs import bm25_scores, ranked
from pgseek.evaluation.pool import candidates
from pgseek.evaluation.tuning import summary

WORDS = [f"word{n}" for n in range(30)]
QUICK = Grid(alphas=(0.0, 0.5, 1.0), candidates=(20,), normalizations=("max",), bm25=False)


# The mirror.


class Mirrored(tuple):
    """A collection, its queries, and what its legs found; hypothesis prints its arguments."""

    def __new__(cls, *parts):
        return super().__new__(cls, parts)

    def __repr__(self):
        return "Mirrored"


@pytest.fixture(scope="module")
def mirrored(module_dsn):
    """A collection of documents with one to three chunks, some with equal texts, and what its legs found."""
    chance = random.Random(4)
    with Client(module_dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder(4), chunk_size=60)
        for number in range(60):
            words = [chance.choice(WORDS) for _ in range(chance.randrange(3, 26))]
            text = " ".join(words) if number % 9 else "word1 word2 word2 word3"
            title = " ".join(words[:2]) if number % 3 else ""
            docs.ingest([{"id": f"d{number:02}", "text": text, "title": title}])
        docs.refresh_statistics(reweigh=True)
        queries = {
            f"q{n}": " ".join(chance.choice(WORDS) for _ in range(chance.randrange(1, 5))) for n in range(12)
        }
        queries["nothing"] = "zzqqxx"
        queries["question"] = "what is word1 word4"
        found = client._run(candidates(docs._embedding(docs.info()), queries, depth=1000, with_words=True))
        yield Mirrored(docs, queries, found)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_mirror_orders_as_searches_do(mirrored, data):
    docs, queries, found = mirrored
    name = data.draw(st.sampled_from(sorted(queries)))
    fusion = data.draw(st.sampled_from(["weighted", "weighted", "rrf"]))
    alpha = data.draw(st.integers(0, 1000).map(lambda n: n / 1000))
    normalization = data.draw(st.sampled_from(["max", "minmax"]))
    depth = data.draw(st.integers(1, 60))
    k = data.draw(st.integers(1, 30))
    collapse = data.draw(st.booleans())
    drop_self = data.draw(st.booleans())
    weights = {"fusion": "rrf"} if fusion == "rrf" else {"alpha": alpha, "normalization": normalization}
    mode = Mode("m", {**weights, "candidates": depth, "collapse": collapse})
    asked = {"d07" if drop_self else name: queries[name]}
    searched = run_mode(docs, mode, asked, depth=k, drop_self=drop_self).run
    (ranking,) = ranked(
        found.legs[name],
        np.array([alpha]),
        fusion=fusion,
        normalization=normalization,
        depth=depth,
        k=k,
        collapse=collapse,
        left_out=found.documents.index("d07") if drop_self else -1,
    )
    (wanted,) = searched.values()
    assert [found.documents[number] for number in ranking] == [document for document, _ in wanted]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    k1=st.integers(1, 300).map(lambda n: n / 100),
    b=st.integers(0, 100).map(lambda n: n / 100),
    title_weight=st.integers(10, 200).map(lambda n: n / 10),
    name=st.sampled_from(["q0", "q1", "q2", "question"]),
)
def test_words_are_weighed_as_the_database_weighs_them(mirrored, module_dsn, k1, b, title_weight, name):
    _, _, found = mirrored
    average = found.average(title_weight)
    words = found.words[name]
    scores = bm25_scores(words, k1, b, title_weight, average)
    (stored,) = rows(
        module_dsn,
        "SELECT array_agg(0 - (pgseek.weigh(c.lexemes, %s::real[]) <#> pgseek.bm25_query(t.dimensions, t.weights))"
        " ORDER BY c.document_id, c.ordinal) AS scores FROM pgseek.collections o,"
        " LATERAL pgseek.read_query(o, %s, 'plain') t, pgseek.chunks c"
        " WHERE o.name = 'docs' AND c.collection_id = o.collection_id",
        [[k1, b, average, title_weight], docs_query(mirrored, name)],
    )
    # All chunks are candidates, and both are in the order of their keys.
    assert scores == pytest.approx(stored["scores"], rel=1e-4, abs=1e-6)


def docs_query(mirrored, name):
    return mirrored[1][name]


@pytest.mark.parametrize("title_weight", [1, 2, 5])
def test_the_average_length_is_that_of_a_reweighed_collection(mirrored, module_dsn, title_weight):
    _, _, found = mirrored
    rows(module_dsn, "SELECT pgseek.reweigh('docs', NULL, NULL, %s)", [title_weight])
    (measured,) = rows(module_dsn, "SELECT average_length AS n FROM pgseek.collection_statistics")
    rows(module_dsn, "SELECT pgseek.reweigh('docs', NULL, NULL, 2)")
    assert found.average(title_weight) == pytest.approx(measured["n"], rel=1e-6)


def test_auto_has_one_formula(mirrored, module_dsn):
    docs, queries, _ = mirrored
    info = docs.info()
    for text in queries.values():
        (row,) = rows(
            module_dsn,
            "SELECT (pgseek.explain('docs', %s, NULL, '{\"fusion\": \"auto\"}') ->> 'alpha')::float8 AS used,"
            " pgseek.auto_alpha(%s, pgseek.query_kind(%s), %s) AS told",
            [text, info.settings["alpha"], text, info.identity.provider],
        )
        assert row["used"] == row["told"]


# What is found and written.


def turned(angle):
    return (math.cos(math.radians(angle)), math.sin(math.radians(angle)))


@pytest.fixture
def meaning(client):
    """Forty queries whose words stand in other documents: the dense leg knows the right ones."""
    vectors = {}
    documents = []
    for n in range(40):
        # In the text of a document stands the word of another one's query.
        text = f"asked{(n + 20) % 40} stands here"
        documents.append({"id": f"d{n}", "text": text})
        vectors[text] = vectors[f"asked{n}"] = turned(n * 9)
    docs = client.create_collection("docs", embedder=CountingEmbedder(2, given=vectors), alpha=0.0)
    docs.ingest(documents)
    return docs


def judged(count=40):
    return {f"q{n}": f"asked{n}" for n in range(count)}, {f"q{n}": {f"d{n}": 1} for n in range(count)}


def test_a_significant_winner_is_written_and_searched_by(meaning, client):
    queries, qrels = judged()
    before = dict(meaning.info().settings)
    other_handle = client.collection("docs", embedder=meaning._own_embedder())
    found = tune(meaning, queries, qrels, grid=QUICK, repeats=1)
    assert found.current == Setting("weighted", 0.0, before["normalization"], 100, 1.2, 0.75, 2.0)
    assert (found.winner.fusion, found.winner.alpha) == ("weighted", 1.0)
    assert (found.searched_before, found.searched_after) == (0, 1)
    assert (found.before.mean, found.after.mean, found.difference.mean) == (0, 1, 1)
    assert (found.better, found.equal, found.worse, found.agreeing) == (40, 0, 0, 1)
    assert found.significant
    assert "a significant gain (p < 0.05); winner: alpha 0.0 → 1.0" in found.verdict
    assert dict(meaning.info().settings) == before

    written = write_winner(meaning, found)
    assert (written.written, written.before, written.after) == (True, 0, 1)
    after = dict(meaning.info().settings)
    assert {name for name in after if after[name] != before[name]} == {"alpha"}
    assert after["alpha"] == 1.0
    hits = meaning.search("asked3", k=1)
    assert (hits[0].id, hits[0].lexical_score) == ("d3", None)
    assert other_handle.info().settings["alpha"] == 1.0
    again = tune(meaning, queries, qrels, grid=QUICK, repeats=1)
    assert again.winner == again.current
    assert "none of" in again.verdict
    assert not write_winner(meaning, again).written


def test_curves_are_by_kind_and_can_be_drawn(meaning, tmp_path):
    queries, qrels = judged()
    queries["q0"] = "what is asked0"
    found = tune(meaning, queries, qrels, grid=QUICK, repeats=1)
    assert sum(found.kinds.values()) == 40
    curves = {curve.kind: curve for curve in found.curves}
    assert curves["all"].queries == 40
    assert curves["question"].queries == 1
    assert curves["all"].alphas == (0.0, 0.5, 1.0)
    assert curves["all"].best == 1.0
    assert all(
        low <= mean <= high
        for curve in found.curves
        for low, mean, high in zip(curve.low, curve.means, curve.high, strict=True)
    )
    for name in ("alpha.png", "alpha.svg"):
        assert plot_alpha(found, tmp_path / name).stat().st_size > 5000
    assert "identifier (" in (tmp_path / "alpha.svg").read_text()
    told = json.loads(
        json.dumps(summary(found), default=lambda value: getattr(value, "__dict__", str(value)))
    )
    assert told["queries"] == 40
    assert "qrels" not in told


def test_auto_and_rrf_are_searched_for_as_they_are(meaning):
    queries, qrels = judged()
    queries = {name: f"what is {text}" if int(name[1:]) % 2 else text for name, text in queries.items()}
    measure = "nDCG@10"
    for fusion in ("auto", "rrf"):
        grid = replace(QUICK, fusions=(fusion,), alphas=(0.5, 1.0))
        found = tune(meaning, queries, qrels, grid=grid, repeats=1)
        assert found.winner.fusion == fusion
        assert write_winner(meaning, found).written
        mode = evaluate(meaning, queries, qrels, Plan((Mode("hybrid"),), depth=10, measures=(measure,))).mode(
            "hybrid"
        )
        assert mode.means["nDCG@10"] == pytest.approx(found.searched_after)
        assert meaning.info().settings["fusion"] == fusion
        rows(
            meaning._client._dsn.get_secret_value(),
            'UPDATE pgseek.collections SET settings = settings || \'{"fusion": "weighted", "alpha": 0}\'',
        )


@pytest.fixture
def titled(client):
    """Forty queries that are titles; each word also stands in longer texts, more often."""
    docs = client.create_collection(
        "titles", embedder=CountingEmbedder(8), alpha=0.0, title_weight=1.0, b=0.0, k1=1.2
    )
    docs.ingest(
        {
            "id": f"d{n}",
            "title": f"asked{n}",
            "text": f"something else is told here asked{(n + 7) % 40} asked{(n + 7) % 40} asked{(n + 13) % 40}",
        }
        for n in range(40)
    )
    return docs


WEIGHTS = Grid(
    fusions=("weighted",),
    alphas=(0.0,),
    normalizations=("max",),
    candidates=(100,),
    k1=(1.2,),
    b=(0.0,),
    title_weight=(1.0, 8.0),
)


def weighting(dsn):
    (row,) = rows(
        dsn,
        "SELECT s.weighting[1]::float8 AS k1, s.weighting[2]::float8 AS b, s.weighting[4]::float8 AS title_weight"
        " FROM pgseek.collection_statistics s",
    )
    return row


def terms(dsn):
    return rows(dsn, "SELECT document_id, ordinal, terms::text FROM pgseek.chunks ORDER BY 1, 2")


def test_weights_of_words_are_written_and_measured_by_searches(titled, dsn):
    queries, qrels = judged()
    found = tune(titled, queries, qrels, measure="RR@10", grid=WEIGHTS, repeats=1)
    assert found.winner == replace(found.current, title_weight=8.0)
    assert found.searched_after is None
    assert any("weighs words otherwise" in caution for caution in found.cautions)
    assert weighting(dsn)["title_weight"] == 1
    written = write_winner(titled, found)
    assert written.written
    assert written.after > written.before
    assert weighting(dsn)["title_weight"] == 8
    assert titled.info().settings["title_weight"] == 8.0
    assert written.after == pytest.approx(found.after.mean)
    assert titled.search("asked3", k=1)[0].id == "d3"


def test_weights_that_searches_do_not_confirm_are_put_back(titled, dsn):
    queries, qrels = judged()
    found = tune(titled, queries, qrels, measure="RR@10", grid=WEIGHTS, repeats=1)
    before, settings_before = terms(dsn), dict(titled.info().settings)
    # As if the candidates had promised what searches do not keep.
    promised = replace(found, winner=replace(found.current, k1=20.0))
    written = write_winner(titled, promised)
    assert not written.written
    assert "the old setting is in force again" in written.reason
    assert written.after <= written.before
    assert terms(dsn) == before
    assert dict(titled.info().settings) == settings_before


def test_weights_are_put_back_if_measuring_breaks_off(titled, dsn):
    queries, qrels = judged()
    found = tune(titled, queries, qrels, measure="RR@10", grid=WEIGHTS, repeats=1)
    before = terms(dsn)

    def interrupt(what, done, total):
        assert weighting(dsn)["title_weight"] == 8
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_winner(titled, found, progress=interrupt)
    assert weighting(dsn)["title_weight"] == 1
    assert terms(dsn) == before
    assert titled.info().settings["title_weight"] == 1.0


def test_fused_winners_that_searches_do_not_confirm_are_not_written(meaning):
    queries, qrels = judged()
    found = replace(tune(meaning, queries, qrels, grid=QUICK, repeats=1), searched_after=0.0)
    written = write_winner(meaning, found)
    assert (written.written, written.after) == (False, 0)
    assert "which is not above 0.0000: nothing was written" in written.reason
    assert meaning.info().settings["alpha"] == 0


def test_a_winner_of_other_settings_is_refused(meaning, client, dsn):
    queries, qrels = judged()
    found = tune(meaning, queries, qrels, grid=QUICK, repeats=1)
    rows(dsn, "UPDATE pgseek.collections SET settings = settings || '{\"candidates\": 77}'")
    with pytest.raises(ChangeRefused, match=r"changed since it was tuned \(candidates was 100 and is 77\)"):
        write_winner(meaning, found)
    rows(dsn, "UPDATE pgseek.collections SET settings = settings || '{\"candidates\": 100}'")
    meaning.rechunk(chunk_size=500, switch=False)
    with pytest.raises(ChangeRefused, match="has a copy under way that will take its place"):
        write_winner(meaning, found)
    meaning.rechunk(chunk_size=500)
    with pytest.raises(CollectionNotFound, match="was dropped, or another took its name"):
        write_winner(meaning, found)
    client.drop_collection("docs")
    with pytest.raises(CollectionNotFound):
        write_winner(meaning, found)


def test_what_cannot_be_tuned(meaning, client):
    queries, qrels = judged()
    for arguments, message in (
        ({"measure": "nDCQ@10"}, "measure 'nDCQ@10' is unknown"),
        ({"measure": "nDCG@20000"}, "looks at 20,000 documents, but at most 10,000 are found"),
        ({"folds": 21}, "40 judged queries are too few for 21 folds, which take at least 42"),
        ({"limit": 9}, "9 judged queries are too few for 5 folds"),
        ({"limit": 0}, "limit is 0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"significance": 5}, "significance is 5"),
        ({"source": "guesses"}, "source is 'guesses'"),
    ):
        with pytest.raises(InvalidInput, match=message):
            tune(meaning, queries, qrels, grid=QUICK, **arguments)
    with pytest.raises(InvalidInput, match="none of the 1 judged queries is among the 40 queries given"):
        tune(meaning, queries, {"other": {"d1": 1}})
    with pytest.raises(InvalidInput, match="'docs' holds none of the 1 judged documents"):
        tune(meaning, queries, {name: {"gone": 1} for name in queries})
    with pytest.raises(InvalidInput, match="query 'q0': the query is empty"):
        tune(meaning, {**queries, "q0": " "}, qrels, grid=QUICK)


# Judgements from elsewhere.


def test_known_items_are_made_of_titles_sentences_and_questions(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(8))
    docs.ingest([*CORPUS, {**CORPUS[0], "id": "copy"}])
    generator = CallableGenerator(questions=lambda text, title, count: [f"what of {title}"], model="f")
    made = known_items(docs, count=50, seed=3, generator=generator)
    assert made.kinds == {"titles": 6, "sentences": 7, "questions": 7}
    by_text = {text: made.qrels[name] for name, text in made.queries.items()}
    assert by_text["heapq.merge"] == {"heapq.merge": 1}
    assert by_text["functools.lru_cache"] == {"lru_cache": 1, "copy": 1}
    for name, text in made.queries.items():
        if name.startswith("sentences"):
            (document,) = made.qrels[name]
            assert text in " ".join(docs.get(document).text.split())
    assert "what of os.path.join" in by_text
    assert known_items(docs, count=50, seed=3, generator=generator) == made
    assert len(known_items(docs, count=2, seed=3).queries) == 4
    assert known_items(docs, count=3, seed=4) != known_items(docs, count=3, seed=3)
    empty = client.create_collection("empty", embedder=CountingEmbedder(8))
    with pytest.raises(InvalidInput, match="collection 'empty' gives no query"):
        known_items(empty)
    with pytest.raises(InvalidInput, match="count is 0"):
        known_items(docs, count=0)


def test_a_winner_by_known_items_is_written_on_demand_only(meaning):
    queries, qrels = judged()
    found = tune(meaning, queries, qrels, grid=QUICK, repeats=1, source="known items")
    assert any("favour the lexical leg" in caution for caution in found.cautions)
    refused = write_winner(meaning, found)
    assert not refused.written
    assert "on demand only" in refused.reason
    assert meaning.info().settings["alpha"] == 0
    assert write_winner(meaning, found, known_items=True).written
    assert meaning.info().settings["alpha"] == 1


def test_clicks_are_read_from_a_table_or_a_select(meaning, dsn):
    rows(dsn, 'CREATE SCHEMA "Shop"')
    rows(dsn, 'CREATE TABLE "Shop"."o\'clicks" ("the query" text, doc text, weight numeric, day date)')
    for n in range(12):
        rows(
            dsn,
            'INSERT INTO "Shop"."o\'clicks" SELECT %s, %s, 1, \'2026-01-01\' FROM generate_series(1, 3)',
            [f" asked{n} ", f"d{n}"],
        )
    rows(
        dsn,
        "INSERT INTO \"Shop\".\"o'clicks\" VALUES ('asked1', 'd9', 0, '2026-01-02'), (NULL, 'd1', 5, NULL)",
    )
    found = read_clicks(
        meaning, "Shop.o'clicks", query_column="the query", document_column="doc", signal_column="weight"
    )
    assert found.qrels["asked1"] == {"d1": 2, "d9": 0}
    assert (found.rows, len(found.queries), found.judged) == (37, 12, 13)
    clicks = table("o'clicks", *map(column, ("the query", "doc", "weight", "day")), schema="Shop")
    chosen = select(clicks.c["the query"].label("query"), clicks.c.doc.label("document")).where(
        clicks.c.doc.in_(["d1", "d2", "50% of d3"])
    )
    assert read_clicks(meaning, chosen).qrels == {"asked1": {"d1": 2}, "asked2": {"d2": 2}}
    tuned = tune(meaning, found.queries, found.qrels, grid=QUICK, repeats=1, source="clicks")
    assert any("people click what stands on top" in caution for caution in tuned.cautions)
    for arguments, message in (
        ({"table": "nowhere"}, 'relation "nowhere" does not exist'),
        ({"table": "Shop.o'clicks"}, "column c.query does not exist"),
        ({"table": "a..b"}, "the table of clicks is 'a..b'"),
        ({"table": 5}, "the clicks are a int"),
        ({"table": "x", "query_column": ""}, "a column of the clicks is ''"),
        (
            {
                "table": "Shop.o'clicks",
                "query_column": "the query",
                "document_column": "doc",
                "signal_column": "doc",
            },
            r"function sum\(text\) does not exist",
        ),
    ):
        with pytest.raises(InvalidInput, match=message):
            read_clicks(meaning, **arguments)
