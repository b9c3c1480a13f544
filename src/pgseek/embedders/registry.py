"""From a string such as ``openai:text-embedding-3-large@1024`` to an embedder."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pgseek.embedders.base import Embedder
from pgseek.errors import EmbedderError, InvalidInput, PgseekError
from pgseek.types import EmbedderIdentity

# Other packages name their providers in this group of entry points. What an entry point loads is called
# with the model (possibly ''), the dimensions (or None) and, where given or where a stored space has them,
# query_prompt, document_prompt and revision.
GROUP = "pgseek.embedders"

# Provider: where its class is, and whether it takes prompts. Imported on demand.
PROVIDERS: dict[str, tuple[str, bool]] = {
    "wordllama": ("pgseek.embedders.wordllama:WordLlamaEmbedder", False),
    "openai": ("pgseek.embedders.openai:OpenAIEmbedder", False),
    "openai-compatible": ("pgseek.embedders.openai:CompatibleEmbedder", True),
    "azure-openai": ("pgseek.embedders.openai:AzureEmbedder", False),
    "cohere": ("pgseek.embedders.cohere:CohereEmbedder", False),
    "sentence-transformers": (
        "pgseek.embedders.sentence_transformers:SentenceTransformersEmbedder",
        True,
    ),
}
# Of these, who can load a certain revision of a model, and then says which.
WITH_REVISIONS = frozenset({"sentence-transformers"})


def create_embedder(
    spec: str,
    dimensions: int | None = None,
    *,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    revision: str = "",
) -> Embedder:
    """Return the embedder named ``provider[:model][@dimensions]``.

    Prompts given here stand in place of the model's own, and make another space; so does a ``revision``, a
    commit or tag of the hub for sentence-transformers.

    Raises:
        InvalidInput: unknown provider or model, dimensions given twice and differing, or prompts or a
            revision for a provider that has none.
        MissingExtra: the provider's package is not installed (some providers look for it on first use).
    """
    named, at, size = spec.rpartition("@")
    # "@" may be a part of a folder's name; what follows the last one must be a number to be dimensions.
    if at and "/" in size:
        named, at, size = spec, "", ""
    provider, _, model = (named if at else spec).partition(":")
    if at:
        if not (size.isascii() and size.isdigit()) or int(size) == 0:
            raise InvalidInput(f"embedder {spec!r}: {size!r} after '@' is not a number of dimensions")
        if dimensions is not None and dimensions != int(size):
            raise InvalidInput(f"embedder {spec!r} names {size} dimensions, but dimensions is {dimensions}")
        dimensions = int(size)
    options = {
        name: value
        for name, value in (("query_prompt", query_prompt), ("document_prompt", document_prompt))
        if value is not None
    }
    if provider in PROVIDERS and options and not PROVIDERS[provider][1]:
        raise InvalidInput(f"{provider} has no prompts, but {' and '.join(options)} was given")
    if revision:
        if provider in PROVIDERS and provider not in WITH_REVISIONS:
            raise InvalidInput(f"{provider} has no revisions to choose from, but {revision!r} was given")
        options["revision"] = revision
    return _factory(provider)(model, dimensions, **options)


def embedder_for(identity: EmbedderIdentity) -> Embedder:
    """Return the embedder of a stored space.

    Raises:
        InvalidInput: the provider is not known here: pass the embedder object yourself.
    """
    if identity.provider not in PROVIDERS and identity.provider not in _plugins():
        raise InvalidInput(
            f"the collection was made with {identity}, which is not one of pgseek's embedders; "
            "pass the same one: client.collection(name, embedder=…)"
        )
    prompts = {"query_prompt": identity.query_prompt, "document_prompt": identity.document_prompt}
    takes_prompts = (
        PROVIDERS[identity.provider][1] if identity.provider in PROVIDERS else any(prompts.values())
    )
    options = prompts if takes_prompts else {}
    # Also that there is none: what a folder's weights are was not noted of every space.
    if identity.provider in WITH_REVISIONS or (identity.revision and identity.provider not in PROVIDERS):
        options["revision"] = identity.revision
    return _factory(identity.provider)(identity.model, identity.dimensions, **options)


def providers() -> tuple[str, ...]:
    """Return the names of all providers, those of other packages included."""
    return (*PROVIDERS, *sorted(_plugins()))


def _factory(provider: str) -> Callable[..., Embedder]:
    if provider in PROVIDERS:
        module, _, name = PROVIDERS[provider][0].partition(":")
        factory: Callable[..., Embedder] = getattr(import_module(module), name)
        return factory
    plugins = _plugins()
    if provider in plugins:
        return lambda *given, **options: _plugged(plugins[provider], *given, **options)
    near = difflib.get_close_matches(provider, providers(), 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(providers())}"
    raise InvalidInput(f"embedder provider {provider!r} is unknown{hint}")


def _plugins() -> dict[str, EntryPoint]:
    return {found.name: found for found in entry_points(group=GROUP) if found.name not in PROVIDERS}


def _plugged(plugin: EntryPoint, *given: Any, **options: Any) -> Embedder:
    label = f"the provider {plugin.name!r} ({plugin.value})"
    try:
        made = plugin.load()(*given, **options)
    except PgseekError:
        raise
    except Exception as error:
        raise EmbedderError(f"{label} cannot be used: {type(error).__name__}: {error}") from error
    identity = getattr(made, "identity", None)
    if not isinstance(made, Embedder) or not isinstance(identity, EmbedderIdentity):
        raise EmbedderError(f"{label} made a {type(made).__name__}, which is no embedder")
    if identity.provider != plugin.name:
        raise EmbedderError(f"{label} made an embedder of {identity}, whose provider has another name")
    return made
