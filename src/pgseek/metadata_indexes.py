"""Indexes of metadata fields: what a collection declares of them, and the indexes themselves.

Each is a btree over one collection's documents, on what ``pgseek.metadata_number`` or
``pgseek.metadata_text`` reads of the field. It is built before it is declared and dropped after that was
taken back, both beside searches and writes: searches use what is declared (``pgseek.filter_conditions``). A
copy of the collection has the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg.sql import SQL, Identifier, Literal
from psycopg.types.json import Jsonb

from pgseek import indexes
from pgseek.errors import CollectionNotFound, DatabaseError, InvalidInput
from pgseek.filters import path_of
from pgseek.steps import Script, ended, fetch, fetch_one, sleep, start_alone, transact
from pgseek.types import METADATA_TYPES, CollectionInfo, MetadataIndex, MetadataType

# Spaces count from 1 under indexes.INDEX_LOCK, and words have 0.
METADATA_LOCK = -1
# Seconds between two looks at whether a build has ended.
LOOK_EVERY = 0.2
# Who drops a collection does not wait longer for others: the next to drop something drops the index.
LOCK_TIMEOUT = "5s"

# A collection, its copy, and what it is a copy of.
_FAMILY: LiteralString = """
SELECT c.collection_id, c.metadata_indexes FROM pgseek.collections c
 WHERE %(id)s IN (c.collection_id, c.copy_of)
    OR c.collection_id = (SELECT o.copy_of FROM pgseek.collections o WHERE o.collection_id = %(id)s)
 ORDER BY c.copy_of NULLS FIRST
"""
_STRAY = """
SELECT x.relname AS name FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
 WHERE i.indrelid = 'pgseek.documents'::regclass AND x.relname ~ '^documents_metadata_[0-9]+_[0-9a-f]{8}$'
   AND pg_has_role(x.relowner, 'USAGE')
   AND NOT EXISTS (SELECT FROM pgseek.collections c
                    WHERE c.collection_id = split_part(x.relname, '_', 3)::integer)
"""


def declared(stored: Sequence[dict[str, Any]]) -> tuple[MetadataIndex, ...]:
    """Return what ``collections.metadata_indexes`` holds."""
    return tuple(MetadataIndex(tuple(one["field"]), one["type"]) for one in stored)


def index_name(collection_id: int, index: MetadataIndex) -> str:
    """Return the name of a collection's index, in the schema pgseek."""
    key = json.dumps([_function(index), *index.field]).encode()
    return f"documents_metadata_{collection_id}_{hashlib.sha256(key).hexdigest()[:8]}"


def declare(info: CollectionInfo, field: str | Sequence[str], of_type: MetadataType) -> Script[MetadataIndex]:
    """Build the index of a field, unless it is there, and declare it; of another type it takes its place.

    Raises:
        InvalidInput: no name of a field, or no type.
        DatabaseError: the tables belong to another role, or the build broke off.
    """
    if of_type not in METADATA_TYPES:
        raise InvalidInput(
            f"the type of a metadata index is {of_type!r}, but must be one of {', '.join(METADATA_TYPES)}; "
            "equality alone, of any type, needs no index of its own"
        )
    index, collection_id = MetadataIndex(path_of(field), of_type), info.collection_id
    if not (yield from indexes.owned("documents")):
        raise DatabaseError(
            "the table pgseek.documents belongs to another role; only its owner may index it: run this as "
            "the role that ran pgseek db upgrade"
        )
    for row in (yield from fetch(_FAMILY, {"id": collection_id})):
        yield from _build(row["collection_id"], index)
    before = yield from _change(collection_id, index.field, index)
    # One that was made meanwhile has it declared and not built.
    for row in (yield from fetch(_FAMILY, {"id": collection_id})):
        yield from _build(row["collection_id"], index)
        for other in before:
            if _function(other) != _function(index):
                yield from _drop(index_name(row["collection_id"], other))
    return index


def withdraw(info: CollectionInfo, field: str | Sequence[str]) -> Script[None]:
    """Take the index of a field back and drop it.

    Raises:
        InvalidInput: there is none; the message names those that there are.
    """
    path, collection_id = path_of(field), info.collection_id
    before = yield from _change(collection_id, path, None)
    if not before:
        rows = yield from fetch(_FAMILY, {"id": collection_id})
        there = [str(index) for row in rows[:1] for index in declared(row["metadata_indexes"])]
        raise InvalidInput(
            f"the metadata field {field!r} has no index; those that have: {', '.join(there) or 'none'}"
        )
    for row in (yield from fetch(_FAMILY, {"id": collection_id})):
        for index in before:
            yield from _drop(index_name(row["collection_id"], index))


