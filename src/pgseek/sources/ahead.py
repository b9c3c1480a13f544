"""Files in their order, read ahead of their turn by other processes where that takes long."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType

from pgseek.sources.formats import PARSED, Format
from pgseek.sources.parsers import Parsers
from pgseek.sources.whole import read_file
from pgseek.types import Located, Rejection

# Seconds of parsing after which more processes are worth their start; see benchmarks/sources.py.
POOL_AFTER = 1.0
# Files that wait for their turn, per process: what is read while whoever takes them is busy otherwise.
AHEAD = 16
Outcome = Located | Rejection


@dataclass(slots=True)
class _Turn:
    """A file that waits: its outcome, or who reads it, or neither."""

    name: str = ""
    kind: Format = "text"
    outcome: Outcome | None = None
    future: Future[Outcome] | None = None


class Ahead:
    """A queue of files, at most `AHEAD` per process; closing it ends the processes.

    Who takes the first file and finds it unread does not wait for another process: it reads the
    nearest one that nobody has begun, so all processors work, and the order stays.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._turns: deque[_Turn] = deque()
        self._parsers: Parsers | None = None
        self._seconds = 0.0

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._parsers is not None:
            self._parsers.close()

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def full(self) -> bool:
        """Whether the first file should be taken before another is added."""
        return len(self) > (AHEAD * self._processes if self._parsers is not None else 0)

    def add(self, file: tuple[str, Format] | Rejection) -> None:
        """Put a file, or what is known of it already, at the end."""
        if isinstance(file, Rejection):
            self._turns.append(_Turn(outcome=file))
            return
        turn = _Turn(*file)
        self._turns.append(turn)
        if turn.kind in PARSED and self._processes:
            if self._parsers is None and self._seconds > POOL_AFTER:
                self._parsers = Parsers(self._processes)
            if self._parsers is not None:
                turn.future = self._parsers.submit(turn.name, turn.kind)

    def take(self) -> Outcome:
        """Return the outcome of the first file. Raises `MissingExtra`."""
        first = self._turns[0]
        while first.outcome is None and first.future is not None and not first.future.done():
            turn = next((t for t in self._turns if t.future is not None and t.future.cancel()), None)
            if turn is None:
                break
            turn.future = None
            turn.outcome = self._read(turn)
        self._turns.popleft()
        if first.outcome is not None:
            return first.outcome
        return first.future.result() if first.future is not None else self._read(first)

    def _read(self, turn: _Turn) -> Outcome:
        started = time.perf_counter()
        outcome = read_file(turn.name, turn.kind)
        if turn.kind in PARSED:
            self._seconds += time.perf_counter() - started
        return outcome
