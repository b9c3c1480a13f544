"""Money: no dollar more than may be spent, and every token that was billed is counted."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from providers import Fault, vector_of

from pgseek.embedders.limits import Limits, Spending
from pgseek.errors import CostLimitReached, InvalidInput

TEXTS = ["one", "two words", "three", "four"]


def test_spending_reserves_and_settles():
    spending = Spending(price=1.0, most=0.001)
    spending.reserve(600)
    with pytest.raises(CostLimitReached, match=r"cost to \$0.001200, but max_cost is \$0.001;"):
        spending.reserve(600)
    spending.settle(600, 0)
    spending.reserve(1_000)
    spending.settle(1_000, 900)
    assert (spending.tokens, spending.cost) == (900, 0.0009)
    spending.reserve(100)
    with pytest.raises(CostLimitReached):
        spending.reserve(1)
    Spending(price=5.0).reserve(10**12)
    Spending(price=0.0, most=0.0).reserve(10**12)
    for bad in (-1, "1", float("nan")):
        with pytest.raises(InvalidInput, match="max_cost"):
            Spending(1.0, bad)


@pytest.mark.parametrize("kind", ["openai", "azure", "cohere"])
def test_no_request_is_sent_that_would_cost_too_much(services, server, kind):
    made = getattr(services, kind)(limits=Limits(concurrency=3))
    made.max_inputs = 10
    texts = [f"text number {number}" for number in range(600)]
    # A token is a word: 1,800 in all.
    spending = Spending(made.price, most=900 * made.price / 1e6)
    server.reset()
    outcome = made.embed_many(texts, spending)
    assert isinstance(outcome.error, CostLimitReached)
    assert spending.tokens == outcome.tokens == sum(request.tokens for request in server.requests)
    assert spending.cost <= spending.most
    assert 300 < spending.tokens <= 900
    done = sorted(set(range(600)) - outcome.missing)
    assert len(done) == spending.tokens / 3
    role = "search_document" if kind == "cohere" else ""
    i = made.identity
    wanted = np.stack([vector_of(i.model, texts[n], i.dimensions, role) for n in done])
    assert np.abs(outcome.vectors[done] - wanted).max() < 1e-6
    assert made.price > 0


def test_nothing_is_sent_where_nothing_may_be_spent(services, server):
    made = services.openai()
    outcome = made.embed_many(TEXTS, Spending(made.price, most=0))
    assert isinstance(outcome.error, CostLimitReached)
    assert outcome.missing == frozenset(range(4))
    assert server.requests == []


def test_what_failed_or_was_refused_is_not_billed_and_what_cannot_be_used_is(services, server):
    made = services.openai(attempts=1)
    spending = Spending(made.price)
    server.faults = [Fault(500)]
    made.embed_many(TEXTS, spending)
    assert spending.tokens == 0
    server.bad_text = "three"
    assert made.embed_many(TEXTS, spending).tokens == 4
    assert spending.tokens == 4
    server.faults = [Fault(wrong_dimensions=3)]
    assert made.embed_many(["one"], spending).error is not None
    assert spending.tokens == 5
    # All that was reserved was given back.
    assert spending._reserved == 0


def test_two_calls_on_one_budget_count_their_own_tokens(services, server):
    made = services.openai()
    made.max_inputs = 5
    spending, outcomes = Spending(made.price), []
    threads = [
        threading.Thread(target=lambda: outcomes.append(made.embed_many(["a b c"] * 100, spending)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.tokens for outcome in outcomes] == [300, 300]
    assert spending.tokens == 600
