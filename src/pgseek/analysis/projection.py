"""Vectors in fewer dimensions: principal components, or UMAP where it is installed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pgseek.errors import InvalidInput, MissingExtra

Floats = np.ndarray[Any, np.dtype[np.float32]]
Projection = Literal["pca", "umap"]
PROJECTIONS: tuple[Projection, ...] = ("pca", "umap")
# Of UMAP: it looks for that many neighbours of each point.
NEIGHBOURS = 15


@dataclass(frozen=True, slots=True)
class Axes:
    """Directions in which vectors differ most: ``mean`` (d,), ``axes`` (n, d), and the share of the variance
    that each explains."""

    mean: Floats
    axes: Floats
    explained: tuple[float, ...]

    def project(self, vectors: Floats) -> Floats:
        """Return coordinates, float32 (m, n)."""
        found: Floats = ((vectors - self.mean) @ self.axes.T).astype(np.float32)
        return found


def principal_axes(vectors: Floats, number: int) -> Axes:
    """Return the first principal components; each points where its largest part is positive."""
    mean = vectors.mean(axis=0)
    centred = (vectors - mean).astype(np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(-values, kind="stable")[: min(number, len(values))]
    axes = directions[:, order].T
    axes *= np.where(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)] < 0, -1, 1)[:, None]
    total = float(values.clip(0).sum()) or 1.0
    return Axes(mean, axes.astype(np.float32), tuple(float(max(0.0, values[one])) / total for one in order))


def check_projection(projection: object) -> Projection:
    """Return the projection if it can be made here.

    Raises:
        InvalidInput: there is none of this name.
        MissingExtra: umap-learn is not installed.
    """
    if projection not in PROJECTIONS:
        raise InvalidInput(f"projection is {projection!r}, but must be one of {', '.join(PROJECTIONS)}")
    if projection == "umap":
        load_umap()
        return "umap"
    return "pca"


def load_umap() -> Any:
    """Return umap-learn, or raise `MissingExtra`."""
    try:
        with warnings.catch_warnings():
            # It says that tensorflow is not there.
            warnings.simplefilter("ignore")
            import umap  # noqa: PLC0415 (heavy, and an extra)
    except ImportError as error:
        raise MissingExtra("umap-learn, which makes maps by UMAP,", "umap") from error
    return umap


def umap_points(vectors: Floats, *, unit: bool, seed: int, dimensions: int = 2, apart: float = 0.1) -> Floats:
    """Return coordinates by UMAP (McInnes, Healy and Melville 2018), float32 (m, dimensions), with
    points at least ``apart``; one thread, so that the same seed gives the same points."""
    umap = load_umap()
    with warnings.catch_warnings():
        # That it takes one thread, as it was told to.
        warnings.simplefilter("ignore")
        made = umap.UMAP(
            n_components=dimensions,
            min_dist=apart,
            n_neighbors=min(NEIGHBOURS, max(2, len(vectors) - 1)),
            metric="cosine" if unit else "euclidean",
            random_state=seed,
            n_jobs=1,
        )
        found: Floats = np.asarray(made.fit_transform(vectors), dtype=np.float32)
    return found
