"""Other chunks for a collection: a hidden copy with other settings is filled, judged, and takes the name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from pgseek import cache, collections, copies, drain, embedding, indexes, queue, spaces
from pgseek.embedders.base import Embedder, identity_hash
from pgseek.embedders.limits import Spending
from pgseek.embedding import Embedding, chunked
from pgseek.errors import InvalidInput
from pgseek.generators.base import TextGenerator
from pgseek.plan import count_requests, least_seconds
from pgseek.reembed import switching
from pgseek.reembed.judging import judge
from pgseek.reembed.planning import vector_bytes
from pgseek.reembed.running import Progress
from pgseek.steps import Script, Stop, fetch, fetch_one, join, start
from pgseek.types import (
    CachePolicy,
    CollectionInfo,
    Gate,
    GateReport,
    QueuePolicy,
    ReembedPlan,
    ReembedReport,
    ReembedStage,
    SpaceInfo,
)
from pgseek.vectors import VectorIndex, check_metric, index_for, storage_for

# Documents that are divided to tell how many chunks all of them make.
PLANNED = 2000
# Bytes of their text.
PLANNED_BYTES = 20_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the copy is made of: the settings that change, and where given another embedder or index."""

    embedder: Embedder
    changes: Mapping[str, Any]
    generator: TextGenerator | str | None = None
    metric: str | None = None
    storage: str | None = None
    index: str | Mapping[str, Any] | VectorIndex | None = None


def plan(info: CollectionInfo, wanted: Wanted) -> Script[ReembedPlan]:
    """Divide some documents, and tell what all of them would make and cost; nothing is written.

    The documents are the first in the order of a hash of their ids: a sample as good as any.
    """
    embedder = wanted.embedder
    settings = yield from copies.settings_for(info, embedder.identity, wanted.changes, wanted.generator)
    total = yield from fetch_one(
        "SELECT count(*) AS documents FROM pgseek.documents WHERE collection_id = %s", [info.collection_id]
    )
    documents = total["documents"] if total else 0
    sizes = yield from fetch(
        "SELECT document_id, octet_length(body) AS bytes FROM pgseek.documents WHERE collection_id = %s"
        " ORDER BY document_id LIMIT %s",
        [info.collection_id, PLANNED],
    )
    ids: list[UUID] = []
    left = PLANNED_BYTES
    for row in sizes:
        if ids and row["bytes"] > left:
            break
        ids.append(row["document_id"])
        left -= row["bytes"]
    found = yield from queue.read(info, ids)
    run = Embedding(replace(info, settings=settings), embedder, CachePolicy(), Spending())
    pending = chunked(run, found)
    share = documents / len(found) if found else 0.0
    keys = list(pending.texts)
    held = (yield from cache.look_up(identity_hash(embedder.identity), "document", keys)) if keys else {}
    texts = [text for key, text in pending.texts.items() if key not in held]
    chunks = round((sum(map(len, pending.rows.values())) + pending.whole * len(pending.rows)) * share)
    counter = getattr(embedder, "count_tokens", None)
    tokens = round(sum(counter(texts)) * share) if counter is not None and texts else 0
    requests = math.ceil(count_requests(embedder, texts) * share)
    metric = check_metric(wanted.metric or info.space.metric)
    storage = storage_for(embedder.identity.dimensions, wanted.storage)
    index = index_for(embedder.identity.dimensions, storage, metric, wanted.index)
    price = float(getattr(embedder, "price", 0.0))
    space = replace(info.space, identity=embedder.identity, metric=metric, storage=storage, index=index)
    return ReembedPlan(
        collection=info.name,
        of=str(info.space),
        to=str(space),
        storage=storage,
        index=str(index),
        chunks=chunks,
        done=0,
        reduced=False,
        texts=round(len(texts) * share),
        cached=round(len(held) * share),
        tokens=tokens if not texts or counter is not None else None,
        exact=bool(getattr(embedder, "exact_tokens", False)) and len(found) == documents,
        price=price,
        cost=tokens * price / 1e6,
        seconds=least_seconds(getattr(embedder, "limits", None), requests, tokens),
        table_bytes=chunks * (vector_bytes(embedder.identity.dimensions, storage) + 60),
        index_bytes=0 if index.method == "none" else int(indexes.build_bytes(space, index, chunks) / 1.3),
        rechunked=True,
    )


