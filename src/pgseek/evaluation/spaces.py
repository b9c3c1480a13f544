"""Two embedding spaces of a collection side by side, by the same queries: what changes, and at what price."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from statistics import fmean
from typing import Any, cast

from pgseek import cache, spaces
from pgseek.embedders.base import PROBE, Vectors
from pgseek.embedders.remote import RemoteEmbedder
from pgseek.embedding import Embedding
from pgseek.errors import EmbedderError, InvalidInput
from pgseek.evaluation.compare import Comparison, PerQuery, compare, load_stats
from pgseek.evaluation.experiment import judged_queries, missing_documents
from pgseek.evaluation.measures import DEFAULT_MEASURES, cutoff, parse_measures, score
from pgseek.evaluation.report import plain_comparisons
from pgseek.evaluation.runs import BASE, Latency, Progress, more_chunks, rank_documents
from pgseek.evaluation.trec import Qrels, Run
from pgseek.passages import embedding_text
from pgseek.reembed.switching import fusion_of
from pgseek.search import search_with
from pgseek.steps import Script, embed_query, fetch, fetch_one
from pgseek.types import MAX_K, CollectionInfo, Search, SpaceInfo

# How likely a reader goes on to the next place, in rank-biased overlap: the first ten weigh .86 of all.
PERSISTENCE = 0.9
# Documents kept for each judged query, as `pgseek eval` keeps them.
JUDGED_DEPTH = 100
# Chunks whose tokens are counted; of more, the others are reckoned by their bytes.
COUNTED = 1000


@dataclass(frozen=True, slots=True)
class EmbeddingCost:
    """What embedding takes with a space's model.

    ``documents`` is the number of different texts of the collection's chunks; ``document_tokens`` are theirs,
    ``query_tokens`` the queries': counts or estimates, as the embedder gives them, None if it cannot.
    ``price`` is in dollars per million tokens, 0 for what runs here, None if it is not known; so are the
    costs in dollars.
    """

    documents: int
    document_tokens: int | None
    query_tokens: int | None
    price: float | None
    document_cost: float | None
    query_cost: float | None


@dataclass(frozen=True, slots=True)
class SpaceRun:
    """What one of the spaces found.

    ``alpha`` and ``normalization`` were in force: those that the collection would have if it were searched by
    this space. ``run`` holds documents by query, each where its best chunk stands. ``embedding`` is the
    latency of making queries' vectors, of ``embedded`` queries that the cache did not have (None if it had
    all); ``searching`` that of the searches with them. ``means`` and ``per_query`` are measures, empty
    without judgements. ``empty`` queries found nothing; hits of ``degraded`` ones say that a leg did not
    take part.
    """

    space: SpaceInfo
    alpha: float | None
    normalization: str | None
    run: Run
    embedding: Latency | None
    embedded: int
    searching: Latency
    cost: EmbeddingCost
    means: Mapping[str, float]
    per_query: PerQuery
    empty: int
    degraded: int


@dataclass(frozen=True, slots=True)
class QueryDifference:
    """What the two spaces found for a query: ids of documents, best first.

    ``overlap`` is the share of documents that both have, of the longer list; ``rbo`` the rank-biased overlap.
    Both are 1 for equal lists and 0 if they have nothing in common.
    """

    id: str
    text: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    overlap: float
    rbo: float

    @property
    def same_first(self) -> bool:
        """Whether both begin with the same document, or have none."""
        return self.a[:1] == self.b[:1]


@dataclass(frozen=True, slots=True)
class SpaceComparison:
    """Two spaces of a collection, by the same queries.

    ``queries`` stand in the order given; of their first ``k`` documents, ``overlap`` is the mean share that
    both spaces have, ``same_first`` the share of queries with the same first one, ``rbo`` the mean
    rank-biased overlap. ``alpha`` is what was asked for, None for the collection's own fusion. Searches
    were ``depth`` documents deep. ``judged`` queries count in ``comparisons``, of b against a by measure;
    ``missing_documents`` of those judged for them are not in the collection.
    """

    collection: str
    k: int
    depth: int
    alpha: float | None
    overlap: float
    same_first: float
    rbo: float
    a: SpaceRun
    b: SpaceRun
    queries: tuple[QueryDifference, ...]
    judged: int = 0
    missing_documents: int = 0
    comparisons: tuple[Comparison, ...] = ()

    def differing(self, most: int = 5) -> tuple[QueryDifference, ...]:
        """Return the queries that differ most by their rank-biased overlap, those that differ at all."""
        found = [one for one in self.queries if one.a != one.b]
        return tuple(sorted(found, key=lambda one: one.rbo)[:most])


def summary(found: SpaceComparison) -> dict[str, Any]:
    """Return all but the runs and the values per query of each measure, ready for JSON."""
    left_out = {"run", "per_query"}
    return {
        **{each.name: getattr(found, each.name) for each in fields(found)},
        **{
            side: {each.name: getattr(one, each.name) for each in fields(one) if each.name not in left_out}
            for side, one in (("a", found.a), ("b", found.b))
        },
        "comparisons": plain_comparisons(found.comparisons),
    }


def rbo(a: Sequence[str], b: Sequence[str], persistence: float = PERSISTENCE) -> float:
    """Return the extrapolated rank-biased overlap of two rankings, in 0..1; 1 if both are empty.

    Webber, Moffat and Zobel, A similarity measure for indefinite rankings (ACM TOIS 28, 2010), equation 32:
    the expected share of documents that both have, for a reader who goes on to the next place with the
    probability ``persistence``. Unlike Kendall's tau it stands lists of different documents.
    """
    if not 0 < persistence < 1:
        raise InvalidInput(f"persistence is {persistence!r}, but must lie between 0 and 1")
    shorter, longer = sorted((a, b), key=len)
    if not longer:
        return 1.0
    if not shorter:
        return 0.0
    s, length = len(shorter), len(longer)
    common, total = 0, 0.0
    seen_short: set[str] = set()
    seen_long: set[str] = set()
    common_at_s = 0
    for depth, name in enumerate(longer, 1):
        seen_long.add(name)
        common += name in seen_short
        if depth <= s:
            other = shorter[depth - 1]
            seen_short.add(other)
            common += other in seen_long
        if depth == s:
            common_at_s = common
        total += common / depth * persistence**depth
        if depth > s:
            total += common_at_s * (depth - s) / (s * depth) * persistence**depth
    last = (common - common_at_s) / length + common_at_s / s
    return (1 - persistence) / persistence * total + last * persistence**length


def overlap(a: Sequence[str], b: Sequence[str]) -> float:
    """Return the share of documents that both rankings have, of the longer one; 1 if both are empty."""
    most = max(len(a), len(b))
    return len(set(a) & set(b)) / most if most else 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `compare_spaces` shall do, checked on construction.

    ``alpha`` 1 compares the dense legs alone; None the searches as the collection is set. ``measures`` are
    those of ``qrels``.
    """

    queries: Mapping[str, str]
    qrels: Qrels | None = None
    k: int = 10
    alpha: float | None = None
    measures: tuple[str, ...] = DEFAULT_MEASURES
    progress: Progress | None = None
    # How many documents each search finds.
    depth: int = field(init=False)

    def __post_init__(self) -> None:
        if not self.queries:
            raise InvalidInput("no query is given; two spaces are compared by what they find")
        if self.alpha == 0:
            raise InvalidInput("alpha is 0, the lexical leg alone, which is the same whatever the space")
        for name, text in self.queries.items():
            try:
                Search(text, self.k, self.alpha)
            except InvalidInput as error:
                raise InvalidInput(f"query {name!r}: {error}") from error
        depth = self.k
        if self.qrels is not None:
            load_stats()
            judged_queries(self.queries, self.qrels)
            deepest = [cutoff(measure) or 0 for measure in parse_measures(self.measures).values()]
            depth = max(self.k, JUDGED_DEPTH, *deepest)
            if depth > MAX_K:
                raise InvalidInput(f"a measure looks at {depth:,} documents, but at most {MAX_K:,} are found")
        object.__setattr__(self, "depth", depth)


