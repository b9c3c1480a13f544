"""What embedders and generators of services share: requests within limits, sent again until answered."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from pgseek.embedders.limits import Limiter, Limits, process_limiter
from pgseek.errors import EmbedderError, InvalidInput, MissingExtra

T = TypeVar("T")

# A service may ask to wait for as long as this; what asks for more has run out of its quota.
LONGEST_WAIT = 120.0
LONGEST_MESSAGE = 500
# What may pass, besides the service's own failures.
TRANSIENT_STATUS = frozenset({408, 409, 425, 429})


class Transient(Exception):
    """The request may succeed later; ``retry_after`` is in seconds, None if the service did not say."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(Exception):
    """The service refuses the request for one of its texts."""


class Stopped(Exception):
    """The caller wants no more requests."""


class Service:
    """The attempts and limits of one account at a service.

    A request that may succeed later is sent again, up to ``attempts`` times, after what Retry-After asks or
    an exponential, random delay. Safe to share between threads.
    """

    #: The extra of pgseek that brings the provider's client.
    extra: str = "openai"
    #: Seconds: the longest first delay where the service does not name one; the next may be twice as long.
    backoff: float = 0.25
    #: As messages show it.
    model_id: str

    def __init__(
        self,
        account: str,
        *,
        limits: Limits | None = None,
        attempts: int = 8,
        timeout: float = 60.0,
        limiter: Limiter | None = None,
    ) -> None:
        if attempts < 1:
            raise InvalidInput(f"attempts is {attempts}, but must be 1 or more")
        if not timeout > 0:
            raise InvalidInput(f"timeout is {timeout}, but must be above 0 seconds")
        self.limits = limits or Limits()
        self.attempts = attempts
        self.timeout = timeout
        # Requests of the same account share limits in this process.
        self.account = account
        self._limiter = limiter
        # A limiter of the caller's stays; the process's gives way to the database's.
        self._own_limiter = limiter is not None
        self._lock = threading.Lock()

    def attempt(self, send: Callable[[], T], tokens: int, stop: threading.Event | None = None) -> T:
        """Send a request of about so many tokens until it is answered, within the limits.

        Raises:
            Refused: by ``send``, as it is.
            Stopped: ``stop`` was set before there was an answer.
            EmbedderError: there will be none.
        """
        try:
            import tenacity  # noqa: PLC0415 (optional package)
        except ImportError as error:
            raise MissingExtra(f"what {self.model_id.partition(':')[0]} needs", self.extra) from error
        backoff = tenacity.wait_random_exponential(multiplier=self.backoff, max=30)

        def delay(state: Any) -> float:
            failed = state.outcome.exception()
            asked: float | None = failed.retry_after
            own = float(backoff(state))
            if asked is None:
                return own
            # All wait, not this request alone; the random part keeps them from coming back together.
            self._pace.pause(asked)
            return max(asked, own) + own * 0.1

        stop = stop or threading.Event()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            wait=delay,
            stop=tenacity.stop_after_attempt(self.attempts) | tenacity.stop_when_event_set(stop),
            sleep=tenacity.sleep_using_event(stop),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    if not self._pace.acquire(tokens, stop):
                        raise Stopped
                    answer = send()
        except Transient as error:
            if stop.is_set():
                raise Stopped from error
            raise EmbedderError(
                f"{self.model_id} did not answer in {self.attempts} attempts, the last time because: {error}"
            ) from error
        return answer

    @property
    def _pace(self) -> Limiter:
        if self._limiter is None:
            self._limiter = process_limiter(self.account, self.limits)
        return self._limiter

    def share_limits(self, make: Callable[[str, Limits], Limiter]) -> None:
        """Let the limits be kept by what ``make`` returns, unless there are none or a limiter was given."""
        limited = self.limits.requests_per_minute is not None or self.limits.tokens_per_minute is not None
        if limited and not self._own_limiter:
            self._limiter = make(self.account, self.limits)
            self._own_limiter = True


def retry_after(headers: Any) -> float | None:
    """Return the seconds that Retry-After-Ms or Retry-After ask to wait; None if neither does.

    Raises:
        EmbedderError: it is longer than `LONGEST_WAIT`.
    """
    seconds: float | None = None
    with contextlib.suppress(TypeError, ValueError):
        seconds = float(headers.get("retry-after-ms")) / 1000
    if seconds is None and (given := headers.get("retry-after")):
        try:
            seconds = float(given)
        except ValueError:
            with contextlib.suppress(TypeError, ValueError):
                seconds = (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds()
    if seconds is None or not math.isfinite(seconds):
        return None
    if seconds > LONGEST_WAIT:
        raise EmbedderError(f"the service asks to wait {seconds:.0f} seconds: its quota is used up")
    return max(0.0, seconds)


def meaning(
    status: int | None,
    message: str,
    headers: Any,
    model_id: str,
    transient: frozenset[int] = TRANSIENT_STATUS,
) -> Exception:
    """Return what a status (None: there is none) means: try again, refused for a text, or hopeless."""
    if status is None or status in transient or status >= 500:
        try:
            return Transient(f"status {status}: {message}", retry_after(headers))
        except EmbedderError as too_long:
            return EmbedderError(f"{model_id} failed: {too_long} ({message})")
    if status in {400, 413, 422}:
        return Refused(message)
    return EmbedderError(f"{model_id} failed with status {status}: {message}")


def one_line(message: object) -> str:
    """Return a service's message without line breaks, and not a whole page of it."""
    text = " ".join(str(message).split())
    return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "…"
