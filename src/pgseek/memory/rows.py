"""What an index in memory holds: rows in the order of their keys, vectors, and postings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np

from pgseek.types import Kind

Floats = np.ndarray[Any, np.dtype[np.float32]]
Places = np.ndarray[Any, np.dtype[np.int64]]
# By dimension: the places of rows, ascending, and what the dimension weighs in each.
Postings = Mapping[int, tuple[Places, Floats]]


@dataclass(frozen=True, slots=True)
class Row:
    """A searchable row: what a hit shows of it. ``key`` is its own ordinal, ``ordinal`` that of its chunk."""

    document_id: UUID
    key: int
    id: str
    ordinal: int
    kind: Kind
    title: str
    text: str
    metadata: Mapping[str, Any]
    char_start: int
    char_end: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    section: str | None = None
    matched_text: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in the order of (document_id, key), so that a row's place decides ties as SQL's order does.

    ``vectors`` is float32 (n, d), NaN where a row has none.
    """

    rows: tuple[Row, ...]
    vectors: Floats
    documents: tuple[UUID, ...]

    @classmethod
    def of(cls, rows: Iterable[tuple[Row, Floats | None]], dimensions: int) -> Rows:
        """Return rows in order, with their vectors."""
        found = sorted(rows, key=lambda one: (one[0].document_id, one[0].key))
        vectors = np.full((len(found), dimensions), np.nan, dtype=np.float32)
        for place, (_, vector) in enumerate(found):
            if vector is not None:
                vectors[place] = vector
        ordered = tuple(row for row, _ in found)
        return cls(ordered, vectors, tuple(dict.fromkeys(row.document_id for row in ordered)))

    def without(self, documents: set[UUID]) -> tuple[Rows, Places]:
        """Return the rows of other documents, and the places they had."""
        kept = np.array(
            [place for place, row in enumerate(self.rows) if row.document_id not in documents], dtype=np.int64
        )
        rows = tuple(self.rows[place] for place in kept)
        documents_left = tuple(one for one in self.documents if one not in documents)
        return Rows(rows, self.vectors[kept], documents_left), kept

    def with_vectors(self) -> Iterator[tuple[Row, Floats | None]]:
        """Yield each row with its vector, None where it has none."""
        for row, vector in zip(self.rows, self.vectors, strict=True):
            yield row, None if np.isnan(vector[0]) else vector


def postings_of(weights: Sequence[Mapping[int, float]]) -> Postings:
    """Return the postings of rows whose weights by dimension are given in order."""
    places: dict[int, list[int]] = {}
    values: dict[int, list[float]] = {}
    for place, row in enumerate(weights):
        for dimension, weight in row.items():
            places.setdefault(dimension, []).append(place)
            values.setdefault(dimension, []).append(weight)
    return {
        dimension: (np.array(found, dtype=np.int64), np.array(values[dimension], dtype=np.float32))
        for dimension, found in places.items()
    }


def kept_postings(postings: Postings, kept: Places, rows: int) -> Postings:
    """Return the postings of the rows that are kept, which had these places among ``rows``."""
    now = np.full(rows, -1, dtype=np.int64)
    now[kept] = np.arange(len(kept))
    found = {}
    for dimension, (places, weights) in postings.items():
        inside = now[places] >= 0
        if inside.any():
            found[dimension] = (now[places[inside]], weights[inside])
    return found
