"""Two embedding spaces side by side, from Python and from the command line."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import heapq
import itertools
import json
import math
import posixpath
import random
import shutil

import numpy as np
import pytest
from support import CountingEmbedder, rows

from pgseek import AsyncClient, Client, Gate, InvalidInput, SpaceMismatch, create_embedder
from pgseek.demo.corpus import described
from pgseek.evaluation import Mode, Plan, evaluate, run_mode
from pgseek.evaluation.spaces import rbo

QUERIES = {
    "q1": "how do I cache the results of a function",
    "q2": "merge sorted lists into one",
    "q3": "ignore an exception",
    "q4": "join the parts of a path",
    "q5": "pick a random element",
    "q6": "count how often each word occurs",
    "q7": "zzqqxx",
}


# Docstrings of these, some two hundred.
TEXTS = [
    {"id": name, "title": name, "text": text}
    for module in (functools, heapq, contextlib, posixpath, random, collections, itertools, shutil)
    for name, _, text in described(module)
]


def two_spaces(client, texts):
    """A collection of wordllama's 256 dimensions, with its first 64 as a second space, ready but not searched."""
    made = client.create_collection("docs", embedder="wordllama")
    made.ingest(texts)
    report = made.reembed("wordllama@64", switch=False, gate=Gate(min_recall=0))
    assert report.stage == "ready"
    return made


@pytest.fixture(scope="module")
def docs(module_dsn):
    """A collection that no test changes."""
    with Client(module_dsn) as client:
        yield two_spaces(client, TEXTS)


def found(collection, query, k=10, **arguments):
    """Documents as a search with these arguments gives them: by their best chunks."""
    run = run_mode(collection, Mode("m", arguments), {"q": query}, depth=k).run["q"]
    return tuple(name for name, _ in run)


def test_what_is_compared_is_what_searches_find(docs):
    compared = docs.compare_spaces(1, 2, QUERIES, k=5)
    assert (compared.collection, compared.k, compared.depth, compared.alpha) == ("docs", 5, 5, None)
    assert [one.id for one in compared.queries] == list(QUERIES)
    for one in compared.queries:
        assert one.a == found(docs, one.text, 5, space=1)
        assert one.b == found(docs, one.text, 5, space=2)
        assert one.overlap == len(set(one.a) & set(one.b)) / 5
        assert one.rbo == rbo(one.a, one.b)
    assert compared.overlap == pytest.approx(np.mean([one.overlap for one in compared.queries]))
    assert compared.rbo == pytest.approx(np.mean([one.rbo for one in compared.queries]))
    assert compared.same_first == pytest.approx(np.mean([one.a[0] == one.b[0] for one in compared.queries]))
    assert 0 < compared.overlap < 1
    a, b = compared.a, compared.b
    assert (str(a.space), a.space.state) == ("wordllama:l2_supercat@256", "active")
    assert (str(b.space), b.space.state) == ("wordllama:l2_supercat@64", "ready")
    assert (a.alpha, a.normalization, a.empty, a.degraded) == (0.3, "max", 0, 0)
    assert (a.means, a.per_query, compared.comparisons, compared.judged) == ({}, {}, (), 0)


def test_the_dense_legs_alone(docs):
    compared = docs.compare_spaces("1", "wordllama:l2_supercat@64", QUERIES, alpha=1)
    assert (compared.alpha, compared.a.alpha) == (1, 1)
    for one in compared.queries:
        assert one.b == found(docs, one.text, 10, space=2, alpha=1)
    both = docs.compare_spaces(1, 2, QUERIES)
    assert compared.overlap < both.overlap


def test_the_queries_that_differ_most_come_first(docs):
    compared = docs.compare_spaces(1, 2, QUERIES, alpha=1)
    shown = compared.differing(3)
    assert len(shown) == 3
    values = [one.rbo for one in compared.queries if one.a != one.b]
    assert [one.rbo for one in shown] == sorted(values)[:3]
    assert docs.compare_spaces(2, 1, QUERIES, alpha=1).differing(3)[0].a == shown[0].b
    assert compared.differing(0) == ()


