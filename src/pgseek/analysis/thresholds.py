"""From what similarity on two things are the same: read off labelled pairs, drawn, and kept with the space.

A threshold belongs to a space and a purpose. 'deduplication' compares two documents, 'answer_cache' two
questions, 'no_answer' a question with its best document. What is a good value differs from model to model:
see docs/duplicates.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from psycopg.types.json import Jsonb

from pgseek.analysis.collection import Analysed
from pgseek.errors import InvalidInput
from pgseek.plots import COLORS, new_figure, save_figure
from pgseek.steps import fetch

Array = np.ndarray[Any, np.dtype[np.float64]]
Labels = np.ndarray[Any, np.dtype[np.bool_]]
Purpose = Literal["deduplication", "answer_cache", "no_answer"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
# Fewer of either kind say too little.
LEAST_PAIRS = 5
BINS = 50


@dataclass(frozen=True, slots=True)
class Choice:
    """A threshold, and what holds of the pairs from it on: the share of them that are the same
    (``precision``), and the share of all that are the same (``recall``)."""

    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """The shares of both kinds of pairs in bins of similarity; ``edges`` is one longer than the others."""

    edges: tuple[float, ...]
    same: tuple[float, ...]
    different: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What labelled pairs say of a threshold.

    ``same`` and ``different`` count the pairs. ``prevalence`` is the share of pairs that are the same, among
    all that will be compared; ``precision`` is by it. ``corrected`` says that it is not simply that of the
    pairs given. ``least_overlap`` is where the two distributions overlap least: it loses and lets through the
    smallest share of each kind (Youden 1950), whatever precision that means where few pairs are the same.
    ``target`` is the lowest threshold with ``target_precision``, None if no threshold reaches it. ``curve``
    holds up to 200 thresholds, from the lowest.
    """

    purpose: Purpose
    same: int
    different: int
    prevalence: float
    corrected: bool
    target_precision: float
    least_overlap: Choice
    target: Choice | None
    curve: tuple[Choice, ...]
    histogram: Histogram


def calibrate_threshold(
    similarities: Sequence[float] | Array,
    same: Sequence[bool] | Labels,
    purpose: Purpose = "deduplication",
    *,
    target_precision: float = 0.95,
    prevalence: float | None = None,
    weights: Sequence[float] | Array | None = None,
) -> Calibrated:
    """Find thresholds from pairs, each with its similarity and whether the two are the same.

    Where pairs of the two kinds were sampled at different rates, the shares among them are not those that
    will be met. ``weights`` says how many pairs each stands for; or ``prevalence`` (above 0, below 1) what
    share of all pairs is the same. With the share of pairs that are the same and reach a threshold (TPR), and
    of those that are different and reach it (FPR), precision = prevalence * TPR / (prevalence * TPR +
    (1 - prevalence) * FPR). A different pair that was never sampled cannot count: with n of them an FPR
    below 1 / n is not known.

    Raises:
        InvalidInput: fewer than 5 pairs of a kind, or an argument out of its range.
    """
    check_purpose(purpose)
    values: Array = np.asarray(similarities, dtype=np.float64)
    labels: Labels = np.asarray(same, dtype=np.bool_)
    if values.ndim != 1 or values.shape != labels.shape:
        raise InvalidInput(
            f"there are {values.size:,} similarities, but {labels.size:,} labels: give one for each"
        )
    if not np.isfinite(values).all():
        raise InvalidInput("a similarity is NaN or infinite, so it says nothing")
    if not 0 < target_precision < 1:
        raise InvalidInput(f"target_precision is {target_precision}, but must be above 0 and below 1")
    positive = int(labels.sum())
    if min(positive, len(labels) - positive) < LEAST_PAIRS:
        raise InvalidInput(
            f"{positive:,} of the {len(labels):,} pairs are the same, but it takes at least {LEAST_PAIRS} of "
            "them, and as many that are different: give more labelled pairs"
        )
    stands_for = _weights(labels, prevalence, weights)
    return _calibrated(
        values, labels, stands_for, purpose, target_precision, prevalence is not None or weights is not None
    )


