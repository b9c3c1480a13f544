"""The queue of documents that SQL writers stored: who takes them, for how long, and what became of them.

A row is *waiting* from its ``due_at`` on. A claim sets that to the end of the claim's lease and counts an
attempt, so that a document that kills its worker is counted, too; whoever finds the lease run out may claim
again. What is written here is written while nobody holds the row's lock: rows that a writer is about to
enqueue anew are skipped, its content is the newer one.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import LiteralString
from uuid import UUID

from pgseek.collections import SERVED
from pgseek.prepare import Prepared, document_id
from pgseek.steps import Script, fetch, fetch_one
from pgseek.types import CollectionId, CollectionInfo, QueueFailure, QueuePolicy, QueueStatus

CHANNEL = "pgseek_queue"
# A document that was claimed so often without an end is claimed alone: it may be what ends its workers.
SUSPECT = 2

# The first that is due is always among those chosen. One that has no attempt left is given up here. (Many
# are due at the same time: ordered by more than that, all of them would be sorted for each claim.)
_CLAIM = """
WITH due AS MATERIALIZED (
    SELECT document_id, attempts, row_number() OVER (ORDER BY due_at, document_id) AS place
      FROM (SELECT document_id, attempts, due_at FROM pgseek.ingest_queue
             WHERE collection_id = %(collection)s AND failed_at IS NULL AND due_at <= statement_timestamp()
             ORDER BY due_at LIMIT %(most)s FOR UPDATE SKIP LOCKED) AS locked),
chosen AS (
    SELECT document_id, attempts FROM due
     WHERE place = 1 OR attempts < %(suspect)s
       AND NOT EXISTS (SELECT FROM due AS d WHERE d.place = 1 AND d.attempts >= %(suspect)s))
UPDATE pgseek.ingest_queue q
   SET attempts = q.attempts + CASE WHEN q.attempts < %(attempts)s THEN 1 ELSE 0 END,
       due_at = statement_timestamp() + make_interval(secs => %(lease)s),
       claimed_by = CASE WHEN q.attempts < %(attempts)s THEN %(worker)s END,
       failed_at = CASE WHEN q.attempts < %(attempts)s THEN NULL ELSE statement_timestamp() END,
       error = CASE WHEN q.claimed_by IS NOT NULL
                    THEN 'the worker ' || q.claimed_by || ' died or stood still while it had the document'
                    ELSE coalesce(q.error, CASE WHEN q.attempts < %(attempts)s THEN NULL
                                                ELSE 'no attempt is left' END) END
  FROM chosen c
 WHERE q.collection_id = %(collection)s AND q.document_id = c.document_id
RETURNING q.document_id, q.failed_at IS NOT NULL AS failed, q.error
"""

_RENEW = """
UPDATE pgseek.ingest_queue q SET due_at = statement_timestamp() + make_interval(secs => %(lease)s)
  FROM (SELECT document_id FROM pgseek.ingest_queue
         WHERE collection_id = %(collection)s AND document_id = ANY (%(ids)s) AND claimed_by = %(worker)s
           FOR UPDATE SKIP LOCKED) AS own
 WHERE q.collection_id = %(collection)s AND q.document_id = own.document_id
"""

# Claimed rows are the ones that are due in the future: the index leads to them.
_RELEASE = """
UPDATE pgseek.ingest_queue q
   SET claimed_by = NULL, due_at = statement_timestamp(), attempts = greatest(q.attempts - 1, 0)
  FROM (SELECT collection_id, document_id FROM pgseek.ingest_queue
         WHERE collection_id IN (SELECT collection_id FROM pgseek.collections) AND failed_at IS NULL
           AND due_at > statement_timestamp() AND claimed_by = %(worker)s
           FOR UPDATE SKIP LOCKED) AS own
 WHERE q.collection_id = own.collection_id AND q.document_id = own.document_id
"""

_FAIL = """
UPDATE pgseek.ingest_queue q
   SET error = own.error, claimed_by = NULL,
       failed_at = CASE WHEN %(final)s OR q.attempts >= %(attempts)s THEN statement_timestamp() END,
       due_at = statement_timestamp() + make_interval(secs => least(%(longest)s,
           %(backoff)s * power(2::float8, least(q.attempts, 40) - 1)) * (0.75 + random() / 2))
  FROM (SELECT q.document_id, f.error
          FROM unnest(%(ids)s::uuid[], %(hashes)s::bytea[], %(errors)s::text[]) AS f (id, hash, error)
          JOIN pgseek.ingest_queue q ON q.document_id = f.id AND q.content_hash = f.hash
         WHERE q.collection_id = %(collection)s AND q.claimed_by = %(worker)s
           FOR UPDATE OF q SKIP LOCKED) AS own
 WHERE q.collection_id = %(collection)s AND q.document_id = own.document_id
