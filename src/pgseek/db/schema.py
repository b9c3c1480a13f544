"""Find and run the migrations."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from pgseek.db.connection import (
    check_known,
    check_schema,
    check_server,
    connect,
    normalize_dsn,
    server_state,
    translate,
)
from pgseek.db.models import metadata
from pgseek.db.revisions import HEAD, KNOWN, SCHEMA, VERSION_TABLE
from pgseek.db.sqltext import FUNCTIONS, function_sql
from pgseek.errors import ConfigurationError, InvalidInput

__all__ = [
    "HEAD",
    "VERSION_TABLE",
    "check",
    "current",
    "downgrade",
    "engine_for",
    "is_ours",
    "upgrade",
]


def migrations_path() -> Path:
    """Return the folder of the migration scripts: in the wheel, else beside a checkout's src."""
    package = Path(__file__).parent.parent
    for candidate in (package / "migrations", package.parent.parent / "migrations"):
        if (candidate / "env.py").is_file():
            return candidate
    raise ConfigurationError("the migration scripts are missing from this installation; reinstall pgseek")


def engine_for(dsn: str) -> Engine:
    """Return an SQLAlchemy engine over psycopg that opens one connection per use."""
    conninfo = normalize_dsn(dsn)
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(conninfo, application_name="pgseek migrate"),
        poolclass=NullPool,
    )


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Alembic's ``include_name``: compare only pgseek's schema, without the tables of spaces."""
    if kind == "schema":
        return name == SCHEMA
    if kind == "table":
        return not (name or "").startswith("embeddings_")
    return True


def upgrade(dsn: str, revision: str = "head") -> str:
    """Migrate forward and return the revision reached. Checks the server first."""
    with connect(dsn) as connection:
        state = server_state(connection)
    check_server(state)
    check_known(state.revision)
    with _migration(dsn) as config:
        command.upgrade(config, revision)
    reached = current(dsn)
    if reached is None:
        raise ConfigurationError(f"the upgrade to {revision} left no revision behind")
    return reached


def downgrade(dsn: str, revision: str) -> str | None:
    """Migrate back; ``base`` removes the schema with everything in it. Return what is left."""
    found = current(dsn)
    check_known(found)
    if found is not None:
        with _migration(dsn) as config:
            command.downgrade(config, revision)
    left = current(dsn)
    if left is None:
        with connect(dsn) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {SCHEMA}.{VERSION_TABLE}")
            # Somebody's own table may live in the schema: then it stays.
            with contextlib.suppress(psycopg.errors.DependentObjectsStillExist):
                connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA}")
    return left


def current(dsn: str) -> str | None:
    """Return the revision the database is at, None when it holds no pgseek schema."""
    with connect(dsn) as connection:
        return server_state(connection).revision


def check(dsn: str) -> list[str]:
    """Return the differences between the database and the models, empty when there is none.

    Raises:
        UnsupportedServer, SchemaNotMigrated, SchemaTooNew: before comparing.
    """
    with connect(dsn) as connection:
        state = server_state(connection)
    check_server(state)
    check_schema(state)
    with engine_for(dsn).connect() as sql_connection:
        # Where pgvector lives is on the path, so that its types are read by their bare names.
        sql_connection.execute(text(f"SET search_path = pg_catalog, {state.vector_schema}"))
        return _differences(sql_connection) + _changed_functions(
            sql_connection, state.vector_schema or "public"
        )


def _changed_functions(connection: Connection, vector_schema: str) -> list[str]:
    rows = connection.execute(
        text("SELECT proname, prosrc FROM pg_proc WHERE pronamespace = to_regnamespace(:name)"),
        {"name": SCHEMA},
    )
    stored: dict[str, str] = {row.proname: row.prosrc for row in rows}
    problems = [f"function {name} is not pgseek's" for name in sorted(stored.keys() - set(FUNCTIONS))]
    for name in FUNCTIONS:
        body = function_sql(name, vector_schema).split("$function$")[1]
        if name not in stored:
            problems.append(f"function {name} is missing")
        elif stored[name] != body:
            problems.append(f"function {name} is not the one of revision {HEAD}")
    return problems


def _differences(connection: Connection) -> list[str]:
    context = MigrationContext.configure(
        connection,
        opts={
            "include_schemas": True,
            "include_name": is_ours,
            "version_table": VERSION_TABLE,
            "version_table_schema": SCHEMA,
            "target_metadata": metadata,
        },
    )
    return [str(difference) for difference in compare_metadata(context, metadata)]


# Alembic keeps the running migration in module globals: one at a time in a process.
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def _migration(dsn: str) -> Iterator[Config]:
    config = Config()
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    try:
        with _one_at_a_time, engine_for(dsn).connect() as connection:
            config.attributes["connection"] = connection
            yield config
    except CommandError as error:
        raise InvalidInput(f"{error}; pgseek db upgrade and downgrade know: {', '.join(KNOWN)}") from error
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise translate(error.orig, dsn) from error
        raise
    except psycopg.Error as error:
        raise translate(error, dsn) from error
