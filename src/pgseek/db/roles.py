"""The roles that applications are members of: what makes them where the migration might not."""

from __future__ import annotations

import psycopg

from pgseek.db.connection import check_schema, check_server, connect, server_state, translate
from pgseek.errors import InvalidInput

READER, WRITER = "pgseek_reader", "pgseek_writer"

_THERE = """
SELECT to_regrole(%(reader)s) IS NOT NULL AS reader, to_regrole(%(writer)s) IS NOT NULL AS writer,
       EXISTS (SELECT FROM pg_auth_members m
                WHERE m.roleid = to_regrole(%(reader)s) AND m.member = to_regrole(%(writer)s)) AS member
"""


def statements(dsn: str) -> list[str]:
    """Return what makes the roles, as far as the cluster lacks them, and gives them their rights here.

    The first ones take a role that may make roles, the last one the owner of the tables. All may be
    executed again.

    Raises:
        ConnectionFailed, UnsupportedServer, SchemaNotMigrated, SchemaTooNew: see each.
    """
    with connect(dsn) as connection:
        return _statements(connection)


def apply(dsn: str) -> list[str]:
    """Execute what `statements` returns, and return it.

    Raises:
        DatabaseError: the database user may not do it.
    """
    try:
        with connect(dsn) as connection, connection.transaction():
            made = _statements(connection)
            for statement in made:
                connection.execute(statement.encode())
            return made
    except psycopg.Error as error:
        raise translate(error, dsn) from error


def bind(dsn: str, role: str, tenant: str) -> None:
    """Let a login role work for one tenant only, whatever it sets.

    Raises:
        InvalidInput: there is no such role.
        DatabaseError: the database user is not the owner of the tables.
    """
    try:
        with connect(dsn) as connection:
            check_schema(server_state(connection))
            # A misspelt name would bind nobody.
            made = connection.execute(
                "INSERT INTO pgseek.tenant_roles (role, tenant) SELECT r.rolname, %s FROM pg_roles r"
                " WHERE r.rolname = %s ON CONFLICT (role) DO UPDATE SET tenant = excluded.tenant",
                [tenant, role],
            )
    except psycopg.Error as error:
        raise translate(error, dsn) from error
    if not made.rowcount:
        raise InvalidInput(f"there is no role {role!r}; make it first: CREATE ROLE … LOGIN")


def _statements(connection: psycopg.Connection[dict[str, object]]) -> list[str]:
    state = server_state(connection)
    check_server(state)
    check_schema(state)
    (there,) = connection.execute(_THERE, {"reader": READER, "writer": WRITER}).fetchall()
    made = [f"CREATE ROLE {name} NOLOGIN" for name in (READER, WRITER) if not there[name.split("_")[1]]]
    if not there["member"]:
        made.append(f"GRANT {READER} TO {WRITER}")
    return [*made, "SELECT pgseek.protect()"]
