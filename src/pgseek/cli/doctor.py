"""``pgseek doctor``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from pgseek.cli.output import out, print_json
from pgseek.cli.state import state_of
from pgseek.doctor import diagnose


def doctor(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False
) -> None:
    """Check everything a search needs; exit code 1 if something is wrong."""
    state = state_of(context)
    checks = diagnose(state.dsn, state.settings(), state.data_dir)
    if as_json:
        print_json(checks)
    else:
        for check in checks:
            sign = "[green]ok[/]  " if check.ok else "[red]FAIL[/]"
            out.print(f"{sign}  [bold]{escape(check.name)}[/]  {escape(check.detail)}", soft_wrap=True)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
