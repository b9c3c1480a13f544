"""Answers of the caller's, kept by the question: found again for the same one, or for one near enough."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pgseek import search
from pgseek.embedders.base import Vectors
from pgseek.embedding import Embedding
from pgseek.errors import InvalidInput
from pgseek.prepare import checked_text, metadata_json
from pgseek.stages import Stages, within
from pgseek.steps import Row, Script, fetch, fetch_one
from pgseek.types import CollectionInfo, Search

_FIND = """
SELECT * FROM pgseek.find_answer(
    collection => %(collection)s, query => %(query)s, query_embedding => %(embedding)s,
    min_similarity => %(min_similarity)s, scope => %(scope)s, guard => %(guard)s,
    space_id => %(space_id)s, model => %(model)s)
"""
_PUT = """
SELECT pgseek.put_answer(
    collection => %(collection)s, query => %(query)s, answer => %(answer)s, query_embedding => %(embedding)s,
    ttl => %(ttl)s, documents => %(documents)s, scope => %(scope)s, metadata => %(metadata)s,
    space_id => %(space_id)s, model => %(model)s)
"""
_STATS = """
SELECT a.scope, count(*) AS answers, count(*) FILTER (WHERE a.embedding IS NOT NULL) AS embedded,
       count(*) FILTER (WHERE a.expires_at <= statement_timestamp()) AS expired,
       count(*) FILTER (WHERE a.space_id IS DISTINCT FROM c.active_space_id) AS of_other_spaces,
       count(*) FILTER (WHERE EXISTS (
           SELECT FROM unnest(a.documents, a.hashes) AS o (document_id, content_hash)
             LEFT JOIN pgseek.documents d
               ON d.collection_id = a.collection_id AND d.document_id = o.document_id
            WHERE d.content_hash IS DISTINCT FROM o.content_hash)) AS outdated,
       sum(pg_column_size(a.*))::bigint AS bytes, min(a.stored_at) AS oldest_at, max(a.stored_at) AS newest_at
  FROM pgseek.answers a JOIN pgseek.collections c ON c.collection_id = a.collection_id
 WHERE a.collection_id = %s GROUP BY a.scope ORDER BY a.scope
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was kept, for the question it was kept for.

    ``exact`` says that this question is the one asked, but for case, space and the signs at its end; else
    ``similarity`` is the cosine of the two. ``documents`` are those it cites. ``expires_at`` is None if it
    has no end.
    """

    answer: str
    question: str
    similarity: float | None
    exact: bool
    metadata: Mapping[str, Any]
    documents: tuple[str, ...]
    stored_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class AnswerStats:
    """The answers of one scope.

    ``embedded`` are found for other questions, too. Not served are those that are ``expired``,
    ``of_other_spaces`` than the active one, or ``outdated``, which cite a document that changed or went; one
    may be all three. ``bytes`` counts the rows, without indexes.
    """

    scope: str
    answers: int
    embedded: int
    expired: int
    of_other_spaces: int
    outdated: int
    bytes: int
    oldest_at: datetime
    newest_at: datetime


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """How often a handle was asked, and how many of those it answered: for the ``same`` question, or by one
    that was ``near``."""

    asked: int = 0
    same: int = 0
    near: int = 0


class Counting:
    """Counts in memory what a handle was asked: a look-up writes nothing to the database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = AnswerCounts()

    def note(self, found: Answer | None) -> None:
        """Count one."""
        with self._lock:
            was = self._counts
            same, near = found is not None and found.exact, found is not None and not found.exact
            self._counts = AnswerCounts(was.asked + 1, was.same + same, was.near + near)

    @property
    def counts(self) -> AnswerCounts:
        """What was counted so far."""
        return self._counts


def find(
    run: Embedding, query: str, stages: Stages, min_similarity: float | None, scope: str, guard: bool
) -> Script[Answer | None]:
    """Return the answer to a question, None if none is kept. The query is embedded only if need be."""
    request = Search(query)
    _check_number(min_similarity)
    info = run.info
    asked = {
        **_asked(info, query, scope),
        "min_similarity": None if min_similarity is None else float(min_similarity),
        "guard": bool(guard),
    }
    # With the vector that the cache has of this very text.
    found = yield from _ask(stages, {**asked, "embedding": None})
    if found is None and (min_similarity is not None or (yield from _has_threshold(info, stages))):
        embedding = yield from search.query_vector(run, request, stages)
        if embedding is not None and not stages.cached:
            found = yield from _ask(stages, {**asked, "embedding": embedding})
    return found


