"""An addition into an index that is there, against building the index anew: where one is cheaper than the other.

    python benchmarks/indexes.py [--stored 20000] [--dimensions 256]

For either index the same rows are added with the index in place, then in an equal collection whose index is
dropped before and built after. The ratio printed is what a row costs in place over what a row costs in a build:
`pgseek.indexes` decides by it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from common import GivenVectors, corpus, database

from pgseek import Client
from pgseek.db.connection import connect

GRAPH = "CREATE INDEX embeddings_{0}_hnsw ON pgseek.embeddings_{0} USING hnsw (embedding vector_cosine_ops)"
CODES = (
    "CREATE INDEX chunks_codes_idx ON pgseek.chunks USING gin (pgseek.bm25_codes(collection_id, terms))"
    " WITH (fastupdate = on, gin_pending_list_limit = 256)"
)
# The rows of `extra` go into the collection `docs` of the same number.
VECTORS = (
    "INSERT INTO pgseek.embeddings_{0} SELECT collection_id, document_id, ordinal + 1000, embedding"
    " FROM pgseek.embeddings_2 LIMIT {1} OFFSET {2}"
)
CHUNKS = (
    "INSERT INTO pgseek.chunks (collection_id, document_id, ordinal, title, text, language, char_start, char_end,"
    " text_hash, lexemes, terms) SELECT collection_id, document_id, ordinal + {2} + 1, title, text, language,"
    " char_start, char_end, text_hash, lexemes, terms FROM pgseek.chunks WHERE collection_id = 2 AND ordinal = 0 LIMIT {1}"
)


def timed(connection, statement: str) -> float:
    started = time.perf_counter()
    connection.execute(statement)
    return time.perf_counter() - started


def measure(dsn: str, stored: int, added: int, dimensions: int) -> None:
    texts, vectors = corpus(stored + added, dimensions)
    documents = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    with Client(dsn) as client:
        client.create_collection("docs", embedder=GivenVectors(vectors)).ingest(documents[:stored])
        client.create_collection("extra", embedder=GivenVectors(vectors)).ingest(documents[stored:])
    with connect(dsn) as connection:
        connection.execute("SET maintenance_work_mem = '1GB'")
        for name, insert, drop, create in (
            ("HNSW", VECTORS, "embeddings_1_hnsw", GRAPH),
            ("words (GIN)", CHUNKS, "chunks_codes_idx", CODES),
        ):
            in_place = timed(connection, insert.format(1, added, 0))
            connection.execute(f"DROP INDEX pgseek.{drop}")
            bare = timed(
                connection,
                insert.format(1, added, 100_000)
                if insert is CHUNKS
                else insert.replace("ordinal + 1000", "ordinal + 2000").format(1, added, 0),
            )
            build = timed(connection, create.format(1))
            rows = stored + 2 * added if insert is VECTORS else stored + 3 * added
            ratio = (in_place - bare) / added / (build / rows)
            print(
                f"{name:12} {added:,} rows beside {stored:,}: in place {in_place:6.2f} s, without the index {bare:6.2f} s,"
                f" build of {rows:,} rows {build:6.2f} s; a row in place costs {ratio:.1f} times one of a build"
            )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--stored", type=int, default=20_000)
    arguments.add_argument("--added", type=int, default=10_000)
    arguments.add_argument("--dimensions", type=int, default=256)
    given = arguments.parse_args()
    np.random.default_rng(1)
    with database() as dsn:
        measure(dsn, given.stored, given.added, given.dimensions)


if __name__ == "__main__":
    main()
