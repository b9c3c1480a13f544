"""Ingest: check, compare by hash, embed what changed, write each batch in one transaction.

The path of a batch: `prepare` every document (or reject it) → `_compare` with what is stored →
chunk and embed only new and changed content (`embed_chunks`, through the cache, outside of any
transaction) → `_write` documents, chunks and embeddings together. A kill between two batches
leaves whole documents only; running it again finds the written ones unchanged.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from pgvector import HalfVector
from psycopg.sql import SQL, Identifier

from pgseek.chunking import chunk_text
from pgseek.collections import Languages, ensure_index, languages
from pgseek.embedders.base import Embedder, Vectors, usable
from pgseek.errors import CollectionNotFound, DatabaseError, InvalidInput
from pgseek.steps import Script, copy_in, embed_documents, fetch, fetch_one, transact
from pgseek.types import Chunk, CollectionInfo, Document, IngestReport, Located, Rejection

Progress = Callable[[IngestReport], None]
Source = Document | Mapping[str, Any] | Located | Rejection
BATCH_SIZE = 500
# A batch ends early at this many characters, so that long documents do not add up in memory.
BATCH_CHARACTERS = 8_000_000
MAX_TITLE = 10_000
# Up to this many chunks an ingest may rewrite them all to weigh them anew.
REWEIGH_UP_TO = 50_000
# The planner's statistics are gathered anew after an ingest that wrote this many chunks.
ANALYZE_FROM = 1000


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


@dataclass(frozen=True, slots=True)
class EmbeddedChunk:
    """A chunk with its vector, float32 (d,), and the hash of the text that was embedded."""

    chunk: Chunk
    text_hash: bytes
    vector: Vectors


@dataclass(slots=True)
class Tally:
    """The running counts of one ingest."""

    new: int = 0
    changed: int = 0
    metadata_changed: int = 0
    unchanged: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    chunks: int = 0
    embedded: int = 0
    cached: int = 0
    started: float = field(default_factory=time.perf_counter)

    def report(self) -> IngestReport:
        return IngestReport(
            self.new,
            self.changed,
            self.metadata_changed,
            self.unchanged,
            tuple(self.rejected),
            self.chunks,
            self.embedded,
            self.cached,
            time.perf_counter() - self.started,
        )


def document_id(external_id: str) -> UUID:
    """Return the version 8 UUID of an external id; the SQL function of the same name agrees."""
    digest = bytearray(hashlib.sha256(external_id.encode()).digest()[:16])
    digest[6] = digest[6] & 15 | 128
    digest[8] = digest[8] & 63 | 128
    return UUID(bytes=bytes(digest))


def content_hash(title: str, body: str, language: str) -> bytes:
    """Return the 32 bytes that answer "embed again?"; the SQL function of the same name agrees."""
    parts = (title, body, language)
    return hashlib.sha256(b"".join(hashlib.sha256(p.encode()).digest() for p in parts)).digest()


def embedding_text(title: str, chunk: str) -> str:
    """Return what is embedded for a chunk: its document's title, then its own text."""
    return f"{title}\n\n{chunk}" if title else chunk


