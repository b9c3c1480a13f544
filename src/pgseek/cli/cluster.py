"""``pgseek cluster``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from pgseek.analysis import applying, clusters, maps, pictures
from pgseek.analysis.projection import check_projection
from pgseek.cli.documents import Filters, Json, Name, parse_filters
from pgseek.cli.eval import searching
from pgseek.cli.output import err, out, print_json, table
from pgseek.cli.state import state_of
from pgseek.errors import InvalidInput
from pgseek.plots import check_picture


def cluster(
    context: typer.Context,
    name: Name,
    k: Annotated[
        str | None,
        typer.Option("-k", help="how many clusters, or 5:40 to choose by silhouette; default: 2:30"),
    ] = None,
    method: Annotated[str, typer.Option(help="kmeans, or hdbscan, which leaves noise out")] = "kmeans",
    by: Annotated[str, typer.Option(help="document (the mean of its chunks) or chunk")] = "document",
    filters: Filters = None,
    space: Annotated[
        str | None, typer.Option(help="its number or model; default: the one that is searched")
    ] = None,
    seed: Annotated[int, typer.Option(help="the same seed finds the same clusters")] = 0,
    sample: Annotated[
        int, typer.Option(help="vectors held in memory: where k-means begins, and all that HDBSCAN sees")
    ] = 10_000,
    min_size: Annotated[int, typer.Option(help="of HDBSCAN: the smallest cluster")] = 15,
    reduction: Annotated[str, typer.Option(help="of HDBSCAN: pca, or umap")] = "pca",
    words: Annotated[int, typer.Option(help="words told of each cluster")] = 8,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="draw a map: .png, .svg or .pdf")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write a map as a page to search and hover in")
    ] = None,
    projection: Annotated[str, typer.Option(help="of the map: pca, or umap")] = "pca",
    points: Annotated[int, typer.Option(help="of the map, 10..20,000")] = maps.MOST_POINTS,
    curve: Annotated[
        Path | None, typer.Option(metavar="FILE", help="draw the silhouette over the number of clusters")
    ] = None,
    write: Annotated[
        str | None, typer.Option(metavar="FIELD", help="write each document's cluster into its metadata")
    ] = None,
    value: Annotated[str, typer.Option(help="what is written: label or number")] = "label",
    preview: Annotated[
        bool, typer.Option("--preview", help="with --write: only say what would be written")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find clusters in a collection's stored vectors, name them by their words, and draw a map.

    Nothing is embedded, and nothing is written but with --write: then filters and facets can use the field.
    """
    plan = clusters.ClusterPlan(
        method=cast("Any", method),
        k=_number_of(k),
        by=cast("Any", by),
        filter=parse_filters(filters or []),
        space=space,
        seed=seed,
        sample=sample,
        min_size=min_size,
        reduction=cast("Any", reduction),
        words=words,
    )
    _check(plan, plot, html, curve, projection, points, write, value, preview)
    written = None
    with state_of(context).client() as client:
        docs = client.collection(name)
        with searching(as_json) as advance:
            found = clusters.cluster(docs, plan, progress=advance)
            made = None
            if plot is not None or html is not None:
                made = maps.map_clusters(
                    docs, found, projection=cast("Any", projection), points=points, progress=advance
                )
            if write is not None:
                written = applying.write_clusters(
                    docs, found, write, value=cast("Any", value), preview=preview, progress=advance
                )
    if as_json:
        print_json({**clusters.summary(found), "written": written})
    else:
        _print(found)
        if written is not None:
            _print_written(written)
    # Last, so that what was found is seen even if a file cannot be written.
    if made is not None and plot is not None:
        maps.plot_map(made, plot)
    if made is not None and html is not None:
        maps.write_page(made, html)
    if curve is not None:
        pictures.plot_silhouettes(found, curve)


def _number_of(given: str | None) -> int | tuple[int, int] | None:
    if given is None:
        return None
    if not re.fullmatch(r"\d{1,6}(:\d{1,6})?", given):
        raise InvalidInput(f"-k is {given!r}, but must be a number such as 12, or two such as 5:40")
    numbers = [int(one) for one in given.split(":")]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _check(
    plan: clusters.ClusterPlan,
    plot: Path | None,
    html: Path | None,
    curve: Path | None,
    projection: str,
    points: int,
    write: str | None,
    value: str,
    preview: bool,
) -> None:
    """Find out now, not after the work, that something is wrong."""
    if plot is not None:
        check_picture(plot)
    if html is not None:
        maps.check_page(html)
    if curve is not None:
        check_picture(curve)
        if plan.method == "hdbscan" or isinstance(plan.k, int):
            raise InvalidInput("--curve draws how k was chosen: give no -k, or a range such as -k 5:40")
    check_projection(projection)
    maps.check_points(points)
    if write is not None:
        applying.check_write(plan.by, write, value)
    elif preview:
        raise InvalidInput("--preview is of --write FIELD: give that, too")


def _print(found: clusters.Clustering) -> None:
    what = f"{found.by}s"
    notes = [f"{found.units:,} {what} in {len(found.clusters):,} clusters"]
    if found.method == "hdbscan":
        notes.append(f"{found.noise:,} ({found.noise / max(found.units, 1):.0%}) in none")
    if found.silhouette is not None:
        notes.append(f"silhouette {found.silhouette:.3f} (of {found.silhouette_sample:,})")
    if found.sampled < found.units:
        notes.append(f"{found.sampled:,} held in memory")
    out.print(f"{escape(found.collection)}: {'; '.join(notes)}", soft_wrap=True)
    made = table("", what, "share", "words", "nearest to the centre")
    for column in made.columns[1:3]:
        column.justify = "right"
    for one in found.clusters:
        made.add_row(
            str(one.number),
            f"{one.size:,}",
            f"{one.share:.1%}",
            escape(", ".join(dict.fromkeys(word.text for word in one.words))),
            escape(", ".join(each.id for each in one.representatives)),
        )
    out.print(made)
    if found.missing:
        err.print(
            f"[yellow]note:[/] {found.missing:,} of {found.documents:,} documents have no vector yet and "
            f"were left out; run: pgseek queue drain {escape(found.collection)}",
            soft_wrap=True,
        )


def _print_written(written: applying.Written) -> None:
    would = "would get" if written.preview else "got"
    out.print(
        f"{escape(written.field)}: {written.changed:,} documents {would} a value, {written.cleared:,} "
        f"{'would lose' if written.preview else 'lost'} theirs, {written.unchanged:,} are as they were",
        soft_wrap=True,
    )