def _weights(labels: Labels, prevalence: float | None, weights: Sequence[float] | Array | None) -> Array:
    if weights is not None and prevalence is not None:
        raise InvalidInput("weights and prevalence say the same: give one of them")
    if weights is not None:
        given = np.asarray(weights, dtype=np.float64)
        if given.shape != labels.shape or not (np.isfinite(given).all() and (given > 0).all()):
            raise InvalidInput("weights must be one for each pair, finite and above 0")
        return given
    if prevalence is None:
        return np.ones(len(labels))
    if not 0 < prevalence < 1:
        raise InvalidInput(f"prevalence is {prevalence}, but must be above 0 and below 1")
    made: Array = np.where(labels, prevalence / labels.sum(), (1 - prevalence) / (~labels).sum())
    return made


def _calibrated(
    values: Array, labels: Labels, weights: Array, purpose: Purpose, target: float, corrected: bool
) -> Calibrated:
    # From the highest: what has been passed is what reaches the threshold.
    order = np.argsort(-values, kind="stable")
    ranked, weighed = values[order], weights[order]
    hit = np.cumsum(np.where(labels[order], weighed, 0.0))
    wrong = np.cumsum(np.where(labels[order], 0.0, weighed))
    # Where the next is lower. Equal ones are let through together.
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    # Half way to the next: the value of a pair itself is luck.
    following = np.append(ranked[last[:-1] + 1], ranked[-1])
    middle = (ranked[last] + following) / 2
    thresholds = np.where(middle > following, middle, ranked[last])
    precision, recall = hit[last] / (hit[last] + wrong[last]), hit[last] / hit[-1]
    choices = [Choice(*map(float, one)) for one in zip(thresholds, precision, recall, strict=True)]
    least = int(np.argmax(recall - wrong[last] / wrong[-1]))
    reached = np.flatnonzero((precision >= target) & (recall > 0))
    shown = np.unique(np.linspace(0, len(choices) - 1, min(200, len(choices))).astype(int))
    edges = np.linspace(min(0.0, float(values.min())), max(1.0, float(values.max())), BINS + 1)
    shares = [np.histogram(values[kind], edges, weights=weights[kind])[0] for kind in (labels, ~labels)]
    return Calibrated(
        purpose=purpose,
        same=int(labels.sum()),
        different=int((~labels).sum()),
        prevalence=float(hit[-1] / (hit[-1] + wrong[-1])),
        corrected=corrected,
        target_precision=target,
        least_overlap=choices[least],
        target=choices[int(reached[-1])] if len(reached) else None,
        curve=tuple(choices[at] for at in reversed(shown)),
        histogram=Histogram(
            tuple(map(float, edges)), *(tuple(map(float, one / one.sum())) for one in shares)
        ),
    )


def plot_thresholds(found: Calibrated, path: str | Path) -> Path:
    """Draw the two distributions, and precision and recall over the threshold, into a .png, .svg or .pdf.

    Raises:
        InvalidInput, MissingExtra: see `pgseek.plots.check_picture`.
    """
    figure = new_figure(7.0, 6.5)
    figure.clear()
    above, below = figure.subplots(2, 1, sharex=True)
    edges = np.array(found.histogram.edges)
    for shares, label, color in (
        (found.histogram.different, f"different ({found.different:,})", COLORS[1]),
        (found.histogram.same, f"the same ({found.same:,})", COLORS[0]),
    ):
        above.stairs(shares, edges, fill=True, alpha=0.55, color=color, label=label)
    above.set_ylabel("share of pairs")
    x = [one.threshold for one in found.curve]
    below.plot(x, [one.precision for one in found.curve], color=COLORS[2], label="precision")
    below.plot(x, [one.recall for one in found.curve], color=COLORS[3], label="recall")
    below.set_ylim(0, 1.03)
    below.set_xlabel("similarity")
    lines = [(found.least_overlap, "least overlap", ":")]
    if found.target is not None:
        lines.append((found.target, f"precision {found.target_precision:g}", "--"))
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        for choice, label, style in lines:
            name = f"{label}: {choice.threshold:.3f}" if axes is below else None
            axes.axvline(choice.threshold, linestyle=style, color=COLORS[6], linewidth=1, label=name)
        axes.legend(frameon=False, loc="upper left")
    figure.suptitle(f"threshold for {found.purpose}")
    return save_figure(figure, path)


