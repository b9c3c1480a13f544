"""`pgseek doctor --deep`: a healthy database has no findings, each damage has exactly its own."""

from __future__ import annotations

import itertools
import json
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from support import CORPUS, CountingEmbedder, create_database, drop_database, rows, snapshot

from pgseek import CallableGenerator, Client, CollectionNotFound, SchemaNotMigrated
from pgseek.db.connection import connect
from pgseek.integrity import RULES, examine, repair

LONG = "\n\n".join(f"Absatz {n}. " + "Über viele schöne Wörter. " * 40 for n in range(12)) + "\u2003\u0085\n"


MARKDOWN = (
    "# Guide\n\nFirst words.\n\n## Install\n\nSecond words.\n\n```python\ncode()\n```\n\n## Use\n\n"
    + "Many words. " * 60
)
RICH = [
    {"id": "guide", "title": "Guide", "text": MARKDOWN, "format": "markdown"},
    {"id": "pages", "title": "Pages", "text": "page one\n\fpage two, with words\n\f", "format": "pages"},
    {
        "id": "code",
        "title": "",
        "text": "def f():\n    return 1\n\n\nclass A:\n    x = 2\n" * 9,
        "format": "python",
    },
    {"id": "bare", "title": "Bare", "text": "plain words here"},
]


def fill(dsn):
    """Collections with all that writers leave behind; ``docs`` and ``small`` have the ids 1 and 2."""
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder())
        docs.ingest([{"id": f"n{n}", "text": f"short text number {n}"} for n in range(1040)])
        docs.ingest(CORPUS[:3])
        docs.ingest(
            [
                {"id": "long", "title": "Ein Titel", "text": LONG, "language": "german"},
                {"id": "japanese", "text": "日本語の文章です。", "language": "japanese"},
                {"id": "plain", "text": " \t some words\x1f\n", "language": "simple", "metadata": {"a": [1]}},
            ]
        )
        # Changed in text, in title, in metadata only; by an ingest, and by an SQL writer.
        docs.ingest([{**CORPUS[0], "text": "another text"}, {**CORPUS[1], "metadata": {"b": 2}}])
        put = "SELECT pgseek.put_document('docs', %s, %s, title => %s, language => %s, format => %s)"
        rows(dsn, put, ["n1", "changed through SQL", "with a title", None, ""])
        docs.drain_queue()
        rows(dsn, put, ["queued", "waits for its embedding", "", "french", "markdown"])
        rows(dsn, put, ["n2", "x" * 45_000 + " end", "changed", None, ""])
        docs.delete(["n5", "n6"])
        rows(dsn, "SELECT pgseek.delete_document('docs', 'n7')")
        docs.ingest([{"id": "n5", "text": "come back"}])
        small = client.create_collection(
            "small", embedder=CountingEmbedder(), title_weight=1, chunk_overlap=20
        )
        small.ingest([*CORPUS, {"id": "long", "text": LONG}])
        small.refresh_statistics(reweigh=True)
        client.create_collection("wide", embedder=CountingEmbedder(3000)).ingest(CORPUS)
        client.create_collection("empty", embedder=CountingEmbedder())
        writer = CallableGenerator(
            model="writer",
            questions=lambda text, title, count: [f"what is {text[:20]} {n}?" for n in range(count)],
            summary=lambda text, title: f"in short: {text[:30]}",
        )
        rich = client.create_collection(
            "rich",
            embedder=CountingEmbedder(),
            generator=writer,
            chunk_size=200,
            section_size=400,
            document_vectors=True,
            questions=2,
            summaries=True,
        )
        rich.ingest(RICH)
        rich.ingest([{**RICH[0], "text": MARKDOWN.replace("Second", "Another")}])


@pytest.fixture(scope="module")
def healthy(server_dsn, module_dsn):
    """The name of a filled database that nobody is connected to."""
    fill(module_dsn)
    return conninfo_to_dict(module_dsn)["dbname"]


_numbers = itertools.count(1)


