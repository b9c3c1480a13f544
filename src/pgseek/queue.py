"""Work left by SQL writers: what pgseek.put_document stored waits here for its embeddings."""

from __future__ import annotations

from pgseek import embedding
from pgseek.embedders.base import Embedder
from pgseek.embedders.limits import Spending
from pgseek.embedding import Embedding
from pgseek.generators.base import TextGenerator
from pgseek.ingest import Progress, Tally
from pgseek.loading import settle
from pgseek.prepare import Prepared
from pgseek.steps import Script, fetch, transact
from pgseek.types import CachePolicy, CollectionInfo, IngestReport
from pgseek.writing import replace_chunks

BATCH_SIZE = 200


def drain(
    info: CollectionInfo,
    embedder: Embedder,
    progress: Progress | None = None,
    policy: CachePolicy | None = None,
    generator: TextGenerator | None = None,
) -> Script[IngestReport]:
    """Chunk and embed queued documents until none is left; ``changed`` counts them.

    Documents without a usable vector are reported as rejected and leave the queue: their words
    stay searchable. Several drains at once are safe.
    """
    tally = Tally(spending=Spending(getattr(embedder, "price", 0.0)))
    run = Embedding(info, embedder, policy or CachePolicy(), tally.spending, generator)
    while True:
        rows = yield from fetch(
            "SELECT d.document_id, d.external_id, d.title, d.body, d.language, d.content_hash, d.format"
            " FROM pgseek.ingest_queue q JOIN pgseek.documents d USING (collection_id, document_id)"
            " WHERE q.collection_id = %s ORDER BY q.enqueued_at, q.document_id LIMIT %s",
            [info.collection_id, BATCH_SIZE],
        )
        if not rows:
            break
        batch = [Prepared(position=n, source=None, metadata="{}", **row) for n, row in enumerate(rows, 1)]
        yield from _drain_batch(run, batch, tally)
        if progress is not None:
            progress(tally.report())
    # What is left belongs to documents deleted since.
    yield from fetch(
        "DELETE FROM pgseek.ingest_queue q WHERE q.collection_id = %s AND NOT EXISTS (SELECT"
        " FROM pgseek.documents d WHERE d.collection_id = q.collection_id"
        " AND d.document_id = q.document_id)",
        [info.collection_id],
    )
    yield from settle(info, tally.chunks)
    return tally.report()


def _drain_batch(run: Embedding, batch: list[Prepared], tally: Tally) -> Script[None]:
    info = run.info
    pending = yield from embedding.begin(run, batch)
    yield from embedding.guarded(run, [pending], embedding.finish(run, pending))
    embedded = tally.take(pending)

    def write() -> Script[tuple[int, int]]:
        locked = yield from fetch(
            "SELECT document_id, content_hash FROM pgseek.documents"
            " WHERE collection_id = %s AND document_id = ANY (%s) ORDER BY document_id FOR UPDATE",
            [info.collection_id, [d.document_id for d in batch]],
        )
        hashes = {row["document_id"]: row["content_hash"] for row in locked}
        same = {d.document_id: d for d in batch if hashes.get(d.document_id) == d.content_hash}
        ready = {i: d for i, d in same.items() if i in embedded}
        yield from replace_chunks(info, ready, embedded)
        yield from fetch(
            "DELETE FROM pgseek.ingest_queue WHERE collection_id = %s AND document_id = ANY (%s)",
            [info.collection_id, list(same)],
        )
        return len(ready), sum(len(embedded[i]) for i in ready)

    documents, chunks = yield from transact(write)
    tally.changed += documents
    tally.chunks += chunks
