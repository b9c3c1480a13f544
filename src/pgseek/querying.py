"""Questions besides a search: pages over one ranking, facets, similar documents, explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from psycopg.types.json import Jsonb

from pgseek import search
from pgseek.embedders.base import Vectors
from pgseek.embedding import Embedding
from pgseek.errors import InvalidInput
from pgseek.prepare import checked_text
from pgseek.stages import Stages, within
from pgseek.steps import Row, Script, fetch
from pgseek.types import CollectionInfo, Hit, Search, check_whole

Over = Literal["lexical", "candidates", "filter"]
OVERS: tuple[Over, ...] = ("lexical", "candidates", "filter")
# Hits that are ranked for pages, where a request does not say how many.
FROZEN = 100

_DEFAULTS = {each.name: each.default for each in fields(Search) if each.default is not MISSING}
_PAGE = """
SELECT * FROM pgseek.search_page(
    collection => %(collection)s, query => %(query)s, size => %(size)s, cursor => %(cursor)s,
    query_embedding => %(embedding)s, options => %(options)s, space_id => %(space_id)s, model => %(model)s)
 ORDER BY rank
"""
_FACETS = """
SELECT pgseek.facets(
    collection => %(collection)s, query => %(query)s, facets => %(facets)s, over => %(over)s,
    query_embedding => %(embedding)s, options => %(options)s, most => %(most)s,
    space_id => %(space_id)s, model => %(model)s) AS found
"""
_EXPLAIN = """
SELECT pgseek.explain(
    collection => %(collection)s, query => %(query)s, query_embedding => %(embedding)s,
    options => %(options)s, space_id => %(space_id)s, model => %(model)s) AS found
"""
_SIMILAR = "SELECT * FROM pgseek.similar(%(collection)s, %(id)s, %(k)s, %(options)s) ORDER BY rank"


@dataclass(frozen=True, slots=True)
class Page:
    """Some hits of one ranking, in its order; ``rank`` counts through all pages.

    ``cursor`` asks for the next page, None on the last. ``total`` hits were ranked and stay as they are,
    but for documents that are deleted meanwhile, or that the filter no longer keeps: those are left out.
    """

    hits: tuple[Hit, ...]
    cursor: str | None
    total: int


@dataclass(frozen=True, slots=True)
class FacetValue:
    """How many documents have a value; of a histogram, numbers from ``value`` up to below ``to``."""

    value: Any
    documents: int
    to: float | None = None


@dataclass(frozen=True, slots=True)
class Facet:
    """The values of a field, most frequent first; buckets of numbers and dates from the least to the
    greatest.

    ``others`` documents have a value that is not among those, ``missing`` have none of that kind. A document
    with an array counts for each of its values.
    """

    values: tuple[FacetValue, ...]
    others: int
    missing: int


@dataclass(frozen=True, slots=True)
class Facets:
    """How ``documents`` spread over the values of their metadata.

    ``statement`` says in words which documents are counted; ``complete`` is False if there are more than were
    looked at. ``facets`` are by the text each was asked for with.
    """

    over: Over
    statement: str
    documents: int
    complete: bool
    facets: Mapping[str, Facet]


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a search came to its hits.

    ``options`` are those asked for; with fusion 'auto' ``kind`` is that of the query, 'question',
    'identifier', 'short' or 'other'; ``alpha`` is what was used, None with fusion 'rrf'. ``words`` are
    mappings with lexeme, chunks (that have it), weight and origin (what was typed, if it stands for
    something else), heaviest first; ``unknown_words`` are in no chunk. ``candidates`` is how many rows each
    leg was asked for; ``dense`` and ``lexical`` say how many it found and whether exactly, None if it did
    not run. ``matching`` counts the documents that the filter keeps, or the chunks with all required words;
    None where that was not counted, or they are more than are compared exactly. ``milliseconds`` has the
    time to read, fuse, shape and show.
    """

    options: Mapping[str, Any]
    kind: str | None
    alpha: float | None
    space: str
    words: Sequence[Mapping[str, Any]]
    unknown_words: Sequence[str]
    restriction: str | None
    candidates: int
    dense: Mapping[str, Any] | None
    lexical: Mapping[str, Any] | None
    matching: int | None
    fused: int | None
    degraded: str | None
    milliseconds: Mapping[str, float]
    hits: Sequence[Mapping[str, Any]]


