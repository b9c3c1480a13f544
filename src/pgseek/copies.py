"""Other chunks for a collection that is in use: a hidden copy of it is made beside it, and takes its name.

`begin` makes the copy, with its own settings and its own embedding space; from then on what is written to one
of the two reaches the other in the same transaction (``pgseek.mirror_documents``). `fill` brings over what
was there before; the queue of the copy is drained as any queue is, by drains and workers. `switch` exchanges
the names in one transaction. The collection that had the name before is the copy of the other then, and is
kept in step, so that `rollback` can exchange them again, until `retire` drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from pgseek import collections, metadata_indexes, queue, spaces
from pgseek.embedders.base import Embedder
from pgseek.embedders.limits import Spending
from pgseek.embedding import Embedding, chunked
from pgseek.errors import ChangeRefused, CollectionNotFound, InvalidInput
from pgseek.generators.base import TextGenerator
from pgseek.loading import settle
from pgseek.steps import Script, Stop, fetch, fetch_one, transact
from pgseek.transactions import PATIENCE, wait_for_writers
from pgseek.types import CachePolicy, CollectionInfo, CopyStatus, EmbedderIdentity
from pgseek.vectors import VectorIndex, check_metric, index_for, storage_for

# Documents, and bytes of their texts, that are copied together: who changes one of them waits for that.
BATCH_SIZE = 200
BATCH_BYTES = 2_000_000
# Documents whose chunks tell how long the copy's chunks will be.
SAMPLE = 300
# Settings whose default follows from others, or from the embedder.
_DERIVED = ("alpha", "normalization", "collapse")

_WALK: LiteralString = """
SELECT d.document_id, octet_length(d.body) AS bytes,
       coalesce(c.content_hash = d.content_hash AND c.metadata = d.metadata, false) AS same
  FROM (SELECT * FROM pgseek.documents
         WHERE collection_id = %(original)s AND document_id > %(after)s
         ORDER BY document_id LIMIT %(most)s) AS d
  LEFT JOIN pgseek.documents c ON c.collection_id = %(copy)s AND c.document_id = d.document_id
 ORDER BY d.document_id
"""
_SURPLUS: LiteralString = """
SELECT c.document_id FROM pgseek.documents c
 WHERE c.collection_id = %(copy)s AND NOT EXISTS (SELECT FROM pgseek.documents d
       WHERE d.collection_id = %(original)s AND d.document_id = c.document_id)
 ORDER BY c.document_id
