"""``pgseek search``, ``get`` and ``delete``."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, cast

import typer

from pgseek.cli.output import (
    MARKS,
    complain,
    out,
    print_hits,
    print_json,
    print_stages,
)
from pgseek.cli.state import state_of
from pgseek.errors import InvalidInput
from pgseek.filters import to_jsonpath
from pgseek.types import SearchReport

Name = Annotated[str, typer.Argument(metavar="COLLECTION")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        help="key=value, a JSON object, or a jsonpath predicate ($…); all given ones must hold",
    ),
]
Alpha = Annotated[
    str | None,
    typer.Option(help="weight of the dense leg, 0..1: 1 is dense only; auto leaves it to the kind of query"),
]


def register(app: typer.Typer) -> None:
    """Add these commands at the top level."""
    for command in (search, get, delete):
        app.command()(command)


def search(
    context: typer.Context,
    collection: Name,
    query: str,
    k: Annotated[int, typer.Option("-k", help="hits returned, 1..10,000")] = 10,
    alpha: Alpha = None,
    fusion: Annotated[str | None, typer.Option(help="weighted, rrf or auto")] = None,
    lexical: Annotated[str | None, typer.Option(help="bm25, ts_rank_cd or ts_rank")] = None,
    filters: Filters = None,
    candidates: Annotated[int | None, typer.Option(help="rows taken from each leg")] = None,
    normalization: Annotated[
        str | None, typer.Option(help="max, or minmax for embedders whose cosines lie close together")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="no sign has a meaning: quotes, + - and * are text")
    ] = False,
    typos: Annotated[bool, typer.Option(help="correct words that no document has")] = True,
    budget: Annotated[
        float, typer.Option(help="milliseconds after which BM25 answers in its approximate form")
    ] = 50.0,
    space: Annotated[int | None, typer.Option(help="another embedding space than the active one")] = None,
    ef_search: Annotated[int | None, typer.Option(help="of HNSW, 1..1,000: more find more")] = None,
    probes: Annotated[int | None, typer.Option(help="of IVFFlat, 1..32,768: more find more")] = None,
    rerank: Annotated[
        int | None, typer.Option(help="of an index of less than whole vectors, 1..100: more find more")
    ] = None,
    collapse: Annotated[
        bool | None, typer.Option(help="each document once; default: the collection's setting")
    ] = None,
    boost: Annotated[
        list[str] | None,
        typer.Option(
            help='a JSON object, such as {"newer": "published", "half_life": 30}; see docs/searching.md'
        ),
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="leave out hits below")] = None,
    min_dense_score: Annotated[
        str | None, typer.Option(help="leave out hits below; calibrated: what pgseek threshold found")
    ] = None,
    min_lexical_score: Annotated[float | None, typer.Option(help="leave out hits below")] = None,
    diversity: Annotated[
        float, typer.Option(help="0..1: how much likeness to the hits before counts against a hit")
    ] = 0.0,
    near_duplicates: Annotated[
        float | None, typer.Option(help="leave out what repeats a better hit: the cosine, 0.95, say")
    ] = None,
    passages: Annotated[int, typer.Option(help="show so many more passages of each hit's document")] = 0,
    neighbours: Annotated[int, typer.Option(help="show the text of so many chunks around each hit")] = 0,
    feedback: Annotated[
        int, typer.Option(help="look for what so many first answers have in common, too; 3, say")
    ] = 0,
    reranker: Annotated[
        str | None, typer.Option(help="order the hits anew: cohere:rerank-v3.5, cross-encoder:FOLDER")
    ] = None,
    rerank_top: Annotated[
        int | None, typer.Option(help="hits that the reranker reads; default: 50, or k")
    ] = None,
    rerank_budget: Annotated[
        float | None, typer.Option(help="seconds after which the fused order is printed")
    ] = None,
    expand: Annotated[
        str | None,
        typer.Option(help="have a model write for the query: hyde:openai:MODEL, queries:openai:MODEL"),
    ] = None,
    on_embedder_error: Annotated[
        str | None, typer.Option(help="raise, or lexical: search by words alone where a model fails")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="seconds for the whole search")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="show in a table what each leg and each word added")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search a collection.

    "words in quotes" must stand side by side, +word must be there, -word must not, word* stands for
    words that begin so. Put -- before a query that begins with a minus sign.
    """
    reports: list[SearchReport] = []
    with state_of(context).client() as client:
        hits = client.collection(collection).search(
            query,
            k=k,
            alpha=parse_alpha(alpha),
            fusion=cast("Any", fusion),
            lexical=cast("Any", lexical),
            filter=parse_filters(filters or []),
            candidates=candidates,
            highlight=("<b>", "</b>") if as_json else MARKS,
            normalization=cast("Any", normalization),
            syntax="plain" if plain else "web",
            typos=typos,
            budget=budget,
            collapse=collapse,
            space=space,
            ef_search=ef_search,
            probes=probes,
            rerank=rerank,
            boosts=parse_boosts(boost or []),
            min_score=min_score,
            min_dense_score=_least(min_dense_score),
            min_lexical_score=min_lexical_score,
            diversity=diversity,
            near_duplicates=near_duplicates,
            passages=passages,
            neighbours=neighbours,
            feedback=feedback,
            on_embedder_error=cast("Any", on_embedder_error),
            timeout=timeout,
            expand=expand,
            reranker=reranker,
            rerank_top=rerank_top,
            rerank_budget=rerank_budget,
            report=reports.append,
        )
    if as_json:
        print_json(hits)
    else:
        print_hits(hits, explain=explain)
        if explain:
            print_stages(reports[0])


