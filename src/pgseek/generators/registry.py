"""From a string such as ``openai:gpt-4.1-mini`` to a generator."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pgseek.errors import InvalidInput
from pgseek.generators.base import TextGenerator

PROVIDERS = ("openai", "openai-compatible")


def create_generator(spec: str, **options: Any) -> TextGenerator:
    """Return the generator named ``provider:model``.

    ``openai-compatible:MODEL`` is a model of any server that speaks OpenAI's protocol, at OPENAI_BASE_URL.
    ``options`` are those of `ChatGenerator`.

    Raises:
        InvalidInput: an unknown provider, no model, or no address of a server.
    """
    provider, colon, model = spec.partition(":")
    if provider not in PROVIDERS:
        raise InvalidInput(f"generator provider {provider!r} is unknown; known are {', '.join(PROVIDERS)}")
    if not colon or not model:
        raise InvalidInput(f"generator {spec!r} names no model; give one, such as {provider}:gpt-4.1-mini")
    made: TextGenerator = import_module("pgseek.generators.chat").ChatGenerator(
        model, provider=provider, **options
    )
    return made
