"""SQLAlchemy models of the schema, and the factory for a space's embedding table.

Every table that holds documents or parts of them has ``collection_id`` and ``document_id`` in all
of its keys, so it can be sharded by either.
"""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TextClause,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from pgseek.db.revisions import SCHEMA
from pgseek.types import SpaceId
from pgseek.vectors import OPERATORS, Metric, Storage, VectorIndex

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "ix": "%(column_0_label)s_idx",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    },
)

collections = Table(
    "collections",
    metadata,
    Column("collection_id", Integer, Identity(always=True), primary_key=True),
    Column("tenant", Text, nullable=False, server_default=text("''")),
    Column("name", Text, nullable=False),
    # A configuration's name, not a regconfig: pg_upgrade refuses regconfig columns.
    Column("language", Text, nullable=False),
    Column("languages", ARRAY(Text), nullable=False),
    Column("settings", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("active_space_id", Integer),
    # The collection that this one, hidden, is a copy of: one with other chunks, or that had the name before.
    Column("copy_of", Integer),
    # Collections whose name it took; handles that were opened on those follow it.
    Column("formerly", ARRAY(Integer), nullable=False, server_default=text("'{}'::integer[]")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # Fields of the metadata that have an index: [{"field": ["author", "name"], "type": "text"}].
    Column("metadata_indexes", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    # Partial, though the first leaves out nothing: the columns of an index that a foreign key could refer to
    # cannot be changed while somebody stores a document, which refers to the row.
    Index("collections_name_key", "tenant", "name", unique=True, postgresql_where=text("name IS NOT NULL")),
    Index("collections_copy_of_key", "copy_of", unique=True, postgresql_where=text("copy_of IS NOT NULL")),
)

embedding_spaces = Table(
    "embedding_spaces",
    metadata,
    Column("space_id", Integer, Identity(always=True), primary_key=True),
    Column(
        "collection_id",
        Integer,
        ForeignKey(collections.c.collection_id, ondelete="CASCADE"),
        nullable=False,
    ),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("metric", Text, nullable=False),
    Column("storage", Text, nullable=False),
    Column("prompts", JSONB, nullable=False),
    Column("normalized", Boolean, nullable=False),
    # Which version of the model, where its provider tells.
    Column("revision", Text, nullable=False, server_default=text("''")),
    # SHA-256, in hexadecimal, of everything that changes a vector; the key of the cache.
    Column("identity", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # How it is indexed, see storage.VectorIndex.
    Column(
        "indexing",
        JSONB,
        nullable=False,
        server_default=text("""'{"method": "hnsw", "form": "full"}'::jsonb"""),
    ),
    # What searches use unless they say otherwise: ef_search, probes, rerank.
    Column("searching", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    # When it last became the one that is searched.
    Column("activated_at", DateTime(timezone=True)),
    CheckConstraint("dimensions BETWEEN 1 AND 16000", name="dimensions"),
    CheckConstraint("metric IN ('cosine', 'inner_product', 'l2', 'l1')", name="metric"),
    CheckConstraint("storage IN ('vector', 'halfvec')", name="storage"),
    CheckConstraint("state IN ('building', 'ready', 'active', 'retired')", name="state"),
    Index("embedding_spaces_collection_id_idx", "collection_id"),
)

# Vectors of a few fixed texts, as the embedder gave them when the space was made.
space_probes = Table(
    "space_probes",
    metadata,
    Column(
        "space_id",
        Integer,
        ForeignKey(embedding_spaces.c.space_id, ondelete="CASCADE"),
        nullable=False,
    ),
    Column("input_type", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("embedding", VECTOR(), nullable=False),
    PrimaryKeyConstraint("space_id", "input_type", "text"),
    CheckConstraint("input_type IN ('document', 'query')", name="input_type"),
)

documents = Table(
    "documents",
    metadata,
    Column(
        "collection_id",
        Integer,
        ForeignKey(collections.c.collection_id, ondelete="CASCADE"),
        nullable=False,
    ),
    Column("document_id", Uuid, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("title", Text, nullable=False, server_default=text("''")),
    Column("body", Text, nullable=False),
    Column("language", Text, nullable=False),
    # What the body is written in, see chunking: '' is plain text.
    Column("format", Text, nullable=False, server_default=text("''")),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("content_hash", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("collection_id", "document_id"),
    Index(
        "documents_metadata_idx",
        "metadata",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    ),
    Index("documents_updated_at_idx", "collection_id", "updated_at"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("collection_id", Integer, nullable=False),
    Column("document_id", Uuid, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("kind", Text, nullable=False, server_default=text("'chunk'")),
    # What is read before the text: the document's title, and the headings that the chunk stands under.
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("char_start", Integer, nullable=False),
    Column("char_end", Integer, nullable=False),
    Column("text_hash", LargeBinary, nullable=False),
    # Where it stands: {"heading": [...], "page": 3, "last_page": 4, "lines": [10, 24]}, what is known of it.
    Column("provenance", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    # The part of the body to read around it, where that is more than the chunk.
    Column("section_start", Integer),
    Column("section_end", Integer),
    # Of a question or a summary: the chunk it was written for.
    Column("of_ordinal", Integer),
    # Both are what pgseek.analyze() made of title and text.
    Column("lexemes", TSVECTOR, nullable=False),
    Column("terms", SPARSEVEC(), nullable=False),
    PrimaryKeyConstraint("collection_id", "document_id", "ordinal"),
    ForeignKeyConstraint(
        ["collection_id", "document_id"],
        [documents.c.collection_id, documents.c.document_id],
        ondelete="CASCADE",
    ),
    CheckConstraint("kind IN ('chunk', 'document', 'question', 'summary')", name="kind"),
    # A short pending list: new entries go into the index some hundred rows at a time, at half the
    # cost; each scan of a search reads what is pending, which at this size costs it a tenth more.
    Index(
        "chunks_codes_idx",
        text("pgseek.bm25_codes(collection_id, terms)"),
        postgresql_using="gin",
        postgresql_with={"fastupdate": "on", "gin_pending_list_limit": "256"},
    ),
)

collection_statistics = Table(
    "collection_statistics",
    metadata,
    Column(
        "collection_id",
        Integer,
        ForeignKey(collections.c.collection_id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    # {k1, b, average length, weight of the title}: what chunks.terms are weighed with.
    Column("weighting", ARRAY(REAL), nullable=False),
    # How many of the weights reach each edge; searches plan with it.
    Column(
        "shares",
        ARRAY(Double()),
        nullable=False,
        server_default=text("'{1,0.3,0.2,0.1,0.03,0.01}'::double precision[]"),
    ),
    Column("chunks", BigInteger, nullable=False, server_default=text("0")),
    Column("average_length", REAL),
    Column("refreshed_at", DateTime(timezone=True)),
)

# Lexemes in two chunks or more. No foreign key: a refresh writes many rows, and dropping a collection
# deletes them.
term_statistics = Table(
    "term_statistics",
    metadata,
    Column("collection_id", Integer, nullable=False),
    Column("lexeme", Text(collation="C"), nullable=False),
    Column("chunks", Integer, nullable=False),
    PrimaryKeyConstraint("collection_id", "lexeme"),
)

# Lexemes in one chunk: blocks of them in the order of their bytes, a line each.
rare_lexemes = Table(
    "rare_lexemes",
    metadata,
    Column("collection_id", Integer, nullable=False),
    Column("first", Text(collation="C"), nullable=False),
    Column("lexemes", Text, nullable=False),
    PrimaryKeyConstraint("collection_id", "first"),
)

embedding_cache = Table(
    "embedding_cache",
    metadata,
    Column("tenant", Text, nullable=False, server_default=text("''")),
    Column("identity", Text, nullable=False),
    Column("input_type", Text, nullable=False),
    Column("text_hash", LargeBinary, nullable=False),
    Column("embedding", VECTOR(), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # To the hour: what was used longest ago is the first to go.
    Column("used_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # NULL: never.
    Column("expires_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant", "identity", "input_type", "text_hash"),
    CheckConstraint("input_type IN ('document', 'query')", name="input_type"),
)

# Who is embedding which text at this time, so that nobody else does.
embedding_claims = Table(
    "embedding_claims",
    metadata,
    Column("tenant", Text, nullable=False, server_default=text("''")),
    Column("identity", Text, nullable=False),
    Column("text_hash", LargeBinary, nullable=False),
    Column("claimed_until", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("tenant", "identity", "text_hash"),
)

# What the rate limiter's algorithm remembers of a limit that several processes share.
rate_limits = Table(
    "rate_limits",
    metadata,
    Column("tenant", Text, nullable=False, server_default=text("''")),
    Column("name", Text, nullable=False),
    Column("state", ARRAY(Double()), nullable=False),
    PrimaryKeyConstraint("tenant", "name"),
)

# Login roles that work for one tenant, whatever they set. Nobody but the owner reads or writes it.
tenant_roles = Table(
    "tenant_roles",
    metadata,
    Column("role", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    PrimaryKeyConstraint("role"),
)

# No foreign key: the queue is a plain table that outlives a deleted document without harm.
ingest_queue = Table(
    "ingest_queue",
    metadata,
    Column("collection_id", Integer, nullable=False),
    Column("document_id", Uuid, nullable=False),
    Column("content_hash", LargeBinary, nullable=False),
    Column("enqueued_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    # A worker may take it from then on: later after each attempt that failed, or after its lease.
    Column("due_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # Who has it, until due_at.
    Column("claimed_by", Text),
    Column("error", Text),
    # Given up then: only `queue retry` makes it due again.
    Column("failed_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("collection_id", "document_id"),
    Index("ingest_queue_due_at_idx", "collection_id", "due_at", postgresql_where=text("failed_at IS NULL")),
)

# Judged queries by which a collection's searches are measured. They stay with its name: when another
# collection takes it, they go over to that one.
golden_sets = Table(
    "golden_sets",
    metadata,
    Column(
        "collection_id",
        Integer,
        ForeignKey(collections.c.collection_id, ondelete="CASCADE"),
        nullable=False,
    ),
    Column("name", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("collection_id", "name"),
)

golden_queries = Table(
    "golden_queries",
    metadata,
    Column("collection_id", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("query_id", Text(collation="C"), nullable=False),
    Column("query", Text, nullable=False),
    PrimaryKeyConstraint("collection_id", "name", "query_id"),
    ForeignKeyConstraint(
        ["collection_id", "name"],
        [golden_sets.c.collection_id, golden_sets.c.name],
        ondelete="CASCADE",
    ),
)

# By the caller's id of a document, since a judged document may be missing, or come later. 1 and more is
# relevant.
golden_judgements = Table(
    "golden_judgements",
    metadata,
    Column("collection_id", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("query_id", Text(collation="C"), nullable=False),
    Column("external_id", Text(collation="C"), nullable=False),
    Column("relevance", Integer, nullable=False),
    PrimaryKeyConstraint("collection_id", "name", "query_id", "external_id"),
    ForeignKeyConstraint(
        ["collection_id", "name", "query_id"],
        [golden_queries.c.collection_id, golden_queries.c.name, golden_queries.c.query_id],
        ondelete="CASCADE",
    ),
)

# Questions and summaries that a model or a function wrote for a text.
generated_texts = Table(
    "generated_texts",
    metadata,
    Column("tenant", Text, nullable=False, server_default=text("''")),
    # SHA-256, in hexadecimal, of everything that changes what is written.
    Column("identity", Text, nullable=False),
    Column("text_hash", LargeBinary, nullable=False),
    Column("texts", ARRAY(Text), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("tenant", "identity", "text_hash"),
)


# Documents whose duplicates were looked for, as they were then; pairs were kept from min_similarity on.
duplicate_scans = Table(
    "duplicate_scans",
    metadata,
    Column("collection_id", Integer, nullable=False),
    Column("space_id", Integer, nullable=False),
    Column("document_id", Uuid, nullable=False),
    Column("content_hash", LargeBinary, nullable=False),
    Column("min_similarity", Double, nullable=False),
    PrimaryKeyConstraint("collection_id", "space_id", "document_id"),
)

# Documents that are alike; document_id is the smaller one.
duplicate_pairs = Table(
    "duplicate_pairs",
    metadata,
    Column("collection_id", Integer, nullable=False),
    Column("space_id", Integer, nullable=False),
    Column("document_id", Uuid, nullable=False),
    Column("other_id", Uuid, nullable=False),
    # Of their vectors, and of their letters.
    Column("similarity", Double, nullable=False),
    Column("overlap", REAL, nullable=False),
    # Whether their titles are of different things, see tell_apart().
    Column("apart", Boolean, nullable=False),
    PrimaryKeyConstraint("collection_id", "space_id", "document_id", "other_id"),
    Index("duplicate_pairs_other_id_idx", "collection_id", "space_id", "other_id"),
)

# Answers of the caller's, by the question.
answers = Table(
    "answers",
    metadata,
    Column("collection_id", Integer, nullable=False),
    Column("space_id", Integer, nullable=False),
    # What else the answer depends on: a filter, a user.
    Column("scope", Text, nullable=False),
    # Of the question, see question_key().
    Column("key", LargeBinary, nullable=False),
    Column("question", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("embedding", VECTOR()),
    # The signs of the embedding.
    Column("sketch", postgresql.BIT(varying=True)),
    # Those it cites, and their content_hash then.
    Column("documents", ARRAY(Uuid), nullable=False),
    Column("hashes", ARRAY(LargeBinary), nullable=False),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("stored_at", DateTime(timezone=True), nullable=False),
    # NULL: never.
    Column("expires_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("collection_id", "space_id", "scope", "key"),
    Index("answers_sketch_idx", "collection_id", "space_id", "scope", postgresql_include=["key", "sketch"]),
)


def embedding_table(space_id: SpaceId, dimensions: int, storage: Storage) -> Table:
    """Return the table of one embedding space, with its own `MetaData`.

    One typed table per space: any dimension has a real column type, two spaces live side by side,
    and retiring one is a DROP TABLE. No foreign key to chunks: with one, making or dropping the table
    would lock chunks, and every other collection's searches with it. Whoever deletes chunks calls
    ``pgseek.delete_embeddings``.
    """
    own = MetaData(schema=SCHEMA, naming_convention=metadata.naming_convention)
    column_type = VECTOR(dimensions) if storage == "vector" else HALFVEC(dimensions)
    name = f"embeddings_{space_id}"
    return Table(
        name,
        own,
        Column("collection_id", Integer, nullable=False),
        Column("document_id", Uuid, nullable=False),
        Column("ordinal", Integer, nullable=False),
        Column("embedding", column_type, nullable=False),
        PrimaryKeyConstraint("collection_id", "document_id", "ordinal"),
    )


def index_name(space_id: SpaceId, index: VectorIndex) -> str:
    """Return the name of a space's index."""
    return f"embeddings_{space_id}_{index.method}"


def embedding_index(
    table: Table,
    dimensions: int,
    storage: Storage,
    metric: Metric,
    index: VectorIndex,
    *,
    name: str,
    concurrently: bool = False,
) -> Index:
    """Return the index of a space's table; ``index`` must have a method, and for IVFFlat its lists."""
    column = table.c.embedding
    expression: ColumnElement[Any] | TextClause = column
    opclass = f"{storage}_{OPERATORS[metric][0]}"
    if index.form == "binary":
        expression = text(f"(binary_quantize(embedding)::bit({dimensions}))")
        opclass = "bit_hamming_ops"
    elif index.form == "prefix":
        expression = text(f"(subvector(embedding, 1, {index.prefix})::{storage}({index.prefix}))")
    parameters = {
        name: value
        for name, value in (
            ("m", index.m),
            ("ef_construction", index.ef_construction),
            ("lists", index.lists),
        )
        if value is not None
    }
    if index.form != "full":
        # An expression has no name that the dialect could find its operator class by.
        expression = text(f"{expression} {opclass}")
    return Index(
        name,
        expression,
        postgresql_using=index.method,
        postgresql_ops={"embedding": opclass},
        postgresql_with=parameters,
        postgresql_concurrently=concurrently,
        _table=table,
    )


def create_table_ddl(space_id: SpaceId, dimensions: int, storage: Storage) -> str:
    """Return the CREATE TABLE of a space; pgvector's schema must be on the search path."""
    return _ddl(CreateTable(embedding_table(space_id, dimensions, storage)))


def create_index_ddl(
    space_id: SpaceId,
    dimensions: int,
    storage: Storage,
    metric: Metric,
    index: VectorIndex,
    *,
    name: str | None = None,
    concurrently: bool = False,
) -> str:
    """Return the CREATE INDEX IF NOT EXISTS of a space; pgvector's schema must be on the search path."""
    made = embedding_index(
        embedding_table(space_id, dimensions, storage),
        dimensions,
        storage,
        metric,
        index,
        name=name or index_name(space_id, index),
        concurrently=concurrently,
    )
    return _ddl(CreateIndex(made, if_not_exists=True))


def timed_index_ddl(table: str, dimensions: int, storage: Storage, metric: Metric, index: VectorIndex) -> str:
    """Return the CREATE INDEX of a temporary table with a column ``embedding``; its name ends in _index."""
    column_type = VECTOR(dimensions) if storage == "vector" else HALFVEC(dimensions)
    sample = Table(table, MetaData(), Column("embedding", column_type))
    made = embedding_index(sample, dimensions, storage, metric, index, name=f"{table}_index")
    return _ddl(CreateIndex(made))


def create_codes_ddl() -> str:
    """Return the CREATE INDEX IF NOT EXISTS of the index of words."""
    index = next(index for index in chunks.indexes if index.name == "chunks_codes_idx")
    return _ddl(CreateIndex(index, if_not_exists=True))


def _ddl(element: ExecutableDDLElement) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return str(element.compile(dialect=dialect))
