"""Embedders behind a service: requests within its limits, several at once, tried again, none paid twice."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from pgseek.embedders.base import PROBE, Embedded, Vectors
from pgseek.embedders.limits import Limiter, Limits, Spending
from pgseek.embedders.service import Refused, Service, Stopped
from pgseek.errors import EmbedderError, PgseekError
from pgseek.types import EmbedderIdentity

# Before a service has said how many tokens its texts had. English prose has a token to four bytes and more.
TOKENS_PER_BYTE = 0.3


@dataclass(frozen=True, slots=True)
class Answer:
    """Vectors of one request, float32 (n, d) in the order of its texts, and the tokens billed, if told."""

    vectors: Vectors
    tokens: int | None = None


class RemoteEmbedder(Service, ABC):
    """What embedders of services have in common. A subclass sends one request; this class sends them all.

    Texts are packed into requests by number and tokens, sent ``limits.concurrency`` at a time, and put back
    in order. A request refused for a text is halved until that text is alone. Safe to share between threads.
    """

    #: What one request may hold.
    max_inputs: int = 2048
    max_request_tokens: int = 300_000
    exact_tokens: bool = False

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
        super().__init__(account, limits=limits, attempts=attempts, timeout=timeout, limiter=limiter)
        self.identity = identity
        self.model_id = str(identity)
        self.price = price
        self.max_tokens = max_tokens
        self._ratio = TOKENS_PER_BYTE
        self._measured = (0, 0)
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
        estimate = sum(self.count_tokens(texts))
        if spending is not None:
            spending.reserve(estimate)
        billed = 0
        try:
            answer = self.attempt(lambda: self._send(texts, input_type), estimate, stop)
            billed = estimate if answer.tokens is None else answer.tokens
            self._learn(sum(map(self._size, texts)), answer.tokens)
            self._pace.settle(estimate, billed)
            return Answer(answer.vectors if any_size else self._checked(answer, len(texts)), billed)
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
