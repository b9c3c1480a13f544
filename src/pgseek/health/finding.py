"""What is told of a condition, and how the commands that mend it are written."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from psycopg.sql import Identifier
from psycopg.sql import Literal as Quoted

Severity = Literal["note", "warn", "fail"]
SEVERITIES: tuple[Severity, ...] = ("fail", "warn", "note")


@dataclass(frozen=True, slots=True)
class HealthFinding:
    """A condition of a database that is worth mending.

    ``name`` is stable: programs may go by it. ``severity`` 'fail' is what searches suffer from now, 'warn'
    what costs time or puts data at risk, 'note' what is worth knowing. ``about`` is the index, table,
    setting or collection it is about; ``values`` are what was seen, in bytes, rows or seconds, or as the
    server writes them. ``mend`` is the command or the SQL that mends it; what has to be done besides stands
    in brackets. ``collection`` and ``tenant`` are there where it belongs to one collection.
    """

    name: str
    severity: Severity
    about: str
    seen: str
    means: str
    mend: str
    values: Mapping[str, Any]
    collection: str | None = None
    tenant: str = ""

    def __str__(self) -> str:
        return f"{self.about}: {self.seen}. {self.means}. {self.mend}"


def command(tenant: str, verb: str, *arguments: object) -> str:
    """Return a command of pgseek as a shell reads it."""
    of = f" --tenant {shlex.quote(tenant)}" if tenant else ""
    return f"pgseek{of} {verb} {' '.join(shlex.quote(str(one)) for one in arguments)}".rstrip()


def quoted(name: str) -> str:
    """Return the name of a table or index of pgseek's as SQL reads it."""
    return Identifier("pgseek", name).as_string(None)


def identifier(name: str) -> str:
    """Return a name as SQL reads it."""
    return Identifier(name).as_string(None)


def text(value: str) -> str:
    """Return a value as SQL reads it."""
    return str(Quoted(value).as_string(None))


def size(number: float) -> str:
    """Return a number of bytes as people write it: 7.6 MB."""
    for unit in ("B", "kB", "MB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GB"
