"""A service of embeddings, rerank and chat models on this machine, spoken to as OpenAI, Azure OpenAI or Cohere; it can be
told to fail.

    with ProviderServer() as server:
        openai.OpenAI(api_key="k", base_url=server.base_url + "/v1")
        openai.AzureOpenAI(api_key="k", azure_endpoint=server.base_url, api_version="2024-10-21")
        cohere.ClientV2("k", base_url=server.base_url)

Vectors are those of `vector_of`. A token is a word (`tokens_of`), so limits and usage need no tokenizer.
Cohere's ``truncate`` is recorded, not obeyed. Tests behind a proxy need NO_PROXY=127.0.0.1.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import math
import re
import socket
import sys
import threading
import time
import uuid
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal, Self
from urllib.parse import parse_qsl, urlsplit

import numpy as np

NATIVE = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
    "embed-english-v3.0": 1024,
    "embed-v4.0": 1536,
}
OTHERS = 32  # dimensions of every other model
BAD_KEY = "bad"


def vector_of(model: str, text: str, dimensions: int, input_type: str = "") -> np.ndarray:
    """Return the service's float32 unit vector; a shorter one is the re-normalised start of a longer one."""
    digest = hashlib.sha256("\0".join([model, text, input_type]).encode("utf-8", "surrogatepass")).digest()
    vector = np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(dimensions)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def relevance_of(query: str, text: str) -> float:
    """Return what the rerank model gives a text: the share of the query's words that it has, in 0..1."""
    words = set(query.lower().split())
    return len(words & set(re.findall(r"\w+", text.lower()))) / len(words)


def tokens_of(text: str) -> int:
    """Return the number of words, at least 1."""
    return max(1, len(text.split()))


