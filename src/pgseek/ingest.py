"""Ingest: check, compare by hash, embed what changed, write each batch in one transaction.

The path of a batch: `prepare` every document (or reject it) → `_compare` with what is stored →
chunk and embed only new and changed content (`embed_chunks`, through the cache, outside of any
transaction) → `write_batch` documents, chunks and embeddings together. A kill between two batches
leaves whole documents only; running it again finds the written ones unchanged.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg.sql import SQL, Identifier

from pgseek.chunking import chunk_text
from pgseek.collections import ensure_index, languages
from pgseek.embedders.base import Embedder, Vectors, usable
from pgseek.errors import DatabaseError, InvalidInput
from pgseek.prepare import BATCH_SIZE, Prepared, Source, batches
from pgseek.steps import Script, embed_documents, fetch, fetch_one, transact
from pgseek.types import CollectionInfo, Document, IngestReport, Rejection
from pgseek.writing import EmbeddedChunk, write_batch

Progress = Callable[[IngestReport], None]
# Up to this many chunks an ingest may rewrite them all to weigh them anew.
REWEIGH_UP_TO = 50_000
# The planner's statistics are gathered anew after an ingest that wrote this many chunks.
ANALYZE_FROM = 1000


@dataclass(slots=True)
class Tally:
    """The running counts of one ingest."""

    new: int = 0
    changed: int = 0
    metadata_changed: int = 0
    unchanged: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    chunks: int = 0
    embedded: int = 0
    cached: int = 0
    started: float = field(default_factory=time.perf_counter)

    def report(self) -> IngestReport:
        return IngestReport(
            self.new,
            self.changed,
            self.metadata_changed,
            self.unchanged,
            tuple(self.rejected),
            self.chunks,
            self.embedded,
            self.cached,
            time.perf_counter() - self.started,
        )


def embedding_text(title: str, chunk: str) -> str:
    """Return what is embedded for a chunk: its document's title, then its own text."""
    return f"{title}\n\n{chunk}" if title else chunk


