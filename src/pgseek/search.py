"""Search: parameters to the one SQL function, rows to hits. Nothing is ranked here."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
from psycopg.types.json import Jsonb

from pgseek import cache, spaces
from pgseek.embedders.base import Embedder, Vectors, usable
from pgseek.embedding import Embedding
from pgseek.errors import DimensionMismatch, EmbedderError, GeneratorError, InvalidInput, RerankerError
from pgseek.expansion import Expansion, expand, joined
from pgseek.passages import embedding_text
from pgseek.rerankers.base import Reranker, checked_scores
from pgseek.stages import Stages, within
from pgseek.steps import CallTimeout, Script, call, embed_query, fetch
from pgseek.types import Alpha, CachePolicy, CollectionInfo, Fusion, Hit, Match, Passage, Search

log = logging.getLogger("pgseek")
# Of the time that is left, the share an embedder may take where the words alone may answer as well.
EMBEDDING_SHARE = 0.5
# Hits that a reranker reads, where more than that are not asked for.
RERANK_TOP = 50

# Every field of a request is an argument of the function, by the same name.
_OPTIONS = tuple(each.name for each in fields(Search))
_CASTS = {"filter": "::jsonpath"}
_SEARCH = (
    "SELECT * FROM pgseek.search(collection => %(collection)s, query_embedding => %(embedding)s,"  # noqa: S608
    " space_id => %(space_id)s, model => %(model)s, "
    + ", ".join(f"{name} => %({name})s{_CASTS.get(name, '')}" for name in _OPTIONS)
    + ") ORDER BY rank"
)
_NUMBERS = (
    "alpha",
    "budget",
    "min_score",
    "min_dense_score",
    "min_lexical_score",
    "diversity",
    "near_duplicates",
)


def search(
    run: Embedding,
    request: Search,
    stages: Stages,
    reranker: Reranker | None = None,
    expansion: Expansion | None = None,
) -> Script[list[Hit]]:
    """Embed the query (through the cache) and expand it, unless only the lexical leg runs, then search."""
    info = yield from searched(run.info, request, stages)
    run = run.of(info.space)
    embedding = None
    if not only_lexical(info, request):
        embedding = yield from query_vector(run, request, stages)
        if embedding is None:
            request = by_words(request)
        elif expansion is not None:
            embedding = yield from _expanded(expansion, run, request, embedding, stages)
    return (yield from _finished(info, request, stages, reranker, embedding))


def search_given(
    info: CollectionInfo,
    request: Search,
    stages: Stages,
    reranker: Reranker | None,
    given: Any,
    model: str | None = None,
) -> Script[list[Hit]]:
    """Search with a vector (d,) that the caller brought, and may say what made it."""
    info = yield from searched(info, request, stages)
    return (yield from _finished(info, request, stages, reranker, given_embedding(info, given), model))


def search_without(
    info: CollectionInfo, request: Search, stages: Stages, reranker: Reranker | None = None
) -> Script[list[Hit]]:
    """Search by words alone, since there is no embedder; ``stages`` says why."""
    info = yield from searched(info, request, stages)
    return (yield from _finished(info, by_words(request), stages, reranker, None))


def by_words(request: Search) -> Search:
    """Return the request for the lexical leg alone, in which no row has a dense score."""
    return replace(request, alpha=0.0, fusion="weighted", min_dense_score=None)


def only_lexical(info: CollectionInfo, request: Search) -> bool:
    """Return whether the query's vector is not needed."""
    return request.alpha == 0 or (
        request.alpha is None
        and request.fusion is None
        and bool(info.settings["fusion"] == "weighted")
        and bool(info.settings["alpha"] == 0)
    )


def searched(info: CollectionInfo, request: Search, stages: Stages) -> Script[CollectionInfo]:
    """Return the collection with the space that the request asks for."""
    number = request.space
    if number is None or number == info.space_id:
        return info
    with stages.stage("space"):
        return replace(info, space=(yield from within(stages, lambda: spaces.find(info, number))))


