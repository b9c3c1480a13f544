"""The recall of an index, measured against exact search by a sample of queries."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from psycopg.sql import SQL

from pgseek import spaces
from pgseek.embedders.base import Vectors
from pgseek.errors import InvalidInput
from pgseek.indexing.building import IndexProgress, Told
from pgseek.steps import Script, fetch, fetch_one, transact
from pgseek.types import SpaceInfo

# So many cached queries say more of recall than stored vectors do.
ENOUGH_QUERIES = 30
SETTINGS = ("ef_search", "probes", "rerank")

NEAREST = (
    "SELECT document_id, ordinal, distance FROM pgseek.nearest(%(space)s, %(vector)s, %(k)s, %(exact)s,"
    " %(ef_search)s, %(probes)s, %(rerank)s)"
)

Source = Literal["queries", "vectors"]


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """What an index found, by ``settings`` (ef_search, probes, rerank; those not named are the defaults).

    ``recall`` is the mean share of the exact k nearest, 0..1; ``p50`` the median time of a search in
    milliseconds, as the client sees it.
    """

    settings: Mapping[str, int]
    recall: float
    p50: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Vectors to search for, and the rows they are of where they are stored ones."""

    source: Source
    vectors: Sequence[Vectors]
    own: Sequence[tuple[UUID, int] | None]


@dataclass(frozen=True, slots=True)
class Truth:
    """The exact answers: the distance of each query's k-th nearest, and how many there are up to k."""

    farthest: Sequence[float]
    sizes: Sequence[int]
    p50: float


def take_sample(space: SpaceInfo, rows: int, number: int) -> Script[Sample]:
    """Return queries from the cache, or where it holds too few, stored vectors: always the same ones."""
    cached = yield from fetch(
        "SELECT embedding FROM pgseek.embedding_cache"
        " WHERE tenant = pgseek.tenant() AND identity = %s AND input_type = 'query'"
        " AND (expires_at IS NULL OR expires_at > statement_timestamp()) ORDER BY text_hash LIMIT %s",
        [space.identity_hash, number],
    )
    vectors = [spaces.numbers(row["embedding"]) for row in cached]
    vectors = [vector for vector in vectors if vector.any()]
    if len(vectors) >= min(ENOUGH_QUERIES, number):
        return Sample("queries", vectors, [None] * len(vectors))
    stored = yield from fetch(
        SQL(
            "SELECT document_id, ordinal, embedding FROM {} TABLESAMPLE BERNOULLI (%s) REPEATABLE (1)"
            " ORDER BY sha256(uuid_send(document_id) || int4send(ordinal)) LIMIT %s"
        ).format(spaces.table_of(space.space_id)),
        # More than are wanted: how many come is a matter of chance.
        [min(100.0, 100.0 * (2 * number + 50) / max(rows, 1)), number],
    )
    return Sample(
        "vectors",
        [spaces.numbers(row["embedding"]) for row in stored],
        [(row["document_id"], row["ordinal"]) for row in stored],
    )


class Measure:
    """A space's index against exact search, by a sample of queries."""

    def __init__(self, space: SpaceInfo, sample: Sample, k: int, progress: Told | None) -> None:
        self.space = space
        self.sample = sample
        self.k = k
        # How many rows each search asks for: of a stored vector's nearest it is itself the first.
        self.asked = k + (sample.source == "vectors")
        self.tried: list[IndexRecall] = []
        self._progress = progress
        self._begun = time.monotonic()
        self._truth: Truth | None = None

    def exact(self) -> Script[Truth]:
        """Return the exact answers; they are asked for once."""
        if self._truth is None:
            farthest, sizes, times = [], [], []
            for number, vector in enumerate(self.sample.vectors):
                self._tell("searching exactly", number)
                rows, seconds = yield from self._search(number, vector, {}, exact=True)
                farthest.append(rows[-1]["distance"] if rows else -math.inf)
                sizes.append(len(rows))
                times.append(seconds)
            self._truth = Truth(farthest, sizes, 1000 * statistics.median(times))
        return self._truth

    def recall(self, settings: Mapping[str, int]) -> Script[IndexRecall]:
        """Return what the index finds with these settings."""
        truth = yield from self.exact()
        shares, times = [], []

        def run() -> Script[None]:
            # It is the index that is measured, also where the planner would do without.
            yield from fetch("SET LOCAL enable_seqscan = off")
            for number, vector in enumerate(self.sample.vectors):
                self._tell(f"searching with {described(settings)}", number)
                rows, seconds = yield from self._search(number, vector, settings, exact=False)
                # Of rows that are equally near any will do.
                bound = truth.farthest[number] + 1e-9
                right = sum(row["distance"] <= bound for row in rows)
                shares.append(right / truth.sizes[number] if truth.sizes[number] else 1.0)
                times.append(seconds)

        def again() -> Script[None]:
            # A transaction that lost a deadlock is run again from its start.
            shares.clear()
            times.clear()
            yield from run()

        yield from transact(again)
        found = IndexRecall(dict(settings), statistics.fmean(shares), 1000 * statistics.median(times))
        self.tried.append(found)
        return found

    def _search(
        self, number: int, vector: Vectors, settings: Mapping[str, int], *, exact: bool
    ) -> Script[tuple[list[dict[str, Any]], float]]:
        own = self.sample.own[number]
        parameters = {
            "space": self.space.space_id,
            "vector": vector,
            "k": self.asked,
            "exact": exact,
            **{name: settings.get(name) for name in SETTINGS},
        }
        started = time.perf_counter()
        rows = yield from fetch(NEAREST, parameters)
        seconds = time.perf_counter() - started
        return [row for row in rows if (row["document_id"], row["ordinal"]) != own][: self.k], seconds

    def _tell(self, phase: str, done: int) -> None:
        if self._progress is not None:
            total, seconds = len(self.sample.vectors), time.monotonic() - self._begun
            self._progress(IndexProgress(phase, done, total, "queries", seconds))


def described(settings: Mapping[str, int]) -> str:
    """Return settings as people read them."""
    return ", ".join(f"{name} {value:,}" for name, value in settings.items()) or "the present settings"


@dataclass(frozen=True, slots=True)
class Aim:
    """What a tuning or an advice goes by: ``recall`` of the ``k`` nearest, by ``sample`` queries."""

    recall: float = 0.95
    k: int = 10
    sample: int = 100

    def __post_init__(self) -> None:
        number = isinstance(self.recall, int | float) and not isinstance(self.recall, bool)
        if not (number and 0 < self.recall <= 1):
            raise InvalidInput(f"recall is {self.recall!r}, but must be above 0 and at most 1, such as 0.98")
        for name, low, high in (("k", 1, 1000), ("sample", 10, 10_000)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InvalidInput(f"{name} is {value!r}, but must be a whole number from {low} to {high:,}")


def count_rows(space: SpaceInfo) -> Script[int]:
    """Return how many vectors a space has."""
    row = yield from fetch_one(SQL("SELECT count(*) AS rows FROM {}").format(spaces.table_of(space.space_id)))
    return row["rows"] if row else 0
