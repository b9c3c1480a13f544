"""Collections, documents, chunks, the cache, the queue, and hybrid search.

Landed: never edit this file or the frozen SQL under ``sql/0001``.
"""

from __future__ import annotations

from pathlib import Path

from alembic import context, op
from sqlalchemy import text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FROZEN = Path(__file__).parent.parent / "sql" / revision
# The generated column of chunks calls these, so they come before the tables; the others read them.
BEFORE_TABLES = ("document_id", "content_hash", "collection_mark", "lexemes", "lexical_query")
AFTER_TABLES = (
    "require_collection",
    "delete_embeddings",
    "add_language",
    "search",
    "put_document",
    "delete_document",
)

TABLES = """
CREATE TABLE pgseek.collections (
    collection_id integer GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    language text NOT NULL,
    languages text[] NOT NULL,
    settings jsonb NOT NULL DEFAULT '{}'::jsonb,
    active_space_id integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT collections_pkey PRIMARY KEY (collection_id),
    CONSTRAINT collections_name_key UNIQUE (name)
);
CREATE TABLE pgseek.embedding_spaces (
    space_id integer GENERATED ALWAYS AS IDENTITY,
    collection_id integer NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    dimensions integer NOT NULL,
    metric text NOT NULL,
    storage text NOT NULL,
    prompts jsonb NOT NULL,
    normalized boolean NOT NULL,
    identity text NOT NULL,
    state text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT embedding_spaces_pkey PRIMARY KEY (space_id),
    CONSTRAINT embedding_spaces_collection_id_fkey FOREIGN KEY (collection_id)
        REFERENCES pgseek.collections (collection_id) ON DELETE CASCADE,
    CONSTRAINT embedding_spaces_dimensions_check CHECK (dimensions BETWEEN 1 AND 16000),
    CONSTRAINT embedding_spaces_metric_check CHECK (metric IN ('cosine')),
    CONSTRAINT embedding_spaces_storage_check CHECK (storage IN ('vector', 'halfvec')),
    CONSTRAINT embedding_spaces_state_check
        CHECK (state IN ('building', 'ready', 'active', 'retired'))
);
CREATE INDEX embedding_spaces_collection_id_idx ON pgseek.embedding_spaces (collection_id);
CREATE TABLE pgseek.documents (
    collection_id integer NOT NULL,
    document_id uuid NOT NULL,
    external_id text NOT NULL,
    title text NOT NULL DEFAULT '',
    body text NOT NULL,
    language text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
    content_hash bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT documents_pkey PRIMARY KEY (collection_id, document_id),
    CONSTRAINT documents_collection_id_fkey FOREIGN KEY (collection_id)
        REFERENCES pgseek.collections (collection_id) ON DELETE CASCADE
);
CREATE INDEX documents_metadata_idx ON pgseek.documents USING gin (metadata jsonb_path_ops);
CREATE TABLE pgseek.chunks (
    collection_id integer NOT NULL,
    document_id uuid NOT NULL,
    ordinal integer NOT NULL,
    kind text NOT NULL DEFAULT 'chunk',
    title text NOT NULL,
    text text NOT NULL,
    language text NOT NULL,
    char_start integer NOT NULL,
    char_end integer NOT NULL,
    text_hash bytea NOT NULL,
    lexemes tsvector NOT NULL
        GENERATED ALWAYS AS (pgseek.lexemes(collection_id, language, title, text)) STORED,
    CONSTRAINT chunks_pkey PRIMARY KEY (collection_id, document_id, ordinal),
    CONSTRAINT chunks_collection_id_fkey FOREIGN KEY (collection_id, document_id)
        REFERENCES pgseek.documents (collection_id, document_id) ON DELETE CASCADE,
    CONSTRAINT chunks_kind_check CHECK (kind IN ('chunk', 'document', 'question', 'summary'))
);
CREATE INDEX chunks_lexemes_idx ON pgseek.chunks USING gin (lexemes) WITH (fastupdate = off);
CREATE TABLE pgseek.embedding_cache (
    identity text NOT NULL,
    input_type text NOT NULL,
    text_hash bytea NOT NULL,
    embedding @vector@.vector NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT embedding_cache_pkey PRIMARY KEY (identity, input_type, text_hash),
    CONSTRAINT embedding_cache_input_type_check CHECK (input_type IN ('document', 'query'))
);
CREATE TABLE pgseek.ingest_queue (
    collection_id integer NOT NULL,
    document_id uuid NOT NULL,
    content_hash bytea NOT NULL,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ingest_queue_pkey PRIMARY KEY (collection_id, document_id)
);
"""

DROP_SPACES = """
DO $block$
DECLARE
    space_table regclass;
BEGIN
    FOR space_table IN
        SELECT c.oid FROM pg_catalog.pg_class c
         WHERE c.relnamespace = 'pgseek'::regnamespace AND c.relkind IN ('r', 'p')
           AND c.relname ~ '^embeddings_[0-9]+$'
    LOOP
        EXECUTE format('DROP TABLE %s', space_table);
    END LOOP;
END
$block$
"""


def run(script, vector_schema):
    # exec_driver_sql would read a percent sign as a placeholder; text() a colon. The driver's own
    # cursor takes a whole script as it is.
    script = script.replace("@vector@", vector_schema)
    if context.is_offline_mode():
        op.execute(text(script.replace(":", "\\:")))
    else:
        op.get_bind().connection.cursor().execute(script)


def upgrade():
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    vector_schema = "public"
    if not context.is_offline_mode():
        vector_schema = op.get_bind().scalar(
            text(
                "SELECT quote_ident(n.nspname) FROM pg_extension e "
                "JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
            )
        )
    for name in BEFORE_TABLES:
        run((FROZEN / f"{name}.sql").read_text(encoding="utf-8"), vector_schema)
    run(TABLES, vector_schema)
    for name in AFTER_TABLES:
        run((FROZEN / f"{name}.sql").read_text(encoding="utf-8"), vector_schema)


def downgrade():
    for name in reversed(AFTER_TABLES):
        op.execute(f"DROP FUNCTION pgseek.{name}")
    op.execute(DROP_SPACES)
    for table in (
        "ingest_queue",
        "embedding_cache",
        "chunks",
        "documents",
        "embedding_spaces",
        "collections",
    ):
        op.execute(f"DROP TABLE pgseek.{table}")
    for name in reversed(BEFORE_TABLES):
        op.execute(f"DROP FUNCTION pgseek.{name}")