@dataclass(frozen=True, slots=True)
class Job:
    """``run`` is the collection as it is searched; ``generator`` writes what the copy wants written."""

    run: Embedding
    wanted: Wanted
    gate: Gate
    workers: int
    max_cost: float | None
    switch: bool
    stop: Stop
    progress: Progress | None
    worker: Callable[[], str] = queue.worker_name


def rechunk(job: Job) -> Script[ReembedReport]:
    """Do all of it: begin or go on, fill, embed, judge, and exchange the names if that went well.

    Raises:
        InvalidInput, ChangeRefused, EmbedderError, CostLimitReached, DatabaseError: what was stored stays;
            running it again goes on.
    """
    wanted, info = job.wanted, job.run.info
    spending = Spending(getattr(wanted.embedder, "price", 0.0), job.max_cost)
    embedding.check_cost(wanted.embedder, None, job.max_cost)
    copy = yield from copies.begin(
        info,
        wanted.embedder,
        wanted.changes,
        generator=wanted.generator,
        metric=wanted.metric,
        storage=wanted.storage,
        index=wanted.index,
    )
    given = None if isinstance(wanted.generator, str) else wanted.generator
    generator = collections.own_generator(copy, given)
    run = replace(job.run, info=copy, embedder=wanted.embedder, spending=spending, generator=generator)
    watch = _Watch(job, copy, spending)
    yield from watch.look()
    watch.tell("dividing")
    status = yield from copies.fill(copy, stop=job.stop, progress=watch.filled)
    if job.stop.is_set():
        return (yield from watch.end("stopped"))
    watch.of = status.of
    watch.tell("embedding")
    yield from _embed(run, job, watch)
    if job.stop.is_set():
        return (yield from watch.end("stopped"))
    refused = {f.id: f.error for f in (yield from queue.failures(copy, 1000))}
    watch.tell("judging")
    verdict = yield from judge(job.run, run, job.gate)
    if (refused and not job.gate.allow_refused) or verdict.reasons:
        return (yield from watch.end("refused", refused=refused, gate=verdict))
    if not job.switch:
        return (yield from watch.end("ready", refused=refused, gate=verdict))
    watch.tell("switching")
    # What was written this moment waits in the queue: its words are found.
    yield from copies.switch(info, copy, allow_queued=True)
    yield from _embed(run, job, watch)
    return (yield from watch.end("switched", refused=refused, gate=verdict))


def _embed(run: Embedding, job: Job, watch: _Watch) -> Script[None]:
    """Empty the copy's queue, by so many workers at once."""
    others = []
    for _ in range(job.workers - 1):
        others.append((yield from start(lambda: _drain(run, job, watch))))
    yield from _drain(run, job, watch)
    for other in others:
        yield from join(other)


def _drain(run: Embedding, job: Job, watch: _Watch) -> Script[None]:
    name, policy = job.worker(), QueuePolicy()
    tally = drain.Counts(spending=run.spending)
    try:
        while not job.stop.is_set() and (yield from drain.serve(run, name, policy, drain.BATCH_SIZE, tally)):
            yield from watch.look()
            watch.tell("embedding")
    finally:
        yield from queue.release(name)


