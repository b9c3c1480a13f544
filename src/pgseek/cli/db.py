"""``pgseek db``: the schema and its migrations."""

from __future__ import annotations

import sys
from typing import Annotated, cast

import typer

from pgseek.cli.output import print_json
from pgseek.cli.state import state_of
from pgseek.db.revisions import HEAD
from pgseek.errors import InvalidInput, SchemaError

app = typer.Typer(help="The database schema and its migrations.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def upgrade(context: typer.Context, revision: str = typer.Argument("head")) -> None:
    """Migrate forward, to the newest revision by default."""
    from pgseek.db import schema  # noqa: PLC0415 (Alembic takes a while to load)

    reached = schema.upgrade(state_of(context).resolved_dsn(migrate=False), revision)
    typer.echo(f"the schema is at revision {reached}")


@app.command()
def downgrade(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="a revision, or 'base' to remove everything")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Migrate back. What the removed revisions stored is deleted; 'base' deletes all documents."""
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput("db downgrade deletes data; say --yes to confirm")
        typer.confirm(f"Go back to {revision}, deleting what later revisions store?", abort=True)
    from pgseek.db import schema  # noqa: PLC0415 (Alembic takes a while to load)

    left = schema.downgrade(state_of(context).resolved_dsn(migrate=False), revision)
    typer.echo(f"the schema is at revision {left}" if left else "the schema was removed")


@app.command()
def current(context: typer.Context, as_json: Json = False) -> None:
    """Print the revision of the database, and the one this pgseek needs."""
    from pgseek.db import schema  # noqa: PLC0415 (Alembic takes a while to load)

    found = schema.current(state_of(context).resolved_dsn(migrate=False))
    if as_json:
        print_json({"revision": found, "head": HEAD})
    else:
        typer.echo(f"{found or 'none'} (this pgseek needs {HEAD})")


@app.command()
def check(context: typer.Context, as_json: Json = False) -> None:
    """Compare the database with what this pgseek expects; fails if they differ."""
    from pgseek.db import schema  # noqa: PLC0415 (Alembic takes a while to load)

    differences = schema.check(state_of(context).resolved_dsn(migrate=False))
    if as_json:
        print_json({"differences": differences})
    for difference in differences if not as_json else []:
        typer.echo(difference)
    if differences:
        raise SchemaError(f"the schema differs in {len(differences)} places from revision {HEAD}")
    if not as_json:
        typer.echo(f"the schema is what revision {HEAD} says")


@app.command()
def roles(
    context: typer.Context,
    apply: Annotated[bool, typer.Option("--apply", help="execute the statements")] = False,
) -> None:
    """Print what makes the roles pgseek_reader and pgseek_writer, and gives them their rights.

    The migration does it where it may make roles. What is there is left as it is; see docs/tenants.md.
    """
    from pgseek.db import roles as making  # noqa: PLC0415 (like the others, only when asked for)

    dsn = state_of(context).resolved_dsn(migrate=False)
    for statement in making.apply(dsn) if apply else making.statements(dsn):
        typer.echo(f"{statement};")


@app.command()
def bind(context: typer.Context, role: str, tenant: str) -> None:
    """Let a login role work for one tenant only, whatever it sets. Run it as the owner of the tables."""
    from pgseek.db import roles as making  # noqa: PLC0415 (like the others, only when asked for)

    making.bind(state_of(context).resolved_dsn(migrate=False), role, tenant)
    typer.echo(f"{role} works for tenant {tenant}")


@app.command()
def distribute(
    context: typer.Context,
    by: Annotated[
        str,
        typer.Option(help="collection_id keeps each collection on one node, document_id spreads it over all"),
    ] = "collection_id",
    shards: Annotated[
        int | None, typer.Option(help="how many shards; by default the server's citus.shard_count")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the statements; needs no Citus")] = False,
) -> None:
    """Spread the tables over the nodes of a Citus cluster; what is distributed already is left.

    Run it again after a collection was created and after a migration. See docs/scaling.md.
    """
    from pgseek.db import distribute as distribution  # noqa: PLC0415 (like the others, only when asked for)

    dsn = state_of(context).resolved_dsn(migrate=False)
    chosen = cast("distribution.By", by)
    if dry_run:
        for step in distribution.plan(dsn, chosen, shards):
            typer.echo(f"-- {step.why}\n{step.statement};")
        return
    done = distribution.distribute(dsn, chosen, shards, lambda step: typer.echo(f"{step.statement};"))
    typer.echo(
        f"{len(done)} statements executed; run it again after creating a collection, before filling it"
        if done
        else "everything is distributed"
    )
