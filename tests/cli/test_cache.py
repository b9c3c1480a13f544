"""``pgseek cache``: what it holds, pruning and clearing, from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import CORPUS, CountingEmbedder, rows

from pgseek import cache as scripts
from pgseek.config import MEBIBYTE


@pytest.fixture
def pgseek(dsn, tmp_path, commands):
    """Run the command on a database of its own; returns code, standard output and error."""

    def run(*arguments):
        made = commands.run("--dsn", dsn, *arguments, cwd=tmp_path)
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


@pytest.fixture
def cached(client):
    """Seven vectors: a collection's six, of documents, and one query of nobody's."""
    client.create_collection("docs", embedder=CountingEmbedder(250)).ingest(CORPUS)
    client._run(scripts.store("f" * 64, "query", {b"k": np.ones(8, np.float32)}, 30))


def left(dsn):
    return {
        row["input_type"]: row["n"]
        for row in rows(dsn, "SELECT input_type, count(*) AS n FROM pgseek.embedding_cache GROUP BY 1")
    }


def test_stats_of_nothing_and_of_something(pgseek, dsn, client):
    assert pgseek("cache", "stats") == (0, "the cache is empty\n", "")
    assert json.loads(pgseek("cache", "stats", "--json")[1]) == []
    client.create_collection("docs", embedder=CountingEmbedder()).ingest(CORPUS)
    client._run(scripts.store("f" * 64, "query", {b"k": np.ones(8, np.float32)}, 30))
    rows(dsn, "UPDATE pgseek.embedding_cache SET expires_at = now() WHERE input_type = 'query'")
    documents, queries = json.loads(pgseek("cache", "stats", "--json")[1])
    assert {"provider": "tests", "model": "hash", "dimensions": 8, "entries": 6, "expired": 0}.items() <= (
        documents.items()
    )
    assert {"provider": None, "identity": "f" * 64, "input_type": "query", "expired": 1}.items() <= (
        queries.items()
    )
    code, out, err = pgseek("cache", "stats")
    assert (code, err) == (0, "")
    header, first, second = out.splitlines()
    assert header.split()[:4] == ["embedder", "of", "entries", "expired"]
    assert first.split()[:6] == ["tests:hash@8", "documents", "6", "0", "0.0", "MB"]
    assert second.startswith("of no collection, ffffffffffff…")
    assert second.split()[4:7] == ["queries", "1", "1"]


def test_prune_deletes_what_expired_and_what_is_too_much(pgseek, dsn, cached):
    assert pgseek("cache", "prune") == (0, "deleted 0 vectors\n", "")
    rows(dsn, "UPDATE pgseek.embedding_cache SET expires_at = now() WHERE input_type = 'query'")
    assert pgseek("cache", "prune") == (0, "deleted 1 vectors\n", "")
    # Two of the six, of 1,100 to 1,200 bytes each, fit into two and a half thousand.
    assert json.loads(pgseek("cache", "prune", "--max-mb", 2500 / MEBIBYTE, "--json")[1]) == {"deleted": 4}
    assert left(dsn) == {"document": 2}
    assert pgseek("cache", "prune", "--max-mb", "0")[1] == "deleted 2 vectors\n"
    for wrong in ("-1", "nan", "inf"):
        code, out, err = pgseek("cache", "prune", "--max-mb", wrong)
        assert (code, out) == (2, "")
        assert f"--max-mb is {wrong}, but must be 0 or more" in err


def test_clear_asks_first_and_deletes_what_was_named(pgseek, dsn, cached):
    for arguments in ([], ["docs"], ["--queries"]):
        code, out, err = pgseek("cache", "clear", *arguments)
        assert (code, out, "--yes" in err) == (2, "", True)
    code, _, err = pgseek("cache", "clear", "--queries", "--documents", "--yes")
    assert (code, "exclude each other" in err) == (2, True)
    code, _, err = pgseek("cache", "clear", "dosc", "--yes")
    assert (code, "did you mean 'docs'" in err) == (3, True)
    assert left(dsn) == {"document": 6, "query": 1}
    assert pgseek("cache", "clear", "docs", "--queries", "--yes") == (0, "deleted 0 vectors\n", "")
    assert pgseek("cache", "clear", "docs", "--yes") == (0, "deleted 6 vectors\n", "")
    assert left(dsn) == {"query": 1}
    assert pgseek("cache", "clear", "--documents", "--yes")[1] == "deleted 0 vectors\n"
    assert json.loads(pgseek("cache", "clear", "--queries", "--yes", "--json")[1]) == {"deleted": 1}
    assert left(dsn) == {}
    # The collection itself is as it was.
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.embeddings_1") == [{"n": 6}]
