"""Clusters of a collection: found in stored vectors, named by their words, and written back if wanted."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal
from uuid import UUID

import numpy as np

from pgseek import similarity
from pgseek.analysis import grouping, reading
from pgseek.analysis.collection import Analysed, Progress
from pgseek.analysis.grouping import NOISE, Model, SilhouettePoint
from pgseek.analysis.labels import Members, Word, specific_words
from pgseek.analysis.projection import PROJECTIONS, Projection, check_projection
from pgseek.analysis.reading import By, Counted, Reader, Selection
from pgseek.errors import InvalidInput
from pgseek.filters import Filter
from pgseek.steps import Script, fetch
from pgseek.types import SpaceId, check_whole

Method = Literal["kmeans", "hdbscan"]
METHODS: tuple[Method, ...] = ("kmeans", "hdbscan")
# Without a wish, from two clusters to so many are tried.
MOST_TRIED = 30
# In which HDBSCAN looks for clusters.
DIMENSIONS: Mapping[Projection, int] = {"pca": 20, "umap": 5}
# Members of each cluster whose words are counted.
READ_MEMBERS = 500
SNIPPET = 200
# How many words of a cluster make its name.
NAMED_BY = 3


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """How to cluster, checked on construction.

    ``k`` is the number of clusters of k-means, or the least and the most, of which the one with the best
    silhouette is taken; None tries 2 to 30. ``by`` 'document' compares the means of documents' chunks,
    'chunk' each chunk. ``unit`` brings vectors to length 1, so that directions are compared; None does so
    where the space's metric is cosine or inner product. ``sample`` units are held in memory: k-means begins
    with them and then reads all the others in ``passes``, HDBSCAN finds its clusters among them and the
    others join the cluster of the nearest one. ``silhouette_sample`` units are what silhouettes are of, and
    what k is chosen by. HDBSCAN looks for clusters of at least ``min_size`` whose members have
    ``min_samples`` near them, in the first ``dimensions`` of a ``reduction``: 'pca' (None: 20 of them) or
    'umap' (5). ``words`` and ``representatives`` are told of each cluster. The same ``seed`` finds the same
    clusters in the same vectors.

    Raises:
        InvalidInput: a value out of its range.
        MissingExtra: scikit-learn is not installed, or umap-learn for that reduction.
    """

    method: Method = "kmeans"
    k: int | tuple[int, int] | None = None
    by: By = "document"
    filter: Filter | None = None
    space: int | str | None = None
    unit: bool | None = None
    seed: int = 0
    sample: int = 10_000
    silhouette_sample: int = 2_000
    passes: int = 2
    min_size: int = 15
    min_samples: int = 3
    dimensions: int | None = None
    reduction: Projection = "pca"
    words: int = 8
    representatives: int = 3

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidInput(f"method is {self.method!r}, but must be one of {', '.join(METHODS)}")
        if self.by not in reading.BYS:
            raise InvalidInput(f"by is {self.by!r}, but must be one of {', '.join(reading.BYS)}")
        given = self.k if isinstance(self.k, tuple) else (self.k, self.k)
        if self.k is not None:
            if self.method == "hdbscan":
                raise InvalidInput(f"k is {self.k!r}, but HDBSCAN finds the number of clusters: leave it out")
            if len(given) != 2 or not all(_whole(one, 1, 10_000) for one in given) or given[0] > given[1]:  # type: ignore[operator]
                raise InvalidInput(
                    f"k is {self.k!r}, but must be a whole number from 1 to 10,000, or two: the "
                    "least and the most"
                )
            if isinstance(self.k, tuple) and self.k[0] < 2:
                raise InvalidInput(f"k is {self.k!r}, but a single cluster has no silhouette: begin with 2")
        for name, low, high in (
            ("seed", 0, 2**32 - 1),
            ("sample", 10, 200_000),
            ("silhouette_sample", 10, 20_000),
            ("passes", 1, 100),
            ("min_size", 2, 1_000_000),
            ("min_samples", 1, 1000),
            ("dimensions", 2, 1000),
            ("words", 1, 100),
            ("representatives", 0, 100),
        ):
            if name == "dimensions" and self.dimensions is None:
                continue
            check_whole(name, getattr(self, name), high, low)
        if self.reduction not in PROJECTIONS:
            raise InvalidInput(
                f"reduction is {self.reduction!r}, but must be one of {', '.join(PROJECTIONS)}"
            )
        grouping.load_sklearn()
        if self.method == "hdbscan":
            check_projection(self.reduction)


@dataclass(frozen=True, slots=True)
class Representative:
    """A member near its cluster's centre. ``ordinal`` is a chunk's, None for a document; ``closeness`` is
    the cosine with the centre, or 1 / (1 + distance) where directions are not compared."""

    id: str
    ordinal: int | None
    title: str
    text: str
    closeness: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster: ``number`` counts from 0, the largest first; ``label`` is unique among the clusters."""

    number: int
    label: str
    size: int
    share: float
    words: tuple[Word, ...]
    representatives: tuple[Representative, ...]


