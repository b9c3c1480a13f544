"""Ways to store and index a space's vectors, and what each would take: timed over some of its rows."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Literal
from psycopg.types.json import Jsonb

from pgseek import indexes, spaces
from pgseek.embedders.catalog import find_model
from pgseek.errors import InvalidInput
from pgseek.indexing.measuring import Measure
from pgseek.steps import Script, fetch, fetch_one, transact
from pgseek.types import SpaceInfo
from pgseek.vectors import Storage, VectorIndex, index_for

# Numbers of the vectors that builds are timed with, and bounds of their rows.
TIMED_NUMBERS = 2_000_000
TIMED_ROWS = (500, 5000)
# Queries by which a sketch is compared with whole vectors: each reads the table.
SKETCH_QUERIES = 20


@dataclass(frozen=True, slots=True)
class IndexOption:
    """A way to store and index a space's vectors, and what it would take.

    ``index_bytes`` on disk, ``table_bytes`` of the vectors, ``build_bytes`` of maintenance_work_mem and
    ``build_seconds`` by one process (more share the work) are estimates: from a build over ``timed_rows`` of
    the space's own vectors, and scaled. ``reachable`` is measured: the share of the k nearest that is left
    if the index itself misses nothing, None where it knows whole vectors as they are stored.
    """

    storage: Storage
    index: VectorIndex
    table_bytes: int
    index_bytes: int
    build_bytes: int
    build_seconds: float
    timed_rows: int
    reachable: float | None


def candidates(space: SpaceInfo) -> Iterator[tuple[Storage, VectorIndex]]:
    """Yield ways to store and index a space's vectors, the present one first, each once."""
    dimensions, storage, metric = space.identity.dimensions, space.storage, space.metric
    specs: list[tuple[Storage, Any]] = [(storage, space.index)] if space.index.method != "none" else []
    specs += [(storage, None), (storage, "hnsw,m=24,ef_construction=128"), (storage, "ivfflat")]
    specs.append((storage, "binary"))
    prefix = _prefix(space)
    if prefix is not None:
        specs.append((storage, f"prefix={prefix}"))
    if storage == "vector":
        specs.append(("halfvec", None))
    seen = set()
    for kind, spec in specs:
        try:
            index = index_for(dimensions, kind, metric, spec)
        except InvalidInput:
            continue
        if (kind, index) not in seen:
            seen.add((kind, index))
            yield kind, index


