"""Examining collections: the rules counted in one read-only transaction."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed

from pgseek.collections import LANGUAGES, SERVED
from pgseek.config import Settings
from pgseek.db.connection import check_schema, check_server, connect, server_state, translate, with_tenant
from pgseek.db.session import resolve_dsn
from pgseek.errors import CollectionNotFound
from pgseek.integrity import catalogue
from pgseek.integrity.catalogue import Connection, Space
from pgseek.integrity.checks import CHUNKS, DOCUMENTS, ORPHANS, QUEUE, RULES, VECTORS, Rule
from pgseek.integrity.report import EXAMPLES, Examination, Examined, Finding

# Each thing found is counted; the first few by name are kept. What is many goes to the server's disk.
_COUNTED = """
SELECT collection_id, count(*) AS count,
       array_agg(example ORDER BY place) FILTER (WHERE place <= {examples}) AS examples
  FROM (SELECT broken.*, row_number() OVER (PARTITION BY collection_id ORDER BY example COLLATE "C") AS place
          FROM ({broken}) AS broken) AS placed
 GROUP BY collection_id
"""

_COUNTS = """
SELECT c.collection_id, c.name,
       (SELECT count(*) FROM pgseek.documents d WHERE d.collection_id = c.collection_id) AS documents,
       (SELECT count(*) FROM pgseek.chunks k WHERE k.collection_id = c.collection_id) AS chunks,
       (SELECT count(*) FROM pgseek.ingest_queue q WHERE q.collection_id = c.collection_id) AS queued
  FROM pgseek.collections c WHERE c.collection_id = ANY (%s) ORDER BY c.name
