"""The embedder protocol, and the checks every vector passes before it is stored or compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pgseek.errors import EmbedderError, PgseekError
from pgseek.types import EmbedderIdentity

Vectors = npt.NDArray[np.float32]


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of one embedding space.

    Documents and queries have separate methods because many models want different prompts for
    them. Both methods may block; the async client runs them in a thread. An embedder may have an
    attribute ``cache_documents``; where it is False, its document vectors are not cached.
    """

    @property
    def identity(self) -> EmbedderIdentity:
        """Everything that changes a vector; constant over the embedder's life."""
        ...

    @property
    def model_id(self) -> str:
        """``provider:model@dimensions``, as messages show it."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 of shape (len(texts), dimensions), in the order of ``texts``."""
        ...

    def embed_query(self, text: str) -> Vectors:
        """Return float32 of shape (dimensions,)."""
        ...


def identity_hash(identity: EmbedderIdentity) -> str:
    """Return the SHA-256, in hexadecimal, of everything that changes a vector."""
    canonical = json.dumps(asdict(identity), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def checked_documents(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """Embed documents and check shape; rows that are not finite are left to the caller.

    Raises:
        EmbedderError: the embedder failed, or the shape is not (len(texts), dimensions).
    """
    vectors = _call(embedder, lambda: embedder.embed_documents(texts))
    expected = (len(texts), embedder.identity.dimensions)
    if vectors.shape != expected:
        raise EmbedderError(
            f"{embedder.model_id} returned vectors of shape {vectors.shape} for {len(texts)} "
            f"texts, but the space needs {expected}"
        )
    return vectors


def checked_query(embedder: Embedder, text: str) -> Vectors:
    """Embed one query and check it: finite, not zero, shape (dimensions,)."""
    vector = _call(embedder, lambda: embedder.embed_query(text))
    if vector.shape != (embedder.identity.dimensions,):
        raise EmbedderError(
            f"{embedder.model_id} returned a query vector of shape {vector.shape}, but the space "
            f"needs ({embedder.identity.dimensions},)"
        )
    if not usable(vector):
        raise EmbedderError(f"{embedder.model_id} returned a zero or non-finite vector for the query")
    return vector


def usable(vector: Vectors) -> bool:
    """Return whether cosine distance is defined for ``vector``: finite and not zero."""
    return bool(np.isfinite(vector).all() and vector.any())


def _call(embedder: Embedder, embed: Any) -> Vectors:
    try:
        return np.ascontiguousarray(embed(), dtype=np.float32)
    except PgseekError:
        raise
    except Exception as error:
        raise EmbedderError(f"{embedder.model_id} failed: {error}") from error


def normalize(vectors: Vectors) -> Vectors:
    """Scale rows to unit length; a zero row stays zero. Shape (n, d) in, (n, d) out."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return scaled
