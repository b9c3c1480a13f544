"""Search: the legs, their fusion against an independent computation, and the mistakes peers make."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import threading
from collections import Counter
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from support import CORPUS, CountingEmbedder, rows

from pgseek import AsyncClient, Client, EmbedderError, InvalidInput, Match
from pgseek.db.connection import connect

QUERIES = [
    ("how do I cache the results of a function", {}),
    ("functools.lru_cache", {"k": 2}),
    ("ENOENT", {"fusion": "rrf"}),
    ("suppress exceptions", {"alpha": 0.7}),
    ("join paths", {"alpha": 0}),
    ("merge sorted lists", {"alpha": 1}),
    ("function", {"filter": {"module": "functools"}, "lexical": "ts_rank"}),
]


@pytest.fixture
def docs(client):
    made = client.create_collection("docs")
    made.ingest(CORPUS)
    return made


@pytest.mark.parametrize(("query", "options"), QUERIES)
def test_four_ways_of_the_same_search_give_the_same_hits(dsn, docs, commands, query, options):
    from_python = docs.search(query, **options)
    assert from_python

    async def search_async():
        async with AsyncClient(dsn) as client:
            return await (await client.collection("docs")).search(query, **options)

    assert asyncio.run(search_async()) == from_python

    flags = []
    for name, value in options.items():
        if name == "filter":
            flags += ["--filter", json.dumps(value)]
        else:
            flags += ["-k" if name == "k" else f"--{name}", str(value)]
    printed = commands.run("--dsn", dsn, "search", "docs", query, "--json", *flags).stdout
    from_cli = [
        {
            **hit,
            "document_id": UUID(hit["document_id"]),
            "matched": tuple(Match(**one) for one in hit["matched"]),
            "duplicates": tuple(hit["duplicates"]),
            "other_passages": tuple(hit["other_passages"]),
        }
        for hit in json.loads(printed)
    ]
    assert from_cli == [
        {name: getattr(hit, name) for name in hit.__dataclass_fields__} for hit in from_python
    ]

    arguments = dict(options)
    if "filter" in arguments:
        arguments["filter"] = '$.module == "functools"'
    named = "".join(f", {name} => %({name})s" + ("::jsonpath" * (name == "filter")) for name in arguments)
    # The embedding comes from the cache, where the Python search put it.
    from_sql = rows(
        dsn, f"SELECT * FROM pgseek.search('docs', %(query)s{named})", {"query": query, **arguments}
    )
    expected = [
        {
            "external_id" if n == "id" else n: getattr(hit, n)
            for n in hit.__dataclass_fields__
            # A reranker's, which SQL has none of.
            if n not in {"rerank_score", "fused_rank"}
        }
        for hit in from_python
    ]
    for row in from_sql:
        row["matched"] = tuple(Match(**one) for one in row["matched"])
        row["duplicates"] = tuple(row["duplicates"])
        row["other_passages"] = tuple(row["other_passages"])
    assert from_sql == expected
    assert [row["rank"] for row in from_sql] == list(range(1, len(from_sql) + 1))


def test_a_vector_given_to_sql_ranks_as_the_clients_do(dsn, docs):
    query = "how do I cache the results of a function"
    hits = docs.search(query)
    cached = rows(dsn, "SELECT embedding::text AS v FROM pgseek.embedding_cache WHERE input_type = 'query'")[
        0
    ]["v"]
    rows(dsn, "DELETE FROM pgseek.embedding_cache")
    given = rows(
        dsn,
        "SELECT * FROM pgseek.search('docs', %s, query_embedding => %s::vector, model => 'wordllama:l2_supercat')",
        [query, cached],
    )
    assert [(r["external_id"], r["score"]) for r in given] == [(h.id, h.score) for h in hits]
    assert {r["degraded"] for r in given} == {None}


def test_sql_without_any_embedding_ranks_lexically_and_says_so(dsn, docs):
    found = rows(dsn, "SELECT * FROM pgseek.search('docs', 'cache a function')")
    assert found
    assert found[0]["external_id"] == "lru_cache"
    assert all("no query_embedding was given" in row["degraded"] for row in found)
    assert all(row["dense_rank"] is None and row["score"] <= 1 for row in found)
    assert found[0]["score"] == 1.0


def test_python_brings_the_query_embedding_itself(docs):
    embedded = docs.search("cache a function")
    vector = rows_vector(docs, "cache a function")
    assert (
        docs.search("cache a function", model=str(docs.info().identity), query_embedding=vector) == embedded
    )


def rows_vector(docs, query):
    return docs._own_embedder().embed_query(query)


# Fusion against an independent computation.

VECTORS = st.lists(st.integers(-3, 3), min_size=3, max_size=3).filter(any)
WORDS = st.lists(st.sampled_from(["ash", "birch", "cedar", "dogwood", "elm"]), min_size=1, max_size=6)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    documents=st.lists(st.tuples(WORDS, VECTORS), min_size=1, max_size=12),
    query=WORDS,
    vector=VECTORS,
    alpha=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]),
    candidates=st.integers(1, 4),
    k=st.integers(1, 12),
    lexical_leg=st.sampled_from(["bm25", "ts_rank_cd"]),
    normalization=st.sampled_from(["max", "minmax"]),
)
def test_weighted_fusion_equals_an_independent_computation(
    client, documents, query, vector, alpha, candidates, k, lexical_leg, normalization
):
    collection, texts = _collection(client, documents)
    if normalization == "minmax":
        # The lowest score is that of the candidates: with all of them it is known.
        candidates = 12
    hits = collection.search(
        " ".join(query),
        model=str(collection.info().identity),
        query_embedding=vector,
        alpha=alpha,
        candidates=candidates,
        k=k,
        snippets=False,
        lexical=lexical_leg,
        normalization=normalization,
    )
    dense, lexical = _legs(client, collection, texts, query, vector)
    if lexical_leg == "bm25":
        lexical = bm25(texts, query)
    depth = max(candidates, k)
    ids = {h.id: h.document_id for h in hits}
    if normalization == "minmax" and 0 < alpha < 1 and lexical:
        low, high = min(dense.values()), max(dense.values())
        dense = {n: (d - low) / (high - low) if high - low > 1e-6 else 1.0 for n, d in dense.items()}
    expected = weighted(dense if alpha > 0 else {}, lexical if alpha < 1 else {}, alpha, depth)
    compare(hits, expected, k, ids)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    documents=st.lists(st.tuples(WORDS, VECTORS), min_size=1, max_size=10),
    query=WORDS,
    vector=VECTORS,
    rrf_k=st.sampled_from([1, 60]),
)
def test_rrf_equals_an_independent_computation(client, documents, query, vector, rrf_k):
    collection, texts = _collection(client, documents)
    hits = collection.search(
        " ".join(query),
        model=str(collection.info().identity),
        query_embedding=vector,
        fusion="rrf",
        rrf_k=rrf_k,
        k=20,
        snippets=False,
    )
    for hit in hits:
        expected = sum(1 / (rrf_k + rank) for rank in (hit.dense_rank, hit.lexical_rank) if rank is not None)
        assert hit.score == pytest.approx(expected, rel=1e-12)
        assert hit.score > 0
    dense, lexical = _legs(client, collection, texts, query, vector)
    by_dense = [h for h in sorted(hits, key=lambda h: h.dense_rank or 99) if h.dense_rank]
    assert len(by_dense) == len(dense)
    assert all(dense[a.id] >= dense[b.id] - 1e-6 for a, b in itertools.pairwise(by_dense))
    assert {h.id for h in hits if h.lexical_rank} == set(lexical)


def _collection(client, documents):
    texts = {str(n): " ".join(words) for n, (words, _) in enumerate(documents)}
    given_vectors = {texts[str(n)]: vector for n, (_, vector) in enumerate(documents)}
    embedder = CountingEmbedder(3, given=given_vectors)
    if "p" in {info.name for info in client.list_collections()}:
        client.drop_collection("p")
    rows(client._dsn.get_secret_value(), "DELETE FROM pgseek.embedding_cache")
    collection = client.create_collection("p", embedder=embedder, language="simple")
    collection.ingest([{"id": n, "text": text} for n, text in texts.items()])
    # Equal texts share the vector of the last one; look vectors up by text.
    return collection, {n: (text, given_vectors[text]) for n, text in texts.items()}


def _legs(client, collection, texts, query, vector):
    q = np.array(vector, dtype=float)
    dense = {n: float(np.dot(v, q) / (np.linalg.norm(v) * np.linalg.norm(q))) for n, (_, v) in texts.items()}
    tsquery = " | ".join(sorted(set(query)))
    ranked = rows(
        client._dsn.get_secret_value(),
        "SELECT n, ts_rank_cd(setweight(to_tsvector('simple', t), 'B'), %s::tsquery) AS score"
        " FROM unnest(%s::text[], %s::text[]) AS s (n, t) WHERE to_tsvector('simple', t) @@ %s::tsquery",
        [tsquery, list(texts), [text for text, _ in texts.values()], tsquery],
    )
    return dense, {row["n"]: row["score"] for row in ranked}


def bm25(texts, query, k1=1.2, b=0.75):
    """BM25 as Robertson and Zaragoza (2009) give it, with Lucene's idf and without its factor k1 + 1."""
    bags = {n: Counter(text.split()) for n, (text, _) in texts.items()}
    average = sum(bag.total() for bag in bags.values()) / len(bags)
    scores = Counter()
    for word, times in Counter(query).items():
        df = sum(word in bag for bag in bags.values())
        idf = math.log(1 + (len(bags) - df + 0.5) / (df + 0.5))
        for n, bag in bags.items():
            if word in bag:
                scores[n] += times * idf * bag[word] / (bag[word] + k1 * (1 - b + b * bag.total() / average))
    return dict(scores)


