"""Fine-tuning MiniLM on CPU: nDCG@10 before and after, in the database, dense and hybrid.

    python benchmarks/finetune.py --base FOLDER --data DIR [--only scifact gitbugs-hadoop] [--ways train titles folds]

FOLDER holds the weights of all-MiniLM-L6-v2. Of each data set in DIR (BEIR folders), as --ways says:

train   trains on the split "train" where queries.jsonl has the texts of its queries, as a full download has
titles  trains on titles and texts of the documents, with no query or judgement of the test split
folds   trains on one half of the test queries, with mined hard negatives, and measures on the other half, and the
        other way round; every query is measured by a model that did not see it, nor a document judged for it. With
        several --rates the learning rate is the one with the lowest loss on a fifth of the training half

xquad-r/de (--language german) is what the base cannot read: it knows English only.

With --documents N the collection is smaller than the data set, and every figure higher than on all of it.

A query of gitbugs-hadoop is a document itself, which is left out of what it finds.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from common import database

from pgseek import Client, Collection, InvalidInput
from pgseek.evaluation import Beir, Mode, Plan, evaluate, permutation_p, read_beir
from pgseek.evaluation.experiment import Evaluation
from pgseek.finetuning import Example, FineTuning, Recipe, finetune, from_qrels, title_pairs

MEASURES = ("nDCG@10", "R@100")
MODES = (Mode("dense", {"alpha": 1.0}), Mode("hybrid"))
# What a machine of two cores does in some minutes.
RECIPE = Recipe(batch_size=16, max_tokens=96, evaluations=4)
PerQuery = Mapping[str, Mapping[str, float]]


@contextmanager
def collection(client: Client, beir: Beir, given: argparse.Namespace) -> Iterator[Collection]:
    """Yield the data set's documents under the base, dropped afterwards: all, or the judged ones and a sample."""
    docs = client.create_collection(
        "docs", embedder=f"sentence-transformers:{given.base}", language=given.language
    )
    documents = list(beir.documents())
    if given.documents is not None:
        of_queries = {one for by_query in beir.qrels.values() for one in by_query} | set(beir.qrels)
        others = [one for one in documents if one.id not in of_queries]
        documents = [one for one in documents if one.id in of_queries]
        documents += random.Random(4).sample(others, max(0, given.documents - len(documents)))
    docs.ingest(documents)
    docs.refresh_statistics(reweigh=True)
    try:
        yield docs
    finally:
        client.drop_collection("docs")


def run(docs: Collection, beir: Beir, queries: Mapping[str, str], space: int | None = None) -> Evaluation:
    """Run queries in both modes, in the active space or another."""
    arguments = {} if space is None else {"space": space}
    modes = tuple(Mode(mode.name, {**mode.arguments, **arguments}) for mode in MODES)
    plan = Plan(modes, MEASURES, depth=100, drop_self=beir.name.startswith("gitbugs"))
    return evaluate(docs, queries, {name: beir.qrels[name] for name in queries}, plan)


def space_of(docs: Collection, tuned: FineTuning) -> int:
    """Fill a space with the trained model's vectors; it stays beside the active one."""
    return int(docs.reembed(tuned.embedder, switch=False).space_id)


def values(found: Evaluation) -> dict[tuple[str, str], Mapping[str, float]]:
    """Return values by query, by mode and measure."""
    return {(mode.name, measure): mode.per_query[measure] for mode in found.modes for measure in MEASURES}


def show(title: str, before: Mapping, after: Mapping, seconds: float) -> None:
    """Print one table."""
    print(f"\n{title}; {seconds:,.0f} s of mining and training")
    print("| | before | after | difference | better | worse | p |\n|---|---|---|---|---|---|---|")
    for key, old in before.items():
        new = after[key]
        differences = [new[name] - old[name] for name in old]
        print(
            f"| {key[0]} {key[1]} | {fmean(old.values()):.4f} | {fmean(new.values()):.4f} | {fmean(differences):+.4f} "
            f"| {sum(d > 1e-12 for d in differences)} | {sum(d < -1e-12 for d in differences)} "
            f"| {permutation_p(differences):.4f} |",
            flush=True,
        )


def train_split(docs: Collection, beir: Beir, folder: Path, given: argparse.Namespace) -> None:
    """Train on the queries of the split "train", and measure on the test queries."""
    try:
        learnt = read_beir(beir.folder, "train")
        examples = from_qrels(learnt.queries, learnt.qrels)
    except InvalidInput as error:
        print(f"\n{beir.name}, split train: not done: {error}")
        return
    before = values(run(docs, beir, judged(beir)))
    recipe = replace(RECIPE, epochs=1, negatives=1, learning_rate=given.rates[0])
    tuned = finetune(docs, examples, folder / "train", recipe)
    after = values(run(docs, beir, judged(beir), space_of(docs, tuned)))
    show(f"{beir.name}: {tuned.examples:,} pairs of the split train", before, after, tuned.seconds)


