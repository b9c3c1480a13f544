"""The reliability of ``relevance``: predicted and observed relevance of hits, on judged collections (BEIR folders).

    python benchmarks/calibration.py DIR… [--embedder wordllama] [--language english]

By cross-validation over queries: what is shown is never what the numbers were fitted to.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import database

from pgseek import Client
from pgseek.evaluation import calibrate, read_beir


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folders", nargs="+", type=Path)
    arguments.add_argument("--embedder", default="wordllama")
    arguments.add_argument("--language", default="english")
    arguments.add_argument("--queries", type=int, default=400)
    given = arguments.parse_args()
    for folder in given.folders:
        beir = read_beir(folder)
        asked = [name for name in sorted(beir.queries) if name in beir.qrels]
        step = max(1, len(asked) // given.queries)
        queries = {name: beir.queries[name] for name in asked[::step]}
        with database() as dsn, Client(dsn) as client:
            docs = client.create_collection(
                "docs", embedder=given.embedder, language=given.language, chunk_size=100_000
            )
            docs.ingest(beir.documents())
            docs.refresh_statistics(reweigh=True)
            found = calibrate(docs, queries, beir.qrels)
        print(
            f"{folder.name}: {found.queries} queries, {found.hits:,} hits, {found.relevant:,} relevant; "
            f"calibration error {found.error:.3f}, Brier score {found.brier:.3f} "
            f"(always the rate: {found.brier_of_rate:.3f})"
        )
        for one in found.reliability:
            print(
                f"  {one.low:.1f} to {one.high:.1f}: predicted {one.predicted:.3f}, observed "
                f"{one.observed:.3f} of {one.hits:,} hits"
            )


if __name__ == "__main__":
    main()
