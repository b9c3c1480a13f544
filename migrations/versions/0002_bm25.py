"""Exact BM25 as the lexical leg: weights and impact marks per chunk, statistics per collection.

Landed: never edit this file or the frozen SQL under ``sql/0002``. The upgrade rewrites chunks.
"""

from __future__ import annotations

from pathlib import Path

from alembic import context, op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
# The generated columns of chunks call these, so they come before the columns.
BEFORE_COLUMNS = ("dimension", "lexemes", "term_weights", "propose_weighting")
AFTER_COLUMNS = (
    "bm25_words",
    "bm25_terms",
    "bm25_query",
    "bm25_step",
    "bm25_formula",
    "bm25_candidates",
    "refresh_statistics",
    "reweigh",
)
REPLACED = ("search", "put_document")

# {k1, b, average length, weight of the title, six edges}: what a collection begins with.
WEIGHTING = "{1.2,0.75,100,1,0.5,0.6,0.67,0.74,0.8,0.85}"

COLUMNS = """
CREATE TABLE pgseek.collection_statistics (
    collection_id integer NOT NULL,
    -- What new rows are weighed with: {k1, b, average length, weight of the title, edges ...}.
    weighting real[] NOT NULL,
    -- Of the last refresh; 0 before the first. The df of term_statistics belong to this number.
    chunks bigint NOT NULL DEFAULT 0,
    average_length real,
    refreshed_at timestamptz,
    CONSTRAINT collection_statistics_pkey PRIMARY KEY (collection_id),
    CONSTRAINT collection_statistics_collection_id_fkey FOREIGN KEY (collection_id)
        REFERENCES pgseek.collections (collection_id) ON DELETE CASCADE
);
CREATE TABLE pgseek.term_statistics (
    collection_id integer NOT NULL,
    lexeme text COLLATE "C" NOT NULL,
    chunks integer NOT NULL,
    -- Chunks with at least edge 1, 2, ...; NULL for lexemes so rare that they are always read whole.
    tiers integer[],
    CONSTRAINT term_statistics_pkey PRIMARY KEY (collection_id, lexeme)
);
INSERT INTO pgseek.collection_statistics (collection_id, weighting)
SELECT c.collection_id, '@weighting@' FROM pgseek.collections c;
-- The default is for the rows that exist; writers name the weighting, so it goes again.
ALTER TABLE pgseek.chunks
    DROP COLUMN lexemes,
    ADD COLUMN weighting real[] NOT NULL DEFAULT '@weighting@';
ALTER TABLE pgseek.chunks
    ALTER COLUMN weighting DROP DEFAULT,
    ADD COLUMN lexemes tsvector NOT NULL
        GENERATED ALWAYS AS (pgseek.lexemes(collection_id, language, title, text, weighting)) STORED,
    ADD COLUMN terms @vector@.sparsevec NOT NULL
        GENERATED ALWAYS AS (pgseek.term_weights(language, title, text, weighting)) STORED;
CREATE INDEX chunks_lexemes_idx ON pgseek.chunks USING gin (lexemes) WITH (fastupdate = off);
DROP FUNCTION pgseek.lexemes(integer, text, text, text);
"""

FILL = """
SELECT pgseek.reweigh(c.name) FROM pgseek.collections c;
UPDATE pgseek.collections SET settings = jsonb_set(settings, '{lexical}', '"bm25"')
 WHERE settings ->> 'lexical' = 'ts_rank_cd';
"""

BACK = """
UPDATE pgseek.collections SET settings = jsonb_set(settings, '{lexical}', '"ts_rank_cd"')
 WHERE settings ->> 'lexical' = 'bm25';
ALTER TABLE pgseek.chunks DROP COLUMN lexemes, DROP COLUMN terms, DROP COLUMN weighting;
ALTER TABLE pgseek.chunks ADD COLUMN lexemes tsvector NOT NULL
    GENERATED ALWAYS AS (pgseek.lexemes(collection_id, language, title, text)) STORED;
CREATE INDEX chunks_lexemes_idx ON pgseek.chunks USING gin (lexemes) WITH (fastupdate = off);
DROP FUNCTION pgseek.lexemes(integer, text, text, text, real[]);
DROP TABLE pgseek.term_statistics;
DROP TABLE pgseek.collection_statistics;
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
    script = script.replace("@vector@", vector_schema()).replace("@weighting@", WEIGHTING)
    if context.is_offline_mode():
        op.execute(text(script.replace(":", "\\:")))
    else:
        op.get_bind().connection.cursor().execute(script)


def run_files(of_revision, names):
    for name in names:
        run((SQL / of_revision / f"{name}.sql").read_text(encoding="utf-8"))


def upgrade():
    run_files("0002", BEFORE_COLUMNS)
    run(COLUMNS)
    run_files("0002", AFTER_COLUMNS)
    for name in REPLACED:
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run_files("0002", REPLACED)
    run(FILL)


def downgrade():
    for name in (*REPLACED, *reversed(AFTER_COLUMNS)):
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run_files("0001", ("lexemes",))
    run(BACK)
    for name in ("propose_weighting", "term_weights", "dimension"):
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run_files("0001", REPLACED)
