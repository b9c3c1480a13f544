"""The cache of vectors: look-ups, expiry, claims, pruning by use, and what SQL callers find in it."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo
from support import CORPUS, CountingEmbedder, rows

from pgseek import AsyncClient, Client, CollectionNotFound, ConfigurationError, DatabaseError, InvalidInput
from pgseek import cache as scripts
from pgseek.config import MEBIBYTE, Settings
from pgseek.db.connection import connect
from pgseek.embedders.base import identity_hash
from pgseek.types import CachePolicy

MODEL, OTHER = "a" * 64, "b" * 64


def key(text):
    return hashlib.sha256(str(text).encode()).digest()


def vector(*values):
    return np.array(values, dtype=np.float32)


def entries(dsn):
    return rows(dsn, "SELECT * FROM pgseek.embedding_cache ORDER BY identity, input_type, text_hash")


def age(dsn, column, text, interval):
    """Set a time of an entry to so long ago, by the server's clock."""
    made = (
        f"UPDATE pgseek.embedding_cache SET {column} = now() - %s::interval WHERE text_hash = %s RETURNING 1"
    )
    assert rows(dsn, made, [interval, key(text)])


def in_threads(*works):
    """Run functions at once; return their results in order, or raise the first error."""
    results, errors = [None] * len(works), []
    start = threading.Barrier(len(works))

    def run(place, work):
        try:
            start.wait(10)
            results[place] = work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]
    return results


# Looking up and storing.


def test_what_was_stored_is_found_as_float32_under_its_own_key_only(client):
    made = {key("one"): vector(1, 0.1), key("two"): vector(0, -3)}
    client._run(scripts.store(MODEL, "document", made, None))
    found = client._run(scripts.look_up(MODEL, "document", [key("two"), key("none"), key("one"), key("two")]))
    assert found.keys() == made.keys()
    for name, value in found.items():
        assert value.dtype == np.float32
        assert value.tolist() == made[name].tolist()
    assert client._run(scripts.look_up(MODEL, "query", list(made))) == {}
    assert client._run(scripts.look_up(OTHER, "document", list(made))) == {}
    assert client._run(scripts.look_up(MODEL, "document", [])) == {}
    client._run(scripts.store(MODEL, "document", {}, None))


def test_days_become_the_time_of_expiry_and_none_means_never(client, dsn):
    client._run(scripts.store(MODEL, "document", {key("never"): vector(1)}, None))
    client._run(scripts.store(MODEL, "query", {key("half a day"): vector(1)}, 0.5))
    never, soon = entries(dsn)
    assert never["expires_at"] is None
    assert soon["expires_at"] - soon["created_at"] == timedelta(hours=12)
    assert soon["used_at"] == soon["created_at"]
    for days in (0, -1, float("nan"), float("inf"), 40_000, "1", True):
        with pytest.raises(InvalidInput, match="days is"):
            client._run(scripts.store(MODEL, "query", {key("x"): vector(1)}, days))
    assert len(entries(dsn)) == 2


def test_an_expired_vector_is_not_found_and_is_replaced_a_live_one_is_kept(client, dsn):
    client._run(scripts.store(MODEL, "document", {key("old"): vector(1), key("live"): vector(1)}, 1))
    age(dsn, "expires_at", "old", "1 ms")
    both = [key("old"), key("live")]
    assert client._run(scripts.look_up(MODEL, "document", both)).keys() == {key("live")}
    client._run(scripts.store(MODEL, "document", {key("old"): vector(2), key("live"): vector(2)}, None))
    found = client._run(scripts.look_up(MODEL, "document", both))
    assert {name: value.tolist() for name, value in found.items()} == {key("old"): [2.0], key("live"): [1.0]}
    expires = {entry["text_hash"]: entry["expires_at"] for entry in entries(dsn)}
    assert expires[key("old")] is None
    assert expires[key("live")] is not None


def test_the_time_of_use_is_noted_once_an_hour(client, dsn):
    client._run(scripts.store(MODEL, "query", {key("due"): vector(1), key("recent"): vector(1)}, 30))
    age(dsn, "used_at", "due", "61 minutes")
    age(dsn, "used_at", "recent", "59 minutes")
    before = {entry["text_hash"]: entry["used_at"] for entry in entries(dsn)}
    client._run(scripts.look_up(MODEL, "query", [key("due"), key("recent")]))
    after = {entry["text_hash"]: entry for entry in entries(dsn)}
    assert after[key("recent")]["used_at"] == before[key("recent")]
    assert after[key("due")]["used_at"] - before[key("due")] >= timedelta(minutes=61)
    # Use does not lengthen life.
    assert after[key("due")]["expires_at"] - after[key("due")]["created_at"] == timedelta(days=30)


