"""Repairing what can be repaired without loss: deleting orphans, putting documents in the queue."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from pgseek.collections import SERVED, WITHOUT_FOREIGN_KEY
from pgseek.config import Settings
from pgseek.db.connection import connect, translate, with_tenant
from pgseek.db.session import CONFLICTS, resolve_dsn
from pgseek.integrity import catalogue
from pgseek.integrity.catalogue import Connection
from pgseek.integrity.checks import ANALYZED, MISREAD
from pgseek.integrity.examine import checked_schema, prepare, statements
from pgseek.integrity.report import Examination, Repaired
from pgseek.queue import FORGET_DELETED
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
_VECTORS = """
DELETE FROM {table} e WHERE e.collection_id = %(of)s
   AND e.document_id IN (SELECT b.document_id FROM ({broken}) AS b)
"""
_LOCK = "SELECT FROM pgseek.collection_statistics WHERE collection_id = ANY (%(ids)s) FOR KEY SHARE"
_WORDS = SQL(
    "UPDATE pgseek.chunks k SET lexemes = r.lexemes, terms = r.terms"
    " FROM (SELECT c.collection_id, c.document_id, c.ordinal, c.text_hash, a.lexemes, a.terms"
    "   FROM pgseek.chunks c JOIN pgseek.collection_statistics s USING (collection_id), {analyzed}"
    "   WHERE c.collection_id = ANY (%(ids)s) AND {misread}) AS r"
    " WHERE k.collection_id = r.collection_id AND k.document_id = r.document_id AND k.ordinal = r.ordinal"
    " AND k.text_hash = r.text_hash"
).format(analyzed=SQL(ANALYZED), misread=SQL(MISREAD))
_ORPHANS = """
DELETE FROM {table} e WHERE e.collection_id <> %(of)s
    OR NOT EXISTS (SELECT FROM pgseek.chunks c WHERE c.collection_id = e.collection_id
                      AND c.document_id = e.document_id AND c.ordinal = e.ordinal)
"""
_LEFTOVER = """
DELETE FROM pgseek.{table} t WHERE NOT EXISTS (
       SELECT FROM pgseek.collections c WHERE c.collection_id = t.collection_id)
"""


def repair(dsn: str | None, found: Examination) -> Repaired:
    """Mend what an examination found, as far as it takes no source and no choice.

    Orphans, and what belongs to no collection, are deleted; the words of chunks are made anew. Documents
    whose chunks or vectors are not as they should be are put in the queue, from where ``drain_queue`` chunks
    and embeds them again. Other findings say themselves what mends them.

    Raises:
        ConnectionFailed, SchemaError, DatabaseError.
    """
    settings = Settings()
    found_dsn = resolve_dsn(dsn, None, settings)
    if dsn is None:
        found_dsn = with_tenant(found_dsn, settings.tenant)
    try:
        with connect(found_dsn, settings.connect_timeout) as connection:
            schema = checked_schema(connection)
            names = {finding.collection for finding in found.findings}
            rows = connection.execute(
                f"SELECT c.collection_id, c.name FROM pgseek.collections c WHERE {SERVED} ORDER BY c.name"  # noqa: S608 (constants)
            )
            by_id = {row["collection_id"]: row["name"] for row in rows if row["name"] in names}
            return _Repair(connection, schema, by_id, {finding.key for finding in found.findings}).run()
    except psycopg.Error as error:
        raise translate(error, found_dsn) from error


@dataclass(slots=True)
class _Repair:
    """The rules ``keys`` in the collections ``by_id``, each mended in transactions of its own."""

    connection: Connection
    vector_schema: str
    by_id: Mapping[int, str]
    keys: Collection[str]
    deleted: int = 0
    corrected: int = 0
    queued: dict[str, int] = field(default_factory=dict)

    def run(self) -> Repaired:
        spaces = catalogue.spaces(self.connection, list(self.by_id))
        tables = {space.collection_id: space.table for space in spaces if space.active}
        for rule, broken, parameters, ids in statements(self.connection, list(self.by_id), spaces):
            if rule.key not in self.keys:
                continue
            if rule.key == "words":
                lock = SQL(_LOCK).format()
                self.corrected += self._transact(parameters, lock, _WORDS)
            elif rule.key == "orphans":
                (of,) = (space.table for space in spaces if space.space_id == parameters["space"])
                self.deleted += self._transact(parameters, SQL(_ORPHANS).format(table=of))
            elif rule.key == "queued_without_document":
                self.deleted += self._transact(parameters, SQL(FORGET_DELETED).format())
            elif rule.rebuild:
                for i in ids:
                    one = {**parameters, "ids": [i]}
                    steps = [SQL(_QUEUE).format(broken=broken)]
                    if rule.drop:
                        steps.append(SQL(_VECTORS).format(table=tables[i], broken=broken))
                    count = self._transact(one, *steps, count_first=True)
                    if count:
                        self.queued[self.by_id[i]] = self.queued.get(self.by_id[i], 0) + count
        for table in WITHOUT_FOREIGN_KEY:
            if f"leftover_{table}" in self.keys:
                self.deleted += self._transact({}, SQL(_LEFTOVER).format(table=Identifier(table)))
        return Repaired(self.deleted, self.corrected, self.queued)

    def _transact(
        self, parameters: Mapping[str, Any], *statements: Composed, count_first: bool = False
    ) -> int:
        """Execute statements in one transaction, again if it lost a deadlock; return rows of the last one."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self.connection.transaction():
                    prepare(self.connection, self.vector_schema)
                    counts = [self.connection.execute(s, parameters).rowcount for s in statements]
                    return counts[0 if count_first else -1]
            except CONFLICTS:
                if attempt == ATTEMPTS:
                    raise
        return 0
