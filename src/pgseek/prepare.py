"""Documents as callers give them, checked and hashed: what is stored, or why it is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pgseek.collections import Languages
from pgseek.errors import InvalidInput
from pgseek.types import Document, Located, Rejection

Source = Document | Mapping[str, Any] | Located | Rejection
FIELDS = ("id", "text", "title", "metadata", "language", "format")
BATCH_SIZE = 500
# A batch ends early at this many characters, so that long documents do not add up in memory.
BATCH_CHARACTERS = 8_000_000
MAX_TITLE = 10_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked document: ``metadata`` as JSON text, hashes as stored."""

    position: int
    source: str | None
    document_id: UUID
    external_id: str
    title: str
    body: str
    language: str
    metadata: str
    content_hash: bytes
    format: str = ""


def document_id(external_id: str) -> UUID:
    """Return the version 8 UUID of an external id; the SQL function of the same name agrees."""
    digest = bytearray(hashlib.sha256(external_id.encode()).digest()[:16])
    digest[6] = digest[6] & 15 | 128
    digest[8] = digest[8] & 63 | 128
    return UUID(bytes=bytes(digest))


def content_hash(title: str, body: str, language: str, format: str = "") -> bytes:  # noqa: A002
    """Return the 32 bytes that answer "embed again?"; the SQL function of the same name agrees."""
    parts = (title, body, language, format) if format else (title, body, language)
    return hashlib.sha256(b"".join(hashlib.sha256(p.encode()).digest() for p in parts)).digest()


def batches(
    documents: Iterable[Source],
    language: str,
    known: Languages,
    size: int,
    rejected: list[Rejection],
) -> Iterator[list[Prepared]]:
    """Yield checked documents in batches; the bad ones, and ids seen before, go to ``rejected``."""
    batch: list[Prepared] = []
    characters = 0
    seen: set[bytes] = set()
    try:
        for position, item in enumerate(documents, 1):
            outcome = prepare(item, position, language, known)
            if isinstance(outcome, Prepared):
                # Twelve of the id's bytes tell more documents apart than there can be.
                key = outcome.document_id.bytes[:6] + outcome.document_id.bytes[-6:]
                if key in seen:
                    outcome = Rejection(
                        outcome.position,
                        outcome.external_id,
                        "the id occurred before in this ingest; the first is kept",
                        outcome.source,
                    )
                else:
                    seen.add(key)
                    batch.append(outcome)
                    characters += len(outcome.body) + len(outcome.metadata)
            if isinstance(outcome, Rejection):
                rejected.append(outcome)
            if len(batch) == size or characters > BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    except Exception:
        # The source's own error: what it gave before is stored all the same.
        if batch:
            yield batch
        raise
    if batch or rejected:
        yield batch


def prepare(item: Source, position: int, language: str, known: Languages) -> Prepared | Rejection:
    """Check one document and return what to store, or why not."""
    if isinstance(item, Rejection):
        return item
    source: str | None = None
    given: object = item
    if isinstance(item, Located):
        given, position, source = item.record, item.position, item.source
    external_id: str | None = None
    try:
        document = given if isinstance(given, Document) else document_from(given)
        external_id = document.id if isinstance(document.id, str) else None
        for name, value in (
            ("id", document.id),
            ("text", document.text),
            ("title", document.title),
            ("format", document.format),
        ):
            _check_text(name, value)
        if not document.id:
            raise InvalidInput("the id is empty")
        if len(document.title) > MAX_TITLE:
            raise InvalidInput(
                f"the title has {len(document.title):,} characters, at most {MAX_TITLE:,} are allowed"
            )
        if not document.text.strip():
            raise InvalidInput("the document has no text")
        metadata = _metadata_json(document.metadata)
        language = known.canonical(document.language or language)
    except InvalidInput as error:
        return Rejection(position, external_id, str(error), source)
    return Prepared(
        position,
        source,
        document_id(document.id),
        document.id,
        document.title,
        document.text,
        language,
        metadata,
        content_hash(document.title, document.text, language, document.format),
        document.format,
    )


def document_from(item: object) -> Document:
    """Return the document of a mapping with the keys id (or _id), text, title, metadata, language, format.

    Raises:
        InvalidInput: not a mapping, no id, or a key that is none of these.
    """
    if not isinstance(item, Mapping):
        raise InvalidInput(f"a document is a Document or a mapping, not a {type(item).__name__}")
    values = dict(item)
    if "_id" in values:
        values["id"] = values.pop("_id")
    unknown = sorted(str(key) for key in set(values) - set(FIELDS))
    if unknown:
        raise InvalidInput(f"the key {unknown[0]!r} is none of {', '.join(FIELDS)}")
    if values.get("id") is None:
        raise InvalidInput("the document has no id")
    if type(values["id"]) is int:
        try:
            values["id"] = str(values["id"])
        except ValueError as error:
            raise InvalidInput(f"the id is a number that cannot be written: {error}") from error
    # A field that is null is one that is not there; any other value must be of its type.
    given = {name: value for name, value in values.items() if value is not None}
    return Document(text=given.pop("text", ""), **given)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is a {type(value).__name__}, but must be text")
    if "\x00" in value:
        raise InvalidInput(f"{name} holds a NUL byte at character {value.index(chr(0))}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{name} holds a lone surrogate at character {error.start}") from error


def _metadata_json(metadata: object) -> str:
    if not isinstance(metadata, Mapping):
        raise InvalidInput(f"metadata is a {type(metadata).__name__}, but must be a JSON object")
    try:
        text = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"metadata cannot be written as JSON: {error}") from error
    _check_text("metadata", text)
    # A NUL comes out as this escape; the same letters after an escaped backslash are plain text.
    if "\\u0000" in text.replace("\\\\", ""):
        raise InvalidInput("metadata holds a NUL byte")
    return text