def test_a_look_up_never_waits_for_a_row_that_another_holds(client, dsn):
    client._run(scripts.store(MODEL, "query", {key("held"): vector(1), key("free"): vector(2)}, None))
    for text in ("held", "free"):
        age(dsn, "used_at", text, "2 hours")
    held_at = {entry["text_hash"]: entry["used_at"] for entry in entries(dsn)}[key("held")]
    with connect(dsn) as other, Client(make_conninfo(dsn, options="-c lock_timeout=1s")) as impatient:
        with other.transaction():
            other.execute("SELECT FROM pgseek.embedding_cache WHERE text_hash = %s FOR UPDATE", [key("held")])
            found = impatient._run(scripts.look_up(MODEL, "query", [key("held"), key("free")]))
            impatient._run(scripts.prune(CachePolicy(max_bytes=0)))
        assert found.keys() == {key("held"), key("free")}
    (left,) = entries(dsn)
    assert (left["text_hash"], left["used_at"]) == (key("held"), held_at)


def test_who_may_not_write_finds_vectors_and_stores_none(client, dsn):
    client._run(scripts.store(MODEL, "query", {key("there"): vector(1)}, None))
    age(dsn, "used_at", "there", "2 hours")
    before = entries(dsn)
    with Client(make_conninfo(dsn, options="-c default_transaction_read_only=on")) as reader:
        assert reader._run(scripts.look_up(MODEL, "query", [key("there")])).keys() == {key("there")}
        reader._run(scripts.store(MODEL, "query", {key("new"): vector(1)}, None))
    assert entries(dsn) == before


# Claims.


def test_a_claimed_text_is_nobody_elses_until_it_is_released(client):
    keys = [key(n) for n in range(5)]
    assert client._run(scripts.claim(MODEL, keys[:3])) == set(keys[:3])
    assert client._run(scripts.claim(MODEL, [*keys, keys[4]])) == set(keys[3:])
    assert client._run(scripts.claim(OTHER, keys)) == set(keys)
    assert client._run(scripts.claim(MODEL, keys)) == set()
    client._run(scripts.release(MODEL, [keys[1], keys[4], key("never claimed")]))
    assert client._run(scripts.claim(MODEL, keys)) == {keys[1], keys[4]}
    assert client._run(scripts.claim(OTHER, keys)) == set()
    assert client._run(scripts.claim(MODEL, [])) == set()
    client._run(scripts.release(MODEL, []))


def test_a_claim_that_ran_out_is_taken_over_by_one(client, dsn):
    keys = [key("short"), key("long")]
    assert client._run(scripts.claim(MODEL, keys[:1], seconds=0.2)) == {keys[0]}
    assert client._run(scripts.claim(MODEL, keys[1:], seconds=60)) == {keys[1]}
    assert client._run(scripts.claim(MODEL, keys)) == set()
    time.sleep(0.25)
    assert client._run(scripts.claim(MODEL, keys)) == {keys[0]}
    assert client._run(scripts.claim(MODEL, keys)) == set()
    left = rows(
        dsn,
        "SELECT extract(epoch FROM claimed_until - clock_timestamp())::float8 AS s FROM pgseek.embedding_claims",
    )
    assert all(50 < row["s"] <= 60 for row in left)
    for seconds in (0, -1, float("nan"), 1e9):
        with pytest.raises(InvalidInput, match="seconds is"):
            client._run(scripts.claim(MODEL, keys, seconds=seconds))


def test_a_text_stored_since_it_was_looked_up_is_not_claimed_again(client, dsn):
    keys = [key("stored"), key("as a query"), key("expired")]
    client._run(scripts.store(MODEL, "document", {keys[0]: vector(1), keys[2]: vector(1)}, 1))
    client._run(scripts.store(MODEL, "query", {keys[1]: vector(1)}, 1))
    age(dsn, "expires_at", "expired", "1 ms")
    assert client._run(scripts.claim(MODEL, keys)) == {keys[1], keys[2]}
    assert client._run(scripts.claim(OTHER, keys)) == set(keys)