def test_latency_of_embedding_is_of_what_the_cache_does_not_have(docs, module_dsn):
    rows(module_dsn, "DELETE FROM pgseek.embedding_cache")
    compared = docs.compare_spaces(1, 2, QUERIES)
    for side in (compared.a, compared.b):
        assert side.embedded == len(QUERIES)
        for latency in (side.embedding, side.searching):
            assert 0 < latency.median <= latency.p95
    again = docs.compare_spaces(1, 2, {**QUERIES, "new": "a new query"})
    assert (again.a.embedded, again.b.embedded) == (1, 1)
    kept = docs.compare_spaces(1, 2, QUERIES)
    assert (kept.a.embedded, kept.a.embedding) == (0, None)
    # What was embedded for it serves a search of SQL.
    assert (
        rows(module_dsn, "SELECT degraded FROM pgseek.search('docs', %s)", [QUERIES["q1"]])[0]["degraded"]
        is None
    )


def test_quality_is_that_of_an_evaluation(docs):
    qrels = {name: dict.fromkeys(found(docs, text, 3, space=2, alpha=1), 1) for name, text in QUERIES.items()}
    del qrels["q7"]
    qrels["q1"]["not there"] = 1
    compared = docs.compare_spaces(1, 2, QUERIES, qrels, measures=("nDCG@10", "RR@10"))
    modes = (Mode("a", {"space": 1}), Mode("b", {"space": 2}))
    expected = evaluate(docs, QUERIES, qrels, Plan(modes, ("nDCG@10", "RR@10"), "a"))
    assert (compared.judged, compared.missing_documents, compared.depth) == (6, 1, 100)
    for side, name in ((compared.a, "a"), (compared.b, "b")):
        assert side.means == expected.mode(name).means
        assert side.per_query == expected.mode(name).per_query
        assert {q: side.run[q] for q in qrels} == expected.mode(name).run
    assert compared.b.means["nDCG@10"] > compared.a.means["nDCG@10"]
    for one, other in zip(compared.comparisons, expected.comparisons, strict=True):
        assert (one.measure, one.difference, one.p) == (other.measure, other.difference, other.p)
        assert (one.baseline, one.mode) == ("space 1", "space 2")


def test_each_space_is_searched_as_if_it_were_the_active_one(client):
    """The weight of the dense leg is the embedder's, until somebody chooses one."""
    docs = client.create_collection("docs", embedder="wordllama")
    docs.ingest([{"id": "1", "text": "a text"}, {"id": "2", "text": "another one"}])
    docs.reembed(CountingEmbedder(8), switch=False, gate=Gate(min_recall=0))
    compared = docs.compare_spaces(1, 2, ["text"])
    assert (compared.a.alpha, compared.a.normalization) == (0.3, "max")
    assert (compared.b.alpha, compared.b.normalization) == (0.4, "minmax")
    chosen = client.create_collection("chosen", embedder="wordllama", alpha=0.7)
    chosen.ingest([{"id": "1", "text": "a text"}])
    chosen.reembed(CountingEmbedder(8), switch=False, gate=Gate(min_recall=0))
    compared = chosen.compare_spaces("wordllama:l2_supercat@256", "tests:hash@8", ["text"])
    assert (compared.a.alpha, compared.b.alpha) == (0.7, 0.7)


def test_rrf_has_no_weights(client):
    docs = client.create_collection("docs", embedder="wordllama", fusion="rrf")
    docs.ingest([{"id": "1", "text": "a text"}, {"id": "2", "text": "another one"}])
    docs.reembed("wordllama@64", switch=False, gate=Gate(min_recall=0))
    compared = docs.compare_spaces(1, 2, ["text", "another"])
    assert (compared.a.alpha, compared.a.normalization) == (None, None)
    assert docs.compare_spaces(1, 2, ["text"], alpha=1).a.alpha == 1


class Priced(CountingEmbedder):
    """Counts a token for each word, at a dollar for ten thousand."""

    price = 100.0

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


