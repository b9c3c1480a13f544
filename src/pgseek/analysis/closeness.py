"""How close a collection's vectors lie: any two, neighbours, and those close to nothing or to too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from psycopg.sql import SQL, Identifier

from pgseek import plots, similarity, spaces
from pgseek.analysis import reading
from pgseek.analysis.clusters import texts_of
from pgseek.analysis.collection import Analysed, Progress
from pgseek.analysis.reading import Page, Selection
from pgseek.errors import InvalidInput
from pgseek.prepare import document_id
from pgseek.steps import Script, fetch
from pgseek.types import CollectionInfo, SpaceId, check_whole
from pgseek.vectors import Metric, check_metric

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
BINS = 50
# Rows whose neighbours one statement asks for.
ASKED = 100

# The nearest of other documents: its own chunks say nothing of how a document lies among the others, so as
# many rows more are asked for as it has, up to a hundred.
_NEIGHBOURS = """
SELECT m.place, n.document_id, n.ordinal, n.distance
  FROM unnest(%(documents)s::uuid[], %(ordinals)s::int[]) WITH ORDINALITY AS m (document_id, ordinal, place)
  JOIN {table} e
    ON e.collection_id = %(collection)s AND e.document_id = m.document_id AND e.ordinal = m.ordinal
  CROSS JOIN LATERAL (
      SELECT least(count(*), 100)::int AS own FROM {table} o
       WHERE o.collection_id = %(collection)s AND o.document_id = m.document_id) AS o
  CROSS JOIN LATERAL (
      SELECT f.* FROM pgseek.nearest(%(space)s, e.embedding::{vector}, least(%(k)s + o.own, 10000)) AS f
       WHERE f.document_id <> m.document_id
       ORDER BY f.distance, f.document_id, f.ordinal LIMIT %(k)s) AS n
 ORDER BY m.place, n.distance, n.document_id, n.ordinal
