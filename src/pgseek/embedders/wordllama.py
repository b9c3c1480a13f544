"""WordLlama: static token vectors inside a wheel. No network, no key, about 5,000 texts/s a core.

The package is MIT-licensed; its weights were derived from the token tables of open language
models, whose licences apply to them: see https://github.com/dleemiller/WordLlama.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pgseek.embedders.base import Vectors, normalize
from pgseek.errors import InvalidInput, MissingExtra
from pgseek.types import EmbedderIdentity

MODEL = "l2_supercat"
# The weights in the wheel have 256; the shorter ones are Matryoshka prefixes.
ALLOWED = (64, 128, 256)
# A padded character takes about 300 bytes of memory while its batch is averaged.
BATCH_CHARACTERS = 64_000


class WordLlamaEmbedder:
    """Average of static token vectors, unit length. Texts are lower-cased first."""

    # Embedding a text again costs less than looking it up in the cache.
    cache_documents = False

    def __init__(self, model: str = "", dimensions: int | None = None) -> None:
        if model not in {"", MODEL}:
            raise InvalidInput(f"wordllama model {model!r} is not in the wheel; use {MODEL!r}")
        dimensions = ALLOWED[-1] if dimensions is None else dimensions
        if dimensions not in ALLOWED:
            sizes = ", ".join(map(str, ALLOWED))
            raise InvalidInput(f"wordllama gives {sizes} dimensions, not {dimensions}")
        self.identity = EmbedderIdentity("wordllama", MODEL, dimensions, normalized=True)
        self.model_id = str(self.identity)
        self._model: Any = None
        self._loading = threading.Lock()

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, float32 (n, d); a text without a known token gives zeros."""
        vectors = np.zeros((len(texts), self.identity.dimensions), dtype=np.float32)
        if not texts:
            return vectors
        # The model pads a batch to its longest text: neighbours of like length waste least, and long
        # ones come in small batches.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        model, start = self._load(), 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and (stop + 1 - start) * len(texts[order[stop]]) <= BATCH_CHARACTERS:
                stop += 1
            batch = order[start:stop]
            vectors[batch] = model.embed([texts[i].lower() or " " for i in batch], batch_size=len(batch))
            start = stop
        return normalize(np.nan_to_num(vectors, copy=False))

    def embed_query(self, text: str) -> Vectors:
        """Return one unit vector, float32 (d,); the model has no query prompt."""
        vector: Vectors = self.embed_documents([text])[0]
        return vector

    def _load(self) -> Any:
        with self._loading:
            if self._model is None:
                self._model = _load(self.identity.dimensions)
            return self._model


def _load(dimensions: int) -> Any:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import wordllama  # noqa: PLC0415 (optional package)
    except ImportError as error:
        raise MissingExtra("the embedder wordllama", "embedded") from error
    finally:
        # Importing it calls logging.basicConfig: take that back.
        root.handlers[:], root.level = handlers, level
        root.setLevel(level)
    # Its own folder as cache_dir: the files are there, and it must never try to download them.
    return wordllama.WordLlama.load(
        config=MODEL,
        cache_dir=Path(wordllama.__file__).parent,
        dim=ALLOWED[-1],
        trunc_dim=None if dimensions == ALLOWED[-1] else dimensions,
        disable_download=True,
    )
