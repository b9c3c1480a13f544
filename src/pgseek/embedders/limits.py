"""What a provider may be asked: requests and tokens per minute, and money.

The algorithm is pyrate-limiter's GCRA; the state of a limit is kept in this process, or by the database for
all processes that use it (`pgseek.db.limits`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pgseek.errors import ConfigurationError, CostLimitReached, InvalidInput, MissingExtra

# Of a limit: what is spent at an even pace, and what may be spent at once. In any minute at most their sum is
# spent, and what is left of the limit allows for requests that are late on their way.
SUSTAINED = 93  # percent
BURST = 0.05
MINUTE = 60_000
# How often who waits looks whether it still shall, in seconds.
PATIENCE = 1.0
# The limiter counts in microseconds: up to this many units a minute its rounding stays below 2 %.
MAX_UNITS = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests and tokens a minute that a provider's account allows; None where there is no limit.

    ``concurrency`` is how many requests one call may have under way, 1..256.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int = 8

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise InvalidInput(f"{name} is {value!r}, but must be a whole number above 0, or None")
        if type(self.concurrency) is not int or not 1 <= self.concurrency <= 256:
            raise InvalidInput(f"concurrency is {self.concurrency!r}, but must be from 1 to 256")

    @classmethod
    def from_environment(cls, default: Limits, prefix: str = "PGSEEK_") -> Limits:
        """Return ``default`` as changed by the environment.

        PGSEEK_REQUESTS_PER_MINUTE, PGSEEK_TOKENS_PER_MINUTE, PGSEEK_CONCURRENCY (or with another
        ``prefix``); for the first two 0 means that there is no limit.

        Raises:
            ConfigurationError: a variable is not such a number.
        """
        values = asdict(default)
        for name in values:
            variable = f"{prefix}{name.upper()}"
            given = os.environ.get(variable)
            if given is None:
                continue
            if not (given.isascii() and given.isdigit()):
                raise ConfigurationError(f"{variable} is {given!r}, but must be a whole number")
            values[name] = int(given) or (None if name != "concurrency" else 0)
        try:
            return cls(**values)
        except InvalidInput as error:
            raise ConfigurationError(f"{prefix}CONCURRENCY: {error}") from error


class Spending:
    """Money one ingest may spend: ``most`` dollars at ``price`` dollars per million tokens; None: no bound.

    Texts that are generated have prices of their own and are told in dollars. Safe to share between threads.
    ``tokens`` are those of embedded texts that were answered so far, ``cost`` is of all that was.
    """

    def __init__(self, price: float = 0.0, most: float | None = None) -> None:
        if most is not None and not (isinstance(most, int | float) and most >= 0):
            raise InvalidInput(f"max_cost is {most!r}, but must be 0 or more dollars")
        self.price = price
        self.most = most
        self.tokens = 0
        self.generated = 0.0
        self._reserved = 0
        self._reserved_dollars = 0.0
        self._lock = threading.Lock()

    @property
    def cost(self) -> float:
        """Dollars spent."""
        return self.tokens * self.price / 1e6 + self.generated

    def reserve(self, tokens: int, dollars: float = 0.0) -> None:
        """Set tokens, or dollars, aside before a request.

        Raises:
            CostLimitReached: they would pass the bound.
        """
        with self._lock:
            cost = (self.tokens + self._reserved + tokens) * self.price / 1e6
            cost += self.generated + self._reserved_dollars + dollars
            if self.most is not None and cost > self.most:
                raise CostLimitReached(
                    f"the next request would bring the cost to ${cost:.6f}, but max_cost is ${self.most:g}; "
                    "what was answered is kept: raise max_cost to go on"
                )
            self._reserved += tokens
            self._reserved_dollars += dollars

    def settle(self, reserved: int, tokens: int) -> None:
        """Replace a reservation by the tokens that were billed; 0 for a request that failed."""
        with self._lock:
            self._reserved -= reserved
            self.tokens += tokens

    def settle_dollars(self, reserved: float, dollars: float) -> None:
        """Replace a reservation by the dollars that were billed; 0 for a request that failed."""
        with self._lock:
            self._reserved_dollars -= reserved
            self.generated += dollars


class Limiter:
    """Waits until a request fits the limits; shared by all threads that use one account.

    ``store`` makes the state of one limit, given its name: by default in this process.
    """

    def __init__(self, name: str, limits: Limits, store: Callable[[str], Any] | None = None) -> None:
        try:
            import pyrate_limiter as pyrate  # noqa: PLC0415 (optional package)
        except ImportError as error:
            raise MissingExtra("pyrate-limiter", "openai") from error
        self.limits = limits
        self._pause_until = 0.0
        # Held only for a moment, unlike the turn: of what is still to be paid, and until when all wait.
        self._state = threading.Lock()
        # One at a time: who waits for tokens does not sit on a request that another could make.
        self._turn = threading.Lock()
        self._unit = 1 if limits.tokens_per_minute is None else -(-limits.tokens_per_minute // MAX_UNITS)
        self._left_over = 0

        def limiter(kind: str, limit: int | None) -> Any:
            if limit is None:
                return None
            # Over a hundred minutes, so that a few a minute are not rounded down to fewer.
            rate = pyrate.Rate(limit * SUSTAINED, MINUTE * 100, burst=max(1, int(limit * BURST)))
            key = f"{name}/{kind}"
            made = pyrate.InMemoryStateStore() if store is None else store(key)
            bucket = pyrate.StateBucket([rate], pyrate.GCRA(), made)
            # Its state does not grow, so there is nothing to clear away in the background.
            factory = pyrate.SingleBucketFactory(bucket, schedule_leak=False)
            return pyrate.Limiter(factory, buffer_ms=1)

        self._requests = limiter("requests", limits.requests_per_minute)
        tokens = limits.tokens_per_minute
        self._tokens = limiter("tokens", None if tokens is None else tokens // self._unit)

    @property
    def most_tokens(self) -> int | None:
        """Tokens that one request may have without waiting more than once; None without a limit."""
        limit = self.limits.tokens_per_minute
        return None if limit is None else max(1, int(limit // self._unit * BURST)) * self._unit

    def acquire(self, tokens: int, stop: threading.Event | None = None) -> bool:
        """Wait until one request of so many tokens may be sent; return False if ``stop`` was set before."""
        stop = stop or threading.Event()
        while not self._turn.acquire(timeout=PATIENCE):
            if stop.is_set():
                return False
        try:
            return (
                self._spend(self._requests, 1, stop)
                and self._spend_tokens(tokens, stop)
                and self._sit_out_pause(stop)
            )
        finally:
            self._turn.release()

    def settle(self, reserved: int, tokens: int) -> None:
        """Let later requests wait for the tokens that an answered one had more than `acquire` was told."""
        if self._tokens is not None and tokens > reserved:
            with self._state:
                self._left_over += tokens - reserved

    def pause(self, seconds: float) -> None:
        """Let nobody send before so many seconds are over: the provider said so."""
        with self._state:
            self._pause_until = max(self._pause_until, time.monotonic() + seconds)

    def _spend_tokens(self, tokens: int, stop: threading.Event) -> bool:
        if self._tokens is None:
            return True
        most = max(1, (self.most_tokens or 1) // self._unit)
        with self._state:
            # What rounding to units gave away or took is settled with the next request.
            self._left_over += tokens
            units = self._left_over // self._unit
            self._left_over -= units * self._unit
            # What is sent at once but was not saved up at once would be too much for the minute that follows.
            self._left_over += max(0, tokens - most * self._unit)
        while units > 0:
            # More than may be spent at once is spent in parts.
            part = min(units, most)
            if not self._spend(self._tokens, part, stop):
                return False
            units -= part
        return True

    def _spend(self, limiter: Any, weight: int, stop: threading.Event) -> bool:
        while limiter is not None and not limiter.try_acquire("pgseek", weight=weight, timeout=PATIENCE):
            if stop.is_set():
                return False
        return not stop.is_set()

    def _sit_out_pause(self, stop: threading.Event) -> bool:
        while (wait := self._pause_until - time.monotonic()) > 0:
            if stop.wait(wait):
                return False
        return True


_shared: dict[tuple[str, int | None, int | None], Limiter] = {}
_shared_lock = threading.Lock()


def process_limiter(name: str, limits: Limits) -> Limiter:
    """Return the limiter of an account, the same for all who ask in this process."""
    with _shared_lock:
        key = (name, limits.requests_per_minute, limits.tokens_per_minute)
        if key not in _shared:
            _shared[key] = Limiter(name, limits)
        return _shared[key]
