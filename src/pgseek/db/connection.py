"""Reaching a server: DSNs, the checks before first use, and the translation of driver errors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from pgseek.db.revisions import HEAD, KNOWN, SCHEMA, VERSION_TABLE
from pgseek.errors import (
    CollectionNotFound,
    ConfigurationError,
    ConnectionFailed,
    DatabaseError,
    DimensionMismatch,
    InvalidInput,
    PgseekError,
    SchemaNotMigrated,
    SchemaTooNew,
    SpaceMismatch,
    UnsupportedServer,
)

MIN_SERVER = 140000
MIN_VECTOR = (0, 8)
# Characters of a tenant's name.
MAX_TENANT = 200

_STATE = f"""
SELECT current_setting('server_version_num')::int AS server_version,
       current_setting('server_version') AS server_name,
       current_setting('server_encoding') AS encoding,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS vector_available,
       e.extversion AS vector_version,
       quote_ident(n.nspname) AS vector_schema,
       to_regclass('{SCHEMA}.{VERSION_TABLE}') IS NOT NULL AS has_schema
  FROM (SELECT 1) AS one
  LEFT JOIN pg_extension e ON e.extname = 'vector'
  LEFT JOIN pg_namespace n ON n.oid = e.extnamespace
"""  # noqa: S608 (constants of this package)


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a database offers. ``revision`` is None when pgseek's schema is not there."""

    server_version: int
    server_name: str
    encoding: str
    vector_available: str | None
    vector_version: str | None
    vector_schema: str | None
    revision: str | None


def normalize_dsn(dsn: str) -> str:
    """Return ``dsn`` as libpq reads it; SQLAlchemy's ``postgresql+psycopg://`` is accepted too.

    Raises:
        ConfigurationError: it is not a connection string. The text itself is not repeated, since
            it may hold a password.
    """
    plain = re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", dsn.strip())
    try:
        parameters = conninfo_to_dict(plain)
    except psycopg.ProgrammingError:
        # Not "from error": libpq's message repeats the text, and with it the password.
        raise ConfigurationError(
            "the DSN is not a PostgreSQL connection string; it looks like "
            "postgresql://user:password@host:5432/database or 'host=… dbname=… user=…'"
        ) from None
    if not parameters:
        raise ConfigurationError("the DSN is empty; give postgresql://user:password@host/database")
    return plain


def with_tenant(dsn: str, tenant: str | None) -> str:
    """Return the DSN of sessions that work for a tenant, from their first statement to their last.

    As a start-up option, and not by SET: a pooler that hands out connections per transaction would let the
    next client have it. Such a pooler refuses the option, unless it was told to ignore it.

    Raises:
        InvalidInput: the name of the tenant is not text of 1..200 characters.
    """
    if tenant is None:
        return dsn
    if not isinstance(tenant, str) or not 0 < len(tenant) <= MAX_TENANT or not tenant.isprintable():
        raise InvalidInput(
            f"tenant is {tenant!r}, but must be text of 1 to {MAX_TENANT} printable characters; leave it "
            "away for the collections of none"
        )
    given = conninfo_to_dict(dsn).get("options")
    escaped = re.sub(r"([\\\s])", r"\\\1", tenant)
    return make_conninfo(dsn, options=f"{given or ''} -c pgseek.tenant={escaped}".strip())


def describe_dsn(dsn: str) -> str:
    """Return host, port and database of a DSN, without user or password, for messages."""
    parameters = conninfo_to_dict(normalize_dsn(dsn))
    host = parameters.get("host") or parameters.get("hostaddr") or "local socket"
    port = f":{parameters['port']}" if parameters.get("port") else ""
    return f"{host}{port}/{parameters.get('dbname') or ''}"


def connect(dsn: str, timeout: int = 5, **kwargs: Any) -> psycopg.Connection[dict[str, Any]]:
    """Open one connection; ``timeout`` is in seconds. Raises `ConnectionFailed`."""
    try:
        return psycopg.connect(
            normalize_dsn(dsn),
            connect_timeout=timeout,
            row_factory=dict_row,
            **{"application_name": "pgseek", "autocommit": True, **kwargs},
        )
    except psycopg.Error as error:
        raise translate(error, dsn) from error


def server_state(connection: psycopg.Connection[dict[str, Any]]) -> ServerState:
    """Return what the connected database offers."""
    try:
        row = connection.execute(_STATE).fetchone()
        if row is None:
            raise DatabaseError("the server gave no answer about its version")
        revision = None
        if row.pop("has_schema"):
            found = connection.execute(
                f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}"  # noqa: S608 (constants)
            ).fetchone()
            revision = found["version_num"] if found else None
    except psycopg.Error as error:
        raise translate(error) from error
    return ServerState(**row, revision=revision)


