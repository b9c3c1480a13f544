"""Any SQLAlchemy select: a document a row, streamed through a cursor on the server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg

from pgseek.db.connection import normalize_dsn
from pgseek.errors import ConfigurationError, DatabaseError, InvalidInput
from pgseek.sources.columns import Columns, layout
from pgseek.types import Located, Rejection

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, Executable, exc

# Rows fetched at a time.
FETCHED = 1000


def sql_source(
    database: Engine | Connection | URL | str,
    select: Executable | str,
    columns: Columns | None = None,
    *,
    fetched: int = FETCHED,
) -> Iterator[Any]:
    """Yield the rows of a query as documents, for `Collection.ingest`.

    ``database`` is an engine, an open connection, or a URL such as ``sqlite:///file.db`` or any connection
    string of PostgreSQL, for which an engine is made and disposed of. ``select`` is any SQLAlchemy
    statement that returns rows, or SQL text. Rows are fetched ``fetched`` at a time, from a server-side
    cursor where the driver has one, so that memory does not grow with the result. Nothing is done
    before the first row is asked for.

    Raises, when it is read:
        InvalidInput: a column is missing or there twice, or the statement returns no rows.
        DatabaseError: the database refused. No message holds the URL.
        ConfigurationError: the URL is none, or its driver is not installed.
    """
    # Who reads files only need not wait for it to load.
    from sqlalchemy import URL, Connection, Engine, text  # noqa: PLC0415

    if not isinstance(database, Engine | Connection | URL | str):
        raise InvalidInput(
            f"database is a {type(database).__name__}, but must be an Engine, a Connection or a URL;"
            " of an AsyncEngine, give its sync_engine's URL"
        )
    if fetched < 1:
        raise InvalidInput(f"fetched is {fetched!r}, but must be a number of rows from 1 up")
    statement = text(select) if isinstance(select, str) else select
    return _read(database, statement, columns or Columns(), fetched)


def _read(
    database: Engine | Connection | URL | str, statement: Executable, columns: Columns, fetched: int
) -> Iterator[Located | Rejection]:
    from sqlalchemy import URL, Engine, exc  # noqa: PLC0415

    with ExitStack() as stack:
        if isinstance(database, URL | str):
            database = _engine(database)
            stack.callback(database.dispose)
        try:
            connection = stack.enter_context(database.connect()) if isinstance(database, Engine) else database
            result = stack.enter_context(
                connection.execute(statement, execution_options={"yield_per": fetched})
            )
            names = list(result.keys())
        except exc.ResourceClosedError:
            raise InvalidInput("the statement returns no rows; a source needs a SELECT") from None
        except exc.SQLAlchemyError as error:
            raise _translated(error) from error
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidInput(f"the column {repeated[0]!r} is there more than once; give one another name")
        found = layout(columns, names)
        rows = iter(result)
        number = 0
        while True:
            try:
                row = next(rows, None)
            except exc.SQLAlchemyError as error:
                raise _translated(error) from error
            if row is None:
                return
            number += 1
            values = dict(zip(names, row, strict=True))
            try:
                yield Located(found.record(values, f"row {number}"), number, "sql")
            except (InvalidInput, RecursionError) as error:
                given = None if values[found.id] is None else str(values[found.id])
                yield Rejection(number, given, f"row {number}: {error}", "sql")


def _engine(url: URL | str) -> Engine:
    from sqlalchemy import create_engine, exc  # noqa: PLC0415

    if isinstance(url, str) and ("://" not in url or re.match(r"\s*postgres(ql)?(\+psycopg)?://", url)):
        dsn = normalize_dsn(url)
        # libpq reads it, as everywhere else; SQLAlchemy's own default may be another driver.
        return create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn, application_name="pgseek source")
        )
    try:
        return create_engine(url)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"the driver of the source's URL is not installed: {error.name}") from None
    except (exc.ArgumentError, ValueError, TypeError):
        # Not "from error": the message may repeat the URL, and with it a password.
        raise ConfigurationError(
            "the source's URL is none that SQLAlchemy knows; it looks like"
            " postgresql://user:password@host/database or sqlite:///file.db"
        ) from None


def _translated(error: exc.SQLAlchemyError) -> DatabaseError:
    cause = getattr(error, "orig", None) or error
    return DatabaseError(f"the source's database refused: {' '.join(str(cause).split())}")
