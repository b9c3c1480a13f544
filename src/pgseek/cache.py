"""The cache of vectors: found again by what was embedded and by everything that changes a vector.

A key is the SHA-256 of the text. A tenant has entries and claims of its own: those that others filled would
tell which texts they have. Entries expire, and pruning forgets the least recently used. Claims say who
is embedding a text at this time: several workers then share the work instead of all doing it.

Statements that lock several rows do so in the order of the key or skip what others hold; no two of them can
deadlock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, LiteralString

from pgseek.collections import not_found
from pgseek.embedders.base import Vectors
from pgseek.errors import InvalidInput
from pgseek.steps import Script, fetch, fetch_one
from pgseek.types import INPUT_TYPES, CachePolicy, CacheStats, InputType, check_days

SECONDS_PER_DAY = 86_400
# Hexadecimal SHA-256; longer than any name of a collection.
_IDENTITY = re.compile(r"[0-9a-f]{64}")

# What an entry takes, compressed and out of line as it may be; without the row's header and the index.
_SIZE = (
    "pg_column_size(identity) + pg_column_size(input_type) + pg_column_size(text_hash)"
    " + pg_column_size(embedding) + pg_column_size(created_at) + pg_column_size(used_at)"
    " + coalesce(pg_column_size(expires_at), 0)"
)
# What a session counts and deletes: its tenant's; for the owner of the tables, without a tenant, all.
_SERVED = "(SELECT pgseek.tenant()) IN ('', tenant)"
_EXPIRED = "(expires_at IS NOT NULL AND expires_at <= statement_timestamp())"

_LOOK_UP = f"""
SELECT text_hash, embedding,
       used_at < statement_timestamp() - interval '1 hour'
       AND current_setting('transaction_read_only') = 'off'
       AND has_table_privilege('pgseek.embedding_cache', 'UPDATE') AS due
  FROM pgseek.embedding_cache
 WHERE tenant = pgseek.tenant() AND identity = %s AND input_type = %s AND text_hash = ANY (%s::bytea[])
   AND NOT {_EXPIRED}
"""  # noqa: S608 (constants of this module)

# Who skips a locked row loses nothing: another is writing its time of use, or replacing it.
_TOUCH = """
UPDATE pgseek.embedding_cache c SET used_at = statement_timestamp()
  FROM (SELECT text_hash FROM pgseek.embedding_cache
         WHERE tenant = pgseek.tenant() AND identity = %(identity)s AND input_type = %(input_type)s
           AND text_hash = ANY (%(keys)s::bytea[]) AND used_at < statement_timestamp() - interval '1 hour'
           FOR UPDATE SKIP LOCKED) AS due
 WHERE c.tenant = pgseek.tenant() AND c.identity = %(identity)s AND c.input_type = %(input_type)s
   AND c.text_hash = due.text_hash
"""

_WRITABLE = """
SELECT current_setting('transaction_read_only') = 'off'
   AND has_table_privilege('pgseek.embedding_cache', 'INSERT')
   AND has_table_privilege('pgseek.embedding_cache', 'UPDATE') AS writable
"""

_STORE = """
INSERT INTO pgseek.embedding_cache AS c
       (tenant, identity, input_type, text_hash, embedding, created_at, used_at, expires_at)
SELECT pgseek.tenant(), %s, %s, s.text_hash, s.embedding, statement_timestamp(), statement_timestamp(),
       statement_timestamp() + make_interval(secs => %s)
  FROM unnest(%s::bytea[], %s) AS s (text_hash, embedding)
    ON CONFLICT (tenant, identity, input_type, text_hash) DO UPDATE
   SET embedding = excluded.embedding, created_at = excluded.created_at, used_at = excluded.used_at,
       expires_at = excluded.expires_at
 WHERE c.expires_at <= excluded.created_at
"""

# A claim has run out if it had when this one began. The clock of the row, not of the transaction.
_CLAIM = f"""
INSERT INTO pgseek.embedding_claims AS c (tenant, identity, text_hash, claimed_until)
SELECT pgseek.tenant(), %(identity)s, s.text_hash, clock_timestamp() + make_interval(secs => %(seconds)s)
  FROM unnest(%(keys)s::bytea[]) AS s (text_hash)
 WHERE NOT EXISTS (SELECT FROM pgseek.embedding_cache e
                    WHERE e.tenant = pgseek.tenant() AND e.identity = %(identity)s
                      AND e.input_type = 'document' AND e.text_hash = s.text_hash AND NOT {_EXPIRED})
 ORDER BY s.text_hash
    ON CONFLICT (tenant, identity, text_hash) DO UPDATE SET claimed_until = excluded.claimed_until
 WHERE c.claimed_until <= excluded.claimed_until - make_interval(secs => %(seconds)s)
