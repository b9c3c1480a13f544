"""The two indexes of search: when they are built, left out for a load, and built again.

Both cost several times as much row by row as in one build. So a load that is large beside what is there
leaves an index out and builds it in the end (`suspend`, `ensure`). Without its index a leg is exact and
slow; whoever settles an ingest next builds what is missing, so a kill in between costs no more than time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from psycopg.sql import SQL, Identifier

from pgseek.errors import DatabaseError
from pgseek.spaces import by_id, index_name, table_of, vector_on_path
from pgseek.steps import Script, fetch, fetch_one, sleep, transact
from pgseek.types import SpaceInfo
from pgseek.vectors import Storage, VectorIndex

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
# Seconds between two attempts to be the one who builds.
TURN_EVERY = 0.2
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


def suspend_graph(space: SpaceInfo) -> Script[bool]:
    """Drop the index of a space's vectors; return whether it did."""
    return (yield from _unless_busy(lambda: _drop(_vectors(space), index_name(space))))


def ensure_codes() -> Script[bool]:
    """Build the index of words if it is missing and we may; return whether it was built."""
    if (yield from fetch(BUILT, [f"pgseek.{CODES}"])) or not (yield from owned("chunks")):
        return False

    def build() -> Script[None]:
        size = yield from fetch_one("SELECT pg_relation_size('pgseek.chunks') / 1024 AS kilobytes")
        yield from give_memory(size["kilobytes"] if size else 0)
        from pgseek.db import models  # noqa: PLC0415 (SQLAlchemy takes a while to load)

        ddl: Any = models.create_codes_ddl()
        yield from fetch(ddl)

    yield from _in_turn(CODES, CODES_LOCK, build)
    return True


def ensure_graph(space: SpaceInfo) -> Script[bool]:
    """Build the index of a space's vectors once they are enough to need one; return whether it was built.

    Built after the data: one bulk build costs a fraction of row-by-row insertion. A user who does
    not own the table may not build it; search is then exact, and ``pgseek doctor`` says so.
    """
    if space.index.method == "none" or (yield from fetch(BUILT, [f"pgseek.{index_name(space)}"])):
        return False
    table = table_of(space.space_id)
    enough = yield from fetch(SQL("SELECT FROM {} OFFSET %s LIMIT 1").format(table), [INDEX_FROM - 1])
    if not enough or not (yield from owned(_vectors(space))):
        return False

    def build() -> Script[None]:
        now = yield from by_id(space.space_id)
        if now is None or now.index != space.index:
            # Somebody changed the index while we waited for our turn, and has seen to it.
            return
        yield from vector_on_path()
        counted = yield from fetch_one(SQL("SELECT count(*) AS rows FROM {}").format(table))
        rows = counted["rows"] if counted else 0
        yield from give_memory(build_bytes(space, space.index, rows) // 1024)
        yield from fetch(index_ddl(space, space.index, rows))

    yield from _in_turn(index_name(space), space.space_id, build)
    return True


def too_few(rows: int) -> str:
    """Return why so many rows have no index."""
    return (
        f"{rows:,} rows are compared exactly, faster and better than by an index; "
        f"an ingest builds it from {INDEX_FROM:,} rows on"
    )


def build_bytes(space: SpaceInfo, index: VectorIndex, rows: int, *, storage: Storage | None = None) -> int:
    """Return about how many bytes a build of an index takes; what finds no room costs more.

    HNSW keeps the whole graph in memory, IVFFlat a sample and its distances from all lists.
    """
    of_each = {"vector": 4.0, "halfvec": 2.0}[storage or space.storage]
    numbers = index.prefix or space.identity.dimensions
    if index.form == "binary":
        of_each = 1 / 8
    if index.method == "ivfflat":
        lists = filled(index, rows).lists or 0
        sample = max(50 * lists, 10_000)
        return int(1.1 * (sample * (numbers * of_each + 4 * lists + 12) + lists * (4 * lists + 12 * numbers)))
    # The vectors, links and lists: at m = 16 about 800 bytes a row.
    return int(rows * (numbers * of_each + (index.m or 16) * 50) * 1.3)


def lists_for(rows: int) -> int:
    """Return the number of IVFFlat's lists for so many rows: pgvector's own advice."""
    return max(10, rows // 1000 if rows <= 1_000_000 else int(math.sqrt(rows)))


def filled(index: VectorIndex, rows: int) -> VectorIndex:
    """Return the index with what a build over so many rows needs to know."""
    if index.method == "ivfflat" and index.lists is None:
        return replace(index, lists=lists_for(rows))
    return index


def index_ddl(
    space: SpaceInfo, index: VectorIndex, rows: int, *, name: str | None = None, concurrently: bool = False
) -> Any:
    """Return the CREATE INDEX IF NOT EXISTS of a space; pgvector's schema must be on the search path."""
    from pgseek.db import models  # noqa: PLC0415 (SQLAlchemy takes a while to load)

    return models.create_index_ddl(
        space.space_id,
        space.identity.dimensions,
        space.storage,
        space.metric,
        filled(index, rows),
        name=name,
        concurrently=concurrently,
    )


def give_memory(kilobytes: int, *, for_session: bool = False) -> Script[None]:
    """Give the transaction's builds so much memory, within bounds; never less than the server's setting."""
    yield from fetch(
        "SELECT set_config('maintenance_work_mem',"
        " greatest(s.setting::bigint, least(%s, %s::bigint))::text || 'kB', %s)"
        " FROM pg_settings s WHERE s.name = 'maintenance_work_mem'",
        [MOST_MEMORY, kilobytes, not for_session],
    )


def _in_turn(name: str, lock: int, build: Callable[[], Script[None]]) -> Script[None]:
    """Build an index in a transaction; one of its name that is not valid stands in the way, and goes."""

    def locked() -> Script[bool]:
        # IF NOT EXISTS alone does not save two builders that begin together: they take turns. Nobody waits
        # inside of a statement: it has a snapshot, and a CREATE INDEX CONCURRENTLY waits for those.
        turn = yield from fetch_one("SELECT pg_try_advisory_xact_lock(%s, %s) AS ours", [INDEX_LOCK, lock])
        if turn is None or not turn["ours"]:
            return False
        # As a CREATE INDEX CONCURRENTLY that broke off has left it.
        invalid = yield from fetch(
            "SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid", [f"pgseek.{name}"]
        )
        if invalid:
            yield from fetch(SQL("DROP INDEX {}").format(Identifier("pgseek", name)))
        yield from build()
        return True

    while not (yield from transact(locked)):
        yield from sleep(TURN_EVERY)


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
    if not (yield from owned(table)):
        return False
    yield from fetch(SQL("DROP INDEX IF EXISTS {}").format(Identifier("pgseek", name)))
    return True


def owned(table: str) -> Script[bool]:
    """Return whether a table of pgseek's is ours: only its owner may build and drop its indexes."""
    row = yield from fetch_one(
        "SELECT pg_has_role(relowner, 'USAGE') AS owned FROM pg_class WHERE oid = to_regclass(%s)",
        [f"pgseek.{table}"],
    )
    return bool(row and row["owned"])


def _vectors(space: SpaceInfo) -> str:
    return f"embeddings_{space.space_id}"
