"""What a change of chunks costs beside a collection that is in use: writes, the fill, the switch and the way back.

    python benchmarks/copies.py [--rows 20000] [--rounds 5]

Documents of 8 to 40 words. A reader searches in a loop all along; its slowest searches are told by step. Writes are
put_documents of 100 documents, without a copy and with one, the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
import zlib
from collections import defaultdict

from common import GivenVectors, corpus, database

from pgseek import Client, collections, copies
from pgseek.db.connection import connect

AT_ONCE = 100


class AnyVectors(GivenVectors):
    """Every text has some row of the matrix: chunks have no numbers."""

    def _row(self, text: str) -> int:
        return zlib.crc32(text.encode()) % len(self.vectors)


class Reader(threading.Thread):
    """Searches as fast as it can; the seconds of each search are kept by the step that was under way."""

    def __init__(self, dsn: str, embedder: GivenVectors) -> None:
        super().__init__()
        self.dsn, self.embedder, self.step = dsn, embedder, "before"
        self.ended = threading.Event()
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def run(self) -> None:
        with Client(self.dsn) as client:
            docs = client.collection("docs", embedder=self.embedder)
            while not self.ended.is_set():
                step, started = self.step, time.perf_counter()
                docs.search("w1 w7", alpha=0)
                self.seconds[step].append(time.perf_counter() - started)


def writes(dsn: str, texts: list[str], rounds: int, name: str) -> float:
    """Return the median seconds of a call that stores new documents."""
    seconds = []
    with connect(dsn) as connection:
        for turn in range(rounds):
            documents = [{"id": f"{name}{turn} {n}", "text": text} for n, text in enumerate(texts[:AT_ONCE])]
            started = time.perf_counter()
            connection.execute(
                "SELECT count(*) FROM pgseek.put_documents('docs', %s::jsonb)", [json.dumps(documents)]
            )
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def change(dsn: str, rows: int, rounds: int) -> None:
    texts, vectors = corpus(rows, 64)
    embedder = AnyVectors(vectors)
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=embedder)
        started = time.perf_counter()
        docs.ingest([{"id": str(n), "text": text} for n, text in enumerate(texts)])
        print(f"{rows:,} documents: ingest {rows / (time.perf_counter() - started):,.0f}/s")
        alone = writes(dsn, texts, rounds, "alone")
        reader = Reader(dsn, embedder)
        reader.start()
        try:
            info = client._run(collections.find("docs"))
            copy = client._run(copies.begin(info, embedder, {"chunk_size": 60}))
            for name, step in (
                ("fill", lambda: client._run(copies.fill(copy))),
                ("drain", lambda: client.collection(copy.name, embedder=embedder).drain_queue()),
                ("compare", lambda: client._run(collections.copy_status(info))),
                ("switch", lambda: client._run(copies.switch(info, copy))),
                ("rollback", lambda: client._run(copies.rollback(client._run(collections.find("docs"))))),
            ):
                reader.step = name
                started = time.perf_counter()
                step()
                seconds = time.perf_counter() - started
                rate = f"   {rows / seconds:,.0f} documents a second" if name in {"fill", "drain"} else ""
                print(f"{name:10} {seconds:8.3f} s{rate}")
            reader.step = "after"
            mirrored = writes(dsn, texts, rounds, "mirrored")
            print(f"{AT_ONCE} documents put: {alone * 1e3:.0f} ms, with a copy {mirrored * 1e3:.0f} ms")
            client._run(copies.retire(client._run(collections.find_copy(info))))
        finally:
            reader.ended.set()
            reader.join()
    for name, found in reader.seconds.items():
        p50, slowest = statistics.median(found) * 1e3, max(found) * 1e3
        print(f"searches, {name:10} {len(found):6}   p50 {p50:.1f} ms   slowest {slowest:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with database() as dsn:
        change(dsn, given.rows, given.rounds)


if __name__ == "__main__":
    main()
