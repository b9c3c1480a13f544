"""How sure a mean over queries is: the percentile bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pgseek.errors import InvalidInput
from pgseek.evaluation.compare import RESAMPLES, SEED

# Queries drawn at a time, 32 MB.
_BATCH = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and where that of other queries of the same kind would lie with probability ``level``."""

    mean: float
    low: float
    high: float
    level: float = 0.95


def bootstrap(values: Sequence[float], level: float = 0.95, resamples: int = RESAMPLES) -> Interval:
    """Return the mean of one value per query with its percentile bootstrap interval (Efron 1979).

    Queries are drawn with replacement, as many as there are, ``resamples`` times, always the same; the bounds
    are quantiles of the means of those draws. For a difference of two settings, give the difference of each
    query: the interval is then a paired one.

    Raises:
        InvalidInput: there is no value, or ``level`` does not lie between 0 and 1.
    """
    if not 0 < level < 1:
        raise InvalidInput(f"level is {level!r}, but must lie between 0 and 1, such as 0.95")
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or not given.size:
        raise InvalidInput("there is no value to take the mean of: give one for each query")
    generator = np.random.default_rng(SEED)
    means = np.empty(resamples)
    batch = max(1, _BATCH // given.size)
    for start in range(0, resamples, batch):
        drawn = generator.integers(0, given.size, (min(batch, resamples - start), given.size))
        means[start : start + batch] = given[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(given.mean()), float(low), float(high), level)
