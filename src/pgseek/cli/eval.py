"""``pgseek eval``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pgseek.cli.documents import Json, Name
from pgseek.cli.ingest import ingest_with_progress
from pgseek.cli.output import err, out, print_json, print_report, table
from pgseek.cli.state import state_of
from pgseek.client import Client, Collection
from pgseek.errors import CollectionNotFound, InvalidInput
from pgseek.evaluation import (
    DEFAULT_MEASURES,
    DEFAULT_MODES,
    Comparison,
    Evaluation,
    Plan,
    choose_modes,
    evaluate,
    read_beir,
    summary,
    write_per_query,
    write_runs,
)
from pgseek.types import IngestReport


def evaluate_collection(
    context: typer.Context,
    name: Name,
    beir: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="holds corpus.jsonl, queries.jsonl (or .jsonl.gz) and qrels/SPLIT.tsv"
        ),
    ],
    split: Annotated[str, typer.Option(help="which judgements to use")] = "test",
    ingest: Annotated[
        bool, typer.Option("--ingest", help="store the corpus first, in a new collection if need be")
    ] = False,
    embedder: Annotated[str | None, typer.Option(help="of a new collection; default: wordllama")] = None,
    language: Annotated[str | None, typer.Option(help="of a new collection; default: english")] = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(help="of a new collection; default: 2000; 100000 leaves most documents whole"),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="dense, lexical, hybrid (the collection's settings) or rrf; repeat; default: all"),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="the mode to compare with; default: each measure's best")
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            help=f"one of ir-measures', such as P@5; repeat; default: {', '.join(DEFAULT_MEASURES)}"
        ),
    ] = None,
    depth: Annotated[int, typer.Option(help="documents kept per query, 1..10,000")] = 100,
    drop_self: Annotated[
        bool, typer.Option("--drop-self", help="leave out the document whose id is the query's")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="run the first judged queries only")] = None,
    runs: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="write each mode's TREC run there")
    ] = None,
    per_query: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="write values by query: JSON lines if it ends in .jsonl, else TSV"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how well a collection's searches find what was judged relevant.

    Every judged query is searched once per mode, as a plain text: + and - and quotes in it are no
    operators. BM25 gets the time it needs. A document counts where its best chunk stands; a query
    that finds nothing counts as 0. Modes are compared by paired randomisation tests, corrected
    after Holm over the modes of a measure. Exit code 4 means that --ingest rejected some documents.
    """
    modes = DEFAULT_MODES if not mode else choose_modes(mode)
    plan = Plan(modes, tuple(measure or DEFAULT_MEASURES), baseline, depth, drop_self, limit)
    judged = read_beir(beir, split)
    _check_writable(runs, per_query)
    report: IngestReport | None = None
    with state_of(context).client() as client:
        collection = _open(client, name, ingest, embedder, language, chunk_size)
        if ingest:
            report = ingest_with_progress(collection, judged.documents(), quiet=as_json)
            # By the exact average length, whatever order the documents came in.
            collection.refresh_statistics(reweigh=True)
            if not as_json:
                print_report(report)
        with searching(as_json) as advance:
            found = evaluate(collection, judged.queries, judged.qrels, plan, progress=advance)
    _warn(found, report)
    if as_json:
        print_json({"beir": judged.name, "split": split, **summary(found), "ingest": report})
    else:
        print_evaluation(found, f"{judged.name}/{split}")
    # Last, so that what was measured is seen even if a file cannot be written.
    if runs is not None:
        write_runs(runs, found)
    if per_query is not None:
        write_per_query(per_query, found)
    if report is not None and report.rejected:
        raise typer.Exit(4)