def check_server(state: ServerState) -> None:
    """Raise `UnsupportedServer` unless PostgreSQL and pgvector are there and new enough."""
    if state.server_version < MIN_SERVER:
        raise UnsupportedServer(f"the server is PostgreSQL {state.server_name}, but pgseek needs 14 or newer")
    if state.encoding != "UTF8":
        raise UnsupportedServer(
            f"the database is encoded in {state.encoding}, but pgseek needs UTF8; "
            "create one with: CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'"
        )
    version = state.vector_version or state.vector_available
    if version is None:
        raise UnsupportedServer(
            "pgvector is not installed on this server; install it (https://github.com/pgvector/"
            "pgvector#installation), or use an image that has it, such as pgvector/pgvector:pg18"
        )
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < MIN_VECTOR:
        mend = (
            "run ALTER EXTENSION vector UPDATE"
            if state.vector_available and state.vector_available != version
            else "install a newer pgvector on the server, then ALTER EXTENSION vector UPDATE"
        )
        raise UnsupportedServer(f"pgvector is {version}, but pgseek needs 0.8.0 or newer; {mend}")


def check_known(revision: str | None) -> None:
    """Raise `SchemaTooNew` if a newer pgseek made the schema; no schema at all is fine."""
    if revision is not None and revision not in KNOWN:
        raise SchemaTooNew(
            f"the database is at revision {revision}, which this pgseek (at {HEAD}) does not "
            "know: it was migrated by a newer one; run: pip install --upgrade pgseek"
        )


def check_schema(state: ServerState) -> None:
    """Raise `SchemaNotMigrated` or `SchemaTooNew` unless the schema is at this version's head."""
    if state.revision is None:
        raise SchemaNotMigrated("the database holds no pgseek schema; run: pgseek db upgrade")
    check_known(state.revision)
    if state.revision != HEAD:
        raise SchemaNotMigrated(
            f"the database is at revision {state.revision}, but this pgseek needs {HEAD}; "
            "run: pgseek db upgrade"
        )


_SQLSTATES: dict[str, type[PgseekError]] = {
    "PGS01": CollectionNotFound,
    "PGS02": InvalidInput,
    "PGS04": DimensionMismatch,
    "PGS05": SpaceMismatch,
}


def translate(error: psycopg.Error, dsn: str | None = None) -> PgseekError:
    """Return the pgseek error for a driver error; the caller raises it ``from`` the original."""
    own = _SQLSTATES.get(error.sqlstate or "")
    primary = error.diag.message_primary or str(error).strip()
    hint = error.diag.message_hint
    if own is not None:
        return own(f"{primary}; {hint}" if hint else primary)
    result: PgseekError
    match error:
        case pg.UndefinedTable() if re.search(r"embeddings_\d+", primary):
            result = CollectionNotFound("the collection was dropped in the meantime")
        case pg.ForeignKeyViolation() if error.diag.constraint_name == "documents_collection_id_fkey":
            result = CollectionNotFound("the collection was dropped in the meantime")
        case psycopg.Error() if "jsonpath" in primary:
            result = InvalidInput(f"the filter is not a jsonpath predicate: {primary}")
        case pg.UndefinedTable() | pg.UndefinedFunction() | pg.InvalidSchemaName() if SCHEMA in primary:
            result = SchemaNotMigrated(f"{primary}; run: pgseek db upgrade")
        case pg.ReadOnlySqlTransaction():
            where = f"the server at {describe_dsn(dsn)}" if dsn else "the server"
            result = DatabaseError(
                f"{where} is a read-only standby, or default_transaction_read_only is on: {primary}; "
                "searches run here, whatever writes needs the DSN of the primary server"
            )
        case pg.InsufficientPrivilege():
            result = DatabaseError(f"the database user may not do this: {primary}")
        case pg.QueryCanceled():
            result = DatabaseError(f"the statement was cancelled: {primary}")
        case psycopg.OperationalError() if error.sqlstate is None or error.sqlstate[:2] in {
            "08",
            "28",
            "3D",
            "57",
        }:
            where = f" at {describe_dsn(dsn)}" if dsn else ""
            detail = _last_reason(str(error))
            result = ConnectionFailed(f"cannot reach PostgreSQL{where}: {detail}")
        case _:
            result = DatabaseError(f"{primary}; {hint}" if hint else primary)
    return result


def _last_reason(message: str) -> str:
    """Return the part of libpq's message that says why, in one line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    reasons = [line for line in lines if "failed:" in line] or lines[:1]
    reason = reasons[-1] if reasons else "no reason given"
    return reason.split("failed:", 1)[-1].strip().removeprefix("FATAL:").strip()
