"""``pgseek``: the commands put together, and errors turned into one line and an exit code.

Exit codes: 0 done; 1 failed; 2 wrong usage or a value out of its range; 3 no such collection or
document; 4 done, but some documents were rejected; 5 a gate of quality failed (eval); 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from pgseek import __version__
from pgseek.cli import (
    answers,
    attach,
    cache,
    calibrate,
    cluster,
    collections,
    compare,
    db,
    demo,
    doctor,
    documents,
    duplicates,
    finetune,
    golden,
    index,
    ingest,
    models,
    querying,
    queue,
    server,
    similarity,
    spaces,
    threshold,
    tune,
    worker,
)
from pgseek.cli import eval as evaluation
from pgseek.cli.output import complain
from pgseek.cli.state import State
from pgseek.errors import CollectionNotFound, InvalidInput, PgseekError

# Older Typers raise click's usage errors, newer ones their own; this is the base of either.
UsageError: Any = typer.BadParameter.__base__

INTERRUPTED = 130

app = typer.Typer(
    name="pgseek",
    help="Hybrid search on PostgreSQL: documents in, ranked answers out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 some documents rejected, 5 a gate of "
    "quality failed.",
)
app.add_typer(server.app, name="server")
app.add_typer(db.app, name="db")
app.add_typer(collections.app, name="collections")
app.add_typer(queue.app, name="queue")
app.add_typer(cache.app, name="cache")
app.add_typer(models.app, name="models")
app.command("ingest")(ingest.ingest)
documents.register(app)
querying.register(app)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("worker")(worker.worker)
app.command("attach")(attach.attach)
app.command("detach")(attach.detach)
app.command("reembed")(spaces.reembed)
app.add_typer(spaces.app, name="spaces")
app.add_typer(index.app, name="index")
app.command("compare")(compare.compare)
app.command("eval")(evaluation.evaluate_collection)
app.add_typer(golden.app, name="golden")
app.command("tune")(tune.tune)
app.command("calibrate")(calibrate.calibrate)
app.command("cluster")(cluster.cluster)
app.add_typer(similarity.app, name="similarity")
app.command("threshold")(threshold.threshold)
app.command("duplicates")(duplicates.duplicates)
app.add_typer(answers.app, name="answers")
app.command("finetune")(finetune.finetune)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pgseek {__version__}")
        raise typer.Exit


@app.callback()
def settings(
    context: typer.Context,
    dsn: Annotated[
        str | None,
        typer.Option(help="PostgreSQL connection string; better in PGSEEK_DSN, where ps cannot see it"),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="data directory of the embedded server")] = None,
    tenant: Annotated[
        str | None, typer.Option(help="whose collections these are; PGSEEK_TENANT, or else nobody's")
    ] = None,
    # Read by main(), which must know it before there is a context.
    _debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Hybrid search on PostgreSQL: documents in, ranked answers out.

    Without --dsn and PGSEEK_DSN the embedded PostgreSQL is used, and started if need be.
    """
    if dsn is not None and data_dir is not None:
        raise InvalidInput("--dsn and --data-dir exclude each other: the latter is the embedded server's")
    context.obj = State(dsn, data_dir, tenant)


def main() -> None:
    """Run the command line and exit."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # The pool's own story of a lost server; ours is the one line at the end.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    # What parsers find odd in a file; what they cannot read becomes a rejection.
    for parser in ("pypdf", "trafilatura", "htmldate", "courlan"):
        logging.getLogger(parser).setLevel(logging.CRITICAL)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    debug = "--debug" in sys.argv
    sys.exit(_run(debug))


def _run(debug: bool) -> int:
    try:
        code = app(standalone_mode=False)
    except PgseekError as error:
        if debug:
            raise
        complain(str(error))
        code = 3 if isinstance(error, CollectionNotFound) else 2 if isinstance(error, InvalidInput) else 1
    except UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "pgseek"
        complain(f"{error.format_message()}; see {where} --help")
        code = 2
    except typer.Abort:
        complain("not confirmed; nothing was changed")
        code = 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if debug:
            raise
        complain(f"unexpected {type(error).__name__}: {error} (--debug shows where)")
        code = 1
    if code == INTERRUPTED:
        complain("interrupted; running the same command again goes on where it stopped")
    return code if isinstance(code, int) else 0
