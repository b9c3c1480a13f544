"""An index in memory gives what the exact search of its collection gives, to the digit."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re

import numpy as np
import pytest
from support import CORPUS, CountingEmbedder, rows

from pgseek import CallableGenerator, Client, Collection, F, InvalidInput, MemoryIndex, SpaceMismatch
from pgseek.demo.corpus import described
from pgseek.memory.index import ELSEWHERE

BUDGET = 3_600_000.0


# Real texts that every interpreter has.
MODULES = ("collections", "csv", "functools", "heapq", "itertools",
           "json", "pathlib", "random", "re", "shutil", "socket", "tempfile", "urllib.parse")  # fmt: skip
QUERIES = (
    "how do I cache the results of a function",
    "functools.lru_cache",
    "merge sorted iterables",
    "open a socket and wait for a connection with a timeout",
    "copy a file with its permissions",
    "a random sample without replacement",
    "permutations and combinatons of elements",
    "memoize methd",
)


@pytest.fixture(scope="module")
def corpus(module_dsn):
    """Documentation of the standard library with real vectors, without an index: its searches are exact."""
    texts = {}
    for name in MODULES:
        for qualified, kind, text in described(importlib.import_module(name)):
            texts.setdefault(
                qualified, {"id": qualified, "title": qualified, "text": text, "metadata": {"kind": kind}}
            )
    with Client(module_dsn) as client:
        docs = client.create_collection("library", embedder="wordllama@64", index="none", chunk_size=400)
        docs.ingest(
            {**one, "metadata": {**one["metadata"], "part": n % 3}} for n, one in enumerate(texts.values())
        )
        docs.refresh_statistics()
        yield docs, MemoryIndex.from_collection(docs), QUERIES


def same(found, expected, *, exactly=True):
    """Assert that two rankings agree in everything; rows that are equally good to six digits may change places."""
    assert len(found) == len(expected)
    by_key = {(hit.id, hit.ordinal, hit.kind): hit for hit in found}
    for place, hit in enumerate(expected):
        key = (hit.id, hit.ordinal, hit.kind)
        if key not in by_key:
            # The last may be another one of the same score.
            assert found[place].score == pytest.approx(hit.score, rel=1e-5)
            continue
        twin = by_key[key]
        if exactly:
            assert abs(twin.rank - hit.rank) <= 1, (twin, hit)
        for field in dataclasses.fields(hit):
            one, other = getattr(twin, field.name), getattr(hit, field.name)
            if isinstance(other, float):
                assert one == pytest.approx(other, rel=2e-5, abs=2e-6), field.name
            elif field.name.endswith("rank"):
                assert (one is None) == (other is None), field.name
                assert one is None or abs(one - other) <= 2, field.name
            else:
                assert one == other, field.name


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 1.0},
        {"alpha": 0.0},
        {},
        {"alpha": 0.6, "normalization": "minmax"},
        {"fusion": "rrf"},
        {"alpha": "auto"},
        {"candidates": 20},
        {"collapse": True, "k": 25},
        {"filter": {"part": 1}},
        {"min_lexical_score": 4.0, "min_dense_score": 0.2},
        {"syntax": "plain", "typos": False},
    ],
    ids=str,
)
def test_rankings_are_those_of_exact_sql(corpus, options):
    docs, index, queries = corpus
    found = 0
    for query in queries:
        asked = {"k": 10, "budget": BUDGET, **options}
        expected = docs.search(query, snippets=False, **asked)
        same(index.search(query, **asked), expected)
        found += len(expected)
    assert found > 3 * len(queries)


def test_bm25_is_that_of_sql_to_a_digit_of_single_precision(corpus):
    docs, index, queries = corpus
    for query in queries:
        expected = docs.search(query, k=50, alpha=0.0, budget=BUDGET, snippets=False)
        for one, other in zip(index.search(query, k=50, alpha=0.0), expected, strict=True):
            assert (one.id, one.ordinal, one.matched) == (other.id, other.ordinal, other.matched)
            assert one.lexical_score == pytest.approx(other.lexical_score, rel=3e-7)


def test_dense_ids_are_those_of_sql_but_for_scores_that_single_precision_cannot_tell(corpus):
    docs, index, queries = corpus
    right = 0
    for query in queries:
        expected = [hit.id for hit in docs.search(query, alpha=1.0, snippets=False)]
        right += [hit.id for hit in index.search(query, alpha=1.0)] == expected
    assert right >= len(queries) - 1


def test_it_is_the_truth_that_an_index_is_measured_by(corpus):
    _, index, queries = corpus
    found = index.search(queries[0], k=5, alpha=1.0)
    places = np.argsort(-(index.vectors @ index._embed(queries[0]) / np.linalg.norm(index.vectors, axis=1)))[
        :5
    ]
    assert [(hit.id, hit.ordinal) for hit in found] == [index.keys[place] for place in places]


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2", "l1"])
@pytest.mark.parametrize("storage", ["vector", "halfvec"])
def test_every_metric_and_storage(client, metric, storage):
    docs = client.create_collection("docs", embedder=CountingEmbedder(16), metric=metric, storage=storage)
    docs.ingest(CORPUS)
    index = MemoryIndex.from_collection(docs)
    for options in ({"alpha": 1.0}, {}, {"fusion": "rrf"}):
        # Half precision is rounded before it is compared, and compared in half precision.
        same(
            index.search("function results", **options),
            docs.search("function results", snippets=False, **options),
        )


def test_rows_of_every_kind_and_documents_that_wait(client, dsn):
    docs = client.create_collection(
        "docs",
        embedder=CountingEmbedder(16),
        chunk_size=60,
        section_size=200,
        document_vectors=True,
        questions=1,
        generator=CallableGenerator(model="what", questions=lambda text, title, count: [f"What of {title}?"]),
    )
    docs.ingest(CORPUS)
    rows(dsn, "SELECT pgseek.put_document('docs', 'waiting', 'merge sorted inputs and errors')")
    index = MemoryIndex.from_collection(docs)
    assert len(index) == index.count() == len(CORPUS) + 1
    for query in ("what of errno", "merge sorted inputs"):
        expected = docs.search(query, k=20, snippets=False)
        assert {hit.kind for hit in expected} > {"chunk"}
        same(index.search(query, k=20), expected)
    assert any(hit.id == "waiting" and hit.dense_score is None for hit in index.search("merge sorted", k=20))


def test_a_query_without_words_is_answered_by_the_dense_leg_and_says_so(corpus):
    docs, index, _ = corpus
    expected = docs.search("the of", snippets=False)
    assert "dense only" in expected[0].degraded
    same(index.search("the of"), expected)
    assert index.search("the of", alpha=0.0) == []


def test_the_signature_is_that_of_a_collection():
    ours = inspect.signature(MemoryIndex.search).parameters
    theirs = inspect.signature(Collection.search).parameters
    assert list(ours) == list(theirs)
    different = [name for name in ours if ours[name].default != theirs[name].default]
    # Marking words takes the database.
    assert different == ["snippets"]
    assert set(ELSEWHERE) < set(ours)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lexical", "ts_rank"),
        ("snippets", True),
        ("ef_search", 100),
        ("boosts", [{"when": "$.a == 1", "factor": 2}]),
        ("diversity", 0.3),
        ("near_duplicates", 0.9),
        ("passages", 1),
        ("neighbours", 1),
        ("feedback", 3),
        ("timeout", 1.0),
        ("reranker", len),
        ("expand", len),
        ("report", print),
        ("on_embedder_error", "lexical"),
    ],
)
def test_options_that_only_a_collection_has_are_refused_by_name(corpus, name, value):
    with pytest.raises(InvalidInput, match=rf"^{name} is .* does not have that option"):
        corpus[1].search("words", **{name: value})


def test_wrong_input_is_refused_as_a_collection_refuses_it(corpus):
    docs, index, _ = corpus
    for options, message in (
        ({"k": 0}, "k is 0"),
        ({"alpha": 2.0}, "alpha is 2.0"),
        ({"query_embedding": [1.0, 2.0]}, r"has the shape \(2,\)"),
        ({"query_embedding": [0.0] * 64}, "is zero"),
        ({"space": 999}, "space is 999"),
    ):
        with pytest.raises(InvalidInput, match=message):
            index.search("words", **options)
    with pytest.raises(InvalidInput) as refused:
        docs.search("words", min_dense_score="calibrated")
    with pytest.raises(InvalidInput, match=re.escape(str(refused.value))):
        index.search("words", min_dense_score="calibrated")
    with pytest.raises(InvalidInput, match="syntax='plain'"):
        index.search("+must have")
    with pytest.raises(SpaceMismatch, match="another:model"):
        index.search("words", query_embedding=[1.0] * 64, model="another:model")
    with pytest.raises(InvalidInput, match="copy of a collection"):
        index.add([{"id": "new", "text": "new"}])
    with pytest.raises(InvalidInput, match="has no embedding space 999"):
        MemoryIndex.from_collection(docs, space=999)


def test_a_part_of_a_collection_and_filters_of_every_form(corpus):
    docs, _, queries = corpus
    part = MemoryIndex.from_collection(docs, filter=F("part") == 2)
    assert 0 < len(part) < docs.count()
    assert {hit.metadata["part"] for hit in part.search(queries[0], k=30)} == {2}
    whole = corpus[1]
    by_path = whole.search(queries[0], k=30, filter="$.part >= 1")
    assert whole.search(queries[0], k=30, filter=lambda metadata: metadata["part"] >= 1) == by_path


def test_deleted_documents_are_not_found_and_the_others_keep_their_scores(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(16))
    docs.ingest(CORPUS)
    index = MemoryIndex.from_collection(docs)
    before = {hit.id: hit.lexical_score for hit in index.search("function iterable sorted", alpha=0.0)}
    assert index.delete(["lru_cache", "nobody"]) == 1
    after = {hit.id: hit.lexical_score for hit in index.search("function iterable sorted", alpha=0.0)}
    assert before.pop("lru_cache") > 0
    assert after == before
    assert docs.count() == len(CORPUS)


def test_saved_and_loaded_with_and_without_its_collection(client, tmp_path):
    docs = client.create_collection("docs", embedder=CountingEmbedder(16))
    docs.ingest(CORPUS)
    index = MemoryIndex.from_collection(docs)
    path = index.save(tmp_path / "docs.npz")
    again = MemoryIndex.load(path, collection=docs)
    assert again.search("merge sorted inputs") == index.search("merge sorted inputs")
    alone = MemoryIndex.load(path, embedder=CountingEmbedder(16))
    for one, other in zip(alone.search("merge", alpha=1.0), index.search("merge", alpha=1.0), strict=True):
        assert one == dataclasses.replace(other, matched=())
    with pytest.raises(InvalidInput, match="loaded without its collection"):
        alone.search("merge sorted")
    with pytest.raises(SpaceMismatch, match="other"):
        MemoryIndex.load(path, embedder=CountingEmbedder(16, model="other"))
    with pytest.raises(InvalidInput, match=r"must end in \.npz"):
        index.save(tmp_path / "docs.txt")
    with pytest.raises(InvalidInput, match="cannot write the index"):
        index.save(tmp_path / "nowhere" / "docs.npz")
    with pytest.raises(InvalidInput, match="cannot read the index"):
        MemoryIndex.load(tmp_path / "nobody.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InvalidInput, match="is no index"):
        MemoryIndex.load(tmp_path / "text.npz")


def test_an_index_of_its_own_needs_no_database(tmp_path):
    index = MemoryIndex(CountingEmbedder(16))
    assert index.search("nothing is here") == []
    assert index.add(CORPUS) == len(CORPUS)
    hits = index.search("MERGE Sórted inputs", alpha=0.0)
    assert hits[0].id == "heapq.merge"
    assert {match.lexeme for match in hits[0].matched} == {"inputs", "merge", "sorted"}
    index.add([{"id": "heapq.merge", "text": "something else"}])
    assert (index.search("merge", alpha=0.0), len(index)) == ([], len(CORPUS))
    assert index.delete("heapq.merge") == 1
    assert [
        hit.id for hit in index.search("function", filter=lambda m: m.get("year") == 1994, alpha=0.0)
    ] == ["reduce"]
    with pytest.raises(InvalidInput, match="PostgreSQL decides"):
        index.search("function", filter={"year": 1994})
    with pytest.raises(InvalidInput, match="kind of query"):
        index.search("function", alpha="auto")
    with pytest.raises(InvalidInput, match="min_dense_score is 'calibrated'"):
        index.search("function", min_dense_score="calibrated")
    with pytest.raises(InvalidInput, match="obeys"):
        index.search('"side by side"')
    with pytest.raises(InvalidInput, match="has no text"):
        index.add([{"id": "x", "text": " "}])
    path = index.save(tmp_path / "own.npz")
    again = MemoryIndex.load(path, embedder=CountingEmbedder(16))
    assert again.search("function iterable") == index.search("function iterable")
    again.add([{"id": "new", "text": "a function"}])
    assert len(again) == len(index) + 1


def test_its_bm25_is_that_of_sql_where_the_words_are_the_same(client):
    """With the configuration 'simple' and words of letters alone, folding and PostgreSQL read the same."""
    texts = [
        {"id": f"d{n}", "title": title, "text": text}
        for n, (title, text) in enumerate(
            [
                ("red fox", "a fox runs and a fox hides"),
                ("", "dogs run"),
                ("fox", "red dogs sleep all day long"),
                ("x", "y z"),
            ]
        )
    ]
    docs = client.create_collection("docs", embedder=CountingEmbedder(8), language="simple")
    docs.ingest(texts)
    docs.refresh_statistics(reweigh=True)
    index = MemoryIndex(CountingEmbedder(8))
    index.add(texts)
    for query in ("fox", "red dogs", "a fox and a dog", "y"):
        ours = index.search(query, alpha=0.0)
        theirs = docs.search(query, alpha=0.0, snippets=False, typos=False)
        assert [(hit.id, pytest.approx(hit.lexical_score, rel=1e-5)) for hit in ours] == [
            (hit.id, hit.lexical_score) for hit in theirs
        ]


def test_stems_are_the_callers(tmp_path):
    index = MemoryIndex(CountingEmbedder(8), stem=lambda word: word[:4])
    index.add([{"id": "a", "text": "caching functions"}])
    assert [hit.id for hit in index.search("cached", alpha=0.0)] == ["a"]
    path = index.save(tmp_path / "stems.npz")
    with pytest.raises(InvalidInput, match="made with stem"):
        MemoryIndex.load(path, embedder=CountingEmbedder(8))
