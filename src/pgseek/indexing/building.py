"""An index of a space's vectors, built while searches and writes go on.

It is built under another name by CREATE INDEX CONCURRENTLY and put in the old one's place by a change of
names; what searches are told of it (`embedding_spaces.indexing`) changes in the same transaction. The old
one goes after that, so no search is without an index. What a broken-off build leaves is dropped by the next.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from pgseek import indexes, spaces
from pgseek.errors import DatabaseError, InvalidInput, PgseekError
from pgseek.steps import Script, ended, fetch, fetch_one, sleep, start_alone, transact
from pgseek.types import CollectionInfo, SpaceId, SpaceInfo
from pgseek.vectors import METHODS, VectorIndex, index_for

# Seconds between two looks at the progress, and between two attempts to be the one who builds.
LOOK_EVERY = 0.5
PROGRESS = """
SELECT phase, lockers_total, lockers_done, nullif(current_locker_pid, 0) AS pid,
       blocks_total, blocks_done, tuples_total, tuples_done
  FROM pg_stat_progress_create_index WHERE relid = to_regclass(%s) AND datname = current_database()
"""


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """How far the work on an index is.

    ``phase`` says what is being done; while PostgreSQL builds, in its words. ``done`` of ``total``
    ``unit`` (rows, blocks, transactions, queries) are behind us; ``total`` is 0 where it is not known.
    ``waiting_for`` is the process of the server whose transaction must end first.
    """

    phase: str
    done: int
    total: int
    unit: str
    seconds: float
    waiting_for: int | None = None


Told = Callable[[IndexProgress], None]


@dataclass(frozen=True, slots=True)
class IndexBuild:
    """What came of a build.

    ``built`` is whether there is a new index; if not, ``reason`` says why. ``index`` is how the space is
    indexed now, ``name`` the index in the schema pgseek, None if there is none. ``replaced`` is how it
    was indexed before, where that was otherwise. ``bytes`` is the size on disk, ``maintenance_work_mem``
    what the build was given, in kilobytes.
    """

    collection: str
    space_id: SpaceId
    index: VectorIndex
    name: str | None
    built: bool
    reason: str
    replaced: VectorIndex | None
    rows: int
    seconds: float
    bytes: int
    maintenance_work_mem: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What to build: None is the space's own index, or without one what fits its vectors.

    ``concurrently`` lets writers go on. ``rebuild`` builds an index of the same kind anew.
    ``maintenance_work_mem`` is written as PostgreSQL does ('2GB'); by default what the build needs, at most
    1 GB. ``workers`` are the processes beside the first, by default the server's setting.
    """

    index: str | Mapping[str, Any] | VectorIndex | None = None
    concurrently: bool = True
    rebuild: bool = False
    maintenance_work_mem: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and not (
            isinstance(self.workers, int) and not isinstance(self.workers, bool) and 0 <= self.workers <= 1024
        ):
            raise InvalidInput(f"workers is {self.workers!r}, but must be a whole number from 0 to 1,024")


def build(
    info: CollectionInfo, space: int | str | None, wish: Wish, progress: Told | None
) -> Script[IndexBuild]:
    """Build or change the index of a space, the active one by default.

    Raises:
        InvalidInput: there is no such space, or pgvector has no such index.
        DatabaseError: the build broke off; the old index is still there.
    """
    found = yield from chosen(info, space)
    work = _Work(info.name, found, wish)
    underway = yield from start_alone(work.run)
    while (outcome := (yield from ended(underway, LOOK_EVERY))) is None:
        if progress is not None:
            progress((yield from work.progress()))
    built: IndexBuild = outcome[0]
    return built


def chosen(info: CollectionInfo, space: int | str | None) -> Script[SpaceInfo]:
    """Return a space that has a table, as it stands now; None is the active one. Raises `InvalidInput`."""
    found = yield from spaces.find(info, info.space_id if space is None else space)
    if found.state == "retired":
        raise InvalidInput(
            f"space {found.space_id} of collection {info.name!r} is retired and has no vectors; "
            f"pgseek spaces list {info.name} shows those that have"
        )
    return found


