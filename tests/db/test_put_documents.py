"""pgseek.put_documents and delete_documents: outcomes in order, limits, equal meanings, and writers at once."""

from __future__ import annotations

import json
import random
import threading

import psycopg
import pytest
from support import CountingEmbedder, rows, snapshot

from pgseek import Rejection
from pgseek.collections import languages
from pgseek.db.connection import connect
from pgseek.prepare import Prepared, prepare


@pytest.fixture
def docs(client):
    return client.create_collection("docs", embedder=CountingEmbedder())


def put(dsn, documents, collection="docs"):
    found = rows(
        dsn, "SELECT * FROM pgseek.put_documents(%s, %s::jsonb)", [collection, json.dumps(documents)]
    )
    assert [row["position"] for row in found] == list(range(1, len(documents) + 1))
    return [(row["external_id"], row["outcome"], row["reason"]) for row in found]


def outcomes(found):
    return [outcome for _, outcome, _ in found]


def test_each_element_has_its_outcome_in_order(docs, dsn):
    assert put(
        dsn, [{"id": "b", "text": "one"}, {"id": 7, "text": "two"}, {"_id": "a", "text": "three"}]
    ) == [
        ("b", "new", None),
        ("7", "new", None),
        ("a", "new", None),
    ]
    found = put(
        dsn,
        [
            {"id": "a", "text": "three"},
            {"id": "b", "text": "changed"},
            {"id": "c", "text": "new one"},
            {"id": "7", "text": "two", "metadata": {"x": 1}},
            {"id": "d", "text": ""},
        ],
    )
    assert outcomes(found) == ["unchanged", "changed", "new", "metadata_changed", "rejected"]
    assert found[-1] == ("d", "rejected", "the document has no text")
    assert docs.search("changed", alpha=0)[0].id == "b"
    assert docs.search("one", alpha=0)[0].id == "c"
    assert docs.get("7").metadata == {"x": 1}
    assert put(dsn, []) == []


def test_it_stores_what_ingest_of_the_same_stores(docs, client, dsn):
    documents = [
        {
            "id": "1",
            "text": "Zebras graze.",
            "title": "On zebras",
            "metadata": {"a": [0.1, None, {"ü": "😀"}]},
        },
        {"id": "2", "text": "Häuser", "language": "german"},
        {"id": "3", "text": "こんにちは", "language": "japanese", "format": "markdown"},
        {"_id": "4", "text": " edges ", "title": None, "metadata": None, "language": None, "format": None},
    ]
    assert outcomes(put(dsn, documents)) == ["new"] * 4
    assert docs.ingest(documents).unchanged == 4
    docs.drain_queue()
    through_sql = snapshot(dsn)
    docs.delete(["1", "2", "3", "4"])
    docs.ingest(documents)
    assert snapshot(dsn) == through_sql
    assert outcomes(put(dsn, documents)) == ["unchanged"] * 4


