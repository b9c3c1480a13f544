"""OpenAI's embedding models through its own client library. The key comes from OPENAI_API_KEY."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pgseek.embedders.base import Vectors
from pgseek.errors import EmbedderError, InvalidInput, MissingExtra
from pgseek.types import EmbedderIdentity

# Model: (native dimensions, whether the API can shorten them).
MODELS = {
    "text-embedding-3-small": (1536, True),
    "text-embedding-3-large": (3072, True),
    "text-embedding-ada-002": (1536, False),
}
# One request takes at most this many inputs, and 300,000 tokens. A token has at least one byte, so
# bounding the bytes of a request bounds its tokens without a tokenizer (whose tables need a download).
MAX_INPUTS = 2048
MAX_BYTES = 300_000


class OpenAIEmbedder:
    """Unit vectors from OpenAI; shorter ones (``dimensions``) are made by the service.

    ``client`` is an ``openai.OpenAI``; by default one is made on first use, reading OPENAI_API_KEY
    and OPENAI_BASE_URL. The library retries time-outs, 429 and 5xx itself, honouring Retry-After.
    """

    def __init__(self, model: str = "", dimensions: int | None = None, *, client: Any = None) -> None:
        model = model or "text-embedding-3-small"
        if model not in MODELS:
            raise InvalidInput(f"openai model {model!r} is unknown; known are {', '.join(MODELS)}")
        native, can_shorten = MODELS[model]
        dimensions = native if dimensions is None else dimensions
        if dimensions != native and not (can_shorten and 1 <= dimensions < native):
            allowed = f"1 to {native}" if can_shorten else f"only {native}"
            raise InvalidInput(f"openai:{model} gives {allowed} dimensions, not {dimensions}")
        self.identity = EmbedderIdentity("openai", model, dimensions, normalized=True)
        self.model_id = str(self.identity)
        self._shorten = dimensions != native
        self._client = client

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (n, d) in the order of ``texts``, in as few requests as the limits allow."""
        parts = [self._request(batch) for batch in batches(texts)]
        empty = np.zeros((0, self.identity.dimensions), dtype=np.float32)
        return np.concatenate(parts) if parts else empty

    def embed_query(self, text: str) -> Vectors:
        """Return float32 (d,); OpenAI's models use no query prompt."""
        vector: Vectors = self._request([text])[0]
        return vector

    def _request(self, texts: Sequence[str]) -> Vectors:
        client, openai = self._open()
        extra = {"dimensions": self.identity.dimensions} if self._shorten else {}
        try:
            answer = client.embeddings.create(
                model=self.identity.model, input=list(texts), encoding_format="float", **extra
            )
        except openai.OpenAIError as error:
            raise EmbedderError(f"{self.model_id} failed: {error}") from error
        # The order of the answer is not promised; each row names the input it belongs to.
        rows = {row.index: row.embedding for row in answer.data}
        if sorted(rows) != list(range(len(texts))):
            raise EmbedderError(
                f"{self.model_id} answered {len(rows)} of {len(texts)} texts; nothing was kept"
            )
        return np.array([rows[i] for i in range(len(texts))], dtype=np.float32)

    def _open(self) -> tuple[Any, Any]:
        try:
            import openai  # noqa: PLC0415 (optional package)
        except ImportError as error:
            raise MissingExtra("the openai client", "openai") from error
        if self._client is None:
            try:
                self._client = openai.OpenAI()
            except openai.OpenAIError as error:
                raise EmbedderError(f"{self.model_id}: set OPENAI_API_KEY") from error
        return self._client, openai


def batches(texts: Sequence[str]) -> list[list[str]]:
    """Split ``texts`` into consecutive requests that keep within the service's limits."""
    made: list[list[str]] = []
    size = 0
    for text in texts:
        length = len(text.encode("utf-8", "surrogatepass"))
        if not made or len(made[-1]) == MAX_INPUTS or size + length > MAX_BYTES:
            made.append([])
            size = 0
        made[-1].append(text)
        size += length
    return made
