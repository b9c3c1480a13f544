"""Limits: no minute with more than is allowed, and little less than that."""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_left
from itertools import accumulate

import pyrate_limiter
import pytest

from pgseek.embedders import limits as limits_module
from pgseek.embedders.limits import MAX_UNITS, Limiter, Limits, process_limiter
from pgseek.errors import ConfigurationError, InvalidInput

TEXTS = ["one", "two words", "three", "four"]


class Clock(pyrate_limiter.AbstractClock):
    """A clock that moves only when somebody sleeps, or is told to."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def now(self) -> int:
        return int(self.seconds * 1000)

    def sleep(self, seconds: float) -> None:
        # Nobody wakes to the microsecond.
        self.seconds += seconds + 0.0005


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """The limiter's time, simulated."""
    clock = Clock()
    monkeypatch.setattr(pyrate_limiter.limiter, "sleep", clock.sleep)
    monkeypatch.setattr(pyrate_limiter.limiter, "monotonic", lambda: clock.seconds)

    class Store(pyrate_limiter.InMemoryStateStore):
        default_clock = clock

    clock.store = lambda _: Store()
    return clock


def most_in_a_minute(times, amounts):
    """Return the largest sum of amounts within a minute (its end excluded)."""
    totals = [0, *accumulate(amounts)]
    return max(totals[bisect_left(times, start + 60)] - totals[i] for i, start in enumerate(times))


def spend(clock, limits, sizes, seconds=600):
    """Send for so long as fast as the limiter lets one; return the times and tokens of the requests."""
    limiter = Limiter("tests", limits, clock.store)
    start, times, tokens = clock.seconds, [], []
    while True:
        size = sizes()
        assert limiter.acquire(size)
        if clock.seconds - start >= seconds:
            return times, tokens
        times.append(clock.seconds)
        tokens.append(size)


# Over simulated time.


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 19, 20, 21, 40, 100, 3_000])
def test_no_minute_has_more_requests_than_allowed_nor_many_fewer(clock, limit):
    times, _ = spend(clock, Limits(requests_per_minute=limit), lambda: 1)
    assert most_in_a_minute(times, [1] * len(times)) <= limit
    assert len(times) >= 0.9 * limit * 10


@pytest.mark.parametrize("limit", [100, 10_000, 150_000, 1_000_000, 7_654_321, 3_000_000_000])
def test_no_minute_has_more_tokens_than_allowed_nor_many_fewer(clock, limit):
    chance = random.Random(limit)
    most = Limiter("tests", Limits(tokens_per_minute=limit)).most_tokens
    assert limit // 40 <= most <= limit // 20
    times, tokens = spend(
        clock, Limits(tokens_per_minute=limit), lambda: max(1, int(most * chance.choice([1, 1, 0.3, 0.01])))
    )
    assert most_in_a_minute(times, tokens) <= limit
    assert sum(tokens) >= 0.9 * limit * 10


def test_both_limits_hold_at_once(clock):
    chance = random.Random(3)
    limits = Limits(requests_per_minute=300, tokens_per_minute=100_000)
    times, tokens = spend(clock, limits, lambda: chance.choice([10, 600]))
    assert most_in_a_minute(times, [1] * len(times)) <= 300
    assert most_in_a_minute(times, tokens) <= 100_000
    assert max(len(times) / 3_000, sum(tokens) / 1_000_000) >= 0.9


@pytest.mark.parametrize("size", [0.06, 0.1, 0.3, 0.7])
def test_a_text_larger_than_may_be_spent_at_once_keeps_the_limit(clock, size):
    chance = random.Random(9)
    big = int(size * 100_000)
    times, tokens = spend(clock, Limits(tokens_per_minute=100_000), lambda: chance.choice([big, 1_000]))
    assert most_in_a_minute(times, tokens) <= 100_000
    assert sum(tokens) >= 400_000


def test_an_estimate_that_was_too_low_is_made_up_for(clock):
    limiter = Limiter("tests", Limits(tokens_per_minute=100_000), clock.store)
    start, times = clock.seconds, []
    while clock.seconds - start < 600:
        limiter.acquire(1_000)
        times.append(clock.seconds)
        limiter.settle(1_000, 2_000)
    assert most_in_a_minute(times, [2_000] * len(times)) <= 100_000


def test_an_answered_request_does_not_wait_for_those_that_wait():
    limiter = Limiter("tests", Limits(tokens_per_minute=100_000))
    limiter.pause(60)
    stop = threading.Event()
    waiting = threading.Thread(target=limiter.acquire, args=[10, stop])
    waiting.start()
    time.sleep(0.05)
    started = time.monotonic()
    limiter.settle(10, 20)
    limiter.settle(10, 0)
    assert time.monotonic() - started < 1
    stop.set()
    waiting.join()


