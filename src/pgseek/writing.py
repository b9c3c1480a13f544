"""Writing a batch in one transaction: documents, chunks and vectors whole, or not at all.

Rows travel by binary COPY into temporary tables and are merged from there by one statement per table. A
chunk that a changed document keeps stays as it is, and its vector with it: what is in an index already
need not be put there again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from pgvector import HalfVector
from psycopg.sql import SQL, Identifier

from pgseek.embedders.base import Vectors, identity_hash
from pgseek.errors import CollectionNotFound, DatabaseError
from pgseek.prepare import Prepared
from pgseek.spaces import describe, table_of
from pgseek.steps import Script, copy_in, fetch, fetch_one
from pgseek.types import Chunk, CollectionInfo, EmbedderIdentity, SpaceInfo

# Staging tables' names end in the revision that made their columns so: a pooled session may outlive an
# upgrade. JSON travels as the text it is (psycopg would write it as JSON once more).
_STAGE_DOCUMENTS = SQL(
    "CREATE TEMPORARY TABLE IF NOT EXISTS pgseek_documents_0005 (document_id uuid, external_id text,"
    " title text, body text, language text, format text, metadata text, content_hash bytea)"
    " ON COMMIT DELETE ROWS"
)
_COPY_DOCUMENTS = SQL("COPY pg_temp.pgseek_documents_0005 FROM STDIN (FORMAT binary)")
_DOCUMENT_TYPES = ("uuid", "text", "text", "text", "text", "text", "text", "bytea")
_LOCK_DOCUMENTS = SQL(
    "SELECT d.document_id, d.content_hash FROM pgseek.documents d"
    " WHERE d.collection_id = %s AND d.document_id IN (SELECT s.document_id FROM"
    " pg_temp.pgseek_documents_0005 s UNION ALL SELECT unnest(%s::uuid[]))"
    " ORDER BY d.document_id FOR UPDATE"
)
_STAGE_CHUNKS = SQL(
    "CREATE TEMPORARY TABLE IF NOT EXISTS pgseek_chunks_0005 (document_id uuid, ordinal integer, kind text,"
    " title text, text text, language text, char_start integer, char_end integer, text_hash bytea,"
    " provenance text, section_start integer, section_end integer, of_ordinal integer) ON COMMIT DELETE ROWS"
)
_COPY_CHUNKS = SQL("COPY pg_temp.pgseek_chunks_0005 FROM STDIN (FORMAT binary)")
_CHUNK_TYPES = (
    *("uuid", "int4", "text", "text", "text", "text", "int4", "int4", "bytea", "text"),
    *("int4", "int4", "int4"),
)
# A stored chunk c and a staged one s that read the same: their lexemes, weights and vectors do, too.
_SAME = SQL(
    "c.collection_id = %(collection)s AND c.document_id = s.document_id AND c.ordinal = s.ordinal"
    " AND c.text_hash = s.text_hash AND c.kind = s.kind AND c.language = s.language"
    " AND c.title = s.title AND c.text = s.text"
)
_INSERT_CHUNKS = SQL(
    "INSERT INTO pgseek.chunks (collection_id, document_id, ordinal, kind, title, text, language,"
    " char_start, char_end, text_hash, provenance, section_start, section_end, of_ordinal, lexemes, terms)"
    " SELECT %(collection)s, s.document_id, s.ordinal, s.kind, s.title, s.text, s.language,"
    " s.char_start, s.char_end, s.text_hash, s.provenance::jsonb, s.section_start, s.section_end,"
    " s.of_ordinal, a.lexemes, a.terms FROM pg_temp.pgseek_chunks_0005 s,"
    # Vectors alone find a whole document: its words are those of its chunks.
    " pgseek.analyze(s.language, CASE WHEN s.kind <> 'document' THEN s.title ELSE '' END, s.text,"
    " %(weighting)s::real[]) AS a"
)
_UNLESS_KEPT = SQL(" WHERE NOT EXISTS (SELECT FROM pgseek.chunks c WHERE {})").format(_SAME)
_DELETE_CHUNKS = SQL(
    "DELETE FROM pgseek.chunks c WHERE c.collection_id = %(collection)s"
    " AND c.document_id = ANY (%(changed)s)"
    " AND NOT EXISTS (SELECT FROM pg_temp.pgseek_chunks_0005 s WHERE {})"
    " RETURNING c.document_id, c.ordinal"
).format(_SAME)
_MOVE_CHUNKS = SQL(
    "UPDATE pgseek.chunks c SET char_start = s.char_start, char_end = s.char_end,"
    " provenance = s.provenance::jsonb, section_start = s.section_start, section_end = s.section_end,"
    " of_ordinal = s.of_ordinal FROM pg_temp.pgseek_chunks_0005 s"
    " WHERE s.document_id = ANY (%(changed)s) AND {}"
    " AND (c.char_start, c.char_end, c.provenance, c.section_start, c.section_end, c.of_ordinal)"
    " IS DISTINCT FROM (s.char_start, s.char_end, s.provenance::jsonb, s.section_start, s.section_end,"
    " s.of_ordinal)"
).format(_SAME)


@dataclass(frozen=True, slots=True)
class EmbeddedChunk:
    """A chunk with its vector, float32 (d,), and the hash of the text that was embedded.

    ``title`` is what is read before the chunk: the document's title, and headings.
    """

    chunk: Chunk
    title: str
    text_hash: bytes
    vector: Vectors


class SpacesChanged(Exception):
    """The collection is searched by another space than the writer has vectors for: it makes them first."""


@dataclass(frozen=True, slots=True)
class SpaceVectors:
    """Vectors, float32 (d,), of one more space: by document and ordinal. Some may be missing."""

    space: SpaceInfo
    vectors: Mapping[tuple[UUID, int], Vectors]


def unfit(error: DatabaseError) -> str | None:
    """Return why the server cannot hold what was being written, None if that is not the reason."""
    if isinstance(error.__cause__, psycopg.errors.ProgramLimitExceeded | psycopg.DataError):
        return f"the server cannot hold it: {error}"
    return None


def write_batch(
    info: CollectionInfo,
    made_by: EmbedderIdentity,
    content: Sequence[Prepared],
    metadata: Sequence[Prepared],
    embedded: Mapping[UUID, list[EmbeddedChunk]],
    others: Sequence[SpaceVectors] = (),
) -> Script[dict[str, int]]:
    """Write one batch; documents in the order of their ids, so that two ingests rarely deadlock.

    ``content`` holds documents whose content is new or changed, ``metadata`` those with other metadata
    only; ``others`` what is known of the batch in spaces beside that of ``info``, and ``made_by`` what made
    the vectors for that one. Another writer may have been there first: returns what really changed, by name
    of the report.

    Raises:
        SpacesChanged: the space that is searched is neither; nothing is written.
        SpaceMismatch: from the database: ``made_by`` is not what the space holds vectors of.
        CollectionNotFound: it was dropped.
    """
    counts = dict.fromkeys(("new", "changed", "metadata_changed", "unchanged", "chunks"), 0)
    by_id = {d.document_id: d for d in sorted(content, key=lambda d: d.document_id)}
    yield from fetch(_STAGE_DOCUMENTS)
    yield from copy_in(_COPY_DOCUMENTS, _DOCUMENT_TYPES, map(_document_row, by_id.values()))
    locked = yield from fetch(_LOCK_DOCUMENTS, [info.collection_id, [d.document_id for d in metadata]])
    before = {row["document_id"]: row["content_hash"] for row in locked}
    written = yield from fetch(
        "INSERT INTO pgseek.documents AS d (collection_id, document_id, external_id, title, body, language,"
        " format, metadata, content_hash, created_at, updated_at)"
        " SELECT %s, s.document_id, s.external_id, s.title, s.body, s.language, s.format, s.metadata::jsonb,"
        " s.content_hash, now(), now() FROM pg_temp.pgseek_documents_0005 s ORDER BY s.document_id"
        " ON CONFLICT (collection_id, document_id) DO UPDATE SET title = excluded.title,"
        " body = excluded.body, language = excluded.language, format = excluded.format,"
        " metadata = excluded.metadata, content_hash = excluded.content_hash,"
        " updated_at = excluded.updated_at"
        " WHERE d.content_hash <> excluded.content_hash OR d.metadata <> excluded.metadata"
        # A row that was there has been locked by this very statement.
        " RETURNING d.document_id, d.xmax = 0 AS inserted",
        [info.collection_id],
    )
    # Not returned: another ingest stored the same document in the meantime.
    inserted = {row["document_id"] for row in written if row["inserted"]}
    returned = {row["document_id"] for row in written}
    changed = [i for i in by_id if i in returned - inserted and before.get(i) != by_id[i].content_hash]
    fresh = [i for i in by_id if i in inserted]
    yield from _put_chunks(info, made_by, by_id, fresh, changed, embedded, others)
    counts["chunks"] = sum(len(embedded[i]) for i in (*fresh, *changed))
    counts["new"] = len(fresh)
    counts["changed"] = len(changed)
    counts["metadata_changed"] = len(returned) - len(fresh) - len(changed)
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
    yield from fetch(
        "SELECT pgseek.mirror_documents(%s,"
        " ARRAY(SELECT document_id FROM pg_temp.pgseek_documents_0005) || %s::uuid[])",
        [info.collection_id, [d.document_id for d in metadata]],
    )
    return counts


def replace_chunks(
    info: CollectionInfo,
    made_by: EmbedderIdentity,
    documents: Mapping[UUID, Prepared],
    embedded: Mapping[UUID, list[EmbeddedChunk]],
    others: Sequence[SpaceVectors] = (),
) -> Script[None]:
    """Replace chunks and embeddings of documents that this transaction has locked, and end their waiting.

    Raises:
        SpacesChanged, SpaceMismatch: see `write_batch`.
    """
    yield from _put_chunks(info, made_by, documents, (), list(documents), embedded, others)


def _put_chunks(
    info: CollectionInfo,
    made_by: EmbedderIdentity,
    documents: Mapping[UUID, Prepared],
    fresh: Sequence[UUID],
    changed: Sequence[UUID],
    embedded: Mapping[UUID, list[EmbeddedChunk]],
    others: Sequence[SpaceVectors],
) -> Script[None]:
    """Store chunks and vectors of ``fresh`` documents, which have none, and of ``changed`` ones."""
    if not fresh and not changed:
        return
    ids = sorted((*fresh, *changed))
    rows = [(documents[i], e) for i in ids for e in embedded[i]]
    weighting = yield from _weighting(info, rows)
    live = yield from _live(info, made_by, others)
    yield from fetch(_STAGE_CHUNKS)
    yield from copy_in(_COPY_CHUNKS, _CHUNK_TYPES, (_chunk_row(document, e) for document, e in rows))
    parameters = {"collection": info.collection_id, "changed": list(changed), "weighting": weighting}
    if changed:
        yield from _clear(info, parameters)
    yield from fetch(_INSERT_CHUNKS + _UNLESS_KEPT if changed else _INSERT_CHUNKS, parameters)
    if info.space_id in live:
        known = ((d.document_id, e.chunk.ordinal, e.vector) for d, e in rows)
        yield from _put_vectors(info.space, known, changed, restricted=live[info.space_id])
    for other in others:
        if other.space.space_id in live:
            keys = ((d.document_id, e.chunk.ordinal) for d, e in rows)
            found = ((*key, other.vectors[key]) for key in keys if key in other.vectors)
            yield from _put_vectors(other.space, found, changed, restricted=live[other.space.space_id])


def _live(
    info: CollectionInfo, made_by: EmbedderIdentity, others: Sequence[SpaceVectors]
) -> Script[dict[int, bool]]:
    """Return the spaces that are written to, and whether policies restrict this user's writing to each.

    The one that is searched is not changed from here on.
    """
    given = [info.space, *(other.space for other in others)]
    makers = [made_by, *(other.space.identity for other in others)]
    rows = yield from fetch(
        "SELECT space_id, active, row_security_active(to_regclass('pgseek.embeddings_' || space_id))"
        " AS restricted FROM pgseek.live_spaces(%s, %s::int[], %s, %s)",
        [
            info.collection_id,
            [one.space_id for one in given],
            [identity_hash(one) for one in makers],
            [describe(one) for one in makers],
        ],
    )
    if not {row["space_id"] for row in rows if row["active"]} <= {one.space_id for one in given}:
        raise SpacesChanged(f"collection {info.name!r} is searched by another space by now")
    return {row["space_id"]: row["restricted"] for row in rows}


def _put_vectors(
    space: SpaceInfo,
    vectors: Iterable[tuple[UUID, int, Vectors]],
    changed: Sequence[UUID],
    *,
    restricted: bool,
) -> Script[None]:
    """Store vectors of one space: those of ``changed`` documents that it has not kept."""
    table = target = table_of(space.space_id)
    held: set[tuple[UUID, int]] = set()
    if changed:
        found = yield from fetch(
            SQL(
                "SELECT document_id, ordinal FROM {} WHERE collection_id = %s AND document_id = ANY (%s)"
            ).format(table),
            [space.collection_id, list(changed)],
        )
        held = {(row["document_id"], row["ordinal"]) for row in found}
    if restricted:
        # There is no COPY into a table with policies.
        target = Identifier("pg_temp", f"pgseek_vectors_{space.space_id}")
        yield from fetch(
            SQL(
                "CREATE TEMPORARY TABLE IF NOT EXISTS {} ON COMMIT DELETE ROWS AS"
                " SELECT collection_id, document_id, ordinal, embedding FROM {} WITH NO DATA"
            ).format(target, table)
        )
    half = space.storage == "halfvec"
    yield from copy_in(
        SQL("COPY {} (collection_id, document_id, ordinal, embedding) FROM STDIN (FORMAT binary)").format(
            target
        ),
        ("int4", "uuid", "int4", space.storage),
        (
            (space.collection_id, i, ordinal, HalfVector(vector) if half else vector)
            for i, ordinal, vector in vectors
            if (i, ordinal) not in held
        ),
    )
    if restricted:
        yield from fetch(
            SQL(
                "INSERT INTO {} (collection_id, document_id, ordinal, embedding)"
                " SELECT collection_id, document_id, ordinal, embedding FROM {} ORDER BY document_id, ordinal"
            ).format(table, target)
        )


def _clear(info: CollectionInfo, parameters: dict[str, Any]) -> Script[None]:
    """Delete chunks of changed documents that are not staged, with their vectors; place the others anew."""
    deleted = yield from fetch(_DELETE_CHUNKS, parameters)
    yield from fetch(
        "SELECT pgseek.delete_embeddings(%s, %s::uuid[], %s::int[])",
        [info.collection_id, [row["document_id"] for row in deleted], [row["ordinal"] for row in deleted]],
    )
    yield from fetch(_MOVE_CHUNKS, parameters)
    yield from fetch(
        "DELETE FROM pgseek.ingest_queue WHERE collection_id = %(collection)s"
        " AND document_id = ANY (%(changed)s)",
        parameters,
    )


def _document_row(document: Prepared) -> tuple[Any, ...]:
    return (
        document.document_id,
        document.external_id,
        document.title,
        document.body,
        document.language,
        document.format,
        document.metadata,
        document.content_hash,
    )


def _chunk_row(document: Prepared, embedded: EmbeddedChunk) -> tuple[Any, ...]:
    chunk = embedded.chunk
    return (
        document.document_id,
        chunk.ordinal,
        chunk.kind,
        embedded.title,
        chunk.text,
        document.language,
        chunk.char_start,
        chunk.char_end,
        embedded.text_hash,
        json.dumps(dict(chunk.provenance), ensure_ascii=False) if chunk.provenance else "{}",
        chunk.section[0] if chunk.section else None,
        chunk.section[1] if chunk.section else None,
        chunk.of_ordinal,
    )


def _weighting(info: CollectionInfo, rows: Sequence[tuple[Prepared, EmbeddedChunk]]) -> Script[list[float]]:
    """Return what BM25 weighs new rows with, and keep ``reweigh`` out until the transaction is over.

    The first batch of an empty collection is the sample that the average length is taken from.
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
        sample = [(e.title, e.chunk.text) for _, e in rows if e.chunk.text]
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
