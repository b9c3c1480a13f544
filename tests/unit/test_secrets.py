"""Embedders of services: where the key comes from, that it is never shown, and what an error looks like."""

from __future__ import annotations

import traceback

import openai
import pytest
from providers import Fault

from pgseek.embedders.cohere import CohereEmbedder
from pgseek.embedders.openai import AzureEmbedder, CompatibleEmbedder, OpenAIEmbedder
from pgseek.errors import EmbedderError

TEXTS = ["one", "two words", "three", "four"]
KINDS = ["openai", "azure", "compatible", "cohere"]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def embedder(services, kind):
    made = getattr(services, kind)(attempts=2)
    services.server.reset()
    return made


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (OpenAIEmbedder, ["OPENAI_API_KEY"]),
        (AzureEmbedder, ["AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"]),
        (CohereEmbedder, ["CO_API_KEY"]),
    ],
)
def test_no_key_names_the_variable_to_set(monkeypatch, server, make, names):
    made = make()
    for name in names:
        with monkeypatch.context() as patch:
            patch.delenv(name)
            with pytest.raises(EmbedderError, match=f"{made.model_id}: set {name}"):
                make().embed_query("hello")
    assert server.requests == []


def test_key_and_address_come_from_the_environment(services, server):
    for made in (OpenAIEmbedder(dimensions=8), AzureEmbedder(dimensions=8), CompatibleEmbedder("tiny", 32)):
        assert made.embed_query("hello").shape == (made.identity.dimensions,)
        assert services.key not in repr(made) + repr(vars(made))
    assert [request.headers.get("authorization") for request in server.requests] == [
        f"Bearer {services.key}",
        None,
        f"Bearer {services.key}",
    ]
    assert server.requests[1].headers["api-key"] == services.key


def test_a_page_of_a_proxy_is_an_error_in_one_line(server, embedder):
    page = "<html>\n<head><title>403 Forbidden</title></head>\n<body>\n</body>\n</html>\n" + "x" * 5000
    server.faults = [Fault(403, body=page)]
    with pytest.raises(EmbedderError, match=r"failed with status 403: .*(Forbidden|403)") as caught:
        embedder.embed_documents(TEXTS)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_the_services_own_error_is_the_cause(services, server):
    server.faults = [Fault(401)]
    with pytest.raises(EmbedderError) as caught:
        services.openai(key="bad").embed_query("x")
    assert isinstance(caught.value.__cause__, openai.AuthenticationError)
    assert services.key not in "".join(traceback.format_exception(caught.value))


# An embedder of somebody else.
