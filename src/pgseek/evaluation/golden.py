"""Golden sets: judged queries kept in the database with the collection that they measure.

A set belongs to a collection's name: when other chunks take the name (`Collection.rechunk`), the sets go over
to them, and when the collection is dropped they go with it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pgseek import collections
from pgseek.errors import InvalidInput
from pgseek.evaluation.experiment import count_missing, judged_queries
from pgseek.evaluation.runs import Searched
from pgseek.evaluation.trec import Qrels
from pgseek.steps import Script, fetch, transact
from pgseek.types import CollectionInfo

_NAME = re.compile(r"\w[\w.+=-]{0,99}")
MAX_RELEVANCE = 2_147_483_647

_HELD = """
SELECT c.collection_id FROM pgseek.collections c
 WHERE c.tenant = pgseek.tenant() AND c.name = %s AND c.copy_of IS NULL FOR SHARE
"""
_LIST = """
SELECT s.name, s.created_at,
       (SELECT count(*) FROM pgseek.golden_queries q
         WHERE q.collection_id = s.collection_id AND q.name = s.name) AS queries,
       (SELECT count(*) FROM pgseek.golden_judgements j
         WHERE j.collection_id = s.collection_id AND j.name = s.name) AS judgements
  FROM pgseek.golden_sets s WHERE s.collection_id = %s ORDER BY s.name
"""
_READ = """
SELECT q.query_id, q.query, j.external_id, j.relevance
  FROM pgseek.golden_queries q
  LEFT JOIN pgseek.golden_judgements j USING (collection_id, name, query_id)
 WHERE q.collection_id = %s AND q.name = %s ORDER BY q.query_id, j.external_id
"""


@dataclass(frozen=True, slots=True)
class GoldenInfo:
    """A golden set without its contents: how many queries it has, and how many judgements of documents."""

    name: str
    queries: int
    judgements: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Golden:
    """A golden set: the texts of queries and their judgements, as `evaluate` takes them, by the queries' ids.

    Queries stand in the order of their ids.
    """

    name: str
    queries: Mapping[str, str]
    qrels: Qrels


def save_golden(
    docs: Searched, name: str, queries: Mapping[str, str], qrels: Qrels, *, replace: bool = False
) -> GoldenInfo:
    """Keep judged queries as a golden set of the collection; queries without judgements are left out.

    A judged document need not be stored yet. With ``replace`` a set of this name is exchanged for the new
    one, in one transaction.

    Raises:
        InvalidInput: there is a set of this name, none of the queries is judged, the name or a text cannot be
            stored, or a relevance is no whole number.
    """
    check_golden_name(name)
    asked = {query: queries[query] for query in judged_queries(queries, qrels)}
    rows = _checked(asked, qrels)
    found: GoldenInfo = docs._client._run(_save(docs.name, name, asked, rows, replace))
    return found


def read_golden(docs: Searched, name: str) -> Golden:
    """Return a golden set of the collection. Raises `InvalidInput`, with the nearest name, if it has none
    such."""
    found: Golden = docs._client._run(_read(docs.name, name))
    return found


def list_golden(docs: Searched) -> tuple[GoldenInfo, ...]:
    """Return the collection's golden sets, by name."""
    found: tuple[GoldenInfo, ...] = docs._client._run(_list(docs.name))
    return found


def drop_golden(docs: Searched, name: str) -> None:
    """Delete a golden set. Raises `InvalidInput` if the collection has none of this name."""
    docs._client._run(_drop(docs.name, name))


def missing_of(docs: Searched, golden: Golden) -> int:
    """Return how many of the documents judged in a golden set the collection does not hold."""
    missing: int = docs._client._run(_missing(docs.name, golden))
    return missing


