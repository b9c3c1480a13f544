"""Granularities from the shell: how a collection is made with them, what a plan tells, how hits are shown."""

from __future__ import annotations

import json
import os

import pytest
from providers import ProviderServer
from support import CORPUS, rows

from pgseek import Client, Hit
from pgseek.cli.output import place

GUIDE = "# Guide\n\nWelcome to all of you.\n\n## Install\n\nFetch the archive with curl and unpack it.\n"


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
        "OPENAI_API_KEY": "sk-tests",
        "OPENAI_BASE_URL": service.base_url + "/v1",
        "NO_PROXY": "127.0.0.1",
    }

    def run(*arguments):
        made = commands.run("--dsn", dsn, *arguments, cwd=tmp_path, env=environment)
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


def hit(**given):
    values = dict.fromkeys(Hit.__dataclass_fields__)
    return Hit(**{**values, "kind": "chunk", "provenance": {}, **given})


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, []),
        ({"provenance": {"lines": [3, 3]}}, ["line 3"]),
        ({"provenance": {"lines": [3, 9], "heading": ["A", "B"]}}, ["lines 3-9", "A › B"]),
        ({"provenance": {"page": 2, "last_page": 3}}, ["pages 2-3"]),
        ({"provenance": {"page": 2}}, ["page 2"]),
        ({"kind": "document"}, ["whole document"]),
    ],
)
def test_a_place_is_told_as_far_as_it_is_known(given, shown):
    assert place(hit(**given)) == shown


def test_a_collection_of_all_kinds(pgseek, dsn, service, tmp_path):
    code, out, _ = pgseek(
        "collections", "create", "docs", "--embedder", "openai-compatible:tiny", "--questions", 2, "--summaries",
        "--generator", "openai-compatible:llama", "--document-vectors", "--section-size", 400, "--chunk-size", 60,
    )  # fmt: skip
    assert code == 0, out
    code, out, _ = pgseek("collections", "show", "docs", "--json")
    settings = json.loads(out)["settings"]
    assert settings["generator"] == "openai-compatible:llama"
    assert (settings["questions"], settings["summaries"], settings["collapse"]) == (2, True, True)
    with Client(dsn) as client:
        # As a source that knows formats gives it.
        rows(dsn, "SELECT pgseek.put_document('docs', 'guide', %s, 'Guide', format => 'markdown')", [GUIDE])
        assert client.list_collections()
    service.reset()
    code, out, _ = pgseek("queue", "drain", "docs")
    assert code == 0, out
    chat = [request for request in service.requests if request.path.endswith("/chat/completions")]
    assert len(chat) == 4
    (tmp_path / "more.jsonl").write_text(json.dumps({"id": "more", "text": "some more text"}) + "\n")
    code, out, _ = pgseek("ingest", "docs", "more.jsonl", "--dry-run")
    assert code == 0
    assert "2 requests to the generator with about " in out
    assert "about 120 answered (estimates), 0 answered before" in out
    assert "cost of the generator: unknown" in out
    code, out, _ = pgseek("ingest", "docs", "more.jsonl")
    assert "; 2 requests to the generator" in out
    code, out, _ = pgseek("search", "docs", "archive curl", "--alpha", 0)
    first, second, *_ = out.splitlines()
    assert first.startswith("  1. guide  score")
    assert first.endswith("lines 5-7  Guide › Install")
    assert second.strip().startswith(("question: ", "summary: ", "Fetch", "## Install"))
    assert out.count(". guide") == 1
    code, out, _ = pgseek("search", "docs", "archive curl", "--alpha", 0, "--no-collapse")
    assert out.count(". guide") > 1
    code, out, _ = pgseek("search", "docs", "archive curl", "--alpha", 0, "--json", "--no-collapse")
    found = json.loads(out)
    assert {row["kind"] for row in found} == {"chunk", "question", "summary"}
    assert all(row["section"] for row in found)


def test_a_bound_on_an_unknown_price_is_refused(pgseek):
    pgseek(
        "collections", "create", "docs", "--embedder", "wordllama", "--summaries", "--generator", "openai:unheard-of"
    )  # fmt: skip
    code, _, error = pgseek("ingest", "docs", "corpus.jsonl", "--max-cost", 1)
    assert code == 2
    assert "nothing is known of what openai:unheard-of costs" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--questions", 3], "need somebody to write them"),
        (["--generator", "openai:gpt-4.1-mini"], "nothing for it to write"),
        (["--section-size", 100], "section size is 100"),
        (["--questions", 30, "--generator", "openai:gpt-4.1-mini"], "from 0 to 20"),
    ],
)
def test_options_that_do_not_go_together_are_told(pgseek, options, message):
    code, _, error = pgseek("collections", "create", "docs", *options)
    assert code == 2
    assert message in error
