"""The two indexes of search: when they are built, left out for a load, and built again.

Both cost several times as much row by row as in one build. So a load that is large beside what is there
leaves an index out and builds it in the end (`suspend`, `ensure`). Without its index a leg is exact and
slow; whoever settles an ingest next builds what is missing, so a kill in between costs no more than time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg.sql import SQL, Identifier

from pgseek.db.storage import storage_for
from pgseek.errors import DatabaseError
from pgseek.steps import Script, fetch, fetch_one, transact
from pgseek.types import CollectionInfo

# Below this many rows an exact scan of vectors is both faster and better than an approximate index.
INDEX_FROM = 1000
# The index of words, of all collections.
CODES = "chunks_codes_idx"
# A row if the index of this name is there and can be used.
BUILT = "SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) AND indisvalid"
# "pgse" in bytes: the class of the advisory locks under which indexes are built; spaces count from 1.
INDEX_LOCK = 0x70677365
CODES_LOCK = 0
# What a row costs in an index that is there, over its share of a build: measured by benchmarks/indexes.py.
GRAPH_RATIO = 4.0
CODES_RATIO = 2.5
# Kilobytes of maintenance_work_mem that a build is given at most.
MOST_MEMORY = 1_048_576
# Nobody shall wait behind us for a lock that others hold.
LOCK_TIMEOUT = "300ms"


def pays(stored: int, coming: int, ratio: float) -> bool:
    """Return whether ``coming`` rows beside ``stored`` ones are cheaper in a new index than in the old."""
    return coming >= INDEX_FROM and coming * ratio > stored + coming


def suspend_codes(stored: int) -> Script[bool]:
    """Drop the index of words if ``chunks`` holds no more than ``stored`` rows; return whether it did."""

    def drop() -> Script[bool]:
        # Of all collections: they share the index.
        more = yield from fetch("SELECT FROM pgseek.chunks OFFSET %s LIMIT 1", [stored])
        return not more and (yield from _drop("chunks", CODES))

    return (yield from _unless_busy(drop))


def suspend_graph(info: CollectionInfo) -> Script[bool]:
    """Drop the index of the space's vectors; return whether it did."""
    return (yield from _unless_busy(lambda: _drop(_vectors(info), _graph(info))))


def ensure_codes() -> Script[bool]:
    """Build the index of words if it is missing and we may; return whether it was built."""
    if (yield from fetch(BUILT, [f"pgseek.{CODES}"])) or not (yield from _owned("chunks")):
        return False

    def build() -> Script[None]:
        size = yield from fetch_one("SELECT pg_relation_size('pgseek.chunks') / 1024 AS kilobytes")
        yield from _memory(size["kilobytes"] if size else 0)
        from pgseek.db import models  # noqa: PLC0415 (SQLAlchemy takes a while to load)

        ddl: Any = models.create_codes_ddl()
        yield from fetch(ddl)

    yield from _in_turn(CODES, CODES_LOCK, build)
    return True


def ensure_graph(info: CollectionInfo) -> Script[bool]:
    """Build the space's HNSW index once it has rows enough to need one; return whether it was built.

    Built after the data: one bulk build costs a fraction of row-by-row insertion. A user who does
    not own the table may not build it; search is then exact, and ``pgseek doctor`` says so.
    """
    table = Identifier("pgseek", _vectors(info))
    if (yield from fetch(BUILT, [f"pgseek.{_graph(info)}"])):
        return False
    enough = yield from fetch(SQL("SELECT FROM {} OFFSET %s LIMIT 1").format(table), [INDEX_FROM - 1])
    if not enough or not (yield from _owned(_vectors(info))):
        return False
    dimensions = info.identity.dimensions

    def build() -> Script[None]:
        yield from vector_on_path()
        counted = yield from fetch_one(SQL("SELECT count(*) AS rows FROM {}").format(table))
        # The graph is built in memory: the vectors, and at m = 16 about 800 bytes a row of links and lists.
        # What does not fit is put in row by row.
        rows = counted["rows"] if counted else 0
        yield from _memory(rows * (dimensions * 4 + 800) * 13 // 10 // 1024)
        from pgseek.db import models  # noqa: PLC0415 (SQLAlchemy takes a while to load)

        ddl: Any = models.create_index_ddl(info.space_id, dimensions, storage_for(dimensions))
        yield from fetch(ddl)

    yield from _in_turn(_graph(info), info.space_id, build)
    return True


def vector_on_path() -> Script[None]:
    """Put pgvector's schema on the search path for the transaction: DDL names its types bare."""
    yield from fetch(
        "SELECT set_config('search_path', quote_ident(n.nspname), true) FROM pg_extension e"
        " JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    )


def _memory(kilobytes: int) -> Script[None]:
    """Give the transaction's builds so much memory, within bounds; never less than the server's setting."""
    yield from fetch(
        "SELECT set_config('maintenance_work_mem',"
        " greatest(s.setting::bigint, least(%s, %s::bigint))::text || 'kB', true)"
        " FROM pg_settings s WHERE s.name = 'maintenance_work_mem'",
        [MOST_MEMORY, kilobytes],
    )


def _in_turn(name: str, lock: int, build: Callable[[], Script[None]]) -> Script[None]:
    """Build an index in a transaction; one of its name that is not valid stands in the way, and goes."""

    def locked() -> Script[None]:
        # IF NOT EXISTS alone does not save two builders that begin together: they take turns.
        yield from fetch("SELECT pg_advisory_xact_lock(%s, %s)", [INDEX_LOCK, lock])
        # As a CREATE INDEX CONCURRENTLY that broke off has left it.
        invalid = yield from fetch(
            "SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid", [f"pgseek.{name}"]
        )
        if invalid:
            yield from fetch(SQL("DROP INDEX {}").format(Identifier("pgseek", name)))
        yield from build()

    yield from transact(locked)


def _unless_busy(drop: Callable[[], Script[bool]]) -> Script[bool]:
    """Drop an index in a transaction, unless somebody works with its table just now: then it stays."""

    def impatient() -> Script[bool]:
        yield from fetch(SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT))
        return (yield from drop())

    try:
        return (yield from transact(impatient))
    except DatabaseError:
        return False


def _drop(table: str, name: str) -> Script[bool]:
    if not (yield from _owned(table)):
        return False
    yield from fetch(SQL("DROP INDEX IF EXISTS {}").format(Identifier("pgseek", name)))
    return True


def _owned(table: str) -> Script[bool]:
    row = yield from fetch_one(
        "SELECT pg_has_role(relowner, 'USAGE') AS owned FROM pg_class WHERE oid = to_regclass(%s)",
        [f"pgseek.{table}"],
    )
    return bool(row and row["owned"])


def _vectors(info: CollectionInfo) -> str:
    return f"embeddings_{info.space_id}"


def _graph(info: CollectionInfo) -> str:
    return f"{_vectors(info)}_hnsw"
