"""Chat models behind OpenAI's protocol, through OpenAI's own client."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pgseek.embedders.limits import Limiter, Limits, Spending
from pgseek.embedders.openai import failure, without_user
from pgseek.embedders.remote import TOKENS_PER_BYTE
from pgseek.embedders.service import Refused, Service, Transient
from pgseek.errors import CostLimitReached, EmbedderError, GeneratorError, InvalidInput, MissingExtra
from pgseek.generators.base import USUAL, Request, WrittenKind
from pgseek.generators.prices import find_price

# Of an account that has paid once (https://platform.openai.com/docs/guides/rate-limits).
DEFAULT_LIMITS = Limits(requests_per_minute=500, tokens_per_minute=200_000)
PROMPTS: Mapping[WrittenKind, str] = {
    "question": (
        "You prepare passages for a search index. Write {count} different questions that the passage "
        "answers, as people who have not read it would ask them. Each must be clear by itself: name what it "
        "is about. Use the passage's language. One question per line, nothing else."
    ),
    "summary": (
        "You prepare passages for a search index. Summarise the passage in one to three sentences that are "
        "clear by themselves: name what they are about, and keep names and numbers. Use the passage's "
        "language. Write nothing else."
    ),
}
# What is written for a query. Not part of `ChatGenerator.identity`: that is what chunks' texts are known by.
QUERY_PROMPTS: Mapping[WrittenKind, str] = {
    "answer": (
        "You help a search engine. Write a passage of two to five sentences that answers the query, as it "
        "could stand in a document that the search shall find. Be specific; it need not be true. Use the "
        "query's language. Write nothing else."
    ),
    "rephrasing": (
        "You help a search engine. Write {count} other queries that ask for the same as the query in other "
        "words: synonyms, names, more special or more general terms. Use the query's language. One query per "
        "line, nothing else."
    ),
}
# Tokens that an answer has at most.
MOST: Mapping[WrittenKind, int] = {"question": 80, "summary": 400, "answer": 500, "rephrasing": 60}
# What models put before a line though they were told not to.
BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,2}[.):])\s*")


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer, and the tokens billed for the request and for it, if told."""

    text: str
    cut: bool
    tokens: tuple[int, int] | None


