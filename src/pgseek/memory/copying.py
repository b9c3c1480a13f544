"""What an index in memory takes over from a collection, page by page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from psycopg.sql import SQL, Literal

from pgseek import spaces
from pgseek.embedding import Embedding
from pgseek.errors import InvalidInput
from pgseek.memory.rows import Floats, Places, Postings, Row, Rows
from pgseek.steps import Script, fetch
from pgseek.types import CollectionInfo, SpaceInfo

PAGE = 1000
# Called with the rows that are there, and how many there will be.
Progress = Callable[[int, int], None]

# The page first, by the key alone, then look-ups for its rows: a join would be free to read the other
# tables from their beginning for every page (OFFSET 0 keeps them look-ups).
_PAGE = """
SELECT c.document_id, c.ordinal AS key, coalesce(c.of_ordinal, c.ordinal) AS ordinal, d.external_id AS id,
       c.kind, d.title,
       CASE c.kind WHEN 'document' THEN left(d.body, 2000) ELSE coalesce(o.text, c.text) END AS text,
       d.metadata, c.char_start, c.char_end, c.provenance,
       CASE WHEN c.section_start IS NOT NULL
            THEN substr(d.body, c.section_start + 1, c.section_end - c.section_start) END AS section,
       CASE WHEN c.of_ordinal IS NOT NULL THEN c.text END AS matched_text,
       c.terms::text AS terms, e.embedding, d.kept
  FROM (SELECT k.* FROM pgseek.chunks k
         WHERE k.collection_id = %(collection)s AND (k.document_id, k.ordinal) > (%(document)s, %(ordinal)s)
         ORDER BY k.document_id, k.ordinal LIMIT {rows}) AS c
  CROSS JOIN LATERAL (
      SELECT f.external_id, f.title, f.body, f.metadata,
             %(filter)s::jsonpath IS NULL OR coalesce(f.metadata @@ %(filter)s::jsonpath, false) AS kept
        FROM pgseek.documents f
       WHERE f.collection_id = %(collection)s AND f.document_id = c.document_id OFFSET 0) AS d
  LEFT JOIN LATERAL (
      SELECT t.text FROM pgseek.chunks t
       WHERE t.collection_id = %(collection)s AND t.document_id = c.document_id AND t.ordinal = c.of_ordinal
      OFFSET 0) AS o ON true
  LEFT JOIN LATERAL (
      SELECT v.embedding FROM {table} v
       WHERE v.collection_id = %(collection)s AND v.document_id = c.document_id AND v.ordinal = c.ordinal
      OFFSET 0) AS e ON true
 ORDER BY c.document_id, c.ordinal
"""


class Copied(Protocol):
    """What is taken into memory: a `Collection`."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def _client(self) -> Any: ...

    def info(self) -> CollectionInfo:
        """Return it as it stands now."""
        ...

    def _embedding(self, info: CollectionInfo) -> Embedding: ...


def copy(
    info: CollectionInfo,
    space: SpaceInfo,
    filter: str | None,  # noqa: A002 (the field's word)
    progress: Progress | None,
) -> Script[tuple[Rows, Postings]]:
    """Return the rows and postings of a collection, with the vectors of one of its spaces."""
    statement = SQL(_PAGE).format(table=spaces.table_of(space.space_id), rows=Literal(PAGE))
    rows: list[tuple[Row, Floats | None]] = []
    dimensions: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    weights: list[Floats] = []
    last: tuple[UUID, int] = (UUID(int=0), -1)
    while True:
        page = yield from fetch(
            statement,
            {
                "collection": info.collection_id,
                "document": last[0],
                "ordinal": last[1],
                "filter": filter,
            },
        )
        for one in page:
            values = dict(one)
            if not values.pop("kept"):
                continue
            embedding = values.pop("embedding")
            of_terms = _sparse(values.pop("terms"))
            dimensions.append(of_terms[0])
            weights.append(of_terms[1])
            rows.append((Row(**values), None if embedding is None else spaces.numbers(embedding)))
        if len(page) < PAGE:
            break
        last = (page[-1]["document_id"], page[-1]["key"])
        if progress is not None:
            progress(len(rows), max(len(rows), info.chunks or 0))
    if progress is not None:
        progress(len(rows), len(rows))
    made = Rows.of(rows, space.identity.dimensions)
    return made, _postings(dimensions, weights)


def matching(info: CollectionInfo, filter: str) -> Script[set[UUID]]:  # noqa: A002
    """Return the documents that a filter keeps, as the database decides it."""
    found = yield from fetch(
        "SELECT d.document_id FROM pgseek.documents d"
        " WHERE d.collection_id = %s AND d.metadata @@ %s::jsonpath",
        [info.collection_id, filter],
    )
    return {row["document_id"] for row in found}


def auto_alpha(alpha: float, kind: str, provider: str) -> Script[float]:
    """Return the weight of the dense leg for a kind of query, with fusion 'auto'."""
    (row,) = yield from fetch(
        "SELECT pgseek.auto_alpha(%s::float8, %s::text, %s::text) AS alpha", [alpha, kind, provider]
    )
    return float(row["alpha"])


def chosen_space(info: CollectionInfo, space: int | str | None) -> Script[SpaceInfo]:
    """Return the space whose vectors are taken: the active one, or another that is complete."""
    if space is None:
        return info.space
    found = yield from spaces.find(info, space)
    if found.state not in {"active", "ready"}:
        raise InvalidInput(
            f"space {found.space_id} of collection {info.name!r} is {found.state}, but must be active or"
            " ready"
        )
    return found


def _sparse(text: str) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Floats]:
    """Return dimensions and weights of a sparsevec as PostgreSQL writes it: {3:0.5,7:1}/1000000000."""
    inner = text[1 : text.index("}")]
    if not inner:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    parts = inner.replace(":", ",").split(",")
    return np.array(parts[::2], dtype=np.int64), np.array(parts[1::2], dtype=np.float32)


def _postings(
    dimensions: Sequence[np.ndarray[Any, np.dtype[np.int64]]], weights: Sequence[Floats]
) -> Postings:
    if not dimensions:
        return {}
    every = np.concatenate(dimensions)
    values = np.concatenate(weights)
    places: Places = np.repeat(np.arange(len(dimensions)), [len(one) for one in dimensions])
    order = np.argsort(every, kind="stable")
    every, values, places = every[order], values[order], places[order]
    starts = np.flatnonzero(np.r_[True, every[1:] != every[:-1]]) if len(every) else np.empty(0, dtype=int)
    ends = np.r_[starts[1:], len(every)]
    return {
        int(every[start]): (places[start:end], values[start:end])
        for start, end in zip(starts, ends, strict=False)
    }