def _prefix(space: SpaceInfo) -> int | None:
    """Return how many first numbers say enough by themselves, None if the model was not trained for that."""
    known = find_model(space.identity.provider, space.identity.model)
    if known is None or known.reductions is None:
        return None
    half = space.identity.dimensions // 2
    if known.reductions == "any":
        return max(half // 2, min(half, 256), known.smallest)
    return max((size for size in known.reductions if size <= half), default=None)


def weigh_option(
    measure: Measure, storage: Storage, index: VectorIndex, rows: int, table_bytes: int
) -> Script[IndexOption]:
    space = measure.space
    dimensions = space.identity.dimensions
    low, high = TIMED_ROWS
    timed = min(rows, max(low, min(high, TIMED_NUMBERS // dimensions)))
    seconds, size = yield from _timed(space, storage, index, rows, timed)
    scale = rows / timed
    if index.method == "hnsw":
        # Each row is looked for in what is there, which takes longer the more that is.
        seconds *= math.log(max(rows, 2)) / math.log(max(timed, 2))
    sketch = index.form != "full" or storage != space.storage
    # Half precision halves the vectors, not what lies around them.
    table = table_bytes - (2 * dimensions * rows if storage != space.storage else 0)
    return IndexOption(
        storage,
        index,
        max(table, 0),
        int(size * scale),
        indexes.build_bytes(space, indexes.filled(index, rows), rows, storage=storage),
        seconds * scale,
        timed,
        (yield from _reachable(measure, storage, index)) if sketch else None,
    )


def _timed(
    space: SpaceInfo, storage: Storage, index: VectorIndex, rows: int, timed: int
) -> Script[tuple[float, int]]:
    """Build the index over some of the vectors, in a temporary table; return seconds and bytes."""

    def build() -> Script[tuple[float, int]]:
        from pgseek.db import models  # noqa: PLC0415 (SQLAlchemy takes a while to load)

        yield from spaces.vector_on_path()
        whole = indexes.filled(index, rows)
        yield from indexes.give_memory(indexes.build_bytes(space, whole, timed, storage=storage) // 1024)
        dimensions = space.identity.dimensions
        statement = SQL(
            "CREATE TEMP TABLE pgseek_timed ON COMMIT DROP AS SELECT embedding::{}({}) AS embedding"
            " FROM {} TABLESAMPLE BERNOULLI ({}) REPEATABLE (2) LIMIT {}"
        )
        share = min(100.0, 110.0 * timed / max(rows, 1) + 1)
        table = spaces.table_of(space.space_id)
        yield from fetch(
            statement.format(SQL(storage), Literal(dimensions), table, Literal(share), Literal(timed))
        )
        ddl: Any = models.timed_index_ddl("pgseek_timed", dimensions, storage, space.metric, whole)
        started = time.perf_counter()
        yield from fetch(ddl)
        seconds = time.perf_counter() - started
        row = yield from fetch_one("SELECT pg_relation_size('pg_temp.pgseek_timed_index'::regclass) AS bytes")
        return seconds, row["bytes"] if row else 0

    return (yield from transact(build))


def _reachable(measure: Measure, storage: Storage, index: VectorIndex) -> Script[float]:
    """Return the share of the nearest that comparing by a sketch leaves, if all rows are compared."""
    space, truth = measure.space, (yield from measure.exact())
    parts = yield from fetch_one(
        "SELECT p.* FROM pgseek.embedding_spaces s, pgseek.dense_parts(jsonb_populate_record(s, %s),"
        " '%%(vector)s', candidates => %s) p WHERE s.space_id = %s",
        [Jsonb({"indexing": index.to_json(), "searching": {}}), measure.k, space.space_id],
    )
    if parts is None:
        return 0.0
    walk = parts["walk"]
    if storage != space.storage:
        # As the vectors would be compared once they are stored so.
        walk = walk.replace(
            "e.embedding", f"e.embedding::{_schema(walk)}{storage}({space.identity.dimensions})"
        )
        walk = re.sub(rf"\.{space.storage}\(", f".{storage}(", walk)
    statement: Any = SQL(
        "WITH near AS (SELECT {} AS distance FROM {} e WHERE (e.document_id, e.ordinal) IS DISTINCT FROM"
        " (%(document)s::uuid, %(ordinal)s::integer) ORDER BY ({}) + 0 LIMIT %(rows)s)"
        " SELECT count(*) AS right FROM near WHERE distance <= %(bound)s"
    ).format(SQL(parts["distance"]), spaces.table_of(space.space_id), SQL(walk))
    shares = []
    for number, vector in enumerate(measure.sample.vectors[:SKETCH_QUERIES]):
        own = measure.sample.own[number] or (None, None)
        row = yield from fetch_one(
            statement,
            {
                "vector": vector,
                "document": own[0],
                "ordinal": own[1],
                "rows": measure.k * parts["rerank"],
                "bound": truth.farthest[number] + 1e-9,
            },
        )
        right = min(row["right"] if row else 0, truth.sizes[number])
        shares.append(right / truth.sizes[number] if truth.sizes[number] else 1.0)
    return math.fsum(shares) / max(len(shares), 1)


def _schema(text: str) -> str:
    """Return pgvector's schema as `dense_parts` writes it, with its dot."""
    found = re.search(r"OPERATOR\((.+?\.)<", text)
    return found[1] if found else ""
