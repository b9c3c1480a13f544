"""Workers: real processes over one database, woken, killed, restarted under, stopped in either way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from providers import Fault, ProviderServer
from support import CountingEmbedder, rows

from pgseek import Client, CollectionNotFound, EmbedderError, InvalidInput, QueuePolicy
from pgseek.db import embedded, schema
from pgseek.embedders.base import PROBE, PROBES

MODEL = "text-embedding-3-small"
DEADLINE = 60.0


@pytest.fixture
def service(monkeypatch):
    with ProviderServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url + "/v1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def workers(dsn):
    """Start worker processes; those that still run in the end are killed."""
    started = []

    def start(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "pgseek", "--dsn", dsn, "worker", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextlib.contextmanager
def working(work, **given):
    """Let ``work`` go on in a thread; it is told to stop in the end, and must."""
    stop = threading.Event()
    thread = threading.Thread(target=work, kwargs={"stop": stop, **given}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(DEADLINE)
    assert not thread.is_alive()


def eventually(condition, seconds=DEADLINE):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


def put(dsn, count, *, collection="docs", start=0):
    rows(
        dsn,
        "SELECT count(*) FROM pgseek.put_documents(%s, (SELECT jsonb_agg(jsonb_build_object("
        "'id', n::text, 'text', 'the text with number ' || n)) FROM generate_series(%s::integer, %s::integer) AS n))",
        [collection, start, start + count - 1],
    )


def embedded_of(dsn, space=1):
    return rows(dsn, f"SELECT count(DISTINCT document_id) AS n FROM pgseek.embeddings_{space}")[0]["n"]


def make(dsn, name="docs"):
    with Client(dsn) as client:
        client.create_collection(name, embedder=f"openai:{MODEL}@8")


def texts_answered(service):
    return {text: n for text, n in service.answered.items() if text not in PROBES}


# Several processes.


def test_three_workers_embed_each_document_once(dsn, service, workers):
    make(dsn)
    service.latency = 0.02
    put(dsn, 300)
    processes = [workers("--batch", 10, "--json") for _ in range(3)]
    eventually(lambda: embedded_of(dsn) == 300)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    outcomes = [process.communicate(timeout=DEADLINE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert set(texts_answered(service).values()) == {1}
    assert len(texts_answered(service)) == 300
    done = [[json.loads(line) for line in out.splitlines()] for out, _ in outcomes]
    assert sum(line["documents"] for lines in done for line in lines) == 300
    assert {line["collection"] for lines in done for line in lines} == {"docs"}
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.ingest_queue") == [{"n": 0}]
    # What comes after a bulk of documents was done, too.
    assert rows(dsn, "SELECT chunks FROM pgseek.collection_statistics")[0]["chunks"] > 0


def test_the_documents_of_a_killed_worker_are_taken_after_its_lease(dsn, service, workers):
    make(dsn)
    put(dsn, 40)
    # The first to come never gets an answer.
    held = threading.Event()

    def hold(request):
        if PROBE not in request.texts and not held.is_set():
            held.set()
            return Fault(delay=300.0)
        return None

    service.faults = hold
    victim = workers("--batch", 15, "--lease", 1)
    assert held.wait(DEADLINE)
    victim.kill()
    killed = time.monotonic()
    other = workers("--batch", 15, "--lease", 1, "--poll", 60)
    eventually(lambda: embedded_of(dsn) == 40)
    took = time.monotonic() - killed
    other.send_signal(signal.SIGTERM)
    _, errors = other.communicate(timeout=DEADLINE)
    # Woken by the end of the lease, not by its own clock; the claims on the texts themselves last longer.
    assert took < 40, errors
    assert other.returncode == 0
    assert set(texts_answered(service).values()) == {1}
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.ingest_queue") == [{"n": 0}]


def test_a_document_that_kills_its_worker_is_given_up(dsn, workers, tmp_path):
    (tmp_path / "deadly.py").write_text(
        "import os\n"
        "from pgseek.embedders import wordllama\n"
        "embed = wordllama.WordLlamaEmbedder.embed_documents\n"
        "def deadly(self, texts):\n"
        "    if any('kills' in text for text in texts):\n"
        "        os._exit(9)\n"
        "    return embed(self, texts)\n"
        "wordllama.WordLlamaEmbedder.embed_documents = deadly\n"
    )
    (tmp_path / "sitecustomize.py").write_text("import deadly\n")
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder="wordllama")
        put(dsn, 20)
        rows(dsn, "SELECT pgseek.put_document('docs', 'poison', 'this kills its worker')")
        codes = []
        for _ in range(12):
            path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
            process = workers("--once", "--lease", 0.2, "--attempts", 4, PYTHONPATH=path)
            process.communicate(timeout=DEADLINE)
            codes.append(process.returncode)
            time.sleep(0.25)
            if docs.queue_status().failed:
                break
        assert docs.queue_status().failed == 1
        (failure,) = docs.failed_documents()
        assert (failure.id, failure.attempts) == ("poison", 4)
        assert "died or stood still" in failure.error
        # All others were embedded, and the last worker came to its end.
        assert codes[-1] == 4
        assert codes[:-1] == [9] * len(codes[:-1])
        assert embedded_of(dsn) == 20
        assert docs.search("kills", alpha=0)[0].id == "poison"


# Waiting.


def test_a_writer_wakes_a_worker_and_new_collections_are_found(dsn, service, workers):
    make(dsn)
    process = workers("--poll", 300)
    # It waits for a notification.
    eventually(
        lambda: rows(
            dsn,
            "SELECT FROM pg_stat_activity WHERE query LIKE '%%FROM pgseek.collections c%%LIMIT 1%%' AND state = 'idle' AND application_name = 'pgseek'",
        )
    )
    started = time.monotonic()
    put(dsn, 3)
    eventually(lambda: embedded_of(dsn) == 3)
    assert time.monotonic() - started < 20
    make(dsn, "later")
    started = time.monotonic()
    put(dsn, 2, collection="later")
    eventually(lambda: embedded_of(dsn, 2) == 2)
    assert time.monotonic() - started < 20
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    lines = errors.splitlines()
    assert any(line.startswith("docs: 3 documents, 3 chunks, 3 texts embedded") for line in lines), errors
    assert any(
        line.startswith("later: 2 documents, 2 chunks, 0 texts embedded, 2 from the cache") for line in lines
    )
    assert lines[-1] == "SIGINT: ending after the batch in hand; once more ends at once"


def test_the_first_signal_lets_the_batch_end_and_the_second_does_not(dsn, service, workers):
    make(dsn)
    put(dsn, 30)
    begun = threading.Event()

    def slow(request):
        if PROBE in request.texts:
            return None
        begun.set()
        return Fault(delay=1.0)

    service.faults = slow
    gentle = workers("--batch", 10)
    assert begun.wait(DEADLINE)
    gentle.send_signal(signal.SIGTERM)
    gentle.communicate(timeout=DEADLINE)
    assert gentle.returncode == 0
    assert embedded_of(dsn) == 10
    begun.clear()
    service.faults = lambda request: begun.set() or Fault(delay=300.0)
    rough = workers("--batch", 10, "--lease", 600)
    assert begun.wait(DEADLINE)
    rough.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert rough.poll() is None
    rough.send_signal(signal.SIGTERM)
    _, errors = rough.communicate(timeout=10)
    assert rough.returncode == 128 + signal.SIGTERM, errors
    with Client(dsn) as client:
        status = client.queue_status()[0]
    # Given back: not ten minutes from now, and without an attempt counted.
    assert (status.waiting, status.claimed) == (20, 0)
    assert rows(dsn, "SELECT DISTINCT attempts FROM pgseek.ingest_queue") == [{"attempts": 0}]


def test_once_ends_when_nothing_is_due(dsn, service, workers):
    make(dsn)
    assert workers("--once").wait(DEADLINE) == 0
    put(dsn, 5)
    process = workers("--once", "docs")
    assert process.wait(DEADLINE) == 0
    assert embedded_of(dsn) == 5
    assert workers("--once", "none").wait(DEADLINE) == 3
    assert workers("--once", "--batch", 0).wait(DEADLINE) == 2


# What does not work.


def test_a_service_that_is_down_is_left_to_rest_and_costs_no_attempt(dsn, service):
    make(dsn)
    put(dsn, 50)
    down = True
    service.faults = lambda request: Fault(401) if down else None
    notices = []
    with Client(dsn) as client:
        with pytest.raises(EmbedderError, match="401"):
            client.work(once=True, notice=notices.append)
        assert len(notices) == 1
        service.reset()
        with working(client.work, notice=notices.append, poll=300.0):
            eventually(lambda: len(notices) >= 3)
            # Two requests a round, and the rounds grow rarer.
            assert len(service.requests) <= 2 * len(notices)
            status = client.queue_status()[0]
            assert (status.failed, status.retrying) == (0, 0)
            down = False
            eventually(lambda: embedded_of(dsn) == 50)
    assert all("collection 'docs': openai" in notice and "401" in notice for notice in notices)
    assert "trying again in" in notices[-1]


def test_one_collections_trouble_is_not_the_others(dsn, service):
    make(dsn, "broken")
    with Client(dsn) as client:
        client.create_collection("fine", embedder="wordllama")
        put(dsn, 5, collection="broken")
        put(dsn, 5, collection="fine")
        service.faults = lambda _: Fault(401)
        with pytest.raises(EmbedderError):
            client.work(once=True, notice=lambda _: None)
        assert (embedded_of(dsn, 1), embedded_of(dsn, 2)) == (0, 5)


def test_a_collection_made_with_an_object_is_passed_over_and_served_from_python(dsn, workers):
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder())
        put(dsn, 5)
        process = workers("--once")
        _, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == 1
        assert "collection 'docs' is passed over: the collection was made with tests:hash@8" in errors
        assert "Traceback" not in errors
        assert docs.queue_status().waiting == 5
        seen = []
        total = docs.work(once=True, progress=seen.append)
        assert (total.documents, total.collection, seen[0].collection) == (5, None, "docs")
        assert seen[0].chunks == 5
        put(dsn, 2, start=10)
        assert client.work(once=True, embedders={"docs": CountingEmbedder()}).documents == 2
        with pytest.raises(CollectionNotFound):
            client.work(["none"], once=True)
        with pytest.raises(InvalidInput, match="batch_size is 0"):
            client.work(once=True, batch_size=0)
        with pytest.raises(InvalidInput, match="poll is 0"):
            client.work(poll=0)


def test_a_worker_outlives_a_restart_of_the_server(data_dir):
    dsn = embedded.start(data_dir)
    schema.upgrade(dsn)
    notices = []
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder())
        with working(docs.work, notice=notices.append, poll=300.0):
            put(dsn, 3)
            eventually(lambda: embedded_of(dsn) == 3)
            embedded.stop(data_dir)
            eventually(lambda: notices)
            assert embedded.start(data_dir) == dsn
            put(dsn, 4, start=100)
            eventually(lambda: embedded_of(dsn) == 7)
    assert "trying again in" in notices[0]
    assert notices[-1] == "the database is back"


def test_a_collection_that_is_made_anew_is_served_anew(dsn, service):
    make(dsn)
    with Client(dsn) as client, working(client.work, poll=0.2):
        put(dsn, 3)
        eventually(lambda: embedded_of(dsn) == 3)
        client.drop_collection("docs")
        make(dsn)
        put(dsn, 5)
        eventually(lambda: embedded_of(dsn, 2) == 5)


def test_a_policy_reaches_the_queue(dsn):
    class Bad(CountingEmbedder):
        def embed_documents(self, texts):
            if any("number" in text for text in texts):
                raise RuntimeError("no")
            return super().embed_documents(texts)

    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=Bad())
        put(dsn, 1)
        total = docs.work(once=True, policy=QueuePolicy(attempts=1))
        assert (total.failed, total.retried, total.documents) == (1, 0, 0)