def weighted(dense, lexical, alpha, depth):
    """The fusion in plain Python, as a set of possible outcomes would allow ties in the legs."""
    if not lexical:
        alpha = 1
    elif not dense:
        alpha = 0
    dense_top = sorted(dense.values(), reverse=True)[:depth]
    lexical_top = sorted(lexical.values(), reverse=True)[:depth]
    scores = {}
    for n in dense.keys() | lexical.keys():
        d = dense.get(n, 0.0) / (abs(dense_top[0]) or 1) if dense_top else 0.0
        word = lexical.get(n, 0.0) / (lexical_top[0] or 1) if lexical_top else 0.0
        surely = (n in dense and dense_top and dense[n] > dense_top[-1] + 1e-9) or (
            n in lexical and lexical_top and lexical[n] > lexical_top[-1] + 1e-9
        )
        scores[n] = (alpha * d + (1 - alpha) * word, surely)
    return scores


def compare(hits, expected, k, ids):
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.id][0], abs=2e-6)
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    missing = [n for n, (_, surely) in expected.items() if surely and n not in ids]
    floor = hits[-1].score if len(hits) == k else -2.0
    assert all(expected[n][0] <= floor + 2e-6 for n in missing)
    keys = [(-h.score, h.document_id, h.ordinal) for h in hits]
    assert keys == sorted(keys)


