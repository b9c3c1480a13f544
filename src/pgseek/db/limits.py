"""Rate limits kept by the database: all processes that send with one account share them.

The algorithm stays pyrate-limiter's; a row of ``pgseek.rate_limits`` holds what it remembers of one limit,
and the server's clock tells the time, so that machines whose clocks differ agree. A tenant has limits of its
own: what others spend of theirs tells what they do.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.rows import tuple_row

from pgseek.db.connection import connect, normalize_dsn, translate
from pgseek.embedders.limits import Limiter, Limits
from pgseek.errors import DatabaseError, MissingExtra

if TYPE_CHECKING:
    from pyrate_limiter import StateStore

T = TypeVar("T")
Connect = Callable[[], psycopg.Connection[Any]]
Cursor = psycopg.Cursor[tuple[Any, ...]]

_INSERT = """
INSERT INTO pgseek.rate_limits (tenant, name, state) VALUES (pgseek.tenant(), %s, %s::double precision[])
    ON CONFLICT (tenant, name) DO NOTHING
"""
# The clock is read above the lock: the time is that of the decision, not that of beginning to wait for it.
_LOCK = """
SELECT s.state, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
  FROM (SELECT state FROM pgseek.rate_limits WHERE tenant = pgseek.tenant() AND name = %s FOR UPDATE) AS s
