"""Search: parameters to the one SQL function, rows to hits. Nothing is ranked here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from psycopg.types.json import Jsonb

from pgseek import cache, spaces
from pgseek.embedders.base import Embedder, Vectors, usable
from pgseek.embedding import Embedding
from pgseek.errors import DimensionMismatch, InvalidInput
from pgseek.steps import Script, embed_query, fetch
from pgseek.types import CachePolicy, CollectionInfo, Hit, Match, Passage, Search

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


def search(run: Embedding, request: Search) -> Script[list[Hit]]:
    """Embed the query (through the cache) unless only the lexical leg runs, then search."""
    info = yield from _searched(run.info, request)
    run = run.of(info.space)
    embedding = None
    only_lexical = request.alpha == 0 or (
        request.alpha is None
        and request.fusion is None
        and info.settings["fusion"] == "weighted"
        and info.settings["alpha"] == 0
    )
    if not only_lexical:
        embedding = yield from query_embedding(info, run.embedder, request.query, run.policy)
    return (yield from search_with(info, request, embedding))


def search_given(
    info: CollectionInfo, request: Search, given: Any, model: str | None = None
) -> Script[list[Hit]]:
    """Search with a vector (d,) that the caller brought, and may say what made it."""
    info = yield from _searched(info, request)
    return (yield from search_with(info, request, given_embedding(info, given), model))


def _searched(info: CollectionInfo, request: Search) -> Script[CollectionInfo]:
    """Return the collection with the space that the request asks for."""
    if request.space is None or request.space == info.space_id:
        return info
    return replace(info, space=(yield from spaces.find(info, request.space)))


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
    for name in (
        "alpha",
        "budget",
        "min_score",
        "min_dense_score",
        "min_lexical_score",
        "diversity",
        "near_duplicates",
    ):
        given[name] = None if given[name] is None else float(given[name])
    given["highlight"] = list(request.highlight)
    given["boosts"] = Jsonb([dict(one) for one in request.boosts]) if request.boosts else None
    return given


def query_embedding(
    info: CollectionInfo, embedder: Embedder, query: str, policy: CachePolicy
) -> Script[Vectors]:
    """Return the query's vector from the cache, else embed it and put it there.

    The cached copy is also what SQL callers find. Where this user or this server may not write,
    nothing is stored.
    """
    key = hashlib.sha256(query.encode()).digest()
    cached = yield from cache.look_up(info.identity_hash, "query", [key])
    if key in cached:
        return cached[key]
    vector = yield from embed_query(embedder, query)
    yield from cache.store(info.identity_hash, "query", {key: vector}, policy.query_days)
    return vector


def given_embedding(info: CollectionInfo, embedding: Any) -> Vectors:
    """Check a vector the caller brought: (d,), finite and not zero. Returns float32."""
    try:
        vector: Vectors = np.ascontiguousarray(embedding, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"query_embedding is not a vector of numbers: {error}") from error
    if vector.shape != (info.identity.dimensions,):
        size = vector.shape[0] if vector.ndim == 1 else vector.shape
        raise DimensionMismatch(
            f"the query embedding has {size} dimensions, but collection {info.name!r} uses "
            f"{info.identity.provider}:{info.identity.model} with {info.identity.dimensions}; "
            "embed the query with the model of the collection"
        )
    if not usable(vector):
        raise InvalidInput("query_embedding is zero or holds NaN or infinity: it says nothing of a text")
    return vector


def hit(row: Mapping[str, Any]) -> Hit:
    """Return the hit of one row of pgseek.search."""
    values = dict(row)
    matched = tuple(Match(**one) for one in values.pop("matched"))
    values["duplicates"] = tuple(values["duplicates"])
    values["other_passages"] = tuple(Passage(**one) for one in values["other_passages"])
    return Hit(id=values.pop("external_id"), matched=matched, **values)
