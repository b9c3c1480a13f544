"""The embedder protocol, and the checks every vector passes before it is stored or compared."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pgseek.embedders.limits import Spending
from pgseek.errors import EmbedderError, PgseekError
from pgseek.types import EmbedderIdentity

Vectors = npt.NDArray[np.float32]

# What is embedded to look at a vector of a space: how long it is, and whether of unit length.
PROBE = "pgseek"
# What a model is known by: kept with a space, and embedded again to see whether it is still the same model.
PROBES = (
    PROBE,
    "The quick brown fox jumps over the lazy dog.",
    "error E-4021: connection refused",
    "Wie hoch ist der Eiffelturm?",
    "東京の天気は晴れです。",
)
# Vectors that were rounded to 16 bits on their way still count as of unit length.
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Embedded:
    """What came of embedding texts.

    ``vectors`` is float32 (n, d) in the order of the texts; rows without a vector are zeros. Their texts
    are either in ``refused``, with the reason why they will never be embedded, or in ``missing``, because
    ``error`` ended the work before their turn. ``tokens`` is what was billed.
    """

    vectors: Vectors
    refused: Mapping[int, str] = field(default_factory=dict)
    missing: frozenset[int] = frozenset()
    error: PgseekError | None = None
    tokens: int = 0


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of one embedding space.

    Documents and queries have separate methods because many models want different prompts for
    them. Both methods may block; the async client runs them in a thread. An embedder may also have:

    - ``cache_documents``: where it is False, its document vectors are not cached;
    - ``max_tokens`` (None or a number) and ``count_tokens(texts) -> list[int]``: what a text may have,
      and has; ``exact_tokens`` says whether that is a count or an estimate;
    - ``price``: dollars per million tokens;
    - ``embed_many(texts, spending, stop) -> Embedded``: as ``embed_documents``, but keeps what was
      answered when something fails, and spends no more than it may.
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
    parts = asdict(identity)
    if not identity.revision:
        # Hashed as before there were any.
        del parts["revision"]
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def checked_documents(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """Embed documents and check shape; rows that are not finite are left to the caller.

    Raises:
        EmbedderError: the embedder failed, or the shape is not (len(texts), dimensions).
    """
    return _shaped(embedder, len(texts), _call(embedder, lambda: embedder.embed_documents(texts)))


def check_probe(embedder: Embedder, vectors: Vectors) -> None:
    """Compare the vectors of `PROBES`, shape (n, d), with what the embedder says of itself.

    Raises:
        EmbedderError: it says that its vectors have unit length, and they do not.
    """
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    length = float(lengths[np.argmax(np.abs(lengths - 1))])
    if embedder.identity.normalized and abs(length - 1) > UNIT_TOLERANCE:
        raise EmbedderError(
            f"{embedder.model_id} says that its vectors have unit length, but one has length {length:.4g}: "
            "its identity must say normalized=False, or the embedder must scale them"
        )


def embed_many(
    embedder: Embedder,
    texts: Sequence[str],
    spending: Spending | None = None,
    stop: threading.Event | None = None,
) -> Embedded:
    """Embed documents and keep what was answered: an error is the result's, next to the vectors there are.

    Setting ``stop`` from another thread ends the work before its next request.
    """
    try:
        if not hasattr(embedder, "embed_many"):
            return Embedded(checked_documents(embedder, texts))
        try:
            outcome: Embedded = embedder.embed_many(texts, spending, stop)
            _shaped(embedder, len(texts), outcome.vectors)
        except PgseekError:
            raise
        except Exception as error:
            raise EmbedderError(f"{embedder.model_id} failed: {error}") from error
    except PgseekError as error:
        nothing = np.zeros((len(texts), embedder.identity.dimensions), np.float32)
        return Embedded(nothing, missing=frozenset(range(len(texts))), error=error)
    return outcome


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
    """Return whether ``vector`` says something of a text: finite and not zero."""
    return bool(np.isfinite(vector).all() and vector.any())


def _shaped(embedder: Embedder, count: int, vectors: Vectors) -> Vectors:
    expected = (count, embedder.identity.dimensions)
    if vectors.shape != expected:
        raise EmbedderError(
            f"{embedder.model_id} returned vectors of shape {vectors.shape} for {count} "
            f"texts, but the space needs {expected}"
        )
    return vectors


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
    # An infinite number has no direction: what comes of it is not finite, which callers look for.
    with np.errstate(invalid="ignore"):
        scaled: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return scaled