"""
_UPDATE = (
    "UPDATE pgseek.rate_limits SET state = %s::double precision[]"
    " WHERE tenant = pgseek.tenant() AND name = %s"
)
_READ = "SELECT state FROM pgseek.rate_limits WHERE tenant = pgseek.tenant() AND name = %s"
_DELETE = "DELETE FROM pgseek.rate_limits WHERE tenant = pgseek.tenant() AND name = %s"


READ_ONLY = (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege)


class SharedConnection:
    """One connection for many stores, one at a time: opened on first use, and again when it broke."""

    def __init__(self, open_connection: Connect, dsn: str | None = None) -> None:
        self._open = open_connection
        self._dsn = dsn
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._process = 0

    def transaction(self, work: Callable[[Cursor], T]) -> T:
        """Do the work in a transaction and return its result.

        Done again once if the connection broke, since the server may have been restarted in between.

        Raises:
            DatabaseError: with the driver's error as its cause.
        """
        with self._lock:
            try:
                reused = self._usable()
                try:
                    return self._attempt(work)
                except psycopg.OperationalError:
                    if not reused or self._usable():
                        raise
                    return self._attempt(work)
            except psycopg.Error as error:
                raise translate(error, self._dsn) from error

    def close(self) -> None:
        """Close the connection; it is opened again when it is used again."""
        with self._lock:
            self._discard()

    def _attempt(self, work: Callable[[Cursor], T]) -> T:
        if not self._usable():
            self._discard()
            self._connection, self._process = self._open(), os.getpid()
            # A reader that waited must see what the other wrote, whatever the server's default is.
            self._connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        if self._connection is None:
            raise DatabaseError("no connection for the rate limits was opened")
        with self._connection.transaction(), self._connection.cursor(row_factory=tuple_row) as cursor:
            return work(cursor)

    def _usable(self) -> bool:
        # A forked process must not talk on its parent's connection.
        return self._connection is not None and not self._connection.closed and self._process == os.getpid()

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._process == os.getpid():
            connection.close()


_connections: dict[str, SharedConnection] = {}
_connections_lock = threading.Lock()


def shared_connection(dsn: str) -> SharedConnection:
    """Return the one connection to this database that all limits of the process use."""
    plain = normalize_dsn(dsn)
    with _connections_lock:
        if plain not in _connections:
            # Prepared statements break behind poolers that hand out connections per transaction.
            _connections[plain] = SharedConnection(
                lambda: connect(plain, application_name="pgseek limits", prepare_threshold=None), plain
            )
        return _connections[plain]


def close_connections() -> None:
    """Close the connections of all limits; they are opened again when they are used again."""
    with _connections_lock:
        for connection in _connections.values():
            with contextlib.suppress(psycopg.Error):
                connection.close()


def postgres_store(source: str | Connect, name: str) -> StateStore:
    """Return pyrate-limiter's store of one limit's state, kept in the database under ``name``.

    ``source`` is a DSN, whose connection all stores of the process share, or what opens a connection (in
    autocommit mode) for this store alone.

    Raises:
        MissingExtra: pyrate-limiter is not installed.
    """
    connection = shared_connection(source) if isinstance(source, str) else SharedConnection(source)
    made: StateStore = _store_class()(connection, name)
    return made


@cache
def _store_class() -> Any:
    try:
        import pyrate_limiter as pyrate  # noqa: PLC0415 (optional package)
    except ImportError as error:
        raise MissingExtra("pyrate-limiter", "openai") from error

    class PostgresStore(pyrate.StateStore):
        """The state of one limit in a row. Its methods raise `DatabaseError`."""

        is_async = False
        # For reports only: decisions are made by the server's clock.
        default_clock = pyrate.WallClock()

        def __init__(self, connection: SharedConnection, name: str) -> None:
            self._connection = connection
            self._name = name
            # A standby, or a user who may only read, still searches: then this process keeps the limit alone.
            self._alone: Any = pyrate.InMemoryStateStore()
            self._writable = True

        def check(
            self,
            algorithm: pyrate.StateAlgorithm,
            rates: list[pyrate.Rate],
            now: int,
            weight: int,
        ) -> pyrate.Decision:
            """Spend ``weight`` if the limit allows it at this time, by the server's clock."""

            def decide(cursor: Cursor) -> pyrate.Decision:
                row = cursor.execute(_LOCK, [self._name]).fetchone()
                if row is None:
                    cursor.execute(_INSERT, [self._name, list(algorithm.initial(rates))])
                    row = cursor.execute(_LOCK, [self._name]).fetchone()
                if row is None:
                    raise DatabaseError(f"the rate limit {self._name!r} was deleted just now; try again")
                state, time = row
                left, decision = algorithm.step(rates, _fitting(state, algorithm, rates), time, weight)
                if decision.allowed:
                    cursor.execute(_UPDATE, [list(left), self._name])
                return decision

            if self._writable:
                try:
                    return self._connection.transaction(decide)
                except DatabaseError as error:
                    if not isinstance(error.__cause__, READ_ONLY):
                        raise
                    self._writable = False
            decision: pyrate.Decision = self._alone.check(algorithm, rates, now, weight)
            return decision

        def read(self, algorithm: pyrate.StateAlgorithm, rates: list[pyrate.Rate]) -> tuple[float, ...]:
            """Return the state as it stands."""
            row = self._connection.transaction(lambda cursor: cursor.execute(_READ, [self._name]).fetchone())
            return _fitting(row[0] if row else [], algorithm, rates)

        def reset(self) -> None:
            """Forget what was spent."""
            self._connection.transaction(lambda cursor: cursor.execute(_DELETE, [self._name]))

        def close(self) -> None:
            """Close the connection, also for the stores that share it; they open it again."""
            self._connection.close()

    return PostgresStore


def _fitting(state: list[float], algorithm: Any, rates: list[Any]) -> tuple[float, ...]:
    """Return a stored state, a fresh one if it belongs to another number of rates."""
    fitting: tuple[float, ...] = tuple(state) if len(state) == len(rates) else algorithm.initial(rates)
    return fitting


_limiters: dict[tuple[str, str, Limits], Limiter] = {}
_limiters_lock = threading.Lock()


def shared_limiter(dsn: str) -> Callable[[str, Limits], Limiter]:
    """Return what makes the limiter of an account, kept by the database at ``dsn``.

    In one process all who ask for the same account and limits get the same limiter.

    Raises, when a limiter is used:
        DatabaseError: the server cannot be reached, or has no table of limits yet.
    """
    plain = normalize_dsn(dsn)

    def limiter(name: str, limits: Limits) -> Limiter:
        with _limiters_lock:
            key = (plain, name, limits)
            if key not in _limiters:
                _limiters[key] = Limiter(name, limits, store=lambda state: postgres_store(plain, state))
            return _limiters[key]

    return limiter