DEEP = {"a": {"b": {"c": {"d": 1}}}}
REJECTED = [
    ("no object", "a document is an object, not a JSON string"),
    (None, "not a JSON null"),
    ([], "not a JSON array"),
    ({"text": "x"}, "the document has no id"),
    ({"id": None, "text": "x"}, "the document has no id"),
    ({"_id": None, "id": "1", "text": "x"}, "the document has no id"),
    ({"id": "", "text": "x"}, "the id is empty"),
    ({"id": 1.5, "text": "x"}, "id is a JSON number, but must be text"),
    ({"id": True, "text": "x"}, "id is a JSON boolean, but must be text"),
    ({"id": ["1"], "text": "x"}, "id is a JSON array, but must be text"),
    ({"id": "1"}, "the document has no text"),
    ({"id": "1", "text": None}, "the document has no text"),
    ({"id": "1", "text": " \t\n\u00a0\u1680\u2003\u2029\u3000\x1c\x85"}, "the document has no text"),
    ({"id": "1", "text": 5}, "text is a JSON number, but must be text"),
    ({"id": "1", "text": "x", "title": {}}, "title is a JSON object, but must be text"),
    ({"id": "1", "text": "x", "format": 1}, "format is a JSON number, but must be text"),
    ({"id": "1", "text": "x", "language": "klingon"}, "language 'klingon' is not a text-search configuration"),
    ({"id": "1", "text": "x", "language": "it's"}, "language 'it''s' is not"),
    ({"id": "1", "text": "x", "metadata": [1]}, "metadata is a JSON array, but must be a JSON object"),
    ({"id": "1", "text": "x", "metadata": "{}"}, "metadata is a JSON string, but must be a JSON object"),
    ({"id": "1", "text": "x", "metadata": {"a": {"b": {"c": {"d": {}}}}}}, "nested deeper than 4 levels"),
    ({"id": "1", "text": "x", "metadata": {"a": [[[[1]]]]}}, "nested deeper than 4 levels"),
    ({"id": "1", "text": "x", "metadata": {"a": "y" * 262_144}}, "the metadata has 262,153 bytes as text, at most 262,144"),
    ({"id": "1", "text": "x", "title": "t" * 10_001}, "the title has 10,001 characters, at most 10,000"),
    ({"id": "1", "text": "x " * 4_000_000 + "x"}, "the text has 8,000,001 bytes, at most 8,000,000"),
    ({"id": "1", "text": "ü " * 2_666_667}, "the text has 8,000,001 bytes"),
    ({"id": "1", "text": "a" * 50_000}, "one word of the text has 50,000 characters or more"),
    ({"id": "1", "text": "x " * 37_123 + "/" * 50_000 + " x"}, "one word of the text"),
    ({"id": "1", "text": "x", "body": "y"}, "the key 'body' is none of id, text, title, metadata, language, format"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "reason"), REJECTED, ids=[reason for _, reason in REJECTED])
def test_a_bad_element_is_rejected_with_its_reason_and_the_rest_goes_in(docs, dsn, bad, reason):
    found = put(dsn, [{"id": "before", "text": "good"}, bad, {"id": "after", "text": "good"}])
    assert outcomes(found) == ["new", "rejected", "new"]
    assert reason in found[1][2]
    assert docs.count() == 2
    assert docs.queue_status().waiting == 2


@pytest.mark.parametrize(
    "good",
    [
        {"metadata": DEEP},
        {"metadata": {"a": [[[1]], {}]}},
        {"metadata": {"a": "y" * (262_144 - 9)}},
        {"title": "t" * 10_000},
        {"text": "a" * 49_999 + " " + "b" * 49_999},
        {"text": "é" * 60_000},
        {"text": "\u200b"},
        {"text": "x" * 20_000 + " " + "aB" * 20_000},
        {"language": "pg_catalog.german"},
        {"language": "Chinese"},
    ],
    ids=lambda good: str(good)[:40],
)
def test_what_is_within_the_limits_goes_in(docs, client, dsn, good):
    document = {"id": "1", "text": "x", **good}
    assert put(dsn, [document]) == [("1", "new", None)]
    assert isinstance(prepare(document, 1, "english", client._run(languages())), Prepared)


@pytest.mark.parametrize(("bad", "reason"), REJECTED, ids=[reason for _, reason in REJECTED])
def test_python_rejects_the_same(client, bad, reason):
    known = client._run(languages())
    assert isinstance(prepare(bad, 1, "english", known), Rejection)


