"""Vectors for tests and benchmarks of indexes: real ones of real sentences, and clustered ones of any dimension."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from pgvector import HalfVector, Vector
from pgvector.psycopg.halfvec import register_halfvec_info
from pgvector.psycopg.vector import register_vector_info
from psycopg.sql import SQL, Identifier
from psycopg.types import TypeInfo

from pgseek.db.connection import connect

# Of what a sentence has at least: letters enough to mean something.
SHORTEST = 25
LETTERS = 0.6


def sentences(folder: Path, number: int, seed: int = 1) -> list[str]:
    """Return so many different sentences of the collections below ``folder``, in an order of chance.

    Raises:
        ValueError: there are fewer.
    """
    found: dict[str, None] = {}
    for corpus in sorted(folder.rglob("corpus.jsonl.gz")):
        with gzip.open(corpus, "rt", encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                for part in re.split(r"(?<=[.!?])\s+|\n+", f"{record['title']}\n{record['text']}"):
                    text = part.strip()
                    if len(text) >= SHORTEST and sum(map(str.isalpha, text)) > LETTERS * len(text):
                        found.setdefault(text)
    if len(found) < number:
        raise ValueError(f"{folder} holds {len(found):,} sentences, but {number:,} are wanted")
    every = list(found)
    random.Random(seed).shuffle(every)
    return every[:number]


def questions(folder: Path, number: int, seed: int = 2) -> list[str]:
    """Return so many queries of the collections below ``folder``, in an order of chance."""
    every = []
    for queries in sorted(folder.rglob("queries.jsonl.gz")):
        with gzip.open(queries, "rt", encoding="utf-8") as lines:
            every += [json.loads(line)["text"] for line in lines]
    random.Random(seed).shuffle(every)
    return every[:number]


def clustered(
    rows: int, queries: int, dimensions: int, *, seed: int = 1, taper: float = 0.0
) -> tuple[Any, Any]:
    """Return unit vectors of the kind that models give, float32: rows (n, d) and queries (q, d).

    Each is made of 200 hidden numbers, around one of a thousand centres of unequal size, and of a
    little noise: as with sentences, the nearest lie in 15 to 25 directions, whatever the dimension. All
    share a direction, so that their mean cosine is about 0.2. Queries lie farther from the centres than
    rows, as questions do from sentences. With a ``taper`` the first numbers say more than the last ones, as
    with models that were trained to be cut (Matryoshka).
    """
    rng = np.random.default_rng(seed)
    hidden, centres, total = 200, 1000, rows + queries
    scale = (np.arange(1, hidden + 1) ** -0.3).astype(np.float32)
    weight = (np.arange(1, dimensions + 1) ** -taper).astype(np.float32) / np.sqrt(dimensions)
    centre = rng.normal(size=(centres, hidden)).astype(np.float32)
    share = np.arange(1, centres + 1) ** -0.7
    basis = rng.standard_normal((hidden, dimensions), dtype=np.float32) * weight
    common = rng.standard_normal(dimensions, dtype=np.float32) * weight
    inside = rng.standard_normal((total, hidden), dtype=np.float32)
    inside[rows:] *= 1.5
    made = ((centre[rng.choice(centres, size=total, p=share / share.sum())] + inside) * scale) @ basis
    spread = np.sqrt((made**2).mean(axis=0)).mean() / weight.mean()
    made += 0.5 * spread * common
    # Block by block: a second matrix of this size is not needed.
    for start in range(0, total, 5000):
        block = made[start : start + 5000]
        block += 0.1 * spread * weight * rng.standard_normal(block.shape, dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return made[:rows], made[rows:]


def fill(dsn: str, space_id: int, storage: str, vectors: Any, ids: Sequence[UUID] | None = None) -> None:
    """COPY vectors into a space's table, each as the first chunk of a document: of ``ids``, or `document(n)`."""
    with connect(dsn) as connection:
        for name, register in (("vector", register_vector_info), ("halfvec", register_halfvec_info)):
            info = TypeInfo.fetch(connection, name)
            assert info is not None, name
            register(connection, info)
        (found,) = connection.execute(
            "SELECT collection_id FROM pgseek.embedding_spaces WHERE space_id = %s", [space_id]
        ).fetchall()
        wrapped = HalfVector if storage == "halfvec" else Vector
        statement = SQL("COPY {} (collection_id, document_id, ordinal, embedding) FROM STDIN (FORMAT BINARY)")
        table = Identifier("pgseek", f"embeddings_{space_id}")
        with connection.cursor().copy(statement.format(table)) as copy:
            copy.set_types(("int4", "uuid", "int4", storage))
            for number, vector in enumerate(vectors):
                of = document(number) if ids is None else ids[number]
                copy.write_row((found["collection_id"], of, 0, wrapped(vector)))
        connection.execute(SQL("VACUUM ANALYZE {}").format(table))


def document(number: int) -> UUID:
    """Return the id that `fill` gives to a row."""
    return UUID(int=number)


def nearest(vectors: Any, queries: Any, k: int, metric: str = "cosine") -> list[list[int]]:
    """Return the numbers of the k nearest rows of each query, nearest first, as numpy finds them."""
    # The sum of squares of each row: |v - q|² = |v|² - 2 v·q + |q|².
    squares = np.einsum("ij,ij->i", vectors, vectors)
    found = []
    for query in queries:
        inner = vectors @ query
        if metric == "l1":
            rough = distances(vectors, query, metric)
        elif metric == "l2":
            rough = squares - 2 * inner
        else:
            rough = -inner if metric == "inner_product" else -inner / np.sqrt(squares)
        # Single precision leaves out none of the k nearest among four times as many.
        some = np.argpartition(rough, 4 * k)[: 4 * k] if 4 * k < len(rough) else np.arange(len(rough))
        found.append(some[np.lexsort((some, distances(vectors[some], query, metric)))][:k].tolist())
    return found


def distances(vectors: Any, query: Any, metric: str) -> Any:
    """Return the distance of each row (n, d) from a query (d,) as pgvector defines it, lower is nearer."""
    vectors, query = np.asarray(vectors, dtype=np.float64), np.asarray(query, dtype=np.float64)
    if metric == "inner_product":
        return -(vectors @ query)
    if metric == "cosine":
        return 1 - vectors @ query / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query))
    difference = np.abs(vectors - query)
    return difference.sum(axis=1) if metric == "l1" else np.sqrt((difference**2).sum(axis=1))


def as_stored(vectors: Any, storage: str) -> Any:
    """Return vectors as a column of this type holds them."""
    return vectors.astype(np.float16).astype(np.float32) if storage == "halfvec" else vectors
