"""Ranking quality on judged collections (BEIR folders): each leg alone, and both fused.

    python benchmarks/quality.py DIR… [--embedder wordllama] [--drop-self] [--language english]

Every query is asked in each mode with the defaults of a new collection; measures by ir-measures.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import ir_measures
from common import database
from ir_measures import RR, R, nDCG

from pgseek import Client

MODES = {
    "dense": {"alpha": 1.0},
    "bm25": {"alpha": 0.0, "lexical": "bm25"},
    "ts_rank_cd": {"alpha": 0.0, "lexical": "ts_rank_cd"},
    "rrf": {"fusion": "rrf"},
    "hybrid (default)": {},
}


def lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folders", nargs="+", type=Path)
    arguments.add_argument("--embedder", default="wordllama")
    arguments.add_argument("--language", default="english")
    arguments.add_argument(
        "--drop-self", action="store_true", help="a query is also a document: leave it out"
    )
    arguments.add_argument("--title-weight", type=float)
    given = arguments.parse_args()
    for folder in given.folders:
        evaluate(folder, given)


def evaluate(folder: Path, given: argparse.Namespace) -> None:
    documents = [
        {"id": d["_id"], "title": d.get("title") or "", "text": d["text"] or d.get("title") or "-"}
        for d in lines(folder / "corpus.jsonl.gz")
    ]
    rows = [line.split("\t") for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]]
    qrels = [ir_measures.Qrel(query, document, int(score)) for query, document, score in rows]
    judged = {qrel.query_id for qrel in qrels}
    queries = [q for q in lines(folder / "queries.jsonl.gz") if q["_id"] in judged]
    with database() as dsn, Client(dsn) as client:
        # Documents are judged whole, so they are not divided.
        docs = client.create_collection(
            "docs",
            embedder=given.embedder,
            language=given.language,
            chunk_size=100_000,
            title_weight=given.title_weight,
        )
        docs.ingest(documents)
        docs.refresh_statistics(reweigh=True)
        print(f"{folder.name}: {docs.count():,} documents, {len(queries):,} queries, {given.embedder}")
        for mode, options in MODES.items():
            run = []
            for query in queries:
                hits = docs.search(query["text"], k=101, snippets=False, **options)
                run += [
                    ir_measures.ScoredDoc(query["_id"], hit.id, -hit.rank)
                    for hit in hits
                    if not (given.drop_self and hit.id == query["_id"])
                ]
            found = ir_measures.calc_aggregate([nDCG @ 10, R @ 100, RR @ 10], qrels, run)
            print(
                f"  {mode:<18}" + "".join(f"{measure!s:>10} {value:.4f}" for measure, value in found.items())
            )


if __name__ == "__main__":
    main()
