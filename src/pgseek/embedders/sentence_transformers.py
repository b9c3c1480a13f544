"""Models of the sentence-transformers library: a hub name or a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pgseek.embedders.base import Vectors, normalize
from pgseek.errors import EmbedderError, InvalidInput, MissingExtra
from pgseek.types import EmbedderIdentity


class SentenceTransformersEmbedder:
    """A local transformer model; the prompts are the model's own.

    The model is loaded on construction, because its dimensions and prompts are part of the space.
    Vectors are scaled to unit length. ``dimensions`` other than the model's own is refused.
    """

    def __init__(self, model: str, dimensions: int | None = None) -> None:
        if not model:
            raise InvalidInput("name a model, such as sentence-transformers:BAAI/bge-small-en-v1.5")
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415 (optional)
        except ImportError as error:
            raise MissingExtra("sentence-transformers", "sentence-transformers") from error
        try:
            self._model: Any = SentenceTransformer(model)
        except (OSError, ValueError) as error:
            raise EmbedderError(f"cannot load sentence-transformers model {model!r}: {error}") from error
        native = _dimensions(self._model)
        if dimensions not in {None, native}:
            raise InvalidInput(f"{model} gives {native} dimensions, not {dimensions}")
        prompts = self._model.prompts or {}
        self.identity = EmbedderIdentity(
            "sentence-transformers",
            model,
            native,
            normalized=True,
            query_prompt=prompts.get("query") or "",
            document_prompt=prompts.get("document") or prompts.get("passage") or "",
        )
        self.model_id = str(self.identity)

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, float32 (n, d), with the model's document prompt."""
        return self._encode(texts, self.identity.document_prompt)

    def embed_query(self, text: str) -> Vectors:
        """Return one unit vector, float32 (d,), with the model's query prompt."""
        vector: Vectors = self._encode([text], self.identity.query_prompt)[0]
        return vector

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        if not texts:
            return np.zeros((0, self.identity.dimensions), dtype=np.float32)
        vectors = self._model.encode(
            list(texts), prompt=prompt, convert_to_numpy=True, show_progress_bar=False
        )
        return normalize(np.asarray(vectors, dtype=np.float32))


def _dimensions(model: Any) -> int:
    # Renamed in version 5.
    method = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return int(method())