def compare_spaces(
    run: Embedding, a: int | str, b: int | str, wanted: Wanted, share: Callable[[object], None]
) -> Script[SpaceComparison]:
    """Search for every query in both spaces, by turns, and compare what they find.

    A query's vector is taken from the cache, else made and kept there. What is loaded or connected first is
    not timed. BM25 gets the time it needs, and queries are plain texts, as in `evaluate`.

    Raises:
        InvalidInput: there is no such space, or it is the same twice; no query is judged.
        SpaceMismatch: a space is not ready.
        EmbedderError, MissingExtra, DatabaseError.
    """
    found_a = yield from spaces.find(run.info, a)
    found_b = yield from spaces.find(run.info, b)
    if found_a.space_id == found_b.space_id:
        raise InvalidInput(f"both are space {found_a.space_id} ({found_a}); give two spaces to compare")
    sides = []
    for space in (found_a, found_b):
        of_space = run.of(space)
        share(of_space.embedder)
        side = _Side(run.info, of_space, wanted)
        yield from side.begin()
        sides.append(side)
    missing = 0
    judged: list[str] = []
    if wanted.qrels is not None:
        judged = judged_queries(wanted.queries, wanted.qrels)
        documents = {document for name in judged for document in wanted.qrels[name]}
        missing = yield from missing_documents(run.info.name, run.info.collection_id, documents)
    for number, (name, text) in enumerate(wanted.queries.items()):
        # Whoever comes second finds pages in memory that the first had to read.
        for side in sides if number % 2 == 0 else reversed(sides):
            yield from side.ask(name, text)
        if wanted.progress is not None:
            wanted.progress("comparing", number + 1, len(wanted.queries))
    runs = []
    for side in sides:
        runs.append((yield from side.end({name: (wanted.qrels or {})[name] for name in judged})))
    return _compared(run.info, wanted, runs[0], runs[1], len(judged), missing)


