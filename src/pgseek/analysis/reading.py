"""A collection's vectors, read page by page: never all of them at once.

Pages go by the key of the space's table, which begins with a hash of the document's id: the first n rows are
a sample that chance alone has made, and always the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import numpy as np
from psycopg import sql
from psycopg.sql import SQL, Composed

from pgseek import similarity, spaces
from pgseek.analysis.collection import Progress
from pgseek.errors import InvalidInput
from pgseek.filters import Filter, to_jsonpath
from pgseek.steps import Script, fetch, fetch_one
from pgseek.types import CollectionInfo, SpaceInfo

Floats = np.ndarray[Any, np.dtype[np.float32]]
By = Literal["document", "chunk"]
BYS: tuple[By, ...] = ("document", "chunk")
# Rows of a page; of wide vectors fewer, so that a page stays below some 16 MB.
PAGE = 2000
PAGE_NUMBERS = 4_000_000

# The page first, by the key alone, then a look-up for each of its rows: a join would be free to read the
# other table from its beginning for every page. What is not wanted comes without its vector.
_PAGE = """
SELECT p.document_id, p.ordinal,
       CASE WHEN {kept} THEN {vector}.vector_send(p.embedding::{vector}.vector) END AS embedding
  FROM (SELECT e.document_id, e.ordinal, e.embedding FROM {table} e
         WHERE e.collection_id = %(collection)s AND (e.document_id, e.ordinal) > (%(document)s, %(ordinal)s)
         ORDER BY e.document_id, e.ordinal LIMIT {rows}) AS p
 ORDER BY p.document_id, p.ordinal
"""
_IS_CHUNK = SQL(
    "(SELECT c.kind = 'chunk' FROM pgseek.chunks c WHERE c.collection_id = %(collection)s"
    " AND c.document_id = p.document_id AND c.ordinal = p.ordinal)"
)
_IS_KEPT = SQL(
    " AND (SELECT d.metadata @@ %(filter)s::jsonpath FROM pgseek.documents d"
    " WHERE d.collection_id = %(collection)s AND d.document_id = p.document_id)"
)
_COUNT = """
SELECT count(*) AS documents, count(*) FILTER (WHERE NOT EXISTS (
           SELECT FROM {table} e
            WHERE e.collection_id = d.collection_id AND e.document_id = d.document_id)) AS missing
  FROM pgseek.documents d WHERE d.collection_id = %(collection)s{filter}
"""
_ROWS = """
SELECT count(*) AS rows FROM {table} e
  JOIN pgseek.chunks c
    ON c.collection_id = e.collection_id AND c.document_id = e.document_id AND c.ordinal = e.ordinal
 WHERE e.collection_id = %(collection)s AND c.kind = 'chunk'{filter}
"""
_KEPT = SQL(
    " AND EXISTS (SELECT FROM pgseek.documents d WHERE d.collection_id = e.collection_id"
    " AND d.document_id = e.document_id AND d.metadata @@ %(filter)s::jsonpath)"
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which vectors are meant: of documents or chunks, of one space, as far as a filter keeps them.

    A document's vector is the mean of its chunks'. ``unit`` says whether each is brought to length 1 first,
    and the mean after.
    """

    info: CollectionInfo
    space: SpaceInfo
    by: By
    filter: str | None
    unit: bool
    # pgvector's.
    schema: str

    @property
    def parameters(self) -> dict[str, Any]:
        """What its statements are executed with."""
        return {"collection": self.info.collection_id, "filter": self.filter}

    def statement(self, text: str, kept: SQL = _KEPT) -> Composed:
        """Return a statement over the space's table, with the filter where there is one."""
        made = SQL(text)
        return made.format(
            table=spaces.table_of(self.space.space_id), filter=SQL("") if self.filter is None else kept
        )


@dataclass(frozen=True, slots=True)
class Counted:
    """``documents`` are selected, ``missing`` of them have no vector; ``units`` are clustered or compared."""

    documents: int
    missing: int
    units: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some vectors, float32 (n, d), and what they are of; ``ordinals`` is None where they are documents'."""

    documents: Sequence[UUID]
    ordinals: Sequence[int] | None
    vectors: Floats

    def __len__(self) -> int:
        return len(self.documents)


def select(
    info: CollectionInfo,
    *,
    by: By = "document",
    filter: Filter | None = None,  # noqa: A002 (the field's word)
    space: int | str | None = None,
    unit: bool | None = None,
) -> Script[Selection]:
    """Return a selection. Vectors are brought to length 1 where the space's metric goes by direction.

    Raises:
        InvalidInput: there is no such space, or it has no vectors any more; an unknown ``by``.
    """
    if by not in BYS:
        raise InvalidInput(f"by is {by!r}, but must be one of {', '.join(BYS)}")
    chosen = yield from spaces.with_vectors(info, space)
    turned = chosen.metric in {"cosine", "inner_product"} if unit is None else unit
    schema = yield from spaces.vector_schema()
    return Selection(info, chosen, by, to_jsonpath(filter), turned, schema)


def count(selection: Selection) -> Script[Counted]:
    """Return how much there is.

    Raises:
        InvalidInput: there is no document, none that the filter keeps, or none with a vector.
    """
    name = selection.info.name
    of_documents = SQL(" AND d.metadata @@ %(filter)s::jsonpath")
    row = yield from fetch_one(selection.statement(_COUNT, of_documents), selection.parameters)
    documents, missing = (row["documents"], row["missing"]) if row else (0, 0)
    if not documents and selection.filter is not None:
        raise InvalidInput(f"no document of collection {name!r} meets the filter {selection.filter}")
    if not documents:
        raise InvalidInput(
            f"collection {name!r} holds no documents; store some first: pgseek ingest {name} FILE"
        )
    if documents == missing:
        raise InvalidInput(
            f"none of the {documents:,} documents of collection {name!r} has a vector in space "
            f"{selection.space.space_id} yet; have them embedded: pgseek queue drain {name}"
        )
    units = documents - missing
    if selection.by == "chunk":
        row = yield from fetch_one(selection.statement(_ROWS), selection.parameters)
        units = row["rows"] if row else 0
    return Counted(documents, missing, units)


