"""Comparing modes on the same queries: paired differences, and how likely chance alone makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from pgseek.errors import InvalidInput, MissingExtra

RESAMPLES = 10_000
SEED = 20_240_229
# Two values that differ by less are the same sum, added up in another order.
EQUAL = 1e-12
# Resamples are drawn in batches of this many numbers, 32 MB.
_BATCH = 4_000_000

# Measure → query → value.
PerQuery = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A mode against the baseline in one measure, over the same queries.

    ``differences`` are mode minus baseline by query, ``difference`` is their mean; ``better``,
    ``equal`` and ``worse`` count queries as the mode fares. ``p`` is that of `permutation_p`,
    ``p_holm`` the same corrected for all modes compared in this measure. Where the baseline is
    the best mode, chosen for its values on these very queries, both come out a little too small.
    """

    measure: str
    mode: str
    baseline: str
    difference: float
    better: int
    equal: int
    worse: int
    p: float
    p_holm: float
    differences: Mapping[str, float]


def compare(values: Mapping[str, PerQuery], baseline: str | None = None) -> tuple[Comparison, ...]:
    """Compare every mode with the baseline, per measure.

    ``values`` maps mode → measure → query → value, with the same measures and queries in each
    mode. Without a named ``baseline`` it is each measure's best mode; of equal ones the first.

    Raises:
        InvalidInput: the baseline is not among the modes.
        MissingExtra: scipy is not installed.
    """
    if baseline is not None and baseline not in values:
        raise InvalidInput(f"baseline {baseline!r} is not among the modes run: {', '.join(values)}")
    compared: list[Comparison] = []
    for measure in next(iter(values.values())) if values else ():
        means = {mode: fmean(by_measure[measure].values()) for mode, by_measure in values.items()}
        against = baseline or max(means, key=means.__getitem__)
        base = values[against][measure]
        differences = {
            mode: {query: value - base[query] for query, value in by_measure[measure].items()}
            for mode, by_measure in values.items()
            if mode != against
        }
        p = [permutation_p(list(by_query.values())) for by_query in differences.values()]
        for (mode, by_query), raw, corrected in zip(differences.items(), p, holm(p), strict=True):
            better = sum(difference > EQUAL for difference in by_query.values())
            worse = sum(difference < -EQUAL for difference in by_query.values())
            mean = fmean(by_query.values())
            equal = len(by_query) - better - worse
            compared.append(
                Comparison(measure, mode, against, mean, better, equal, worse, raw, corrected, by_query)
            )
    return tuple(compared)


def permutation_p(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of the paired randomisation test (Fisher 1935).

    Were the two modes alike, each difference could as well have the other sign: p is the share of
    sign assignments whose mean lies at least as far from 0. All 2^n are looked at where there are
    at most 10,000, else 10,000 random ones, always the same. Smucker et al. (CIKM 2007) recommend
    the test for runs.
    """
    stats = load_stats()
    # A difference of 0 is the same with either sign.
    moved = np.array([difference for difference in differences if abs(difference) > EQUAL])
    if moved.size < 2:
        # Either sign of a single difference is as far from 0 as the other; scipy refuses to say so.
        return 1.0

    def total(sample: Any, axis: int) -> Any:
        return np.sum(sample, axis=axis)

    result = stats.permutation_test(
        (moved,),
        total,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH // moved.size),
        rng=SEED,
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected by Holm's step-down method (1979), in the order given."""
    corrected = [0.0] * len(p_values)
    least = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = least
    return corrected


def load_stats() -> Any:
    """Return the module scipy.stats. Raises `MissingExtra` if it is not installed."""
    try:
        from scipy import stats  # noqa: PLC0415 (on demand)
    except ImportError as error:
        raise MissingExtra("scipy", "eval") from error
    return stats