@pytest.fixture
def filled(server_dsn, healthy):
    """The DSN of a filled database that may be damaged."""
    name = f"pgseek_deep_{os.getpid()}_{next(_numbers)}"
    create_database(server_dsn, name, healthy)
    yield make_conninfo(server_dsn, dbname=name)
    drop_database(server_dsn, name)


def harm(dsn, statement):
    """Execute a statement as somebody does who heeds no foreign keys."""
    with connect(dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(statement)


def state(dsn):
    """All that is stored, in an order that does not hang on where rows lie."""
    return {name: sorted(part) for name, part in snapshot(dsn).items()}


def findings(dsn, *names):
    return [
        (f.key, f.collection, f.count, f.examples) for f in examine(dsn, names).findings if not f.harmless
    ]


def test_a_healthy_database_has_no_findings(filled):
    found = examine(filled)
    assert found.ok
    assert [f.key for f in found.findings if not f.harmless] == []
    assert [(c.name, c.documents, c.queued) for c in found.collections] == [
        ("docs", 1045, 2),
        ("empty", 0, 0),
        ("rich", 4, 0),
        ("small", 7, 0),
        ("wide", 6, 0),
    ]
    for one in found.collections:
        assert one.broken == {rule.key: 0 for rule in RULES}
        (counted,) = rows(
            filled,
            "SELECT count(*) AS n FROM pgseek.chunks JOIN pgseek.collections USING (collection_id) WHERE name = %s",
            [one.name],
        )
        assert one.chunks == counted["n"]
    # The document put as 'queued' has a piece, 'n2' three; neither has a vector yet.
    docs = found.collections[0]
    assert docs.chunks - docs.embeddings == 4
    assert set(found.rules) == {rule.key for rule in RULES}
    before = state(filled)
    assert repair(filled, found).deleted == 0
    assert state(filled) == before


OF = "(SELECT document_id FROM pgseek.documents WHERE collection_id = 1 AND external_id = '{}')"
REDUCE, SHORT, LONG_ID = OF.format("reduce"), OF.format("n9"), OF.format("long")
REBUILT = "rebuilt"
DELETED = "deleted"
CORRECTED = "corrected"
DAMAGES = [
    # key, damage, count, examples, what --repair and a drain do about it
    (
        "document_id",
        "UPDATE pgseek.documents SET external_id = 'renamed' WHERE collection_id = 1 AND external_id = 'n9'",
        1,
        ("renamed",),
        None,
    ),
    (
        "content_hash",
        f"UPDATE pgseek.documents SET content_hash = '\\x00' WHERE document_id = {SHORT} AND collection_id = 1",
        1,
        ("n9",),
        None,
    ),
    (
        "language_unlisted",
        "UPDATE pgseek.collections SET languages = '{english}' WHERE collection_id = 1",
        4,
        ("japanese", "long", "plain"),
        None,
    ),
    (
        "document_without_chunks",
        f"WITH gone AS (DELETE FROM pgseek.embeddings_1 WHERE document_id = {LONG_ID}) DELETE FROM pgseek.chunks WHERE collection_id = 1 AND document_id = {LONG_ID}",
        1,
        ("long",),
        REBUILT,
    ),
    (
        "chunk_without_document",
        f"WITH gone AS (DELETE FROM pgseek.documents WHERE collection_id = 1 AND document_id = {SHORT} RETURNING 1) SELECT * FROM gone",
        1,
        None,
        None,
    ),
    (
        "text",
        f"UPDATE pgseek.documents SET body = 'other words', content_hash = pgseek.content_hash(title, 'other words', language, format) WHERE collection_id = 1 AND document_id = {SHORT}",
        1,
        ("n9 #0",),
        REBUILT,
    ),
    (
        "title",
        f"UPDATE pgseek.documents SET title = 'other', content_hash = pgseek.content_hash('other', body, language, format) WHERE collection_id = 1 AND document_id = {REDUCE}",
        1,
        ("reduce #0",),
        REBUILT,
    ),
    (
        "title",
        f"UPDATE pgseek.documents SET language = 'simple', content_hash = pgseek.content_hash(title, body, 'simple', format) WHERE collection_id = 1 AND document_id = {REDUCE}",
        1,
        ("reduce #0",),
        REBUILT,
    ),
    (
        "words",
        f"UPDATE pgseek.chunks SET lexemes = '''lost'':1B' WHERE collection_id = 1 AND document_id IN ({REDUCE}, {SHORT})",
        2,
        ("n9 #0", "reduce #0"),
        CORRECTED,
    ),
    (
        "words",
        f"UPDATE pgseek.chunks SET terms = pgseek.weigh(lexemes, '{{1.2,0.75,5,2}}') WHERE collection_id = 1 AND document_id = {LONG_ID}",
        None,
        ("long #0", "long #1", "long #10"),
        CORRECTED,
    ),
    (
        "queued_without_document",
        "INSERT INTO pgseek.ingest_queue (collection_id, document_id, content_hash) VALUES (1, gen_random_uuid(), '')",
        1,
        None,
        DELETED,
    ),
    (
        "queued_old",
        "UPDATE pgseek.ingest_queue SET content_hash = '\\x00' WHERE collection_id = 1",
        2,
        ("n2", "queued"),
        REBUILT,
    ),
    (
        "orphans",
        "INSERT INTO pgseek.embeddings_1 SELECT 1, gen_random_uuid(), 0, array_fill(1, ARRAY[8])::vector FROM generate_series(1, 5)",
        5,
        None,
        DELETED,
    ),
    (
        "orphans",
        f"INSERT INTO pgseek.embeddings_1 VALUES (1, {SHORT}, 7, array_fill(1, ARRAY[8])::vector), (2, {SHORT}, 0, array_fill(1, ARRAY[8])::vector)",
        2,
        None,
        DELETED,
    ),
    (
        "missing",
        f"DELETE FROM pgseek.embeddings_1 WHERE document_id IN ({REDUCE}, {SHORT})",
        2,
        ("n9 #0", "reduce #0"),
        REBUILT,
    ),
    (
        "unusable",
        f"UPDATE pgseek.embeddings_1 SET embedding = array_fill(0, ARRAY[8])::vector WHERE document_id = {SHORT}",
        1,
        ("n9 #0",),
        REBUILT,
    ),
    (
        "unlike_cached",
        f"UPDATE pgseek.embeddings_1 SET embedding = (SELECT embedding FROM pgseek.embeddings_1 WHERE document_id = {REDUCE}) WHERE document_id = {SHORT}",
        1,
        ("n9 #0",),
        REBUILT,
    ),
]


@pytest.mark.parametrize(("key", "damage", "count", "examples", "mended"), DAMAGES)
def test_each_damage_is_found_as_what_it_is(filled, key, damage, count, examples, mended):
    harm(filled, damage)
    found = [f for f in examine(filled).findings if not f.harmless]
    assert {(f.key, f.collection) for f in found} == {(key, "docs")}
    (finding,) = found
    if count is not None:
        assert finding.count == count
    if examples is not None:
        assert finding.examples == examples
    assert len(finding.examples) <= 3
    assert "{" not in finding.mend
    # Only where it is looked for.
    assert findings(filled, "small") == []
    repaired = repair(filled, examine(filled))
    assert bool(repaired.deleted) == (mended == DELETED)
    assert bool(repaired.queued) == (mended == REBUILT)
    assert bool(repaired.corrected) == (mended == CORRECTED)
    if mended is not None:
        with Client(filled) as client:
            client.collection("docs", embedder=CountingEmbedder()).drain_queue()
        assert findings(filled) == []
        with Client(filled) as client:
            assert client.collection("docs", embedder=CountingEmbedder()).count() == 1045


def test_a_repaired_collection_is_what_it_was(filled):
    with Client(filled) as client:
        client.collection("docs", embedder=CountingEmbedder()).drain_queue()
    before = state(filled)
    harm(
        filled, f"DELETE FROM pgseek.chunks WHERE collection_id = 1 AND document_id IN ({REDUCE}, {LONG_ID})"
    )
    harm(filled, f"DELETE FROM pgseek.embeddings_1 WHERE document_id = {SHORT}")
    harm(filled, "UPDATE pgseek.chunks SET lexemes = '' WHERE collection_id = 1 AND title <> ''")
    found = examine(filled)
    assert {f.key for f in found.findings} == {"document_without_chunks", "orphans", "missing", "words"}
    repair(filled, found)
    with Client(filled) as client:
        client.collection("docs", embedder=CountingEmbedder()).drain_queue()
    assert state(filled) == before


def test_what_was_written_for_a_chunk_that_is_not_there(filled):
    harm(
        filled,
        "UPDATE pgseek.chunks SET of_ordinal = 99 WHERE kind = 'summary' AND ordinal > 0 AND title = ''",
    )
    found = [f for f in examine(filled).findings if not f.harmless]
    assert [(f.key, f.collection) for f in found] == [("written_for", "rich")]
    assert found[0].count > 3


def test_a_chunk_that_is_lost_leaves_a_gap(filled):
    harm(
        filled,
        f"WITH gone AS (DELETE FROM pgseek.embeddings_1 WHERE document_id = {LONG_ID} AND ordinal = 3)"
        f" DELETE FROM pgseek.chunks WHERE collection_id = 1 AND document_id = {LONG_ID} AND ordinal = 3",
    )
    lost = [("ordinals", "docs", 1, ("long",)), ("uncovered", "docs", 1, ("long",))]
    assert sorted(findings(filled)) == lost
    harm(
        filled,
        f"WITH gone AS (DELETE FROM pgseek.embeddings_1 WHERE document_id = {LONG_ID} AND ordinal >= 3)"
        f" DELETE FROM pgseek.chunks WHERE collection_id = 1 AND document_id = {LONG_ID} AND ordinal >= 3",
    )
    # Nothing is amiss in the numbers of those that are left.
    assert findings(filled) == [("uncovered", "docs", 1, ("long",))]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            "INSERT INTO pgseek.term_statistics VALUES (99, 'word', 2), (99, 'other', 2), (98, 'word', 3)",
            ("leftover_term_statistics", None, 3, ("collection_id 98", "collection_id 99")),
        ),
        (
            "INSERT INTO pgseek.rare_lexemes VALUES (99, 'a', 'a')",
            ("leftover_rare_lexemes", None, 1, ("collection_id 99",)),
        ),
        (
            "INSERT INTO pgseek.ingest_queue (collection_id, document_id, content_hash) VALUES (99, gen_random_uuid(), '')",
            ("leftover_ingest_queue", None, 1, ("collection_id 99",)),
        ),
    ],
)
def test_rows_of_no_collection_are_found_and_deleted(filled, damage, expected):
    harm(filled, damage)
    assert findings(filled) == [expected]
    assert findings(filled, "docs") == []
    assert repair(filled, examine(filled)).deleted == expected[2]
    assert findings(filled) == []


