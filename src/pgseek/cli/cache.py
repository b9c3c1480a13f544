"""``pgseek cache``: vectors that were made once and need not be made again."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated

import typer
from rich.markup import escape

from pgseek.cli.output import out, print_json, table
from pgseek.cli.state import state_of
from pgseek.config import MEBIBYTE
from pgseek.errors import InvalidInput
from pgseek.types import CacheStats, InputType

app = typer.Typer(help="The cache of vectors: what it holds, and making it smaller.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def stats(context: typer.Context, as_json: Json = False) -> None:
    """Tell what the cache holds, by model and input type."""
    with state_of(context).client() as client:
        found = client.cache_stats()
    if as_json:
        print_json(found)
        return
    made = table("embedder", "of", "entries", "expired", "size", "used from", "to")
    for one in found:
        made.add_row(
            escape(_embedder(one)),
            "queries" if one.input_type == "query" else "documents",
            f"{one.entries:,}",
            f"{one.expired:,}",
            f"{one.bytes / MEBIBYTE:,.1f} MB",
            _minute(one.oldest_used_at),
            _minute(one.newest_used_at),
        )
    out.print(made if found else "the cache is empty")


@app.command()
def prune(
    context: typer.Context,
    max_mb: Annotated[
        float | None, typer.Option(help="what may be left, of 1,048,576 bytes; default: PGSEEK_CACHE_MAX_MB")
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete expired vectors, then the least recently used ones beyond a size."""
    if max_mb is not None and not 0 <= max_mb < float("inf"):
        raise InvalidInput(f"--max-mb is {max_mb:g}, but must be 0 or more")
    with state_of(context).client() as client:
        deleted = client.prune_cache(max_bytes=None if max_mb is None else int(max_mb * MEBIBYTE))
    _tell(deleted, as_json)


@app.command()
def clear(
    context: typer.Context,
    collection: Annotated[
        str | None,
        typer.Argument(help="only vectors of its embedders; they may serve other collections, too"),
    ] = None,
    queries: Annotated[bool, typer.Option("--queries", help="only vectors of queries")] = False,
    documents: Annotated[bool, typer.Option("--documents", help="only vectors of documents")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: Json = False,
) -> None:
    """Delete cached vectors; what is stored in collections stays."""
    if queries and documents:
        raise InvalidInput("--queries and --documents exclude each other; leave both out to delete all")
    input_type: InputType | None = "query" if queries else "document" if documents else None
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput("what is deleted must be embedded again when needed; say --yes to confirm")
        typer.confirm("Delete cached vectors? They must be embedded again when needed.", abort=True)
    with state_of(context).client() as client:
        deleted = client.clear_cache(collection, input_type=input_type)
    _tell(deleted, as_json)


def _tell(deleted: int, as_json: bool) -> None:
    if as_json:
        print_json({"deleted": deleted})
    else:
        typer.echo(f"deleted {deleted:,} vectors")


def _embedder(one: CacheStats) -> str:
    if one.provider is None:
        return f"of no collection, {one.identity[:12]}…"
    return f"{one.provider}:{one.model}@{one.dimensions}"


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
