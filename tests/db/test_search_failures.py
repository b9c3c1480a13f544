"""What a search does when its embedder fails, its time runs out, or nobody waits for it any more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time

import pytest
from support import CORPUS, CountingEmbedder, rows

from pgseek import (
    AsyncClient,
    Client,
    ConnectionFailed,
    DatabaseError,
    EmbedderError,
    InvalidInput,
    SearchTimeout,
)
from pgseek.db.connection import connect
from pgseek.embedders.base import PROBES
from pgseek.errors import ConfigurationError

SECRET = "sk-not-for-a-log"
ACTIVE = """
SELECT pid, state, query FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'pgseek' AND state <> 'idle' AND pid <> pg_backend_pid()
"""


class Failing(CountingEmbedder):
    """Embeds documents; queries only while ``works``."""

    works = False

    def embed_query(self, text):
        if self.works or text in PROBES:
            return super().embed_query(text)
        raise RuntimeError(f"401 for key {SECRET} and text {text}")


class Hanging(CountingEmbedder):
    """Answers a query when it is released."""

    def __init__(self):
        super().__init__()
        self.begun = threading.Event()
        self.released = threading.Event()

    def embed_query(self, text):
        if text not in PROBES:
            self.begun.set()
            assert self.released.wait(60)
        return super().embed_query(text)


@pytest.fixture
def docs(client):
    made = client.create_collection("docs", embedder=Failing())
    made.ingest(CORPUS)
    return made


@pytest.fixture
def hanging():
    embedder = Hanging()
    yield embedder
    embedder.released.set()


@contextlib.contextmanager
def locked(dsn, table="pgseek.chunks"):
    """Let every search wait on the server."""
    with connect(dsn, autocommit=False, application_name="locker") as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


def test_an_embedder_that_fails_is_an_error_unless_told_otherwise(docs):
    with pytest.raises(EmbedderError, match="401"):
        docs.search("cache a function")
    with pytest.raises(EmbedderError, match="401"):
        docs.search("cache a function", on_embedder_error="raise")


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"alpha": 1},
        {"alpha": 0.5},
        {"fusion": "rrf"},
        {"lexical": "ts_rank_cd"},
        {"min_dense_score": 0.9},
    ],
    ids=str,
)
def test_without_an_embedder_the_words_answer_and_every_hit_says_so(docs, caplog, how):
    query = "cache a zebra function"
    lexical = {"lexical": how["lexical"]} if "lexical" in how else {}
    with caplog.at_level(logging.WARNING, "pgseek"):
        hits = docs.search(query, on_embedder_error="lexical", **how)
    assert [(hit.id, hit.score) for hit in hits] == [
        (hit.id, hit.score) for hit in docs.search(query, alpha=0, **lexical)
    ]
    assert hits
    for hit in hits:
        assert hit.degraded.startswith("lexical only: tests:hash@8 failed: 401")
        assert hit.dense_score is None
    (record,) = caplog.records
    told = record.getMessage()
    assert told == (
        "search of 'docs' is degraded: tests:hash@8 did not embed the query (EmbedderError from RuntimeError)"
    )
    assert SECRET not in told
    assert "zebra" not in told


def test_an_embedder_that_cannot_be_loaded_is_one_that_fails(docs, dsn, monkeypatch, caplog):
    def cannot(info, given):
        raise EmbedderError("cannot load model: its weights are gone")

    monkeypatch.setattr("pgseek.collections.embedder_of", cannot)
    with Client(dsn) as client:
        own = client.collection("docs", embedder=Failing())
        with pytest.raises(EmbedderError, match="weights are gone"):
            own.search("cache")
        hits = own.search(
            "cache", on_embedder_error="lexical", reranker=lambda query, texts: [0.0] * len(texts)
        )
    assert hits[0].degraded == "lexical only: cannot load model: its weights are gone"
    assert hits[0].fused_rank == 1
    assert [record.getMessage() for record in caplog.records] == [
        "search of 'docs' is degraded: tests:hash@8 did not embed the query (EmbedderError)"
    ]


def test_degraded_is_only_what_had_to_be(docs):
    docs._embedder.works = True
    assert docs.search("cache", on_embedder_error="lexical")[0].degraded is None
    docs._embedder.works = False
    # Its vector is known by now.
    hit = docs.search("cache", on_embedder_error="lexical")[0]
    assert hit.degraded is None
    assert hit.dense_score is not None
    # No vector was asked for.
    assert docs.search("items", alpha=0)[0].degraded is None


def test_both_reasons_are_told(docs):
    docs.ingest([{"id": str(n), "text": f"cache of {n}"} for n in range(300)])
    hits = docs.search("cache", on_embedder_error="lexical", budget=0.000001)
    assert {hit.degraded.count("lexical only: ") for hit in hits} == {1}


def test_a_clients_default_holds_for_its_searches_and_gives_way_to_an_argument(docs, dsn, monkeypatch):
    with Client(dsn, on_embedder_error="lexical") as client:
        own = client.collection("docs", embedder=Failing())
        assert "lexical only" in own.search("cache")[0].degraded
        with pytest.raises(EmbedderError):
            own.search("cache", on_embedder_error="raise")
    monkeypatch.setenv("PGSEEK_ON_EMBEDDER_ERROR", "lexical")
    with Client(dsn) as client:
        assert "lexical only" in client.collection("docs", embedder=Failing()).search("cache")[0].degraded


@pytest.mark.parametrize("wrong", ["ignore", "", 1, True])
def test_an_unknown_policy_is_named(docs, dsn, wrong):
    if wrong:
        with pytest.raises(InvalidInput, match="must be 'raise' or 'lexical'"):
            docs.search("cache", on_embedder_error=wrong)
    with pytest.raises(InvalidInput, match="must be 'raise' or 'lexical'"):
        Client(dsn, on_embedder_error=wrong)


@pytest.mark.parametrize("wrong", [0, -1, math.nan, "5", True])
def test_a_timeout_is_a_number_of_seconds(docs, dsn, wrong):
    with pytest.raises(InvalidInput, match=r"timeout is .* above 0 seconds"):
        docs.search("cache", timeout=wrong)
    with pytest.raises(InvalidInput, match=r"search_timeout is .* above 0 seconds"):
        Client(dsn, search_timeout=wrong)


def test_a_wrong_variable_of_the_environment_is_named(dsn, monkeypatch):
    monkeypatch.setenv("PGSEEK_SEARCH_TIMEOUT", "0")
    with pytest.raises(ConfigurationError, match="PGSEEK_SEARCH_TIMEOUT is '0'"):
        Client(dsn)
    monkeypatch.setenv("PGSEEK_SEARCH_TIMEOUT", "")
    Client(dsn)


def test_the_server_is_held_to_the_timeout(docs, dsn):
    with locked(dsn), pytest.raises(SearchTimeout) as caught:
        docs.search("cache", alpha=0, timeout=0.3)
    assert "the search of 'docs' took longer than its timeout of 0.3 s: search 0." in str(caught.value)
    assert str(caught.value).endswith("not done")
    assert isinstance(caught.value, TimeoutError)
    assert rows(dsn, ACTIVE) == []
    # The connection is clean, and the limit went with its transaction.
    with docs._client._runner._pool.connection() as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == {"statement_timeout": "0"}
    assert docs.search("cache", alpha=0, timeout=30)[0].id == "lru_cache"


def test_a_timeout_changes_nothing_else(docs):
    docs._embedder.works = True
    assert docs.search("cache a function", timeout=30) == docs.search("cache a function")
    assert docs.search("cache a function", timeout=math.inf) == docs.search("cache a function")


def test_a_clients_timeout_holds_for_its_searches(docs, dsn):
    with Client(dsn, search_timeout=0.2) as client:
        own = client.collection("docs", embedder=Failing())
        with locked(dsn), pytest.raises(SearchTimeout, match=r"timeout of 0\.2 s"):
            own.search("cache", alpha=0)


def test_the_servers_own_limit_stays_where_it_is_lower(docs, dsn):
    with connect(dsn) as connection:
        database = connection.info.dbname
        connection.execute(f"ALTER DATABASE {database} SET statement_timeout = '200ms'")
    with Client(dsn) as client:
        own = client.collection("docs", embedder=Failing())
        with locked(dsn), pytest.raises(DatabaseError, match="cancelled"):
            own.search("cache", alpha=0, timeout=3600)


def test_the_timeout_bounds_the_embedder(client, hanging):
    docs = client.create_collection("docs", embedder=hanging)
    docs.ingest(CORPUS)
    with pytest.raises(SearchTimeout) as caught:
        docs.search("cache", timeout=0.3)
    assert "timeout of 0.3 s: embed 0.3" in str(caught.value)
    assert "not done (tests:hash@8 had not embedded the query)" in str(caught.value)


def test_an_embedder_that_hangs_leaves_the_words_their_time(client, hanging, caplog):
    docs = client.create_collection("docs", embedder=hanging)
    docs.ingest(CORPUS)
    with caplog.at_level(logging.WARNING, "pgseek"):
        hits = docs.search("cache", timeout=2, on_embedder_error="lexical")
    assert hits[0].id == "lru_cache"
    assert {hit.degraded for hit in hits} == {
        record.getMessage().replace("search of 'docs' is degraded", "lexical only")
        for record in caplog.records
    }
    assert "had not embedded the query after" in hits[0].degraded


def test_waiting_for_a_connection_counts(docs, dsn, monkeypatch):
    monkeypatch.setenv("PGSEEK_POOL_SIZE", "1")
    with Client(dsn) as client:
        own = client.collection("docs", embedder=Failing())
        with (
            client._runner._pool.connection(),
            pytest.raises(SearchTimeout, match="no connection became free"),
        ):
            own.search("cache", alpha=0, timeout=0.2)
        assert own.search("cache", alpha=0, timeout=30)[0].id == "lru_cache"


def test_a_long_timeout_makes_nobody_wait_longer_for_a_connection(docs, dsn, monkeypatch):
    monkeypatch.setenv("PGSEEK_POOL_SIZE", "1")
    monkeypatch.setenv("PGSEEK_CONNECT_TIMEOUT", "1")
    with Client(dsn) as client:
        own = client.collection("docs", embedder=Failing())
        with (
            client._runner._pool.connection(),
            pytest.raises(ConnectionFailed, match="all 1 connections are in use"),
        ):
            own.search("cache", alpha=0, timeout=3600)


def test_the_asynchronous_client_keeps_the_limits_too(docs, dsn, hanging):
    async def main():
        async with AsyncClient(dsn, search_timeout=0.3) as client:
            own = await client.collection("docs", embedder=hanging)
            with pytest.raises(SearchTimeout, match="embed 0"):
                await own.search("cache")
            hits = await own.search("cache", timeout=2, on_embedder_error="lexical")
            assert "lexical only" in hits[0].degraded
            with locked(dsn), pytest.raises(SearchTimeout, match="search 0"):
                await own.search("cache", alpha=0)
            with pytest.raises(EmbedderError):
                await (await client.collection("docs", embedder=Failing())).search("cache")

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_cancelled_task_cancels_its_statement_and_returns_a_clean_connection(docs, dsn, timeout):
    async def main():
        async with AsyncClient(dsn) as client:
            own = await client.collection("docs", embedder=Failing())
            await own.search("cache", alpha=0)
            with locked(dsn):
                task = asyncio.create_task(own.search("function", alpha=0, timeout=timeout))
                await asyncio.to_thread(
                    wait_until, lambda: any("pgseek.search" in r["query"] for r in rows(dsn, ACTIVE))
                )
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                # The lock is still held: only a cancellation can have ended the statement.
                assert rows(dsn, ACTIVE) == []
                stats = client._runner._pool.get_stats()
                assert stats["pool_available"] == stats["pool_size"] > 0
            assert stats.get("connections_lost", 0) == 0
            async with client._runner._pool.connection() as connection:
                assert connection.info.transaction_status.name == "IDLE"
            assert (await own.search("cache", alpha=0))[0].id == "lru_cache"

    asyncio.run(main())


def test_a_task_cancelled_while_its_query_is_embedded_ends_at_once(docs, dsn, hanging):
    async def main():
        async with AsyncClient(dsn) as client:
            own = await client.collection("docs", embedder=hanging)
            task = asyncio.create_task(own.search("function"))
            await asyncio.to_thread(hanging.begun.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not hanging.released.is_set()
            assert (await own.search("cache", alpha=0))[0].id == "lru_cache"

    asyncio.run(main())


def test_a_call_that_was_given_up_does_not_keep_the_process(tmp_path):
    import subprocess
    import sys

    script = "import time; from pgseek.steps import Background, called\nmade = Background().call(lambda: time.sleep(600))\ntry:\n    called(made)\nexcept TimeoutError:\n    print('given up')"
    made = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert made.stdout == "given up\n"