def written(request: Request) -> tuple[str, str]:
    """Return what the chat model says of a passage: as many questions as asked for, or a summary."""
    told, passage = (message["content"] for message in request.arguments["messages"])
    about = " ".join(passage.partition("Passage:\n")[2].split()[:6])
    asked = re.search(r"Write (\d+) ", told)
    if asked is None:
        return f"In short: {about}.", "stop"
    return "\n".join(f"{n}. What of {about}, part {n}?" for n in range(1, int(asked[1]) + 1)), "stop"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request. A status of 200 leaves the answer's checks in force."""

    status: int = 200
    retry_after: float | str | None = None  # seconds, or an HTTP date as it shall be sent
    retry_after_ms: float | None = None
    delay: float = 0.0  # seconds before anything is sent
    cut: Literal["", "before", "body"] = ""  # close before the status line, or after half the body
    shuffle: bool = False  # rows last to first; each keeps its index (Cohere: its place in ``texts``)
    wrong_dimensions: int = 0  # length of every vector
    missing: bool = False  # the last row is left out
    duplicate_index: bool = False  # the last row is the first one again
    nan: Literal["", "null", "nan", "zero"] = ""  # the first vector: null or NaN in it, or all zeros
    body: str | None = None  # sent as it is
    code: str = ""  # OpenAI's error code, such as insufficient_quota
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One request as it arrived. Token lists are recorded as texts of numbers, header names in lower case."""

    path: str
    model: str
    texts: tuple[str, ...]
    arguments: dict[str, Any]  # the body without model and texts, and the query
    headers: dict[str, str]
    started: float = 0.0  # time.monotonic()
    answered: bool = False  # status 200, sent completely to a client that was still there

    @property
    def tokens(self) -> int:
        return sum(map(tokens_of, self.texts))


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, message: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


class ProviderServer(ThreadingHTTPServer):
    """The service; everything below may be set at any time.

    ``faults`` is a list, one entry consumed per request, or a function of the request; it is called
    by one thread at a time and must not block (see `Fault.delay`). ``deployments`` maps Azure's
    names to models; without it a deployment is called as its model. ``native`` overrides `NATIVE`.
    A text that contains ``bad_text`` gets its whole request refused, without a word on which it was.
    """

    daemon_threads = False  # so that closing waits for the last handler
    request_queue_size = 128

    def __init__(
        self, native: Mapping[str, int] | None = None, deployments: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.native = {**NATIVE, **(native or {})}
        self.deployments = deployments
        self.faults: list[Fault | None] | Callable[[Request], Fault | None] = []
        self.bad_text: str | None = None
        # What a chat model says, and why it stopped.
        self.chat: Callable[[Request], tuple[str, str]] = written
        self.latency = 0.0
        self.requests_per_minute = 3_000  # told in headers, not enforced
        self.tokens_per_minute = 1_000_000
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._errors: list[BaseException] = []
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forget what was recorded."""
        with self._lock:
            self._requests: list[Request] = []
            self._starts: list[float] = []
            self._tokens = [0]  # total before each request, and at the end
            self._answered: Counter[str] = Counter()
            self._flying = 0
            self._peak = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def requests(self) -> list[Request]:
        """The requests so far, in order of arrival."""
        with self._lock:
            return list(self._requests)

    @property
    def answered(self) -> Counter[str]:
        """How often each text got its right vector in a complete answer."""
        with self._lock:
            return +self._answered

    @property
    def peak(self) -> int:
        """The highest number of requests that were waiting for their answer at one time."""
        with self._lock:
            return self._peak

    def most_in(self, window: float) -> int:
        """Return the largest number of requests started within ``window`` seconds (its end excluded)."""
        with self._lock:
            return max((end - start for start, end in self._windows(window)), default=0)

    def tokens_in(self, window: float) -> int:
        """Return the largest number of tokens asked for within ``window`` seconds (its end excluded)."""
        with self._lock:
            totals = self._tokens
            return max((totals[end] - totals[start] for start, end in self._windows(window)), default=0)

    def _windows(self, seconds: float) -> list[tuple[int, int]]:
        starts = self._starts
        return [(i, bisect_left(starts, start + seconds)) for i, start in enumerate(starts)]

    # For the handler.

    def arrive(self, request: Request) -> tuple[int, Request, Fault]:
        """Record a request; return its number, itself with its time, and what shall go wrong."""
        with self._lock:
            request = dataclasses.replace(request, started=time.monotonic())
            self._requests.append(request)
            self._starts.append(request.started)
            self._tokens.append(self._tokens[-1] + request.tokens)
            self._flying += 1
            self._peak = max(self._peak, self._flying)
            if callable(self.faults):
                fault = self.faults(request)
            else:
                fault = self.faults.pop(0) if self.faults else None
            return len(self._requests) - 1, request, fault or Fault()

    def leave(self) -> None:
        with self._lock:
            self._flying -= 1

    def mark(self, number: int, texts: list[str], answered: bool) -> None:
        with self._lock:
            self._requests[number] = dataclasses.replace(self._requests[number], answered=answered)
            (self._answered.update if answered else self._answered.subtract)(texts)

    def rate_headers(self) -> dict[str, str]:
        """Return what is left of this minute, in OpenAI's words."""
        with self._lock:
            first = bisect_right(self._starts, time.monotonic() - 60)
            used = {
                "requests": (len(self._starts) - first, self.requests_per_minute),
                "tokens": (self._tokens[-1] - self._tokens[first], self.tokens_per_minute),
            }
        headers = {}
        for name, (count, limit) in used.items():
            headers[f"x-ratelimit-limit-{name}"] = str(limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, limit - count))
            headers[f"x-ratelimit-reset-{name}"] = _duration(60 * count / limit)
        return headers

    # The life of the server.

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self.stopping.set()
        self.shutdown()
        with self._lock:
            idle = list(self._connections)
        for connection in idle:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()
        if kind is None and self._errors:
            raise self._errors[0]

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_: Any) -> None:
        """Keep a mistake of the tests for the end; a client that went away is none."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self._errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    server: ProviderServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        address = urlsplit(self.path)
        wire = _wire_of(address.path)
        query = dict(parse_qsl(address.query))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = wire.read(address.path, query, headers, content)
        number, request, fault = self.server.arrive(request)
        try:
            self.server.stopping.wait(self.server.latency + fault.delay)
            status, text, right = _answer(self.server, wire, request, fault)
        finally:
            self.server.leave()
        self._send(number, status, text, {**wire.headers(self.server), **_extra(fault)}, fault.cut, right)

    def _send(
        self, number: int, status: int, text: str, headers: dict[str, str], cut: str, right: list[str]
    ) -> None:
        if cut == "before" or self.server.stopping.is_set() or self._gone():
            self.close_connection = True
            return
        kind = "text/html" if text.startswith("<") else "application/json"
        payload = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers, "Content-Length": str(len(payload))}.items():
            self.send_header(name, value)
        self.end_headers()
        if cut == "body":
            self.wfile.write(payload[: len(payload) // 2])
            self.close_connection = True
            return
        # Recorded before it is sent, so that whoever has the answer finds it recorded.
        if status == 200:
            self.server.mark(number, right, answered=True)
        try:
            self.wfile.write(payload)
            self.wfile.flush()
        except OSError:
            if status == 200:
                self.server.mark(number, right, answered=False)
            raise

    def _gone(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def log_message(self, *_: Any) -> None:
        """Keep the test output clean."""


def _answer(
    server: ProviderServer, wire: _Wire, request: Request, fault: Fault
) -> tuple[int, str, list[str]]:
    """Return status, body, and the texts whose right vectors are in it."""
    try:
        if fault.status != 200:
            raise Refused(fault.status, code=fault.code or None)
        model, dimensions = wire.check(server, request)
    except Refused as refused:
        body = json.dumps(wire.error(refused, request)) if fault.body is None else fault.body
        return refused.status, body, []
    if fault.body is not None:
        return 200, fault.body, []
    if isinstance(wire, _Chat):
        return 200, json.dumps(wire.chat_answer(server, request)), list(request.texts)
    if isinstance(wire, _Rerank):
        return 200, json.dumps(wire.rerank_answer(request, fault)), list(request.texts)
    input_type = request.arguments.get("input_type", "")
    length = fault.wrong_dimensions or dimensions
    rows = [
        (index, text, vector_of(model, text, length, input_type)) for index, text in enumerate(request.texts)
    ]
    right = [] if length != dimensions else list(request.texts)
    if fault.nan:
        rows[0] = (*rows[0][:2], _spoilt(rows[0][2], fault.nan))
        right = right[1:]
    if fault.missing or fault.duplicate_index:
        rows = rows[:-1] + ([rows[0]] if fault.duplicate_index else [])
        right = right[: len(request.texts) - 1]
    if fault.shuffle:
        rows.reverse()
    return 200, json.dumps(wire.answer(model, request, rows)), right


def _spoilt(vector: np.ndarray, how: str) -> np.ndarray:
    """Return zeros, or the vector with a first value that JSON writes as null or NaN."""
    if how == "zero":
        return np.zeros_like(vector)
    spoilt = vector.astype(object)
    spoilt[0] = None if how == "null" else math.nan
    return spoilt


def _extra(fault: Fault) -> dict[str, str]:
    extra = dict(fault.headers)
    if fault.retry_after is not None:
        after = fault.retry_after
        extra["Retry-After"] = after if isinstance(after, str) else f"{after:g}"
    if fault.retry_after_ms is not None:
        extra["Retry-After-Ms"] = f"{fault.retry_after_ms:g}"
    return extra


def _duration(seconds: float) -> str:
    """Return "120ms", "1.5s" or "6m0s"."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return (f"{minutes:.0f}m" if minutes else "") + f"{math.floor(rest * 1000) / 1000:g}s"


