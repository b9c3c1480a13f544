"""``pgseek collections``."""

from __future__ import annotations

import json
import sys
from typing import Annotated, cast

import typer
from rich.markup import escape

from pgseek.cli.documents import parse_alpha
from pgseek.cli.output import out, print_json, table
from pgseek.cli.state import state_of
from pgseek.embedders.base import Embedder
from pgseek.embedders.registry import create_embedder
from pgseek.errors import InvalidInput
from pgseek.types import CopyStatus, MetadataType
from pgseek.vectors import Metric, Storage

app = typer.Typer(help="Make, list, describe and drop collections.", no_args_is_help=True)
Field = Annotated[
    str, typer.Argument(help="such as year, author.name, or a JSON array of keys where one holds a dot")
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def create(
    context: typer.Context,
    name: str,
    embedder: Annotated[
        str | None, typer.Option(help="provider[:model][@dimensions]; default: wordllama")
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(help="vector length, where the model offers several")
    ] = None,
    language: Annotated[str, typer.Option(help="text-search configuration")] = "english",
    chunk_size: Annotated[int | None, typer.Option(help="characters at most; default 2000")] = None,
    chunk_overlap: Annotated[int | None, typer.Option(help="characters shared; default 0")] = None,
    heading_context: Annotated[
        bool, typer.Option(help="read headings before the chunks under them; default: yes")
    ] = True,
    section_size: Annotated[
        int | None, typer.Option(help="characters of text to read around a chunk; default 0, none")
    ] = None,
    document_vectors: Annotated[
        bool, typer.Option("--document-vectors", help="also search each document as a whole")
    ] = False,
    questions: Annotated[int | None, typer.Option(help="questions written for each chunk, 0..20")] = None,
    summaries: Annotated[bool, typer.Option("--summaries", help="a summary written for each chunk")] = False,
    generator: Annotated[
        str | None, typer.Option(help="what writes them: provider:model, such as openai:gpt-4.1-mini")
    ] = None,
    collapse: Annotated[
        bool | None,
        typer.Option(help="a search gives each document once; default: where more than chunks is searched"),
    ] = None,
    long_texts: Annotated[
        str | None,
        typer.Option(
            help="a chunk the model does not read whole: average its parts (default), chunk, refuse, truncate"
        ),
    ] = None,
    query_prompt: Annotated[
        str | None, typer.Option(help="put before queries instead of the model's own; makes another space")
    ] = None,
    document_prompt: Annotated[
        str | None, typer.Option(help="put before documents instead of the model's own")
    ] = None,
    revision: Annotated[
        str, typer.Option(help="a commit or tag of the hub, for sentence-transformers; makes another space")
    ] = "",
    metric: Annotated[str, typer.Option(help="cosine, inner_product, l2 or l1")] = "cosine",
    storage: Annotated[
        str | None, typer.Option(help="vector or halfvec; default: halfvec from 2,001 dimensions on")
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(help="such as hnsw,m=32, ivfflat, binary, prefix=256 or none"),
    ] = None,
    alpha: Annotated[
        str | None, typer.Option(help="weight of the dense leg, 0..1, or auto; default: the embedder's")
    ] = None,
    fusion: Annotated[str | None, typer.Option(help="weighted, rrf or auto")] = None,
    normalization: Annotated[str | None, typer.Option(help="max or minmax; default: the embedder's")] = None,
    k1: Annotated[float | None, typer.Option(help="BM25's k1; default 1.2")] = None,
    b: Annotated[float | None, typer.Option(help="BM25's b, 0..1; default 0.75")] = None,
    title_weight: Annotated[
        float | None, typer.Option(help="how often a word of the title counts; default 2")
    ] = None,
) -> None:
    """Create a collection with its embedding space.

    A few texts are embedded to see that the embedder works and gives the vectors it says, and to know the
    model by them later: see doctor --probe.
    """
    state = state_of(context)
    chosen: Embedder | str | None = embedder
    if query_prompt is not None or document_prompt is not None or revision:
        spec = embedder or state.settings().embedder
        chosen = create_embedder(
            spec,
            dimensions,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            revision=revision,
        )
    with state.client() as client:
        made = client.create_collection(
            name,
            embedder=chosen,
            dimensions=dimensions,
            language=language,
            chunk_size=chunk_size,
            chunk_overlap=chunk_overlap,
            heading_context=heading_context,
            section_size=section_size,
            document_vectors=document_vectors,
            questions=questions,
            summaries=summaries,
            generator=generator,
            collapse=collapse,
            metric=cast("Metric", metric),
            storage=cast("Storage | None", storage),
            index=index,
            long_texts=long_texts,
            alpha=parse_alpha(alpha),
            fusion=fusion,
            normalization=normalization,
            k1=k1,
            b=b,
            title_weight=title_weight,
        )
        typer.echo(f"created {made.name} with {made.info().identity}")


@app.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """List the collections."""
    with state_of(context).client() as client:
        found = client.list_collections()
    if as_json:
        print_json(found)
        return
    tenants = ("tenant",) if any(info.tenant for info in found) else ()
    made = table(*tenants, "name", "language", "embedder", "storage")
    for info in found:
        of = (info.tenant,) if tenants else ()
        made.add_row(*of, info.name, info.language, str(info.space), info.space.storage)
    out.print(made if found else "no collections yet; pgseek collections create NAME")


@app.command()
def show(context: typer.Context, name: str, as_json: Json = False) -> None:
    """Describe a collection, with counts."""
    with state_of(context).client() as client:
        info = client.collection(name).info()
    if as_json:
        print_json(info)
        return
    made = table("", "")
    made.show_header = False
    made.add_row("name", info.name)
    if info.tenant:
        made.add_row("tenant", info.tenant)
    if info.original is not None:
        made.add_row("copy of", info.original)
    made.add_row("language", info.language)
    made.add_row("embedder", str(info.identity))
    if info.identity.revision:
        made.add_row("revision", escape(info.identity.revision))
    made.add_row("metric", info.space.metric)
    made.add_row(
        "storage",
        f"{info.space.storage}({info.identity.dimensions}), table pgseek.embeddings_{info.space_id}",
    )
    made.add_row("index", str(info.space.index))
    if info.metadata_indexes:
        made.add_row("metadata indexes", escape(", ".join(map(str, info.metadata_indexes))))
    made.add_row("documents", f"{info.documents or 0:,}")
    made.add_row("chunks", f"{info.chunks or 0:,}")
    made.add_row("waiting for embeddings", f"{info.queued or 0:,}")
    if info.copy is not None:
        made.add_row("kept from before" if info.copy.kept else "copy under way", _copy(info.copy))
    for key, value in sorted(info.settings.items()):
        made.add_row(key, str(value))
    out.print(made)


def _copy(copy: CopyStatus) -> str:
    parts = [f"{copy.name}: {copy.documents:,} of {copy.of:,} documents"]
    for count, what in (
        (copy.surplus, "that are gone here"),
        (copy.queued, "waiting for embeddings"),
        (copy.failed, "given up"),
    ):
        if count:
            parts.append(f"{count:,} {what}")
    return ", ".join(parts)


@app.command()
def refresh(
    context: typer.Context,
    name: str,
    reweigh: Annotated[
        bool, typer.Option("--reweigh", help="also weigh every chunk by the present average length")
    ] = False,
) -> None:
    """Bring BM25's statistics up to date (ingest does so whenever a collection grew by a tenth)."""
    with state_of(context).client() as client:
        drift = client.collection(name).refresh_statistics(reweigh=reweigh)
    shown = "no chunks" if drift is None else f"chunks are {drift:.2f} times as long as they are weighed for"
    typer.echo(f"refreshed {name}: {shown}")


@app.command("index-metadata")
def index_metadata(
    context: typer.Context,
    name: str,
    field: Field,
    of_type: Annotated[str, typer.Argument(metavar="TYPE", help="text, number or date")],
) -> None:
    """Index a metadata field, so that filters on it need not read every document."""
    with state_of(context).client() as client:
        index = client.collection(name).index_metadata(_field(field), cast("MetadataType", of_type))
    typer.echo(f"{name}: filters on {index} use an index")


@app.command("drop-metadata-index")
def drop_metadata_index(context: typer.Context, name: str, field: Field) -> None:
    """Drop the index of a metadata field."""
    with state_of(context).client() as client:
        client.collection(name).drop_metadata_index(_field(field))
    typer.echo(f"{name}: dropped the index of {field}")


def _field(text: str) -> str | list[str]:
    """Return the name of a field, or the keys of a JSON array."""
    if not text.startswith("["):
        return text
    try:
        keys: list[str] = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"FIELD {text!r} is not a JSON array of keys: {error}") from error
    return keys


@app.command()
def drop(
    context: typer.Context,
    name: str,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Drop a collection with all its documents."""
    with state_of(context).client() as client:
        info = client.collection(name).info()
        if not yes:
            if not sys.stdin.isatty():
                raise InvalidInput("dropping deletes all documents of the collection; say --yes to confirm")
            typer.confirm(f"Drop {name} with its {info.documents or 0:,} documents?", abort=True)
        client.drop_collection(name)
    typer.echo(f"dropped {name}")
