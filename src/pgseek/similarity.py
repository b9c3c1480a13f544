"""How alike vectors are, in numpy: the four metrics as pgvector computes them and as pgseek scores them.

Shapes: a vector is (d,), several are (n, d). Of ``a`` and ``b`` the result has the shape
``a.shape[:-1] + b.shape[:-1]``: () for two vectors, (n,) for several and one, (n, m) for several and
several. Input is any real dtype; everything is computed and returned in float64, where pgvector adds up in
float32, so that the two agree to about six digits.

| metric        | distance (lower is nearer)      | score (higher is nearer)          | of a zero vector |
|---------------|---------------------------------|-----------------------------------|------------------|
| cosine        | 1 - cosine, 0..2                | the cosine, -1..1                 | NaN              |
| inner_product | the inner product, sign turned  | the inner product, unbounded      | 0                |
| l2            | Euclidean, 0 or more            | 1 / (1 + distance), above 0 to 1  | the other's size |
| l1            | sum of differences, 0 or more   | 1 / (1 + distance), above 0 to 1  | the other's size |
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pgseek.errors import DimensionMismatch, InvalidInput
from pgseek.vectors import Metric, check_metric

Array = np.ndarray[Any, np.dtype[np.float64]]
Indexes = np.ndarray[Any, np.dtype[np.int64]]
# Numbers that are worked on at a time: 32 MB of them.
ELEMENTS = 4_000_000


def distances(a: Any, b: Any, metric: Metric = "cosine") -> Array:
    """Return distances as pgvector's operators ``<=>``, ``<#>``, ``<->`` and ``<+>`` do: lower is nearer.

    Raises:
        InvalidInput: an unknown metric, or no vectors of numbers.
        DimensionMismatch: vectors of two sizes.
    """
    check_metric(metric)
    one, other = _vectors("a", a), _vectors("b", b)
    if one.shape[-1] != other.shape[-1]:
        raise DimensionMismatch(
            f"a has vectors of {one.shape[-1]} numbers, b of {other.shape[-1]}: "
            "only vectors of one embedding space can be compared"
        )
    shape = one.shape[:-1] + other.shape[:-1]
    rows, columns = np.atleast_2d(one), np.atleast_2d(other)
    found = _inner(rows, columns, metric) if metric in {"cosine", "inner_product"} else None
    if found is None:
        found = _differences(rows, columns, metric)
    return found.reshape(shape)


def scores(a: Any, b: Any, metric: Metric = "cosine") -> Array:
    """Return what pgseek calls ``dense_score``: higher is nearer. See `distances` for errors."""
    return score_of(distances(a, b, metric), metric)


def score_of(distance: Any, metric: Metric) -> Array:
    """Return the scores of distances, as `pgseek.search` makes them."""
    one: Array = np.asarray(distance, dtype=np.float64)
    found: Array = 1 - one if metric == "cosine" else -one if metric == "inner_product" else 1 / (1 + one)
    return found


def normalize(vectors: Any) -> Array:
    """Return the vectors at length 1, float64; a zero vector stays zero."""
    given = _vectors("vectors", vectors)
    lengths = np.linalg.norm(given, axis=-1, keepdims=True)
    found: Array = np.divide(given, lengths, out=np.zeros_like(given), where=lengths > 0)
    return found


def pairwise(
    a: Any, b: Any = None, metric: Metric = "cosine", *, rows: int | None = None
) -> Iterator[tuple[int, Array]]:
    """Yield the scores of all pairs block by block: the number of its first row, and (rows, m) of them.

    Without ``b`` the pairs are those within ``a``, each vector with itself included. ``rows`` of ``a`` make a
    block, by default as many as keep it within 32 MB.
    """
    given = np.atleast_2d(np.asarray(a))
    others = given if b is None else np.atleast_2d(np.asarray(b))
    step = max(1, ELEMENTS // max(1, len(others))) if rows is None else rows
    if isinstance(step, bool) or not isinstance(step, int) or step < 1:
        raise InvalidInput(f"rows is {rows!r}, but must be a whole number from 1")
    for start in range(0, len(given), step):
        yield start, scores(given[start : start + step], others, metric)


def nearest(vectors: Any, queries: Any, k: int, metric: Metric = "cosine") -> tuple[Indexes, Array]:
    """Return the exact ``k`` nearest of ``vectors`` (n, d) to each of ``queries`` (q, d), nearest first.

    Both results have the shape (q, min(k, n)): places in ``vectors``, and distances. Ties stand in the order
    of places. Memory is bounded: queries are compared block by block.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InvalidInput(f"k is {k!r}, but must be a whole number from 1")
    given, asked = np.atleast_2d(np.asarray(vectors)), np.atleast_2d(np.asarray(queries))
    step = max(1, ELEMENTS // max(1, len(given)))
    places, found = [], []
    for start in range(0, len(asked), step):
        block = distances(asked[start : start + step], given, metric)
        # Differences that are rounding alone must not order equal vectors.
        order = np.argsort(np.round(block, 12), axis=1, kind="stable")[:, :k]
        places.append(order)
        found.append(np.take_along_axis(block, order, axis=1))
    return np.vstack(places), np.vstack(found)


def _vectors(name: str, given: Any) -> Array:
    try:
        made: Array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name} holds no vectors of numbers: {error}") from error
    if made.ndim not in {1, 2} or not made.shape[-1]:
        raise InvalidInput(
            f"{name} has the shape {made.shape}, but must be a vector (d,) or several of them (n, d)"
        )
    return made


def _inner(a: Array, b: Array, metric: Metric) -> Array:
    inner: Array = a @ b.T
    if metric == "inner_product":
        return -inner
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = inner / lengths
    found: Array = 1 - np.clip(cosine, -1, 1)
    return found


def _differences(a: Array, b: Array, metric: Metric) -> Array:
    # By the differences themselves: |a|² + |b|² - 2 a·b is faster, and wrong where a is close to b.
    found = np.empty((len(a), len(b)))
    step = max(1, ELEMENTS // b.shape[1])
    for row, vector in enumerate(a):
        for start in range(0, len(b), step):
            between = np.abs(b[start : start + step] - vector)
            found[row, start : start + step] = (
                between.sum(axis=1) if metric == "l1" else np.sqrt((between**2).sum(axis=1))
            )
    return found
