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
from pgseek.cli.judged import Folder, GoldenName, QrelsFile, Queries, Source, Split, needed
from pgseek.cli.output import complain, err, out, plain, print_json, print_report, table
from pgseek.cli.state import state_of
from pgseek.client import Client, Collection
from pgseek.errors import CollectionNotFound, InvalidInput
from pgseek.evaluation import (
    DEFAULT_MEASURES,
    DEFAULT_MODES,
    Comparison,
    Evaluation,
    GateResult,
    Plan,
    SavedRun,
    choose_modes,
    evaluate,
    judge_run,
    read_run,
    saved_run,
    summary,
    write_per_query,
    write_runs,
)
from pgseek.evaluation.baseline import parse_limit
from pgseek.types import IngestReport

# The exit code of a measure that is not as it must be.
GATE_FAILED = 5


def evaluate_collection(
    context: typer.Context,
    name: Name,
    beir: Folder = None,
    split: Split = "test",
    queries: Queries = None,
    qrels: QrelsFile = None,
    golden: GoldenName = None,
    ingest: Annotated[
        bool, typer.Option("--ingest", help="store the folder's corpus first, in a new collection if need be")
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
    against: Annotated[
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
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write figures, settings and versions, for --baseline")
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="fail (exit code 5) if it is significantly worse than that saved run"
        ),
    ] = None,
    max_drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MEASURE=VALUE",
            help="with --baseline: fail only if a mean falls by more, such as nDCG@10=0.01 or rrf:AP=0.02; "
            "repeat",
        ),
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MEASURE=VALUE",
            help="fail (exit code 5) if a mean is below, such as nDCG@10=0.65; repeat",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how well a collection's searches find what was judged relevant.

    Every judged query is searched once per mode, as a plain text: + and - and quotes in it are no
    operators. BM25 gets the time it needs. A document counts where its best chunk stands; a query
    that finds nothing counts as 0. Modes are compared by paired randomisation tests, corrected
    after Holm over the modes of a measure.

    Exit code 4 means that --ingest rejected some documents, 5 that a gate failed: --fail-under, or
    --baseline with or without --max-drop. Gates are of the mode hybrid, which is what searches use,
    unless another is named (MODE:MEASURE=VALUE) or it is the only one run.
    """
    source = Source(beir, split, queries, qrels, golden)
    _check_options(source, ingest, bool(max_drop), baseline)
    modes = DEFAULT_MODES if not mode else choose_modes(mode)
    names = [one.name for one in modes]
    least = [parse_limit(text, "--fail-under", names) for text in fail_under or ()]
    drops = [parse_limit(text, "--max-drop", names) for text in max_drop or ()]
    measures = (*(measure or DEFAULT_MEASURES), *(one.measure for one in (*least, *drops)))
    plan = Plan(modes, measures, against, depth, drop_self, limit)
    judged = source.files()
    before = None if baseline is None else read_run(baseline)
    _check_writable(runs, per_query, save)
    report: IngestReport | None = None
    with state_of(context).client() as client:
        collection = _open(client, name, ingest, embedder, language, chunk_size)
        if ingest:
            corpus = needed(judged).beir
            report = ingest_with_progress(collection, corpus.documents() if corpus else (), quiet=as_json)
            # By the exact average length, whatever order the documents came in.
            collection.refresh_statistics(reweigh=True)
            if not as_json:
                print_report(report)
        judged = needed(judged or source.of(collection))
        with searching(as_json) as advance:
            found = evaluate(collection, judged.queries, judged.qrels, plan, progress=advance)
        now = saved_run(collection, found, judged.queries, judged.qrels)
    gate = judge_run(now, before, least=least, drops=drops)
    _warn(found, report)
    if as_json:
        told = {"beir": judged.beir.name, "split": split} if judged.beir else {"judged": judged.title}
        gated = {"gate": {"passed": gate.passed, **plain(gate)}} if before or least else {}
        print_json({**told, **summary(found), "ingest": report, **gated})
    else:
        print_evaluation(found, judged.title)
    _print_gate(gate, as_json)
    # Last, so that what was measured is seen even if a file cannot be written.
    if runs is not None:
        write_runs(runs, found)
    if per_query is not None:
        write_per_query(per_query, found)
    if save is not None:
        _save(now, save, baseline, gate)
    if not gate.passed:
        raise typer.Exit(GATE_FAILED)
    if report is not None and report.rejected:
        raise typer.Exit(4)


def _check_options(source: Source, ingest: bool, drops: bool, baseline: Path | None) -> None:
    if not source.given:
        needed(None)
    if ingest and source.beir is None:
        raise InvalidInput("--ingest stores the corpus of --beir FOLDER, but no folder is given")
    if drops and baseline is None:
        raise InvalidInput("--max-drop is against a saved run; give it: --baseline run.json")


def _save(now: SavedRun, path: Path, baseline: Path | None, gate: GateResult) -> None:
    """Write the run; over the one that it was held against only if that says it is good enough."""
    if gate.passed or baseline is None or path.resolve() != baseline.resolve():
        now.write(path)
    else:
        err.print(f"[yellow]note:[/] {path} stays as it was, since the gate failed", soft_wrap=True)


def _print_gate(gate: GateResult, quiet: bool) -> None:
    """Tell every verdict, those that failed as errors, with the queries that lost most."""
    for note in gate.notes:
        err.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    for verdict in gate.verdicts:
        if verdict.passed:
            if not quiet:
                out.print(f"[green]passed:[/] {escape(str(verdict))}", soft_wrap=True)
            continue
        complain(str(verdict))
        lowest = verdict.before is None
        err.print("  lowest:" if lowest else "  lost most:")
        for one in verdict.lost:
            figures = f"{one.now:.4f}" if lowest else f"{one.before:.4f} → {one.now:.4f}"
            err.print(f"    {escape(one.query)}  {figures}", soft_wrap=True)


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


def _check_writable(runs: Path | None, *files: Path | None) -> None:
    """Find out now, not after the searches, that results cannot be written."""
    try:
        if runs is not None:
            runs.mkdir(parents=True, exist_ok=True)
        for file in files:
            if file is not None and not file.exists():
                # An empty file would be no saved run.
                with file.open("w"):
                    pass
                file.unlink()
            elif file is not None:
                with file.open("a"):
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
        notes.append(f"{found.lost_queries:,} judged queries have no text and were not run")
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
