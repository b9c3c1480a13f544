"""What others see of searches, ingests and workers: OpenTelemetry's spans and metrics, the slow-query log.

Without OpenTelemetry's API (the extra ``otel``) nothing of it is imported or done. No text of a query, and no
message of an error, which may hold it, is recorded unless asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from pgseek.stages import Stages
from pgseek.types import Hit, IngestReport, Search, WorkReport

log = logging.getLogger("pgseek.slow")
Attributes = dict[str, Any]
# Of an ingest's report, what its batches are told apart by.
COUNTED = (
    *("new", "changed", "metadata_changed", "unchanged", "chunks", "embedded", "cached"),
    *("reused", "generated", "tokens"),
)
WORKED = ("documents", "chunks", "embedded", "cached", "failed", "retried", "tokens")


class Telemetry:
    """The spans and metrics, by a tracer and a meter of OpenTelemetry."""

    def __init__(self, tracer: Any, meter: Any, error: Any) -> None:
        self.tracer = tracer
        # What a span's status is set to when its work failed.
        self.error = error
        self.search = meter.create_histogram("pgseek.search.duration", "s", "a search, all of it")
        self.stage = meter.create_histogram("pgseek.search.stage.duration", "s", "a part of a search")
        self.candidates = meter.create_histogram(
            "pgseek.search.candidates", "{row}", "rows that a leg brought to the fusion"
        )
        self.degraded = meter.create_counter(
            "pgseek.search.degraded", "{search}", "searches that did without something they were asked for"
        )
        self.lookups = meter.create_counter(
            "pgseek.cache.lookups", "{text}", "vectors looked up in the cache"
        )
        self.ingest = meter.create_histogram("pgseek.ingest.duration", "s", "an ingest, all of it")
        self.batch = meter.create_histogram("pgseek.ingest.batch.duration", "s", "between two batches stored")
        self.worker = meter.create_histogram("pgseek.worker.batch.duration", "s", "a worker's batch")
        self.age = meter.create_histogram(
            "pgseek.queue.age",
            "s",
            "how long the longest due document of a batch had been due",
        )

    @contextmanager
    def span(self, name: str, attributes: Attributes) -> Iterator[Any]:
        """Make a span the current one; an error is told by its kind alone."""
        with self.tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as failed:
                self.fail(span, failed)
                raise

    def fail(self, span: Any, failed: BaseException) -> None:
        """Mark a span as failed."""
        span.set_attribute("error.type", type(failed).__name__)
        span.set_status(self.error)

    def past(self, name: str, began: int, ended: int, attributes: Attributes) -> None:
        """Record a span, within the current one, of what is over; times by `time.time_ns`."""
        self.tracer.start_span(name, start_time=began, attributes=attributes).end(ended)


@cache
def telemetry() -> Telemetry | None:
    """Return the spans and metrics of this process, None where OpenTelemetry's API is not installed."""
    try:
        from opentelemetry import metrics, trace  # noqa: PLC0415 (optional package)
    except ImportError:
        return None
    error = trace.StatusCode.ERROR
    return Telemetry(trace.get_tracer("pgseek"), metrics.get_meter("pgseek"), error)


@dataclass(frozen=True, slots=True)
class Observer:
    """What a client records.

    Searches of ``slow`` seconds and more are logged; ``queries`` puts their text into the log and the spans.
    """

    telemetry: Telemetry | None = None
    slow: float | None = None
    queries: bool = False

    @contextmanager
    def search(self, stages: Stages, request: Search) -> Iterator[list[list[Hit]]]:
        """Observe a search; put its hits into the list. What it raises passes."""
        found: list[list[Hit]] = []
        if self.telemetry is None and self.slow is None:
            yield found
            return
        failed: BaseException | None = None
        try:
            if self.telemetry is None:
                yield found
            else:
                with self.telemetry.span("pgseek.search", {"pgseek.collection": stages.collection}) as span:
                    try:
                        yield found
                    finally:
                        self._describe(self.telemetry, span, stages, request, found)
        except BaseException as error:
            failed = error
            raise
        finally:
            hits = found[0] if found else []
            if self.telemetry is not None:
                _measure(self.telemetry, stages, hits, failed)
            if self.slow is not None and stages.seconds >= self.slow:
                self._log(stages, request, hits, failed)

    @contextmanager
    def ingest(
        self, collection: str, progress: Callable[[IngestReport], None] | None
    ) -> Iterator[Callable[[IngestReport], None] | None]:
        """Observe an ingest, by what it reports as it goes on."""
        told = self.telemetry
        if told is None:
            yield progress
            return
        attributes = {"pgseek.collection": collection}
        began = time.perf_counter()
        with told.span("pgseek.ingest", attributes):
            watched = _Batches(told, collection, progress)
            try:
                yield watched
            finally:
                told.ingest.record(time.perf_counter() - began, attributes)

    def work(self, progress: Callable[[WorkReport], None] | None) -> Callable[[WorkReport], None] | None:
        """Observe a worker's batches, by what it reports of each."""
        told = self.telemetry
        if told is None:
            return progress

        def watched(report: WorkReport) -> None:
            _worked(told, report)
            if progress is not None:
                progress(report)

        return watched

    def _describe(
        self, told: Telemetry, span: Any, stages: Stages, request: Search, found: list[list[Hit]]
    ) -> None:
        hits = found[0] if found else []
        span.set_attributes(
            {
                "pgseek.k": request.k,
                "pgseek.hits": len(hits),
                "pgseek.reranked": stages.reranked,
                "pgseek.written": len(stages.texts),
                "pgseek.degraded": bool(stages.events or any(hit.degraded for hit in hits[:1])),
                **({} if stages.cached is None else {"pgseek.cached": stages.cached}),
                **({"pgseek.without": tuple(stages.events)} if stages.events else {}),
                **{f"pgseek.candidates.{leg}": n for leg, n in _candidates(hits).items()},
                **({"pgseek.query": request.query} if self.queries else {}),
            }
        )
        for stage in stages.done:
            told.past(f"pgseek.search.{stage.name}", stage.began, stage.ended, {})

    def _log(self, stages: Stages, request: Search, hits: list[Hit], failed: BaseException | None) -> None:
        """Log one line; the same as values in the record's ``pgseek``."""
        values: Attributes = {
            "collection": stages.collection,
            "seconds": round(stages.seconds, 4),
            "stages": {stage.name: round(stage.seconds, 4) for stage in stages.done},
            "parameters": _parameters(request),
            "candidates": _candidates(hits),
            "hits": len(hits),
            "reranked": stages.reranked,
            "degraded": [*stages.events, *_own_reasons(hits, stages)],
            "error": None if failed is None else type(failed).__name__,
        }
        if self.queries:
            values["query"] = request.query
        told = ", ".join(f"{name} {value!r}" for name, value in values.items() if value not in ({}, [], None))
        log.warning("slow search: %s", told, extra={"pgseek": values})


