"""Ingest against hand-written COPY of the same rows with given vectors, in turns within one run.

    python benchmarks/ingest.py [--rows 20000] [--dimensions 256] [--rounds 3]
    python benchmarks/ingest.py --stream 1000000

Raw: binary COPY of documents, chunks (with a stored tsvector) and vectors in one transaction, then GIN and
HNSW; unchanged: COPY of ids and hashes, and a join. A stream is a generator of documents that are made as
they are read: what counts is the peak of resident memory above what the process had before.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import statistics
import time
from collections.abc import Iterator

import numpy as np
from common import GivenVectors, corpus, database

from pgseek import Client
from pgseek.db.connection import connect
from pgseek.prepare import document_id

RAW = """
CREATE TABLE raw_documents (id uuid PRIMARY KEY, external_id text, body text, metadata jsonb, hash bytea);
CREATE TABLE raw_chunks (id uuid, ordinal int, text text,
    lexemes tsvector GENERATED ALWAYS AS (to_tsvector('english', text)) STORED, PRIMARY KEY (id, ordinal));
CREATE TABLE raw_embeddings (id uuid, ordinal int, embedding vector({d}), PRIMARY KEY (id, ordinal));
"""


def raw(dsn: str, texts: list[str], vectors: np.ndarray) -> tuple[float, float]:
    """Return the seconds of the first load and of one that finds nothing changed."""
    from pgvector.psycopg import register_vector

    with connect(dsn) as connection:
        register_vector(connection)
        connection.execute(RAW.format(d=vectors.shape[1]))
        started = time.perf_counter()
        ids = [document_id(str(n)) for n in range(len(texts))]
        hashes = [hashlib.sha256(text.encode()).digest() for text in texts]
        with connection.transaction(), connection.cursor() as cursor:
            with cursor.copy("COPY raw_documents FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["uuid", "text", "text", "jsonb", "bytea"])
                for n, text in enumerate(texts):
                    copy.write_row((ids[n], str(n), text, {}, hashes[n]))
            with cursor.copy("COPY raw_chunks (id, ordinal, text) FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["uuid", "int4", "text"])
                for n, text in enumerate(texts):
                    copy.write_row((ids[n], 0, text))
            with cursor.copy("COPY raw_embeddings FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["uuid", "int4", "vector"])
                for n, vector in enumerate(vectors):
                    copy.write_row((ids[n], 0, vector))
        connection.execute("SET maintenance_work_mem = '1GB'")
        connection.execute("CREATE INDEX ON raw_chunks USING gin (lexemes)")
        connection.execute("CREATE INDEX ON raw_embeddings USING hnsw (embedding vector_cosine_ops)")
        first = time.perf_counter() - started

        started = time.perf_counter()
        ids = [document_id(str(n)) for n in range(len(texts))]
        hashes = [hashlib.sha256(text.encode()).digest() for text in texts]
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE seen (id uuid, hash bytea)")
            with cursor.copy("COPY seen FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["uuid", "bytea"])
                for row in zip(ids, hashes, strict=True):
                    copy.write_row(row)
            same = cursor.execute(
                "SELECT count(*) AS n FROM seen JOIN raw_documents USING (id, hash)"
            ).fetchone()
            assert same["n"] == len(texts)
        return first, time.perf_counter() - started


def pgseek(dsn: str, texts: list[str], vectors: np.ndarray) -> tuple[float, float]:
    """Return the same of pgseek."""
    documents = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=GivenVectors(vectors))
        started = time.perf_counter()
        assert docs.ingest(documents).new == len(texts)
        first = time.perf_counter() - started
        started = time.perf_counter()
        assert docs.ingest(documents).unchanged == len(texts)
        return first, time.perf_counter() - started


def compare(rows: int, dimensions: int, rounds: int) -> None:
    texts, vectors = corpus(rows, dimensions)
    times: dict[str, list[tuple[float, float]]] = {"raw": [], "pgseek": []}
    for number in range(rounds):
        # In turns, and the first of the two not always the same: what else the machine does meets both.
        for name, load in ((("raw", raw), ("pgseek", pgseek)))[:: 1 if number % 2 == 0 else -1]:
            with database() as dsn:
                times[name].append(load(dsn, texts, vectors))
    print(f"{rows:,} documents of {dimensions} dimensions, medians of {rounds} rounds")
    for at, what in enumerate(("first load", "nothing changed")):
        by_hand, ours = (statistics.median(pair[at] for pair in times[name]) for name in ("raw", "pgseek"))
        ratios = sorted(ours[at] / raw[at] for ours, raw in zip(times["pgseek"], times["raw"], strict=True))
        print(
            f"{what:16} raw {by_hand:7.2f} s {rows / by_hand:9,.0f}/s   pgseek {ours:7.2f} s {rows / ours:9,.0f}/s"
            f"   {ours / by_hand:.2f}x of raw (rounds {ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def peak() -> int:
    """Return the most resident memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Hashed(GivenVectors):
    """Vectors made from the number a text begins with: no matrix of them is held."""

    def embed_documents(self, texts):
        rows = super().embed_documents(
            [
                f"{int(text.split(' ', 1)[0]) % len(self.vectors)} " if text[0].isdigit() else text
                for text in texts
            ]
        )
        return rows.copy()


def stream(rows: int, dimensions: int) -> None:
    texts, vectors = corpus(10_000, dimensions)
    words = [text.split(" ", 1)[1] for text in texts]

    def documents() -> Iterator[dict[str, str]]:
        for n in range(rows):
            yield {"id": str(n), "text": f"{n} {words[n % len(words)]}"}

    with database() as dsn, Client(dsn) as client:
        docs = client.create_collection("docs", embedder=Hashed(vectors))
        before = peak()
        started = time.perf_counter()
        assert docs.ingest(documents()).new == rows
        taken = time.perf_counter() - started
    print(
        f"stream of {rows:,} documents of {dimensions} dimensions: {taken:,.0f} s, {rows / taken:,.0f} documents/s;"
        f" peak memory {(peak() - before) / 2**20:,.0f} MiB above the {before / 2**20:,.0f} MiB before"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=20_000)
    arguments.add_argument("--dimensions", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--stream", type=int, default=0)
    given = arguments.parse_args()
    if given.stream:
        stream(given.stream, given.dimensions)
    else:
        compare(given.rows, given.dimensions, given.rounds)


if __name__ == "__main__":
    main()
