"""The generator protocol, and how many requests are run at once, each answer handed over when it is there."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Literal, Protocol, runtime_checkable

from pgseek.embedders.limits import Spending
from pgseek.embedders.service import Refused, Stopped
from pgseek.errors import GeneratorError, PgseekError

GeneratedKind = Literal["question", "summary"]
# For a query: an answer to it, and the same in other words.
QueryKind = Literal["answer", "rephrasing"]
WrittenKind = GeneratedKind | QueryKind

# What is stored of a text that was written, in characters: a question is a line, a summary a paragraph.
LONGEST_TEXT = 2000
# Tokens that it has as a rule.
USUAL: Mapping[WrittenKind, int] = {"question": 20, "summary": 80, "answer": 100, "rephrasing": 15}
# A generator that refuses so many requests and has answered none does not mean the texts.
REFUSES_ALL = 5


@dataclass(frozen=True, slots=True)
class Request:
    """``count`` questions, or a summary (``count`` is 1), for one chunk.

    ``title`` is its document's, with the headings it stands under. Or ``count`` other queries, or an answer,
    for the query ``text``, which has no title.
    """

    kind: WrittenKind
    text: str
    title: str
    count: int

    @property
    def key(self) -> bytes:
        """What tells it from others of its kind and count: 32 bytes."""
        parts = (self.title.encode(), self.text.encode())
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


@runtime_checkable
class TextGenerator(Protocol):
    """Writes what people may ask, or a summary, for a chunk; or an answer, or other words, for a query.

    ``generate`` may block. A generator may also have:

    - ``concurrency``: how many requests it stands at once, 1 if it does not say;
    - ``price``: dollars per million tokens, of input and of output; None where that is not known;
    - ``estimate(request) -> (input, output)``: about how many tokens a request has;
    - ``write(request, spending, stop) -> list[str]``: as ``generate``, but spends no more than it may, and
      raises `Refused` where the service will not write for this text.
    """

    @property
    def identity(self) -> str:
        """Everything that changes what is written: model, prompts. What it wrote is found by it again."""
        ...

    def generate(self, kind: WrittenKind, text: str, title: str, count: int) -> list[str]:
        """Return at most ``count`` questions that ``text`` answers, or one summary of it.

        For the kinds 'answer' and 'rephrasing' ``text`` is a query: return what would answer it, or at most
        ``count`` others that ask for the same.
        """
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came of the request at ``place``: texts, or why it was refused."""

    place: int
    texts: tuple[str, ...] = ()
    refused: str | None = None


def cache_identity(generator: TextGenerator, kind: WrittenKind, count: int) -> str:
    """Return the SHA-256, in hexadecimal, of everything that changes what is written."""
    return hashlib.sha256(json.dumps([generator.identity, kind, count]).encode()).hexdigest()


def generate_many(
    generator: TextGenerator,
    requests: Sequence[Request],
    spending: Spending | None,
    stop: threading.Event,
    arrived: SimpleQueue[Arrival],
) -> PgseekError | None:
    """Run requests and hand over each answer; return the error that ended it, None if all were answered.

    Setting ``stop`` from another thread ends it after the requests that are on their way.
    """
    concurrency = int(getattr(generator, "concurrency", 1))
    left = iter(enumerate(requests))
    error: PgseekError | None = None
    answered = refused = 0
    with ThreadPoolExecutor(concurrency, thread_name_prefix="pgseek-generate") as pool:
        under_way: set[Future[Arrival]] = set()
        try:
            while True:
                while error is None and not stop.is_set() and len(under_way) < concurrency:
                    following = next(left, None)
                    if following is None:
                        break
                    under_way.add(pool.submit(_write, generator, *following, spending, stop))
                if not under_way:
                    break
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        arrival = future.result()
                    except Stopped:
                        continue
                    except PgseekError as failed:
                        error = error or failed
                        continue
                    answered, refused = answered + (arrival.refused is None), refused + bool(arrival.refused)
                    if refused >= REFUSES_ALL and not answered:
                        error = error or GeneratorError(
                            f"{name_of(generator)} refuses whatever it is asked: {arrival.refused}"
                        )
                    arrived.put(arrival)
        except BaseException:
            stop.set()
            raise
    if error is None and stop.is_set() and next(left, None) is not None:
        error = GeneratorError(f"{name_of(generator)}: stopped before all was written")
    return error


def _write(
    generator: Any, place: int, request: Request, spending: Spending | None, stop: threading.Event
) -> Arrival:
    try:
        if hasattr(generator, "write"):
            texts = generator.write(request, spending, stop)
        else:
            texts = generator.generate(request.kind, request.text, request.title, request.count)
        return Arrival(place, cleaned(texts, request, name_of(generator)))
    except Refused as error:
        return Arrival(place, refused=str(error))
    except (PgseekError, Stopped):
        raise
    except Exception as error:
        raise GeneratorError(f"{name_of(generator)} failed: {error}") from error


def write_one(
    generator: TextGenerator, request: Request, stop: threading.Event | None = None
) -> tuple[str, ...]:
    """Have one request answered.

    Raises:
        GeneratorError: it was refused, failed or stopped, or the answer holds no text.
    """
    try:
        arrival = _write(generator, 0, request, None, stop or threading.Event())
    except Stopped as error:
        raise GeneratorError(f"{name_of(generator)} was stopped") from error
    if arrival.refused is not None:
        raise GeneratorError(f"{name_of(generator)} refused: {arrival.refused}")
    if not arrival.texts:
        raise GeneratorError(f"{name_of(generator)} wrote nothing")
    return arrival.texts


def cleaned(texts: Iterable[str], request: Request, name: str) -> tuple[str, ...]:
    """Return what can be stored: no blank text, none twice, no sign that PostgreSQL cannot hold.

    Raises:
        GeneratorError: these are no texts.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise GeneratorError(f"{name} gave a {type(texts).__name__}, but must give a list of texts")
    made: dict[str, None] = {}
    for text in texts:
        if not isinstance(text, str):
            raise GeneratorError(f"{name} gave a {type(text).__name__} among its texts")
        storable = text.replace("\x00", "").encode("utf-8", "ignore").decode().strip()
        if storable:
            made[storable[:LONGEST_TEXT].strip()] = None
    return tuple(made)[: request.count]


def name_of(generator: TextGenerator) -> str:
    """Return what messages call a generator."""
    return str(getattr(generator, "model_id", generator.identity))
