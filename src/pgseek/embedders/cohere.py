"""Cohere's embedding models through its own client library. The key comes from CO_API_KEY."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pgseek.embedders.catalog import find_model, known_models
from pgseek.embedders.limits import Limiter, Limits
from pgseek.embedders.remote import Answer, RemoteEmbedder
from pgseek.embedders.service import TRANSIENT_STATUS, Refused, Transient, meaning, one_line
from pgseek.errors import EmbedderError, InvalidInput, MissingExtra
from pgseek.types import EmbedderIdentity

# Of a production key (https://docs.cohere.com/docs/rate-limits); a trial key's are lower.
DEFAULT_LIMITS = Limits(requests_per_minute=2000)
# "Where" a text stands in a search is an argument of the request: Cohere's models have no prompts.
INPUT_TYPES = {"document": "search_document", "query": "search_query"}


class CohereClient:
    """What speaks to Cohere has a client, and knows what its errors mean."""

    model_id: str
    _lock: threading.Lock
    _client: Any

    def _ask(self, request: Callable[[Any], Any]) -> Any:
        """Return the client library's answer to one request.

        Raises:
            Transient, Refused, EmbedderError: as they say.
        """
        client, core, httpx = self._open()
        try:
            return request(client)
        except core.ApiError as error:
            raise failure(error, self.model_id) from error
        except httpx.HTTPError as error:
            raise Transient(f"{type(error).__name__}: {error}") from error
        except UnicodeEncodeError as error:
            raise Refused(f"a text is not Unicode: {error.reason}") from error
        except (ValueError, AttributeError, TypeError, core.ParsingError) as error:
            raise Transient(f"the answer cannot be read: {one_line(error)}") from error

    def _open(self) -> tuple[Any, Any, Any]:
        try:
            import cohere  # noqa: PLC0415 (optional package)
            import httpx  # noqa: PLC0415 (comes with it)
            from cohere import core  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtra("the cohere client", "cohere") from error
        with self._lock:
            if self._client is None:
                if not os.environ.get("CO_API_KEY"):
                    raise EmbedderError(f"{self.model_id}: set CO_API_KEY")
                # The library asks for the address only once, when it is imported.
                self._client = cohere.ClientV2(base_url=os.environ.get("CO_API_URL"))
            return self._client, core, httpx


class CohereEmbedder(CohereClient, RemoteEmbedder):
    """Vectors from Cohere; embed-v4.0 makes shorter ones (``dimensions``) itself.

    A text longer than the model's limit is refused by the service, never cut. ``client`` is a
    ``cohere.ClientV2``; by default one is made on first use.
    """

    extra = "cohere"
    max_inputs = 96

    def __init__(
        self,
        model: str = "",
        dimensions: int | None = None,
        *,
        client: Any = None,
        limits: Limits | None = None,
        limiter: Limiter | None = None,
        timeout: float = 60.0,
        attempts: int = 8,
    ) -> None:
        model = model or "embed-v4.0"
        known = find_model("cohere", model)
        if known is None:
            raise InvalidInput(
                f"cohere model {model!r} is unknown; known are {', '.join(known_models('cohere'))}"
            )
        dimensions = known.check_dimensions(dimensions)
        super().__init__(
            EmbedderIdentity("cohere", model, dimensions, normalized=known.normalized),
            account=f"cohere:{model}",
            limits=limits or Limits.from_environment(DEFAULT_LIMITS),
            limiter=limiter,
            price=known.price,
            max_tokens=known.max_tokens,
            attempts=attempts,
            timeout=timeout,
        )
        self._shorten = {} if known.reductions is None else {"output_dimension": dimensions}
        self._client = client

    def _send(self, texts: Sequence[str], input_type: str) -> Answer:
        answer = self._ask(
            lambda client: client.embed(
                model=self.identity.model,
                texts=list(texts),
                input_type=INPUT_TYPES[input_type],
                embedding_types=["float"],
                truncate="NONE",
                request_options={"max_retries": 0, "timeout_in_seconds": self.timeout},
                **self._shorten,
            )
        )
        return _read(answer, texts)


def _read(answer: Any, texts: Sequence[str]) -> Answer:
    try:
        vectors, echoed = answer.embeddings.float_, answer.texts
        # The vectors carry no index, but the texts come back with them.
        if len(vectors) != len(texts) or (echoed is not None and list(echoed) != list(texts)):
            raise Transient(f"the answer holds {len(vectors)} of {len(texts)} texts, or others")
        units = answer.meta.billed_units if answer.meta is not None else None
        tokens = None if units is None or units.input_tokens is None else int(units.input_tokens)
        return Answer(np.array(vectors, dtype=np.float32), tokens)
    except (ValueError, AttributeError, TypeError) as error:
        raise Transient(f"the answer cannot be read: {error}") from error


def failure(error: Any, model_id: str) -> Exception:
    """Return what an error of the client library means for the request."""
    status, body = error.status_code, error.body
    message = one_line(body.get("message", body) if isinstance(body, dict) else body)
    if status is not None and status < 300:
        return Transient(f"the answer cannot be read: {message}")
    return meaning(status, message, error.headers or {}, model_id, TRANSIENT_STATUS | {498, 499})