def test_of_two_with_one_id_the_first_that_can_be_stored_is_kept(docs, dsn):
    found = put(
        dsn,
        [
            {"id": "1", "text": " "},
            {"id": "1", "text": "kept"},
            {"id": 1, "text": "not kept"},
            {"_id": "1", "text": ""},
        ],
    )
    assert outcomes(found) == ["rejected", "new", "rejected", "rejected"]
    assert found[2][2] == "the id occurred before in this call; the first is kept"
    assert found[3][2] == "the document has no text"
    assert docs.get("1").text == "kept"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("'dogs', '[]'", "there is no collection 'dogs'"),
        ("'docs', NULL", "documents is NULL, but must be a JSON array of objects"),
        ("'docs', '{}'", "documents is a JSON object, but must be a JSON array"),
    ],
)
def test_what_is_no_array_of_documents_is_an_error(docs, dsn, call, message):
    with connect(dsn) as connection, pytest.raises(psycopg.Error, match=message):
        connection.execute(f"SELECT * FROM pgseek.put_documents({call})")


def test_put_document_has_the_same_limits_and_says_which_document(docs, dsn):
    for arguments, message in (
        ("repeat('a', 50000)", "document '1' is refused: one word of the text"),
        ("'x', title => repeat('t', 10001)", "document '1' is refused: the title has 10,001 characters"),
        ('\'x\', metadata => \'{"a":{"b":{"c":{"d":{}}}}}\'', "nested deeper than 4 levels"),
        ("repeat('x ', 4000001)", "the text has 8,000,002 bytes"),
    ):
        with connect(dsn) as connection, pytest.raises(psycopg.Error, match=message) as caught:
            connection.execute(f"SELECT pgseek.put_document('docs', '1', {arguments})")
        assert (caught.value.sqlstate, caught.value.diag.message_hint) == ("PGS02", None)
    assert docs.count() == 0


def test_what_the_server_cannot_hold_is_rejected_alone(docs, dsn):
    # An analysis that fails, whatever the reason, once for new and once for changed documents.
    put(dsn, [{"id": "old", "text": "as it was"}])
    rows(
        dsn,
        "ALTER FUNCTION pgseek.analyze RENAME TO analyze_really;"
        " CREATE FUNCTION pgseek.analyze(language text, title text, body text, weighting real[],"
        " OUT lexemes tsvector, OUT terms public.sparsevec) LANGUAGE plpgsql AS $$ BEGIN"
        " IF body ~ 'poison' THEN RAISE EXCEPTION 'too much' USING ERRCODE = 'program_limit_exceeded'; END IF;"
        " SELECT a.* INTO lexemes, terms FROM pgseek.analyze_really(language, title, body, weighting) AS a; END $$",
    )
    found = put(
        dsn,
        [{"id": str(n), "text": "poison" if n == 3 else "good"} for n in range(6)]
        + [{"id": "old", "text": "poison"}],
    )
    assert outcomes(found) == ["new", "new", "new", "rejected", "new", "new", "rejected"]
    assert {reason for _, outcome, reason in found if outcome == "rejected"} == {
        "the server cannot hold it: too much"
    }
    assert docs.get("3") is None
    assert docs.get("old").text == "as it was"
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.chunks") == [{"n": 6}]
    assert docs.queue_status().waiting == 6


def test_new_content_starts_its_way_through_the_queue_anew(docs, dsn):
    put(dsn, [{"id": "1", "text": "one"}, {"id": "2", "text": "two"}])
    rows(
        dsn,
        "UPDATE pgseek.ingest_queue SET attempts = 5, due_at = now() + interval '1 hour', claimed_by = 'w',"
        " error = 'e', failed_at = now(), enqueued_at = now() - interval '1 hour'",
    )
    put(dsn, [{"id": "1", "text": "changed"}, {"id": "2", "text": "two", "metadata": {"a": 1}}])
    state = "SELECT attempts, claimed_by, error, failed_at, due_at <= now() AS due, enqueued_at > now() - interval '1 minute' AS fresh FROM pgseek.ingest_queue WHERE document_id = pgseek.document_id(%s)"
    assert rows(dsn, state, ["1"]) == [
        {"attempts": 0, "claimed_by": None, "error": None, "failed_at": None, "due": True, "fresh": True}
    ]
    # Other metadata are no reason to embed again.
    assert rows(dsn, state, ["2"])[0]["attempts"] == 5