def ingest(
    info: CollectionInfo,
    embedder: Embedder,
    documents: Iterable[Source],
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Script[IngestReport]:
    """Store documents, batch by batch; a source's own rejections pass through into the report."""
    if not isinstance(batch_size, int) or not 1 <= batch_size <= 10_000:
        raise InvalidInput(f"batch_size is {batch_size!r}, but must be from 1 to 10,000")
    if isinstance(documents, str | bytes | Mapping | Document):
        raise InvalidInput(
            f"ingest takes a list or other iterable of documents, not one {type(documents).__name__}"
        )
    tally = Tally()
    known = yield from languages()
    for batch in _batches(documents, info.language, known, batch_size, tally.rejected):
        yield from _ingest_batch(info, embedder, batch, tally)
        if progress is not None:
            progress(tally.report())
    yield from settle(info, tally.chunks)
    return tally.report()


def settle(info: CollectionInfo, written: int) -> Script[None]:
    """After writing ``written`` chunks: statistics, the index if it is due, and the planner's view."""
    # Asked of the catalogue, not of this run: an earlier one may have been killed before it came here.
    yield from keep_statistics(info)
    yield from ensure_index(info)
    state = yield from fetch_one(
        "SELECT count(*) > 0 AS never FROM pg_class WHERE oid = ANY (ARRAY[to_regclass('pgseek.chunks'),"
        " to_regclass(%s)]::oid[]) AND reltuples < 0",
        [f"pgseek.embeddings_{info.space_id}"],
    )
    if written >= ANALYZE_FROM or (state is not None and state["never"]):
        tables = ("documents", "chunks", f"embeddings_{info.space_id}")
        names = SQL(", ").join(Identifier("pgseek", table) for table in tables)
        # A user who does not own the tables gets a warning from the server, not an error.
        yield from fetch(SQL("ANALYZE {}").format(names))


def keep_statistics(info: CollectionInfo) -> Script[None]:
    """Refresh BM25's statistics once the collection has grown or shrunk by a tenth since the last time.

    A collection of moderate size whose average length has moved by a tenth is weighed anew, too.
    """
    row = yield from fetch_one(
        "SELECT s.chunks AS then, (SELECT count(*) FROM pgseek.chunks c"
        " WHERE c.collection_id = s.collection_id) AS now"
        " FROM pgseek.collection_statistics s WHERE s.collection_id = %s",
        [info.collection_id],
    )
    if row is None or abs(row["now"] - row["then"]) * 10 < row["then"] or row["now"] == row["then"]:
        return
    refreshed = yield from fetch_one("SELECT drift FROM pgseek.refresh_statistics(%s)", [info.name])
    drift = refreshed["drift"] if refreshed else None
    if drift is not None and not 0.9 <= drift <= 1.1 and row["now"] <= REWEIGH_UP_TO:
        yield from fetch("SELECT pgseek.reweigh(%s)", [info.name])


def _batches(
    documents: Iterable[Source],
    language: str,
    known: Languages,
    size: int,
    rejected: list[Rejection],
) -> Iterator[list[Prepared]]:
    batch: list[Prepared] = []
    characters = 0
    seen: set[bytes] = set()
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
        content_hash(document.title, document.text, language),
    )


def document_from(item: object) -> Document:
    """Return the document of a mapping with the keys id (or _id), text, title, metadata, language.

    Raises:
        InvalidInput: not a mapping, no id, or a key that is none of these.
    """
    if not isinstance(item, Mapping):
        raise InvalidInput(f"a document is a Document or a mapping, not a {type(item).__name__}")
    values = dict(item)
    if "_id" in values:
        values["id"] = values.pop("_id")
    unknown = sorted(str(key) for key in set(values) - {"id", "text", "title", "metadata", "language"})
    if unknown:
        raise InvalidInput(f"the key {unknown[0]!r} is none of id, text, title, metadata, language")
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


def _ingest_batch(
    info: CollectionInfo, embedder: Embedder, batch: Sequence[Prepared], tally: Tally
) -> Script[None]:
    if not batch:
        return
    stored = yield from _compare(info, batch)
    other_content: list[Prepared] = []
    other_metadata: list[Prepared] = []
    for document in batch:
        state = stored.get(document.document_id)
        if state is None or not state["same_content"]:
            other_content.append(document)
        elif not state["same_metadata"]:
            other_metadata.append(document)
        else:
            tally.unchanged += 1
    embedded = yield from embed_chunks(info, embedder, other_content, tally)
    writable = [document for document in other_content if document.document_id in embedded]
    for language in sorted({document.language for document in writable} - {info.language}):
        yield from fetch("SELECT pgseek.add_language(%s, %s)", [info.collection_id, language])

    yield from _store(info, writable, other_metadata, embedded, tally)


