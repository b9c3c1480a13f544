"""kill -9 of clients, backends and the server, cut connections, full disks, two ingests at once.

Afterwards every document is whole, old or new; running again ends as if nothing had happened, and pays for
nothing twice but what was on its way. The seed of a run is printed when it fails; PGSEEK_CRASH_SEED repeats it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import signal
import time
from collections import Counter
from random import SystemRandom

import pytest
from crash_child import LEASE
from crashes import Bench, state, when
from providers import ProviderServer
from psycopg.conninfo import make_conninfo
from support import CountingEmbedder, create_database, drop_database, rows

from pgseek import Client, DatabaseError, PgseekError
from pgseek.db import embedded, schema
from pgseek.db.connection import connect
from pgseek.integrity import examine

LATENCY = 0.03
# Documents: with a thousand vectors and more there is an index of them.
SIZE, SMALL = 900, 300
# A batch on its way, and the one before it that waits to be written: each is one request here.
REQUESTS_IN_FLIGHT = 2


@pytest.fixture
def seed():
    chosen = int(os.environ.get("PGSEEK_CRASH_SEED") or SystemRandom().randrange(10**6))
    print(f"PGSEEK_CRASH_SEED={chosen}")
    return chosen


@pytest.fixture
def service():
    with ProviderServer() as server:
        server.latency = LATENCY
        yield server


@pytest.fixture
def make_bench(service, seed, tmp_path):
    """Makes a collection ``docs`` in a database and what looks after it."""
    made = []

    def make(dsn, size):
        made.append(Bench(dsn, service, tmp_path, seed, size))
        made[-1].create()
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture(scope="session")
def references(server_dsn, template, tmp_path_factory):
    """For a size of the corpus: its two versions as an ingest leaves them that nobody disturbs, and the
    seconds it takes.
    """

    @functools.cache
    def refer(size):
        name = f"pgseek_reference_{os.getpid()}"
        found = {}
        with ProviderServer() as service:
            service.latency = LATENCY
            create_database(server_dsn, name, template)
            try:
                dsn = make_conninfo(server_dsn, dbname=name)
                bench = Bench(dsn, service, tmp_path_factory.mktemp("reference"), 0, size)
                bench.create()
                for version in (1, 2):
                    child = bench.ingest(version)
                    assert child.ready.wait(60)
                    started = time.monotonic()
                    child.go()
                    assert child.wait() == 0
                    seconds = time.monotonic() - started
                    bench.check_whole()
                    found[version] = state(bench.dsn)
                bench.close()
            finally:
                drop_database(server_dsn, name)
        return found, seconds

    return refer


@pytest.fixture
def own_server(data_dir):
    """An embedded server of the test's own, that writes through to the disk as servers do."""
    dsn = embedded.start(data_dir)
    schema.upgrade(dsn)
    return dsn


