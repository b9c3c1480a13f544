"""What tuning is worth: a collection's default setting against one chosen by cross-validation, in nDCG@10.

    python benchmarks/tune.py DATA [--embedder wordllama] [--queries 400] [--repeats 3] [--no-bm25] [--alpha 0.7]

DATA holds scifact, gitbugs-hadoop, xquad-r/en and xquad-r/de (BEIR folders). Tuned values are of queries that the
setting was not chosen on; p is that of a paired randomisation test against the default. Two figures are of real
searches: those with the default, and those with the winner, which was chosen on all of these queries. With ``--alpha``
that is what the collections are set to, in place of their embedder's default.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from common import database

from pgseek import Client
from pgseek.evaluation import Grid, read_beir, tune

COLLECTIONS = {
    "scifact": ("english", False),
    "gitbugs-hadoop": ("english", True),
    "xquad-r/en": ("english", False),
    "xquad-r/de": ("german", False),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--embedder", default="wordllama")
    arguments.add_argument("--queries", type=int, default=400)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--no-bm25", action="store_true")
    arguments.add_argument("--alpha", type=float)
    given = arguments.parse_args()
    for name, (language, drop_self) in COLLECTIONS.items():
        beir = read_beir(given.data / name)
        asked = [query for query in sorted(beir.queries) if query in beir.qrels]
        queries = {query: beir.queries[query] for query in asked[:: max(1, len(asked) // given.queries)]}
        with database() as dsn, Client(dsn) as client:
            docs = client.create_collection(
                "docs", embedder=given.embedder, language=language, chunk_size=100_000, alpha=given.alpha
            )
            docs.ingest(beir.documents())
            docs.refresh_statistics(reweigh=True)
            started = time.perf_counter()
            found = tune(
                docs,
                queries,
                beir.qrels,
                grid=Grid(bm25=not given.no_bm25),
                repeats=given.repeats,
                drop_self=drop_self,
            )
            seconds = time.perf_counter() - started
        searched = "-" if found.searched_after is None else f"{found.searched_after:.4f}"
        print(
            f"{name}: {len(queries)} queries, {given.embedder}, {found.settings:,} settings in {seconds:.0f} s\n"
            f"  default {found.before.mean:.4f} [{found.before.low:.4f}, {found.before.high:.4f}]"
            f"  tuned {found.after.mean:.4f} [{found.after.low:.4f}, {found.after.high:.4f}]"
            f"  difference {found.difference.mean:+.4f} [{found.difference.low:+.4f}, {found.difference.high:+.4f}]"
            f"  p {found.p:.4f}\n"
            f"  searched for: default {found.searched_before:.4f}, winner {searched};"
            f" reckoned as searched: {found.agreeing:.1%}\n"
            f"  winner: {found.winner}\n"
            f"  folds chose {len(found.chosen)} settings\n"
            + "".join(
                f"  alpha, {curve.kind} ({curve.queries}): best {curve.best:g} {max(curve.means):.4f}\n"
                for curve in found.curves
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
