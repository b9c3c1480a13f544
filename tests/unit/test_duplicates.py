"""Groups, overlap, thresholds and files of pairs, without a database."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from texts import TEXTS

from pgseek import InvalidInput
from pgseek.analysis import calibrate_threshold, overlap, plot_thresholds, read_pairs
from pgseek.analysis.groups import Groups

# Groups.


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60))
def test_groups_are_the_connected_components(pairs):
    groups: Groups[int] = Groups()
    for one, other in pairs:
        groups.join(one, other)
    # By walking from each.
    beside: dict[int, set[int]] = {}
    for one, other in pairs:
        beside.setdefault(one, set()).add(other)
        beside.setdefault(other, set()).add(one)
    expected = set()
    for start in beside:
        seen, todo = {start}, [start]
        while todo:
            for following in beside[todo.pop()] - seen:
                seen.add(following)
                todo.append(following)
        expected.add(frozenset(seen))
    found = groups.components()
    assert {frozenset(group) for group in found} == expected
    assert sum(map(len, found)) == len(groups) == len(beside)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=40), st.randoms())
def test_the_order_of_pairs_does_not_matter(pairs, random):
    shuffled = [pair[:: random.choice((1, -1))] for pair in pairs]
    random.shuffle(shuffled)
    made = []
    for given_pairs in (pairs, shuffled):
        groups: Groups[int] = Groups()
        for one, other in given_pairs:
            groups.join(one, other)
        made.append({frozenset(group) for group in groups.components()})
    assert made[0] == made[1]


def test_a_long_chain_is_one_group():
    groups: Groups[int] = Groups()
    for n in range(200_000):
        groups.join(n, n + 1)
    assert len(groups.components()) == 1


# Overlap.


@given(TEXTS, TEXTS)
def test_overlap_is_a_share_and_symmetric(one, other):
    assert 0 <= overlap(one, other) <= 1
    assert overlap(one, other) == overlap(other, one)
    assert overlap(one, one) == 1


def test_overlap_sees_through_what_does_not_change_a_text():
    text = "Goods may be sent back within thirty days, unworn and in their box."
    assert overlap(text, f"Posted by admin. {text.upper().replace(' ', '  ')} Read more!") == 1
    assert overlap(text, text.replace("thirty", "sixty")) < 0.95
    assert overlap(text, "Parcels leave the warehouse at noon and arrive after three days.") < 0.4
    assert overlap("", "") == 1
    assert overlap("", "x") == 0
    assert overlap("ab", "AB!") == 1
    assert overlap("ab", "ac") == 0


# Thresholds.

SIMILARITIES = st.lists(
    st.tuples(st.integers(-50, 50).map(lambda n: n / 50), st.booleans()), min_size=10, max_size=60
)


def split(pairs):
    values, same = np.array([value for value, _ in pairs]), np.array([label for _, label in pairs])
    assume(5 <= same.sum() <= len(same) - 5)
    return values, same


@given(SIMILARITIES, st.floats(0.05, 0.99))
def test_every_choice_says_what_counting_says(pairs, target):
    values, same = split(pairs)
    found = calibrate_threshold(values, same, target_precision=target)
    for choice in (*found.curve, found.least_overlap, *([found.target] if found.target else [])):
        reached = values >= choice.threshold
        assert choice.precision == pytest.approx(same[reached].mean())
        assert choice.recall == pytest.approx(same[reached].sum() / same.sum())
    # Nothing does better.
    everywhere = [(same[values >= at].mean(), (same & (values >= at)).sum() / same.sum()) for at in values]
    reach = [recall for precision, recall in everywhere if precision >= target and recall > 0]
    assert (found.target is None) == (not reach)
    if found.target is not None:
        assert found.target.precision >= target
        assert found.target.recall == pytest.approx(max(reach))
    balance = [
        recall - (~same & (values >= at)).sum() / (~same).sum()
        for at, (_, recall) in zip(values, everywhere, strict=True)
    ]
    chosen = found.least_overlap
    wrong = (~same & (values >= chosen.threshold)).sum() / (~same).sum()
    assert chosen.recall - wrong == pytest.approx(max(balance))
    assert sum(found.histogram.same) == pytest.approx(1)
    assert sum(found.histogram.different) == pytest.approx(1)
    assert found.prevalence == pytest.approx(same.mean())
    assert [one.threshold for one in found.curve] == sorted(one.threshold for one in found.curve)


@given(SIMILARITIES, st.floats(0.001, 0.999))
def test_prevalence_corrects_precision_by_its_formula(pairs, prevalence):
    values, same = split(pairs)
    found = calibrate_threshold(values, same, prevalence=prevalence)
    assert found.corrected
    assert found.prevalence == pytest.approx(prevalence)
    for choice in found.curve:
        reached = values >= choice.threshold
        tpr, fpr = reached[same].mean(), reached[~same].mean()
        expected = prevalence * tpr / (prevalence * tpr + (1 - prevalence) * fpr)
        assert choice.precision == pytest.approx(expected)


def test_a_sample_of_the_different_pairs_is_made_up_for():
    rng = np.random.default_rng(1)
    same, different = rng.normal(0.9, 0.04, 500), rng.normal(0.5, 0.1, 200_000)
    every = calibrate_threshold(np.append(same, different), [True] * 500 + [False] * 200_000)
    sample = rng.choice(different, 20_000, replace=False)
    values, labels = np.append(same, sample), [True] * 500 + [False] * 20_000
    naive = calibrate_threshold(values, labels)
    weighed = calibrate_threshold(values, labels, weights=[1.0] * 500 + [10.0] * 20_000)
    at = every.target.threshold
    assert weighed.prevalence == pytest.approx(every.prevalence)
    assert weighed.target.threshold == pytest.approx(at, abs=0.04)
    # As if one in forty pairs were a duplicate, not one in four hundred: too low.
    assert naive.target.threshold < at - 0.02


def test_pairs_that_are_parted_leave_no_mistake():
    found = calibrate_threshold([0.1] * 6 + [0.9] * 6, [False] * 6 + [True] * 6)
    assert found.target == found.least_overlap
    assert (found.target.threshold, found.target.precision, found.target.recall) == (0.5, 1, 1)


def test_pairs_that_are_mixed_reach_no_precision():
    found = calibrate_threshold([0.5] * 20, [True, False] * 10)
    assert found.target is None
    assert found.least_overlap.precision == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1] * 9, [True] * 10), "9 similarities, but 10 labels"),
        (([0.1] * 10, [True] * 10), "10 of the 10 pairs are the same, but it takes at least 5"),
        (([float("nan")] * 10, [True] * 10), "NaN or infinite"),
    ],
)
def test_pairs_that_say_nothing_are_refused(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        calibrate_threshold(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"purpose": "search"}, "purpose is 'search', but must be one of deduplication, answer_cache"),
        ({"target_precision": 0}, "target_precision is 0, but"),
        ({"prevalence": 1}, "prevalence is 1, but must be above 0 and below 1"),
        ({"weights": [1.0]}, "weights must be one for each pair"),
        ({"weights": [0.0] * 10}, "finite and above 0"),
        ({"weights": [1.0] * 10, "prevalence": 0.5}, "say the same: give one"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        calibrate_threshold([0.1] * 10, [True, False] * 5, **options)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_picture_is_drawn(tmp_path, ending):
    rng = np.random.default_rng(1)
    values = np.append(rng.normal(0.9, 0.05, 50), rng.normal(0.4, 0.1, 50))
    found = calibrate_threshold(values, [True] * 50 + [False] * 50, "answer_cache")
    path = plot_thresholds(found, tmp_path / f"t.{ending}")
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(begins)
    if ending == "svg":
        text = path.read_text()
        for part in ("threshold for answer_cache", "different (50)", "recall", "least overlap"):
            assert part in text


# Files.


def test_files_of_pairs_are_read(tmp_path):
    expected = [("a", "b, c", "1"), ("d", "e", "0")]
    for name, text in (
        ("p.csv", 'one,other,same\na,"b, c",yes\n\nd,e,0\n'),
        ("p.tsv", "a\tb, c\tTRUE\nd\te\tNo\n"),
        ("p.jsonl", '{"one": "a", "other": "b, c", "same": true}\n\n["d", "e", 0]\n'),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_pairs(tmp_path / name) == expected
    (tmp_path / "q.csv").write_text("query,label\nhow,1\n")
    assert read_pairs(tmp_path / "q.csv", columns=2) == [("how", "1")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "a,b,1\na,b\n", r"p.csv:2: \['a', 'b'\] is not 2 values and a label"),
        ("p.csv", "a,b,1\na,,1\n", "p.csv:2"),
        ("p.jsonl", '"text"\n', "p.jsonl:1"),
        ("p.jsonl", "{\n", "p.jsonl:1: not JSON"),
    ],
)
def test_what_is_no_pair_is_refused_with_its_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_pairs(tmp_path / name)