@dataclass(frozen=True, slots=True)
class Clustering:
    """What was found, and how to tell where any vector belongs.

    ``units`` documents or chunks were clustered, ``noise`` of them belong nowhere; ``missing`` of
    ``documents`` selected ones have no vector yet and were left out. ``sampled`` units were held in memory.
    ``silhouette`` is the mean over ``silhouette_sample`` units, None with fewer than two clusters;
    ``curve`` has that of each k that was tried. ``model`` assigns vectors, ``selection`` says of what.
    """

    collection: str
    space_id: SpaceId
    method: Method
    by: By
    documents: int
    missing: int
    units: int
    sampled: int
    noise: int
    seed: int
    unit: bool
    silhouette: float | None
    silhouette_sample: int
    curve: tuple[SilhouettePoint, ...]
    clusters: tuple[Cluster, ...]
    model: Model = field(repr=False, compare=False)
    selection: Selection = field(repr=False, compare=False)


def cluster(
    collection: Analysed, plan: ClusterPlan | None = None, *, progress: Progress | None = None
) -> Clustering:
    """Find clusters in a collection's stored vectors. Nothing is written, and nothing is embedded.

    Vectors are read page by page, several times; what is written meanwhile may be in one reading and not in
    another. ``progress`` is called with what runs, how much of it is done, and how much there is.

    Raises:
        InvalidInput: the collection or what the filter keeps is empty, has no vectors yet, or has fewer
            units than clusters are asked for.
        MissingExtra, DatabaseError.
    """
    plan = ClusterPlan() if plan is None else plan
    info = collection.info()
    return collection._client._run(_cluster(_Run(info, plan, progress)))  # type: ignore[no-any-return]


def summary(found: Clustering) -> dict[str, Any]:
    """Return all but the model, ready for JSON."""
    left_out = {"model", "selection"}
    return {
        **{each.name: getattr(found, each.name) for each in fields(found) if each.name not in left_out},
        "space": str(found.selection.space),
        "filter": found.selection.filter,
    }


