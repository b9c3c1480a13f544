"""``pgseek reembed`` and ``pgseek spaces``: another embedding model, while search goes on."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from pgseek.cli.documents import Json, Name
from pgseek.cli.output import err, out, print_event, print_json, table
from pgseek.cli.progress import EVENT_EVERY, LINE_EVERY
from pgseek.cli.state import state_of
from pgseek.client import Collection
from pgseek.embedders.base import Embedder
from pgseek.embedders.registry import PROVIDERS, create_embedder
from pgseek.errors import InvalidInput
from pgseek.evaluation.queries import read_queries
from pgseek.evaluation.trec import read_qrels
from pgseek.types import Gate, GateReport, ReembedPlan, ReembedReport
from pgseek.vectors import Metric, Storage

app = typer.Typer(
    help="Embedding spaces: a collection's vectors, one set for each model.", no_args_is_help=True
)
Space = Annotated[str, typer.Argument(metavar="SPACE", help="its number, or provider:model@dimensions")]


def reembed(
    context: typer.Context,
    name: Name,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="EMBEDDER", help="provider:model@dimensions; may be left out with what follows"
        ),
    ] = None,
    rechunk: Annotated[
        bool, typer.Option("--rechunk", help="divide the documents otherwise: give one of the settings below")
    ] = False,
    chunk_size: Annotated[int | None, typer.Option(help="characters at most")] = None,
    chunk_overlap: Annotated[int | None, typer.Option(help="characters shared")] = None,
    section_size: Annotated[
        int | None, typer.Option(help="characters of text to read around a chunk")
    ] = None,
    heading_context: Annotated[
        bool | None,
        typer.Option("--heading-context/--no-heading-context", help="read headings before chunks"),
    ] = None,
    document_vectors: Annotated[
        bool | None,
        typer.Option("--document-vectors/--no-document-vectors", help="search each document as a whole, too"),
    ] = None,
    long_texts: Annotated[str | None, typer.Option(help="average, chunk, refuse or truncate")] = None,
    questions: Annotated[int | None, typer.Option(help="questions written for each chunk, 0..20")] = None,
    summaries: Annotated[
        bool | None, typer.Option("--summaries/--no-summaries", help="a summary written for each chunk")
    ] = None,
    generator: Annotated[str | None, typer.Option(help="what writes them: provider:model")] = None,
    query_prompt: Annotated[str | None, typer.Option(help="put before queries")] = None,
    document_prompt: Annotated[str | None, typer.Option(help="put before documents")] = None,
    metric: Annotated[
        str | None, typer.Option(help="cosine, inner_product, l2 or l1; default: as it is")
    ] = None,
    storage: Annotated[str | None, typer.Option(help="vector or halfvec; default: by the dimensions")] = None,
    index: Annotated[
        str | None, typer.Option(help="such as hnsw,m=32, ivfflat, binary, prefix=256 or none")
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="the same model, which its provider changed: embed everything anew"),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what it takes, and do nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    workers: Annotated[int, typer.Option(help="batches that are embedded at once, 1..8")] = 1,
    max_cost: Annotated[
        float | None, typer.Option(help="dollars: stop before the first request that would pass it")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="compare by these: one a line, or JSON lines; default: texts of the collection"),
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="judgements of the queries: nDCG@10 must not fall; TREC's or BEIR's")
    ] = None,
    min_recall: Annotated[
        float, typer.Option(help="what the new index must find of the nearest, 0..1")
    ] = 0.95,
    min_overlap: Annotated[float, typer.Option(help="the share of hits that must stay the same, 0..1")] = 0.0,
    max_loss: Annotated[float, typer.Option(help="how far nDCG@10 may fall")] = 0.01,
    allow_refused: Annotated[
        bool, typer.Option("--allow-refused", help="switch though the new model cannot embed some documents")
    ] = False,
    switch: Annotated[
        bool, typer.Option("--switch/--no-switch", help="search by the new one if it passes")
    ] = True,
    as_json: Json = False,
) -> None:
    """Change a collection to another model, prompt or division, while it is searched and written to.

    Price and time are told first. A second space is filled beside the one that is searched; writes go to
    both. It is then compared with the old one, and if that went well it becomes the one that is searched.
    Ctrl-C ends it; the same command goes on, also elsewhere at the same time. `pgseek spaces rollback` goes
    back.
    With --rechunk a hidden copy of the collection is divided otherwise, and takes its name.
    Exit code 5 means that the new space did not pass, and the old one is still searched.
    """
    if qrels is not None and queries is None:
        raise InvalidInput("--qrels needs --queries: the texts of the queries that are judged")
    gate = Gate(
        queries=read_queries(queries) if queries is not None else {},
        qrels=read_qrels(qrels) if qrels is not None else {},
        min_recall=min_recall,
        min_overlap=min_overlap,
        max_loss=max_loss,
        allow_refused=allow_refused,
    )
    chunks = {
        "chunk_size": chunk_size,
        "chunk_overlap": chunk_overlap,
        "section_size": section_size,
        "heading_context": heading_context,
        "document_vectors": document_vectors,
        "long_texts": long_texts,
        "questions": questions,
        "summaries": summaries,
        "generator": generator,
    }
    space: dict[str, Any] = {
        "metric": cast("Metric | None", metric),
        "storage": cast("Storage | None", storage),
        "index": index,
    }
    divided = _checked(rechunk, again, chunks, space)
    with state_of(context).client() as client:
        collection = client.collection(name)
        embedder = _embedder(collection, to, query_prompt, document_prompt)
        if rechunk:
            plan = collection.plan_rechunk(embedder, **divided)
            change: Callable[..., ReembedReport] = partial(collection.rechunk, embedder, **divided)
        else:
            if embedder is None:
                raise InvalidInput("nothing would change: give --to, a prompt, or --rechunk with a setting")
            plan = collection.plan_reembed(embedder, **space, again=again)
            change = partial(collection.reembed, embedder, **space, again=again)
        if dry_run and as_json:
            print_json(plan)
        elif as_json:
            print_event("plan", plan)
        else:
            print_reembed_plan(plan)
        if dry_run:
            return
        _confirm(plan, yes)
        with _until_interrupted() as stop, _Shown(as_json) as shown:
            report = change(
                gate=gate, workers=workers, max_cost=max_cost, switch=switch, stop=stop, progress=shown
            )
    if as_json:
        print_event("report", report)
    else:
        print_reembed_report(report)
    if report.stage == "stopped":
        raise KeyboardInterrupt
    if report.stage == "refused":
        raise typer.Exit(5)


def _checked(rechunk: bool, again: bool, chunks: dict[str, Any], space: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of chunks that are given, or raise `InvalidInput` for what does not go together."""
    told = {name: value for name, value in chunks.items() if value is not None}
    if told and not rechunk:
        option = next(iter(told)).replace("_", "-")
        raise InvalidInput(f"--{option} divides the documents otherwise: say --rechunk, too")
    if rechunk and (again or any(value is not None for value in space.values())):
        raise InvalidInput(
            "--rechunk goes with --to and the prompts, not with --metric, --storage, --index or --again"
        )
    return told


