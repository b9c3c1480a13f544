"""A search under way: what it has left of its time, how long each stage took, and what it does without."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import psycopg

from pgseek.errors import DatabaseError, SearchTimeout
from pgseek.steps import Script, fetch, transact
from pgseek.types import SearchPolicy, SearchReport

T = TypeVar("T")

# The server's own limit stays in force where it is the lower one.
_LIMIT = """
SELECT set_config('statement_timeout', least(
           nullif(extract(epoch FROM current_setting('statement_timeout')::interval) * 1000, 0), %s
       )::bigint::text, true)
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a search: when it began and ended, by `time.time_ns`, and the seconds between."""

    name: str
    began: int
    ended: int
    seconds: float


class Stages:
    """One search: its policy, the stages so far, and reasons why less is done than was asked.

    ``lacking`` goes into every hit; ``events`` says the same for the log, without a word of the query.
    """

    def __init__(self, collection: str, policy: SearchPolicy) -> None:
        timeout = policy.timeout
        self.collection = collection
        self.policy = policy
        self.timeout = None if timeout is None or math.isinf(timeout) else timeout
        self.done: list[Stage] = []
        self.lacking: list[str] = []
        self.events: list[str] = []
        self.cached: bool | None = None
        self.reranked = 0
        self.texts: tuple[str, ...] = ()
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self._started

    def left(self, share: float = 1.0) -> float | None:
        """Return the seconds it has left, 0 or more, or a share of them; None without a limit."""
        return None if self.timeout is None else max(0.0, self.timeout - self.seconds) * share

    def lack(self, reason: str, event: str) -> None:
        """Note what the search does without."""
        self.lacking.append(reason)
        self.events.append(event)

    def again(self) -> None:
        """Forget what an attempt that is made anew did without; its time counts."""
        self.lacking.clear()
        self.events.clear()

    def report(self, hits: int) -> SearchReport:
        """Return what was done."""
        stages: dict[str, float] = {}
        for stage in self.done:
            stages[stage.name] = stages.get(stage.name, 0.0) + stage.seconds
        return SearchReport(
            collection=self.collection,
            hits=hits,
            seconds=self.seconds,
            stages=stages,
            cached=self.cached,
            reranked=self.reranked,
            degraded=tuple(self.lacking),
            texts=self.texts,
        )

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage.

        Raises:
            SearchTimeout: no time was left for it, or it used up what was left.
        """
        if self.left() == 0:
            raise self._late(f"{name} not begun")
        at = time.perf_counter()
        with self.untimed(name):
            try:
                yield
            except TimeoutError as error:
                raise self._late(f"{name} {time.perf_counter() - at:.3g} s, not done", str(error)) from error
            except DatabaseError as error:
                if isinstance(error.__cause__, psycopg.errors.QueryCanceled) and self.left() == 0:
                    raise self._late(f"{name} {time.perf_counter() - at:.3g} s, not done") from error
                raise

    @contextlib.contextmanager
    def untimed(self, name: str) -> Iterator[None]:
        """Note how long a stage takes that looks after its limit itself."""
        began, at = time.time_ns(), time.perf_counter()
        try:
            yield
        finally:
            self.done.append(Stage(name, began, time.time_ns(), time.perf_counter() - at))

    def _late(self, last: str, why: str = "") -> SearchTimeout:
        told = [*(f"{stage.name} {stage.seconds:.3g} s" for stage in self.done), last]
        because = f" ({why})" if why else ""
        return SearchTimeout(
            f"the search of {self.collection!r} took longer than its timeout of {self.timeout:g} s: "
            f"{', '.join(told)}{because}"
        )


def within(stages: Stages | None, script: Callable[[], Script[T]]) -> Script[T]:
    """Run a script of statements; with a time limit in a transaction that holds the server to it.

    What the server cancels, and a connection that is not free in time, end in errors that
    `Stages.stage` knows.
    """
    seconds = None if stages is None else stages.left()
    if stages is None or seconds is None:
        return (yield from script())

    def limited() -> Script[T]:
        # Asked again: waiting for a connection has taken its time. 0 would mean no limit.
        left = stages.left() or 0.0
        yield from fetch(_LIMIT, [max(1, math.ceil(left * 1000))])
        return (yield from script())

    return (yield from transact(limited, seconds))
