"""Rate limits kept by the database: shared by processes, by the server's clock, whatever breaks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import psycopg
import pyrate_limiter as pyrate
import pytest
from psycopg.conninfo import make_conninfo
from support import rows

from pgseek import ConfigurationError, ConnectionFailed, DatabaseError, MissingExtra, SchemaNotMigrated
from pgseek.db import limits as shared
from pgseek.db.connection import connect
from pgseek.embedders.limits import Limiter, Limits

GCRA = pyrate.GCRA()
SECOND = 1000


@pytest.fixture(autouse=True)
def _closed():
    yield
    shared.close_connections()


def server_time(dsn):
    """The server's clock in microseconds."""
    return rows(dsn, "SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::float8 AS t")[0]["t"]


def stored(dsn):
    return {row["name"]: row["state"] for row in rows(dsn, "SELECT name, state FROM pgseek.rate_limits")}


def own_connection(dsn):
    return lambda: connect(dsn)


@pytest.fixture
def stores(dsn):
    """Two stores of one limit, each on a connection of its own as two processes have."""
    made = [shared.postgres_store(own_connection(dsn), "account") for _ in range(2)]
    yield made
    for store in made:
        store.close()


# The store.


def test_a_limit_is_spent_by_both_and_refused_to_both(stores):
    rates = [pyrate.Rate(10, 10 * SECOND, burst=3)]
    one, two = stores
    assert [s.check(GCRA, rates, 0, 1).allowed for s in (one, two, one)] == [True] * 3
    for store in stores:
        refused = store.check(GCRA, rates, 0, 1)
        assert not refused.allowed
        assert refused.failing_rate is rates[0]
        assert 0 < refused.retry_after_ms <= SECOND
    # A refusal spends nothing, under no rate.
    time.sleep(refused.retry_after_ms / 1000 + 0.01)
    assert two.check(GCRA, rates, 0, 1).allowed
    assert not one.check(GCRA, rates, 0, 4).allowed
    assert one.check(GCRA, rates, 0, 4).retry_after_ms is None


def test_limits_of_other_names_are_apart(dsn, stores):
    rates = [pyrate.Rate(1, 60 * SECOND)]
    other = shared.postgres_store(dsn, "other")
    assert stores[0].check(GCRA, rates, 0, 1).allowed
    assert other.check(GCRA, rates, 0, 1).allowed
    assert not stores[1].check(GCRA, rates, 0, 1).allowed
    assert stored(dsn).keys() == {"account", "other"}


@pytest.mark.parametrize("wrong", [0, 10**15])
def test_the_clock_is_the_servers_not_the_callers(dsn, stores, wrong):
    rates = [pyrate.Rate(60, 60 * SECOND, burst=5)]
    before = server_time(dsn)
    assert stores[0].check(GCRA, rates, wrong, 2).allowed
    after = server_time(dsn)
    # The algorithm's state is when the limit is unused again: two seconds after the decision, here.
    ((state,),) = stored(dsn).values()
    assert before - 1000 <= state - 2e6 <= after
    # A caller whose clock is an hour ahead gains nothing.
    assert [stores[1].check(GCRA, rates, wrong + 3600 * SECOND, 1).allowed for _ in range(4)] == [
        True
    ] * 3 + [False]


def test_the_time_is_that_of_the_decision_not_of_beginning_to_wait(dsn, stores):
    rates = [pyrate.Rate(60, 60 * SECOND, burst=5)]
    stores[0].check(GCRA, rates, 0, 1)
    stores[0].reset()
    stores[0].check(GCRA, rates, 0, 1)
    rows(dsn, "UPDATE pgseek.rate_limits SET state = '{0}'")
    with connect(dsn) as holder:
        with holder.transaction():
            holder.execute("SELECT FROM pgseek.rate_limits FOR UPDATE")
            waiting = threading.Thread(target=stores[1].check, args=(GCRA, rates, 0, 1))
            waiting.start()
            time.sleep(0.3)
            assert waiting.is_alive()
            released = server_time(dsn)
        waiting.join(10)
    ((state,),) = stored(dsn).values()
    assert state - 1e6 >= released - 1000


