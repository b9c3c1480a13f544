"""Hybrid search against its two legs run by hand, interleaved in one run.

    python benchmarks/search.py [--rows 100000] [--dimensions 256] [--queries 100]

By hand: the HNSW query, the BM25 leg, and what people write without pgseek, ts_rank_cd of any of the words over a plain
table with a GIN index; 100 rows each. The query's vector is given, so nothing is embedded.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from common import GivenVectors, corpus, database, plain_table

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
        times: dict[str, list[float]] = {
            name: [] for name in ("dense", "BM25", "ts_rank_cd", "pgseek.search")
        }
        with connect(dsn) as connection:
            plain_table(connection)
            connection.execute("VACUUM ANALYZE")
            connection.execute("SET hnsw.ef_search = 100")
            for number in range(-5, given.queries):
                words = texts[rng.integers(given.rows)].split()[1:]
                query = " ".join(rng.choice(words, size=min(4, len(words)), replace=False))
                vector = str(
                    (vectors[rng.integers(given.rows)] + 0.3 * rng.normal(size=given.dimensions)).tolist()
                )
                calls = {
                    "dense": (
                        "SELECT document_id, ordinal FROM pgseek.embeddings_1"
                        " ORDER BY embedding <=> %s::vector LIMIT 100",
                        [vector],
                    ),
                    "BM25": (
                        "SELECT c.* FROM pgseek.bm25_bag('{english}', %s) w, pgseek.bm25_terms(1, w.lexemes, w.frequencies) t,"
                        " pgseek.bm25_candidates(1, t.dimensions, t.weights, t.counts, 100) c",
                        [query],
                    ),
                    "ts_rank_cd": (
                        "SELECT document_id, ordinal FROM plain, to_tsquery('english', %s) q"
                        " WHERE lexemes @@ q ORDER BY ts_rank_cd(lexemes, q) DESC LIMIT 100",
                        [" | ".join(query.split())],
                    ),
                    "pgseek.search": (
                        "SELECT * FROM pgseek.search('docs', %s, query_embedding => %s::vector, space_id => 1)",
                        [query, vector],
                    ),
                }
                for name, (statement, parameters) in calls.items():
                    started = time.perf_counter()
                    connection.execute(statement, parameters).fetchall()
                    if number >= 0:
                        times[name].append((time.perf_counter() - started) * 1000)
    p50 = {name: float(np.median(values)) for name, values in times.items()}
    print(
        f"{given.rows:,} chunks, {given.dimensions} dimensions, {given.queries} queries of up to 4 words; milliseconds"
    )
    for name, values in times.items():
        print(f"{name:<18} p50 {p50[name]:8.2f}  p95 {np.percentile(values, 95):8.2f}")
    for lexical in ("BM25", "ts_rank_cd"):
        print(
            f"pgseek.search p50 is {p50['pgseek.search'] / (p50['dense'] + p50[lexical]):.2f} times dense + {lexical}"
        )


if __name__ == "__main__":
    main()
