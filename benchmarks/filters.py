"""Filters that keep 50 % to 0.01 % of 100,000 chunks: recall@10 against exact search, rows returned, time.

    python benchmarks/filters.py FOLDER [--rows 100000] [--queries 60]

FOLDER holds test collections as BEIR lays them out, scifact and gitbugs-hadoop among them. Their sentences are the
chunks, one to a document, and where they are too few, pairs of neighbouring ones as well; their queries are the
queries; wordllama embeds both. A filter is a range of a number in the metadata:

    random    the number is a random one: what is kept has nothing to do with the query
    near      the number is the place along the line from texts like gitbugs to texts like scifact, and the query is
              of the end that is kept
    far       the same, and the query is of the other end: nothing near to it is kept
    equal     equality, of a random number

"index" is a field with an index (index_metadata), "none" one without. Exact is numpy over the vectors that the
filter keeps for the dense leg; for hybrid search it is the same search without the index of vectors. Times are those
of hybrid search, its defaults and k = 10, next to an unfiltered search for the same query.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import random
import re
import time
from pathlib import Path

import numpy as np
from common import database

from pgseek import Client, F
from pgseek.db.connection import connect
from pgseek.embedders.wordllama import WordLlamaEmbedder

SHARES = (0.5, 0.1, 0.01, 0.001, 0.0001)
# Of a sentence: characters at least and at most, and how many of them letters.
SHORTEST, LONGEST, LETTERS = 25, 1000, 0.6
K = 10


def chunks(folder: Path, number: int) -> list[tuple[str, str]]:
    """Return (collection, text), different texts in an order of chance."""
    single: dict[str, str] = {}
    double: dict[str, str] = {}
    for corpus in sorted(folder.rglob("corpus.jsonl.gz")):
        name = corpus.parent.relative_to(folder).as_posix()
        with gzip.open(corpus, "rt", encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                parts = re.split(r"(?<=[.!?])\s+|\n+", f"{record['title']}\n{record['text']}")
                found = [
                    text
                    for part in parts
                    if SHORTEST <= len(text := part.strip()) <= LONGEST
                    and sum(map(str.isalpha, text)) > LETTERS * len(text)
                ]
                for one, other in itertools.pairwise([*found, ""]):
                    single.setdefault(one, name)
                    double.setdefault(f"{one} {other}", name)
    every = (
        list(single.items()) + [(t, n) for t, n in double.items() if t not in single][: number - len(single)]
    )
    if len(every) < number:
        raise ValueError(f"{folder} holds {len(every):,} texts, but {number:,} are wanted")
    random.Random(1).shuffle(every)
    return [(name, text) for text, name in every[:number]]


def questions(folder: Path, name: str, number: int) -> list[str]:
    with gzip.open(folder / name / "queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line)["text"] for line in lines]
    random.Random(2).shuffle(found)
    return found[:number]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--queries", type=int, default=60)
    given = arguments.parse_args()
    embedder = WordLlamaEmbedder()
    found = chunks(given.folder, given.rows)
    vectors = np.concatenate(
        [embedder.embed_documents([t for _, t in found[n : n + 5000]]) for n in range(0, len(found), 5000)]
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    of = np.array([name for name, _ in found])
    line = vectors[of == "scifact"].mean(axis=0) - vectors[of == "gitbugs-hadoop"].mean(axis=0)
    rng = np.random.default_rng(3)
    number = {
        "random": rng.permutation(given.rows),
        "topic": np.argsort(np.argsort(vectors @ line)),
        "percent": rng.integers(0, 100, size=given.rows),
    }
    queries = {
        name: questions(given.folder, name, given.queries // 2) for name in ("scifact", "gitbugs-hadoop")
    }
    both = [query for pair in zip(*queries.values(), strict=True) for query in pair]
    with database() as dsn, Client(dsn) as client:
        docs = client.create_collection("docs", embedder=embedder)
        docs.ingest(
            {
                "id": str(n),
                "text": text,
                "metadata": {
                    "random": int(number["random"][n]),
                    "topic": int(number["topic"][n]),
                    "plain_random": int(number["random"][n]),
                    "plain_topic": int(number["topic"][n]),
                    "percent": int(number["percent"][n]),
                },
            }
            for n, (_, text) in enumerate(found)
        )
        started = time.perf_counter()
        docs.index_metadata("random", "number")
        docs.index_metadata("topic", "number")
        print(f"{given.rows:,} chunks; two metadata indexes built in {time.perf_counter() - started:.1f} s")
        with connect(dsn) as connection:
            connection.execute("VACUUM ANALYZE")
        cases = []
        for share in SHARES:
            kept = int(given.rows * share)
            for indexed, prefix in (("index", ""), ("none", "plain_")):
                low = F(f"{prefix}topic") < kept
                cases += [
                    (share, "random", indexed, F(f"{prefix}random") < kept, number["random"] < kept, both),
                    (share, "near", indexed, low, number["topic"] < kept, queries["gitbugs-hadoop"]),
                    (share, "far", indexed, low, number["topic"] < kept, queries["scifact"]),
                ]
        cases.insert(12, (0.01, "equal", "GIN", F("percent") == 7, number["percent"] == 7, both))
        index = f"pgseek.embeddings_{docs.info().space_id}_hnsw"
        with connect(dsn) as connection:
            connection.execute(f"DROP INDEX {index}")
        exact = {
            case[:2]: [
                docs.search(query, filter=case[3], k=K, budget=1e6, snippets=False) for query in case[5]
            ]
            for case in cases
            if case[2] != "none"
        }
        docs.build_index()
        print("filter           field   rows  dense R@10  hybrid R@10  p50 ms  unfiltered  ratio  p95 ms")
        for case in cases:
            share, kind, indexed = case[:3]
            least, dense, hybrid, times, unfiltered = measure(docs, embedder, vectors, case, exact[case[:2]])
            p50, base = np.median(times), np.median(unfiltered)
            print(
                f"{share:7.2%} {kind:8} {indexed:6} {least:4}  {np.mean(dense):10.3f}  {np.mean(hybrid):11.3f}"
                f"  {p50:6.1f}  {base:10.1f}  {p50 / base:5.2f}  {np.percentile(times, 95):6.1f}",
                flush=True,
            )


def measure(docs, embedder, vectors, case, exact):
    """Return the fewest rows, the recalls of the dense leg and of hybrid search, its times, and those unfiltered.

    What is as near as the last that should be found, or as well ranked, is as good as it: texts may be equal.
    """
    _, _, _, condition, mask, asked = case
    matching = np.flatnonzero(mask)
    wanted = min(K, len(matching))
    least, recalls, hybrid, times, unfiltered = K, [], [], [], []
    for query, best in zip(asked, exact, strict=True):
        for _ in range(2):
            started = time.perf_counter()
            docs.search(query, k=K)
            between = time.perf_counter()
            hits = docs.search(query, filter=condition, k=K)
            ended = time.perf_counter()
        unfiltered.append((between - started) * 1000)
        times.append((ended - between) * 1000)
        ids, last = {hit.id for hit in best}, best[-1].score
        hybrid.append(sum(hit.id in ids or hit.score >= last - 1e-6 for hit in hits) / wanted)
        dense = docs.search(query, filter=condition, k=K, alpha=1)
        nearest = np.sort(vectors[matching] @ embedder.embed_query(query))[-wanted]
        recalls.append(sum(hit.dense_score >= nearest - 1e-6 for hit in dense) / wanted)
        least = min(least, K - wanted + len(dense), K - wanted + len(hits))
    return least, recalls, hybrid, times, unfiltered


if __name__ == "__main__":
    main()