class _Wire:
    """OpenAI's format; also of an address that nobody serves."""

    texts_field = "input"
    most_texts = 2048
    no_key = (
        "You didn't provide an API key. You need to provide your API key in an Authorization header using"
        " Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
    )
    # By error code, else by status.
    messages: ClassVar[dict[int | str, str]] = {
        400: "'$.input' is invalid. Please check the API reference:"
        " https://platform.openai.com/docs/api-reference.",
        401: "Incorrect API key provided: ***. You can find your API key at"
        " https://platform.openai.com/account/api-keys.",
        404: "The model `{model}` does not exist or you do not have access to it.",
        429: "Rate limit reached for {model} in organization org-tests on tokens per min (TPM):"
        " Limit 1000000, Used 999999, Requested {tokens}. Please try again in 1s.",
        "insufficient_quota": "You exceeded your current quota, please check your plan and billing details.",
        500: "The server had an error while processing your request. Sorry about that!",
        503: "The engine is currently overloaded, please try again later.",
    }
    codes: ClassVar[dict[int, str]] = {
        401: "invalid_api_key",
        404: "model_not_found",
        429: "rate_limit_exceeded",
    }

    def read(self, path: str, query: dict[str, str], headers: dict[str, str], content: bytes) -> Request:
        try:
            body = json.loads(content)
            texts = _texts(body.pop(self.texts_field))
            model = body.pop("model")
        except (ValueError, KeyError, TypeError, AttributeError):
            body, texts, model = {}, (), ""
        return Request(path, model, texts, {**body, **query}, headers)

    def headers(self, server: ProviderServer) -> dict[str, str]:
        return {
            "openai-processing-ms": "7",
            "openai-version": "2020-10-01",
            "x-request-id": f"req_{uuid.uuid4().hex}",
            **server.rate_headers(),
        }

    def check(self, server: ProviderServer, request: Request) -> tuple[str, int]:
        """Return the model that answers and its dimensions, or refuse as the real service does."""
        self.check_key(request)
        model = self.model(server, request)
        texts = request.texts
        if not 1 <= len(texts) <= self.most_texts:
            raise Refused(400, self.count_message(len(texts)))
        if not all(texts) or any(server.bad_text is not None and server.bad_text in text for text in texts):
            raise Refused(400)
        native = server.native.get(model, OTHERS)
        self.check_size(request)
        return model, self.dimensions(model, native, request)

    def check_key(self, request: Request) -> None:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not key:
            raise Refused(401, self.no_key, "")
        if key == BAD_KEY:
            raise Refused(401)

    def model(self, server: ProviderServer, request: Request) -> str:
        if request.path != "/v1/embeddings":
            raise Refused(404, f"Invalid URL (POST {request.path})", "")
        if not request.model:
            raise Refused(400, "you must provide a model parameter")
        return request.model

    def count_message(self, count: int) -> str:
        return ""

    def check_size(self, request: Request) -> None:
        most = max(map(tokens_of, request.texts))
        if most > 8192:
            raise Refused(
                400,
                f"This model's maximum context length is 8192 tokens, however you requested {most} tokens"
                f" ({most} in your prompt; 0 for the completion). Please reduce your prompt; or completion"
                " length.",
            )
        if request.tokens > 300_000:
            raise Refused(
                400,
                f"Requested {request.tokens} tokens, max 300000 tokens per request",
                "max_tokens_per_request",
            )

    def dimensions(self, model: str, native: int, request: Request) -> int:
        wanted = request.arguments.get("dimensions")
        if wanted is None:
            return native
        if model == "text-embedding-ada-002":
            raise Refused(400, "This model does not support specifying dimensions.")
        if not 1 <= wanted <= native:
            raise Refused(
                400, f"Invalid value for 'dimensions' = {wanted}. Must be less than or equal to {native}."
            )
        return wanted

    def answer(self, model: str, request: Request, rows: list[tuple[int, str, np.ndarray]]) -> Any:
        packed = request.arguments.get("encoding_format") == "base64"
        return {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
                    if packed
                    else vector.tolist(),
                }
                for index, _, vector in rows
            ],
            "model": model,
            "usage": {"prompt_tokens": request.tokens, "total_tokens": request.tokens},
        }

    def message(self, refused: Refused, request: Request) -> str:
        by_status = self.messages.get(refused.status, f"refused with {refused.status}")
        template = refused.message or self.messages.get(refused.code or "", by_status)
        return template.replace("{model}", request.model).replace("{tokens}", str(request.tokens))

    def error(self, refused: Refused, request: Request) -> Any:
        code = self.codes.get(refused.status) if refused.code is None else refused.code
        kind = "server_error" if refused.status >= 500 else "invalid_request_error"
        if refused.status == 429:
            kind = "tokens" if code == "rate_limit_exceeded" else str(code)
        message = self.message(refused, request)
        return {"error": {"message": message, "type": kind, "param": None, "code": code or None}}