def _confirm(plan: ReembedPlan, yes: bool) -> None:
    if plan.cost > 0 and not yes:
        if not sys.stdin.isatty():
            raise InvalidInput(f"embedding costs about ${plan.cost:,.2f}; say --yes to go on")
        typer.confirm(f"Go on for about ${plan.cost:,.2f}?", abort=True)


def _embedder(
    collection: Collection, to: str | None, query_prompt: str | None, document_prompt: str | None
) -> Embedder | str | None:
    """Return what the options name: another model, the present one with other prompts, or None."""
    if query_prompt is None and document_prompt is None:
        return to
    own = collection.info().identity
    if to is None and PROVIDERS.get(own.provider, ("", True))[1]:
        # What is not given stays.
        query_prompt = own.query_prompt if query_prompt is None else query_prompt
        document_prompt = own.document_prompt if document_prompt is None else document_prompt
    return create_embedder(to or str(own), query_prompt=query_prompt, document_prompt=document_prompt)


@contextmanager
def _until_interrupted() -> Iterator[threading.Event]:
    """Set an event at the first Ctrl-C: the batches on their way are finished. The second ends at once."""
    stop = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def interrupt(*_: Any) -> None:
        err.print("finishing the batches on their way; once more to end at once")
        stop.set()
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


class _Shown:
    """A bar on a terminal, a line now and then elsewhere, events for programs."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._at = -LINE_EVERY
        self._stage = ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=as_json or not err.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, rate="")

    def __enter__(self) -> _Shown:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, report: ReembedReport) -> None:
        another = report.stage != self._stage
        self._stage = report.stage
        now = time.monotonic()
        rate = (report.done - report.begun) / max(report.seconds, 1e-9)
        if self._as_json:
            if another or now - self._at >= EVENT_EVERY:
                self._at = now
                print_event("progress", report)
        elif not err.is_terminal and (another or now - self._at >= LINE_EVERY):
            self._at = now
            left = (report.chunks - report.done) / rate if rate > 0 else 0.0
            what = f"{report.stage}: {report.done:,} of {report.chunks:,} {_unit(report)}"
            more = (
                f" ({rate:,.0f}/s, about {left:,.0f} s left)" if report.stage == "embedding" and left else ""
            )
            err.print(what + more, soft_wrap=True)
        self._bar.update(
            self._task,
            description=report.stage,
            completed=report.done,
            total=report.chunks,
            rate=f"{rate:,.0f}/s",
        )


def _unit(report: ReembedReport) -> str:
    return "chunks" if report.copy is None else "documents"


def print_reembed_plan(plan: ReembedPlan) -> None:
    """Print what a change of model takes."""
    made = table("", "")
    made.show_header = False
    made.add_row("from", escape(plan.of))
    made.add_row("to", escape(f"{plan.to}, stored as {plan.storage}, indexed as {plan.index}"))
    about = "about " if plan.rechunked else ""
    made.add_row("chunks", f"{about}{plan.chunks:,}" + (f", {plan.done:,} are done" if plan.done else ""))
    if plan.reduced:
        made.add_row("embedded", "nothing: the vectors are cut from those that are stored")
    else:
        made.add_row("embedded", f"{plan.texts:,} texts, {plan.cached:,} more are in the cache")
    if plan.tokens:
        made.add_row("tokens", f"{'' if plan.exact else 'about '}{plan.tokens:,}")
    if plan.price:
        made.add_row("cost", f"${plan.cost:,.4f} at ${plan.price:g} per million tokens")
    if plan.seconds is not None:
        made.add_row("time", f"{'at least' if plan.price else 'about'} {plan.seconds:,.0f} s")
    made.add_row(
        "on disk",
        f"about {size(plan.table_bytes)} and {size(plan.index_bytes)} of index, beside the old ones",
    )
    out.print(made)


def print_reembed_report(report: ReembedReport) -> None:
    """Print how a change of model ended."""
    if report.gate is not None:
        print_gate(report.gate)
    for name, reason in list(report.refused.items())[:10]:
        err.print(f"{escape(name)}: {escape(reason)}", soft_wrap=True)
    if len(report.refused) > 10:
        err.print(f"… and {len(report.refused) - 10:,} more")
    new = f"space {report.space_id}" if report.copy is None else f"{report.copy}"
    space = f"{report.collection} {report.space_id if report.copy is None else report.copy}"
    activate = f"pgseek spaces activate {space}"
    if report.copy is not None:
        activate = "the same command with other bounds"
    said = {
        "switched": f"{report.collection} is searched by {new} now; pgseek spaces rollback "
        f"{report.collection} goes back",
        "ready": f"{new} is ready: {activate} switches to it",
        "refused": f"not switched; {activate} does so all the same, and pgseek spaces retire {space} gives "
        "it up",
        "stopped": "stopped",
    }[report.stage]
    if report.refused and report.stage == "refused":
        said = f"{len(report.refused):,} documents cannot be embedded (--allow-refused); {said}"
    if report.queued:
        said += f"; {report.queued:,} documents wait: pgseek queue drain {report.collection}"
    what = "vectors" if report.copy is None else "documents"
    cost = f", ${report.cost:,.4f}" if report.cost else ""
    done = f"{report.done - report.begun:,} {what} in {report.seconds:,.1f} s{cost}"
    out.print(f"{escape(said)} ({done})", soft_wrap=True)


def print_gate(gate: GateReport) -> None:
    """Print how a new space compares with the old one."""
    by = f"{gate.queries} {'texts of the collection' if gate.sampled else 'queries'}"
    out.print(
        f"by {by}: {gate.overlap:.3f} of the {gate.k} best are the same, the index finds {gate.recall:.3f}"
    )
    if gate.ndcg_before is not None and gate.ndcg_after is not None:
        out.print(
            f"nDCG@{gate.k} over {gate.judged} judged queries: {gate.ndcg_before:.4f} before, "
            f"{gate.ndcg_after:.4f} after"
        )
    for reason in gate.reasons:
        err.print(f"[yellow]does not pass:[/] {escape(reason)}", soft_wrap=True)


@app.command("list")
def list_(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """List a collection's embedding spaces."""
    with state_of(context).client() as client:
        collection = client.collection(name)
        found, copy = collection.spaces(), collection.info().copy
    if as_json:
        print_json(found)
        return
    made = table("space", "state", "model", "metric", "storage", "index", "vectors", "missing", "on disk")
    for one in found:
        made.add_row(
            str(one.space_id),
            one.state,
            escape(str(one.identity)),
            one.metric,
            one.storage,
            str(one.index),
            *(_count(n) for n in (one.rows, one.missing)),
            size((one.table_bytes or 0) + (one.index_bytes or 0)) if one.rows is not None else "-",
        )
    out.print(made)
    if copy is not None:
        kept = (
            "searched before, and kept in step"
            if copy.kept
            else f"{copy.documents:,} of {copy.of:,} documents"
        )
        out.print(
            f"copy {escape(copy.name)}, divided otherwise: {kept}, {copy.queued:,} wait", soft_wrap=True
        )


