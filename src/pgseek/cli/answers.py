"""``pgseek answers``: answers that are kept by their questions."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

from pgseek.cli.documents import Json, Name
from pgseek.cli.output import out, print_json, table
from pgseek.cli.state import state_of
from pgseek.config import MEBIBYTE
from pgseek.errors import InvalidInput

app = typer.Typer(
    help="Answers kept by their questions: what there is, and making it less.", no_args_is_help=True
)


@app.command()
def stats(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Tell what answers are kept, by scope, and which of them are not served any more."""
    with state_of(context).client() as client:
        found = client.collection(name).answer_stats()
    if as_json:
        print_json(found)
        return
    made = table(
        "scope",
        "answers",
        "found by likeness",
        "expired",
        "of other spaces",
        "outdated",
        "size",
        "stored from",
        "to",
    )
    for one in found:
        made.add_row(
            escape(one.scope) or "(none)",
            *(f"{n:,}" for n in (one.answers, one.embedded, one.expired, one.of_other_spaces, one.outdated)),
            f"{one.bytes / MEBIBYTE:,.1f} MB",
            *(f"{at.astimezone():%Y-%m-%d %H:%M}" for at in (one.oldest_at, one.newest_at)),
        )
    out.print(made if found else "no answers are kept")


@app.command()
def prune(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Delete answers that are not served any more: expired, of another space, or citing what has changed."""
    with state_of(context).client() as client:
        _tell(client.collection(name).clear_answers(only_stale=True), as_json)


@app.command()
def clear(
    context: typer.Context,
    name: Name,
    query: Annotated[str | None, typer.Option(help="only the answer to this question")] = None,
    scope: Annotated[str | None, typer.Option(help="only of this scope; '' is one, too")] = None,
    document: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="only answers that cite this document; repeat")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: Json = False,
) -> None:
    """Delete answers; without options all of the collection."""
    if not yes and (query, scope, document) == (None, None, None):
        if not sys.stdin.isatty():
            raise InvalidInput("all answers of the collection would be deleted; say --yes to confirm")
        typer.confirm(f"Delete all answers of {name}?", abort=True)
    with state_of(context).client() as client:
        deleted = client.collection(name).clear_answers(query=query, scope=scope, documents=document or None)
    _tell(deleted, as_json)


def _tell(deleted: int, as_json: bool) -> None:
    if as_json:
        print_json({"deleted": deleted})
    else:
        typer.echo(f"deleted {deleted:,} answers")