def put(
    run: Embedding,
    query: str,
    answer: str,
    stages: Stages,
    ttl: timedelta | float | None,
    documents: Iterable[str],
    scope: str,
    metadata: Mapping[str, Any] | None,
) -> Script[None]:
    """Keep an answer."""
    request = Search(query)
    if not isinstance(answer, str):
        raise InvalidInput(f"answer is {answer!r}, but must be a text")
    checked_text("answer", answer)
    cited = _texts("documents", documents)
    seconds = _seconds(ttl)
    info = run.info
    embedding: Vectors | None = yield from search.query_vector(run, request, stages)
    parameters = {
        **_asked(info, query, scope),
        "answer": answer,
        "embedding": embedding,
        "ttl": seconds,
        "documents": cited,
        "metadata": metadata_json({} if metadata is None else metadata),
    }
    with stages.stage("store"):
        yield from within(stages, lambda: fetch(_PUT, parameters))


def clear(
    info: CollectionInfo,
    query: str | None,
    scope: str | None,
    documents: Iterable[str] | None,
    only_stale: bool,
) -> Script[int]:
    """Delete answers; return how many there were."""
    cited = None if documents is None else _texts("documents", documents)
    for name, given in (("query", query), ("scope", scope)):
        if given is not None:
            checked_text(name, given)
    row = yield from fetch_one(
        "SELECT pgseek.clear_answers(%s, %s, %s, %s::text[], %s) AS deleted",
        [info.name, query, scope, cited, only_stale],
    )
    return int(row["deleted"]) if row else 0


def stats(info: CollectionInfo) -> Script[list[AnswerStats]]:
    """Return what is kept, by scope."""
    return [AnswerStats(**row) for row in (yield from fetch(_STATS, [info.collection_id]))]


def _ask(stages: Stages, parameters: dict[str, Any]) -> Script[Answer | None]:
    with stages.stage("look up"):
        rows: list[Row] = yield from within(stages, lambda: fetch(_FIND, parameters))
    if not rows:
        return None
    return Answer(**{**rows[0], "documents": tuple(rows[0]["documents"])})


def _has_threshold(info: CollectionInfo, stages: Stages) -> Script[bool]:
    rows = yield from within(
        stages,
        lambda: fetch(
            "SELECT FROM pgseek.embedding_spaces WHERE space_id = %s"
            " AND searching #> '{thresholds,answer_cache}' IS NOT NULL",
            [info.space_id],
        ),
    )
    return bool(rows)


def _asked(info: CollectionInfo, query: str, scope: str) -> dict[str, Any]:
    if not isinstance(scope, str):
        raise InvalidInput(
            f"scope is {scope!r}, but must be a text, such as the filter that was searched with"
        )
    checked_text("scope", scope)
    return {
        "collection": info.name,
        "query": query,
        "scope": scope,
        "space_id": info.space_id,
        "model": str(info.identity),
    }


def _texts(name: str, given: Iterable[str]) -> list[str]:
    found = [given] if isinstance(given, str) else list(given)
    if not all(isinstance(one, str) and one for one in found):
        raise InvalidInput(f"{name} is {found!r}, but must be the ids of documents")
    for one in found:
        checked_text(f"an id of {name}", one)
    return found


def _seconds(ttl: timedelta | float | None) -> timedelta | None:
    if ttl is None or isinstance(ttl, timedelta):
        made = ttl
    else:
        try:
            made = timedelta(seconds=float(ttl))
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"ttl is {ttl!r}, but must be seconds or a timedelta") from error
    if made is not None and made <= timedelta(0):
        raise InvalidInput(f"ttl is {ttl!r}, but must be above 0; leave it out to keep the answer")
    return made


def _check_number(value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= 1
    if value is not None and not number:
        raise InvalidInput(
            f"min_similarity is {value!r}, but must lie in -1..1; leave it out for the calibrated threshold"
        )
