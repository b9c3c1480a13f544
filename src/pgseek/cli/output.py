"""How results look: tables and colours for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pgseek.types import Hit, IngestPlan, IngestReport, Match, Rejection, SearchReport

# In a pipe there is no width to fit into.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 500)
err = Console(stderr=True, highlight=False)

# Control characters cannot be typed, so they cannot be confused with the text around them.
MARKS = ("\x02", "\x03")


def complain(message: str) -> None:
    """Print one line about an error to standard error."""
    one_line = " ".join(message.split())
    err.print(f"[bold red]error:[/] {escape(one_line)}", soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON; dataclasses become objects, other values text."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=2, default=str) + "\n")


def print_event(event: str, value: Any, **more: Any) -> None:
    """Print a value and ``more`` as one line of JSON, at once: its key ``event`` says what it is."""
    line = {"event": event, **plain(value), **more}
    sys.stdout.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def plain(value: Any) -> Any:
    """Return a value made of mappings, lists and what is neither: dataclasses become mappings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table in the house style."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column)
    return made


def marked(snippet: str) -> Text:
    """Return a snippet with the words between `MARKS` emphasised."""
    text = Text()
    parts = " ".join(snippet.split()).replace(MARKS[1], MARKS[0]).split(MARKS[0])
    for number, part in enumerate(parts):
        text.append(part, "bold yellow" if number % 2 else "")
    return text


def leg(score: float | None, rank: int | None) -> str:
    """Return a leg's raw score and rank, ``-`` where it has none."""
    shown = "-" if score is None else f"{score:.3f}"
    return f"{shown} #{rank}" if rank is not None else f"{shown} -"


def print_hits(hits: list[Hit], *, explain: bool = False) -> None:
    """Print hits with score, both legs and snippet; with ``explain`` as a table."""
    if not hits:
        err.print("no hits")
        return
    if hits[0].degraded:
        err.print(f"[yellow]note:[/] {escape(hits[0].degraded)}", soft_wrap=True)
    for typed, meant in sorted(_corrections(hits).items()):
        err.print(f"[yellow]note:[/] no document has “{escape(typed)}”; searched for {escape(meant)}")
    if explain:
        out.print(_explained(hits))
        return
    for hit in hits:
        out.print(
            f"{hit.rank:>3}. [bold]{escape(hit.id)}[/]  score {hit.score:.3f}  [dim]dense "
            f"{leg(hit.dense_score, hit.dense_rank)}  lexical {leg(hit.lexical_score, hit.lexical_rank)}"
            f"{_reranked(hit)}"
            f"{escape(''.join(f'  {part}' for part in place(hit)))}[/]",
            soft_wrap=True,
        )
        if hit.matched_text is not None:
            out.print(
                Text(f"     {hit.kind}: ", "dim") + Text(" ".join(hit.matched_text.split())), soft_wrap=True
            )
        out.print(Text("     ") + marked(hit.snippet or hit.text[:200]), soft_wrap=True)
        _print_more(hit)


def _print_more(hit: Hit) -> None:
    """Print what was asked for besides the hit: its surroundings, other passages, and its repetitions."""
    if hit.context is not None:
        out.print(Text("     around it: ", "dim") + Text(" ".join(hit.context.split())), soft_wrap=True)
    for passage in hit.other_passages:
        out.print(
            Text(f"     also, {passage.score:.3f}: ", "dim") + Text(" ".join(passage.text.split())[:200]),
            soft_wrap=True,
        )
    if hit.duplicates:
        out.print(f"     [dim]repeated by {escape(', '.join(hit.duplicates))}[/]", soft_wrap=True)


def _reranked(hit: Hit) -> str:
    """Return what a reranker gave, and the rank before; nothing where there was none."""
    return "" if hit.fused_rank is None else f"  reranker {leg(hit.rerank_score, hit.fused_rank)} before"


def print_stages(report: SearchReport) -> None:
    """Print how long each part of a search took, and what was written for the query."""
    for text in report.texts:
        out.print(Text("written: ", "dim") + Text(" ".join(text.split())), soft_wrap=True)
    parts = ", ".join(f"{name} {seconds * 1000:.1f}" for name, seconds in report.stages.items())
    out.print(f"[dim]milliseconds: {parts}; in all {report.seconds * 1000:.1f}[/]", soft_wrap=True)


def place(hit: Hit) -> list[str]:
    """Return where a hit stands, as far as that is known: kind, page, lines, headings."""
    found = ["whole document"] if hit.kind == "document" else []
    known = hit.provenance
    for name, first, last in (
        ("page", known.get("page"), known.get("last_page")),
        ("line", *(known.get("lines") or (None, None))),
    ):
        if first is not None:
            found.append(f"{name} {first}" if last in {first, None} else f"{name}s {first}-{last}")
    if known.get("heading"):
        found.append(" › ".join(known["heading"]))
    return found


def _corrections(hits: list[Hit]) -> dict[str, str]:
    """Return what stands for words that no document has."""
    found: dict[str, set[str]] = {}
    for hit in hits:
        for match in hit.matched:
            if match.origin is not None and not match.origin.endswith("*"):
                found.setdefault(match.origin, set()).add(match.lexeme)
    return {typed: ", ".join(sorted(lexemes)) for typed, lexemes in found.items()}