def store_threshold(
    collection: Analysed,
    threshold: Calibrated | float | None,
    purpose: Purpose | None = None,
    *,
    space: int | None = None,
) -> None:
    """Keep a threshold with a space, by default the active one; None forgets the one for ``purpose``.

    Of what was calibrated it is the ``target``; to keep the other give ``least_overlap.threshold``.

    Raises:
        InvalidInput: a number or None without its purpose, a number outside -1..1, no such space, or no
            threshold reaches the target.
    """
    now = threshold.purpose if isinstance(threshold, Calibrated) else purpose
    if now is None or (purpose is not None and now != purpose):
        raise InvalidInput(
            f"purpose is {purpose!r}, but must be one of {', '.join(PURPOSES)}: what the threshold is for"
        )
    check_purpose(now)
    kept: dict[str, Any] = {"stored_at": datetime.now(UTC).isoformat(timespec="seconds")}
    if isinstance(threshold, Calibrated):
        chosen = threshold.target
        if chosen is None:
            raise InvalidInput(
                f"no threshold reaches a precision of {threshold.target_precision:g} with these pairs, so "
                "none is kept: ask for less, or keep one of your own, such as the least overlap at "
                f"{threshold.least_overlap.threshold:.4f}"
            )
        kept |= {
            "similarity": chosen.threshold,
            "precision": chosen.precision,
            "recall": chosen.recall,
            "pairs": threshold.same + threshold.different,
        }
    elif threshold is not None:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not -1 <= threshold <= 1:
            raise InvalidInput(f"the threshold is {threshold!r}, but must lie in -1..1")
        kept["similarity"] = float(threshold)
    info = collection.info()
    given = info.space_id if space is None else space
    rows = collection._client._run(
        fetch(
            "UPDATE pgseek.embedding_spaces SET searching = jsonb_set(searching, '{thresholds}',"
            " (coalesce(searching -> 'thresholds', '{}') - %(purpose)s::text) || %(kept)s)"
            " WHERE space_id = %(space)s AND collection_id = %(collection)s AND state <> 'retired'"
            " RETURNING space_id",
            {
                "purpose": now,
                "kept": Jsonb({} if threshold is None else {now: kept}),
                "space": given,
                "collection": info.collection_id,
            },
        )
    )
    if not rows:
        raise InvalidInput(
            f"collection {info.name!r} has no embedding space {given!r}: see pgseek spaces list {info.name}"
        )


def stored_thresholds(collection: Analysed, *, space: int | None = None) -> dict[str, dict[str, Any]]:
    """Return what is kept with a space, by purpose; ``similarity`` is the threshold."""
    info = collection.info()
    rows = collection._client._run(
        fetch(
            "SELECT coalesce(searching -> 'thresholds', '{}') AS kept FROM pgseek.embedding_spaces"
            " WHERE space_id = %s AND collection_id = %s",
            [info.space_id if space is None else space, info.collection_id],
        )
    )
    return dict(rows[0]["kept"]) if rows else {}


def check_purpose(purpose: object) -> None:
    """Raise `InvalidInput` if it is none."""
    if purpose not in PURPOSES:
        raise InvalidInput(f"purpose is {purpose!r}, but must be one of {', '.join(PURPOSES)}")