def parse_alpha(given: str | None) -> Any:
    """Return the number that is given, or 'auto'. Raises `InvalidInput`."""
    if given is None or given == "auto":
        return given
    try:
        return float(given)
    except ValueError as error:
        raise InvalidInput(f"--alpha {given!r} is neither a number in 0..1 nor auto") from error


def parse_boosts(given: list[str]) -> list[dict[str, Any]]:
    """Return the boosts of the --boost options. Raises `InvalidInput`."""
    boosts = []
    for text in given:
        try:
            boosts.append(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"--boost {text!r} is not JSON: {error}") from error
    return boosts


def parse_filters(given: list[str]) -> str | None:
    """Return the filter of the --filter options: pairs are joined with AND.

    Raises:
        InvalidInput: neither a pair, nor a JSON object, nor a jsonpath predicate.
    """
    return " && ".join(f"({part})" for part in filter(None, map(_jsonpath, given))) or None


def _jsonpath(text: str) -> str | None:
    if text.lstrip().startswith("$"):
        return text
    if text.lstrip().startswith("{"):
        try:
            return to_jsonpath(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"--filter {text!r} is not JSON: {error}") from error
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidInput(f"--filter {text!r} is not key=value, a JSON object, or a jsonpath predicate")
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = value
    if isinstance(parsed, str | dict | list):
        return to_jsonpath({key: parsed})
    # 1.10 may be stored as a number or as text: either is what key=1.10 says.
    return to_jsonpath({key: {"$in": [parsed, value]}})


def get(context: typer.Context, collection: Name, id: str, as_json: Json = False) -> None:  # noqa: A002
    """Print a document."""
    with state_of(context).client() as client:
        found = client.collection(collection).get(id)
    if found is None:
        complain(f"collection {collection!r} holds no document {id!r}")
        raise typer.Exit(3)
    if as_json:
        print_json(found)
        return
    out.print(f"id        {found.id}", markup=False, soft_wrap=True)
    out.print(f"title     {found.title}", markup=False, soft_wrap=True)
    out.print(f"language  {found.language}", markup=False, soft_wrap=True)
    out.print(
        f"metadata  {json.dumps(dict(found.metadata), ensure_ascii=False)}", markup=False, soft_wrap=True
    )
    out.print()
    out.print(found.text, markup=False, soft_wrap=True)


def delete(
    context: typer.Context, collection: Name, ids: Annotated[list[str], typer.Argument(metavar="ID…")]
) -> None:
    """Delete documents; exit code 3 if one of them was not there."""
    with state_of(context).client() as client:
        deleted = client.collection(collection).delete(ids)
    typer.echo(f"deleted {deleted} of {len(set(ids))}")
    if deleted < len(set(ids)):
        raise typer.Exit(3)


def _least(given: str | None) -> float | Literal["calibrated"] | None:
    if given is None or given == "calibrated":
        return cast("Literal['calibrated'] | None", given)
    try:
        return float(given)
    except ValueError as error:
        raise InvalidInput(f"--min-dense-score is {given!r}, but must be a number or calibrated") from error