def test_cost_is_of_different_texts_and_of_the_queries(client):
    docs = client.create_collection("docs", embedder="wordllama")
    docs.ingest(
        [{"id": str(n), "text": f"four words and {n}", "title": "Title"} for n in range(10)]
        + [{"id": "twin", "text": "four words and 1", "title": "Title"}]
    )
    docs.reembed(Priced(), switch=False, gate=Gate(min_recall=0))
    compared = docs.compare_spaces(1, 2, ["two words", "three more words"])
    assert compared.a.cost.price == 0
    assert (compared.a.cost.document_cost, compared.a.cost.query_cost) == (0, 0)
    cost = compared.b.cost
    assert (cost.documents, cost.document_tokens, cost.query_tokens, cost.price) == (10, 50, 5, 100)
    assert (cost.document_cost, cost.query_cost) == (pytest.approx(0.005), pytest.approx(0.0005))


def test_chunks_are_collapsed_to_documents(client):
    docs = client.create_collection("docs", embedder="wordllama", chunk_size=60)
    docs.ingest([{"id": str(n), "text": f"number {n} of many. " * 30} for n in range(4)])
    docs.reembed("wordllama@64", switch=False, gate=Gate(min_recall=0))
    compared = docs.compare_spaces(1, 2, ["number 3 of many"], k=3)
    (one,) = compared.queries
    assert len(one.a) == len(set(one.a)) == 3
    assert len(one.b) == 3


def test_a_space_that_is_not_ready_is_refused_by_the_database(client, dsn):
    docs = two_spaces(client, TEXTS[:20])
    rows(dsn, "UPDATE pgseek.embedding_spaces SET state = 'building' WHERE space_id = 2")
    with pytest.raises(SpaceMismatch, match="cannot be searched by space 2: it is still being built"):
        docs.compare_spaces(1, 2, QUERIES)
    rows(dsn, "UPDATE pgseek.embedding_spaces SET state = 'ready' WHERE space_id = 2")
    docs.retire(2)
    with pytest.raises(SpaceMismatch, match="by space 2: it is retired"):
        docs.compare_spaces(1, 2, QUERIES)
    with pytest.raises(InvalidInput, match="both are space 1"):
        docs.compare_spaces(1, "wordllama:l2_supercat@256", QUERIES)
    with pytest.raises(InvalidInput, match="has no embedding space 9"):
        docs.compare_spaces(1, 9, QUERIES)
    docs.reembed("wordllama@128", switch=False, gate=Gate(min_recall=0))
    with pytest.raises(InvalidInput, match="holds none of the 1 judged documents"):
        docs.compare_spaces(1, 3, QUERIES, {"q1": {"nobody": 1}})


def test_a_query_that_cannot_be_embedded_is_named(client):
    class Picky(CountingEmbedder):
        def embed_query(self, text):
            if text == "bad":
                raise ValueError("not this one")
            return super().embed_query(text)

    docs = client.create_collection("docs", embedder="wordllama")
    docs.ingest([{"id": "1", "text": "a text"}])
    docs.reembed(Picky(8), switch=False, gate=Gate(min_recall=0))
    with pytest.raises(Exception, match="query 'q2' in space 2: tests:hash@8 failed: not this one"):
        docs.compare_spaces(1, 2, {"q1": "good", "q2": "bad"})


def test_signs_in_a_query_are_no_operators(docs):
    compared = docs.compare_spaces(1, 2, {"q": '-cache +nothing "at all"'})
    assert len(compared.queries[0].a) == 10


def test_under_asyncio(docs, module_dsn):
    async def ask():
        async with AsyncClient(module_dsn) as client:
            return await (await client.collection("docs")).compare_spaces(
                1, 2, QUERIES, {"q1": {"functools.lru_cache": 1}}
            )

    other = asyncio.run(ask())
    same = docs.compare_spaces(1, 2, QUERIES, {"q1": {"functools.lru_cache": 1}})
    assert other.queries == same.queries
    assert other.a.run == same.a.run
    assert other.a.means == same.a.means


# From the command line.


@pytest.fixture
def pgseek(module_dsn, tmp_path, commands):
    def run(*arguments):
        made = commands.run("--dsn", module_dsn, *arguments, cwd=tmp_path)
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


