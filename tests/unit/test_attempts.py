"""Embedders of services when it goes wrong: another attempt, none, waiting as told, stopping, a storm."""

from __future__ import annotations

import random
import threading
import time
from email.utils import formatdate

import numpy as np
import pytest
from providers import Fault, vector_of

from pgseek.embedders.limits import Limiter, Limits
from pgseek.embedders.openai import OpenAIEmbedder
from pgseek.errors import EmbedderError, InvalidInput

TEXTS = ["one", "two words", "three", "four"]
KINDS = ["openai", "azure", "compatible", "cohere"]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def embedder(services, kind):
    made = getattr(services, kind)()
    services.server.reset()
    return made


def right(embedder, texts):
    i = embedder.identity
    kind = "search_document" if i.provider == "cohere" else ""
    return np.stack([vector_of(i.model, text, i.dimensions, kind) for text in texts])


def small_requests(embedder, inputs):
    embedder.max_inputs = inputs
    return embedder


# Another attempt, or none.


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_what_may_pass_is_tried_again(server, embedder, status):
    server.faults = [Fault(status), Fault(status)]
    assert np.abs(embedder.embed_documents(TEXTS) - right(embedder, TEXTS)).max() < 1e-6
    assert [request.texts for request in server.requests] == [tuple(TEXTS)] * 3
    server.faults = [Fault(status)]
    assert embedder.embed_query("hello").shape == (embedder.identity.dimensions,)


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_what_will_not_pass_is_not(server, embedder, status):
    server.faults = [Fault(status)]
    with pytest.raises(EmbedderError, match=f"{embedder.model_id} failed with status {status}: "):
        embedder.embed_documents(TEXTS)
    assert len(server.requests) == 1


def test_an_account_without_money_is_no_reason_to_wait(services, server):
    for made in (services.openai(), services.azure()):
        server.faults = [Fault(429, code="insufficient_quota")]
        server.reset()
        with pytest.raises(EmbedderError, match=r"status 429: .*exceeded your current quota"):
            made.embed_documents(TEXTS)
        assert len(server.requests) == 1


@pytest.mark.parametrize("cut", ["before", "body"])
def test_a_cut_connection_is_made_again(server, embedder, cut):
    server.faults = [Fault(cut=cut), Fault(cut=cut)]
    assert np.abs(embedder.embed_documents(TEXTS) - right(embedder, TEXTS)).max() < 1e-6
    assert len(server.requests) == 3


def test_attempts_come_to_an_end(services, server, kind):
    made = getattr(services, kind)(attempts=3)
    server.faults = lambda _: Fault(503)
    server.reset()
    outcome = made.embed_many(TEXTS)
    assert f"{made.model_id} did not answer in 3 attempts, the last time because: status 503" in str(
        outcome.error
    )
    assert outcome.missing == frozenset(range(4))
    assert len(server.requests) == 3
    with pytest.raises(InvalidInput, match="attempts is 0"):
        OpenAIEmbedder(attempts=0)


def test_a_slow_answer_is_asked_for_again_and_what_was_answered_is_not(services, server, kind):
    made = small_requests(getattr(services, kind)(timeout=0.5), 2)
    texts = [f"text {number}" for number in range(12)]
    server.reset()
    late = ["text 4", "text 5"]
    slow = iter([2.0])
    server.faults = lambda request: Fault(delay=next(slow, 0.0)) if late[0] in request.texts else None
    assert np.abs(made.embed_documents(texts) - right(made, texts)).max() < 1e-6
    asked = [text for request in server.requests for text in request.texts]
    assert sorted(asked) == sorted([*texts, *late])
    with pytest.raises(InvalidInput, match="timeout is 0"):
        OpenAIEmbedder(timeout=0)


def test_an_error_keeps_what_was_answered_and_lists_what_is_missing(services, server, kind):
    made = small_requests(getattr(services, kind)(limits=Limits(concurrency=1)), 2)
    texts = [f"text {number}" for number in range(11)]
    server.faults = lambda request: Fault(403) if "text 5" in request.texts else None
    outcome = made.embed_many(texts)
    assert "status 403" in str(outcome.error)
    # One at a time, so that nothing after it was under way.
    assert outcome.missing == frozenset(range(4, 11))
    assert np.abs(outcome.vectors[:4] - right(made, texts[:4])).max() < 1e-6
    assert not outcome.vectors[4:].any()


def test_an_error_of_any_kind_keeps_what_was_answered(services):
    made = small_requests(services.openai(limits=Limits(concurrency=1)), 1)
    answers = [made._send(["one"], "document")]
    made._send = lambda texts, kind: answers.pop()
    outcome = made.embed_many(["one", "two"])
    assert outcome.missing == {1}
    assert str(outcome.error).startswith(f"{made.model_id} failed")
    assert isinstance(outcome.error, EmbedderError)
    assert isinstance(outcome.error.__cause__, IndexError)


# Waiting as told.