class ChatGenerator(Service):
    """What a chat model writes for chunks and queries: OpenAI's, or one of a server that speaks its protocol.

    With ``provider`` 'openai-compatible' the server's address is ``base_url`` or OPENAI_BASE_URL, such as
    http://localhost:11434/v1. The key comes from OPENAI_API_KEY. ``prompts`` replaces `PROMPTS` and
    `QUERY_PROMPTS`, by kind; "{count}" in it is the number of questions. ``price`` is in dollars per million
    tokens of input and of output, by default what ``models.toml`` knows of the model. ``max_output_tokens``
    bounds an answer; a model that reasons before it answers needs a higher bound than the default.
    """

    def __init__(
        self,
        model: str = "",
        *,
        provider: Literal["openai", "openai-compatible"] = "openai",
        base_url: str | None = None,
        api_key: str | None = None,
        client: Any = None,
        prompts: Mapping[WrittenKind, str] | None = None,
        price: tuple[float, float] | None = None,
        max_output_tokens: int | None = None,
        limits: Limits | None = None,
        limiter: Limiter | None = None,
        timeout: float = 120.0,
        attempts: int = 8,
    ) -> None:
        if not model:
            raise InvalidInput(f"name the model, such as {provider}:gpt-4.1-mini")
        local = provider == "openai-compatible"
        self._base_url = base_url or (os.environ.get("OPENAI_BASE_URL") if local else None)
        if local and client is None and not self._base_url:
            raise InvalidInput(
                f"{provider}:{model} needs the server's address: set OPENAI_BASE_URL, such as "
                "http://localhost:11434/v1"
            )
        address = without_user(str(self._base_url or getattr(client, "base_url", ""))) if local else provider
        super().__init__(
            f"chat:{address}:{model}",
            limits=limits
            or Limits.from_environment(Limits() if local else DEFAULT_LIMITS, "PGSEEK_GENERATOR_"),
            attempts=attempts,
            timeout=timeout,
            limiter=limiter,
        )
        self.model = model
        self.model_id = f"{provider}:{model}"
        known: dict[WrittenKind, str] = {**PROMPTS, **(prompts or {})}
        digest = hashlib.sha256("\0".join(f"{k}:{v}" for k, v in sorted(known.items())).encode())
        self._prompts: dict[WrittenKind, str] = {**QUERY_PROMPTS, **known}
        self.identity = f"{self.model_id}/{digest.hexdigest()[:16]}"
        self.concurrency = self.limits.concurrency
        self.price = find_price(self.model_id) if price is None else price
        self._max_output = max_output_tokens
        self._limit_name = "max_tokens" if local else "max_completion_tokens"
        self._api_key = api_key
        self._client = client
        self._local = local

    def generate(self, kind: WrittenKind, text: str, title: str, count: int) -> list[str]:
        """Return what the model writes. Raises `GeneratorError` if it writes nothing."""
        try:
            return self.write(Request(kind, text, title, count), None, None)
        except Refused as error:
            raise GeneratorError(f"{self.model_id} refused: {error}") from error

    def estimate(self, request: Request) -> tuple[int, int]:
        """Return about how many tokens a request and its answer have."""
        size = sum(len(message["content"].encode("utf-8", "replace")) for message in self._messages(request))
        return int(size * TOKENS_PER_BYTE) + 10, USUAL[request.kind] * request.count

    def write(self, request: Request, spending: Spending | None, stop: threading.Event | None) -> list[str]:
        """Send one request until it is answered, within limits and budget.

        Raises:
            Refused: the model will not write for this text.
            Stopped: ``stop`` was set before there was an answer.
            GeneratorError, CostLimitReached: there will be none.
        """
        tokens, usual = self.estimate(request)
        most = self._most(request)
        # Answers are seldom as long as they may be, but what they cost is then within the bound.
        reserved = self._dollars((tokens, most))
        if spending is not None:
            spending.reserve(0, reserved)
        billed = 0.0
        try:
            answer = self.attempt(lambda: self._send(request, most), tokens + usual, stop)
            counted = answer.tokens or (tokens, usual)
            billed = self._dollars(counted)
            self._pace.settle(tokens + usual, sum(counted))
        except CostLimitReached:
            raise
        except EmbedderError as error:
            raise GeneratorError(str(error)) from error
        finally:
            if spending is not None:
                spending.settle_dollars(reserved, billed)
        return self._read(answer, request)

    def _most(self, request: Request) -> int:
        return self._max_output or MOST[request.kind] * request.count + 100

    def _dollars(self, tokens: tuple[int, int]) -> float:
        price = self.price or (0.0, 0.0)
        return (tokens[0] * price[0] + tokens[1] * price[1]) / 1e6

    def _messages(self, request: Request) -> list[dict[str, str]]:
        prompt = self._prompts[request.kind].replace("{count}", str(request.count))
        about = f"Document: {request.title}\n\n" if request.title else ""
        what = "Query" if request.kind in QUERY_PROMPTS else "Passage"
        return [
            {"role": "system", "content": prompt},
            {"role": "user", "content": f"{about}{what}:\n{request.text}"},
        ]

    def _send(self, request: Request, most: int) -> Completion:
        client, openai = self._open()
        try:
            answer = client.with_options(max_retries=0, timeout=self.timeout).chat.completions.create(
                model=self.model, messages=self._messages(request), **{self._limit_name: most}
            )
        except openai.APIError as error:
            raise failure(openai, error, self.model_id) from error
        except openai.OpenAIError as error:
            raise EmbedderError(f"{self.model_id} failed: {error}") from error
        except UnicodeEncodeError as error:
            raise Refused(f"the text is not Unicode: {error.reason}") from error
        except (ValueError, AttributeError, TypeError) as error:
            raise Transient(f"the answer cannot be read: {error}") from error
        try:
            choice = answer.choices[0]
            refusal = getattr(choice.message, "refusal", None)
            text, reason = choice.message.content or "", choice.finish_reason
            usage = answer.usage
            tokens = None if usage is None else (int(usage.prompt_tokens), int(usage.completion_tokens))
        except (ValueError, AttributeError, TypeError, IndexError) as error:
            raise Transient(f"the answer cannot be read: {error}") from error
        if refusal or reason == "content_filter":
            raise Refused(refusal or "the service's content filter stopped the answer")
        if reason == "length" and not text.strip():
            raise EmbedderError(
                f"{self.model_id} used the {most} tokens of its answer before it said anything; "
                "raise max_output_tokens, or use a model that does not reason first"
            )
        return Completion(text, reason == "length", tokens)

    def _read(self, answer: Completion, request: Request) -> list[str]:
        if request.kind in {"summary", "answer"}:
            texts = [" ".join(answer.text.split())]
        else:
            lines = answer.text.splitlines()
            # The last line of an answer that was cut is half a question.
            lines = lines[:-1] if answer.cut and len(lines) > 1 else lines
            texts = [BULLET.sub("", line).strip() for line in lines]
        texts = [text for text in texts if text]
        if not texts:
            raise Refused("its answer is empty")
        return texts

    def _open(self) -> tuple[Any, Any]:
        try:
            import openai  # noqa: PLC0415 (optional package)
        except ImportError as error:
            raise MissingExtra("the openai client", "openai") from error
        with self._lock:
            if self._client is None:
                key = self._api_key or os.environ.get("OPENAI_API_KEY") or ("none" if self._local else None)
                if key is None:
                    raise EmbedderError(f"{self.model_id}: set OPENAI_API_KEY")
                self._client = openai.OpenAI(base_url=self._base_url, api_key=key)
            return self._client, openai