def test_a_statement_notifies_once_and_only_of_new_work(docs, dsn):
    with connect(dsn) as listener:
        listener.execute("LISTEN pgseek_queue")
        put(dsn, [{"id": str(n), "text": f"text {n}"} for n in range(50)])
        put(dsn, [{"id": str(n), "text": f"text {n}"} for n in range(50)])
        put(dsn, [{"id": "1", "text": "text 1", "metadata": {"a": 1}}, {"id": "2", "text": ""}])
        rows(dsn, "SELECT pgseek.put_document('docs', 'x', 'y')")
        seen = [notify.payload for notify in listener.notifies(timeout=1.0)]
    assert seen == ["docs", "docs"]


def test_unchanged_documents_are_neither_written_nor_locked(docs, dsn):
    documents = [{"id": str(n), "text": f"text {n}"} for n in range(20)]
    put(dsn, documents)
    docs.drain_queue()
    before = rows(dsn, "SELECT ctid, xmin, xmax FROM pgseek.documents ORDER BY document_id")
    with connect(dsn) as holder, holder.transaction():
        holder.execute("SELECT FROM pgseek.documents FOR UPDATE")
        with connect(dsn) as connection:
            connection.execute("SET lock_timeout = '2s'")
            found = connection.execute(
                "SELECT DISTINCT outcome FROM pgseek.put_documents('docs', %s::jsonb)",
                [json.dumps(documents)],
            ).fetchall()
    assert found == [{"outcome": "unchanged"}]
    after = rows(dsn, "SELECT ctid, xmin, xmax FROM pgseek.documents ORDER BY document_id")
    assert [row["ctid"] for row in after] == [row["ctid"] for row in before]


def test_stand_ins_hold_the_whole_text_in_place(docs, dsn):
    text = "".join(f"word{n} " for n in range(9000))
    put(dsn, [{"id": "1", "text": text}])
    stored = rows(dsn, "SELECT text, char_start, char_end FROM pgseek.chunks ORDER BY ordinal")
    assert len(stored) > 1
    assert "".join(row["text"] for row in stored) == text
    assert all(text[row["char_start"] : row["char_end"]] == row["text"] for row in stored)


def test_a_stand_in_that_is_the_chunk_is_not_written_again(docs, dsn):
    # So many that two more are no reason to weigh all anew.
    docs.ingest([{"id": f"before {n}", "text": f"some text {n}"} for n in range(40)])
    docs._own_embedder().documents.clear()
    put(dsn, [{"id": "1", "text": "a short text"}, {"id": "2", "text": "another", "title": "with a title"}])
    before = rows(dsn, "SELECT ctid, xmin FROM pgseek.chunks ORDER BY document_id")
    assert docs.drain_queue().embedded == 2
    assert rows(dsn, "SELECT ctid, xmin FROM pgseek.chunks ORDER BY document_id") == before
    # And has its vector all the same.
    for text in ("a short text", "with a title\n\nanother"):
        (hit,) = docs.search(
            "?",
            model=str(docs.info().identity),
            query_embedding=docs._own_embedder().embed_query(text),
            k=1,
            alpha=1,
        )
        assert hit.dense_score == pytest.approx(1)


# Deleting.


