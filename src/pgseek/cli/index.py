"""``pgseek index``: the index of a collection's vectors, built, measured and tuned."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from pgseek.cli.documents import Json, Name
from pgseek.cli.output import err, out, print_event, print_json, table
from pgseek.cli.progress import LINE_EVERY
from pgseek.cli.spaces import size
from pgseek.cli.state import state_of
from pgseek.indexing.advising import IndexAdvice
from pgseek.indexing.building import IndexBuild, IndexProgress
from pgseek.indexing.describing import IndexState
from pgseek.indexing.measuring import IndexRecall, Source, described
from pgseek.indexing.options import IndexOption
from pgseek.indexing.tuning import IndexTuning

app = typer.Typer(help="The index of a collection's vectors.", no_args_is_help=True)
Space = Annotated[
    str | None, typer.Option(metavar="SPACE", help="its number or model; default: the one that is searched")
]
Sample = Annotated[int, typer.Option(help="queries that are measured by, 10..10,000")]
K = Annotated[int, typer.Option("-k", help="the nearest that must be found, 1..1,000")]


@app.command()
def build(
    context: typer.Context,
    name: Name,
    index: Annotated[
        str | None,
        typer.Option(help="such as hnsw,m=32, ivfflat, binary or prefix=256; default: as the space has it"),
    ] = None,
    space: Space = None,
    concurrently: Annotated[
        bool, typer.Option("--concurrently/--blocking", help="let writers go on meanwhile, or make them wait")
    ] = True,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="build the same index anew")] = False,
    memory: Annotated[
        str | None,
        typer.Option("--maintenance-work-mem", help="such as 2GB; default: what it needs, up to 1GB"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="processes beside the first; default: the server's setting")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the index of the vectors, or put another one in its place, while searches go on."""
    with state_of(context).client() as client, Shown(as_json) as shown:
        built = client.collection(name).build_index(
            index,
            space=space,
            concurrently=concurrently,
            rebuild=rebuild,
            maintenance_work_mem=memory,
            workers=workers,
            progress=shown,
        )
    if as_json:
        print_event("built", built)
    else:
        _print_build(built)


@app.command()
def drop(context: typer.Context, name: Name, space: Space = None, as_json: Json = False) -> None:
    """Drop the index of the vectors: every search compares all of them until it is built again."""
    with state_of(context).client() as client, Shown(as_json) as shown:
        dropped = client.collection(name).drop_index(space=space, progress=shown)
    if as_json:
        print_event("dropped", dropped)
    else:
        _print_build(dropped)


@app.command()
def show(context: typer.Context, name: Name, space: Space = None, as_json: Json = False) -> None:
    """Tell how the vectors are indexed, what searches use, and how far a build is."""
    with state_of(context).client() as client:
        found = client.collection(name).describe_index(space=space)
    if as_json:
        print_json(found)
    else:
        _print_state(found)


@app.command()
def tune(
    context: typer.Context,
    name: Name,
    recall: Annotated[float, typer.Option(help="the share of the nearest that must be found, 0..1")] = 0.95,
    k: K = 10,
    space: Space = None,
    sample: Sample = 100,
    store: Annotated[bool, typer.Option("--store/--no-store", help="let searches use it")] = True,
    as_json: Json = False,
) -> None:
    """Find the smallest ef_search (of IVFFlat: probes) that holds a recall, and let searches use it.

    Exit code 4 means that no value holds it, and nothing was stored.
    """
    with state_of(context).client() as client, Shown(as_json) as shown:
        found = client.collection(name).tune_index(
            recall, k=k, space=space, sample=sample, store=store, progress=shown
        )
    if as_json:
        print_event("tuned", found)
    else:
        _print_tuning(found)
    if not found.held:
        raise typer.Exit(4)


@app.command()
def advise(
    context: typer.Context,
    name: Name,
    recall: Annotated[float, typer.Option(help="the share of the nearest that must be found, 0..1")] = 0.95,
    k: K = 10,
    space: Space = None,
    sample: Sample = 100,
    as_json: Json = False,
) -> None:
    """Measure the index against exact search, estimate what others would take, and propose one."""
    with state_of(context).client() as client, Shown(as_json, events=False) as shown:
        found = client.collection(name).advise_index(recall, k=k, space=space, sample=sample, progress=shown)
    if as_json:
        print_json(found)
    else:
        _print_advice(found)


class Shown:
    """A bar on a terminal, a line now and then elsewhere, events for programs."""

    def __init__(self, as_json: bool, *, events: bool = True) -> None:
        self._events = as_json and events
        self._lines = not as_json and not err.is_terminal
        self._at, self._phase = -LINE_EVERY, ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            console=err,
            transient=True,
            disable=as_json or not err.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Shown:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, report: IndexProgress) -> None:
        now = time.monotonic()
        another = report.phase != self._phase
        self._phase = report.phase
        if self._events:
            print_event("progress", report)
        elif self._lines and (another or now - self._at >= LINE_EVERY):
            self._at = now
            done = f": {report.done:,} of {report.total:,} {report.unit}" if report.total else ""
            waits = f", for process {report.waiting_for}" if report.waiting_for else ""
            err.print(f"{report.phase}{done}{waits}", markup=False, soft_wrap=True)
        self._bar.update(
            self._task, description=report.phase, completed=report.done, total=report.total or None
        )


