"""Documents written through SQL, and reading, deleting and draining them."""

from __future__ import annotations

import pytest
from support import CountingEmbedder, rows

from pgseek import InvalidInput
from pgseek.db.connection import connect


@pytest.fixture
def docs(client):
    return client.create_collection("docs", embedder=CountingEmbedder())


PUT = "SELECT pgseek.put_document('docs', %s, %s) AS status"


def test_put_stores_is_found_at_once_and_drained_later(docs, dsn):
    assert rows(dsn, PUT, ["1", "Zebras graze"]) == [{"status": "new"}]
    assert rows(dsn, PUT, ["1", "Zebras graze"]) == [{"status": "unchanged"}]
    (hit,) = docs.search("zebra")
    assert (hit.id, hit.dense_score, hit.score) == ("1", None, 1.0)
    assert docs.info().queued == 1
    report = docs.drain_queue()
    assert (report.changed, report.chunks, report.embedded) == (1, 1, 1)
    assert docs.search("zebra")[0].dense_score is not None
    assert docs.info().queued == 0
    assert docs.drain_queue().changed == 0


def test_put_tells_changed_text_from_changed_metadata(docs, dsn):
    put = "SELECT pgseek.put_document('docs', '1', %s, title => %s, metadata => %s::jsonb) AS status"
    assert rows(dsn, put, ["x", "t", '{"a": 1}'])[0]["status"] == "new"
    docs.drain_queue()
    assert rows(dsn, put, ["x", "t", '{"a": 2}'])[0]["status"] == "metadata_changed"
    assert docs.info().queued == 0
    assert rows(dsn, put, ["y", "t", '{"a": 2}'])[0]["status"] == "changed"
    assert docs.info().queued == 1
    assert docs.search("x", alpha=0) == []


def test_put_and_ingest_agree_on_what_is_unchanged(docs, dsn):
    docs.ingest([{"id": "1", "text": "body", "title": "title", "metadata": {"a": 0.1}}])
    put = "SELECT pgseek.put_document('docs', '1', 'body', 'title', '{\"a\": 0.1}') AS status"
    assert rows(dsn, put)[0]["status"] == "unchanged"
    rows(dsn, "SELECT pgseek.put_document('docs', '2', 'body', language => 'german')")
    assert docs.ingest([{"id": "2", "text": "body", "language": "german"}]).unchanged == 1


def test_a_large_body_is_searchable_before_its_chunks_exist(docs, dsn):
    body = "".join(f"word{n} " for n in range(200_000))
    rows(dsn, PUT, ["large", body])
    (hit,) = docs.search("word199999", alpha=0)
    assert body[hit.char_start : hit.char_end] == hit.text
    report = docs.drain_queue()
    assert report.chunks > 500
    (hit,) = docs.search("word199999", alpha=0)
    assert body[hit.char_start : hit.char_end] == hit.text
    assert len(hit.text) <= 2000


def test_a_document_changed_while_it_waits_is_embedded_as_it_is_now(docs, dsn):
    rows(dsn, PUT, ["1", "first"])
    rows(dsn, PUT, ["1", "second"])
    docs.drain_queue()
    assert docs._own_embedder().documents == ["second"]


def test_delete_removes_everything_of_a_document(docs, dsn):
    docs.ingest([{"id": "1", "text": "one"}, {"id": "2", "text": "two"}])
    rows(dsn, PUT, ["3", "three"])
    assert rows(dsn, "SELECT pgseek.delete_document('docs', '1') AS gone") == [{"gone": True}]
    assert rows(dsn, "SELECT pgseek.delete_document('docs', '1') AS gone") == [{"gone": False}]
    assert docs.delete(["2", "3", "4"]) == 2
    for table in ("documents", "chunks", "embeddings_1", "ingest_queue"):
        assert rows(dsn, f"SELECT count(*) AS n FROM pgseek.{table}")[0]["n"] == 0


def test_deleted_documents_do_not_hold_up_the_queue(docs, dsn):
    rows(dsn, PUT, ["1", "one"])
    rows(dsn, "DELETE FROM pgseek.documents")
    assert docs.drain_queue().documents == 0
    assert docs.info().queued == 0


def test_get_and_count(docs):
    docs.ingest([{"id": "ü 😀", "text": "x", "title": "t", "metadata": {"a": [1]}, "language": "simple"}])
    found = docs.get("ü 😀")
    assert (found.id, found.text, found.title, found.metadata, found.language) == (
        "ü 😀",
        "x",
        "t",
        {"a": [1]},
        "simple",
    )
    assert docs.get("missing") is None
    assert docs.count() == 1
    for wrong in ("", None, 5, "\ud800"):
        with pytest.raises(InvalidInput):
            docs.get(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'dogs', '1', 'x'", "there is no collection 'dogs'"),
        ("'docs', '', 'x'", "the external id is empty"),
        ("'docs', NULL, 'x'", "the external id is empty"),
        ("'docs', '1', NULL", "document '1' has no text"),
        ("'docs', '1', E' \\n'", "document '1' has no text"),
        ("'docs', '1', 'x', metadata => '[1]'", "is a JSON array, but must be a JSON object"),
        ("'docs', '1', 'x', metadata => NULL", "is NULL, but must be a JSON object"),
        ("'docs', '1', E'\\u00a0 \\u3000'", "document '1' has no text"),
        ("'docs', '1', 'x', language => '123'", "language '123' is not a text-search configuration"),
        ("'docs', '1', 'x', language => '-'", "language '-' is not a text-search configuration"),
        ("'docs', '1', 'x', language => 'a.b.c'", "language 'a.b.c' is not a text-search configuration"),
        ("'docs', '1', 'x', language => 'klingon'", "language 'klingon' is not a text-search configuration"),
    ],
)
def test_put_refuses_bad_input_with_reason(docs, dsn, arguments, message):
    with connect(dsn) as connection, pytest.raises(Exception) as caught:
        connection.execute(f"SELECT pgseek.put_document({arguments})")
    assert message in str(caught.value)
    assert docs.count() == 0


def test_a_roll_back_takes_the_document_back(docs, dsn):
    with connect(dsn) as connection:
        with connection.transaction(force_rollback=True):
            connection.execute(PUT, ["1", "zebra"])
            inside = connection.execute("SELECT * FROM pgseek.search('docs', 'zebra')").fetchall()
            assert [row["external_id"] for row in inside] == ["1"]
        assert connection.execute("SELECT * FROM pgseek.search('docs', 'zebra')").fetchall() == []
    assert docs.info().queued == 0
