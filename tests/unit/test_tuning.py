"""Tuning without a database: folds, intervals, grids, clicks, sentences, saved runs and gates."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgseek import InvalidInput
from pgseek.evaluation import Grid, Limit, SavedRun, Setting, bootstrap, judge_clicks, judge_run, read_run
from pgseek.evaluation.baseline import parse_limit
from pgseek.evaluation.bench import folds
from pgseek.evaluation.known import draw_sentence
from pgseek.evaluation.legs import Legs, Words, bm25_scores, fused_orders, reweighed

CURRENT = Setting("weighted", 0.3, "max", 100, 1.2, 0.75, 2.0)


# Folds and intervals.


@given(st.integers(4, 200), st.integers(2, 10), st.integers(1, 4), st.integers(0, 1000))
def test_every_query_is_held_out_once_per_repeat(queries, count, repeats, seed):
    if queries < 2 * count:
        with pytest.raises(
            InvalidInput, match=f"are too few for {count} folds, which take at least {2 * count}"
        ):
            folds(queries, count, repeats, seed)
        return
    made = folds(queries, count, repeats, seed)
    assert len(made) == repeats
    for parts in made:
        assert len(parts) == count
        assert sorted(np.concatenate(parts).tolist()) == list(range(queries))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    again = folds(queries, count, repeats, seed)
    assert [[part.tolist() for part in parts] for parts in made] == [
        [part.tolist() for part in parts] for parts in again
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((100, 1, 1, 0), "folds is 1, but must be a whole number from 2 to 1,000"),
        ((100, 2.0, 1, 0), "folds is 2.0"),
        ((100, True, 1, 0), "folds is True"),
        ((100, 5, 0, 0), "repeats is 0, but must be a whole number from 1"),
    ],
)
def test_folds_that_cannot_be(given, message):
    with pytest.raises(InvalidInput, match=message):
        folds(*given)


def test_an_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        found = bootstrap(generator.beta(2, 1, size=60).tolist(), level=0.9, resamples=500)
        covered += found.low <= 2 / 3 <= found.high
    # 90 %, and what chance and sixty values leave of it.
    assert 165 <= covered <= 194


def test_an_interval_is_that_of_the_normal_distribution_where_that_holds():
    values = np.random.default_rng(1).normal(0.5, 0.1, size=400)
    found = bootstrap(values.tolist())
    error = values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error
    )
    assert bootstrap(values.tolist()) == found
    assert bootstrap([0.25] * 9).low == bootstrap([0.25] * 9).high == 0.25


def test_intervals_that_cannot_be():
    with pytest.raises(InvalidInput, match="there is no value to take the mean of"):
        bootstrap([])
    with pytest.raises(InvalidInput, match="level is 95, but must lie between 0 and 1"):
        bootstrap([1.0], level=95)


# Settings.


def test_a_grid_holds_what_is_in_force_first_and_each_setting_once():
    grid = Grid(alphas=(0.0, 0.5), candidates=(50,), k1=(0.9, 1.2), b=(0.5,), title_weight=(1.0, 2.0))
    fused = grid.fused(CURRENT)
    assert fused[0] == CURRENT
    assert len(set(fused)) == len(fused)
    # Two normalizations, two depths, three alphas; 'auto' without alpha 0; rrf by depth.
    assert len(fused) == 2 * 2 * 3 + 2 * 2 * 2 + 2
    assert {one.weighting for one in fused} == {CURRENT.weighting}
    weighed = grid.weighed(CURRENT)
    assert weighed[0] == CURRENT
    assert len(weighed) == len(set(weighed)) == 2 * 2 * 2
    assert {one.title_weight for one in grid.weighed(CURRENT, titles=False)} == {2.0}
    assert replace(grid, bm25=False).weighed(CURRENT) == [CURRENT]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alphas": (0.5, 1.5)}, "alphas has 1.5, but they must be numbers from 0 to 1"),
        ({"alphas": ()}, "alphas is empty"),
        ({"candidates": (0,)}, "candidates has 0, but they must be whole numbers from 1 to 10000"),
        ({"candidates": (10.5,)}, "candidates has 10.5, but they must be whole numbers"),
        ({"k1": (-1,)}, "k1 has -1"),
        ({"b": (True,)}, "b has True"),
        ({"title_weight": (0.5,)}, "title_weight has 0.5, but they must be numbers from 1 to 100"),
        ({"fusions": ("sum",)}, "fusions has 'sum', but they must be among weighted, rrf, auto"),
        ({"normalizations": ("z",)}, "normalizations has 'z'"),
    ],
)
def test_grids_that_cannot_be(given, message):
    with pytest.raises(InvalidInput, match=message):
        Grid(**given)


# The mirror, by hand; tests/db/test_tuning.py holds it against the SQL.


def legs(**changed):
    given = {
        "document": np.array([0, 1, 2]),
        "dense": np.array([0.9, 0.6, np.nan]),
        "dense_rank": np.array([1, 2, 0]),
        "lexical": np.array([0.0, 4.0, 2.0]),
        "lexical_rank": np.array([0, 1, 2]),
        **changed,
    }
    return Legs(**given)


def order(one, alpha=0.5, **options):
    given = {"depth": 10, "candidates": 10, **options}
    return fused_orders(one, np.array([alpha]), **given)[0].tolist()


def test_fusions_by_hand():
    # By weight: 0.5 and 0.5 * 0.6 / 0.9 + 0.5 and 0.5 * 0.5.
    assert order(legs()) == [1, 0, 2]
    # 0.7 and 0.7 * 0.6 / 0.9 + 0.3; 0.8 and 0.8 * 0.6 / 0.9 + 0.2.
    assert order(legs(), alpha=0.7) == [1, 0, 2]
    assert order(legs(), alpha=0.8) == [0, 1, 2]
    assert order(legs(), alpha=0.0) == [1, 2]
    assert order(legs(), alpha=1.0) == [0, 1]
    # 1/61 and 1/62 + 1/61 and 1/62.
    assert order(legs(), fusion="rrf") == [1, 0, 2]
    # The lowest of the first candidates counts nothing: 0.7 and 0.3 and 0.15.
    assert order(legs(), alpha=0.7, normalization="minmax") == [0, 1, 2]
    assert order(legs(), candidates=1, depth=1) == [1, 0]
    assert order(legs(has_words=False)) == [0, 1]


def test_a_leg_that_scored_nothing_leaves_its_weight_to_the_other():
    nothing = legs(lexical=np.zeros(3), lexical_rank=np.zeros(3, dtype=np.int64))
    assert order(nothing, alpha=0.1) == [0, 1]
    no_vectors = legs(dense=np.full(3, np.nan), dense_rank=np.zeros(3, dtype=np.int64))
    assert order(no_vectors, alpha=0.9) == [1, 2]
    assert order(no_vectors, alpha=0.9, normalization="minmax") == [1, 2]


def test_bm25_by_hand():
    words = Words(
        occurrences=np.array([[1.0, 0.0], [2.0, 1.0]]),
        titled=np.array([[1.0, 0.0], [0.0, 0.0]]),
        length=np.array([4.0, 6.0]),
        title_length=np.array([1.0, 0.0]),
        weights=np.array([2.0, 3.0]),
    )

    def weight(count, length):
        return count / (count + 1.5 * (1 - 0.5 + 0.5 * length / 5))

    scores = bm25_scores(words, 1.5, 0.5, 3.0, 5.0)
    assert scores == pytest.approx([2 * weight(3, 6), 2 * weight(2, 6) + 3 * weight(1, 6)], rel=1e-6)
    two = Legs(np.arange(2), np.ones(2), np.array([1, 2]), np.zeros(2), np.zeros(2, dtype=np.int64))
    assert reweighed(two, words, 1.5, 0.5, 3.0, 5.0).lexical_rank.tolist() == [2, 1]


# Clicks.


def test_signals_become_grades_by_the_rule_that_is_told():
    found = judge_clicks(
        [
            ("cache", "a", 6),
            ("cache", "a", 4),
            ("cache", "b", 5),
            ("cache", "c", 2),
            ("cache", "d", 1),
            ("cache", "e", 0),
            ("cache", "f", -3),
            ("  ", "a", 9),
            ("rare", "a", 1),
            ("shown", "a", 0),
        ]
    )
    assert found.qrels == {"cache": {"a": 2, "b": 2, "c": 1, "e": 0, "f": 0}}
    assert found.queries == {"cache": "cache"}
    assert (found.rows, found.pairs, found.judged, found.all_queries) == (10, 8, 5, 3)
    assert set(judge_clicks([("rare", "a", 1)], least_signal=1).qrels) == {"rare"}


@pytest.mark.parametrize(
    ("signals", "least", "message"),
    [
        ([("q", "a", 1)], 2, "none of the 1 queries clicked for has a document with a signal of 2 or more"),
        ([], 2, "none of the 0 queries"),
        ([("q", "a", "x")], 2, "the signal of document 'a' for query 'q' is 'x', but must be a number"),
        ([("q", "a", float("nan"))], 2, "is nan, but must be a number"),
        ([("q", "a", True)], 2, "is True"),
        ([("q", "a", 1)], 0, "least_signal is 0, but must be a number above 0"),
    ],
)
def test_clicks_that_mean_nothing(signals, least, message):
    with pytest.raises(InvalidInput, match=message):
        judge_clicks(signals, least_signal=least)


# Known items.


def test_a_sentence_is_drawn_by_its_seed():
    body = "Short one. " + " ".join(f"This is the sentence with number {n} of them." for n in range(30))
    drawn = {draw_sentence(body, f"{seed}") for seed in range(40)}
    assert len(drawn) > 10
    assert all(one.startswith("This is the sentence") for one in drawn)
    assert draw_sentence(body, "7") == draw_sentence(body, "7")
    assert draw_sentence("Too short. 1 2 3 4 5 6 7.", "7") is None
    assert draw_sentence("word " * 26, "7") is None


# Saved runs and gates.


def run(values=None, **changed):
    values = values or {"hybrid": {"nDCG@10": {f"q{n}": 0.5 for n in range(20)}}}
    queries = next(iter(next(iter(values.values())).values()))
    given = {
        "collection": "docs",
        "versions": {"pgseek": "1", "postgresql": "18"},
        "settings": {"alpha": 0.3},
        "space": "wordllama",
        "depth": 100,
        "drop_self": False,
        "judgements": dict.fromkeys(queries, "aa"),
        "values": values,
        **changed,
    }
    return SavedRun(**given)


def worse(by, queries=20, of=20):
    return run({"hybrid": {"nDCG@10": {f"q{n}": 0.5 - by * (n < queries) for n in range(of)}}})


def test_a_run_reads_back_and_is_the_same_file_each_time(tmp_path):
    made = run({"hybrid": {"AP": {"q2": 0.1 + 0.2, "q1": 1.0}}})
    made.write(tmp_path / "run.json")
    text = (tmp_path / "run.json").read_text()
    assert read_run(tmp_path / "run.json") == run({"hybrid": {"AP": {"q2": 0.3, "q1": 1.0}}})
    reordered = run({"hybrid": {"AP": {"q1": 1.0, "q2": 0.3}}})
    assert reordered.to_json() == text
    content = json.loads(text)
    assert (content["format"], content["version"]) == ("pgseek evaluation", 1)
    assert content["modes"]["hybrid"]["AP"]["mean"] == 0.65


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read the saved evaluation"),
        ("[]", "is no saved evaluation; pgseek eval COLLECTION … --save"),
        ('{"format": "other"}', "is no saved evaluation"),
        (
            '{"format": "pgseek evaluation", "version": 2}',
            "has the format version 2, but this pgseek knows 1",
        ),
        ('{"format": "pgseek evaluation", "version": 1}', "is damaged: KeyError"),
        (run().to_json().replace("0.5", "NaN"), "holds a value that is not a number"),
        (run().to_json().replace('"modes": {', '"modes": [], "x": {'), "is damaged"),
    ],
)
def test_files_that_are_no_run(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_run(tmp_path / "run.json")


def test_a_fixed_bound():
    found = judge_run(run(), least=[Limit("nDCG@10", 0.5)])
    assert found.passed
    assert str(found.verdicts[0]) == "nDCG@10 of hybrid is 0.5000, which is not below 0.5"
    found = judge_run(worse(0.4, 2), least=[Limit("nDCG@10", 0.5)])
    assert not found.passed
    assert "nDCG@10 of hybrid is 0.4600, which is below 0.5" in str(found.verdicts[0])
    assert [one.query for one in found.verdicts[0].lost][:2] == ["q0", "q1"]


def test_a_largest_drop_is_of_the_mean_and_tells_p():
    found = judge_run(worse(0.4, 2), run(), drops=[Limit("nDCG@10", 0.05)])
    (verdict,) = found.verdicts
    assert (found.passed, verdict.before, verdict.now) == (True, 0.5, pytest.approx(0.46))
    found = judge_run(worse(0.4, 2), run(), drops=[Limit("nDCG@10", 0.03)])
    (verdict,) = found.verdicts
    assert not found.passed
    # Two of two signs: one in two assignments is as far from 0.
    assert verdict.p == pytest.approx(0.5)
    assert str(verdict) == (
        "nDCG@10 of hybrid was 0.5000 and is 0.4600 (-0.0400, p = 0.5000, 20 queries), a drop of more than 0.03"
    )
    assert [(one.query, one.before, round(one.now, 9)) for one in verdict.lost] == [
        ("q0", 0.5, 0.1),
        ("q1", 0.5, 0.1),
    ]


def test_without_a_bound_a_significant_drop_fails():
    assert judge_run(worse(0.01, 20), run()).passed is False
    assert judge_run(worse(0.4, 2), run()).passed is True
    assert judge_run(worse(-0.01, 20), run()).passed is True
    assert judge_run(run(), run()).verdicts[0].p == 1


def test_several_measures_share_their_chance():
    values = {name: {f"q{n}": 0.5 for n in range(6)} for name in ("nDCG@10", "AP")}
    lower = {name: {query: value - 0.1 for query, value in of.items()} for name, of in values.items()}
    found = judge_run(run({"hybrid": lower}), run({"hybrid": values}))
    # 2 / 2^6 each, twice that by Holm.
    assert [verdict.p for verdict in found.verdicts] == pytest.approx([0.0625, 0.0625])
    assert found.passed


def test_what_differs_is_noted():
    other = replace(worse(0, of=15), judgements={f"q{n}": "b" if n < 3 else "aa" for n in range(15)})
    other = replace(other, settings={"alpha": 0.4}, space="minilm", depth=10)
    found = judge_run(other, run())
    assert found.verdicts[0].queries == 15
    text = "\n".join(found.notes)
    for part in (
        "15 queries are in both runs and compared; 5 are in the saved one only, 0 in this one only",
        "the text or the judgements of 3 of 15 compared queries have changed",
        "space was wordllama and is minilm",
        "depth was 100 and is 10",
        "alpha was 0.3 and is 0.4",
    ):
        assert part in text


def test_gates_that_cannot_be():
    with pytest.raises(InvalidInput, match="a largest drop needs an earlier run"):
        judge_run(run(), drops=[Limit("nDCG@10", 0.1)])
    with pytest.raises(InvalidInput, match="measure 'AP' is not in the saved run, which has nDCG@10"):
        judge_run(run({"hybrid": {"AP": {"q0": 1.0}}}), run(), drops=[Limit("AP", 0.1)])
    with pytest.raises(InvalidInput, match="mode 'rrf' is not in this run, which has hybrid"):
        judge_run(run(), least=[Limit("nDCG@10", 0.1, "rrf")])
    with pytest.raises(InvalidInput, match="the saved run has none of the 1 queries of this one"):
        judge_run(run({"hybrid": {"nDCG@10": {"other": 1.0}}}), run())
    with pytest.raises(
        InvalidInput, match=r"no measure in common with this one: it has hybrid: nDCG@10, this"
    ):
        judge_run(run({"hybrid": {"AP": {"q0": 1.0}}}), run())


def test_limits_are_read():
    modes = ["dense", "hybrid"]
    assert parse_limit("nDCG@10=0.65", "--x", modes) == Limit("nDCG@10", 0.65, "hybrid")
    assert parse_limit("dense:P(rel=2)@5=0.5", "--x", modes) == Limit("P(rel=2)@5", 0.5, "dense")
    assert parse_limit("AP=1", "--x", ["rrf"]) == Limit("AP", 1.0, "rrf")
    for text, message in (
        ("=0.5", "must be a measure and a number"),
        (":AP=0.5", "must be a measure and a number"),
        ("AP=nan", "nan does not lie in 0..1"),
        ("AP=-1", "-1 does not lie in 0..1"),
        ("nDCQ@10=0.5", "measure 'nDCQ@10' is unknown"),
        ("rrf:AP=0.5", "for the mode 'rrf', but run are dense, hybrid"),
    ):
        with pytest.raises(InvalidInput, match=message):
            parse_limit(text, "--x", modes)


def test_a_mean_of_a_run_is_that_of_its_queries():
    made = worse(0.4, 2)
    content = json.loads(made.to_json())
    of = content["modes"]["hybrid"]["nDCG@10"]
    assert of["mean"] == pytest.approx(fmean(of["queries"].values()))