def print_evaluation(found: Evaluation, title: str) -> None:
    """Print the means of each mode, the best of each measure in bold, and the comparisons."""
    left = f", {found.unjudged_queries:,} more without judgement" if found.unjudged_queries else ""
    out.print(
        f"{title} in {found.collection}: {found.documents:,} documents, {found.queries:,} queries{left}, "
        f"depth {found.plan.depth:,}",
        markup=False,
        soft_wrap=True,
    )
    measures = list(found.modes[0].means)
    best = {measure: max(result.means[measure] for result in found.modes) for measure in measures}
    made = table("mode", *map(mean_name, measures), "median ms", "p95 ms", "found nothing")
    for column in made.columns[1:]:
        column.justify = "right"
    for result in found.modes:
        values = (
            f"[bold]{value:.4f}[/]" if value == best[measure] else f"{value:.4f}"
            for measure, value in result.means.items()
        )
        latency = (f"{result.latency.median:.1f}", f"{result.latency.p95:.1f}")
        made.add_row(escape(result.name), *values, *latency, str(result.empty))
    out.print(made)
    out.print("[dim]latency per search is of this run, the query's embedding at hand[/]", soft_wrap=True)
    if found.comparisons:
        out.print()
        print_comparisons(found.comparisons)


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """Print differences by measure, and how likely chance alone makes them."""
    compared = table("measure", "mode", "against", "difference", "better", "equal", "worse", "p", "p (Holm)")
    for column in compared.columns[3:]:
        column.justify = "right"
    for one in comparisons:
        counts = (str(count) for count in (one.better, one.equal, one.worse))
        compared.add_row(
            one.measure,
            one.mode,
            one.baseline,
            f"{one.difference:+.4f}",
            *counts,
            f"{one.p:.4f}",
            f"{one.p_holm:.4f}",
        )
    out.print(compared)


def mean_name(measure: str) -> str:
    """Return what the mean of a measure is called: that of AP has a name of its own, MAP."""
    return re.sub(r"^AP\b", "MAP", measure)


def _open(
    client: Client,
    name: str,
    make: bool,
    embedder: str | None,
    language: str | None,
    chunk_size: int | None,
) -> Collection:
    """Open the collection, or make it; the options of creation may not contradict one that is there."""
    try:
        found = client.collection(name)
    except CollectionNotFound as error:
        if not make:
            raise CollectionNotFound(f"{error}; --ingest makes it from the corpus") from error
        return client.create_collection(
            name, embedder=embedder, language=language or "english", chunk_size=chunk_size
        )
    if embedder is not None:
        # Raises SpaceMismatch for another one.
        found = client.create_collection(name, embedder=embedder, exist_ok=True)
    info = found.info()
    for option, given, stored in (
        ("--language", language, info.language),
        ("--chunk-size", chunk_size, info.settings["chunk_size"]),
    ):
        if given is not None and given != stored:
            raise InvalidInput(
                f"{option} is {given}, but collection {name!r} was made with {stored}; "
                "leave the option out, or name another collection"
            )
    return found


def _check_writable(runs: Path | None, per_query: Path | None) -> None:
    """Find out now, not after the searches, that results cannot be written."""
    try:
        if runs is not None:
            runs.mkdir(parents=True, exist_ok=True)
        if per_query is not None:
            with per_query.open("a"):
                pass
    except OSError as error:
        raise InvalidInput(f"cannot write to {error.filename}: {error.strerror}") from error


@contextmanager
def searching(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar of queries on a terminal; yields what is called with what runs, and how far it is."""
    with Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=quiet or not err.is_terminal,
    ) as progress:
        task = progress.add_task("", total=None)

        def advance(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        yield advance


def _warn(found: Evaluation, report: IngestReport | None) -> None:
    """Say on standard error what makes the figures mean less than they seem to."""
    notes = []
    if found.lost_queries:
        notes.append(f"{found.lost_queries:,} judged queries are not in queries.jsonl and were not run")
    if found.missing_documents:
        notes.append(
            f"{found.missing_documents:,} of {found.judged_documents:,} judged documents are not in the "
            "collection and cannot be found; --ingest stores the corpus"
        )
    if report is not None and found.documents > report.documents:
        notes.append(
            f"the collection holds {found.documents:,} documents, the corpus {report.documents:,}: "
            "the others count as not relevant"
        )
    if found.waiting:
        notes.append(
            f"{found.waiting:,} documents wait for embeddings; run: pgseek queue drain {found.collection}"
        )
    for result in found.modes:
        if result.degraded:
            notes.append(f"mode {result.name}: {result.degraded:,} of {found.queries:,} queries ran degraded")
    for note in notes:
        err.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
