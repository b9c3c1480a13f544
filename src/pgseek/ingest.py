"""Ingest: check, compare by hash, embed what changed, write each batch in one transaction.

The path of a batch: `Supply` checks every document (or refuses it) → `divide` compares with what is stored
→ chunk and embed only new and changed content (`embedding.begin` and `finish`, through the cache, outside
of any transaction) → `write_batch` documents, chunks and embeddings together. These happen at once, each
for another batch. A kill leaves whole documents only; running it again finds the written ones unchanged.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from psycopg.sql import SQL

from pgseek import cache, embedding, syncing
from pgseek.collections import find_again, languages
from pgseek.embedders.base import Embedder
from pgseek.embedders.limits import Spending
from pgseek.embedding import Embedding, Pending
from pgseek.errors import (
    CollectionNotFound,
    DatabaseError,
    DocumentRejected,
    InvalidInput,
    PgseekError,
)
from pgseek.generators.base import TextGenerator
from pgseek.loading import Load, settle
from pgseek.prepare import BATCH_SIZE, Prepared, Source, Supply, check_batch_size
from pgseek.steps import Running, Script, fetch, join, start, transact
from pgseek.types import (
    INDEXES,
    CachePolicy,
    CollectionInfo,
    Document,
    Indexes,
    IngestReport,
    Rejection,
    Stage,
)
from pgseek.writing import EmbeddedChunk, SpacesChanged, unfit, write_batch

log = logging.getLogger("pgseek")
Progress = Callable[[IngestReport], None]
# Called with each document that was refused, and the record it came from, None if there is none.
OnReject = Callable[[Rejection, Mapping[str, Any] | None], None]
# Seconds: a source that takes longer to give a batch is not read ahead of.
SLOW_SOURCE = 1.0
# Seconds: one that takes longer is waited for longer than for a comparison, which then is no gain beside it.
BRISK_SOURCE = 0.05
# What differs from what is stored. Ids and hashes go as bytes end to end and metadata as one array: most
# documents of most ingests are asked nothing else, and three arrays cost the driver more than the server.
COMPARE = SQL(
    "SELECT s.n, d.content_hash = s.content_hash AS same_content"
    " FROM (SELECT m.n, m.metadata,"
    "   encode(substr(%(ids)b, (m.n::int - 1) * 16 + 1, 16), 'hex')::uuid AS document_id,"
    "   substr(%(hashes)b, (m.n::int - 1) * 32 + 1, 32) AS content_hash"
    "   FROM jsonb_array_elements(%(metadata)s::jsonb) WITH ORDINALITY AS m (metadata, n)) AS s"
    " LEFT JOIN pgseek.documents d ON d.collection_id = %(collection)s AND d.document_id = s.document_id"
    " WHERE d.content_hash IS DISTINCT FROM s.content_hash OR d.metadata <> s.metadata"
)
# Documents with other content than is stored, those with other metadata only, how many are unchanged, and the
# ids of those that are not stored.
Divided = tuple[list[Prepared], list[Prepared], int, frozenset[UUID]]
# Batches that are written at once.
WRITERS = 2


@dataclass(frozen=True, slots=True)
class Options:
    """How an ingest goes about it; see `Collection.ingest`."""

    batch_size: int = BATCH_SIZE
    progress: Progress | None = None
    policy: CachePolicy = field(default_factory=CachePolicy)
    max_cost: float | None = None
    strict: bool = False
    on_reject: OnReject | None = None
    sync: syncing.Sync | None = None
    indexes: Indexes = "auto"
    generator: TextGenerator | None = None
    # More embedders, of other spaces that the collection has or will have.
    given: tuple[Embedder, ...] = ()


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
    read: int = 0
    removed: int = 0
    reused: int = 0
    generated: int = 0
    spending: Spending = field(default_factory=Spending)
    started: float = field(default_factory=time.perf_counter)
    strict: bool = False
    on_reject: OnReject | None = None

    def report(self, stage: Stage = "done") -> IngestReport:
        return IngestReport(
            new=self.new,
            changed=self.changed,
            metadata_changed=self.metadata_changed,
            unchanged=self.unchanged,
            rejected=tuple(self.rejected),
            chunks=self.chunks,
            embedded=self.embedded,
            cached=self.cached,
            seconds=time.perf_counter() - self.started,
            tokens=self.spending.tokens,
            cost=self.spending.cost,
            read=self.read,
            removed=self.removed,
            stage=stage,
            reused=self.reused,
            generated=self.generated,
        )

    def reject(self, rejection: Rejection, record: object = None) -> None:
        """Count a document that is not stored. Raises `DocumentRejected` if the ingest is strict."""
        self.rejected.append(rejection)
        if self.on_reject is not None:
            self.on_reject(rejection, _as_record(record))
        if self.strict:
            where = f"{rejection.source}:{rejection.position}" if rejection.source else rejection.position
            name = f" ({rejection.id!r})" if rejection.id is not None else ""
            raise DocumentRejected(
                f"document {where}{name}: {rejection.reason}; ingest is strict and went no further", rejection
            )

    def take(self, pending: Pending) -> dict[UUID, list[EmbeddedChunk]]:
        """Count a batch that is embedded; return its documents that can be written, with their chunks."""
        self.embedded += pending.embedded
        self.cached += pending.cached
        self.reused += pending.reused
        self.generated += pending.generated
        embedded, rejected = embedding.results(pending)
        by_position = {document.position: document for document in pending.documents} if rejected else {}
        for rejection in rejected:
            self.reject(rejection, by_position[rejection.position])
        return embedded

    def add(self, written: Written) -> None:
        """Count a batch that is written."""
        for name, number in written.counts.items():
            setattr(self, name, getattr(self, name) + number)
        for rejection, document in written.rejected:
            self.reject(rejection, document)


@dataclass(slots=True)
class Written:
    """What became of a batch: counts by their name in the report, and what the server could not hold."""

    counts: Counter[str] = field(default_factory=Counter)
    rejected: list[tuple[Rejection, Prepared]] = field(default_factory=list)
    # The collection that has the name now, if the one that was written to is gone.
    moved: CollectionInfo | None = None


def ingest(
    info: CollectionInfo, embedder: Embedder, documents: Iterable[Source], options: Options
) -> Script[IngestReport]:
    """Store documents, batch by batch; a source's own rejections pass through into the report."""
    check_source(documents, options.batch_size)
    if options.indexes not in INDEXES:
        raise InvalidInput(f"indexes is {options.indexes!r}, but must be one of {', '.join(INDEXES)}")
    embedding.check_cost(embedder, options.generator, options.max_cost)
    tally = Tally(
        spending=Spending(getattr(embedder, "price", 0.0), options.max_cost),
        strict=options.strict,
        on_reject=options.on_reject,
    )
    run = Embedding(info, embedder, options.policy, tally.spending, options.generator, options.given)
    known = yield from languages()
    supply = Supply(documents, info.language, known, options.batch_size, tally.reject)
    size = len(documents) if isinstance(documents, Sequence) else None
    load = yield from Load.begin(info, options.indexes, size)
    removal = yield from syncing.begin(options.sync)
    line = _Line(run, supply, tally, load, options.progress)
    try:
        yield from embedding.guarded(run, line.flight, line.store())
    except Exception:
        # What is stored shall be found as fast as ever, whatever became of the rest.
        with contextlib.suppress(PgseekError):
            yield from settle(info, tally.chunks)
        raise
    if options.progress is not None:
        options.progress(tally.report("indexing"))
    # Another one may have taken its name.
    info = yield from find_again(info)
    yield from settle(info, tally.chunks)
    if removal is not None:
        if options.progress is not None:
            options.progress(tally.report("removing"))
        tally.removed = yield from syncing.remove(info, supply, removal)
    if options.policy.max_bytes is not None:
        yield from cache.prune(options.policy)
    return tally.report()


