"""Documents as callers give them, checked and hashed: what is stored, or why it is not."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from pgseek.chunking import check_format
from pgseek.collections import Languages
from pgseek.errors import InvalidInput
from pgseek.filters.literals import digits, iso
from pgseek.types import DOCUMENT_FIELDS, Document, Located, Rejection

Source = Document | Mapping[str, Any] | Located | Rejection
# Called with each document that is refused, and the record it came from if there is one.
Reject = Callable[[Rejection, object], None]
BATCH_SIZE = 500
MAX_BATCH = 10_000
# A batch ends early at this many characters, so that long documents do not add up in memory.
BATCH_CHARACTERS = 8_000_000
# pgseek.put_documents has the same bounds.
MAX_TITLE = 10_000
MAX_TEXT_BYTES = 8_000_000
MAX_METADATA_BYTES = 262_144
MAX_METADATA_DEPTH = 4
# ASCII characters without a space between them: data in base64, not words.
MAX_WORD = 50_000
_LONG_WORD = re.compile(rf"[!-~]{{{MAX_WORD}}}")
_KNOWN = frozenset(DOCUMENT_FIELDS)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
# A decimal, while the rest is written: a text that no metadata may hold.
_DECIMAL = re.compile(r'"\\u0000([^"]*)"')


class Prepared(NamedTuple):
    """A checked document: ``metadata`` as JSON text, hashes as stored.

    (A named tuple: of all immutable things it is made fastest, and there are millions.)
    """

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
    return _hash_of(title.encode(), body.encode(), language.encode(), format.encode())


def _hash_of(title: bytes, body: bytes, language: bytes, written_in: bytes) -> bytes:
    sha256 = hashlib.sha256
    parts = [sha256(title).digest(), sha256(body).digest(), sha256(language).digest()]
    if written_in:
        parts.append(sha256(written_in).digest())
    return sha256(b"".join(parts)).digest()


def check_batch_size(value: object) -> None:
    """Raise `InvalidInput` unless so many documents may be taken together."""
    if not isinstance(value, int) or not 1 <= value <= MAX_BATCH:
        raise InvalidInput(f"batch_size is {value!r}, but must be from 1 to {MAX_BATCH:,}")


class Supply:
    """Documents of a source, checked, in batches; the bad ones, and ids seen before, are refused.

    ``seen`` holds the document ids of the good ones and ``refused`` those of the bad, as 16 bytes each;
    ``nameless`` counts the bad ones that have no id.
    """

    def __init__(
        self, documents: Iterable[Source], language: str, known: Languages, size: int, reject: Reject
    ) -> None:
        self._documents = documents
        self._language = language
        self._known = known
        self._size = size
        self._reject = reject
        self.seen: set[bytes] = set()
        self.refused: set[bytes] = set()
        self.read = 0
        self.nameless = 0

    def __iter__(self) -> Iterator[list[Prepared]]:
        batch: list[Prepared] = []
        characters = refused = 0
        try:
            for position, item in enumerate(self._documents, 1):
                self.read = position
                outcome = self._checked(item, position)
                if isinstance(outcome, Prepared):
                    batch.append(outcome)
                    characters += len(outcome.body) + len(outcome.metadata)
                else:
                    refused += 1
                    self._reject(outcome, item.record if isinstance(item, Located) else item)
                if len(batch) == self._size or characters > BATCH_CHARACTERS or refused == self._size:
                    yield batch
                    batch, characters, refused = [], 0, 0
        except Exception:
            # The source's own error: what it gave before is stored all the same.
            if batch:
                yield batch
            raise
        if batch or refused:
            yield batch

    def _checked(self, item: Source, position: int) -> Prepared | Rejection:
        outcome = prepare(item, position, self._language, self._known)
        if isinstance(outcome, Prepared):
            key = outcome.document_id.bytes
            if key not in self.seen:
                self.seen.add(key)
                return outcome
            reason = "the id occurred before in this ingest; the first is kept"
            return Rejection(outcome.position, outcome.external_id, reason, outcome.source)
        try:
            if outcome.id:
                self.refused.add(document_id(outcome.id).bytes)
                return outcome
        except UnicodeEncodeError:
            pass
        self.nameless += 1
        return outcome


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
        key = checked_text("id", document.id)
        body = checked_text("text", document.text)
        title = checked_text("title", document.title)
        written_in = checked_text("format", document.format)
        if not key:
            raise InvalidInput("the id is empty")
        if len(document.title) > MAX_TITLE:
            raise InvalidInput(
                f"the title has {len(document.title):,} characters, at most {MAX_TITLE:,} are allowed"
            )
        _check_body(document.text, body)
        check_format(document.format)
        metadata = metadata_json(document.metadata)
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
        _hash_of(title, body, language.encode(), written_in),
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
    unknown = sorted(str(key) for key in values.keys() - _KNOWN)
    if unknown:
        raise InvalidInput(f"the key {unknown[0]!r} is none of {', '.join(DOCUMENT_FIELDS)}")
    if values.get("id") is None:
        raise InvalidInput("the document has no id")
    if type(values["id"]) is int:
        try:
            values["id"] = str(values["id"])
        except ValueError as error:
            raise InvalidInput(f"the id is a number that cannot be written: {error}") from error
    # A field that is null is one that is not there; any other value must be of its type.
    if None in values.values():
        values = {name: value for name, value in values.items() if value is not None}
    return Document(text=values.pop("text", ""), **values)


def checked_text(name: str, value: object) -> bytes:
    """Return the UTF-8 of a text that PostgreSQL can store."""
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is a {type(value).__name__}, but must be text")
    if "\x00" in value:
        raise InvalidInput(f"{name} holds a NUL byte at character {value.index(chr(0))}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{name} holds a lone surrogate at character {error.start}") from error


def _check_body(text: str, encoded: bytes) -> None:
    if not text or text.isspace():
        raise InvalidInput("the document has no text")
    if len(encoded) > MAX_TEXT_BYTES:
        raise InvalidInput(
            f"the text has {len(encoded):,} bytes, at most {MAX_TEXT_BYTES:,} are allowed; divide it"
        )
    if len(text) >= MAX_WORD and (word := _LONG_WORD.search(text)):
        raise InvalidInput(
            f"the text has {MAX_WORD:,} characters without a space from character {word.start()} on: that is "
            "data, not words"
        )


def metadata_json(metadata: object) -> str:
    if not isinstance(metadata, Mapping):
        raise InvalidInput(f"metadata is a {type(metadata).__name__}, but must be a JSON object")
    if not metadata:
        return "{}"
    try:
        text = _written(metadata)
        # A depth that json can write, so one that can be walked.
        levels = _levels(metadata)
    except InvalidInput:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"metadata cannot be written as JSON: {error}") from error
    if levels > MAX_METADATA_DEPTH:
        raise InvalidInput(
            f"metadata is nested {levels} levels deep, at most {MAX_METADATA_DEPTH} are allowed"
        )
    encoded = checked_text("metadata", text)
    if len(encoded) > MAX_METADATA_BYTES:
        raise InvalidInput(
            f"metadata has {len(encoded):,} bytes as JSON, at most {MAX_METADATA_BYTES:,} are allowed"
        )
    # A NUL comes out as this escape; the same letters after an escaped backslash are plain text.
    if "\\u0000" in text and "\\u0000" in text.replace("\\\\", ""):
        raise InvalidInput("metadata holds a NUL byte")
    return text


def _written(metadata: Mapping[str, Any]) -> str:
    """Return metadata as JSON: a date as ISO 8601 text, a decimal as a number with its digits."""
    try:
        return _ENCODER.encode(dict(metadata))
    except TypeError:
        # Rare, so only now looked for.
        return _DECIMAL.sub(r"\1", _ENCODER.encode(_plain(metadata)))


def _plain(value: object) -> object:
    made = value
    match value:
        case str() if "\x00" in value:
            raise InvalidInput("metadata holds a NUL byte")
        case date() | Decimal():
            try:
                made = iso(value) if isinstance(value, date) else "\x00" + digits(value)
            except InvalidInput as error:
                raise InvalidInput(f"metadata cannot be stored: {error}") from error
        case Mapping():
            made = {_plain(key) if isinstance(key, str) else key: _plain(one) for key, one in value.items()}
        case list() | tuple():
            made = [_plain(one) for one in value]
    return made


def _levels(value: object) -> int:
    """Return how deep objects and arrays are nested: 1 for one that holds neither."""
    if isinstance(value, Mapping):
        return 1 + max(map(_levels, value.values()), default=0)
    if isinstance(value, list | tuple):
        return 1 + max(map(_levels, value), default=0)
    return 0