class Reader:
    """Reads a selection's vectors from the first to the last, a page at a time."""

    def __init__(self, selection: Selection, rows: int = PAGE) -> None:
        self._selection = selection
        self._rows = max(1, min(rows, PAGE_NUMBERS // selection.space.identity.dimensions))
        # The number of rows is written out: a plan for any number of them might sort the whole table.
        self._statement = SQL(_PAGE).format(
            table=spaces.table_of(selection.space.space_id),
            kept=_IS_CHUNK if selection.filter is None else _IS_CHUNK + _IS_KEPT,
            rows=sql.Literal(self._rows),
            vector=sql.Identifier(selection.schema),
        )
        self._last: tuple[UUID, int] = (UUID(int=0), -1)
        self._done = False
        # Chunks of the document that the page before ended in.
        self._open: list[tuple[UUID, Floats]] = []

    def next(self) -> Script[Page | None]:
        """Return the next page, None after the last."""
        while not self._done:
            rows = yield from fetch(
                self._statement,
                {
                    **self._selection.parameters,
                    "document": self._last[0],
                    "ordinal": self._last[1],
                },
            )
            self._done = len(rows) < self._rows
            if rows:
                self._last = (rows[-1]["document_id"], rows[-1]["ordinal"])
            rows = [row for row in rows if row["embedding"] is not None]
            vectors = [_sent(row["embedding"]) for row in rows]
            if self._selection.unit:
                vectors = list(similarity.normalize(np.stack(vectors)).astype(np.float32)) if vectors else []
            page = (
                _chunks(rows, vectors)
                if self._selection.by == "chunk"
                else self._documents([row["document_id"] for row in rows], vectors)
            )
            if page is not None:
                return page
        return None

    def _documents(self, ids: Sequence[UUID], vectors: Sequence[Floats]) -> Page | None:
        """Return the means of the documents that are complete; the last may go on in the next page."""
        pairs = [*self._open, *zip(ids, vectors, strict=True)]
        unfinished = None if self._done or not pairs else pairs[-1][0]
        self._open = [pair for pair in pairs if pair[0] == unfinished]
        grouped: dict[UUID, list[Floats]] = {}
        for document, vector in pairs:
            if document != unfinished:
                grouped.setdefault(document, []).append(vector)
        if not grouped:
            return None
        means = np.stack([np.mean(one, axis=0) for one in grouped.values()])
        if self._selection.unit:
            means = similarity.normalize(means)
        return Page(list(grouped), None, means.astype(np.float32))


def sampled(selection: Selection, most: int, progress: Progress | None = None) -> Script[Page]:
    """Return the vectors of at most ``most`` units: the first ones, in an order that chance has made."""
    reader = Reader(selection, min(PAGE, most))
    pages: list[Page] = []
    held = 0
    while held < most and (page := (yield from reader.next())) is not None:
        pages.append(page)
        held += len(page)
        if progress is not None:
            progress("reading a sample", min(held, most), most)
    documents = [one for page in pages for one in page.documents][:most]
    ordinals = None
    if selection.by == "chunk":
        ordinals = [one for page in pages for one in page.ordinals or ()][:most]
    empty = np.empty((0, selection.space.identity.dimensions), dtype=np.float32)
    return Page(documents, ordinals, np.vstack([empty, *(page.vectors for page in pages)])[:most])


def of_documents(selection: Selection, documents: Sequence[UUID]) -> Script[dict[UUID, Floats]]:
    """Return the vectors of some documents, of those that have one."""
    rows = yield from fetch(
        SQL(
            "SELECT e.document_id, e.embedding FROM {} e JOIN pgseek.chunks c"
            " ON c.collection_id = e.collection_id AND c.document_id = e.document_id"
            " AND c.ordinal = e.ordinal"
            " WHERE e.collection_id = %s AND e.document_id = ANY (%s) AND c.kind = 'chunk'"
            " ORDER BY e.document_id, e.ordinal"
        ).format(spaces.table_of(selection.space.space_id)),
        [selection.info.collection_id, list(documents)],
    )
    grouped: dict[UUID, list[Floats]] = {}
    for row in rows:
        grouped.setdefault(row["document_id"], []).append(spaces.numbers(row["embedding"]))
    return {document: _mean(vectors, unit=selection.unit) for document, vectors in grouped.items()}


def _mean(vectors: Sequence[Floats], *, unit: bool) -> Floats:
    given = similarity.normalize(np.stack(vectors)) if unit else np.stack(vectors)
    mean = given.mean(axis=0)
    return (similarity.normalize(mean) if unit else mean).astype(np.float32)


def _chunks(rows: Sequence[Any], vectors: Sequence[Floats]) -> Page | None:
    if not rows:
        return None
    return Page([row["document_id"] for row in rows], [row["ordinal"] for row in rows], np.stack(vectors))


def _sent(value: bytes) -> Floats:
    """Return the numbers of a vector as pgvector sends it in binary: reading its text takes far longer."""
    return np.frombuffer(value, dtype=">f4", offset=4).astype(np.float32)