class _Line:
    """The batches on their way: while one is read, others are compared, embedded and written."""

    def __init__(
        self, run: Embedding, supply: Supply, tally: Tally, load: Load, progress: Progress | None
    ) -> None:
        self.run, self.supply, self.tally, self.load, self.progress = run, supply, tally, load, progress
        self.comparing: deque[Running] = deque()
        self.flight: list[Pending] = []
        self.metadata: deque[list[Prepared]] = deque()
        self.writing: deque[Running] = deque()
        # See `Written`.
        self.moved: CollectionInfo | None = None

    def store(self) -> Script[None]:
        """Take every batch of the source to its end; raise the source's own error when that is done."""
        failure: Exception | None = None
        asked = time.monotonic()
        first = True
        for prepared in _with_its_error(self.supply):
            if isinstance(prepared, Exception):
                failure = prepared
                break
            waited = time.monotonic() - asked
            if self.moved is not None:
                self.writing.append((yield from start(partial(_hand_over, self.moved, prepared, Written()))))
                yield from self._advance(at_most=(0, 0, WRITERS))
                asked = time.monotonic()
                continue
            compare = _all_new if self.load.empty else divide
            self.comparing.append((yield from start(partial(compare, self.run.info, prepared))))
            ahead = 0 if first or waited > BRISK_SOURCE else 1
            # Who reads a source that takes its time wants to find what it gave, not what it gave before.
            yield from self._advance(at_most=(0, 0, 0) if waited > SLOW_SOURCE else (ahead, 1, WRITERS))
            first = False
            asked = time.monotonic()
        yield from self._advance(at_most=(0, 0, 0))
        if failure is not None:
            raise failure

    def _advance(self, at_most: tuple[int, int, int]) -> Script[None]:
        """Move batches on until no more than so many are compared, embedded and written."""
        comparing, flying, writing = at_most
        while len(self.comparing) > comparing:
            content, metadata, unchanged, new = yield from join(self.comparing.popleft())
            self.tally.unchanged += unchanged
            before = self.flight[-1] if self.flight else None
            try:
                self.flight.append((yield from embedding.begin(self.run, content, before, new)))
                self.metadata.append(metadata)
            except CollectionNotFound as error:
                moved = yield from _moved(self.run.info, error)
                self.writing.append(
                    (yield from start(partial(_hand_over, moved, [*content, *metadata], Written())))
                )
            while len(self.flight) > max(flying, 1):
                yield from self._write()
        while len(self.flight) > flying:
            yield from self._write()
        while len(self.writing) > writing:
            yield from self._written()
        self.tally.read = self.supply.read
        if self.progress is not None:
            self.progress(self.tally.report("storing"))

    def _write(self) -> Script[None]:
        """Wait for the embedding of the first batch in flight, and begin to write it."""
        pending, tally = self.flight[0], self.tally
        yield from embedding.finish(self.run, pending)
        del self.flight[0]
        metadata = self.metadata.popleft()
        embedded = tally.take(pending)
        writable = [document for document in pending.documents if document.document_id in embedded]
        if not writable and not metadata:
            return
        info = self.run.info
        for language in sorted({document.language for document in writable} - {info.language}):
            yield from fetch("SELECT pgseek.add_language(%s, %s)", [info.collection_id, language])
        yield from self.load.expect(sum(map(len, embedded.values())), self.supply.read)
        while len(self.writing) >= WRITERS:
            yield from self._written()
        written = Written()
        self.writing.append(
            (yield from start(partial(_store, self.run, writable, metadata, embedded, written)))
        )

    def _written(self) -> Script[None]:
        written: Written = yield from join(self.writing.popleft())
        self.tally.add(written)
        self.moved = written.moved or self.moved
        yield from self.load.first_rows()


