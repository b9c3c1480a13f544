"""Spreading the tables over the nodes of a Citus cluster: which, in which order, and why so.

Every key carries the columns that a table may be sharded by, so nothing is altered: tables are handed to
Citus as they are. What is done already is left, so that the same call goes on where another broke off, and
takes in what a later collection, embedding space or migration has brought.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import psycopg
from psycopg.sql import SQL, Composable, Identifier
from psycopg.sql import Literal as Value

from pgseek.db.connection import check_schema, check_server, connect, server_state, translate
from pgseek.db.revisions import SCHEMA
from pgseek.errors import InvalidInput, UnsupportedServer

By = Literal["collection_id", "document_id"]
# Older ones take no identity column of type integer.
MIN_CITUS = (12, 0)
MOST_SHARDS = 64_000

# In the order of foreign keys: what is referenced comes first. Copied to every node: named by foreign keys
# of all, or read beside the rows of every shard.
REFERENCE: dict[By, tuple[str, ...]] = {
    "collection_id": (
        "collections",
        "embedding_spaces",
        "space_probes",
        "tenant_roles",
        "golden_sets",
        "golden_queries",
        "golden_judgements",
    ),
    "document_id": (
        "collections",
        "embedding_spaces",
        "space_probes",
        "tenant_roles",
        "golden_sets",
        "golden_queries",
        "golden_judgements",
        "collection_statistics",
        "term_statistics",
        "rare_lexemes",
    ),
}
# Sharded, rows of one key together on one node; the tables of vectors follow.
DISTRIBUTED: dict[By, tuple[str, ...]] = {
    "collection_id": (
        "documents",
        "chunks",
        "ingest_queue",
        "collection_statistics",
        "term_statistics",
        "rare_lexemes",
        "duplicate_scans",
        "duplicate_pairs",
        "answers",
    ),
    "document_id": ("documents", "chunks"),
}
# Where they are: caches and notes by keys of their own, and rows that are locked in an order of their own.
LOCAL: dict[By, tuple[str, ...]] = {
    "collection_id": (
        "embedding_cache",
        "embedding_claims",
        "rate_limits",
        "generated_texts",
        "alembic_version",
    ),
    "document_id": (
        "embedding_cache",
        "embedding_claims",
        "rate_limits",
        "generated_texts",
        "alembic_version",
        "ingest_queue",
        "duplicate_scans",
        "duplicate_pairs",
        "answers",
    ),
}

_VECTORS = """
SELECT relname AS name FROM pg_class
 WHERE relnamespace = 'pgseek'::regnamespace AND relkind = 'r' AND relname ~ '^embeddings_[0-9]+$'
 ORDER BY length(relname), relname
"""
_GENERIC = """
SELECT oid::regprocedure::text AS name FROM pg_proc
 WHERE pronamespace = 'pgseek'::regnamespace AND 'plan_cache_mode=force_generic_plan' = ANY (proconfig)
 ORDER BY 1
"""
_SET_COMMANDS = """
SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
 WHERE d.datname = current_database() AND s.setrole = 0
   AND 'citus.propagate_set_commands=local' = ANY (s.setconfig)
"""
_CITUS = """
SELECT (SELECT extversion FROM pg_extension WHERE extname = 'citus') AS version,
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citus') AS available,
       current_database() AS name
"""
# What was only drawn in by a foreign key has no shards of its own.
_PLACED = """
SELECT c.relname AS name,
       CASE WHEN p.partmethod = 'h' THEN column_to_column_name(p.logicalrelid, p.partkey) END AS by
  FROM pg_dist_partition p JOIN pg_class c ON c.oid = p.logicalrelid
 WHERE c.relnamespace = 'pgseek'::regnamespace AND (p.partmethod <> 'n' OR p.repmodel = 't')
"""
_FUNCTIONS_ELSEWHERE = """
SELECT FROM pg_proc p WHERE p.pronamespace = 'pgseek'::regnamespace
   AND NOT EXISTS (SELECT FROM pg_dist_object o WHERE o.classid = 'pg_proc'::regclass AND o.objid = p.oid)
