"""Embedders behind a service: requests within its limits, several at once, tried again, none paid twice."""

from __future__ import annotations

import contextlib
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np

from pgseek.embedders.base import PROBE, Embedded, Vectors
from pgseek.embedders.limits import Limiter, Limits, Spending, process_limiter
from pgseek.errors import EmbedderError, InvalidInput, MissingExtra, PgseekError
from pgseek.types import EmbedderIdentity

# Before a service has said how many tokens its texts had. English prose has a token to four bytes and more.
TOKENS_PER_BYTE = 0.3
# A service may ask to wait for as long as this; what asks for more has run out of its quota.
LONGEST_WAIT = 120.0
LONGEST_MESSAGE = 500
# What may pass, besides the service's own failures.
TRANSIENT_STATUS = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True)
class Answer:
    """Vectors of one request, float32 (n, d) in the order of its texts, and the tokens billed, if told."""

    vectors: Vectors
    tokens: int | None = None


class Transient(Exception):
    """The request may succeed later; ``retry_after`` is in seconds, None if the service did not say."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(Exception):
    """The service refuses the request for one of its texts."""


class Stopped(Exception):
    """The caller wants no more requests."""


class RemoteEmbedder(ABC):
    """What embedders of services have in common. A subclass sends one request; this class sends them all.

    Texts are packed into requests by number and tokens, sent ``limits.concurrency`` at a time, and put back
    in order. A request that may succeed later is sent again, up to ``attempts`` times, after what
    Retry-After asks or an exponential, random delay. A request refused for a text is halved until that text
    is alone. Safe to share between threads.
    """

    #: The extra of pgseek that brings the provider's client.
    extra: str = "openai"
    #: What one request may hold.
    max_inputs: int = 2048
    max_request_tokens: int = 300_000
    exact_tokens: bool = False
    #: Seconds: the longest first delay where the service does not name one; the next may be twice as long.
    backoff: float = 0.25

    def __init__(
        self,
        identity: EmbedderIdentity,
        *,
        account: str,
        limits: Limits | None = None,
        price: float = 0.0,
        max_tokens: int | None = None,
        attempts: int = 8,
        timeout: float = 60.0,
        limiter: Limiter | None = None,
    ) -> None:
        if attempts < 1:
            raise InvalidInput(f"attempts is {attempts}, but must be 1 or more")
        if not timeout > 0:
            raise InvalidInput(f"timeout is {timeout}, but must be above 0 seconds")
        self.identity = identity
        self.model_id = str(identity)
        self.limits = limits or Limits()
        self.price = price
        self.max_tokens = max_tokens
        self.attempts = attempts
        self.timeout = timeout
        # Texts of the same account share limits in this process.
        self.account = account
        self._limiter = limiter
        # A limiter of the caller's stays; the process's gives way to the database's.
        self._own_limiter = limiter is not None
        self._ratio = TOKENS_PER_BYTE
        self._measured = (0, 0)
        self._lock = threading.Lock()
        self._proven = False

    @abstractmethod
    def _send(self, texts: Sequence[str], input_type: str) -> Answer:
        """Send one request without trying again. ``input_type`` is 'document' or 'query'.

        Raises:
            Transient, Refused, EmbedderError: as they say.
        """

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (n, d) in the order of ``texts``. Raises `EmbedderError` if one has no vector."""
        outcome = self.embed_many(texts)
        if outcome.error is not None:
            raise outcome.error
        for place, reason in sorted(outcome.refused.items()):
            raise EmbedderError(f"{self.model_id} refused text {place + 1} of {len(texts)}: {reason}")
        return outcome.vectors

    def embed_query(self, text: str) -> Vectors:
        """Return float32 (d,)."""
        try:
            vector: Vectors = self._persist([text], "query", None).vectors[0]
        except Refused as error:
            raise EmbedderError(f"{self.model_id} refused the query: {error}") from error
        return vector

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has: an estimate from its bytes, corrected by what was billed."""
        return [max(1, math.ceil(self._size(text) * self._ratio)) for text in texts]

    def embed_many(
        self, texts: Sequence[str], spending: Spending | None = None, stop: threading.Event | None = None
    ) -> Embedded:
        """Embed documents; what was answered is kept when something fails, or ``stop`` is set."""
        vectors = np.zeros((len(texts), self.identity.dimensions), dtype=np.float32)
        work = _Work(vectors, stop or threading.Event())
        queue = self.requests(texts)
        with ThreadPoolExecutor(self.limits.concurrency, thread_name_prefix="pgseek-embed") as pool:
            under_way: set[Future[None]] = set()
            try:
                while True:
                    while work.goes_on() and len(under_way) < self.limits.concurrency:
                        places = next(queue, None)
                        if places is None:
                            break
                        under_way.add(pool.submit(self._embed_part, texts, places, work, spending))
                    if not under_way:
                        break
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            except BaseException:
                work.stop.set()
                raise
        refused = {} if work.all_refused else work.refused
        missing = frozenset(range(len(texts))) - work.done - set(refused)
        error = work.error
        if missing and error is None:
            error = EmbedderError(f"{self.model_id}: stopped with {len(missing)} of {len(texts)} texts to go")
        return Embedded(vectors, refused, missing, error, work.tokens)

    def _embed_part(
        self, texts: Sequence[str], places: list[int], work: _Work, spending: Spending | None
    ) -> None:
        """Embed some texts into ``work``, or note there why not."""
        if not work.goes_on():
            return
        try:
            self._embed_or_halve(texts, places, work, spending)
        except Stopped:
            return
        except Exception as error:
            work.fail(error if isinstance(error, PgseekError) else self._failed(error))

    def _embed_or_halve(
        self, texts: Sequence[str], places: list[int], work: _Work, spending: Spending | None
    ) -> None:
        """Embed some texts into ``work``; halve the request where the service refuses it for a text."""
        try:
            answer = self._persist([texts[i] for i in places], "document", spending, work.stop)
        except Refused as error:
            if len(places) > 1:
                middle = len(places) // 2
                self._embed_part(texts, places[:middle], work, spending)
                self._embed_part(texts, places[middle:], work, spending)
                return
            with work.lock:
                work.refused[places[0]] = str(error)
                several = len(work.refused) >= 3
            if several and not self._proven:
                self._prove(work, spending)
        else:
            self._proven = True
            with work.lock:
                work.vectors[places] = answer.vectors
                work.done.update(places)
                work.tokens += answer.tokens or 0

    def _prove(self, work: _Work, spending: Spending | None) -> None:
        """Ask for a harmless text: a service that refuses whatever it is asked does not mean the texts."""
        try:
            answer = self._persist([PROBE], "document", spending, work.stop)
        except Refused as error:
            work.all_refused = True
            raise EmbedderError(f"{self.model_id} refuses every text: {error}") from error
        self._proven = True
        with work.lock:
            work.tokens += answer.tokens or 0

    def _persist(
        self,
        texts: Sequence[str],
        input_type: str,
        spending: Spending | None = None,
        stop: threading.Event | None = None,
        *,
        any_size: bool = False,
    ) -> Answer:
        """Send one request until it is answered, within limits and budget.

        ``any_size`` takes vectors of other dimensions than the identity's.

        Raises:
            Refused: for one of the texts.
            Stopped: ``stop`` was set before there was an answer.
            EmbedderError: there will be none.
        """
        try:
            import tenacity  # noqa: PLC0415 (optional package)
        except ImportError as error:
            raise MissingExtra(f"what {self.identity.provider} needs", self.extra) from error
        estimate = sum(self.count_tokens(texts))
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
        if spending is not None:
            spending.reserve(estimate)
        billed = 0
        try:
            for attempt in retrying:
                with attempt:
                    if not self._pace.acquire(estimate, stop):
                        raise Stopped
                    answer = self._send(texts, input_type)
            billed = estimate if answer.tokens is None else answer.tokens
            self._learn(sum(map(self._size, texts)), answer.tokens)
            self._pace.settle(estimate, billed)
            return Answer(answer.vectors if any_size else self._checked(answer, len(texts)), billed)
        except Transient as error:
            if stop.is_set():
                raise Stopped from error
            raise EmbedderError(
                f"{self.model_id} did not answer in {self.attempts} attempts, the last time because: {error}"
            ) from error
        finally:
            if spending is not None:
                spending.settle(estimate, billed)

    def _failed(self, error: Exception) -> EmbedderError:
        failed = EmbedderError(f"{self.model_id} failed: {error}")
        failed.__cause__ = error
        return failed

    def _size(self, text: str) -> int:
        """Return the bytes of a document as it is sent."""
        return len(text.encode("utf-8", "surrogatepass"))

    def _checked(self, answer: Answer, count: int) -> Vectors:
        expected = (count, self.identity.dimensions)
        if answer.vectors.shape != expected:
            raise EmbedderError(
                f"{self.model_id} answered vectors of shape {answer.vectors.shape} for {count} texts, "
                f"but the space needs {expected}"
            )
        return answer.vectors

    def _learn(self, size: int, tokens: int | None) -> None:
        if tokens:
            with self._lock:
                seen = (self._measured[0] + size, self._measured[1] + tokens)
                self._measured = seen
                # Short texts first may mislead: the first guess has the weight of a few pages.
                self._ratio = (seen[1] + TOKENS_PER_BYTE * 10_000) / (seen[0] + 10_000)

    def requests(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield the places of the texts of each request, consecutive ones."""
        most = self.max_request_tokens
        at_once = self._pace.most_tokens
        if at_once is not None:
            most = min(most, at_once)
        places: list[int] = []
        tokens = 0
        for place, text in enumerate(texts):
            # A little more than the estimate, so that a request rarely is too long.
            size = math.ceil(self.count_tokens([text])[0] * 1.1)
            if places and (len(places) == self.max_inputs or tokens + size > most):
                yield places
                places, tokens = [], 0
            places.append(place)
            tokens += size
        if places:
            yield places

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


class _Work:
    """What the threads of one call share."""

    def __init__(self, vectors: Vectors, stop: threading.Event) -> None:
        self.vectors = vectors
        self.stop = stop
        self.done: set[int] = set()
        self.refused: dict[int, str] = {}
        self.all_refused = False
        self.error: PgseekError | None = None
        self.tokens = 0
        self.lock = threading.Lock()

    def fail(self, error: PgseekError) -> None:
        """Keep the first error: it ends the work."""
        with self.lock:
            self.error = self.error or error

    def goes_on(self) -> bool:
        return self.error is None and not self.stop.is_set()


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
