"""What the server knows of itself: the catalogue, its settings, and what it counted, in a few statements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

from pgseek.collections import SERVED
from pgseek.spaces import vector_on_path
from pgseek.steps import Row, Script, fetch, fetch_one

# pg_relation_size() waits for who changes a table or an index; then the size of the last VACUUM will do.
_LOCKED: LiteralString = (
    "c.oid = ANY (ARRAY(SELECT l.relation FROM pg_locks l WHERE l.mode = 'AccessExclusiveLock'"
    " AND l.relation IS NOT NULL))"
)
_SIZE: LiteralString = (
    f"CASE WHEN {_LOCKED} THEN c.relpages * current_setting('block_size')::bigint"
    " ELSE pg_relation_size(c.oid) END"
)
_OPTIONS: LiteralString = (
    "coalesce((SELECT jsonb_object_agg(o.option_name, o.option_value)"
    " FROM pg_options_to_table(c.reloptions) o), '{}') AS options"
)

# What a version or a server lacks is NULL: pg_database has no datcollversion before PostgreSQL 15.
_DATABASE: LiteralString = """
SELECT current_database() AS name, current_setting('server_version') AS version,
       current_setting('server_version_num')::integer AS number, pg_is_in_recovery() AS standby,
       e.extversion AS vector, v.default_version AS vector_installed,
       lower('ÄÉЖ') = 'äéж' AS lowers, d.datctype AS ctype,
       to_jsonb(d) ->> 'datcollversion' AS collation_version, d.oid,
       extract(epoch FROM now() - s.stats_reset)::float8 AS counted_seconds,
       (SELECT extract(epoch FROM now() - min(c.created_at))::float8
          FROM pgseek.collections c) AS used_seconds,
       least(CASE WHEN d.datconnlimit >= 0 AND NOT r.rolsuper THEN d.datconnlimit END,
             CASE WHEN r.rolconnlimit >= 0 AND NOT r.rolsuper THEN r.rolconnlimit END) AS connection_limit,
       r.rolname AS role,
       current_setting('max_connections')::integer
         - current_setting('superuser_reserved_connections')::integer
         - coalesce(current_setting('reserved_connections', true), '0')::integer AS connections
  FROM pg_database d LEFT JOIN pg_stat_database s ON s.datid = d.oid,
       pg_roles r, pg_extension e LEFT JOIN pg_available_extensions v ON v.name = e.extname
 WHERE d.datname = current_database() AND r.rolname = current_user AND e.extname = 'vector'
"""
_SETTINGS = """
SELECT name, setting, unit, source, context, boot_val, reset_val, vartype FROM pg_settings
"""
_TABLES: LiteralString = f"""
SELECT c.relname AS name, c.reltuples::float8 AS tuples, {_SIZE} AS bytes, {_OPTIONS}, {_LOCKED} AS locked,
       greatest(age(c.relfrozenxid), age(t.relfrozenxid)) AS transactions,
       coalesce(s.n_live_tup, 0) AS live, coalesce(s.n_dead_tup, 0) AS dead,
       coalesce(s.n_mod_since_analyze, 0) AS modified,
       coalesce(s.seq_scan, 0) + coalesce(s.idx_scan, 0) AS scans,
       greatest(s.last_analyze, s.last_autoanalyze) AS analyzed,
       greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed,
       extract(epoch FROM now() - greatest(s.last_analyze, s.last_autoanalyze))::float8 AS analyzed_seconds,
       extract(epoch FROM now() - greatest(s.last_vacuum, s.last_autovacuum))::float8 AS vacuumed_seconds
  FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
  LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
 WHERE c.relnamespace = 'pgseek'::regnamespace AND c.relkind = 'r' ORDER BY c.relname
"""  # noqa: S608 (constants)
# Whoever builds or vacuums holds a lock that everybody may see; of pg_stat_progress_create_index a role sees
# its own part only.
_INDEXES: LiteralString = f"""
SELECT c.relname AS name, t.relname AS of_table, a.amname AS method, {_SIZE} AS bytes, {_OPTIONS},
       i.indisvalid AND i.indisready AND i.indislive AS valid, i.indisunique AS is_unique,
       EXISTS (SELECT FROM pg_locks l
                WHERE l.relation = i.indrelid AND l.mode IN
                      ('ShareUpdateExclusiveLock', 'ShareLock', 'AccessExclusiveLock')) AS worked_on,
       coalesce(s.idx_scan, 0) AS scans, w.width, w.fixed
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
  JOIN pg_am a ON a.oid = c.relam LEFT JOIN pg_stat_user_indexes s ON s.indexrelid = i.indexrelid,
       LATERAL (SELECT sum(greatest(k.attlen, 4))::integer AS width, bool_and(k.attlen > 0) AS fixed
                  FROM pg_attribute k WHERE k.attrelid = i.indexrelid) AS w
 WHERE t.relnamespace = 'pgseek'::regnamespace AND t.relkind = 'r' ORDER BY c.relname
