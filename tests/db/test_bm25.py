"""BM25: exact against an independent computation and bm25s, under writes, filters, and a short budget."""

from __future__ import annotations

import itertools
import os
import random
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo
from support import CountingEmbedder, create_database, drop_database, rows
from test_search import bm25

from pgseek import Client
from pgseek.db.connection import connect
from pgseek.evaluation import read_beir

WORDS = [f"w{n}" for n in range(40)]
QUIET = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


ASKED = (
    "WITH asked AS MATERIALIZED (SELECT t.* FROM pgseek.bm25_bag('{simple}', %(q)s) w,"
    " pgseek.bm25_terms(%(id)s, w.lexemes, w.frequencies) t)"
)


def candidates(connection, query, n, collection=1, **options):
    """Rows of bm25_candidates for a text, best first."""
    extra = "".join(f", {name} => %({name})s" for name in options)
    return connection.execute(
        f"{ASKED} SELECT c.* FROM asked t, pgseek.bm25_candidates("
        f"%(id)s, t.dimensions, t.weights, t.counts, %(n)s::int{extra}) c",
        {"q": query, "id": collection, "n": n, **options},
    ).fetchall()


def every_chunk_scored(connection, query, n, collection=1):
    """The same by scoring all chunks with the statistics in force."""
    # (The query is put together once, not for each chunk.)
    return connection.execute(
        f"{ASKED}, query AS MATERIALIZED (SELECT pgseek.bm25_query(dimensions, weights) AS terms FROM asked),"
        " scored AS MATERIALIZED (SELECT c.document_id, c.ordinal, -(c.terms <#> query.terms) AS score"
        " FROM pgseek.chunks c, query WHERE c.collection_id = %(id)s)"
        " SELECT * FROM scored WHERE score > 0 ORDER BY score DESC, document_id, ordinal LIMIT %(n)s",
        {"q": query, "id": collection, "n": n},
    ).fetchall()


@QUIET
@given(data=st.data())
def test_random_corpora_under_inserts_updates_and_deletes(client, data):
    """After writes and a refresh with reweighing, scores are those of BM25 computed from the texts."""
    texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
    if "p" in {info.name for info in client.list_collections()}:
        client.drop_collection("p")
    docs = client.create_collection("p", embedder=CountingEmbedder(), language="simple")
    stored = {str(n): text for n, text in enumerate(data.draw(st.lists(texts, min_size=1, max_size=25)))}
    docs.ingest([{"id": n, "text": text} for n, text in stored.items()])
    for n in data.draw(st.sets(st.sampled_from(sorted(stored)), max_size=len(stored) - 1)):
        if data.draw(st.booleans()):
            docs.delete(n)
            del stored[n]
        else:
            stored[n] = data.draw(texts)
            docs.ingest([{"id": n, "text": stored[n]}])
    docs.refresh_statistics(reweigh=True)
    query = data.draw(texts)
    expected = bm25({n: (text, None) for n, text in stored.items()}, query.split())
    hits = docs.search(query, alpha=0, lexical="bm25", k=50, snippets=False)
    assert {h.id for h in hits} == set(expected)
    for hit in hits:
        assert hit.lexical_score == pytest.approx(expected[hit.id], rel=1e-5)
    keys = [(-h.lexical_score, h.document_id) for h in hits]
    assert keys == sorted(keys)


def corpus(rng, count):
    weights = [1 / (n + 1) for n in range(3000)]
    vocabulary = [f"t{n}" for n in range(3000)]
    return [" ".join(rng.choices(vocabulary, weights, k=rng.randint(3, 40))) for _ in range(count)]


_copies = itertools.count(1)


@pytest.fixture(scope="module")
def ingested(server_dsn, template):
    """The name of a database with a collection of 6,000 documents, and the texts of these."""
    texts = corpus(random.Random(11), 6000)
    name = f"pgseek_bm25_{os.getpid()}"
    create_database(server_dsn, name, template)
    with Client(make_conninfo(server_dsn, dbname=name)) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder(), language="simple")
        docs.ingest([{"id": str(n), "text": t, "metadata": {"n": n % 40}} for n, t in enumerate(texts)])
    yield name, texts
    drop_database(server_dsn, name)


