# ruff: noqa: S608 (statements put together from constants of this module)
"""What must hold of stored rows: for each rule a statement that finds the rows which break it.

A statement gives ``(collection_id, document_id, example)``: a row per thing found, ``example`` names it.
It runs with pgvector's schema on the search path, and with the parameters ``ids``, the collections looked at,
and ``languages``, the text-search configurations of the server. Those about vectors name their table
``{table}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

_REBUILD = "pgseek doctor --deep --repair {name}, then pgseek queue drain {name}"
_REPAIR = "pgseek doctor --deep --repair {name}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule about rows: ``broken`` finds those that break it, ``what`` calls them by a name.

    ``mend`` is what to do, with ``{name}`` and ``{id}`` of the collection. ``rebuild`` says that chunking and
    embedding the document again mends it; ``drop`` that its vectors have to go first, since those of chunks
    that stay as they are stay, too.
    """

    key: str
    what: str
    broken: LiteralString
    mend: str
    rebuild: bool = False
    drop: bool = False


# What the words of a chunk ``c`` have to be. A row that stands for a whole document has no title's words.
ANALYZED: LiteralString = (
    "pgseek.analyze(c.language, CASE c.kind WHEN 'document' THEN '' ELSE c.title END, c.text,"
    " s.weighting) AS a"
)
MISREAD: LiteralString = "c.language = ANY (%(languages)s) AND (a.lexemes <> c.lexemes OR a.terms <> c.terms)"
_CHUNK: LiteralString = (
    "SELECT c.collection_id, c.document_id, coalesce((SELECT d.external_id FROM pgseek.documents d"
    " WHERE d.collection_id = c.collection_id AND d.document_id = c.document_id), c.document_id::text)"
    " || ' #' || c.ordinal AS example FROM pgseek.chunks c"
)
_DOCUMENT: LiteralString = (
    "SELECT d.collection_id, d.document_id, d.external_id AS example FROM pgseek.documents d"
)
DOCUMENTS = (
    Rule(
        "document_id",
        "documents whose key is not that of their id",
        _DOCUMENT + " WHERE d.collection_id = ANY (%(ids)s)"
        " AND d.document_id <> pgseek.document_id(d.external_id)",
        "DELETE FROM pgseek.documents WHERE collection_id = {id} AND document_id <>"
        " pgseek.document_id(external_id); then pgseek doctor --deep --repair {name}, and ingest them again",
    ),
    Rule(
        "content_hash",
        "documents whose hash is not that of their content",
        _DOCUMENT + " WHERE d.collection_id = ANY (%(ids)s)"
        " AND d.content_hash <> pgseek.content_hash(d.title, d.body, d.language, d.format)",
        "UPDATE pgseek.documents SET content_hash = pgseek.content_hash(title, body, language, format) WHERE"
        " collection_id = {id} AND content_hash <> pgseek.content_hash(title, body, language, format);"
        " then ingest their source again, which replaces what is not as it says",
    ),
    Rule(
        "language_unknown",
        "documents in a language that the server does not know",
        _DOCUMENT + " WHERE d.collection_id = ANY (%(ids)s) AND d.language <> ALL (%(languages)s)",
        "create the text-search configuration, or ingest them in another language",
    ),
    Rule(
        "language_unlisted",
        "documents in a language that their collection does not search in",
        _DOCUMENT + " JOIN pgseek.collections c USING (collection_id)"
        " WHERE d.collection_id = ANY (%(ids)s) AND d.language <> ALL (c.languages)",
        "SELECT pgseek.add_language({id}, language) FROM (SELECT DISTINCT language FROM pgseek.documents"
        " WHERE collection_id = {id}) AS found",
    ),
    Rule(
        "document_without_chunks",
        "documents without chunks",
        _DOCUMENT + " WHERE d.collection_id = ANY (%(ids)s) AND NOT EXISTS (SELECT FROM pgseek.chunks c"
        " WHERE c.collection_id = d.collection_id AND c.document_id = d.document_id AND c.kind = 'chunk')",
        _REBUILD,
        rebuild=True,
    ),
    Rule(
        "ordinals",
        "documents whose chunks are not numbered without gaps from 0",
        "SELECT c.collection_id, c.document_id, (SELECT d.external_id FROM pgseek.documents d"
        " WHERE d.collection_id = c.collection_id AND d.document_id = c.document_id) AS example"
        " FROM pgseek.chunks c WHERE c.collection_id = ANY (%(ids)s)"
        " GROUP BY c.collection_id, c.document_id HAVING min(c.ordinal) <> 0"
        " OR max(c.ordinal) <> count(*) - 1",
        _REBUILD,
        rebuild=True,
    ),
    Rule(
        "uncovered",
        "documents of plain text with words that are in no chunk",
        _DOCUMENT + ", pgseek.misplaced_chunks(d.collection_id, d.document_id, d.body) AS m"
        " WHERE d.collection_id = ANY (%(ids)s) AND d.format = '' AND m.uncovered",
        _REBUILD,
        rebuild=True,
    ),
)