@app.command()
def show(context: typer.Context, name: Name, space: Space, as_json: Json = False) -> None:
    """Describe one embedding space."""
    with state_of(context).client() as client:
        one = client.collection(name).space(space)
    if as_json:
        print_json(one)
        return
    made = table("", "")
    made.show_header = False
    identity = one.identity
    rows = {
        "space": str(one.space_id),
        "state": one.state,
        "model": str(identity),
        "revision": identity.revision or "not known",
        "prompts": ", ".join(filter(None, (identity.query_prompt, identity.document_prompt))) or "none",
        "normalized": str(identity.normalized),
        "identity": one.identity_hash,
        "metric": one.metric,
        "storage": f"{one.storage}({identity.dimensions}), table pgseek.embeddings_{one.space_id}",
        "index": str(one.index),
        "searching": ", ".join(f"{k}={v}" for k, v in one.searching.items()) or "as pgseek chooses",
        "vectors": _count(one.rows),
        "missing": _count(one.missing),
        "on disk": f"{size(one.table_bytes or 0)} and {size(one.index_bytes or 0)} of indexes",
        "made": f"{one.created_at:%Y-%m-%d %H:%M}",
        "searched since": "never" if one.activated_at is None else f"{one.activated_at:%Y-%m-%d %H:%M}",
    }
    for key, value in rows.items():
        made.add_row(key, escape(value))
    out.print(made)


