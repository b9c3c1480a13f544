"""Which space is searched: the switch, the way back, and the end of a space."""

from __future__ import annotations

import time
from typing import Any

from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from pgseek import collections, spaces
from pgseek.embedders.catalog import fusion_defaults
from pgseek.errors import DatabaseError, InvalidInput
from pgseek.reembed.filling import MISSING
from pgseek.steps import (
    Script,
    fetch,
    fetch_one,
    sleep,
    transact,
)
from pgseek.types import (
    CollectionInfo,
    SpaceInfo,
)


def activate(info: CollectionInfo, space: SpaceInfo, *, enqueue: bool = True) -> Script[int]:
    """Make a ready space the one that is searched, in one transaction.

    Returns how many documents lack vectors. Those are put into the queue, and found by their words meanwhile.
    Without ``enqueue`` nothing is changed if there are any.

    Raises:
        InvalidInput: the space is not ready.
    """

    def switch() -> Script[int]:
        # Writers hold this row while they write: those that come after us see the new space.
        yield from fetch(
            "SELECT FROM pgseek.collection_statistics WHERE collection_id = %s FOR UPDATE",
            [info.collection_id],
        )
        yield from fetch(
            "SELECT FROM pgseek.collections WHERE collection_id = %s FOR UPDATE", [info.collection_id]
        )
        now = yield from spaces.find(info, space.space_id)
        if now.state == "active":
            return 0
        if now.state != "ready":
            raise InvalidInput(f"space {now.space_id} ({now}) is {now.state}, but must be ready")
        lacking = SQL("SELECT DISTINCT c.document_id FROM pgseek.chunks c WHERE {missing}").format(
            missing=MISSING.format(table=spaces.table_of(now.space_id))
        )
        of = {"collection": info.collection_id}
        counted = yield from fetch_one(SQL("SELECT count(*) AS n FROM ({}) AS l").format(lacking), of)
        missing = int(counted["n"]) if counted else 0
        if missing and not enqueue:
            return missing
        if missing:
            yield from fetch(
                SQL(
                    "INSERT INTO pgseek.ingest_queue (collection_id, document_id, content_hash)"
                    " SELECT d.collection_id, d.document_id, d.content_hash FROM ({}) AS l"
                    " JOIN pgseek.documents d ON d.collection_id = %(collection)s"
                    " AND d.document_id = l.document_id ON CONFLICT DO NOTHING"
                ).format(lacking),
                of,
            )
            yield from fetch("SELECT pg_notify('pgseek_queue', %s)", [info.name])
        current = yield from collections.find(info.name)
        yield from fetch(
            "UPDATE pgseek.embedding_spaces"
            " SET state = CASE WHEN space_id = %(new)s THEN 'active' ELSE 'ready' END,"
            " activated_at = CASE WHEN space_id = %(new)s THEN clock_timestamp() ELSE activated_at END"
            " WHERE space_id IN (%(new)s, %(old)s)",
            {"new": now.space_id, "old": current.space_id},
        )
        yield from fetch(
            "UPDATE pgseek.collections SET active_space_id = %s, settings = settings || %s"
            " WHERE collection_id = %s",
            [now.space_id, Jsonb(fusion_of(current, now)), info.collection_id],
        )
        return missing

    return (yield from transact(switch))


def fusion_of(info: CollectionInfo, new: SpaceInfo) -> dict[str, Any]:
    """Return the new embedder's weight and normalization, where the collection has the old one's."""
    old = fusion_defaults(info.identity)
    if (info.settings.get("alpha"), info.settings.get("normalization")) != (old.alpha, old.normalization):
        # Somebody chose them.
        return {}
    found = fusion_defaults(new.identity)
    return {"alpha": found.alpha, "normalization": found.normalization}


def previous(info: CollectionInfo) -> Script[SpaceInfo]:
    """Return the space that was searched before the present one.

    Raises:
        InvalidInput: there is none that is kept.
    """
    every = yield from spaces.list_all(info)
    kept = [s for s in every if s.state == "ready" and s.activated_at is not None]
    if not kept:
        raise InvalidInput(
            f"collection {info.name!r} has no earlier space to go back to; pgseek spaces list {info.name} "
            "shows those it has"
        )
    return max(kept, key=lambda space: space.activated_at or space.created_at)


def retire(info: CollectionInfo, space: SpaceInfo, patience: float = 60.0) -> Script[None]:
    """Drop a space's vectors, once no query that began before can still read them.

    Raises:
        InvalidInput: it is the one that is searched.
        DatabaseError: somebody held its table for longer than ``patience`` seconds; it is retired, and its
            table is dropped by the next call.
    """
    if space.state == "active":
        raise InvalidInput(
            f"space {space.space_id} ({space}) is the one that is searched; activate another one first"
        )

    def write() -> Script[None]:
        yield from fetch(
            "SELECT FROM pgseek.collection_statistics WHERE collection_id = %s FOR UPDATE",
            [info.collection_id],
        )
        row = yield from fetch_one(
            "UPDATE pgseek.embedding_spaces s SET state = 'retired' WHERE s.space_id = %s AND NOT EXISTS"
            " (SELECT FROM pgseek.collections c WHERE c.active_space_id = s.space_id)"
            " RETURNING s.space_id",
            [space.space_id],
        )
        if row is None:
            raise InvalidInput(f"space {space.space_id} ({space}) is the one that is searched by now")

    yield from transact(write)
    # Asked for when that is committed: what began before may not have seen it.
    (now,) = yield from fetch("SELECT clock_timestamp()::text AS at")
    end = time.monotonic() + patience
    # A search reads which space is the active one, and then its table: those under way end first.
    while time.monotonic() < end and (
        yield from fetch(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND xact_start < %s::timestamptz AND backend_type = 'client backend' LIMIT 1",
            [now["at"]],
        )
    ):
        yield from sleep(0.1)

    def drop() -> Script[None]:
        yield from fetch("SET LOCAL lock_timeout = '2s'")
        yield from spaces.drop_tables([space.space_id])

    while True:
        try:
            return (yield from transact(drop))
        except DatabaseError:
            if time.monotonic() >= end:
                raise
            yield from sleep(0.2)