RETURNING text_hash
"""  # noqa: S608 (constants of this module)

# A claim that is locked is being taken over.
_RENEW = """
UPDATE pgseek.embedding_claims c SET claimed_until = clock_timestamp() + make_interval(secs => %(seconds)s)
  FROM (SELECT text_hash FROM pgseek.embedding_claims
         WHERE tenant = pgseek.tenant() AND identity = %(identity)s AND text_hash = ANY (%(keys)s::bytea[])
           FOR UPDATE SKIP LOCKED) AS own
 WHERE c.tenant = pgseek.tenant() AND c.identity = %(identity)s AND c.text_hash = own.text_hash
"""

_RELEASE = """
DELETE FROM pgseek.embedding_claims c
 USING (SELECT text_hash FROM pgseek.embedding_claims
         WHERE tenant = pgseek.tenant() AND identity = %(identity)s AND text_hash = ANY (%(keys)s::bytea[])
           FOR UPDATE SKIP LOCKED) AS own
 WHERE c.tenant = pgseek.tenant() AND c.identity = %(identity)s AND c.text_hash = own.text_hash
"""

_STATS = f"""
SELECT e.*, s.provider, s.model, s.dimensions
  FROM (SELECT identity, input_type, count(*) AS entries, sum({_SIZE})::bigint AS bytes,
               count(*) FILTER (WHERE {_EXPIRED}) AS expired,
               min(used_at) AS oldest_used_at, max(used_at) AS newest_used_at
          FROM pgseek.embedding_cache WHERE {_SERVED} GROUP BY identity, input_type) AS e
  LEFT JOIN (SELECT DISTINCT ON (identity) identity, provider, model, dimensions
               FROM pgseek.embedding_spaces ORDER BY identity, space_id) AS s USING (identity)
 ORDER BY s.provider, s.model, s.dimensions, e.identity, e.input_type
"""  # noqa: S608 (constants of this module)

_DELETE_OLD = """,
gone AS (
    DELETE FROM pgseek.embedding_cache c USING old
     WHERE (c.tenant, c.identity, c.input_type, c.text_hash)
         = (old.tenant, old.identity, old.input_type, old.text_hash)
    RETURNING 1)
SELECT count(*) AS deleted FROM gone
"""

_DELETE_EXPIRED = f"""
WITH old AS (
    SELECT tenant, identity, input_type, text_hash FROM pgseek.embedding_cache WHERE {_EXPIRED} AND {_SERVED}
       FOR UPDATE SKIP LOCKED){_DELETE_OLD}"""  # noqa: S608 (constants of this module)

_DELETE_EXPIRED_CLAIMS = f"""
DELETE FROM pgseek.embedding_claims c
 USING (SELECT tenant, identity, text_hash FROM pgseek.embedding_claims
         WHERE claimed_until <= clock_timestamp() AND {_SERVED}
           FOR UPDATE SKIP LOCKED) AS old
 WHERE (c.tenant, c.identity, c.text_hash) = (old.tenant, old.identity, old.text_hash)
"""  # noqa: S608 (constants of this module)

# Kept are the most recently used whose sizes together fit; of the rest, none.
_DELETE_LEAST_USED = f"""
WITH placed AS (
    SELECT tenant, identity, input_type, text_hash,
           sum({_SIZE}) OVER (
               ORDER BY used_at DESC, tenant DESC, identity DESC, input_type DESC, text_hash DESC) AS up_to
      FROM pgseek.embedding_cache WHERE {_SERVED}),
