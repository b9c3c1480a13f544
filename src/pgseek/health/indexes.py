"""Indexes: invalid, missing, unused, larger than their rows account for, or too large for the cache."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

from pgseek import metadata_indexes
from pgseek.health.facts import Facts
from pgseek.health.finding import HealthFinding, command, quoted, size
from pgseek.indexes import CODES, INDEX_FROM
from pgseek.steps import Row
from pgseek.types import MetadataIndex
from pgseek.vectors import VectorIndex

DAY = 86_400.0
# So long must scans have been counted before none of them says that an index is not used.
UNUSED_SECONDS = 14 * DAY
UNUSED_BYTES = 8 << 20
UNUSED_SCANS = 10_000
# An index is larger than it should be at so many times its estimate, and so many bytes above it.
BLOAT_RATIO = 2.0
BLOAT_BYTES = 8 << 20
# What a space that is not searched costs is told after so long.
KEPT_SECONDS = 14 * DAY
# The bytes of a page that hold entries, and of a table's row at least.
USABLE = 8152
LEAST_ROW = 60
# Measured: 13.8 bytes for each code of a chunk in 7,490 docstrings; less the more often words repeat.
CODES_BYTES = 14.0
# Where B-trees are filled at random, as by hashes.
FILLED = 0.7

_VECTORS = re.compile(r"embeddings_([0-9]+)(?:_[a-z]+)?")
_METADATA = re.compile(r"documents_metadata_([0-9]+)_[0-9a-f]{8}")
_OWN = re.compile(
    r"(embeddings_[0-9]+_(hnsw|ivfflat|next|before)|documents_metadata_idx|documents_updated_at_idx"
    r"|embedding_spaces_collection_id_idx|ingest_queue_due_at_idx|" + CODES + ")"
)


def judge(facts: Facts) -> Iterator[HealthFinding]:
    """Yield what is wrong with indexes."""
    yield from _invalid(facts)
    yield from _missing(facts)
    yield from _metadata(facts)
    yield from _unused(facts)
    yield from _kept(facts)
    yield from _bloated(facts)
    yield from _too_large(facts)


def is_visible(facts: Facts, name: str) -> bool:
    """Return whether a table or an index belongs to what this session sees."""
    vectors, metadata = _VECTORS.match(name), _METADATA.fullmatch(name)
    if vectors:
        return any(space["space_id"] == int(vectors[1]) for space in facts.spaces)
    if metadata:
        return facts.whole or any(row["collection_id"] == int(metadata[1]) for row in facts.collections)
    return True


def _space_of(facts: Facts, name: str) -> Row | None:
    found = _VECTORS.match(name)
    number = int(found[1]) if found else None
    return next((space for space in facts.spaces if space["space_id"] == number), None)


def own_index(space: Row) -> str:
    """Return the name of a space's index."""
    return f"embeddings_{space['space_id']}_{VectorIndex.parse(space['indexing']).method}"


def _build(space: Row, *options: str) -> str:
    of = () if space["active"] else ("--space", str(space["space_id"]))
    return command(space["tenant"], "index build", space["name"], *options, *of)


def _invalid(facts: Facts) -> Iterator[HealthFinding]:
    # On a standby nobody can tell one that is being built from one that was left.
    if facts.database["standby"]:
        return
    declared = set(_declared(facts))
    for name, index in facts.indexes.items():
        if index["valid"] or index["worked_on"] or not is_visible(facts, name):
            continue
        space = _space_of(facts, name)
        own = space is not None and name == own_index(space)
        needed = name == CODES or (own and space is not None and space["active"])
        if space is not None and _OWN.fullmatch(name):
            mend = _build(space)
        elif name == CODES or name in declared:
            mend = f"REINDEX INDEX CONCURRENTLY {quoted(name)}"
        else:
            mend = f"DROP INDEX CONCURRENTLY {quoted(name)}"
        yield HealthFinding(
            "index_invalid",
            "fail" if needed else "warn",
            name,
            f"not valid, {size(index['bytes'])}",
            "A build of it broke off: no search uses it, and every write keeps it up",
            mend,
            {"bytes": index["bytes"]},
            None if space is None else space["name"],
            "" if space is None else space["tenant"],
        )


