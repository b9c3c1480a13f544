"""``pgseek ingest``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from pgseek.cli.documents import Name, parse_filters
from pgseek.cli.output import complain, err, print_event, print_plan, print_report
from pgseek.cli.progress import IngestProgress
from pgseek.cli.state import State, state_of
from pgseek.client import Collection
from pgseek.errors import InvalidInput
from pgseek.ingest import OnReject
from pgseek.sources import Columns, Files, Format, sql_source
from pgseek.sources.formats import TOLD_FORMATS
from pgseek.types import IngestReport, Rejection


def ingest(
    context: typer.Context,
    collection: Name,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH…", help="files, folders, patterns such as 'docs/**/*.md', or - for standard input"
        ),
    ] = None,
    given: Annotated[
        str | None, typer.Option("--format", help=f"{TOLD_FORMATS}; default: by the ending")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(help="of folders only files that match this, as in .gitignore; repeatable"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="of folders no files that match this, as in .gitignore; repeatable"),
    ] = None,
    gitignore: Annotated[
        bool, typer.Option("--gitignore/--no-gitignore", help="leave out what .gitignore leaves out")
    ] = True,
    hidden: Annotated[bool, typer.Option("--hidden", help="files whose names begin with a dot, too")] = False,
    id_column: Annotated[str | None, typer.Option("--id", help="column of the id")] = None,
    text_columns: Annotated[
        str | None, typer.Option("--text", help="column of the text, or several: title,body")
    ] = None,
    title_column: Annotated[str | None, typer.Option("--title", help="column of the title")] = None,
    language_column: Annotated[str | None, typer.Option("--language", help="column of the language")] = None,
    metadata_columns: Annotated[
        str | None,
        typer.Option("--metadata", help="columns of the metadata: a,b; '' for none; default: the others"),
    ] = None,
    select: Annotated[
        str | None, typer.Option("--sql", metavar="SELECT", help="rows of a database instead of files")
    ] = None,
    source_dsn: Annotated[
        str | None,
        typer.Option(
            envvar="PGSEEK_SOURCE_DSN",
            help="SQLAlchemy URL of the database for --sql; default: the one that is ingested into",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what it would do and cost, and do nothing")
    ] = False,
    max_cost: Annotated[
        float | None, typer.Option(help="dollars: stop before the first request that would pass it")
    ] = None,
    sync: Annotated[
        bool, typer.Option("--sync", help="remove documents that the source no longer has; see --dry-run")
    ] = False,
    sync_within: Annotated[
        list[str] | None,
        typer.Option(help="--sync among documents that match only: as --filter of pgseek search"),
    ] = None,
    max_removed: Annotated[
        float, typer.Option(help="the share of documents that a sync may remove, 0..1")
    ] = 0.5,
    strict: Annotated[bool, typer.Option("--strict", help="stop at the first bad document")] = False,
    rejects: Annotated[
        Path | None,
        typer.Option(help="write bad documents to this file: JSON lines with reason, place and document"),
    ] = None,
    indexes: Annotated[
        str, typer.Option(help="auto, keep or rebuild: what a large load does with the indexes")
    ] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="print events as JSON lines; the last is the report")
    ] = False,
) -> None:
    """Store documents from files, folders, or the rows of a query.

    A file of text, Markdown, HTML, PDF, DOCX or source code is one document, its path the id. JSON lines
    and rows of CSV, TSV, Parquet and --sql need "id" and "text", may have "title", "metadata" and
    "language", or say what stands for them; other columns go into the metadata.
    Exit code 4 means that some documents were rejected and the rest stored.
    """
    columns = _columns(id_column, text_columns, title_column, language_column, metadata_columns)
    if (select is None) == (not paths):
        raise InvalidInput("give either paths or --sql")
    state = state_of(context)
    sources: Any = None
    if select is not None:
        if source_dsn is None:
            state = State(state.resolved_dsn(), None, state.tenant)
        sources = sql_source(source_dsn or str(state.dsn), select, columns)
    else:
        sources = Files(
            *(paths or ()),
            format=cast("Format | None", given),
            columns=columns,
            include=include or (),
            exclude=exclude or (),
            gitignore=gitignore,
            hidden=hidden,
        )
    syncing = parse_filters(sync_within or []) or sync
    with state.client() as client:
        into = client.collection(collection)
        if dry_run:
            plan = into.plan(sources, sync=syncing)
            if as_json:
                print_event("plan", plan, documents=plan.documents)
            else:
                print_plan(plan)
            _tell_skipped(sources)
            raise typer.Exit(4 if plan.rejected else 0)
        total = sources.expected() if isinstance(sources, Files) and (as_json or err.is_terminal) else None
        with _rejects_file(rejects) as write, IngestProgress(total, as_json=as_json) as progress:
            try:
                report = into.ingest(
                    sources,
                    progress=progress,
                    max_cost=max_cost,
                    strict=strict,
                    on_reject=write,
                    sync=syncing,
                    max_removed=max_removed,
                    indexes=cast("Any", indexes),
                )
            except KeyboardInterrupt:
                if progress.last is not None:
                    complain(f"stopped: {progress.last.documents:,} documents are done, each of them whole")
                raise
    if as_json:
        print_event("done", report, documents=report.documents)
    else:
        print_report(report)
    _tell_skipped(sources)
    if report.rejected:
        raise typer.Exit(4)


def _columns(
    id_: str | None, text: str | None, title: str | None, language: str | None, metadata: str | None
) -> Columns | None:
    """Return what the options say of columns, None where they say nothing."""
    if all(given is None for given in (id_, text, title, language, metadata)):
        return None
    return Columns(
        id=id_,
        text="text" if text is None else _names(text),
        title=title,
        language=language,
        metadata=None if metadata is None else _names(metadata),
    )


def _names(given: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in given.split(",") if name.strip())


def _tell_skipped(sources: object) -> None:
    if isinstance(sources, Files) and sources.skipped:
        endings = ", ".join(f"{ending or 'none'} {n:,}" for ending, n in sources.skipped.most_common(8))
        err.print(f"skipped {sources.skipped.total():,} files by their endings: {escape(endings)}")


@contextlib.contextmanager
def _rejects_file(path: Path | None) -> Iterator[OnReject | None]:
    """Yield what writes a rejected document to the file, a JSON object a line; None without a file."""
    if path is None:
        yield None
        return
    try:
        stream = path.open("w", encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"--rejects {path} cannot be written: {error.strerror}") from error

    def write(rejection: Rejection, record: Mapping[str, Any] | None) -> None:
        # In ASCII: a lone surrogate may be what is wrong with it.
        line = {"reason": rejection.reason, "source": rejection.source, "position": rejection.position}
        stream.write(json.dumps({**line, "id": rejection.id, "document": record}, default=str) + "\n")
        stream.flush()

    with stream:
        yield write


def ingest_with_progress(collection: Collection, documents: Any, *, quiet: bool = False) -> IngestReport:
    """Ingest with a progress line on a terminal's standard error."""
    total = len(documents) if isinstance(documents, list) else None
    with IngestProgress(total, quiet=quiet) as progress:
        return collection.ingest(documents, progress=progress)