def restart(data_dir, seconds=60):
    """Start the server again; children of the old one may take a while to end."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            dsn = embedded.start(data_dir)
            rows(dsn, "SELECT 1 AS one")
            return dsn
        except PgseekError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def finish(bench, version, reference):
    """Run to the end undisturbed; it is then as if it had always been."""
    work = [bench.ingest(version)]
    if rows(bench.dsn, "SELECT FROM pgseek.ingest_queue"):
        # What a killed worker had claimed is due again.
        time.sleep(LEASE)
        work.append(bench.child("drain"))
    for child in work:
        child.go()
        assert child.wait() == 0, child.error
    bench.check_finished(reference)


def kill_clients(bench, kills, seconds, reference):
    """Kill processes at random moments of their work; look at what they leave, and go on from there."""
    choose = bench.random
    version = 1
    following = bench.ingest(version)
    while sum(bench.kills.values()) < kills:
        since = len(bench.service.requests)
        kind = choose.choices(("ingest", "drain", "work", "delete"), (6, 1, 1, 1))[0]
        if kind == "ingest":
            # The next one gets ready while this one works.
            child, following = following, bench.ingest(version)
            # What a kill leaves to do takes less: the last moments come often enough.
            duration = 0.7 * seconds
        elif kind in ("drain", "work"):
            put_through_sql(bench, choose.sample(list(bench.versions[version].values()), 60))
            child, duration = bench.child(kind), seconds / 4
        else:
            child = bench.child("delete", *choose.sample(sorted(bench.versions[version]), 200))
            duration = 0.1
        child.go()
        ends = time.monotonic() + choose.uniform(0, duration)
        while time.monotonic() < ends and child.process.poll() is None:
            time.sleep(0.002)
        killed = child.kill()
        bench.kills[kind] += killed
        assert len(bench.lost(since)) <= REQUESTS_IN_FLIGHT
        matching = bench.check_whole()
        if kind == "ingest":
            # What was said to be stored is.
            assert matching[version] >= child.stored
            if not killed:
                # The other version is next, and nothing of it is known.
                bench.forget()
                version = 3 - version
                following.close()
                following = bench.ingest(version)
    following.close()
    finish(bench, version, reference[version])
    bench.check_paid()


def put_through_sql(bench, documents):
    with connect(bench.dsn) as connection:
        for d in documents:
            connection.execute(
                "SELECT pgseek.put_document('docs', %s, %s, %s, metadata => jsonb_build_object('n', %s::int))",
                [d["id"], d["text"], d["title"], d["metadata"]["n"]],
            )


def test_a_few_kills_leave_whole_documents_and_a_resume_embeds_what_is_missing(dsn, make_bench, references):
    reference, seconds = references(SMALL)
    bench = make_bench(dsn, SMALL)
    kill_clients(bench, 5, seconds, reference)
    assert sum(bench.kills.values()) >= 5


@pytest.mark.slow
def test_many_kills_of_clients(dsn, make_bench, references):
    reference, seconds = references(SIZE)
    bench = make_bench(dsn, SIZE)
    kill_clients(bench, 33, seconds, reference)
    assert bench.kills["ingest"] >= 10
    assert bench.kills["drain"] + bench.kills["work"] >= 2


MOMENTS = {
    "the index of words": "CREATE INDEX.*chunks_codes_idx",
    "the index of vectors": "CREATE INDEX.*_hnsw",
    "statistics": "refresh_statistics",
    "documents": "INSERT INTO pgseek.documents",
    "chunks": "INSERT INTO pgseek.chunks",
    "vectors": "COPY .*embeddings",
}


@pytest.mark.slow
def test_a_kill_at_each_moment_of_an_ingest(dsn, make_bench, references):
    reference, _ = references(SIZE)
    bench = make_bench(dsn, SIZE)
    version = 1
    for moment, pattern in MOMENTS.items():
        for _ in range(10):
            # As before a first load, so that each moment comes in every ingest.
            rows(dsn, "DROP INDEX IF EXISTS pgseek.chunks_codes_idx, pgseek.embeddings_1_hnsw")
            rows(dsn, "UPDATE pgseek.collection_statistics SET chunks = 0")
            rows(dsn, "DELETE FROM pgseek.term_statistics")
            since = len(bench.service.requests)
            child = bench.ingest(version)
            child.ready.wait(60)
            with when(dsn, pattern, lambda _, child=child: child.process.kill()) as hit:
                child.go()
                child.process.wait(120)
            child.wait()
            assert len(bench.lost(since)) <= REQUESTS_IN_FLIGHT
            bench.check_whole()
            if hit:
                bench.kills[moment] += 1
                break
            # Too quick to be seen; again with the other version.
            bench.forget()
            version = 3 - version
        finish(bench, version, reference[version])
        bench.forget()
        version = 3 - version
    assert set(bench.kills) == set(MOMENTS)


# ``postmaster``: the server is gone; ``backend``: it ends all others and recovers; ``builder``: the backend
# that builds an index.
VICTIMS = ("postmaster", "backend", "builder")


@pytest.mark.slow
def test_kills_of_the_server(own_server, data_dir, make_bench, references):
    reference, seconds = references(SIZE)
    bench = make_bench(own_server, SIZE)
    version = 1
    for number in range(60):
        victim = VICTIMS[number % 3]
        if min(bench.kills[one] for one in VICTIMS) >= 3:
            break
        if bench.kills[victim] >= 3:
            continue
        since = len(bench.service.requests)
        child = bench.ingest(version)
        assert child.ready.wait(60)
        if victim == "builder":
            rows(bench.dsn, "DROP INDEX IF EXISTS pgseek.chunks_codes_idx, pgseek.embeddings_1_hnsw")
            with when(bench.dsn, "^CREATE INDEX", lambda pid: os.kill(pid, signal.SIGKILL)) as hit:
                child.go()
                child.process.wait(120)
            killed = bool(hit)
        else:
            child.go()
            time.sleep(bench.random.uniform(0, 0.7 * seconds))
            pid = embedded.status(data_dir).pid
            if victim == "backend":
                found = rows(
                    bench.dsn,
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND"
                    " application_name = 'pgseek' AND pid <> pg_backend_pid() LIMIT 1",
                )
                pid = found[0]["pid"] if found else None
            killed = pid is not None and child.process.poll() is None
            if killed:
                os.kill(pid, signal.SIGKILL)
        bench.dsn = restart(data_dir)
        bench.kills[victim] += killed
        code = child.wait()
        assert code == 0 or "cannot reach PostgreSQL" in child.error, child.error
        bench.dsn = restart(data_dir)
        assert len(bench.lost(since)) <= REQUESTS_IN_FLIGHT
        # What was said to be stored has outlived the server.
        assert bench.check_whole()[version] >= child.stored
        if code == 0:
            bench.forget()
            version = 3 - version
    assert min(bench.kills[one] for one in VICTIMS) >= 3
    finish(bench, version, reference[version])
    bench.check_paid()


@pytest.mark.slow
def test_cut_connections(dsn, make_bench, references):
    reference, _ = references(SIZE)
    bench = make_bench(dsn, SIZE)
    version, cuts, ended = 1, 0, 0
    with connect(dsn, application_name="cutter") as cutter:
        for _ in range(6):
            since = len(bench.service.requests)
            child = bench.ingest(version)
            child.go()
            while child.process.poll() is None:
                time.sleep(bench.random.uniform(0.02, 0.5))
                found = cutter.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'pgseek' ORDER BY state <> 'active', random() LIMIT 1"
                ).fetchall()
                cuts += len(found)
            code = child.wait()
            assert code == 0 or "cannot reach PostgreSQL" in child.error, child.error
            ended += code
            assert len(bench.lost(since)) <= REQUESTS_IN_FLIGHT
            assert bench.check_whole()[version] >= child.stored
            if code == 0:
                bench.forget()
                version = 3 - version
    assert cuts >= 6
    assert ended >= 1
    finish(bench, version, reference[version])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_overlapping_ingests_at_once(dsn, make_bench, processes):
    bench = make_bench(dsn, SMALL)
    orders = []
    for n in range(processes):
        documents = list(bench.versions[1 + n % 2].values())
        bench.random.shuffle(documents)
        path = bench.folder / f"order{n}.jsonl"
        path.write_text("".join(json.dumps(d) + "\n" for d in documents))
        orders.append(path)
    for _ in range(3):
        children = [bench.child("ingest", path, "unkilled") for path in orders]
        for child in children:
            assert child.ready.wait(60)
        for child in children:
            child.go()
        for child in children:
            # No deadlock comes to light, nor anything else.
            assert child.wait() == 0, child.error
        matching = bench.check_whole()
        ids = set(bench.versions[1]) | set(bench.versions[2])
        assert rows(dsn, "SELECT count(*) AS n FROM pgseek.documents")[0]["n"] == len(ids)
        assert matching[1] + matching[2] >= len(ids)
    # Two processes may ask for the same text at one time only where one waited too long for the other.
    asked = Counter(text for request in bench.service.requests for text in set(request.texts))
    assert sum(asked.values()) <= 1.05 * len(asked)
    last = bench.ingest(2)
    last.go()
    assert last.wait() == 0
    assert bench.check_whole()[2] == len(bench.versions[2])


# A segment of the log must fit.
LIMIT = 17 * 2**20


@contextlib.contextmanager
def full_disk():
    """What is started within can write no file longer than `LIMIT`: to a server, the disk is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
