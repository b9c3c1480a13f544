"""``pgseek tune``: fusion and BM25 constants chosen by judged queries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pgseek.cli.documents import Json, Name
from pgseek.cli.eval import searching
from pgseek.cli.judged import (
    ClicksTable,
    DocumentColumn,
    Folder,
    GoldenName,
    Judged,
    LeastSignal,
    QrelsFile,
    Queries,
    QueryColumn,
    SignalColumn,
    Source,
    Split,
)
from pgseek.cli.output import err, out, print_json, table
from pgseek.cli.state import state_of
from pgseek.client import Collection
from pgseek.errors import InvalidInput
from pgseek.evaluation import Grid, Tuning, known_items, plot_alpha, write_winner
from pgseek.evaluation import tune as find
from pgseek.evaluation.tuning import summary
from pgseek.generators.registry import create_generator
from pgseek.plots import check_picture


def tune(
    context: typer.Context,
    name: Name,
    beir: Folder = None,
    split: Split = "test",
    queries: Queries = None,
    qrels: QrelsFile = None,
    golden: GoldenName = None,
    clicks: ClicksTable = None,
    query_column: QueryColumn = "query",
    document_column: DocumentColumn = "document",
    signal_column: SignalColumn = None,
    least_signal: LeastSignal = 2.0,
    known: Annotated[
        int, typer.Option(help="without judgements: queries of each kind made of the collection itself")
    ] = 200,
    generator: Annotated[
        str | None,
        typer.Option(
            help="without judgements: a chat model that writes questions, such as openai:gpt-4.1-mini"
        ),
    ] = None,
    measure: Annotated[str, typer.Option(help="one of ir-measures', such as RR@10")] = "nDCG@10",
    bm25: Annotated[
        bool, typer.Option(help="also choose k1, b and title_weight, which rewrite all chunks")
    ] = True,
    folds: Annotated[
        int, typer.Option(help="parts of the queries; each is measured by what the others chose")
    ] = 5,
    repeats: Annotated[int, typer.Option(help="how often the queries are parted")] = 3,
    seed: Annotated[int, typer.Option(help="of the parts, and of queries made of the collection")] = 1,
    significance: Annotated[float, typer.Option(help="p below which a gain is written")] = 0.05,
    drop_self: Annotated[
        bool, typer.Option("--drop-self", help="leave out the document whose id is the query's")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="the first judged queries only")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="draw the measure over alpha by kind of query: .png, .svg or .pdf"),
    ] = None,
    write: Annotated[
        bool | None,
        typer.Option(
            "--write/--dry-run",
            help="write a significant winner; default: yes with judgements or clicks, no with queries made "
            "of the collection",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find fusion, alpha, candidates and BM25's constants by judged queries, and write what is better.

    Settings are chosen by cross-validation: the gain that is told is of queries that they were not chosen on.
    What is significantly better there, and in real searches, is written to the collection; else nothing is.
    Without judgements queries are made of the collection itself: titles, sentences, and questions if a
    --generator is given.
    """
    source = Source(
        beir,
        split,
        queries,
        qrels,
        golden,
        clicks,
        query_column,
        document_column,
        signal_column,
        least_signal,
    )
    if source.given and generator is not None:
        raise InvalidInput(
            "--generator writes queries where none are judged, but judged ones are given; leave it out"
        )
    if plot is not None:
        check_picture(plot)
    judged = source.files()
    with state_of(context).client() as client:
        docs = client.collection(name)
        judged = judged or source.of(docs) or _made(docs, known, seed, generator)
        with searching(as_json) as advance:
            found = find(
                docs,
                judged.queries,
                judged.qrels,
                measure=measure,
                grid=Grid(bm25=bm25),
                folds=folds,
                repeats=repeats,
                seed=seed,
                significance=significance,
                drop_self=drop_self,
                limit=limit,
                source=judged.source,
                progress=advance,
            )
            if plot is not None:
                plot_alpha(found, plot)
            written = None
            if write is not False:
                written = write_winner(docs, found, known_items=write is True, progress=advance)
    if as_json:
        print_json({**summary(found), "judged": judged.title, "plot": plot, "written": written})
        return
    print_tuning(found, judged.title)
    if written is None:
        out.print("nothing was written: a dry run" if write is False else "nothing was written")
    elif written.reason != found.verdict:
        out.print(escape(written.reason), soft_wrap=True)
    else:
        out.print("nothing was written")


def _made(docs: Collection, count: int, seed: int, generator: str | None) -> Judged:
    made = known_items(
        docs, count=count, seed=seed, generator=None if generator is None else create_generator(generator)
    )
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in made.kinds.items() if number)
    return Judged(f"known items of the collection: {kinds}", made.queries, made.qrels, source="known items")


def print_tuning(found: Tuning, title: str) -> None:
    """Print what was measured, the curves over alpha in short, and the verdict."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.kinds.items()))
    out.print(
        f"{title} in {found.collection}: {len(found.queries):,} queries ({kinds}), {found.folds} folds × "
        f"{found.repeats}, {found.settings:,} settings",
        markup=False,
        soft_wrap=True,
    )
    made = table("", found.measure, "95 % interval", "searched for")
    for column in made.columns[1:]:
        column.justify = "right"
    for label, one, searched in (
        ("current", found.before, f"{found.searched_before:.4f}"),
        (
            "tuned, on queries not tuned on",
            found.after,
            "-" if found.searched_after is None else f"{found.searched_after:.4f} (winner, on all)",
        ),
    ):
        made.add_row(label, f"{one.mean:.4f}", f"{one.low:.4f} to {one.high:.4f}", searched)
    difference = found.difference
    made.add_row(
        f"difference ({found.better:,} better, {found.equal:,} equal, {found.worse:,} worse)",
        f"{difference.mean:+.4f}",
        f"{difference.low:+.4f} to {difference.high:+.4f}",
        f"p = {found.p:.4f}",
    )
    out.print(made)
    out.print()
    curves = table(
        "kind of query", "queries", "best alpha", found.measure, f"at alpha {found.current.alpha:g}"
    )
    for column in curves.columns[1:]:
        column.justify = "right"
    for curve in found.curves:
        at = dict(zip(curve.alphas, curve.means, strict=True))
        now = at.get(found.current.alpha)
        curves.add_row(
            curve.kind,
            f"{curve.queries:,}",
            f"{curve.best:g}",
            f"{max(curve.means):.4f}",
            "-" if now is None else f"{now:.4f}",
        )
    out.print(curves)
    out.print()
    out.print(f"current: {found.current}", soft_wrap=True)
    out.print(f"winner:  {found.winner}", soft_wrap=True)
    out.print(escape(found.verdict), soft_wrap=True)
    for note in _notes(found):
        err.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)


def _notes(found: Tuning) -> list[str]:
    notes = list(found.cautions)
    if found.missing_documents:
        notes.append(
            f"{found.missing_documents:,} judged documents are not in the collection and cannot be found"
        )
    if found.unjudged_queries:
        notes.append(f"{found.unjudged_queries:,} queries have no judgement and were left out")
    return notes
