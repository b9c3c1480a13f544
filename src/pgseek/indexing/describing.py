"""The index of a space as it stands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pgseek import spaces
from pgseek.indexing.building import IndexProgress, chosen, progress_of
from pgseek.steps import Script, fetch_one
from pgseek.types import CollectionInfo, SpaceId
from pgseek.vectors import Metric, Storage, VectorIndex


@dataclass(frozen=True, slots=True)
class IndexState:
    """How a space is indexed.

    ``index`` is what it shall have, ``built`` whether that is there and can be used, ``definition`` how
    PostgreSQL writes it. ``building`` is how far somebody is who builds it now, None if nobody does.
    ``searching`` holds what searches use unless they say otherwise, and under ``tuned`` what that was
    measured to hold: ``recall``, ``k``, ``measured`` and the ``rows`` there were. ``index_bytes`` is without
    the primary key.
    """

    collection: str
    space_id: SpaceId
    metric: Metric
    storage: Storage
    index: VectorIndex
    built: bool
    definition: str | None
    building: IndexProgress | None
    searching: Mapping[str, Any]
    rows: int
    table_bytes: int
    index_bytes: int


def describe(info: CollectionInfo, space: int | str | None) -> Script[IndexState]:
    """Return how a space is indexed. Raises `InvalidInput` if there is no such space."""
    found = yield from spaces.with_counts((yield from chosen(info, space)))
    row = yield from fetch_one(
        "SELECT pg_get_indexdef(i.indexrelid) AS definition, pg_relation_size(i.indexrelid) AS bytes"
        " FROM pg_index i WHERE i.indexrelid = to_regclass(%s) AND i.indisvalid",
        [f"pgseek.{spaces.index_name(found)}"],
    )
    under_way = yield from progress_of(found.space_id, found.rows or 0, time.monotonic())
    return IndexState(
        info.name,
        found.space_id,
        found.metric,
        found.storage,
        found.index,
        row is not None,
        row["definition"] if row else None,
        under_way,
        found.searching,
        found.rows or 0,
        found.table_bytes or 0,
        row["bytes"] if row else 0,
    )
