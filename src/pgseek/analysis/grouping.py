"""The numeric part of clustering: k-means, HDBSCAN, silhouettes, and who belongs where."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pgseek import similarity
from pgseek.analysis.projection import principal_axes, umap_points
from pgseek.errors import MissingExtra
from pgseek.vectors import Metric

Floats = np.ndarray[Any, np.dtype[np.float32]]
Labels = np.ndarray[Any, np.dtype[np.int64]]
NOISE = -1
# Starts of k-means, of which the best is kept; fewer where only the number of clusters is looked for.
STARTS = 5
FEW_STARTS = 2


@dataclass(frozen=True, slots=True)
class SilhouettePoint:
    """How well ``k`` clusters are apart: the mean silhouette, -1..1 (Rousseeuw 1987), higher is better."""

    k: int
    silhouette: float


@dataclass(frozen=True, slots=True)
class Model:
    """Who belongs where: to the nearest centre, or with ``sample`` where the nearest sampled unit belongs.

    ``centres`` is float32 (clusters, d), of length 1 where ``unit``. ``sample`` (n, d) and ``labels`` (n,)
    are HDBSCAN's, which has no centres of its own.
    """

    centres: Floats
    unit: bool
    sample: Floats | None = None
    labels: Labels | None = None

    def assign(self, vectors: Floats) -> Labels:
        """Return the cluster of each vector, -1 for noise."""
        if self.sample is None or self.labels is None:
            return self._nearest(vectors, self.centres)
        return self.labels[self._nearest(vectors, self.sample)]

    def closeness(self, vectors: Floats, labels: Labels) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return how near each vector is to its cluster's centre: the cosine where vectors are compared by
        direction, else 1 / (1 + Euclidean distance); NaN for noise."""
        found = np.full(len(vectors), np.nan)
        inside = labels >= 0
        own = self.centres[labels[inside]]
        if self.unit:
            found[inside] = np.einsum("ij,ij->i", vectors[inside], own, dtype=np.float64)
        else:
            found[inside] = 1 / (1 + np.linalg.norm(vectors[inside] - own, axis=1))
        return found

    def renumbered(self, order: Sequence[int]) -> Model:
        """Return the model with the clusters of ``order`` only, in that order."""
        now = np.full(len(self.centres) + 1, NOISE, dtype=np.int64)
        now[list(order)] = np.arange(len(order))
        labels = None if self.labels is None else now[self.labels]
        return Model(self.centres[list(order)], self.unit, self.sample, labels)

    def _nearest(self, vectors: Floats, among: Floats) -> Labels:
        squares = np.einsum("ij,ij->i", among, among)
        step = max(1, similarity.ELEMENTS // max(1, len(among)))
        found = [
            (vectors[start : start + step] @ among.T * 2 - squares).argmax(axis=1)
            for start in range(0, len(vectors), step)
        ]
        return np.concatenate(found).astype(np.int64) if found else np.empty(0, dtype=np.int64)


def load_sklearn() -> Any:
    """Return scikit-learn's clustering, or raise `MissingExtra`."""
    try:
        import sklearn.cluster  # noqa: PLC0415 (heavy, and an extra)
        import sklearn.metrics  # noqa: PLC0415 (as above)
    except ImportError as error:
        raise MissingExtra("scikit-learn, which finds clusters,", "analysis") from error
    return sklearn


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread: sums come out the same on every machine, and on one that has other work to do
    several threads wait for each other more than they help."""
    load_sklearn()
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 (comes with scikit-learn)

    with threadpool_limits(1):
        yield


def kmeans(vectors: Floats, k: int, seed: int, starts: int = STARTS) -> Floats:
    """Return the centres of k-means (Lloyd) on vectors at hand, float32 (k, d)."""
    sklearn = load_sklearn()
    with one_thread(), warnings.catch_warnings():
        # That fewer vectors than k differ: the clusters that stay empty are left out later.
        warnings.simplefilter("ignore")
        made = sklearn.cluster.KMeans(n_clusters=k, n_init=starts, random_state=seed).fit(vectors)
    centres: Floats = np.asarray(made.cluster_centers_, dtype=np.float32)
    return centres


def minibatch(centres: Floats, seed: int) -> Any:
    """Return mini-batch k-means that goes on from these centres, page by page (Sculley 2010)."""
    sklearn = load_sklearn()
    # No centre is moved elsewhere for being small: k-means on the sample has put them where they are.
    return sklearn.cluster.MiniBatchKMeans(
        n_clusters=len(centres), init=centres, n_init=1, random_state=seed, reassignment_ratio=0.0
    )


def hdbscan(
    vectors: Floats,
    min_size: int,
    min_samples: int,
    metric: Metric,
    dimensions: int,
    reduction: str,
    seed: int,
    *,
    unit: bool,
) -> Labels:
    """Return the clusters of HDBSCAN (Campello, Moulavi and Sander 2013), -1 for noise.

    Density means little in hundreds of dimensions, and takes long: it is looked for in the directions of the
    first principal components, or in what UMAP makes.
    """
    sklearn = load_sklearn()
    reduced: Floats = vectors
    if reduction == "umap":
        reduced = umap_points(
            vectors, unit=unit, seed=seed, dimensions=min(dimensions, len(vectors) - 2), apart=0.0
        )
    elif dimensions < vectors.shape[1]:
        reduced = principal_axes(vectors, dimensions).project(vectors)
        # What is compared by direction still is.
        reduced = similarity.normalize(reduced).astype(np.float32) if unit else reduced
    made = sklearn.cluster.HDBSCAN(
        min_cluster_size=min_size,
        min_samples=min(min_samples, len(vectors) - 1),
        metric="manhattan" if metric == "l1" and reduction != "umap" else "euclidean",
        copy=True,
    ).fit(np.ascontiguousarray(reduced, dtype=np.float64))
    labels: Labels = np.asarray(made.labels_, dtype=np.int64)
    return labels


def centres_of(vectors: Floats, labels: Labels, *, unit: bool) -> Floats:
    """Return the mean of each cluster, of length 1 where ``unit``: float32 (clusters, d)."""
    number = int(labels.max(initial=NOISE)) + 1
    means = [vectors[labels == one].mean(axis=0) for one in range(number)]
    if not means:
        return np.empty((0, vectors.shape[1]), dtype=np.float32)
    found = np.stack(means)
    return (similarity.normalize(found) if unit else found).astype(np.float32)


def silhouette(vectors: Floats, labels: Labels, *, unit: bool) -> float | None:
    """Return the mean silhouette of those in a cluster; None with fewer than two clusters."""
    inside = labels >= 0
    number = len(set(labels[inside].tolist()))
    if not 2 <= number < inside.sum():
        return None
    measure = load_sklearn().metrics.silhouette_score
    with one_thread():
        return float(measure(vectors[inside], labels[inside], metric="cosine" if unit else "euclidean"))


def tried(low: int, high: int, most: int = 20) -> list[int]:
    """Return at most so many numbers of clusters from ``low`` to ``high``, closer together where few."""
    if high - low < most:
        return list(range(low, high + 1))
    return sorted({int(one) for one in np.geomspace(low, high, most).round()})
