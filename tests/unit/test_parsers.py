"""Parsing in other processes: the same documents in the same order, and an end that is clean."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgseek.errors import MissingExtra
from pgseek.sources import Files, ahead
from pgseek.sources.parsers import Parsers
from pgseek.types import Located, Rejection

PAGE = "<html><head><title>Page {n}</title></head><body><article><h1>Page {n}</h1><p>{text}</p></article></body></html>"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pages, texts and rows by turns, some of them bad."""
    for n in range(40):
        (tmp_path / f"{n:02}.html").write_text(PAGE.format(n=n, text=f"The text of page {n}. " * 20))
        (tmp_path / f"{n:02}.txt").write_text(f"text {n}")
    (tmp_path / "05.html").write_bytes(b"")
    (tmp_path / "07.pdf").write_bytes(b"no pdf")
    (tmp_path / "11.jsonl").write_text('{"id": "a", "text": "x"}\nbad\n{"id": "b", "text": "y"}\n')
    (tmp_path / "13.html").unlink()
    (tmp_path / "13.html").symlink_to("nowhere")
    return tmp_path


@pytest.fixture
def at_once(monkeypatch):
    """Processes are started for the second file, not only when the first have taken long."""
    monkeypatch.setattr(ahead, "POOL_AFTER", 0.0)


@pytest.fixture
def started(monkeypatch) -> list[subprocess.Popen]:
    """The processes that parsers start."""
    found = []
    kept = Parsers._start

    def start(self):
        found.append(kept(self))
        return found[-1]

    monkeypatch.setattr(Parsers, "_start", start)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 30 seconds")


@pytest.mark.parametrize("waiting", [1, 8])
@pytest.mark.parametrize("processes", [1, 3])
def test_the_outcome_does_not_depend_on_the_number_of_processes(
    folder, at_once, started, monkeypatch, waiting, processes
):
    monkeypatch.setattr(ahead, "AHEAD", waiting)
    expected = list(Files(folder, processes=0))
    assert started == []
    assert list(Files(folder, processes=processes)) == expected
    assert 1 <= len(started) <= processes
    assert all(worker.returncode is not None for worker in started)
    assert sum(isinstance(one, Rejection) for one in expected) == 4


def test_few_files_start_no_process(folder, started, monkeypatch):
    monkeypatch.setattr(ahead, "POOL_AFTER", 1000.0)
    assert len(list(Files(folder, processes=2))) == 84
    assert started == []


def test_closing_the_reading_ends_the_processes(folder, at_once, started):
    reading = iter(Files(folder, processes=2))
    for _ in range(20):
        next(reading)
    assert started
    reading.close()
    assert all(worker.returncode is not None for worker in started)


def test_no_more_is_read_ahead_than_is_allowed(folder, at_once, monkeypatch):
    monkeypatch.setattr(ahead, "AHEAD", 4)
    submitted = []
    kept = Parsers.submit

    def submit(self, path, kind):
        submitted.append(path)
        return kept(self, path, kind)

    monkeypatch.setattr(Parsers, "submit", submit)
    reading = iter(Files(folder, processes=1))
    first = [next(reading) for _ in range(3)]
    assert len(first) == 3
    assert len(submitted) <= 3 + 4
    reading.close()


def test_who_would_wait_reads_what_nobody_has_begun(tmp_path, at_once, started, monkeypatch):
    for n in range(12):
        (tmp_path / f"{n:02}.html").write_text(PAGE.format(n=n, text="words " * 100))
    # It begins with the second file, and waits for someone to write into it.
    os.mkfifo(tmp_path / "01x.html")
    queue = ahead.Ahead(1)
    with queue:
        queue.add((str(tmp_path / "00.html"), "html"))
        assert isinstance(queue.take(), Located)
        names = [f"{tmp_path}/{name}.html" for name in ("01x", "01", "02", "03")]
        queue.add((names[0], "html"))
        wait_for(lambda: len(started) == 1 and queue._turns[0].future.running())
        for name in names[1:]:
            queue.add((name, "html"))
        threading.Timer(
            1.0, lambda: Path(names[0]).write_text(PAGE.format(n=1, text="late words " * 50))
        ).start()
        assert "late words" in queue.take().record["text"]
        # Read here meanwhile, and not by the one process that was busy.
        assert [turn.future for turn in queue._turns] == [None] * 3
        assert [queue.take().source for _ in range(3)] == names[1:]


@pytest.fixture
def parsers():
    made = Parsers(1)
    yield made
    made.close()


def test_a_process_that_dies_costs_its_file_only(parsers, started, folder, tmp_path):
    os.mkfifo(tmp_path / "never.html")
    good = str(folder / "00.html")
    assert isinstance(parsers.submit(good, "html").result(60), Located)
    waiting = parsers.submit(str(tmp_path / "never.html"), "html")
    after = parsers.submit(good, "html")
    (worker,) = started
    # It waits for someone to write; it is killed as a parser that takes too much memory would be.
    time.sleep(0.2)
    worker.kill()
    lost = waiting.result(60)
    assert isinstance(lost, Rejection)
    assert lost.id == lost.source == str(tmp_path / "never.html")
    assert lost.reason.startswith("the process that read it as html ended (exit code -9)")
    assert isinstance(after.result(60), Located)
    assert len(started) == 2