CHUNKS = (
    Rule(
        "chunk_without_document",
        "chunks without their document",
        _CHUNK + " WHERE c.collection_id = ANY (%(ids)s) AND NOT EXISTS (SELECT FROM pgseek.documents d"
        " WHERE d.collection_id = c.collection_id AND d.document_id = c.document_id)",
        "DELETE FROM pgseek.chunks c WHERE collection_id = {id} AND NOT EXISTS"
        " (SELECT FROM pgseek.documents d WHERE d.collection_id = c.collection_id"
        " AND d.document_id = c.document_id);"
        " then pgseek doctor --deep --repair {name}",
    ),
    Rule(
        "text",
        "chunks whose text is not that of their document at their place",
        "SELECT d.collection_id, d.document_id, d.external_id || ' #' || wrong.ordinal AS example"
        " FROM pgseek.documents d, pgseek.misplaced_chunks(d.collection_id, d.document_id, d.body) AS m,"
        " unnest(m.misplaced) AS wrong (ordinal) WHERE d.collection_id = ANY (%(ids)s)",
        _REBUILD,
        rebuild=True,
    ),
    Rule(
        "title",
        "chunks whose title or language is not their document's",
        # Headings may follow the title; what was written for a chunk is read as it is.
        _CHUNK + " JOIN pgseek.documents d USING (collection_id, document_id)"
        " WHERE c.collection_id = ANY (%(ids)s)"
        " AND (c.language <> d.language OR CASE c.kind WHEN 'chunk' THEN NOT starts_with(c.title, d.title)"
        " ELSE c.title <> '' END)",
        _REBUILD,
        rebuild=True,
    ),
    Rule(
        "written_for",
        "questions and summaries without the chunk they were written for",
        _CHUNK + " WHERE c.collection_id = ANY (%(ids)s) AND c.kind IN ('question', 'summary')"
        " AND NOT EXISTS (SELECT FROM pgseek.chunks o WHERE o.collection_id = c.collection_id"
        " AND o.document_id = c.document_id AND o.ordinal = c.of_ordinal AND o.kind = 'chunk')",
        _REBUILD,
        rebuild=True,
    ),
    Rule(
        "words",
        "chunks whose words or weights are not those of their text",
        _CHUNK
        + " JOIN pgseek.collection_statistics s USING (collection_id), "
        + ANALYZED
        + " WHERE c.collection_id = ANY (%(ids)s) AND "
        + MISREAD,
        _REPAIR,
    ),
)

QUEUE = (
    Rule(
        "queued_without_document",
        "entries of the queue without a document",
        "SELECT q.collection_id, q.document_id, q.document_id::text AS example FROM pgseek.ingest_queue q"
        " WHERE q.collection_id = ANY (%(ids)s) AND NOT EXISTS (SELECT FROM pgseek.documents d"
        " WHERE d.collection_id = q.collection_id AND d.document_id = q.document_id)",
        _REPAIR,
    ),
    Rule(
        "queued_old",
        "entries of the queue for a content that the document no longer has",
        _DOCUMENT + " JOIN pgseek.ingest_queue q USING (collection_id, document_id)"
        " WHERE d.collection_id = ANY (%(ids)s) AND q.content_hash <> d.content_hash",
        _REBUILD,
        rebuild=True,
    ),
)

# Of every table of vectors that is in use.
ORPHANS = Rule(
    "orphans",
    "embeddings without a chunk",
    "SELECT %(of)s::int AS collection_id, e.document_id, coalesce((SELECT d.external_id"
    " FROM pgseek.documents d WHERE d.collection_id = e.collection_id"
    " AND d.document_id = e.document_id), e.document_id::text)"
    " || ' #' || e.ordinal AS example FROM {table} e WHERE e.collection_id <> %(of)s"
    " OR NOT EXISTS (SELECT FROM pgseek.chunks c WHERE c.collection_id = e.collection_id"
    " AND c.document_id = e.document_id AND c.ordinal = e.ordinal)",
    _REPAIR,
)
_VECTOR: LiteralString = (
    "SELECT e.collection_id, e.document_id, (SELECT d.external_id FROM pgseek.documents d"
    " WHERE d.collection_id = e.collection_id AND d.document_id = e.document_id)"
    " || ' #' || e.ordinal AS example FROM {table} e"
)
# A vector that is zero or not finite has no direction, and no distance to any other.
_USABLE: LiteralString = "vector_norm(e.embedding::vector) BETWEEN 1e-30 AND 1e30"

# Of the table that searches read.
VECTORS = (
    Rule(
        "missing",
        "chunks without an embedding, whose document is not in the queue",
        _CHUNK + " WHERE c.collection_id = %(of)s AND NOT EXISTS (SELECT FROM {table} e"
        " WHERE e.collection_id = c.collection_id AND e.document_id = c.document_id"
        " AND e.ordinal = c.ordinal) AND NOT EXISTS (SELECT FROM pgseek.ingest_queue q"
        " WHERE q.collection_id = c.collection_id AND q.document_id = c.document_id)",
        _REBUILD,
        rebuild=True,
    ),
    Rule(
        "unusable",
        "embeddings that are zero, NaN or infinite",
        _VECTOR + " WHERE e.collection_id = %(of)s AND NOT " + _USABLE,
        _REBUILD,
        rebuild=True,
        drop=True,
    ),
    Rule(
        "unlike_cached",
        "embeddings that are not the cached ones of their texts",
        # A service answers the same text a little differently each time; another text is far from it.
        _VECTOR + " JOIN pgseek.chunks c ON c.collection_id = e.collection_id"
        " AND c.document_id = e.document_id AND c.ordinal = e.ordinal"
        " JOIN pgseek.embedding_cache k ON k.identity = %(identity)s AND k.input_type = 'document'"
        " AND k.text_hash = c.text_hash"
        " AND k.tenant = (SELECT o.tenant FROM pgseek.collections o WHERE o.collection_id = %(of)s)"
        " WHERE e.collection_id = %(of)s AND CASE WHEN " + _USABLE + " AND"
        " vector_dims(k.embedding) = %(dimensions)s THEN (e.embedding::vector <=> k.embedding) > 0.01"
        " ELSE false END",
        _REBUILD,
        rebuild=True,
        drop=True,
    ),
)

RULES = (*DOCUMENTS, *CHUNKS, *QUEUE, ORPHANS, *VECTORS)
