"""Other chunks, and another model with them, while the collection is searched and written to."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from support import CountingEmbedder, rows

from pgseek import Client, Gate, InvalidInput
from pgseek.integrity import examine

TEXT = " ".join(f"Sentence {n} of the text speaks of topic {n % 7}." for n in range(60))


def make(client, count=20):
    docs = client.create_collection("docs", embedder=CountingEmbedder(8, "old"))
    docs.ingest([{"id": str(n), "text": f"Number {n}. {TEXT}"} for n in range(count)])
    return docs


def sizes(dsn, collection):
    found = rows(
        dsn,
        "SELECT max(length(text)) AS longest, count(*) AS chunks FROM pgseek.chunks k JOIN pgseek.collections c"
        " USING (collection_id) WHERE c.name = %s",
        [collection],
    )[0]
    return found["longest"], found["chunks"]


def test_from_plan_to_retirement(client, dsn):
    docs = make(client)
    before = sizes(dsn, "docs")
    plan = docs.plan_rechunk(chunk_size=500)
    assert (plan.rechunked, plan.of, plan.to) == (True, "tests:old@8", "tests:old@8")
    assert len(client.list_collections()) == 1
    seen = []
    report = docs.rechunk(chunk_size=500, progress=seen.append)
    assert (report.stage, report.done, report.chunks, report.queued) == ("switched", 20, 20, 0)
    assert [s.stage for s in seen if s.stage == "dividing"]
    after = sizes(dsn, "docs")
    assert after[0] <= 500 < before[0]
    assert plan.chunks == after[1] > before[1]
    assert docs.info().settings["chunk_size"] == 500
    assert docs.search("topic 3", k=3)[0].dense_rank is not None
    assert [info.name for info in client.list_collections()] == ["docs"]
    kept = docs.info().copy
    assert kept.kept
    assert sizes(dsn, kept.name) == before

    # What is written since is in both.
    docs.ingest([{"id": "new", "text": f"A new one. {TEXT}"}])
    docs.delete("3")
    docs.rollback()
    assert docs.info().settings["chunk_size"] == 2000
    docs.drain_queue()
    assert docs.count() == 20
    assert docs.search("A new one", k=1)[0].id == "new"
    docs.rollback()
    assert docs.info().settings["chunk_size"] == 500
    docs.retire(docs.info().copy.name)
    assert docs.info().copy is None
    assert len(rows(dsn, "SELECT FROM pgseek.collections")) == 1
    with pytest.raises(InvalidInput, match="no earlier space to go back to"):
        docs.rollback()
    assert [f for f in examine(dsn).findings if not f.harmless] == []


def test_another_model_with_them(client, dsn):
    docs = make(client)
    new = CountingEmbedder(12, "new")
    report = docs.rechunk(new, chunk_size=700, workers=2)
    assert report.stage == "switched"
    assert docs.info().identity == new.identity
    assert sizes(dsn, "docs")[0] <= 700
    assert docs.rollback().identity.model == "old"


def test_a_gate_that_is_not_passed_and_one_that_is_not_asked(client, dsn):
    docs = make(client)
    gate = Gate(queries={"q": "topic 3", "r": "Number 7"}, min_overlap=1.0)
    first = docs.rechunk(CountingEmbedder(12, "new"), chunk_size=300, gate=gate, switch=False)
    assert first.stage in {"refused", "ready"}
    assert docs.info().settings["chunk_size"] == 2000
    # It is there, and goes on from there.
    report = docs.rechunk(CountingEmbedder(12, "new"), chunk_size=300)
    assert (report.stage, report.begun) == ("switched", 20)


def test_stopped_and_gone_on_with(client, dsn):
    docs = make(client, 30)
    stop = threading.Event()

    def enough(report):
        if report.stage == "dividing":
            stop.set()

    assert docs.rechunk(chunk_size=400, stop=stop, progress=enough).stage == "stopped"
    assert docs.search("topic 1")
    with pytest.raises(Exception, match="has a copy under way"):
        docs.rechunk(chunk_size=300)
    assert docs.rechunk(chunk_size=400).stage == "switched"
    assert examine(dsn).ok


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing would change in how 'docs' is divided: no setting is given"),
        ({"chunk_size": 2000}, "chunk_size is 2000 already"),
        ({"chunk_size": 0}, "chunk size is 0, but must"),
        ({"chunk_sise": 300}, "setting 'chunk_sise' is unknown"),
        ({"questions": 2}, "questions and summaries need somebody to write them"),
        ({"chunk_size": 300, "workers": 9}, "workers is 9, but must be from 1 to 8"),
    ],
)
def test_bad_arguments_change_nothing(client, dsn, settings, message):
    docs = make(client, 2)
    with pytest.raises(InvalidInput, match=message):
        docs.rechunk(**settings)
    assert len(rows(dsn, "SELECT FROM pgseek.collections")) == 1


def test_readers_and_writers_notice_nothing(client, dsn):  # noqa: PLR0915 (one story)
    old, new = CountingEmbedder(8, "old"), CountingEmbedder(12, "new")
    docs = make(client, 60)
    stop = threading.Event()
    failures: list[BaseException] = []
    written: dict[str, str] = {}
    searches = 0

    def read():
        nonlocal searches
        rng = np.random.default_rng(3)
        try:
            with Client(dsn) as other:
                handle = other.collection("docs", embedder=[old, new])
                while not stop.is_set():
                    n = int(rng.integers(0, 40))
                    hits = handle.search(f'"number {n}"', k=5)
                    assert {hit.id for hit in hits} == {str(n)}, hits
                    searches += 1
        except BaseException as error:
            failures.append(error)

    def write():
        try:
            with Client(dsn) as other:
                handle = other.collection("docs", embedder=[old, new])
                count = 0
                while not stop.is_set():
                    count += 1
                    name = f"w{count % 20}"
                    text = f"Written in round {count}. {TEXT}"
                    handle.ingest([{"id": name, "text": text}])
                    written[name] = text
                    time.sleep(0.01)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    try:
        assert docs.rechunk(new, chunk_size=400).stage == "switched"
        time.sleep(0.3)
        docs.rollback()
        time.sleep(0.3)
        docs.rollback()
        time.sleep(0.3)
        docs.retire(docs.info().copy.name)
        time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert searches > 10
    docs.drain_queue()
    for name, text in written.items():
        assert docs.get(name).text == text
        (hit,) = docs.search(f'"{text[: text.index(".")]}"', k=1)
        assert hit.id == name
    assert [f for f in examine(dsn).findings if not f.harmless] == []
