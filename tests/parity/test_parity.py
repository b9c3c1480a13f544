"""The two clients: one surface, one behaviour, and the command line beside them."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import CORPUS, CountingEmbedder, rows

import pgseek
from pgseek import AsyncClient, AsyncCollection, Client, Collection

ROOT = Path(__file__).parents[2]
RENAMED = {"__enter__": "__aenter__", "__exit__": "__aexit__"}


def surface(cls):
    return {
        name: member
        for name, member in vars(cls).items()
        if callable(member) and (not name.startswith("_") or name in RENAMED or name in RENAMED.values())
    }


@pytest.mark.parametrize(("sync", "other"), [(Client, AsyncClient), (Collection, AsyncCollection)])
def test_methods_and_signatures_are_the_same(sync, other):
    expected = {RENAMED.get(name, name): member for name, member in surface(sync).items()}
    found = surface(other)
    assert found.keys() == expected.keys()
    for name, member in expected.items():
        own, twin = inspect.signature(member), inspect.signature(found[name])
        assert [str(p).replace("Async", "") for p in twin.parameters.values()] == [
            str(p) for p in own.parameters.values()
        ], name
        assert str(twin.return_annotation).replace("Async", "") == str(own.return_annotation), name
        assert inspect.iscoroutinefunction(found[name]), name
        assert (found[name].__doc__ or "").replace("Async", "") == (member.__doc__ or ""), name


def test_the_asynchronous_client_is_made_from_the_other():
    subprocess.run([sys.executable, ROOT / "tools" / "make_async.py", "--check"], check=True)


def run(client_class, dsn):
    """Do one round of everything and return what came back."""

    async def as_async():
        async with AsyncClient(dsn) as client:
            return await rounds(client, awaited=True)

    if client_class is AsyncClient:
        return asyncio.run(as_async())
    with Client(dsn) as client:
        return asyncio.run(rounds(client, awaited=False))


async def rounds(client, awaited):
    async def call(value):
        return await value if awaited else value

    embedder = CountingEmbedder()
    docs = await call(client.create_collection("docs", embedder=embedder))
    results = []
    seen = []
    report = await call(docs.ingest([*CORPUS, {"id": "bad", "text": ""}], batch_size=3, progress=seen.append))
    results += [report.new, report.rejected, report.chunks, [r.new for r in seen]]
    results += [await call(docs.search("cache a function", k=3)), await call(docs.search("cache", alpha=0))]
    results += [await call(docs.get("errno")), await call(docs.get("none")), await call(docs.delete("errno"))]
    results += [await call(docs.count()), (await call(docs.info())).documents]
    rows(client._dsn.get_secret_value(), "SELECT pgseek.put_document('docs', 'sql', 'from sql')")
    results.append((await call(docs.drain_queue())).changed)
    results.append([info.name for info in await call(client.list_collections())])
    for name, wrong in (
        ("unknown", lambda: client.collection("dosc")),
        ("empty", lambda: docs.search(" ")),
        ("taken", lambda: client.create_collection("docs")),
    ):
        with pytest.raises(pgseek.PgseekError) as caught:
            await call(wrong())
        results.append((name, type(caught.value), str(caught.value)))
    await call(client.drop_collection("docs"))
    results.append(await call(client.list_collections()))
    return results


def test_both_clients_do_the_same(empty_dsn, dsn):
    from pgseek.db import schema

    schema.upgrade(empty_dsn)
    assert run(Client, dsn) == run(AsyncClient, empty_dsn)


class Waiting(CountingEmbedder):
    """Answers a query only after the event loop has moved on: on the loop it would wait for ever."""

    def __init__(self):
        super().__init__()
        self.moved_on = threading.Event()

    def embed_query(self, text):
        assert self.moved_on.wait(30), "the embedder ran on the event loop"
        return super().embed_query(text)


def test_concurrent_searches_share_a_small_pool_and_embed_off_the_loop(dsn):
    with Client(dsn) as client:
        client.create_collection("docs", embedder=CountingEmbedder()).ingest(CORPUS)

    async def main():
        async with AsyncClient(dsn) as client:
            embedder = Waiting()
            docs = await client.collection("docs", embedder=embedder)
            searches = [asyncio.create_task(docs.search(f"memoizing {n % 5}", k=1)) for n in range(100)]
            await asyncio.sleep(0)
            embedder.moved_on.set()
            found = await asyncio.gather(*searches)
            assert {len(hits) for hits in found} == {1}
            stats = client._runner._pool.get_stats()
            assert stats["pool_size"] <= 10
            assert stats["pool_available"] == stats["pool_size"]

    asyncio.run(main())


def test_a_cancelled_search_returns_its_connection(dsn):
    with Client(dsn) as client:
        client.create_collection("docs").ingest(CORPUS)

    async def main():
        async with AsyncClient(dsn) as client:
            docs = await client.collection("docs")
            await docs.search("cache")
            for delay in (0.0, 0.0005, 0.001, 0.002, 0.004):
                task = asyncio.create_task(docs.search("function"))
                await asyncio.sleep(delay)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert (await docs.search("ENOENT"))[0].id == "errno"
            stats = client._runner._pool.get_stats()
            assert stats["pool_available"] == stats["pool_size"]

    asyncio.run(main())
