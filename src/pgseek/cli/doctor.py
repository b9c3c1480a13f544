"""``pgseek doctor``."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer
from rich.markup import escape

from pgseek.cli.output import out, print_json
from pgseek.cli.state import State, state_of
from pgseek.db.connection import with_tenant
from pgseek.doctor import Check, diagnose
from pgseek.errors import InvalidInput, PgseekError
from pgseek.integrity import Examination, Finding, Repaired, examine, repair
from pgseek.types import ProbeReport, SpaceProbe


def doctor(
    context: typer.Context,
    collections: Annotated[
        list[str] | None, typer.Argument(help="with --deep or --probe: only these collections")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="read everything: is each document whole, and nothing left over?")
    ] = False,
    mend: Annotated[
        bool,
        typer.Option("--repair", help="with --deep: delete orphans, queue documents to be embedded again"),
    ] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="embed a few texts with each model: does it still give the vectors that are stored?",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Check everything a search needs; exit code 1 if something is wrong.

    --probe embeds six short texts, about sixty tokens, with the model of each embedding space, and compares
    them with what was stored when the space was made: a provider that changed a model under its name is told.
    Of a space made before revision 0006 five stored chunks are compared, once.
    """
    if mend and not deep:
        raise InvalidInput("--repair needs --deep")
    if collections and not (deep or probe):
        raise InvalidInput("naming collections needs --deep or --probe")
    state = state_of(context)
    settings = state.settings()
    if not deep:
        checks = diagnose(state.dsn, settings, state.data_dir)
        probed = _probe(state, checks, collections) if probe else None
        if as_json:
            print_json({"checks": checks, "probes": _spaces(probed)} if probe else checks)
        else:
            _print_checks(checks)
            _print_probes(probed)
        if not _well(checks, probed):
            raise typer.Exit(1)
        return

    dsn = state.dsn
    # What is wrong with the DSN is one of the checks.
    with contextlib.suppress(PgseekError):
        dsn = with_tenant(state.resolved_dsn(), settings.tenant)
    checks = diagnose(dsn, settings, state.data_dir, collections=False)
    reachable = all(check.ok for check in checks if check.name != "default embedder")
    examination = examine(dsn, collections or ()) if reachable else None
    repaired = None
    if mend and examination is not None and not examination.ok:
        repaired = repair(dsn, examination)
        examination = examine(dsn, collections or ())
    probed = _probe(state, checks, collections) if probe else None
    if as_json:
        found = {"checks": checks, "examination": examination, "repaired": repaired}
        print_json({**found, "probes": _spaces(probed)} if probe else found)
    else:
        _print_checks(checks)
        if examination is not None:
            _print_examination(examination, repaired)
        _print_probes(probed)
    if examination is None or not (examination.ok and _well(checks, probed)):
        raise typer.Exit(1)


def _probe(state: State, checks: list[Check], collections: list[str] | None) -> ProbeReport | None:
    """Probe the models if the database can be used; None if it cannot."""
    if not any(check.ok for check in checks if check.name == "schema"):
        return None
    with state.client() as client:
        return client.probe(collections or None)


def _well(checks: list[Check], probed: ProbeReport | None) -> bool:
    return all(check.ok for check in checks) and (probed is None or probed.ok)


def _spaces(probed: ProbeReport | None) -> tuple[SpaceProbe, ...]:
    return () if probed is None else probed.spaces


def _print_probes(probed: ProbeReport | None) -> None:
    for one in _spaces(probed):
        name = f"{one.collection}, space {one.space_id} ({one.model})"
        if one.outcome == "not probed" and not one.recorded:
            out.print(
                f"[yellow]note[/]  [bold]{escape(name)}[/]  not probed: {escape(one.detail)}", soft_wrap=True
            )
        else:
            _line(one.ok, name, one.detail)


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
