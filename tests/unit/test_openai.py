"""OpenAI: the real client against a service on this machine; answers, faults, limits and secrets."""

from __future__ import annotations

import json
import time
import traceback

import numpy as np
import openai
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgseek.embedders.base import checked_documents, checked_query
from pgseek.embedders.openai import MAX_BYTES, MAX_INPUTS, OpenAIEmbedder, batches
from pgseek.errors import EmbedderError

TEXTS = ["one", "two", "three", "four"]


def fault(status: int, message: str = "no", code: str | None = None, **headers: str):
    """Return an answer as OpenAI words its errors."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return (
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        json.dumps({"error": error}),
    )


@pytest.fixture
def embedder(openai_client) -> OpenAIEmbedder:
    return OpenAIEmbedder(dimensions=8, client=openai_client)


# What is asked.


@pytest.mark.parametrize(
    ("model", "dimensions", "sent"),
    [
        ("text-embedding-3-small", None, None),
        ("text-embedding-3-small", 1536, None),
        ("text-embedding-3-small", 512, 512),
        ("text-embedding-3-large", None, None),
        ("text-embedding-3-large", 1, 1),
        ("text-embedding-ada-002", None, None),
        ("text-embedding-ada-002", 1536, None),
    ],
)
def test_dimensions_are_sent_only_when_shortened(openai_service, openai_client, model, dimensions, sent):
    OpenAIEmbedder(model, dimensions, client=openai_client).embed_documents(TEXTS)
    (body,) = openai_service.bodies
    assert body.get("dimensions") == sent
    assert {k: v for k, v in body.items() if k != "dimensions"} == {
        "model": model,
        "input": TEXTS,
        "encoding_format": "float",
    }


def test_a_query_is_one_input(openai_service, embedder):
    embedder.embed_query("hello")
    assert [body["input"] for body in openai_service.bodies] == [["hello"]]


def test_nothing_to_embed_asks_nothing(openai_service, embedder):
    embedder.embed_documents([])
    assert openai_service.bodies == []


def test_key_and_address_come_from_the_environment(openai_service, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", openai_service.key)
    monkeypatch.setenv("OPENAI_BASE_URL", openai_service.url)
    assert OpenAIEmbedder(dimensions=8).embed_query("hello").shape == (8,)
    assert openai_service.keys == [f"Bearer {openai_service.key}"]


def test_many_texts_are_several_requests_in_order(openai_service, embedder):
    texts = [str(number) for number in range(MAX_INPUTS * 2 + 1)]
    vectors = embedder.embed_documents(texts)
    assert [len(body["input"]) for body in openai_service.bodies] == [MAX_INPUTS, MAX_INPUTS, 1]
    for number in (0, MAX_INPUTS - 1, MAX_INPUTS, MAX_INPUTS * 2):
        assert np.array_equal(vectors[number], embedder.embed_query(str(number)))


def test_long_texts_are_several_requests(openai_service, embedder):
    assert embedder.embed_documents(["x" * 100_000] * 4).shape == (4, 8)
    assert [len(body["input"]) for body in openai_service.bodies] == [3, 1]


@given(
    st.lists(st.text(max_size=5) | st.integers(0, MAX_BYTES + 9).map(lambda n: "é" * (n // 2)), max_size=30)
)
@example(["x" * MAX_BYTES, "", "x"])
@example(["\ud800" * 100_000, "x"])
@example(["a"] * (MAX_INPUTS + 1))
def test_requests_keep_the_limits_and_are_as_few_as_can_be(texts):
    made = batches(texts)
    sizes = [[len(text.encode("utf-8", "surrogatepass")) for text in batch] for batch in made]
    assert [text for batch in made for text in batch] == texts
    assert all(1 <= len(batch) <= MAX_INPUTS for batch in made)
    assert all(sum(size) <= MAX_BYTES or len(size) == 1 for size in sizes)
    for batch, size, following in zip(made, sizes, sizes[1:], strict=False):
        assert len(batch) == MAX_INPUTS or sum(size) + following[0] > MAX_BYTES


# What is answered.


def test_rows_are_put_in_order_by_their_index(openai_service, embedder):
    expected = embedder.embed_documents(TEXTS)
    openai_service.rearrange = lambda data: [data[i] for i in (2, 0, 3, 1)]
    assert np.array_equal(embedder.embed_documents(TEXTS), expected)


@pytest.mark.parametrize(
    "rearrange",
    [
        lambda data: data[:-1],
        lambda data: data[1:],
        lambda data: [*data[:-1], {**data[-1], "index": 0}],
        lambda data: [{**row, "index": row["index"] + 1} for row in data],
        lambda data: [*data, {**data[0], "index": len(data)}],
    ],
    ids=["last missing", "first missing", "one twice", "counted from 1", "one too many"],
)
def test_an_answer_that_does_not_fit_the_texts_is_an_error(openai_service, embedder, rearrange):
    openai_service.rearrange = rearrange
    with pytest.raises(EmbedderError, match=r"^openai:text-embedding-3-small@8 .*4 texts; nothing was kept$"):
        embedder.embed_documents(TEXTS)


@pytest.mark.parametrize(
    "rearrange",
    [
        lambda data: [],
        lambda data: [{**row, "embedding": row["embedding"][:4]} for row in data],
        lambda data: [{**row, "embedding": row["embedding"][: row["index"]]} for row in data],
        lambda data: [{**row, "embedding": None} for row in data],
    ],
    ids=["nothing", "other dimensions", "ragged", "null"],
)
def test_an_unusable_answer_is_an_error_that_names_the_model(openai_service, embedder, rearrange):
    openai_service.rearrange = rearrange
    with pytest.raises(EmbedderError, match="openai:text-embedding-3-small@8"):
        checked_documents(embedder, TEXTS)


def test_a_success_that_is_not_json_is_an_error_that_names_the_model(openai_service, embedder):
    openai_service.faults = [(200, {"Content-Type": "text/html"}, "<html>Log in</html>")]
    with pytest.raises(EmbedderError, match="openai:text-embedding-3-small@8"):
        checked_query(embedder, "hello")


# Faults.


def test_a_refused_key_is_an_error_in_one_line(openai_service, embedder):
    openai_service.faults = [fault(401, "Incorrect API key provided: sk-hunt****ter2.", "invalid_api_key")]
    with pytest.raises(EmbedderError) as caught:
        embedder.embed_documents(TEXTS)
    assert str(caught.value).startswith("openai:text-embedding-3-small@8 failed: Error code: 401")
    assert "Incorrect API key" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, openai.AuthenticationError)
    assert len(openai_service.bodies) == 1


def test_a_page_of_a_proxy_is_an_error_in_one_line(openai_service, embedder):
    page = "<html>\n<head><title>403 Forbidden</title></head>\n<body>\n</body>\n</html>\n"
    openai_service.faults = [(403, {"Content-Type": "text/html"}, page)]
    with pytest.raises(EmbedderError, match="403") as caught:
        embedder.embed_documents(TEXTS)
    assert "\n" not in str(caught.value)


def test_a_rate_limit_is_waited_out_as_long_as_the_service_says(openai_service, embedder):
    expected = embedder.embed_documents(TEXTS)
    openai_service.bodies.clear()
    openai_service.faults = [fault(429, "Rate limit reached", Retry_After="1")]
    started = time.monotonic()
    assert np.array_equal(embedder.embed_documents(TEXTS), expected)
    # The client's own first pause is half a second at most.
    assert time.monotonic() - started >= 0.99
    assert [body["input"] for body in openai_service.bodies] == [TEXTS, TEXTS]


def test_a_rate_limit_that_does_not_end_is_an_error(openai_service, embedder):
    openai_service.faults = [fault(429, "You exceeded your quota", Retry_After="0.01") for _ in range(9)]
    with pytest.raises(EmbedderError, match=r"429.*You exceeded your quota"):
        embedder.embed_documents(TEXTS)


def test_a_failing_server_is_asked_again(openai_service, embedder):
    openai_service.faults = [fault(503, "overloaded", Retry_After="0.01")]
    assert embedder.embed_query("hello").shape == (8,)
    assert len(openai_service.bodies) == 2


def test_a_service_that_is_not_there_is_an_error(openai_service):
    with (
        openai.OpenAI(api_key="sk-x", base_url="http://127.0.0.1:1/v1", max_retries=0) as client,
        pytest.raises(EmbedderError, match="openai:text-embedding-3-small@1536 failed: Connection error"),
    ):
        OpenAIEmbedder(client=client).embed_query("hello")


# Secrets.


def test_no_key_names_the_variable_to_set(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EmbedderError, match="set OPENAI_API_KEY"):
        OpenAIEmbedder().embed_query("hello")


def test_making_one_needs_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert OpenAIEmbedder().model_id == "openai:text-embedding-3-small@1536"


def test_the_key_is_never_shown(openai_service, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", openai_service.key)
    monkeypatch.setenv("OPENAI_BASE_URL", openai_service.url)
    embedder = OpenAIEmbedder(dimensions=8)
    openai_service.faults = [fault(401), fault(400), fault(403)]
    shown = [repr(embedder), str(embedder)]
    for _ in range(3):
        with pytest.raises(EmbedderError) as caught:
            embedder.embed_documents(TEXTS)
        shown += traceback.format_exception(caught.value)
    assert openai_service.keys == [f"Bearer {openai_service.key}"] * 3
    assert openai_service.key not in "".join([*shown, repr(embedder), repr(vars(embedder))])
