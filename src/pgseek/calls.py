"""Threads for functions that block, such as a model's, which nobody may have to wait for to the end."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

# Threads at once; further calls wait for one. A call that was given up holds its thread until it ends.
MOST = 64

Outcome = tuple[Any, Exception | None]
Work = tuple[Future[Outcome], Callable[[], Any], contextvars.Context]


class Calls:
    """Runs functions in threads of its own, which do not keep the process from ending."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0

    def begin(self, function: Callable[[], Any]) -> Future[Outcome]:
        """Have the function called. The future never fails: it holds the result, or the error beside it."""
        future: Future[Outcome] = Future()
        with self._lock:
            begin = self._idle == 0 and self._threads < MOST
            if begin:
                self._threads += 1
            elif self._idle:
                self._idle -= 1
        self._waiting.put((future, function, contextvars.copy_context()))
        if begin:
            threading.Thread(target=self._serve, name="pgseek-call", daemon=True).start()
        return future

    def close(self) -> None:
        """Let the threads end, each after its call."""
        with self._lock:
            threads, self._threads, self._idle = self._threads, 0, 0
        for _ in range(threads):
            self._waiting.put(None)

    def _serve(self) -> None:
        while (work := self._waiting.get()) is not None:
            future, function, context = work
            if future.set_running_or_notify_cancel():
                future.set_result(context.run(_outcome, function))
            # Not kept until the next call comes.
            del work, future, function, context
            with self._lock:
                self._idle += 1


def _outcome(function: Callable[[], Any]) -> Outcome:
    try:
        return function(), None
    except Exception as error:
        return None, error
