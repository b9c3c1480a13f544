"""A change of model from its beginning to the switch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from pgseek import embedding, spaces
from pgseek.embedders.base import Embedder
from pgseek.embedders.limits import Spending
from pgseek.embedding import Embedding
from pgseek.reembed.filling import begin, complete, fill
from pgseek.reembed.judging import judge
from pgseek.reembed.switching import activate
from pgseek.steps import (
    Script,
    Stop,
    fetch,
    join,
    start,
)
from pgseek.types import (
    CollectionInfo,
    Gate,
    GateReport,
    ReembedReport,
    ReembedStage,
    SpaceInfo,
)
from pgseek.vectors import Metric, Storage, VectorIndex

Progress = Callable[[ReembedReport], None]

# How often a switch is tried while others write, before what is missing is left to a worker.
ATTEMPTS = 10


@dataclass(slots=True)
class _Watch:
    """What is told of a re-embedding."""

    info: CollectionInfo
    space: SpaceInfo
    spending: Any
    progress: Progress | None
    total: int
    done: int
    started: float
    begun: int = 0

    def wrote(self, rows: int) -> None:
        self.done += rows
        self.tell("embedding")

    def report(self, stage: ReembedStage, **more: Any) -> ReembedReport:
        return ReembedReport(
            collection=self.info.name,
            space_id=self.space.space_id,
            stage=stage,
            chunks=max(self.total, self.done),
            done=self.done,
            begun=self.begun,
            seconds=time.perf_counter() - self.started,
            tokens=self.spending.tokens,
            cost=self.spending.cost,
            **more,
        )

    def tell(self, stage: ReembedStage) -> None:
        if self.progress is not None:
            self.progress(self.report(stage))


@dataclass(frozen=True, slots=True)
class Job:
    """``run`` is the space that is searched; ``wanted`` what the new one is made of: `planning.target`."""

    run: Embedding
    wanted: tuple[Embedder, Metric, Storage, VectorIndex]
    gate: Gate
    workers: int
    max_cost: float | None
    switch: bool
    stop: Stop
    progress: Progress | None
    # The model is the same by its name: see `filling.begin`.
    again: bool = False


def reembed(job: Job) -> Script[ReembedReport]:
    """Do all of it: begin or go on, fill, index, judge, and switch if that went well.

    Raises:
        InvalidInput, EmbedderError, CostLimitReached, DatabaseError: what was embedded stays; running it
            again goes on.
    """
    run, gate, stop = job.run, job.gate, job.stop
    embedder = job.wanted[0]
    embedding.check_cost(embedder, None, job.max_cost)
    spending = Spending(getattr(embedder, "price", 0.0), job.max_cost)
    info = run.info
    space = yield from begin(info, *job.wanted, again=job.again)
    new = replace(
        run,
        info=replace(info, space=space),
        embedder=embedder,
        spending=spending,
    )
    counts = yield from spaces.with_counts(space)
    watch = _Watch(
        info,
        space,
        new.spending,
        job.progress,
        (counts.rows or 0) + (counts.missing or 0),
        counts.rows or 0,
        time.perf_counter(),
        counts.rows or 0,
    )
    refused: dict[UUID, str] = {}
    verdict: GateReport | None = None
    for attempt in range(1, ATTEMPTS + 1):
        watch.tell("embedding")
        refused = yield from _fill(new, job, watch)
        if stop.is_set():
            return watch.report("stopped", refused=(yield from _named(info, refused)))
        if attempt == 1:
            watch.tell("indexing")
            space = yield from complete(info, space)
            new = replace(new, info=replace(new.info, space=space))
            watch.tell("judging")
            verdict = yield from judge(run, new, gate)
        named = yield from _named(info, refused)
        if refused and not gate.allow_refused:
            return watch.report("refused", refused=named, gate=verdict)
        if verdict is not None and verdict.reasons:
            return watch.report("refused", refused=named, gate=verdict)
        if not job.switch:
            return watch.report("ready", refused=named, gate=verdict)
        watch.tell("switching")
        # Who writes with an embedder of the old space only leaves something out; it is made up for, in turns.
        left = yield from activate(info, space, enqueue=attempt == ATTEMPTS or bool(refused))
        if not left or attempt == ATTEMPTS or refused:
            return watch.report("switched", refused=named, gate=verdict, queued=left)
    raise AssertionError("the last attempt switches")


def _fill(run: Embedding, job: Job, watch: _Watch) -> Script[dict[UUID, str]]:
    others = []
    for _ in range(job.workers - 1):
        others.append((yield from start(lambda: fill(run, job.stop, watch.wrote, again=job.again))))
    refused = yield from fill(run, job.stop, watch.wrote, again=job.again)
    for other in others:
        refused.update((yield from join(other)))
    return refused


def _named(info: CollectionInfo, refused: Mapping[UUID, str]) -> Script[dict[str, str]]:
    if not refused:
        return {}
    rows = yield from fetch(
        "SELECT document_id, external_id FROM pgseek.documents WHERE collection_id = %s"
        " AND document_id = ANY (%s) ORDER BY external_id",
        [info.collection_id, list(refused)],
    )
    return {row["external_id"]: refused[row["document_id"]] for row in rows}