def test_delete_documents_counts_what_there_was_and_leaves_nothing(docs, dsn):
    docs.ingest([{"id": str(n), "text": f"text {n}"} for n in range(10)])
    put(dsn, [{"id": "sql", "text": "waiting"}])
    delete = "SELECT pgseek.delete_documents('docs', %s) AS n"
    assert rows(dsn, delete, [["1", "2", "2", "sql", "none", None]]) == [{"n": 3}]
    assert rows(dsn, delete, [["1"]]) == [{"n": 0}]
    assert rows(dsn, "SELECT pgseek.delete_documents('docs', '{}') AS n") == [{"n": 0}]
    assert rows(dsn, "SELECT pgseek.delete_documents('docs', NULL) AS n") == [{"n": 0}]
    for table in ("documents", "chunks", "embeddings_1"):
        assert rows(dsn, f"SELECT count(*) AS n FROM pgseek.{table}") == [{"n": 8}]
    assert docs.queue_status().waiting == 0
    with connect(dsn) as connection, pytest.raises(psycopg.Error, match="there is no collection 'dogs'"):
        connection.execute("SELECT pgseek.delete_documents('dogs', '{1}')")


# Several at once.


def at_once(*works):
    problems = []

    def guarded(work):
        try:
            work()
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert problems == []


def test_writers_in_any_order_do_not_deadlock_and_the_last_one_wins_whole(docs, dsn):
    ids = [str(n) for n in range(40)]

    def writer(seed):
        def work():
            rng = random.Random(seed)
            for turn in range(25):
                chosen = rng.sample(ids, 25)
                if rng.random() < 0.2:
                    rows(dsn, "SELECT pgseek.delete_documents('docs', %s)", [chosen])
                else:
                    text = f"writer{seed} turn{turn}"
                    found = put(dsn, [{"id": i, "text": text, "title": text} for i in chosen])
                    assert set(outcomes(found)) <= {"new", "changed", "unchanged"}

        return work

    at_once(*(writer(seed) for seed in range(4)))
    stored = rows(
        dsn,
        "SELECT d.body, c.text, q.content_hash = d.content_hash AS queued FROM pgseek.documents d"
        " JOIN pgseek.chunks c USING (collection_id, document_id)"
        " JOIN pgseek.ingest_queue q USING (collection_id, document_id)",
    )
    assert len(stored) == docs.count()
    assert all(row["body"] == row["text"] and row["queued"] for row in stored)
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.chunks") == [{"n": docs.count()}]
    assert docs.queue_status().waiting == docs.count()


def test_one_id_from_two_sessions_is_one_document(docs, dsn):
    def writer(own):
        def work():
            for n in range(30):
                put(dsn, [{"id": f"{n}", "text": f"from {own}"}])

        return work

    at_once(writer("a"), writer("b"), writer("a"))
    assert docs.count() == 30
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.chunks") == [{"n": 30}]


def test_sql_writers_an_ingest_and_a_worker_at_once(docs, dsn):
    documents = [{"id": str(n), "text": f"text {n}"} for n in range(60)]

    def through_sql():
        rng = random.Random(1)
        for turn in range(15):
            put(dsn, [{"id": i["id"], "text": f"sql {turn} {i['id']}"} for i in rng.sample(documents, 30)])

    def through_python():
        for turn in range(8):
            docs.ingest([{"id": d["id"], "text": f"python {turn} {d['id']}"} for d in documents[::2]])

    def draining():
        for _ in range(15):
            docs.drain_queue()

    at_once(through_sql, through_python, draining)
    docs.drain_queue()
    missing = rows(
        dsn,
        "SELECT d.external_id FROM pgseek.documents d LEFT JOIN pgseek.chunks c USING (collection_id, document_id)"
        " LEFT JOIN pgseek.embeddings_1 e USING (collection_id, document_id, ordinal)"
        " WHERE e.document_id IS NULL OR c.text <> d.body",
    )
    assert missing == []
    assert rows(dsn, "SELECT FROM pgseek.ingest_queue") == []
    embedder = docs._own_embedder()
    for document in documents[::7]:
        stored = docs.get(document["id"])
        if stored is None:
            continue
        (hit,) = docs.search(
            "?",
            model=str(docs.info().identity),
            query_embedding=embedder.embed_query(stored.text),
            k=1,
            alpha=1,
        )
        assert hit.dense_score == pytest.approx(1)
