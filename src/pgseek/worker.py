"""A worker: it serves the queues of all collections, or of some, for as long as it shall.

It takes a batch from each collection in turn, that which waits longest first, and sleeps until a writer
notifies it, a document is due again, or it has not looked for a while. What does not work is left to rest,
longer each time, and the rest goes on: an embedder that is down, a database that is restarted.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pgseek import collections, queue
from pgseek.drain import Counts, serve
from pgseek.embedders.base import Embedder
from pgseek.embedders.limits import Spending
from pgseek.embedding import Embedding
from pgseek.errors import (
    CollectionNotFound,
    ConfigurationError,
    ConnectionFailed,
    DatabaseError,
    EmbedderError,
    GeneratorError,
    InvalidInput,
    PgseekError,
    SchemaError,
)
from pgseek.generators.base import TextGenerator
from pgseek.loading import settle
from pgseek.prepare import check_batch_size
from pgseek.steps import Script, Stop, for_tenant, listen, sleep
from pgseek.types import CachePolicy, CollectionId, CollectionInfo, QueuePolicy, SpaceId, WorkReport

# Seconds: how long what does not work is left alone, from the first to the longest time.
SHORTEST_REST, LONGEST_REST = 1.0, 60.0
# Statistics and index are seen to when a collection has nothing to do, but not more often than that; and in
# between when it never has nothing to do.
SETTLE_SECONDS, SETTLE_BUSY_SECONDS = 60.0, 600.0


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is told.

    ``names`` are the collections it serves, with their copies, None for all that there are and will be.
    ``embedders`` are the objects of collections made with one, by name, and ``generators`` likewise;
    ``share`` is told of all in use. ``once`` ends the work when nothing is due. ``batch`` is how many
    documents are claimed together, ``poll`` after how many seconds without a notification the worker looks
    by itself. ``progress`` is called after each batch, ``notice`` with a line about what does not go well.
    """

    worker: str
    names: Sequence[str] | None
    embedders: Mapping[str, Embedder | Sequence[Embedder]]
    generators: Mapping[str, TextGenerator]
    share: Callable[[object], None]
    cache: CachePolicy
    policy: QueuePolicy
    once: bool
    batch: int
    poll: float
    stop: Stop
    progress: Callable[[WorkReport], None] | None
    notice: Callable[[str], None]

    def __post_init__(self) -> None:
        check_batch_size(self.batch)
        if not (isinstance(self.poll, int | float) and 0 < self.poll <= 86_400):
            raise InvalidInput(f"poll is {self.poll!r}, but must be above 0 and at most 86,400 seconds")


@dataclass(slots=True)
class _Rest:
    """How long something is left alone, longer from time to time."""

    until: float = -math.inf
    seconds: float = SHORTEST_REST

    def begin(self) -> float:
        """Begin to rest and return for how many seconds; other workers do not come back at the same time."""
        taken = self.seconds * random.uniform(0.75, 1.25)  # noqa: S311 (no secret)
        self.until = time.monotonic() + taken
        self.seconds = min(self.seconds * 2, LONGEST_REST)
        return taken


@dataclass(slots=True)
class _Served:
    """A collection with its embedder, or (``run`` is None) one that this worker cannot serve."""

    space_id: SpaceId
    run: Embedding | None
    rest: _Rest = field(default_factory=_Rest)
    unsettled: int = 0
    settled_at: float = -math.inf


def work(job: Job) -> Script[WorkReport]:
    """Do a job and return what was done in all.

    Raises:
        CollectionNotFound: one of the names is none; only in the beginning.
        PgseekError: with ``once``, what kept a collection from being served, after the others were.
    """
    worker = _Worker(job)
    there = {info.name for info in (yield from collections.list_all(copies=True))} if job.names else set()
    for name in job.names or ():
        if name not in there:
            raise (yield from collections.not_found(name))
    rest = _Rest()
    away = False
    while not job.stop.is_set():
        try:
            if away:
                yield from queue.release(job.worker)
                job.notice("the database is back")
                away, rest = False, _Rest()
            busy = yield from worker.round()
            if busy:
                continue
            yield from worker.settle(SETTLE_SECONDS if not job.once else 0)
            if job.once:
                break
            yield from worker.wait()
        except ConnectionFailed as error:
            if job.once:
                raise
            away = True
            seconds = rest.begin()
            job.notice(f"{error}; trying again in {seconds:.1f} s")
            yield from _pause(seconds, job.stop)
    if worker.failure is not None:
        raise worker.failure
    return worker.total