@dataclass(frozen=True, slots=True)
class _Run:
    info: Any
    plan: ClusterPlan
    progress: Progress | None

    def tell(self, phase: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(phase, done, total)


def _cluster(run: _Run) -> Script[Clustering]:
    plan = run.plan
    selection = yield from reading.select(
        run.info, by=plan.by, filter=plan.filter, space=plan.space, unit=plan.unit
    )
    counted = yield from reading.count(selection)
    _check_size(run, counted)
    sample = yield from reading.sampled(selection, plan.sample, run.progress)
    curve: tuple[SilhouettePoint, ...] = ()
    if plan.method == "kmeans":
        k, curve = _choose_k(run, sample.vectors, selection.unit)
        run.tell(f"k-means, {k} clusters", 0, 1)
        centres = grouping.kmeans(sample.vectors, k, plan.seed)
        if counted.units > len(sample):
            centres = yield from _streamed(run, selection, counted, centres)
        if selection.unit:
            centres = similarity.normalize(centres).astype(np.float32)
        model = Model(centres, selection.unit)
    else:
        model = _dense_groups(run, sample.vectors, selection)
    groups, noise = yield from _gathered(run, selection, counted, model)
    order = sorted(groups, key=lambda one: (-groups[one].size, one))
    model = model.renumbered(order)
    units = noise + sum(group.size for group in groups.values())
    clusters = yield from _described(run, selection, [groups[one] for one in order], units)
    few = sample.vectors[: plan.silhouette_sample]
    return Clustering(
        collection=run.info.name,
        space_id=selection.space.space_id,
        method=plan.method,
        by=plan.by,
        documents=counted.documents,
        missing=counted.missing,
        units=units,
        sampled=len(sample),
        noise=noise,
        seed=plan.seed,
        unit=selection.unit,
        silhouette=grouping.silhouette(few, model.assign(few), unit=selection.unit) if clusters else None,
        silhouette_sample=len(few),
        curve=curve,
        clusters=clusters,
        model=model,
        selection=selection,
    )


def _check_size(run: _Run, counted: Counted) -> None:
    plan, what = run.plan, f"{run.plan.by}s" if counted.units != 1 else run.plan.by
    if plan.method == "hdbscan":
        if counted.units < 10:
            raise InvalidInput(
                f"collection {run.info.name!r} has {counted.units} {what} with a vector, but HDBSCAN takes "
                "at least 10"
            )
        return
    least = plan.k[0] if isinstance(plan.k, tuple) else plan.k
    held = min(counted.units, plan.sample)
    if least is not None and least > held:
        raise InvalidInput(
            f"k is {least}, but collection {run.info.name!r} has {counted.units} {what} with a vector"
            + (f", of which {held} are sampled: raise sample" if held < counted.units else ": give fewer")
        )
    if plan.k is None and counted.units < 3:
        raise InvalidInput(
            f"collection {run.info.name!r} has {counted.units} {what} with a vector: too few to choose a "
            "number of clusters; give k"
        )


def _choose_k(run: _Run, vectors: Any, unit: bool) -> tuple[int, tuple[SilhouettePoint, ...]]:
    """Return the number of clusters: as given, or the one with the best silhouette, the least of equals."""
    plan = run.plan
    if isinstance(plan.k, int):
        return plan.k, ()
    few = vectors[: plan.silhouette_sample]
    low, high = plan.k if plan.k is not None else (2, MOST_TRIED)
    numbers = [k for k in grouping.tried(low, high) if k < len(few)]
    curve = []
    for done, k in enumerate(numbers):
        run.tell("choosing the number of clusters", done, len(numbers))
        labels = Model(grouping.kmeans(few, k, plan.seed, grouping.FEW_STARTS), unit).assign(few)
        value = grouping.silhouette(few, labels, unit=unit)
        if value is not None:
            curve.append(SilhouettePoint(k, value))
    if not curve:
        # All vectors are alike.
        return low if low < len(few) else 1, ()
    return max(curve, key=lambda one: (one.silhouette, -one.k)).k, tuple(curve)


def _streamed(run: _Run, selection: Selection, counted: Counted, centres: Any) -> Script[Any]:
    """Return the centres after mini-batch k-means has read everything ``passes`` times."""
    made = grouping.minibatch(centres, run.plan.seed)
    total = counted.units * run.plan.passes
    done = 0
    for _ in range(run.plan.passes):
        reader = Reader(selection)
        while (page := (yield from reader.next())) is not None:
            with grouping.one_thread():
                made.partial_fit(page.vectors)
            done += len(page)
            run.tell(f"k-means, {len(centres)} clusters", min(done, total), total)
    return np.asarray(made.cluster_centers_, dtype=np.float32)


def _dense_groups(run: _Run, vectors: Any, selection: Selection) -> Model:
    plan = run.plan
    if plan.min_size > len(vectors):
        raise InvalidInput(
            f"min_size is {plan.min_size}, but there are {len(vectors)} {plan.by}s with a vector: give less"
        )
    run.tell(f"HDBSCAN of {len(vectors):,} {plan.by}s", 0, 1)
    labels = grouping.hdbscan(
        vectors,
        plan.min_size,
        plan.min_samples,
        selection.space.metric,
        plan.dimensions or DIMENSIONS[plan.reduction],
        plan.reduction,
        plan.seed,
        unit=selection.unit,
    )
    centres = grouping.centres_of(vectors, labels, unit=selection.unit)
    return Model(centres, selection.unit, vectors, labels)


@dataclass(slots=True)
class _Group:
    """What is kept of a cluster while all units pass by."""

    size: int = 0
    documents: list[UUID] = field(default_factory=list)
    ordinals: list[int | None] = field(default_factory=list)
    # The nearest to the centre, the farthest of them first; of equals the first that came.
    nearest: list[tuple[float, int, UUID, int | None]] = field(default_factory=list)

    def add(self, document: UUID, ordinal: int | None, closeness: float, keep: int) -> None:
        self.size += 1
        if len(self.documents) < READ_MEMBERS:
            self.documents.append(document)
            self.ordinals.append(ordinal)
        entry = (closeness, -self.size, document, ordinal)
        if len(self.nearest) < keep:
            heapq.heappush(self.nearest, entry)
        elif keep:
            heapq.heappushpop(self.nearest, entry)


def _gathered(
    run: _Run, selection: Selection, counted: Counted, model: Model
) -> Script[tuple[dict[int, _Group], int]]:
    """Assign everything; return what is kept of each cluster that has members, and how much is noise."""
    groups: dict[int, _Group] = {}
    reader, noise, done = Reader(selection), 0, 0
    while (page := (yield from reader.next())) is not None:
        labels = model.assign(page.vectors)
        closeness = model.closeness(page.vectors, labels)
        for place, label in enumerate(labels.tolist()):
            if label == NOISE:
                noise += 1
                continue
            ordinal = None if page.ordinals is None else page.ordinals[place]
            group = groups.setdefault(label, _Group())
            group.add(page.documents[place], ordinal, float(closeness[place]), run.plan.representatives)
        done += len(page)
        run.tell("assigning", done, max(done, counted.units))
    return groups, noise


def _described(
    run: _Run, selection: Selection, groups: Sequence[_Group], units: int
) -> Script[tuple[Cluster, ...]]:
    members = {number: Members(group.documents, group.ordinals) for number, group in enumerate(groups)}
    run.tell("naming the clusters", 0, max(1, len(groups)))
    words = yield from specific_words(run.info, members, run.plan.words)
    keys = [(document, ordinal) for group in groups for _, _, document, ordinal in group.nearest]
    shown = yield from texts_of(selection.info.collection_id, keys)
    taken: set[str] = set()
    clusters = []
    for number, group in enumerate(groups):
        nearest = [entry for entry in sorted(group.nearest, reverse=True) if (entry[2], entry[3]) in shown]
        clusters.append(
            Cluster(
                number,
                _label(words[number], number, taken),
                group.size,
                group.size / units,
                words[number],
                tuple(
                    Representative(one[0], ordinal, one[1], one[2], closeness)
                    for closeness, _, document, ordinal in nearest
                    for one in (shown[document, ordinal],)
                ),
            )
        )
    return tuple(clusters)


def _label(words: Sequence[Word], number: int, taken: set[str]) -> str:
    """Return a name that no other cluster has: the heaviest words, or more of them."""
    texts = list(dict.fromkeys(word.text for word in words))
    names = [", ".join(texts[:most]) for most in range(min(NAMED_BY, len(texts)), len(texts) + 1)]
    names = [name for name in names if name and name not in taken] or [f"cluster {number}"]
    taken.add(names[0])
    return names[0]


def texts_of(
    collection_id: int, keys: Sequence[tuple[UUID, int | None]]
) -> Script[dict[tuple[UUID, int | None], tuple[str, str, str]]]:
    """Return id, title and the beginning of the text of documents, or of chunks where an ordinal is given."""
    rows = yield from fetch(
        "SELECT m.document_id, m.ordinal, d.external_id, d.title,"
        r" left(regexp_replace(coalesce(c.text, left(d.body, 1000)), '\s+', ' ', 'g'), %s) AS text"
        " FROM unnest(%s::uuid[], %s::int[]) AS m (document_id, ordinal)"
        " JOIN pgseek.documents d ON d.collection_id = %s AND d.document_id = m.document_id"
        " LEFT JOIN pgseek.chunks c ON c.collection_id = d.collection_id AND c.document_id = m.document_id"
        " AND c.ordinal = m.ordinal",
        [SNIPPET, [one for one, _ in keys], [ordinal for _, ordinal in keys], collection_id],
    )
    return {
        (row["document_id"], row["ordinal"]): (row["external_id"], row["title"], row["text"]) for row in rows
    }


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