def titles(docs: Collection, beir: Beir, folder: Path, given: argparse.Namespace) -> None:
    """Train on the documents alone."""
    asked = set(judged(beir).values())
    before = values(run(docs, beir, judged(beir)))
    tuned, rate = best_of(
        docs,
        # A title that is a test query tells nothing to a model that must not know it.
        [one for one in title_pairs(docs, given.titles) if one.query not in asked],
        folder / "titles",
        replace(RECIPE, dev=0.1),
        given.rates,
    )
    after = values(run(docs, beir, judged(beir), space_of(docs, tuned)))
    show(
        f"{beir.name}: {tuned.examples:,} titles with their texts, learning rate {rate:g}, {tuned.steps} steps, step "
        f"{tuned.kept_step} kept",
        before,
        after,
        tuned.seconds,
    )


def folds(docs: Collection, beir: Beir, folder: Path, given: argparse.Namespace) -> None:
    """Train on each half of the test queries, and measure on the other."""
    halves = split(beir)
    before = values(run(docs, beir, judged(beir)))
    after: dict[tuple[str, str], dict[str, float]] = {key: {} for key in before}
    seconds = 0.0
    for number, half in enumerate(halves):
        tuned, rate = best_of(
            docs,
            from_qrels(beir.queries, {name: beir.qrels[name] for name in half}),
            folder / f"fold{number}",
            replace(RECIPE, epochs=given.epochs, negatives=1, dev=0.2),
            given.rates,
            # Of queries that are documents themselves, these.
            {beir.queries[name]: [name] for name in half},
        )
        seconds += tuned.seconds
        print(
            f"fold {number + 1}: {tuned.examples} pairs of {len(tuned.trained_on)} queries, learning rate {rate:g}, "
            f"step {tuned.kept_step} of {tuned.steps} kept",
            flush=True,
        )
        space = space_of(docs, tuned)
        others = {name: beir.queries[name] for name in halves[1 - number]}
        for key, by_query in values(run(docs, beir, others, space)).items():
            after[key].update(by_query)
        docs.retire(space)
    show(
        f"{beir.name}: halves of the test queries, each measured by a model of the other half",
        before,
        after,
        seconds,
    )


def split(beir: Beir, seed: int = 3) -> tuple[list[str], list[str]]:
    """Return two halves of the judged queries; queries with a document in common are in the same."""
    groups: dict[str, str] = {}

    def first(name: str) -> str:
        while groups.setdefault(name, name) != name:
            name = groups[name]
        return name

    # Queries of gitbugs are documents.
    nodes = {name: name if beir.name.startswith("gitbugs") else f"query {name}" for name in judged(beir)}
    for name, node in nodes.items():
        for document in beir.qrels[name]:
            groups[first(node)] = first(document)
    members: dict[str, list[str]] = {}
    for name in sorted(nodes):
        members.setdefault(first(nodes[name]), []).append(name)
    drawn = sorted(members)
    random.Random(seed).shuffle(drawn)
    halves: tuple[list[str], list[str]] = ([], [])
    for group in drawn:
        min(halves, key=len).extend(members[group])
    return halves


def best_of(
    docs: Collection,
    examples: list[Example],
    folder: Path,
    recipe: Recipe,
    rates: list[float],
    known: Mapping[str, list[str]] | None = None,
) -> tuple[FineTuning, float]:
    """Train at each learning rate, and return the model with the lowest loss of what was left out of the training."""
    found = []
    for rate in rates:
        of_rate = folder.with_name(f"{folder.name}-{rate:g}")
        found.append(
            (finetune(docs, examples, of_rate, replace(recipe, learning_rate=rate), judged=known), rate)
        )
    return min(found, key=lambda one: min(at.dev for at in one[0].losses if at.dev is not None))


def judged(beir: Beir) -> dict[str, str]:
    """Return the judged queries."""
    return {name: beir.queries[name] for name in beir.qrels if name in beir.queries}


WAYS = {"train": train_split, "titles": titles, "folds": folds}


def main() -> None:
    """Measure what is asked for."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--base", required=True)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--only", nargs="+", default=["scifact"])
    arguments.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    arguments.add_argument("--rates", nargs="+", type=float, default=[2e-5])
    arguments.add_argument(
        "--documents", type=int, help="the judged documents and a sample of the others, so many in all"
    )
    arguments.add_argument("--titles", type=int, default=480, help="pairs of titles and texts, at most")
    arguments.add_argument("--epochs", type=float, default=2, help="of the halves of the test queries")
    arguments.add_argument("--language", default="english", help="of the documents")
    given = arguments.parse_args()
    with database() as dsn, Client(dsn) as client, tempfile.TemporaryDirectory() as folder:
        for name in given.only:
            beir = read_beir(given.data / name)
            started = time.perf_counter()
            with collection(client, beir, given) as docs:
                print(
                    f"\n{name}: {docs.count():,} documents embedded in {time.perf_counter() - started:,.0f} s",
                    flush=True,
                )
                for way in given.ways:
                    WAYS[way](docs, beir, Path(folder) / name, given)


if __name__ == "__main__":
    main()
