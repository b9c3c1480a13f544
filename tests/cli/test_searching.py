"""``pgseek search``: rerankers, failures, limits, and how long each part took."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from providers import Fault, ProviderServer
from support import CORPUS

from pgseek import Client


@pytest.fixture
def server():
    with ProviderServer() as made:
        yield made


@pytest.fixture
def search(dsn, server, tmp_path):
    with Client(dsn) as client:
        client.create_collection("docs").ingest(CORPUS)
    environment = {
        **os.environ,
        "NO_PROXY": "127.0.0.1",
        "CO_API_KEY": "k",
        "CO_API_URL": server.base_url,
        "OPENAI_BASE_URL": server.base_url + "/v1",
        "PYTHONWARNINGS": "ignore",
    }

    def run(*arguments):
        made = subprocess.run(
            [sys.executable, "-m", "pgseek", "--dsn", dsn, "search", "docs", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=tmp_path,
            env=environment,
            check=False,
        )
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


def test_hits_are_ordered_anew_and_the_table_says_how(search):
    code, out, err = search("a function", "--reranker", "cohere:rerank-v3.5", "--explain", "-k", 3)
    assert code == 0, err
    assert "reranker" in out
    assert "before" in out
    assert "milliseconds: embed " in out
    assert "rerank " in out
    code, out, err = search("a function", "--reranker", "cohere", "--rerank-top", 2, "--json", "-k", 3)
    hits = json.loads(out)
    assert [hit["rerank_score"] is None for hit in hits] == [False, False, True]
    code, out, err = search("a function", "--reranker", "cohere")
    assert "reranker 0." in out or "reranker 1." in out


def test_what_fails_is_told(search, server):
    server.faults = lambda _: Fault(401)
    code, _, err = search("a function", "--reranker", "cohere")
    assert (code, "invalid api token" in err) == (1, True)
    code, _, err = search("a function", "--reranker", "cohere", "--on-embedder-error", "lexical")
    assert (code, "fused order: cohere:rerank-v3.5" in err) == (0, True)
    code, _, err = search("a function", "--timeout", 0.00001)
    assert (code, "took longer than its timeout of 1e-05 s" in err) == (1, True)
    code, _, err = search("a function", "--rerank-top", 5)
    assert (code, "give reranker, too" in err) == (2, True)


def test_what_is_written_for_the_query_is_printed(search):
    code, out, err = search("a function", "--expand", "hyde:openai-compatible:tiny", "--explain")
    assert code == 0, err
    assert "written: In short: " in out
    assert "expand " in out
    code, _, err = search("a function", "--expand", "hide:openai:tiny")
    assert (code, "give hyde:PROVIDER:MODEL" in err) == (2, True)
