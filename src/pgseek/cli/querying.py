"""Questions besides a search: pages, facets, likes of documents, and how a search came about."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from pgseek.cli.documents import Alpha, Filters, Json, Name, parse_alpha, parse_boosts, parse_filters
from pgseek.cli.output import err, out, print_hits, print_json, table
from pgseek.cli.state import state_of
from pgseek.errors import InvalidInput
from pgseek.querying import Explanation, Facets
from pgseek.types import Search


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    for command in (page, facets, similar, recommend, explain):
        app.command()(command)


def page(
    context: typer.Context,
    collection: Name,
    query: str,
    size: Annotated[int, typer.Option(help="hits of a page, 1..1,000")] = 10,
    k: Annotated[int, typer.Option("-k", help="hits that are ranked, 1..2,000")] = 100,
    cursor: Annotated[str | None, typer.Option(help="what the page before printed last")] = None,
    alpha: Alpha = None,
    filters: Filters = None,
    as_json: Json = False,
) -> None:
    """Search in pages: one ranking, whose hits stay on their pages while documents are written."""
    request = Search(query, k=k, alpha=parse_alpha(alpha), filter=parse_filters(filters or []))
    with state_of(context).client() as client:
        found = client.collection(collection).search_page(request, size=size, cursor=cursor)
    if as_json:
        print_json(found)
        return
    print_hits(list(found.hits))
    if found.cursor is not None:
        err.print(f"[dim]{found.hits[-1].rank} of {found.total}; the next page: --cursor[/]")
        out.print(found.cursor, soft_wrap=True, markup=False)


def facets(
    context: typer.Context,
    collection: Name,
    query: Annotated[str | None, typer.Argument(help="may be left out with --over filter")] = None,
    facet: Annotated[
        list[str] | None,
        typer.Option(
            "--facet", help="field, field:histogram, field:year, :month or :day; with a number or without"
        ),
    ] = None,
    over: Annotated[str, typer.Option(help="lexical, candidates or filter: what is counted")] = "lexical",
    filters: Filters = None,
    as_json: Json = False,
) -> None:
    """Count the documents that a query finds, and how they spread over values of their metadata."""
    jsonpath = parse_filters(filters or [])
    with state_of(context).client() as client:
        found = client.collection(collection).facets(
            query, facet or [], over=cast("Any", over), filter=jsonpath
        )
    if as_json:
        print_json(found)
    else:
        _print_facets(found)


def similar(
    context: typer.Context,
    collection: Name,
    id: Annotated[str, typer.Argument(help="of a stored document")],  # noqa: A002
    k: Annotated[int, typer.Option("-k", help="documents returned, 1..1,000")] = 10,
    alpha: Alpha = None,
    filters: Filters = None,
    diversity: Annotated[float, typer.Option(help="0..1")] = 0.0,
    as_json: Json = False,
) -> None:
    """Find the documents most like a stored one."""
    with state_of(context).client() as client:
        hits = client.collection(collection).similar(
            id, k=k, alpha=parse_alpha(alpha), filter=parse_filters(filters or []), diversity=diversity
        )
    if as_json:
        print_json(hits)
    else:
        print_hits(hits)


def recommend(
    context: typer.Context,
    collection: Name,
    liked: Annotated[list[str] | None, typer.Option("--liked", help="id of a document; repeat")] = None,
    disliked: Annotated[list[str] | None, typer.Option("--disliked", help="id of a document; repeat")] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='JSON lines, such as {"id": "a", "at": "2026-01-31", "weight": 1}; - is input',
        ),
    ] = None,
    half_life: Annotated[
        str | None, typer.Option(help="in which an event loses half of its weight: '30 days', or seconds")
    ] = None,
    now: Annotated[str | None, typer.Option(help="what ages are counted to; default: the time it is")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", help="an id not to return; repeat")
    ] = None,
    ignore_missing: Annotated[
        bool, typer.Option("--ignore-missing", help="go on without ids that are not stored")
    ] = False,
    strategy: Annotated[str, typer.Option(help="rocchio or best_score")] = "rocchio",
    disliked_weight: Annotated[
        float | None, typer.Option(help="0..1: how much the disliked count with rocchio; default: 0.2")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="documents returned, 1..1,000")] = 10,
    filters: Filters = None,
    boost: Annotated[list[str] | None, typer.Option(help="a JSON object; see docs/shaping.md")] = None,
    diversity: Annotated[float, typer.Option(help="0..1")] = 0.0,
    space: Annotated[int | None, typer.Option(help="another embedding space than the active one")] = None,
    as_json: Json = False,
) -> None:
    """Find what somebody will like, by what they liked and disliked."""
    with state_of(context).client() as client:
        hits = client.collection(collection).recommend(
            liked or (),
            disliked or (),
            k=k,
            strategy=cast("Any", strategy),
            history=_read_history(history),
            half_life=half_life,
            now=now,
            exclude=exclude or (),
            on_missing="ignore" if ignore_missing else "raise",
            disliked_weight=disliked_weight,
            filter=parse_filters(filters or []),
            boosts=parse_boosts(boost or []),
            diversity=diversity,
            space=space,
        )
    if as_json:
        print_json(hits)
    else:
        print_hits(hits)


def explain(
    context: typer.Context,
    collection: Name,
    query: str,
    k: Annotated[int, typer.Option("-k", help="hits, 1..10,000")] = 10,
    alpha: Alpha = None,
    filters: Filters = None,
    as_json: Json = False,
) -> None:
    """Tell how a search comes about: its words, what each leg brought, and what took how long."""
    request = Search(query, k=k, alpha=parse_alpha(alpha), filter=parse_filters(filters or []))
    with state_of(context).client() as client:
        found = client.collection(collection).explain(request)
    if as_json:
        print_json(found)
    else:
        _print_explanation(found)


def _read_history(path: Path | None) -> list[dict[str, Any]]:
    if path is None:
        return []
    try:
        lines = sys.stdin if str(path) == "-" else path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the history {str(path)!r}: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                event = json.loads(line)
            except ValueError as error:
                raise InvalidInput(f"{path}:{number}: not JSON: {error}") from error
            if not isinstance(event, dict):
                raise InvalidInput(
                    f'{path}:{number}: {event!r} is no event such as {{"id": "a", "at": "2026-01-31"}}'
                )
            found.append(event)
    return found


def _print_facets(found: Facets) -> None:
    more = "" if found.complete else " at least"
    out.print(f"{found.statement}:{more} {found.documents:,}")
    for name, facet in found.facets.items():
        made = table(escape(name), "documents")
        for value in facet.values:
            shown = f"{value.value}" if value.to is None else f"{value.value:g} to {value.to:g}"
            made.add_row(escape(shown), f"{value.documents:,}")
        for what, documents in (("(other values)", facet.others), ("(none)", facet.missing)):
            if documents:
                made.add_row(what, f"{documents:,}")
        out.print(made)


def _print_explanation(found: Explanation) -> None:
    made = table("word", "stands for", "chunks", "weight")
    for word in found.words:
        origin = word.get("origin") or ""
        made.add_row(
            escape(word["lexeme"]), escape(origin), f"{word['chunks']:,.0f}", f"{word['weight']:.3f}"
        )
    out.print(made)
    if found.unknown_words:
        out.print(f"in no chunk: {escape(', '.join(found.unknown_words))}", soft_wrap=True)
    if found.restriction is not None:
        out.print(f"hits must match {escape(found.restriction)}", soft_wrap=True)
    if found.kind is not None:
        out.print(f"a query of the kind {found.kind}: alpha {found.alpha:.2f}")
    for leg, brought in (("dense", found.dense), ("lexical", found.lexical)):
        if brought is None:
            out.print(f"{leg} leg: did not run")
        else:
            exactly = "exactly" if brought["exact"] else "by an index, or in part"
            out.print(f"{leg} leg: {brought['found']} of {found.candidates} candidates, {exactly}")
    if found.matching is not None:
        out.print(f"filter, or required words: {found.matching:,} match, and are compared exactly")
    if found.degraded is not None:
        out.print(f"degraded: {escape(found.degraded)}", soft_wrap=True)
    parts = ", ".join(f"{name} {value:.1f}" for name, value in found.milliseconds.items())
    out.print(f"{escape(found.space)}; milliseconds: {parts}", soft_wrap=True)
    hits = table("rank", "id", "score", "dense", "lexical")
    for hit in found.hits:
        hits.add_row(
            str(hit["rank"]),
            escape(hit["external_id"]),
            f"{hit['score']:.3f}",
            *("–" if hit[name] is None else f"{hit[name]:.3f}" for name in ("dense_score", "lexical_score")),
        )
    out.print(hits)
