"""Runs: each judged query searched in one mode, its hits collapsed to documents, its time taken."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np

from pgseek.errors import EmbedderError, InvalidInput
from pgseek.evaluation.trec import Run
from pgseek.types import MAX_K, CollectionInfo, Hit, Search

# Called with what runs, the queries done, and how many there are.
Progress = Callable[[str, int, int], None]
# Judged queries are texts, in which + and - are signs like any other. BM25 may take an hour: a figure
# that depends on how busy the machine is cannot be repeated.
BASE: Mapping[str, Any] = {"syntax": "plain", "snippets": False, "budget": 3_600_000.0}
# Scores that would tie are set apart by this much, so that no tool orders them by id.
APART = 1e-6
_NAME = re.compile(r"[\w.+=-]+")
_TAKEN = {"query", "k"}


class Searched(Protocol):
    """What is evaluated: a `Collection`."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def _client(self) -> Any: ...

    def info(self) -> CollectionInfo:
        """Return it as it stands now."""
        ...

    @property
    def search(self) -> Callable[..., list[Hit]]:
        """Search it."""
        ...


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to search: arguments of `Collection.search` under a name.

    The name consists of letters, digits and ``_.+=-``, since run files are called by it. The
    arguments may be all but query, k, query_embedding and model; what they leave out is ``BASE``
    (syntax 'plain', no snippets, BM25 without a time limit), then the collection's settings.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidInput(f"mode name {self.name!r} is not allowed: use letters, digits and _.+=-")
        allowed = [each.name for each in fields(Search) if each.name not in _TAKEN]
        unknown = sorted(set(self.arguments) - set(allowed))
        if unknown:
            raise InvalidInput(
                f"mode {self.name!r} has the argument {unknown[0]!r}; a mode may set {', '.join(allowed)}"
            )


DEFAULT_MODES = (
    Mode("dense", {"alpha": 1.0}),
    Mode("lexical", {"alpha": 0.0}),
    Mode("hybrid"),
    Mode("rrf", {"fusion": "rrf"}),
)


def choose_modes(names: Iterable[str]) -> tuple[Mode, ...]:
    """Return the default modes with these names, in the order given.

    Raises:
        InvalidInput: there is no such mode.
    """
    known = {mode.name: mode for mode in DEFAULT_MODES}
    chosen = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise InvalidInput(f"mode {name!r} is unknown; {hint}")
        chosen.append(known[name])
    return tuple(chosen)


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds per search of one run, as this machine was then; round trip included."""

    median: float
    p95: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Return that of times in seconds, at least one."""
        median, p95 = np.percentile(seconds, [50, 95]) * 1000
        return cls(float(median), float(p95))


@dataclass(frozen=True, slots=True)
class ModeRun:
    """What a mode found.

    ``degraded`` counts queries whose hits say that a leg did not take part or ran out of time.
    """

    run: Run
    latency: Latency
    degraded: int


def run_mode(
    collection: Searched,
    mode: Mode,
    queries: Mapping[str, str],
    *,
    depth: int = 100,
    drop_self: bool = False,
    progress: Progress | None = None,
) -> ModeRun:
    """Search for every query and keep the best ``depth`` documents of each, 1..10,000.

    A document counts where its best chunk stands. Where chunks of few documents fill the hits,
    more are asked for, up to 10,000. ``drop_self`` leaves out the document whose id is the
    query's. The latency is that of each query's first search, for ``depth`` chunks.

    Raises:
        InvalidInput, EmbedderError: with the query's id.
    """
    run: dict[str, tuple[tuple[str, float], ...]] = {}
    seconds: list[float] = []
    degraded = 0
    for number, (name, text) in enumerate(queries.items(), 1):
        left_out = name if drop_self else None
        k = min(depth + drop_self, MAX_K)
        hits, took = _search(collection, mode, name, text, k)
        seconds.append(took)
        ranking = rank_documents(hits, left_out)
        while deeper := more_chunks(k, len(hits), len(ranking), depth):
            k = deeper
            hits, _ = _search(collection, mode, name, text, k)
            ranking = rank_documents(hits, left_out)
        run[name] = tuple(ranking[:depth])
        degraded += bool(hits and hits[0].degraded)
        if progress is not None:
            progress(mode.name, number, len(queries))
    return ModeRun(run, Latency.of(seconds), degraded)


def more_chunks(k: int, found: int, documents: int, depth: int) -> int:
    """Return how many chunks to ask for after ``k`` gave too few documents; 0 if there are no more."""
    return min(2 * k, MAX_K) if documents < depth and found == k < MAX_K else 0


def embed_queries(collection: Searched, queries: Mapping[str, str], progress: Progress | None) -> None:
    """Put the queries' vectors into the cache, so that no mode's latency holds the embedding."""
    once = Mode("embedding", {"alpha": 1.0})
    for number, (name, text) in enumerate(queries.items(), 1):
        _search(collection, once, name, text, 1)
        if progress is not None:
            progress("embedding", number, len(queries))


def rank_documents(hits: Sequence[Hit], left_out: str | None = None) -> list[tuple[str, float]]:
    """Return each document at its first hit, with strictly decreasing scores."""
    ranking: dict[str, float] = {}
    last = float("inf")
    for hit in hits:
        if hit.id not in ranking and hit.id != left_out:
            last = min(hit.score, last - APART * max(1.0, abs(last)) if ranking else hit.score)
            ranking[hit.id] = last
    return list(ranking.items())


def _search(collection: Searched, mode: Mode, name: str, text: str, k: int) -> tuple[list[Hit], float]:
    arguments = {**BASE, **mode.arguments}
    started = time.perf_counter()
    try:
        hits = collection.search(text, k=k, **arguments)
    except (InvalidInput, EmbedderError) as error:
        raise type(error)(f"query {name!r} in mode {mode.name!r}: {error}") from error
    return hits, time.perf_counter() - started
