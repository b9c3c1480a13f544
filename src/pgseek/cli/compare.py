"""``pgseek compare``: two embedding spaces of a collection, by the same queries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from pgseek.cli.documents import Json, Name
from pgseek.cli.eval import mean_name, print_comparisons, searching
from pgseek.cli.output import err, out, print_json, table
from pgseek.cli.state import state_of
from pgseek.errors import InvalidInput
from pgseek.evaluation import (
    DEFAULT_MEASURES,
    Latency,
    QueryDifference,
    SpaceComparison,
    SpaceRun,
    read_qrels,
    read_queries,
)
from pgseek.evaluation.spaces import summary


def compare(
    context: typer.Context,
    name: Name,
    spaces: Annotated[
        str, typer.Option(metavar="A,B", help="two ready spaces: numbers, or provider:model@dimensions")
    ],
    queries: Annotated[
        Path, typer.Option(metavar="FILE", help="a query a line, or JSON lines with id and text")
    ],
    qrels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="judgements of the queries, for quality; TREC's or BEIR's"),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="documents compared, 1..10,000")] = 10,
    alpha: Annotated[
        float | None,
        typer.Option(help="weight of the dense leg; 1 compares the dense legs alone; default: as it is set"),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(help=f"with --qrels; repeat; default: {', '.join(DEFAULT_MEASURES)}"),
    ] = None,
    show: Annotated[int, typer.Option(help="queries shown, those that differ most")] = 5,
    as_json: Json = False,
) -> None:
    """Compare two embedding spaces of a collection before choosing one.

    Every query is searched in both, by turns: which documents they share, in which order, how long embedding
    and searching take, what embedding costs and, with --qrels, how good the answers are. Each space is
    searched as the collection would be if it were the active one. The second space is made by
    `pgseek reembed COLLECTION --to … --no-switch`.
    """
    names = [part.strip() for part in spaces.split(",")]
    if len(names) != 2 or not all(names):
        raise InvalidInput(f"--spaces is {spaces!r}, but must name two spaces, such as 1,2")
    if show < 0:
        raise InvalidInput(f"--show is {show}, but must be 0 or more")
    texts = read_queries(queries)
    judged = None if qrels is None else read_qrels(qrels)
    with state_of(context).client() as client:
        collection = client.collection(name)
        with searching(as_json) as advance:
            found = collection.compare_spaces(
                names[0],
                names[1],
                texts,
                judged,
                k=k,
                alpha=alpha,
                measures=measure or DEFAULT_MEASURES,
                progress=advance,
            )
    _warn(found)
    if as_json:
        print_json(summary(found))
    else:
        print_spaces(found, show)


def print_spaces(found: SpaceComparison, show: int) -> None:
    """Print what the two spaces share, their figures, and the queries that differ most."""
    fusion = "as the collection is set" if found.alpha is None else f"alpha {found.alpha:g}"
    if found.alpha == 1:
        fusion = "the dense leg alone"
    out.print(
        f"{found.collection}: {len(found.queries):,} queries, {fusion}; of the first {found.k:,} documents "
        f"{found.overlap:.3f} are the same, rank-biased overlap {found.rbo:.3f}, "
        f"the same first one for {found.same_first:.1%}",
        markup=False,
        soft_wrap=True,
    )
    out.print(_figures(found))
    out.print(
        f"[dim]latencies are of this run: of embedding {found.a.embedded:,} and {found.b.embedded:,} queries "
        "that the cache did not have, and of searches "
        f"{found.depth:,} documents deep, with the vector at hand[/]",
        soft_wrap=True,
    )
    if found.comparisons:
        out.print()
        print_comparisons(found.comparisons)
    for one in found.differing(show):
        out.print()
        _print_query(found, one)


def _figures(found: SpaceComparison) -> Any:
    measures = list(found.a.means)
    made = table(
        "space",
        "model",
        "alpha",
        *map(mean_name, measures),
        "embed ms",
        "p95",
        "search ms",
        "p95",
        "documents cost",
        "queries cost",
        "found nothing",
    )
    for column in made.columns[2:]:
        column.justify = "right"
    for side in (found.a, found.b):
        means = (f"{side.means[measure]:.4f}" for measure in measures)
        cost = side.cost
        made.add_row(
            f"{side.space.space_id} ({side.space.state})",
            escape(str(side.space)),
            "-" if side.alpha is None else f"{side.alpha:g}",
            *means,
            *_latency(side.embedding),
            *_latency(side.searching),
            _cost(cost.document_tokens, cost.document_cost),
            _cost(cost.query_tokens, cost.query_cost),
            str(side.empty),
        )
    return made


def _latency(found: Latency | None) -> tuple[str, str]:
    return ("cached", "-") if found is None else (f"{found.median:.1f}", f"{found.p95:.1f}")


def _cost(tokens: int | None, dollars: float | None) -> str:
    if dollars == 0:
        return "none"
    said = "unknown" if dollars is None else f"${dollars:,.4f}"
    return said if tokens is None else f"{said} ({tokens:,} tokens)"


def _print_query(found: SpaceComparison, one: QueryDifference) -> None:
    """Print both lists side by side; what only one of them has is bold."""
    text = " ".join(one.text.split())
    out.print(
        f"[bold]{escape(one.id)}[/]  {escape(text if len(text) <= 100 else text[:99] + '…')}  "
        f"[dim]overlap {one.overlap:.2f}, rank-biased {one.rbo:.2f}[/]",
        soft_wrap=True,
    )
    made = table("", f"space {found.a.space.space_id}", f"space {found.b.space.space_id}")
    for place in range(max(len(one.a), len(one.b))):
        cells = []
        for own, other in ((one.a, one.b), (one.b, one.a)):
            name = own[place] if place < len(own) else ""
            cells.append(escape(name) if not name or name in other else f"[bold]{escape(name)}[/]")
        made.add_row(str(place + 1), *cells)
    out.print(made)


def _warn(found: SpaceComparison) -> None:
    """Say on standard error what makes the figures mean less than they seem to."""
    notes = []
    if found.comparisons and found.judged < len(found.queries):
        notes.append(f"{found.judged:,} of {len(found.queries):,} queries are judged; quality is of those")
    if found.missing_documents:
        notes.append(f"{found.missing_documents:,} judged documents are not in the collection")
    notes += [note for side in (found.a, found.b) if (note := _degraded(side))]
    for note in notes:
        err.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)


def _degraded(side: SpaceRun) -> str:
    return (
        f"space {side.space.space_id}: {side.degraded:,} of {len(side.run):,} queries ran degraded"
        if side.degraded
        else ""
    )
