"""The fusion of two legs in numpy, as ``fuse.sql`` does it, in the same order of operations.

Searches rank in SQL. This is for what cannot ask it: trying hundreds of settings on candidates taken once
(`pgseek.evaluation.tune`), and a collection in memory (`pgseek.MemoryIndex`). Tests of both hold it equal to
the SQL.

Of n candidates, ``dense`` float64 (n,) are the scores by vectors, higher is nearer, NaN where a row has none;
``lexical`` float64 (n,) those by words, 0 or more; ranks int (n,) count from 1, 0 where that leg did not
bring the row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pgseek.types import Normalization

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

# What is taken from each leg at most.
DEEPEST = 10_000


def weighted(
    dense: Floats,
    dense_rank: Ints,
    lexical: Floats,
    lexical_rank: Ints,
    *,
    alphas: Floats,
    normalization: Normalization,
    depth: int,
) -> tuple[Floats, Floats]:
    """Return what each leg adds to the rows' scores for each weight of the dense leg: twice (alphas, n).

    'max' divides a leg by its highest score; 'minmax' takes the dense leg from its lowest score among the
    first ``depth`` of either leg. A leg that scored nothing leaves its weight to the other.
    """
    there = ~np.isnan(dense)
    highest_word = float(lexical.max(initial=0.0))
    of_dense = alphas if highest_word != 0 else np.ones_like(alphas)
    of_words = 1 - alphas if there.any() else np.ones_like(alphas)
    words: Floats = of_words[:, None] * lexical / (highest_word or 1.0)
    if not there.any():
        return np.zeros_like(words), words
    highest = float(dense[there].max())
    if normalization == "max":
        part = of_dense[:, None] * dense / (abs(highest) or 1.0)
    else:
        first = there & (brought(dense_rank, depth) | brought(lexical_rank, depth))
        lowest = float(dense[first].min()) if first.any() else highest
        scaled = (dense - lowest) / (highest - lowest) if highest > lowest else np.ones_like(dense)
        part = of_dense[:, None] * scaled
    return np.where(there, part, 0.0), words


def reciprocal(dense_rank: Ints, lexical_rank: Ints, rrf_k: int) -> tuple[Floats, Floats]:
    """Return what each leg adds by reciprocal rank fusion: twice (n,)."""
    dense, lexical = (
        np.divide(1.0, rrf_k + ranks, out=np.zeros(len(ranks)), where=ranks > 0)
        for ranks in (dense_rank, lexical_rank)
    )
    return dense, lexical


def brought(ranks: Ints, depth: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which rows a leg has among its first ``depth``."""
    return (ranks > 0) & (ranks <= depth)
