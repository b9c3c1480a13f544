"""Names found whole, a query language, typos, scripts without spaces; a faster and smaller exact BM25.

Landed: never edit this file or the frozen SQL under ``sql/0003``. The upgrade reads every chunk's text
anew and rewrites chunks.
"""

from __future__ import annotations

from pathlib import Path

from alembic import context, op
from sqlalchemy import text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
# In the order they can be made in.
BEFORE_INDEX = (
    "unspaced_letter",
    "plain",
    "fold",
    "words",
    "weigh",
    "analyze",
    "propose_weighting",
    "bm25_code",
    "bm25_codes",
)
AFTER_INDEX = (
    "bm25_query",
    "quote_lexeme",
    "match_all",
    "bm25_bag",
    "bm25_terms",
    "bm25_guess",
    "bm25_clauses",
    "bm25_scan",
    "bm25_candidates",
    "bm25_shares",
    "vocabulary",
    "expand_prefix",
    "correct_word",
    "parse_query",
    "snippet",
    "refresh_statistics",
    "reweigh",
    "search",
    "put_document",
)
# Of revision 0002, with another signature or body now, or gone.
DROPPED = (
    "search",
    "put_document",
    "bm25_candidates",
    "bm25_formula",
    "bm25_step",
    "bm25_query",
    "bm25_terms",
    "bm25_words",
    "refresh_statistics",
    "reweigh",
    "propose_weighting",
    "lexical_query",
)
# Of revision 0002, called by its generated columns.
DROPPED_WITH_COLUMNS = ("lexemes", "term_weights", "collection_mark")

COLUMNS = """
DROP INDEX pgseek.chunks_lexemes_idx;
ALTER TABLE pgseek.chunks
    ALTER COLUMN lexemes DROP EXPRESSION,
    ALTER COLUMN terms DROP EXPRESSION,
    DROP COLUMN weighting;
-- In the row whenever it fits: a search reads it of every row it scores.
ALTER TABLE pgseek.chunks ALTER COLUMN terms SET STORAGE MAIN;
ALTER TABLE pgseek.term_statistics DROP COLUMN tiers;
CREATE TABLE pgseek.rare_lexemes (
    collection_id integer NOT NULL,
    first text COLLATE "C" NOT NULL,
    -- Lexemes in one chunk only, in the order of their bytes, a line each.
    lexemes text NOT NULL,
    CONSTRAINT rare_lexemes_pkey PRIMARY KEY (collection_id, first)
);
ALTER TABLE pgseek.collection_statistics
    ADD COLUMN shares double precision[] NOT NULL DEFAULT '{1,0.3,0.2,0.1,0.03,0.01}';
UPDATE pgseek.collection_statistics SET weighting = weighting[1:4];
CREATE INDEX documents_updated_at_idx ON pgseek.documents (collection_id, updated_at);
UPDATE pgseek.chunks c SET lexemes = analysis.lexemes, terms = analysis.terms
  FROM pgseek.collection_statistics s, pgseek.chunks o,
       pgseek.analyze(o.language, o.title, o.text, s.weighting) AS analysis
 WHERE s.collection_id = o.collection_id AND o.collection_id = c.collection_id
   AND o.document_id = c.document_id AND o.ordinal = c.ordinal;
CREATE INDEX chunks_codes_idx ON pgseek.chunks
    USING gin (pgseek.bm25_codes(collection_id, terms)) WITH (fastupdate = on, gin_pending_list_limit = 256);
"""

FILL = "SELECT pgseek.reweigh(c.name) FROM pgseek.collections c"

BACK = """
DROP INDEX pgseek.chunks_codes_idx;
DROP INDEX pgseek.documents_updated_at_idx;
DROP TABLE pgseek.rare_lexemes;
ALTER TABLE pgseek.term_statistics ADD COLUMN tiers integer[];
ALTER TABLE pgseek.collection_statistics DROP COLUMN shares;
UPDATE pgseek.collection_statistics SET weighting = weighting || '{0.5,0.6,0.67,0.74,0.8,0.85}'::real[];
UPDATE pgseek.collections SET settings = settings - 'normalization';
ALTER TABLE pgseek.chunks DROP COLUMN lexemes, DROP COLUMN terms, ADD COLUMN weighting real[];
UPDATE pgseek.chunks c SET weighting = s.weighting
  FROM pgseek.collection_statistics s WHERE s.collection_id = c.collection_id;
ALTER TABLE pgseek.chunks
    ALTER COLUMN weighting SET NOT NULL,
    ADD COLUMN lexemes tsvector NOT NULL
        GENERATED ALWAYS AS (pgseek.lexemes(collection_id, language, title, text, weighting)) STORED,
    ADD COLUMN terms @vector@.sparsevec NOT NULL
        GENERATED ALWAYS AS (pgseek.term_weights(language, title, text, weighting)) STORED;
CREATE INDEX chunks_lexemes_idx ON pgseek.chunks USING gin (lexemes) WITH (fastupdate = off);
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
    run_files("0003", BEFORE_INDEX)
    run(COLUMNS)
    for name in DROPPED_WITH_COLUMNS:
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run_files("0003", AFTER_INDEX)
    run(FILL)


def downgrade():
    for name in reversed(AFTER_INDEX):
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run_files("0001", ("collection_mark", "lexical_query"))
    run_files("0002", ("lexemes", "term_weights"))
    run(BACK)
    for name in reversed(BEFORE_INDEX):
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run_files(
        "0002",
        (
            "propose_weighting",
            "bm25_words",
            "bm25_terms",
            "bm25_query",
            "bm25_step",
            "bm25_formula",
            "bm25_candidates",
            "refresh_statistics",
            "reweigh",
            "search",
            "put_document",
        ),
    )
    run(FILL)