class _Azure(_Wire):
    messages: ClassVar[dict[int | str, str]] = {
        **_Wire.messages,
        401: "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a"
        " valid key for an active subscription and use a correct regional API endpoint for your resource.",
        404: "The API deployment for this resource does not exist. If you created the deployment within the"
        " last 5 minutes, please wait a moment and try again.",
        429: "Requests to the Embeddings_Create Operation under Azure OpenAI API version 2024-10-21 have"
        " exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry after 1 second.",
    }
    codes: ClassVar[dict[int, str]] = {401: "401", 404: "DeploymentNotFound", 429: "429"}

    def headers(self, server: ProviderServer) -> dict[str, str]:
        return {
            "apim-request-id": str(uuid.uuid4()),
            "x-ms-region": "Sweden Central",
            **server.rate_headers(),
        }

    def check_key(self, request: Request) -> None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if request.headers.get("api-key", token) in ("", BAD_KEY):
            raise Refused(401)

    def model(self, server: ProviderServer, request: Request) -> str:
        if "api-version" not in request.arguments:
            raise Refused(404, "Resource not found", "404")
        deployment = request.path.split("/")[3]
        if server.deployments is None:
            return deployment
        if deployment not in server.deployments:
            raise Refused(404)
        return server.deployments[deployment]

    def error(self, refused: Refused, request: Request) -> Any:
        code = self.codes.get(refused.status) if refused.code is None else refused.code
        if code in self.codes.values():
            return {"error": {"code": code, "message": self.message(refused, request)}}
        return super().error(refused, request)


