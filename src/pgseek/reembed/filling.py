"""A second space, and the vectors it lacks: embedded, or cut from those that are stored."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from uuid import UUID

from psycopg.sql import SQL

from pgseek import cache, embedding, spaces
from pgseek.embedders.base import Embedder, Vectors, identity_hash
from pgseek.embedders.reduction import reduces
from pgseek.embedding import Embedding
from pgseek.errors import InvalidInput, PgseekError
from pgseek.indexing import building
from pgseek.steps import (
    Script,
    Stop,
    fetch,
    sleep,
    transact,
)
from pgseek.types import (
    Chunk,
    CollectionInfo,
    EmbedderIdentity,
    SpaceId,
    SpaceInfo,
)
from pgseek.vectors import Metric, Storage, VectorIndex

# Documents, and bytes of their text, that are read, embedded and written together.
BATCH_DOCUMENTS = 200
BATCH_BYTES = 8_000_000
# Documents whose vectors are cut from stored ones in one transaction: they are locked meanwhile.
BATCH_CUT = 1000
# Parts of a collection that are worked on by one worker each, by the first byte of document_id.
PARTS = 64
# Seconds that a worker has a part without a word; it says so between two batches.
LEASE = 300.0

MISSING = SQL(
    "c.collection_id = %(collection)s AND NOT EXISTS (SELECT FROM {table} e"
    " WHERE e.collection_id = c.collection_id AND e.document_id = c.document_id AND e.ordinal = c.ordinal)"
    # Documents in the queue have other chunks when they leave it, with vectors in every space.
    " AND NOT EXISTS (SELECT FROM pgseek.ingest_queue q"
    " WHERE q.collection_id = c.collection_id AND q.document_id = c.document_id)"
)


def begin(
    info: CollectionInfo,
    embedder: Embedder,
    metric: Metric,
    storage: Storage,
    index: VectorIndex,
    again: bool = False,
) -> Script[SpaceInfo]:
    """Make the new space, or find the one that was begun before.

    ``again`` is for a model that its provider changed under the same name: the new space has the identity of
    the one that is searched, and what the cache has of that is forgotten.

    Raises:
        InvalidInput: another one is being built.
        EmbedderError: the embedder does not work.
    """
    existing = yield from existing_space(info, embedder.identity, metric, storage, again=again)
    if existing is not None:
        return existing
    probes = yield from spaces.fingerprint(embedder)

    def write() -> Script[SpaceId]:
        # One at a time: two that begin together would make two spaces of the same. Who stores documents, and
        # holds the row's key, is not concerned.
        yield from fetch(
            "SELECT FROM pgseek.collections WHERE collection_id = %s FOR NO KEY UPDATE",
            [info.collection_id],
        )
        made = yield from existing_space(info, embedder.identity, metric, storage, again=again)
        if made is not None:
            return made.space_id
        others = [one for one in (yield from spaces.list_all(info)) if one.state == "building"]
        if others:
            raise InvalidInput(
                f"collection {info.name!r} is being re-embedded with {others[0]} already: finish "
                f"that, or give it up with pgseek spaces retire {info.name} {others[0].space_id}"
            )
        if again:
            yield from cache.clear(identity_hash(embedder.identity))
        made_id = yield from spaces.insert(
            info.collection_id, embedder.identity, metric, storage, index, "building", probes
        )
        yield from spaces.grant_as(info.space_id, made_id)
        return made_id

    space_id = yield from transact(write)
    return (yield from spaces.find(info, space_id))


def existing_space(
    info: CollectionInfo,
    identity: EmbedderIdentity,
    metric: Metric,
    storage: Storage,
    *,
    again: bool = False,
) -> Script[SpaceInfo | None]:
    """Return the space that is made of this; with ``again``, only one made since the one that is searched."""
    wanted = (identity, metric, storage)
    for one in (yield from spaces.list_all(info)):
        if again and one.space_id <= info.space_id:
            continue
        if one.state != "retired" and (one.identity, one.metric, one.storage) == wanted:
            return one
    return None


def source_of(info: CollectionInfo, identity: EmbedderIdentity) -> Script[SpaceInfo | None]:
    """Return a complete space whose vectors can be cut to those of ``identity``; full precision first."""
    live = yield from spaces.live(info.collection_id)
    fit = [s for s in live if s.state in {"active", "ready"} and reduces(s.identity, identity)]
    return min(fit, key=lambda s: s.storage != "vector", default=None)


def fill(
    run: Embedding,
    stop: Stop,
    report: Callable[[int], None],
    part_of: int = PARTS,
    *,
    again: bool = False,
) -> Script[dict[UUID, str]]:
    """Give every chunk its vector in the space of ``run``; return documents that cannot have one, and why.

    ``report`` is called with the rows of each batch. Several may do it at once,
    each works on parts that no other has. With ``again`` none is cut from what is stored.

    Raises:
        EmbedderError, CostLimitReached, DatabaseError: what was written stays.
    """
    space = run.info.space
    source = None if again else (yield from source_of(run.info, space.identity))
    refused: dict[UUID, str] = {}
    pause = 0.1
    while not stop.is_set():
        others = False
        parts = list(range(part_of))
        random.shuffle(parts)
        for part in parts:
            if stop.is_set():
                return refused
            if not (yield from _lacks(run.info, space, refused, part, part_of)):
                continue
            key = hashlib.sha256(f"{part}/{part_of}".encode()).digest()
            if not (yield from cache.claim(f"space {space.space_id}", [key], LEASE)):
                others = True
                continue
            try:
                work = _Part(run, source, part, part_of, refused, key)
                yield from work.fill(stop, report)
            finally:
                with contextlib.suppress(PgseekError):
                    yield from cache.release(f"space {space.space_id}", [key])
        if not (yield from _lacks(run.info, space, refused)):
            break
        if others:
            # What is left is with others: they may die over it.
            yield from sleep(pause)
            pause = min(pause * 1.5, 2.0)
    return refused


class _Part:
    """A part of a collection, by the first byte of the documents' ids."""

    def __init__(
        self,
        run: Embedding,
        source: SpaceInfo | None,
        part: int,
        part_of: int,
        refused: dict[UUID, str],
        key: bytes,
    ) -> None:
        self.run, self.source, self.refused, self.key = run, source, refused, key
        self.low, self.high = bounds(part, part_of)

    def fill(self, stop: Stop, report: Callable[[int], None]) -> Script[None]:
        """Work through the part, batch by batch."""
        space = self.run.info.space
        while not stop.is_set():
            ids = yield from self._next()
            if not ids:
                return
            yield from cache.renew(f"space {space.space_id}", [self.key], LEASE)
            written = 0
            if self.source is not None:
                written = yield from transact(partial(self._cut, self.source, ids))
                # Chunks that have no vector in the source either are embedded.
                ids = yield from self._still_lacking(ids)
            if ids:
                written += yield from self._embed(ids)
            report(written)

    def _next(self) -> Script[list[UUID]]:
        """Return the next documents of the part that lack a vector, of no more text than fits."""
        space = self.run.info.space
        rows = yield from fetch(
            SQL(
                "SELECT c.document_id, sum(octet_length(c.text)) AS bytes FROM pgseek.chunks c"
                " WHERE {missing}"
                " AND c.document_id BETWEEN %(low)s AND %(high)s AND c.document_id <> ALL (%(refused)s)"
                " GROUP BY c.document_id ORDER BY c.document_id LIMIT %(most)s"
            ).format(missing=MISSING.format(table=spaces.table_of(space.space_id))),
            {
                "collection": space.collection_id,
                "low": self.low,
                "high": self.high,
                "refused": list(self.refused),
                "most": BATCH_CUT if self.source is not None else BATCH_DOCUMENTS,
            },
        )
        ids: list[UUID] = []
        total = 0
        for row in rows:
            if ids and self.source is None and total + row["bytes"] > BATCH_BYTES:
                break
            ids.append(row["document_id"])
            total += row["bytes"]
        return ids

    def _embed(self, ids: Sequence[UUID]) -> Script[int]:
        """Embed documents outside of any transaction, and write what is still as it was read."""
        info = self.run.info
        rows = yield from fetch(
            "SELECT document_id, ordinal, kind, title, text, char_start, char_end, of_ordinal, text_hash"
            " FROM pgseek.chunks WHERE collection_id = %s AND document_id = ANY (%s)"
            " ORDER BY document_id, ordinal",
            [info.collection_id, list(ids)],
        )
        stored: dict[UUID, list[tuple[Chunk, str]]] = {}
        hashes: dict[tuple[UUID, int], bytes] = {}
        for row in rows:
            chunk = Chunk(
                row["ordinal"],
                row["text"],
                row["char_start"],
                row["char_end"],
                row["kind"],
                of_ordinal=row["of_ordinal"],
            )
            stored.setdefault(row["document_id"], []).append((chunk, row["title"]))
            hashes[row["document_id"], row["ordinal"]] = row["text_hash"]
        vectors, refused = yield from embedding.embed_stored(self.run, stored)
        self.refused.update(refused)
        if not vectors:
            return 0
        return (yield from transact(lambda: self._write(vectors, hashes)))

    def _write(
        self, vectors: Mapping[tuple[UUID, int], Vectors], hashes: Mapping[tuple[UUID, int], bytes]
    ) -> Script[int]:
        space = self.run.info.space
        yield from self._lock({document for document, _ in vectors})
        keys = list(vectors)
        rows = yield from fetch(
            SQL(
                "INSERT INTO {table} (collection_id, document_id, ordinal, embedding)"
                " SELECT c.collection_id, c.document_id, c.ordinal, u.embedding"
                " FROM unnest(%(ids)s::uuid[], %(ordinals)s::int[], %(hashes)s::bytea[], %(vectors)s)"
                " AS u (document_id, ordinal, text_hash, embedding) JOIN pgseek.chunks c"
                # Another text stands there by now: it is found missing again.
                " ON c.document_id = u.document_id AND c.ordinal = u.ordinal AND c.text_hash = u.text_hash"
                " WHERE c.collection_id = %(collection)s ON CONFLICT DO NOTHING RETURNING 1"
            ).format(table=spaces.table_of(space.space_id)),
            {
                "ids": [document for document, _ in keys],
                "ordinals": [ordinal for _, ordinal in keys],
                "hashes": [hashes[key] for key in keys],
                "vectors": [vectors[key] for key in keys],
                "collection": space.collection_id,
            },
        )
        return len(rows)

    def _still_lacking(self, ids: Sequence[UUID]) -> Script[list[UUID]]:
        space = self.run.info.space
        rows = yield from fetch(
            SQL(
                "SELECT DISTINCT c.document_id FROM pgseek.chunks c WHERE {missing}"
                " AND c.document_id = ANY (%(ids)s) ORDER BY c.document_id"
            ).format(missing=MISSING.format(table=spaces.table_of(space.space_id))),
            {"collection": space.collection_id, "ids": list(ids)},
        )
        return [row["document_id"] for row in rows]

    def _cut(self, source: SpaceInfo, ids: Sequence[UUID]) -> Script[int]:
        """Cut the vectors of documents from those of another space, in the database."""
        space = self.run.info.space
        yield from self._lock(ids)
        yield from spaces.vector_on_path()
        cut = (
            "l2_normalize(subvector(e.embedding, 1, %(d)s))"
            if space.identity.normalized
            else ("subvector(e.embedding, 1, %(d)s)")
        )
        rows = yield from fetch(
            SQL(
                "INSERT INTO {table} (collection_id, document_id, ordinal, embedding)"
                " SELECT e.collection_id, e.document_id, e.ordinal, {cut} FROM {source} e"
                " WHERE e.collection_id = %(collection)s AND e.document_id = ANY (%(ids)s)"
                " ON CONFLICT DO NOTHING RETURNING 1"
            ).format(
                table=spaces.table_of(space.space_id),
                source=spaces.table_of(source.space_id),
                cut=SQL(cut),
            ),
            {"collection": space.collection_id, "ids": list(ids), "d": space.identity.dimensions},
        )
        return len(rows)

    def _lock(self, ids: Sequence[UUID] | set[UUID]) -> Script[None]:
        """Keep documents as they are until the transaction ends, and the space from being retired.

        Writers lock their documents for themselves: what is read after this is what they left.
        """
        space = self.run.info.space
        yield from fetch(
            "SELECT FROM pgseek.documents WHERE collection_id = %s AND document_id = ANY (%s)"
            " ORDER BY document_id FOR SHARE",
            [space.collection_id, sorted(ids)],
        )
        live = yield from fetch(
            "SELECT space_id FROM pgseek.live_spaces(%s, %s::int[], %s)",
            [space.collection_id, [space.space_id], [space.identity_hash]],
        )
        if space.space_id not in {row["space_id"] for row in live}:
            raise InvalidInput(f"space {space.space_id} ({space}) was retired in the meantime")


