"""The asynchronous client under load: connections, cancellation, and who runs on the event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from support import CORPUS, rows

import pgseek
from pgseek import AsyncClient, Client, Expansion

SEARCHES = 200
POOL = 10
OURS = """
SELECT count(*) AS connections, count(*) FILTER (WHERE state <> 'idle') AS busy FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'pgseek' AND pid <> pg_backend_pid()
"""
# What may take long, or stands for it. Under the asynchronous client none of it runs on the loop.
PACKAGE = Path(pgseek.__file__).parent
BLOCKING = [
    *(str(PACKAGE / name) for name in ("embedders/", "rerankers/", "generators/", "chunking/", "sources/")),
    *(str(PACKAGE / name) for name in ("search.py", "expansion.py", "embedding.py", "cache.py", "ingest.py")),
    "wordllama",
    "tokenizers",
    "numpy/",
]


@pytest.fixture
def filled(dsn):
    with Client(dsn) as client:
        client.create_collection("docs").ingest(CORPUS)
    return dsn


async def pool_of(client):
    """The pool's figures once all its connections are back: a worker of its own takes them back, or, where a
    cancelled search left one unusable, makes another in its place."""
    for _ in range(200):
        stats = client._runner._pool.get_stats()
        if stats["pool_available"] == stats["pool_size"]:
            break
        await asyncio.sleep(0.05)
    return stats


def slow_scores(query, texts):
    time.sleep(0.002)
    return [-len(text) for text in texts]


def test_many_searches_at_once_share_the_pool_and_leave_nothing(filled):
    async def main():
        async with AsyncClient(filled) as client:
            docs = await client.collection("docs")
            searches = [
                docs.search(
                    f"cache a function {n % 50}",
                    k=3,
                    reranker=slow_scores if n % 3 == 0 else None,
                    timeout=300 if n % 2 else None,
                )
                for n in range(SEARCHES)
            ]
            running = asyncio.gather(*searches)
            most = 0
            while not running.done():
                (now,) = await asyncio.to_thread(rows, filled, OURS)
                most = max(most, now["connections"])
                await asyncio.sleep(0.02)
            found = await running
            assert {hits[0].id for hits in found} <= {document["id"] for document in CORPUS}
            assert [len(hits) for hits in found] == [3] * SEARCHES
            # One more is there for a moment when the client looks at the server first.
            assert 0 < most <= POOL + 1
            stats = await pool_of(client)
            assert stats["pool_size"] <= POOL
            assert stats["pool_available"] == stats["pool_size"]
            assert stats.get("requests_waiting", 0) == 0
            assert stats.get("requests_errors", 0) == 0
            assert (await asyncio.to_thread(rows, filled, OURS))[0]["busy"] == 0
        # Closed is closed.
        for _ in range(100):
            if (left := rows(filled, OURS)[0]["connections"]) == 0:
                break
            time.sleep(0.05)
        assert left == 0

    asyncio.run(main())


def test_searches_cancelled_at_any_moment_return_their_connections(filled):
    async def main():
        async with AsyncClient(filled) as client:
            docs = await client.collection("docs")
            await docs.search("cache")
            outcomes = Counter()
            for wait in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05):
                tasks = [
                    asyncio.create_task(
                        docs.search(f"function {n}", reranker=slow_scores, timeout=60 if n % 2 else None)
                    )
                    for n in range(30)
                ]
                await asyncio.sleep(wait)
                for task in tasks[::2]:
                    task.cancel()
                for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                    outcomes[type(outcome)] += 1
            assert outcomes.keys() <= {list, asyncio.CancelledError}
            assert outcomes[asyncio.CancelledError] > 0
            assert outcomes[list] >= 6 * 15
            stats = await pool_of(client)
            assert stats["pool_available"] == stats["pool_size"] <= POOL
            assert (await asyncio.to_thread(rows, filled, OURS))[0]["busy"] == 0
            for _ in range(POOL):
                async with client._runner._pool.connection() as connection:
                    cursor = await connection.execute("SHOW statement_timeout")
                    assert await cursor.fetchone() == {"statement_timeout": "0"}
            assert (await docs.search("ENOENT"))[0].id == "errno"

    asyncio.run(main())


class Watch:
    """Looks, from another thread, at what the loop's thread is doing; and how late the loop's heartbeat is."""

    def __init__(self):
        self.seen = Counter()
        self.looks = self.beats = 0
        self.longest = 0.0
        self._loop = threading.get_ident()
        self._over = threading.Event()

    def look(self):
        while not self._over.wait(0.001):
            frame = sys._current_frames().get(self._loop)
            self.looks += 1
            while frame is not None:
                name = frame.f_code.co_filename
                self.seen.update(part for part in BLOCKING if part in name)
                frame = frame.f_back

    async def beat(self):
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last)
            last = now
            self.beats += 1

    async def during(self, work):
        watcher = threading.Thread(target=self.look)
        watcher.start()
        heart = asyncio.create_task(self.beat())
        try:
            return await work
        finally:
            self._over.set()
            watcher.join()
            heart.cancel()


def test_the_watch_sees_what_runs_on_the_loop():
    from pgseek.embedders.registry import create_embedder

    embedder = create_embedder("wordllama")

    async def on_the_loop():
        for n in range(2000):
            embedder.embed_query(f"a text of some length, number {n}")

    async def main():
        watch = Watch()
        await watch.during(on_the_loop())
        assert watch.seen[str(PACKAGE / "embedders/")] > 0
        assert watch.beats == 0

    asyncio.run(main())


def test_nothing_blocks_the_loop(dsn, record_property):
    def write(query):
        time.sleep(0.01)
        return [f"{query} once more"]

    async def work(client):
        # The model is loaded, documents are chunked and embedded, and meanwhile there are searches.
        docs = await client.create_collection("docs")
        ingest = docs.ingest({"id": str(n), "text": f"function {n} caches. " * 100} for n in range(2000))
        searches = [
            docs.search(f"number {n}", reranker=slow_scores, expand=Expansion(write), timeout=600)
            for n in range(40)
        ]
        report, *_ = await asyncio.gather(ingest, *searches)
        assert report.new == 2000
        found = await asyncio.gather(*(docs.search(f"function {n}", reranker=slow_scores) for n in range(40)))
        assert all(len(hits) == 10 for hits in found)

    async def main():
        async with AsyncClient(dsn) as client:
            watch = Watch()
            await watch.during(work(client))
            record_property("longest gap of the heartbeat, seconds", watch.longest)
            print(f"{watch.beats} beats, the longest gap {watch.longest:.3f} s; {watch.looks} looks")
            assert watch.seen == {}
            assert watch.looks > 100
            assert watch.beats > 10

    asyncio.run(main())
