"""Maps: a collection's clusters in two dimensions, as data, as a picture, and as a page to look around in."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from pgseek import plots
from pgseek.analysis.clusters import Clustering, texts_of
from pgseek.analysis.collection import Analysed, Progress
from pgseek.analysis.grouping import NOISE
from pgseek.analysis.projection import Projection, check_projection, principal_axes, umap_points
from pgseek.analysis.reading import sampled
from pgseek.errors import InvalidInput
from pgseek.steps import Script

# Points of a map: more of them are a blot, and a page of megabytes.
MOST_POINTS = 20_000
TEXTS = 2000
# A colour of plots.COLORS with a shape: 42 clusters are told apart, without colours the first 6.
SHAPES = ("o", "s", "^", "D", "v", "P")
# What a legend has room for.
LEGEND = 24
NOISE_COLOR = "#8a8a8a"


@dataclass(frozen=True, slots=True)
class MapPoint:
    """A document, or a chunk, on a map; ``cluster`` is -1 for noise."""

    id: str
    ordinal: int | None
    title: str
    text: str
    x: float
    y: float
    cluster: int


@dataclass(frozen=True, slots=True)
class MapCluster:
    """A cluster of a map: its number, its label, and how many points and members it has."""

    number: int
    label: str
    points: int
    size: int


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """Points in two dimensions; ``units`` is how many documents or chunks they are a sample of.

    ``explained`` is the share of the variance that each axis of PCA has, None for UMAP, whose axes mean
    nothing: there only what is near is told.
    """

    collection: str
    by: str
    projection: Projection
    explained: tuple[float, ...] | None
    units: int
    clusters: tuple[MapCluster, ...]
    points: tuple[MapPoint, ...]


def map_clusters(
    collection: Analysed,
    found: Clustering,
    *,
    projection: Projection = "pca",
    points: int = MOST_POINTS,
    progress: Progress | None = None,
) -> ClusterMap:
    """Lay the documents, or chunks, of a clustering out in two dimensions: at most so many, a sample of all.

    PCA is quick and says how much it shows; UMAP (extra ``umap``) keeps neighbours together, and takes
    minutes for 10,000 points.

    Raises:
        InvalidInput: an unknown projection, or ``points`` outside of 10..20,000.
        MissingExtra: umap-learn is not installed.
        DatabaseError.
    """
    check_projection(projection)
    check_points(points)
    script = _mapped(found, projection, points, progress)
    return collection._client._run(script)  # type: ignore[no-any-return]


def check_points(points: object) -> None:
    """Raise `InvalidInput` unless a map may have so many points."""
    if isinstance(points, bool) or not isinstance(points, int) or not 10 <= points <= MOST_POINTS:
        raise InvalidInput(f"points is {points!r}, but must be a whole number from 10 to {MOST_POINTS:,}")


def _mapped(
    found: Clustering, projection: Projection, most: int, progress: Progress | None
) -> Script[ClusterMap]:
    selection = found.selection
    page = yield from sampled(selection, most, progress)
    labels = found.model.assign(page.vectors).tolist()
    if progress is not None:
        progress(f"{projection.upper()} of {len(page):,} points", 0, 1)
    explained: tuple[float, ...] | None = None
    if projection == "umap" and len(page) > 3:
        places = umap_points(page.vectors, unit=selection.unit, seed=found.seed)
    else:
        axes = principal_axes(page.vectors, 2)
        places, explained = axes.project(page.vectors), axes.explained
    if places.shape[1] < 2:
        places = np.column_stack([places, np.zeros(len(places), dtype=np.float32)])
    keys = [
        (document, None if page.ordinals is None else page.ordinals[place])
        for place, document in enumerate(page.documents)
    ]
    points = []
    for start in range(0, len(keys), TEXTS):
        shown = yield from texts_of(selection.info.collection_id, keys[start : start + TEXTS])
        for place, key in enumerate(keys[start : start + TEXTS], start):
            if key in shown:
                name, title, text = shown[key]
                x, y = (float(one) for one in places[place])
                points.append(MapPoint(name, key[1], title, text, x, y, labels[place]))
        if progress is not None:
            progress("reading texts", min(start + TEXTS, len(keys)), len(keys))
    counts = [sum(point.cluster == one.number for point in points) for one in found.clusters]
    clusters = [
        MapCluster(one.number, one.label, drawn, one.size)
        for one, drawn in zip(found.clusters, counts, strict=True)
    ]
    noise = sum(point.cluster == NOISE for point in points)
    if noise:
        clusters.append(MapCluster(NOISE, "(noise)", noise, found.noise))
    return ClusterMap(
        found.collection, found.by, projection, explained, found.units, tuple(clusters), tuple(points)
    )


def looks(number: int) -> tuple[str, str]:
    """Return the colour and the shape of a cluster: pairs that differ for every kind of colour vision."""
    if number == NOISE:
        return NOISE_COLOR, "x"
    # Black is the last: on a white page it would seem to be the most important.
    return plots.COLORS[number % len(plots.COLORS)], SHAPES[number % len(SHAPES)]


def plot_map(made: ClusterMap, path: str | Path) -> Path:
    """Draw a map. Raises `InvalidInput`, `MissingExtra`; see `pgseek.plots`."""
    path = plots.check_picture(path)
    figure = plots.new_figure(9.0, 6.0)
    (axes,) = figure.axes
    size = 6 if len(made.points) > 2000 else 14
    for one in reversed(made.clusters):
        color, shape = looks(one.number)
        inside = [point for point in made.points if point.cluster == one.number]
        axes.scatter(
            [point.x for point in inside],
            [point.y for point in inside],
            s=size,
            c=color,
            marker=shape,
            linewidths=0.5 if shape == "x" else 0,
            alpha=0.7,
            label=_plain(f"{one.label} ({one.size:,})"),
            rasterized=len(made.points) > 2000,
        )
    axes.grid(visible=False)
    if made.explained is not None and len(made.explained) > 1:
        axes.set_xlabel(f"first principal component, {made.explained[0]:.1%} of the variance")
        axes.set_ylabel(f"second, {made.explained[1]:.1%}")
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.set_title(_plain(f"{made.collection}: {len(made.points):,} of {made.units:,} {made.by}s"))
    handles, names = axes.get_legend_handles_labels()
    more = len(names) - LEGEND
    axes.legend(
        handles[::-1][:LEGEND],
        names[::-1][:LEGEND],
        title=f"the largest; {more} more" if more > 0 else None,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        fontsize=7,
        markerscale=1.5,
    )
    return plots.save_figure(figure, path)


def check_page(path: str | Path) -> Path:
    """Return the path if a page can be written there; call it before the work. Raises `InvalidInput`."""
    path = Path(path)
    if path.suffix.lower() not in {".html", ".htm"}:
        raise InvalidInput(f"the page {str(path)!r} must end in .html")
    if not path.parent.is_dir():
        raise InvalidInput(
            f"the folder {str(path.parent)!r} for the page {path.name!r} does not exist: make it"
        )
    return path


def write_page(made: ClusterMap, path: str | Path) -> Path:
    """Write a map as one HTML file that needs no network: hover, search, and clusters to switch off.

    All texts are data: nothing in a document is read as markup or as a script, and the page forbids all
    scripts but its own.

    Raises:
        InvalidInput: see `check_page`; or the file cannot be written.
    """
    path = check_page(path)
    try:
        path.write_text(page_of(made), encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write the page to {str(path)!r}: {error.strerror}") from error
    return path


def page_of(made: ClusterMap) -> str:
    """Return the page of a map."""
    script, style = _part("map.js"), _part("map.css")
    place = {one.number: at for at, one in enumerate(made.clusters)}
    data = {
        "by": made.by,
        "clusters": [
            {**asdict(one), "color": looks(one.number)[0], "shape": looks(one.number)[1]}
            for one in made.clusters
        ],
        # By columns, which are half the size of objects.
        "x": [round(point.x, 5) for point in made.points],
        "y": [round(point.y, 5) for point in made.points],
        "of": [place[point.cluster] for point in made.points],
        "ids": [
            point.id if point.ordinal is None else f"{point.id} #{point.ordinal}" for point in made.points
        ],
        "titles": [point.title for point in made.points],
        "texts": [point.text for point in made.points],
    }
    about = f"{len(made.points):,} of {made.units:,} {made.by}s, {made.projection.upper()}"
    if made.explained is not None:
        about += f": {sum(made.explained):.1%} of the variance"
    parts = {
        "title": html.escape(made.collection),
        "about": html.escape(about),
        "script": script,
        "style": style,
        "script-hash": _hash(script),
        "style-hash": _hash(style),
        "data": _json(data),
    }
    page = _part("map.html")
    # In one go: what was put in is not looked at again.
    pieces = page.split("@@")
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def _json(data: Any) -> str:
    """Return JSON in which no sign can end a script element or begin a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.encode("utf-8", "replace").decode("utf-8")


def _part(name: str) -> str:
    return files("pgseek.analysis").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _plain(text: str) -> str:
    """Return a text in which no dollar sign begins a formula."""
    return text.replace("$", r"\$")