"""
# Copied and deleted: keys of tables that are spread over nodes do not change.
_MOVE_GOLDEN: tuple[LiteralString, ...] = (
    "INSERT INTO pgseek.golden_sets (collection_id, name, created_at)"
    " SELECT %(new)s, name, created_at FROM pgseek.golden_sets WHERE collection_id = %(old)s",
    "INSERT INTO pgseek.golden_queries (collection_id, name, query_id, query)"
    " SELECT %(new)s, name, query_id, query FROM pgseek.golden_queries WHERE collection_id = %(old)s",
    "INSERT INTO pgseek.golden_judgements (collection_id, name, query_id, external_id, relevance)"
    " SELECT %(new)s, name, query_id, external_id, relevance FROM pgseek.golden_judgements"
    " WHERE collection_id = %(old)s",
    "DELETE FROM pgseek.golden_sets WHERE collection_id = %(old)s",
)


def begin(
    info: CollectionInfo,
    embedder: Embedder | str,
    changes: Mapping[str, Any],
    *,
    generator: TextGenerator | str | None = None,
    metric: str | None = None,
    storage: str | None = None,
    index: str | Mapping[str, Any] | VectorIndex | None = None,
) -> Script[CollectionInfo]:
    """Make the copy of a collection, or return the one that was begun with the same settings and embedder.

    Settings that are not in ``changes`` are the original's, and so are metric, storage and index of the space
    where they fit the embedder. The copy is empty: `fill` it.

    Raises:
        InvalidInput: an unknown setting, a value out of its range, or no generator for what is to be written.
        ChangeRefused: the collection has another copy.
        EmbedderError: the embedder does not work.
        CollectionNotFound: the collection is not what it was when ``info`` was read.
    """
    if info.copy_of is not None:
        raise InvalidInput(f"{info.name!r} is a copy itself; begin with {info.original!r}")
    chosen = collections.choose_embedder(embedder, None)
    identity = chosen.identity
    settings = yield from settings_for(info, identity, changes, generator)
    chosen_metric = check_metric(metric or info.space.metric)
    alike = identity.dimensions == info.identity.dimensions
    chosen_storage = storage_for(identity.dimensions, storage or (info.space.storage if alike else None))
    given_index = info.space.index if index is None and alike else index
    chosen_index = index_for(identity.dimensions, chosen_storage, chosen_metric, given_index)
    wanted = (settings, identity, chosen_metric, chosen_storage, chosen_index)

    yield from _finish_retiring(info)
    found = yield from _find(info)
    if found is not None:
        return _same(info, found, wanted)
    probes = yield from spaces.fingerprint(chosen)
    weighting = yield from _weighting(replace(info, settings=settings), chosen)

    def write() -> Script[None]:
        # An update, though of nothing: transactions that see the database as it was cannot write after it.
        current = yield from fetch(
            "UPDATE pgseek.collections SET settings = settings"
            " WHERE collection_id = %s AND name = %s AND copy_of IS NULL RETURNING name",
            [info.collection_id, info.name],
        )
        if not current:
            raise CollectionNotFound(
                f"collection {info.name!r} was dropped, or another took its name; open it again"
            )
        if (yield from fetch("SELECT FROM pgseek.collections WHERE copy_of = %s", [info.collection_id])):
            return
        row = yield from fetch_one(
            "INSERT INTO pgseek.collections (tenant, name, language, languages, settings, metadata_indexes,"
            " copy_of, created_at) SELECT o.tenant, o.name || '~' || gen_random_uuid(), o.language,"
            " o.languages, %s, o.metadata_indexes, o.collection_id, 'infinity'"
            " FROM pgseek.collections o WHERE o.collection_id = %s RETURNING collection_id",
            [Jsonb(settings), info.collection_id],
        )
        copy_id = row["collection_id"] if row else 0
        yield from fetch(
            "UPDATE pgseek.collections SET name = %s WHERE collection_id = %s",
            [hidden_name(info.name, copy_id), copy_id],
        )
        space_id = yield from spaces.insert(
            copy_id, identity, chosen_metric, chosen_storage, chosen_index, "active", probes
        )
        yield from spaces.grant_as(info.space_id, space_id)
        yield from collections.furnish(copy_id, space_id, settings, weighting)

    yield from transact(write)
    made = yield from _find(info)
    if made is None:
        raise ChangeRefused(
            f"the copy of collection {info.name!r} was dropped as soon as it was made; try again"
        )
    yield from metadata_indexes.ensure(made.collection_id)
    return _same(info, made, wanted)


def _find(info: CollectionInfo) -> Script[CollectionInfo | None]:
    """Return the copy, with the time noted from when on a transaction that begins knows of it."""
    found = yield from collections.find_copy(info)
    if found is not None:
        yield from fetch(
            "UPDATE pgseek.collections SET created_at = clock_timestamp()"
            " WHERE collection_id = %s AND created_at = 'infinity'",
            [found.collection_id],
        )
    return found


def hidden_name(name: str, collection_id: int) -> str:
    """Return the name of a collection while it is a copy of ``name``: one that nobody can give."""
    return f"{name}~{collection_id}"


def settings_for(
    info: CollectionInfo,
    identity: EmbedderIdentity,
    changes: Mapping[str, Any],
    generator: TextGenerator | str | None = None,
) -> Script[dict[str, Any]]:
    """Return the settings of a copy: those of the collection with changes, or raise `InvalidInput`.

    What was the default where it depends on the embedder, or on other settings, is the default again.
    """
    # What holds for a collection of before there were these settings.
    stored: dict[str, Any] = {"heading_context": False, "normalization": "max", **info.settings}
    row = yield from fetch_one(
        # As text, 1.2 is 1.2. What `reweigh` was given last is not in the settings.
        "SELECT weighting[1]::text AS k1, weighting[2]::text AS b, weighting[4]::text AS title_weight"
        " FROM pgseek.collection_statistics WHERE collection_id = %s",
        [info.collection_id],
    )
    stored.update({name: float(value) for name, value in (row or {}).items()})
    spec = stored.pop("generator", "")
    fixed = {name: value for name, value in stored.items() if name not in _DERIVED}
    defaults = collections.default_settings(info.identity, **fixed)
    kept = {name: stored.get(name) for name in _DERIVED if stored.get(name) != defaults[name]}
    made = collections.default_settings(
        identity, **{**fixed, **kept, **{name: value for name, value in changes.items() if value is not None}}
    )
    wanted = made["questions"] or made["summaries"]
    if generator is None:
        generator = spec if wanted else None
    collections.check_generator(generator, made)
    made["generator"] = generator if isinstance(generator, str) else ""
    return made


def _same(info: CollectionInfo, copy: CollectionInfo, wanted: tuple[Any, ...]) -> CollectionInfo:
    """Return the copy if it is as wanted, or raise `ChangeRefused`."""
    space = copy.space
    there = (copy.settings, space.identity, space.metric, space.storage, space.index)
    if there == wanted:
        return copy
    settings, *of_space = wanted
    other = [f"{name} {value!r}" for name, value in copy.settings.items() if value != settings.get(name)]
    if (space.identity, space.metric, space.storage, space.index) != tuple(of_space):
        other.append(f"vectors of {space}, stored as {space.storage}, index {space.index}")
    way_out = f"drop it first: pgseek collections drop {copy.name}"
    if copy.kept:
        raise ChangeRefused(
            f"collection {info.name!r} keeps {copy.name!r}, which had its name before, to go back to "
            f"({', '.join(other)}); {way_out}"
        )
    raise ChangeRefused(
        f"collection {info.name!r} has a copy under way, {copy.name!r}, that is made otherwise "
        f"({', '.join(other)}); go on with that one, or {way_out}"
    )


def _finish_retiring(info: CollectionInfo) -> Script[None]:
    """Drop a copy whose `retire` was broken off."""
    rows = yield from fetch(
        "SELECT name FROM pgseek.collections WHERE copy_of = %s AND active_space_id IS NULL",
        [info.collection_id],
    )
    for row in rows:
        yield from collections.drop(row["name"])


def _weighting(info: CollectionInfo, embedder: Embedder) -> Script[list[float] | None]:
    """Return what the words of a copy are weighed with, by the chunks of some documents; None without any.

    Documents are in the order of a hash of their ids: the first are as good a sample as any.
    """
    rows = yield from fetch(
        "SELECT document_id, octet_length(body) AS bytes FROM pgseek.documents WHERE collection_id = %s"
        " ORDER BY document_id LIMIT %s",
        [info.collection_id, SAMPLE],
    )
    ids = next(_divided([(row["document_id"], row["bytes"]) for row in rows], SAMPLE), [])
    documents = yield from queue.read(info, ids)
    pending = chunked(Embedding(info, embedder, CachePolicy(), Spending()), documents)
    passages = [row for of_document in pending.rows.values() for row in of_document]
    proposed = yield from fetch_one(
        "SELECT pgseek.propose_weighting(%s, %s::text[], %s::text[], %s::real, %s::real, %s::real)"
        " AS weighting",
        [
            info.language,
            [row.title for row in passages],
            [row.chunk.text for row in passages],
            *(info.settings[name] for name in ("k1", "b", "title_weight")),
        ],
    )
    weighting: list[float] | None = proposed["weighting"] if proposed else None
    return weighting


def fill(
    copy: CollectionInfo,
    *,
    progress: Callable[[int, int], None] | None = None,
    stop: Stop | None = None,
    patience: float = PATIENCE,
) -> Script[CopyStatus]:
    """Bring a copy to what its original holds: documents that are not in it, or are there otherwise.

    They are put into the copy's queue, for a drain or a worker. May be broken off, by ``stop`` too, and run
    again: what is there is left. ``progress`` is called with how many documents were looked at, of how many.

    Raises:
        ChangeRefused: it is no copy any more, or a transaction that may write without knowing of the copy is
            open for longer than ``patience`` seconds.
        CollectionNotFound: it was dropped.
    """
    copy = yield from collections.find_again(copy)
    original = yield from original_of(copy)
    # Who began to write before the copy was made does not write to it.
    yield from wait_for_writers(copy.collection_id, patience)
    counted = yield from fetch_one(
        "SELECT count(*) AS of FROM pgseek.documents WHERE collection_id = %s", [original.collection_id]
    )
    of = counted["of"] if counted else 0
    parameters = {
        "original": original.collection_id,
        "copy": copy.collection_id,
        "after": UUID(int=0),
        "most": BATCH_SIZE,
    }
    seen = 0
    while not (stop is not None and stop.is_set()):
        rows = yield from fetch(_WALK, parameters)
        if not rows:
            gone = yield from fetch(_SURPLUS, parameters)
            yield from _mirror(original, [(row["document_id"], 0) for row in gone])
            break
        yield from _mirror(original, [(row["document_id"], row["bytes"]) for row in rows if not row["same"]])
        parameters["after"] = rows[-1]["document_id"]
        seen += len(rows)
        if progress is not None:
            progress(seen, max(seen, of))
    status = yield from collections.copy_status(original)
    if status is None:
        raise CollectionNotFound(f"the copy {copy.name!r} was dropped in the meantime")
    return status


def original_of(copy: CollectionInfo) -> Script[CollectionInfo]:
    """Return the collection that has the name, or raise `ChangeRefused` if ``copy`` is none's copy."""
    if copy.original is None:
        raise ChangeRefused(f"collection {copy.name!r} is not a copy of another")
    return (yield from collections.find(copy.original))