def query_vector(run: Embedding, request: Search, stages: Stages) -> Script[Vectors | None]:
    """Return the query's vector, None if the embedder failed and the request says to do without."""
    strict = stages.policy.on_embedder_error == "raise"
    with stages.stage("embed"):
        seconds = stages.left(1.0 if strict else EMBEDDING_SHARE)
        try:
            return (
                yield from query_embedding(run.info, run.embedder, request.query, run.policy, stages, seconds)
            )
        except EmbedderError as error:
            if strict:
                raise
            lack_embedding(stages, run.embedder.model_id, error)
        except CallTimeout as error:
            model = run.embedder.model_id
            if strict:
                raise CallTimeout(f"{model} had not embedded the query") from error
            told = f"{model} had not embedded the query after {seconds:.3g} s"
            stages.lack(f"lexical only: {told}", told)
    return None


def _expanded(
    expansion: Expansion, run: Embedding, request: Search, own: Vectors, stages: Stages
) -> Script[Vectors]:
    """Return the vector of the expanded query; the query's own, if a model failed and that is no error."""
    strict = stages.policy.on_embedder_error == "raise"
    share = 1.0 if strict else EMBEDDING_SHARE
    with stages.stage("expand"):
        try:
            return (yield from expand(expansion, run, request.query, own, stages, share))
        except (GeneratorError, EmbedderError) as error:
            if strict:
                raise
            told = f"the query was not expanded by {expansion.name}"
            stages.lack(f"not expanded: {error}", f"{told} ({kind_of(error)})")
        except CallTimeout as error:
            told = f"{expansion.name} had not expanded the query"
            if strict:
                raise CallTimeout(told) from error
            stages.lack(f"not expanded: {told} in time", f"{told} in time")
    return own


def lack_embedding(stages: Stages, model: str, error: EmbedderError) -> None:
    """Note that there is no vector of the query, and why."""
    stages.lack(f"lexical only: {error}", f"{model} did not embed the query ({kind_of(error)})")


def _finished(
    info: CollectionInfo,
    request: Search,
    stages: Stages,
    reranker: Reranker | None,
    embedding: Vectors | None,
    model: str | None = None,
) -> Script[list[Hit]]:
    """Search with what there is, and say in each hit, and once in the log, what there is not."""
    top = 0 if reranker is None else stages.policy.rerank_top or max(request.k, RERANK_TOP)
    asked = replace(request, k=max(request.k, top))
    with stages.stage("search"):
        hits = yield from within(stages, lambda: search_with(info, asked, embedding, model))
    if reranker is not None and hits:
        hits = yield from _reranked(reranker, request, stages, hits, top)
    if stages.events:
        log.warning("search of %r is degraded: %s", info.name, "; ".join(stages.events))
    return [_noted(hit, stages) for hit in hits[: request.k]]


def _reranked(
    reranker: Reranker, request: Search, stages: Stages, hits: list[Hit], top: int
) -> Script[list[Hit]]:
    """Order the first hits by what the reranker gives them; equal scores, and the rest, as they were."""
    seconds = min((s for s in (stages.policy.rerank_budget, stages.left()) if s is not None), default=None)
    name, read = reranker.model_id, hits[:top]
    stop = threading.Event()
    # There are hits: no time left is none for the reranker, and no reason to have nothing.
    with stages.untimed("rerank"):
        try:
            texts = [embedding_text(hit.title, hit.text) for hit in read]
            score = partial(checked_scores, reranker, request.query, texts, stop)
            scores = yield from call(score, seconds)
        except CallTimeout:
            told = f"{name} had not re-ranked {len(read)} hits after {seconds:.3g} s"
            stages.lack(f"fused order: {told}", told)
            return hits
        except RerankerError as error:
            if stages.policy.on_embedder_error == "raise":
                raise
            stages.lack(f"fused order: {error}", f"{name} did not re-rank ({kind_of(error)})")
            return hits
        finally:
            # Whoever gave up waits for no further batch or attempt.
            stop.set()
    stages.reranked = len(read)
    order = sorted(range(len(read)), key=lambda place: (-scores[place], place))
    return [
        *(
            replace(read[place], rank=rank, rerank_score=float(scores[place]), fused_rank=read[place].rank)
            for rank, place in enumerate(order, 1)
        ),
        *(replace(hit, fused_rank=hit.rank) for hit in hits[top:]),
    ]