"""


@dataclass(frozen=True, slots=True)
class Spread:
    """How scores spread: ``counts`` (bins,) between ``edges`` (bins + 1,), and ``quantiles`` by their share.

    Scores are those of the space's metric, higher is nearer: see `pgseek.similarity`.
    """

    pairs: int
    mean: float
    deviation: float
    quantiles: dict[str, float]
    counts: tuple[int, ...]
    edges: tuple[float, ...]

    @classmethod
    def of(cls, scores: Any, edges: Any) -> Spread:
        """Return the spread of at least one score."""
        counts, _ = np.histogram(scores, bins=edges)
        return cls(
            len(scores),
            float(np.mean(scores)),
            float(np.std(scores)),
            {f"{one:g}": float(np.quantile(scores, one)) for one in QUANTILES},
            tuple(counts.tolist()),
            tuple(np.asarray(edges).tolist()),
        )


@dataclass(frozen=True, slots=True)
class Distribution:
    """Scores of two chunks of different documents taken by chance, and of chunks with their nearest ones.

    ``sampled`` chunks were looked at, ``probed`` of them for their nearest of another document, through the
    index. ``overlap`` is the share of the two histograms that they have in common, 0..1: the less, the
    better a threshold tells neighbours from others.
    """

    collection: str
    space_id: SpaceId
    metric: Metric
    sampled: int
    probed: int
    seed: int
    random: Spread
    nearest: Spread
    overlap: float


@dataclass(frozen=True, slots=True)
class Outlier:
    """A chunk whose ``k`` nearest are far: ``score`` is the mean of theirs."""

    id: str
    ordinal: int
    title: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Hub:
    """A chunk that is among the nearest of ``times`` others; by chance it would be of about ``k``."""

    id: str
    ordinal: int
    title: str
    text: str
    times: int


@dataclass(frozen=True, slots=True)
class Outliers:
    """The chunks that lie farthest from their ``k`` nearest ones of other documents, the farthest first.

    ``checked`` chunks were looked at, of ``chunks``; ``mean`` is the mean of their scores. ``hubness`` is the
    skewness of how often a chunk is among the nearest of those (Radovanovic, Nanopoulos and Ivanovic 2010):
    about 0 where all are as often, above 1 where a few are everybody's neighbours. ``hubs`` are those.
    """

    collection: str
    space_id: SpaceId
    metric: Metric
    k: int
    chunks: int
    checked: int
    mean: float
    outliers: tuple[Outlier, ...]
    hubness: float
    hubs: tuple[Hub, ...]


@dataclass(frozen=True, slots=True)
class Closeness:
    """The scores of documents with each other: ``scores[i][j]`` of ``ids[i]`` and ``ids[j]``."""

    collection: str
    space_id: SpaceId
    metric: Metric
    ids: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]


def distribution(
    collection: Analysed,
    *,
    space: int | str | None = None,
    sample: int = 2000,
    pairs: int = 20_000,
    probes: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> Distribution:
    """Return how scores spread: of random pairs of ``sample`` chunks, and of ``probes`` with their nearest.

    It tells what a threshold can mean: cosines of one model lie between 0 and 0.3 where nothing is common,
    those of another between 0.7 and 0.8. Nothing is written.

    Raises:
        InvalidInput: an argument out of its range, no vectors, or those of a single document.
        DatabaseError.
    """
    for name, value, low, high in (
        ("sample", sample, 2, 100_000),
        ("pairs", pairs, 1, 10_000_000),
        ("probes", probes, 1, 10_000),
    ):
        check_whole(name, value, high, low)
    check_whole("seed", seed, 2**32 - 1, 0)
    script = _distribution(collection.info(), space, sample, pairs, probes, seed, progress)
    return collection._client._run(script)  # type: ignore[no-any-return]


def outliers(
    collection: Analysed,
    *,
    k: int = 10,
    most: int = 20,
    sample: int = 10_000,
    space: int | str | None = None,
    progress: Progress | None = None,
) -> Outliers:
    """Return the ``most`` chunks that are farthest from their ``k`` nearest, and those that are near to many.

    ``sample`` chunks are looked at, each by one walk through the index. What is far from everything may be
    in another language, broken, or about something else; a hub is mostly a chunk that says nothing.

    Raises:
        InvalidInput: an argument out of its range, or no vectors.
        DatabaseError.
    """
    for name, value, high in (("k", k, 1000), ("most", most, 1000), ("sample", sample, 1_000_000)):
        check_whole(name, value, high)
    script = _outliers(collection.info(), space, k, most, sample, progress)
    return collection._client._run(script)  # type: ignore[no-any-return]


def between(
    collection: Analysed,
    ids: Sequence[str],
    *,
    metric: Metric | None = None,
    space: int | str | None = None,
) -> Closeness:
    """Return the scores of documents with each other, of the means of their chunks' vectors.

    ``metric`` is the space's own by default; the means are of unit vectors where it goes by direction.

    Raises:
        InvalidInput: fewer than two ids, an unknown metric, or a document that is not there or has no vector.
        DatabaseError.
    """
    if isinstance(ids, str) or not 2 <= len(ids) <= 1000:
        raise InvalidInput(f"ids is {ids!r}, but must be 2 to 1,000 ids of documents")
    if metric is not None:
        check_metric(metric)
    return collection._client._run(_between(collection.info(), ids, metric, space))  # type: ignore[no-any-return]


def summary(found: Any) -> dict[str, Any]:
    """Return a result as a mapping, ready for JSON."""
    return {each.name: getattr(found, each.name) for each in fields(found)}


def _distribution(
    info: CollectionInfo,
    space: int | str | None,
    size: int,
    pairs: int,
    probes: int,
    seed: int,
    progress: Progress | None,
) -> Script[Distribution]:
    selection = yield from reading.select(info, by="chunk", space=space, unit=False)
    yield from reading.count(selection)
    sample = yield from reading.sampled(selection, size, progress)
    metric = selection.space.metric
    rng = np.random.default_rng(seed)
    # The documents of a pair differ; as many as are wanted come soon, or there is one document only.
    known = {document: number for number, document in enumerate(dict.fromkeys(sample.documents))}
    numbers = np.array([known[document] for document in sample.documents])
    if len(known) < 2:
        raise InvalidInput(
            f"the {len(sample)} chunks of collection {info.name!r} that were read are of one document: there "
            "is no pair to compare"
        )
    first, second = rng.integers(0, len(sample), size=(2, 4 * pairs))
    different = np.flatnonzero(numbers[first] != numbers[second])[:pairs]
    first, second = first[different], second[different]
    random = _of_pairs(sample, first, second, metric)
    chosen = rng.permutation(len(sample))[:probes]
    near: list[float] = []
    for start in range(0, len(chosen), ASKED):
        rows = yield from _neighbours(selection, sample, chosen[start : start + ASKED].tolist(), 1)
        near += [row["distance"] for row in rows]
        if progress is not None:
            progress("asking for neighbours", min(start + ASKED, len(chosen)), len(chosen))
    nearest = similarity.score_of(np.array(near), metric)
    edges = np.histogram_bin_edges(np.concatenate([random, nearest]), bins=BINS)
    one, other = Spread.of(random, edges), Spread.of(nearest, edges)
    shared = np.minimum(np.array(one.counts) / one.pairs, np.array(other.counts) / other.pairs).sum()
    return Distribution(
        info.name,
        selection.space.space_id,
        metric,
        len(sample),
        len(chosen),
        seed,
        one,
        other,
        float(shared),
    )


def _of_pairs(sample: Page, first: Any, second: Any, metric: Metric) -> Any:
    """Return the score of each pair of rows, block by block."""
    step = max(1, similarity.ELEMENTS // sample.vectors.shape[1])
    found = []
    for start in range(0, len(first), step):
        a = sample.vectors[first[start : start + step]].astype(np.float64)
        b = sample.vectors[second[start : start + step]].astype(np.float64)
        if metric in {"cosine", "inner_product"}:
            inner = np.einsum("ij,ij->i", a, b)
            if metric == "cosine":
                inner = inner / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
            found.append(inner)
        else:
            between = np.abs(a - b)
            distance = between.sum(axis=1) if metric == "l1" else np.sqrt((between**2).sum(axis=1))
            found.append(1 / (1 + distance))
    return np.concatenate(found)


def _neighbours(
    selection: Selection, page: Page, places: Sequence[int], k: int
) -> Script[list[dict[str, Any]]]:
    """Return the k nearest rows of other documents of some rows of a page; ``place`` counts those from 1."""
    statement = SQL(_NEIGHBOURS).format(
        table=spaces.table_of(selection.space.space_id), vector=Identifier(selection.schema, "vector")
    )
    return (
        yield from fetch(
            statement,
            {
                "collection": selection.info.collection_id,
                "space": selection.space.space_id,
                "documents": [page.documents[one] for one in places],
                "ordinals": [(page.ordinals or ())[one] for one in places],
                "k": k,
            },
        )
    )


def _outliers(
    info: CollectionInfo,
    space: int | str | None,
    k: int,
    most: int,
    size: int,
    progress: Progress | None,
) -> Script[Outliers]:
    selection = yield from reading.select(info, by="chunk", space=space, unit=False)
    counted = yield from reading.count(selection)
    reader = reading.Reader(selection, ASKED)
    means: list[tuple[float, UUID, int]] = []
    times: Counter[tuple[UUID, int]] = Counter()
    wanted = min(size, counted.units)
    checked = 0
    while checked < size and (page := (yield from reader.next())) is not None:
        places = list(range(min(len(page), size - checked)))
        rows = yield from _neighbours(selection, page, places, k)
        by_place: dict[int, list[float]] = {}
        for row in rows:
            by_place.setdefault(row["place"] - 1, []).append(row["distance"])
            times[row["document_id"], row["ordinal"]] += 1
        for place, distances in by_place.items():
            score = float(similarity.score_of(np.array(distances), selection.space.metric).mean())
            means.append((score, page.documents[place], (page.ordinals or ())[place]))
        checked += len(places)
        if progress is not None:
            progress("asking for neighbours", min(checked, wanted), wanted)
    means.sort()
    hubs = sorted(times.items(), key=lambda one: (-one[1], one[0]))[: min(most, 10)]
    keys = [(document, ordinal) for _, document, ordinal in means[:most]] + [key for key, _ in hubs]
    shown = yield from texts_of(info.collection_id, keys)
    occurrences = np.zeros(max(counted.units, len(times)))
    occurrences[: len(times)] = list(times.values())
    return Outliers(
        info.name,
        selection.space.space_id,
        selection.space.metric,
        k,
        counted.units,
        checked,
        float(np.mean([score for score, _, _ in means])) if means else float("nan"),
        tuple(
            Outlier(shown[document, ordinal][0], ordinal, *shown[document, ordinal][1:], score)
            for score, document, ordinal in means[:most]
            if (document, ordinal) in shown
        ),
        _skewness(occurrences),
        tuple(Hub(shown[key][0], key[1], *shown[key][1:], number) for key, number in hubs if key in shown),
    )


def _skewness(values: Any) -> float:
    deviation = values.std()
    return float((((values - values.mean()) / deviation) ** 3).mean()) if deviation else 0.0


def _between(
    info: CollectionInfo, ids: Sequence[str], metric: Metric | None, space: int | str | None
) -> Script[Closeness]:
    selection = yield from reading.select(info, by="document", space=space)
    chosen = metric or selection.space.metric
    keys = {document_id(name): name for name in ids}
    vectors = yield from reading.of_documents(selection, list(keys))
    missing = [name for key, name in keys.items() if key not in vectors]
    if missing:
        raise InvalidInput(
            f"collection {info.name!r} has no document {missing[0]!r}, or no vector of it yet"
            + (f" ({len(missing)} of {len(keys)} ids)" if len(missing) > 1 else "")
        )
    found = similarity.scores(
        np.stack([vectors[key] for key in keys]), np.stack([vectors[key] for key in keys]), chosen
    )
    return Closeness(
        info.name,
        selection.space.space_id,
        chosen,
        tuple(keys.values()),
        tuple(tuple(row) for row in found.tolist()),
    )


def plot_distribution(found: Distribution, path: str | Path) -> Path:
    """Draw both spreads. Raises `InvalidInput`, `MissingExtra`; see `pgseek.plots`."""
    path = plots.check_picture(path)
    figure = plots.new_figure()
    (axes,) = figure.axes
    for spread, color, name in (
        (found.random, plots.COLORS[0], "two chunks taken by chance"),
        (found.nearest, plots.COLORS[1], "a chunk and its nearest"),
    ):
        shares = np.array(spread.counts) / spread.pairs
        axes.stairs(
            shares, spread.edges, fill=True, alpha=0.45, color=color, label=f"{name}, {spread.pairs:,}"
        )
        axes.axvline(spread.quantiles["0.5"], color=color, linestyle="--")
    axes.set_xlabel(f"score by {found.metric} (higher is nearer)")
    axes.set_ylabel("share of pairs")
    axes.set_title(f"{found.collection}: overlap {found.overlap:.2f}")
    axes.legend()
    return plots.save_figure(figure, path)
