"""Tables: what VACUUM and ANALYZE should have done, and statistics of BM25 that are behind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pgseek.health.facts import Facts
from pgseek.health.finding import HealthFinding, command, quoted
from pgseek.health.indexes import is_visible
from pgseek.steps import Row

# autovacuum looks once a minute; it has not come if this has not happened for so long.
OVERDUE_SECONDS = 3600.0
DEAD_SHARE = 0.3
DEAD_ROWS = 500
# Filled and emptied all the time, and small: a few dead rows more are nothing.
PASSING = {"embedding_claims", "rate_limits"}
MODIFIED_SHARE = 0.3
MODIFIED_ROWS = 1000
# PostgreSQL refuses to write about three million transactions before this.
LAST_TRANSACTION = 2_147_483_647
# Ingest refreshes BM25's statistics when the collection grew by a tenth.
BEHIND_SHARE = 0.2
BEHIND_CHUNKS = 100


def judge(facts: Facts) -> Iterator[HealthFinding]:
    """Yield what is wrong with tables."""
    yield from _frozen(facts)
    # A standby counts nothing of it, and mends nothing.
    if facts.database["standby"]:
        return
    counting = facts.settings["track_counts"]["setting"] == "on"
    running = counting and facts.settings["autovacuum"]["setting"] == "on"
    for name, table in facts.tables.items():
        if is_visible(facts, name) and name not in PASSING:
            works = running and table["options"].get("autovacuum_enabled", "true") not in {"false", "off"}
            yield from _switched_off(name, table)
            yield from _dead(facts, name, table, works)
            yield from _unanalyzed(facts, name, table, works)


def _switched_off(name: str, table: Row) -> Iterator[HealthFinding]:
    if table["options"].get("autovacuum_enabled", "true") in {"false", "off"}:
        yield HealthFinding(
            "autovacuum_off",
            "warn",
            name,
            "autovacuum_enabled is false for this table",
            "Nothing takes deleted rows out of it and of its indexes, or tells the planner of its size",
            f"ALTER TABLE {quoted(name)} RESET (autovacuum_enabled)",
            {"autovacuum_enabled": False},
        )


def _overdue(facts: Facts, seconds: float | None) -> bool:
    """Return whether autovacuum, here so long ago, had the time to come; it may be counted anew since."""
    if seconds is not None:
        return seconds > OVERDUE_SECONDS
    used, counted = facts.database["used_seconds"] or 0.0, facts.database["counted_seconds"]
    return min(used, used if counted is None else counted) > OVERDUE_SECONDS


def _dead(facts: Facts, name: str, table: Row, works: bool) -> Iterator[HealthFinding]:
    dead, live = table["dead"], table["live"]
    share = dead / max(dead + live, 1)
    if dead < DEAD_ROWS or share < DEAD_SHARE or (works and not _overdue(facts, table["vacuumed_seconds"])):
        return
    yield HealthFinding(
        "vacuum_missing",
        "warn",
        name,
        f"{dead:,} rows of {dead + live:,} are dead; last VACUUM: {_when(table['vacuumed'])}",
        "Searches read them and throw them away, and a graph of vectors leads through them",
        f"VACUUM (ANALYZE) {quoted(name)}",
        {"dead": dead, "live": live, "vacuumed": table["vacuumed"]},
    )


def _unanalyzed(facts: Facts, name: str, table: Row, works: bool) -> Iterator[HealthFinding]:
    modified, live = table["modified"], table["live"]
    if min(modified, live) < MODIFIED_ROWS or modified < MODIFIED_SHARE * live:
        return
    if works and not _overdue(facts, table["analyzed_seconds"]):
        return
    yield HealthFinding(
        "analyze_missing",
        "note" if works else "warn",
        name,
        f"{modified:,} rows changed since the last ANALYZE ({_when(table['analyzed'])}), of {live:,}",
        "The planner goes by how the table was then, and may read all of it where an index would do",
        f"ANALYZE {quoted(name)}",
        {"modified": modified, "live": live, "analyzed": table["analyzed"]},
    )


def _frozen(facts: Facts) -> Iterator[HealthFinding]:
    bound = facts.number("autovacuum_freeze_max_age")
    for name, table in facts.tables.items():
        own = min(bound, float(table["options"].get("autovacuum_freeze_max_age", bound)))
        age = table["transactions"] or 0
        if age < 1.5 * own or not is_visible(facts, name):
            continue
        severe = age > LAST_TRANSACTION / 2
        yield HealthFinding(
            "freeze_overdue",
            "fail" if severe else "warn",
            name,
            f"its oldest row is {age:,} transactions old; autovacuum should freeze it at {own:,.0f}",
            f"Something keeps autovacuum from it: at {LAST_TRANSACTION:,} the server would refuse to write",
            f"VACUUM (FREEZE) {quoted(name)}",
            {"transactions": age, "autovacuum_freeze_max_age": int(own)},
        )


def suspects(facts: Facts) -> list[Row]:
    """Return the active spaces whose table does not have about as many rows as their statistics know chunks.

    The estimate is cheap and may be wrong, as after a crash; so these are counted.
    """
    found: list[Row] = []
    if facts.tables["chunks"]["locked"]:
        return found
    for space in facts.spaces:
        table = facts.tables.get(f"embeddings_{space['space_id']}")
        if not space["active"] or space["copy"] or table is None or space["counted_chunks"] is None:
            continue
        off = abs(max(table["live"], table["tuples"]) - space["counted_chunks"])
        off = max(off, abs(table["live"] - space["counted_chunks"]))
        if _is_behind(off, space["counted_chunks"]):
            found.append(space)
    return found


def _is_behind(off: float, counted: int) -> bool:
    return off >= BEHIND_CHUNKS and off > BEHIND_SHARE * counted


def behind(facts: Facts) -> Iterator[HealthFinding]:
    """Yield the collections whose statistics of words are behind, of those whose ``chunks`` were counted."""
    for space in facts.spaces:
        chunks, counted = space.get("chunks"), space["counted_chunks"]
        if chunks is None or not _is_behind(abs(chunks - counted), counted):
            continue
        yield HealthFinding(
            "statistics_behind",
            "warn",
            f"collection {space['name']}",
            f"{chunks:,} chunks, but the statistics of their words are of {counted:,}",
            "BM25 weighs words by how rare they were then; the next ingest that adds a tenth refreshes them",
            command(space["tenant"], "collections refresh", space["name"]),
            {"chunks": chunks, "counted": counted},
            space["name"],
            space["tenant"],
        )


def _when(moment: datetime | None) -> str:
    return "never" if moment is None else moment.strftime("%Y-%m-%d %H:%M")