@app.command()
def activate(context: typer.Context, name: Name, space: Space) -> None:
    """Search by another space, in one transaction; the present one is kept and kept up to date."""
    with state_of(context).client() as client:
        left = client.collection(name).activate(space)
    more = f"; {left:,} documents wait for their vectors: pgseek queue drain {name}" if left else ""
    typer.echo(f"{name} is searched by space {space} now{more}")


@app.command()
def rollback(context: typer.Context, name: Name) -> None:
    """Search by the space again that was searched before."""
    with state_of(context).client() as client:
        found = client.collection(name).rollback()
    typer.echo(f"{name} is searched by space {found.space_id} ({found}) again")


@app.command()
def retire(
    context: typer.Context,
    name: Name,
    space: Annotated[
        str,
        typer.Argument(
            metavar="SPACE",
            help="its number, provider:model@dimensions, or the name of the collection's copy",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Drop the vectors of a space that is not searched, or the collection's copy, or what is being built."""
    with state_of(context).client() as client:
        collection = client.collection(name)
        copy = collection.info().copy
        if copy is not None and space == copy.name:
            what = f"the copy {copy.name} with its {copy.documents:,} documents"
        else:
            one = collection.space(space)
            what = f"the {one.rows or 0:,} vectors of space {one.space_id} ({one})"
        if not yes:
            if not sys.stdin.isatty():
                raise InvalidInput(f"retiring drops {what}; say --yes to confirm")
            typer.confirm(f"Drop {what}?", abort=True)
        collection.retire(space)
    typer.echo(f"dropped {what}")


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def size(number: int) -> str:
    """Return a number of bytes as people write it: 7.6 MB."""
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:,.0f} {unit}" if unit == "B" or size >= 100 else f"{size:,.1f} {unit}"
        size /= 1000
    return ""
