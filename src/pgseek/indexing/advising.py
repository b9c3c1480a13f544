"""What an index of vectors does for its space, what others would take, and which to have."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Literal
from psycopg.types.json import Jsonb

from pgseek import indexes, spaces
from pgseek.errors import InvalidInput
from pgseek.indexing.building import IndexProgress, Told, chosen
from pgseek.indexing.measuring import Aim, IndexRecall, Measure, Source, count_rows, described, take_sample
from pgseek.indexing.options import IndexOption, candidates, weigh_option
from pgseek.steps import Script, fetch_one
from pgseek.types import CollectionInfo, SpaceId, SpaceInfo
from pgseek.vectors import Storage, VectorIndex, index_for

# A sketch that finds less than this beside the aim leaves no room for what an index misses.
ROOM = 0.01


@dataclass(frozen=True, slots=True)
class IndexAdvice:
    """How a space is searched, and what would be better.

    ``measured`` is the recall of its index with the present settings, and if that falls short of ``recall``
    with wider ones; empty where there is no index. ``exact_p50`` is a search without one, in milliseconds.
    ``fits`` is whether the index finds room in ``shared_buffers``. ``source``: see `IndexTuning`.
    ``proposal`` is what to build, None to leave the index as it is; ``command`` does what is proposed, and so
    do the statements ``sql``, one after the other and outside of a transaction. ``reasons`` say why.
    """

    collection: str
    space_id: SpaceId
    storage: Storage
    index: VectorIndex
    name: str | None
    rows: int
    recall: float
    k: int
    source: Source
    queries: int
    measured: tuple[IndexRecall, ...]
    exact_p50: float
    table_bytes: int
    index_bytes: int
    shared_buffers: int
    fits: bool
    options: tuple[IndexOption, ...]
    proposal: IndexOption | None
    command: str
    sql: tuple[str, ...]
    reasons: tuple[str, ...]


def advise(
    info: CollectionInfo, space: int | str | None, aim: Aim, progress: Told | None
) -> Script[IndexAdvice]:
    """Measure a space's index against exact search, and weigh others against it.

    Raises:
        InvalidInput: there is no such space, or it has no vectors.
    """
    found = yield from chosen(info, space)
    rows = yield from count_rows(found)
    sample = yield from take_sample(found, rows, aim.sample)
    if not sample.vectors:
        raise InvalidInput(
            f"space {found.space_id} of collection {info.name!r} has no vectors to search for; "
            "ingest documents first"
        )
    sizes = yield from _sizes(found)
    measure = Measure(found, sample, aim.k, progress)
    exact = yield from measure.exact()
    if sizes["name"] is not None:
        yield from measure.recall({})
        measure.tried.clear()
        present = yield from measure.recall({})
        if present.recall < aim.recall:
            yield from measure.recall(_wider(found))
    begun = time.monotonic()
    options = []
    if rows >= indexes.INDEX_FROM:
        every = list(candidates(found))
        for number, (storage, index) in enumerate(every):
            if progress is not None:
                phase = f"timing a build of {storage} {index}"
                progress(IndexProgress(phase, number, len(every), "builds", time.monotonic() - begun))
            options.append((yield from weigh_option(measure, storage, index, rows, sizes["table_bytes"])))
    choice = _choose(info.name, found, aim, rows, measure.tried, options, sizes)
    return IndexAdvice(
        info.name,
        found.space_id,
        found.storage,
        found.index,
        sizes["name"],
        rows,
        aim.recall,
        aim.k,
        sample.source,
        len(sample.vectors),
        tuple(measure.tried),
        exact.p50,
        sizes["table_bytes"],
        sizes["index_bytes"],
        sizes["shared_buffers"],
        sizes["index_bytes"] <= sizes["shared_buffers"],
        tuple(options),
        choice.option,
        choice.command,
        tuple(choice.sql),
        tuple(choice.reasons),
    )


def _wider(space: SpaceInfo) -> dict[str, int]:
    """Return settings that find more than the usual ones, and still are fast."""
    settings = {"probes": 100} if space.index.method == "ivfflat" else {"ef_search": 800}
    return settings if space.index.form == "full" else {**settings, "rerank": 64}


def _sizes(space: SpaceInfo) -> Script[dict[str, Any]]:
    name = spaces.index_name(space)
    row = yield from fetch_one(
        "SELECT i.relname AS name, coalesce(pg_relation_size(i.oid), 0) AS index_bytes,"
        " pg_table_size(to_regclass(%(table)s)) AS table_bytes, s.setting::bigint"
        " * current_setting('block_size')::bigint AS shared_buffers"
        " FROM pg_settings s LEFT JOIN pg_class i ON i.oid = to_regclass(%(index)s)"
        " AND EXISTS (SELECT FROM pg_index x WHERE x.indexrelid = i.oid AND x.indisvalid)"
        " WHERE s.name = 'shared_buffers'",
        {"table": f"pgseek.embeddings_{space.space_id}", "index": f"pgseek.{name}"},
    )
    return row or {}


@dataclass(slots=True)
class _Choice:
    option: IndexOption | None
    command: str
    sql: Sequence[str]
    reasons: list[str]


def _choose(
    name: str,
    space: SpaceInfo,
    aim: Aim,
    rows: int,
    measured: Sequence[IndexRecall],
    options: Sequence[IndexOption],
    sizes: dict[str, Any],
) -> _Choice:
    """Say what to do; nothing, where the index holds the aim and finds room."""
    if rows < indexes.INDEX_FROM:
        return _Choice(None, "", (), [indexes.too_few(rows)])
    fitting = index_for(space.identity.dimensions, space.storage, space.metric)
    usual = next(o for o in options if (o.storage, o.index) == (space.storage, fitting))
    if not measured:
        return _building(name, space, rows, usual, ["there is no index: every search compares all vectors"])
    present = measured[0]
    if present.recall >= aim.recall:
        return _roomier(name, space, aim, rows, options, sizes, present)
    short = [f"recall@{aim.k} is {present.recall:.3f}, below {aim.recall:g}"]
    wider = measured[-1]
    if wider.recall >= aim.recall:
        short.append(
            f"searched more widely this index holds it: {wider.recall:.3f} at {described(wider.settings)}"
        )
        return _Choice(None, f"pgseek index tune {name} --recall {aim.recall:g}{_of(space)}", (), short)
    short.append(f"searched more widely ({described(wider.settings)}) it is {wider.recall:.3f}")
    better = [
        o
        for o in options
        if o.storage == space.storage
        and o.index != space.index
        and o.index.method == "hnsw"
        and (o.reachable is None or o.reachable >= aim.recall + ROOM)
    ]
    if not better:
        short.append("no other index is likely to hold it; without one (pgseek index drop) search is exact")
        return _Choice(None, "", (), short)
    best = max(better, key=lambda o: (o.index.form == "full", o.index.m or 16, o.reachable or 1.0))
    return _building(name, space, rows, best, short)


def _roomier(
    name: str,
    space: SpaceInfo,
    aim: Aim,
    rows: int,
    options: Sequence[IndexOption],
    sizes: dict[str, Any],
    present: IndexRecall,
) -> _Choice:
    reasons = [f"recall@{aim.k} is {present.recall:.3f}, not below {aim.recall:g}"]
    buffers = f"shared_buffers ({_megabytes(sizes['shared_buffers'])})"
    if sizes["index_bytes"] <= sizes["shared_buffers"]:
        reasons.append(f"the index ({_megabytes(sizes['index_bytes'])}) finds room in {buffers}")
        return _Choice(None, "", (), reasons)
    reasons.append(f"the index ({_megabytes(sizes['index_bytes'])}) finds no room in {buffers}")
    smaller = [
        o
        for o in options
        if 2 * o.index_bytes <= sizes["index_bytes"]
        and o.index.method == "hnsw"
        and o.reachable is not None
        and o.reachable >= aim.recall + ROOM
    ]
    if not smaller:
        reasons.append("none of half its size keeps the recall: give the server more memory, or leave it so")
        return _Choice(None, "", (), reasons)
    best = max(smaller, key=lambda o: (o.index_bytes <= sizes["shared_buffers"], o.reachable))
    reasons.append(
        f"{best.index} would be about {_megabytes(best.index_bytes)} and can reach {best.reachable:.3f}"
    )
    return _building(name, space, rows, best, reasons)


def _building(name: str, space: SpaceInfo, rows: int, option: IndexOption, reasons: Sequence[str]) -> _Choice:
    """Return the command and the statements that build an index."""
    if option.storage != space.storage:
        command = f"pgseek reembed {name} --to {space.identity} --storage {option.storage}"
        return _Choice(
            option, command, (), [*reasons, "another storage is another space, filled beside this one"]
        )
    memory = f"{max(64, math.ceil(option.build_bytes / 2**20))}MB"
    command = f"pgseek index build {name} --index {option.index} --maintenance-work-mem {memory}{_of(space)}"
    return _Choice(option, command, _statements(space, option.index, rows, memory), list(reasons))


def _statements(space: SpaceInfo, index: VectorIndex, rows: int, memory: str) -> list[str]:
    table = f"embeddings_{space.space_id}"
    ddl = indexes.index_ddl(space, index, rows, name=f"{table}_next", concurrently=True)
    old, new = spaces.index_name(space), f"{table}_{index.method}"
    indexing = Jsonb(index.to_json())
    update = SQL("UPDATE pgseek.embedding_spaces SET indexing = {}, searching = '{{}}' WHERE space_id = {}")
    return [
        f"SET maintenance_work_mem = '{memory}'",
        ddl,
        "BEGIN",
        f"ALTER INDEX IF EXISTS pgseek.{old} RENAME TO {table}_before",
        f"ALTER INDEX pgseek.{table}_next RENAME TO {new}",
        update.format(Literal(indexing), Literal(space.space_id)).as_string(),
        "COMMIT",
        f"DROP INDEX CONCURRENTLY IF EXISTS pgseek.{table}_before",
        "RESET maintenance_work_mem",
    ]


def _of(space: SpaceInfo) -> str:
    return "" if space.state == "active" else f" --space {space.space_id}"


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MB"