def _store(
    info: CollectionInfo,
    content: Sequence[Prepared],
    metadata: Sequence[Prepared],
    embedded: Mapping[UUID, list[EmbeddedChunk]],
    tally: Tally,
) -> Script[None]:
    """Write documents in one transaction; one that the server cannot hold is found and rejected."""
    if not content and not metadata:
        return

    def write() -> Script[dict[str, int]]:
        return (yield from _write(info, content, metadata, embedded))

    try:
        counts = yield from transact(write)
    except DatabaseError as error:
        if not isinstance(error.__cause__, psycopg.errors.ProgramLimitExceeded | psycopg.DataError):
            raise
        if len(content) + len(metadata) == 1:
            (culprit,) = [*content, *metadata]
            reason = f"the server cannot hold it: {error}"
            tally.rejected.append(Rejection(culprit.position, culprit.external_id, reason, culprit.source))
            return
        middle, half = (len(content) + 1) // 2, (len(metadata) + 1) // 2
        yield from _store(info, content[:middle], metadata[:half] if not content else [], embedded, tally)
        yield from _store(info, content[middle:], metadata if content else metadata[half:], embedded, tally)
        return
    tally.new += counts["new"]
    tally.changed += counts["changed"]
    tally.metadata_changed += counts["metadata_changed"]
    tally.unchanged += counts["unchanged"]
    tally.chunks += counts["chunks"]


def _compare(info: CollectionInfo, batch: Sequence[Prepared]) -> Script[dict[UUID, dict[str, Any]]]:
    rows = yield from fetch(
        "SELECT d.document_id, d.content_hash = s.content_hash AS same_content,"
        " d.metadata = s.metadata::jsonb AS same_metadata"
        " FROM unnest(%s::uuid[], %s::bytea[], %s::text[]) AS s (document_id, content_hash, metadata)"
        " JOIN pgseek.documents d ON d.collection_id = %s AND d.document_id = s.document_id",
        [
            [d.document_id for d in batch],
            [d.content_hash for d in batch],
            [d.metadata for d in batch],
            info.collection_id,
        ],
    )
    return {row["document_id"]: row for row in rows}


def embed_chunks(
    info: CollectionInfo, embedder: Embedder, documents: Sequence[Prepared], tally: Tally
) -> Script[dict[UUID, list[EmbeddedChunk]]]:
    """Chunk documents and embed their chunks, equal texts once, known texts from the cache.

    A document with a chunk whose vector is zero or not finite is rejected; the others go on.
    """
    size, overlap = info.settings["chunk_size"], info.settings["chunk_overlap"]
    chunked = {d.document_id: chunk_text(d.body, size, overlap) for d in documents}
    texts: dict[bytes, str] = {}
    hashes: dict[UUID, list[bytes]] = {}
    for document in documents:
        full = [embedding_text(document.title, c.text) for c in chunked[document.document_id]]
        hashes[document.document_id] = [hashlib.sha256(text.encode()).digest() for text in full]
        texts.update(zip(hashes[document.document_id], full, strict=True))

    # A provider that costs next to nothing is not worth a second copy of its vectors.
    caching = getattr(embedder, "cache_documents", True)
    vectors = (yield from _from_cache(info, list(texts))) if caching else {}
    tally.cached += len(vectors)
    missing = [key for key in texts if key not in vectors]
    if missing:
        made = yield from embed_documents(embedder, [texts[key] for key in missing])
        fresh = {key: row for key, row in zip(missing, made, strict=True) if usable(row)}
        tally.embedded += len(missing)
        vectors.update(fresh)
        if caching:
            yield from _to_cache(info, fresh)

    embedded: dict[UUID, list[EmbeddedChunk]] = {}
    for document in documents:
        keys, chunks = hashes[document.document_id], chunked[document.document_id]
        if not keys:
            reason = "the document has no text"
            tally.rejected.append(Rejection(document.position, document.external_id, reason, document.source))
        elif all(key in vectors for key in keys):
            embedded[document.document_id] = [
                EmbeddedChunk(chunk, key, vectors[key]) for chunk, key in zip(chunks, keys, strict=True)
            ]
        else:
            reason = f"{embedder.model_id} gave no usable vector (zero, NaN or infinite) for its text"
            tally.rejected.append(Rejection(document.position, document.external_id, reason, document.source))
    return embedded


