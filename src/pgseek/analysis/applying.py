"""What is done with clusters that were found: telling where each document belongs, and writing it down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from pgseek.analysis import fields
from pgseek.analysis.clusters import Clustering
from pgseek.analysis.collection import Analysed, Progress
from pgseek.analysis.grouping import NOISE
from pgseek.analysis.reading import By, Reader
from pgseek.errors import InvalidInput
from pgseek.steps import Script, fetch, transact

Value = Literal["label", "number"]
VALUES: tuple[Value, ...] = ("label", "number")


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where a document or a chunk belongs: a cluster's number, -1 for noise, and how near it is to the
    centre (see `Representative`), None for noise."""

    id: str
    ordinal: int | None
    cluster: int
    closeness: float | None


@dataclass(frozen=True, slots=True)
class Written:
    """What writing clusters into the metadata did, or would do: documents that have another value of the
    field now, those that have lost it (noise), and those that stay as they are."""

    field: str
    changed: int
    cleared: int
    unchanged: int
    preview: bool


def assignments(collection: Analysed, found: Clustering) -> Iterator[Assignment]:
    """Yield where every document, or chunk, belongs: what is selected as it stands now, page by page."""
    run = collection._client._run
    reader = Reader(found.selection)
    while (page := run(reader.next())) is not None:
        labels = found.model.assign(page.vectors)
        closeness = found.model.closeness(page.vectors, labels)
        names = run(_names(found.selection.info.collection_id, page.documents))
        for place, document in enumerate(page.documents):
            if document in names:
                ordinal = None if page.ordinals is None else page.ordinals[place]
                label = int(labels[place])
                near = None if label == NOISE else float(closeness[place])
                yield Assignment(names[document], ordinal, label, near)


def _names(collection_id: int, documents: Sequence[UUID]) -> Script[dict[UUID, str]]:
    rows = yield from fetch(
        "SELECT document_id, external_id FROM pgseek.documents"
        " WHERE collection_id = %s AND document_id = ANY (%s)",
        [collection_id, list(set(documents))],
    )
    return {row["document_id"]: row["external_id"] for row in rows}


def write_clusters(
    collection: Analysed,
    found: Clustering,
    name: str,
    *,
    value: Value = "label",
    preview: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Write each document's cluster into its metadata, under the key ``name``, for filters and facets.

    What is written is the cluster's ``label``, or its number. Noise loses the key. As with any change of the
    metadata alone nothing is embedded, divided or indexed anew, but ``updated_at`` is now for the documents
    that change; those that have the value already are not touched. A page of documents is a transaction:
    broken off, it can be called again. Ingesting a document anew without the key takes it away. With
    ``preview`` nothing is written.

    Raises:
        InvalidInput: the clusters are of chunks, or ``name`` cannot be a key.
        DatabaseError.
    """
    check_write(found.by, name, value)
    values: dict[int, Any] = {
        one.number: one.label if value == "label" else one.number for one in found.clusters
    }
    script = _write(found, name, values, preview, progress)
    return collection._client._run(script)  # type: ignore[no-any-return]


def check_write(by: By, name: str, value: object = "label") -> None:
    """Raise `InvalidInput` unless clusters of these units can be written under this key."""
    if by != "document":
        raise InvalidInput(
            f"the clusters are of {by}s, but metadata is the documents': cluster with "
            "by='document' to write them"
        )
    if not isinstance(name, str) or not name or "." in name or "\x00" in name or len(name) > 255:
        raise InvalidInput(
            f"the field is {name!r}, but must be the name of a key of the metadata, without a dot, "
            "such as 'topic'"
        )
    if value not in VALUES:
        raise InvalidInput(f"value is {value!r}, but must be one of {', '.join(VALUES)}")


def _write(
    found: Clustering, name: str, values: Mapping[int, Any], preview: bool, progress: Progress | None
) -> Script[Written]:
    selection, reader = found.selection, Reader(found.selection)
    changed = cleared = unchanged = 0
    while (page := (yield from reader.next())) is not None:
        labels = found.model.assign(page.vectors).tolist()
        wanted = {
            document: None if one == NOISE else values[one]
            for document, one in zip(page.documents, labels, strict=True)
        }
        of = selection.info.collection_id
        rows = yield from (
            fields.differing(of, name, wanted) if preview else transact(fields.setting(of, name, wanted))
        )
        gone = sum(row["cleared"] for row in rows)
        changed, cleared = changed + len(rows) - gone, cleared + gone
        unchanged += len(page) - len(rows)
        if progress is not None:
            done = changed + cleared + unchanged
            progress("comparing" if preview else "writing", done, max(done, found.units))
    return Written(name, changed, cleared, unchanged, preview)
