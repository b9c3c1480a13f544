"""The reranker protocol, and the checks its scores pass before anything is ordered by them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pgseek.embedders.service import Refused, Stopped
from pgseek.errors import EmbedderError, PgseekError, RerankerError

Scores = npt.NDArray[np.float64]


@runtime_checkable
class Reranker(Protocol):
    """Scores texts for a query by reading both together.

    ``rerank`` may block; the async client runs it in a thread. A reranker may also have
    ``score(query, texts, stop)``: as ``rerank``, but it ends early, with `Stopped`, once the
    `threading.Event` is set, because nobody waits for its scores any more.
    """

    @property
    def model_id(self) -> str:
        """``provider:model``, as messages show it."""
        ...

    def rerank(self, query: str, texts: Sequence[str]) -> Any:
        """Return a number for each text, in the order of ``texts``, higher for what matches better."""
        ...


def checked_scores(
    reranker: Reranker, query: str, texts: Sequence[str], stop: threading.Event | None = None
) -> Scores:
    """Have texts scored; float64 of shape (len(texts),), finite.

    Raises:
        RerankerError: the reranker failed, or its answer is not that.
    """
    name = reranker.model_id
    try:
        score: Any = getattr(reranker, "score", None)
        given = score(query, texts, stop) if score is not None else reranker.rerank(query, texts)
        scores: Scores = np.asarray(given, dtype=np.float64)
    except EmbedderError as error:
        # What services share says "embedder" of its errors.
        raise RerankerError(str(error)) from error
    except Refused as error:
        raise RerankerError(f"{name} refused the request: {error}") from error
    except PgseekError:
        raise
    except Stopped as error:
        raise RerankerError(f"{name} was stopped") from error
    except Exception as error:
        raise RerankerError(f"{name} failed: {error}") from error
    if scores.shape != (len(texts),):
        raise RerankerError(
            f"{name} returned scores of shape {scores.shape} for {len(texts)} texts, but must return "
            f"({len(texts)},): a number for each, in their order"
        )
    if not np.isfinite(scores).all():
        place = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise RerankerError(f"{name} returned {scores[place]} for text {place + 1} of {len(texts)}")
    return scores
