"""The query side: filters with indexes, pages, facets, result shaping, feedback, tenants.

Not landed yet: frozen by ``tools/freeze.py 0007`` until it is.
"""

from __future__ import annotations

from pathlib import Path

from alembic import context, op
from sqlalchemy import text

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
# Of revision 0006, with another signature now.
DROPPED = ("search", "bm25_candidates")
# In the order they can be made in.
FUNCTIONS = (
    "metadata_number",
    "metadata_text",
    "filter_conditions",
    "matching_documents",
    "bm25_candidates",
    "begin_walk",
    "seconds",
    "boost",
    "read_options",
    "read_query",
    "restricted",
    "fuse",
    "shape",
    "expand_by_feedback",
    "rank",
    "show",
    "search",
    "search_page",
    "similar",
    "explain",
    "facet",
    "facets",
    "mean_embedding",
)
# What of them earlier revisions had, by the revision that froze it last.
BEFORE = {"0005": ("bm25_candidates",), "0006": ("begin_walk", "search")}

TABLES = """
ALTER TABLE pgseek.collections ADD COLUMN metadata_indexes jsonb NOT NULL DEFAULT '[]';
CREATE TYPE pgseek.query_terms AS (
    lexemes text[], known text[], dimensions integer[], weights double precision[], counts double precision[],
    origins text[], restriction tsquery, required text[]);
CREATE TYPE pgseek.candidate AS (
    document_id uuid, ordinal integer, place bigint, score double precision,
    dense_score double precision, dense_distance double precision, dense_rank bigint,
    dense_part double precision,
    lexical_score double precision, lexical_rank bigint, lexical_part double precision,
    boost double precision, duplicates uuid[]);
"""

# Before the functions go, which these indexes call.
UNINDEX = """
DO $do$
DECLARE
    made record;
BEGIN
    FOR made IN
        SELECT x.relname AS name FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
         WHERE i.indrelid = 'pgseek.documents'::regclass AND x.relname ~ '^documents_metadata_[0-9]+_'
    LOOP
        EXECUTE format('DROP INDEX pgseek.%I', made.name);
    END LOOP;
END
$do$;
"""

BACK = """
ALTER TABLE pgseek.collections DROP COLUMN metadata_indexes;
DROP TYPE pgseek.candidate;
DROP TYPE pgseek.query_terms;
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
    run_files("0007", FUNCTIONS)


def downgrade():
    run(UNINDEX)
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run(BACK)
    for of_revision, names in BEFORE.items():
        run_files(of_revision, names)