@pytest.mark.parametrize(
    ("damage", "expected", "mend"),
    [
        (
            "CREATE TABLE pgseek.embeddings_77 (a int)",
            ("table_stray", None, 1, ("embeddings_77",)),
            "DROP TABLE pgseek.embeddings_77",
        ),
        (
            "DROP TABLE pgseek.embeddings_4",
            ("table_missing", "empty", 1, ("embeddings_4",)),
            "CREATE TABLE pgseek.embeddings_4",
        ),
        (
            "DROP INDEX pgseek.chunks_codes_idx",
            ("index_missing", None, 1, ("chunks_codes_idx",)),
            "the next ingest as the tables' owner builds it",
        ),
        (
            "DROP INDEX pgseek.embeddings_1_hnsw",
            ("index_missing", "docs", 1, ("embeddings_1_hnsw",)),
            "the next ingest into docs",
        ),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgseek.embeddings_1_hnsw'::regclass",
            ("index_invalid", None, 1, ("pgseek.embeddings_1_hnsw",)),
            "REINDEX INDEX pgseek.embeddings_1_hnsw",
        ),
        (
            "DELETE FROM pgseek.collection_statistics WHERE collection_id = 4",
            ("no_statistics", "empty", 1, ()),
            "INSERT INTO pgseek.collection_statistics",
        ),
        (
            "UPDATE pgseek.collections SET active_space_id = 99 WHERE collection_id = 4",
            ("no_space", "empty", 1, ()),
            "pgseek collections drop empty",
        ),
        (
            "UPDATE pgseek.term_statistics SET chunks = 5000 WHERE collection_id = 1 AND lexeme = 'short'",
            ("statistics_impossible", "docs", 1, ()),
            "SELECT pgseek.refresh_statistics('docs')",
        ),
    ],
)
def test_tables_indexes_and_statistics_are_looked_at(filled, damage, expected, mend):
    harm(filled, damage)
    assert findings(filled) == [expected]
    (finding,) = [f for f in examine(filled).findings if not f.harmless]
    assert mend in finding.mend


