"""Leave one out: one document of a group is hidden, and recommended from the others or not.

    python benchmarks/recommend.py --data DIR [--embedder SPEC] [--tasks 400]

Groups are the paragraphs of xquad-r/en in DIR (their sentences are documents) and the modules of the standard library
(their docstrings), of 4 to 9 documents, without the titles, which would tell the group. A reader with one interest
likes all of a group but the hidden one; one with two interests also likes another group. Hit rate and reciprocal rank
are of the hidden document among ten, against what is nearest to the last liked one, and against chance.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from common import database

from pgseek import Client, Collection
from pgseek.demo.corpus import documents as docstrings
from pgseek.evaluation import permutation_p, read_beir

K = 10
GROUP_SIZES = range(4, 10)
WAYS: tuple[tuple[str, dict[str, object]], ...] = (
    ("rocchio", {}),
    ("rocchio, diversity 0.3", {"diversity": 0.3}),
    ("best_score", {"strategy": "best_score"}),
    ("best_score, diversity 0.3", {"strategy": "best_score", "diversity": 0.3}),
)


@dataclass(frozen=True)
class Task:
    """What a reader likes, in order, and what is hidden from it."""

    liked: tuple[str, ...]
    hidden: str


def paragraphs(data: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (id, group, text) of the sentences; an id is language-article-paragraph-sentence."""
    for one in read_beir(data / "xquad-r" / "en").documents():
        yield one.id, one.id.rpartition("-")[0], one.text


def modules() -> Iterator[tuple[str, str, str]]:
    """Yield (id, module, docstring), equal docstrings once."""
    seen = set()
    for one in docstrings():
        if one["text"] not in seen:
            seen.add(one["text"])
            yield one["id"], one["metadata"]["module"], one["text"]


def tasks(groups: Sequence[Sequence[str]], interests: int, count: int, seed: int = 11) -> list[Task]:
    """Hide one document for each task."""
    chosen = random.Random(seed)
    made = []
    for _ in range(count):
        picked = chosen.sample(range(len(groups)), interests)
        hidden = chosen.choice(list(groups[picked[0]]))
        liked = [name for group in picked for name in groups[group] if name != hidden]
        chosen.shuffle(liked)
        made.append(Task(tuple(liked), hidden))
    return made


def reciprocal(found: Sequence[str], hidden: str) -> float:
    """Return 1 / rank of the hidden document, 0 where it is not among those found."""
    return 1 / (found.index(hidden) + 1) if hidden in found else 0.0


def run(docs: Collection, asked: Sequence[Task], names: Sequence[str]) -> None:
    """Print the table of one kind of reader."""
    chosen = random.Random(12)
    values: dict[str, list[float]] = {}
    times: dict[str, float] = {}
    values["chance"] = [reciprocal(chosen.sample(names, K), task.hidden) for task in asked]
    values["nearest to the last liked"] = []
    for way, options in (("nearest to the last liked", None), *WAYS):
        taken = []
        values[way] = []
        for task in asked:
            started = time.perf_counter()
            if options is None:
                hits = docs.recommend(task.liked[-1], exclude=task.liked, k=K)
            else:
                hits = docs.recommend(task.liked, k=K, **options)
            taken.append(time.perf_counter() - started)
            values[way].append(reciprocal([hit.id for hit in hits], task.hidden))
        times[way] = median(taken) * 1000
    base = values["nearest to the last liked"]
    print("| | hit rate@10 | RR@10 | p (RR, against nearest) | median ms |\n|---|---|---|---|---|")
    for way, of in values.items():
        hit_rate = fmean(value > 0 for value in of)
        p = "" if of is base else f"{permutation_p([a - b for a, b in zip(of, base, strict=True)]):.4f}"
        print(f"| {way} | {hit_rate:.3f} | {fmean(of):.3f} | {p} | {times.get(way, 0):.1f} |")


def main() -> None:
    """Measure on both corpora."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--embedder", default="wordllama")
    arguments.add_argument("--tasks", type=int, default=400)
    given = arguments.parse_args()
    with database() as dsn, Client(dsn) as client:
        for name, rows in (("paragraphs", list(paragraphs(given.data))), ("modules", list(modules()))):
            docs = client.create_collection(name, embedder=given.embedder)
            docs.ingest({"id": one, "text": text} for one, _, text in rows)
            groups = defaultdict(list)
            for one, group, _ in rows:
                groups[group].append(one)
            usable = [of for _, of in sorted(groups.items()) if len(of) in GROUP_SIZES]
            for interests in (1, 2):
                print(
                    f"\n{name}: {len(rows):,} documents, {len(usable)} groups, {interests} interest(s), {given.tasks} tasks"
                )
                run(docs, tasks(usable, interests, given.tasks), [one for one, _, _ in rows])


if __name__ == "__main__":
    main()