def test_one_hit_and_equal_scores_keep_their_score(client):
    collection = client.create_collection("same", embedder=CountingEmbedder())
    collection.ingest([{"id": "only", "text": "unique word"}])
    (hit,) = collection.search("unique word", model=str(collection.info().identity), query_embedding=[1] * 8)
    assert hit.score > 0
    collection.ingest([{"id": str(n), "text": "twin text"} for n in range(20)])
    twins = collection.search("twin", alpha=0, k=20)
    assert len(twins) == 20
    assert {h.score for h in twins} == {1.0}
    assert [h.document_id for h in twins] == sorted(h.document_id for h in twins)
    assert twins == collection.search("twin", alpha=0, k=20)


def test_fewer_hits_are_the_first_of_more(client):
    collection = client.create_collection("many", embedder=CountingEmbedder())
    collection.ingest([{"id": str(n), "text": f"row {n % 7} of {n}"} for n in range(300)])
    for options in ({}, {"fusion": "rrf"}, {"alpha": 0}, {"alpha": 1}):
        all_of_them = [hit.id for hit in collection.search("row 3", k=60, **options)]
        assert len(set(all_of_them)) == 60
        for k in (1, 7, 20):
            assert [hit.id for hit in collection.search("row 3", k=k, **options)] == all_of_them[:k]


def test_a_failing_embedder_is_an_error_not_a_silent_lexical_search(client):
    class Down(CountingEmbedder):
        def embed_query(self, text):
            raise ConnectionError("the service is down")

    client.create_collection("docs", embedder=CountingEmbedder()).ingest(CORPUS)
    docs = client.collection("docs", embedder=Down())
    with pytest.raises(EmbedderError, match="tests:hash@8 failed: the service is down"):
        docs.search("cache")
    assert docs.search("cache", alpha=0)[0].id == "lru_cache"


def test_the_better_document_has_the_higher_score_in_every_mode(docs):
    for options in ({}, {"fusion": "rrf"}, {"alpha": 0}, {"alpha": 1}):
        hits = docs.search("cache a function", **options)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert hits[0].id == "lru_cache"


