"""Documents written through SQL: one call for all, one call each, and a plain table with a tsvector, in one run.

    python benchmarks/writers.py [--rows 1000] [--rounds 5]

All in one transaction each, interleaved, the median of the rounds. Plain: INSERT … SELECT from the same JSON into
a table with a stored to_tsvector and a GIN index. Last, what a write costs a table that pgseek follows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import psycopg
from common import GivenVectors, corpus, database

from pgseek import Client
from pgseek.db.connection import connect

PLAIN = """
CREATE TABLE plain (id text PRIMARY KEY, body text, metadata jsonb,
    lexemes tsvector GENERATED ALWAYS AS (to_tsvector('english', body)) STORED);
CREATE INDEX ON plain USING gin (lexemes);
"""
INSERT = "INSERT INTO plain (id, body, metadata) SELECT d->>'id', d->>'text', d->'metadata' FROM jsonb_array_elements(%s::jsonb) AS d"
PUT_ALL = "SELECT count(*) FROM pgseek.put_documents('docs', %s::jsonb)"
PUT_ONE = "SELECT pgseek.put_document('docs', %s, %s, metadata => %s::jsonb)"


def timed(connection: psycopg.Connection, run) -> float:
    started = time.perf_counter()
    with connection.transaction():
        run()
    return time.perf_counter() - started


def writers(dsn: str, rows: int, rounds: int) -> None:
    texts, vectors = corpus(rows, 8)
    times: dict[str, list[float]] = {"plain": [], "put_documents": [], "put_document": [], "unchanged": []}
    with Client(dsn) as client:
        client.create_collection("docs", embedder=GivenVectors(vectors))
    with connect(dsn) as connection:
        for statement in filter(str.strip, PLAIN.split(";\n")):
            connection.execute(statement)
        for turn in range(rounds):

            def documents(kind, turn=turn):
                return [
                    {"id": f"{kind}{turn}-{n}", "text": text, "metadata": {"n": n}}
                    for n, text in enumerate(texts)
                ]

            plain, at_once, each = (json.dumps(documents(kind)) for kind in "pab")
            singles = [(d["id"], d["text"], json.dumps(d["metadata"])) for d in json.loads(each)]
            times["plain"].append(timed(connection, lambda given=plain: connection.execute(INSERT, [given])))
            times["put_documents"].append(
                timed(connection, lambda given=at_once: connection.execute(PUT_ALL, [given]))
            )
            times["put_document"].append(
                timed(connection, lambda given=singles: [connection.execute(PUT_ONE, one) for one in given])
            )
            times["unchanged"].append(
                timed(connection, lambda given=at_once: connection.execute(PUT_ALL, [given]))
            )
    base = statistics.median(times["plain"])
    print(f"{rows:,} documents of 8 to 40 words, median of {rounds}")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"{name:14}{middle * 1000:9.0f} ms  {rows / middle:9,.0f} documents/s  {middle / base:5.2f}x")


FOLLOWED = """
CREATE TABLE {table} (id int PRIMARY KEY, body text, stock int NOT NULL DEFAULT 0);
INSERT INTO {table} SELECT n, t FROM unnest(%s::text[]) WITH ORDINALITY AS x (t, n)
"""


def followers(dsn: str, rows: int, rounds: int) -> None:
    """Statements on a table that a collection follows, over the same on one that none does."""
    texts, _ = corpus(rows, 8)
    statements = {
        "update of another column": "UPDATE {table} SET stock = stock + 1",
        "update of one row": "UPDATE {table} SET stock = stock + 1 WHERE id = 1",
        "update of the text": "UPDATE {table} SET body = body || ' again'",
        "delete of a tenth": "DELETE FROM {table} WHERE id %% 10 = {turn}",
    }
    times: dict[str, dict[str, list[float]]] = {
        name: {"plain_rows": [], "followed": []} for name in statements
    }
    with connect(dsn) as connection, Client(dsn) as client:
        for table in ("plain_rows", "followed"):
            for statement in FOLLOWED.format(table=table).strip().split(";\n"):
                connection.execute(statement, [texts] if "%s" in statement else None)
        started = time.perf_counter()
        client.attach("followed", "docs", id="id", text="body", apply=True)
        fill = time.perf_counter() - started
        for turn in range(min(rounds, 9)):
            for name, statement in statements.items():
                for table, seconds in times[name].items():
                    made = statement.format(table=table, turn=turn).replace("%%", "%")
                    seconds.append(timed(connection, lambda given=made: connection.execute(given)))
    print(f"\na table of {rows:,} rows that a collection follows; back-fill {rows / fill:,.0f} rows/s")
    for name, seconds in times.items():
        alone, followed = (statistics.median(seconds[table]) * 1000 for table in ("plain_rows", "followed"))
        print(f"{name:26}{alone:9.1f} ms alone {followed:9.1f} ms followed {followed / alone:8.1f}x")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=1000)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    with database() as dsn:
        writers(dsn, given.rows, given.rounds)
        followers(dsn, given.rows * 10, given.rounds)


if __name__ == "__main__":
    main()