def test_a_full_disk(data_dir):
    with full_disk():
        dsn = embedded.start(data_dir)
    schema.upgrade(dsn)
    embedder = CountingEmbedder(2000)
    documents = [{"id": str(n), "text": f"text number {n}"} for n in range(2600)]
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=embedder)
        reports = []
        with pytest.raises(
            DatabaseError, match=r"could not (extend|write).*(File too large|No space)"
        ) as caught:
            docs.ingest(documents, batch_size=200, progress=reports.append)
        assert "disk space" in str(caught.value)
        # Whoever searches is not disturbed.
        assert docs.search("number 1", alpha=0)
    found = examine(dsn)
    assert [f for f in found.findings if not f.harmless and f.key != "index_missing"] == []
    stored = found.collections[0].documents
    assert stored == found.collections[0].embeddings
    assert stored >= max(report.new for report in reports) > 0
    assert stored < 2600
    asked = len(embedder.documents)

    embedded.stop(data_dir)
    dsn = embedded.start(data_dir)
    with Client(dsn) as client:
        report = client.collection("docs", embedder=embedder).ingest(documents, batch_size=200)
    assert (report.new, report.unchanged, report.rejected) == (2600 - stored, stored, ())
    # Only the batches that were on their way are embedded twice, if the cache could not keep them either.
    assert len(embedder.documents) - 2600 <= 5 * 200, asked
    found = examine(dsn)
    assert found.ok, found.findings
    assert found.collections[0].embeddings == 2600