def test_one_absent_word_does_not_empty_the_lexical_leg(docs):
    hits = docs.search("memoizing zyzzyva", alpha=0)
    assert [hit.id for hit in hits] == ["lru_cache"]


def test_two_queries_on_one_client_are_two_queries(docs):
    assert docs.search("cache")[0].id == "lru_cache"
    assert docs.search("ENOENT")[0].id == "errno"
    found = {}

    def ask(query):
        for _ in range(10):
            found.setdefault(query, []).append(docs.search(query)[0].id)

    threads = [threading.Thread(target=ask, args=(query,)) for query in ("memoizing", "ENOENT")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"memoizing": ["lru_cache"] * 10, "ENOENT": ["errno"] * 10}


def test_k_beyond_the_candidate_default_returns_k(client):
    collection = client.create_collection("many", embedder=CountingEmbedder(), candidates=5)
    collection.ingest([{"id": str(n), "text": f"row {n}"} for n in range(1500)])
    assert rows(client._dsn.get_secret_value(), "SELECT FROM pg_class WHERE relname ~ '^embeddings_.*hnsw$'")
    for k in (20, 100, 500, 1200):
        for options in ({"alpha": 1}, {"alpha": 0}, {}, {"fusion": "rrf"}):
            assert len(collection.search("row", k=k, snippets=False, **options)) == k


def test_a_query_without_lexemes_is_answered_by_the_dense_leg_in_full(docs):
    for query in ("the of and", "😀", "?!"):
        hits = docs.search(query)
        assert hits
        assert all("dense only: the query holds no lexeme in english" in hit.degraded for hit in hits)
        assert hits[0].score == 1.0


def test_no_lexeme_and_no_embedding_gives_no_rows_and_a_notice(dsn, docs):
    with connect(dsn) as connection:
        notices = []
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        assert connection.execute("SELECT * FROM pgseek.search('docs', 'the of')").fetchall() == []
    assert "no leg can answer" in notices[0]


def test_quotes_and_operators_in_a_query_have_no_power(docs):
    for query in ("O'Reilly", "a :b c", "x' OR '1'='1", "a & | ! <-> (", '"', "\\", "%s %(x)s", "$1", "a:*"):
        assert isinstance(docs.search(query), list)


def test_filters_take_their_values_literally(docs):
    assert [h.id for h in docs.search("join", filter={"quote": "O'Reilly; DROP TABLE x--"})] == ["path.join"]
    for value in ("x' OR '1'='1", '" || true || "', "O'Reilly", "\\", '"'):
        assert docs.search("join", filter={"quote": value}) == []
        assert docs.search("join", filter={value: 1}) == []


def test_filters_compare_by_type(client):
    collection = client.create_collection("types", embedder=CountingEmbedder())
    big = 2**62 + 1
    metadata = {
        "big": big,
        "f": 0.1,
        "d": "2024-02-29",
        "n": None,
        "a": [1, 2],
        "o": {"p": {"q": "x"}},
        "t": True,
    }
    collection.ingest([{"id": "1", "text": "word", "metadata": metadata}])

    def found(condition):
        return len(collection.search("word", filter=condition))

    for hit in (
        {"big": big},
        {"f": 0.1},
        {"d": {"$gte": "2024-02-28", "$lt": "2024-03-01"}},
        {"n": None},
        {"a": 2},
        {"o.p.q": "x"},
        {"t": True},
        {"big": {"$in": [1, big]}},
        {"missing": {"$exists": False}},
        "$.f > 0.09 && $.a[*] == 1",
    ):
        assert found(hit) == 1, hit
    for miss in (
        {"big": big - 1},
        {"f": 0.1000001},
        {"n": 0},
        {"a": 3},
        {"o.p": "x"},
        {"t": 1},
        {"t": "true"},
        {"f": {"$lt": 0.1}},
        {"n": {"$exists": False}},
    ):
        assert found(miss) == 0, miss


def test_a_jsonpath_that_is_not_one_is_refused(docs):
    with pytest.raises(Exception, match="jsonpath"):
        docs.search("x", filter="$.a ==")


