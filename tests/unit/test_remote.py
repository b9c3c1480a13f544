"""Embedders of services, through the real client libraries: what is asked, what is answered, what is refused.

Attempts and waits are in test_attempts.py, keys and words in test_secrets.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from providers import NATIVE, Fault, tokens_of, vector_of

from pgseek.embedders.base import PROBE, checked_query
from pgseek.embedders.openai import CompatibleEmbedder
from pgseek.errors import EmbedderError, InvalidInput

TEXTS = ["one", "two words", "three", "four"]
KINDS = ["openai", "azure", "compatible", "cohere"]
INPUT_TYPES = {"cohere": "search_document"}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def embedder(services, kind):
    made = getattr(services, kind)(attempts=2)
    services.server.reset()
    return made


def right(embedder, texts, input_type=None):
    """Return the vectors the service gives to these documents."""
    i = embedder.identity
    kind = INPUT_TYPES.get(i.provider, "") if input_type is None else input_type
    return np.stack([vector_of(i.model, text, i.dimensions, kind) for text in texts])


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
def test_dimensions_are_sent_only_when_shortened(services, server, model, dimensions, sent):
    for made in (services.openai(model, dimensions), services.azure(model, dimensions)):
        server.reset()
        vectors = made.embed_documents(TEXTS)
        (request,) = server.requests
        assert np.array_equal(vectors, right(made, TEXTS))
        assert request.arguments.get("dimensions") == sent
        assert request.arguments["encoding_format"] == "base64"


@pytest.mark.parametrize(
    ("model", "dimensions", "sent"),
    [
        ("embed-english-v3.0", None, None),
        ("embed-english-v3.0", 1024, None),
        ("embed-v4.0", None, 1536),
        ("embed-v4.0", 256, 256),
    ],
)
def test_cohere_is_asked_for_shorter_vectors_where_it_has_them(services, server, model, dimensions, sent):
    made = services.cohere(model, dimensions)
    vectors = made.embed_documents(TEXTS)
    assert vectors.shape == (4, dimensions or NATIVE[model])
    (request,) = server.requests
    assert request.arguments.get("output_dimension") == sent
    assert request.arguments["embedding_types"] == ["float"]


def test_a_compatible_server_is_asked_for_numbers_in_decimal(services, server):
    made = services.compatible()
    assert np.abs(made.embed_documents(TEXTS) - right(made, TEXTS)).max() < 1e-6
    assert {request.arguments["encoding_format"] for request in server.requests} == {"float"}


def test_a_compatible_server_is_asked_once_how_long_its_vectors_are(services, server):
    server.native["mine"] = 12
    server.faults = [Fault(503), None]
    assert services.compatible("mine").model_id == "openai-compatible:mine@12"
    assert [request.texts for request in server.requests] == [(PROBE,), (PROBE,)]
    assert services.compatible("mine", 12).embed_query("x").shape == (12,)
    with pytest.raises(EmbedderError, match=r"shape \(1, 12\) for 1 texts, but the space needs \(1, 6\)"):
        services.compatible("mine", 6).embed_query("x")


def test_a_compatible_server_that_is_not_there_is_an_error_at_once(services, server):
    server.faults = lambda _: Fault(401)
    with pytest.raises(EmbedderError, match=r"openai-compatible:tiny.* failed with status 401"):
        services.compatible()
    with pytest.raises(InvalidInput, match="name the server's model"):
        CompatibleEmbedder()


def test_a_compatible_server_is_shortened_here_where_the_model_allows_it(services, server):
    server.native["nomic-ai/nomic-embed-text-v1.5"] = 768
    whole = services.compatible("nomic-ai/nomic-embed-text-v1.5").embed_documents(TEXTS)
    short = services.compatible("nomic-ai/nomic-embed-text-v1.5", 64).embed_documents(TEXTS)
    assert np.linalg.norm(short, axis=1) == pytest.approx(1, abs=1e-6)
    assert short == pytest.approx(whole[:, :64] / np.linalg.norm(whole[:, :64], axis=1)[:, None], abs=1e-6)
    with pytest.raises(EmbedderError, match=r"shape \(4, 768\) for 4 texts, but the space needs \(4, 100\)"):
        services.compatible("nomic-ai/nomic-embed-text-v1.5", 100).embed_documents(TEXTS)


def test_a_deployment_on_azure_may_have_another_name(services, server, monkeypatch):
    server.deployments = {"ours": "text-embedding-3-small"}
    made = services.azure("text-embedding-3-small=ours")
    assert np.array_equal(made.embed_documents(TEXTS), right(made, TEXTS))
    assert made.model_id == "azure-openai:text-embedding-3-small@8"
    with pytest.raises(EmbedderError, match=r"status 404: .*deployment"):
        services.azure("text-embedding-3-small").embed_query("x")
    # A stored space does not know it.
    monkeypatch.setenv("PGSEEK_AZURE_DEPLOYMENT", "ours")
    assert services.azure("text-embedding-3-small").embed_query("x").shape == (8,)


def test_requests_hold_as_much_as_they_may(services, server):
    made = services.openai()
    texts = [f"text {number}" for number in range(4097)]
    assert np.array_equal(made.embed_documents(texts), right(made, texts))
    assert sorted(len(request.texts) for request in server.requests) == [1, 2048, 2048]
    server.reset()
    made.embed_documents(["word " * 8000] * 50)
    assert len(server.requests) > 1
    assert all(request.tokens <= 300_000 and request.answered for request in server.requests)
    server.reset()
    cohere = services.cohere()
    cohere.embed_documents(texts[:200])
    assert sorted(len(request.texts) for request in server.requests) == [8, 96, 96]


def test_what_was_billed_corrects_the_estimate_of_tokens(services):
    made = services.openai()
    text = "internationalisation " * 200
    first = made.count_tokens([text, ""])
    assert first == [math.ceil(len(text) * 0.3), 1]
    for _ in range(20):
        made.embed_documents([text])
    assert made.count_tokens([text])[0] == pytest.approx(tokens_of(text), rel=0.8)
    assert made.count_tokens([text])[0] < first[0] / 2


# What is answered.


@pytest.mark.parametrize("kind", ["openai", "azure", "compatible"], indirect=True)
def test_rows_are_put_in_order_by_their_index(server, embedder):
    server.faults = [Fault(shuffle=True)]
    assert np.abs(embedder.embed_documents(TEXTS) - right(embedder, TEXTS)).max() < 1e-6


@pytest.mark.parametrize(
    "fault",
    [
        Fault(missing=True),
        Fault(duplicate_index=True),
        Fault(body="<html>Log in</html>"),
        Fault(body='{"data": []}'),
        Fault(body="{"),
        Fault(body="[]"),
    ],
    ids=["missing", "duplicate", "page", "empty", "half", "list"],
)
def test_an_answer_that_cannot_be_used_is_asked_for_again(server, embedder, fault):
    server.faults = [fault]
    assert np.abs(embedder.embed_documents(TEXTS) - right(embedder, TEXTS)).max() < 1e-6
    assert len(server.requests) == 2
    server.faults = [fault, fault]
    with pytest.raises(EmbedderError, match="did not answer in 2 attempts") as caught:
        embedder.embed_documents(TEXTS)
    assert str(caught.value).startswith(embedder.model_id)


def test_texts_in_another_order_are_noticed_where_rows_have_no_index(services, server):
    made = services.cohere()
    server.faults = [Fault(shuffle=True)]
    assert np.abs(made.embed_documents(TEXTS) - right(made, TEXTS)).max() < 1e-6
    assert len(server.requests) == 2


def test_other_dimensions_are_an_error_with_both(server, embedder):
    server.faults = [Fault(wrong_dimensions=5)]
    with pytest.raises(EmbedderError) as caught:
        embedder.embed_documents(TEXTS)
    assert "answered vectors of shape (4, 5) for 4 texts" in str(caught.value)
    assert f"needs (4, {embedder.identity.dimensions})" in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("spoilt", ["null", "nan", "zero"])
def test_a_vector_that_is_none_spoils_no_other(server, embedder, spoilt):
    server.faults = [Fault(nan=spoilt), Fault(nan=spoilt)]
    outcome = embedder.embed_many(TEXTS)
    assert (outcome.error, outcome.refused, outcome.missing) == (None, {}, frozenset())
    assert np.abs(outcome.vectors[1:] - right(embedder, TEXTS)[1:]).max() < 1e-6
    assert not (np.isfinite(outcome.vectors[0]).all() and outcome.vectors[0].any())
    with pytest.raises(EmbedderError, match="zero or non-finite"):
        checked_query(embedder, "x")


# What is refused.


def test_one_bad_text_among_hundreds_is_found(services, server, kind):
    made = getattr(services, kind)()
    texts = [f"text {number}" for number in range(700)]
    texts[417] = "a bad one"
    server.bad_text = "bad"
    server.reset()
    outcome = made.embed_many(texts)
    assert list(outcome.refused) == [417]
    assert outcome.refused[417]
    assert (outcome.error, outcome.missing) == (None, frozenset())
    good = [place for place in range(700) if place != 417]
    assert np.abs(outcome.vectors[good] - right(made, [texts[place] for place in good])).max() < 1e-6
    assert not outcome.vectors[417].any()
    batches = math.ceil(700 / made.max_inputs)
    assert len(server.requests) <= batches + 2 * math.ceil(math.log2(700))
    assert outcome.tokens == sum(request.tokens for request in server.requests if request.answered)
    assert set(server.answered.values()) == {1}


def test_the_first_texts_may_be_bad(server, embedder):
    server.bad_text = "bad"
    outcome = embedder.embed_many([*(f"bad {number}" for number in range(6)), *TEXTS])
    assert outcome.error is None
    assert sorted(outcome.refused) == [0, 1, 2, 3, 4, 5]
    assert np.abs(outcome.vectors[6:] - right(embedder, TEXTS)).max() < 1e-6


def test_a_service_that_refuses_everything_is_an_error_after_few_requests(services, server, kind):
    made = getattr(services, kind)()
    server.faults = lambda _: Fault(400)
    server.reset()
    outcome = made.embed_many([f"text {number}" for number in range(96)])
    assert "refuses every text" in str(outcome.error)
    # It does not mean the texts: they are not refused for good.
    assert (outcome.refused, outcome.missing) == ({}, frozenset(range(96)))
    # Requests that were sent at once are each halved a few times.
    assert len(server.requests) < 20 * math.ceil(96 / made.max_inputs) < 96


def test_a_text_that_is_not_unicode_is_refused_alone(server, embedder):
    outcome = embedder.embed_many([*TEXTS[:2], "lone \ud800 surrogate", *TEXTS[2:]])
    assert outcome.error is None
    assert list(outcome.refused) == [2]
    assert np.abs(outcome.vectors[[0, 1, 3, 4]] - right(embedder, TEXTS)).max() < 1e-6


def test_a_text_without_a_vector_is_an_error_with_its_place(server, embedder):
    server.bad_text = "three"
    with pytest.raises(EmbedderError, match="refused text 3 of 4: "):
        embedder.embed_documents(TEXTS)