@pytest.fixture
def filled(server_dsn, ingested):
    """A copy of it: its DSN, the collection, a source of random numbers, and the texts."""
    source, texts = ingested
    name = f"{source}_{next(_copies)}"
    create_database(server_dsn, name, source)
    dsn = make_conninfo(server_dsn, dbname=name)
    with Client(dsn) as client:
        yield dsn, client.collection("docs", embedder=CountingEmbedder()), random.Random(12), texts
    drop_database(server_dsn, name)


def queries(rng):
    words = [f"t{n}" for n in range(3000)]
    made = [" ".join(rng.choices(words[:30], k=rng.randint(1, 4))) for _ in range(12)]
    made += [" ".join(rng.choices(words, k=rng.randint(1, 10))) for _ in range(25)]
    made += [" ".join(rng.sample(words[:400], k=k)) for k in (20, 40, 70)]
    return [*made, "t0", "t1 t1 t1", "t2999", "fresh", "fresh t0", "absent"]


def assert_exact(dsn, rng, where=""):
    with connect(dsn) as connection:
        for query in queries(rng):
            for n in (1, 10, 100):
                found = candidates(connection, query, n, budget=1e6)
                assert all(row.pop("exact") for row in found), (query, n)
                assert found == every_chunk_scored(connection, query, n), (where, query, n)


def test_candidates_are_exact_for_the_statistics_in_force_whatever_was_written(filled):
    dsn, docs, rng, texts = filled
    assert_exact(dsn, rng, "fresh")
    # Impacts no statistics know, a word they do not know, other lengths, and no refresh.
    rows(dsn, "UPDATE pgseek.collection_statistics SET chunks = chunks + 1")
    new = [" ".join(["t5"] * rng.choice([1, 3, 60])) for _ in range(150)]
    new += ["fresh " + text for text in corpus(rng, 150)]
    docs.ingest([{"id": f"new {n}", "text": text} for n, text in enumerate(new)])
    docs.delete([str(n) for n in range(0, 6000, 20)])
    docs.ingest([{"id": str(n), "text": texts[n] + " t7" * 30} for n in range(1, 6000, 40)])
    assert_exact(dsn, rng, "after writes")
    docs.refresh_statistics()
    assert_exact(dsn, rng, "after refresh")
    docs.refresh_statistics(reweigh=True)
    assert_exact(dsn, rng, "weighed anew")


@pytest.fixture(scope="module")
def skewed(module_dsn):
    """40,000 chunks written by SQL: a few words in most of them, frequencies up to 30, lengths from 2 to 200."""
    rng = np.random.default_rng(5)
    with Client(module_dsn) as client:
        client.create_collection("small", embedder=CountingEmbedder(), language="simple").ingest(
            [{"id": "t0", "text": "t0 t1 t2 t3"}]
        )
        client.create_collection("docs", embedder=CountingEmbedder(), language="simple", title_weight=1.0)
    with connect(module_dsn) as connection, connection.cursor() as cursor:
        connection.execute("CREATE TABLE raw (n int, text text)")
        with cursor.copy("COPY raw FROM STDIN") as copy:
            for n, length in enumerate(
                rng.choice([2, 5, 10, 20, 200], size=40_000, p=[0.2, 0.4, 0.25, 0.13, 0.02])
            ):
                words = [f"t{min(w, 20_000)}" for w in rng.zipf(1.25, size=length)]
                copy.write_row((n, " ".join(words + [words[0]] * int(rng.choice([0, 0, 0, 1, 30])))))
        connection.execute(
            "INSERT INTO pgseek.documents (collection_id, document_id, external_id, body, language, content_hash, metadata)"
            " SELECT 2, pgseek.document_id(n::text), n::text, text, 'simple', 'x',"
            " jsonb_build_object('n', n % 5) FROM raw"
        )
        # Else the foreign key of each chunk is checked by a plan for a collection of no rows, which reads them all.
        connection.execute("ANALYZE pgseek.documents")
        connection.execute(
            "INSERT INTO pgseek.chunks (collection_id, document_id, ordinal, title, text, language, char_start, char_end,"
            " text_hash, lexemes, terms) SELECT 2, document_id, 0, '', body, 'simple', 0, 1, 'x', a.lexemes, a.terms"
            " FROM pgseek.documents d JOIN pgseek.collection_statistics s USING (collection_id),"
            " pgseek.analyze('simple', '', body, s.weighting) a WHERE d.collection_id = 2"
        )
        connection.execute("SELECT pgseek.reweigh('docs')")
        connection.execute("ANALYZE")
    return module_dsn