def ingest(
    info: CollectionInfo,
    embedder: Embedder,
    documents: Iterable[Source],
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Script[IngestReport]:
    """Store documents, batch by batch; a source's own rejections pass through into the report."""
    if not isinstance(batch_size, int) or not 1 <= batch_size <= 10_000:
        raise InvalidInput(f"batch_size is {batch_size!r}, but must be from 1 to 10,000")
    if isinstance(documents, str | bytes | Mapping | Document):
        raise InvalidInput(
            f"ingest takes a list or other iterable of documents, not one {type(documents).__name__}"
        )
    tally = Tally()
    known = yield from languages()
    for batch in batches(documents, info.language, known, batch_size, tally.rejected):
        yield from _ingest_batch(info, embedder, batch, tally)
        if progress is not None:
            progress(tally.report())
    yield from settle(info, tally.chunks)
    return tally.report()


def settle(info: CollectionInfo, written: int) -> Script[None]:
    """After writing ``written`` chunks: statistics, the index if it is due, and the planner's view."""
    # Asked of the catalogue, not of this run: an earlier one may have been killed before it came here.
    yield from keep_statistics(info)
    yield from ensure_index(info)
    # What was written last waits in the index's list of pending entries: searches need not read it.
    yield from fetch(
        "SELECT gin_clean_pending_list(oid) FROM pg_class WHERE oid = to_regclass('pgseek.chunks_codes_idx')"
        " AND pg_has_role(relowner, 'USAGE') AND current_setting('transaction_read_only') = 'off'"
    )
    state = yield from fetch_one(
        "SELECT count(*) > 0 AS never FROM pg_class WHERE oid = ANY (ARRAY[to_regclass('pgseek.chunks'),"
        " to_regclass(%s)]::oid[]) AND reltuples < 0",
        [f"pgseek.embeddings_{info.space_id}"],
    )
    if written >= ANALYZE_FROM or (state is not None and state["never"]):
        tables = ("documents", "chunks", f"embeddings_{info.space_id}")
        names = SQL(", ").join(Identifier("pgseek", table) for table in tables)
        # A user who does not own the tables gets a warning from the server, not an error.
        yield from fetch(SQL("ANALYZE {}").format(names))


def keep_statistics(info: CollectionInfo) -> Script[None]:
    """Refresh BM25's statistics once the collection has grown or shrunk by a tenth since the last time.

    A collection of moderate size whose average length has moved by a tenth is weighed anew, too.
    """
    row = yield from fetch_one(
        "SELECT s.chunks AS then, (SELECT count(*) FROM pgseek.chunks c"
        " WHERE c.collection_id = s.collection_id) AS now"
        " FROM pgseek.collection_statistics s WHERE s.collection_id = %s",
        [info.collection_id],
    )
    if row is None or abs(row["now"] - row["then"]) * 10 < row["then"] or row["now"] == row["then"]:
        return
    refreshed = yield from fetch_one("SELECT drift FROM pgseek.refresh_statistics(%s)", [info.name])
    drift = refreshed["drift"] if refreshed else None
    if drift is not None and not 0.9 <= drift <= 1.1 and row["now"] <= REWEIGH_UP_TO:
        yield from fetch("SELECT pgseek.reweigh(%s)", [info.name])


def _ingest_batch(
    info: CollectionInfo, embedder: Embedder, batch: Sequence[Prepared], tally: Tally
) -> Script[None]:
    if not batch:
        return
    stored = yield from _compare(info, batch)
    other_content: list[Prepared] = []
    other_metadata: list[Prepared] = []
    for document in batch:
        state = stored.get(document.document_id)
        if state is None or not state["same_content"]:
            other_content.append(document)
        elif not state["same_metadata"]:
            other_metadata.append(document)
        else:
            tally.unchanged += 1
    embedded = yield from embed_chunks(info, embedder, other_content, tally)
    writable = [document for document in other_content if document.document_id in embedded]
    for language in sorted({document.language for document in writable} - {info.language}):
        yield from fetch("SELECT pgseek.add_language(%s, %s)", [info.collection_id, language])

    yield from _store(info, writable, other_metadata, embedded, tally)


def _store(
    info: CollectionInfo,
    content: Sequence[Prepared],
    metadata: Sequence[Prepared],
    embedded: Mapping[UUID, list[EmbeddedChunk]],
    tally: Tally,
) -> Script[None]:
    """Write documents in one transaction; one that the server cannot hold is found and rejected."""
    if not content and not metadata:
        return

    def write() -> Script[dict[str, int]]:
        return (yield from write_batch(info, content, metadata, embedded))

    try:
        counts = yield from transact(write)
    except DatabaseError as error:
        if not isinstance(error.__cause__, psycopg.errors.ProgramLimitExceeded | psycopg.DataError):
            raise
        if len(content) + len(metadata) == 1:
            (culprit,) = [*content, *metadata]
            reason = f"the server cannot hold it: {error}"
            tally.rejected.append(Rejection(culprit.position, culprit.external_id, reason, culprit.source))
            return
        middle, half = (len(content) + 1) // 2, (len(metadata) + 1) // 2
        yield from _store(info, content[:middle], metadata[:half] if not content else [], embedded, tally)
        yield from _store(info, content[middle:], metadata if content else metadata[half:], embedded, tally)
        return
    tally.new += counts["new"]
    tally.changed += counts["changed"]
    tally.metadata_changed += counts["metadata_changed"]
    tally.unchanged += counts["unchanged"]
    tally.chunks += counts["chunks"]


def _compare(info: CollectionInfo, batch: Sequence[Prepared]) -> Script[dict[UUID, dict[str, Any]]]:
    rows = yield from fetch(
        "SELECT d.document_id, d.content_hash = s.content_hash AS same_content,"
        " d.metadata = s.metadata::jsonb AS same_metadata"
        " FROM unnest(%s::uuid[], %s::bytea[], %s::text[]) AS s (document_id, content_hash, metadata)"
        " JOIN pgseek.documents d ON d.collection_id = %s AND d.document_id = s.document_id",
        [
            [d.document_id for d in batch],
            [d.content_hash for d in batch],
            [d.metadata for d in batch],
            info.collection_id,
        ],
    )
    return {row["document_id"]: row for row in rows}


def embed_chunks(
    info: CollectionInfo, embedder: Embedder, documents: Sequence[Prepared], tally: Tally
) -> Script[dict[UUID, list[EmbeddedChunk]]]:
    """Chunk documents and embed their chunks, equal texts once, known texts from the cache.

    A document with a chunk whose vector is zero or not finite is rejected; the others go on.
    """
    size, overlap = info.settings["chunk_size"], info.settings["chunk_overlap"]
    chunked = {d.document_id: chunk_text(d.body, size, overlap) for d in documents}
    texts: dict[bytes, str] = {}
    hashes: dict[UUID, list[bytes]] = {}
    for document in documents:
        full = [embedding_text(document.title, c.text) for c in chunked[document.document_id]]
        hashes[document.document_id] = [hashlib.sha256(text.encode()).digest() for text in full]
        texts.update(zip(hashes[document.document_id], full, strict=True))

    # A provider that costs next to nothing is not worth a second copy of its vectors.
    caching = getattr(embedder, "cache_documents", True)
    vectors = (yield from _from_cache(info, list(texts))) if caching else {}
    tally.cached += len(vectors)
    missing = [key for key in texts if key not in vectors]
    if missing:
        made = yield from embed_documents(embedder, [texts[key] for key in missing])
        fresh = {key: row for key, row in zip(missing, made, strict=True) if usable(row)}
        tally.embedded += len(missing)
        vectors.update(fresh)
        if caching:
            yield from _to_cache(info, fresh)

    embedded: dict[UUID, list[EmbeddedChunk]] = {}
    for document in documents:
        keys, chunks = hashes[document.document_id], chunked[document.document_id]
        if not keys:
            reason = "the document has no text"
            tally.rejected.append(Rejection(document.position, document.external_id, reason, document.source))
        elif all(key in vectors for key in keys):
            embedded[document.document_id] = [
                EmbeddedChunk(chunk, key, vectors[key]) for chunk, key in zip(chunks, keys, strict=True)
            ]
        else:
            reason = f"{embedder.model_id} gave no usable vector (zero, NaN or infinite) for its text"
            tally.rejected.append(Rejection(document.position, document.external_id, reason, document.source))
    return embedded


def _from_cache(info: CollectionInfo, keys: list[bytes]) -> Script[dict[bytes, Vectors]]:
    rows = yield from fetch(
        "SELECT text_hash, embedding FROM pgseek.embedding_cache"
        " WHERE identity = %s AND input_type = 'document' AND text_hash = ANY (%s::bytea[])",
        [info.identity_hash, keys],
    )
    return {row["text_hash"]: row["embedding"].to_numpy() for row in rows}


def _to_cache(info: CollectionInfo, vectors: Mapping[bytes, Vectors]) -> Script[None]:
    # In the order of the key: two ingests of the same texts at once then cannot deadlock here.
    keys = sorted(vectors)
    if keys:
        yield from fetch(
            "INSERT INTO pgseek.embedding_cache (identity, input_type, text_hash, embedding)"
            " SELECT %s, 'document', s.text_hash, s.embedding"
            " FROM unnest(%s::bytea[], %s) AS s (text_hash, embedding)"
            " ON CONFLICT (identity, input_type, text_hash) DO NOTHING",
            [info.identity_hash, keys, [vectors[key] for key in keys]],
        )