@pytest.fixture
def files(docs, tmp_path):
    """Queries in both forms, and judgements."""
    (tmp_path / "queries.txt").write_text("".join(text + "\n" for text in QUERIES.values()))
    (tmp_path / "queries.jsonl").write_text(
        "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in QUERIES.items())
    )
    relevant = found(docs, QUERIES["q1"], 2, space=2)
    (tmp_path / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n"
        + "".join(f"q1\t{name}\t1\n" for name in relevant)
        + f"q2\t{relevant[0]}\t1\n"
    )
    return tmp_path


def test_the_command_prints_tables(pgseek, files, docs):
    code, out, err = pgseek("compare", "docs", "--spaces", "1,2", "--queries", "queries.txt", "--show", "2")
    assert (code, err) == (0, "")
    compared = docs.compare_spaces(1, 2, list(QUERIES.values()))
    lines = out.splitlines()
    assert lines[0] == (
        f"docs: 7 queries, as the collection is set; of the first 10 documents {compared.overlap:.3f} are the same, "
        f"rank-biased overlap {compared.rbo:.3f}, the same first one for {compared.same_first:.1%}"
    )
    assert "nDCG@10" not in out
    assert lines[2].startswith("1 (active)")
    assert "wordllama:l2_supercat@64" in lines[3]
    first = compared.differing(1)[0]
    shown = next(n for n, line in enumerate(lines) if line.startswith(f"{first.id}  {first.text}"))
    assert lines[shown + 1].split() == ["space", "1", "space", "2"]
    assert lines[shown + 2].split() == ["1", first.a[0], first.b[0]]
    assert sum("rank-biased 0" in line for line in lines) == 2

    code, out, err = pgseek(
        *(
            "compare",
            "docs",
            "--spaces",
            "1,2",
            "--queries",
            "queries.jsonl",
            "--qrels",
            "qrels.tsv",
            "--alpha",
            "1",
        )
    )
    assert code == 0
    assert "the dense leg alone" in out
    assert "note: 2 of 7 queries are judged; quality is of those" in err
    head = next(line for line in out.splitlines() if line.startswith("space"))
    assert "nDCG@10  R@100  RR@10" in " ".join(head.split()).replace(" ", "  ")
    assert "MAP" in head
    assert "space 2  space 1" in " ".join(out.split()).replace(" space", "  space")


def test_the_command_prints_json(pgseek, files, docs):
    code, out, _ = pgseek(
        *("compare", "docs", "--spaces", "2, 1", "--queries", "queries.jsonl", "--qrels", "qrels.tsv"),
        *("--k", "3", "--measure", "RR@10", "--json"),
    )
    assert code == 0
    told = json.loads(out)
    assert (told["k"], told["judged"], told["a"]["space"]["space_id"]) == (3, 2, 2)
    assert [one["id"] for one in told["queries"]] == list(QUERIES)
    assert all(len(one["a"]) == 3 for one in told["queries"])
    assert set(told["a"]["means"]) == {"RR@10"}
    assert told["comparisons"][0]["baseline"] == "space 2"
    assert "run" not in told["a"]
    assert math.isfinite(told["b"]["searching"]["p95"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--spaces", "1"], 2, "--spaces is '1', but must name two spaces, such as 1,2"),
        (["--spaces", "1,1"], 2, "both are space 1"),
        (["--spaces", "1,7"], 2, "has no embedding space '7'; it has 1: wordllama:l2_supercat@256 (active)"),
        (["--spaces", "1,2", "--queries", "none.txt"], 2, "cannot read queries from none.txt"),
        (["--spaces", "1,2", "--qrels", "none.tsv"], 2, "there is no file none.tsv"),
        (["--spaces", "1,2", "--show", "-1"], 2, "--show is -1"),
        (["--spaces", "1,2", "--alpha", "0"], 2, "alpha is 0"),
    ],
)
def test_errors_are_one_line(pgseek, files, arguments, code, message):
    made = pgseek("compare", "docs", "--queries", "queries.txt", *arguments)
    assert made[0] == code
    assert message in made[2]


def test_the_catalogue_knows_what_the_second_space_is(docs):
    assert create_embedder("wordllama@64").identity == docs.space(2).identity
