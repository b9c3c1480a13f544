"""Settings of the server, of the database or of the role that hurt; versions with known faults.

What pgseek sets itself is not asked of the server: jit (off in searches), maintenance_work_mem and the
timeouts of index builds, ef_search and the iterative scans of searches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgseek.health.facts import Facts
from pgseek.health.finding import HealthFinding, Severity, identifier, size, text
from pgseek.indexes import INDEX_FROM
from pgseek.steps import Row
from pgseek.vectors import VectorIndex

SHORT_MILLISECONDS = 10_000
LEAST_WORK_MEM = 4 << 20
# From there on the data are not in memory as a matter of course.
MUCH_DATA = 1 << 30
MAX_SLOT_RATIO = 1.0

_PLANNER = re.compile(r"enable_\w+")
_OWN_WALK = ("hnsw.ef_search", "hnsw.iterative_scan", "ivfflat.probes", "ivfflat.iterative_scan")
_LOSSES: tuple[tuple[str, Severity, str], ...] = (
    ("fsync", "warn", "After a crash of the machine the database may be damaged beyond repair"),
    ("full_page_writes", "warn", "After a crash of the machine pages may be half old and half new"),
    (
        "synchronous_commit",
        "note",
        "A crash of the server loses the last moments of what was reported as stored",
    ),
)


def judge(facts: Facts, pool_size: int) -> Iterator[HealthFinding]:
    """Yield what is wrong with settings; ``pool_size`` connections are what this client may open."""
    for name, severity, means in _LOSSES:
        if facts.settings[name]["setting"] == "off":
            yield _finding(facts, name, f"{name}_off", severity, means, "on")
    for name in ("autovacuum", "track_counts"):
        if facts.settings[name]["setting"] == "off":
            means = (
                "Nothing takes deleted rows out of tables and indexes, or tells the planner of their sizes"
            )
            yield _finding(facts, name, "autovacuum_off", "warn", means, "on")
    yield from _planner(facts)
    yield from _memory(facts)
    yield from _timeouts(facts)
    yield from _walks(facts)
    yield from _connections(facts, pool_size)
    yield from _versions(facts)
    yield from _locale(facts)
    yield from _slots(facts)


def _planner(facts: Facts) -> Iterator[HealthFinding]:
    for name, setting in facts.settings.items():
        if _PLANNER.fullmatch(name) and setting["boot_val"] == "on" and setting["setting"] == "off":
            means = (
                "The planner may not choose what it takes for the fastest way, and searches take longer ones"
            )
            yield _finding(facts, name, "planner_restricted", "warn", means, "on")
    parallel = facts.settings["max_parallel_maintenance_workers"]
    large = any(
        facts.rows(f"embeddings_{space['space_id']}") >= INDEX_FROM
        for space in facts.spaces
        if VectorIndex.parse(space["indexing"]).method != "none"
    )
    if parallel["setting"] == "0" and large:
        means = "An index of vectors is built by one process; or give a build its own: --workers"
        yield _finding(facts, parallel["name"], "parallel_builds_off", "note", means, parallel["boot_val"])


def _memory(facts: Facts) -> Iterator[HealthFinding]:
    if facts.bytes("work_mem") < LEAST_WORK_MEM:
        means = (
            "A walk through the graph of vectors, from which a filter turns rows away, ends when this is "
            "full, and finds less; sorts go to disk"
        )
        yield _finding(facts, "work_mem", "work_mem_small", "warn", means, "4MB")
    data = sum(row["bytes"] for rows in (facts.tables, facts.indexes) for row in rows.values())
    if data >= MUCH_DATA and facts.number("random_page_cost") >= facts.number("seq_page_cost") * 4:
        means = (
            f"pgseek's tables and indexes take {size(data)}. This says that a page out of turn costs four "
            "times one in turn, as on turning disks: on SSDs the planner then reads tables where an index is "
            "faster"
        )
        yield _finding(facts, "random_page_cost", "random_page_cost_high", "note", means, "1.1")


def _timeouts(facts: Facts) -> Iterator[HealthFinding]:
    for name in ("statement_timeout", "transaction_timeout"):
        setting = facts.settings.get(name)
        if setting is not None and 0 < int(setting["setting"]) < SHORT_MILLISECONDS:
            means = (
                "An ingest writes up to 500 documents, and refreshes statistics, in a statement each, and a "
                "search without its index may take seconds: they are cancelled. A search has a limit of its "
                "own: timeout="
            )
            yield _finding(facts, name, f"{name}_short", "warn", means, "0")


def _walks(facts: Facts) -> Iterator[HealthFinding]:
    for name in _OWN_WALK:
        setting = facts.settings.get(name)
        if setting is None or setting["source"] in {"default", "session"}:
            continue
        worse = setting["setting"] == "off" or (
            setting["setting"].isdigit() and int(setting["setting"]) <= int(setting["boot_val"])
        )
        if worse:
            means = (
                "pgseek's searches set their own (ef_search 100 or more, and iterative scans): this is for "
                "other SQL on these tables only, and finds less there. To change searches: pgseek index tune"
            )
            yield _finding(facts, name, "walk_setting_low", "note", means, setting["boot_val"])


def _connections(facts: Facts, pool_size: int) -> Iterator[HealthFinding]:
    database = facts.database
    limit = database["connection_limit"]
    allowed = database["connections"] if limit is None else min(limit, database["connections"])
    if pool_size <= allowed:
        return
    mend = f"set PGSEEK_POOL_SIZE to {max(1, allowed)} or less for all clients together"
    if limit is None or limit >= database["connections"]:
        mend += f"; or: {cure(facts, 'max_connections', str(pool_size + 20))}"
    yield HealthFinding(
        "pool_too_large",
        "warn",
        "max_connections",
        f"this client may open {pool_size} connections, the server gives it {allowed}",
        "Under load the others are refused, and the calls that wait for them fail",
        f"({mend})",
        {"pool_size": pool_size, "allowed": allowed},
    )


def _versions(facts: Facts) -> Iterator[HealthFinding]:
    database = facts.database
    declared, installed = database["vector"], database["vector_installed"] or database["vector"]
    # The library is the installed one, whatever the extension was made with.
    version = max(_numbers(declared), _numbers(installed))
    methods = {row["method"] for row in facts.indexes.values()}
    faults: list[tuple[Severity, str, str]] = []
    if version < (0, 8, 2):
        faults.append(
            ("warn", "0.8.2", "A parallel build of an HNSW index may write past its memory (CVE-2026-3172)")
        )
    if version < (0, 8, 3) and "hnsw" in methods:
        faults.append(("warn", "0.8.3", "VACUUM may damage an HNSW index"))
    if version < (0, 8, 4) and "hnsw" in methods:
        faults.append(("note", "0.8.4", "VACUUM of an HNSW index may end in 'hnsw graph not repaired'"))
    if version < (0, 8, 7) and "ivfflat" in methods:
        faults.append(("warn", "0.8.7", "A build of an IVFFlat index may write past its memory"))
    if faults:
        yield HealthFinding(
            "pgvector_faults",
            min((fault[0] for fault in faults), key=("warn", "note").index),
            "pgvector",
            f"version {declared}",
            "; ".join(f"{what}: mended in {since}" for _, since, what in faults),
            f"(install pgvector {faults[-1][1]} or newer on the server, then) ALTER EXTENSION vector UPDATE",
            {"version": declared, "installed": installed, "needed": faults[-1][1]},
        )
    if 140000 <= database["number"] < 140004:
        yield HealthFinding(
            "postgresql_faults",
            "fail",
            "postgresql",
            f"version {database['version']}",
            "What is built CONCURRENTLY, as pgseek builds its indexes, may lack rows: mended in 14.4",
            "(install the newest PostgreSQL 14, then) REINDEX SCHEMA CONCURRENTLY pgseek",
            {"version": database["version"], "needed": "14.4"},
        )


def _locale(facts: Facts) -> Iterator[HealthFinding]:
    database = facts.database
    name = identifier(database["name"])
    if not database["lowers"]:
        yield HealthFinding(
            "locale_without_letters",
            "warn",
            f"database {database['name']}",
            f"its locale is {database['ctype']}, in which Ä is not the capital of ä",
            "Words with letters beyond ASCII are found only as they are written",
            "(a database's locale cannot be changed: make another, pg_dump this one into it) CREATE DATABASE "
            f"{identifier(database['name'] + '_utf8')} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'",
            {"ctype": database["ctype"]},
        )
    known = database["collation_version"]
    if known is not None and facts.collation is not None and known != facts.collation:
        yield HealthFinding(
            "collation_changed",
            "warn",
            f"database {database['name']}",
            f"made with version {known} of its collation, the system now has {facts.collation}",
            "Text may be ordered otherwise than its indexes were built by: they may miss rows",
            f"REINDEX DATABASE {name}; ALTER DATABASE {name} REFRESH COLLATION VERSION",
            {"version": known, "actual": facts.collation},
        )


def _slots(facts: Facts) -> Iterator[HealthFinding]:
    bound = facts.bytes("max_wal_size") * MAX_SLOT_RATIO
    for slot in facts.slots:
        held = slot["bytes"] or 0
        if held > bound:
            yield HealthFinding(
                "slot_holds_wal",
                "warn",
                f"replication slot {slot['name']}",
                f"not in use, and holds {size(held)} of WAL ({slot['status']})",
                "The server keeps WAL for it until the disk is full, and VACUUM may leave rows for it",
                f"SELECT pg_drop_replication_slot({text(slot['name'])})",
                {"bytes": held, "wal_status": slot["status"], "max_wal_size": int(bound)},
            )


def _finding(
    facts: Facts, setting: str, name: str, severity: Severity, means: str, value: str
) -> HealthFinding:
    row = facts.settings[setting]
    return HealthFinding(
        name,
        severity,
        setting,
        f"{_shown(row)}, set by {row['source']}",
        means,
        cure(facts, setting, value),
        {"setting": row["setting"], "unit": row["unit"], "source": row["source"]},
    )


def _shown(row: Row) -> str:
    return f"{row['setting']}{' × ' if (row['unit'] or '')[:1].isdigit() else ''}{row['unit'] or ''}"


def cure(facts: Facts, setting: str, value: str) -> str:
    """Return the statement that sets a setting where it was set."""
    row = facts.settings[setting]
    database, role = (identifier(facts.database[name]) for name in ("name", "role"))
    match row["source"]:
        case "database":
            return f"ALTER DATABASE {database} RESET {setting}"
        case "user":
            return f"ALTER ROLE {role} RESET {setting}"
        case "database user":
            return f"ALTER ROLE {role} IN DATABASE {database} RESET {setting}"
        case "client" | "session":
            return f"(leave {setting} out of the DSN's options, and of PGOPTIONS)"
        case "command line":
            return f"(the server is started with it: leave it out, or) -c {setting}={value}"
        case _:
            after = (
                " (and restart the server)" if row["context"] == "postmaster" else "; SELECT pg_reload_conf()"
            )
            return f"ALTER SYSTEM SET {setting} = {text(value)}{after}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
