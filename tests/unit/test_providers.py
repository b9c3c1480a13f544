"""The embeddings service of the tests, held against the real client libraries."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import cohere
import httpx
import numpy as np
import openai
import pytest
from cohere.core.api_error import ApiError
from providers import Fault, ProviderServer, Request, tokens_of, vector_of

TEXTS = ["one", "two words", "three", "four"]
MODEL = "tiny"


@pytest.fixture(scope="module", autouse=True)
def _no_proxy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


def ask_openai(
    server: ProviderServer,
    texts: Any = TEXTS,
    model: str = MODEL,
    key: str = "k",
    timeout: float = 30,
    **arguments: Any,
) -> Any:
    # Most clients here need no certificates, and reading them takes longer than the test.
    plain = openai.DefaultHttpxClient(verify=False)
    address = server.base_url + "/v1"
    with openai.OpenAI(
        api_key=key, base_url=address, max_retries=0, timeout=timeout, http_client=plain
    ) as client:
        return client.embeddings.create(model=model, input=texts, **arguments)


def ask_azure(
    server: ProviderServer, texts: Any = TEXTS, model: str = MODEL, key: str = "k", **arguments: Any
) -> Any:
    with openai.AzureOpenAI(
        api_key=key,
        azure_endpoint=server.base_url,
        api_version="2024-10-21",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(verify=False),
    ) as client:
        return client.embeddings.create(model=model, input=texts, **arguments)


def ask_cohere(
    server: ProviderServer,
    texts: Any = TEXTS,
    model: str = MODEL,
    key: str = "k",
    timeout: float = 30,
    input_type: str = "search_document",
    **arguments: Any,
) -> Any:
    plain = httpx.Client(verify=False)
    with cohere.ClientV2(key, base_url=server.base_url, timeout=timeout, httpx_client=plain) as client:
        return client.embed(
            model=model,
            texts=texts,
            input_type=input_type,
            embedding_types=["float"],
            request_options={"max_retries": 0},
            **arguments,
        )


def by_index(answer: Any) -> Any:
    return np.array([row.embedding for row in sorted(answer.data, key=lambda row: row.index)], np.float32)


def in_order(answer: Any) -> Any:
    return np.array(answer.embeddings.float_, np.float32)


def expected(model: str, dimensions: int, input_type: str = "", texts: list[str] = TEXTS) -> Any:
    return np.array([vector_of(model, text, dimensions, input_type) for text in texts])


def raw(url: str, **headers: str) -> tuple[int, Any]:
    """POST a small body without a client library."""
    body = {"model": MODEL, "input": "x", "texts": ["x"], "input_type": "search_query"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


# Vectors.


def test_vectors_are_unit_and_a_short_one_starts_the_long_one():
    long, short = vector_of("m", "t", 64), vector_of("m", "t", 8)
    assert np.linalg.norm(long) == pytest.approx(1, abs=1e-6)
    assert np.allclose(short, long[:8] / np.linalg.norm(long[:8]), atol=1e-6)
    others = [vector_of("n", "t", 8), vector_of("m", "u", 8), vector_of("m", "t", 8, "search_query")]
    assert not any(np.allclose(short, other) for other in others)


@pytest.mark.parametrize("ask", [ask_openai, ask_azure])
@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
@pytest.mark.parametrize(
    ("model", "arguments", "dimensions"),
    [
        ("text-embedding-3-small", {}, 1536),
        ("text-embedding-3-small", {"dimensions": 5}, 5),
        ("text-embedding-3-large", {}, 3072),
        ("text-embedding-ada-002", {}, 1536),
        (MODEL, {}, 32),
    ],
)
def test_openai_reads_the_vectors(server, ask, form, model, arguments, dimensions):
    answer = ask(server, model=model, **form, **arguments)
    assert np.array_equal(by_index(answer), expected(model, dimensions))
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == (model, 5, 5)
    (request,) = server.requests
    assert (request.model, request.texts, request.answered) == (model, tuple(TEXTS), True)
    assert request.arguments["encoding_format"] == form.get("encoding_format", "base64")


@pytest.mark.parametrize(
    ("model", "arguments", "dimensions"),
    [
        ("embed-english-v3.0", {}, 1024),
        ("embed-v4.0", {}, 1536),
        ("embed-v4.0", {"output_dimension": 256}, 256),
    ],
)
@pytest.mark.parametrize("input_type", ["search_document", "search_query"])
def test_cohere_reads_the_vectors(server, input_type, model, arguments, dimensions):
    answer = ask_cohere(server, model=model, input_type=input_type, **arguments)
    assert np.array_equal(in_order(answer), expected(model, dimensions, input_type))
    assert (answer.texts, answer.meta.billed_units.input_tokens) == (TEXTS, 5)
    (request,) = server.requests
    assert request.path == "/v2/embed"
    assert request.arguments == {"input_type": input_type, "embedding_types": ["float"], **arguments}


def test_dimensions_of_a_model_can_be_others():
    with ProviderServer({"text-embedding-3-small": 4, "embed-v4.0": 4}) as server:
        assert by_index(ask_openai(server, model="text-embedding-3-small")).shape == (4, 4)
        assert in_order(ask_cohere(server, model="embed-v4.0", output_dimension=3)).shape == (4, 3)


@pytest.mark.parametrize(
    ("given", "texts"), [("a b", ["a b"]), ([7, 8], ["7 8"]), ([[7, 8], [9]], ["7 8", "9"])]
)
def test_openai_takes_one_text_and_tokens(server, given, texts):
    assert np.array_equal(by_index(ask_openai(server, given)), expected(MODEL, 32, texts=texts))
    assert server.requests[0].tokens == sum(map(tokens_of, texts))


def test_azure_asks_a_deployment():
    with ProviderServer(deployments={"mine": "text-embedding-3-small"}) as server:
        answer = ask_azure(server, model="mine")
        assert np.array_equal(by_index(answer), expected("text-embedding-3-small", 1536))
        (request,) = server.requests
        assert request.path == "/openai/deployments/mine/embeddings"
        assert request.arguments["api-version"] == "2024-10-21"
        assert request.headers["api-key"] == "k"
        with pytest.raises(openai.NotFoundError) as caught:
            ask_azure(server, model="yours")
        assert caught.value.code == "DeploymentNotFound"


# Limits.


def test_the_limit_itself_is_kept(server):
    assert len(ask_openai(server, ["x"] * 2048, dimensions=1).data) == 2048
    assert len(ask_cohere(server, ["x"] * 96).embeddings.float_) == 96


@pytest.mark.parametrize(
    ("texts", "model", "arguments", "message"),
    [
        (["x"] * 2049, MODEL, {}, "input' is invalid"),
        (["x", ""], MODEL, {}, "input' is invalid"),
        ([], MODEL, {}, "input' is invalid"),
        (["x y " * 4097], MODEL, {}, "maximum context length is 8192 tokens, however you requested 8194"),
        (["x " * 8000] * 38, MODEL, {}, "Requested 304000 tokens, max 300000"),
        (["x"], "text-embedding-ada-002", {"dimensions": 1536}, "does not support specifying dimensions"),
        (["x"], "text-embedding-3-small", {"dimensions": 1537}, "Invalid value for 'dimensions' = 1537"),
    ],
)
@pytest.mark.parametrize("ask", [ask_openai, ask_azure])
def test_openai_refuses(server, ask, texts, model, arguments, message):
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        ask(server, texts, model, **arguments)
    assert caught.value.body["type"].startswith(("invalid_request_error", "max_tokens"))
    assert not server.answered


@pytest.mark.parametrize(
    ("texts", "model", "arguments", "message"),
    [
        (["x"] * 97, MODEL, {}, "must be at most 96 - received 97"),
        (["x", ""], MODEL, {}, "cannot be embedded"),
        (["x"], MODEL, {"input_type": "document"}, "input_type"),
        (["x"], "embed-english-v3.0", {"output_dimension": 256}, "output_dimension is not supported"),
        (["x"], "embed-v4.0", {"output_dimension": 257}, "output_dimension 257"),
    ],
)
def test_cohere_refuses(server, texts, model, arguments, message):
    with pytest.raises(cohere.BadRequestError) as caught:
        ask_cohere(server, texts, model, **arguments)
    assert message in caught.value.body["message"]


def test_a_bad_text_is_not_named(server):
    server.bad_text = "poison"
    texts = ["x", "has poison in it"]
    with pytest.raises(openai.BadRequestError) as refused:
        ask_openai(server, texts)
    assert refused.value.type == "invalid_request_error"
    with pytest.raises(cohere.BadRequestError) as also:
        ask_cohere(server, texts)
    assert not any(mark in str([refused.value.body, also.value.body["message"]]) for mark in ("poison", "1"))
    assert len(ask_openai(server, ["x"]).data) == 1


@pytest.mark.parametrize("ask", [ask_openai, ask_azure])
def test_openai_refuses_a_bad_key(server, ask):
    with pytest.raises(openai.AuthenticationError):
        ask(server, key="bad")


def test_cohere_refuses_a_bad_key(server):
    with pytest.raises(cohere.UnauthorizedError) as caught:
        ask_cohere(server, key="bad")
    assert caught.value.body["message"] == "invalid api token"


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/openai/deployments/d/embeddings?api-version=1", "/v2/embed"]
)
def test_a_key_is_needed(server, path):
    assert raw(server.base_url + path)[0] == 401
    assert raw(server.base_url + path, Authorization="Bearer k")[0] == 200


def test_an_unknown_address_is_not_found(server):
    assert raw(server.base_url + "/v1/embed", Authorization="Bearer k")[0] == 404
    assert raw(server.base_url + "/openai/deployments/d/embeddings", Authorization="Bearer k")[0] == 404


# Faults.


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (408, openai.APIStatusError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("ask", [ask_openai, ask_azure])
def test_a_status_is_the_libraries_error_in_openai(server, ask, status, kind):
    server.faults = [None, Fault(status, retry_after=1.5, retry_after_ms=20)]
    ask(server)
    with pytest.raises(kind) as caught:
        ask(server)
    assert type(caught.value) is kind
    assert caught.value.status_code == status
    assert (
        caught.value.response.headers["retry-after"],
        caught.value.response.headers["retry-after-ms"],
    ) == (
        "1.5",
        "20",
    )
    assert [request.answered for request in server.requests] == [True, False]
    assert server.answered == dict.fromkeys(TEXTS, 1)
    ask(server)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, cohere.BadRequestError),
        (401, cohere.UnauthorizedError),
        (403, cohere.ForbiddenError),
        (404, cohere.NotFoundError),
        (408, ApiError),
        (409, ApiError),
        (422, cohere.UnprocessableEntityError),
        (429, cohere.TooManyRequestsError),
        (498, cohere.InvalidTokenError),
        (500, cohere.InternalServerError),
        (502, ApiError),
        (503, cohere.ServiceUnavailableError),
        (504, cohere.GatewayTimeoutError),
    ],
)
def test_a_status_is_the_libraries_error_in_cohere(server, status, kind):
    date = formatdate(time.time() + 30, usegmt=True)
    server.faults = [Fault(status, retry_after=date)]
    with pytest.raises(kind) as caught:
        ask_cohere(server)
    assert type(caught.value) is kind
    assert caught.value.status_code == status
    assert caught.value.headers["retry-after"] == date
    assert caught.value.body["message"]
    ask_cohere(server)


def test_a_quota_used_up_is_not_a_rate_limit(server):
    server.faults = [Fault(429, code="insufficient_quota"), Fault(429)]
    codes = []
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as caught:
            ask_openai(server)
        codes.append(caught.value.code)
    assert codes == ["insufficient_quota", "rate_limit_exceeded"]


@pytest.mark.parametrize("cut", ["before", "body"])
def test_a_cut_answer_is_a_connection_error(server, cut):
    server.faults = [Fault(cut=cut)] * 2
    with pytest.raises(openai.APIConnectionError):
        ask_openai(server)
    with pytest.raises(httpx.RemoteProtocolError):
        ask_cohere(server)
    assert not server.answered
    assert not any(request.answered for request in server.requests)


def test_a_late_answer_is_a_time_out_and_counts_for_nothing(server):
    server.faults = [Fault(delay=0.3)] * 2
    with pytest.raises(openai.APITimeoutError):
        ask_openai(server, timeout=0.1)
    with pytest.raises(httpx.ReadTimeout):
        ask_cohere(server, timeout=0.1)
    time.sleep(0.5)
    assert not server.answered


def test_rows_in_another_order_keep_their_index(server):
    server.faults = [Fault(shuffle=True)] * 2
    answer = ask_openai(server)
    assert [row.index for row in answer.data] == [3, 2, 1, 0]
    assert np.array_equal(by_index(answer), expected(MODEL, 32))
    turned = ask_cohere(server)
    assert turned.texts == TEXTS[::-1]
    assert np.array_equal(in_order(turned), expected(MODEL, 32, "search_document")[::-1])


def test_other_dimensions(server):
    server.faults = [Fault(wrong_dimensions=7)] * 2
    assert by_index(ask_openai(server)).shape == (4, 7)
    assert in_order(ask_cohere(server)).shape == (4, 7)
    assert not server.answered


def test_a_missing_row(server):
    server.faults = [Fault(missing=True)] * 2
    assert [row.index for row in ask_openai(server).data] == [0, 1, 2]
    assert len(ask_cohere(server).embeddings.float_) == 3
    assert server.answered == dict.fromkeys(TEXTS[:3], 2)


def test_a_row_twice(server):
    server.faults = [Fault(duplicate_index=True)] * 2
    assert [row.index for row in ask_openai(server).data] == [0, 1, 2, 0]
    assert ask_cohere(server).texts == [*TEXTS[:3], TEXTS[0]]
    assert server.answered == dict.fromkeys(TEXTS[:3], 2)


@pytest.mark.parametrize("how", ["null", "nan", "zero"])
@pytest.mark.parametrize("form", ["float", "base64"])
def test_a_vector_that_is_none(server, how, form):
    server.faults = [Fault(nan=how)] * 2
    vectors = [by_index(ask_openai(server, encoding_format=form) if form == "float" else ask_openai(server))]
    vectors.append(in_order(ask_cohere(server)))
    for first, *_ in vectors:
        assert np.all(first == 0) if how == "zero" else np.isnan(first[0])
    assert server.answered == dict.fromkeys(TEXTS[1:], 2)


def test_any_body(server):
    server.faults = [Fault(502, body="<html>Bad gateway</html>")] * 2 + [Fault(body='{"data": 1')] * 2
    with pytest.raises(openai.InternalServerError) as page:
        ask_openai(server)
    assert page.value.response.text == "<html>Bad gateway</html>"
    with pytest.raises(ApiError, match="502, body: <html>Bad gateway</html>"):
        ask_cohere(server)
    with pytest.raises(json.JSONDecodeError):
        ask_openai(server)
    with pytest.raises(ApiError) as caught:
        ask_cohere(server)
    assert caught.value.status_code == 200
    assert not server.answered


def test_a_function_chooses_the_faults(server):
    def choose(request: Request) -> Fault | None:
        return Fault(500) if "three" in request.texts else None

    server.faults = choose
    ask_openai(server, ["one"])
    with pytest.raises(openai.InternalServerError):
        ask_openai(server)


def test_a_mistake_in_a_function_is_told_at_the_end():
    def choose(request: Request) -> Fault | None:
        raise LookupError("mine")

    server = ProviderServer()
    server.faults = choose
    server.__enter__()
    with pytest.raises(openai.APIConnectionError):
        ask_openai(server)
    with pytest.raises(LookupError, match="mine"):
        server.__exit__(None)


# Records.


def test_what_is_left_is_told_as_openai_does(server):
    server.requests_per_minute, server.tokens_per_minute = 2, 20
    with openai.OpenAI(api_key="k", base_url=server.base_url + "/v1", max_retries=0) as client:
        answers = [client.embeddings.with_raw_response.create(model=MODEL, input=TEXTS) for _ in range(2)]
    told = [{k: v for k, v in answer.headers.items() if k.startswith("x-ratelimit")} for answer in answers]
    assert [headers["x-ratelimit-remaining-requests"] for headers in told] == ["1", "0"]
    assert [headers["x-ratelimit-remaining-tokens"] for headers in told] == ["15", "10"]
    assert told[1]["x-ratelimit-limit-tokens"] == "20"
    assert told[1]["x-ratelimit-reset-requests"] == "1m0s"
    assert told[1]["x-ratelimit-reset-tokens"] == "30s"


def test_requests_are_counted_within_any_window(server):
    times = iter([0.0, 0.9, 1.0, 1.8, 5.0])
    for texts in (["a"], ["a b c"], ["a b"], ["a"], ["a"]):
        moment = next(times)
        server.arrive(Request("/", MODEL, tuple(texts), {}, {}))
        server._starts[-1] = moment
    assert [server.most_in(window) for window in (0.5, 1.0, 1.1, 2.0, 9.0)] == [2, 3, 3, 4, 5]
    assert [server.tokens_in(window) for window in (0.05, 1.0, 1.1, 9.0)] == [3, 6, 6, 8]


def test_an_unasked_server_has_zeros(server):
    assert (server.requests, server.peak, server.most_in(1), server.tokens_in(1)) == ([], 0, 0, 0)


def test_the_peak_is_what_the_client_allows(server):
    server.latency = 0.05
    with (
        openai.OpenAI(api_key="k", base_url=server.base_url + "/v1", max_retries=0) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        list(pool.map(lambda n: client.embeddings.create(model=MODEL, input=str(n)), range(16)))
    assert server.peak == 4
    assert server.answered == {str(n): 1 for n in range(16)}
    assert server.most_in(60) == 16
    server.reset()
    assert (server.requests, server.peak, server.answered) == ([], 0, {})


def test_connections_are_kept_alive(server):
    threads = threading.active_count()
    with cohere.ClientV2("k", base_url=server.base_url) as client:
        for _ in range(3):
            client.embed(model=MODEL, texts=["x"], input_type="search_query", embedding_types=["float"])
        assert threading.active_count() == threads + 1


def test_closing_does_not_wait_for_a_slow_answer():
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool, ProviderServer() as server:
        server.latency = 60
        asked = pool.submit(ask_openai, server)
        while not server.requests:
            time.sleep(0.005)
    with pytest.raises(openai.APIConnectionError):
        asked.result()
    assert time.monotonic() - started < 5