@pytest.mark.parametrize(
    "damage", ["DROP INDEX pgseek.chunks_codes_idx", "DROP TABLE pgseek.embeddings_4"], ids=["index", "table"]
)
def test_what_is_shown_as_the_way_out_is_one(filled, damage):
    harm(filled, damage)
    (finding,) = [f for f in examine(filled).findings if not f.harmless]
    rows(filled, finding.mend.split(", or: ")[-1].split(";")[0])
    assert findings(filled) == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE pgseek.documents SET content_hash = '\\x00' WHERE external_id = 'n9'",
        "UPDATE pgseek.collections SET languages = '{english}' WHERE collection_id = 1",
    ],
    ids=["hash", "language"],
)
def test_a_statement_shown_as_the_way_out_mends(filled, damage):
    harm(filled, damage)
    for finding in [f for f in examine(filled).findings if not f.harmless]:
        rows(filled, finding.mend.split(";")[0])
    assert findings(filled) == []


def test_an_ingest_builds_an_index_that_is_missing_or_not_valid(filled):
    for damage in (
        "DROP INDEX pgseek.embeddings_1_hnsw",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgseek.embeddings_1_hnsw'::regclass",
        "DROP INDEX pgseek.chunks_codes_idx",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgseek.chunks_codes_idx'::regclass",
    ):
        harm(filled, damage)
        assert findings(filled) != []
        with Client(filled) as client:
            client.collection("docs", embedder=CountingEmbedder()).ingest([])
        assert findings(filled) == []


