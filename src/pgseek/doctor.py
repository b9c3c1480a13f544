"""Diagnosis: what stands between the user and a working search. How well it works: see `health`."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import psycopg

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
                checks.append(_collections(connection))
    except PgseekError as error:
        names = ("server", "postgresql", "pgvector", "pg_trgm", "schema", "collections")
        failed = next(name for name in names if name not in {check.name for check in checks})
        checks.append(Check(failed, False, str(error)))
    except psycopg.Error as error:
        checks.append(Check("collections", False, str(translate(error))))
    return checks


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


def _collections(connection: psycopg.Connection[dict[str, object]]) -> Check:
    row = connection.execute(
        f"SELECT count(*) AS number FROM pgseek.collections c WHERE c.copy_of IS NULL AND {SERVED}"  # noqa: S608
    ).fetchone()
    return Check("collections", True, str(row["number"] if row else 0))