def bounds(part: int, part_of: int) -> tuple[UUID, UUID]:
    """Return the first and the last id of a part, of a power of two up to 256 parts."""
    width = 256 // part_of
    return UUID(int=part * width << 120), UUID(int=((part + 1) * width << 120) - 1)


def _lacks(
    info: CollectionInfo,
    space: SpaceInfo,
    refused: Mapping[UUID, str],
    part: int = 0,
    part_of: int = 1,
) -> Script[bool]:
    low, high = bounds(part, part_of)
    found = yield from fetch(
        SQL(
            "SELECT FROM pgseek.chunks c WHERE {missing} AND c.document_id BETWEEN %(low)s AND %(high)s"
            " AND c.document_id <> ALL (%(refused)s) LIMIT 1"
        ).format(missing=MISSING.format(table=spaces.table_of(space.space_id))),
        {"collection": info.collection_id, "low": low, "high": high, "refused": list(refused)},
    )
    return bool(found)


def complete(info: CollectionInfo, space: SpaceInfo) -> Script[SpaceInfo]:
    """Index a space that has its vectors, and call it ready; one that is in use stays what it is."""
    # Beside the writers, who go on.
    yield from building.build(info, space.space_id, building.Wish(), None)
    yield from fetch(
        SQL("ANALYZE {} (collection_id, document_id, ordinal)").format(spaces.table_of(space.space_id))
    )
    yield from fetch(
        "UPDATE pgseek.embedding_spaces SET state = 'ready' WHERE space_id = %s AND state = 'building'",
        [space.space_id],
    )
    return (yield from spaces.find(info, space.space_id))