def progress_of(space_id: int, rows: int, begun: float) -> Script[IndexProgress | None]:
    """Return how far PostgreSQL is that builds an index over so many rows, None if it builds none."""
    row = yield from fetch_one(PROGRESS, [f"pgseek.embeddings_{space_id}"])
    if row is None:
        return None
    seconds = time.monotonic() - begun
    if row["phase"].startswith("waiting"):
        return IndexProgress(
            row["phase"], row["lockers_done"], row["lockers_total"], "transactions", seconds, row["pid"]
        )
    done, total, unit = row["tuples_done"], row["tuples_total"] or rows, "rows"
    if not done and row["blocks_total"]:
        done, total, unit = row["blocks_done"], row["blocks_total"], "blocks"
    return IndexProgress(row["phase"], min(done, total), total, unit, seconds)


class _Work:
    """One build: a script on a connection of its own, and what others may know of it meanwhile."""

    def __init__(self, collection: str, space: SpaceInfo, wish: Wish) -> None:
        self._collection = collection
        self._space = space
        self._wish = wish
        self._table = f"embeddings_{space.space_id}"
        self._begun = time.monotonic()
        self._phase = "waiting for another build of this index"
        self._rows = 0
        self._memory = 0

    def progress(self) -> Script[IndexProgress]:
        found = yield from progress_of(self._space.space_id, self._rows, self._begun)
        return found or IndexProgress(self._phase, 0, 0, "rows", time.monotonic() - self._begun)

    def run(self) -> Script[IndexBuild]:
        yield from self._prepare()
        # The lock goes with the connection. Asking for it again and again, since whoever waits inside of a
        # statement has a snapshot, and CREATE INDEX CONCURRENTLY waits for those.
        lock = [indexes.INDEX_LOCK, self._space.space_id]
        while not (yield from fetch("SELECT WHERE pg_try_advisory_lock(%s, %s)", lock)):
            yield from sleep(indexes.TURN_EVERY)
        self._phase = "counting rows"
        space = yield from spaces.by_id(self._space.space_id)
        if space is None or space.state == "retired":
            raise InvalidInput(f"space {self._space.space_id} was retired in the meantime")
        self._space = space
        wanted = self._wanted()
        yield from self._sweep()
        name = spaces.index_name(space)
        valid = bool((yield from fetch(indexes.BUILT, [f"pgseek.{name}"])))
        row = yield from fetch_one(
            SQL("SELECT count(*) AS rows FROM {}").format(spaces.table_of(space.space_id))
        )
        self._rows = row["rows"] if row else 0
        if wanted.method == "none":
            yield from self._change(wanted, None)
            return (yield from self._result(wanted, False, "every search compares all vectors"))
        if valid and wanted == space.index and not self._wish.rebuild:
            return (yield from self._result(wanted, False, "it is there already; rebuild builds it anew"))
        if self._rows < indexes.INDEX_FROM:
            yield from self._change(wanted, None)
            return (yield from self._result(wanted, False, indexes.too_few(self._rows)))
        yield from self._create(wanted)
        yield from self._change(wanted, self._name("next"))
        return (yield from self._result(wanted, True, ""))

    def _wanted(self) -> VectorIndex:
        space, given = self._space, self._wish.index
        if given is None and space.index.method != "none":
            return space.index
        return index_for(space.identity.dimensions, space.storage, space.metric, given)

    def _name(self, place: str) -> str:
        return f"{self._table}_{place}"

    def _prepare(self) -> Script[None]:
        """Set the session up: it ends with the build, so nothing need be put back."""
        if not (yield from indexes.owned(self._table)):
            raise DatabaseError(
                f"the table pgseek.{self._table} belongs to another role; only its owner may build or drop "
                "its index: run this as the role that ran pgseek db upgrade"
            )
        yield from spaces.vector_on_path(for_session=True)
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            yield from fetch("SELECT set_config(%s, '0', false)", [name])
        # Else the server would go on for hours for somebody who was killed. Not every system can tell.
        with contextlib.suppress(DatabaseError):
            yield from fetch("SET client_connection_check_interval = '2s'")
        if self._wish.workers is not None:
            yield from fetch(
                "SELECT set_config('max_parallel_maintenance_workers', %s, false)", [str(self._wish.workers)]
            )

    def _sweep(self) -> Script[None]:
        """Drop what builds that broke off have left."""
        self._phase = "dropping what an earlier build left"
        own = spaces.index_name(self._space)
        for name in ("next", "before", *METHODS):
            condition = "AND NOT indisvalid" if self._name(name) == own else ""
            found = yield from fetch(
                SQL("SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) {}").format(SQL(condition)),
                [f"pgseek.{self._name(name)}"],
            )
            if found:
                yield from self._drop(self._name(name))

    def _create(self, wanted: VectorIndex) -> Script[None]:
        self._phase = "building index"
        yield from self._give_memory(wanted)
        ddl = indexes.index_ddl(
            self._space, wanted, self._rows, name=self._name("next"), concurrently=self._wish.concurrently
        )
        try:
            try:
                yield from fetch(ddl)
            except DatabaseError as error:
                # Workers share maintenance_work_mem in /dev/shm, of which Docker gives 64 MB.
                if "shared memory segment" not in str(error):
                    raise
                yield from self._drop(self._name("next"))
                yield from fetch("SET max_parallel_maintenance_workers = 0")
                yield from fetch(ddl)
        except PgseekError as error:
            yield from self._drop(self._name("next"))
            if "memory required is" in str(error):
                raise DatabaseError(
                    f"{error}: give it more (--maintenance-work-mem, maintenance_work_mem=), or fewer lists"
                ) from error
            raise

    def _give_memory(self, wanted: VectorIndex) -> Script[None]:
        given = self._wish.maintenance_work_mem
        if given is not None:
            try:
                yield from fetch("SELECT set_config('maintenance_work_mem', %s, false)", [given])
            except DatabaseError as error:
                raise InvalidInput(
                    f"maintenance_work_mem is {given!r}, but must be written as PostgreSQL does, such as "
                    f"'2GB': {error}"
                ) from error
        else:
            yield from indexes.give_memory(
                indexes.build_bytes(self._space, wanted, self._rows) // 1024, for_session=True
            )
        row = yield from fetch_one(
            "SELECT setting::bigint AS kb FROM pg_settings WHERE name = 'maintenance_work_mem'"
        )
        self._memory = row["kb"] if row else 0

    def _change(self, wanted: VectorIndex, new: str | None) -> Script[None]:
        """Put an index in the place of the old one, or none, together with what searches know of it."""
        self._phase = "changing the names"
        before = self._space.index
        old, name = spaces.index_name(self._space), f"{self._table}_{wanted.method}"
        rename = SQL("ALTER INDEX IF EXISTS {} RENAME TO {}")
        # The same index without a new one: it stays, if it is there.
        keeps = new is None and wanted == before

        def swap() -> Script[None]:
            if not keeps:
                yield from fetch(rename.format(Identifier("pgseek", old), Identifier(self._name("before"))))
            if new is not None:
                yield from fetch(rename.format(Identifier("pgseek", new), Identifier(name)))
            alike = (before.method, before.form, before.prefix) == (wanted.method, wanted.form, wanted.prefix)
            yield from fetch(
                "UPDATE pgseek.embedding_spaces SET indexing = %s,"
                # What was tuned for an index of another kind says nothing of this one.
                " searching = CASE WHEN %s THEN searching ELSE '{}' END WHERE space_id = %s",
                [Jsonb(wanted.to_json()), alike, self._space.space_id],
            )

        yield from transact(swap)
        self._phase = "dropping the old index, after the searches that use it"
        yield from self._drop(self._name("before"))

    def _drop(self, name: str) -> Script[None]:
        yield from fetch(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier("pgseek", name)))

    def _result(self, wanted: VectorIndex, built: bool, reason: str) -> Script[IndexBuild]:
        name = f"{self._table}_{wanted.method}"
        row = yield from fetch_one("SELECT pg_relation_size(to_regclass(%s)) AS bytes", [f"pgseek.{name}"])
        size = row["bytes"] if row else None
        return IndexBuild(
            self._collection,
            self._space.space_id,
            wanted,
            None if size is None else name,
            built,
            reason,
            self._space.index if wanted != self._space.index else None,
            self._rows,
            time.monotonic() - self._begun,
            size or 0,
            self._memory,
        )