def test_search_settings_do_not_outlive_the_search(dsn, docs):
    vector = "[" + ",".join(["1"] * 256) + "]"
    with connect(dsn) as connection, connection.transaction():
        connection.execute("SET LOCAL hnsw.ef_search = 77")
        connection.execute(
            "SELECT * FROM pgseek.search('docs', 'cache', query_embedding => %s::vector, space_id => 1)",
            [vector],
        )
        shown = connection.execute(
            "SELECT current_setting('hnsw.ef_search') AS ef, current_setting('hnsw.iterative_scan') AS scan,"
            " current_setting('hnsw.max_scan_tuples') AS tuples"
        ).fetchone()
    assert shown == {"ef": "77", "scan": "off", "tuples": "20000"}


def test_a_thousand_failing_searches_leak_no_connection(dsn):
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder())
        docs.ingest(CORPUS)
        for _ in range(1000):
            with pytest.raises(Exception, match="dimensions"):
                client._runner.run(_wrong_dimensions())
        stats = client._runner._pool.get_stats()
        assert stats["pool_size"] <= 10
        assert stats["pool_available"] == stats["pool_size"]


def _wrong_dimensions():
    from pgseek.steps import fetch

    return (
        yield from fetch(
            "SELECT * FROM pgseek.search('docs', 'x', query_embedding => '[1,2]', space_id => 1)"
        )
    )


def test_a_killed_connection_is_replaced(dsn, docs):
    assert docs.search("cache")
    rows(
        dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()",
    )
    assert docs.search("cache")[0].id == "lru_cache"


def test_collections_do_not_see_each_other(client):
    one = client.create_collection("one", embedder=CountingEmbedder())
    two = client.create_collection("two", embedder=CountingEmbedder())
    one.ingest([{"id": "1", "text": "shared word"}])
    two.ingest([{"id": "1", "text": "shared word and more"}, {"id": "2", "text": "shared"}])
    assert [h.text for h in one.search("shared")] == ["shared word"]
    assert len(two.search("shared")) == 2
    # The mark itself cannot be asked for.
    assert one.search(" c1 c1 ' c2'", alpha=0) == []


def test_filters_keep_recall(dsn):
    """Filters that keep a half, a hundredth, and two of all documents."""
    total, d = 20_000, 16
    steps = {"half": 2, "hundredth": 100, "two": 10_000}
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(total, d)).astype(np.float32)
    with Client(dsn) as client:
        embedder = CountingEmbedder(d)
        client.create_collection("f", embedder=embedder)
        with connect(dsn) as connection:
            connection.execute("SET search_path = public")
            connection.execute(
                "INSERT INTO pgseek.documents (collection_id, document_id, external_id, body, language, metadata,"
                " content_hash) SELECT 1, pgseek.document_id(n::text), n::text, 'w', 'simple',"
                " (SELECT jsonb_object_agg(s.key, n %% s.value::integer) FROM jsonb_each_text(%s) s), 'x'"
                " FROM generate_series(0, %s) n",
                [Jsonb(steps), total - 1],
            )
            connection.execute(
                "INSERT INTO pgseek.chunks (collection_id, document_id, ordinal, title, text, language, char_start,"
                " char_end, text_hash, lexemes, terms) SELECT 1, document_id, 0, '', 'w', 'simple', 0, 1, 'x', a.lexemes, a.terms"
                " FROM pgseek.documents JOIN pgseek.collection_statistics s USING (collection_id),"
                " pgseek.analyze('simple', '', 'w', s.weighting) a"
            )
            with connection.cursor().copy("COPY pgseek.embeddings_1 FROM STDIN") as copy:
                for n in range(total):
                    copy.write_row((1, document_uuid(n), 0, str(vectors[n].tolist())))
            connection.execute("CREATE INDEX ON pgseek.embeddings_1 USING hnsw (embedding vector_cosine_ops)")
            connection.execute("ANALYZE")
        collection = client.collection("f", embedder=embedder)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for name, step in steps.items():
            matching = np.arange(0, total, step)
            recalls = []
            for query in rng.normal(size=(20, d)):
                best = matching[np.argsort(-(unit[matching] @ query))[:10]]
                hits = collection.search(
                    "zzz",
                    model=str(collection.info().identity),
                    query_embedding=query,
                    alpha=1,
                    filter={name: 0},
                    snippets=False,
                )
                assert len(hits) == min(10, len(matching)), name
                recalls.append(len({h.id for h in hits} & {str(n) for n in best}) / len(best))
            assert np.mean(recalls) >= 0.98, name


def document_uuid(n):
    from pgseek.prepare import document_id

    return document_id(str(n))