@pytest.mark.parametrize("n", [1, 10, 100, 1000])
def test_frequent_words_lead_to_the_exact_best_rows(skewed, n):
    rng = random.Random(n)
    frequent = [f"t{w}" for w in range(1, 60)]
    any_word = [f"t{w}" for w in range(1, 5000)]
    asked = ["t1", "t2", "t1 t2", "t1 t1 t2", " ".join(frequent[:12]), " ".join(frequent)]
    asked += [" ".join(rng.sample(frequent, k=rng.randint(2, 5))) for _ in range(15)]
    asked += [" ".join(rng.sample(any_word, k=rng.randint(2, 12))) for _ in range(10)]
    with connect(skewed) as connection:
        for query in asked:
            found = candidates(connection, query, n, collection=2, budget=1e6)
            assert all(row.pop("exact") for row in found), query
            assert found == every_chunk_scored(connection, query, n, collection=2), query


def test_a_filter_that_keeps_most_documents_is_exact_for_frequent_words(skewed):
    with connect(skewed) as connection:
        for query in ("t1", "t3 t5", "t1 t2 t4 t8", "t9 t2000"):
            found = candidates(connection, query, 20, collection=2, budget=1e6, filter="$.n < 3")
            assert all(row.pop("exact") for row in found), query
            kept = {
                row["document_id"]
                for row in connection.execute(
                    "SELECT document_id FROM pgseek.documents WHERE collection_id = 2 AND metadata @@ '$.n < 3'"
                )
            }
            every = every_chunk_scored(connection, query, 50_000, collection=2)
            assert found == [row for row in every if row["document_id"] in kept][:20], query


def test_a_spent_budget_still_answers_with_right_scores(skewed):
    with connect(skewed) as connection:
        for query in ("t1 t2 t3 t4", "t1", " ".join(f"t{n}" for n in range(1, 300))):
            found = candidates(connection, query, 10, collection=2, budget=0.01)
            assert found, query
            every = {
                row["document_id"]: row["score"] for row in every_chunk_scored(connection, query, 50_000, 2)
            }
            for row in found:
                assert row["score"] == every[row["document_id"]]
        assert not all(row["exact"] for row in candidates(connection, "t1 t2 t3 t4", 10, 2, budget=0.01))


def test_a_collection_reads_nothing_of_another(skewed):
    with connect(skewed) as connection:
        assert len(candidates(connection, "t0 t1 t2", 10, collection=1)) == 1
        plan = connection.execute(
            "EXPLAIN (ANALYZE, COSTS OFF) SELECT FROM pgseek.chunks WHERE collection_id IS NOT DISTINCT FROM 1"
            " AND pgseek.bm25_codes(collection_id, terms) && ARRAY[pgseek.bm25_code(1, pgseek.dimension('t1'))]"
        ).fetchall()
    text = "\n".join(line["QUERY PLAN"] for line in plan)
    assert "chunks_codes_idx" in text
    assert "rows=1.00 " in text or "rows=1 " in text, text


def test_a_read_only_transaction_ranks_too(filled):
    dsn, *_ = filled
    with connect(dsn) as connection:
        connection.execute("SET default_transaction_read_only = on")
        assert candidates(connection, "t1 t50", 10)
        assert connection.execute("SELECT * FROM pgseek.search('docs', 't1 t50')").fetchall()


@pytest.mark.parametrize("condition", ["$.n == 3", "$.n < 30"])
def test_a_filter_changes_the_rows_not_the_scores(filled, condition):
    _, docs, rng, _ = filled
    for query in queries(rng)[:20]:
        everything = docs.search(query, alpha=0, k=6000, snippets=False)
        expected = [h for h in everything if eval(condition.replace("$.n", str(h.metadata["n"])))][:10]
        found = docs.search(query, alpha=0, k=10, filter=condition, snippets=False)
        assert [(h.id, h.lexical_score) for h in found] == [(h.id, h.lexical_score) for h in expected]


