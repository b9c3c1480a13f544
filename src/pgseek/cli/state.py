"""What the global options say, handed to every command."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import typer

from pgseek.client import Client
from pgseek.config import Settings
from pgseek.db.session import resolve_dsn


@dataclass(frozen=True, slots=True)
class State:
    """The global options. ``dsn`` is kept out of ``repr``."""

    dsn: str | None = field(repr=False)
    data_dir: Path | None
    tenant: str | None = None

    def client(self) -> Client:
        """Return a client that has not connected yet."""
        return Client(self.dsn, data_dir=self.data_dir, tenant=self.tenant)

    def settings(self) -> Settings:
        """Return the settings, with ``--data-dir`` and ``--tenant`` in force."""
        given = {"data_dir": self.data_dir, "tenant": self.tenant}
        return Settings(**{name: value for name, value in given.items() if value is not None})

    def resolved_dsn(self, *, migrate: bool = True) -> str:
        """Return the DSN in force, starting the embedded server where it is that one's."""
        return resolve_dsn(self.dsn, self.data_dir, self.settings(), migrate=migrate)


def state_of(context: typer.Context) -> State:
    """Return the options of the running command."""
    state = context.find_object(State)
    if state is None:
        raise RuntimeError("the command was called without the global options")
    return state