RETURNING q.document_id, q.failed_at IS NOT NULL AS failed
"""

_STATUS = f"""
SELECT c.tenant, c.name AS collection,
       count(q.*) FILTER (WHERE q.failed_at IS NULL AND q.due_at <= statement_timestamp()) AS waiting,
       count(q.*) FILTER (WHERE q.failed_at IS NULL AND q.due_at > statement_timestamp()
                            AND q.claimed_by IS NOT NULL) AS claimed,
       count(q.*) FILTER (WHERE q.failed_at IS NULL AND q.due_at > statement_timestamp()
                            AND q.claimed_by IS NULL) AS retrying,
       count(q.failed_at) AS failed,
       extract(epoch FROM statement_timestamp()
                 - min(q.enqueued_at) FILTER (WHERE q.failed_at IS NULL))::float8 AS oldest
  FROM pgseek.collections c LEFT JOIN pgseek.ingest_queue q USING (collection_id)
 WHERE CASE WHEN %(collection)s::integer IS NULL THEN {SERVED} ELSE c.collection_id = %(collection)s END
 GROUP BY c.collection_id ORDER BY c.tenant, c.name
"""  # noqa: S608 (constants)

_RETRY = """
WITH again AS (
    UPDATE pgseek.ingest_queue q
       SET attempts = 0, due_at = statement_timestamp(), claimed_by = NULL, error = NULL, failed_at = NULL
      FROM (SELECT document_id FROM pgseek.ingest_queue
             WHERE collection_id = %(collection)s
               AND (%(ids)s::uuid[] IS NULL OR document_id = ANY (%(ids)s::uuid[]))
               AND (failed_at IS NOT NULL OR claimed_by IS NULL AND due_at > statement_timestamp())
               FOR UPDATE SKIP LOCKED) AS chosen
     WHERE q.collection_id = %(collection)s AND q.document_id = chosen.document_id
    RETURNING 1)
SELECT count(*) AS documents, pg_notify(%(channel)s, CASE (SELECT pgseek.tenant())
           WHEN '' THEN %(name)s ELSE '' END)::text FROM again
"""

_FAILURES = """
SELECT coalesce(d.external_id, q.document_id::text) AS id, coalesce(q.error, '') AS error,
       q.attempts, q.failed_at
  FROM pgseek.ingest_queue q LEFT JOIN pgseek.documents d USING (collection_id, document_id)
 WHERE q.collection_id = %s AND q.failed_at IS NOT NULL
 ORDER BY q.failed_at DESC, q.document_id LIMIT %s
"""

_DUE = f"""
SELECT c.collection_id, extract(epoch FROM next.due_at - statement_timestamp())::float8 AS seconds
  FROM pgseek.collections c,
       LATERAL (SELECT min(q.due_at) AS due_at FROM pgseek.ingest_queue q
                 WHERE q.collection_id = c.collection_id AND q.failed_at IS NULL) AS next
 WHERE next.due_at IS NOT NULL AND {SERVED}
"""  # noqa: S608 (constants)

#: Drops the rows of documents that are not there.
FORGET_DELETED: LiteralString = """
DELETE FROM pgseek.ingest_queue q WHERE q.collection_id = ANY (%(ids)s) AND NOT EXISTS (
       SELECT FROM pgseek.documents d
        WHERE d.collection_id = q.collection_id AND d.document_id = q.document_id)
"""

#: A row if a collection that is not in ``passed_over``, but is in ``names``, or is a copy of one that is, has
#: work that is due.
SOMETHING_DUE: LiteralString = f"""
SELECT FROM pgseek.collections c LEFT JOIN pgseek.collections o ON o.collection_id = c.copy_of
 WHERE NOT c.collection_id = ANY (%(passed_over)s::integer[]) AND c.active_space_id IS NOT NULL
   AND (%(names)s::text[] IS NULL OR c.name = ANY (%(names)s::text[]) OR o.name = ANY (%(names)s::text[]))
   AND EXISTS (SELECT FROM pgseek.ingest_queue q WHERE q.collection_id = c.collection_id
                  AND q.failed_at IS NULL AND q.due_at <= statement_timestamp())
   AND {SERVED}
 LIMIT 1
"""  # noqa: S608 (constants)


def worker_name() -> str:
    """Return a name that no other worker has; it says where this one runs."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


def claim(
    info: CollectionInfo, worker: str, policy: QueuePolicy, most: int
) -> Script[tuple[list[UUID], dict[UUID, str]]]:
    """Claim up to ``most`` due documents, those that were due first.

    Returns the claimed ones, and those that were given up because their workers died, with the reason.
    """
    rows = yield from fetch(
        _CLAIM,
        {
            "collection": info.collection_id,
            "worker": worker,
            "most": most,
            "suspect": SUSPECT,
            "attempts": policy.attempts,
            "lease": policy.lease,
        },
    )
    claimed = sorted(row["document_id"] for row in rows if not row["failed"])
    return claimed, {row["document_id"]: row["error"] for row in rows if row["failed"]}