def test_statistics_of_a_tenth_still_give_nearly_the_same_ranking(client, dsn):
    """N and df as they were before the collection grew tenfold, for words that were not rare then."""
    rng = random.Random(12)
    texts = [{"id": str(n), "text": text} for n, text in enumerate(corpus(rng, 8000))]
    docs = client.create_collection("docs", embedder=CountingEmbedder(), language="simple")
    docs.ingest(texts[:800])
    for table in ("term_statistics", "collection_statistics"):
        rows(dsn, f"CREATE TABLE public.{table} AS SELECT * FROM pgseek.{table}")
    docs.ingest(texts[800:])
    docs.refresh_statistics()
    asked = [" ".join(f"t{rng.randrange(200)}" for _ in range(rng.randint(1, 8))) for _ in range(60)]
    with connect(dsn) as connection:
        connection.execute("DELETE FROM pgseek.rare_lexemes")
        fresh = [{row["document_id"] for row in candidates(connection, query, 10)} for query in asked]
        connection.execute("DELETE FROM pgseek.term_statistics")
        connection.execute("INSERT INTO pgseek.term_statistics SELECT * FROM public.term_statistics")
        connection.execute(
            "UPDATE pgseek.collection_statistics s SET chunks = old.chunks FROM public.collection_statistics old"
        )
        stale = [{row["document_id"] for row in candidates(connection, query, 10)} for query in asked]
    # Of 800 texts even a frequent word's df is known to some ten per cent only: more would ask for luck.
    shared = [len(a & b) / len(a) for a, b in zip(fresh, stale, strict=True) if a]
    assert np.mean(shared) >= 0.9


def test_a_budget_that_ran_out_is_said_in_every_hit(filled):
    dsn, *_ = filled
    long_query = " ".join(f"t{n}" for n in range(60))
    with connect(dsn) as connection:
        found = connection.execute(
            "SELECT * FROM pgseek.search('docs', %s, k => 10, candidates => 10, budget => 0.01)", [long_query]
        ).fetchall()
    assert found
    assert all("lexical leg approximate: its budget of 0.01 ms ran out" in row["degraded"] for row in found)


def test_no_document_contains_a_mark(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), language="simple")
    docs.ingest(
        [{"id": "1", "text": "json " * 50 + "json§a json_a 'json a' ' c1'"}, {"id": "2", "text": "a c1"}]
    )
    assert [h.id for h in docs.search("json", alpha=0)] == ["1"]
    assert {h.id for h in docs.search("c1", alpha=0)} == {"1", "2"}


def test_an_exotic_lexeme_and_a_chunk_of_many_words(client, dsn):
    docs = client.create_collection(
        "docs", embedder=CountingEmbedder(), language="simple", chunk_size=100_000
    )
    long = "x" * 2045
    many = " ".join(f"u{n}" for n in range(14_000))
    report = docs.ingest([{"id": "long", "text": f"{long} it's\\odd"}, {"id": "many", "text": many}])
    assert report.new == 2
    assert [h.id for h in docs.search(long, alpha=0)] == ["long"]
    assert [h.id for h in docs.search("it's\\odd", alpha=0)] == ["long"]
    assert [h.id for h in docs.search("u77 u13999", alpha=0)] == ["many"]