def test_the_limit_of_units_is_a_million():
    assert Limiter("tests", Limits(tokens_per_minute=MAX_UNITS)).most_tokens == 50_000
    assert Limiter("tests", Limits(tokens_per_minute=1)).most_tokens == 1
    assert Limiter("tests", Limits()).most_tokens is None


# Over real time.


def test_a_service_is_not_asked_faster_than_allowed(services, server):
    limits = Limits(requests_per_minute=600, tokens_per_minute=60_000, concurrency=8)
    made = services.openai(limits=limits)
    made.max_inputs = 2
    started = time.monotonic()
    made.embed_documents([f"text number {number}" for number in range(130)])
    took = time.monotonic() - started
    sent = len(server.requests)
    assert sent == 65
    burst = 600 * limits_module.BURST
    for window in (0.5, 1, 2, 3):
        assert server.most_in(window) <= 600 * window / 60 + burst
        assert server.tokens_in(window) <= 60_000 * window / 60 + 60_000 * limits_module.BURST
    # What the rate allows after the first burst, and not much less.
    assert (sent - burst) / 10 <= took <= (sent - burst) / 10 / 0.9 + 0.5


def test_tokens_are_those_that_were_billed_not_those_that_were_estimated(services, server):
    made = services.openai(limits=Limits(tokens_per_minute=60_000, concurrency=1))
    made.max_inputs = 2
    # A token to two bytes: more than the first estimate.
    texts = ["w " * 50] * 120
    assert sum(made.count_tokens(texts)) < 4_000
    started = time.monotonic()
    made.embed_documents(texts)
    assert sum(request.tokens for request in server.requests) == 6_000
    # All but the first burst, and a request that was already settled for less.
    assert time.monotonic() - started >= (6_000 - 3_000 - 100) / 930
    assert server.tokens_in(1) <= 1_000 + 3_000


def test_requests_fit_what_may_be_spent_at_once(services, server):
    made = services.openai(limits=Limits(tokens_per_minute=20_000))
    made._ratio = 0.2
    assert all(
        sum(made.count_tokens([f"word {n:04}" for n in part])) <= 1_000
        for part in made.requests(["word 0000"] * 2000)
    )


def test_an_account_is_shared_in_a_process():
    first = process_limiter("tests/shared", Limits(60, 1000, concurrency=2))
    assert process_limiter("tests/shared", Limits(60, 1000, concurrency=5)) is first
    assert process_limiter("tests/shared", Limits(61, 1000)) is not first
    assert process_limiter("tests/other", Limits(60, 1000)) is not first


def test_a_pause_is_never_made_shorter():
    limiter = Limiter("tests", Limits())
    limiter.pause(0.3)
    limiter.pause(0.1)
    started = time.monotonic()
    assert limiter.acquire(1)
    assert time.monotonic() - started > 0.25


def test_who_waits_out_a_pause_can_be_stopped():
    limiter = Limiter("tests", Limits())
    limiter.pause(60)
    stop = threading.Event()
    timer = threading.Timer(0.1, stop.set)
    timer.start()
    started = time.monotonic()
    assert not limiter.acquire(1, stop)
    timer.join()
    assert time.monotonic() - started < 5


def test_who_waits_behind_another_can_be_stopped_too():
    limiter = Limiter("tests", Limits())
    limiter.pause(1.5)
    stop = threading.Event()
    outcomes = {}
    threads = [
        threading.Thread(target=lambda: outcomes.update(first=limiter.acquire(1))),
        threading.Thread(target=lambda: (time.sleep(0.05), outcomes.update(second=limiter.acquire(1, stop)))),
    ]
    for thread in threads:
        thread.start()
    stop.set()
    threads[1].join()
    assert outcomes == {"second": False}
    threads[0].join()
    assert outcomes["first"]


# Settings.


@pytest.mark.parametrize(
    "given",
    [
        {"requests_per_minute": 0},
        {"requests_per_minute": 1.5},
        {"tokens_per_minute": -1},
        {"tokens_per_minute": True},
        {"concurrency": 0},
        {"concurrency": 257},
    ],
)
def test_limits_out_of_range_are_refused_by_name(given):
    (name,) = given
    with pytest.raises(InvalidInput, match=f"{name} is {given[name]!r}"):
        Limits(**given)


def test_the_environment_changes_limits(monkeypatch):
    default = Limits(3000, 1_000_000, 8)
    assert Limits.from_environment(default) == default
    monkeypatch.setenv("PGSEEK_REQUESTS_PER_MINUTE", "100")
    monkeypatch.setenv("PGSEEK_TOKENS_PER_MINUTE", "0")
    monkeypatch.setenv("PGSEEK_CONCURRENCY", "2")
    assert Limits.from_environment(default) == Limits(100, None, 2)
    for value in ("0", "x", "-1", "1000", ""):
        monkeypatch.setenv("PGSEEK_CONCURRENCY", value)
        with pytest.raises(ConfigurationError, match="PGSEEK_CONCURRENCY"):
            Limits.from_environment(default)
