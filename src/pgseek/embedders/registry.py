"""From a string such as ``openai:text-embedding-3-large@1024`` to an embedder."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from pgseek.embedders.base import Embedder
from pgseek.errors import InvalidInput
from pgseek.types import EmbedderIdentity


def _wordllama(model: str, dimensions: int | None) -> Embedder:
    from pgseek.embedders.wordllama import WordLlamaEmbedder  # noqa: PLC0415 (on demand)

    return WordLlamaEmbedder(model, dimensions)


def _openai(model: str, dimensions: int | None) -> Embedder:
    from pgseek.embedders.openai import OpenAIEmbedder  # noqa: PLC0415 (on demand)

    return OpenAIEmbedder(model, dimensions)


def _sentence_transformers(model: str, dimensions: int | None) -> Embedder:
    from pgseek.embedders.sentence_transformers import (  # noqa: PLC0415 (on demand)
        SentenceTransformersEmbedder,
    )

    return SentenceTransformersEmbedder(model, dimensions)


PROVIDERS: dict[str, Callable[[str, int | None], Embedder]] = {
    "wordllama": _wordllama,
    "openai": _openai,
    "sentence-transformers": _sentence_transformers,
}


def create_embedder(spec: str, dimensions: int | None = None) -> Embedder:
    """Return the embedder named ``provider[:model][@dimensions]``.

    Raises:
        InvalidInput: unknown provider or model, or dimensions given twice and differing.
        MissingExtra: the provider's package is not installed (some providers look for it on first use).
    """
    named, at, size = spec.rpartition("@")
    provider, _, model = (named if at else spec).partition(":")
    if at:
        if not (size.isascii() and size.isdigit()) or int(size) == 0:
            raise InvalidInput(f"embedder {spec!r}: {size!r} after '@' is not a number of dimensions")
        if dimensions is not None and dimensions != int(size):
            raise InvalidInput(f"embedder {spec!r} names {size} dimensions, but dimensions is {dimensions}")
        dimensions = int(size)
    if provider not in PROVIDERS:
        near = difflib.get_close_matches(provider, PROVIDERS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(PROVIDERS)}"
        raise InvalidInput(f"embedder provider {provider!r} is unknown{hint}")
    return PROVIDERS[provider](model, dimensions)


def embedder_for(identity: EmbedderIdentity) -> Embedder:
    """Return the embedder of a stored space.

    Raises:
        InvalidInput: the provider is not one of pgseek's: pass the embedder object yourself.
    """
    if identity.provider not in PROVIDERS:
        raise InvalidInput(
            f"the collection was made with {identity}, which is not one of pgseek's embedders; "
            "pass the same one: client.collection(name, embedder=…)"
        )
    return PROVIDERS[identity.provider](identity.model, identity.dimensions)