"""


def examine(dsn: str | None = None, names: Sequence[str] = ()) -> Examination:
    """Examine the collections ``names``, or all and what belongs to none.

    ``dsn`` None is what a `Client` would use. It reads everything, and makes the words of every chunk anew:
    that took 38 s for 111,675 chunks of 180 words on two cores.

    Raises:
        CollectionNotFound, ConnectionFailed, SchemaError, DatabaseError.
    """
    started = time.perf_counter()
    settings = Settings()
    found_dsn = resolve_dsn(dsn, None, settings)
    if dsn is None:
        found_dsn = with_tenant(found_dsn, settings.tenant)
    try:
        with connect(found_dsn, settings.connect_timeout) as connection:
            schema = checked_schema(connection)
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                prepare(connection, schema)
                collections, findings = _examine(connection, names)
            damaged, pages = ([], "not read") if names else catalogue.pages(connection)
    except psycopg.Error as error:
        raise translate(error, found_dsn) from error
    rules = {rule.key: rule.what for rule in RULES}
    seconds = time.perf_counter() - started
    return Examination(collections, (*findings, *damaged), rules, pages, seconds)


def checked_schema(connection: Connection) -> str:
    """Return pgvector's schema, quoted, of a database that has pgseek's schema at head."""
    state = server_state(connection)
    check_server(state)
    check_schema(state)
    return str(state.vector_schema)


def prepare(connection: Connection, vector_schema: str) -> None:
    """Set what a transaction of rules needs: pgvector's operators, all the time it takes, and helpers.

    The planner takes the making of words for cheap, and would leave it to one process. Where nobody has
    analyzed the tables yet, as after a kill, it takes them for small: each row against each would take hours.
    """
    connection.execute(
        "SELECT set_config('search_path', 'pg_catalog, ' || %s, true),"
        " set_config('statement_timeout', '0', true), set_config('jit', 'off', true),"
        " set_config('parallel_setup_cost', '0', true), set_config('parallel_tuple_cost', '0', true),"
        " set_config('enable_nestloop', 'off', true)",
        [vector_schema],
    )


def _examine(
    connection: Connection, names: Sequence[str]
) -> tuple[tuple[Examined, ...], tuple[Finding, ...]]:
    by_id = _chosen(connection, names)
    spaces = catalogue.spaces(connection, list(by_id))
    findings: list[Finding] = []
    broken: dict[int, dict[str, int]] = defaultdict(dict)
    embeddings: dict[int, int] = dict.fromkeys(by_id, 0)
    for rule, statement, parameters, ids in statements(connection, list(by_id), spaces):
        for i in ids:
            broken[i].setdefault(rule.key, 0)
        with _unless_dropped(connection):
            for row in connection.execute(counted(statement), parameters).fetchall():
                i = row["collection_id"]
                broken[i][rule.key] += row["count"]
                mend = rule.mend.format(name=by_id[i], id=i)
                findings.append(
                    Finding(rule.key, by_id[i], row["count"], rule.what, tuple(row["examples"]), mend)
                )
    for space in spaces:
        if space.active and space.has_table:
            with _unless_dropped(connection):
                (row,) = connection.execute(
                    SQL("SELECT count(*) AS n FROM {} WHERE collection_id = %s").format(space.table),
                    [space.collection_id],
                ).fetchall()
                embeddings[space.collection_id] = row["n"]
    findings += catalogue.tables(spaces)
    with _unless_dropped(connection):
        findings += catalogue.indexes(connection, spaces)
    findings += catalogue.metadata(connection, list(by_id))
    findings += catalogue.statistics(connection, list(by_id))
    # Who sees one tenant's rows cannot tell what belongs to nobody.
    (seen,) = connection.execute("SELECT row_security_active('pgseek.collections') AS partly").fetchall()
    if not names and not seen["partly"]:
        findings += catalogue.database(connection)
    examined = tuple(
        Examined(
            row["name"],
            row["documents"],
            row["chunks"],
            embeddings[row["collection_id"]],
            row["queued"],
            broken[row["collection_id"]],
        )
        for row in connection.execute(_COUNTS, [list(by_id)])
    )
    return examined, tuple(sorted(findings, key=lambda f: (f.collection or "", f.harmless)))


def _chosen(connection: Connection, names: Sequence[str]) -> dict[int, str]:
    rows = connection.execute(
        "SELECT c.collection_id, c.name, o.name AS original FROM pgseek.collections c"  # noqa: S608 (constants)
        " LEFT JOIN pgseek.collections o ON o.collection_id = c.copy_of"
        f" WHERE {SERVED} ORDER BY c.tenant, c.name"
    ).fetchall()
    known = {row["name"]: row["original"] for row in rows}
    for name in names:
        if name not in known:
            there = ", ".join(sorted(n for n, original in known.items() if original is None)[:10]) or "none"
            raise CollectionNotFound(f"there is no collection {name!r}; there are: {there}")
    # A collection's copy with it.
    chosen = [row for row in rows if not names or row["name"] in names or row["original"] in names]
    return {row["collection_id"]: row["name"] for row in chosen}


def statements(
    connection: Connection, ids: Sequence[int], spaces: Sequence[Space]
) -> Iterator[tuple[Rule, Composed, Mapping[str, Any], Sequence[int]]]:
    """Yield each rule with the statement that finds what breaks it, its parameters, and the collections."""
    languages = [row["name"] for row in connection.execute(LANGUAGES)]
    of_all = {"ids": list(ids), "languages": languages}
    for rule in (*DOCUMENTS, *CHUNKS, *QUEUE):
        yield rule, SQL(rule.broken).format(), of_all, ids
    for space in spaces:
        if not space.has_table:
            continue
        of_space = {
            "of": space.collection_id,
            "space": space.space_id,
            "identity": space.identity,
            "dimensions": space.dimensions,
        }
        # Vectors of a space that was given up are not kept in step.
        if space.state != "retired":
            yield ORPHANS, SQL(ORPHANS.broken).format(table=space.table), of_space, [space.collection_id]
        if space.active:
            for rule in VECTORS:
                yield rule, SQL(rule.broken).format(table=space.table), of_space, [space.collection_id]


def counted(statement: Composed) -> Composed:
    """Return the statement that counts by collection what another finds."""
    return SQL(_COUNTED).format(examples=EXAMPLES, broken=statement)


@contextlib.contextmanager
def _unless_dropped(connection: Connection) -> Iterator[None]:
    """Go on where a collection's table of vectors has been dropped since the transaction began."""
    try:
        with connection.transaction():
            yield
    except psycopg.errors.UndefinedTable as error:
        if "embeddings_" not in str(error):
            raise
