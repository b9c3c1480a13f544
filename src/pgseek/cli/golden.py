"""``pgseek golden``: judged queries kept in the database with their collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pgseek.cli.documents import Json, Name
from pgseek.cli.judged import (
    ClicksTable,
    DocumentColumn,
    Folder,
    LeastSignal,
    QrelsFile,
    Queries,
    QueryColumn,
    SignalColumn,
    Source,
    Split,
    needed,
)
from pgseek.cli.output import err, out, print_json, table
from pgseek.cli.state import state_of
from pgseek.errors import InvalidInput
from pgseek.evaluation import drop_golden, list_golden, read_golden, save_golden, write_qrels, write_queries
from pgseek.evaluation.golden import missing_of

app = typer.Typer(help="Judged queries kept with their collection: golden sets.", no_args_is_help=True)
Set = Annotated[str, typer.Argument(metavar="NAME", help="of the golden set")]


@app.command("import")
def import_set(
    context: typer.Context,
    collection: Name,
    name: Set,
    beir: Folder = None,
    split: Split = "test",
    queries: Queries = None,
    qrels: QrelsFile = None,
    clicks: ClicksTable = None,
    query_column: QueryColumn = "query",
    document_column: DocumentColumn = "document",
    signal_column: SignalColumn = None,
    least_signal: LeastSignal = 2.0,
    replace: Annotated[
        bool, typer.Option("--replace", help="exchange a set of this name for the new one")
    ] = False,
    as_json: Json = False,
) -> None:
    """Keep judged queries as a golden set: from a BEIR folder, from files, or from clicks."""
    source = Source(
        beir,
        split,
        queries,
        qrels,
        None,
        clicks,
        query_column,
        document_column,
        signal_column,
        least_signal,
    )
    judged = source.files()
    with state_of(context).client() as client:
        docs = client.collection(collection)
        judged = needed(judged or source.of(docs), "--clicks TABLE")
        made = save_golden(docs, name, judged.queries, judged.qrels, replace=replace)
        missing = missing_of(docs, read_golden(docs, name))
    if missing:
        err.print(
            f"[yellow]note:[/] {missing:,} of the judged documents are not in {escape(collection)}",
            soft_wrap=True,
        )
    if as_json:
        print_json(made)
    else:
        out.print(
            f"{escape(made.name)}: {made.queries:,} queries, {made.judgements:,} judgements", soft_wrap=True
        )


@app.command("list")
def list_sets(context: typer.Context, collection: Name, as_json: Json = False) -> None:
    """List a collection's golden sets."""
    with state_of(context).client() as client:
        found = list_golden(client.collection(collection))
    if as_json:
        print_json(found)
        return
    made = table("name", "queries", "judgements", "made")
    for one in found:
        made.add_row(
            escape(one.name), f"{one.queries:,}", f"{one.judgements:,}", f"{one.created_at:%Y-%m-%d %H:%M}"
        )
    out.print(made if found else f"no golden sets yet; pgseek golden import {collection} NAME makes one")


@app.command()
def show(context: typer.Context, collection: Name, name: Set, as_json: Json = False) -> None:
    """Show a golden set's queries, and which documents are relevant to each."""
    with state_of(context).client() as client:
        docs = client.collection(collection)
        found = read_golden(docs, name)
        missing = missing_of(docs, found)
    if as_json:
        print_json({"name": found.name, "queries": found.queries, "qrels": found.qrels, "missing": missing})
        return
    made = table("query", "text", "documents (relevance)")
    for query, text in found.queries.items():
        judged = sorted(found.qrels[query].items(), key=lambda item: (-item[1], item[0]))
        made.add_row(
            escape(query),
            escape(" ".join(text.split())[:100]),
            escape(", ".join(f"{document} ({relevance})" for document, relevance in judged)),
        )
    out.print(made)
    if missing:
        err.print(
            f"[yellow]note:[/] {missing:,} of the judged documents are not in {escape(collection)}",
            soft_wrap=True,
        )


@app.command()
def export(
    context: typer.Context,
    collection: Name,
    name: Set,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="made if need be")],
) -> None:
    """Write a golden set as FOLDER/queries.jsonl and FOLDER/qrels/test.tsv: BEIR's layout, to be kept with
    code."""
    with state_of(context).client() as client:
        found = read_golden(client.collection(collection), name)
    try:
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        write_queries(folder / "queries.jsonl", found.queries)
        write_qrels(folder / "qrels" / "test.tsv", found.qrels)
    except OSError as error:
        raise InvalidInput(f"cannot write to {error.filename}: {error.strerror}") from error
    out.print(f"{len(found.queries):,} queries written to {folder}", markup=False, soft_wrap=True)


@app.command()
def drop(context: typer.Context, collection: Name, name: Set) -> None:
    """Delete a golden set."""
    with state_of(context).client() as client:
        drop_golden(client.collection(collection), name)
