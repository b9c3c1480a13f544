"""All findings of a database, the worst first."""

from __future__ import annotations

from psycopg.sql import SQL

from pgseek.health import indexes, settings, tables, work
from pgseek.health.facts import PAGE, Facts, gather
from pgseek.health.finding import SEVERITIES, HealthFinding
from pgseek.indexes import CODES, INDEX_FROM
from pgseek.spaces import table_of
from pgseek.steps import Script, fetch_one, transact

# How many entries a chunk has in the index of words, by some of them: their stored size tells nothing.
PAGES = 20
_CODES = """
SELECT avg(cardinality(pgseek.bm25_codes(s.collection_id, s.terms)))::float8 AS codes
  FROM (SELECT c.collection_id, c.terms FROM pgseek.chunks c TABLESAMPLE SYSTEM (%s) LIMIT 500) AS s
"""


def check(pool_size: int) -> Script[tuple[HealthFinding, ...]]:
    """Return what is worth mending; ``pool_size`` connections are what this client may open.

    It reads catalogues, settings and what the server counted, and counts rows only where these say that
    something is amiss.
    """
    facts = yield from transact(_gather)
    found = [
        *indexes.judge(facts),
        *tables.judge(facts),
        *tables.behind(facts),
        *settings.judge(facts, pool_size),
        *work.judge(facts),
    ]
    return tuple(sorted(found, key=lambda one: (SEVERITIES.index(one.severity), one.name, one.about)))


def _gather() -> Script[Facts]:
    facts = yield from gather()
    for space in indexes.lacking(facts):
        head = SQL("SELECT count(*) AS rows FROM (SELECT FROM {} LIMIT %s) AS head")
        row = yield from fetch_one(head.format(table_of(space["space_id"])), [INDEX_FROM])
        space["rows"] = row["rows"] if row else 0
    codes, chunks = facts.indexes.get(CODES), facts.tables["chunks"]
    if codes is not None and codes["bytes"] >= indexes.BLOAT_BYTES and not chunks["locked"]:
        row = yield from fetch_one(_CODES, [min(100.0, 100.0 * PAGES * PAGE / max(1, chunks["bytes"]))])
        codes["codes"] = row["codes"] if row else None
    for space in tables.suspects(facts):
        row = yield from fetch_one(
            "SELECT count(*) AS chunks FROM pgseek.chunks c WHERE c.collection_id = %s"
            " AND c.kind <> 'document'",
            [space["collection_id"]],
        )
        space["chunks"] = row["chunks"] if row else 0
    return facts