def sizes(info: CollectionInfo, ids: Sequence[UUID]) -> Script[dict[UUID, tuple[str, int]]]:
    """Return the external id and the bytes of the text of those documents that are there."""
    rows = yield from fetch(
        "SELECT document_id, external_id, octet_length(body) AS bytes FROM pgseek.documents"
        " WHERE collection_id = %s AND document_id = ANY (%s) ORDER BY document_id",
        [info.collection_id, list(ids)],
    )
    return {row["document_id"]: (row["external_id"], row["bytes"]) for row in rows}


def read(info: CollectionInfo, ids: Sequence[UUID]) -> Script[list[Prepared]]:
    """Return documents as they are stored now, in the order of their ids."""
    rows = yield from fetch(
        "SELECT document_id, external_id, title, body, language, content_hash, format FROM pgseek.documents"
        " WHERE collection_id = %s AND document_id = ANY (%s) ORDER BY document_id",
        [info.collection_id, list(ids)],
    )
    return [Prepared(position=n, source=None, metadata="{}", **row) for n, row in enumerate(rows, 1)]


def renew(info: CollectionInfo, worker: str, policy: QueuePolicy, ids: Sequence[UUID]) -> Script[None]:
    """Let this worker's claims last for another lease from now."""
    yield from fetch(
        _RENEW,
        {"collection": info.collection_id, "worker": worker, "lease": policy.lease, "ids": list(ids)},
    )


def release(worker: str) -> Script[None]:
    """Give back whatever this worker has claimed; the attempts do not count."""
    yield from fetch(_RELEASE, {"worker": worker})


def lock(info: CollectionInfo, documents: Iterable[Prepared]) -> Script[set[UUID]]:
    """Lock documents and their queue rows for this transaction, in the order writers do.

    Returns those that still hold what was read and are still queued: nobody enqueues or claims them now.
    """
    given = {d.document_id: d.content_hash for d in documents}
    key = [info.collection_id, list(given)]
    stored = yield from fetch(
        "SELECT document_id, content_hash FROM pgseek.documents"
        " WHERE collection_id = %s AND document_id = ANY (%s) ORDER BY document_id FOR UPDATE",
        key,
    )
    queued = yield from fetch(
        "SELECT document_id FROM pgseek.ingest_queue"
        " WHERE collection_id = %s AND document_id = ANY (%s) ORDER BY document_id FOR UPDATE",
        key,
    )
    same = {row["document_id"] for row in stored if row["content_hash"] == given[row["document_id"]]}
    return same & {row["document_id"] for row in queued}


def fail(
    info: CollectionInfo,
    worker: str,
    policy: QueuePolicy,
    errors: Mapping[UUID, tuple[bytes, str]],
    *,
    final: bool,
) -> Script[dict[UUID, bool]]:
    """Note by id, with the hash of what was read, why documents could not be embedded.

    They are due again later; given up if ``final``, or if no attempt is left. Returns whether each was
    given up; those that were changed or taken over meanwhile are not in it.
    """
    rows = yield from fetch(
        _FAIL,
        {
            "collection": info.collection_id,
            "worker": worker,
            "attempts": policy.attempts,
            "backoff": policy.backoff,
            "longest": policy.longest_backoff,
            "final": final,
            "ids": list(errors),
            "hashes": [content_hash for content_hash, _ in errors.values()],
            "errors": [error for _, error in errors.values()],
        },
    )
    return {row["document_id"]: row["failed"] for row in rows}


def forget_deleted(info: CollectionInfo) -> Script[None]:
    """Drop the rows of documents that somebody deleted without telling the queue."""
    yield from fetch(FORGET_DELETED, {"ids": [info.collection_id]})


def next_due() -> Script[dict[CollectionId, float]]:
    """Return, for collections with a queue, in how many seconds the next document is due; 0 or less: now."""
    rows = yield from fetch(_DUE)
    return {CollectionId(row["collection_id"]): row["seconds"] for row in rows}


def status(info: CollectionInfo | None = None) -> Script[list[QueueStatus]]:
    """Return the state of one collection's queue or of all, by name; a hidden copy has one of its own."""
    rows = yield from fetch(_STATUS, {"collection": info.collection_id if info is not None else None})
    return [QueueStatus(**row) for row in rows]


def retry(info: CollectionInfo, ids: Iterable[str] | None = None) -> Script[int]:
    """Make failed and retrying documents due now, with all attempts before them; return how many."""
    given = None if ids is None else [document_id(one) for one in ([ids] if isinstance(ids, str) else ids)]
    row = yield from fetch_one(
        _RETRY, {"collection": info.collection_id, "ids": given, "channel": CHANNEL, "name": info.name}
    )
    return int(row["documents"]) if row else 0


def failures(info: CollectionInfo, limit: int) -> Script[list[QueueFailure]]:
    """Return documents that were given up, the latest first."""
    rows = yield from fetch(_FAILURES, [info.collection_id, limit])
    return [QueueFailure(**row) for row in rows]
