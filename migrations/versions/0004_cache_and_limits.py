"""A cache whose vectors expire and which forgets the least used; claims on texts; shared rate limits.

Landed: never edit this file or the frozen SQL under ``sql/0004``. Cached vectors stay as they are; they
count as used at the time of the upgrade, and never expire.
"""

from __future__ import annotations

from pathlib import Path

from alembic import context, op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
REPLACED = ("search",)

TABLES = """
ALTER TABLE pgseek.embedding_cache
    -- To the hour: what was used longest ago is the first to go.
    ADD COLUMN used_at timestamptz NOT NULL DEFAULT now(),
    -- NULL: never.
    ADD COLUMN expires_at timestamptz;
CREATE TABLE pgseek.embedding_claims (
    identity text NOT NULL,
    text_hash bytea NOT NULL,
    claimed_until timestamptz NOT NULL,
    CONSTRAINT embedding_claims_pkey PRIMARY KEY (identity, text_hash)
);
CREATE TABLE pgseek.rate_limits (
    name text NOT NULL,
    state double precision[] NOT NULL,
    CONSTRAINT rate_limits_pkey PRIMARY KEY (name)
);
"""

BACK = """
DROP TABLE pgseek.rate_limits;
DROP TABLE pgseek.embedding_claims;
-- Revision 0003 knows no expiry: what has expired must not come back to life.
DELETE FROM pgseek.embedding_cache WHERE expires_at <= now();
ALTER TABLE pgseek.embedding_cache DROP COLUMN used_at, DROP COLUMN expires_at;
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
    run(TABLES)
    run_files("0004", REPLACED)


def downgrade():
    run_files("0003", REPLACED)
    run(BACK)