def test_closing_does_not_wait_for_a_file(tmp_path, started):
    os.mkfifo(tmp_path / "never.html")
    parsers = Parsers(2)
    for _ in range(6):
        parsers.submit(str(tmp_path / "never.html"), "html")
    wait_for(lambda: len(started) == 2)
    before = time.monotonic()
    parsers.close()
    assert time.monotonic() - before < 10
    assert [worker.returncode for worker in started] == [-9, -9]


SCRIPT = r"""
    # Not guarded by __name__ == "__main__": with multiprocessing this would run again in every worker.
    import sys, time
    from pgseek.sources import Files, ahead
    from pgseek.sources.parsers import Parsers
    print("the script runs", flush=True)
    ahead.POOL_AFTER = 0.0
    started = []
    kept = Parsers._start
    def start(self):
        worker = kept(self)
        # In one piece: threads print at the same time.
        sys.stdout.write(f"worker {worker.pid}\n")
        sys.stdout.flush()
        started.append(worker)
        return worker
    Parsers._start = start
    {body}
"""


@contextlib.contextmanager
def script(folder: Path, body: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script in a session of its own, which ends with the test."""
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT).replace("{body}", body))
    with subprocess.Popen(
        [sys.executable, folder / "script.py", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def alive(worker: int) -> bool:
    try:
        return Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_script_needs_no_guard(folder):
    with script(folder, "print(len(list(Files(sys.argv[1], processes=2))))") as running:
        out, err = running.communicate(timeout=120)
    # What a parser has to say of a broken file is not ours.
    assert (running.returncode, "Error" in err) == (0, False)
    lines = out.splitlines()
    assert lines.count("the script runs") == 1
    # The script itself lies in the folder.
    assert lines[-1] == "85"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, -2), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_no_process_outlives_the_reading(folder, sent, code):
    body = (
        "found = iter(Files(sys.argv[1], processes=2))\nwhile not started: next(found)\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    with script(folder, body) as running:
        lines: list[str] = []
        while "ready" not in lines:
            lines.append(running.stdout.readline().strip())
            assert lines[-1], running.stderr.read()
        workers = [int(line.split()[1]) for line in lines if line.startswith("worker ")]
        assert workers
        # As a terminal does: to the whole group.
        os.killpg(running.pid, sent)
        running.communicate(timeout=60)
    assert running.returncode == code
    wait_for(lambda: not any(map(alive, workers)))


def test_without_the_extra_a_named_file_is_an_error_and_one_in_a_folder_a_rejection(
    fresh_python, folder, tmp_path
):
    printed = fresh_python(
        f"""
        import sys
        sys.modules.update(dict.fromkeys(["trafilatura", "pypdf", "docx", "pyarrow", "pathspec"]))
        from pgseek import Files, MissingExtra
        from pgseek.types import Rejection
        found = list(Files({str(folder)!r}))
        print(sum(not isinstance(one, Rejection) for one in found))
        print(sorted({{one.reason for one in found if isinstance(one, Rejection)}}))
        for name in ("00.html", "07.pdf", "new.docx", "new.parquet"):
            open({str(folder)!r} + "/" + name, "a").close()
            try:
                Files({str(folder)!r} + "/" + name)
            except MissingExtra as error:
                print(error)
        for options in ({{"include": ["*.txt"]}}, {{"exclude": ["*.txt"]}}):
            try:
                Files({str(folder)!r}, **options)
            except MissingExtra as error:
                print(error)
        open({str(folder)!r} + "/.gitignore", "w").write("*.md\\n")
        try:
            Files({str(folder)!r})
        except MissingExtra as error:
            print(error)
        print(len(list(Files({str(folder)!r}, gitignore=False))))
        """
    )
    install = "is not installed; pip install 'pgseek[files]'"
    good, reasons, *errors, all_ = printed.splitlines()
    assert (good, all_) == ("42", "86")
    assert f"trafilatura, which reads html, {install}" in reasons
    assert errors == [
        f"trafilatura, which reads html, {install}",
        f"pypdf, which reads pdf, {install}",
        f"python-docx, which reads docx, {install}",
        f"pyarrow, which reads parquet, {install}",
        *[f"pathspec, which reads patterns and .gitignore, {install}"] * 3,
    ]


def test_a_package_that_is_there_and_broken_is_told(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "trafilatura.py").write_text("raise ImportError('its own need')")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.delitem(sys.modules, "trafilatura", raising=False)
    (tmp_path / "a.html").write_text("x")
    parsers = Parsers(1)
    try:
        found = parsers.submit(str(tmp_path / "a.html"), "html").result(60)
    finally:
        parsers.close()
    assert isinstance(found, Rejection)
    assert found.reason.endswith("(its own need)")
    with pytest.raises(MissingExtra):
        list(Files(tmp_path / "a.html", processes=0))
