"""Scores that can be compared between queries, and an alpha by the kind of query."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from support import CORPUS, CountingEmbedder, rows

from pgseek import InvalidInput, Search
from pgseek.evaluation import Calibration, calibrate
from pgseek.querying import Explanation

WORDS = [f"word{n}" for n in range(40)]


@pytest.fixture
def docs(client):
    made = client.create_collection("docs", embedder=CountingEmbedder(8))
    made.ingest({"id": f"d{n}", "text": f"{word} stands here with others"} for n, word in enumerate(WORDS))
    return made


def judged():
    queries = {f"q{n}": word for n, word in enumerate(WORDS)}
    return queries, {f"q{n}": {f"d{n}": 1} for n in range(len(WORDS))}


class Known:
    """Explanations whose hits are relevant with a probability that is known."""

    def __init__(self, bias, dense, lexical):
        self.weights = np.array([bias, dense, lexical])
        self.random = np.random.default_rng(5)
        self.qrels = {}

    def explain(self, request):
        hits = []
        for n in range(request.k):
            cosine, share = self.random.uniform(-0.2, 1), self.random.uniform(0, 1)
            chance = 1 / (1 + math.exp(-float(self.weights @ [1, cosine, share])))
            name = f"{request.query}-{n}"
            if self.random.uniform() < chance:
                self.qrels[request.query][name] = 1
            hits.append({"external_id": name, "dense_score": cosine, "lexical_score": share * 4})
        words = [{"lexeme": "a", "weight": 1.5}, {"lexeme": "b", "weight": 2.5}]
        none = dict.fromkeys(Explanation.__dataclass_fields__)
        return Explanation(**{**none, "hits": hits, "words": words})


def test_the_numbers_of_a_known_relevance_are_found_again():
    known = Known(-4, 3, 5)
    queries = {f"q{n}": f"q{n}" for n in range(300)}
    known.qrels.update({name: {} for name in queries})
    found = calibrate(known, queries, known.qrels, depth=30)
    assert (found.bias, found.dense, found.lexical) == pytest.approx((-4, 3, 5), abs=0.35)
    assert (found.queries, found.hits) == (300, 9000)
    assert found.error < 0.02
    assert found.brier < found.brier_of_rate
    assert sum(one.hits for one in found.reliability) == 9000
    for one in found.reliability:
        assert one.low <= one.predicted <= one.high
        # Five standard errors of a share.
        spread = 5 * math.sqrt(one.predicted * (1 - one.predicted) / one.hits)
        assert abs(one.predicted - one.observed) < spread


def test_relevance_is_told_once_it_is_calibrated(docs, dsn):
    assert {hit.relevance for hit in docs.search("word1")} == {None}
    found = calibrate(docs, *judged())
    docs.set_calibration(found)
    hits = docs.search("word1 unheard", k=3)
    made = docs.explain(Search("word1 unheard", k=3))
    most = sum(word["weight"] for word in made.words)
    for hit in hits:
        logit = found.bias + found.dense * hit.dense_score + found.lexical * hit.lexical_score / most
        assert hit.relevance == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-4)
    assert hits[0].relevance > 0.5 > hits[1].relevance
    # It is by the words that a lexical search has them, too; not by another lexical score, and not for a document.
    assert docs.search("word1", alpha=0)[0].relevance is not None
    assert docs.search("word1", lexical="ts_rank")[0].relevance is None
    assert docs.similar("d1")[0].relevance is None
    stored = rows(dsn, "SELECT searching FROM pgseek.embedding_spaces")[0]["searching"]
    assert set(stored["calibration"]) == {"bias", "dense", "lexical", "error"}
    docs.set_calibration(None)
    assert docs.search("word1")[0].relevance is None
    assert rows(dsn, "SELECT searching FROM pgseek.embedding_spaces")[0]["searching"] == {}


def test_numbers_far_out_do_not_overflow(docs):
    docs.set_calibration(Calibration(1e6, 0, 0, 1, 1, 1, 0, 0, 0, ()))
    assert docs.search("word1")[0].relevance == 1
    docs.set_calibration(Calibration(-1e6, 0, 0, 1, 1, 1, 0, 0, 0, ()))
    assert docs.search("word1")[0].relevance == pytest.approx(0, abs=1e-300)


def test_too_few_judgements_are_refused(docs):
    queries, qrels = judged()
    with pytest.raises(
        InvalidInput, match=r"3 of the \d+ hits of 3 judged queries are relevant, but it takes"
    ):
        calibrate(docs, {name: queries[name] for name in ("q1", "q2", "q3")}, qrels)
    with pytest.raises(InvalidInput, match="0 of the 0 hits of 0 judged queries"):
        calibrate(docs, queries, {"other": {"d1": 1}})


def test_from_the_shell(client, dsn, commands, tmp_path):
    docs = client.create_collection("docs")
    docs.ingest({"id": f"d{n}", "text": f"{word} stands here with others"} for n, word in enumerate(WORDS))
    queries, qrels = judged()
    lines = [json.dumps({"id": name, "text": text}) for name, text in queries.items()]
    (tmp_path / "queries.jsonl").write_text("\n".join(lines))
    (tmp_path / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n"
        + "".join(f"{name}\t{one}\t1\n" for name, relevant in qrels.items() for one in relevant)
    )
    given = ["calibrate", "docs", "--queries", "queries.jsonl", "--qrels", "qrels.tsv"]

    def run(*words):
        done = commands.run("--dsn", dsn, *words, cwd=tmp_path)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    code, out, err = run(*given, "--no-store")
    assert code == 0, err
    assert "40 of 800 hits of 40 queries are relevant; calibration error" in out
    assert docs.search("word1")[0].relevance is None
    code, out, _ = run(*given, "--json", "--depth", 10)
    assert (code, json.loads(out)["hits"]) == (0, 400)
    assert docs.search("word1")[0].relevance > 0.5
    assert run("calibrate", "docs", "--clear")[0] == 0
    assert docs.search("word1")[0].relevance is None
    code, _, err = run("calibrate", "docs")
    assert (code, "give judged queries (--queries and --qrels, --beir or --golden), or --clear" in err) == (
        2,
        True,
    )


# The kind of a query.


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("how do I cache a function", "question"),
        ("  What is love", "question"),
        ("cache a function?", "question"),
        ("Wo liegt Köln", "question"),
        ("où est la gare", "question"),
        ("¿Qué es esto", "question"),
        ("whatever works", "short"),
        ("functools.lru_cache", "identifier"),
        ("NullPointerException in FooBar", "identifier"),
        ("C:\\temp", "identifier"),
        ("error 404", "identifier"),
        ("snake_case names", "identifier"),
        ("merge sorted lists", "short"),
        ("a fairly long statement about the world and everything", "other"),
        ("one two three four five six seven eight nine ten eleven v2", "other"),
        ("—", "short"),
    ],
)
def test_kinds_of_queries(module_dsn, query, kind):
    assert rows(module_dsn, "SELECT pgseek.query_kind(%s) AS kind", [query]) == [{"kind": kind}]


@pytest.mark.parametrize(
    ("query", "static", "other"),
    [
        ("how do I cache a function", 4 / 3, 3 / 2),
        ("functools.lru_cache", 1 / 2, 1),
        ("cache function", 1, 1),
        ("a long text that asks for the results of a function", 2 / 3, 1),
    ],
)
def test_auto_is_the_search_with_that_alpha(client, query, static, other):
    for embedder, factor in (("wordllama", static), (CountingEmbedder(), other)):
        docs = client.create_collection("static" if embedder == "wordllama" else "other", embedder=embedder)
        docs.ingest(CORPUS)
        base = docs.info().settings["alpha"]
        expected = docs.search(query, alpha=base * factor)
        for found in (docs.search(query, alpha="auto"), docs.search(query, fusion="auto")):
            assert [(hit.id, hit.score) for hit in found] == [
                (hit.id, pytest.approx(hit.score)) for hit in expected
            ]
        made = docs.explain(Search(query, alpha="auto"))
        assert made.alpha == pytest.approx(base * factor)
        assert made.kind in {"question", "identifier", "short", "other"}
        assert docs.explain(query).kind is None


def test_a_collection_may_search_so_by_default(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), alpha="auto")
    docs.ingest(CORPUS)
    settings = docs.info().settings
    assert (settings["fusion"], settings["alpha"]) == ("auto", 0.4)
    assert docs.explain("how is that").alpha == pytest.approx(0.6)
    assert docs.explain(Search("functools.lru_cache", alpha=0.9)).alpha == 0.9
    # Never above the dense leg alone.
    high = client.create_collection("high", embedder=CountingEmbedder(), alpha=0.9, fusion="auto")
    high.ingest(CORPUS)
    assert high.explain("how is that").alpha == 1


def test_auto_with_a_number_is_refused(client):
    with pytest.raises(InvalidInput, match=r"alpha is 0.5 with fusion 'auto', which chooses it"):
        Search("x", alpha=0.5, fusion="auto")
    with pytest.raises(InvalidInput, match=r"alpha is 'auto' with fusion 'rrf'"):
        Search("x", alpha="auto", fusion="rrf")
    with pytest.raises(InvalidInput, match=r"alpha is 'high', but must lie in 0..1"):
        Search("x", alpha="high")
