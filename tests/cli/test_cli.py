"""The command line: every command, its exit code, its JSON, and errors in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from support import CORPUS, rows

from pgseek import Client, collections, copies
from pgseek.cli.main import app
from pgseek.db.revisions import HEAD


@pytest.fixture
def pgseek(dsn, tmp_path, commands):
    """Run the command on a database of its own; returns code, standard output and error."""

    def run(*arguments, stdin=b"", with_dsn=True):
        given = ["--dsn", dsn] if with_dsn else []
        made = commands.run(*given, *arguments, stdin=stdin, cwd=tmp_path)
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in CORPUS))
    return path


def test_a_whole_round(pgseek, corpus, tmp_path):
    assert pgseek("collections", "create", "docs")[:2] == (0, "created docs with wordllama:l2_supercat@256\n")
    code, out, _ = pgseek("ingest", "docs", corpus, "--json")
    assert code == 0
    assert {"new": 6, "documents": 6, "rejected": []}.items() <= json.loads(out.splitlines()[-1]).items()
    code, out, _ = pgseek("ingest", "docs", corpus)
    assert code == 0
    assert "6 unchanged" in out

    code, out, err = pgseek("search", "docs", "cache a function", "-k", "2")
    assert (code, err) == (0, "")
    assert "functools.lru_cache" not in err
    assert "1. lru_cache" in out
    code, out, _ = pgseek("search", "docs", "cache a function", "--explain", "--alpha", "0.5")
    assert "dense" in out.splitlines()[0]
    assert out.splitlines()[1].split()[:2] == ["1", "lru_cache"]
    code, out, _ = pgseek("search", "docs", "zzz", "--filter", "module=nowhere")
    assert (code, out) == (0, "")

    code, out, _ = pgseek("get", "docs", "errno", "--json")
    assert json.loads(out)["metadata"] == {"module": "errno", "year": 1994}
    assert pgseek("get", "docs", "none")[0] == 3
    assert pgseek("get", "docs", "errno")[1].startswith("id        errno\n")
    assert pgseek("delete", "docs", "errno", "none")[:2] == (3, "deleted 1 of 2\n")
    assert pgseek("delete", "docs", "reduce")[:2] == (0, "deleted 1 of 1\n")

    assert json.loads(pgseek("collections", "show", "docs", "--json")[1])["documents"] == 4
    assert "documents" in pgseek("collections", "show", "docs")[1]
    assert [info["name"] for info in json.loads(pgseek("collections", "list", "--json")[1])] == ["docs"]
    assert "docs" in pgseek("collections", "list")[1]
    code, _, err = pgseek("collections", "drop", "docs")
    assert (code, "--yes" in err) == (2, True)
    assert pgseek("collections", "drop", "docs", "--yes")[:2] == (0, "dropped docs\n")
    assert pgseek("search", "docs", "x")[0] == 3


def test_rejections_are_told_with_their_place_and_the_rest_goes_in(pgseek, tmp_path):
    pgseek("collections", "create", "docs")
    (tmp_path / "bad.jsonl").write_bytes(b'{"id": "1", "text": "good"}\nnot json\n{"id": "2"}\n\xff\n')
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9")
    (tmp_path / "good.md").write_text("# A title\n\nSome words.")
    (tmp_path / "rows.csv").write_text("id,text,year\n7,words in a cell,1999\n8\n")
    code, out, err = pgseek("ingest", "docs", ".")
    assert code == 4
    assert "3 new" in out
    assert "5 rejected" in out
    for line in (
        "bad.jsonl:2: line 2 is not JSON",
        "bad.jsonl:3 (id '2'): the document has no text",
        "bad.jsonl:4: not UTF-8: byte 0xff at offset 0",
        "bad.txt:1 (id 'bad.txt'): not UTF-8: byte 0xe9 at offset 3",
        "rows.csv:3 (id '8'): line 3 has fewer cells",
    ):
        assert line in err
    assert json.loads(pgseek("get", "docs", "7", "--json")[1])["metadata"] == {"year": "1999"}
    assert json.loads(pgseek("get", "docs", "good.md", "--json")[1])["title"] == "A title"
    code, out, _ = pgseek("ingest", "docs", "bad.txt", "--json")
    assert code == 4
    assert json.loads(out.splitlines()[-1])["rejected"][0]["source"] == "bad.txt"


@pytest.mark.parametrize(
    ("given", "stdin", "name"),
    [
        ([], b'{"id": "1", "text": "from a pipe"}\n', "1"),
        (["--format", "csv"], b"id,text\r\n1,from a pipe\r\n", "1"),
        (["--format", "text"], b"from a pipe", "-"),
    ],
)
def test_standard_input(pgseek, given, stdin, name):
    pgseek("collections", "create", "docs")
    assert pgseek("ingest", "docs", "-", *given, stdin=stdin)[0] == 0
    assert pgseek("get", "docs", name)[1].endswith("from a pipe\n")


def test_documents_put_through_sql_are_drained(pgseek, dsn):
    pgseek("collections", "create", "docs")
    rows(dsn, "SELECT pgseek.put_document('docs', '1', 'from SQL')")
    assert json.loads(pgseek("queue", "status", "docs", "--json")[1])["waiting"] == 1
    code, out, _ = pgseek("doctor", "--json")
    (waiting,) = [one for one in json.loads(out)["health"] if one["name"] == "queue_waiting"]
    assert (code, waiting["severity"], waiting["mend"]) == (0, "note", "pgseek queue drain docs")
    assert pgseek("queue", "drain", "docs")[0] == 0
    assert pgseek("queue", "status", "docs")[1].splitlines()[1].split() == ["docs", "0", "0", "0", "0", "-"]
    assert pgseek("doctor")[0] == 0


def test_what_cannot_be_embedded_is_listed_and_tried_again_when_told(pgseek, dsn):
    pgseek("collections", "create", "docs")
    rows(dsn, "SELECT pgseek.put_document('docs', '1', 'one'), pgseek.put_document('docs', '2', 'two')")
    # As if its workers had died, each time.
    exhausted = "UPDATE pgseek.ingest_queue SET attempts = 8 WHERE document_id = pgseek.document_id('1')"
    rows(dsn, exhausted)
    code, out, err = pgseek("queue", "drain", "docs")
    assert (code, "1 changed" in out, "1 rejected" in out) == (4, True, True)
    assert "1 were given up (pgseek queue failed docs)" in err
    (failure,) = json.loads(pgseek("queue", "failed", "docs", "--json")[1])
    assert (failure["id"], failure["attempts"], failure["error"]) == ("1", 8, "no attempt is left")
    assert "8 attempts: no attempt is left" in pgseek("queue", "failed", "docs")[1]
    code, out, _ = pgseek("doctor", "--json")
    (failed,) = [one for one in json.loads(out)["health"] if one["name"] == "queue_failed"]
    assert (code, failed["values"], failed["collection"]) == (1, {"failed": 1}, "docs")
    (status,) = json.loads(pgseek("queue", "status", "--json")[1])
    assert (status["waiting"], status["failed"], status["oldest"]) == (0, 1, None)
    assert pgseek("queue", "retry", "docs", "nothing")[1] == "0 documents are due again\n"
    assert pgseek("queue", "retry", "docs", "1")[1] == "1 documents are due again\n"
    rows(dsn, exhausted)
    code, out, err = pgseek("worker", "--once", "--json")
    assert (code, json.loads(out)["failed"], err) == (4, 1, "")
    assert pgseek("queue", "retry", "docs")[1] == "1 documents are due again\n"
    code, out, err = pgseek("worker", "--once")
    assert (code, out) == (0, "")
    assert err.startswith("docs: 1 documents, 1 chunks, 1 texts embedded, ")
    assert pgseek("queue", "failed", "docs") == (0, "", "no document was given up\n")
    assert pgseek("doctor")[0] == 0


def test_a_table_is_attached_and_detached(pgseek, dsn, tmp_path):
    pgseek("collections", "create", "docs")
    rows(dsn, 'CREATE TABLE "My Table" (id int PRIMARY KEY, "a, b" text, c text)')
    rows(dsn, """INSERT INTO "My Table" VALUES (1, 'zebra', 'x')""")
    attach = ("attach", '"My Table"', "--collection", "docs", "--id", "id", "--text", '"a, b",c')
    code, out, err = pgseek(*attach)
    assert (code, "CREATE OR REPLACE TRIGGER" in out) == (0, True)
    assert "set down_revision" in err
    assert pgseek(*attach, "--sql", "--output", "a.sql")[0] == 0
    assert "BEGIN;" in (tmp_path / "a.sql").read_text()
    code, out, err = pgseek(*attach, "--apply")
    assert (code, out) == (0, "")
    assert err == 'done: keep collection docs in step with public."My Table"\n'
    assert pgseek("get", "docs", "1")[1].endswith("zebra\n\nx\n")
    for wrong, message in (
        (["--output", "x.py", "--directory", "y"], "exclude each other"),
        (["--sql", "--directory", "y"], "--directory is for revisions"),
    ):
        code, out, err = pgseek("detach", '"My Table"', *wrong)
        assert (code, out, message in err) == (2, "", True)
    assert pgseek("detach", '"My Table"', "--delete-documents", "--apply")[0] == 0
    assert pgseek("get", "docs", "1")[0] == 3


def test_the_schema_commands(pgseek, dsn):
    assert pgseek("db", "current")[:2] == (0, f"{HEAD} (this pgseek needs {HEAD})\n")
    assert json.loads(pgseek("db", "check", "--json")[1]) == {"differences": []}
    assert pgseek("db", "check")[:2] == (0, f"the schema is what revision {HEAD} says\n")
    code, _, err = pgseek("db", "downgrade", "base")
    assert (code, "--yes" in err) == (2, True)
    assert pgseek("db", "downgrade", "base", "--yes")[:2] == (0, "the schema was removed\n")
    assert json.loads(pgseek("db", "current", "--json")[1]) == {"revision": None, "head": HEAD}
    code, _, err = pgseek("search", "docs", "x")
    assert (code, err) == (1, "error: the database holds no pgseek schema; run: pgseek db upgrade\n")
    assert pgseek("db", "upgrade")[:2] == (0, f"the schema is at revision {HEAD}\n")
    rows(dsn, "ALTER TABLE pgseek.chunks ADD COLUMN extra int")
    assert pgseek("db", "check")[0] == 1


def test_the_embedded_server_commands(pgseek, data_dir):
    where = ["--data-dir", data_dir]
    try:
        assert json.loads(pgseek(*where, "server", "status", "--json", with_dsn=False)[1])["running"] is False
        code, _, err = pgseek(*where, "server", "dsn", with_dsn=False)
        assert (code, "pgseek server start" in err) == (1, True)
        dsn = pgseek(*where, "server", "start", with_dsn=False)[1].strip()
        assert pgseek(*where, "server", "dsn", with_dsn=False)[1].strip() == dsn
        assert "running" in pgseek(*where, "server", "status", with_dsn=False)[1]
        code, _, err = pgseek(*where, "collections", "list", with_dsn=False)
        assert (code, "using the embedded PostgreSQL" in err) == (0, True)
        assert rows(dsn, "SELECT 1 AS one") == [{"one": 1}]
    finally:
        assert pgseek(*where, "server", "stop", with_dsn=False)[1] == "stopped\n"
    assert pgseek(*where, "server", "stop", with_dsn=False)[1] == "it was not running\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "docs", "x", "-k", "0"], 2, "k is 0, but must be a whole number from 1 to 10,000"),
        (["search", "docs", "x", "-k", "10001"], 2, "k is 10001"),
        (["search", "docs", ""], 2, "the query is empty"),
        (["search", "docs", "x", "--alpha", "1.5"], 2, "alpha is 1.5"),
        (["search", "docs", "x", "--fusion", "sum"], 2, "fusion is 'sum'"),
        (["search", "docs", "x", "--filter", "nonsense"], 2, "'nonsense' is not key=value"),
        (["search", "docs", "x", "--filter", "{bad"], 2, "is not JSON"),
        (["search", "docs", "x", "--filter", "$.a =="], 2, "not a jsonpath predicate"),
        (["search", "dosc", "x"], 3, "did you mean 'docs'"),
        (["search"], 2, "Missing argument"),
        (["search", "docs", "x", "-k", "many"], 2, "search --help"),
        (["nonsense"], 2, "nonsense"),
        (["ingest", "docs", "missing.jsonl"], 2, "there is no file missing.jsonl"),
        (["ingest", "docs", "-", "--format", "xml"], 2, "format is 'xml'"),
        (["collections", "create", "it's"], 2, "1 to 63 ASCII letters"),
        (["collections", "create", "docs"], 1, "exists already"),
        (["collections", "create", "new", "--embedder", "openai:nope"], 2, "is unknown"),
        (["--data-dir", "x", "collections", "list"], 2, "exclude each other"),
        (["db", "upgrade", "nonsense"], 2, "0001"),
    ],
)
def test_errors_are_one_line_with_a_code_that_means_something(pgseek, arguments, code, message):
    pgseek("collections", "create", "docs")
    found, out, err = pgseek(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_traceback_only_with_debug(pgseek):
    assert "Traceback" not in pgseek("search", "none", "x")[2]
    assert "Traceback" in pgseek("--debug", "search", "none", "x")[2]


def test_a_password_is_not_shown(pgseek):
    for flags in ([], ["--debug"]):
        code, out, err = pgseek(
            "--dsn", "postgresql://me:s3cret@127.0.0.1:9/db", *flags, "collections", "list", with_dsn=False
        )
        assert code == 1
        assert "s3cret" not in out + err


def test_a_reader_that_goes_away_is_no_error(pgseek, dsn, corpus):
    pgseek("collections", "create", "docs")
    pgseek("ingest", "docs", corpus)
    made = subprocess.run(
        f"'{sys.executable}' -m pgseek --dsn \"{dsn}\" search docs function --json | head -c 5",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stderr) == (0, "")


def every_command():
    """Every command as the words that call it."""
    found = [(command.name or command.callback.__name__,) for command in app.registered_commands]
    for group in app.registered_groups:
        for command in group.typer_instance.registered_commands:
            found.append((group.name, command.name or command.callback.__name__.rstrip("_")))
    return sorted(found)


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_help(commands, words):
    made = commands.run(*words, "--help")
    assert made.returncode == 0, made.stderr
    assert b"Usage: " in made.stdout
    assert len(made.stdout.strip().splitlines()) > 3


def test_the_demo_answers_five_queries_and_a_second_run_finds_all_unchanged(pgseek):
    code, out, err = pgseek("demo")
    assert code == 0, err
    # Whoever waits for long is told how far it is.
    seconds = float(re.search(r"documents in ([0-9.]+) s", out)[1])
    assert err == "" or (seconds > 5 and re.fullmatch(r"(read [0-9,]+ .*\n|building indexes\n)+", err)), err
    assert " 0 rejected" in out
    assert out.count("”") == 5
    for expected in ("functools.lru_cache", "errno", "collections.deque.remove", "Try next"):
        assert expected in out
    new = int(out.split(" new,")[0].split()[-1].replace(",", ""))
    assert new > 5000
    code, out, _ = pgseek("demo")
    assert code == 0
    assert f"{new:,} unchanged" in out


def test_a_copy_is_told_with_its_collection_only(pgseek, corpus, dsn):
    pgseek("collections", "create", "docs")
    pgseek("ingest", "docs", corpus)
    with Client(dsn) as client:
        info = client._run(collections.find("docs"))
        copy = client._run(copies.begin(info, "wordllama", {"chunk_size": 50}))
        assert "copy under way" in pgseek("collections", "show", "docs")[1]
        client._run(copies.fill(copy))
    assert (
        f"{copy.name}: 6 of 6 documents, 6 waiting for embeddings" in pgseek("collections", "show", "docs")[1]
    )
    shown = json.loads(pgseek("collections", "show", "docs", "--json")[1])
    assert {"name": copy.name, "of": 6, "documents": 6, "queued": 6}.items() <= shown["copy"].items()
    assert [one["name"] for one in json.loads(pgseek("collections", "list", "--json")[1])] == ["docs"]
    assert copy.name in pgseek("queue", "status")[1]
    assert copy.name not in pgseek("doctor")[1]
    code, out, _ = pgseek("doctor", "--deep", "docs")
    assert code == 0
    assert f"collection {copy.name}" in out
    assert "docs~" in pgseek("worker", "docs", "--once")[2]
    assert pgseek("collections", "drop", copy.name, "--yes")[:2] == (0, f"dropped {copy.name}\n")
    assert "copy" not in pgseek("collections", "show", "docs")[1]