def ensure(collection_id: int) -> Script[None]:
    """Build the indexes that a collection declares and has not, if we may."""
    row = yield from fetch_one(
        "SELECT metadata_indexes FROM pgseek.collections WHERE collection_id = %s", [collection_id]
    )
    if row and row["metadata_indexes"] and (yield from indexes.owned("documents")):
        for index in declared(row["metadata_indexes"]):
            yield from _build(collection_id, index)


def sweep() -> Script[None]:
    """Drop the indexes of collections that are gone; what is in use by others stays until the next time."""
    for row in (yield from fetch(_STRAY)):
        yield from _drop(row["name"], patient=False)


def _function(index: MetadataIndex) -> str:
    return "metadata_number" if index.type == "number" else "metadata_text"


def _change(
    collection_id: int, field: tuple[str, ...], index: MetadataIndex | None
) -> Script[list[MetadataIndex]]:
    """Declare an index of a field or none, of the whole family; return what was declared before."""

    def write() -> Script[list[MetadataIndex]]:
        # Whoever makes a copy locks the same rows, so the second statement sees it.
        yield from fetch(SQL("{} FOR UPDATE OF c").format(SQL(_FAMILY)), {"id": collection_id})
        rows = yield from fetch(SQL("{} FOR UPDATE OF c").format(SQL(_FAMILY)), {"id": collection_id})
        if not rows:
            raise CollectionNotFound("the collection was dropped in the meantime")
        before: list[MetadataIndex] = []
        for row in rows:
            there = declared(row["metadata_indexes"])
            before += [one for one in there if one.field == field]
            kept = [one for one in there if one.field != field]
            made = [*kept, index] if index else kept
            yield from fetch(
                "UPDATE pgseek.collections SET metadata_indexes = %s WHERE collection_id = %s",
                [Jsonb([{"field": one.field, "type": one.type} for one in made]), row["collection_id"]],
            )
        return before

    found: list[MetadataIndex] = yield from transact(write)
    return found


def _build(collection_id: int, index: MetadataIndex) -> Script[None]:
    name = index_name(collection_id, index)
    if (yield from fetch(indexes.BUILT, [f"pgseek.{name}"])):
        return
    ddl = SQL(
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON pgseek.documents ({}(metadata, {}){})"
        " WHERE collection_id = {}"
    ).format(
        Identifier(name),
        Identifier("pgseek", _function(index)),
        SQL("{}::text[]").format(Literal(list(index.field))),
        SQL("" if index.type == "number" else ' COLLATE "C"'),
        Literal(collection_id),
    )

    def build() -> Script[None]:
        yield from _take_turn()
        if (yield from fetch(indexes.BUILT, [f"pgseek.{name}"])):
            return
        # As a build that broke off has left it.
        yield from fetch(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier("pgseek", name)))
        yield from fetch(ddl)
        # The planner uses none of a partial index, and whoever may EXPLAIN could learn texts from them.
        yield from fetch(
            SQL("ALTER INDEX {} ALTER COLUMN 1 SET STATISTICS 0").format(Identifier("pgseek", name))
        )

    yield from _alone(build)


def _drop(name: str, *, patient: bool = True) -> Script[None]:
    statement = SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier("pgseek", name))

    def drop() -> Script[None]:
        yield from _take_turn()
        if not patient:
            yield from fetch(SQL("SET lock_timeout = {}").format(LOCK_TIMEOUT))
        yield from fetch(statement)

    if patient:
        yield from _alone(drop)
        return
    with contextlib.suppress(DatabaseError):
        yield from _alone(drop)


def _take_turn() -> Script[None]:
    """Set the session up, and wait until nobody else builds or drops such an index.

    Nobody waits inside of a statement: it has a snapshot, and what is done CONCURRENTLY waits for those.
    """
    for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        yield from fetch("SELECT set_config(%s, '0', false)", [setting])
    with contextlib.suppress(DatabaseError):
        yield from fetch("SET client_connection_check_interval = '2s'")
    lock = [indexes.INDEX_LOCK, METADATA_LOCK]
    while not (yield from fetch("SELECT WHERE pg_try_advisory_lock(%s, %s)", lock)):
        yield from sleep(indexes.TURN_EVERY)


def _alone(script: Any) -> Script[None]:
    underway = yield from start_alone(script)
    while (yield from ended(underway, LOOK_EVERY)) is None:
        pass
