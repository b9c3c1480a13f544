"""Ingest from files of many formats, folders, tables and queries, on the command line."""

from __future__ import annotations

import json
import os
import re

import docx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reportlab.pdfgen.canvas import Canvas
from support import rows


@pytest.fixture
def pgseek(dsn, tmp_path, commands):
    """Run the command in an empty folder, with a collection; returns code, standard output and error."""

    def run(*arguments, **environment):
        made = commands.run("--dsn", dsn, *arguments, cwd=tmp_path, env={**os.environ, **environment})
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    assert run("collections", "create", "docs")[0] == 0
    return run


def stored(dsn) -> dict[str, dict]:
    found = rows(dsn, "SELECT external_id, title, body, format, metadata FROM pgseek.documents")
    return {row.pop("external_id"): row for row in found}


def test_a_folder_of_many_formats(pgseek, dsn, tmp_path):
    words = "Caches keep what was computed once, so that whoever asks next need not wait for it. " * 5
    (tmp_path / "a.txt").write_text("plain text")
    (tmp_path / "b.html").write_text(
        f"<html><body><article><h1>Page</h1><p>{words}</p></article></body></html>"
    )
    (tmp_path / "c.py").write_text("def f():\n    return 1\n")
    canvas = Canvas(str(tmp_path / "d.pdf"))
    for page in ("first page", "second page"):
        canvas.drawString(72, 700, page)
        canvas.showPage()
    canvas.save()
    (tmp_path / "broken.pdf").write_bytes(b"no pdf")
    document = docx.Document()
    document.add_heading("Report", 1)
    document.add_paragraph("It went well.")
    document.save(str(tmp_path / "e.docx"))
    pq.write_table(pa.table({"id": ["row"], "text": ["from a table"]}), tmp_path / "f.parquet")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "out.txt").write_text("ignored")
    (tmp_path / ".gitignore").write_text("build/\n")

    code, out, err = pgseek("ingest", "docs", ".")
    assert code == 4
    assert "6 new" in out
    assert "1 rejected" in out
    # One line each, and nothing that the parsers have to say.
    assert len(err.splitlines()) == 2
    assert "broken.pdf" in err
    assert "skipped 1 files by their endings: .png 1" in err
    found = stored(dsn)
    assert {name: row["format"] for name, row in found.items()} == {
        "a.txt": "text",
        "b.html": "markdown",
        "c.py": "python",
        "d.pdf": "pages",
        "e.docx": "markdown",
        "row": "",
    }
    assert found["d.pdf"]["body"] == "first page\fsecond page"
    assert found["d.pdf"]["metadata"]["pages"] == 2
    assert found["e.docx"]["title"] == "Report"
    # The same again: nothing to do.
    (tmp_path / "broken.pdf").unlink()
    code, out, _ = pgseek("ingest", "docs", ".", "--json")
    assert (code, json.loads(out.splitlines()[-1])["unchanged"]) == (0, 6)


def test_a_sync_keeps_what_cannot_be_read_today(pgseek, dsn, tmp_path):
    for name in ("a.html", "b.txt", "c.txt", "d.txt"):
        (tmp_path / name).write_text("<html><body><p>words of a page</p></body></html>")
    assert pgseek("ingest", "docs", ".")[0] == 0
    (tmp_path / "a.html").write_bytes(b"")
    (tmp_path / "b.txt").unlink()
    (tmp_path / "b.txt").symlink_to("nowhere")
    (tmp_path / "c.txt").unlink()
    code, _, err = pgseek("ingest", "docs", ".", "--sync")
    assert code == 4, err
    assert sorted(stored(dsn)) == ["a.html", "b.txt", "d.txt"]