class _Batches:
    """Called with an ingest's reports: records a span from one batch stored to the next."""

    def __init__(
        self, told: Telemetry, collection: str, progress: Callable[[IngestReport], None] | None
    ) -> None:
        self._told = told
        self._attributes = {"pgseek.collection": collection}
        self._progress = progress
        self._last = IngestReport()
        self._at = time.time_ns()

    def __call__(self, report: IngestReport) -> None:
        """Record what was done since the last report, and hand it on."""
        now, told = time.time_ns(), self._told
        done = {name: getattr(report, name) - getattr(self._last, name) for name in COUNTED}
        done["rejected"] = len(report.rejected) - len(self._last.rejected)
        if any(done.values()):
            counts = {f"pgseek.{name}": number for name, number in done.items()}
            told.past("pgseek.ingest.batch", self._at, now, self._attributes | counts)
            told.batch.record((now - self._at) / 1e9, self._attributes)
            _looked_up(told, "document", done["cached"], done["embedded"])
        self._last, self._at = report, now
        if self._progress is not None:
            self._progress(report)


def _measure(told: Telemetry, stages: Stages, hits: list[Hit], failed: BaseException | None) -> None:
    about: Attributes = {"pgseek.collection": stages.collection}
    outcome = about if failed is None else about | {"error.type": type(failed).__name__}
    told.search.record(stages.seconds, outcome)
    for stage in stages.done:
        told.stage.record(stage.seconds, about | {"pgseek.stage": stage.name})
    for leg, number in _candidates(hits).items():
        told.candidates.record(number, about | {"pgseek.leg": leg})
    if stages.events or any(hit.degraded for hit in hits[:1]):
        told.degraded.add(1, about)
    if stages.cached is not None:
        _looked_up(told, "query", int(stages.cached), int(not stages.cached))


def _worked(told: Telemetry, report: WorkReport) -> None:
    ended = time.time_ns()
    about: Attributes = {"pgseek.collection": report.collection or ""}
    counts = {f"pgseek.{name}": getattr(report, name) for name in WORKED}
    told.past("pgseek.worker.batch", ended - int(report.seconds * 1e9), ended, about | counts)
    told.worker.record(report.seconds, about)
    told.age.record(report.waited, about)
    _looked_up(told, "document", report.cached, report.embedded)


def _looked_up(told: Telemetry, input_type: str, hits: int, misses: int) -> None:
    for result, number in (("hit", hits), ("miss", misses)):
        if number:
            told.lookups.add(number, {"pgseek.input_type": input_type, "pgseek.result": result})


def _candidates(hits: list[Hit]) -> dict[str, int]:
    """Return how many rows each leg brought, as far as there are hits to tell."""
    legs = {"dense": hits[0].dense_candidates, "lexical": hits[0].lexical_candidates} if hits else {}
    return {leg: number for leg, number in legs.items() if number is not None}


def _own_reasons(hits: list[Hit], stages: Stages) -> list[str]:
    """Return why the statement did less: `Stages` has the rest, in words fit for a log."""
    if not hits or hits[0].degraded is None:
        return []
    own = hits[0].degraded.removeprefix("; ".join(stages.lacking)).removeprefix("; ")
    return [own] if own else []


def _parameters(request: Search) -> Attributes:
    """Return what was asked for besides the defaults, and never the query."""
    given = {each.name: (getattr(request, each.name), each.default) for each in fields(request)}
    return {
        name: value for name, (value, default) in given.items() if name != "query" and value != default
    } | {"k": request.k}
