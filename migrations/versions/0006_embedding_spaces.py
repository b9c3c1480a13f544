"""Embedding spaces of any dimension and metric, several at a time; vectors that say whose they are.

Landed: never edit this file or the frozen SQL under ``sql/0006``. Every column has a default that costs
no rewrite of its table.
"""

from __future__ import annotations

from pathlib import Path

from alembic import context, op
from sqlalchemy import text

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
# Of revision 0005, with another signature now.
DROPPED = ("search",)
# In the order they can be made in.
FUNCTIONS = (
    "describe_space",
    "check_model",
    "dense_parts",
    "begin_walk",
    "end_walk",
    "nearest",
    "live_spaces",
    "search",
    "put_embeddings",
    "require_collection",
    "enqueue_documents",
    "erase_documents",
    "mirror_documents",
    "put_documents",
    "delete_by_id",
)
# What of them revision 0005 had.
BEFORE = {"0001": ("require_collection",), "0005": ("search", "put_documents", "delete_by_id")}

TABLES = """
ALTER TABLE pgseek.embedding_spaces
    ADD COLUMN revision text NOT NULL DEFAULT '',
    ADD COLUMN indexing jsonb NOT NULL DEFAULT '{"method": "hnsw", "form": "full"}',
    ADD COLUMN searching jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN activated_at timestamptz,
    DROP CONSTRAINT embedding_spaces_metric_check,
    ADD CONSTRAINT embedding_spaces_metric_check CHECK (metric IN ('cosine', 'inner_product', 'l2', 'l1'));
UPDATE pgseek.embedding_spaces SET activated_at = created_at WHERE state = 'active';
ALTER TABLE pgseek.collections
    ADD COLUMN copy_of integer,
    ADD COLUMN formerly integer[] NOT NULL DEFAULT '{}',
    DROP CONSTRAINT collections_name_key;
-- A name changes hands while documents are stored: with an index that a foreign key could refer to, one
-- would wait for the other.
CREATE UNIQUE INDEX collections_name_key ON pgseek.collections (name) WHERE name IS NOT NULL;
CREATE UNIQUE INDEX collections_copy_of_key ON pgseek.collections (copy_of) WHERE copy_of IS NOT NULL;
CREATE TABLE pgseek.space_probes (
    space_id integer NOT NULL,
    input_type text NOT NULL,
    text text NOT NULL,
    embedding @vector@.vector NOT NULL,
    CONSTRAINT space_probes_pkey PRIMARY KEY (space_id, input_type, text),
    CONSTRAINT space_probes_space_id_fkey FOREIGN KEY (space_id)
        REFERENCES pgseek.embedding_spaces (space_id) ON DELETE CASCADE,
    CONSTRAINT space_probes_input_type_check CHECK (input_type IN ('document', 'query'))
);
"""

# Revision 0005 compares by cosine and indexes whole vectors: spaces of another metric go, but one that is
# active stays with its vectors, and is compared by cosine from then on; other indexes go, and are built anew.
BACK = """
DROP TABLE pgseek.space_probes;
DO $do$
DECLARE
    gone record;
BEGIN
    FOR gone IN
        SELECT c.collection_id, s.space_id
          FROM pgseek.collections c JOIN pgseek.embedding_spaces s ON s.collection_id = c.collection_id
         WHERE c.copy_of IS NOT NULL OR (s.space_id <> c.active_space_id AND s.metric <> 'cosine')
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS pgseek.%I', 'embeddings_' || gone.space_id);
        DELETE FROM pgseek.embedding_spaces s WHERE s.space_id = gone.space_id;
    END LOOP;
    DELETE FROM pgseek.ingest_queue q USING pgseek.collections c
     WHERE c.collection_id = q.collection_id AND c.copy_of IS NOT NULL;
    DELETE FROM pgseek.term_statistics t USING pgseek.collections c
     WHERE c.collection_id = t.collection_id AND c.copy_of IS NOT NULL;
    DELETE FROM pgseek.rare_lexemes r USING pgseek.collections c
     WHERE c.collection_id = r.collection_id AND c.copy_of IS NOT NULL;
    DELETE FROM pgseek.collections c WHERE c.copy_of IS NOT NULL;
    FOR gone IN
        SELECT s.space_id, s.indexing ->> 'method' AS method
          FROM pgseek.embedding_spaces s
         WHERE s.metric <> 'cosine' OR s.indexing ->> 'form' <> 'full' OR s.indexing ->> 'method' <> 'hnsw'
    LOOP
        EXECUTE format('DROP INDEX IF EXISTS pgseek.%I',
            format('embeddings_%s_%s', gone.space_id, gone.method));
    END LOOP;
END
$do$;
UPDATE pgseek.embedding_spaces SET metric = 'cosine';
ALTER TABLE pgseek.embedding_spaces
    DROP CONSTRAINT embedding_spaces_metric_check,
    ADD CONSTRAINT embedding_spaces_metric_check CHECK (metric IN ('cosine')),
    DROP COLUMN revision, DROP COLUMN indexing, DROP COLUMN searching, DROP COLUMN activated_at;
DROP INDEX pgseek.collections_name_key;
ALTER TABLE pgseek.collections
    DROP COLUMN copy_of, DROP COLUMN formerly,
    ADD CONSTRAINT collections_name_key UNIQUE (name);
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
    run_files("0006", FUNCTIONS)


def downgrade():
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run(BACK)
    for of_revision, names in BEFORE.items():
        run_files(of_revision, names)
