"""Formats and places of texts, several granularities, a queue with leases, bulk writes through SQL.

Landed: never edit this file or the frozen SQL under ``sql/0005``. Every column has a default that costs
no rewrite of its table.
"""

from __future__ import annotations

from pathlib import Path

from alembic import context, op
from sqlalchemy import text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
# Of revision 0004, with another signature now.
DROPPED = ("content_hash", "delete_embeddings", "bm25_candidates", "search", "put_document")
# In the order they can be made in.
FUNCTIONS = (
    "content_hash",
    "delete_embeddings",
    "words",
    "bm25_terms",
    "bm25_shares",
    "bm25_candidates",
    "refresh_statistics",
    "reweigh",
    "search",
    "canonical_language",
    "document_problem",
    "stand_ins",
    "put_documents",
    "put_document",
    "delete_by_id",
    "delete_documents",
    "delete_document",
    "follow_rows",
    "misplaced_chunks",
)
# What of them revision 0004 had.
BEFORE = {
    "0001": ("content_hash", "delete_embeddings", "delete_document"),
    "0003": (
        "words",
        "bm25_terms",
        "bm25_shares",
        "bm25_candidates",
        "refresh_statistics",
        "reweigh",
        "put_document",
    ),
    "0004": ("search",),
}

TABLES = """
ALTER TABLE pgseek.documents ADD COLUMN format text NOT NULL DEFAULT '';
ALTER TABLE pgseek.chunks
    ADD COLUMN provenance jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN section_start integer,
    ADD COLUMN section_end integer,
    ADD COLUMN of_ordinal integer;
ALTER TABLE pgseek.ingest_queue
    ADD COLUMN attempts integer NOT NULL DEFAULT 0,
    -- A worker may take it from then on: later after each attempt that failed, or after its lease.
    ADD COLUMN due_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN claimed_by text,
    ADD COLUMN error text,
    ADD COLUMN failed_at timestamptz;
CREATE INDEX ingest_queue_due_at_idx ON pgseek.ingest_queue (collection_id, due_at) WHERE failed_at IS NULL;
CREATE TABLE pgseek.generated_texts (
    identity text NOT NULL,
    text_hash bytea NOT NULL,
    texts text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT generated_texts_pkey PRIMARY KEY (identity, text_hash)
);
"""

BACK = """
DROP TABLE pgseek.generated_texts;
ALTER TABLE pgseek.ingest_queue DROP COLUMN attempts, DROP COLUMN due_at, DROP COLUMN claimed_by,
    DROP COLUMN error, DROP COLUMN failed_at;
-- Revision 0004 knows chunks only. Their vectors go with them.
DO $do$
DECLARE
    space integer;
BEGIN
    FOR space IN
        SELECT s.space_id FROM pgseek.embedding_spaces s
         WHERE to_regclass('pgseek.embeddings_' || s.space_id) IS NOT NULL
    LOOP
        EXECUTE format('DELETE FROM pgseek.%I e USING pgseek.chunks c WHERE c.kind <> ''chunk'' AND'
            ' e.collection_id = c.collection_id AND e.document_id = c.document_id AND e.ordinal = c.ordinal',
            'embeddings_' || space);
    END LOOP;
END
$do$;
DELETE FROM pgseek.chunks WHERE kind <> 'chunk';
ALTER TABLE pgseek.chunks DROP COLUMN provenance, DROP COLUMN section_start, DROP COLUMN section_end,
    DROP COLUMN of_ordinal;
ALTER TABLE pgseek.documents DROP COLUMN format;
"""


def vector_schema():
    if context.is_offline_mode():
        return "public"
    return op.get_bind().scalar(
        text(
            "SELECT quote_ident(n.nspname) FROM pg_extension e "
            "JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
        )
    )


def run(script):
    # The driver's own cursor takes a script as it is: no sign in it is a placeholder.
    script = script.replace("@vector@", vector_schema())
    if context.is_offline_mode():
        op.execute(text(script.replace(":", "\\:")))
    else:
        op.get_bind().connection.cursor().execute(script)


def run_files(of_revision, names):
    for name in names:
        run((SQL / of_revision / f"{name}.sql").read_text(encoding="utf-8"))


def upgrade():
    for name in DROPPED:
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run(TABLES)
    run_files("0005", FUNCTIONS)


def downgrade():
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run(BACK)
    for of_revision, names in BEFORE.items():
        run_files(of_revision, names)
