"""EXPLAIN tests: at 20,000 chunks every leg walks its index, and nothing scans a table."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta

import numpy as np
import pytest
from psycopg.sql import SQL
from support import CountingEmbedder

from pgseek import Client, F, ingest, writing
from pgseek.db.connection import connect
from pgseek.filters import to_jsonpath

ROWS = 20_000
DIMENSIONS = 64
QUERY = "word17 word4711"
RARE = "needle"


@pytest.fixture(scope="module")
def filled(module_dsn):
    """A database with 20,000 chunks in one collection, ingested as users do."""
    rng = np.random.default_rng(3)
    words = (rng.zipf(1.3, size=(ROWS, 12)) % 9000).tolist()
    with Client(module_dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder(DIMENSIONS))
        report = docs.ingest(
            {
                "id": str(n),
                "text": " ".join(f"word{w}" for w in row) + (" needle" if n % 5000 == 0 else ""),
                "metadata": {
                    "percent": n % 100,
                    "half": n % 2,
                    "name": {"last": f"name{n % 100}"},
                    "day": date(2024, 1, 1) + timedelta(days=n % 71),
                },
            }
            for n, row in enumerate(words)
        )
        assert report.new == ROWS
    with connect(module_dsn) as connection:
        # As autovacuum does within minutes: without it, the metadata's index has a list of pending entries to read
        # and the planner a sample of twenty values, and in one of five samples it scans so small a table instead.
        connection.execute("VACUUM (ANALYZE) pgseek.documents")
    return module_dsn


# How the statement begins that makes hits of a ranking.
SHOWN = "SELECT p.place::integer, d.external_id"


def every_plan(dsn, call):
    """Run ``call`` and return the plans of all its statements, and its rows."""
    seen = []
    with connect(dsn) as connection:
        connection.execute("LOAD 'auto_explain'")
        for setting in (
            "client_min_messages = log",
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_nested_statements = on",
            "auto_explain.log_analyze = on",
        ):
            connection.execute(f"SET {setting}")
        connection.add_notice_handler(lambda notice: seen.append(notice.message_primary))
        found = connection.execute(
            call, {"v": "[" + ",".join(["0.1", "-0.2"] * (DIMENSIONS // 2)) + "]"}
        ).fetchall()
    return seen, found


def plans(dsn, call):
    """Run ``call`` and return the plans of the statements that rank and show, as text."""
    seen, found = every_plan(dsn, call)
    (ranking,) = [plan for plan in seen if "FROM placed p" in plan]
    (shown,) = [plan for plan in seen if SHOWN in plan]
    # What BM25 asks GIN for, if it is the lexical leg: one statement or more, each planned once a session.
    bm25 = [plan for plan in seen if "bm25_codes" in plan and "ORDER BY score DESC" in plan]
    return "\n".join([ranking, shown, *bm25]), found


def search(options="", query=QUERY):
    return f"SELECT * FROM pgseek.search('docs', '{query}', query_embedding => %(v)s::vector, space_id => 1{options})"


def test_a_hybrid_search_uses_hnsw_gin_and_primary_keys(filled):
    plan, found = plans(filled, search())
    assert len(found) == 10
    assert "Index Scan using embeddings_1_hnsw on embeddings_1 e" in plan
    assert "Bitmap Index Scan on chunks_codes_idx" in plan
    for key in ("chunks_pkey", "embeddings_1_pkey", "documents_pkey"):
        assert f"using {key}" in plan
    assert "Seq Scan" not in plan
    # The legs hand over what was asked for, not the table.
    assert int(re.search(r"embeddings_1_hnsw .*?actual.*?rows=(\d+)", plan)[1]) == 100


@pytest.mark.parametrize(
    "options", [", alpha => 1", ", fusion => 'rrf'", ", k => 200", ", candidates => 200"]
)
def test_every_mode_with_a_dense_leg_uses_hnsw(filled, options):
    plan, _ = plans(filled, search(options))
    assert "Index Scan using embeddings_1_hnsw" in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize("options", ["", ", alpha => 1", ", alpha => 0", ", fusion => 'rrf'"])
def test_a_collapsed_search_uses_the_same_indexes(filled, options):
    seen, found = every_plan(filled, search(f", collapse => true{options}"))
    assert len({row["document_id"] for row in found}) == len(found) == 10
    ranking = "\n".join(plan for plan in seen if "placed p" in plan or SHOWN in plan)
    assert ("embeddings_1_hnsw" in ranking) == ("alpha => 0" not in options)
    assert "Seq Scan on chunks" not in ranking
    assert "Seq Scan on embeddings_1" not in ranking
    assert "Seq Scan on documents" not in ranking


@pytest.mark.parametrize("seen", [0, 500])
@pytest.mark.parametrize("strategy", ["rocchio", "best_score"])
def test_recommendations_walk_the_index_past_what_was_seen(filled, strategy, seen):
    with connect(filled) as connection:
        nearest = connection.execute(
            "SELECT array_agg(d.external_id) AS ids FROM (SELECT e.document_id FROM pgseek.embeddings_1 e ORDER BY"
            " (e.embedding <=> (SELECT x.embedding FROM pgseek.embeddings_1 x WHERE x.document_id"
            " = pgseek.document_id('17'))) + 0 LIMIT %s) AS n JOIN pgseek.documents d USING (document_id)",
            [seen],
        ).fetchall()[0]["ids"]
    options = json.dumps({"strategy": strategy, "exclude": nearest or []})
    call = f"SELECT * FROM pgseek.recommend('docs', '{{17}}', '{{4711}}', options => '{options}')"
    plans_seen, found = every_plan(filled, call)
    assert len(found) == 10
    assert not {row["external_id"] for row in found} & set(nearest or [])
    (walk,) = [plan for plan in plans_seen if "dense AS (" in plan]
    passed = int(re.search(r"Index Scan using embeddings_1_hnsw .*?actual.*?rows=(\d+)", walk)[1])
    assert 100 <= passed <= 100 + seen + 2
    # The branch that compares everything is planned, and not taken.
    assert re.search(r"Seq Scan on embeddings_1 .*never executed", walk)
    others = [
        plan for plan in plans_seen if "FROM examples" in plan or "measured AS (" in plan or SHOWN in plan
    ]
    assert len(others) == (3 if strategy == "best_score" else 2)
    assert not any("Seq Scan" in plan for plan in others)


def test_bm25_alone_uses_gin_and_leaves_the_vectors_alone(filled):
    plan, found = plans(filled, search(", alpha => 0"))
    assert len(found) == 10
    assert "Bitmap Index Scan on chunks_codes_idx" in plan
    assert "Function Scan on bm25_candidates" in plan
    assert "hnsw" not in plan
    assert "Seq Scan" not in plan


def test_bm25_scores_a_fraction_of_the_rows_that_match(filled):
    query = "word1 word2 word3 word700"
    with connect(filled) as connection:
        (matching,) = connection.execute(
            "SELECT count(*) AS n FROM pgseek.chunks WHERE tsvector_to_array(lexemes)"
            " && (pgseek.bm25_bag('{english}', %s)).lexemes",
            [query],
        ).fetchall()
    plan, found = plans(filled, search(", alpha => 0, candidates => 10", query))
    assert len(found) == 10
    assert found[0]["degraded"] is None
    fetched = [int(n) for n in re.findall(r"Bitmap Heap Scan on chunks.*?actual.*?rows=(\d+)", plan)]
    assert sum(fetched) < matching["n"] / 3


@pytest.mark.parametrize("lexical", ["ts_rank_cd", "ts_rank"])
def test_the_lexical_leg_alone_uses_gin_and_leaves_the_vectors_alone(filled, lexical):
    plan, _ = plans(filled, search(f", alpha => 0, lexical => '{lexical}'"))
    assert "Bitmap Index Scan on chunks_codes_idx" in plan
    assert "hnsw" not in plan
    assert "Seq Scan" not in plan


def test_a_rare_word_reads_its_rows_only(filled):
    plan, found = plans(filled, search(", alpha => 0", RARE))
    assert len(found) == ROWS // 5000
    rows = re.search(r"Bitmap Index Scan on chunks_codes_idx.*?actual.*?rows=(\d+)", plan)
    assert rows is not None, plan
    assert int(rows[1]) == ROWS // 5000


def test_a_prefix_is_looked_up_by_key(filled):
    seen, found = every_plan(filled, search(", alpha => 0", "need*"))
    assert len(found) == ROWS // 5000
    lookup = next(plan for plan in seen if "AS written" in plan)
    assert "term_statistics_pkey" in lookup
    assert "documents_updated_at_idx" in lookup
    assert "Seq Scan on chunks" not in lookup
    assert "Removed by Join Filter" not in lookup


def test_a_filter_that_keeps_one_percent_scans_the_few_exactly(filled):
    plan, found = plans(filled, search(", filter => '$.percent == 7'"))
    assert len(found) == 10
    assert all(row["metadata"]["percent"] == 7 for row in found)
    # Its embeddings are found by the keys of the documents.
    assert "embeddings_1_pkey" in plan
    assert "hnsw" not in plan
    assert "Seq Scan" not in plan


def test_a_filter_that_keeps_half_walks_the_graph(filled, monkeypatch):
    # Half of 20,000 is at the bound of the exact scan: two values keep more.
    plan, found = plans(filled, search(", filter => '$.half == 0 || $.percent < 90'"))
    assert len(found) == 10
    assert "Index Scan using embeddings_1_hnsw" in plan


def test_pairs_of_like_documents_are_found_by_a_walk_for_each_of_their_chunks(filled):
    seen, _ = every_plan(
        filled,
        "SELECT * FROM pgseek.similar_pairs(1, ARRAY(SELECT pgseek.document_id(n::text)"
        " FROM generate_series(1, 20) AS n), 0.95) WHERE %(v)s::vector IS NOT NULL",
    )
    walks = [plan for plan in seen if "crowded AS" in plan]
    assert walks
    for plan in walks:
        assert "Index Scan using embeddings_1_hnsw" in plan
        assert "Seq Scan on embeddings_1" not in plan
    assert re.search(r"embeddings_1_hnsw .*?loops=20\)", walks[0])
    (means,) = [plan for plan in seen if "means AS" in plan]
    assert "Seq Scan" not in means


def test_the_index_has_the_operator_class_of_the_metric(filled):
    with connect(filled) as connection:
        (index,) = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE indexname = 'embeddings_1_hnsw'"
        ).fetchall()
    assert "USING hnsw (embedding vector_cosine_ops)" in index["indexdef"]


def test_reading_and_deleting_use_the_primary_key(filled):
    with connect(filled) as connection:
        for statement in (
            "SELECT body FROM pgseek.documents WHERE collection_id = 1 AND document_id = pgseek.document_id('5')",
            "DELETE FROM pgseek.chunks WHERE collection_id = 1 AND document_id = ANY (ARRAY[pgseek.document_id('5')])",
        ):
            lines = connection.execute(f"EXPLAIN {statement}").fetchall()
            plan = "\n".join(line["QUERY PLAN"] for line in lines)
            assert "_pkey" in plan
            assert "Seq Scan" not in plan


def test_merging_a_batch_reads_no_table_whole(filled):
    """The statements of `writing` and `ingest` find their rows by key, whatever the size of the collection."""
    with connect(filled) as connection, connection.transaction():
        # A table of 20,000 rows is nearly small enough to be read for 500 of them; a disk of today decides.
        connection.execute("SET LOCAL random_page_cost = 1.1")
        connection.execute(writing._STAGE_DOCUMENTS)
        connection.execute(writing._STAGE_CHUNKS)
        connection.execute(
            "INSERT INTO pg_temp.pgseek_documents_0005 (document_id, external_id, title, body, language, format,"
            " metadata, content_hash) SELECT document_id, external_id, title, body, language, format,"
            " metadata::text, 'x' FROM pgseek.documents LIMIT 500"
        )
        connection.execute(
            "INSERT INTO pg_temp.pgseek_chunks_0005 (document_id, ordinal, kind, title, text, language, char_start,"
            " char_end, text_hash, provenance) SELECT document_id, ordinal, kind, title, text, language, char_start,"
            " char_end, text_hash, provenance::text FROM pgseek.chunks LIMIT 500"
        )
        changed = [
            row["document_id"]
            for row in connection.execute("SELECT document_id FROM pg_temp.pgseek_chunks_0005").fetchall()
        ]
        given = {"collection": 1, "changed": changed, "weighting": [1.2, 0.75, 12.0, 2.0]}
        metadata = {
            "ids": b"".join(i.bytes for i in changed),
            "hashes": b"x" * 32 * 500,
            "metadata": f"[{','.join(['{}'] * 500)}]",
            "collection": 1,
        }
        for statement, parameters in (
            (writing._LOCK_DOCUMENTS, [1, changed[:10]]),
            (writing._DELETE_CHUNKS, given),
            (writing._MOVE_CHUNKS, given),
            (writing._INSERT_CHUNKS + writing._UNLESS_KEPT, given),
            (ingest.COMPARE, metadata),
        ):
            found = connection.execute(SQL("EXPLAIN ") + statement, parameters).fetchall()
            plan = "\n".join(row["QUERY PLAN"] for row in found)
            assert not re.search(r"Seq Scan on (chunks|documents) ", plan), plan


@pytest.fixture(scope="module")
def indexed(filled):
    """The same database with indexes of metadata fields."""
    with Client(filled) as client:
        docs = client.collection("docs", embedder=CountingEmbedder(DIMENSIONS))
        docs.index_metadata("percent", "number")
        docs.index_metadata("name.last", "text")
        docs.index_metadata("day", "date")
    return filled


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        (F("percent") == 7, 200),
        (F("percent") < 2, 400),
        (F("percent").between(4, 5), 400),
        (F("percent").in_([3, 5]), 400),
        ((F("percent") == 7) & ~(F("half") == 0), 200),
        (F("name.last") == "name7", 200),
        (F("name.last").starts_with("name7"), 2200),
        (F("name.last") >= "name98", 400),
        (F("name.last").in_(["name1", "name3"]), 400),
        (F("day") > date(2024, 2, 29), 3091),
    ],
    ids=str,
)
def test_an_index_of_a_field_answers_equality_ranges_prefixes_and_lists(indexed, condition, kept):
    literal = "'" + to_jsonpath(condition).replace("'", "''").replace("%", "%%") + "'"
    seen, found = every_plan(indexed, search(f", filter => {literal}, k => 5000"))
    (plan,) = [plan for plan in seen if "AS few" in plan]
    assert "Bitmap Index Scan on documents_metadata_1_" in plan
    assert "Seq Scan" not in plan
    assert len(found) == kept
    # No document is read that the filter does not keep.
    assert "Rows Removed by Filter" not in plan


def test_equality_without_an_index_of_the_field_uses_the_one_of_all(filled):
    seen, found = every_plan(
        filled, search(", filter => '$.percent == 7 && $.other.key == \"x\"', k => 5000")
    )
    (plan,) = [plan for plan in seen if "AS few" in plan]
    assert "Bitmap Index Scan on documents_metadata_idx" in plan
    assert "Seq Scan" not in plan
    assert found == []