def _mirror(original: CollectionInfo, sizes: Sequence[tuple[UUID, int]]) -> Script[None]:
    for ids in _divided(sizes, BATCH_SIZE):

        def write(ids: list[UUID] = ids) -> Script[None]:
            yield from fetch("SELECT pgseek.mirror_documents(%s, %s)", [original.collection_id, ids])

        yield from transact(write)


def _divided(sizes: Sequence[tuple[UUID, int]], most: int) -> Iterator[list[UUID]]:
    """Yield up to ``most`` ids whose texts are not too much to be held at one time, or a single one."""
    ids: list[UUID] = []
    total = 0
    for i, size in sizes:
        if ids and (len(ids) == most or total + size > BATCH_BYTES):
            yield ids
            ids, total = [], 0
        ids.append(i)
        total += size
    if ids:
        yield ids


def switch(
    info: CollectionInfo, copy: CollectionInfo, *, allow_queued: bool = False, patience: float = PATIENCE
) -> Script[CollectionInfo]:
    """Let the copy of a collection take its name, in one transaction; return it as it is then.

    The other one becomes its copy and is kept in step. Documents that wait in the copy's queue, or were given
    up there, are found by their words only: with ``allow_queued`` they do not keep it.

    Raises:
        ChangeRefused: something is missing in the copy, and the message says what; or the two are no longer a
            collection and its copy; or a transaction that does not know of the copy is open.
    """
    if (yield from collections.find_again(copy)).copy_of != info.collection_id:
        raise _no_longer(info, copy)
    yield from settle(copy, 0)
    if not copy.kept:
        # Those of when it was half stand-ins may count as many chunks.
        yield from collections.refresh_statistics(copy, False)
    yield from wait_for_writers(copy.collection_id, patience)
    yield from transact(partial(_exchange, info, copy, partial(_check, info, allow_queued)))
    return (yield from collections.find(info.name))