class _Cohere(_Wire):
    texts_field = "texts"
    most_texts = 96
    no_key = "no api key supplied"
    messages: ClassVar[dict[int | str, str]] = {
        400: "invalid request: texts contains an element that cannot be embedded",
        401: "invalid api token",
        404: "model '{model}' not found, make sure the correct model ID was used and that you have access to"
        " the model.",
        429: "You are using a Trial key, which is limited to 100 API calls / minute.",
        500: "internal server error, this has been reported to our developers.",
        503: "service unavailable",
    }

    def headers(self, server: ProviderServer) -> dict[str, str]:
        return {"x-debug-trace-id": uuid.uuid4().hex}

    def model(self, server: ProviderServer, request: Request) -> str:
        types = ("search_document", "search_query", "classification", "clustering")
        if not request.model:
            raise Refused(400, "invalid request: model is required")
        if request.arguments.get("input_type") not in types:
            raise Refused(400, f"invalid request: valid input_type must be provided, one of {types}")
        if request.arguments.get("embedding_types", ["float"]) != ["float"]:
            raise Refused(400, "invalid request: this service has only the embedding type float")
        return request.model

    def count_message(self, count: int) -> str:
        return f"invalid request: total number of texts must be at most {self.most_texts} - received {count}"

    def check_size(self, request: Request) -> None:
        """A long text is cut short, not refused."""

    def dimensions(self, model: str, native: int, request: Request) -> int:
        wanted = request.arguments.get("output_dimension")
        if wanted is None:
            return native
        if re.search(r"-v[23]\.0$", model):
            raise Refused(400, f"invalid request: output_dimension is not supported for model {model}")
        allowed = (256, 512, 1024, 1536) if native == 1536 else range(1, native + 1)
        if wanted not in allowed:
            raise Refused(400, f"invalid request: output_dimension {wanted} is not one of {list(allowed)}")
        return wanted

    def answer(self, model: str, request: Request, rows: list[tuple[int, str, np.ndarray]]) -> Any:
        return {
            "id": str(uuid.uuid4()),
            "embeddings": {"float": [vector.tolist() for *_, vector in rows]},
            "texts": [text for _, text, _ in rows],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": request.tokens}},
            "response_type": "embeddings_by_type",
        }

    def error(self, refused: Refused, request: Request) -> Any:
        return {"id": str(uuid.uuid4()), "message": self.message(refused, request)}


