"""``pgseek reembed`` and ``pgseek spaces`` from the shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from providers import ProviderServer
from support import CORPUS, rows

from pgseek import Client


@pytest.fixture
def service():
    with ProviderServer() as server:
        yield server


@pytest.fixture
def environment(service):
    return {
        **os.environ,
        "OPENAI_API_KEY": "sk-nobody-may-see-this",
        "OPENAI_BASE_URL": service.base_url + "/v1",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture
def pgseek(dsn, tmp_path, environment, commands):
    def run(*arguments):
        made = commands.run("--dsn", dsn, *arguments, cwd=tmp_path, env=environment)
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


def test_to_a_service_price_and_time_first(pgseek, dsn, service):
    with Client(dsn) as client:
        client.create_collection("docs", embedder="wordllama").ingest(CORPUS)
    code, out, _ = pgseek("reembed", "docs", "--to", "openai:text-embedding-3-small@8", "--dry-run")
    assert code == 0
    assert "6 texts, 0 more are in the cache" in out
    assert "tokens    about " in out
    assert "at $0.02 per million tokens" in out
    assert "time      at least " in out
    assert service.requests == []
    assert len(rows(dsn, "SELECT FROM pgseek.embedding_spaces")) == 1

    code, out, err = pgseek("reembed", "docs", "--to", "openai:text-embedding-3-small@8")
    assert (code, "say --yes to go on" in err) == (2, True)
    assert service.requests == []
    code, out, err = pgseek("reembed", "docs", "--to", "openai:text-embedding-3-small@8", "--yes")
    assert code == 0, err
    assert "docs is searched by space 2 now; pgseek spaces rollback docs goes back (6 vectors in " in out
    assert "embedding: 0 of 6 chunks" in err
    code, out, _ = pgseek("spaces", "list", "docs", "--json")
    assert [(s["state"], s["identity"]["provider"], s["missing"]) for s in json.loads(out)] == [
        ("ready", "wordllama", 0),
        ("active", "openai", 0),
    ]
    assert "sk-nobody" not in out + err
    code, out, _ = pgseek("search", "docs", "cache a function", "--json")
    assert (code, json.loads(out)[0]["degraded"]) == (0, None)

    # The way back, forth, and the end.
    code, out, _ = pgseek("spaces", "rollback", "docs")
    assert out == "docs is searched by space 1 (wordllama:l2_supercat@256) again\n"
    code, out, _ = pgseek("spaces", "activate", "docs", "openai:text-embedding-3-small@8")
    assert (code, "docs is searched by space openai" in out) == (0, True)
    code, _, err = pgseek("spaces", "retire", "docs", 2, "--yes")
    assert (code, "is the one that is searched" in err) == (2, True)
    code, _, err = pgseek("spaces", "retire", "docs", 1)
    assert (
        code,
        "retiring drops the 6 vectors of space 1 (wordllama:l2_supercat@256); say --yes" in err,
    ) == (2, True)
    code, out, _ = pgseek("spaces", "retire", "docs", 1, "--yes")
    assert (code, out) == (0, "dropped the 6 vectors of space 1 (wordllama:l2_supercat@256)\n")
    code, out, _ = pgseek("spaces", "show", "docs", 1)
    assert (code, "retired" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reembed", "docs", "--to", "wordlama"), "did you mean 'wordllama'"),
        (("reembed", "docs", "--to", "wordllama"), "is searched by wordllama:l2_supercat@256 already"),
        (("reembed", "docs", "--to", "wordllama@64", "--qrels", "x"), "--qrels needs --queries"),
        (
            ("reembed", "docs", "--to", "wordllama@64", "--queries", "none.txt"),
            "cannot read queries from none.txt",
        ),
        (
            ("reembed", "docs", "--to", "wordllama@64", "--min-recall", "2"),
            "min_recall is 2.0, but must lie in 0..1",
        ),
        (
            ("reembed", "docs", "--to", "wordllama@64", "--index", "prefix=64"),
            "prefix is 64, but must be below",
        ),
        (
            ("spaces", "activate", "docs", "7"),
            "has no embedding space '7'; it has 1: wordllama:l2_supercat@256 (active)",
        ),
        (("spaces", "rollback", "docs"), "has no earlier space to go back to"),
    ],
)
def test_wrong_input_is_told(pgseek, dsn, arguments, message):
    with Client(dsn) as client:
        client.create_collection("docs", embedder="wordllama").ingest(CORPUS)
    code, _, err = pgseek(*arguments)
    assert (code, message in err) == (2, True), err
    assert len(rows(dsn, "SELECT FROM pgseek.embedding_spaces")) == 1


def test_other_chunks_and_prompts(pgseek, dsn):
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder="wordllama")
        docs.ingest([{"id": str(n), "text": f"Number {n}. " + "A sentence of it. " * 80} for n in range(5)])
    code, out, _ = pgseek("reembed", "docs", "--rechunk", "--chunk-size", 400, "--dry-run")
    assert (code, "chunks    about " in out) == (0, True)
    code, out, err = pgseek("reembed", "docs", "--rechunk", "--chunk-size", 400)
    assert code == 0, err
    assert "dividing: " in err
    assert "docs is searched by docs~2 now; pgseek spaces rollback docs goes back (5 documents in " in out
    code, out, _ = pgseek("spaces", "list", "docs")
    assert "copy docs~1, divided otherwise: searched before, and kept in step, 0 wait" in out
    code, out, _ = pgseek("spaces", "rollback", "docs")
    assert code == 0
    code, out, err = pgseek("spaces", "retire", "docs", "docs~2", "--yes")
    assert (code, out) == (0, "dropped the copy docs~2 with its 5 documents\n"), err
    for arguments, message in (
        (("--rechunk",), "nothing would change in how 'docs' is divided"),
        (("--chunk-size", "300"), "--chunk-size divides the documents otherwise: say --rechunk, too"),
        ((), "nothing would change: give --to, a prompt, or --rechunk with a setting"),
        (("--rechunk", "--chunk-size", "300", "--metric", "l2"), "--rechunk goes with --to and the prompts"),
        (("--query-prompt", "q: "), "wordllama has no prompts, but query_prompt was given"),
    ):
        code, _, err = pgseek("reembed", "docs", *arguments)
        assert (code, message in err) == (2, True), err


def test_a_prompt_makes_another_space(pgseek, dsn, service):
    service.native["mine"] = 8
    code, _, err = pgseek("collections", "create", "docs", "--embedder", "openai-compatible:mine")
    assert code == 0, err
    with Client(dsn) as client:
        rows(dsn, "SELECT pgseek.put_document('docs', 'a', 'a text')")
        assert client.list_collections()
    assert pgseek("queue", "drain", "docs")[0] == 0
    code, out, err = pgseek("reembed", "docs", "--document-prompt", "passage: ")
    assert code == 0, err
    assert "docs is searched by space 2 now" in out
    code, out, _ = pgseek("spaces", "show", "docs", 2)
    assert "passage: " in out
    assert any("passage: a text" in request.texts for request in service.requests)


def test_a_gate_that_is_not_passed_is_an_exit_code(pgseek, dsn, tmp_path):
    with Client(dsn) as client:
        client.create_collection("docs", embedder="wordllama").ingest(CORPUS)
    (tmp_path / "queries.txt").write_text("how do I cache a function\nsuppress exceptions\n")
    arguments = ("reembed", "docs", "--to", "wordllama@64", "--queries", "queries.txt", "--json")
    (tmp_path / "qrels.txt").write_text("1 0 lru_cache 1\n2 0 suppress 1\n")
    code, out, err = pgseek(*arguments, "--qrels", "qrels.txt", "--no-switch")
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert [events[0]["event"], events[-1]["event"], events[-1]["stage"]] == ["plan", "report", "ready"]
    assert events[-1]["gate"]["judged"] == 2
    # Of hits that are asked to be the same, one that is not.
    (tmp_path / "queries.txt").write_text("merge sorted lists\n")
    rows(
        dsn, "UPDATE pgseek.embeddings_2 SET embedding = (SELECT embedding FROM pgseek.embeddings_2 LIMIT 1)"
    )
    rows(dsn, 'UPDATE pgseek.collections SET settings = settings || \'{"alpha": 1, "candidates": 10}\'')
    many = [{"id": f"n{n}", "text": f"another text of number {n}"} for n in range(40)]
    with Client(dsn) as client:
        client.collection("docs").ingest(many)
    code, out, err = pgseek(*arguments, "--min-overlap", "1")
    assert code == 5, out + err
    assert (
        "of the hits are the same, but 1 are asked for"
        in json.loads(out.splitlines()[-1])["gate"]["reasons"][0]
    )
    assert rows(dsn, "SELECT active_space_id FROM pgseek.collections")[0]["active_space_id"] == 1


def test_an_interrupt_ends_it_cleanly_and_the_same_command_goes_on(dsn, environment, service):
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder="wordllama")
        docs.ingest([{"id": str(n), "text": f"text number {n}"} for n in range(1500)])
    service.latency = 0.3
    command = [
        sys.executable,
        "-m",
        "pgseek",
        "--dsn",
        dsn,
        "reembed",
        "docs",
        "--to",
        "openai:text-embedding-3-small@8",
        "--yes",
    ]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while time.monotonic() < end and not rows(
        dsn,
        "SELECT FROM pg_class WHERE relname = 'embeddings_2' AND EXISTS (SELECT FROM pgseek.embedding_cache"
        " WHERE input_type = 'document')",
    ):
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"running the same command again goes on" in err
    stored = rows(dsn, "SELECT count(*) AS n FROM pgseek.embeddings_2")[0]["n"]
    assert 0 < stored < 1500
    service.latency = 0.0
    asked = len(service.requests)
    made = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert made.returncode == 0, made.stderr
    texts = sum(len(request.texts) for request in service.requests[asked:])
    # The batch that was on its way was finished, and stored; the gate asks fifty queries.
    assert texts <= 1500 - stored + 50
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.embeddings_2")[0]["n"] == 1500