def test_reading_resetting_and_another_number_of_rates(dsn, stores):
    one = [pyrate.Rate(1, 60 * SECOND)]
    two = [pyrate.Rate(5, SECOND), pyrate.Rate(50, 60 * SECOND)]
    store = stores[0]
    assert store.read(GCRA, one) == (0,)
    assert store.check(GCRA, one, 0, 1).allowed
    assert list(store.read(GCRA, one)) == stored(dsn)["account"]
    # What was remembered of one rate says nothing about two.
    assert store.read(GCRA, two) == (0, 0)
    assert store.check(GCRA, two, 0, 1).allowed
    assert len(stored(dsn)["account"]) == 2
    store.reset()
    assert stored(dsn) == {}
    assert store.read(GCRA, two) == (0, 0)


def test_who_comes_first_at_once_makes_the_row(dsn):
    """Several that find no row: all go on from the same state."""
    for turn in range(10):
        made = [shared.postgres_store(own_connection(dsn), f"new {turn}") for _ in range(4)]
        rates = [pyrate.Rate(60, 60 * SECOND, burst=2)]
        start, allowed = threading.Barrier(4), []

        def ask(store, start=start, allowed=allowed, rates=rates):
            start.wait(10)
            allowed.append(store.check(GCRA, rates, 0, 1).allowed)

        threads = [threading.Thread(target=ask, args=(store,)) for store in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        for store in made:
            store.close()
        assert sorted(allowed) == [False, False, True, True]


# The connection.


def backends(dsn):
    return [
        row["pid"]
        for row in rows(
            dsn,
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'pgseek limits'",
        )
    ]


def test_all_stores_of_a_dsn_share_one_connection_opened_on_first_use(dsn):
    stores = [shared.postgres_store(dsn, str(n)) for n in range(5)]
    assert backends(dsn) == []
    rates = [pyrate.Rate(100, SECOND, burst=50)]
    threads = [
        threading.Thread(target=lambda s=s: [s.check(GCRA, rates, 0, 1) for _ in range(5)]) for s in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(backends(dsn)) == 1
    assert stored(dsn).keys() == set("01234")
    shared.close_connections()
    deadline = time.monotonic() + 5
    while backends(dsn) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert backends(dsn) == []
    assert stores[0].check(GCRA, rates, 0, 1).allowed


def test_a_connection_that_broke_is_opened_again(dsn):
    store = shared.postgres_store(dsn, "account")
    rates = [pyrate.Rate(60, 60 * SECOND, burst=2)]
    assert store.check(GCRA, rates, 0, 1).allowed
    (pid,) = backends(dsn)
    rows(dsn, "SELECT pg_terminate_backend(%s, 5000)", [pid])
    assert store.check(GCRA, rates, 0, 1).allowed
    assert backends(dsn) != [pid]
    assert not store.check(GCRA, rates, 0, 1).allowed


def test_errors_are_ours_keep_their_cause_and_show_no_password(dsn):
    rates = [pyrate.Rate(60, 60 * SECOND)]
    gone = make_conninfo("host=127.0.0.1 port=9 dbname=d user=u", password="s3cret")
    with pytest.raises(ConnectionFailed) as caught:
        shared.postgres_store(gone, "x").check(GCRA, rates, 0, 1)
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1:9/d" in str(caught.value)

    def refuse():
        raise psycopg.OperationalError("connection failed: no route")

    with pytest.raises(DatabaseError, match="no route") as caught:
        shared.postgres_store(refuse, "x").read(GCRA, rates)
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    rows(dsn, "DROP TABLE pgseek.rate_limits")
    store = shared.postgres_store(dsn, "x")
    for call in (lambda: store.check(GCRA, rates, 0, 1), lambda: store.read(GCRA, rates), store.reset):
        with pytest.raises(SchemaNotMigrated, match="pgseek db upgrade"):
            call()
    with pytest.raises(ConfigurationError):
        shared.shared_limiter("nonsense dsn")


def test_without_the_package_the_extra_is_named(dsn, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrate_limiter", None)
    shared._store_class.cache_clear()
    with pytest.raises(MissingExtra, match="pip install"):
        shared.postgres_store(dsn, "x")
    monkeypatch.undo()
    assert shared.postgres_store(dsn, "x")


# Limiters.

WORKER = """
import json, sys, time
import pyrate_limiter as pyrate
from pgseek.db.limits import postgres_store
dsn, name, limit, burst, seconds = *sys.argv[1:3], *map(int, sys.argv[3:5]), float(sys.argv[5])
store = postgres_store(dsn, name)
rates, granted = [pyrate.Rate(limit, 1000, burst=burst)], []
store.read(pyrate.GCRA(), rates)
print("ready", flush=True)
sys.stdin.readline()
end = time.time() + seconds
while (asked := time.time()) < end:
    decision = store.check(pyrate.GCRA(), rates, 0, 1)
    if decision.allowed:
        granted.append((asked, time.time()))
    else:
        time.sleep(decision.retry_after_ms / 1000)
print(json.dumps(granted))
"""


def most_within(granted, seconds):
    """The most grants that surely fell into one window: asked after it began, answered before it ended."""
    return max(
        sum(begin <= asked and answered <= begin + seconds for asked, answered in granted)
        for begin, _ in granted
    )


def test_two_processes_together_never_exceed_the_limit_in_any_window(dsn):
    # What a limit of sixty a second is kept with: its sum in any second is below the limit.
    per_second, sustained, burst = 60, 55, 3
    arguments = [sys.executable, "-c", WORKER, dsn, "account", str(sustained), str(burst), "2.5"]
    processes = [
        subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    shares = [json.loads(process.communicate(timeout=30)[0]) for process in processes]
    granted = sorted(shares[0] + shares[1])
    # One millisecond is what the limiter's clock cannot tell.
    assert most_within(granted, 0.999) <= per_second
    assert most_within(granted, 0.499) <= burst + sustained * 0.5
    # Both had their part, and the limit was used: of what two and a half seconds allow, most.
    assert min(map(len, shares)) > 0
    assert len(granted) > 0.75 * 2.5 * sustained


@pytest.fixture
def elsewhere(dsn):
    """Make a limiter as another process has it: with a connection of its own."""
    opened = []

    def limiter(name, limits):
        def store(key):
            opened.append(shared.postgres_store(own_connection(dsn), key))
            return opened[-1]

        return Limiter(name, limits, store)

    yield limiter
    for store in opened:
        store.close()


def seconds(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_limiters_of_an_account_are_one_per_process_and_share_its_requests_with_others(dsn, elsewhere):
    # About ten a second, and thirty-two at once.
    limits = Limits(requests_per_minute=645)
    mine = shared.shared_limiter(dsn)("openai", limits)
    assert shared.shared_limiter(dsn)("openai", limits) is mine
    assert shared.shared_limiter(dsn)("cohere", limits) is not mine
    other = elsewhere("openai", limits)
    # Seven more than at once, whoever asks and however long the machine takes over it.
    assert 0.6 <= seconds(lambda: [limiter.acquire(0) for limiter in [other] * 33 + [mine] * 6]) < 30
    assert stored(dsn).keys() == {"openai/requests"}
    # Another account's are counted apart.
    shared.shared_limiter(dsn)("cohere", limits).acquire(0)
    assert stored(dsn).keys() == {"openai/requests", "cohere/requests"}


def test_tokens_are_shared_too(dsn, elsewhere):
    # About nine hundred a second, and three thousand at once.
    limits = Limits(tokens_per_minute=60_000)
    mine = shared.shared_limiter(dsn)("openai", limits)
    other = elsewhere("openai", limits)
    assert 0.5 <= seconds(lambda: (other.acquire(3000), mine.acquire(500))) < 30
    assert stored(dsn).keys() == {"openai/tokens"}


def test_a_server_that_may_not_be_written_leaves_the_limit_to_the_process(dsn):
    # A standby refuses every write so; the queries of a search still have to be embedded.
    reading = make_conninfo(dsn, options="-c default_transaction_read_only=on")
    limiter = shared.shared_limiter(reading)("account", Limits(requests_per_minute=60_000))
    for _ in range(5):
        limiter.acquire(1)
    assert rows(dsn, "SELECT name FROM pgseek.rate_limits") == []
    shared.shared_limiter(dsn)("account", Limits(requests_per_minute=60_000)).acquire(1)
    assert len(rows(dsn, "SELECT name FROM pgseek.rate_limits")) == 1
