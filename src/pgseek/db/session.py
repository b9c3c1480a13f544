"""What both clients do before their first statement: find the server, check it, know its types."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import psycopg
from pgvector.psycopg.halfvec import register_halfvec_info
from pgvector.psycopg.vector import register_vector_info
from psycopg.rows import dict_row
from psycopg.types import TypeInfo

from pgseek.config import Settings
from pgseek.db import embedded
from pgseek.db.connection import (
    check_schema,
    check_server,
    connect,
    describe_dsn,
    normalize_dsn,
    server_state,
    translate,
    with_tenant,
)
from pgseek.errors import ConfigurationError, ConnectionFailed, SchemaNotMigrated, UnsupportedServer

log = logging.getLogger("pgseek")
# A transaction that ended so can be tried again from its start.
CONFLICTS = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


def resolve_dsn(
    dsn: str | None, data_dir: str | Path | None, settings: Settings, *, migrate: bool = True
) -> str:
    """Return the DSN to use: the argument, else PGSEEK_DSN, else the embedded server's.

    The embedded server is started if need be, and its schema kept at head: it belongs to pgseek
    alone (not with ``migrate`` false). Using it is said in a log message of level WARNING, which is
    shown by default.
    """
    if dsn is not None:
        return normalize_dsn(dsn)
    if settings.dsn is not None and data_dir is None:
        return normalize_dsn(settings.dsn.get_secret_value())
    folder = Path(data_dir) if data_dir is not None else settings.data_dir
    own = embedded.start(folder)
    log.warning("no DSN given: using the embedded PostgreSQL in %s", folder)
    if not migrate:
        return own
    with connect(own) as connection:
        state = server_state(connection)
    check_server(state)
    try:
        check_schema(state)
    except SchemaNotMigrated:
        from pgseek.db import schema  # noqa: PLC0415 (Alembic takes a while to load)

        schema.upgrade(own)
    return own


class Session:
    """A database that was checked, and how each connection of a pool to it is made.

    Raises:
        ConnectionFailed, UnsupportedServer, SchemaNotMigrated, SchemaTooNew: see each.
        ConfigurationError: the server was not told of the tenant.
        DatabaseError: the database user works for another tenant.
    """

    def __init__(
        self, dsn: str | None, data_dir: str | Path | None, settings: Settings, tenant: str | None = None
    ) -> None:
        tenant = settings.tenant if tenant is None else tenant
        self.dsn = with_tenant(resolve_dsn(dsn, data_dir, settings), tenant)
        self._pool_size = settings.pool_size
        self._timeout = timeout = settings.connect_timeout
        with connect(self.dsn, timeout) as connection:
            state = server_state(connection)
            check_server(state)
            check_schema(state)
            if tenant is not None:
                _check_tenant(connection, tenant)
            schema = state.vector_schema
            vector = TypeInfo.fetch(connection, f"{schema}.vector")
            halfvec = TypeInfo.fetch(connection, f"{schema}.halfvec")
        if vector is None or halfvec is None:
            raise UnsupportedServer(f"pgvector's types are not in schema {schema}")
        self._vector, self._halfvec = vector, halfvec

    def connection_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of every connection."""
        return {
            "autocommit": True,
            "row_factory": dict_row,
            "connect_timeout": self._timeout,
            "application_name": "pgseek",
            # Server-side prepared statements break behind poolers that hand out connections per
            # transaction, and save nothing here: the SQL functions plan their own statements.
            "prepare_threshold": None,
        }

    def connection(self) -> psycopg.Connection[dict[str, Any]]:
        """Open a connection besides those of a pool. Raises `ConnectionFailed`."""
        made = connect(self.dsn, self._timeout, prepare_threshold=None)
        self.configure(made)
        return made

    def pool_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of the pool itself."""
        return {
            "name": "pgseek",
            "min_size": 0,
            "max_size": self._pool_size,
            "timeout": 2.0 * self._timeout,
            "reconnect_timeout": 2.0 * self._timeout,
        }

    def configure(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        """Teach a connection pgvector's types, wherever the extension is installed."""
        register_vector_info(connection, self._vector)
        register_halfvec_info(connection, self._halfvec)

    async def configure_async(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Do as `configure`, for a pool that awaits it."""
        self.configure(connection)

    def unreachable(self, connections: int) -> ConnectionFailed:
        """Return the error for a pool of so many connections that gave none in time."""
        try:
            connect(self.dsn, self._timeout).close()
        except ConnectionFailed as error:
            return error
        if connections < self._pool_size:
            # The pool waits longer between attempts the more have failed, also when the server is back.
            return ConnectionFailed(
                f"cannot reach PostgreSQL at {describe_dsn(self.dsn)}: connections were lost, and no new one "
                f"was made in {2.0 * self._timeout:g} seconds; the server answers again: try once more"
            )
        return ConnectionFailed(
            f"no connection to {describe_dsn(self.dsn)} became free in time: "
            f"all {self._pool_size} connections are in use (PGSEEK_POOL_SIZE)"
        )


def _check_tenant(connection: psycopg.Connection[dict[str, Any]], tenant: str) -> None:
    try:
        row = connection.execute("SELECT pgseek.tenant() AS tenant").fetchone()
    except psycopg.Error as error:
        raise translate(error) from error
    known = None if row is None else row["tenant"]
    if known != tenant:
        raise ConfigurationError(
            f"the server was told that the tenant is {tenant!r}, but takes it for {known!r}: a pooler on the "
            "way ignores start-up options; connect without it, or with a role of the tenant's own, named in "
            "pgseek.tenant_roles"
        )
