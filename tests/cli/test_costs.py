"""What an ingest would do and cost, and how a collection is made with an embedder, from the shell."""

from __future__ import annotations

import json
import os

import pytest
from providers import Fault, ProviderServer
from support import CORPUS, rows, snapshot

from pgseek.embedders.base import PROBES

KEY = "sk-nobody-may-see-this"


@pytest.fixture
def service():
    with ProviderServer() as server:
        yield server


@pytest.fixture
def pgseek(dsn, tmp_path, service, commands):
    """Run the command against the database and the service; returns code, standard output and error."""
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(document) + "\n" for document in CORPUS))
    environment = {
        **os.environ,
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": service.base_url + "/v1",
        "NO_PROXY": "127.0.0.1",
    }

    def run(*arguments):
        made = commands.run("--dsn", dsn, *arguments, cwd=tmp_path, env=environment)
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


def test_a_dry_run_says_what_it_would_cost_and_does_nothing(pgseek, dsn, service):
    code, out, _ = pgseek("collections", "create", "docs", "--embedder", "openai:text-embedding-3-small@8")
    assert (code, out) == (0, "created docs with openai:text-embedding-3-small@8\n")
    service.reset()
    before = snapshot(dsn)
    code, out, _ = pgseek("ingest", "docs", "corpus.jsonl", "--dry-run")
    assert code == 0
    assert "6 documents: 6 new, 0 changed" in out
    assert "6 texts embedded with about " in out
    assert "tokens (an estimate), 0 taken from the cache" in out
    assert "at $0.02 per million tokens" in out
    assert "time: at least " in out
    assert service.requests == []
    assert snapshot(dsn) == before
    plan = json.loads(pgseek("ingest", "docs", "corpus.jsonl", "--dry-run", "--json")[1].splitlines()[-1])
    assert (plan["documents"], plan["texts"], plan["exact"]) == (6, 6, False)
    assert plan["cost"] == pytest.approx(plan["tokens"] * 0.02 / 1e6)


def test_an_ingest_ends_before_it_costs_more_than_allowed(pgseek, dsn, service):
    pgseek("collections", "create", "docs", "--embedder", "openai:text-embedding-3-small@8")
    code, _, err = pgseek("ingest", "docs", "corpus.jsonl", "--max-cost", "0.0000001")
    assert code == 1
    assert "max_cost is $1e-07; what was answered is kept: raise max_cost to go on" in " ".join(err.split())
    assert rows(dsn, "SELECT FROM pgseek.documents") == []
    code, out, _ = pgseek("ingest", "docs", "corpus.jsonl", "--max-cost", "1")
    assert code == 0
    assert "tokens billed, $0.0000" in out
    # One of the texts that a model is known by is asked for as a document and as a query.
    assert {times for text, times in service.answered.items() if text not in PROBES} == {1}
    assert pgseek("ingest", "docs", "corpus.jsonl", "--max-cost", "-1")[0] == 2


def test_an_ingest_without_a_service_says_nothing_of_money(pgseek):
    pgseek("collections", "create", "docs", "--embedder", "wordllama@64")
    out = pgseek("ingest", "docs", "corpus.jsonl", "--dry-run")[1]
    assert "6 new" in out
    assert "$" not in out
    assert "time" not in out
    assert "billed" not in pgseek("ingest", "docs", "corpus.jsonl")[1]


def test_long_texts_and_prompts_are_options(pgseek, service):
    made = pgseek(
        "collections", "create", "docs", "--embedder", "openai-compatible:bge-m3", "--query-prompt", "look for: ",
        "--long-texts", "refuse",
    )  # fmt: skip
    assert made[:2] == (0, "created docs with openai-compatible:bge-m3@32\n"), made
    pgseek("ingest", "docs", "corpus.jsonl")
    service.reset()
    # The prompt is the space's: who opens the collection later has it, too.
    assert pgseek("search", "docs", "caching")[0] == 0
    assert [request.texts for request in service.requests] == [("look for: caching",)]
    settings = json.loads(pgseek("collections", "show", "docs", "--json")[1])["settings"]
    assert settings["long_texts"] == "refuse"
    code, _, err = pgseek("collections", "create", "other", "--query-prompt", "q: ")
    assert code == 2
    assert "wordllama has no prompts, but query_prompt was given" in err
    code, _, err = pgseek("collections", "create", "other", "--long-texts", "cut")
    assert code == 2
    assert "long_texts is 'cut', but must be one of average, chunk, refuse, truncate" in err


def test_a_key_is_never_shown(pgseek, service):
    service.faults = lambda _: Fault(401)
    for debug in ((), ("--debug",)):
        code, out, err = pgseek(*debug, "collections", "create", "docs", "--embedder", "openai")
        assert code == 1
        assert "status 401" in err
        assert KEY not in out + err
    assert service.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_dimensions_that_a_model_does_not_give_are_told(pgseek):
    code, _, err = pgseek("collections", "create", "docs", "--embedder", "openai@9999")
    assert code == 2
    assert "1 to 1536 dimensions, not 9999" in err
