"""Clusters against known classes: how much of them is found again without being told (NMI and ARI).

    python benchmarks/clusters.py FOLDER [--embedder wordllama] [--umap] [--titles]

FOLDER is xquad-r/en: its sentences' articles and paragraphs are classes. The other corpus is the standard library's
documentation, by top-level module; modules with fewer than twenty texts are left out. Titles name the class in either, so
only the texts are stored, unless ``--titles`` asks for them. k-means is told the number of classes, and also finds one.
HDBSCAN leaves noise out: the figures are over all texts, with noise as one more class, and over those in a cluster.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from common import database
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from pgseek import Client, Collection
from pgseek.analysis import ClusterPlan, assignments, cluster
from pgseek.evaluation import read_beir

LEAST = 20


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--embedder", default="wordllama")
    arguments.add_argument("--umap", action="store_true", help="HDBSCAN after UMAP, too: it takes minutes")
    arguments.add_argument("--titles", action="store_true", help="store the titles, which name the class")
    given = arguments.parse_args()
    for name, (documents, classes) in {"stdlib": library(), "xquad-r": sentences(given.folder)}.items():
        stored = [one if given.titles else {**one, "title": ""} for one in documents]
        with database() as dsn, Client(dsn) as client:
            docs = client.create_collection("docs", embedder=given.embedder, chunk_size=100_000)
            docs.ingest(stored)
            report(docs, name, classes, given)


def report(
    docs: Collection, name: str, classes: Mapping[str, Mapping[str, str]], given: argparse.Namespace
) -> None:
    """Print a line for each way to cluster and each kind of class."""
    found = ClusterPlan(), ClusterPlan(method="hdbscan")
    plans = {"k-means, k by silhouette": found[0], "HDBSCAN (PCA)": found[1]}
    for kind, of in classes.items():
        plans[f"k-means, k of {kind}"] = ClusterPlan(k=len(set(of.values())))
    if given.umap:
        plans["HDBSCAN (UMAP)"] = ClusterPlan(method="hdbscan", reduction="umap")
    for label, plan in plans.items():
        started = time.perf_counter()
        made = cluster(docs, plan)
        seconds = time.perf_counter() - started
        where = {one.id: one.cluster for one in assignments(docs, made)}
        for kind, of in classes.items():
            inside = [one for one in of if where[one] >= 0]
            print(
                f"{name:8} {given.embedder[-30:]:30} {label:26} {kind:10} {len(set(of.values())):4} classes "
                f"{len(made.clusters):4} clusters  {agreement(of, where, list(of))}  noise {1 - len(inside) / len(of):.2f}  "
                f"of the others {agreement(of, where, inside)}  silhouette {made.silhouette or 0:.3f}  {seconds:.1f} s",
                flush=True,
            )


def agreement(of: Mapping[str, str], where: Mapping[str, int], ids: list[str]) -> str:
    """Return NMI and ARI over these texts."""
    pair = [of[one] for one in ids], [where[one] for one in ids]
    return f"NMI {normalized_mutual_info_score(*pair):.3f} ARI {adjusted_rand_score(*pair):.3f}"


def library() -> tuple[list[dict], dict[str, dict[str, str]]]:
    """Return the standard library's docstrings, and the top-level module of each."""
    done = subprocess.run(
        [sys.executable, "-m", "pgseek.demo.corpus"], capture_output=True, text=True, check=True
    )
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    module = {one["id"]: one["metadata"]["module"].split(".")[0] for one in documents}
    sizes = Counter(module.values())
    kept = [one for one in documents if sizes[module[one["id"]]] >= LEAST]
    return kept, {"modules": {one["id"]: module[one["id"]] for one in kept}}


def sentences(folder: Path) -> tuple[list[dict], dict[str, dict[str, str]]]:
    """Return the sentences of a corpus, with the article and the paragraph of each."""
    documents = [
        {"id": one.id, "title": one.title, "text": one.text} for one in read_beir(folder).documents()
    ]
    return documents, {
        "articles": {one["id"]: one["title"] for one in documents},
        "paragraphs": {one["id"]: one["id"].rsplit("-", 1)[0] for one in documents},
    }


if __name__ == "__main__":
    main()