def kind_of(error: Exception) -> str:
    """Return what kind of error it is, for a log: its message may hold the query, or more."""
    cause = f" from {type(error.__cause__).__name__}" if error.__cause__ is not None else ""
    return f"{type(error).__name__}{cause}"


def _noted(hit: Hit, stages: Stages) -> Hit:
    if not stages.lacking:
        return hit
    own = [] if hit.degraded is None else [hit.degraded]
    return replace(hit, degraded="; ".join([*stages.lacking, *own]))


def search_with(
    info: CollectionInfo, request: Search, embedding: Vectors | None, model: str | None = None
) -> Script[list[Hit]]:
    """Search with a vector at hand, float32 (d,), of the space of ``info``; ``model`` says so otherwise."""
    rows = yield from fetch(
        _SEARCH,
        {
            "collection": info.name,
            "embedding": embedding,
            "space_id": info.space_id,
            "model": str(info.identity) if model is None else model,
            **_options(request),
        },
    )
    return [hit(row) for row in rows]


def _options(request: Search) -> dict[str, Any]:
    """Return the arguments of the SQL function that are fields of the request, in its types."""
    given = {name: getattr(request, name) for name in _OPTIONS}
    given["alpha"], given["fusion"] = weighing(request)
    for name in _NUMBERS:
        given[name] = None if given[name] is None else float(given[name])
    given["highlight"] = list(request.highlight)
    given["boosts"] = Jsonb([dict(one) for one in request.boosts]) if request.boosts else None
    return given


def weighing(request: Search) -> tuple[Alpha | None, Fusion | None]:
    """Return alpha and fusion as the SQL functions take them: there 'auto' is a fusion."""
    return (None, "auto") if request.alpha == "auto" else (request.alpha, request.fusion)


def query_embedding(
    info: CollectionInfo,
    embedder: Embedder,
    query: str,
    policy: CachePolicy,
    stages: Stages | None = None,
    seconds: float | None = None,
) -> Script[Vectors]:
    """Return the query's vector from the cache, else embed it, within so many seconds, and put it there.

    The cached copy is also what SQL callers find. Where this user or this server may not write,
    nothing is stored.

    Raises:
        EmbedderError, CallTimeout.
    """
    key = hashlib.sha256(query.encode()).digest()
    cached = yield from within(stages, lambda: cache.look_up(info.identity_hash, "query", [key]))
    if stages is not None:
        stages.cached = key in cached
    if key in cached:
        return cached[key]
    vector = yield from embed_query(embedder, query, seconds)
    made = {key: vector}
    yield from within(stages, lambda: cache.store(info.identity_hash, "query", made, policy.query_days))
    return vector


def given_embedding(info: CollectionInfo, embedding: Any) -> Vectors:
    """Check a vector the caller brought, (d,), or several, (n, d): finite and not zero. Returns float32 (d,).

    Of several it is the mean of their directions: a search by it is the sum of searches by each.
    """
    try:
        given: Vectors = np.ascontiguousarray(embedding, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"query_embedding is not a vector of numbers: {error}") from error
    dimensions = info.identity.dimensions
    if given.shape[-1:] != (dimensions,) or given.ndim > 2 or not given.size:
        size = given.shape[0] if given.ndim == 1 else given.shape
        raise DimensionMismatch(
            f"the query embedding has {size} dimensions, but collection {info.name!r} uses "
            f"{info.identity.provider}:{info.identity.model} with {dimensions}; "
            "embed the query with the model of the collection"
        )
    vectors = given.reshape(-1, dimensions)
    if not all(usable(vector) for vector in vectors):
        raise InvalidInput("query_embedding is zero or holds NaN or infinity: it says nothing of a text")
    return joined(vectors[0], list(vectors[1:]), len(vectors) - 1)


def hit(row: Mapping[str, Any]) -> Hit:
    """Return the hit of one row of pgseek.search."""
    values = dict(row)
    matched = tuple(Match(**one) for one in values.pop("matched"))
    values["duplicates"] = tuple(values["duplicates"])
    values["other_passages"] = tuple(Passage(**one) for one in values["other_passages"])
    return Hit(id=values.pop("external_id"), matched=matched, **values)
