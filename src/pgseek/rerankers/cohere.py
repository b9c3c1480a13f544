"""Cohere's rerank models through its own client library. The key comes from CO_API_KEY."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from pgseek.embedders.cohere import CohereClient
from pgseek.embedders.limits import Limiter, Limits
from pgseek.embedders.remote import TOKENS_PER_BYTE
from pgseek.embedders.service import Service, Transient
from pgseek.rerankers.base import Scores

# Of a production key (https://docs.cohere.com/docs/rate-limits); a trial key's are lower.
DEFAULT_LIMITS = Limits(requests_per_minute=1000)
# What the service advises as the most of one request.
MOST_TEXTS = 1000


class CohereReranker(CohereClient, Service):
    """Scores in 0..1 from Cohere.

    Of a long text the service reads the beginning. A request bills a search for up to a hundred texts.
    ``client`` is a ``cohere.ClientV2``; by default one is made on first use.
    """

    extra = "cohere"

    def __init__(
        self,
        model: str = "",
        *,
        client: Any = None,
        limits: Limits | None = None,
        limiter: Limiter | None = None,
        timeout: float = 30.0,
        attempts: int = 4,
    ) -> None:
        self.model = model or "rerank-v3.5"
        self.model_id = f"cohere:{self.model}"
        super().__init__(
            self.model_id,
            limits=limits or Limits.from_environment(DEFAULT_LIMITS, "PGSEEK_RERANKER_"),
            attempts=attempts,
            timeout=timeout,
            limiter=limiter,
        )
        self._client = client

    def rerank(self, query: str, texts: Sequence[str]) -> Scores:
        """Return a score for each text, float64 (n,)."""
        return self.score(query, texts, None)

    def score(self, query: str, texts: Sequence[str], stop: threading.Event | None) -> Scores:
        """Do as `rerank`. Raises `Stopped` before the next attempt if ``stop`` is set."""
        scores = np.empty(len(texts), dtype=np.float64)
        for start in range(0, len(texts), MOST_TEXTS):
            part = list(texts[start : start + MOST_TEXTS])
            size = sum(len(text.encode("utf-8", "replace")) for text in (query, *part))
            tokens = int(size * TOKENS_PER_BYTE)
            answer = self.attempt(partial(self._send, query, part), tokens, stop)
            scores[start : start + len(part)] = answer
        return scores

    def _send(self, query: str, texts: list[str]) -> list[float]:
        answer = self._ask(
            lambda client: client.rerank(
                model=self.model,
                query=query,
                documents=texts,
                top_n=len(texts),
                request_options={"max_retries": 0, "timeout_in_seconds": self.timeout},
            )
        )
        try:
            # Best first; each names the place of its text.
            found = {int(one.index): float(one.relevance_score) for one in answer.results}
        except (ValueError, AttributeError, TypeError) as error:
            raise Transient(f"the answer cannot be read: {error}") from error
        if found.keys() != set(range(len(texts))) or len(answer.results) != len(texts):
            raise Transient(f"the answer scores {len(found)} of {len(texts)} texts, or others")
        return [found[place] for place in range(len(texts))]
