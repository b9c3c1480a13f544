"""``pgseek attach`` and ``detach``: a collection that follows a table, as a revision to be reviewed."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated

import typer

from pgseek.attach import Plan, as_revision, as_sql, file_name, head_of, new_revision, versions_of
from pgseek.cli.output import err
from pgseek.cli.state import state_of
from pgseek.errors import InvalidInput

Table = Annotated[str, typer.Argument(metavar="TABLE", help="as in SQL: public.products, 'app.\"My Table\"'")]
Output = Annotated[Path | None, typer.Option(help="file to write; default: standard output")]
Directory = Annotated[
    Path | None, typer.Option(help="Alembic's folder (with env.py, or its versions): the file goes there")
]
After = Annotated[
    str | None, typer.Option("--down-revision", help="the revision that comes before; 'base' for none")
]
Message = Annotated[str | None, typer.Option("--message", "-m", help="the revision's first line")]
Sql = Annotated[bool, typer.Option("--sql", help="plain SQL for psql instead of a revision")]
Apply = Annotated[bool, typer.Option("--apply", help="do it at once instead of writing it down")]


def attach(
    context: typer.Context,
    table: Table,
    collection: Annotated[str, typer.Option(help="the collection that follows the table")],
    id: Annotated[str, typer.Option(help="column, or several with commas; unique")],  # noqa: A002
    text: Annotated[str, typer.Option(help="column, or several with commas")],
    title: Annotated[str | None, typer.Option(help="column")] = None,
    metadata: Annotated[str, typer.Option(help="columns, with commas")] = "",
    language: Annotated[str | None, typer.Option(help="column of text-search configurations")] = None,
    security_definer: Annotated[
        bool,
        typer.Option(
            "--security-definer", help="writers to the table need no rights of pgseek's; its maker has them"
        ),
    ] = False,
    output: Output = None,
    directory: Directory = None,
    down_revision: After = None,
    message: Message = None,
    sql: Sql = False,
    apply: Apply = False,
) -> None:
    """Let a collection follow a table: writes an Alembic revision with triggers and a back-fill.

    Each statement on the table, deletes included, is followed in its own transaction; embeddings come later
    (pgseek worker). A column's name with a comma is put in double quotes.
    """
    with state_of(context).client() as client:
        plan = client.attach(
            table,
            collection,
            id=columns(id),
            text=columns(text),
            title=title,
            metadata=columns(metadata),
            language=language,
            security_definer=security_definer,
            apply=apply,
        )
    _write(plan, output, directory, down_revision, message, sql=sql, applied=apply)


def detach(
    context: typer.Context,
    table: Table,
    collection: Annotated[str | None, typer.Option(help="needed if the table is attached to several")] = None,
    delete_documents: Annotated[
        bool, typer.Option("--delete-documents", help="delete the documents of the table's rows, too")
    ] = False,
    output: Output = None,
    directory: Directory = None,
    down_revision: After = None,
    message: Message = None,
    sql: Sql = False,
    apply: Apply = False,
) -> None:
    """Undo attach: writes a revision that drops triggers and functions; its downgrade makes them again."""
    with state_of(context).client() as client:
        plan = client.detach(table, collection, delete_documents=delete_documents, apply=apply)
    _write(plan, output, directory, down_revision, message, sql=sql, applied=apply)


def columns(given: str) -> list[str]:
    """Return the names in a list with commas; one with a comma stands in double quotes."""
    if not given:
        return []
    return [name.strip() for name in next(csv.reader([given], skipinitialspace=True))]


def _write(
    plan: Plan,
    output: Path | None,
    directory: Path | None,
    down_revision: str | None,
    message: str | None,
    *,
    sql: bool,
    applied: bool,
) -> None:
    if applied:
        err.print(f"done: {plan.message}", markup=False, soft_wrap=True)
        return
    if output is not None and directory is not None:
        raise InvalidInput("--output and --directory exclude each other")
    if sql:
        if directory is not None:
            raise InvalidInput("--directory is for revisions; write SQL to an --output")
        _put(as_sql(plan), output)
        return
    revision = new_revision()
    place = directory if directory is not None else output.parent if output is not None else None
    if down_revision is not None:
        after = None if down_revision == "base" else down_revision
    elif place is not None:
        after = head_of(place)
    else:
        after = None
        err.print("[yellow]note:[/] set down_revision, or say --directory or --down-revision")
    text = as_revision(plan, revision, after, message)
    if directory is not None:
        output = versions_of(directory) / file_name(revision, message or plan.message)
    _put(text, output)


def _put(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    try:
        # Not over a file that is there.
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InvalidInput(f"{output} cannot be written: {error.strerror}") from error
    err.print(f"wrote {output}", markup=False, soft_wrap=True)
