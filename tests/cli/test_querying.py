"""The commands of questions besides a search, and the options that shape one."""

from __future__ import annotations

import json

import pytest
from support import CORPUS

from pgseek import Client


@pytest.fixture
def pgseek(commands, dsn):
    with Client(dsn) as client:
        client.create_collection("docs").ingest(CORPUS)

    def run(*arguments):
        done = commands.run("--dsn", dsn, *map(str, arguments))
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


def test_pages_by_the_cursor_that_is_printed(pgseek):
    seen = []
    cursor = []
    while True:
        code, out, err = pgseek("page", "docs", "function", "--size", 2, *cursor)
        assert code == 0, err
        lines = out.splitlines()
        seen += [line.split()[1] for line in lines if line.strip()[:1].isdigit()]
        if "the next page: --cursor" not in err:
            break
        cursor = ["--cursor", lines[-1]]
    assert sorted(seen) == sorted(one["id"] for one in CORPUS)
    code, out, _ = pgseek("page", "docs", "function", "--size", 2, "--json")
    assert (code, len(json.loads(out)["hits"]), json.loads(out)["total"]) == (0, 2, len(CORPUS))
    code, _, err = pgseek("page", "docs", "function", "--cursor", "xyz")
    assert (code, "the cursor cannot be read" in err) == (2, True)


def test_facets_are_tables(pgseek):
    code, out, err = pgseek("facets", "docs", "function", "--facet", "module", "--facet", "year:histogram:2")
    assert code == 0, err
    assert "documents with a word of the query: 2" in out
    assert "functools" in out
    assert "1994 to 2002" in out
    code, out, _ = pgseek("facets", "docs", "--over", "filter", "--filter", "module=functools", "--json")
    assert (code, json.loads(out)["documents"]) == (0, 2)
    code, _, err = pgseek("facets", "docs")
    assert (code, "there is no query; count over='filter'" in err) == (2, True)


def test_similar_documents(pgseek):
    code, out, err = pgseek("similar", "docs", "lru_cache", "-k", 2, "--json")
    assert code == 0, err
    assert len(json.loads(out)) == 2
    assert "lru_cache" not in {hit["id"] for hit in json.loads(out)}
    assert "  1. " in pgseek("similar", "docs", "lru_cache")[1]
    code, _, err = pgseek("similar", "docs", "nope")
    assert (code, "has no document 'nope'" in err) == (2, True)


def test_recommended_documents(pgseek, tmp_path):
    code, out, err = pgseek(
        "recommend", "docs", "--liked", "lru_cache", "--disliked", "errno", "-k", 2, "--json"
    )
    assert code == 0, err
    assert len(json.loads(out)) == 2
    assert not {"lru_cache", "errno"} & {hit["id"] for hit in json.loads(out)}
    history = tmp_path / "history.jsonl"
    history.write_text(
        '{"id": "lru_cache", "at": "2026-01-31"}\n\n{"id": "gone", "at": "2026-01-30", "weight": 2}\n'
    )
    arguments = (
        "recommend",
        "docs",
        "--history",
        history,
        "--half-life",
        "30 days",
        "--strategy",
        "best_score",
    )
    code, _, err = pgseek(*arguments)
    assert (code, "has no document 'gone'" in err) == (2, True)
    code, out, err = pgseek(*arguments, "--ignore-missing", "--exclude", "reduce", "--now", "2026-02-01")
    assert code == 0, err
    assert "  1. " in out
    assert "reduce" not in out
    history.write_text("lru_cache\n")
    code, _, err = pgseek(*arguments)
    assert (code, "history.jsonl:1: not JSON" in err) == (2, True)
    history.write_text('["lru_cache"]\n')
    assert "history.jsonl:1: ['lru_cache'] is no event" in pgseek(*arguments)[2]
    code, _, err = pgseek("recommend", "docs", "--history", tmp_path / "none.jsonl")
    assert (code, "cannot read the history" in err) == (2, True)
    code, _, err = pgseek("recommend", "docs", "--disliked", "errno")
    assert (code, "nothing is liked" in err) == (2, True)
    everything = [part for one in CORPUS[1:] for part in ("--exclude", one["id"])]
    code, out, err = pgseek("recommend", "docs", "--liked", CORPUS[0]["id"], *everything)
    assert code == 0, err


def test_an_explanation_is_told_in_words(pgseek):
    code, out, err = pgseek("explain", "docs", "cache functoin +results", "--filter", "module=functools")
    assert code == 0, err
    assert "functoin" in out
    assert "hits must match 'result'" in out
    assert "filter, or required words: 2 match, and are compared exactly" in out
    assert "dense leg: 1 of 100 candidates, exactly" in out
    code, out, _ = pgseek("explain", "docs", "cache", "--json")
    assert (code, json.loads(out)["hits"][0]["external_id"]) == (0, "lru_cache")


def test_a_search_is_shaped_by_options(pgseek):
    code, out, err = pgseek(
        "search",
        "docs",
        "function cache",
        "--boost",
        '{"when": "$.module == \\"errno\\"", "factor": 100}',
        "--diversity",
        0.1,
        "--near-duplicates",
        0.95,
        "--passages",
        1,
        "--neighbours",
        1,
        "--feedback",
        2,
        "--min-dense-score",
        -1,
        "--json",
    )
    assert code == 0, err
    hits = json.loads(out)
    assert (hits[0]["id"], hits[0]["boost"]) == ("errno", 100)
    assert hits[0]["context"]
    code, out, _ = pgseek("search", "docs", "function cache", "--neighbours", 1)
    assert (code, "around it: " in out) == (0, True)
    code, _, err = pgseek("search", "docs", "x", "--boost", "{")
    assert (code, "--boost '{' is not JSON" in err) == (2, True)
