"""``pgseek queue``: documents that SQL writers stored and that wait for their embeddings."""

from __future__ import annotations

from typing import Annotated

import typer

from pgseek.cli.output import print_json, print_report
from pgseek.cli.state import state_of

app = typer.Typer(help="Documents stored through SQL that wait for embeddings.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def status(context: typer.Context, collection: str, as_json: Json = False) -> None:
    """Tell how many documents wait."""
    with state_of(context).client() as client:
        queued = client.collection(collection).info().queued
    if as_json:
        print_json({"collection": collection, "queued": queued})
    else:
        typer.echo(f"{queued:,} documents wait for embeddings")


@app.command()
def drain(context: typer.Context, collection: str, as_json: Json = False) -> None:
    """Chunk and embed the documents that wait; exit code 4 if some could not be embedded."""
    with state_of(context).client() as client:
        report = client.collection(collection).drain_queue()
    if as_json:
        print_json(report)
    else:
        print_report(report)
    if report.rejected:
        raise typer.Exit(4)
