"""What must hold besides the rows: tables and indexes, what belongs to no collection, statistics, pages."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.sql import SQL, Identifier

from pgseek import metadata_indexes
from pgseek.collections import WITHOUT_FOREIGN_KEY
from pgseek.health.facts import WRITING
from pgseek.indexes import CODES, INDEX_FROM, filled
from pgseek.integrity.report import EXAMPLES, Finding
from pgseek.spaces import table_of
from pgseek.types import SpaceId
from pgseek.vectors import Metric, Storage, VectorIndex

Connection = psycopg.Connection[dict[str, Any]]

# From pg_class, not by to_regclass: that would see what other transactions did since this one began.
_SPACES = """
SELECT s.space_id, s.collection_id, c.name, s.dimensions, s.storage, s.identity, s.state, s.metric,
       s.indexing, s.space_id = c.active_space_id AS active, t.oid IS NOT NULL AS has_table
  FROM pgseek.embedding_spaces s
  JOIN pgseek.collections c USING (collection_id)
  LEFT JOIN pg_class t ON t.relname = 'embeddings_' || s.space_id AND t.relnamespace = 'pgseek'::regnamespace
 WHERE s.collection_id = ANY (%s)
 ORDER BY s.space_id
"""

_TABLES_OF_NO_SPACE = """
SELECT t.relname AS name FROM pg_class t
 WHERE t.relnamespace = 'pgseek'::regnamespace AND t.relkind IN ('r', 'p')
   AND t.relname ~ '^embeddings_[0-9]+$'
   AND NOT EXISTS (SELECT FROM pgseek.embedding_spaces s WHERE t.relname = 'embeddings_' || s.space_id)
 ORDER BY t.relname
"""

# One that is being built at this time is not valid yet, and nothing is wrong with it.
_INVALID = """
SELECT i.indexrelid::regclass::text AS name, t.relname AS of_table FROM pg_index i
  JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
 WHERE t.relnamespace = 'pgseek'::regnamespace AND NOT (i.indisvalid AND i.indisready AND i.indislive)
   AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
 ORDER BY 1
"""

_HAS_INDEX = """
SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
 WHERE x.relnamespace = 'pgseek'::regnamespace AND x.relname = %s
"""

_METADATA = """
SELECT collection_id, name, metadata_indexes FROM pgseek.collections
 WHERE collection_id = ANY (%s) AND metadata_indexes <> '[]' ORDER BY name
"""

_STATISTICS = """
SELECT c.collection_id, c.name, s.collection_id IS NOT NULL AS there, s.chunks AS of_chunks,
       (SELECT count(*) FROM pgseek.chunks k
         WHERE k.collection_id = c.collection_id AND k.kind <> 'document') AS chunks,
       (SELECT count(*) FROM pgseek.term_statistics t
         WHERE t.collection_id = c.collection_id AND t.chunks > s.chunks) AS impossible,
       EXISTS (SELECT FROM pgseek.embedding_spaces e WHERE e.space_id = c.active_space_id) AS searchable,
       c.copy_of IS NOT NULL AND c.active_space_id IS NULL AS retired
  FROM pgseek.collections c LEFT JOIN pgseek.collection_statistics s USING (collection_id)
 WHERE c.collection_id = ANY (%s)
 ORDER BY c.name
"""

_CHECKED_BY_AMCHECK = """
SELECT x.oid, x.relname AS name, a.amname AS method, n.nspname AS amcheck_schema
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace,
       pg_class x JOIN pg_am a ON a.oid = x.relam
 WHERE e.extname = 'amcheck' AND x.relnamespace = 'pgseek'::regnamespace AND x.relpersistence = 'p'
   AND (x.relkind = 'i' AND EXISTS (SELECT FROM pg_index i
                                     WHERE i.indexrelid = x.oid AND i.indisvalid AND i.indisready)
        AND (a.amname = 'btree' OR a.amname = 'gin'
             AND EXISTS (SELECT FROM pg_proc p
                          WHERE p.proname = 'gin_index_check' AND p.pronamespace = n.oid))
        OR x.relkind = 'r' AND a.amname = 'heap'
           AND EXISTS (SELECT FROM pg_proc p WHERE p.proname = 'verify_heapam' AND p.pronamespace = n.oid))
 ORDER BY x.relname
