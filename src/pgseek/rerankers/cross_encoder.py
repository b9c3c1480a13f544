"""Cross-encoders of sentence-transformers: a hub name or a local folder, with torch or ONNX."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from pgseek.embedders.service import Stopped
from pgseek.errors import InvalidInput, MissingExtra, RerankerError
from pgseek.rerankers.base import Scores


class CrossEncoderReranker:
    """A local cross-encoder, loaded on construction.

    Of a query and text that are longer than it reads, it reads the beginning. ``device`` and ``backend``
    ('torch', 'onnx', 'openvino') are by default those of PGSEEK_DEVICE and PGSEEK_BACKEND. Pairs are read
    ``batch_size`` at a time; between two batches it can be stopped.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str | None = None,
        backend: str | None = None,
        revision: str = "",
        batch_size: int = 16,
    ) -> None:
        if not model:
            raise InvalidInput("name a model, such as cross-encoder:cross-encoder/ms-marco-MiniLM-L6-v2")
        if batch_size < 1:
            raise InvalidInput(f"batch_size is {batch_size}, but must be 1 or more")
        try:
            from sentence_transformers import CrossEncoder  # noqa: PLC0415 (optional)
        except ImportError as error:
            raise MissingExtra("sentence-transformers", "sentence-transformers") from error
        try:
            self._model: Any = CrossEncoder(
                model,
                device=device or os.environ.get("PGSEEK_DEVICE") or None,
                backend=backend or os.environ.get("PGSEEK_BACKEND") or "torch",
                revision=revision or None,
            )
        except Exception as error:
            # The library raises whatever it likes.
            raise RerankerError(f"cannot load cross-encoder {model!r}: {error}") from error
        labels = int(self._model.num_labels)
        if labels != 1:
            raise InvalidInput(f"{model} gives {labels} numbers for a pair, but a reranker must give one")
        self.model_id = f"cross-encoder:{model}"
        self._batch_size = batch_size
        # Tokenizers and models are shared by threads, but not all of them stand it.
        self._lock = threading.Lock()

    def rerank(self, query: str, texts: Sequence[str]) -> Scores:
        """Return a score for each text, float64 (n,)."""
        return self.score(query, texts, None)

    def score(self, query: str, texts: Sequence[str], stop: threading.Event | None) -> Scores:
        """Do as `rerank`. Raises `Stopped` between two batches if ``stop`` is set."""
        scores = np.empty(len(texts), dtype=np.float64)
        # Texts of like length together: the shorter ones of a batch are filled up.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            with self._lock:
                if stop is not None and stop.is_set():
                    raise Stopped
                scores[places] = self._model.predict(
                    [(query, texts[place]) for place in places],
                    batch_size=self._batch_size,
                    show_progress_bar=False,
                )
        return scores
