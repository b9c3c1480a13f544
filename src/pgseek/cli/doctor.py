"""``pgseek doctor``."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer
from rich.markup import escape

from pgseek.cli.output import out, print_json
from pgseek.cli.state import state_of
from pgseek.doctor import Check, diagnose
from pgseek.errors import InvalidInput, PgseekError
from pgseek.integrity import Examination, Finding, Repaired, examine, repair


def doctor(
    context: typer.Context,
    collections: Annotated[
        list[str] | None, typer.Argument(help="with --deep: only these collections")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="read everything: is each document whole, and nothing left over?")
    ] = False,
    mend: Annotated[
        bool,
        typer.Option("--repair", help="with --deep: delete orphans, queue documents to be embedded again"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Check everything a search needs; exit code 1 if something is wrong."""
    if not deep and (collections or mend):
        raise InvalidInput(f"{'--repair' if mend else 'naming collections'} needs --deep")
    state = state_of(context)
    settings = state.settings()
    if not deep:
        checks = diagnose(state.dsn, settings, state.data_dir)
        if as_json:
            print_json(checks)
        else:
            _print_checks(checks)
        if not all(check.ok for check in checks):
            raise typer.Exit(1)
        return

    dsn = state.dsn
    # What is wrong with the DSN is one of the checks.
    with contextlib.suppress(PgseekError):
        dsn = state.resolved_dsn()
    checks = diagnose(dsn, settings, state.data_dir, collections=False)
    reachable = all(check.ok for check in checks if check.name != "default embedder")
    examination = examine(dsn, collections or ()) if reachable else None
    repaired = None
    if mend and examination is not None and not examination.ok:
        repaired = repair(dsn, examination)
        examination = examine(dsn, collections or ())
    if as_json:
        print_json({"checks": checks, "examination": examination, "repaired": repaired})
    else:
        _print_checks(checks)
        if examination is not None:
            _print_examination(examination, repaired)
    if examination is None or not (examination.ok and all(check.ok for check in checks)):
        raise typer.Exit(1)


def _print_checks(checks: list[Check]) -> None:
    for check in checks:
        _line(check.ok, check.name, check.detail)


def _print_examination(examination: Examination, repaired: Repaired | None) -> None:
    failed = {finding.collection for finding in examination.findings if not finding.harmless}
    for one in examination.collections:
        counts = (
            f"{one.documents:,} documents, {one.chunks:,} chunks, {one.embeddings:,} embeddings,"
            f" {one.queued:,} in the queue"
        )
        _line(one.name not in failed, f"collection {one.name}", counts)
    _line(not any(f.key == "pages" for f in examination.findings), "pages", examination.pages)
    for key, what in examination.rules.items():
        found = sum(one.broken.get(key, 0) for one in examination.collections)
        out.print(f"{found:>12,}  {escape(what)}", soft_wrap=True)
    for finding in examination.findings:
        _print_finding(finding)
    if repaired is not None:
        queued = sum(repaired.queued.values())
        out.print(
            f"repaired: {repaired.deleted:,} rows deleted, {repaired.corrected:,} chunks corrected,"
            f" {queued:,} documents put in the queue"
        )
        for name in repaired.queued:
            out.print(f"now run: pgseek queue drain {name}")
    out.print(f"examined in {examination.seconds:.1f} s")


def _print_finding(finding: Finding) -> None:
    sign = "[yellow]note[/]" if finding.harmless else "[red]FAIL[/]"
    where = f"{finding.collection}: " if finding.collection else ""
    out.print(f"{sign}  {escape(where)}{escape(str(finding))}", soft_wrap=True)


def _line(ok: bool, name: str, detail: str) -> None:
    sign = "[green]ok[/]  " if ok else "[red]FAIL[/]"
    out.print(f"{sign}  [bold]{escape(name)}[/]  {escape(detail)}", soft_wrap=True)
