"""Recall, speed and size of every way to store and index vectors, by dimension, next to exact search in the same run.

    python benchmarks/spaces.py --data DIR [--rows 50000] [--queries 200] [--only 64,256,…] [--minilm FOLDER] [--defaults]

Real embeddings of sentences of the collections in DIR (BEIR folders) where a model at hand gives that dimension:
wordllama for 64, 128 and 256, MiniLM for 384 (with --minilm, the folder of its weights; it takes minutes).
Elsewhere clustered vectors of chance (tests/vectors.py). Queries are those of the collections, or other vectors
of the same kind. Recall counts the exact 10 nearest, found with the space's default settings.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import database

from pgseek import CallableEmbedder, Client, Collection
from pgseek.db.connection import connect
from pgseek.embedders.registry import create_embedder
from pgseek.vectors import index_for, storage_for

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from vectors import as_stored, clustered, document, fill, nearest, questions, sentences

K = 10
# By dimension, what is measured beside the default: storage, index.
CASES: dict[int, tuple[tuple[str, str], ...]] = {
    64: (("vector", "hnsw"), ("vector", "ivfflat"), ("halfvec", "hnsw")),
    128: (("vector", "hnsw"), ("vector", "ivfflat"), ("vector", "binary"), ("halfvec", "hnsw")),
    256: (
        ("vector", "hnsw"),
        ("vector", "ivfflat"),
        ("vector", "binary"),
        ("vector", "prefix=128"),
        ("halfvec", "hnsw"),
    ),
    384: (("vector", "hnsw"), ("vector", "ivfflat"), ("vector", "binary"), ("halfvec", "hnsw")),
    768: (
        ("vector", "hnsw"),
        ("vector", "ivfflat"),
        ("vector", "binary"),
        ("vector", "prefix=256"),
        ("halfvec", "hnsw"),
    ),
    1024: (("vector", "hnsw"), ("vector", "binary"), ("vector", "prefix=256"), ("halfvec", "hnsw")),
    1536: (
        ("vector", "hnsw"),
        ("vector", "ivfflat"),
        ("vector", "binary"),
        ("vector", "prefix=512"),
        ("halfvec", "hnsw"),
    ),
    3072: (("halfvec", "hnsw"), ("halfvec", "binary"), ("halfvec", "prefix=1024")),
    4096: (("halfvec", "binary"), ("halfvec", "prefix=1024")),
}
COLUMNS = (
    "dimensions",
    "of",
    "stored as",
    "index",
    "recall@10",
    "p50 ms",
    "exact p50 ms",
    "build s",
    "table MB",
    "index MB",
)


def made(dimensions: int, given: argparse.Namespace) -> tuple[str, np.ndarray, np.ndarray]:
    """Return where vectors are from, the rows (n, d) and the queries (q, d)."""
    spec = f"wordllama@{dimensions}" if dimensions in {64, 128, 256} else ""
    if dimensions == 384 and given.minilm:
        spec = f"sentence-transformers:{given.minilm}"
    if not spec or given.data is None:
        # The first numbers say more than the last, as with models that may be cut.
        return "made up", *clustered(given.rows, given.queries, dimensions, taper=0.3)
    embedder = create_embedder(spec)
    rows = embedder.embed_documents(sentences(given.data, given.rows))
    queries = np.stack([embedder.embed_query(text) for text in questions(given.data, given.queries)])
    return spec.split(":")[0].split("@")[0].replace("sentence-transformers", "MiniLM"), rows, queries


def collection(client: Client, dimensions: int, storage: str) -> Collection:
    def embed(texts: list[str]) -> np.ndarray:
        return np.ones((len(texts), dimensions), dtype=np.float32)

    name = f"d{dimensions}_{storage}"
    embedder = CallableEmbedder(embed, model=name, dimensions=dimensions)
    return client.create_collection(name, embedder=embedder, storage=storage)


def measured(dsn: str, given: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    with Client(dsn) as client, connect(dsn) as connection:
        for dimensions in given.only:
            source, vectors, queries = made(dimensions, given)
            texts = [str(query.tolist()) for query in queries]
            for storage in dict.fromkeys(storage for storage, _ in CASES[dimensions]):
                docs = collection(client, dimensions, storage)
                space = docs.info().space.space_id
                fill(dsn, space, storage, vectors)
                truth = nearest(as_stored(vectors, storage), as_stored(queries, storage), K)
                exact, _ = asked(connection, space, texts[:10], truth, "true")
                for index in [index for where, index in CASES[dimensions] if where == storage]:
                    report = docs.build_index(index, concurrently=False, workers=1)
                    asked(connection, space, texts[:20], truth, "false")
                    p50, recall = asked(connection, space, texts, truth, "false")
                    ((sizes),) = connection.execute(
                        "SELECT pg_table_size(%(t)s::regclass) AS table, pg_relation_size(%(i)s::regclass) AS index",
                        {"t": f"pgseek.embeddings_{space}", "i": f"pgseek.{report.name}"},
                    ).fetchall()
                    yield (
                        *(dimensions, source, storage, index, f"{recall:.3f}", f"{p50:.1f}", f"{exact:.1f}"),
                        *(
                            f"{report.seconds:.1f}",
                            *(f"{sizes[part] / 1e6:.0f}" for part in ("table", "index")),
                        ),
                    )
                client.drop_collection(docs.name)


def asked(
    connection, space: int, queries: list[str], truth: list[list[int]], exact: str
) -> tuple[float, float]:
    """Return the median time in milliseconds and the mean recall."""
    times, shares = [], []
    for query, best in zip(queries, truth, strict=False):
        started = time.perf_counter()
        found = connection.execute(
            f"SELECT document_id FROM pgseek.nearest(%s, %s::vector, {K}, exact => {exact})", [space, query]
        ).fetchall()
        times.append((time.perf_counter() - started) * 1000)
        shares.append(len({row["document_id"] for row in found} & set(map(document, best))) / K)
    return float(np.median(times)), float(np.mean(shares))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path)
    arguments.add_argument("--minilm", type=Path)
    arguments.add_argument("--rows", type=int, default=50_000)
    arguments.add_argument("--queries", type=int, default=200)
    arguments.add_argument(
        "--only", type=lambda text: [int(part) for part in text.split(",")], default=sorted(CASES)
    )
    arguments.add_argument("--defaults", action="store_true", help="only what a new collection is given")
    given = arguments.parse_args()
    if given.defaults:
        for dimensions in CASES:
            storage = storage_for(dimensions)
            CASES[dimensions] = ((storage, str(index_for(dimensions, storage, "cosine"))),)
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    with database() as dsn:
        for row in measured(dsn, given):
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
