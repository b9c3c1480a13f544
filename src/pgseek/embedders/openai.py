"""OpenAI's models, Azure's, and those of servers that speak the protocol, through OpenAI's own client."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pgseek.embedders.base import PROBE, Vectors, normalize
from pgseek.embedders.catalog import find_model, known_models, served_model
from pgseek.embedders.limits import Limiter, Limits
from pgseek.embedders.remote import Answer, RemoteEmbedder
from pgseek.embedders.service import Refused, Transient, meaning, one_line
from pgseek.errors import EmbedderError, InvalidInput, MissingExtra
from pgseek.types import EmbedderIdentity

# Of an account that has paid once (https://platform.openai.com/docs/guides/rate-limits).
DEFAULT_LIMITS = Limits(requests_per_minute=3000, tokens_per_minute=1_000_000)
# What the service says of an account that will not be served however long one waits.
QUOTA = ("insufficient_quota", "billing_hard_limit_reached")


class OpenAIEmbedder(RemoteEmbedder):
    """Unit vectors from OpenAI; shorter ones (``dimensions``) are made by the service.

    The key comes from OPENAI_API_KEY. ``client`` is an ``openai.OpenAI``; by default one is made on first
    use.
    """

    provider = "openai"

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
        model = model or "text-embedding-3-small"
        known = find_model("openai", model)
        if known is None:
            raise InvalidInput(
                f"openai model {model!r} is unknown; known are {', '.join(known_models('openai'))}. A model "
                "of a server that speaks OpenAI's protocol is openai-compatible:MODEL, with OPENAI_BASE_URL"
            )
        dimensions = known.check_dimensions(dimensions)
        super().__init__(
            EmbedderIdentity(self.provider, model, dimensions, normalized=True),
            account=f"openai:{model}",
            limits=limits or Limits.from_environment(DEFAULT_LIMITS),
            limiter=limiter,
            price=known.price,
            max_tokens=known.max_tokens,
            attempts=attempts,
            timeout=timeout,
        )
        self._arguments: dict[str, Any] = {} if dimensions == known.dimensions else {"dimensions": dimensions}
        self._client = client

    def _send(self, texts: Sequence[str], input_type: str) -> Answer:  # noqa: ARG002 (these models have one type)
        return self._request(list(texts))

    def _request(self, texts: list[str]) -> Answer:
        client, openai = self._open()
        try:
            answer = client.with_options(max_retries=0, timeout=self.timeout).embeddings.create(
                model=self._model_name(), input=texts, encoding_format=self._encoding, **self._arguments
            )
        except openai.APIError as error:
            raise failure(openai, error, self.model_id) from error
        except openai.OpenAIError as error:
            raise EmbedderError(f"{self.model_id} failed: {error}") from error
        except UnicodeEncodeError as error:
            raise Refused(f"a text is not Unicode: {error.reason}") from error
        except (ValueError, AttributeError, TypeError) as error:
            # What the client raises for a body that is not the protocol's.
            raise Transient(f"the answer cannot be read: {error}") from error
        return self._read(answer, len(texts))

    def _read(self, answer: Any, count: int) -> Answer:
        try:
            # The order of the answer is not promised; each row names the input it belongs to.
            rows = {row.index: row.embedding for row in answer.data}
            if len(answer.data) != count or sorted(rows) != list(range(count)):
                raise Transient(f"the answer holds {len(rows)} of {count} texts")
            vectors = np.array([_numbers(rows[i]) for i in range(count)], dtype=np.float32)
            tokens = None if answer.usage is None else int(answer.usage.prompt_tokens)
        except (ValueError, AttributeError, TypeError) as error:
            raise Transient(f"the answer cannot be read: {error}") from error
        return Answer(vectors, tokens)

    # Half the bytes of numbers in decimal, and exact.
    _encoding = "base64"

    def _model_name(self) -> str:
        return self.identity.model

    def _open(self) -> tuple[Any, Any]:
        try:
            import openai  # noqa: PLC0415 (optional package)
        except ImportError as error:
            raise MissingExtra("the openai client", "openai") from error
        with self._lock:
            if self._client is None:
                try:
                    self._client = self._connect(openai)
                except openai.OpenAIError as error:
                    raise EmbedderError(f"{self.model_id}: {error}") from error
            return self._client, openai

    def _connect(self, openai: Any) -> Any:
        if not os.environ.get("OPENAI_API_KEY"):
            raise EmbedderError(f"{self.model_id}: set OPENAI_API_KEY")
        return openai.OpenAI()


class CompatibleEmbedder(OpenAIEmbedder):
    """Models of any server that speaks OpenAI's protocol: Ollama, vLLM, LM Studio, text-embeddings-inference.

    The server's address is ``base_url`` or OPENAI_BASE_URL, such as http://localhost:11434/v1. Dimensions are
    asked of the server where the caller does not give them; fewer than the model's own are a prefix, where
    the catalogue says that the model was trained for it. The catalogue's prompts for a model are put before
    the texts, since these servers do not; vectors are scaled to unit length.
    """

    provider = "openai-compatible"
    # What text-embeddings-inference takes by default; others take more, and are as fast with this.
    max_inputs = 32
    _encoding = "float"

    def __init__(
        self,
        model: str = "",
        dimensions: int | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        client: Any = None,
        limits: Limits | None = None,
        limiter: Limiter | None = None,
        timeout: float = 60.0,
        attempts: int = 8,
    ) -> None:
        if not model:
            raise InvalidInput("name the server's model, such as openai-compatible:nomic-embed-text")
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL")
        if client is None and not self._base_url:
            raise InvalidInput(
                f"openai-compatible:{model} needs the server's address: set OPENAI_BASE_URL, "
                "such as http://localhost:11434/v1"
            )
        self._api_key = api_key
        self._client = client
        self._known = known = served_model(model)
        self._arguments = {}
        RemoteEmbedder.__init__(
            self,
            EmbedderIdentity(
                self.provider,
                model,
                dimensions or (known.dimensions if known is not None else 1),
                normalized=True,
                query_prompt=_first(query_prompt, None if known is None else known.query_prompt),
                document_prompt=_first(document_prompt, None if known is None else known.document_prompt),
            ),
            account=f"{without_user(str(self._base_url or client.base_url))}:{model}",
            limits=limits or Limits.from_environment(Limits()),
            limiter=limiter,
            max_tokens=None if known is None else known.max_tokens,
            attempts=attempts,
            timeout=timeout,
        )
        if dimensions is None:
            self._settle_dimensions()

    def _settle_dimensions(self) -> None:
        """Ask the server how long its vectors are."""
        try:
            found = self._persist([PROBE], "document", any_size=True).vectors.shape[1]
        except Refused as error:
            raise EmbedderError(f"{self.model_id} refuses every text: {error}") from error
        self.identity = replace(self.identity, dimensions=found)
        self.model_id = str(self.identity)

    def _send(self, texts: Sequence[str], input_type: str) -> Answer:
        i = self.identity
        prompt = i.query_prompt if input_type == "query" else i.document_prompt
        answer = self._request([prompt + text for text in texts])
        vectors, known = answer.vectors, self._known
        if known is not None and vectors.shape[1] == known.dimensions and known.reduces_to(i.dimensions):
            vectors = vectors[:, : i.dimensions]
        return Answer(normalize(vectors), answer.tokens)

    def _size(self, text: str) -> int:
        return super()._size(self.identity.document_prompt + text)

    def _connect(self, openai: Any) -> Any:
        key = self._api_key or os.environ.get("OPENAI_API_KEY") or "none"
        return openai.OpenAI(base_url=self._base_url, api_key=key)


class AzureEmbedder(OpenAIEmbedder):
    """OpenAI's models on Azure. ``model`` is the model's name, or ``model=deployment`` where they differ.

    The name of the deployment makes no other space, so a collection does not keep it: PGSEEK_AZURE_DEPLOYMENT
    names it as well. AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_API_KEY and OPENAI_API_VERSION say where and how.
    """

    provider = "azure-openai"

    def __init__(self, model: str = "", dimensions: int | None = None, **options: Any) -> None:
        model, _, deployment = model.partition("=")
        super().__init__(model, dimensions, **options)
        self._deployment = deployment or os.environ.get("PGSEEK_AZURE_DEPLOYMENT") or self.identity.model
        self.account = f"azure:{self._deployment}"

    def _model_name(self) -> str:
        return self._deployment

    def _connect(self, openai: Any) -> Any:
        for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"):
            if not os.environ.get(name):
                raise EmbedderError(f"{self.model_id}: set {name}")
        version = os.environ.get("OPENAI_API_VERSION", "2024-10-21")
        return openai.AzureOpenAI(api_version=version)


def failure(openai: Any, error: Any, model_id: str) -> Exception:
    """Return what an error of the client library means for the request."""
    if not isinstance(error, openai.APIStatusError):
        # No answer in time, no connection, or an answer that cannot be read.
        return Transient(one_line(error))
    message = one_line(error.message)
    if error.status_code == 429 and getattr(error, "code", None) in QUOTA:
        return EmbedderError(f"{model_id} failed with status 429: {message}")
    return meaning(error.status_code, message, error.response.headers, model_id)


def _numbers(embedding: Any) -> Vectors:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return np.array(embedding, dtype=np.float32)


def without_user(url: str) -> str:
    """Return the address without a name and password: it names a limit in the database."""
    return re.sub(r"(?<=//)[^/@]*@", "", url)


def _first(*values: str | None) -> str:
    return next((value for value in values if value is not None), "")
