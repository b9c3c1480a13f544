"""Ingest: check, compare by hash, embed what changed, write each batch in one transaction.

The path of a batch: `prepare` every document (or reject it) → `_compare` with what is stored → chunk and
embed only new and changed content (`embedding.begin` and `finish`, through the cache, outside of any
transaction) → `write_batch` documents, chunks and embeddings together. While a batch is embedded, the one
before it is written. A kill between two batches leaves whole documents only; running it again finds the
written ones unchanged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg.sql import SQL, Identifier

from pgseek import cache, embedding
from pgseek.collections import ensure_index, languages
from pgseek.embedders.base import Embedder
from pgseek.embedders.limits import Spending
from pgseek.embedders.remote import RemoteEmbedder
from pgseek.embedding import Embedding, Pending
from pgseek.errors import DatabaseError, InvalidInput
from pgseek.prepare import BATCH_SIZE, Prepared, Source, batches
from pgseek.steps import Script, fetch, fetch_one, transact
from pgseek.types import CachePolicy, CollectionInfo, Document, IngestReport, Rejection
from pgseek.writing import EmbeddedChunk, write_batch

Progress = Callable[[IngestReport], None]
# Up to this many chunks an ingest may rewrite them all to weigh them anew.
REWEIGH_UP_TO = 50_000
# Seconds: a source that takes longer to give a batch is not read ahead of.
SLOW_SOURCE = 1.0
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
    spending: Spending = field(default_factory=Spending)
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
            self.spending.tokens,
            self.spending.cost,
        )

    def take(self, pending: Pending) -> dict[UUID, list[EmbeddedChunk]]:
        """Count a batch that is embedded; return its documents that can be written, with their chunks."""
        self.embedded += pending.embedded
        self.cached += pending.cached
        embedded, rejected = embedding.results(pending)
        self.rejected += rejected
        return embedded


def ingest(
    info: CollectionInfo,
    embedder: Embedder,
    documents: Iterable[Source],
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
    policy: CachePolicy | None = None,
    max_cost: float | None = None,
) -> Script[IngestReport]:
    """Store documents, batch by batch; a source's own rejections pass through into the report."""
    check_source(documents, batch_size)
    price = getattr(embedder, "price", 0.0)
    if max_cost is not None and price == 0 and isinstance(embedder, RemoteEmbedder):
        raise InvalidInput(
            f"max_cost is {max_cost!r}, but nothing is known of what {embedder.model_id} costs; leave it out"
        )
    tally = Tally(spending=Spending(price, max_cost))
    run = Embedding(info, embedder, policy or CachePolicy(), tally.spending)
    known = yield from languages()
    supply = batches(documents, info.language, known, batch_size, tally.rejected)
    flight: list[Pending] = []
    script = _store_all(run, supply, tally, progress, flight)
    yield from embedding.guarded(run, flight, script)
    yield from settle(info, tally.chunks)
    if run.policy.max_bytes is not None:
        yield from cache.prune(run.policy)
    return tally.report()


def _store_all(
    run: Embedding,
    supply: Iterator[list[Prepared]],
    tally: Tally,
    progress: Progress | None,
    flight: list[Pending],
) -> Script[None]:
    """Write each batch while the next is embedded; ``flight`` holds those that are not written yet."""
    failure: Exception | None = None
    metadata: list[list[Prepared]] = []
    asked = time.monotonic()
    for prepared in _with_its_error(supply):
        if isinstance(prepared, Exception):
            failure = prepared
            break
        slow = time.monotonic() - asked > SLOW_SOURCE
        content, other_metadata, unchanged = yield from divide(run.info, prepared)
        tally.unchanged += unchanged
        flight.append((yield from embedding.begin(run, content, flight[-1] if flight else None)))
        metadata.append(other_metadata)
        # Who reads a source that takes its time wants to find what it gave, not what it gave before.
        while len(flight) > (0 if slow else 1):
            yield from _finish(run, flight, metadata.pop(0), tally)
        if progress is not None:
            progress(tally.report())
        asked = time.monotonic()
    if flight:
        yield from _finish(run, flight, metadata.pop(0), tally)
        if progress is not None:
            progress(tally.report())
    if failure is not None:
        raise failure


def _with_its_error(supply: Iterator[list[Prepared]]) -> Iterator[list[Prepared] | Exception]:
    """Yield batches, and last the source's own error: what it gave before is stored all the same."""
    try:
        yield from supply
    except Exception as error:
        yield error


def check_source(documents: object, batch_size: object) -> None:
    """Raise `InvalidInput` unless ``documents`` are several, and batches of a size that fits."""
    if not isinstance(batch_size, int) or not 1 <= batch_size <= 10_000:
        raise InvalidInput(f"batch_size is {batch_size!r}, but must be from 1 to 10,000")
    if isinstance(documents, str | bytes | Mapping | Document):
        raise InvalidInput(
            f"ingest takes a list or other iterable of documents, not one {type(documents).__name__}"
        )


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


def divide(
    info: CollectionInfo, documents: Sequence[Prepared]
) -> Script[tuple[list[Prepared], list[Prepared], int]]:
    """Return documents with new content, those with other metadata only, and how many are unchanged."""
    stored = (yield from _compare(info, documents)) if documents else {}
    content: list[Prepared] = []
    metadata: list[Prepared] = []
    for document in documents:
        state = stored.get(document.document_id)
        if state is None or not state["same_content"]:
            content.append(document)
        elif not state["same_metadata"]:
            metadata.append(document)
    return content, metadata, len(documents) - len(content) - len(metadata)


def _finish(
    run: Embedding, flight: list[Pending], metadata: Sequence[Prepared], tally: Tally
) -> Script[None]:
    """Wait for the embedding of the first batch in flight, and write it."""
    pending = flight[0]
    yield from embedding.finish(run, pending)
    del flight[0]
    embedded = tally.take(pending)
    writable = [document for document in pending.documents if document.document_id in embedded]
    for language in sorted({document.language for document in writable} - {run.info.language}):
        yield from fetch("SELECT pgseek.add_language(%s, %s)", [run.info.collection_id, language])
    yield from _store(run.info, writable, metadata, embedded, tally)


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