def _explained(hits: list[Hit]) -> Table:
    """Return a table of what each leg and each lexeme added to each hit's score."""
    anew = hits[0].fused_rank is not None
    made = table(
        *("", "id", "chunk", *(["reranker", "before"] if anew else [])),
        *("score", "=  dense", "of cosine", "place", "+  lexical", "of", "place", "by"),
    )
    for hit in hits:
        made.add_row(
            str(hit.rank),
            escape(hit.id),
            str(hit.ordinal),
            *([_number(hit.rerank_score), str(hit.fused_rank)] if anew else []),
            f"{hit.score:.4f}",
            _number(hit.dense_contribution),
            _number(hit.dense_score),
            str(hit.dense_rank or "-"),
            _number(hit.lexical_contribution),
            _number(hit.lexical_score),
            str(hit.lexical_rank or "-"),
            escape(" ".join(map(_matched, hit.matched))),
        )
    return made


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _matched(match: Match) -> str:
    weight = "" if match.weight is None else f" {match.weight:.2f}"
    origin = "" if match.origin is None else f" (for {match.origin})"
    return f"{match.lexeme}{origin}{weight}"


def print_report(report: IngestReport, shown: int = 10) -> None:
    """Print the counts of an ingest and its first rejections."""
    rate = report.documents / report.seconds if report.seconds > 0 else 0.0
    out.print(
        f"{report.documents:,} documents in {report.seconds:.1f} s ({rate:,.0f}/s): {report.new:,} new, "
        f"{report.changed:,} changed, {report.metadata_changed:,} with other metadata, "
        f"{report.unchanged:,} unchanged, {len(report.rejected):,} rejected{_removed(report.removed)}; "
        f"{report.chunks:,} chunks written, {report.embedded:,} texts embedded, "
        f"{report.cached:,} from the cache{_more(report)}{_billed(report)}",
        soft_wrap=True,
    )
    print_rejections(report.rejected, shown)


def _removed(number: int) -> str:
    return f", {number:,} removed" if number else ""


def _more(report: IngestReport) -> str:
    kept = f", {report.reused:,} kept from their documents" if report.reused else ""
    return kept + (f"; {report.generated:,} requests to the generator" if report.generated else "")


def _billed(report: IngestReport) -> str:
    if report.tokens:
        return f"; {report.tokens:,} tokens billed, ${report.cost:.4f}"
    return f"; ${report.cost:.4f} billed" if report.cost else ""


def print_plan(plan: IngestPlan) -> None:
    """Print what an ingest would do and cost."""
    out.print(
        f"{plan.documents:,} documents: {plan.new:,} new, {plan.changed:,} changed, "
        f"{plan.metadata_changed:,} with other metadata, {plan.unchanged:,} unchanged, "
        f"{len(plan.rejected):,} to be rejected",
        soft_wrap=True,
    )
    if plan.gone is not None:
        named = f": {', '.join(plan.gone_ids)}" if plan.gone else ""
        more = ", …" if plan.gone > len(plan.gone_ids) else ""
        out.print(
            f"{plan.gone:,} of {plan.gone_of:,} stored documents are not in the source{named}{more}",
            markup=False,
            soft_wrap=True,
        )
    tokens = "an unknown number of tokens"
    if plan.tokens is not None:
        tokens = f"{plan.tokens:,} tokens" if plan.exact else f"about {plan.tokens:,} tokens (an estimate)"
    out.print(
        f"{plan.chunks:,} chunks would be written, {plan.texts:,} texts embedded with {tokens}, "
        f"{plan.cached:,} taken from the cache" + (f", {plan.reused:,} kept" if plan.reused else ""),
        soft_wrap=True,
    )
    if plan.requests or plan.written:
        out.print(
            f"{plan.requests:,} requests to the generator with about {plan.input_tokens:,} tokens, about "
            f"{plan.output_tokens:,} answered (estimates), {plan.written:,} answered before",
            soft_wrap=True,
        )
    if plan.requests and plan.generation_cost is None:
        out.print("cost of the generator: unknown; what follows is without it")
    if plan.price or plan.cost:
        parts = [f" at ${plan.price:g} per million tokens"] if plan.price else []
        parts += [f", ${plan.generation_cost:.4f} of it for the generator"] if plan.generation_cost else []
        out.print(f"cost: ${plan.cost:.4f}{''.join(parts)}")
    if plan.seconds is not None:
        whose = "the embedder's and the generator's" if plan.requests else "the embedder's"
        out.print(f"time: at least {plan.seconds:,.0f} s at {whose} limits")
    print_rejections(plan.rejected)


def print_rejections(rejected: Sequence[Rejection], shown: int = 10) -> None:
    """Print the first rejections and how many more there are."""
    for rejection in rejected[:shown]:
        place = f"{rejection.source}:{rejection.position}" if rejection.source else f"#{rejection.position}"
        known = f" (id {rejection.id!r})" if rejection.id is not None else ""
        err.print(f"[yellow]rejected[/] {escape(place + known + ': ' + rejection.reason)}", soft_wrap=True)
    if len(rejected) > shown:
        err.print(f"[yellow]rejected[/] and {len(rejected) - shown:,} more", soft_wrap=True)
