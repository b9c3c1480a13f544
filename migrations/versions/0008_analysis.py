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
    "read_examples",
    "recommend",
    "protect",
)
# What of them earlier revisions had, by the revision that froze it last.
BEFORE: dict[str, tuple[str, ...]] = {"0007": ("fuse", "protect")}

TABLES = """
"""

BACK = """
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