def _compared(
    info: CollectionInfo, wanted: Wanted, a: SpaceRun, b: SpaceRun, judged: int, missing: int
) -> SpaceComparison:
    differences = []
    for name, text in wanted.queries.items():
        first, second = (tuple(document for document, _ in one.run[name][: wanted.k]) for one in (a, b))
        differences.append(
            QueryDifference(name, text, first, second, overlap(first, second), rbo(first, second))
        )
    names = [f"space {one.space.space_id}" for one in (a, b)]
    values = dict(zip(names, (a.per_query, b.per_query), strict=True)) if judged else {}
    return SpaceComparison(
        collection=info.name,
        k=wanted.k,
        depth=wanted.depth,
        alpha=wanted.alpha,
        overlap=fmean(one.overlap for one in differences),
        same_first=fmean(one.same_first for one in differences),
        rbo=fmean(one.rbo for one in differences),
        a=a,
        b=b,
        queries=tuple(differences),
        judged=judged,
        missing_documents=missing,
        comparisons=compare(values, names[0] if values else None),
    )


class _Side:
    """One of the two spaces, and what it found so far."""

    def __init__(self, info: CollectionInfo, run: Embedding, wanted: Wanted) -> None:
        self._run = run
        self._wanted = wanted
        self._request = request_for(info, run.info.space, wanted)
        self._vectors: dict[bytes, Vectors] = {}
        self._found: dict[str, tuple[tuple[str, float], ...]] = {}
        self._embedding: list[float] = []
        self._searching: list[float] = []
        self._degraded = 0

    def begin(self) -> Script[None]:
        """Have models loaded, plans made, and a space refused that is not ready: none of it is timed."""
        run = self._run
        vector = yield from embed_query(run.embedder, PROBE)
        yield from search_with(run.info, replace(self._request, query=PROBE), vector)
        keys = [_key(text) for text in self._wanted.queries.values()]
        self._vectors = yield from cache.look_up(run.info.identity_hash, "query", keys)

    def ask(self, name: str, text: str) -> Script[None]:
        """Search for a query; its vector first, if the cache has none."""
        run, key = self._run, _key(text)
        try:
            if key not in self._vectors:
                started = time.perf_counter()
                vector = yield from embed_query(run.embedder, text)
                self._embedding.append(time.perf_counter() - started)
                self._vectors[key] = vector
                yield from cache.store(run.info.identity_hash, "query", {key: vector}, run.policy.query_days)
            yield from self._search(name, text, self._vectors[key])
        except (InvalidInput, EmbedderError) as error:
            raise type(error)(f"query {name!r} in space {run.info.space_id}: {error}") from error

    def _search(self, name: str, text: str, vector: Vectors) -> Script[None]:
        depth = self._wanted.depth
        request = replace(self._request, query=text, k=depth)
        started = time.perf_counter()
        hits = yield from search_with(self._run.info, request, vector)
        self._searching.append(time.perf_counter() - started)
        ranking = rank_documents(hits)
        while k := more_chunks(request.k, len(hits), len(ranking), depth):
            request = replace(request, k=k)
            hits = yield from search_with(self._run.info, request, vector)
            ranking = rank_documents(hits)
        self._found[name] = tuple(ranking[:depth])
        self._degraded += bool(hits and hits[0].degraded)

    def end(self, qrels: Qrels) -> Script[SpaceRun]:
        """Return what was found, measured by the judgements."""
        values = score(self._wanted.measures, qrels, self._found) if qrels else {}
        return SpaceRun(
            space=self._run.info.space,
            alpha=cast("float | None", self._request.alpha),
            normalization=self._request.normalization,
            run=self._found,
            embedding=Latency.of(self._embedding) if self._embedding else None,
            embedded=len(self._embedding),
            searching=Latency.of(self._searching),
            cost=(yield from _cost(self._run, list(self._wanted.queries.values()))),
            means={measure: fmean(by_query.values()) for measure, by_query in values.items()},
            per_query=values,
            empty=sum(not ranking for ranking in self._found.values()),
            degraded=self._degraded,
        )


