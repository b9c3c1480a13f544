"""The other end of `parsers`: reads requests from standard input and answers each with a document.

A request is a line of JSON, ``[path, format]``. The answer is a line of JSON, too: ``[record]`` or
``[position, id, reason]``. The end of the input is the end of the worker.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from pgseek.errors import MissingExtra
from pgseek.sources.formats import Format
from pgseek.sources.whole import read_file
from pgseek.types import Located


def main() -> None:
    """Answer requests until there are no more."""
    # A library that prints must not spoil the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        path, kind = json.loads(line)
        answer = _answer(path, kind)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(path: str, kind: Format) -> list[Any]:
    try:
        found = read_file(path, kind)
    except MissingExtra as error:
        # Installed, but not to be imported.
        return [0, path, f"{error} ({error.__cause__})"]
    return [found.record] if isinstance(found, Located) else [found.position, found.id, found.reason]