old AS (
    SELECT tenant, identity, input_type, text_hash FROM pgseek.embedding_cache
     WHERE (tenant, identity, input_type, text_hash) IN (
           SELECT tenant, identity, input_type, text_hash FROM placed WHERE up_to > %s)
       FOR UPDATE SKIP LOCKED){_DELETE_OLD}"""  # noqa: S608 (constants of this module)

_CLEAR = f"""
WITH old AS (
    SELECT tenant, identity, input_type, text_hash FROM pgseek.embedding_cache
     WHERE (%(identities)s::text[] IS NULL OR identity = ANY (%(identities)s::text[]))
       AND (%(input_type)s::text IS NULL OR input_type = %(input_type)s::text) AND {_SERVED}
     ORDER BY tenant, identity, input_type, text_hash FOR UPDATE){_DELETE_OLD}"""  # noqa: S608 (constants of this module)


def look_up(identity: str, input_type: InputType, keys: Sequence[bytes]) -> Script[dict[bytes, Vectors]]:
    """Return the vectors, float32 (d,), of those keys that are there and have not expired.

    Where this user or this server may not write, the time of use is not noted.
    """
    if not keys:
        return {}
    rows = yield from fetch(_LOOK_UP, [identity, input_type, list(keys)])
    due = [row["text_hash"] for row in rows if row["due"]]
    if due:
        yield from fetch(_TOUCH, {"identity": identity, "input_type": input_type, "keys": due})
    return {row["text_hash"]: row["embedding"].to_numpy() for row in rows}


def store(
    identity: str, input_type: InputType, vectors: Mapping[bytes, Vectors], days: float | None
) -> Script[None]:
    """Keep vectors for so many days, None for ever; an entry that has not expired is left as it is.

    Where this user or this server may not write, nothing is stored.
    """
    check_days("days", days)
    keys = sorted(vectors)
    if not keys:
        return
    row = yield from fetch_one(_WRITABLE)
    if row is None or not row["writable"]:
        return
    seconds = None if days is None else days * SECONDS_PER_DAY
    yield from fetch(_STORE, [identity, input_type, seconds, keys, [vectors[key] for key in keys]])


def claim(identity: str, keys: Iterable[bytes], seconds: float = 60.0) -> Script[frozenset[bytes]]:
    """Return those of the keys whose texts are this caller's to embed, as documents.

    The others are claimed by somebody else, or were stored since the caller looked: looking up again finds
    them, sooner or later. A claim lasts for ``seconds``; then anybody may take it over. Call outside of a
    transaction, so that others see it at once; `store` first, then `release`.
    """
    if not 0 < seconds <= SECONDS_PER_DAY:
        raise InvalidInput(f"seconds is {seconds!r}, but must be above 0 and at most {SECONDS_PER_DAY:,}")
    wanted = list(dict.fromkeys(keys))
    if not wanted:
        return frozenset()
    rows = yield from fetch(_CLAIM, {"identity": identity, "keys": wanted, "seconds": float(seconds)})
    return frozenset(row["text_hash"] for row in rows)


def renew(identity: str, keys: Iterable[bytes], seconds: float = 60.0) -> Script[None]:
    """Let claims of this caller last for so many seconds from now."""
    given = list(keys)
    if given:
        yield from fetch(_RENEW, {"identity": identity, "keys": given, "seconds": float(seconds)})


def release(identity: str, keys: Iterable[bytes]) -> Script[None]:
    """Give claims back, also on keys that could not be embedded.

    A claim that ran out and was taken over is given back with them: at worst a text is embedded twice.
    """
    given = list(keys)
    if given:
        yield from fetch(_RELEASE, {"identity": identity, "keys": given})


def stats() -> Script[list[CacheStats]]:
    """Return what the cache holds, by provider, model, dimensions, identity and input type."""
    rows = yield from fetch(_STATS)
    return [CacheStats(**row) for row in rows]


def prune(policy: CachePolicy) -> Script[int]:
    """Delete expired vectors and claims, then the least recently used vectors beyond ``policy.max_bytes``.

    Returns how many vectors were deleted. Equal times of use are taken in the order of the key.
    """
    deleted = yield from _deleted(_DELETE_EXPIRED)
    yield from fetch(_DELETE_EXPIRED_CLAIMS)
    if policy.max_bytes is not None:
        deleted += yield from _deleted(_DELETE_LEAST_USED, [policy.max_bytes])
    return deleted


def clear(of: str | None = None, input_type: InputType | None = None) -> Script[int]:
    """Delete cached vectors and return how many: of an identity's hash, of a collection, or all.

    A collection's are those of all its embedding spaces; other collections may share them.

    Raises:
        InvalidInput, CollectionNotFound.
    """
    if input_type is not None and input_type not in INPUT_TYPES:
        raise InvalidInput(
            f"input_type is {input_type!r}, but must be one of {', '.join(INPUT_TYPES)}, or None"
        )
    identities = None
    if of is not None:
        identities = [of] if _IDENTITY.fullmatch(of) else (yield from _identities(of))

    return (yield from _deleted(_CLEAR, {"identities": identities, "input_type": input_type}))


def _deleted(statement: LiteralString, parameters: Any = None) -> Script[int]:
    row = yield from fetch_one(statement, parameters)
    return int(row["deleted"]) if row else 0


def _identities(collection: str) -> Script[list[str]]:
    rows = yield from fetch(
        "SELECT DISTINCT s.identity FROM pgseek.embedding_spaces s"
        " JOIN pgseek.collections c USING (collection_id) WHERE c.tenant = pgseek.tenant() AND c.name = %s",
        [collection],
    )
    if not rows:
        raise (yield from not_found(collection))
    return [row["identity"] for row in rows]