def test_a_language_that_was_dropped_is_found_and_does_not_end_the_rest(filled):
    rows(filled, "CREATE TEXT SEARCH CONFIGURATION public.mine (COPY = english)")
    with Client(filled) as client:
        client.collection("small", embedder=CountingEmbedder()).ingest(
            [{"id": "mine", "text": "my words", "language": "public.mine"}]
        )
    assert findings(filled) == []
    rows(filled, "DROP TEXT SEARCH CONFIGURATION public.mine")
    assert findings(filled) == [("language_unknown", "small", 1, ("mine",))]


def test_claims_that_ran_out_are_harmless(filled):
    rows(
        filled,
        "INSERT INTO pgseek.embedding_claims VALUES ('x', '\\x00', now() - interval '1 hour'),"
        " ('x', '\\x01', now() + interval '1 hour')",
    )
    found = examine(filled)
    assert found.ok
    assert [(f.key, f.count) for f in found.findings if f.key == "claims"] == [("claims", 1)]


def test_amcheck_reads_the_pages_where_it_is_installed(filled):
    assert "CREATE EXTENSION amcheck" in examine(filled).pages
    rows(filled, "CREATE EXTENSION amcheck")
    assert "tables and indexes read by amcheck" in examine(filled).pages
    # What a torn page would do: an index that lacks a row of its table.
    with connect(filled) as connection:
        connection.execute(
            "UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = 'pgseek.documents_pkey'::regclass"
        )
        connection.execute(
            "INSERT INTO pgseek.documents (collection_id, document_id, external_id, body, language, content_hash)"
            " VALUES (4, pgseek.document_id('new'), 'new', 'x', 'english', pgseek.content_hash('', 'x', 'english'))"
        )
        connection.execute(
            "UPDATE pg_index SET indisready = true, indisvalid = true WHERE indexrelid = 'pgseek.documents_pkey'::regclass"
        )
    found = examine(filled)
    (finding,) = [f for f in found.findings if f.key == "pages"]
    assert "documents_pkey" in finding.what
    assert "REINDEX INDEX pgseek.documents_pkey" in finding.mend


