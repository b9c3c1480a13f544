"""A change of model under load: what searches and writes notice of it, next to the same with nobody changing anything.

    python benchmarks/reembed.py [--documents 20000] [--dimensions 256 128]

Two readers and a writer run throughout. Printed are the latency of a search (p50, p95) and the documents written a
second before, during each step, and after, the longest that a write took around the switch, and what the change took
over a copy of the same vectors in SQL.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import defaultdict

import numpy as np
from common import database

from pgseek import Client, EmbedderIdentity
from pgseek.db.connection import connect
from pgseek.embedders.wordllama import WordLlamaEmbedder

WORDS = [
    "index",
    "vacuum",
    "tuple",
    "page",
    "lock",
    "commit",
    "replica",
    "snapshot",
    "query",
    "planner",
    "cache",
    "buffer",
    "vector",
    "table",
    "row",
]


class Other(WordLlamaEmbedder):
    """Vectors of another name: they cannot be cut from those of wordllama, and are embedded."""

    def __init__(self, dimensions: int) -> None:
        super().__init__("", dimensions)
        self.identity = EmbedderIdentity("benchmark", "other", dimensions, normalized=True)
        self.model_id = str(self.identity)


def texts(count: int, version: str = "") -> list[dict[str, str]]:
    rng = np.random.default_rng(7)
    return [
        {"id": str(n), "text": f"{n} {' '.join(rng.choice(WORDS, 40))} {version}".strip()}
        for n in range(count)
    ]


class Load:
    """Readers and a writer; what they measured, by the step that was going on."""

    def __init__(self, dsn: str, embedders: list[WordLlamaEmbedder], documents: int) -> None:
        self.dsn, self.embedders, self.documents = dsn, embedders, documents
        self.step = "before"
        self.searches: dict[str, list[float]] = defaultdict(list)
        self.writes: dict[str, list[float]] = defaultdict(list)
        self.failures: list[BaseException] = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.read, args=(n,)) for n in range(2)]
        self.threads.append(threading.Thread(target=self.write))
        for thread in self.threads:
            thread.start()

    def read(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        with Client(self.dsn) as client:
            docs = client.collection("docs", embedder=self.embedders)
            while not self.stop.is_set():
                step, started = self.step, time.perf_counter()
                try:
                    docs.search(" ".join(rng.choice(WORDS, 3)), k=10)
                except Exception as error:
                    self.failures.append(error)
                self.searches[step].append(time.perf_counter() - started)

    def write(self) -> None:
        with Client(self.dsn) as client:
            docs = client.collection("docs", embedder=self.embedders)
            number = 0
            while not self.stop.is_set():
                number += 1
                step, started = self.step, time.perf_counter()
                try:
                    docs.ingest(
                        [{"id": f"w{number % 500}", "text": f"written {number} {WORDS[number % 15]}"}]
                    )
                except Exception as error:
                    self.failures.append(error)
                self.writes[step].append(time.perf_counter() - started)

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, nargs=2, default=(256, 128))
    given = parser.parse_args()
    old, new = WordLlamaEmbedder("", given.dimensions[0]), Other(given.dimensions[1])
    with database() as dsn, Client(dsn) as client:
        docs = client.create_collection("docs", embedder=old)
        docs.ingest(texts(given.documents))
        load = Load(dsn, [old, new], given.documents)
        time.sleep(8)

        def follow(report) -> None:
            load.step = report.stage

        started = time.perf_counter()
        report = docs.reembed(new, progress=follow)
        took = time.perf_counter() - started
        load.step = "after"
        time.sleep(8)
        load.end()
        with connect(dsn) as connection:
            space = report.space_id
            connection.execute(f"CREATE TABLE copied (LIKE pgseek.embeddings_{space} INCLUDING INDEXES)")
            started = time.perf_counter()
            connection.execute(f"INSERT INTO copied SELECT * FROM pgseek.embeddings_{space}")
            copied = time.perf_counter() - started
    print(
        f"{given.documents:,} documents, {given.dimensions[0]} to {given.dimensions[1]} dimensions: {report.stage}"
    )
    print(f"failed searches and writes: {len(load.failures)}")
    for failure in load.failures[:3]:
        print(f"  {failure!r}")
    base = {
        kind: np.percentile(found["before"], [50, 95])
        for kind, found in (("s", load.searches), ("w", load.writes))
    }
    print("step        searches  p50 ms  p95 ms  over before  writes/s over before  longest write ms")
    seconds = {step: sum(values) for step, values in load.writes.items()}
    for step in ("before", "embedding", "indexing", "judging", "switching", "after"):
        searches, writes = load.searches.get(step), load.writes.get(step)
        if not searches or not writes:
            continue
        p50, p95 = np.percentile(searches, [50, 95])
        pace = (len(writes) / seconds[step]) / (len(load.writes["before"]) / seconds["before"])
        print(
            f"{step:<11} {len(searches):>8} {p50 * 1e3:>7.1f} {p95 * 1e3:>7.1f} {p50 / base['s'][0]:>5.2f}/{p95 / base['s'][1]:.2f}"
            f" {pace:>20.2f} {max(writes) * 1e3:>17.0f}"
        )
    print(
        f"the change took {took:.1f} s, an INSERT of its rows with their index {copied:.1f} s: {took / copied:.2f} times"
    )


if __name__ == "__main__":
    main()