"""  # noqa: S608 (constants)
_SPACES: LiteralString = f"""
SELECT s.space_id, s.state, s.dimensions, s.storage, s.indexing, s.provider || ':' || s.model AS model,
       c.collection_id, c.name, c.tenant, c.settings, s.space_id = c.active_space_id AS active,
       c.active_space_id IS NULL OR c.copy_of IS NOT NULL AS copy,
       extract(epoch FROM now() - a.activated_at)::float8 AS switched_seconds,
       k.chunks AS counted_chunks
  FROM pgseek.collections c JOIN pgseek.embedding_spaces s USING (collection_id)
  LEFT JOIN pgseek.embedding_spaces a ON a.space_id = c.active_space_id
  LEFT JOIN pgseek.collection_statistics k ON k.collection_id = c.collection_id
 WHERE {SERVED} AND s.state <> 'retired' ORDER BY c.tenant, c.name, s.space_id
"""  # noqa: S608 (constants)
_METADATA: LiteralString = f"""
SELECT c.collection_id, c.name, c.tenant, c.metadata_indexes,
       c.copy_of IS NOT NULL OR c.active_space_id IS NULL AS copy
  FROM pgseek.collections c WHERE {SERVED} ORDER BY c.tenant, c.name
"""  # noqa: S608 (constants)
_QUEUE: LiteralString = f"""
SELECT c.name, c.tenant, count(q.*) FILTER (WHERE q.failed_at IS NULL) AS waiting,
       count(q.failed_at) AS failed,
       count(q.*) FILTER (WHERE q.failed_at IS NULL AND q.claimed_by IS NOT NULL
                            AND q.due_at > statement_timestamp()) AS claimed,
       coalesce(extract(epoch FROM statement_timestamp()
         - min(q.enqueued_at) FILTER (WHERE q.failed_at IS NULL))::float8, 0) AS oldest
  FROM pgseek.ingest_queue q JOIN pgseek.collections c USING (collection_id)
 WHERE {SERVED} AND c.copy_of IS NULL GROUP BY c.tenant, c.name ORDER BY c.tenant, c.name
"""  # noqa: S608 (constants)
# A hundred pages of the cache stand for all of them.
_CACHE = """
SELECT count(*) AS sampled, count(*) FILTER (WHERE c.expires_at <= now()) AS expired
  FROM pgseek.embedding_cache c TABLESAMPLE SYSTEM (%s)
"""
_SLOTS = """
SELECT s.slot_name AS name, s.active, s.wal_status AS status,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()
                            ELSE pg_current_wal_lsn() END, s.restart_lsn)::bigint AS bytes
  FROM pg_replication_slots s WHERE NOT s.active AND s.restart_lsn IS NOT NULL ORDER BY s.slot_name
"""
# Whoever loads has just executed one of these, or does so now.
WRITING = """
SELECT FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'pgseek' AND pid <> pg_backend_pid()
   AND (state <> 'idle' OR state_change > clock_timestamp() - interval '30 seconds')
   AND query ~ '^(COMMIT|COPY|CREATE|DELETE|DROP|INSERT|UPDATE)'
"""
PAGE = 8192
SAMPLED_PAGES = 100


@dataclass(frozen=True, slots=True)
class Facts:
    """Rows of the statements above; settings, tables and indexes by name.

    ``whole`` is whether this session sees the rows of every tenant.
    """

    database: Row
    collation: str | None
    settings: dict[str, Row]
    tables: dict[str, Row]
    indexes: dict[str, Row]
    spaces: list[Row]
    collections: list[Row]
    queue: list[Row]
    cache: Row
    slots: list[Row]
    loading: bool
    whole: bool

    def rows(self, table: str) -> float:
        """Return about how many rows a table has: never fewer than it held at its last VACUUM."""
        found = self.tables.get(table)
        return 0.0 if found is None else max(found["live"], found["tuples"], 0.0)

    def number(self, setting: str) -> float:
        """Return a setting as a number, in its unit."""
        return float(self.settings[setting]["setting"])

    def bytes(self, setting: str) -> int:
        """Return a setting of memory or WAL in bytes."""
        units = {"B": 1, "kB": 1024, "8kB": 8192, "MB": 1 << 20}
        found = self.settings[setting]
        return int(found["setting"]) * units[found["unit"]]


def gather() -> Script[Facts]:
    """Ask for everything, in the transaction of the caller; nothing that takes long, nothing that waits."""
    # The settings of pgvector are there once it is loaded.
    yield from vector_on_path()
    yield from fetch("SELECT '[1]'::vector")
    database = yield from _one(_DATABASE)
    collation = None
    if database["number"] >= 150000:
        version = yield from _one(
            "SELECT pg_database_collation_actual_version(%s) AS version", [database["oid"]]
        )
        collation = version["version"]
    tables = yield from fetch(_TABLES)
    by_name = {row["name"]: row for row in tables}
    pages = max(1, by_name["embedding_cache"]["bytes"] // PAGE)
    seen = yield from _one(
        "SELECT NOT row_security_active('pgseek.collections') AND pgseek.tenant() = '' AS whole"
    )
    return Facts(
        database,
        collation,
        {row["name"]: row for row in (yield from fetch(_SETTINGS))},
        by_name,
        {row["name"]: row for row in (yield from fetch(_INDEXES))},
        (yield from fetch(_SPACES)),
        (yield from fetch(_METADATA)),
        (yield from fetch(_QUEUE)),
        (yield from _one(_CACHE, [min(100.0, 100.0 * SAMPLED_PAGES / pages)])),
        (yield from fetch(_SLOTS)),
        bool((yield from fetch(WRITING))),
        seen["whole"],
    )


def _one(statement: LiteralString, parameters: list[Any] | None = None) -> Script[Row]:
    row = yield from fetch_one(statement, parameters)
    return row or {}