class _Worker:
    """What a worker remembers between two rounds."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.total = WorkReport()
        # With ``once``: the first that went wrong.
        self.failure: PgseekError | None = None
        self._served: dict[CollectionId, _Served] = {}
        self._embedders: dict[str, Embedder] = {}
        # Seconds to the next document that is due.
        self._next = math.inf

    def round(self) -> Script[bool]:
        """Serve a batch of each collection that has one; return whether there was any."""
        due = yield from queue.next_due()
        infos = yield from collections.list_all(copies=True)
        now = time.monotonic()
        ready: list[tuple[float, CollectionInfo, _Served]] = []
        self._next = math.inf
        for info in infos:
            seconds = due.get(info.collection_id)
            names = self.job.names
            if seconds is None or (
                names is not None and info.name not in names and info.original not in names
            ):
                continue
            served = self._known(info)
            if served.run is None:
                continue
            if seconds > 0:
                self._next = min(self._next, seconds)
            elif served.rest.until <= now:
                ready.append((seconds, info, served))
        busy = False
        for due_in, info, served in sorted(ready, key=lambda one: one[0]):
            if self.job.stop.is_set():
                break
            if (yield from self._batch(info, served, -due_in)):
                busy = True
        return busy

    def settle(self, seconds: float) -> Script[None]:
        """See to statistics and index of collections that were written to, if that is so long ago."""
        for served in self._served.values():
            if self.job.stop.is_set():
                return
            if (
                served.unsettled
                and served.run is not None
                and time.monotonic() - served.settled_at >= seconds
            ):
                yield from self._settle(served, served.run)

    def wait(self) -> Script[None]:
        """Wait until there may be something to do."""
        now = time.monotonic()
        seconds = min(self.job.poll, max(0.0, self._next))
        for served in self._served.values():
            if served.unsettled:
                seconds = min(seconds, max(0.0, served.settled_at + SETTLE_SECONDS - now))
            if served.rest.until > now:
                seconds = min(seconds, served.rest.until - now)
        passed_over = [i for i, s in self._served.items() if s.run is None or s.rest.until > now]
        parameters = {
            "passed_over": passed_over,
            "names": list(self.job.names) if self.job.names is not None else None,
        }
        yield from listen(queue.CHANNEL, queue.SOMETHING_DUE, parameters, seconds, self.job.stop)

    def _known(self, info: CollectionInfo) -> _Served:
        """Return a collection as it stands now; it may have been made anew, or have other settings."""
        served = self._served.get(info.collection_id)
        if served is None or served.space_id != info.space_id:
            served = self._served[info.collection_id] = _Served(info.space_id, self._begin(info))
        elif served.run is not None and served.run.info != info:
            served.run = replace(served.run, info=info)
        return served

    def _begin(self, info: CollectionInfo) -> Embedding | None:
        try:
            # A copy is served with what was given for its original, as far as it fits.
            objects = self.job.embedders.get(info.name, self.job.embedders.get(info.original or ""))
            given = collections.given_embedders(info, objects)
            own = collections.own_embedder(info, given) or self._embedders.get(info.identity_hash)
            embedder = collections.matching_embedder(info, own)
            writer = self.job.generators.get(info.name)
            if writer is None and not info.settings.get("generator"):
                writer = self.job.generators.get(info.original or "")
            generator = collections.own_generator(info, writer)
        except PgseekError as error:
            line = f"collection {info.name!r} is passed over: {error}"
            # Whatever it was to the embedder: here no argument is wrong.
            self._note(line, ConfigurationError(line))
            return None
        self._embedders.setdefault(info.identity_hash, embedder)
        self.job.share(embedder)
        self.job.share(generator)
        spending = Spending(getattr(embedder, "price", 0.0))
        return Embedding(info, embedder, self.job.cache, spending, generator, given)

    def _batch(self, info: CollectionInfo, served: _Served, waited: float) -> Script[bool]:
        run = served.run
        if run is None:
            return False
        spending = Spending(run.spending.price)
        counts = Counts(spending=spending)
        try:
            found = yield from for_tenant(
                info.tenant,
                serve(
                    replace(run, spending=spending), self.job.worker, self.job.policy, self.job.batch, counts
                ),
            )
            served.rest = _Rest()
        except (ConnectionFailed, SchemaError):
            raise
        except CollectionNotFound:
            # Dropped in the meantime.
            del self._served[info.collection_id]
            return True
        except (EmbedderError, GeneratorError, ConfigurationError, DatabaseError) as error:
            yield from queue.release(self.job.worker)
            seconds = served.rest.begin()
            end = "" if self.job.once else f"; trying again in {seconds:.1f} s"
            self._note(f"collection {info.name!r}: {error}{end}", error)
            if self.job.once:
                served.rest.until = math.inf
            found = False
        finally:
            self._report(info, counts, waited)
            served.unsettled += counts.chunks
        if served.unsettled and time.monotonic() - served.settled_at >= SETTLE_BUSY_SECONDS:
            # Not before the first batches: an index is made faster of many rows at once.
            if served.settled_at == -math.inf:
                served.settled_at = time.monotonic() - SETTLE_SECONDS
            else:
                yield from self._settle(served, run)
        return found

    def _settle(self, served: _Served, run: Embedding) -> Script[None]:
        written, served.unsettled = served.unsettled, 0
        served.settled_at = time.monotonic()
        try:
            yield from for_tenant(run.info.tenant, settle(run.info, written))
        except ConnectionFailed:
            served.unsettled = written
            raise
        except CollectionNotFound:
            # Dropped in the meantime.
            return
        except PgseekError as error:
            # The documents are stored and found; what comes after them is done by the next who can.
            self._note(f"collection {run.info.name!r}: {error}", error)

    def _note(self, line: str, error: PgseekError) -> None:
        self.failure = self.failure or (error if self.job.once else None)
        self.job.notice(line)

    def _report(self, info: CollectionInfo, counts: Counts, waited: float) -> None:
        done = counts.report()
        report = WorkReport(
            info.name,
            counts.changed,
            counts.chunks,
            counts.embedded,
            counts.cached,
            len(counts.rejected) - counts.retried,
            counts.retried,
            done.tokens,
            done.cost,
            done.seconds,
            waited,
        )
        if not (report.documents or report.failed or report.retried or report.embedded):
            return
        summed = {
            name: getattr(self.total, name) + getattr(report, name)
            for name in WorkReport.__dataclass_fields__
            if name not in {"collection", "waited"}
        }
        self.total = WorkReport(waited=max(self.total.waited, waited), **summed)
        if self.job.progress is not None:
            self.job.progress(report)


def _pause(seconds: float, stop: Stop) -> Script[None]:
    end = time.monotonic() + seconds
    while not stop.is_set() and (left := end - time.monotonic()) > 0:
        yield from sleep(min(left, 0.25))


def never() -> Stop:
    """Return a `Stop` that is never set."""
    return threading.Event()
