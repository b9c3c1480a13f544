"""``pgseek doctor``."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Annotated

import typer
from rich.markup import escape

from pgseek.cli.index import Shown
from pgseek.cli.output import out, print_json
from pgseek.cli.state import state_of
from pgseek.client import Client
from pgseek.db.connection import with_tenant
from pgseek.doctor import Check, diagnose
from pgseek.errors import InvalidInput, PgseekError
from pgseek.health.finding import HealthFinding
from pgseek.health.recall import QUERIES, RECALL, SpaceRecall
from pgseek.indexing.measuring import Aim, described
from pgseek.integrity import Examination, Finding, Repaired, examine, repair
from pgseek.types import ProbeReport, SpaceProbe

SIGNS = {"fail": "[red]FAIL[/]", "warn": "[yellow]warn[/]", "note": "[yellow]note[/]"}


@dataclass(frozen=True, slots=True)
class _Seen:
    """All that was asked for; None is what was not, or could not be looked at."""

    checks: list[Check]
    health: tuple[HealthFinding, ...] | None = None
    examination: Examination | None = None
    repaired: Repaired | None = None
    probes: ProbeReport | None = None
    recall: tuple[SpaceRecall, ...] | None = None

    @property
    def ok(self) -> bool:
        found = [*(self.health or ()), *(one.finding for one in self.recall or () if one.finding)]
        return (
            all(check.ok for check in self.checks)
            and not any(one.severity == "fail" for one in found)
            and (self.examination is None or self.examination.ok)
            and (self.probes is None or self.probes.ok)
        )


def doctor(
    context: typer.Context,
    collections: Annotated[
        list[str] | None, typer.Argument(help="with --deep, --probe or --recall: only these collections")
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
    recall: Annotated[
        bool,
        typer.Option("--recall", help="search by a sample of queries, and exactly: what do searches miss?"),
    ] = False,
    queries: Annotated[int, typer.Option(help="with --recall: queries of each space, 10..10,000")] = QUERIES,
    k: Annotated[int, typer.Option("--k", help="with --recall: the nearest that must be found")] = 10,
    at_least: Annotated[
        float, typer.Option("--at-least", help="with --recall: the share of them below which it fails")
    ] = RECALL,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Check everything a search needs, and what slows it down; exit code 1 if something is wrong.

    FAIL is what searches suffer from now; warn and note leave the exit code 0. All that is read for them is
    the catalogue and what the server counted.

    --probe embeds six short texts, about sixty tokens, with the model of each embedding space, and compares
    them with what was stored when the space was made: a provider that changed a model under its name is told.
    Of a space made before revision 0006 five stored chunks are compared, once.
    """
    if mend and not deep:
        raise InvalidInput("--repair needs --deep")
    if collections and not (deep or probe or recall):
        raise InvalidInput("naming collections needs --deep, --probe or --recall")
    aim = Aim(at_least, k, queries)
    state = state_of(context)
    settings = state.settings()
    dsn = state.dsn
    if deep:
        # What is wrong with the DSN is one of the checks.
        with contextlib.suppress(PgseekError):
            dsn = with_tenant(state.resolved_dsn(), settings.tenant)
    checks = diagnose(dsn, settings, state.data_dir, collections=not deep)
    seen = _Seen(checks)
    if all(check.ok for check in checks if check.name != "default embedder"):
        if deep:
            examination = examine(dsn, collections or ())
            if mend and not examination.ok:
                repaired = repair(dsn, examination)
                seen = replace(seen, repaired=repaired)
                examination = examine(dsn, collections or ())
            seen = replace(seen, examination=examination)
        with state.client() as client:
            seen = replace(seen, health=_health(client, seen.examination))
            if probe:
                seen = replace(seen, probes=client.probe(collections or None))
            if recall:
                with Shown(as_json, events=False) as shown:
                    found = client.recall(
                        collections or None,
                        queries=aim.sample,
                        k=aim.k,
                        recall=aim.recall,
                        progress=shown,
                    )
                seen = replace(seen, recall=found)
    if as_json:
        print_json(_json(seen, deep=deep, probe=probe, recall=recall))
    else:
        _print(seen)
    if not seen.ok:
        raise typer.Exit(1)


def _health(client: Client, examination: Examination | None) -> tuple[HealthFinding, ...]:
    """Return the findings, less those that an examination has already told of."""
    told = set() if examination is None else {finding.key for finding in examination.findings}
    return tuple(one for one in client.health() if one.name not in told)


def _json(seen: _Seen, *, deep: bool, probe: bool, recall: bool) -> dict[str, object]:
    made: dict[str, object] = {"checks": seen.checks, "health": seen.health}
    if deep:
        made |= {"examination": seen.examination, "repaired": seen.repaired}
    if probe:
        made["probes"] = _spaces(seen.probes)
    if recall:
        made["recall"] = seen.recall
    return made


def _print(seen: _Seen) -> None:
    for check in seen.checks:
        _line(check.ok, check.name, check.detail)
    if seen.health is not None:
        _print_health(seen.health)
    if seen.examination is not None:
        _print_examination(seen.examination, seen.repaired)
    _print_probes(seen.probes)
    for one in seen.recall or ():
        _print_recall(one)


def _print_health(findings: tuple[HealthFinding, ...]) -> None:
    if not findings:
        _line(True, "health", "nothing to mend")
    for one in findings:
        _print_one(one)


def _print_one(one: HealthFinding) -> None:
    out.print(
        f"{SIGNS[one.severity]}  [bold]{one.name}[/]  {escape(one.about)}: {escape(one.seen)}", soft_wrap=True
    )
    out.print(f"      {escape(one.means)}", soft_wrap=True)
    out.print(f"      mend: {escape(one.mend)}", soft_wrap=True)


def _print_recall(one: SpaceRecall) -> None:
    name = f"recall of {one.collection}, space {one.space_id} ({one.model})"
    if one.recall is None:
        out.print(f"[yellow]note[/]  [bold]{escape(name)}[/]  {escape(one.detail)}", soft_wrap=True)
        return
    by = "queries asked before" if one.source == "queries" else "stored vectors, each without itself"
    detail = (
        f"{one.recall:.4f} of the {one.k} nearest with {described(one.settings)}, by {one.queries:,} {by}, "
        f"over {one.rows:,} rows; {one.p50 or 0:.1f} ms, exact {one.exact_p50 or 0:.1f} ms"
    )
    if one.finding is None:
        _line(True, name, detail)
        return
    out.print(f"{SIGNS[one.finding.severity]}  [bold]{escape(name)}[/]  {escape(detail)}", soft_wrap=True)
    out.print(f"      {escape(one.finding.means)}", soft_wrap=True)
    out.print(f"      mend: {escape(one.finding.mend)}", soft_wrap=True)


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