def test_writers_and_refreshes_at_once_leave_consistent_statistics(dsn, client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), language="simple")
    rng = random.Random(3)
    docs.ingest([{"id": f"first {n}", "text": t} for n, t in enumerate(corpus(rng, 600))])
    errors = []

    def work(action):
        try:
            with Client(dsn) as own:
                collection = own.collection("docs", embedder=CountingEmbedder())
                for n in range(6):
                    action(collection, n)
        except Exception as error:
            errors.append(error)

    def write(name):
        texts = corpus(random.Random(name), 300)
        return lambda c, n: c.ingest(
            [{"id": f"{name} {i}", "text": texts[i]} for i in range(n * 50, (n + 1) * 50)],
            batch_size=25,
        )

    actions = [write("a"), write("b"), lambda c, n: c.refresh_statistics(reweigh=n % 2 == 0)]
    threads = [threading.Thread(target=work, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    docs.refresh_statistics(reweigh=True)
    (state,) = rows(
        dsn,
        "SELECT s.chunks, (SELECT count(*) FROM pgseek.chunks) AS counted,"
        " (SELECT count(*) FROM pgseek.chunks c WHERE c.terms = pgseek.weigh(c.lexemes, s.weighting)) AS weighed"
        " FROM pgseek.collection_statistics s",
    )
    assert state == {"chunks": 1200, "counted": 1200, "weighed": 1200}
    assert_exact(dsn, rng, "in the end")


def assert_equal_to_bm25s(dsn, language, queries):
    """Compare the top 10 and 100 of every query with bm25s over the lexemes that are stored now."""
    import bm25s

    stored = rows(
        dsn,
        "SELECT d.external_id, array(SELECT repeat(l.lexeme || E'\\n', cardinality(l.positions))"
        " FROM unnest(c.lexemes) AS l WHERE l.positions IS NOT NULL) AS words"
        " FROM pgseek.chunks c JOIN pgseek.documents d USING (collection_id, document_id)",
    )
    vocabulary = {}
    bags = [
        [vocabulary.setdefault(w, len(vocabulary)) for part in row["words"] for w in part.split("\n") if w]
        for row in stored
    ]
    reference = bm25s.BM25(method="lucene", k1=1.2, b=0.75, dtype="float64")
    reference.index((bags, vocabulary), show_progress=False)
    place = {row["external_id"]: n for n, row in enumerate(stored)}
    with connect(dsn) as connection:
        for query in queries:
            bag = connection.execute(
                "SELECT * FROM pgseek.bm25_bag(ARRAY[%s], %s)", [language, query]
            ).fetchone()
            tokens = [
                vocabulary[lexeme]
                for lexeme, times in zip(bag["lexemes"], bag["frequencies"], strict=True)
                for _ in range(int(times))
                if lexeme in vocabulary
            ]
            scores = reference.get_scores_from_ids(tokens) if tokens else np.zeros(len(bags))
            for n in (10, 100):
                found = connection.execute(
                    "SELECT d.external_id, c.score, c.exact FROM pgseek.bm25_terms(1, %s, %s) t,"
                    " pgseek.bm25_candidates(1, t.dimensions, t.weights, t.counts, %s::int, budget => 1e6) c"
                    " JOIN pgseek.documents d ON d.document_id = c.document_id"
                    " ORDER BY c.score DESC, c.document_id",
                    [bag["lexemes"], bag["frequencies"], n],
                ).fetchall()
                best = np.sort(scores[scores > 0])[::-1][:n]
                np.testing.assert_allclose([row["score"] for row in found], best, rtol=2e-5)
                np.testing.assert_allclose(
                    [scores[place[row["external_id"]]] for row in found], best, rtol=2e-5
                )
                assert all(row["exact"] for row in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "language"), [("scifact", "english"), ("gitbugs-hadoop", "english"), ("xquad-r/de", "german")]
)
def test_top_10_and_100_equal_bm25s_for_every_query(client, dsn, shared_data, folder, language):
    if shared_data is None:
        pytest.skip("the judged collections lie beside the checkout, and are not there")
    beir = read_beir(shared_data / folder)
    queries = list(beir.queries.values())
    assert len(queries) > 100
    docs = client.create_collection(
        "docs", embedder=CountingEmbedder(), language=language, chunk_size=100_000, title_weight=1.0
    )
    documents = list(beir.documents())
    # First all but an eighth; then these, changes and deletions on top.
    docs.ingest(document for n, document in enumerate(documents) if n % 8)
    docs.refresh_statistics(reweigh=True)
    assert_equal_to_bm25s(dsn, language, queries)
    docs.ingest(document for n, document in enumerate(documents) if n % 8 == 0)
    docs.ingest(
        replace(document, text=f"{document.text} {documents[n - 1].text[:500]}")
        for n, document in enumerate(documents)
        if n % 5 == 1
    )
    docs.delete([document.id for n, document in enumerate(documents) if n % 7 == 2])
    docs.refresh_statistics(reweigh=True)
    assert_equal_to_bm25s(dsn, language, queries)
