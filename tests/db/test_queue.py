"""The queue: claims and leases, attempts and back-off, what is given up, and embedders that fail in every way."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from support import CountingEmbedder, rows

from pgseek import Client, EmbedderError, InvalidInput, QueuePolicy, queue
from pgseek.db.connection import connect
from pgseek.embedders.base import PROBE

SOON = QueuePolicy(lease=0.4)


class Failing(CountingEmbedder):
    """Fails for whole calls that hold a text with ``poison``, or for all while it is ``down``."""

    cache_documents = False

    def __init__(self, poison: str | None = None) -> None:
        super().__init__()
        self.poison = poison
        self.down = False
        self.calls = 0

    def embed_documents(self, texts):
        self.calls += 1
        if self.down or any(self.poison is not None and self.poison in text for text in texts):
            raise RuntimeError("it hurts")
        return super().embed_documents(texts)


class Zero(CountingEmbedder):
    """Gives no usable vector for a text with ``bad`` in it."""

    def _vector(self, text):
        return np.zeros(8) if "bad" in text else super()._vector(text)


def put(dsn, *texts, collection="docs"):
    for text in texts:
        rows(dsn, "SELECT pgseek.put_document(%s, %s, %s)", [collection, text.split()[0], text])


def queued(dsn):
    return {
        row.pop("external_id"): row
        for row in rows(
            dsn,
            "SELECT external_id, attempts, claimed_by, error, failed_at IS NOT NULL AS failed,"
            " extract(epoch FROM due_at - now())::float8 AS due_in"
            " FROM pgseek.ingest_queue JOIN pgseek.documents USING (collection_id, document_id)",
        )
    }


def run(client, script):
    return client._run(script)


@pytest.fixture
def docs(client):
    return client.create_collection("docs", embedder=CountingEmbedder())


# Claims.


def test_a_claim_is_one_workers_until_its_lease_ends(docs, client, dsn):
    put(dsn, *(f"d{n} text" for n in range(5)))
    first, _ = run(client, queue.claim(docs.info(), "one", SOON, 3))
    second, _ = run(client, queue.claim(docs.info(), "two", SOON, 10))
    assert (len(first), len(second)) == (3, 2)
    assert set(first).isdisjoint(second)
    assert run(client, queue.claim(docs.info(), "three", SOON, 10)) == ([], {})
    status = docs.queue_status()
    assert (status.waiting, status.claimed, status.retrying, status.failed) == (0, 5, 0, 0)
    assert 0 <= status.oldest < 60
    run(client, queue.renew(docs.info(), "two", QueuePolicy(lease=60), second))
    time.sleep(0.5)
    third, _ = run(client, queue.claim(docs.info(), "three", SOON, 10))
    assert third == first
    assert {row["attempts"] for row in queued(dsn).values()} == {1, 2}
    assert {row["error"] for row in queued(dsn).values()} == {
        None,
        "the worker one died or stood still while it had the document",
    }


def test_claims_given_back_count_no_attempt_and_others_keep_theirs(docs, client, dsn):
    put(dsn, "a x", "b x", "c x")
    run(client, queue.claim(docs.info(), "one", QueuePolicy(), 2))
    run(client, queue.claim(docs.info(), "two", QueuePolicy(), 1))
    run(client, queue.release("one"))
    assert [row["attempts"] for row in queued(dsn).values() if row["claimed_by"] is None] == [0, 0]
    assert docs.queue_status().claimed == 1
    assert docs.queue_status().waiting == 2


def test_what_is_due_first_is_claimed_first(docs, client, dsn):
    for n in (3, 1, 2):
        put(dsn, f"d{n} text")
    ids = {row["external_id"]: row["document_id"] for row in rows(dsn, "SELECT * FROM pgseek.documents")}
    order = [run(client, queue.claim(docs.info(), "w", QueuePolicy(), 1))[0] for _ in range(3)]
    assert order == [[ids["d3"]], [ids["d1"]], [ids["d2"]]]


def test_two_claims_at_once_share_nothing(docs, client, dsn):
    rows(
        dsn,
        "SELECT count(*) FROM pgseek.put_documents('docs', (SELECT jsonb_agg(jsonb_build_object("
        "'id', n::text, 'text', 'text ' || n)) FROM generate_series(1, 300) AS n))",
    )
    claimed = []

    def take(number):
        with Client(dsn) as own:
            while ids := run(own, queue.claim(docs.info(), f"w{number}", QueuePolicy(), 7))[0]:
                claimed.extend(ids)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(claimed) == len(set(claimed)) == 300


def test_a_document_whose_workers_die_is_claimed_alone_and_given_up_in_the_end(docs, client, dsn):
    put(dsn, *(f"d{n} text" for n in range(6)))
    policy = QueuePolicy(lease=0.1, attempts=4)
    seen = []
    for n in range(30):
        # None of these workers ever comes to an end.
        ids, given_up = run(client, queue.claim(docs.info(), f"w{n}", policy, 10))
        seen.append((len(ids), len(given_up)))
        time.sleep(0.12)
        if docs.queue_status().failed == 6:
            break
    assert seen[:2] == [(6, 0), (6, 0)]
    assert all(sum(one) <= 1 for one in seen[2:])
    assert sum(given_up for _, given_up in seen) == 6
    failures = docs.failed_documents()
    assert {f.id for f in failures} == {f"d{n}" for n in range(6)}
    assert {f.attempts for f in failures} == {4}
    assert all(f.error.startswith("the worker w") for f in failures)
    # Their words are found all the same.
    assert len(docs.search("text", alpha=0)) == 6


# What becomes of a document.


def test_a_text_without_a_usable_vector_is_given_up_at_once_and_stays_found(client, dsn):
    docs = client.create_collection("docs", embedder=Zero())
    put(dsn, "1 good", "2 bad", "3 good")
    report = docs.drain_queue()
    assert report.changed == 2
    (rejected,) = report.rejected
    assert rejected.id == "2"
    assert "no usable vector" in rejected.reason
    (failure,) = docs.failed_documents()
    assert (failure.id, failure.attempts) == ("2", 1)
    assert failure.error == rejected.reason
    (hit,) = docs.search("bad", alpha=0)
    assert (hit.id, hit.dense_score) == ("2", None)
    assert docs.info().queued == 0
    # Not tried again by itself, but with its content changed, or when asked for.
    assert docs.drain_queue().documents == 0
    assert docs.retry_queue() == 1
    assert docs.queue_status().waiting == 1
    assert len(docs.drain_queue().rejected) == 1
    rows(dsn, "SELECT pgseek.put_document('docs', '2', '2 better')")
    assert docs.queue_status().failed == 0
    assert docs.drain_queue().changed == 1
    assert queued(dsn) == {}


def test_one_document_that_makes_its_batch_fail_is_found(client, dsn):
    embedder = Failing("p13 ")
    docs = client.create_collection("docs", embedder=embedder)
    put(dsn, *(f"p{n} text" for n in range(20)))
    policy = QueuePolicy(attempts=3)
    report = docs.drain_queue(policy=policy)
    assert report.changed == 19
    assert [r.id for r in report.rejected] == ["p13"]
    assert report.rejected[0].reason.endswith("it hurts; it is tried again later")
    (left,) = queued(dsn).values()
    assert (left["attempts"], left["failed"], left["claimed_by"]) == (1, False, None)
    assert docs.queue_status().retrying == 1
    # After as many attempts as it has, it is given up.
    for _ in range(2):
        rows(dsn, "UPDATE pgseek.ingest_queue SET due_at = now()")
        docs.drain_queue(policy=policy)
    assert docs.queue_status().failed == 1
    assert docs.failed_documents()[0].attempts == 3
    embedder.poison = None
    assert docs.retry_queue(["p13"]) == 1
    assert docs.drain_queue(policy=policy).changed == 1


def test_an_embedder_that_is_down_costs_no_document_an_attempt(client, dsn):
    embedder = Failing()
    docs = client.create_collection("docs", embedder=embedder)
    put(dsn, *(f"d{n} text" for n in range(50)))
    embedder.down = True
    for _ in range(10):
        with pytest.raises(EmbedderError, match="it hurts"):
            docs.drain_queue()
    state = list(queued(dsn).values())
    assert {(row["attempts"], row["failed"], row["claimed_by"]) for row in state} == {(0, False, None)}
    assert docs.queue_status().waiting == 50
    # One call for the batch and one for a word of ours: it is not asked for every document.
    assert embedder.calls == 1 + 10 * 2
    embedder.down = False
    assert docs.drain_queue().changed == 50


def test_back_off_grows_and_ends(client, dsn):
    embedder = Failing("x text")
    docs = client.create_collection("docs", embedder=embedder)
    put(dsn, "x text")
    policy = QueuePolicy(attempts=8)
    waits = []
    for _ in range(8):
        docs.drain_queue(policy=policy)
        waits.append(queued(dsn)["x"]["due_in"])
        rows(dsn, "UPDATE pgseek.ingest_queue SET due_at = now()")
    for attempt, wait in enumerate(waits[:7]):
        middle = min(3600, 30 * 2**attempt)
        assert 0.74 * middle < wait < 1.26 * middle
    assert queued(dsn)["x"]["failed"]


def test_content_that_a_writer_changes_meanwhile_is_queued_anew(client, dsn):
    class Writing(CountingEmbedder):
        def embed_documents(self, texts):
            if "1 first" in texts:
                put(dsn, "1 second")
            return super().embed_documents(texts)

    docs = client.create_collection("docs", embedder=Writing())
    put(dsn, "1 first", "2 other")
    report = docs.drain_queue()
    # In this drain already: the newer text was due at once.
    assert report.changed == 2
    (hit,) = docs.search("second", alpha=0)
    assert hit.dense_score is None or hit.text == "1 second"
    vector = docs._own_embedder().embed_query("1 second")
    (hit,) = docs.search("?", model=str(docs.info().identity), query_embedding=vector, k=1, alpha=1)
    assert (hit.id, hit.dense_score) == ("1", pytest.approx(1))
    assert queued(dsn) == {}


def test_a_document_deleted_meanwhile_leaves_nothing(client, dsn):
    class Deleting(CountingEmbedder):
        def embed_documents(self, texts):
            if "1 first" in texts:
                rows(dsn, "SELECT pgseek.delete_documents('docs', ARRAY['1'])")
            return super().embed_documents(texts)

    docs = client.create_collection("docs", embedder=Deleting())
    put(dsn, "1 first", "2 other")
    assert docs.drain_queue().changed == 1
    assert docs.count() == 1
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.embeddings_1") == [{"n": 1}]
    assert queued(dsn) == {}


def test_a_lease_is_renewed_while_the_embedder_takes_its_time(client, dsn):
    class Slow(CountingEmbedder):
        def embed_documents(self, texts):
            if texts != [PROBE]:
                time.sleep(4)
            return super().embed_documents(texts)

    # Long enough for a machine that is slow to renew it, several times within what the embedder takes.
    lease = QueuePolicy(lease=1.5)
    docs = client.create_collection("docs", embedder=Slow())
    put(dsn, "1 text")
    thread = threading.Thread(target=docs.drain_queue, kwargs={"policy": lease})
    thread.start()
    stolen = []
    while thread.is_alive():
        stolen += run(client, queue.claim(docs.info(), "thief", lease, 1))[0]
        time.sleep(0.05)
    thread.join()
    # Once it is stored there is nothing to claim either.
    assert stolen == []
    assert queued(dsn) == {}


def test_a_worker_that_lost_its_lease_does_not_undo_what_the_other_did(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    put(dsn, "1 text")
    (claimed,), _ = run(client, queue.claim(docs.info(), "slow", SOON, 1))
    rows(dsn, "UPDATE pgseek.ingest_queue SET due_at = now()")
    assert docs.drain_queue().changed == 1
    hashes = rows(dsn, "SELECT content_hash FROM pgseek.documents")[0]["content_hash"]
    assert run(client, queue.fail(docs.info(), "slow", SOON, {claimed: (hashes, "late")}, final=True)) == {}
    assert docs.queue_status().failed == 0


def test_texts_are_taken_in_parts_that_fit_into_memory(client, dsn, monkeypatch):
    monkeypatch.setattr("pgseek.drain.BATCH_BYTES", 100)
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    put(dsn, *(f"d{n} " + "word " * 15 for n in range(5)))
    assert docs.drain_queue().changed == 5
    assert queued(dsn) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lease": 0}, "lease is 0, but must be 0.1 or more seconds"),
        ({"attempts": 0}, "attempts is 0, but must be a whole number from 1"),
        ({"attempts": True}, "attempts is True"),
        ({"backoff": -1}, "backoff is -1"),
        ({"longest_backoff": "x"}, "longest_backoff is 'x'"),
    ],
)
def test_a_policy_out_of_range_is_refused(given, message):
    with pytest.raises(InvalidInput, match=message):
        QueuePolicy(**given)


def test_the_claim_reads_its_index_not_the_queue(docs, client, dsn):
    with connect(dsn) as connection:
        connection.execute(
            "INSERT INTO pgseek.ingest_queue (collection_id, document_id, content_hash)"
            " SELECT 1, gen_random_uuid(), '' FROM generate_series(1, 100000)"
        )
        connection.execute("ANALYZE pgseek.ingest_queue")
        parameters = {"collection": 1, "most": 200, "suspect": 2, "attempts": 8, "lease": 60.0, "worker": "w"}
        plan = connection.execute("EXPLAIN (FORMAT TEXT) " + queue._CLAIM, parameters).fetchall()
        due = connection.execute("EXPLAIN (FORMAT TEXT) " + queue._DUE).fetchall()
    for found in (plan, due):
        text = "\n".join(row["QUERY PLAN"] for row in found)
        assert "ingest_queue_due_at_idx" in text
        assert "Seq Scan on ingest_queue" not in text
