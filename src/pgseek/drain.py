"""Claimed documents embedded and stored: what is good is stored, what is not is found alone.

A batch that fails is no reason to blame its documents: if the embedder cannot embed a word of ours either,
they are given back as they were. If it can, one of them is at fault; halving finds it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from pgseek import embedding, queue
from pgseek.collections import find_again
from pgseek.embedders.base import PROBE, Embedder
from pgseek.embedders.limits import Spending
from pgseek.embedding import Embedding, Pending
from pgseek.errors import DatabaseError, EmbedderError, InvalidInput, PgseekError
from pgseek.generators.base import TextGenerator
from pgseek.ingest import Progress, Tally
from pgseek.loading import settle
from pgseek.prepare import Prepared
from pgseek.steps import Await, Done, Script, advance, close, start_embedding, transact, wait_for
from pgseek.types import CachePolicy, CollectionInfo, IngestReport, QueuePolicy, Rejection
from pgseek.writing import EmbeddedChunk, SpacesChanged, SpaceVectors, replace_chunks, unfit

T = TypeVar("T")

BATCH_SIZE = 200
# Bytes of text that are read and embedded together.
BATCH_BYTES = 8_000_000


@dataclass(slots=True)
class Counts(Tally):
    """The running counts; ``retried`` of the rejected are tried again."""

    retried: int = 0


def drain(
    info: CollectionInfo,
    embedder: Embedder,
    cache: CachePolicy,
    worker: str,
    policy: QueuePolicy,
    progress: Progress | None = None,
    generator: TextGenerator | None = None,
    given: tuple[Embedder, ...] = (),
) -> Script[IngestReport]:
    """Chunk and embed queued documents until none is due; ``changed`` counts them.

    Those that cannot be embedded are reported as rejected and stay in the queue: their words are found, and
    they are tried again later, or given up where that would not help. Several drains at once are safe.

    Raises:
        EmbedderError, GeneratorError: the embedder or the generator does not work; the documents wait as
            before.
    """
    tally = Counts(spending=Spending(getattr(embedder, "price", 0.0)))
    run = Embedding(info, embedder, cache, tally.spending, generator, given)
    while (yield from serve(run, worker, policy, BATCH_SIZE, tally)):
        if progress is not None:
            progress(tally.report())
    yield from queue.forget_deleted(info)
    yield from settle((yield from find_again(info)), tally.chunks)
    return tally.report()


def serve(run: Embedding, worker: str, policy: QueuePolicy, most: int, tally: Counts) -> Script[bool]:
    """Claim up to ``most`` documents, embed and store them; return whether there were any.

    Raises:
        EmbedderError, DatabaseError: what was not stored is still claimed; `queue.release` gives it back.
    """
    info = run.info
    claimed, given_up = yield from queue.claim(info, worker, policy, most)
    if not claimed and not given_up:
        return False
    known = yield from queue.sizes(info, [*claimed, *given_up])
    for i, reason in given_up.items():
        tally.rejected.append(Rejection(0, known[i][0] if i in known else None, reason))
    left = [i for i in claimed if i in known]
    if len(left) < len(claimed):
        yield from queue.forget_deleted(info)
    for ids in _divided({i: known[i][1] for i in left}):
        renew = partial(queue.renew, info, worker, policy, left)
        yield from _renewing(_serve(run, worker, policy, ids, tally), renew, policy.lease / 3)
        left = [i for i in left if i not in ids]
    return True


def _divided(sizes: Mapping[UUID, int]) -> Iterator[list[UUID]]:
    """Yield ids whose texts are not too much to be held at one time, or a single one."""
    ids: list[UUID] = []
    total = 0
    for i, size in sizes.items():
        if ids and total + size > BATCH_BYTES:
            yield ids
            ids, total = [], 0
        ids.append(i)
        total += size
    if ids:
        yield ids


def _renewing(script: Script[T], renew: Callable[[], Script[None]], every: float) -> Script[T]:
    """Run a script; between its steps, and while it waits for the embedder, renew every so many seconds."""
    due = time.monotonic() + every
    result: Any = None
    failure: Exception | None = None
    try:
        while not isinstance(step := advance(script, result, error=failure), Done):
            result = failure = None
            try:
                if isinstance(step, Await):
                    end = math.inf if step.seconds is None else time.monotonic() + step.seconds
                    while result is None and (now := time.monotonic()) < end:
                        result = yield Await(step.underway, max(0.0, min(due, end) - now))
                        if time.monotonic() >= due:
                            yield from renew()
                            due = time.monotonic() + every
                else:
                    result = yield step
                    if time.monotonic() >= due:
                        yield from renew()
                        due = time.monotonic() + every
            except Exception as error:
                result, failure = None, error
        value: T = step.value
        return value
    finally:
        close(script)


def _serve(run: Embedding, worker: str, policy: QueuePolicy, ids: list[UUID], tally: Counts) -> Script[None]:
    documents = yield from queue.read(run.info, ids)
    yield from _attempt(run, worker, policy, documents, tally)


def _attempt(
    run: Embedding, worker: str, policy: QueuePolicy, documents: list[Prepared], tally: Counts
) -> Script[None]:
    """Embed and store documents; the one that makes that fail is found and noted."""
    if not documents:
        return
    final = False
    pending = Pending(documents)
    try:
        pending = yield from embedding.begin(run, documents)
        yield from embedding.guarded(run, [pending], embedding.finish(run, pending))
        yield from _store(run, worker, policy, pending, tally)
    except DatabaseError as error:
        cause = unfit(error)
        if cause is None:
            raise
        reason, final = cause, True
    except EmbedderError as error:
        if not (yield from _works(run)):
            raise
        reason = str(error)
    except InvalidInput as error:
        reason, final = str(error), True
    except PgseekError:
        raise
    except Exception as error:
        # The chunker or the tokenizer, on a text that they cannot take.
        reason = f"{type(error).__name__}: {error}"
    else:
        return
    finally:
        tally.embedded += pending.embedded
        tally.cached += pending.cached
        tally.reused += pending.reused
        tally.generated += pending.generated
    if len(documents) > 1:
        middle = len(documents) // 2
        yield from _attempt(run, worker, policy, documents[:middle], tally)
        yield from _attempt(run, worker, policy, documents[middle:], tally)
        return
    yield from _fail(run, worker, policy, documents, {documents[0].external_id: reason}, tally, final=final)


def _works(run: Embedding) -> Script[bool]:
    """Return whether the embedder embeds a text that nobody can refuse."""
    outcome = yield from wait_for((yield from start_embedding(run.embedder, [PROBE])))
    return outcome.error is None and not outcome.refused


def _store(run: Embedding, worker: str, policy: QueuePolicy, pending: Pending, tally: Counts) -> Script[None]:
    """Write in one transaction what has its vectors and is still wanted; note what will never have any."""
    info = run.info
    embedded, rejected = embedding.results(pending)

    def write() -> Script[dict[UUID, list[EmbeddedChunk]]]:
        wanted = yield from queue.lock(info, pending.documents)
        ready = {d.document_id: d for d in pending.documents if d.document_id in wanted & embedded.keys()}
        yield from replace_chunks(info, run.embedder.identity, ready, embedded, others)
        return {i: embedded[i] for i in ready}

    others: list[SpaceVectors] = []
    written: dict[UUID, list[EmbeddedChunk]] | None = None
    while written is None:
        others = yield from embedding.beside(run, embedded)
        # The switch to another space may come between our look and our write.
        with contextlib.suppress(SpacesChanged):
            written = yield from transact(write)
    tally.changed += len(written)
    tally.chunks += sum(map(len, written.values()))
    reasons = {r.id: r.reason for r in rejected if r.id is not None}
    yield from _fail(run, worker, policy, list(pending.documents), reasons, tally, final=True)


def _fail(
    run: Embedding,
    worker: str,
    policy: QueuePolicy,
    documents: list[Prepared],
    reasons: Mapping[str, str],
    tally: Counts,
    *,
    final: bool,
) -> Script[None]:
    failed = [d for d in documents if d.external_id in reasons]
    if not failed:
        return
    errors = {d.document_id: (d.content_hash, reasons[d.external_id]) for d in failed}
    given_up = yield from queue.fail(run.info, worker, policy, errors, final=final)
    for d in failed:
        # Not there: a writer changed it meanwhile, and it is queued anew.
        if d.document_id in given_up:
            again = not given_up[d.document_id]
            tally.retried += again
            reason = reasons[d.external_id] + ("; it is tried again later" if again else "")
            tally.rejected.append(Rejection(d.position, d.external_id, reason, d.source))
