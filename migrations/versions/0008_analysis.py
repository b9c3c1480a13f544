"""Analysis: golden sets, answers, duplicates, recommendations.

Landed: never edit this file or the frozen SQL under ``sql/0008``. No column costs a rewrite of its table.
"""

from __future__ import annotations

from pathlib import Path

from alembic import context, op
from sqlalchemy import text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
# Of earlier revisions, with another signature now.
DROPPED = ()
# In the order they can be made in.
FUNCTIONS = (
    "fuse",
    "shape",
    "read_examples",
    "recommend",
    "similar_pairs",
    "query_marks",
    "tell_apart",
    "question_key",
    "check_question",
    "question_vector",
    "find_answer",
    "put_answer",
    "clear_answers",
    "auto_alpha",
    "rank",
    "protect",
)
# What of them earlier revisions had, by the revision that froze it last.
BEFORE: dict[str, tuple[str, ...]] = {"0007": ("fuse", "shape", "rank", "protect")}

TABLES = """
-- Documents whose duplicates were looked for, as they were then; pairs were kept from min_similarity on.
CREATE TABLE pgseek.duplicate_scans (
    collection_id integer NOT NULL,
    space_id integer NOT NULL,
    document_id uuid NOT NULL,
    content_hash bytea NOT NULL,
    min_similarity double precision NOT NULL,
    CONSTRAINT duplicate_scans_pkey PRIMARY KEY (collection_id, space_id, document_id)
);
-- document_id is the smaller one.
CREATE TABLE pgseek.duplicate_pairs (
    collection_id integer NOT NULL,
    space_id integer NOT NULL,
    document_id uuid NOT NULL,
    other_id uuid NOT NULL,
    similarity double precision NOT NULL,
    overlap real NOT NULL,
    apart boolean NOT NULL,
    CONSTRAINT duplicate_pairs_pkey PRIMARY KEY (collection_id, space_id, document_id, other_id)
);
CREATE INDEX duplicate_pairs_other_id_idx ON pgseek.duplicate_pairs (collection_id, space_id, other_id);
CREATE TABLE pgseek.answers (
    collection_id integer NOT NULL,
    space_id integer NOT NULL,
    scope text NOT NULL,
    key bytea NOT NULL,
    question text NOT NULL,
    answer text NOT NULL,
    embedding @vector@.vector,
    sketch bit varying,
    documents uuid[] NOT NULL,
    hashes bytea[] NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    stored_at timestamptz NOT NULL,
    expires_at timestamptz,
    CONSTRAINT answers_pkey PRIMARY KEY (collection_id, space_id, scope, key)
);
CREATE INDEX answers_sketch_idx ON pgseek.answers (collection_id, space_id, scope) INCLUDE (key, sketch);
CREATE TABLE pgseek.golden_sets (
    collection_id integer NOT NULL REFERENCES pgseek.collections ON DELETE CASCADE,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (collection_id, name));
CREATE TABLE pgseek.golden_queries (
    collection_id integer NOT NULL,
    name text NOT NULL,
    query_id text COLLATE "C" NOT NULL,
    query text NOT NULL,
    PRIMARY KEY (collection_id, name, query_id),
    CONSTRAINT golden_queries_collection_id_fkey FOREIGN KEY (collection_id, name)
        REFERENCES pgseek.golden_sets ON DELETE CASCADE);
CREATE TABLE pgseek.golden_judgements (
    collection_id integer NOT NULL,
    name text NOT NULL,
    query_id text COLLATE "C" NOT NULL,
    external_id text COLLATE "C" NOT NULL,
    relevance integer NOT NULL,
    PRIMARY KEY (collection_id, name, query_id, external_id),
    CONSTRAINT golden_judgements_collection_id_fkey FOREIGN KEY (collection_id, name, query_id)
        REFERENCES pgseek.golden_queries ON DELETE CASCADE);
"""

BACK = """
DROP TABLE pgseek.golden_judgements, pgseek.golden_queries, pgseek.golden_sets;
DROP TABLE pgseek.answers;
DROP TABLE pgseek.duplicate_pairs;
DROP TABLE pgseek.duplicate_scans;
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
    run_files("0008", FUNCTIONS)
    # Policies and rights of what is new.
    op.execute("SELECT pgseek.protect()")


def downgrade():
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run(BACK)
    for of_revision, names in BEFORE.items():
        run_files(of_revision, names)
    # Rights of what was made again.
    op.execute("SELECT pgseek.protect()")