def _from_cache(info: CollectionInfo, keys: list[bytes]) -> Script[dict[bytes, Vectors]]:
    rows = yield from fetch(
        "SELECT text_hash, embedding FROM pgseek.embedding_cache"
        " WHERE identity = %s AND input_type = 'document' AND text_hash = ANY (%s::bytea[])",
        [info.identity_hash, keys],
    )
    return {row["text_hash"]: row["embedding"].to_numpy() for row in rows}


def _to_cache(info: CollectionInfo, vectors: Mapping[bytes, Vectors]) -> Script[None]:
    # In the order of the key: two ingests of the same texts at once then cannot deadlock here.
    keys = sorted(vectors)
    if keys:
        yield from fetch(
            "INSERT INTO pgseek.embedding_cache (identity, input_type, text_hash, embedding)"
            " SELECT %s, 'document', s.text_hash, s.embedding"
            " FROM unnest(%s::bytea[], %s) AS s (text_hash, embedding)"
            " ON CONFLICT (identity, input_type, text_hash) DO NOTHING",
            [info.identity_hash, keys, [vectors[key] for key in keys]],
        )


def _write(
    info: CollectionInfo,
    content: Sequence[Prepared],
    metadata: Sequence[Prepared],
    embedded: Mapping[UUID, list[EmbeddedChunk]],
) -> Script[dict[str, int]]:
    """Write one batch; documents in the order of their ids, so that two ingests rarely deadlock."""
    counts = dict.fromkeys(("new", "changed", "metadata_changed", "unchanged", "chunks"), 0)
    by_id = {d.document_id: d for d in sorted(content, key=lambda d: d.document_id)}
    locked = yield from fetch(
        "SELECT document_id, content_hash FROM pgseek.documents"
        " WHERE collection_id = %s AND document_id = ANY (%s) ORDER BY document_id FOR UPDATE",
        [info.collection_id, [*by_id, *(d.document_id for d in metadata)]],
    )
    before = {row["document_id"]: row["content_hash"] for row in locked}
    written = yield from fetch(
        "INSERT INTO pgseek.documents AS d (collection_id, document_id, external_id, title, body,"
        " language, metadata, content_hash, created_at, updated_at)"
        " SELECT %s, s.document_id, s.external_id, s.title, s.body, s.language, s.metadata::jsonb,"
        " s.content_hash, now(), now()"
        " FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[])"
        " AS s (document_id, external_id, title, body, language, metadata, content_hash)"
        " ORDER BY s.document_id"
        " ON CONFLICT (collection_id, document_id) DO UPDATE SET title = excluded.title,"
        " body = excluded.body, language = excluded.language, metadata = excluded.metadata,"
        " content_hash = excluded.content_hash, updated_at = excluded.updated_at"
        " WHERE d.content_hash <> excluded.content_hash OR d.metadata <> excluded.metadata"
        " RETURNING d.document_id",
        [
            info.collection_id,
            list(by_id),
            [d.external_id for d in by_id.values()],
            [d.title for d in by_id.values()],
            [d.body for d in by_id.values()],
            [d.language for d in by_id.values()],
            [d.metadata for d in by_id.values()],
            [d.content_hash for d in by_id.values()],
        ],
    )
    # Not returned: another ingest stored the same document in the meantime.
    returned = {row["document_id"] for row in written}
    replace = [i for i in by_id if i in returned and before.get(i) != by_id[i].content_hash]
    yield from replace_chunks(info, {i: by_id[i] for i in replace}, embedded)
    counts["chunks"] = sum(len(embedded[i]) for i in replace)
    counts["new"] = sum(i not in before for i in returned)
    counts["changed"] = sum(i in before for i in replace)
    counts["metadata_changed"] = len(returned) - counts["new"] - counts["changed"]
    counts["unchanged"] = len(by_id) - len(returned)

    if metadata:
        # Only while the content is the compared one; else another writer has the last word.
        updated = yield from fetch(
            "UPDATE pgseek.documents d SET metadata = s.metadata::jsonb, updated_at = now()"
            " FROM unnest(%s::uuid[], %s::text[], %s::bytea[]) AS s (document_id, metadata, content_hash)"
            " WHERE d.collection_id = %s AND d.document_id = s.document_id"
            " AND d.content_hash = s.content_hash RETURNING d.document_id",
            [
                [d.document_id for d in metadata],
                [d.metadata for d in metadata],
                [d.content_hash for d in metadata],
                info.collection_id,
            ],
        )
        counts["metadata_changed"] += len(updated)
        counts["unchanged"] += len(metadata) - len(updated)
    return counts