@pytest.mark.parametrize("ran_out", [False, True], ids=["new", "ran out"])
def test_at_once_each_text_is_claimed_by_exactly_one(client, dsn, ran_out):
    """Overlapping keys, each in an order of its own; every one is won once, and nothing deadlocks."""
    for turn in range(8):
        keys = [key(f"{turn} {n}") for n in range(60)]
        if ran_out:
            client._run(scripts.claim(MODEL, keys, seconds=0.001))
            time.sleep(0.005)
        shares = [random.Random(f"{turn} {n}").sample(keys, 45) for n in range(4)]
        shares[0] = keys[::-1]

        def work(share):
            return lambda: client._run(scripts.claim(MODEL, share))

        won = in_threads(*map(work, shares))
        assert sum(map(len, won)) == len(keys)
        assert frozenset().union(*won) == set(keys)
        assert all(mine <= set(share) for mine, share in zip(won, shares, strict=True))


def test_two_workers_embed_each_text_once(client):
    """The whole way: look up, claim, embed, store, release, and look up what the other did."""
    texts = [f"text {n}" for n in range(40)]
    embedded: list[str] = []

    def worker():
        wanted = {key(text): text for text in texts}
        found = {}
        deadline = time.monotonic() + 20
        while wanted and time.monotonic() < deadline:
            found |= client._run(scripts.look_up(MODEL, "document", list(wanted)))
            mine = client._run(scripts.claim(MODEL, [name for name in wanted if name not in found][:7]))
            embedded.extend(wanted[name] for name in mine)
            time.sleep(0.002)
            client._run(scripts.store(MODEL, "document", {name: vector(1) for name in mine}, None))
            client._run(scripts.release(MODEL, mine))
            found |= {name: vector(1) for name in mine}
            wanted = {name: text for name, text in wanted.items() if name not in found}
        return len(found)

    assert in_threads(worker, worker, worker) == [len(texts)] * 3
    assert sorted(embedded) == sorted(texts)


# Statistics, pruning, clearing.


def test_statistics_tell_models_by_name_and_count_what_expired(client, dsn):
    embedder = CountingEmbedder()
    client.create_collection("docs", embedder=embedder)
    own = identity_hash(embedder.identity)
    assert client.cache_stats() == []
    client._run(scripts.store(own, "document", {key(n): np.ones(8, np.float32) for n in range(3)}, None))
    client._run(scripts.store(own, "query", {key("q"): np.ones(8, np.float32)}, 1))
    client._run(scripts.store(MODEL, "query", {key("q"): np.ones(2, np.float32)}, 1))
    age(dsn, "used_at", 1, "3 days")
    rows(dsn, "UPDATE pgseek.embedding_cache SET expires_at = now() WHERE identity = %s", [MODEL])
    documents, queries, unknown = client.cache_stats()
    assert (documents.provider, documents.model, documents.dimensions) == ("tests", "hash", 8)
    assert (documents.identity, documents.input_type, documents.entries) == (own, "document", 3)
    assert documents.newest_used_at - documents.oldest_used_at > timedelta(days=2, hours=23)
    assert (queries.input_type, queries.entries, queries.expired) == ("query", 1, 0)
    assert (unknown.identity, unknown.provider, unknown.model, unknown.dimensions) == (
        MODEL,
        None,
        None,
        None,
    )
    assert (unknown.entries, unknown.expired) == (1, 1)
    # 64 bytes of identity, 32 of the key, 4 a dimension, 8 a time, and a few of lengths.
    assert 3 * (64 + 32 + 32 + 16) <= documents.bytes <= 3 * (64 + 32 + 32 + 16 + 30)
    # Two collections of one model are one line.
    client.create_collection("more", embedder=embedder)
    assert client.cache_stats() == [documents, queries, unknown]


def test_pruning_deletes_what_expired_and_nothing_else(client, dsn):
    client._run(scripts.store(MODEL, "document", {key("live"): vector(1), key("old"): vector(1)}, 1))
    client._run(scripts.store(MODEL, "document", {key("for ever"): vector(1)}, None))
    age(dsn, "expires_at", "old", "1 ms")
    client._run(scripts.claim(MODEL, [key("over")], seconds=0.001))
    client._run(scripts.claim(MODEL, [key("claimed")], seconds=60))
    rows(dsn, "INSERT INTO pgseek.rate_limits VALUES ('kept', '{1}')")
    time.sleep(0.01)
    assert client._run(scripts.prune(CachePolicy())) == 1
    assert {entry["text_hash"] for entry in entries(dsn)} == {key("live"), key("for ever")}
    assert rows(dsn, "SELECT text_hash FROM pgseek.embedding_claims") == [{"text_hash": key("claimed")}]
    assert len(rows(dsn, "SELECT FROM pgseek.rate_limits")) == 1
    assert client._run(scripts.prune(CachePolicy())) == 0


