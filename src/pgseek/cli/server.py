"""``pgseek server``: the embedded PostgreSQL."""

from __future__ import annotations

from typing import Annotated

import typer

from pgseek.cli.output import out, print_json
from pgseek.cli.state import state_of
from pgseek.db import embedded
from pgseek.errors import ConnectionFailed

app = typer.Typer(help="The embedded PostgreSQL server.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def start(context: typer.Context) -> None:
    """Start the server (it keeps running) and print its DSN."""
    typer.echo(embedded.start(state_of(context).settings().data_dir))


@app.command()
def stop(context: typer.Context) -> None:
    """Stop the server."""
    stopped = embedded.stop(state_of(context).settings().data_dir)
    typer.echo("stopped" if stopped else "it was not running")


@app.command()
def status(context: typer.Context, as_json: Json = False) -> None:
    """Tell whether the server runs, and where its data is."""
    state = embedded.status(state_of(context).settings().data_dir)
    if as_json:
        print_json(state)
        return
    where = "running" if state.running else "stopped" if state.initialized else "never started"
    out.print(f"{where}  {state.data_dir}", soft_wrap=True, markup=False)
    if state.running:
        out.print(f"pid {state.pid}  dsn {state.dsn}", soft_wrap=True, markup=False)


@app.command()
def dsn(context: typer.Context) -> None:
    """Print the DSN of the running server."""
    state = embedded.status(state_of(context).settings().data_dir)
    if state.dsn is None:
        raise ConnectionFailed("the embedded server is not running; run: pgseek server start")
    typer.echo(state.dsn)