def replace_chunks(
    info: CollectionInfo,
    documents: Mapping[UUID, Prepared],
    embedded: Mapping[UUID, list[EmbeddedChunk]],
) -> Script[None]:
    """Replace the chunks and embeddings of documents whose rows this transaction has locked."""
    if not documents:
        return
    weighting = yield from _weighting(info, documents, embedded)
    ids = list(documents)
    key = [info.collection_id, ids]
    yield from fetch("SELECT pgseek.delete_embeddings(%s, %s)", key)
    yield from fetch("DELETE FROM pgseek.chunks WHERE collection_id = %s AND document_id = ANY (%s)", key)
    yield from fetch(
        "DELETE FROM pgseek.ingest_queue WHERE collection_id = %s AND document_id = ANY (%s)", key
    )
    yield from copy_in(
        "COPY pgseek.chunks (collection_id, document_id, ordinal, title, text, language, char_start,"
        " char_end, text_hash, weighting) FROM STDIN (FORMAT binary)",
        ("int4", "uuid", "int4", "text", "text", "text", "int4", "int4", "bytea", "float4[]"),
        (
            (
                info.collection_id,
                i,
                e.chunk.ordinal,
                documents[i].title,
                e.chunk.text,
                documents[i].language,
                e.chunk.char_start,
                e.chunk.char_end,
                e.text_hash,
                weighting,
            )
            for i in ids
            for e in embedded[i]
        ),
    )
    half = info.storage == "halfvec"
    yield from copy_in(
        SQL("COPY {} (collection_id, document_id, ordinal, embedding) FROM STDIN (FORMAT binary)").format(
            Identifier("pgseek", f"embeddings_{info.space_id}")
        ),
        ("int4", "uuid", "int4", info.storage),
        (
            (info.collection_id, i, e.chunk.ordinal, HalfVector(e.vector) if half else e.vector)
            for i in ids
            for e in embedded[i]
        ),
    )


def _weighting(
    info: CollectionInfo,
    documents: Mapping[UUID, Prepared],
    embedded: Mapping[UUID, list[EmbeddedChunk]],
) -> Script[list[float]]:
    """Return what BM25 weighs new rows with, and keep ``reweigh`` out until the transaction is over.

    The first batch of an empty collection is the sample that average length and edges are taken from.
    """
    empty = yield from fetch(
        "SELECT FROM pgseek.collection_statistics s WHERE s.collection_id = %s AND NOT EXISTS"
        " (SELECT FROM pgseek.chunks c WHERE c.collection_id = s.collection_id)",
        [info.collection_id],
    )
    if empty:
        # Writers hold FOR KEY SHARE: with FOR UPDATE in hand nobody else is writing, so look again.
        yield from fetch(
            "SELECT FROM pgseek.collection_statistics WHERE collection_id = %s FOR UPDATE",
            [info.collection_id],
        )
        sample = [(documents[i].title, e.chunk.text) for i in documents for e in embedded[i]]
        yield from fetch(
            "UPDATE pgseek.collection_statistics s SET weighting = coalesce(pgseek.propose_weighting("
            "%s, %s::text[], %s::text[], s.weighting[1], s.weighting[2], s.weighting[4]), s.weighting)"
            " WHERE s.collection_id = %s AND NOT EXISTS"
            " (SELECT FROM pgseek.chunks c WHERE c.collection_id = s.collection_id)",
            [info.language, [title for title, _ in sample], [text for _, text in sample], info.collection_id],
        )
    row = yield from fetch_one(
        "SELECT weighting FROM pgseek.collection_statistics WHERE collection_id = %s FOR KEY SHARE",
        [info.collection_id],
    )
    if row is None:
        raise CollectionNotFound(f"collection {info.name!r} was dropped in the meantime")
    weighting: list[float] = row["weighting"]
    return weighting