SIZE = (
    "SELECT identity, input_type, text_hash, used_at, pg_column_size(identity) + pg_column_size(input_type)"
    " + pg_column_size(text_hash) + pg_column_size(embedding) + pg_column_size(created_at)"
    " + pg_column_size(used_at) + coalesce(pg_column_size(expires_at), 0) AS size FROM pgseek.embedding_cache"
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made=st.lists(
        st.tuples(
            st.sampled_from([MODEL, OTHER]),
            st.sampled_from(["document", "query"]),
            st.integers(1, 40),
            st.integers(0, 3),
        ),
        max_size=12,
    ),
    part=st.floats(0, 1.1),
)
def test_pruning_leaves_the_most_recently_used_that_fit(client, dsn, made, part):
    rows(dsn, "DELETE FROM pgseek.embedding_cache")
    for number, (identity, input_type, dimensions, hours) in enumerate(made):
        client._run(
            scripts.store(identity, input_type, {key(number): np.ones(dimensions, np.float32)}, hours or None)
        )
        used = datetime(2020, 1, 1, hours, tzinfo=UTC)
        rows(dsn, "UPDATE pgseek.embedding_cache SET used_at = %s WHERE text_hash = %s", [used, key(number)])
    stored = rows(dsn, SIZE)
    bound = int(sum(row["size"] for row in stored) * part)
    stored.sort(
        key=lambda row: (row["used_at"], row["identity"], row["input_type"], row["text_hash"]), reverse=True
    )
    expected, total = [], 0
    for row in stored:
        total += row["size"]
        if total > bound:
            break
        expected.append(row["text_hash"])
    assert client.prune_cache(max_bytes=bound) == len(stored) - len(expected)
    assert {row["text_hash"] for row in rows(dsn, SIZE)} == set(expected)
    assert sum(one.bytes for one in client.cache_stats()) <= bound


def test_clearing_by_collection_identity_and_input_type(client, dsn):
    one, two = CountingEmbedder(model="one"), CountingEmbedder(model="two")
    client.create_collection("one", embedder=one)
    client.create_collection("two", embedder=two)

    def fill():
        for identity in (identity_hash(one.identity), identity_hash(two.identity), MODEL):
            for input_type in ("document", "query"):
                client._run(scripts.store(identity, input_type, {key("x"): vector(1)}, None))

    def left():
        names = {identity_hash(one.identity): "one", identity_hash(two.identity): "two", MODEL: "none"}
        return {(names[entry["identity"]], entry["input_type"]) for entry in entries(dsn)}

    fill()
    everything = left()
    assert len(everything) == 6
    assert client.clear_cache("one", input_type="query") == 1
    assert left() == everything - {("one", "query")}
    assert client.clear_cache("two") == 2
    assert left() == {("one", "document"), ("none", "document"), ("none", "query")}
    assert client._run(scripts.clear(MODEL, "document")) == 1
    assert client.clear_cache(input_type="query") == 1
    assert client.clear_cache() == 1
    assert client.clear_cache() == 0
    fill()
    with pytest.raises(CollectionNotFound, match="did you mean 'one'"):
        client.clear_cache("onee")
    with pytest.raises(InvalidInput, match="input_type is 'queries', but must be one of document, query"):
        client.clear_cache(input_type="queries")
    assert left() == everything


def test_everything_at_once_ends_without_a_deadlock(dsn):
    """Every script that locks several rows, against every other."""
    keys = [key(n) for n in range(30)]
    end = time.monotonic() + 1.5

    def repeat(make):
        def work():
            turn = 0
            with Client(dsn) as own:
                while time.monotonic() < end:
                    turn += 1
                    random.Random(turn).shuffle(order := list(keys))
                    own._run(make(order))
            return turn

        return work

    turns = in_threads(
        # Expired at once, so that every store finds rows to replace.
        repeat(lambda order: scripts.store(MODEL, "query", dict.fromkeys(order, vector(1)), 1e-8)),
        repeat(lambda order: scripts.store(MODEL, "query", dict.fromkeys(order[:20], vector(1)), 1e-8)),
        repeat(lambda order: scripts.look_up(MODEL, "query", order)),
        repeat(lambda _: scripts.prune(CachePolicy(max_bytes=500))),
        repeat(lambda _: scripts.clear(MODEL)),
        repeat(lambda order: scripts.claim(MODEL, order[:20], seconds=0.001)),
        repeat(lambda order: scripts.claim(MODEL, order[:20], seconds=0.001)),
        repeat(lambda order: scripts.release(MODEL, order)),
    )
    assert min(turns) >= 3


