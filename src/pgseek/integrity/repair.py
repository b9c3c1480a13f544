"""Repairing what can be repaired without loss: deleting orphans, putting documents in the queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from pgseek.config import Settings
from pgseek.db.connection import connect, translate
from pgseek.db.session import CONFLICTS, resolve_dsn
from pgseek.integrity import catalogue
from pgseek.integrity.catalogue import LEFTOVER_TABLES, Connection
from pgseek.integrity.examine import checked_schema, prepare, statements
from pgseek.integrity.report import Examination, Repaired
from pgseek.steps import ATTEMPTS

# What was found is looked for again: it may be gone, and rows of others must not be lost.
_QUEUE = """
INSERT INTO pgseek.ingest_queue AS q (collection_id, document_id, content_hash, enqueued_at)
SELECT d.collection_id, d.document_id, d.content_hash, now() FROM pgseek.documents d
 WHERE (d.collection_id, d.document_id) IN (SELECT b.collection_id, b.document_id FROM ({broken}) AS b)
 ORDER BY d.collection_id, d.document_id
    ON CONFLICT (collection_id, document_id) DO UPDATE SET content_hash = excluded.content_hash
 WHERE q.content_hash <> excluded.content_hash
"""
_ORPHANS = """
DELETE FROM {table} e WHERE e.collection_id <> %(of)s
    OR NOT EXISTS (SELECT FROM pgseek.chunks c WHERE c.collection_id = e.collection_id
                      AND c.document_id = e.document_id AND c.ordinal = e.ordinal)
"""
_QUEUED_WITHOUT_DOCUMENT = """
DELETE FROM pgseek.ingest_queue q WHERE q.collection_id = ANY (%(ids)s) AND NOT EXISTS (
       SELECT FROM pgseek.documents d
        WHERE d.collection_id = q.collection_id AND d.document_id = q.document_id)
"""
_LEFTOVER = """
DELETE FROM pgseek.{table} t WHERE NOT EXISTS (
       SELECT FROM pgseek.collections c WHERE c.collection_id = t.collection_id)
"""


def repair(dsn: str | None, found: Examination) -> Repaired:
    """Mend what an examination found, as far as no text or choice is needed for it.

    Orphans, and what belongs to no collection, are deleted; documents whose chunks or vectors are not as they
    should be are put in the queue, where ``drain_queue`` chunks and embeds them again. Other findings say
    themselves what mends them.

    Raises:
        ConnectionFailed, SchemaError, DatabaseError.
    """
    settings = Settings()
    found_dsn = resolve_dsn(dsn, None, settings)
    keys = {finding.key for finding in found.findings}
    names = {finding.collection for finding in found.findings}
    deleted = 0
    queued: dict[str, int] = {}
    try:
        with connect(found_dsn, settings.connect_timeout) as connection:
            schema = checked_schema(connection)
            rows = connection.execute("SELECT collection_id, name FROM pgseek.collections ORDER BY name")
            by_id = {row["collection_id"]: row["name"] for row in rows if row["name"] in names}
            spaces = catalogue.spaces(connection, list(by_id))
            for rule, statement, parameters, ids in statements(connection, list(by_id), spaces):
                if rule.rebuild and rule.key in keys:
                    for i in ids:
                        one = {**parameters, "ids": [i]}
                        count = _run(connection, schema, SQL(_QUEUE).format(broken=statement), one)
                        if count:
                            queued[by_id[i]] = queued.get(by_id[i], 0) + count
            if "orphans" in keys:
                for space in spaces:
                    if space.has_table and space.state != "retired":
                        statement = SQL(_ORPHANS).format(table=space.table)
                        deleted += _run(connection, schema, statement, {"of": space.collection_id})
            if "queued_without_document" in keys:
                ids_of_all = {"ids": list(by_id)}
                deleted += _run(connection, schema, SQL(_QUEUED_WITHOUT_DOCUMENT).format(), ids_of_all)
            for table in LEFTOVER_TABLES:
                if f"leftover_{table}" in keys:
                    deleted += _run(connection, schema, SQL(_LEFTOVER).format(table=Identifier(table)), {})
    except psycopg.Error as error:
        raise translate(error, found_dsn) from error
    return Repaired(deleted, queued)


def _run(
    connection: Connection, vector_schema: str, statement: Composed, parameters: Mapping[str, Any]
) -> int:
    """Execute a statement in a transaction of its own, again if it lost a deadlock; return its rows."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with connection.transaction():
                prepare(connection, vector_schema)
                return connection.execute(statement, parameters).rowcount
        except CONFLICTS:
            if attempt == ATTEMPTS:
                raise
    return 0
