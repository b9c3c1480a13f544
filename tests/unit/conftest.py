"""Shared by the unit tests: a fresh interpreter, and an OpenAI service on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import hypothesis
import numpy as np
import openai
import pytest

# A busy machine is no failure.
hypothesis.settings.register_profile("unit", deadline=None)
hypothesis.settings.load_profile("unit")

KEY = "sk-hunter2hunter2hunter2"
NATIVE = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}


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


class OpenAIService(ThreadingHTTPServer):
    """POST /v1/embeddings as OpenAI answers it, with its limits; vectors come from a hash of the text.

    ``faults`` are (status, headers, body) answered before anything else, one per request;
    ``rearrange`` may change the rows of an answer. ``bodies`` and ``keys`` are what was sent.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.key = KEY
        self.reset()

    def reset(self) -> None:
        self.faults: list[tuple[int, dict[str, str], str]] = []
        self.rearrange: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        if self.faults:
            return self.faults.pop(0)
        texts = body["input"]
        size = sum(len(text.encode()) for text in texts)
        if len(texts) > 2048 or (size > 300_000 and len(texts) > 1):
            return 400, {}, json.dumps({"error": {"message": "the request is too large"}})
        dimensions = body.get("dimensions", NATIVE[body["model"]])
        data = [
            {"object": "embedding", "index": i, "embedding": _vector(text, dimensions)}
            for i, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": size, "total_tokens": size}
        return (
            200,
            {},
            json.dumps(
                {"object": "list", "data": self.rearrange(data), "model": body["model"], "usage": usage}
            ),
        )


class _Handler(BaseHTTPRequestHandler):
    server: OpenAIService

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers["Authorization"])
        found = self.path == "/v1/embeddings"
        status, headers, text = self.server.answer(body) if found else (404, {}, "{}")
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Keep the test output clean."""


def _vector(text: str, dimensions: int) -> list[float]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=dimensions)
    return [float(x) for x in vector / np.linalg.norm(vector)]


@pytest.fixture(scope="session")
def _openai_service() -> Iterator[OpenAIService]:
    with pytest.MonkeyPatch.context() as patch, OpenAIService() as service:
        # Reachable whatever proxy the machine is behind.
        patch.setenv("NO_PROXY", "127.0.0.1")
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield service
        service.shutdown()
        thread.join()


@pytest.fixture
def openai_service(_openai_service: OpenAIService) -> OpenAIService:
    """The service, as if nobody had asked it before."""
    _openai_service.reset()
    return _openai_service


@pytest.fixture(scope="session")
def _openai_client(_openai_service: OpenAIService) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEY, base_url=_openai_service.url) as client:
        yield client


@pytest.fixture
def openai_client(_openai_client: openai.OpenAI, openai_service: OpenAIService) -> openai.OpenAI:
    """The real client, pointed at the local service."""
    return _openai_client