# Settings.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"document_days": 0}, "document_days is 0, but must be above 0 and at most 36,500 days, or None"),
        ({"query_days": -1}, "query_days is -1"),
        ({"query_days": float("nan")}, "query_days is nan"),
        ({"query_days": True}, "query_days is True"),
        ({"document_days": 36_501}, "document_days is 36501"),
        ({"max_bytes": -1}, "max_bytes is -1, but must be a whole number from 0 up, or None"),
        ({"max_bytes": 1.5}, "max_bytes is 1.5"),
    ],
)
def test_a_policy_names_the_value_that_cannot_be(given, message):
    with pytest.raises(InvalidInput, match=message):
        CachePolicy(**given)


def test_the_environment_sets_the_policy(monkeypatch):
    assert Settings().cache_policy() == CachePolicy(None, 30.0, None)
    monkeypatch.setenv("PGSEEK_CACHE_DOCUMENT_DAYS", "365")
    monkeypatch.setenv("PGSEEK_CACHE_QUERY_DAYS", "")
    monkeypatch.setenv("PGSEEK_CACHE_MAX_MB", "3")
    assert Settings().cache_policy() == CachePolicy(365.0, None, 3 * MEBIBYTE)
    for name, value in (("QUERY_DAYS", "0"), ("DOCUMENT_DAYS", "nan"), ("MAX_MB", "1.5"), ("MAX_MB", "-1")):
        with monkeypatch.context() as patch:
            patch.setenv(f"PGSEEK_CACHE_{name}", value)
            with pytest.raises(ConfigurationError, match=f"PGSEEK_CACHE_{name} is '{value}'"):
                Settings()


def test_pruning_without_an_argument_keeps_to_the_setting(dsn, monkeypatch):
    monkeypatch.setenv("PGSEEK_CACHE_MAX_MB", "1")
    with Client(dsn) as client:
        texts = {key(n): np.random.default_rng(n).normal(size=1000).astype(np.float32) for n in range(300)}
        client._run(scripts.store(MODEL, "document", texts, None))
        before = client.cache_stats()[0].bytes
        assert before > MEBIBYTE
        gone = client.prune_cache()
        left = client.cache_stats()[0]
        assert left.entries == 300 - gone
        assert MEBIBYTE - before / 300 * 1.01 < left.bytes <= MEBIBYTE
        with pytest.raises(InvalidInput, match="max_bytes is -1"):
            client.prune_cache(max_bytes=-1)


def test_the_asynchronous_client_does_the_same(client, dsn):
    client._run(scripts.store(MODEL, "query", {key("x"): vector(1), key("y"): vector(1)}, None))
    client._run(scripts.store(MODEL, "document", {key("x"): vector(1)}, None))

    async def main():
        async with AsyncClient(dsn) as own:
            assert await own.cache_stats() == client.cache_stats()
            assert await own.clear_cache(input_type="document") == 1
            assert await own.prune_cache(max_bytes=0) == 2
            assert await own.cache_stats() == []

    asyncio.run(main())


# What SQL callers find.


def test_sql_does_not_use_an_expired_query_vector(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest(CORPUS)
    text = "cache a function"
    identity = docs.info().identity_hash
    docs.search(text)
    rows(dsn, "DELETE FROM pgseek.embedding_cache WHERE input_type = 'query'")
    client._run(scripts.store(identity, "query", {key(text): np.eye(8, dtype=np.float32)[0]}, 30))
    search = "SELECT * FROM pgseek.search('docs', %s)"
    fresh = rows(dsn, search, [text])
    assert {row["degraded"] for row in fresh} == {None}
    assert any(row["dense_score"] is not None for row in fresh)
    age(dsn, "expires_at", text, "1 ms")
    expired = rows(dsn, search, [text])
    assert {row["dense_score"] for row in expired} == {None}
    assert all("lexical only" in row["degraded"] for row in expired)
    with pytest.raises(Exception, match="the query has no embedding"):
        rows(dsn, "SELECT * FROM pgseek.search('docs', %s, alpha => 1)", [text])
    rows(dsn, "UPDATE pgseek.embedding_cache SET expires_at = NULL")
    assert rows(dsn, search, [text]) == fresh


def test_a_failure_of_the_server_is_our_error(client, dsn):
    rows(dsn, "DROP TABLE pgseek.embedding_claims")
    with pytest.raises(DatabaseError, match="pgseek db upgrade"):
        client._run(scripts.claim(MODEL, [key("x")]))
