"""What an ingest would do and cost, without doing it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pgseek import cache
from pgseek.collections import languages
from pgseek.embedders.base import Embedder
from pgseek.embedders.limits import Limits, Spending
from pgseek.embedding import Embedding, chunked, rejections
from pgseek.ingest import check_source, divide
from pgseek.prepare import BATCH_SIZE, Prepared, Source, Supply
from pgseek.steps import Script, fetch_one, transact
from pgseek.syncing import Sync, find_gone, now
from pgseek.types import CachePolicy, CollectionInfo, IngestPlan, Rejection


def plan(
    info: CollectionInfo, embedder: Embedder, documents: Iterable[Source], sync: Sync | None = None
) -> Script[IngestPlan]:
    """Read and compare documents, chunk what changed, and count the tokens that the cache does not hold."""
    began = yield from now()
    check_source(documents, BATCH_SIZE)
    run = Embedding(info, embedder, CachePolicy(), Spending())
    known = yield from languages()
    rejected: list[Rejection] = []
    counts = dict.fromkeys(
        ("new", "changed", "metadata_changed", "unchanged", "chunks", "texts", "cached"), 0
    )
    seen: set[bytes] = set()
    tokens = requests = 0
    count = getattr(embedder, "count_tokens", None)
    supply = Supply(documents, info.language, known, BATCH_SIZE, lambda found, _: rejected.append(found))
    for batch in supply:
        content, metadata, unchanged = yield from divide(info, batch)
        pending = chunked(run, content)
        rejected += rejections(content, pending.unfit)
        content = [document for document in content if document.document_id not in pending.unfit]
        fresh = yield from _new(info, content)
        counts["new"] += fresh
        counts["changed"] += len(content) - fresh
        counts["metadata_changed"] += len(metadata)
        counts["unchanged"] += unchanged
        counts["chunks"] += sum(map(len, pending.chunks.values()))
        keys = [key for key in pending.texts if key not in seen]
        seen.update(keys)
        held = (yield from cache.look_up(info.identity_hash, "document", keys)) if run.caching else {}
        counts["cached"] += len(held)
        texts = [pending.texts[key] for key in keys if key not in held]
        counts["texts"] += len(texts)
        if count is not None and texts:
            tokens += sum(count(texts))
        requests += _requests(embedder, texts)
    price = float(getattr(embedder, "price", 0.0))
    gone = (yield from transact(lambda: find_gone(info, supply, sync, began))) if sync is not None else None
    return IngestPlan(
        **counts,
        rejected=tuple(rejected),
        tokens=tokens if count is not None else None,
        exact=bool(getattr(embedder, "exact_tokens", False)),
        cost=tokens * price / 1e6,
        price=price,
        seconds=_seconds(getattr(embedder, "limits", None), requests, tokens),
        gone=len(gone.ids) if gone is not None else None,
        gone_of=gone.of if gone is not None else None,
        gone_ids=tuple(gone.names) if gone is not None else (),
    )


def _new(info: CollectionInfo, content: Sequence[Prepared]) -> Script[int]:
    row = yield from fetch_one(
        "SELECT count(*) AS n FROM pgseek.documents WHERE collection_id = %s AND document_id = ANY (%s)",
        [info.collection_id, [d.document_id for d in content]],
    )
    return len(content) - (row["n"] if row is not None else 0)


def _requests(embedder: Any, texts: Sequence[str]) -> int:
    pack = getattr(embedder, "requests", None)
    return sum(1 for _ in pack(texts)) if pack is not None else 0


def _seconds(limits: Limits | None, requests: int, tokens: int) -> float | None:
    """Return the least time the limits leave for so much, None where there are none."""
    if limits is None:
        return None
    times = [
        60.0 * amount / limit
        for amount, limit in (
            (requests, limits.requests_per_minute),
            (tokens, limits.tokens_per_minute),
        )
        if limit is not None
    ]
    return max(times, default=None)
