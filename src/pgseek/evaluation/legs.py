"""What both legs found for one query, and how it would be ordered by another fusion or other BM25 constants.

This is `weigh.sql` once more, with `pgseek.fusion`, for choosing among hundreds of settings without a search
for each; a property test holds it against the SQL. What is reported of a setting comes from searches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pgseek.fusion import DEEPEST, Floats, Ints, brought, reciprocal, weighted
from pgseek.types import Normalization

RRF_K = 60


@dataclass(frozen=True, slots=True, eq=False)
class Legs:
    """Candidates of one query, in the order of their documents' numbers in the database, then ordinals.

    ``document`` (n,) numbers documents; ``dense`` (n,) is NaN where a row has no vector; ranks (n,) are 0
    where a leg did not bring the row; ``lexical`` (n,) is 0 or more. Without ``has_words`` the lexical leg
    does not run.
    """

    document: Ints
    dense: Floats
    dense_rank: Ints
    lexical: Floats
    lexical_rank: Ints
    has_words: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """What BM25 knows of the rows of a `Legs`, for the m words of its query that any chunk has.

    ``occurrences`` (n, m) counts words in title and text, ``titled`` (n, m) those in the title; ``length``
    and ``title_length`` (n,) are the same of all words; ``weights`` (m,) are the query's.
    """

    occurrences: Floats
    titled: Floats
    length: Floats
    title_length: Floats
    weights: Floats


def fused_orders(
    legs: Legs,
    alphas: Floats,
    *,
    fusion: str = "weighted",
    normalization: Normalization = "max",
    depth: int,
    candidates: int,
) -> list[Ints]:
    """Return, for each alpha, the rows in the order of the fusion of ``candidates`` rows of each leg.

    ``depth`` is the collection's setting of candidates. With fusion 'rrf' there is one order for all alphas.
    """
    if fusion == "rrf":
        one = _rrf(legs, candidates) if legs.has_words else _by_rank(legs.dense_rank, candidates)
        return [one] * len(alphas)
    orders: dict[int, Ints] = {}
    mixed = []
    for place, alpha in enumerate(alphas):
        if alpha == 0:
            orders[place] = _by_rank(legs.lexical_rank, candidates)
        elif alpha == 1 or not legs.has_words:
            orders[place] = _by_rank(legs.dense_rank, candidates)
        else:
            mixed.append(place)
    if mixed:
        rows, scores = _weighted(legs, alphas[mixed], normalization, depth, candidates)
        sorted_rows = np.argsort(-scores, axis=1, kind="stable")
        orders.update((place, rows[order]) for place, order in zip(mixed, sorted_rows, strict=True))
    return [orders[place] for place in range(len(alphas))]


def _by_rank(ranks: Ints, candidates: int) -> Ints:
    rows = np.flatnonzero(brought(ranks, candidates))
    ordered: Ints = rows[np.argsort(ranks[rows], kind="stable")]
    return ordered


def _rows(legs: Legs, candidates: int) -> Ints:
    """Return the rows that are among the first ``candidates`` of either leg."""
    rows: Ints = np.flatnonzero(brought(legs.dense_rank, candidates) | brought(legs.lexical_rank, candidates))
    return rows


def _rrf(legs: Legs, candidates: int) -> Ints:
    rows = _rows(legs, candidates)
    by_dense, by_words = (
        np.where(brought(ranks, candidates), ranks, 0) for ranks in (legs.dense_rank, legs.lexical_rank)
    )
    dense, lexical = reciprocal(by_dense[rows], by_words[rows], RRF_K)
    ordered: Ints = rows[np.argsort(-(dense + lexical), kind="stable")]
    return ordered


def _weighted(
    legs: Legs, alphas: Floats, normalization: Normalization, depth: int, candidates: int
) -> tuple[Ints, Floats]:
    """Return rows (r,) and their scores (alphas, r)."""
    rows = _rows(legs, candidates)
    dense, lexical = weighted(
        legs.dense[rows],
        legs.dense_rank[rows],
        legs.lexical[rows],
        legs.lexical_rank[rows],
        alphas=alphas,
        normalization=normalization,
        depth=depth,
    )
    return rows, dense + lexical


def ranked(
    legs: Legs,
    alphas: Floats,
    *,
    fusion: str,
    normalization: Normalization,
    depth: int,
    k: int,
    collapse: bool = False,
    left_out: int = -1,
) -> list[list[int]]:
    """Return, for each alpha, the first ``k`` documents: what `run_mode` finds with these settings.

    As there, more is asked for while the chunks of few documents fill the hits. ``left_out`` is the number of
    a document that does not count.
    """
    asked = k + (left_out >= 0)

    def order(alpha: Floats, candidates: int) -> list[Ints]:
        return fused_orders(
            legs,
            alpha,
            fusion=fusion,
            normalization=normalization,
            depth=depth,
            candidates=min(candidates, DEEPEST),
        )

    first = order(alphas, max(2 * asked if collapse else asked, depth))
    return [
        _documents(
            legs.document, rows, partial_order(order, alphas[place]), k, asked, depth, collapse, left_out
        )
        for place, rows in enumerate(first)
    ]


def partial_order(order: Callable[[Floats, int], list[Ints]], alpha: float) -> Callable[[int], Ints]:
    """Return the function that orders more candidates by one alpha."""
    return lambda candidates: order(np.array([alpha]), candidates)[0]


def _documents(
    document: Ints,
    rows: Ints,
    more: Callable[[int], Ints],
    k: int,
    asked: int,
    depth: int,
    collapse: bool,
    left_out: int,
) -> list[int]:
    candidates = max(2 * asked if collapse else asked, depth)
    while True:
        hits = document[rows]
        found = _distinct(hits if collapse else hits[:asked])
        if collapse:
            found = found[:asked]
        full = len(found) >= asked if collapse else len(hits) >= asked
        kept = [one for one in found if one != left_out]
        if collapse and not full and candidates < DEEPEST and candidates < len(document):
            candidates *= 4
        elif not collapse and len(kept) < k and full and asked < DEEPEST:
            asked *= 2
            if max(asked, depth) == candidates:
                continue
            candidates = max(asked, depth)
        else:
            return kept[:k]
        rows = more(candidates)


def _distinct(values: Ints) -> list[int]:
    """Return each value once, where it stands first."""
    return list(dict.fromkeys(values.tolist()))


def bm25_scores(words: Words, k1: float, b: float, title_weight: float, average: float) -> Floats:
    """Return the BM25 scores (n,) of rows weighed with other constants.

    ``average`` is the collection's average length by this title weight. Constants and weights are of single
    precision, as they are stored.
    """
    k1, b, title_weight, average = (float(np.float32(value)) for value in (k1, b, title_weight, average))
    occurrences = words.occurrences + (title_weight - 1) * words.titled
    length = words.length + (title_weight - 1) * words.title_length
    norm = k1 * (1 - b + b * length / average)
    total = occurrences + norm[:, None]
    weights = np.divide(occurrences, total, out=np.zeros_like(occurrences), where=occurrences > 0)
    scores: Floats = weights.astype(np.float32).astype(np.float64) @ words.weights.astype(np.float32).astype(
        np.float64
    )
    return scores


def reweighed(legs: Legs, words: Words, k1: float, b: float, title_weight: float, average: float) -> Legs:
    """Return the candidates with the lexical leg that other constants give, among the rows there are."""
    if not legs.has_words:
        return legs
    scores = bm25_scores(words, k1, b, title_weight, average)
    order = np.argsort(-scores, kind="stable")
    ranks = np.zeros(len(scores), dtype=np.int64)
    ranks[order] = np.arange(1, len(scores) + 1)
    ranks[scores <= 0] = 0
    return Legs(legs.document, legs.dense, legs.dense_rank, scores, ranks)