def page(run: Embedding, request: Search, stages: Stages, size: int, cursor: str | None) -> Script[Page]:
    """Return a page: the first of a new ranking, or what a cursor says. Raises `InvalidInput`."""
    check_whole("size", size, 1000)
    info, embedding = yield from _asked(run, request, stages, embedded=cursor is None)
    parameters = {**_parameters(info, request, embedding), "size": size, "cursor": cursor}
    rows = yield from _fetch(stages, _PAGE, parameters)
    if not rows:
        return Page((), None, 0)
    following, total = rows[0]["next_cursor"], rows[0]["total"]
    for row in rows:
        del row["next_cursor"], row["total"]
    return Page(tuple(search.hit(row) for row in rows), following, total)


def facets(
    run: Embedding,
    request: Search | None,
    stages: Stages,
    wanted: Sequence[str],
    over: Over,
    most: int,
    filtered: str | None,
) -> Script[Facets]:
    """Count documents by values of their metadata. Raises `InvalidInput`."""
    if over not in OVERS:
        raise InvalidInput(f"over is {over!r}, but must be one of {', '.join(OVERS)}")
    check_whole("most", most, 10_000_000)
    if isinstance(wanted, str) or not all(isinstance(one, str) for one in wanted):
        raise InvalidInput(f"facets is {wanted!r}, but must be a list such as ['module', 'year:histogram']")
    if request is None:
        if over != "filter":
            raise InvalidInput(f"there is no query; count over='filter', or give one to count over {over!r}")
        parameters = _parameters(run.info, Search("-", filter=filtered), None)
        parameters["query"] = None
    else:
        info, embedding = yield from _asked(run, request, stages, embedded=over == "candidates")
        parameters = _parameters(info, request, embedding)
    parameters.update(facets=list(wanted), over=over, most=most)
    (row,) = yield from _fetch(stages, _FACETS, parameters)
    found = row["found"]
    return Facets(**{**found, "facets": {name: _facet(one) for name, one in found["facets"].items()}})


def explain(run: Embedding, request: Search, stages: Stages) -> Script[Explanation]:
    """Search, and return how that came about."""
    info, embedding = yield from _asked(run, request, stages)
    (row,) = yield from _fetch(stages, _EXPLAIN, _parameters(info, request, embedding))
    # A query that no leg could answer has nothing to tell but that.
    nothing = dict.fromkeys(each.name for each in fields(Explanation))
    empty = {"space": "", "words": [], "unknown_words": [], "candidates": 0, "milliseconds": {}}
    return Explanation(**{**nothing, **empty, **row["found"]})


def similar(
    info: CollectionInfo,
    id: str,  # noqa: A002 (the caller's id)
    k: int,
    request: Search,
    stages: Stages,
) -> Script[list[Hit]]:
    """Return the documents most like a stored one. Raises `InvalidInput`, also if there is none."""
    check_whole("k", k, 1000)
    checked_text("the id", id)
    parameters = {"collection": info.name, "id": id, "k": k, "options": Jsonb(_options(request))}
    return [search.hit(row) for row in (yield from _fetch(stages, _SIMILAR, parameters))]


def _fetch(stages: Stages, statement: str, parameters: dict[str, Any]) -> Script[list[Row]]:
    with stages.stage("search"):
        return (yield from within(stages, lambda: fetch(statement, parameters)))


def _asked(
    run: Embedding, request: Search, stages: Stages, embedded: bool = True
) -> Script[tuple[CollectionInfo, Vectors | None]]:
    """Return the collection with the space asked for, and the query's vector where a leg needs one.

    Where the embedder fails and may, there is none: then the function answers by words, and says so.
    """
    info = yield from search.searched(run.info, request, stages)
    run = run.of(info.space)
    if not embedded or search.only_lexical(info, request):
        return info, None
    return info, (yield from search.query_vector(run, request, stages))


def _parameters(info: CollectionInfo, request: Search, embedding: Vectors | None) -> dict[str, Any]:
    return {
        "collection": info.name,
        "query": request.query,
        "embedding": embedding,
        "options": Jsonb(_options(request)),
        "space_id": info.space_id,
        "model": str(info.identity),
    }


def search_options(request: Search) -> dict[str, Any]:
    """Return what of the request is not the default, as the SQL functions take it."""
    given = {name: getattr(request, name) for name in _DEFAULTS}
    given["alpha"], given["fusion"] = search.weighing(request)
    changed = {name: value for name, value in given.items() if value != _DEFAULTS[name]}
    if "boosts" in changed:
        changed["boosts"] = [dict(one) for one in request.boosts]
    return changed


def _options(request: Search) -> dict[str, Any]:
    # What k is by default differs from function to function.
    return {"k": request.k, **search_options(request)}


def _facet(found: Mapping[str, Any]) -> Facet:
    counted = found["values"] if "values" in found else found["buckets"]
    values = (
        FacetValue(one.get("value", one.get("from")), one["documents"], one.get("to")) for one in counted
    )
    return Facet(tuple(values), found.get("others", 0), found["missing"])