def test_patterns_choose(pgseek, dsn, tmp_path):
    for name in ("docs/a.md", "docs/old/b.md", "docs/c.txt", "docs/.hidden.md", "docs/ignored.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("words")
    (tmp_path / "docs/.gitignore").write_text("ignored.md\n")

    def chosen(*arguments):
        if stored(dsn):
            pgseek("delete", "docs", *stored(dsn))
        code, _, err = pgseek("ingest", "docs", *arguments)
        assert code == 0, err
        return sorted(stored(dsn))

    assert chosen("docs/**/*.md") == ["docs/a.md", "docs/old/b.md"]
    assert chosen("docs", "--include", "*.md", "--exclude", "old/") == ["docs/a.md"]
    assert chosen("docs", "--include", "*.txt", "--include", "a.*") == ["docs/a.md", "docs/c.txt"]
    assert chosen("docs", "--no-gitignore", "--hidden", "--exclude", "old") == [
        "docs/.hidden.md",
        "docs/a.md",
        "docs/c.txt",
        "docs/ignored.md",
    ]


def test_columns_are_mapped(pgseek, dsn, tmp_path):
    (tmp_path / "a.tsv").write_text("sku\tname\tdescription\tprice\tstock\n7\tLamp\tIt shines.\t9.50\t3\n")
    mapping = ("--id", "sku", "--text", "name, description", "--title", "name", "--metadata", "price")
    assert pgseek("ingest", "docs", "a.tsv", *mapping)[0] == 0
    assert stored(dsn) == {
        "7": {"title": "Lamp", "body": "Lamp\n\nIt shines.", "format": "", "metadata": {"price": "9.50"}}
    }
    code, _, err = pgseek("ingest", "docs", "a.tsv", "--id", "sku", "--text", "body")
    assert code == 4
    assert "there is no column 'body'; there are: sku, name, description, price, stock" in err
    assert pgseek("ingest", "docs", "a.tsv", "--id", "sku", "--text", "name", "--metadata", "")[0] == 0
    assert stored(dsn)["7"]["metadata"] == {}


def test_rows_of_a_query(pgseek, dsn, tmp_path):
    rows(
        dsn, "CREATE TABLE articles AS SELECT n AS id, 'article ' || n AS body FROM generate_series(1, 30) n"
    )
    select = ("--sql", "SELECT id, body FROM articles ORDER BY id", "--text", "body")
    code, out, err = pgseek("ingest", "docs", *select)
    assert (code, err) == (0, "")
    assert "30 new" in out
    assert stored(dsn)["7"]["body"] == "article 7"
    code, out, err = pgseek("ingest", "docs", *select, PGSEEK_SOURCE_DSN=dsn)
    assert (code, "30 unchanged" in out) == (0, True)
    code, out, err = pgseek("ingest", "docs", *select, "--dry-run", "--source-dsn", dsn)
    assert (code, "30 unchanged" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give either paths or --sql"),
        (["a.txt", "--sql", "SELECT 1"], 2, "give either paths or --sql"),
        (["--sql", "SELECT 1 AS id"], 2, "there is no column 'text'; there are: id"),
        (["--sql", "SELEC"], 1, "the source's database refused: syntax error"),
        (["--sql", "SELECT 1", "--source-dsn", "postgresql://me:s3cret@127.0.0.1:1/x"], 1, "refused"),
        (["--sql", "SELECT 1", "--source-dsn", "nonsense://me:s3cret@h/x"], 1, "none that SQLAlchemy knows"),
        (["nothing/*.md"], 2, "pattern nothing/*.md holds no file to read"),
        (["a.txt", "--text", ","], 2, "text names no column"),
        (["-", "--format", "nonsense"], 2, "or a language such as python"),
    ],
)
@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_errors_are_told_without_a_password(pgseek, tmp_path, arguments, code, message, debug):
    (tmp_path / "a.txt").write_text("x")
    found, out, err = pgseek(*debug, "ingest", "docs", *arguments)
    assert message in err
    assert "s3cret" not in out + err
    if not debug:
        assert (found, out) == (code, "")
        assert re.fullmatch(r"error: .*\n", err)
