"""Ingest: what is new, changed, unchanged or bad; two at once; and a kill in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from support import CORPUS, CountingEmbedder, rows, snapshot

from pgseek import Client, Document, EmbedderError, InvalidInput
from pgseek.prepare import content_hash, document_id


@pytest.fixture
def embedder():
    return CountingEmbedder()


@pytest.fixture
def docs(client, embedder):
    return client.create_collection("docs", embedder=embedder)


def counts(report):
    return report.new, report.changed, report.metadata_changed, report.unchanged, len(report.rejected)


def test_new_changed_and_unchanged_are_counted(docs, embedder):
    assert counts(docs.ingest(CORPUS)) == (6, 0, 0, 0, 0)
    embedder.documents.clear()
    assert counts(docs.ingest(CORPUS)) == (0, 0, 0, 6, 0)
    assert embedder.documents == []
    changed = [{**CORPUS[0], "text": "another text"}, {"id": "7", "text": "a new one"}, CORPUS[2]]
    report = docs.ingest(changed)
    assert counts(report) == (1, 1, 0, 1, 0)
    assert report.documents == 3
    assert sorted(embedder.documents) == ["a new one", "functools.lru_cache\n\nanother text"]
    assert docs.count() == 7
    assert docs.get("lru_cache").text == "another text"
    assert docs.search("memoizing", alpha=0) == []


def test_other_metadata_costs_no_embedding(docs, embedder, dsn):
    docs.ingest(CORPUS)
    chunks = rows(dsn, "SELECT ctid, * FROM pgseek.chunks ORDER BY document_id")
    embedder.documents.clear()
    report = docs.ingest([{**CORPUS[0], "metadata": {"module": "other"}}])
    assert counts(report) == (0, 0, 1, 0, 0)
    assert embedder.documents == []
    assert docs.get("lru_cache").metadata == {"module": "other"}
    assert rows(dsn, "SELECT ctid, * FROM pgseek.chunks ORDER BY document_id") == chunks


def test_equal_metadata_in_another_order_is_unchanged(docs):
    docs.ingest([{"id": "1", "text": "x", "metadata": {"a": 1, "b": [1.0, None]}}])
    report = docs.ingest([{"id": "1", "text": "x", "metadata": {"b": [1.0, None], "a": 1}}])
    assert counts(report) == (0, 0, 0, 1, 0)


def test_two_documents_swap_their_texts(docs, embedder):
    docs.ingest([{"id": "a", "text": "first"}, {"id": "b", "text": "second"}])
    embedder.documents.clear()
    assert counts(docs.ingest([{"id": "a", "text": "second"}, {"id": "b", "text": "first"}])) == (
        0,
        2,
        0,
        0,
        0,
    )
    assert (docs.get("a").text, docs.get("b").text) == ("second", "first")
    assert embedder.documents == []  # both vectors were in the cache


def test_equal_texts_are_embedded_once(docs, embedder):
    report = docs.ingest([{"id": str(n), "text": "the same"} for n in range(50)])
    assert embedder.documents == ["the same"]
    assert (report.new, report.embedded, report.chunks) == (50, 1, 50)


def test_a_long_document_becomes_chunks_that_quote_it(docs):
    body = "\n\n".join(f"Paragraph {n}. " + "word " * 120 for n in range(40))
    report = docs.ingest([Document("long", body, title="Title")])
    assert report.chunks > 5
    hits = docs.search("paragraph", k=100)
    assert len(hits) == report.chunks
    assert all(body[h.char_start : h.char_end] == h.text and len(h.text) <= 2000 for h in hits)
    assert sorted(h.ordinal for h in hits) == list(range(report.chunks))
    docs.ingest([Document("long", "short now", title="Title")])
    assert [h.text for h in docs.search("paragraph short", k=100)] == ["short now"]


BAD = [
    ({"id": "nul", "text": "a\x00b"}, "NUL byte at character 1"),
    ({"id": "surrogate", "text": "a\ud800"}, "lone surrogate at character 1"),
    ({"id": "empty", "text": ""}, "has no text"),
    ({"id": "blank", "text": " \n\t"}, "has no text"),
    ({"id": "missing"}, "has no text"),
    ({"text": "no id"}, "has no id"),
    ({"id": "", "text": "x"}, "the id is empty"),
    ({"id": "list", "text": "x", "metadata": [1]}, "must be a JSON object"),
    ({"id": "nan", "text": "x", "metadata": {"a": float("nan")}}, "cannot be written as JSON"),
    ({"id": "deep nul", "text": "x", "metadata": {"a": [{"b": "\x00"}]}}, "NUL byte"),
    ({"id": "language", "text": "x", "language": "englsh"}, "did you mean 'english'"),
    ({"id": "key", "text": "x", "body": "y"}, "'body' is none of"),
    ("just text", "not a str"),
    (None, "not a NoneType"),
]


def test_bad_documents_are_reported_and_the_good_ones_stored(docs):
    good = [{"id": f"good {n}", "text": f"good text {n}"} for n in range(len(BAD))]
    mixed = [document for pair in zip(good, [bad for bad, _ in BAD], strict=True) for document in pair]
    report = docs.ingest(mixed)
    assert counts(report) == (len(good), 0, 0, 0, len(BAD))
    for number, (rejection, (_, reason)) in enumerate(zip(report.rejected, BAD, strict=True)):
        assert reason in rejection.reason
        assert rejection.position == 2 * number + 2
    assert docs.count() == len(good)


def test_a_vector_that_is_not_one_rejects_its_document_only(client):
    given = {"nan": [float("nan")] * 8, "inf": [float("inf")] * 8, "zero": [0.0] * 8}
    docs = client.create_collection("docs", embedder=CountingEmbedder(given=given))
    report = docs.ingest([{"id": text, "text": text} for text in ("nan", "fine", "inf", "zero", "good")])
    assert counts(report) == (2, 0, 0, 0, 3)
    assert {r.id for r in report.rejected} == {"nan", "inf", "zero"}
    assert docs.get("nan") is None


def test_a_token_of_100_kb_is_refused_and_a_large_document_goes_in(client):
    docs = client.create_collection("docs")
    report = docs.ingest(
        [{"id": "token", "text": "x" * 100_000}, {"id": "large", "text": "many words " * 100_000}]
    )
    assert counts(report) == (1, 0, 0, 0, 1)
    assert "50,000 characters without a space" in report.rejected[0].reason
    assert docs.search("many words", k=1)[0].id == "large"


def test_an_id_twice_keeps_the_first_and_reports_the_second(docs):
    report = docs.ingest(
        [{"id": "1", "text": ""}, {"id": "1", "text": "first"}, {"id": "1", "text": "second"}], batch_size=1
    )
    assert counts(report) == (1, 0, 0, 0, 2)
    assert "occurred before" in report.rejected[1].reason
    assert docs.get("1").text == "first"


def test_one_document_or_a_text_is_not_a_list_of_documents(docs):
    for wrong in ("text", {"id": "1", "text": "x"}, Document("1", "x")):
        with pytest.raises(InvalidInput, match="list or other iterable"):
            docs.ingest(wrong)
    with pytest.raises(InvalidInput, match="batch_size is 0"):
        docs.ingest([], batch_size=0)
    assert counts(docs.ingest([])) == (0, 0, 0, 0, 0)


def test_an_embedder_that_fails_leaves_the_finished_batches(client):
    class Failing(CountingEmbedder):
        def embed_documents(self, texts):
            if any("5" in text for text in texts):
                raise RuntimeError("quota used up")
            return super().embed_documents(texts)

    docs = client.create_collection("docs", embedder=Failing())
    with pytest.raises(EmbedderError, match="tests:hash@8 failed: quota used up"):
        docs.ingest([{"id": str(n), "text": f"text {n}"} for n in range(10)], batch_size=2)
    assert docs.count() == 4


def test_an_embedder_of_the_wrong_shape_is_refused(client):
    class Wrong(CountingEmbedder):
        def embed_documents(self, texts):
            return np.ones((len(texts), 7), dtype=np.float32)

    told = r"shape \(5, 7\) for 5 texts, but the space needs \(5, 8\)"
    with pytest.raises(EmbedderError, match=told):
        client.create_collection("docs", embedder=Wrong())
    assert client.list_collections() == []
    client.create_collection("docs", embedder=CountingEmbedder())
    docs = client.collection("docs", embedder=Wrong())
    with pytest.raises(EmbedderError, match=told):
        docs.ingest([{"id": str(n), "text": f"x {n}"} for n in range(5)])
    assert docs.count() == 0


def test_statements_do_not_grow_with_the_documents(docs, dsn):
    docs.ingest([{"id": "first", "text": "first"}])
    calls = []
    run = docs._client._runner._perform

    def counted(step):
        calls.append(step)
        return run(step)

    docs._client._runner._perform = counted
    docs.ingest([{"id": str(n), "text": f"text {n}"} for n in range(100)])
    few = len(calls)
    calls.clear()
    docs.ingest([{"id": f"b{n}", "text": f"text b{n}"} for n in range(400)])
    # Four times the documents; the statistics may be due in one of the two and not in the other.
    assert len(calls) <= few + 1
    assert few < 40


def test_ids_and_hashes_agree_with_sql(dsn):
    for text in ("a", "", "ü 😀", "x" * 5000, "a'b\\"):
        row = rows(
            dsn,
            "SELECT pgseek.document_id(%(t)s) AS id, pgseek.content_hash(%(t)s, %(t)s || 'b', 'english') AS hash",
            {"t": text},
        )[0]
        assert row["id"] == document_id(text)
        assert row["hash"] == content_hash(text, text + "b", "english")


def test_two_ingests_of_the_same_documents_end_with_one_copy(dsn, client):
    client.create_collection("docs")
    documents = [{"id": str(n), "text": f"text number {n} of the corpus", "title": "t"} for n in range(1200)]
    reports = []

    def ingest(order):
        with Client(dsn) as own:
            reports.append(own.collection("docs").ingest(order, batch_size=100))

    threads = [
        threading.Thread(target=ingest, args=(order,))
        for order in (documents, documents[::-1], documents[600:] + documents[:600])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 3
    assert sum(report.new for report in reports) == 1200
    assert sum(report.unchanged for report in reports) == 2400
    whole(dsn, 1200)
    assert counts(client.collection("docs").ingest(documents)) == (0, 0, 0, 1200, 0)


def test_two_ingests_of_different_versions_leave_whole_documents(dsn, client):
    client.create_collection("docs")

    def ingest(version):
        with Client(dsn) as own:
            docs = own.collection("docs")
            for _ in range(5):
                docs.ingest([{"id": str(n), "text": f"{version} {n}"} for n in range(150)], batch_size=40)

    threads = [threading.Thread(target=ingest, args=(version,)) for version in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole(dsn, 150)


def whole(dsn, documents):
    """Every document has its own chunk and embedding, and nothing is left over."""
    (row,) = rows(
        dsn,
        "SELECT (SELECT count(*) FROM pgseek.documents) AS documents, (SELECT count(*) FROM pgseek.chunks) AS chunks,"
        " (SELECT count(*) FROM pgseek.embeddings_1) AS embeddings, (SELECT count(*) FROM pgseek.documents d"
        " JOIN pgseek.chunks c USING (collection_id, document_id) WHERE c.text = d.body) AS matching",
    )
    assert row == dict.fromkeys(("documents", "chunks", "embeddings", "matching"), documents)


def test_a_killed_ingest_run_again_ends_as_an_undisturbed_one(dsn, tmp_path, client):
    corpus = tmp_path / "corpus.jsonl"
    with corpus.open("w") as out:
        for n in range(6000):
            out.write(json.dumps({"id": str(n), "text": f"document {n} " + "some words here " * 20}) + "\n")
    client.create_collection("docs")
    command = [sys.executable, "-m", "pgseek", "--dsn", dsn, "ingest", "docs", str(corpus)]
    stored = 0
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            found = rows(dsn, "SELECT count(*) AS n FROM pgseek.documents")[0]["n"]
            if found > stored:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        stored = rows(dsn, "SELECT count(*) AS n FROM pgseek.documents")[0]["n"]
        (row,) = rows(
            dsn,
            "SELECT (SELECT count(*) FROM pgseek.chunks) AS chunks,"
            " (SELECT count(*) FROM pgseek.embeddings_1) AS embeddings",
        )
        assert row == {"chunks": stored, "embeddings": stored}
        assert 0 < stored < 6000
    subprocess.run(command, check=True, capture_output=True)
    resumed = snapshot(dsn)

    client.drop_collection("docs")
    client.create_collection("docs")
    subprocess.run(command, check=True, capture_output=True)
    undisturbed = snapshot(dsn)
    # Another collection id, so another mark in the lexemes and another table of embeddings.
    assert without_ids(resumed) == without_ids(undisturbed)
    assert len(resumed["documents"]) == 6000


def without_ids(state):
    return [
        [tuple(str(cell).replace("' c1'", "' c'").replace("' c2'", "' c'") for cell in row) for row in part]
        for part in state.values()
    ]


def test_an_ingest_killed_while_it_built_the_index_leaves_that_to_the_next(docs, dsn):
    documents = [{"id": str(n), "text": f"text {n}"} for n in range(1500)]
    docs.ingest(documents)
    # As after a kill -9 in the middle of CREATE INDEX, which rolls it back.
    rows(dsn, "DROP INDEX pgseek.embeddings_1_hnsw")
    assert counts(docs.ingest(documents)) == (0, 0, 0, 1500, 0)
    assert rows(dsn, "SELECT to_regclass('pgseek.embeddings_1_hnsw') IS NOT NULL AS built") == [
        {"built": True}
    ]


def test_a_document_the_server_cannot_hold_is_rejected_alone(docs, dsn):
    # A fault in the server for one kind of text, as its own limits would be one.
    rows(
        dsn,
        "ALTER TABLE pgseek.documents ADD COLUMN fault integer"
        " GENERATED ALWAYS AS (1 / CASE WHEN body LIKE 'monster%' THEN 0 ELSE 1 END) STORED",
    )
    good = [{"id": f"good {n}", "text": f"good {n}"} for n in range(20)]
    report = docs.ingest([*good[:7], {"id": "bad", "text": "monster"}, *good[7:]])
    assert counts(report) == (20, 0, 0, 0, 1)
    assert report.rejected[0].id == "bad"
    assert "the server cannot hold it: division by zero" in report.rejected[0].reason
    assert counts(docs.ingest([{"id": "t", "text": "x", "title": "t" * 10_001}])) == (0, 0, 0, 0, 1)


def test_the_index_is_built_once_there_are_rows_enough(docs, dsn):
    docs.ingest([{"id": str(n), "text": f"text {n}"} for n in range(999)])
    find = "SELECT indexdef FROM pg_indexes WHERE tablename = 'embeddings_1' AND indexdef LIKE '%hnsw%'"
    assert rows(dsn, find) == []
    docs.ingest([{"id": "1000", "text": "the last one"}])
    (index,) = rows(dsn, find)
    assert "vector_cosine_ops" in index["indexdef"]


def test_3072_dimensions_are_stored_as_halfvec(client, dsn):
    docs = client.create_collection("wide", embedder=CountingEmbedder(3072))
    docs.ingest([{"id": str(n), "text": f"text {n}"} for n in range(1100)])
    assert docs.info().space.storage == "halfvec"
    hit = docs.search(
        "text 5",
        model=str(docs.info().identity),
        query_embedding=docs._own_embedder().embed_documents(["text 5"])[0],
        alpha=1,
    )[0]
    assert (hit.id, round(hit.dense_score, 3)) == ("5", 1.0)
    assert rows(dsn, "SELECT FROM pg_indexes WHERE indexdef LIKE '%halfvec_cosine_ops%'")
