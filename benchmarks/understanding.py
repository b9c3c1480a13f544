"""What feedback and an alpha by the kind of query are worth on judged collections (BEIR folders), in nDCG@10.

    python benchmarks/understanding.py DIR… [--embedder wordllama] [--drop-self] [--language english] [--queries 600]

Beside them stand the collection's own alpha, and the best fixed one of 0, 0.1, …, 1: chosen with the judgements at hand, it is what
tuning could reach. The kinds and their factors were chosen by looking at scifact, gitbugs-hadoop and
xquad-r with wordllama, and at the latter two with MiniLM.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from common import database

from pgseek import Client
from pgseek.db.connection import connect
from pgseek.evaluation import Mode, Plan, evaluate, read_beir

FIXED = tuple(Mode(f"alpha={tenth / 10:g}", {"alpha": tenth / 10}) for tenth in range(11))
MODES = (
    Mode("default"),
    Mode("auto", {"alpha": "auto"}),
    Mode("feedback=3", {"feedback": 3}),
    Mode("feedback=10", {"feedback": 10}),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folders", nargs="+", type=Path)
    arguments.add_argument("--embedder", default="wordllama")
    arguments.add_argument("--language", default="english")
    arguments.add_argument("--drop-self", action="store_true", help="a query is also a document")
    arguments.add_argument("--queries", type=int, default=600)
    given = arguments.parse_args()
    for folder in given.folders:
        beir = read_beir(folder)
        asked = [name for name in sorted(beir.queries) if name in beir.qrels]
        queries = {name: beir.queries[name] for name in asked[:: max(1, len(asked) // given.queries)]}
        with database() as dsn, Client(dsn) as client:
            docs = client.create_collection(
                "docs", embedder=given.embedder, language=given.language, chunk_size=100_000
            )
            docs.ingest(beir.documents())
            docs.refresh_statistics(reweigh=True)
            with connect(dsn) as connection:
                kinds = Counter(
                    row["kind"]
                    for row in connection.execute(
                        "SELECT pgseek.query_kind(q) AS kind FROM unnest(%s::text[]) AS q",
                        [list(queries.values())],
                    )
                )
            plan = Plan(modes=(*MODES, *FIXED), measures=("nDCG@10",), drop_self=given.drop_self)
            found = {
                mode.name: mode.means["nDCG@10"] for mode in evaluate(docs, queries, beir.qrels, plan).modes
            }
        best = max((mode.name for mode in FIXED), key=lambda name: found[name])
        print(f"{folder.name}: {len(queries)} queries, {dict(kinds)}, {given.embedder}")
        for name in (*(mode.name for mode in MODES), best):
            chosen = "  the best fixed one" if name == best else ""
            print(
                f"  {name:<12} {found[name]:.4f}  {found[name] - found['default']:+.4f}{chosen}", flush=True
            )


if __name__ == "__main__":
    main()