"""
_SEND_FUNCTIONS = (
    "SELECT create_distributed_function(p.oid::regprocedure) FROM pg_proc p"
    " WHERE p.pronamespace = 'pgseek'::regnamespace AND NOT EXISTS (SELECT FROM pg_dist_object o"
    " WHERE o.classid = 'pg_proc'::regclass AND o.objid = p.oid)"
)

Connection = psycopg.Connection[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Step:
    """One statement, and why it is there."""

    statement: str
    why: str


@dataclass(frozen=True, slots=True)
class _Found:
    """What the catalogue says. ``placed`` holds the sharding column by table, None for a copied table."""

    database: str
    vectors: tuple[str, ...]
    generic: tuple[str, ...]
    citus: str | None
    available: bool
    placed: dict[str, str | None]
    functions_sent: bool
    settings_sent: bool


def plan(dsn: str, by: By = "collection_id", shards: int | None = None) -> list[Step]:
    """Return what `distribute` would do, in order; the server need not have Citus.

    ``by`` is the column that rows are sharded by: ``collection_id`` keeps a collection on one node,
    ``document_id`` spreads each over all. ``shards`` None leaves their number to ``citus.shard_count``.

    Raises:
        InvalidInput: an argument out of its range, or the tables are sharded otherwise already.
        ConnectionFailed, UnsupportedServer, SchemaNotMigrated, SchemaTooNew: see each.
    """
    _check(by, shards)
    with _connected(dsn) as connection:
        try:
            return _steps(_look(connection), by, shards)
        except psycopg.Error as error:
            raise translate(error, dsn) from error


def distribute(
    dsn: str,
    by: By = "collection_id",
    shards: int | None = None,
    progress: Callable[[Step], None] | None = None,
) -> list[Step]:
    """Do what `plan` says, on the coordinator of a Citus cluster; return what was done.

    Nobody may write meanwhile. Each statement is a transaction of its own, so what an interrupted call has
    done stays, and the next goes on. ``progress`` is called with each step before it is done.

    Raises:
        UnsupportedServer: no Citus, one that is too old, or a worker.
        InvalidInput, DatabaseError: as `plan`.
    """
    _check(by, shards)
    with _connected(dsn) as connection:
        try:
            found = _look(connection)
            _check_citus(connection, found)
            steps = _steps(found, by, shards)
            for step in steps:
                if progress is not None:
                    progress(step)
                connection.execute(SQL(step.statement))
        except psycopg.Error as error:
            raise translate(error, dsn) from error
    return steps


def _check(by: str, shards: int | None) -> None:
    if by not in get_args(By):
        raise InvalidInput(f"by is {by!r}, but must be {' or '.join(map(repr, get_args(By)))}")
    if shards is not None and (type(shards) is not int or not 1 <= shards <= MOST_SHARDS):
        raise InvalidInput(f"shards is {shards!r}, but must be from 1 to {MOST_SHARDS:,}")


def _connected(dsn: str) -> Connection:
    connection = connect(dsn)
    try:
        state = server_state(connection)
        check_server(state)
        check_schema(state)
        # So that every name in a statement is written with its schema.
        connection.execute("SET search_path = pg_catalog")
    except BaseException:
        connection.close()
        raise
    return connection


def _look(connection: Connection) -> _Found:
    (citus,) = connection.execute(_CITUS).fetchall()
    placed: dict[str, str | None] = {}
    functions_sent = False
    if citus["version"] is not None:
        placed = {row["name"]: row["by"] for row in connection.execute(_PLACED)}
        functions_sent = not connection.execute(_FUNCTIONS_ELSEWHERE).fetchall()
    return _Found(
        database=citus["name"],
        vectors=tuple(row["name"] for row in connection.execute(_VECTORS)),
        generic=tuple(row["name"] for row in connection.execute(_GENERIC)),
        citus=citus["version"],
        available=citus["available"],
        placed=placed,
        functions_sent=functions_sent,
        settings_sent=bool(connection.execute(_SET_COMMANDS).fetchall()),
    )


def _check_citus(connection: Connection, found: _Found) -> None:
    if found.citus is None:
        mend = (
            "run CREATE EXTENSION citus"
            if found.available
            else "install Citus on every node (https://docs.citusdata.com), add citus to "
            "shared_preload_libraries, restart, and run CREATE EXTENSION citus"
        )
        raise UnsupportedServer(
            f"the database {found.database!r} has no extension citus; {mend}; "
            "pgseek db distribute --dry-run prints without it what would be done"
        )
    if tuple(int(part) for part in re.findall(r"\d+", found.citus)[:2]) < MIN_CITUS:
        needed = ".".join(map(str, MIN_CITUS))
        raise UnsupportedServer(f"Citus is {found.citus}, but pgseek db distribute needs {needed} or newer")
    # A single node that nobody has added others to is in group 0 as well.
    (row,) = connection.execute("SELECT groupid FROM pg_dist_local_group").fetchall()
    if row["groupid"] != 0:
        raise UnsupportedServer("this node is a worker of the Citus cluster; give the coordinator's DSN")


def _steps(found: _Found, by: By, shards: int | None) -> list[Step]:
    _check_placed(found, by, shards)
    tables = [
        *(_copied(name) for name in REFERENCE[by] if name not in found.placed),
        *_functions(found),
        *(
            _sharded(name, by, shards)
            for name in (*DISTRIBUTED[by], *found.vectors)
            if name not in found.placed
        ),
    ]
    steps = list(tables)
    if any("create_reference_table" in step.statement for step in tables):
        # Else the first reference table would draw in all that names it, as local tables of Citus; these
        # could not be sharded without copying them back, and with an identity column not at all.
        why = "foreign keys of tables that are not distributed yet are left as they are"
        steps.insert(0, Step("SET citus.enable_local_reference_table_foreign_keys = off", why))
    if not found.settings_sent:
        statement = SQL("ALTER DATABASE {} SET citus.propagate_set_commands = 'local'")
        why = "the hnsw.* settings of a search reach the nodes that walk the graph"
        steps.append(Step(_text(statement.format(Identifier(found.database))), why))
    return steps


def _check_placed(found: _Found, by: By, shards: int | None) -> None:
    column = found.placed.get("documents")
    if column is not None and column != by:
        raise InvalidInput(
            f"by is {by!r}, but the tables are distributed by {column} already: go on with --by {column}, or "
            "load the documents into another database that is distributed as you wish"
        )
    if column is not None and shards is not None:
        raise InvalidInput(
            f"shards is {shards}, but the tables are distributed already; leave it out, or change their "
            f"number with SELECT alter_distributed_table('{SCHEMA}.documents', shard_count => {shards}, "
            "cascade_to_colocated => true)"
        )


def _copied(name: str) -> Step:
    statement = SQL("SELECT create_reference_table({})").format(_qualified(name))
    return Step(_text(statement), f"{name}: needed beside every shard, so a copy on each node")


def _functions(found: _Found) -> list[Step]:
    """Return what makes the functions fit for Citus and puts them on every node.

    After the reference tables, whose rows are the type of some arguments, and before the chunks, whose index
    calls them.
    """
    steps = [
        Step(
            f"ALTER FUNCTION {name} RESET plan_cache_mode",
            "Citus plans with the values of parameters, never without",
        )
        for name in found.generic
    ]
    if not found.functions_sent:
        steps.append(Step(_SEND_FUNCTIONS, "the nodes compute weights, codes and snippets of their own rows"))
    return steps


def _sharded(name: str, by: By, shards: int | None) -> Step:
    first = name == DISTRIBUTED[by][0]
    count = SQL(", shard_count => {}").format(Value(shards)) if first and shards is not None else SQL("")
    statement = SQL("SELECT create_distributed_table({}, {}, colocate_with => {}{})").format(
        _qualified(name), Value(by), Value("none") if first else _qualified(DISTRIBUTED[by][0]), count
    )
    with_whom = (
        "the shards that all others join" if first else f"beside the {DISTRIBUTED[by][0]} they belong to"
    )
    return Step(_text(statement), f"{name}: {with_whom}")


def _qualified(name: str) -> Value:
    return Value(f"{SCHEMA}.{name}")


def _text(statement: Composable) -> str:
    return statement.as_string(None)