def rollback(info: CollectionInfo) -> Script[CollectionInfo]:
    """Let the collection that had the name before have it again; return it.

    Nothing is compared, since it was kept in step; what was written since may still wait in its queue.

    Raises:
        ChangeRefused: there is none.
    """
    kept = yield from collections.find_copy(info)
    if kept is None or not kept.kept:
        raise ChangeRefused(f"collection {info.name!r} keeps no other one that had its name before")
    yield from transact(partial(_exchange, info, kept))
    return (yield from collections.find(info.name))


def retire(copy: CollectionInfo, *, patience: float = PATIENCE) -> Script[None]:
    """Drop a copy: one that was kept, or that is not wanted after all. Searches and writes go on.

    If it is broken off, run it again; the copy is not kept in step any more.

    Raises:
        ChangeRefused: it is no copy, or see `collections.drop`.
        CollectionNotFound: it is gone.
    """
    now = yield from collections.find_again(copy)
    yield from original_of(now)
    yield from collections.drop(now.name, patience)


def _check(info: CollectionInfo, allow_queued: bool) -> Script[None]:
    """Raise `ChangeRefused` unless the copy may take over."""
    status = yield from collections.copy_status(info)
    if status is None:
        return
    parts = [
        f"{count:,} {what}"
        for count, what in (
            (status.of - status.documents, "documents are not in it as they are"),
            (status.surplus, "documents are in it only"),
            (0 if allow_queued else status.queued, "documents wait in its queue"),
            (0 if allow_queued else status.failed, "documents could not be embedded"),
        )
        if count
    ]
    if parts:
        raise ChangeRefused(
            f"{status.name!r} cannot take the place of {info.name!r} yet: {', '.join(parts)}"
            + (f"; pgseek queue drain {status.name}" if status.complete else "; fill it again")
        )


