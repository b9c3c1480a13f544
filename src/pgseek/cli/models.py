"""``pgseek models``."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from pgseek.cli.output import complain, out, print_json, table
from pgseek.embedders.catalog import Model, catalogue, lookup, models
from pgseek.embedders.recommend import (
    Accuracy,
    Needs,
    Recommendation,
    excluded,
    index_bytes,
    recommend,
    vector_bytes,
)
from pgseek.errors import InvalidInput

app = typer.Typer(help="The embedding models pgseek knows: list, describe, recommend.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command("list")
def list_(
    provider: Annotated[str | None, typer.Option(help="only this provider's")] = None,
    as_json: Json = False,
) -> None:
    """List the models, with the sizes they give, their price and their published quality."""
    known = sorted({model.provider for model in models()})
    if provider is not None and provider not in known:
        raise InvalidInput(f"provider {provider!r} is not in the catalogue; known are {', '.join(known)}")
    shown = [model for model in models() if provider in {None, model.provider}]
    if as_json:
        print_json([_plain(model) for model in shown])
        return
    made = table("model", "dimensions", "tokens", "$ per million", "quality", "on", "languages")
    for model in shown:
        made.add_row(
            escape(model.spec),
            model.sizes,
            _or_dash(model.max_tokens, ","),
            f"{model.price:.2f}",
            _or_dash(model.quality, "g"),
            model.quality_benchmark or "-",
            _languages(model),
        )
    out.print(made)


@app.command()
def show(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="provider:model[@dimensions]")],
    as_json: Json = False,
) -> None:
    """Describe a model, at a size it gives."""
    model, dimensions = lookup(spec)
    sizes = {
        "at_dimensions": dimensions,
        "vector_bytes": vector_bytes(dimensions),
        "index_bytes": index_bytes(dimensions),
    }
    if as_json:
        print_json({**_plain(model), **sizes})
        return
    made = table("", "")
    made.show_header = False
    for name, value in _described(model):
        made.add_row(name, escape(value))
    made.add_row(f"a million vectors of {dimensions:,}", _storage(vector_bytes(dimensions)))
    made.add_row("their HNSW index", _storage(index_bytes(dimensions)))
    out.print(made)


@app.command("recommend")
def recommend_(
    documents: Annotated[int, typer.Option(help="how many documents there are")],
    tokens: Annotated[int, typer.Option(help="tokens a document has on average; a word is about 1.3")],
    private: Annotated[bool, typer.Option("--private", help="texts may not leave the network")] = False,
    language: Annotated[
        list[str] | None, typer.Option(help="ISO code of a language of the documents; repeat it; default: en")
    ] = None,
    budget: Annotated[float | None, typer.Option(help="US dollars a month at most")] = None,
    accuracy: Annotated[str, typer.Option(help="basic, good or best")] = "good",
    code: Annotated[bool, typer.Option("--code", help="documents hold program code")] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="there is a GPU")] = False,
    queries: Annotated[int, typer.Option(help="queries a month")] = 0,
    monthly: Annotated[
        int | None, typer.Option(help="documents new or changed a month; default: a tenth of all")
    ] = None,
    limit: Annotated[int, typer.Option(help="how many to recommend")] = 5,
    as_json: Json = False,
) -> None:
    """Recommend models for your documents, with reasons, costs and sizes.

    Exit code 1 means that no model of the catalogue fits; it says why.
    """
    needs = Needs(
        documents=documents,
        mean_tokens=tokens,
        monthly_documents=monthly,
        queries=queries,
        network=not private,
        languages=tuple(language or ["en"]),
        budget=budget,
        accuracy=cast("Accuracy", accuracy),
        code=code,
        gpu=gpu,
    )
    found, why_not = recommend(needs, limit), excluded(needs)
    if as_json:
        made = [
            {**{f.name: getattr(each, f.name) for f in fields(each)}, "model": _plain(each.model)}
            for each in found
        ]
        print_json({"needs": needs, "recommended": made, "excluded": why_not})
    for place, each in enumerate(found, 1):
        if not as_json:
            _print_recommendation(place, each)
    if not found:
        if not as_json:
            for spec, reason in why_not.items():
                out.print(f"{escape(spec)}: {escape(reason)}", soft_wrap=True)
        complain("no model of the catalogue fits; loosen the need that excludes the one you would take")
        raise typer.Exit(1)


def _print_recommendation(place: int, each: Recommendation) -> None:
    out.print(f"{place:>3}. [bold]{escape(each.model.spec)}@{each.dimensions}[/]", soft_wrap=True)
    for reason in each.reasons:
        out.print(f"     [green]+[/] {escape(reason)}", soft_wrap=True)
    for caution in each.cautions:
        out.print(f"     [yellow]![/] {escape(caution)}", soft_wrap=True)
    chunks = f", {each.vectors_per_document} chunks each" if each.vectors_per_document > 1 else ""
    out.print(
        f"     [dim]a million documents{chunks}: {_storage(each.vector_bytes)} of vectors, "
        f"{_storage(each.index_bytes)} of index[/]",
        soft_wrap=True,
    )


def _described(model: Model) -> list[tuple[str, str]]:
    """Return what there is to say of a model, in order."""
    unit = "unit length" if model.normalized else "not of unit length, scaled by pgseek"
    lines = [
        ("model", model.spec),
        ("dimensions", f"{model.sizes}; {unit}"),
        ("tokens read", "no limit" if model.max_tokens is None else f"{model.max_tokens:,}"),
        (
            "price",
            "free, on your own machine"
            if model.local
            else f"${model.price:.2f} per million tokens on {model.price_read}",
        ),
    ]
    measured = (
        ("quality", model.quality, model.quality_benchmark, model.quality_source),
        (
            "in many languages",
            model.multilingual_quality,
            model.multilingual_benchmark,
            model.multilingual_source,
        ),
    )
    for name, value, benchmark, source in measured:
        if value is None or benchmark is None:
            lines.append((name, "no published value known"))
        else:
            about = catalogue().benchmarks[benchmark].about
            lines.append((name, f"{value:g} on {benchmark} ({about}); {source}"))
    lines += [
        ("languages", _languages(model)),
        ("code", "yes" if model.code else "not made for it"),
        ("query prompt", repr(model.query_prompt) if model.query_prompt else "none"),
        ("document prompt", repr(model.document_prompt) if model.document_prompt else "none"),
        ("licence", model.licence),
    ]
    if model.parameters is not None:
        lines.append(("parameters", f"{model.parameters:g} million"))
    if model.alpha is not None:
        lines.append(("fusion by default", f"alpha {model.alpha:g}, normalization {model.normalization}"))
    return [*lines, ("note", model.notes)] if model.notes else lines


def _plain(model: Model) -> dict[str, Any]:
    return {"spec": model.spec, **{f.name: getattr(model, f.name) for f in fields(model)}}


def _languages(model: Model) -> str:
    return model.languages if isinstance(model.languages, str) else ", ".join(model.languages)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _storage(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
