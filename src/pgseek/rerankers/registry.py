"""From a string such as ``cohere:rerank-v3.5`` to a reranker."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

from pgseek.errors import InvalidInput
from pgseek.rerankers.base import Reranker
from pgseek.rerankers.callable import CallableReranker

# Provider: where its class is. Imported on demand.
PROVIDERS = {
    "cross-encoder": "pgseek.rerankers.cross_encoder:CrossEncoderReranker",
    "cohere": "pgseek.rerankers.cohere:CohereReranker",
}


def create_reranker(spec: str, **options: Any) -> Reranker:
    """Return the reranker named ``provider:model``: 'cross-encoder:…' or 'cohere:rerank-v3.5'.

    ``options`` are those of its class.

    Raises:
        InvalidInput: an unknown provider, or no model.
        MissingExtra: the provider's package is not installed (Cohere's is looked for on first use).
        RerankerError: the model cannot be loaded.
    """
    provider, _, model = spec.partition(":")
    if provider not in PROVIDERS:
        near = difflib.get_close_matches(provider, PROVIDERS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(PROVIDERS)}"
        raise InvalidInput(f"reranker provider {provider!r} is unknown{hint}")
    module, _, name = PROVIDERS[provider].partition(":")
    made: Reranker = getattr(import_module(module), name)(model, **options)
    return made


def as_reranker(given: Any) -> Reranker:
    """Return a reranker: the object itself, the one that is named, or a function as one.

    Raises:
        InvalidInput: it is none of them.
    """
    if isinstance(given, str):
        return create_reranker(given)
    return given if isinstance(given, Reranker) else CallableReranker(given)
