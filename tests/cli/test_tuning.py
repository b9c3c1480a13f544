"""``pgseek tune``, ``pgseek golden``, and ``pgseek eval`` as a gate."""

from __future__ import annotations

import json

import pytest
from support import rows

from pgseek import Client


@pytest.fixture
def pgseek(commands, dsn, tmp_path):
    def run(*arguments):
        done = commands.run("--dsn", dsn, *map(str, arguments), cwd=tmp_path)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


def fill(dsn, folder):
    with Client(dsn) as client:
        docs = client.create_collection("docs", alpha=1.0)
        docs.ingest(
            {
                "id": f"d{n}",
                "title": f"E-{4000 + n}",
                "text": f"The device number {n} reports a failure. Replace part {n * 7 % 50} of it at once.",
            }
            for n in range(50)
        )
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"id": f"q{n}", "text": f"error E-{4000 + n}"}) + "\n" for n in range(30))
    )
    (folder / "qrels.txt").write_text("".join(f"q{n} 0 d{n} 1\n" for n in range(30)))
    return ["--queries", "queries.jsonl", "--qrels", "qrels.txt"]


@pytest.fixture
def judged(dsn, tmp_path):
    """A collection whose queries ask for a title's word; the vectors of wordllama find little of it."""
    return fill(dsn, tmp_path)


@pytest.fixture(scope="module")
def untouched(module_dsn, tmp_path_factory):
    """The same for commands that change nothing: its database, and the folder of its files."""
    folder = tmp_path_factory.mktemp("judged")
    fill(module_dsn, folder)
    return module_dsn, folder


def alpha(dsn):
    (row,) = rows(dsn, "SELECT (settings ->> 'alpha')::float8 AS alpha FROM pgseek.collections")
    return row["alpha"]


QUICK = ["--no-bm25", "--folds", "2", "--repeats", "1"]


def test_a_dry_run_tells_and_writing_writes(pgseek, judged, dsn, tmp_path):
    code, out, err = pgseek("tune", "docs", *judged, *QUICK, "--dry-run", "--plot", "alpha.svg")
    assert code == 0, err
    assert "qrels.txt in docs: 30 queries (30 identifier), 2 folds × 1" in out
    assert "a significant gain (p < 0.05); winner:" in out
    assert "nothing was written: a dry run" in out
    assert alpha(dsn) == 1
    assert (tmp_path / "alpha.svg").stat().st_size > 5000
    code, out, err = pgseek("tune", "docs", *judged, *QUICK, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["significant"] is True
    assert found["written"]["written"] is True
    assert found["current"]["alpha"] == 1
    assert alpha(dsn) == found["winner"]["alpha"] < 1
    assert {curve["kind"] for curve in found["curves"]} == {"all", "identifier"}
    code, out, _ = pgseek("tune", "docs", *judged, *QUICK)
    assert (code, "so it stays" in out, out.endswith("nothing was written\n")) == (0, True, True)


def test_without_judgements_queries_are_made_and_nothing_is_written_unasked(pgseek, judged, dsn):
    code, out, err = pgseek("tune", "docs", *QUICK, "--known", "30")
    assert code == 0, err
    assert "known items of the collection: 30 titles, 30 sentences in docs: 60 queries" in out
    assert "the queries were made of the documents themselves" in err
    assert "is written on demand only (--write" in out
    assert alpha(dsn) == 1
    code, out, err = pgseek("tune", "docs", *QUICK, "--known", "30", "--write")
    assert (code, "written: searches have nDCG@10" in out) == (0, True), err
    assert alpha(dsn) < 1


def test_clicks_tune_too(pgseek, judged, dsn):
    rows(
        dsn,
        "CREATE TABLE clicks AS SELECT 'error E-' || 4000 + n AS query, 'd' || n AS document, 1 AS clicked"
        " FROM generate_series(0, 29) AS n, generate_series(1, 3)",
    )
    code, out, err = pgseek(
        "tune", "docs", "--clicks", "clicks", "--signal-column", "clicked", *QUICK, "--dry-run"
    )
    assert code == 0, err
    assert "clicks: 90 rows, 30 pairs, 30 judged; 30 of 30 queries in docs" in out
    assert "people click what stands on top" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--queries", "queries.jsonl"], 2, "--queries is given without --qrels"),
        (["--qrels", "qrels.txt"], 2, "--qrels is given without --queries"),
        (["--qrels", "qrels.txt", "--queries", "none"], 2, "cannot read queries from none"),
        (["--golden", "g", "--clicks", "c"], 2, "given by --golden and by --clicks"),
        (["--golden", "g"], 2, "has no golden set 'g'"),
        (["--golden", "g", "--generator", "openai:x"], 2, "--generator writes queries where none are judged"),
        (["--generator", "nobody:x"], 2, "generator provider 'nobody' is unknown"),
        (["--clicks", "none"], 2, 'relation "none" does not exist'),
        (["--plot", "alpha.gif"], 2, "ends in none of .png, .svg, .pdf"),
        (["--measure", "nDCQ"], 2, "measure 'nDCQ' is unknown"),
        (["--folds", "1"], 2, "folds is 1"),
        (["--known", "0"], 2, "count is 0"),
        (["--known", "2"], 2, "4 judged queries are too few for 5 folds"),
        (["--significance", "0"], 2, "significance is 0"),
    ],
)
def test_wrong_input_is_told_in_one_line(commands, untouched, arguments, code, message):
    dsn, folder = untouched
    done = commands.run("--dsn", dsn, "tune", "docs", *arguments, cwd=folder)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert (done.returncode, out) == (code, "")
    assert message in err
    assert (err.startswith("error: "), err.count("\n")) == (True, 1)