def _missing(facts: Facts) -> Iterator[HealthFinding]:
    loading = "; somebody writes just now, and a large load builds it in its end" if facts.loading else ""
    if CODES not in facts.indexes and facts.rows("chunks") > 0:
        rows = int(facts.rows("chunks"))
        from pgseek.db import models  # noqa: PLC0415 (SQLAlchemy takes a while to load)

        yield HealthFinding(
            "index_missing",
            "note" if loading else "fail",
            CODES,
            f"missing, of about {rows:,} chunks",
            f"Searches for words read every chunk{loading}",
            " ".join(models.create_codes_ddl().split()),
            {"rows": rows},
        )
    for space in facts.spaces:
        table = f"embeddings_{space['space_id']}"
        rows = space.get("rows") or 0
        if rows >= INDEX_FROM:
            yield HealthFinding(
                "index_missing",
                "note" if loading or not space["active"] else "fail",
                f"index of {table}",
                f"missing, of {INDEX_FROM:,} vectors or more",
                f"Searches of {space['name']} compare every vector{loading}",
                _build(space),
                {"rows": rows},
                space["name"],
                space["tenant"],
            )


def lacking(facts: Facts) -> list[Row]:
    """Return the spaces that have no index and a table that might hold enough rows for one."""
    return [
        space
        for space in facts.spaces
        if not space["copy"]
        and VectorIndex.parse(space["indexing"]).method != "none"
        and own_index(space) not in facts.indexes
        and (table := facts.tables.get(f"embeddings_{space['space_id']}")) is not None
        and table["bytes"] >= LEAST_ROW * INDEX_FROM
        and not table["locked"]
    ]


def _declared(facts: Facts) -> dict[str, tuple[Row, MetadataIndex]]:
    """Return the indexes of metadata fields that collections declare, by name."""
    return {
        metadata_indexes.index_name(row["collection_id"], index): (row, index)
        for row in facts.collections
        for index in metadata_indexes.declared(row["metadata_indexes"])
    }


def _metadata(facts: Facts) -> Iterator[HealthFinding]:
    declared = _declared(facts)
    for name, (row, field) in declared.items():
        if name in facts.indexes or row["copy"]:
            continue
        yield HealthFinding(
            "index_missing",
            "warn",
            name,
            f"missing; collection {row['name']} declares an index of {field}",
            "Filters on this field read every document that the other conditions leave",
            command(
                row["tenant"],
                "collections index-metadata",
                row["name"],
                json.dumps(list(field.field)),
                field.type,
            ),
            {"field": list(field.field), "type": field.type},
            row["name"],
            row["tenant"],
        )
    for name, index in facts.indexes.items():
        stray = _METADATA.fullmatch(name) and name not in declared and facts.whole
        if stray and index["valid"] and not index["worked_on"]:
            yield HealthFinding(
                "index_stray",
                "note",
                name,
                f"{size(index['bytes'])}, and no collection declares it",
                "No search uses it, and every write of its collection keeps it up",
                f"DROP INDEX CONCURRENTLY {quoted(name)}",
                {"bytes": index["bytes"]},
            )


def _unused(facts: Facts) -> Iterator[HealthFinding]:
    database, declared = facts.database, _declared(facts)
    seconds = min(database["counted_seconds"] or math.inf, database["used_seconds"] or 0.0)
    if database["standby"] or seconds < UNUSED_SECONDS:
        return
    for name, index in facts.indexes.items():
        own = (
            _OWN.fullmatch(name) or index["is_unique"] or (_METADATA.fullmatch(name) and name not in declared)
        )
        if index["scans"] or index["bytes"] < UNUSED_BYTES or own or not index["valid"]:
            continue
        table = facts.tables[index["of_table"]]
        if table["scans"] < UNUSED_SCANS:
            continue
        collection, tenant = None, ""
        mend = f"DROP INDEX CONCURRENTLY {quoted(name)}"
        if name in declared:
            owner, field = declared[name]
            collection, tenant = owner["name"], owner["tenant"]
            mend = command(
                tenant, "collections drop-metadata-index", collection, json.dumps(list(field.field))
            )
        yield HealthFinding(
            "index_unused",
            "note",
            name,
            f"{size(index['bytes'])}, not scanned once in {seconds / DAY:.0f} days, or since it was built;"
            f" its table was {table['scans']:,} times",
            "Every write keeps it up. Standbys count for themselves: look there, too",
            mend,
            {"bytes": index["bytes"], "seconds": seconds, "table_scans": table["scans"]},
            collection,
            tenant,
        )


