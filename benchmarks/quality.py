"""Ranking quality on judged collections (BEIR folders): each leg alone, and both fused.

    python benchmarks/quality.py DIR… [--embedder wordllama] [--drop-self] [--language english] [--sweep]

Every query is asked in each mode with the defaults of a new collection, whose documents are not divided. ``--sweep`` tries
every way to fuse instead: what the defaults of embedders (pgseek.embedders.catalog) are taken from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import database

from pgseek import Client
from pgseek.evaluation import Evaluation, Mode, Plan, evaluate, read_beir

MODES = (
    Mode("dense", {"alpha": 1.0}),
    Mode("bm25", {"alpha": 0.0, "lexical": "bm25"}),
    Mode("ts_rank_cd", {"alpha": 0.0, "lexical": "ts_rank_cd"}),
    Mode("rrf", {"fusion": "rrf"}),
    Mode("hybrid"),
)
SWEEP = (
    Mode("rrf", {"fusion": "rrf"}),
    *(
        Mode(f"{normalization}-{alpha:g}", {"alpha": alpha, "normalization": normalization})
        for normalization in ("max", "minmax")
        for alpha in (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0)
    ),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folders", nargs="+", type=Path)
    arguments.add_argument("--embedder", default="wordllama")
    arguments.add_argument("--language", default="english")
    arguments.add_argument(
        "--drop-self", action="store_true", help="a query is also a document: leave it out"
    )
    arguments.add_argument("--title-weight", type=float)
    arguments.add_argument("--sweep", action="store_true", help="every normalization and alpha")
    given = arguments.parse_args()
    for folder in given.folders:
        found = measured(folder, given)
        print(f"{folder.name}: {found.documents:,} documents, {found.queries:,} queries, {given.embedder}")
        for result in found.modes:
            means = "".join(f"{measure:>10} {value:.4f}" for measure, value in result.means.items())
            print(f"  {result.name:<12}{means}{result.latency.median:>9.1f} ms median", flush=True)


def measured(folder: Path, given: argparse.Namespace) -> Evaluation:
    """Evaluate the folder in a database of its own."""
    beir = read_beir(folder)
    with database() as dsn, Client(dsn) as client:
        docs = client.create_collection(
            "docs",
            embedder=given.embedder,
            language=given.language,
            chunk_size=100_000,
            title_weight=given.title_weight,
        )
        docs.ingest(beir.documents())
        docs.refresh_statistics(reweigh=True)
        return evaluate(
            docs,
            beir.queries,
            beir.qrels,
            Plan(modes=SWEEP if given.sweep else MODES, drop_self=given.drop_self),
        )


if __name__ == "__main__":
    main()
