"""What an ingest would do and cost, without doing it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from pgseek import cache, generation
from pgseek.collections import languages
from pgseek.embedders.base import Embedder
from pgseek.embedders.limits import Limits, Spending
from pgseek.embedders.remote import TOKENS_PER_BYTE
from pgseek.embedding import Embedding, Pending, chunked, rejections, stored_vectors
from pgseek.generators.base import USUAL, Request, TextGenerator
from pgseek.ingest import check_source, divide
from pgseek.passages import add_written, requests_for
from pgseek.prepare import BATCH_SIZE, Source, Supply
from pgseek.steps import Script, transact
from pgseek.syncing import Gone, Sync, begin, find_gone
from pgseek.types import CachePolicy, CollectionInfo, IngestPlan, Rejection

# Tokens of what a generator is told to do, where it cannot say.
INSTRUCTIONS = 80


@dataclass(slots=True)
class _Count:
    """What is counted over all batches."""

    new: int = 0
    changed: int = 0
    metadata_changed: int = 0
    unchanged: int = 0
    chunks: int = 0
    texts: int = 0
    cached: int = 0
    reused: int = 0
    requests: int = 0
    written: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    # Of texts that are there.
    tokens: int = 0
    embedding_requests: int = 0
    seen: set[bytes] = field(default_factory=set)
    asked: set[Request] = field(default_factory=set)


def plan(
    info: CollectionInfo,
    embedder: Embedder,
    documents: Iterable[Source],
    sync: Sync | None = None,
    generator: TextGenerator | None = None,
) -> Script[IngestPlan]:
    """Read and compare documents, chunk what changed, and count the tokens that are not known yet."""
    check_source(documents, BATCH_SIZE)
    run = Embedding(info, embedder, CachePolicy(), Spending(), generator)
    known = yield from languages()
    removal = yield from begin(sync)
    rejected: list[Rejection] = []
    count = _Count()
    supply = Supply(documents, info.language, known, BATCH_SIZE, lambda found, _: rejected.append(found))
    for batch in supply:
        content, metadata, unchanged, new = yield from divide(info, batch)
        pending = chunked(run, content)
        rejected += rejections(content, pending.unfit)
        fit = {document.document_id for document in content} - pending.unfit.keys()
        stored = fit - new
        count.new += len(fit) - len(stored)
        count.changed += len(stored)
        count.metadata_changed += len(metadata)
        count.unchanged += unchanged
        yield from _count_texts(run, pending, stored, count)
    gone = None
    if removal is not None:
        gone = yield from transact(partial(find_gone, info, supply, removal))
    return _plan(run, count, rejected, gone)


def _count_texts(run: Embedding, pending: Pending, stored: Collection[UUID], count: _Count) -> Script[None]:
    """Add the texts of a batch that would be written and embedded."""
    if run.generator is not None and run.kinds:
        yield from _count_generation(run, run.generator, pending, count)
    count.chunks += sum(map(len, pending.rows.values())) + pending.whole * len(pending.rows)
    keys = [key for key in pending.texts if key not in count.seen]
    count.seen.update(keys)
    held = (yield from cache.look_up(run.info.identity_hash, "document", keys)) if run.caching else {}
    count.cached += len(held)
    left = [key for key in keys if key not in held]
    vectors = yield from stored_vectors(run.info, list(stored), _wholes(pending))
    # A text that is stored in parts is known by the hash of all of them.
    known = {part for key in vectors for part in pending.parts.get(key, [key])}
    texts = [pending.texts[key] for key in left if key not in known]
    count.reused += len(left) - len(texts)
    count.texts += len(texts)
    counter = getattr(run.embedder, "count_tokens", None)
    if counter is not None and texts:
        count.tokens += sum(counter(texts))
    count.embedding_requests += count_requests(run.embedder, texts)


def _wholes(pending: Pending) -> set[bytes]:
    return {row.key for rows in pending.rows.values() for row in rows}


def _count_generation(
    run: Embedding, generator: TextGenerator, pending: Pending, count: _Count
) -> Script[None]:
    """Add what would be asked of the generator, and the rows of what it wrote before."""
    asked = requests_for(pending, run.kinds)
    requests = [request for pairs in asked.values() for _, request in pairs]
    written = yield from generation.look_up(generator, dict.fromkeys(requests))
    for document, pairs in asked.items():
        add_written(pending, run.embedder, document, pairs, written)
    for request in dict.fromkeys(requests):
        if request in count.asked:
            continue
        count.asked.add(request)
        if request in written:
            count.written += 1
            continue
        tokens, answer = _estimate(generator, request)
        count.requests += 1
        count.input_tokens += tokens
        count.output_tokens += answer
    # Their rows are still to come.
    count.chunks += sum(request.count for request in requests if request not in written)


def _estimate(generator: TextGenerator, request: Request) -> tuple[int, int]:
    estimate = getattr(generator, "estimate", None)
    if estimate is not None:
        made: tuple[int, int] = estimate(request)
        return made
    size = len(request.title.encode()) + len(request.text.encode())
    return int(size * TOKENS_PER_BYTE) + INSTRUCTIONS, USUAL[request.kind] * request.count


def _plan(run: Embedding, count: _Count, rejected: Sequence[Rejection], gone: Gone | None) -> IngestPlan:
    embedder: Any = run.embedder
    counts = hasattr(embedder, "count_tokens")
    tokens = count.tokens + count.output_tokens
    price = float(getattr(embedder, "price", 0.0))
    prices = (0.0, 0.0) if run.generator is None else getattr(run.generator, "price", (0.0, 0.0))
    written_cost = None
    if prices is not None:
        written_cost = (count.input_tokens * prices[0] + count.output_tokens * prices[1]) / 1e6
    times = [
        least_seconds(getattr(embedder, "limits", None), count.embedding_requests, tokens),
        least_seconds(
            getattr(run.generator, "limits", None), count.requests, count.input_tokens + count.output_tokens
        ),
    ]
    return IngestPlan(
        new=count.new,
        changed=count.changed,
        metadata_changed=count.metadata_changed,
        unchanged=count.unchanged,
        rejected=tuple(rejected),
        chunks=count.chunks,
        texts=count.texts,
        cached=count.cached,
        tokens=tokens if counts else None,
        exact=bool(getattr(embedder, "exact_tokens", False)) and not count.output_tokens,
        cost=tokens * price / 1e6 + (written_cost or 0.0),
        price=price,
        # The one waits for the other.
        seconds=sum(filter(None, times)) if any(time is not None for time in times) else None,
        gone=len(gone.ids) if gone is not None else None,
        gone_of=gone.of if gone is not None else None,
        gone_ids=tuple(gone.names) if gone is not None else (),
        reused=count.reused,
        requests=count.requests,
        written=count.written,
        input_tokens=count.input_tokens,
        output_tokens=count.output_tokens,
        generation_cost=written_cost,
    )


def count_requests(embedder: Any, texts: Sequence[str]) -> int:
    """Return how many requests a service would be sent for texts; 0 for a local model."""
    pack = getattr(embedder, "requests", None)
    return sum(1 for _ in pack(texts)) if pack is not None else 0


def least_seconds(limits: Limits | None, requests: int, tokens: int) -> float | None:
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
