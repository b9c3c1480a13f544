"""``pgseek models``: it needs no database and no network."""

from __future__ import annotations

import json

import pytest

from pgseek.embedders.catalog import models


@pytest.fixture
def pgseek(commands):
    """Run ``pgseek models``; returns code, standard output and error."""

    def run(*arguments):
        made = commands.run("--dsn", "postgresql://nobody@127.0.0.1:1/none", "models", *arguments)
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


def test_list_shows_every_model_in_order(pgseek):
    code, out, err = pgseek("list")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[1:]] == [model.spec for model in models()]
    (line,) = [line for line in out.splitlines() if "text-embedding-3-small" in line]
    assert line.split() == [
        "openai:text-embedding-3-small",
        "1",
        "to",
        "1536",
        "8,191",
        "0.02",
        "51.08",
        "BEIR",
        "multilingual",
    ]


def test_list_of_one_provider_as_json(pgseek):
    code, out, _ = pgseek("list", "--provider", "cohere", "--json")
    assert code == 0
    listed = json.loads(out)
    assert [each["spec"] for each in listed] == [m.spec for m in models() if m.provider == "cohere"]
    assert listed[-1]["reductions"] == [256, 512, 1024]
    assert listed[-1]["price_read"] == "2025-04-15"
    code, out, err = pgseek("list", "--provider", "nobody")
    assert (code, out) == (2, "")
    assert (
        "'nobody' is not in the catalogue; known are cohere, openai, sentence-transformers, wordllama" in err
    )


def test_show_describes_a_model_at_a_size(pgseek):
    code, out, err = pgseek("show", "openai:text-embedding-3-large@1024")
    assert (code, err) == (0, "")
    for words in (
        "1 to 3072",
        "$0.13 per million tokens on 2025-10-30",
        "55.44 on BEIR",
        "a million vectors of 1,024",
    ):
        assert words in out
    shown = json.loads(pgseek("show", "openai:text-embedding-3-large@256", "--json")[1])
    assert (shown["dimensions"], shown["at_dimensions"]) == (3072, 256)
    assert shown["index_bytes"] == 166_667 * 8192
    out = pgseek("show", "sentence-transformers:intfloat/e5-small-v2")[1]
    assert "'query: '" in out
    assert "'passage: '" in out
    assert "free, on your own machine" in out
    assert "alpha 0.3, normalization max" in pgseek("show", "wordllama")[1]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("openai:text-embeding-3-large", "did you mean openai:text-embedding-3-large"),
        ("openai:text-embedding-ada-002@512", "only 1536 dimensions, not 512"),
        ("wordllama@x", "'x' after '@' is not a number"),
    ],
)
def test_show_of_an_unknown_model_is_wrong_usage(pgseek, spec, words):
    code, out, err = pgseek("show", spec)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_recommend_gives_reasons_costs_and_sizes(pgseek):
    code, out, err = pgseek("recommend", "--documents", 100_000, "--tokens", 400, "--limit", 2)
    assert (code, err) == (0, "")
    assert out.startswith("  1. openai:text-embedding-3-large@1024\n")
    assert "+ $5.20 to embed every document once, then $0.52 a month" in out
    assert "! $0.13 a million tokens was its price on 2025-10-30" in out
    assert "\n  2. " in out
    assert "\n  3. " not in out
    assert "a million documents: 5.61 GB of vectors, 8.19 GB of index" in out


def test_recommend_as_json_with_every_need(pgseek):
    needs = [
        "--private",
        "--language",
        "de",
        "--language",
        "ja",
        "--budget",
        5,
        "--accuracy",
        "best",
        "--code",
    ]
    code, out, _ = pgseek(
        "recommend",
        "--documents",
        1000,
        "--tokens",
        600,
        *needs,
        "--gpu",
        "--queries",
        10,
        "--monthly",
        7,
        "--json",
    )
    assert code == 0
    answer = json.loads(out)
    assert answer["needs"] == {
        "documents": 1000,
        "mean_tokens": 600,
        "monthly_documents": 7,
        "queries": 10,
        "network": False,
        "languages": ["de", "ja"],
        "budget": 5.0,
        "accuracy": "best",
        "code": True,
        "gpu": True,
    }
    first = answer["recommended"][0]
    assert first["model"]["spec"] == "sentence-transformers:Qwen/Qwen3-Embedding-8B"
    assert (first["dimensions"], first["vectors_per_document"], first["first_cost"]) == (4000, 2, 0)
    assert answer["excluded"]["openai:text-embedding-3-small"] == "texts would leave the network"
    assert len(answer["recommended"]) + len(answer["excluded"]) == len(models())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--documents", "0", "--tokens", "5"], "documents is 0"),
        (["--documents", "5", "--tokens", "5", "--accuracy", "great"], "basic, good, best"),
        (["--documents", "5", "--tokens", "5", "--language", "German"], "ISO 639"),
        (["--documents", "5", "--tokens", "5", "--budget", "-1"], "budget is -1.0"),
        (["--documents", "5"], "--tokens"),
    ],
)
def test_needs_out_of_range_are_wrong_usage(pgseek, given, words):
    code, out, err = pgseek("recommend", *given)
    assert (code, out) == (2, "")
    assert words in err


def test_when_nothing_fits_it_says_which_need_excluded_what(monkeypatch, capsys):
    import typer

    from pgseek.cli import models as command
    from pgseek.embedders import recommend as recommending
    from pgseek.embedders.catalog import Catalogue, catalogue

    services = tuple(model for model in models() if model.provider == "openai")
    only = Catalogue(services, catalogue().benchmarks)
    monkeypatch.setattr(recommending, "catalogue", lambda: only)
    with pytest.raises(typer.Exit) as left:
        command.recommend_(documents=5, tokens=5, private=True)
    assert left.value.exit_code == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [f"{model.spec}: texts would leave the network" for model in services]
    assert "no model of the catalogue fits" in printed.err
