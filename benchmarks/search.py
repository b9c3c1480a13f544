"""Hybrid search against its two legs run by hand, interleaved in one run.

    python benchmarks/search.py [--rows 100000] [--dimensions 256] [--queries 100]

By hand: the HNSW query and the GIN query with ts_rank_cd, 100 rows each, as a user would write them.
The query's vector is given, so nothing is embedded.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from common import GivenVectors, corpus, database

from pgseek import Client
from pgseek.db.connection import connect


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--dimensions", type=int, default=256)
    arguments.add_argument("--queries", type=int, default=100)
    given = arguments.parse_args()
    texts, vectors = corpus(given.rows, given.dimensions)
    rng = np.random.default_rng(7)
    with database() as dsn:
        with Client(dsn) as client:
            docs = client.create_collection("docs", embedder=GivenVectors(vectors))
            docs.ingest({"id": str(n), "text": text} for n, text in enumerate(texts))
        times: dict[str, list[float]] = {"dense by hand": [], "lexical by hand": [], "pgseek.search": []}
        with connect(dsn) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("SET hnsw.ef_search = 100")
            for number in range(-5, given.queries):
                words = texts[rng.integers(given.rows)].split()[1:]
                query = " ".join(rng.choice(words, size=min(4, len(words)), replace=False))
                vector = str(
                    (vectors[rng.integers(given.rows)] + 0.3 * rng.normal(size=given.dimensions)).tolist()
                )
                calls = {
                    "dense by hand": (
                        "SELECT document_id, ordinal FROM pgseek.embeddings_1"
                        " ORDER BY embedding <=> %s::vector LIMIT 100",
                        [vector],
                    ),
                    "lexical by hand": (
                        "SELECT document_id, ordinal FROM pgseek.chunks, to_tsquery('english', %s) q"
                        " WHERE collection_id = 1 AND lexemes @@ q"
                        " ORDER BY ts_rank_cd(lexemes, q) DESC LIMIT 100",
                        [" | ".join(query.split())],
                    ),
                    "pgseek.search": (
                        "SELECT * FROM pgseek.search('docs', %s, query_embedding => %s::vector)",
                        [query, vector],
                    ),
                }
                for name, (statement, parameters) in calls.items():
                    started = time.perf_counter()
                    connection.execute(statement, parameters).fetchall()
                    if number >= 0:
                        times[name].append((time.perf_counter() - started) * 1000)
    p50 = {name: float(np.median(values)) for name, values in times.items()}
    bare = p50["dense by hand"] + p50["lexical by hand"]
    print(
        f"{given.rows:,} chunks, {given.dimensions} dimensions, {given.queries} queries of up to 4 words; milliseconds"
    )
    for name, values in times.items():
        print(f"{name:<18} p50 {p50[name]:8.2f}  p95 {np.percentile(values, 95):8.2f}")
    print(f"pgseek.search p50 is {p50['pgseek.search'] / bare:.2f} times the sum of the two bare legs")


if __name__ == "__main__":
    main()