def _print_build(built: IndexBuild) -> None:
    of = f"space {built.space_id} of {built.collection}"
    if not built.built:
        out.print(f"no index was built for {escape(of)}: {escape(built.reason)}", soft_wrap=True)
        return
    replaced = f", in place of {built.replaced}" if built.replaced is not None else ""
    took = f"{built.seconds:.1f} s with {built.maintenance_work_mem // 1024:,} MB"
    out.print(
        f"built {built.name} ({built.index}{replaced}) of {escape(of)}: {built.rows:,} rows, "
        f"{size(built.bytes)}, {took}",
        soft_wrap=True,
    )


def _print_tuning(found: IndexTuning) -> None:
    out.print(_measured([("before", found.before), ("after", found.after)]))
    out.print(f"by {_by(found.queries, found.source)}, over {found.rows:,} rows", soft_wrap=True)
    if not found.held:
        err.print(
            f"no value finds {found.recall:g} of the {found.k} nearest: the best is {found.after.recall:.4f} "
            f"with {described(found.after.settings)}. Nothing was stored; pgseek index advise "
            f"{escape(found.collection)} says what another index would take",
            soft_wrap=True,
        )
    elif found.stored:
        out.print(f"searches of {escape(found.collection)} use it from now on")


def _print_advice(found: IndexAdvice) -> None:
    out.print(
        f"space {found.space_id} of {escape(found.collection)}: {found.rows:,} rows, index {found.index}"
    )
    if found.measured:
        out.print(_measured([("as it is", found.measured[0]), *(("", one) for one in found.measured[1:])]))
    out.print(
        f"by {_by(found.queries, found.source)}; exact search takes {found.exact_p50:.1f} ms; the index "
        f"{'fits' if found.fits else 'does not fit'} into shared_buffers ({size(found.index_bytes)} of "
        f"{size(found.shared_buffers)})",
        soft_wrap=True,
    )
    if found.options:
        made = table("storage", "index", "table", "index size", "memory to build", "seconds", "reachable")
        for option in found.options:
            made.add_row(*_option(option))
        out.print(made)
        out.print(
            f"sizes and times are estimates, from builds by one process over {found.options[0].timed_rows:,} "
            "rows; reachable is measured: the recall that is left if the index misses nothing",
            soft_wrap=True,
        )
    for reason in found.reasons:
        out.print(f"- {escape(reason)}", soft_wrap=True)
    out.print(f"proposed: {escape(found.command or 'leave it as it is')}", soft_wrap=True)
    for statement in found.sql:
        out.print(f"  {statement};", markup=False, soft_wrap=True)


def _by(queries: int, source: Source) -> str:
    if source == "queries":
        return f"{queries:,} queries asked before"
    return (
        f"{queries:,} stored vectors, each without itself (the cache holds too few queries; those lie "
        "farther from the texts, and find less)"
    )


def _print_state(found: IndexState) -> None:
    made = table("", "")
    made.show_header = False
    made.add_row("space", escape(f"{found.space_id} of {found.collection}"))
    made.add_row("vectors", f"{found.rows:,} of {found.storage} by {found.metric}, {size(found.table_bytes)}")
    made.add_row("index", f"{found.index}, {size(found.index_bytes) if found.built else 'not built'}")
    if found.definition is not None:
        made.add_row("", escape(found.definition))
    if found.building is not None:
        now = found.building
        made.add_row("being built", f"{now.phase}: {now.done:,} of {now.total:,} {now.unit}")
    settings = {name: value for name, value in found.searching.items() if name != "tuned"}
    made.add_row("searched with", described(settings) if settings else "as pgseek chooses")
    tuned = found.searching.get("tuned")
    if tuned:
        more = "; there are many more now: tune it again" if found.rows > 2 * tuned["rows"] else ""
        made.add_row(
            "tuned",
            f"for {tuned['recall']:g} of the {tuned['k']} nearest: {tuned['measured']:.4f} of "
            f"{tuned['rows']:,} rows{more}",
        )
    out.print(made)


def _option(option: IndexOption) -> list[str]:
    return [
        option.storage,
        str(option.index),
        *(size(n) for n in (option.table_bytes, option.index_bytes, option.build_bytes)),
        f"about {option.build_seconds:,.0f}",
        "all" if option.reachable is None else f"{option.reachable:.3f}",
    ]


def _measured(rows: list[tuple[str, IndexRecall]]) -> Any:
    made = table("", "settings", "recall", "p50 ms")
    for label, one in rows:
        shown = ", ".join(f"{name} {value:,}" for name, value in one.settings.items()) or "as pgseek chooses"
        made.add_row(label, shown, f"{one.recall:.4f}", f"{one.p50:.2f}")
    return made
