"""How alike two rankings are, and what is refused before anything is searched."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgseek.errors import InvalidInput
from pgseek.evaluation.spaces import QueryDifference, Wanted, overlap, rbo

names = st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=12)


def by_sum(a, b, p):
    """The expected share of common documents at the place where the reader stops, to the 3,000th place.

    Below the end of the shorter list its share goes on as it was at its end, below the longer one's both do.
    """
    short, long = sorted((a, b), key=len)
    s, n = len(short), len(long)

    def common(depth):
        return len(set(short[:depth]) & set(long[:depth]))

    total = 0.0
    for depth in range(1, 3000):
        if depth <= s:
            agreed = common(depth) / depth
        elif depth <= n:
            agreed = (common(depth) + common(s) * (depth - s) / s) / depth
        else:
            agreed = (common(n) - common(s)) / n + common(s) / s
        total += (1 - p) * p ** (depth - 1) * agreed
    return total


@given(names, names, st.sampled_from([0.5, 0.9, 0.98]))
def test_rank_biased_overlap_is_the_sum_it_stands_for(a, b, p):
    if a and b:
        assert rbo(a, b, p) == pytest.approx(by_sum(a, b, p), abs=1e-9)
    assert rbo(a, b, p) == pytest.approx(rbo(b, a, p), abs=1e-12)
    assert -1e-12 <= rbo(a, b, p) <= 1 + 1e-12
    assert rbo(a, a, p) == pytest.approx(1)


def test_rank_biased_overlap_by_hand():
    assert rbo([], []) == 1
    assert rbo([], ["a"]) == 0
    assert rbo("ab", "cd") == 0
    # Agreement is 0 at the first place, 1 from the second on.
    assert rbo("ab", "ba") == pytest.approx(0.9)
    # The head of a list weighs more than its tail.
    assert rbo("abcdefghij", "bacdefghij") < rbo("abcdefghij", "abcdefghji")
    with pytest.raises(InvalidInput, match="persistence is 1, but must lie between 0 and 1"):
        rbo("a", "a", 1)


def test_the_first_ten_weigh_as_it_says():
    # Equation 21 of the paper: what the first d places weigh.
    p, d = 0.9, 10
    weight = 1 - p ** (d - 1) + (1 - p) / p * d * (math.log(1 / (1 - p)) - sum(p**i / i for i in range(1, d)))
    assert round(weight, 2) == 0.86


def test_overlap_is_of_the_longer_list():
    assert overlap([], []) == 1
    assert overlap("abc", "") == 0
    assert overlap("abcd", "ab") == 0.5
    assert overlap("abc", "cab") == 1


def test_two_lists_begin_alike_or_are_both_empty():
    def made(a, b):
        return QueryDifference("q", "x", tuple(a), tuple(b), 0, 0).same_first

    assert made("ab", "ac")
    assert made("", "")
    assert not made("ab", "ba")
    assert not made("a", "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"queries": {}}, "no query is given"),
        ({"queries": {"1": " "}}, "query '1': the query is empty"),
        ({"queries": {"1": 7}}, "query '1': the query is empty"),
        ({"k": 0}, "k is 0, but must be a whole number from 1 to 10,000"),
        ({"alpha": 0}, "alpha is 0, the lexical leg alone, which is the same whatever the space"),
        ({"alpha": 2}, "alpha is 2, but must lie in 0..1"),
        ({"qrels": {"2": {"d": 1}}}, "none of the 1 judged queries is among the 1 queries given"),
        ({"qrels": {"1": {"d": 1}}, "measures": ("nDGC@10",)}, "measure 'nDGC@10' is unknown"),
        ({"qrels": {"1": {"d": 1}}, "measures": ("P@20000",)}, "a measure looks at 20,000 documents"),
    ],
)
def test_what_cannot_be_compared_is_refused(given, message):
    with pytest.raises(InvalidInput, match=message):
        Wanted(**{"queries": {"1": "x"}, **given})


def test_searches_are_as_deep_as_the_measures_look():
    queries, qrels = {"1": "x"}, {"1": {"d": 1}}
    assert Wanted(queries).depth == 10
    assert Wanted(queries, k=25).depth == 25
    assert Wanted(queries, qrels).depth == 100
    assert Wanted(queries, qrels, measures=("P@500",)).depth == 500
