"""Diagnosis: what stands between the user and a working, well-running search."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.sql import SQL

from pgseek.collections import SERVED
from pgseek.config import Settings
from pgseek.db.connection import (
    check_schema,
    check_server,
    connect,
    describe_dsn,
    server_state,
    translate,
    with_tenant,
)
from pgseek.db.session import resolve_dsn
from pgseek.embedders.base import checked_query
from pgseek.embedders.registry import create_embedder
from pgseek.errors import PgseekError
from pgseek.indexes import BUILT, CODES, INDEX_FROM
from pgseek.spaces import table_of


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; ``problem`` says what to do when ``ok`` is false."""

    name: str
    ok: bool
    detail: str


def diagnose(
    dsn: str | None, settings: Settings, data_dir: Path | None = None, *, collections: bool = True
) -> list[Check]:
    """Return the checks in the order they depend on each other; it stops where the next cannot run.

    ``collections`` false leaves these out: `integrity.examine` looks at them more closely.
    """
    checks = [Check("python", True, platform.python_version()), _embedder(settings)]
    try:
        found = with_tenant(resolve_dsn(dsn, data_dir, settings), settings.tenant)
        with connect(found, settings.connect_timeout) as connection:
            checks.append(Check("server", True, describe_dsn(found)))
            state = server_state(connection)
            check_server(state)
            checks.append(Check("postgresql", True, state.server_name))
            version = state.vector_version or f"{state.vector_available} (available)"
            checks.append(Check("pgvector", True, version))
            checks.append(Check("pg_trgm", True, _trigrams(connection)))
            check_schema(state)
            checks.append(Check("schema", True, f"revision {state.revision}"))
            if collections:
                checks += _collections(connection)
    except PgseekError as error:
        names = ("server", "postgresql", "pgvector", "pg_trgm", "schema", "index of words", "collections")
        failed = next(name for name in names if name not in {check.name for check in checks})
        checks.append(Check(failed, False, str(error)))
    except psycopg.Error as error:
        checks.append(Check("collections", False, str(translate(error))))
    return checks


def _words(connection: psycopg.Connection[dict[str, object]]) -> Check:
    if connection.execute(BUILT, [f"pgseek.{CODES}"]).fetchall():
        return Check("index of words", True, CODES)
    problem = "missing, searches for words read every chunk; the next ingest as the tables' owner builds it"
    return Check("index of words", False, problem)


def _trigrams(connection: psycopg.Connection[dict[str, object]]) -> str:
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'pg_trgm'").fetchone()
    if row is None:
        return "not installed: a misspelt word is corrected within one letter; CREATE EXTENSION pg_trgm"
    return str(row["extversion"])


def _embedder(settings: Settings) -> Check:
    try:
        embedder = create_embedder(settings.embedder)
        if embedder.identity.provider == "wordllama":
            # The others may cost money or take minutes to load.
            checked_query(embedder, "a test")
    except PgseekError as error:
        return Check("default embedder", False, str(error))
    return Check("default embedder", True, embedder.model_id)


def _collections(connection: psycopg.Connection[dict[str, object]]) -> list[Check]:
    rows = connection.execute(
        "SELECT c.name, s.space_id, s.indexing ->> 'method' = 'none' OR EXISTS (SELECT FROM pg_index i"  # noqa: S608 (constants)
        " WHERE i.indexrelid = to_regclass(format('pgseek.embeddings_%s_%s', s.space_id,"
        " s.indexing ->> 'method')) AND i.indisvalid) AS indexed, (SELECT count(*) FROM pgseek.ingest_queue q"
        " WHERE q.collection_id = c.collection_id AND q.failed_at IS NULL) AS queued,"
        " (SELECT count(*) FROM pgseek.ingest_queue q"
        " WHERE q.collection_id = c.collection_id AND q.failed_at IS NOT NULL) AS failed"
        " FROM pgseek.collections c JOIN pgseek.embedding_spaces s ON s.space_id = c.active_space_id"
        f" WHERE c.copy_of IS NULL AND {SERVED} ORDER BY c.tenant, c.name"
    ).fetchall()
    checks = [_words(connection), Check("collections", True, str(len(rows)))]
    for row in rows:
        table = table_of(int(str(row["space_id"])))
        counted = connection.execute(
            SQL("SELECT count(*) AS rows FROM (SELECT FROM {} LIMIT %s) AS head").format(table), [INDEX_FROM]
        ).fetchone()
        problems = []
        if counted and counted["rows"] == INDEX_FROM and not row["indexed"]:
            problems.append("no index of vectors, searches scan every vector; ingest as the tables' owner")
        if row["queued"]:
            problems.append(
                f"{row['queued']} documents wait for embeddings; pgseek queue drain {row['name']}"
            )
        if row["failed"]:
            problems.append(
                f"{row['failed']} documents could not be embedded; pgseek queue failed {row['name']}"
            )
        checks.append(Check(f"collection {row['name']}", not problems, "; ".join(problems) or "ready"))
    return checks