"""
_AMCHECK: dict[str, LiteralString] = {
    "btree": "SELECT {schema}.bt_index_check(%s::regclass, true) AS msg",
    "gin": "SELECT {schema}.gin_index_check(%s::regclass) AS msg",
    "heap": "SELECT msg FROM {schema}.verify_heapam(%s::regclass) LIMIT 100",
}


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space, and whether its table is there."""

    space_id: SpaceId
    collection_id: int
    name: str
    dimensions: int
    storage: Storage
    identity: str
    state: str
    metric: Metric
    indexing: dict[str, Any]
    active: bool
    has_table: bool

    @property
    def table(self) -> Identifier:
        """The space's table of vectors."""
        return table_of(self.space_id)

    @property
    def index(self) -> VectorIndex:
        """How its vectors are indexed."""
        return VectorIndex.parse(self.indexing)


def spaces(connection: Connection, ids: Sequence[int]) -> list[Space]:
    """Return the embedding spaces of collections."""
    return [Space(**row) for row in connection.execute(_SPACES, [list(ids)])]


def tables(found: Sequence[Space]) -> Iterator[Finding]:
    """Yield spaces without their table."""
    from pgseek.db import models  # noqa: PLC0415 (SQLAlchemy takes a while to load)

    for space in found:
        if not space.has_table and space.state != "retired":
            ddl = _line(models.create_table_ddl(space.space_id, space.dimensions, space.storage))
            mend = f"{ddl}; then pgseek doctor --deep --repair {space.name}"
            name = f"embeddings_{space.space_id}"
            yield Finding("table_missing", space.name, 1, "embedding space without its table", (name,), mend)


def indexes(connection: Connection, found: Sequence[Space]) -> Iterator[Finding]:
    """Yield indexes that searches need and that are not there."""
    from pgseek.db import models  # noqa: PLC0415 (SQLAlchemy takes a while to load)

    loading = ""
    if connection.execute(WRITING).fetchall():
        loading = "somebody writes at this time, and a large load builds indexes in its end; else "
    if not connection.execute(_HAS_INDEX, [CODES]).fetchall():
        what = "index missing, without which a search for words reads every chunk"
        mend = (
            f"{loading}the next ingest as the tables' owner builds it, or: {_line(models.create_codes_ddl())}"
        )
        yield Finding("index_missing", None, 1, what, (CODES,), mend, harmless=bool(loading))
    for space in found:
        if not (space.active and space.has_table):
            continue
        (row,) = connection.execute(
            SQL("SELECT count(*) AS rows FROM (SELECT FROM {} LIMIT %s) AS head").format(space.table),
            [INDEX_FROM],
        ).fetchall()
        index = space.index
        if index.method == "none":
            continue
        name = models.index_name(space.space_id, index)
        if row["rows"] == INDEX_FROM and not connection.execute(_HAS_INDEX, [name]).fetchall():
            what = "index missing, without which a search by meaning reads every vector"
            ddl = _line(
                models.create_index_ddl(
                    space.space_id, space.dimensions, space.storage, space.metric, filled(index, INDEX_FROM)
                )
            )
            mend = f"{loading}the next ingest into {space.name} as the tables' owner builds it, or: {ddl}"
            yield Finding("index_missing", space.name, 1, what, (name,), mend, harmless=bool(loading))


def metadata(connection: Connection, ids: Sequence[int]) -> Iterator[Finding]:
    """Yield indexes of metadata fields that collections declare and that are not there."""
    rows = connection.execute(_METADATA, [list(ids)]).fetchall()
    for row in rows:
        for index in metadata_indexes.declared(row["metadata_indexes"]):
            name = metadata_indexes.index_name(row["collection_id"], index)
            if not connection.execute(_HAS_INDEX, [name]).fetchall():
                what = f"index of metadata missing, without which a filter on {index} reads every document"
                field = shlex.quote(json.dumps(index.field))
                mend = f"pgseek collections index-metadata {row['name']} {field} {index.type}"
                yield Finding("index_missing", row["name"], 1, what, (name,), mend)


