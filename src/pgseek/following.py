"""Attaching a table in one call: the text of an Alembic revision, or plain SQL, to be reviewed and run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pgseek.attach import Plan, as_revision, as_sql, head_of, new_revision
from pgseek.client import Client


def attach(
    table: str,
    collection: str,
    *,
    id: str | Iterable[str],  # noqa: A002 (the field's word)
    text: str | Iterable[str],
    title: str | None = None,
    metadata: str | Iterable[str] = (),
    language: str | None = None,
    security_definer: bool = False,
    dsn: str | None = None,
    sql: bool = False,
    directory: str | Path | None = None,
    down_revision: str | None = None,
    message: str | None = None,
) -> str:
    """Return an Alembic revision that keeps a collection in step with a table; with ``sql`` plain SQL.

    The arguments up to ``security_definer`` are those of `Client.attach`. The revision comes after
    ``down_revision``, or after the head of the scripts in ``directory`` (Alembic's folder with env.py, or its
    versions). Nothing is changed.

    Raises:
        InvalidInput, CollectionNotFound: as `Client.attach`; ``directory`` is none of Alembic's.
    """
    with Client(dsn) as client:
        plan = client.attach(
            table,
            collection,
            id=id,
            text=text,
            title=title,
            metadata=metadata,
            language=language,
            security_definer=security_definer,
        )
    return _written(plan, sql, directory, down_revision, message)


def detach(
    table: str,
    collection: str | None = None,
    *,
    delete_documents: bool = False,
    dsn: str | None = None,
    sql: bool = False,
    directory: str | Path | None = None,
    down_revision: str | None = None,
    message: str | None = None,
) -> str:
    """Return an Alembic revision that undoes `attach`, or plain SQL; see there and `Client.detach`."""
    with Client(dsn) as client:
        plan = client.detach(table, collection, delete_documents=delete_documents)
    return _written(plan, sql, directory, down_revision, message)


def _written(
    plan: Plan, sql: bool, directory: str | Path | None, down_revision: str | None, message: str | None
) -> str:
    if sql:
        return as_sql(plan)
    if down_revision is None and directory is not None:
        down_revision = head_of(Path(directory))
    return as_revision(plan, new_revision(), down_revision, message)
