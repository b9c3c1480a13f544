"""Steps: how a sequence of I/O is written once and run by both clients.

A *script* is a generator that yields steps (fetch rows, copy rows in, run a transaction, embed
texts) and receives their results; it performs no I/O itself. `Client` runs a script with blocking
calls, `AsyncClient` with awaited ones. The helpers below give each step its result type:
``rows = yield from fetch(statement, parameters)``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, LiteralString, Protocol, TypeVar

import psycopg
from psycopg.sql import SQL, Composed

from pgseek.calls import Calls, Outcome
from pgseek.db.connection import translate
from pgseek.embedders.base import Embedded, Embedder, Vectors, checked_query, embed_many
from pgseek.embedders.limits import Spending
from pgseek.errors import PgseekError
from pgseek.generators.base import Arrival, Request, TextGenerator, generate_many

T = TypeVar("T")
Row = dict[str, Any]
Statement = LiteralString | SQL | Composed


# Seconds between two looks at whether to stop, while waiting for a notification.
PATIENCE = 0.25

CLOSED = "the client was closed while it was working"
STOPPED = "stopped by the caller"


@dataclass(frozen=True, slots=True)
class Fetch:
    """Execute a statement; the result is its rows (none for a statement without rows)."""

    statement: Statement
    parameters: Sequence[Any] | dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class CopyIn:
    """COPY rows in binary; ``types`` are PostgreSQL's names, one per column."""

    statement: Statement
    types: tuple[str, ...]
    rows: Iterable[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Transact:
    """Run a script inside one transaction; made anew when a deadlock asks for another try.

    Ends in a `TimeoutError` if no connection is free within ``seconds``, where that is less than the pool's
    own patience.
    """

    script: Callable[[], Generator[Any, Any, Any]]
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StartEmbedding:
    """Begin to embed texts in the background, outside of any transaction; the result is an `Underway`."""

    embedder: Embedder
    texts: Sequence[str]
    spending: Spending | None


@dataclass(frozen=True, slots=True)
class StartGeneration:
    """Begin to have questions and summaries written in the background; the result is an `Underway`."""

    generator: TextGenerator
    requests: Sequence[Request]
    spending: Spending | None


@dataclass(frozen=True, slots=True)
class StartAlone:
    """Begin to run a script of statements on a connection of its own; the result is an `Underway`.

    For what needs a session (its settings, its locks), takes long, or runs in no transaction; it may ask
    for `Fetch`, `Transact` and `Sleep`. ``stop`` cancels the statement that is being executed: the script
    hears of it as an error, and may still clean up.
    """

    script: Callable[[], Generator[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Await:
    """Wait for what was begun; the result is what came of it, or None after so many seconds."""

    underway: Underway
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for so many seconds."""

    seconds: float


class Stop(Protocol):
    """Says whether somebody wants the work to end: a `threading.Event`, for one."""

    def is_set(self) -> bool:
        """Return whether to stop."""
        ...


@dataclass(frozen=True, slots=True)
class Listen:
    """Wait for a notification on a channel, for at most so many seconds or until ``stop`` is set.

    The statement is executed once the channel is listened to; if it has rows, there is no waiting: what was
    notified of before is not missed.
    """

    channel: str
    statement: Statement
    parameters: dict[str, Any]
    seconds: float
    stop: Stop


@dataclass(frozen=True, slots=True)
class Start:
    """Begin to run another script beside this one; the result is a `Running`."""

    script: Callable[[], Generator[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Join:
    """Wait for what `Start` began; the result is its script's, or the error it ended with."""

    running: Running


@dataclass(frozen=True, slots=True)
class Running:
    """A script that runs beside this one: a future of a thread, or a task of the event loop.

    Whoever ends before it has been joined waits for it, so that nothing is written afterwards.
    """

    future: Any


@dataclass(frozen=True, slots=True)
class Underway:
    """Work in the background. Setting ``stop`` ends it after the requests that are on their way.

    ``arrived`` holds what was written so far.
    """

    future: Future[Any]
    stop: threading.Event
    arrived: SimpleQueue[Arrival] = field(default_factory=SimpleQueue)

    def outcome(self) -> Any:
        """Return what came of it, None if it is not done. Raises `PgseekError` if the client was closed."""
        if self.future.cancelled():
            raise PgseekError(CLOSED)
        return self.future.result() if self.future.done() else None


class CallTimeout(TimeoutError):
    """A call did not end within its seconds; it goes on by itself, and what comes of it is dropped."""


@dataclass(frozen=True, slots=True)
class Call:
    """Call a function that may block; the result is what it returns.

    Without ``seconds`` the blocking client calls it in the caller's own thread. With them it ends in a
    `CallTimeout` once they are over.
    """

    function: Callable[[], Any]
    seconds: float | None = None


class Background:
    """Threads that embed and write while something else happens: embedders block, under either client.

    An embedder without ``embed_many`` may not stand two calls at once: those take turns. So do generators
    that do not say how many calls they stand. Under the blocking client, scripts that were started run in
    threads, too.
    """

    def __init__(self) -> None:
        self._scripts = ThreadPoolExecutor(8, thread_name_prefix="pgseek-ingest")
        self._remote = ThreadPoolExecutor(4, thread_name_prefix="pgseek-ingest")
        self._local = ThreadPoolExecutor(1, thread_name_prefix="pgseek-ingest")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="pgseek-ingest")
        self._alone = ThreadPoolExecutor(4, thread_name_prefix="pgseek-alone")
        self._calls = Calls()

    def begin(self, step: StartEmbedding | StartGeneration) -> Underway:
        """Perform the step. Raises `PgseekError` after `close`."""
        stop = threading.Event()
        arrived: SimpleQueue[Arrival] = SimpleQueue()
        future: Future[Any]
        try:
            if isinstance(step, StartEmbedding):
                pool = self._remote if hasattr(step.embedder, "embed_many") else self._local
                future = pool.submit(embed_many, step.embedder, step.texts, step.spending, stop)
            else:
                several = getattr(step.generator, "concurrency", 1) > 1
                future = (self._remote if several else self._writing).submit(
                    _wrapped, step.generator, step.requests, step.spending, stop, arrived
                )
        except RuntimeError as error:
            raise PgseekError(CLOSED) from error
        return Underway(future, stop, arrived)

    def call(self, function: Callable[[], Any]) -> Future[Outcome]:
        """Call a function in a thread of its own; wait for it, then ask `called`."""
        return self._calls.begin(function)

    def begin_alone(self, step: StartAlone, connect: Callable[[], psycopg.Connection[Row]]) -> Underway:
        """Perform the step on what ``connect`` opens. Raises `PgseekError` after `close`."""
        stop = threading.Event()
        try:
            return Underway(self._alone.submit(_run_alone, step.script, connect, stop), stop)
        except RuntimeError as error:
            raise PgseekError(CLOSED) from error

    def start(self, run: Callable[[Generator[Any, Any, T]], T], script: Generator[Any, Any, T]) -> Future[T]:
        """Run a script in a thread. Raises `PgseekError` after `close`."""
        try:
            return self._scripts.submit(run, script)
        except RuntimeError as error:
            raise PgseekError(CLOSED) from error

    def close(self) -> None:
        """Let what is under way end by itself, and begin nothing more."""
        for pool in (self._remote, self._local, self._writing, self._alone, self._scripts):
            pool.shutdown(wait=False, cancel_futures=True)
        self._calls.close()


def called(future: Future[Outcome]) -> Any:
    """Return what the function that `Background.call` began has returned, or raise its error.

    Raises:
        CallTimeout: it is not done. If it has not begun, it never will.
    """
    if not future.done() or future.cancelled():
        future.cancel()
        raise CallTimeout
    result, error = future.result()
    if error is not None:
        raise error
    return result


def _wrapped(*given: Any) -> tuple[PgseekError | None]:
    # None alone would say that it is not done.
    return (generate_many(*given),)


class _Alone:
    """A script on a connection of its own, and who looks whether it is to stop."""

    def __init__(self, connection: psycopg.Connection[Row], stop: threading.Event) -> None:
        self._connection = connection
        self._stop = stop
        self._over = threading.Event()
        # Whether the script has heard that it is to stop: what it does from then on is cleaning up.
        self._heard = False

    def run(self, script: Generator[Any, Any, T]) -> T:
        watcher = threading.Thread(target=self._watch, name="pgseek-alone-stop", daemon=True)
        watcher.start()
        try:
            return self._drive(script)
        finally:
            self._over.set()
            watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(PATIENCE):
            if self._stop.is_set() and not self._heard:
                with contextlib.suppress(psycopg.Error):
                    self._connection.cancel_safe()

    def _drive(self, script: Generator[Any, Any, T]) -> T:
        result, error = None, None
        while not isinstance(step := advance(script, result, error=error), Done):
            result, error = None, None
            try:
                result = self._perform(step)
            except Exception as caught:
                error = translate(caught) if isinstance(caught, psycopg.Error) else caught
                if error is not caught:
                    error.__cause__ = caught
                self._heard = self._heard or self._stop.is_set()
        return step.value

    def _perform(self, step: Step) -> Any:
        if self._stop.is_set() and not self._heard:
            raise PgseekError(STOPPED)
        match step:
            case Fetch(statement, parameters):
                cursor = self._connection.execute(statement, parameters)
                return cursor.fetchall() if cursor.description is not None else []
            case Transact(script):
                with self._connection.transaction():
                    return self._drive(script())
            case Sleep(seconds):
                self._stop.wait(seconds)
                return None
            case _:
                raise TypeError(f"{type(step).__name__} cannot run on a connection of its own")


def _run_alone(
    script: Callable[[], Generator[Any, Any, T]],
    connect: Callable[[], psycopg.Connection[Row]],
    stop: threading.Event,
) -> tuple[T | None, Exception | None]:
    # A pair: None alone would say that it is not done, and an error that nobody fetches is logged by asyncio.
    try:
        with connect() as connection:
            return _Alone(connection, stop).run(script()), None
    except Exception as error:
        return None, error


Step = (
    Fetch
    | CopyIn
    | Transact
    | Start
    | Join
    | StartEmbedding
    | StartGeneration
    | StartAlone
    | Await
    | Sleep
    | Listen
    | Call
)
Script = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """The end of a script, with its result."""

    value: T


def advance(script: Script[T], result: Any = None, *, error: Exception | None = None) -> Step | Done[T]:
    """Hand the last step's result, or its error, to the script; return its next step or its end."""
    try:
        return script.send(result) if error is None else script.throw(error)
    except StopIteration as stop:
        return Done(stop.value)


def close(script: Script[Any]) -> None:
    """End a script that may not have run to its end."""
    # A cancelled task leaves its script running in a thread; it is closed when that thread is done.
    with contextlib.suppress(ValueError):
        script.close()


# Attempts at a transaction that lost a deadlock or a serialisation conflict.
ATTEMPTS = 5


def fetch(
    statement: Statement, parameters: Sequence[Any] | dict[str, Any] | None = None
) -> Script[list[Row]]:
    """Execute a statement and return its rows."""
    rows: list[Row] = yield Fetch(statement, parameters)
    return rows


def fetch_one(
    statement: Statement, parameters: Sequence[Any] | dict[str, Any] | None = None
) -> Script[Row | None]:
    """Execute a statement and return its first row."""
    rows = yield from fetch(statement, parameters)
    return rows[0] if rows else None


def copy_in(statement: Statement, types: tuple[str, ...], rows: Iterable[Sequence[Any]]) -> Script[None]:
    """COPY rows into a table."""
    yield CopyIn(statement, types, rows)


def transact(script: Callable[[], Script[T]], seconds: float | None = None) -> Script[T]:
    """Run the script in one transaction and return its result; wait for a connection for so many seconds."""
    result: T = yield Transact(script, seconds)
    return result


def start(script: Callable[[], Script[Any]]) -> Script[Running]:
    """Begin to run another script beside this one."""
    running: Running = yield Start(script)
    return running


def join(running: Running) -> Script[Any]:
    """Wait for a script that was started; return its result, or raise the error it ended with."""
    return (yield Join(running))


def start_embedding(
    embedder: Embedder, texts: Sequence[str], spending: Spending | None = None
) -> Script[Underway]:
    """Begin to embed documents in the background."""
    underway: Underway = yield StartEmbedding(embedder, texts, spending)
    return underway


def start_generation(
    generator: TextGenerator, requests: Sequence[Request], spending: Spending | None = None
) -> Script[Underway]:
    """Begin to have texts written in the background; each is in ``arrived`` when it is there."""
    underway: Underway = yield StartGeneration(generator, requests, spending)
    return underway


def wait_for_texts(underway: Underway, seconds: float) -> Script[tuple[bool, PgseekError | None]]:
    """Wait for texts that are being written, but no longer; return whether all was done, and its error."""
    outcome: tuple[PgseekError | None] | None = yield Await(underway, seconds)
    return outcome is not None, None if outcome is None else outcome[0]


def wait_for(underway: Underway) -> Script[Embedded]:
    """Wait for documents that are being embedded; never raises for what the embedder does."""
    outcome: Embedded = yield Await(underway, None)
    return outcome


def wait_at_most(underway: Underway, seconds: float) -> Script[Embedded | None]:
    """Wait for documents that are being embedded, but no longer; return None if they are not ready."""
    outcome: Embedded | None = yield Await(underway, seconds)
    return outcome


def start_alone(script: Callable[[], Script[Any]]) -> Script[Underway]:
    """Begin to run a script of statements on a connection of its own."""
    underway: Underway = yield StartAlone(script)
    return underway


def ended(underway: Underway, seconds: float) -> Script[tuple[Any] | None]:
    """Wait for a script on a connection of its own, but no longer; return its result, None if it goes on.

    Raises the error it ended with.
    """
    outcome: tuple[Any, Exception | None] | None = yield Await(underway, seconds)
    if outcome is None:
        return None
    result, error = outcome
    if error is not None:
        raise error
    return (result,)


def sleep(seconds: float) -> Script[None]:
    """Wait."""
    yield Sleep(seconds)


def listen(
    channel: str, statement: Statement, parameters: dict[str, Any], seconds: float, stop: Stop
) -> Script[None]:
    """Wait for a notification, unless the statement has rows."""
    yield Listen(channel, statement, parameters, seconds, stop)


def call(function: Callable[[], T], seconds: float | None = None) -> Script[T]:
    """Call a function that may block. Raises `CallTimeout` after so many seconds."""
    result: T = yield Call(function, seconds)
    return result


def embed_query(embedder: Embedder, text: str, seconds: float | None = None) -> Script[Vectors]:
    """Embed a query; shape (dimensions,). Raises `CallTimeout` after so many seconds."""
    return (yield from call(partial(checked_query, embedder, text), seconds))


def for_tenant(tenant: str, script: Script[T]) -> Script[T]:
    """Run a script for a tenant, in a session that serves several: each of its statements knows whose it is.

    A script that is started beside it, or on a connection of its own, runs for the tenant, too.
    """
    result, error = None, None
    while not isinstance(step := advance(script, result, error=error), Done):
        result, error = None, None
        try:
            result = yield _told(tenant, step)
        except GeneratorExit:
            close(script)
            raise
        except Exception as caught:
            error = caught
    return step.value


def _told(tenant: str, step: Step) -> Step:
    def told(script: Callable[[], Generator[Any, Any, Any]], *, session: bool = False) -> Script[Any]:
        yield from fetch("SELECT set_config('pgseek.tenant', %s, %s)", [tenant, not session])
        return (yield from script())

    match step:
        case Fetch(statement, parameters):
            return Transact(lambda: told(lambda: fetch(statement, parameters)))
        case Transact(script, seconds):
            return Transact(lambda: told(script), seconds)
        case Start(script):
            return Start(lambda: for_tenant(tenant, script()))
        case StartAlone(script):
            return StartAlone(lambda: told(script, session=True))
        case _:
            return step