@pytest.mark.parametrize("lexical", ["bm25", "ts_rank_cd"])
def test_a_title_can_weigh_more_than_the_text(client, lexical):
    collection = client.create_collection("t", embedder=CountingEmbedder(), lexical=lexical, title_weight=2.0)
    collection.ingest(
        [{"id": "body", "text": "zebra here"}, {"id": "title", "title": "zebra", "text": "here"}]
    )
    assert [hit.id for hit in collection.search("zebra", alpha=0)] == ["title", "body"]


def test_a_document_in_another_language_is_found_by_its_own_stems(client):
    collection = client.create_collection("l", embedder=CountingEmbedder(), language="english")
    collection.ingest(
        [
            {"id": "de", "text": "Die Häuser der Städte", "language": "german"},
            {"id": "en", "text": "houses of the cities"},
        ]
    )
    assert [hit.id for hit in collection.search("haus", alpha=0)] == ["de"]
    assert [hit.id for hit in collection.search("house", alpha=0)] == ["en"]


def test_hits_carry_what_the_document_says(docs):
    hit = docs.search("memoizing decorator", highlight=("[", "]"))[0]
    document = docs.get(hit.id)
    assert document.text[hit.char_start : hit.char_end] == hit.text
    assert "[memoizing]" in hit.snippet
    assert (hit.title, hit.metadata) == (document.title, document.metadata)


def test_highlight_marks_are_taken_literally(docs):
    (hit, *_) = docs.search("cache", highlight=('"<a=\\,', "%>'"))
    assert "cache%>'" in hit.snippet
    assert '"<a=\\,' in hit.snippet


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'docs', ''", "the query is empty"),
        ("'docs', E' \\n'", "the query is empty"),
        ("'docs', NULL", "the query is empty"),
        ("'docs', 'x', k => 0", "k is 0, but must be from 1 to 10000"),
        ("'docs', 'x', k => 10001", "k is 10001"),
        ("'docs', 'x', k => NULL", "k is NULL"),
        ("'docs', 'x', alpha => 1.5", "alpha is 1.5"),
        ("'docs', 'x', alpha => 'NaN'", "alpha is NaN"),
        ("'docs', 'x', alpha => -0.1", "alpha is -0.1"),
        ("'docs', 'x', fusion => 'rrf', alpha => 0.5", "which has no weights"),
        ("'docs', 'x', fusion => 'sum'", "fusion is 'sum'"),
        ("'docs', 'x', lexical => 'tfidf'", "lexical is 'tfidf'"),
        ("'docs', 'x', candidates => 0", "candidates is 0"),
        ("'docs', 'x', rrf_k => 0", "rrf_k is 0"),
        ("'docs', 'x', highlight => ARRAY['a']", 'highlight is ["a"]'),
        ("'docs', 'x', alpha => 1", "the query has no embedding"),
        ("'docs', 'x', query_embedding => '[1,2]'", "has 2 dimensions, but collection 'docs' uses wordllama"),
        ("'docs', repeat('x ', 10001)", "the query has 20002 characters"),
        ("'docs', 'x', budget => 0", "budget is 0"),
        (
            "'docs', 'x', query_embedding => array_fill(0, ARRAY[256])::vector, space_id => 1",
            "the query embedding is zero",
        ),
        (
            "'docs', 'x', space_id => 99",
            "of space 99, which is not there, but collection 'docs' now uses wordllama:l2_supercat@256 (space 1)",
        ),
        ("'dogs', 'x'", "there is no collection 'dogs'"),
        ("NULL, 'x'", "there is no collection NULL"),
    ],
)
def test_sql_callers_get_the_same_clear_errors(dsn, docs, arguments, message):
    with connect(dsn) as connection, pytest.raises(Exception) as caught:
        connection.execute(f"SELECT * FROM pgseek.search({arguments})")
    assert message in str(caught.value)


def test_wrong_dimensions_are_refused_with_both_numbers(docs):
    with pytest.raises(
        InvalidInput, match=r"3 dimensions, but collection 'docs' uses wordllama:l2_supercat with 256"
    ):
        docs.search("x", model=str(docs.info().identity), query_embedding=[1, 2, 3])
    with pytest.raises(InvalidInput, match="zero or holds NaN"):
        docs.search("x", model=str(docs.info().identity), query_embedding=[0] * 256)
    with pytest.raises(InvalidInput, match="not a vector of numbers"):
        docs.search("x", model=str(docs.info().identity), query_embedding=["a"] * 256)