def _kept(facts: Facts) -> Iterator[HealthFinding]:
    for space in facts.spaces:
        since = space["switched_seconds"]
        if space["copy"] or space["active"] or space["state"] != "ready" or (since or 0) < KEPT_SECONDS:
            continue
        table = f"embeddings_{space['space_id']}"
        taken = facts.tables.get(table, {}).get("bytes", 0) + sum(
            index["bytes"] for index in facts.indexes.values() if index["of_table"] == table
        )
        yield HealthFinding(
            "space_kept",
            "note",
            f"space {space['space_id']} of {space['name']} ({space['model']})",
            f"{size(taken)}; another space is searched since {since / DAY:.0f} days",
            "Every document that is written is embedded for it, too",
            command(space["tenant"], "spaces retire", space["name"], space["space_id"]),
            {"bytes": taken, "seconds": since},
            space["name"],
            space["tenant"],
        )


def expected_bytes(facts: Facts, name: str, index: Row) -> float | None:
    """Return about how many bytes an index takes that is built anew, None where that cannot be told."""
    rows = facts.rows(index["of_table"])
    space = _space_of(facts, name)
    if index["method"] == "hnsw" and space is not None:
        return graph_bytes(space, rows)
    if name == CODES and index.get("codes"):
        return rows * float(index["codes"]) * CODES_BYTES
    if index["method"] == "btree" and index["fixed"] and index["is_unique"]:
        # A header, the key on a boundary of eight bytes, and a pointer.
        return rows * (12 + 8 * math.ceil(int(index["width"]) / 8)) / FILLED
    return None


def graph_bytes(space: Row, rows: float) -> float:
    """Return about how many bytes pgvector's HNSW takes: an element and its neighbours side by side."""
    index = VectorIndex.parse(space["indexing"])
    numbers = index.prefix or space["dimensions"]
    vector = (
        8 + math.ceil(numbers / 8)
        if index.form == "binary"
        else (8 + numbers * (2 if space["storage"] == "halfvec" else 4))
    )
    m = index.m or 16
    element = 8 * math.ceil((72 + vector) / 8) + 4
    # Two layers' worth of neighbours on the ground, and one more for one in m.
    neighbours = 8 * math.ceil((4 + 6 * m * (2 + 1 / (m - 1))) / 8) + 4
    each = element + neighbours
    return rows * (USABLE + 40) / max(1, USABLE // each) if each <= USABLE else rows * 2 * (USABLE + 40)


def _bloated(facts: Facts) -> Iterator[HealthFinding]:
    if facts.database["standby"]:
        return
    for name, index in facts.indexes.items():
        if not index["valid"] or not is_visible(facts, name):
            continue
        expected = expected_bytes(facts, name, index)
        over = index["bytes"] - (expected or 0)
        if expected is None or index["bytes"] < BLOAT_RATIO * expected or over < BLOAT_BYTES:
            continue
        space = _space_of(facts, name)
        graph = space is not None and index["method"] == "hnsw"
        rows = int(facts.rows(index["of_table"]))
        yield HealthFinding(
            "index_bloated",
            "warn",
            name,
            f"{size(index['bytes'])}; {rows:,} rows would take about {size(expected)} in a new one",
            "It holds room of rows that are gone, which is read, and takes the place of others in memory",
            _build(space, "--rebuild")
            if space is not None and graph
            else f"REINDEX INDEX CONCURRENTLY {quoted(name)}",
            {"bytes": index["bytes"], "expected_bytes": int(expected), "rows": rows},
            space["name"] if space is not None else None,
            space["tenant"] if space is not None else "",
        )


def _too_large(facts: Facts) -> Iterator[HealthFinding]:
    """What a search walks at random: the graphs of what is searched, and the index of words."""
    buffers = facts.bytes("shared_buffers")
    walked = {CODES} | {own_index(space) for space in facts.spaces if space["active"] and not space["copy"]}
    sizes = {name: facts.indexes[name]["bytes"] for name in walked if name in facts.indexes}
    total = sum(sizes.values())
    if total <= buffers:
        return
    largest = max(sizes, key=lambda name: sizes[name])
    space = _space_of(facts, largest)
    smaller = ""
    if space is not None:
        advise = command(space["tenant"], "index advise", space["name"])
        smaller = f"; or an index that takes less: {advise}"
    wanted = math.ceil(1.25 * total / (1 << 20))
    yield HealthFinding(
        "shared_buffers_small",
        "warn",
        "shared_buffers",
        f"{size(buffers)}; the indexes that searches walk take {size(total)},"
        f" {largest} {size(sizes[largest])}",
        "What finds no room is read from the operating system or from disk, page by page",
        f"ALTER SYSTEM SET shared_buffers = '{wanted}MB' (and restart the server; a quarter of the memory is"
        f" usual){smaller}",
        {"shared_buffers": buffers, "bytes": total, "largest": largest},
    )