def check_golden_name(name: str) -> None:
    """Raise `InvalidInput` unless a golden set may be called so."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"the golden set's name is {name!r}, but must begin with a letter or a digit and have at most "
            "100 letters, digits and signs of _.+=-"
        )


def _checked(queries: Mapping[str, str], qrels: Qrels) -> list[tuple[str, str, int]]:
    """Return query id, document id and relevance of each judgement, or raise `InvalidInput`."""
    rows = []
    for query, text in queries.items():
        if not text.strip():
            raise InvalidInput(f"query {query!r} is empty; give it a text, or leave it out")
        if not qrels[query]:
            raise InvalidInput(f"query {query!r} has no judged document; judge one, or leave it out")
        for document, relevance in qrels[query].items():
            if type(relevance) is not int or not -MAX_RELEVANCE <= relevance <= MAX_RELEVANCE:
                raise InvalidInput(
                    f"document {document!r} has the relevance {relevance!r} for query {query!r}, but it "
                    "must be a whole number: 1 and more is relevant, 0 is not"
                )
            rows.append((query, document, relevance))
        for value in (query, text, *qrels[query]):
            if "\0" in value or any("\ud800" <= sign <= "\udfff" for sign in value):
                raise InvalidInput(
                    f"{value!r} of query {query!r} holds a sign that PostgreSQL cannot store; leave it out"
                )
    return rows


def _save(
    collection: str,
    name: str,
    queries: Mapping[str, str],
    judgements: list[tuple[str, str, int]],
    replace: bool,
) -> Script[GoldenInfo]:
    def write() -> Script[None]:
        # Held until the end: a collection that takes the name meanwhile waits, and takes the set over.
        rows = yield from fetch(
            _HELD,
            [collection],
        )
        if not rows:
            raise (yield from collections.not_found(collection))
        of = rows[0]["collection_id"]
        if replace:
            yield from fetch(
                "DELETE FROM pgseek.golden_sets WHERE collection_id = %s AND name = %s", [of, name]
            )
        made = yield from fetch(
            "INSERT INTO pgseek.golden_sets (collection_id, name) VALUES (%s, %s)"
            " ON CONFLICT DO NOTHING RETURNING name",
            [of, name],
        )
        if not made:
            raise InvalidInput(
                f"collection {collection!r} has a golden set {name!r} already; choose another name, or "
                "replace it (--replace)"
            )
        yield from fetch(
            "INSERT INTO pgseek.golden_queries (collection_id, name, query_id, query)"
            " SELECT %s, %s, * FROM unnest(%s::text[], %s::text[])",
            [of, name, list(queries), list(queries.values())],
        )
        yield from fetch(
            "INSERT INTO pgseek.golden_judgements (collection_id, name, query_id, external_id, relevance)"
            " SELECT %s, %s, * FROM unnest(%s::text[], %s::text[], %s::integer[])",
            [of, name, *(list(column) for column in zip(*judgements, strict=True))],
        )

    yield from transact(write)
    info = yield from collections.find(collection)
    return next(one for one in (yield from _all(info)) if one.name == name)


def _all(info: CollectionInfo) -> Script[tuple[GoldenInfo, ...]]:
    return tuple(GoldenInfo(**row) for row in (yield from fetch(_LIST, [info.collection_id])))


def _list(collection: str) -> Script[tuple[GoldenInfo, ...]]:
    info = yield from collections.find(collection)
    return (yield from _all(info))


def _read(collection: str, name: str) -> Script[Golden]:
    info = yield from collections.find(collection)
    rows = yield from fetch(_READ, [info.collection_id, name])
    if not rows:
        raise (yield from _not_found(info, name))
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for row in rows:
        queries[row["query_id"]] = row["query"]
        of_query = qrels.setdefault(row["query_id"], {})
        if row["external_id"] is not None:
            of_query[row["external_id"]] = row["relevance"]
    return Golden(name, queries, qrels)


def _drop(collection: str, name: str) -> Script[None]:
    info = yield from collections.find(collection)
    gone = yield from fetch(
        "DELETE FROM pgseek.golden_sets WHERE collection_id = %s AND name = %s RETURNING name",
        [info.collection_id, name],
    )
    if not gone:
        raise (yield from _not_found(info, name))


def _not_found(info: CollectionInfo, name: str) -> Script[InvalidInput]:
    names = [one.name for one in (yield from _all(info))]
    near = difflib.get_close_matches(str(name), names, 1)
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif names:
        hint = f"there are {', '.join(names)}"
    else:
        hint = f"it has none yet; pgseek golden import {info.name} NAME makes one"
    return InvalidInput(f"collection {info.name!r} has no golden set {name!r}; {hint}")


def _missing(collection: str, golden: Golden) -> Script[int]:
    info = yield from collections.find(collection)
    ids = {document for judged in golden.qrels.values() for document in judged}
    return (yield from count_missing(info.collection_id, ids))
