"""The four metrics in numpy: shapes, ranges, and what they give for vectors without a direction."""

from __future__ import annotations

import numpy as np
import pytest

from pgseek import DimensionMismatch, InvalidInput
from pgseek.similarity import distances, nearest, normalize, pairwise, scores
from pgseek.vectors import METRICS


@pytest.fixture
def vectors():
    return np.random.default_rng(3).normal(size=(7, 5)).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
def test_the_shape_of_the_result_is_that_of_both_without_the_numbers(vectors, metric):
    several, one = vectors, vectors[0]
    assert distances(one, one, metric).shape == ()
    assert distances(several, one, metric).shape == (7,)
    assert distances(one, several, metric).shape == (7,)
    assert distances(several, several[:3], metric).shape == (7, 3)
    assert distances(several, one, metric).dtype == np.float64
    assert distances(several, several, metric)[4, 2] == pytest.approx(
        distances(several[4], several[2], metric)
    )


def test_each_metric_by_hand():
    a, b = [3.0, 4.0], [4.0, 3.0]
    assert float(distances(a, b)) == pytest.approx(1 - 24 / 25)
    assert float(scores(a, b)) == pytest.approx(24 / 25)
    assert (float(distances(a, b, "inner_product")), float(scores(a, b, "inner_product"))) == (-24, 24)
    assert float(distances(a, b, "l2")) == pytest.approx(2**0.5)
    assert float(scores(a, b, "l2")) == pytest.approx(1 / (1 + 2**0.5))
    assert float(distances(a, b, "l1")) == 2
    assert float(scores(a, b, "l1")) == pytest.approx(1 / 3)


def test_a_zero_vector_has_no_cosine_and_has_the_others():
    zero, one = [0.0, 0.0], [3.0, 4.0]
    assert np.isnan(distances(zero, one))
    assert np.isnan(scores(zero, zero))
    assert float(distances(zero, one, "inner_product")) == 0
    assert (float(distances(zero, one, "l2")), float(distances(zero, one, "l1"))) == (5, 7)
    assert normalize([zero, one]).tolist() == [[0, 0], [0.6, 0.8]]


def test_a_vector_is_at_no_distance_from_itself(vectors):
    for metric in ("l2", "l1"):
        assert np.diagonal(distances(vectors, vectors, metric)).tolist() == [0.0] * 7
    assert np.diagonal(distances(vectors, vectors)) == pytest.approx(0, abs=1e-12)
    assert (scores(vectors, -vectors) >= -1).all()


@pytest.mark.parametrize("metric", METRICS)
def test_blocks_are_the_whole_and_hold_no_more_rows_than_asked_for(vectors, metric):
    found = list(pairwise(vectors, metric=metric, rows=3))
    assert [(start, block.shape) for start, block in found] == [(0, (3, 7)), (3, (3, 7)), (6, (1, 7))]
    assert np.vstack([block for _, block in found]) == pytest.approx(scores(vectors, vectors, metric))


def test_the_nearest_are_exact_and_ties_stand_in_order():
    vectors = [[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [1.0, 1.0]]
    places, found = nearest(vectors, [[1.0, 0.0]], 3)
    assert places.tolist() == [[0, 2, 3]]
    assert found[0, :2] == pytest.approx(0)
    assert nearest(vectors, [[1.0, 0.0]], 9, "l2")[0].shape == (1, 4)


def test_what_cannot_be_compared_is_named():
    with pytest.raises(DimensionMismatch, match="a has vectors of 2 numbers, b of 3"):
        distances([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(InvalidInput, match="metric is 'hamming'"):
        distances([1.0], [1.0], "hamming")
    with pytest.raises(InvalidInput, match=r"has the shape \(\)"):
        scores(1.0, [1.0])
    with pytest.raises(InvalidInput, match="no vectors of numbers"):
        scores(["x"], [1.0])
    with pytest.raises(InvalidInput, match="k is 0"):
        nearest([[1.0]], [[1.0]], 0)
    with pytest.raises(InvalidInput, match="rows is 0"):
        list(pairwise([[1.0]], rows=0))