@pytest.mark.parametrize("kind", ["openai", "cohere"])
@pytest.mark.parametrize("how", ["seconds", "date", "milliseconds"])
def test_nobody_sends_before_the_time_the_service_names(services, server, kind, how):
    made = small_requests(getattr(services, kind)(limits=Limits(concurrency=4)), 2)
    texts = [f"text {number}" for number in range(40)]
    server.reset()
    server.latency = 0.02
    seen = []
    named = []

    def fault(request):
        seen.append(request)
        if len(seen) != 6:
            return None
        if how == "date":
            # Whole seconds: between one and two from now.
            now = time.time()
            named.append(time.monotonic() + int(now + 2) - now)
            return Fault(429, retry_after=formatdate(now + 2, usegmt=True))
        return Fault(429, retry_after=1) if how == "seconds" else Fault(429, retry_after_ms=700)

    server.faults = fault
    assert np.abs(made.embed_documents(texts) - right(made, texts)).max() < 1e-6
    told = server.requests[5].started + server.latency
    until = named[0] if how == "date" else told + {"seconds": 1.0, "milliseconds": 0.7}[how]
    # What is on its way while the answer is, cannot be called back.
    later = [request.started for request in server.requests if request.started > told + 0.05]
    assert len(later) >= 5
    assert min(later) >= until - 0.06
    assert min(later) <= until + 1.2


@pytest.mark.parametrize("after", [121, 86_400, "date"])
def test_to_wait_for_long_is_an_error_at_once(server, embedder, after):
    when = formatdate(time.time() + 600, usegmt=True) if after == "date" else after
    server.faults = [Fault(429, retry_after=when)]
    started = time.monotonic()
    with pytest.raises(EmbedderError, match=r"asks to wait .* seconds: its quota is used up"):
        embedder.embed_documents(TEXTS)
    assert time.monotonic() - started < 1
    assert len(server.requests) == 1


@pytest.mark.parametrize("after", ["soon", "-1", "Wed, 21 Oct 2015 07:28:00 GMT", "nan", "inf"])
def test_a_time_that_is_none_or_over_is_no_wait(server, embedder, after):
    server.faults = [Fault(429, retry_after=after)]
    started = time.monotonic()
    embedder.embed_documents(TEXTS)
    assert time.monotonic() - started < 1
    assert len(server.requests) == 2


# Stopping, and sharing.


def test_stopping_ends_the_work_and_keeps_what_was_answered(services, server, kind):
    made = small_requests(getattr(services, kind)(limits=Limits(concurrency=2)), 2)
    server.reset()
    stop = threading.Event()
    seen = []

    def fault(request):
        seen.append(request)
        if len(seen) == 6:
            stop.set()

    server.faults = fault
    texts = [f"text {number}" for number in range(200)]
    outcome = made.embed_many(texts, None, stop)
    done = sorted(set(range(200)) - outcome.missing)
    assert 8 <= len(done) <= 16
    assert np.abs(outcome.vectors[done] - right(made, [texts[i] for i in done])).max() < 1e-6
    assert str(outcome.error) == f"{made.model_id}: stopped with {len(outcome.missing)} of 200 texts to go"
    assert set(server.answered.values()) == {1}


@pytest.mark.parametrize("waiting", ["told to", "own delay", "limit"])
def test_stopping_does_not_wait_for_the_end_of_a_wait(services, server, waiting):
    limits = Limits(requests_per_minute=1) if waiting == "limit" else Limits()
    made = small_requests(services.openai(limits=limits), 2)
    made.backoff = 60
    server.faults = lambda request: (
        None if waiting == "limit" else Fault(429, retry_after=60 if waiting == "told to" else None)
    )
    stop = threading.Event()
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    started = time.monotonic()
    outcome = made.embed_many(TEXTS, None, stop)
    timer.join()
    assert time.monotonic() - started < 2.5
    assert len(outcome.missing) == (2 if waiting == "limit" else 4)
    assert "stopped with" in str(outcome.error)


def test_stopped_before_it_began_asks_nothing(server, embedder):
    stop = threading.Event()
    stop.set()
    assert embedder.embed_many(TEXTS, None, stop).missing == frozenset(range(4))
    assert server.requests == []


def test_threads_share_an_embedder(services, server, kind):
    made = small_requests(getattr(services, kind)(), 5)
    outcomes = {}

    def work(name):
        outcomes[name] = made.embed_many([f"{name} {number}" for number in range(100)])

    threads = [threading.Thread(target=work, args=[name]) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, outcome in outcomes.items():
        texts = [f"{name} {number}" for number in range(100)]
        assert outcome.error is None
        assert np.abs(outcome.vectors - right(made, texts)).max() < 1e-6
        assert outcome.tokens == 200


def test_no_more_requests_at_once_than_allowed_and_rows_in_order(services, server, kind):
    chance = random.Random(5)
    made = small_requests(getattr(services, kind)(limits=Limits(concurrency=3)), 4)
    server.reset()
    server.faults = lambda _: Fault(delay=chance.random() * 0.03)
    texts = [f"text {number}" for number in range(200)]
    assert np.abs(made.embed_documents(texts) - right(made, texts)).max() < 1e-6
    assert server.peak == 3


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_storm_every_text_was_answered_once(services, server, kind):
    chance = random.Random(20)
    faults = [
        Fault(429),
        Fault(429, retry_after=0.01),
        Fault(429, retry_after_ms=10),
        Fault(500),
        Fault(503),
        Fault(cut="before"),
        Fault(cut="body"),
    ]
    limiter = Limiter("storm", Limits())
    made = small_requests(getattr(services, kind)(limiter=limiter), 50)
    server.reset()
    server.faults = lambda _: chance.choice(faults) if chance.random() < 0.1 else None
    texts = [f"text number {number}" for number in range(10_000)]
    outcome = made.embed_many(texts)
    assert (outcome.error, outcome.refused, outcome.missing) == (None, {}, frozenset())
    assert len(server.answered) == 10_000
    assert set(server.answered.values()) == {1}
    assert len(server.requests) > 205
    assert np.abs(outcome.vectors - right(made, texts)).max() < 1e-6
    assert outcome.tokens == 30_000
