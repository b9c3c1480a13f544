"""Single documents: reading, deleting and counting them."""

from __future__ import annotations

from collections.abc import Iterable

from pgseek.errors import CollectionNotFound, InvalidInput
from pgseek.prepare import document_id
from pgseek.steps import Script, fetch_one, transact
from pgseek.syncing import delete_by_id
from pgseek.types import CollectionInfo, Document


def get(info: CollectionInfo, external_id: str) -> Script[Document | None]:
    """Return a document by its external id, None if there is no such document.

    Raises:
        CollectionNotFound.
    """
    row = yield from fetch_one(
        "SELECT d.external_id AS id, d.body AS text, d.title, d.metadata, d.language, d.format"
        " FROM pgseek.collections c LEFT JOIN pgseek.documents d"
        " ON d.collection_id = c.collection_id AND d.document_id = %s WHERE c.collection_id = %s",
        [document_id(_checked(external_id)), info.collection_id],
    )
    if row is None:
        raise _dropped(info)
    return Document(**row) if row["id"] is not None else None


def delete(info: CollectionInfo, external_ids: str | Iterable[str]) -> Script[int]:
    """Delete documents with their chunks, embeddings and queue entries; return how many existed.

    Raises:
        InvalidInput, CollectionNotFound.
    """
    if not isinstance(external_ids, Iterable):
        raise InvalidInput(f"ids is {external_ids!r}, but must be a document's id or several of them")
    given = [external_ids] if isinstance(external_ids, str) else list(external_ids)
    ids = sorted({document_id(_checked(one)) for one in given})

    return (yield from transact(lambda: delete_by_id(info, ids)))


def count(info: CollectionInfo) -> Script[int]:
    """Return the number of documents.

    Raises:
        CollectionNotFound.
    """
    row = yield from fetch_one(
        "SELECT (SELECT count(*) FROM pgseek.documents d WHERE d.collection_id = c.collection_id)"
        " AS documents FROM pgseek.collections c WHERE c.collection_id = %s",
        [info.collection_id],
    )
    if row is None:
        raise _dropped(info)
    return int(row["documents"])


def _dropped(info: CollectionInfo) -> CollectionNotFound:
    return CollectionNotFound(f"collection {info.name!r} was dropped in the meantime")


def _checked(external_id: object) -> str:
    if not isinstance(external_id, str) or not external_id:
        raise InvalidInput(f"a document's id is {external_id!r}, but must be a text that is not empty")
    try:
        external_id.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the id {external_id!r} holds a lone surrogate") from error
    return external_id