def database(connection: Connection) -> Iterator[Finding]:
    """Yield what is wrong with the database and not with one collection."""
    invalid = connection.execute(_INVALID).fetchall()
    if invalid:
        names = [row["name"] for row in invalid]
        mend = "; ".join(f"REINDEX INDEX {name}" for name in names)
        what = "indexes that are not valid, as a broken-off CREATE INDEX CONCURRENTLY leaves them"
        yield _several("index_invalid", names, what, mend)
    stray = [row["name"] for row in connection.execute(_TABLES_OF_NO_SPACE)]
    if stray:
        mend = "; ".join(f"DROP TABLE pgseek.{name}" for name in stray)
        yield _several("table_stray", stray, "tables of vectors that belong to no embedding space", mend)
    for table in WITHOUT_FOREIGN_KEY:
        rows = connection.execute(
            SQL(
                "SELECT t.collection_id AS id, count(*) AS rows FROM pgseek.{} t WHERE NOT EXISTS"
                " (SELECT FROM pgseek.collections c WHERE c.collection_id = t.collection_id)"
                " GROUP BY t.collection_id ORDER BY t.collection_id"
            ).format(Identifier(table))
        ).fetchall()
        if rows:
            yield Finding(
                f"leftover_{table}",
                None,
                sum(row["rows"] for row in rows),
                f"rows of {table} of collections that are not there",
                tuple(f"collection_id {row['id']}" for row in rows[:EXAMPLES]),
                "pgseek doctor --deep --repair deletes them",
            )
    (row,) = connection.execute(
        "SELECT count(*) AS claims FROM pgseek.embedding_claims WHERE claimed_until <= clock_timestamp()"
    ).fetchall()
    if row["claims"]:
        yield Finding(
            "claims",
            None,
            row["claims"],
            "claims on texts that a worker was embedding when it ended; they hold nobody up",
            (),
            "pgseek cache prune deletes them",
            harmless=True,
        )


def statistics(connection: Connection, ids: Sequence[int]) -> Iterator[Finding]:
    """Yield collections that lack what a search reads, and statistics of BM25 that are far behind."""
    for row in connection.execute(_STATISTICS, [list(ids)]):
        name = row["name"]
        refresh = f"SELECT pgseek.refresh_statistics('{name}')"
        if row["retired"]:
            what = "copy of a collection whose removal was broken off"
            yield Finding("copy_retired", name, 1, what, (), f"pgseek collections drop {name}", harmless=True)
        elif not row["searchable"]:
            what = "collection without an active embedding space"
            mend = f"pgseek collections drop {name}, and ingest it again"
            yield Finding("no_space", name, 1, what, (), mend)
        if not row["there"]:
            what = "collection without statistics of its words"
            mend = (
                "INSERT INTO pgseek.collection_statistics (collection_id, weighting)"
                f" SELECT {row['collection_id']}, '{{1.2,0.75,100,2}}'; then SELECT pgseek.reweigh('{name}')"
            )
            yield Finding("no_statistics", name, 1, what, (), mend)
        elif row["impossible"]:
            what = "words counted in more chunks than the collection had"
            yield Finding("statistics_impossible", name, row["impossible"], what, (), refresh)
        elif abs(row["chunks"] - row["of_chunks"]) * 10 > row["of_chunks"]:
            what = f"chunks, but the statistics of their words are of {row['of_chunks']:,}"
            mend = f"the next ingest refreshes them, or: {refresh}"
            yield Finding("statistics_behind", name, row["chunks"], what, (), mend, harmless=True)


def pages(connection: Connection) -> tuple[list[Finding], str]:
    """Let amcheck read tables and indexes, each in a transaction of its own; say whether it did."""
    targets = connection.execute(_CHECKED_BY_AMCHECK).fetchall()
    if not targets:
        return [], "not read: CREATE EXTENSION amcheck lets them be"
    found: list[Finding] = []
    read = 0
    for target in targets:
        statement = SQL(_AMCHECK[target["method"]]).format(schema=Identifier(target["amcheck_schema"]))
        try:
            messages = [row["msg"] for row in connection.execute(statement, [target["oid"]]) if row["msg"]]
        except psycopg.errors.InsufficientPrivilege:
            return found, "not read: this user may not run amcheck"
        except psycopg.errors.UndefinedTable:
            continue  # Dropped in the meantime.
        except (psycopg.errors.IndexCorrupted, psycopg.errors.DataCorrupted) as error:
            messages = [error.diag.message_primary or str(error)]
        read += 1
        if messages:
            mend = (
                "restore the table from a backup, and look at the disk"
                if target["method"] == "heap"
                else f"REINDEX INDEX pgseek.{target['name']}; and look at the disk"
            )
            what = f"damaged places in {target['name']}"
            found.append(Finding("pages", None, len(messages), what, tuple(messages[:EXAMPLES]), mend))
    return found, f"{read} tables and indexes read by amcheck"


def _line(statement: str) -> str:
    return " ".join(statement.split())


def _several(key: str, names: Sequence[str], what: str, mend: str) -> Finding:
    return Finding(key, None, len(names), what, tuple(names[:EXAMPLES]), mend)
