"""``pgseek duplicates``, ``threshold`` and ``answers``, as a stranger would use them."""

from __future__ import annotations

import csv
import io
import json

import pytest
from support import CORPUS

TEXT = "Goods may be sent back within thirty days, unworn and in their box, with the {} that came with them."


@pytest.fixture
def shop(client):
    docs = client.create_collection("shop")
    docs.ingest(CORPUS)
    docs.ingest({"id": f"copy{n}", "text": TEXT.format("receipt")} for n in range(6))
    docs.ingest([{"id": "near", "text": TEXT.format("receipt").upper() + " Thanks!"}])
    return docs


@pytest.fixture
def run(dsn, commands, tmp_path):
    def run(*words):
        done = commands.run("--dsn", dsn, *map(str, words), cwd=tmp_path)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


def test_groups_are_printed_written_and_deleted(shop, run):
    code, out, err = run("duplicates", "shop", "--min-similarity", "0.9")
    assert code == 0, err
    assert "1 groups with 6 documents beside their representatives, of 13 in shop" in out
    assert "and 1 more" in out
    code, out, _ = run("duplicates", "shop", "--min-similarity", "0.9", "--format", "jsonl")
    (group,) = map(json.loads, out.splitlines())
    assert {one["id"] for one in group["documents"]} == {"near", *(f"copy{n}" for n in range(6))}
    assert group["representative"] == group["documents"][0]["id"]
    code, out, _ = run("duplicates", "shop", "--exact", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert len(lines) == 6
    assert {line["similarity"] for line in lines} == {"1.000"}
    code, _, err = run("duplicates", "shop", "--min-similarity", "0.9", "--write", "duplicate_of")
    assert (code, "7 documents have another duplicate_of now" in err) == (0, True)
    assert shop.get("near").metadata == {"duplicate_of": group["representative"]}
    code, out, err = run("duplicates", "shop", "--exact", "--delete", "--yes")
    assert (code, "deleted 5 documents" in err) == (0, True)
    assert shop.count() == 8
    code, out, _ = run("duplicates", "shop", "--exact")
    assert out.startswith("0 groups with 0 documents beside their representatives, of 8 in shop; equal texts")


def test_passages_that_are_repeated(shop, run):
    code, out, _ = run("duplicates", "shop", "--passages")
    assert (code, "copy0" in out, "Goods may be sent back" in out) == (0, True, True)
    code, out, _ = run("duplicates", "shop", "--passages", "--format", "jsonl")
    assert json.loads(out)["documents"] == 6
    code, out, _ = run("duplicates", "shop", "--passages", "--format", "csv")
    assert out.splitlines()[0] == "documents,chunks,ids,text"


def test_thresholds_are_found_kept_and_used(shop, run, tmp_path):
    pairs = [("copy0", f"copy{n}", 1) for n in range(1, 6)] + [("near", "copy1", 1)]
    pairs += [(one["id"], "near", 0) for one in CORPUS]
    (tmp_path / "pairs.csv").write_text("one,other,same\n" + "".join(f"{a},{b},{c}\n" for a, b, c in pairs))
    code, out, err = run("threshold", "shop", "--pairs", "pairs.csv", "--plot", "threshold.svg")
    assert code == 0, err
    assert "6 pairs are the same, 6 are different" in out
    assert "say --prevalence" in out
    svg = (tmp_path / "threshold.svg").read_text()
    assert "precision" in svg
    assert "different (6)" in svg
    code, out, _ = run("threshold", "shop", "--list")
    assert out.startswith("deduplication: 0.")
    kept = float(out.split()[1].strip(","))
    code, out, _ = run("duplicates", "shop")
    assert f"cosine from {kept:.3f}" in out
    code, out, _ = run(
        "threshold", "shop", "--pairs", "pairs.csv", "--prevalence", "0.001", "--json", "--no-store"
    )
    assert json.loads(out)["corrected"] is True
    assert json.loads(out)["prevalence"] == pytest.approx(0.001)
    code, out, _ = run("threshold", "shop", "--sample", 13, "--json")
    assert (code, json.loads(out)["same"]) == (0, 5)
    assert run("threshold", "shop", "--clear")[0] == 0
    assert run("threshold", "shop", "--list")[1] == "no threshold is kept with the active space\n"


def test_a_question_that_nothing_answers_has_no_hits(shop, run, tmp_path):
    queries = [(one["text"], 1) for one in CORPUS] + [
        (f"weather in {one}", 0) for one in ("Rome", "Bonn", "Oslo", "Bern", "Kyiv")
    ]
    (tmp_path / "queries.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in queries))
    code, _, err = run("search", "shop", "weather in Lima", "--min-dense-score", "calibrated")
    assert (code, "keeps no threshold for 'no_answer'; find one with pgseek threshold shop" in err) == (
        2,
        True,
    )
    code, out, err = run("threshold", "shop", "--for", "no_answer", "--pairs", "queries.tsv")
    assert code == 0, err
    assert run("search", "shop", "weather in Lima", "--min-dense-score", "calibrated")[1] == ""
    code, out, _ = run("search", "shop", CORPUS[0]["text"], "--min-dense-score", "calibrated", "--json")
    assert json.loads(out)[0]["id"] == CORPUS[0]["id"]


def test_answers_are_shown_pruned_and_cleared(shop, run):
    assert run("answers", "stats", "shop")[1] == "no answers are kept\n"
    shop.put_answer("how long can I return goods", "thirty days", documents=["near"])
    shop.put_answer("how long can I return goods", "sixty days", scope="gold")
    code, out, _ = run("answers", "stats", "shop", "--json")
    assert [(one["scope"], one["answers"], one["outdated"]) for one in json.loads(out)] == [
        ("", 1, 0),
        ("gold", 1, 0),
    ]
    assert "gold" in run("answers", "stats", "shop")[1]
    shop.delete("near")
    assert run("answers", "prune", "shop")[1] == "deleted 1 answers\n"
    assert run("answers", "clear", "shop", "--scope", "")[1] == "deleted 0 answers\n"
    assert (
        run("answers", "clear", "shop", "--query", "How long can I return goods?", "--json")[1]
        == '{\n  "deleted": 1\n}\n'
    )
    code, _, err = run("answers", "clear", "shop")
    assert (code, "say --yes to confirm" in err) == (2, True)
    assert run("answers", "clear", "shop", "--yes")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["duplicates", "shop", "--format", "xml"],
            "--format is 'xml', but must be one of table, jsonl, csv",
        ),
        (["duplicates", "shop", "--min-similarity", "95"], "min_similarity is 95.0, but must lie in -1..1"),
        (["duplicates", "shop", "--min-overlap", "2"], "min_overlap is 2.0, but must lie in 0..1"),
        (["duplicates", "shop", "--exact", "--again"], "--exact compares no vectors"),
        (["duplicates", "shop", "--passages", "--delete"], "--passages only shows"),
        (["duplicates", "shop", "--delete"], "look at it without --delete first, then say --yes"),
        (["duplicates", "shop", "--write", ""], "the field is ''"),
        (["duplicates", "shop", "--space", "9"], "has no embedding space '9'"),
        (["threshold", "shop", "--for", "cache"], "purpose is 'cache', but must be one of deduplication"),
        (["threshold", "shop", "--for", "no_answer"], "give --pairs, or --set"),
        (["threshold", "shop", "--for", "no_answer", "--sample", "5"], "label pairs instead"),
        (["threshold", "shop", "--set", "0.9", "--clear"], "exclude each other"),
        (["threshold", "shop", "--set", "9"], "the threshold is 9.0, but must lie in -1..1"),
        (["threshold", "shop", "--pairs", "nowhere.csv"], "cannot read nowhere.csv"),
        (
            ["threshold", "shop", "--pairs", "bad.csv"],
            "bad.csv:2: ['a', 'b', 'perhaps'] is not 2 values and a label",
        ),
        (["threshold", "shop", "--pairs", "bad.jsonl"], "bad.jsonl:1: not JSON"),
        (
            ["threshold", "shop", "--pairs", "few.csv"],
            "1 of the 64 pairs are the same, but it takes at least 5",
        ),
        (["threshold", "shop", "--plot", "x.gif"], "the picture 'x.gif' ends in none of"),
        (
            ["threshold", "shop", "--precision", "1"],
            "target_precision is 1.0, but must be above 0 and below 1",
        ),
        (["search", "shop", "x", "--min-dense-score", "high"], "--min-dense-score is 'high', but must be"),
    ],
    ids=lambda given: " ".join(given[1:]) if isinstance(given, list) else "",
)
def test_wrong_input_says_what_would_be_right(shop, run, tmp_path, words, message):
    (tmp_path / "bad.csv").write_text("one,other,same\na,b,perhaps\n")
    (tmp_path / "bad.jsonl").write_text("{not json\n")
    (tmp_path / "few.csv").write_text("copy0,copy1,yes\n")
    code, _, err = run(*words)
    assert code == 2
    assert message in " ".join(err.split())


def test_a_collection_that_is_not_there(run):
    for words in (["duplicates", "x"], ["threshold", "x"], ["answers", "stats", "x"]):
        assert run(*words)[0] == 3