class _Watch:
    """What is told of a change of chunks, in documents."""

    def __init__(self, job: Job, copy: CollectionInfo, spending: Spending) -> None:
        self.job, self.copy, self.spending = job, copy, spending
        self.started = time.perf_counter()
        self.of = self.done = self.queued = 0
        self.begun: int | None = None

    def look(self) -> Script[None]:
        """Count what is done."""
        row = yield from fetch_one(
            "SELECT (SELECT count(*) FROM pgseek.documents d WHERE d.collection_id = %(copy)s) AS there,"
            " (SELECT count(*) FROM pgseek.ingest_queue q WHERE q.collection_id = %(copy)s) AS queued,"
            " (SELECT count(*) FROM pgseek.documents d WHERE d.collection_id = %(original)s) AS of",
            {"copy": self.copy.collection_id, "original": self.job.run.info.collection_id},
        )
        if row is not None:
            self.of, self.queued = row["of"], row["queued"]
            self.done = row["there"] - row["queued"]
            self.begun = self.done if self.begun is None else self.begun

    def filled(self, seen: int, of: int) -> None:
        """Tell that so many documents were looked at."""
        self.of = of
        if self.job.progress is not None:
            self.job.progress(replace(self.report("dividing"), done=seen, begun=0))

    def report(self, stage: ReembedStage, **more: Any) -> ReembedReport:
        """Return how far it is."""
        return ReembedReport(
            collection=self.job.run.info.name,
            space_id=self.copy.space_id,
            stage=stage,
            chunks=max(self.of, self.done),
            done=self.done,
            begun=self.begun or 0,
            seconds=time.perf_counter() - self.started,
            tokens=self.spending.tokens,
            cost=self.spending.cost,
            copy=self.copy.name,
            **more,
        )

    def tell(self, stage: ReembedStage) -> None:
        """Report to whoever wants to know."""
        if self.job.progress is not None:
            self.job.progress(self.report(stage))

    def end(
        self,
        stage: ReembedStage,
        refused: Mapping[str, str] | None = None,
        gate: GateReport | None = None,
    ) -> Script[ReembedReport]:
        """Return the last report."""
        yield from self.look()
        waiting = self.queued if stage == "switched" else 0
        return self.report(stage, refused=refused or {}, gate=gate, queued=waiting)


def wanted(
    info: CollectionInfo,
    own: Embedder,
    to: Embedder | str | None,
    generator: TextGenerator | str | None,
    settings: Mapping[str, Any],
) -> Wanted:
    """Return what a copy is made of.

    Raises:
        InvalidInput: nothing would change.
    """
    changes = {name: value for name, value in settings.items() if value is not None}
    embedder = own if to is None else collections.choose_embedder(to, None)
    known = {name: value for name, value in changes.items() if info.settings.get(name) == value}
    if len(known) == len(changes) and generator is None:
        told = ", ".join(f"{name} is {value!r} already" for name, value in known.items())
        raise InvalidInput(
            f"nothing would change in how {info.name!r} is divided: {told or 'no setting is given'}; "
            "give chunk_size, chunk_overlap, section_size, heading_context, long_texts, document_vectors, "
            "questions or summaries"
        )
    return Wanted(embedder, changes, generator)


def go_back(info: CollectionInfo) -> Script[SpaceInfo]:
    """Let what was searched before be searched again: another space, or the collection's former chunks.

    Raises:
        InvalidInput: nothing is kept.
    """
    kept = yield from collections.find_copy(info)
    if kept is not None and kept.kept:
        candidates = [s for s in (yield from spaces.list_all(info)) if s.state == "ready" and s.activated_at]
        # What was searched last before the present one.
        since = kept.space.activated_at or kept.space.created_at
        if all((one.activated_at or one.created_at) < since for one in candidates):
            return (yield from copies.rollback(info)).space
    found = yield from switching.previous(info)
    yield from switching.activate(info, found)
    return found


def retire(info: CollectionInfo, space: int | str) -> Script[None]:
    """Drop a space, or by its name the collection's copy.

    Raises:
        InvalidInput: there is no such space, or it is the one that is searched.
        ChangeRefused: a transaction is open that may use it.
    """
    copy = yield from collections.find_copy(info)
    if copy is not None and space == copy.name:
        yield from copies.retire(copy)
        return
    yield from switching.retire(info, (yield from spaces.find(info, space)))