def _with_its_error(supply: Supply) -> Iterator[list[Prepared] | Exception]:
    """Yield batches, and last the source's own error: what it gave before is stored all the same."""
    try:
        yield from supply
    except Exception as error:
        yield error


def check_source(documents: object, batch_size: object) -> None:
    """Raise `InvalidInput` unless ``documents`` are several, and batches of a size that fits."""
    check_batch_size(batch_size)
    if isinstance(documents, str | bytes | Mapping | Document):
        raise InvalidInput(
            f"ingest takes a list or other iterable of documents, not one {type(documents).__name__}"
        )


def divide(info: CollectionInfo, documents: Sequence[Prepared]) -> Script[Divided]:
    """Compare documents with what is stored."""
    if not documents:
        return [], [], 0, frozenset()
    rows = yield from fetch(
        COMPARE,
        {
            "ids": b"".join([d.document_id.bytes for d in documents]),
            "hashes": b"".join([d.content_hash for d in documents]),
            "metadata": f"[{','.join([d.metadata for d in documents])}]",
            "collection": info.collection_id,
        },
    )
    content = [documents[row["n"] - 1] for row in rows if not row["same_content"]]
    metadata = [documents[row["n"] - 1] for row in rows if row["same_content"]]
    new = frozenset(documents[row["n"] - 1].document_id for row in rows if row["same_content"] is None)
    return content, metadata, len(documents) - len(rows), new


