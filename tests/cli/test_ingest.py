"""``pgseek ingest``: events, rejects, strictness, sync, and an end in the middle."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console
from support import rows

from pgseek import Client, IngestReport
from pgseek.cli import progress


def command(dsn, *arguments):
    return [sys.executable, "-m", "pgseek", "--dsn", dsn, "ingest", "docs", *map(str, arguments)]


@pytest.fixture
def ingest(dsn, tmp_path, commands):
    """Run ``pgseek ingest docs …`` with records on standard input; returns code, output and error."""
    with Client(dsn) as client:
        client.create_collection("docs")

    def run(*arguments, records=()):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        made = commands.run(
            "--dsn", dsn, "ingest", "docs", "-", *arguments, stdin=lines.encode(), cwd=tmp_path
        )
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


def numbered(first, last):
    return [{"id": str(n), "text": f"text number {n}"} for n in range(first, last)]


BAD = [
    {"id": "empty", "text": "  "},
    {"id": "nul", "text": "a\x00b"},
    {"id": "surrogate", "text": "a\ud800b"},
    {"id": "deep", "text": "x", "metadata": {"a": {"b": {"c": {"d": {}}}}}},
    {"id": "token", "text": "x" * 100_000},
]


def test_events_end_in_the_report(ingest):
    code, out, err = ingest("--json", records=[*numbered(0, 1200), *BAD])
    events = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (4, "")
    assert events[-1]["event"] == "done"
    assert {"new": 1200, "documents": 1205, "stage": "done"}.items() <= events[-1].items()
    assert [r["position"] for r in events[-1]["rejected"]] == [1201, 1202, 1203, 1204, 1205]
    told = [event for event in events[:-1] if event["event"] == "progress"]
    assert len(told) == len(events) - 1
    assert {"stage": "indexing", "new": 1200, "read": 1205, "rejected": 5, "total": None}.items() <= told[
        -1
    ].items()


def test_rejects_can_be_mended_and_given_again(ingest, tmp_path):
    code, _, err = ingest("--rejects", "rejects.jsonl", records=[*numbered(0, 2), *BAD])
    assert code == 4
    assert "-:3 (id 'empty'): the document has no text" in err
    lines = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [(line["source"], line["position"], line["id"]) for line in lines] == [
        ("-", n, record["id"]) for n, record in enumerate(BAD, 3)
    ]
    assert [line["document"] for line in lines] == BAD
    assert "lone surrogate at character 1" in lines[2]["reason"]
    mended = [{**line["document"], "text": "good", "metadata": {}} for line in lines]
    assert ingest(records=mended)[0] == 0


def test_invalid_utf8_is_rejected_with_its_place(dsn, ingest, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "1", "text": "good"}\n{"id": "2", "text": "\xff"}\n')
    made = subprocess.run(
        command(dsn, "a.jsonl", "--rejects", "r.jsonl"),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert made.returncode == 4
    assert "a.jsonl:2: not UTF-8: byte 0xff" in made.stderr
    assert json.loads((tmp_path / "r.jsonl").read_text())["document"] is None


def test_a_rejects_file_that_cannot_be_written_is_said_before_anything_is_stored(ingest, dsn):
    code, _, err = ingest("--rejects", "nowhere/r.jsonl", records=numbered(0, 2))
    assert code == 2
    assert "--rejects nowhere/r.jsonl cannot be written: No such file" in err
    assert rows(dsn, "SELECT FROM pgseek.documents") == []


def test_strict_stops_at_the_first(ingest, dsn):
    code, _, err = ingest("--strict", records=[*numbered(0, 2), *BAD, *numbered(2, 9)])
    assert code == 1
    assert "document -:3 ('empty'): the document has no text" in err
    assert len(rows(dsn, "SELECT FROM pgseek.documents")) == 2


def test_a_sync_is_previewed_guarded_and_done(ingest, dsn):
    ingest(records=numbered(0, 10))
    code, out, _ = ingest("--sync", "--dry-run", records=numbered(8, 10))
    assert code == 0
    assert "8 of 10 stored documents are not in the source: 0, 1, 2, 3, 4, 5, 6, 7\n" in out
    code, _, err = ingest("--sync", records=numbered(8, 10))
    assert code == 1
    assert "8 of 10 documents are not in the source" in err
    assert "max_removed" in err
    assert len(rows(dsn, "SELECT FROM pgseek.documents")) == 10
    code, out, _ = ingest("--sync", "--max-removed", "0.8", records=numbered(8, 10))
    assert (code, len(rows(dsn, "SELECT FROM pgseek.documents"))) == (0, 2)
    assert "8 removed" in out


def test_a_sync_within_a_filter(ingest, dsn):
    ingest(
        records=[{**d, "metadata": {"from": "wiki" if int(d["id"]) < 5 else "mail"}} for d in numbered(0, 10)]
    )
    wiki = [{**d, "metadata": {"from": "wiki"}} for d in numbered(2, 5)]
    code, out, _ = ingest("--sync-within", "from=wiki", "--json", records=wiki)
    assert (code, json.loads(out.splitlines()[-1])["removed"]) == (0, 2)
    assert len(rows(dsn, "SELECT FROM pgseek.documents")) == 8


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_an_interrupt_leaves_whole_documents_and_says_how_to_go_on(dsn, ingest, tmp_path, number):
    process = subprocess.Popen(
        command(dsn, "-"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdin.write("".join(json.dumps(record) + "\n" for record in numbered(0, 1600)))
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not rows(dsn, "SELECT FROM pgseek.documents LIMIT 1") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "running the same command again goes on where it stopped" in err
    assert "Traceback" not in err
    stored = len(rows(dsn, "SELECT FROM pgseek.documents"))
    assert stored in {500, 1000, 1500}
    assert len(rows(dsn, "SELECT FROM pgseek.embeddings_1")) == stored
    code, out, _ = ingest("--json", records=numbered(0, 1600))
    report = json.loads(out.splitlines()[-1])
    assert (code, report["unchanged"], report["new"]) == (0, stored, 1600 - stored)


def test_a_terminal_shows_rates_by_stage(dsn, ingest, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in numbered(0, 1200)))
    main, other = pty.openpty()
    process = subprocess.Popen(
        command(dsn, path),
        stderr=other,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
    )
    os.close(other)
    shown = b""
    try:
        while chunk := os.read(main, 65536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(main)
    assert process.wait(60) == 0
    process.stdout.close()
    text = shown.decode()
    assert "read 1,200" in text
    assert "/s) · stored" in text


def test_a_short_ingest_says_nothing_on_the_way(ingest):
    code, out, err = ingest(records=numbered(0, 1200))
    assert code == 0
    seconds = float(re.match(r"1,200 documents in ([0-9.]+) s", out)[1])
    assert err == "" or seconds > 5


def test_without_a_terminal_lines_tell_rates_and_what_is_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(progress, "err", Console(stderr=True, highlight=False))
    with progress.IngestProgress(4000) as shown:
        shown(
            IngestReport(
                new=900, unchanged=100, embedded=1200, cached=300, seconds=2.0, read=1500, stage="storing"
            )
        )
        shown(IngestReport(new=4000, seconds=8.0, read=4000, stage="indexing"))
    assert capsys.readouterr().err.splitlines() == [
        "read 1,500 (750/s) · embedded 1,500 (750/s) · stored 1,000 (500/s) · about 6 s left",
        "building indexes",
    ]