def test_writers_at_work_make_no_false_alarm(filled):
    stop = threading.Event()
    errors = []

    def write(version):
        try:
            with Client(filled) as client:
                docs = client.collection("docs", embedder=CountingEmbedder())
                number = 0
                while not stop.is_set():
                    number += 1
                    docs.ingest(
                        [{"id": f"n{n}", "text": f"{version} {number} {n}"} for n in range(100)],
                        batch_size=20,
                    )
                    docs.delete([f"n{n}" for n in range(50)])
                    rows(filled, "SELECT pgseek.put_document('docs', 'n60', %s)", [f"{version} {number}"])
                    name = f"temporary{version}"
                    client.create_collection(name, embedder=CountingEmbedder()).ingest(CORPUS)
                    client.drop_collection(name)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(version,)) for version in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            assert findings(filled) == []
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_names_that_are_not_there_and_a_database_without_a_schema(filled, empty_dsn):
    with pytest.raises(CollectionNotFound, match="no collection 'dosc'; there are: docs, empty, rich"):
        examine(filled, ["docs", "dosc"])
    with pytest.raises(SchemaNotMigrated):
        examine(empty_dsn)


WHITE = st.text(" \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u202f\u205f\u3000\u200b\ufeff", max_size=4)
WORDS = st.text(max_size=40).filter(lambda text: "\x00" not in text and text.isprintable())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(WHITE, WORDS), min_size=1, max_size=30), st.integers(1, 60), st.booleans())
def test_whatever_is_ingested_is_whole(dsn, parts, size, overlap):
    text = "".join(white + word for white, word in parts)
    with Client(dsn) as client:
        docs = client.create_collection(
            "any", embedder=CountingEmbedder(), chunk_size=size, chunk_overlap=size // 2 if overlap else 0
        )
        try:
            docs.ingest([{"id": "1", "text": text, "title": parts[0][1]}])
            found = examine(dsn)
            assert found.ok, (found.findings, text)
        finally:
            client.drop_collection("any")


@pytest.fixture
def pgseek(tmp_path, commands):
    def run(dsn, *arguments):
        made = commands.run("--dsn", dsn, *arguments, cwd=tmp_path)
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


def test_the_command(filled, pgseek):
    code, out, err = pgseek(filled, "doctor", "--deep")
    assert (code, err) == (0, "")
    assert "ok    collection docs  1,045 documents" in out
    assert "           0  chunks without their document\n" in out
    assert "FAIL" not in out

    harm(filled, f"DELETE FROM pgseek.embeddings_1 WHERE document_id = {SHORT}")
    harm(filled, "INSERT INTO pgseek.term_statistics VALUES (99, 'word', 2)")
    code, out, _ = pgseek(filled, "doctor", "--deep")
    assert code == 1
    assert "FAIL  collection docs" in out
    assert "ok    collection small" in out
    assert (
        "FAIL  docs: 1 chunks without an embedding, whose document is not in the queue (n9 #0);"
        " pgseek doctor --deep --repair docs, then pgseek queue drain docs\n" in out
    )
    code, out, _ = pgseek(filled, "doctor", "--deep", "--json", "docs", "small")
    assert code == 1
    found = json.loads(out)["examination"]
    assert [c["name"] for c in found["collections"]] == ["docs", "small"]
    assert found["collections"][0]["broken"]["missing"] == 1
    assert pgseek(filled, "doctor", "--deep", "small")[0] == 0

    code, out, _ = pgseek(filled, "doctor", "--deep", "--repair")
    assert (
        "repaired: 1 rows deleted, 0 chunks corrected, 1 documents put in the queue\nnow run: pgseek queue drain docs\n"
        in out
    )
    # What the queue holds is being seen to.
    assert code == 0
    assert pgseek(filled, "doctor", "--deep", "nonsense")[0] == 3
    assert pgseek(filled, "doctor", "--repair")[::2] == (2, "error: --repair needs --deep\n")
    code, out, _ = pgseek("host=127.0.0.1 port=9 dbname=x", "doctor", "--deep")
    assert code == 1
    assert "FAIL  server" in out
