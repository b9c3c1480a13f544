"""Both legs in numpy: what pgseek.fuse does, by comparing every row.

Tests hold it equal to the SQL. Rows are called by their places in `Rows`, whose order decides ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np

from pgseek import similarity
from pgseek.fusion import Ints, reciprocal, weighted
from pgseek.memory.rows import Floats, Postings
from pgseek.similarity import Array
from pgseek.types import Fusion, Normalization
from pgseek.vectors import Metric, Storage

# Distances that differ by less are equal: numpy may add up two equal rows in two orders.
DECIMALS = 12


@dataclass(frozen=True, slots=True)
class Weighing:
    """How two legs become one ranking; see `Search`. ``depth`` rows are candidates of a leg."""

    fusion: Fusion
    alpha: float
    normalization: Normalization
    rrf_k: int
    depth: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row by its place, with what each leg gave it; see `Hit`."""

    row: int
    score: float
    dense_score: float | None = None
    dense_distance: float | None = None
    dense_rank: int | None = None
    dense_part: float | None = None
    lexical_score: float | None = None
    lexical_rank: int | None = None
    lexical_part: float | None = None


@dataclass(frozen=True, slots=True)
class Fused:
    """Candidates, best first, and how many each leg brought: None if it did not run."""

    candidates: tuple[Candidate, ...]
    dense_found: int | None
    lexical_found: int | None


@dataclass(frozen=True, slots=True)
class Legs:
    """The scores of all rows for one query: ``distances`` float64 (n,), NaN where there is no vector, and
    ``lexical`` float32 (n,); None for a leg that does not run. Rows outside ``allowed`` are none."""

    distances: Array | None
    lexical: Floats | None
    metric: Metric
    allowed: np.ndarray[Any, np.dtype[np.bool_]]

    def fuse(self, how: Weighing, candidates: int) -> Fused:
        """Return the candidates of both legs in order of their fused score."""
        dense = self._nearest(candidates)
        lexical = self._heaviest(candidates)
        if dense is not None and lexical is not None:
            found = self._both(dense, lexical, how)
        elif dense is not None:
            found = self._single(dense, how, dense=True)
        else:
            found = self._single(lexical if lexical is not None else [], how, dense=False)
        return Fused(
            tuple(found), None if dense is None else len(dense), None if lexical is None else len(lexical)
        )

    def _nearest(self, most: int) -> list[int] | None:
        if self.distances is None:
            return None
        known = np.flatnonzero(self.allowed & ~np.isnan(self.distances))
        order = np.argsort(np.round(self.distances[known], DECIMALS), kind="stable")
        nearest: list[int] = known[order[:most]].tolist()
        return nearest

    def _heaviest(self, most: int) -> list[int] | None:
        if self.lexical is None:
            return None
        matching = np.flatnonzero(self.allowed & (self.lexical > 0))
        order = np.argsort(-self.lexical[matching], kind="stable")
        heaviest: list[int] = matching[order[:most]].tolist()
        return heaviest

    def _dense_score(self, row: int) -> float | None:
        distance = self._distance(row)
        return None if distance is None else float(similarity.score_of(distance, self.metric))

    def _distance(self, row: int) -> float | None:
        if self.distances is None or np.isnan(self.distances[row]):
            return None
        return float(self.distances[row])

    def _single(self, ranked: Sequence[int], how: Weighing, *, dense: bool) -> list[Candidate]:
        found = []
        highest: float | None = None
        for rank, row in enumerate(ranked, 1):
            if dense:
                raw = self._dense_score(row) or 0.0
            else:
                raw = float(self.lexical[row]) if self.lexical is not None else 0.0
            highest = raw if highest is None else max(highest, raw)
            score = 1 / (how.rrf_k + rank) if how.fusion == "rrf" else raw / (abs(highest) or 1.0)
            if dense and self.distances is not None:
                found.append(Candidate(row, score, raw, float(self.distances[row]), rank, score))
            else:
                found.append(Candidate(row, score, None, None, None, None, raw, rank, score))
        return found

    def _both(self, dense: Sequence[int], lexical: Sequence[int], how: Weighing) -> list[Candidate]:
        rows = np.array(sorted({*dense, *lexical}), dtype=np.int64)
        dense_rank, lexical_rank = _ranks(rows, dense), _ranks(rows, lexical)
        near, heavy = self._scored(rows)
        if how.fusion == "rrf":
            parts = reciprocal(dense_rank, lexical_rank, how.rrf_k)
        else:
            of_dense, of_words = weighted(
                near,
                dense_rank,
                heavy,
                lexical_rank,
                alphas=np.array([how.alpha]),
                normalization=how.normalization,
                depth=how.depth,
            )
            parts = of_dense[0], of_words[0]
        found = [
            Candidate(
                int(row),
                float(parts[0][place] + parts[1][place]),
                None if np.isnan(near[place]) else float(near[place]),
                self._distance(int(row)),
                int(dense_rank[place]) or None,
                float(parts[0][place]),
                float(heavy[place]),
                int(lexical_rank[place]) or None,
                float(parts[1][place]),
            )
            for place, row in enumerate(rows)
        ]
        return sorted(found, key=lambda one: (-one.score, one.row))

    def _scored(self, rows: Ints) -> tuple[Array, Array]:
        """Return what both legs say of rows: NaN and 0 where they say nothing."""
        near = np.full(len(rows), np.nan)
        if self.distances is not None:
            near = similarity.score_of(self.distances[rows], self.metric)
        heavy = np.zeros(len(rows)) if self.lexical is None else self.lexical[rows].astype(np.float64)
        return near, heavy


def _ranks(rows: Ints, ranked: Sequence[int]) -> Ints:
    """Return the place of each of ``rows`` among ``ranked``, counted from 1; 0 where it is not."""
    places = {row: rank for rank, row in enumerate(ranked, 1)}
    return np.array([places.get(int(row), 0) for row in rows], dtype=np.int64)


def lexical_scores(
    postings: Postings, rows: int, dimensions: Sequence[int], weights: Sequence[float]
) -> Floats:
    """Return the BM25 score of each row, float32 (rows,): added up in the order and the precision that
    pgvector's sparsevec has, so that rows which are equal there are equal here."""
    asked: dict[int, float] = {}
    for dimension, weight in zip(dimensions, weights, strict=True):
        asked[dimension] = max(weight, asked.get(dimension, weight))
    found = np.zeros(rows, dtype=np.float32)
    for dimension in sorted(asked):
        if dimension in postings:
            places, values = postings[dimension]
            found[places] += np.float32(asked[dimension]) * values
    return found


def dense_distances(vectors: Floats, query: Floats, metric: Metric, storage: Storage) -> Array:
    """Return the distance of each row from a query, as it is compared where vectors are stored so."""
    asked = query.astype(np.float16).astype(np.float32) if storage == "halfvec" else query
    return similarity.distances(vectors, asked, metric)


def best_of_documents(candidates: Sequence[Candidate], documents: Sequence[UUID]) -> list[Candidate]:
    """Return the best candidate of each document; ``documents`` holds that of each row, by its place."""
    best: dict[UUID, Candidate] = {}
    for one in candidates:
        best.setdefault(documents[one.row], one)
    return list(best.values())
