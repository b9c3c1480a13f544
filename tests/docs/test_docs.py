"""The documentation: every block of README.md and docs/ runs, links lead somewhere, commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import rows

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    return BLOCK.findall(page.read_text())


@pytest.fixture
def shell(dsn, tmp_path):
    """Run a script as a reader would: pgseek on the path, PGSEEK_DSN set, an empty folder."""
    environment = {
        **os.environ,
        "PGSEEK_DSN": dsn,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def run(script):
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs(page, dsn, shell, monkeypatch, tmp_path):
    monkeypatch.setenv("PGSEEK_DSN", dsn)
    # What Python writes is there for the shell, and nowhere else.
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for language, text in blocks(page):
        if language == "sh":
            made = shell(text)
            assert made.returncode == 0, f"{text}\n{made.stdout}{made.stderr}"
        elif language == "python":
            exec(compile(text, str(page), "exec"), namespace)
        elif language == "sql":
            for statement in filter(str.strip, re.split(r";\s*$", text, flags=re.MULTILINE)):
                assert rows(dsn, statement), f"no rows: {statement}"
        else:
            # Shown, not run: sessions with their output, diagrams, layouts.
            assert language in {"console", "mermaid", "text"}, f"{page.name}: a block of {language!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sessions_shown_run_only_the_two_commands_and_ours(page):
    for language, text in blocks(page):
        if language == "console":
            for line in text.splitlines():
                if line.startswith("$ "):
                    assert re.match(
                        r"\$ (make demo|make test|pip install|git clone|docker compose|pgseek |psql )", line
                    )


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_benchmark_named_in_the_readme_exists():
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"benchmarks/\w+\.py", text))
    assert named
    for script in named:
        assert (ROOT / script).is_file()


def test_no_page_holds_a_placeholder():
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        assert not re.search(r"@@\w+@@|TODO|FIXME", page.read_text()), page


def test_no_page_names_a_path_of_one_machine():
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        assert not re.search(r"(?<![\w.])/(work|root|home|opt)/", page.read_text()), page
