"""Any function that turns texts into vectors, as an embedder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pgseek.embedders.base import PROBE, UNIT_TOLERANCE, Vectors
from pgseek.errors import EmbedderError, InvalidInput, PgseekError
from pgseek.types import EmbedderIdentity


class CallableEmbedder:
    """A function from a list of texts to vectors of shape (n, d), arrays or lists.

    ``model`` names the space: two functions whose vectors cannot be compared need two names, or two
    revisions of one name: ``revision`` says which version of the model it is, in words of your own.
    ``query_function`` embeds queries, where they are not embedded like documents. ``dimensions`` and
    ``normalized`` are asked of the function where they are not given: it is called once with one text.
    """

    def __init__(
        self,
        function: Callable[[list[str]], Any],
        *,
        model: str,
        dimensions: int | None = None,
        query_function: Callable[[list[str]], Any] | None = None,
        normalized: bool | None = None,
        max_tokens: int | None = None,
        cache_documents: bool = True,
        revision: str = "",
    ) -> None:
        for name, value in (("function", function), ("query_function", query_function)):
            if value is not None and not callable(value):
                raise InvalidInput(f"{name} is a {type(value).__name__}, but must be a function")
        if function is None or not isinstance(model, str) or not model:
            raise InvalidInput(
                "give the function and a name for its space: CallableEmbedder(f, model='mine')"
            )
        if not isinstance(revision, str):
            raise InvalidInput(f"revision is {revision!r}, but must be text, such as a date or a commit")
        self._function = function
        self._query_function = query_function or function
        self.max_tokens = max_tokens
        self.cache_documents = cache_documents
        self.model_id = f"callable:{model}"
        if dimensions is None or normalized is None:
            probe = self._call(function, [PROBE])
            dimensions = probe.shape[1] if dimensions is None else dimensions
            if normalized is None:
                normalized = bool(abs(float(np.linalg.norm(probe[0])) - 1) <= UNIT_TOLERANCE)
        self.identity = EmbedderIdentity("callable", model, dimensions, normalized, revision=revision)
        self.model_id = str(self.identity)

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (n, d) in the order of ``texts``."""
        if not texts:
            return np.zeros((0, self.identity.dimensions), dtype=np.float32)
        return self._call(self._function, list(texts))

    def embed_query(self, text: str) -> Vectors:
        """Return float32 (d,)."""
        vector: Vectors = self._call(self._query_function, [text])[0]
        return vector

    def _call(self, function: Callable[[list[str]], Any], texts: list[str]) -> Vectors:
        try:
            vectors = np.asarray(function(texts), dtype=np.float32)
        except PgseekError:
            raise
        except Exception as error:
            raise EmbedderError(f"{self.model_id} failed: {error}") from error
        if vectors.ndim != 2 or vectors.shape[0] != len(texts):
            raise EmbedderError(
                f"{self.model_id}: the function returned shape {vectors.shape} for {len(texts)} texts, "
                "but must return (n, dimensions)"
            )
        return vectors
