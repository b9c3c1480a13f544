"""Waiting for transactions that may still see the database as it was before the last commit.

A transaction holds a lock, which keeps nobody out, on each table that it has looked at until it is over. So
those that may have seen something are known, and once they are over, nobody has. CREATE INDEX CONCURRENTLY
waits alike.
"""

from __future__ import annotations

import time
from typing import Any

from psycopg.sql import SQL, Composed

from pgseek.errors import ChangeRefused
from pgseek.steps import Script, fetch, sleep

# Seconds: how long to wait at most, and between two looks.
PATIENCE = 60.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.5

# A prepared transaction has no process, and since when another user's is open not everybody may see.
_OPEN = SQL("""
SELECT l.virtualtransaction AS transaction, l.pid, a.usename AS user, a.application_name AS application,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'relation'
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND l.pid IS DISTINCT FROM pg_backend_pid()
   AND (%(these)s::text[] IS NULL OR l.virtualtransaction = ANY (%(these)s::text[]))
""")
_ALL = _OPEN + SQL(" AND l.relation = 'pgseek.collections'::regclass ORDER BY a.xact_start")
_WRITERS = _OPEN + SQL("""
   AND l.relation = 'pgseek.documents'::regclass AND l.mode = 'RowExclusiveLock'
   AND (a.xact_start IS NULL OR a.xact_start < (
        SELECT c.created_at FROM pgseek.collections c WHERE c.collection_id = %(copy)s))
 ORDER BY a.xact_start
""")


def wait_for_all(patience: float) -> Script[None]:
    """Wait until every transaction that has searched or written by now is over; later ones do not matter.

    Raises:
        ChangeRefused: one is still open after so many seconds; the message says whose.
    """
    yield from _wait(_ALL, {}, patience)


def wait_for_writers(copy: int, patience: float) -> Script[None]:
    """Wait until transactions are over that wrote documents and began when that copy was not there yet.

    Raises:
        ChangeRefused: see `wait_for_all`.
    """
    yield from _wait(_WRITERS, {"copy": copy}, patience)


def _wait(statement: Composed, parameters: dict[str, Any], patience: float) -> Script[None]:
    end = time.monotonic() + patience
    pause = SHORTEST_PAUSE
    found = yield from fetch(statement, {**parameters, "these": None})
    these = [row["transaction"] for row in found]
    while found:
        if time.monotonic() >= end:
            first = found[0]
            whose = f"of process {first['pid']}" if first["pid"] is not None else "that was prepared"
            if first["user"] is not None:
                whose += f" (user {first['user']}, application {first['application'] or '-'})"
            since = f", for {first['seconds']:.0f} s" if first["seconds"] is not None else ""
            raise ChangeRefused(
                f"a transaction {whose} is open{since}, and may use what shall change; end it, and try again"
            )
        yield from sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
        found = yield from fetch(statement, {**parameters, "these": these})
