"""Sync: removing from a collection what its source no longer has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from uuid import UUID

from psycopg.sql import SQL

from pgseek.errors import InvalidInput, SyncRefused
from pgseek.prepare import Supply
from pgseek.steps import Script, copy_in, fetch, fetch_one, transact
from pgseek.types import CollectionInfo

# Documents deleted by one statement.
AT_ONCE = 5000
# Ids shown of what would go.
SHOWN = 20

_STAGE = SQL("CREATE TEMPORARY TABLE IF NOT EXISTS pgseek_seen_0005 (document_id uuid) ON COMMIT DELETE ROWS")
_COPY = SQL("COPY pg_temp.pgseek_seen_0005 FROM STDIN (FORMAT binary)")
# Written since the sync began by somebody else: that is not gone from any source.
_CONCERNED = SQL(
    " FROM pgseek.documents d WHERE d.collection_id = %(collection)s AND d.updated_at < %(began)s"
    " AND (%(within)s::jsonpath IS NULL OR d.metadata @@ %(within)s::jsonpath)"
)
_GONE = _CONCERNED + SQL(
    " AND NOT EXISTS (SELECT FROM pg_temp.pgseek_seen_0005 s WHERE s.document_id = d.document_id)"
)


@dataclass(frozen=True, slots=True)
class Sync:
    """What a sync may remove: of documents that match the jsonpath ``within`` a share of at most ``most``."""

    within: str | None = None
    most: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.most, bool) or not isinstance(self.most, int | float) or not 0 <= self.most <= 1:
            raise InvalidInput(f"max_removed is {self.most!r}, but must lie in 0..1: a share of documents")


@dataclass(frozen=True, slots=True)
class Removal:
    """A sync that began at ``began``, the server's time."""

    sync: Sync
    began: datetime


@dataclass(frozen=True, slots=True)
class Gone:
    """Documents that a source no longer has: their ids in order, and how many documents were looked at."""

    ids: Sequence[UUID]
    names: Sequence[str]
    of: int


def begin(sync: Sync | None) -> Script[Removal | None]:
    """Note the time before the source is read; None if nothing is to be removed."""
    row = (yield from fetch_one("SELECT clock_timestamp() AS now")) if sync is not None else None
    return Removal(sync, row["now"]) if sync is not None and row is not None else None


def find_gone(info: CollectionInfo, supply: Supply, removal: Removal) -> Script[Gone]:
    """Return what the source did not give; inside a transaction."""
    parameters = {
        "collection": info.collection_id,
        "began": removal.began,
        "within": removal.sync.within,
    }
    yield from fetch(_STAGE)
    # What was refused is not gone from its source: what is stored of it stays.
    seen = chain(supply.seen, supply.refused)
    yield from copy_in(_COPY, ("uuid",), ((UUID(bytes=key),) for key in seen))
    yield from fetch("ANALYZE pg_temp.pgseek_seen_0005")
    counted = yield from fetch_one(SQL("SELECT count(*) AS documents") + _CONCERNED, parameters)
    rows = yield from fetch(
        SQL("SELECT d.document_id, d.external_id") + _GONE + SQL(" ORDER BY d.document_id"), parameters
    )
    return Gone(
        [row["document_id"] for row in rows],
        sorted(row["external_id"] for row in rows)[:SHOWN],
        counted["documents"] if counted else 0,
    )


def remove(info: CollectionInfo, supply: Supply, removal: Removal) -> Script[int]:
    """Delete what the source no longer has; return how many documents.

    Raises:
        SyncRefused: they are more than the sync may remove, or the source gave records without an id,
            so that nobody can tell what is gone. Nothing is deleted then.
    """

    def delete() -> Script[int]:
        gone = yield from find_gone(info, supply, removal)
        check(gone, supply, removal.sync)
        for first in range(0, len(gone.ids), AT_ONCE):
            yield from delete_by_id(info, gone.ids[first : first + AT_ONCE])
        return len(gone.ids)

    return (yield from transact(delete))


def delete_by_id(info: CollectionInfo, ids: Sequence[UUID]) -> Script[int]:
    """Delete documents with all that belongs to them; return how many there were."""
    row = yield from fetch_one(
        "SELECT pgseek.delete_by_id(%s, %s) AS documents", [info.collection_id, list(ids)]
    )
    return int(row["documents"]) if row else 0


def check(gone: Gone, supply: Supply, sync: Sync) -> None:
    """Raise `SyncRefused` unless so much may go."""
    if not gone.ids:
        return
    named = ", ".join(gone.names[:3]) + (", …" if len(gone.ids) > 3 else "")
    if supply.nameless:
        raise SyncRefused(
            f"{supply.nameless:,} records of the source could not be read and have no id, so it cannot be "
            f"told whether {len(gone.ids):,} documents are gone ({named}); nothing was removed"
        )
    if len(gone.ids) > sync.most * gone.of:
        raise SyncRefused(
            f"{len(gone.ids):,} of {gone.of:,} documents are not in the source ({named}), but a sync may "
            f"remove a share of {sync.most:g} (max_removed); nothing was removed: is the source whole?"
        )
