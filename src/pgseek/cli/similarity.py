"""``pgseek similarity``: how close a collection's vectors lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from pgseek.analysis import closeness
from pgseek.cli.documents import Json, Name
from pgseek.cli.eval import searching
from pgseek.cli.output import out, print_json, table
from pgseek.cli.state import state_of
from pgseek.plots import check_picture

app = typer.Typer(help="How close a collection's vectors lie.", no_args_is_help=True)
Space = Annotated[
    str | None, typer.Option(metavar="SPACE", help="its number or model; default: the one that is searched")
]


@app.command()
def distribution(
    context: typer.Context,
    name: Name,
    sample: Annotated[int, typer.Option(help="chunks that are looked at")] = 2000,
    pairs: Annotated[int, typer.Option(help="pairs of them taken by chance")] = 20_000,
    probes: Annotated[int, typer.Option(help="chunks whose nearest is asked for")] = 200,
    seed: Annotated[int, typer.Option(help="the same seed takes the same pairs")] = 0,
    space: Space = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="draw both: .png, .svg or .pdf")] = None,
    as_json: Json = False,
) -> None:
    """Show the scores of chunks taken by chance, and of chunks with their nearest of another document."""
    if plot is not None:
        check_picture(plot)
    with state_of(context).client() as client, searching(as_json) as advance:
        found = closeness.distribution(
            client.collection(name),
            space=space,
            sample=sample,
            pairs=pairs,
            probes=probes,
            seed=seed,
            progress=advance,
        )
    if as_json:
        print_json(found)
    else:
        out.print(
            f"{escape(found.collection)}: {found.sampled:,} chunks by {found.metric}; the two overlap by "
            f"{found.overlap:.2f}",
            soft_wrap=True,
        )
        made = table("", "pairs", "mean", *(f"{float(one):.0%}" for one in found.random.quantiles))
        for column in made.columns[1:]:
            column.justify = "right"
        for label, spread in (("by chance", found.random), ("nearest", found.nearest)):
            values = (f"{value:.3f}" for value in spread.quantiles.values())
            made.add_row(label, f"{spread.pairs:,}", f"{spread.mean:.3f}", *values)
        out.print(made)
    if plot is not None:
        closeness.plot_distribution(found, plot)


@app.command()
def outliers(
    context: typer.Context,
    name: Name,
    k: Annotated[int, typer.Option("-k", help="nearest ones that a chunk is compared with")] = 10,
    most: Annotated[int, typer.Option(help="outliers shown")] = 20,
    sample: Annotated[int, typer.Option(help="chunks that are looked at")] = 10_000,
    space: Space = None,
    as_json: Json = False,
) -> None:
    """Show the chunks that are far from everything, and those that are near to too much."""
    with state_of(context).client() as client, searching(as_json) as advance:
        found = closeness.outliers(
            client.collection(name), k=k, most=most, sample=sample, space=space, progress=advance
        )
    if as_json:
        print_json(found)
        return
    out.print(
        f"{escape(found.collection)}: {found.checked:,} of {found.chunks:,} chunks, mean score of the "
        f"{found.k} nearest {found.mean:.3f} by {found.metric}; hubness {found.hubness:.2f}",
        soft_wrap=True,
    )
    far = table("outlier", "chunk", "score", "text")
    for one in found.outliers:
        far.add_row(escape(one.id), str(one.ordinal), f"{one.score:.3f}", escape(one.text[:100]))
    out.print(far)
    near = table("hub", "chunk", "among the nearest of", "text")
    for hub in found.hubs:
        near.add_row(escape(hub.id), str(hub.ordinal), f"{hub.times:,}", escape(hub.text[:100]))
    out.print(near)


@app.command()
def between(
    context: typer.Context,
    name: Name,
    ids: Annotated[list[str], typer.Argument(help="of two stored documents or more")],
    metric: Annotated[
        str | None, typer.Option(help="cosine, inner_product, l2 or l1; default: the space's")
    ] = None,
    space: Space = None,
    as_json: Json = False,
) -> None:
    """Show the scores of documents with each other."""
    with state_of(context).client() as client:
        found = closeness.between(client.collection(name), ids, metric=cast("Any", metric), space=space)
    if as_json:
        print_json(found)
        return
    made = table(f"by {found.metric}", *(escape(one) for one in found.ids))
    for one, row in zip(found.ids, found.scores, strict=True):
        made.add_row(escape(one), *(f"{score:.4f}" for score in row))
    out.print(made)
