"""Writing a batch in one transaction: documents, chunks and vectors whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from pgvector import HalfVector
from psycopg.sql import SQL, Identifier

from pgseek.embedders.base import Vectors
from pgseek.errors import CollectionNotFound
from pgseek.prepare import Prepared
from pgseek.steps import Script, copy_in, fetch, fetch_one
from pgseek.types import Chunk, CollectionInfo


@dataclass(frozen=True, slots=True)
class EmbeddedChunk:
    """A chunk with its vector, float32 (d,), and the hash of the text that was embedded.

    ``title`` is what is read before the chunk: the document's title, and headings.
    """

    chunk: Chunk
    title: str
    text_hash: bytes
    vector: Vectors


def write_batch(
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
        " language, format, metadata, content_hash, created_at, updated_at)"
        " SELECT %s, s.document_id, s.external_id, s.title, s.body, s.language, s.format, s.metadata::jsonb,"
        " s.content_hash, now(), now()"
        " FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],"
        " %s::bytea[])"
        " AS s (document_id, external_id, title, body, language, format, metadata, content_hash)"
        " ORDER BY s.document_id"
        " ON CONFLICT (collection_id, document_id) DO UPDATE SET title = excluded.title,"
        " body = excluded.body, language = excluded.language, format = excluded.format,"
        " metadata = excluded.metadata,"
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
            [d.format for d in by_id.values()],
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
    rows = [(i, e) for i in ids for e in embedded[i]]
    yield from fetch(
        "INSERT INTO pgseek.chunks (collection_id, document_id, ordinal, kind, title, text, language,"
        " char_start, char_end, text_hash, provenance, section_start, section_end, of_ordinal,"
        " lexemes, terms)"
        " SELECT d.collection_id, d.document_id, s.ordinal, s.kind, s.title, s.text, d.language,"
        " s.char_start, s.char_end, s.text_hash, s.provenance::jsonb, s.section_start, s.section_end,"
        " s.of_ordinal, a.lexemes, a.terms"
        " FROM unnest(%s::uuid[], %s::int[], %s::text[], %s::text[], %s::text[], %s::int[], %s::int[],"
        " %s::bytea[], %s::text[], %s::int[], %s::int[], %s::int[])"
        " AS s (document_id, ordinal, kind, title, text, char_start, char_end, text_hash, provenance,"
        " section_start, section_end, of_ordinal)"
        " JOIN pgseek.documents d ON d.collection_id = %s AND d.document_id = s.document_id,"
        " pgseek.analyze(d.language, s.title, s.text, %s::real[]) AS a",
        [
            [i for i, _ in rows],
            [e.chunk.ordinal for _, e in rows],
            [e.chunk.kind for _, e in rows],
            [e.title for _, e in rows],
            [e.chunk.text for _, e in rows],
            [e.chunk.char_start for _, e in rows],
            [e.chunk.char_end for _, e in rows],
            [e.text_hash for _, e in rows],
            [json.dumps(dict(e.chunk.provenance), ensure_ascii=False) for _, e in rows],
            [e.chunk.section[0] if e.chunk.section else None for _, e in rows],
            [e.chunk.section[1] if e.chunk.section else None for _, e in rows],
            [e.chunk.of_ordinal for _, e in rows],
            info.collection_id,
            weighting,
        ],
    )
    half = info.storage == "halfvec"
    yield from copy_in(
        SQL("COPY {} (collection_id, document_id, ordinal, embedding) FROM STDIN (FORMAT binary)").format(
            Identifier("pgseek", f"embeddings_{info.space_id}")
        ),
        ("int4", "uuid", "int4", info.storage),
        (
            (info.collection_id, i, e.chunk.ordinal, HalfVector(e.vector) if half else e.vector)
            for i, e in rows
        ),
    )


def _weighting(
    info: CollectionInfo,
    documents: Mapping[UUID, Prepared],
    embedded: Mapping[UUID, list[EmbeddedChunk]],
) -> Script[list[float]]:
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