def _no_longer(info: CollectionInfo, copy: CollectionInfo) -> ChangeRefused:
    return ChangeRefused(
        f"{copy.name!r} is no longer the copy of collection {info.name!r}, or was dropped; look again"
    )


def _exchange(
    info: CollectionInfo, copy: CollectionInfo, check: Callable[[], Script[None]] | None = None
) -> Script[None]:
    """Exchange the names of two collections, in the transaction of the caller."""
    ids = {"old": info.collection_id, "new": copy.collection_id}
    # In the order in which writers come to them.
    rows = yield from fetch(
        "SELECT name, copy_of, active_space_id IS NOT NULL AS usable FROM pgseek.collections"
        " WHERE collection_id IN (%(old)s, %(new)s) ORDER BY collection_id = %(new)s FOR NO KEY UPDATE",
        ids,
    )
    expected = [
        {"name": info.name, "copy_of": None, "usable": True},
        {"name": copy.name, "copy_of": info.collection_id, "usable": True},
    ]
    if rows != expected:
        raise _no_longer(info, copy)
    if check is not None:
        yield from check()
    yield from fetch(
        "UPDATE pgseek.collections SET name = %(hidden)s, copy_of = %(new)s WHERE collection_id = %(old)s",
        {**ids, "hidden": hidden_name(info.name, info.collection_id)},
    )
    yield from fetch(
        "UPDATE pgseek.collections n SET name = %(name)s, copy_of = NULL, formerly = ARRAY("
        " SELECT DISTINCT f FROM unnest(n.formerly || o.formerly || o.collection_id) AS f"
        " WHERE f <> n.collection_id ORDER BY f)"
        " FROM pgseek.collections o WHERE n.collection_id = %(new)s AND o.collection_id = %(old)s",
        {**ids, "name": info.name},
    )
    # What the collection of this name is measured by, whichever it is.
    for statement in _MOVE_GOLDEN:
        yield from fetch(statement, ids)
    yield from fetch(
        "UPDATE pgseek.embedding_spaces SET activated_at = statement_timestamp() WHERE space_id ="
        " (SELECT active_space_id FROM pgseek.collections WHERE collection_id = %(new)s)",
        ids,
    )