def test_golden_sets_from_import_to_drop(pgseek, judged, tmp_path):
    assert "no golden sets yet" in pgseek("golden", "list", "docs")[1]
    code, out, err = pgseek("golden", "import", "docs", "errors", *judged)
    assert (code, out) == (0, "errors: 30 queries, 30 judgements\n"), err
    code, _, err = pgseek("golden", "import", "docs", "errors", *judged)
    assert (code, "or replace it (--replace)" in err) == (2, True)
    (tmp_path / "qrels.txt").write_text("q1 0 d1 2\nq1 0 gone 1\n")
    code, out, err = pgseek("golden", "import", "docs", "errors", *judged, "--replace", "--json")
    assert (code, json.loads(out)["judgements"]) == (0, 2)
    assert "1 of the judged documents are not in docs" in err
    assert json.loads(pgseek("golden", "list", "docs", "--json")[1])[0]["name"] == "errors"
    code, out, _ = pgseek("golden", "show", "docs", "errors")
    assert "d1 (2), gone (1)" in out
    shown = json.loads(pgseek("golden", "show", "docs", "errors", "--json")[1])
    assert shown["qrels"] == {"q1": {"d1": 2, "gone": 1}}
    code, out, err = pgseek("golden", "export", "docs", "errors", "set")
    assert code == 0, err
    assert pgseek("golden", "import", "docs", "again", "--beir", "set")[0] == 0
    code, out, err = pgseek("eval", "docs", "--golden", "again", "--mode", "lexical", "--json")
    assert (code, json.loads(out)["judged"]) == (0, "golden set again"), err
    code, _, err = pgseek("golden", "show", "docs", "error")
    assert (code, "did you mean 'errors'?" in err) == (2, True)
    assert pgseek("golden", "drop", "docs", "errors")[0] == 0
    assert pgseek("golden", "drop", "docs", "errors")[0] == 2
    code, _, err = pgseek("golden", "import", "docs", "new")
    assert (code, "no judged queries are given" in err) == (2, True)
    assert pgseek("golden", "list", "nowhere")[0] == 3


def test_calibrate_takes_a_golden_set(pgseek, judged):
    assert pgseek("golden", "import", "docs", "errors", *judged)[0] == 0
    code, out, err = pgseek("calibrate", "docs", "--golden", "errors", "--json")
    assert (code, json.loads(out)["queries"]) == (0, 30), err
    code, _, err = pgseek("calibrate", "docs")
    assert (code, "or --clear" in err) == (2, True)


def test_a_gate_passes_and_fails(pgseek, judged, dsn, tmp_path):
    rows(dsn, "UPDATE pgseek.collections SET settings = settings || '{\"alpha\": 0.2}'")
    run = ["eval", "docs", *judged, "--mode", "hybrid"]
    code, _, err = pgseek(*run, "--save", "run.json")
    assert code == 0, err
    saved = (tmp_path / "run.json").read_text()
    assert pgseek(*run, "--save", "again.json")[0] == 0
    assert (tmp_path / "again.json").read_text() == saved
    assert json.loads(saved)["settings"]["alpha"] == 0.2

    code, out, err = pgseek(
        *run, "--baseline", "run.json", "--fail-under", "nDCG@10=0.9", "--max-drop", "AP=0.01"
    )
    assert (code, err) == (0, "")
    assert "passed: nDCG@10 of hybrid is 1.0000, which is not below 0.9" in out
    assert "passed: AP of hybrid was 1.0000 and is 1.0000 (+0.0000, p = 1.0000, 30 queries)" in out

    rows(dsn, "UPDATE pgseek.collections SET settings = settings || '{\"alpha\": 1}'")
    code, out, err = pgseek(*run, "--baseline", "run.json", "--save", "run.json")
    assert code == 5
    assert "error: nDCG@10 of hybrid was 1.0000 and is" in err
    assert "a significant drop (p < 0.05)" in err
    assert "lost most:" in err
    assert "q1" in err
    assert "settings differ: alpha was 0.2 and is 1" in err
    assert "run.json stays as it was, since the gate failed" in err
    assert (tmp_path / "run.json").read_text() == saved
    assert "nDCG@10" in out
    code, out, err = pgseek(*run, "--fail-under", "P@1=0.9", "--json")
    assert code == 5
    gate = json.loads(out)["gate"]
    assert (gate["passed"], gate["verdicts"][0]["measure"]) == (False, "P@1")
    assert "P@1 of hybrid is" in err
    code, _, err = pgseek(*run, "--baseline", "run.json", "--max-drop", "R@100=0.9")
    assert code == 0, err
    code, _, err = pgseek(
        "eval", "docs", *judged, "--mode", "rrf", "--baseline", "run.json", "--max-drop", "AP=0"
    )
    assert (code, "mode 'rrf' is not in the saved run, which has hybrid" in err) == (2, True)


def test_the_help_names_the_exit_code(pgseek):
    assert "5 a gate of quality failed" in " ".join(pgseek("--help")[1].replace("│", " ").split())