def request_for(info: CollectionInfo, space: SpaceInfo, wanted: Wanted) -> Search:
    """Return how the collection would be searched if ``space`` were its active one."""
    settings: dict[str, Any] = {**info.settings}
    if space.space_id != info.space_id:
        settings.update(fusion_of(info, space))
    weighted = wanted.alpha is not None or settings["fusion"] == "weighted"
    alpha = wanted.alpha if wanted.alpha is not None else settings["alpha"]
    return Search(
        PROBE,
        alpha=alpha if weighted else None,
        normalization=settings["normalization"] if weighted else None,
        space=space.space_id,
        **BASE,
    )


def _cost(run: Embedding, queries: Sequence[str]) -> Script[EmbeddingCost]:
    """Return what the collection's texts, equal ones once, and the queries take to embed."""
    row = yield from fetch_one(
        "SELECT count(*) AS texts, coalesce(sum(t.bytes), 0)::bigint AS bytes FROM (SELECT DISTINCT ON"
        " (c.text_hash) octet_length(c.title) + octet_length(c.text) AS bytes FROM pgseek.chunks c"
        " WHERE c.collection_id = %s AND c.kind <> 'document' ORDER BY c.text_hash) AS t",
        [run.info.collection_id],
    )
    texts, size = (int(row["texts"]), int(row["bytes"])) if row else (0, 0)
    counter = getattr(run.embedder, "count_tokens", None)
    of_documents = of_queries = None
    if counter is not None:
        of_queries = sum(counter(list(queries)))
        sample = yield from fetch(
            "SELECT c.title, c.text FROM pgseek.chunks c WHERE c.collection_id = %s AND c.kind <> 'document'"
            " ORDER BY c.document_id, c.ordinal LIMIT %s",
            [run.info.collection_id, COUNTED],
        )
        counted = sum(len((one["title"] + one["text"]).encode()) for one in sample)
        tokens = sum(counter([embedding_text(one["title"], one["text"]) for one in sample]))
        of_documents = round(tokens * size / counted) if counted else 0
    price: float | None = float(getattr(run.embedder, "price", 0.0))
    if price == 0 and isinstance(run.embedder, RemoteEmbedder):
        price = None

    def dollars(tokens: int | None) -> float | None:
        if price == 0:
            return 0.0
        return None if price is None or tokens is None else tokens * price / 1e6

    return EmbeddingCost(texts, of_documents, of_queries, price, dollars(of_documents), dollars(of_queries))


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
