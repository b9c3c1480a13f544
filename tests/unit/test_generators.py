"""Generators: functions of the caller, and chat models asked through the real client library."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue

import openai
import pytest
from providers import Fault

from pgseek import CallableGenerator, GeneratorError, InvalidInput, Limits, TextGenerator, create_generator
from pgseek.embedders.limits import Limiter, Spending
from pgseek.errors import ConfigurationError, CostLimitReached
from pgseek.generators.base import LONGEST_TEXT, Request, cache_identity, cleaned, generate_many
from pgseek.generators.chat import ChatGenerator
from pgseek.generators.prices import find_price, parse_prices, prices

TEXT = "The rate limiter waits for its turn before each request."


@pytest.fixture
def chat(server, services):
    """Make a generator for the server; delays before another attempt are short."""

    def make(model="gpt-4.1-mini", **options):
        limits = options.setdefault("limits", Limits())
        options.setdefault("limiter", Limiter("tests", limits))
        client = openai.OpenAI(
            api_key=options.pop("key", "sk-tests"),
            base_url=server.base_url + "/v1",
            http_client=services._plain,
        )
        made = ChatGenerator(model, client=client, **options)
        made.backoff = 0.01
        return made

    return make


def run(generator, requests, spending=None, stop=None):
    arrived = SimpleQueue()
    error = generate_many(generator, requests, spending, stop or threading.Event(), arrived)
    got = {}
    while not arrived.empty():
        arrival = arrived.get()
        got[arrival.place] = arrival
    return got, error


def numbered(count, kind="question", questions=2):
    return [Request(kind, f"passage number {n}", "", questions) for n in range(count)]


# Functions of the caller.


def test_functions_write_questions_and_summaries():
    made = CallableGenerator(
        model="mine",
        questions=lambda text, title, count: [f"{title}: {text}? {n}" for n in range(count + 3)],
        summary=lambda text, title: f"{text} in short",
    )
    assert isinstance(made, TextGenerator)
    got, error = run(made, [Request("question", "a", "T", 2), Request("summary", "a", "T", 1)])
    assert error is None
    # No more than were asked for.
    assert got[0].texts == ("T: a? 0", "T: a? 1")
    assert got[1].texts == ("a in short",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": ""}, "give a name"),
        ({"model": "m"}, "for questions, for a summary, or both"),
        ({"model": "m", "questions": "no"}, "questions is a str"),
        ({"model": "m", "summary": len, "concurrency": 0}, "from 1 to 256"),
    ],
)
def test_functions_that_are_none_are_told(given, message):
    with pytest.raises(InvalidInput, match=message):
        CallableGenerator(**given)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda *_: 1 / 0, "callable:m failed: division by zero"),
        (lambda *_: "a text", "gave a str, but must give a list"),
        (lambda *_: [1], "gave a int among its texts"),
    ],
)
def test_a_function_that_fails_ends_the_work(function, message):
    got, error = run(CallableGenerator(model="m", questions=function), numbered(3))
    assert isinstance(error, GeneratorError)
    assert message in str(error)
    assert got == {}


def test_a_kind_without_a_function_is_told():
    _, error = run(CallableGenerator(model="m", questions=lambda *_: []), numbered(1, "summary"))
    assert isinstance(error, InvalidInput)


def test_texts_are_made_fit_to_be_stored():
    request = Request("question", "t", "", 3)
    given = [" one\x00 ", "", "one", "\ud800two", "x" * 3000, "four"]
    assert cleaned(given, request, "m") == ("one", "two", "x" * LONGEST_TEXT)


def test_calls_take_turns_unless_more_are_allowed():
    for allowed in (1, 4):
        at_once, most = [], []
        lock = threading.Lock()

        def ask(text, title, count, at_once=at_once, most=most, lock=lock):
            with lock:
                at_once.append(text)
                most.append(len(at_once))
            time.sleep(0.01)
            with lock:
                at_once.remove(text)
            return [text + "?"]

        got, _ = run(CallableGenerator(model="m", questions=ask, concurrency=allowed), numbered(12))
        assert len(got) == 12
        assert max(most) == allowed


def test_what_changes_the_texts_changes_their_key():
    made = {
        cache_identity(CallableGenerator(model=model, questions=len), kind, count)
        for model in ("a", "b")
        for kind in ("question", "summary")
        for count in (1, 2)
    }
    assert len(made) == 8
    keys = {Request("question", text, title, 1).key for text, title in (("a", "b"), ("b", "a"), ("ab", ""))}
    assert len(keys) == 3


# Chat models.


def test_a_chat_model_writes_questions_a_line_each(server, chat):
    made = chat()
    assert made.generate("question", TEXT, "Limits › Waiting", 3) == [
        f"What of The rate limiter waits for its, part {n}?" for n in (1, 2, 3)
    ]
    (request,) = server.requests
    system, user = request.arguments["messages"]
    assert "Write 3 different questions" in system["content"]
    assert user["content"] == f"Document: Limits › Waiting\n\nPassage:\n{TEXT}"
    assert request.arguments["max_completion_tokens"] == 340
    assert "max_tokens" not in request.arguments


def test_a_chat_model_writes_a_summary(server, chat):
    assert chat().generate("summary", TEXT, "", 1) == ["In short: The rate limiter waits for its."]
    assert server.requests[0].texts[1] == f"Passage:\n{TEXT}"


def test_a_server_that_speaks_the_protocol_is_asked_in_its_words(server):
    made = create_generator("openai-compatible:llama3.2")
    assert made.generate("question", TEXT, "", 1)
    (request,) = server.requests
    assert request.model == "llama3.2"
    assert request.arguments["max_tokens"] == 180
    assert made.price is None


@pytest.mark.parametrize(
    "said", ["1) What?\n2) Why?", "- What?\n* Why?", "• What?\n\n  3. Why?  ", "(1) What?\n(2) Why?\n"]
)
def test_marks_before_a_line_are_left_out(server, chat, said):
    server.chat = lambda _: (said, "stop")
    assert chat().generate("question", TEXT, "", 5) == ["What?", "Why?"]


def test_half_a_question_is_none(server, chat):
    server.chat = lambda _: ("What is it?\nWhy does it wa", "length")
    assert chat().generate("question", TEXT, "", 5) == ["What is it?"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(server, chat, status):
    server.faults = [Fault(status), Fault(cut="before"), None]
    assert chat().generate("question", TEXT, "", 1)
    assert len(server.requests) == 3


def test_retry_after_is_waited_for_by_all(server, chat):
    server.faults = [Fault(429, retry_after=0.3)]
    got, error = run(chat(limits=Limits(concurrency=2)), numbered(6))
    assert error is None
    assert len(got) == 6
    starts = sorted(request.started for request in server.requests)
    # Those that were sent before the answer came are no later; all others are.
    assert sum(start < starts[0] + 0.28 for start in starts) <= 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(401), "status 401"),
        (Fault(404), "does not exist"),
        (Fault(429, code="insufficient_quota"), "exceeded your current quota"),
    ],
)
def test_what_will_not_pass_ends_the_work(server, chat, fault, message):
    server.faults = lambda _: fault
    got, error = run(chat(), numbered(20))
    assert isinstance(error, GeneratorError)
    assert message in str(error)
    assert got == {}
    assert len(server.requests) <= 8


def test_attempts_come_to_an_end(server, chat):
    server.faults = lambda _: Fault(500)
    with pytest.raises(GeneratorError, match="did not answer in 2 attempts"):
        chat(attempts=2).generate("summary", TEXT, "", 1)


def test_a_text_that_is_refused_spoils_no_other(server, chat):
    server.bad_text = "number 3"
    got, error = run(chat(), numbered(9))
    assert error is None
    assert [place for place, arrival in got.items() if arrival.refused] == [3]
    assert "flagged" in got[3].refused
    with pytest.raises(GeneratorError, match=r"openai:gpt-4\.1-mini refused: .*flagged"):
        chat().generate("question", "passage number 3", "", 1)


@pytest.mark.parametrize(("said", "reason"), [("", "content_filter"), ("", "stop"), (" \n ", "stop")])
def test_an_answer_that_says_nothing_is_refused(server, chat, said, reason):
    server.chat = lambda _: (said, reason)
    with pytest.raises(GeneratorError, match="refused"):
        chat().generate("summary", TEXT, "", 1)


def test_a_model_that_refuses_everything_is_an_error_after_few_requests(server, chat):
    server.bad_text = "passage"
    _, error = run(chat(limits=Limits(concurrency=2)), numbered(50))
    assert "refuses whatever it is asked" in str(error)
    assert len(server.requests) < 10


def test_a_model_that_only_reasons_is_told_what_it_needs(server, chat):
    server.chat = lambda _: ("", "length")
    with pytest.raises(GeneratorError, match="raise max_output_tokens"):
        chat().generate("question", TEXT, "", 1)


def test_answers_are_handed_over_as_they_come_and_stopping_keeps_them(server, chat):
    server.latency = 0.05
    stop, arrived, ended = threading.Event(), SimpleQueue(), []
    thread = threading.Thread(
        target=lambda: ended.append(
            generate_many(chat(limits=Limits(concurrency=2)), numbered(200), None, stop, arrived)
        )
    )
    thread.start()
    first = arrived.get(timeout=5)
    assert first.texts
    stop.set()
    thread.join(timeout=5)
    assert "stopped before all was written" in str(ended[0])
    assert len(server.requests) < 20


def test_money_is_counted_and_bounded(server, chat):
    # A token is a word here; a dollar a million for what is sent, ten for what is answered.
    made = chat(price=(1.0, 10.0), max_output_tokens=100, limits=Limits(concurrency=3))
    spending = Spending(0.0)
    run(made, numbered(4), spending)
    answered = sum(len(" ".join(server.chat(r)[0].split()).split()) for r in server.requests)
    sent = sum(request.tokens for request in server.requests)
    assert spending.cost == pytest.approx((sent + 10 * answered) / 1e6)
    server.reset()
    bounded = Spending(0.0, most=0.01)
    got, error = run(made, numbered(200), bounded)
    assert isinstance(error, CostLimitReached)
    assert 0 < bounded.cost <= 0.01
    assert 3 < len(got) < 150


def test_what_failed_costs_nothing(server, chat):
    server.faults = lambda _: Fault(401)
    spending = Spending(0.0, most=1.0)
    run(chat(), numbered(1), spending)
    assert (spending.cost, spending._reserved_dollars) == (0.0, 0.0)


def test_limits_are_kept(server, chat):
    # Of 600 a minute, 30 may be sent at once and 9.3 a second after that.
    limits = Limits(requests_per_minute=600, concurrency=16)
    started = time.monotonic()
    run(chat(limits=limits, limiter=Limiter("limited", limits)), numbered(40))
    assert time.monotonic() - started > 0.8


# By name.


@pytest.mark.parametrize(
    ("spec", "message"),
    [("gemini:x", "known are openai"), ("openai", "names no model"), ("openai:", "names no model")],
)
def test_a_name_that_is_none_is_told(spec, message):
    with pytest.raises(InvalidInput, match=message):
        create_generator(spec)


def test_a_compatible_server_needs_its_address(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InvalidInput, match="set OPENAI_BASE_URL"):
        create_generator("openai-compatible:llama3.2")


def test_without_a_key_it_is_told_which_to_set(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(GeneratorError, match="set OPENAI_API_KEY"):
        create_generator("openai:gpt-4.1-mini").generate("summary", TEXT, "", 1)


def test_the_environment_sets_limits_of_generators_apart(monkeypatch):
    monkeypatch.setenv("PGSEEK_GENERATOR_REQUESTS_PER_MINUTE", "7")
    monkeypatch.setenv("PGSEEK_REQUESTS_PER_MINUTE", "9")
    assert create_generator("openai:gpt-4.1-mini").limits.requests_per_minute == 7


def test_prompts_are_a_part_of_the_identity():
    plain = create_generator("openai:gpt-4.1-mini")
    other = create_generator("openai:gpt-4.1-mini", prompts={"question": "Ask {count} things."})
    assert plain.identity != other.identity
    assert plain.identity.startswith("openai:gpt-4.1-mini/")


def test_keys_are_not_shown():
    made = ChatGenerator("gpt-4.1-mini", api_key="sk-hunter2")
    assert "hunter2" not in repr(made) + made.identity + made.model_id


def test_prices_are_known_by_name():
    assert find_price("openai:gpt-4.1-mini") == (0.4, 1.6)
    assert find_price("openai:unheard-of") is None
    assert all(output > input_ > 0 for input_, output in prices().values())


@pytest.mark.parametrize(
    "entry",
    [
        'provider = "a"\nmodel = "b"\ninput = 1.0\noutput = 2.0',
        'provider = "a"\nmodel = "b"\ninput = 0\noutput = 2.0\nprice_read = 2026-01-01',
    ],
)
def test_a_price_without_its_date_or_amount_is_told(entry):
    with pytest.raises(ConfigurationError, match="generator a:b"):
        parse_prices(f"[[generator]]\n{entry}\n")
