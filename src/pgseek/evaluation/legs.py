"""What both legs found for one query, and how it would be ordered by another fusion or other BM25 constants.

This is `fuse.sql` and `weigh.sql` once more, for choosing among hundreds of settings without a search for
each; a property test holds it against the SQL. What is reported of a setting comes from searches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

RRF_K = 60
# As `rank.sql` takes at most from each leg.
DEEPEST = 10_000


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
    normalization: str = "max",
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
    rows = np.flatnonzero((ranks > 0) & (ranks <= candidates))
    ordered: Ints = rows[np.argsort(ranks[rows], kind="stable")]
    return ordered


def _found(ranks: Ints, candidates: int) -> Any:
    return (ranks > 0) & (ranks <= candidates)


def _rrf(legs: Legs, candidates: int) -> Ints:
    by_dense, by_words = _found(legs.dense_rank, candidates), _found(legs.lexical_rank, candidates)
    rows = np.flatnonzero(by_dense | by_words)
    parts = [
        np.where(found[rows], 1.0 / (RRF_K + ranks[rows]), 0.0)
        for found, ranks in ((by_dense, legs.dense_rank), (by_words, legs.lexical_rank))
    ]
    ordered: Ints = rows[np.argsort(-(parts[0] + parts[1]), kind="stable")]
    return ordered


def _weighted(
    legs: Legs, alphas: Floats, normalization: str, depth: int, candidates: int
) -> tuple[Ints, Floats]:
    """Return rows (r,) and their scores (alphas, r). The order of operations is that of the SQL, to the "
    "last bit."""
    by_dense, by_words = _found(legs.dense_rank, candidates), _found(legs.lexical_rank, candidates)
    rows: Ints = np.flatnonzero(by_dense | by_words)
    dense, lexical = legs.dense[rows], legs.lexical[rows]
    there = ~np.isnan(dense)
    highest_word = float(lexical.max(initial=0.0))
    of_dense = alphas if highest_word != 0 else np.ones_like(alphas)
    of_words = 1 - alphas if there.any() else np.ones_like(alphas)
    scores = of_words[:, None] * lexical / (highest_word or 1.0)
    if there.any():
        highest = float(dense[there].max())
        if normalization == "max":
            part = of_dense[:, None] * dense / (abs(highest) or 1.0)
        else:
            first = there & (_found(legs.dense_rank[rows], depth) | _found(legs.lexical_rank[rows], depth))
            lowest = float(dense[first].min()) if first.any() else np.nan
            spread = highest - lowest
            scaled = (dense - lowest) / spread if spread and not np.isnan(spread) else np.ones_like(dense)
            part = of_dense[:, None] * scaled
        scores = np.where(there, part, 0.0) + scores
    return rows, scores


def ranked(
    legs: Legs,
    alphas: Floats,
    *,
    fusion: str,
    normalization: str,
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
