"""Scores that can be compared between queries: how likely a hit is relevant, learnt from judgements.

A fused score says only how a hit compares with the best of its own query. The cosine, and the share of what
the query's words could bring at most (BM25 over the sum of their weights), mean the same for every query;
``relevance = 1 / (1 + exp(-(bias + dense * cosine + lexical * share)))`` is fitted to them by logistic
regression (Platt 1999).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pgseek.errors import InvalidInput
from pgseek.evaluation.trec import Qrels
from pgseek.querying import Explanation
from pgseek.types import Search

Array = np.ndarray[Any, np.dtype[np.float64]]
# Fewer relevant hits than these fit no three numbers.
LEAST_RELEVANT = 20
FOLDS = 5
BINS = 10
# Keeps the numbers finite where judgements part the hits perfectly.
RIDGE = 1e-3


class Explained(Protocol):
    """What can be calibrated: a collection."""

    def explain(self, query: Search) -> Explanation:
        """See `Collection.explain`."""
        ...


@dataclass(frozen=True, slots=True)
class Bin:
    """Hits whose predicted relevance lies in ``low`` to ``high``: its mean, and the share that was
    relevant."""

    low: float
    high: float
    hits: int
    predicted: float
    observed: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The numbers of the formula, and how well they hold for queries that they were not fitted to.

    ``reliability`` is the curve, in bins of 0.1 without the empty ones; ``error`` is the mean distance of
    prediction and observation over it, weighed by hits (expected calibration error, 0 is perfect); ``brier``
    is the mean square error of a single prediction, and ``brier_of_rate`` that of always predicting the share
    of relevant hits. All three are by cross-validation over queries.
    """

    bias: float
    dense: float
    lexical: float
    queries: int
    hits: int
    relevant: int
    error: float
    brier: float
    brier_of_rate: float
    reliability: tuple[Bin, ...]

    def to_json(self) -> dict[str, float]:
        """Return what is stored with a space."""
        return {"bias": self.bias, "dense": self.dense, "lexical": self.lexical, "error": self.error}


def calibrate(docs: Explained, queries: Mapping[str, str], qrels: Qrels, depth: int = 20) -> Calibration:
    """Fit the relevance of a collection's hits to judgements; hits without one count as not relevant.

    Each judged query is searched with the collection's settings, and its first ``depth`` hits are looked at.
    Nothing is stored: see `Collection.set_calibration`.

    Raises:
        InvalidInput: too few relevant hits, or nothing but relevant ones.
    """
    rows: list[tuple[float, float, float]] = []
    fold: list[int] = []
    asked = [name for name in sorted(queries) if name in qrels]
    for number, name in enumerate(asked):
        found = docs.explain(Search(queries[name], k=depth))
        most = sum(word["weight"] for word in found.words) or 1.0
        for hit in found.hits:
            share = (hit["lexical_score"] or 0.0) / most
            relevant = float(qrels[name].get(hit["external_id"], 0) > 0)
            rows.append((hit["dense_score"] or 0.0, share, relevant))
            fold.append(number % FOLDS)
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    values, relevant_hits, folds = table[:, :2], table[:, 2], np.array(fold)
    positive = int(relevant_hits.sum())
    if not LEAST_RELEVANT <= positive < len(table):
        raise InvalidInput(
            f"{positive} of the {len(table)} hits of {len(asked)} judged queries are relevant, but it takes "
            f"at least {LEAST_RELEVANT}, and some that are not: give more judged queries"
        )
    predicted = np.empty(len(table))
    for number in range(FOLDS):
        out = folds == number
        if out.any():
            predicted[out] = _predict(_fit(values[~out], relevant_hits[~out]), values[out])
    bias, dense, lexical = _fit(values, relevant_hits)
    bins = _reliability(predicted, relevant_hits)
    return Calibration(
        float(bias),
        float(dense),
        float(lexical),
        len(asked),
        len(table),
        positive,
        sum(one.hits * abs(one.predicted - one.observed) for one in bins) / len(table),
        float(np.mean((predicted - relevant_hits) ** 2)),
        float(np.mean((relevant_hits.mean() - relevant_hits) ** 2)),
        bins,
    )


def _predict(weights: Array, values: Array) -> Array:
    logit = np.clip(weights[0] + values @ weights[1:], -700, 700)
    predicted: Array = 1 / (1 + np.exp(-logit))
    return predicted


def _fit(values: Array, relevant: Array) -> Array:
    """Return bias and weights by Newton's method: the problem is convex, a dozen steps are plenty."""
    given = np.column_stack([np.ones(len(values)), values])
    weights: Array = np.zeros(given.shape[1])
    penalty = RIDGE * np.diag([0.0, 1.0, 1.0])
    for _ in range(50):
        predicted = _predict(weights, values)
        slope = given.T @ (relevant - predicted) - penalty @ weights
        curvature = given.T @ (given * (predicted * (1 - predicted))[:, None]) + penalty
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), slope)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def _reliability(predicted: Array, relevant: Array) -> tuple[Bin, ...]:
    place = np.minimum((predicted * BINS).astype(int), BINS - 1)
    return tuple(
        Bin(
            number / BINS,
            (number + 1) / BINS,
            int(inside.sum()),
            float(predicted[inside].mean()),
            float(relevant[inside].mean()),
        )
        for number in range(BINS)
        if (inside := place == number).any()
    )
