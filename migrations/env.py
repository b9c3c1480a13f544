"""Alembic environment: one connection, one transaction, one migration at a time."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from pgseek.config import Settings
from pgseek.db.models import metadata
from pgseek.db.revisions import SCHEMA
from pgseek.db.schema import VERSION_TABLE, engine_for, is_ours

# "pgseek" in bytes: two `db upgrade` at once take turns.
LOCK = 0x706773656B


def run(connection):
    # Held by the transaction, not the session: a pooler may hand out another backend after it.
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    if connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": SCHEMA}) is None:
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        version_table_schema=SCHEMA,
        include_schemas=True,
        include_name=is_ours,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


def emit_sql():
    context.configure(
        dialect_name="postgresql",
        literal_binds=True,
        version_table=VERSION_TABLE,
        version_table_schema=SCHEMA,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    emit_sql()
elif "connection" in context.config.attributes:
    run(context.config.attributes["connection"])
else:
    with engine_for(Settings().require_dsn()).connect() as own_connection:
        run(own_connection)
