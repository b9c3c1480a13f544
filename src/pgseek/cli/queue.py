"""``pgseek queue``: documents that SQL writers stored and that wait for their embeddings."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from pgseek.cli.output import err, out, print_json, print_report, table
from pgseek.cli.state import state_of
from pgseek.types import QueueStatus

app = typer.Typer(help="Documents stored through SQL that wait for embeddings.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def status(
    context: typer.Context,
    collection: Annotated[str | None, typer.Argument(help="default: all")] = None,
    as_json: Json = False,
) -> None:
    """Tell how many documents wait, are with a worker, are tried again later, and were given up."""
    with state_of(context).client() as client:
        found = (
            client.queue_status() if collection is None else [client.collection(collection).queue_status()]
        )
    if as_json:
        print_json(found if collection is None else found[0])
        return
    tenants = ("tenant",) if any(one.tenant for one in found) else ()
    made = table(*tenants, "collection", "waiting", "claimed", "retrying", "failed", "oldest")
    for one in found:
        made.add_row(
            *((one.tenant,) if tenants else ()),
            one.collection,
            *(f"{count:,}" for count in (one.waiting, one.claimed, one.retrying, one.failed)),
            "-" if one.oldest is None else _age(one.oldest),
        )
    out.print(made if found else "no collections yet; pgseek collections create NAME")


@app.command()
def drain(context: typer.Context, collection: str, as_json: Json = False) -> None:
    """Chunk and embed the documents that are due; exit code 4 if some could not be embedded."""
    with state_of(context).client() as client:
        opened = client.collection(collection)
        report = opened.drain_queue()
        left = opened.queue_status()
    if as_json:
        print_json(report)
    else:
        print_report(report)
        _tell_what_is_left(left)
    if report.rejected:
        raise typer.Exit(4)


@app.command()
def failed(
    context: typer.Context,
    collection: str,
    limit: Annotated[int, typer.Option(help="documents shown, the latest first", min=1)] = 100,
    as_json: Json = False,
) -> None:
    """List documents that were given up, with the reason."""
    with state_of(context).client() as client:
        found = client.collection(collection).failed_documents(limit=limit)
    if as_json:
        print_json(found)
        return
    for one in found:
        when = one.failed_at.strftime("%Y-%m-%d %H:%M")
        attempts = f"{one.attempts} attempt{'s' if one.attempts != 1 else ''}"
        out.print(f"[bold]{escape(one.id)}[/]  {when}, {attempts}: {escape(one.error)}", soft_wrap=True)
    if not found:
        err.print("no document was given up")


@app.command()
def retry(
    context: typer.Context,
    collection: str,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help="default: all")] = None,
) -> None:
    """Make documents that were given up, or are due again later, due now, with all attempts before them."""
    with state_of(context).client() as client:
        count = client.collection(collection).retry_queue(ids or None)
    typer.echo(f"{count:,} documents are due again")


def _tell_what_is_left(left: QueueStatus) -> None:
    parts = [
        f"{count:,} {what}"
        for count, what in (
            (left.waiting, "came meanwhile"),
            (left.claimed, "are with another worker"),
            (left.retrying, "are tried again later"),
            (left.failed, f"were given up (pgseek queue failed {left.collection})"),
        )
        if count
    ]
    if parts:
        err.print(f"[yellow]note:[/] of the queue, {'; '.join(parts)}", soft_wrap=True)


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