class _Rerank(_Cohere):
    """Cohere's rerank: texts come back by their places, best first."""

    texts_field = "documents"
    most_texts = 1000

    def check(self, server: ProviderServer, request: Request) -> tuple[str, int]:
        self.check_key(request)
        if not request.model.startswith("rerank-"):
            raise Refused(404)
        if not 1 <= len(request.texts) <= self.most_texts:
            raise Refused(400, self.count_message(len(request.texts)))
        if not request.arguments.get("query"):
            raise Refused(400, "invalid request: query must not be empty")
        if any(server.bad_text is not None and server.bad_text in text for text in request.texts):
            raise Refused(400)
        return request.model, 1

    def rerank_answer(self, request: Request, fault: Fault) -> Any:
        scores = [relevance_of(request.arguments["query"], text) for text in request.texts]
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        order = order[: request.arguments.get("top_n", len(order))]
        results = [{"index": place, "relevance_score": scores[place]} for place in order]
        if fault.missing or fault.duplicate_index:
            results = results[:-1] + ([results[0]] if fault.duplicate_index else [])
        return {
            "id": str(uuid.uuid4()),
            "results": results,
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        }


class _Chat(_Wire):
    """OpenAI's chat completions; a request's texts are its messages."""

    def read(self, path: str, query: dict[str, str], headers: dict[str, str], content: bytes) -> Request:
        body = json.loads(content)
        texts = tuple(message["content"] for message in body["messages"])
        return Request(path, body.pop("model"), texts, {**body, **query}, headers)

    def check(self, server: ProviderServer, request: Request) -> tuple[str, int]:
        self.check_key(request)
        if server.bad_text is not None and any(server.bad_text in text for text in request.texts):
            raise Refused(400, "The passage was flagged by our content policy.", "content_policy_violation")
        if {"max_tokens", "max_completion_tokens"} <= set(request.arguments):
            raise Refused(
                400, "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
            )
        return request.model, 1

    def chat_answer(self, server: ProviderServer, request: Request) -> Any:
        content, reason = server.chat(request)
        answered = tokens_of(content)
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": request.model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": content or None, "refusal": None},
                    "logprobs": None,
                    "finish_reason": reason,
                }
            ],
            "usage": {
                "prompt_tokens": request.tokens,
                "completion_tokens": answered,
                "total_tokens": request.tokens + answered,
            },
        }


def _wire_of(path: str) -> _Wire:
    if path == "/v2/embed":
        return _Cohere()
    if path == "/v2/rerank":
        return _Rerank()
    if path == "/v1/chat/completions":
        return _Chat()
    return _Azure() if re.fullmatch(r"/openai/deployments/[^/]+/embeddings", path) else _Wire()


def _texts(value: Any) -> tuple[str, ...]:
    """Return the texts of an input: a text, texts, tokens, or lists of tokens."""
    if isinstance(value, str):
        return (value,)
    if value and all(isinstance(element, int) for element in value):
        value = [value]
    return tuple(element if isinstance(element, str) else " ".join(map(str, element)) for element in value)