def _all_new(_info: CollectionInfo, documents: Sequence[Prepared]) -> Script[Divided]:
    """Return what `divide` does for a collection that holds nothing.

    Should somebody else be filling it at the same time, the write finds that out.
    """
    yield from ()
    return list(documents), [], 0, frozenset(d.document_id for d in documents)


def _store(
    run: Embedding,
    content: Sequence[Prepared],
    metadata: Sequence[Prepared],
    embedded: Mapping[UUID, list[EmbeddedChunk]],
    written: Written,
) -> Script[Written]:
    """Write documents in one transaction; one that the server cannot hold is found and rejected."""
    if not content and not metadata:
        return written
    batch = {d.document_id: embedded[d.document_id] for d in content}
    others = yield from embedding.beside(run, batch)
    try:
        counts = yield from transact(
            partial(write_batch, run.info, run.embedder.identity, content, metadata, embedded, others)
        )
    except SpacesChanged:
        # The switch came between our look and our write.
        return (yield from _store(run, content, metadata, embedded, written))
    except CollectionNotFound as error:
        moved = yield from _moved(run.info, error)
        return (yield from _hand_over(moved, [*content, *metadata], written))
    except DatabaseError as error:
        reason = unfit(error)
        if reason is None:
            raise
        if len(content) + len(metadata) == 1:
            (culprit,) = [*content, *metadata]
            rejection = Rejection(culprit.position, culprit.external_id, reason, culprit.source)
            written.rejected.append((rejection, culprit))
            return written
        middle, half = (len(content) + 1) // 2, (len(metadata) + 1) // 2
        yield from _store(run, content[:middle], metadata[:half] if not content else [], embedded, written)
        yield from _store(run, content[middle:], metadata if content else metadata[half:], embedded, written)
        return written
    written.counts.update(counts)
    return written


def _moved(info: CollectionInfo, error: CollectionNotFound) -> Script[CollectionInfo]:
    """Return the collection that took the name of one that is gone, or raise the error."""
    now = yield from find_again(info)
    if now.collection_id == info.collection_id:
        raise error
    return now


def _hand_over(now: CollectionInfo, documents: Sequence[Prepared], written: Written) -> Script[Written]:
    """Store documents in the collection that took the name of the one they were for, which is gone by now.

    Its chunks are others, and so may its embedder be: they wait in its queue.
    """
    if written.moved is None:
        log.warning(
            "collection %r was replaced, and the former one dropped, while this ingest ran; the rest of it "
            "waits for embeddings: pgseek queue drain %s",
            now.name,
            now.name,
        )
    written.moved = now
    rows = yield from transact(
        lambda: fetch(
            "SELECT position, outcome, reason FROM pgseek.put_documents(%s, %s::jsonb)",
            [now.name, json.dumps([_as_record(document) for document in documents])],
        )
    )
    for row in rows:
        document = documents[row["position"] - 1]
        if row["outcome"] == "rejected":
            rejection = Rejection(document.position, document.external_id, row["reason"], document.source)
            written.rejected.append((rejection, document))
        else:
            written.counts[row["outcome"]] += 1
    return written


def _as_record(record: object) -> Mapping[str, Any] | None:
    """Return a document as a mapping that ingest takes, None where there is none."""
    if isinstance(record, Mapping):
        return record
    if isinstance(record, Document):
        found = {name: getattr(record, name) for name in record.__dataclass_fields__}
    elif isinstance(record, Prepared):
        found = {
            "id": record.external_id,
            "text": record.body,
            "title": record.title,
            "metadata": json.loads(record.metadata),
            "language": record.language,
            "format": record.format,
        }
    else:
        return None
    return {name: value for name, value in found.items() if value or name in {"id", "text"}}
