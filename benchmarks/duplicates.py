"""Duplicates: reports that were linked as duplicates, found by thresholds; and copies told from near misses by letters.

    python benchmarks/duplicates.py gitbugs-hadoop [--embedder wordllama]
    python benchmarks/duplicates.py --copies DIR… [--embedder wordllama]
    python benchmarks/duplicates.py --rows 20000

The first takes a BEIR folder whose qrels are duplicate links. Thresholds are chosen on four fifths of the pairs and counted
on the last, five times; what is not linked counts as different, though some of it is not. The second edits real texts
(lower case without commas; 2 % of the letters wrong; sentences left out; a frame of other text), and compares each copy
with its original, and each text with its five nearest others: AUC, and the share of others that are let through where 95 %
of the copies are. The standard library's docstrings are among them: they differ by a word. The third times the walk.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from common import GivenVectors, corpus, database

from pgseek import Client, create_embedder
from pgseek.analysis import calibrate_threshold, find_duplicates, overlap, sampled_pairs
from pgseek.analysis.overlap import trigrams
from pgseek.db.connection import connect
from pgseek.demo.corpus import documents as docstrings
from pgseek.evaluation import read_beir

WORDS = re.compile(r"\w+")
FOLDS = 5


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("folders", nargs="*", type=Path)
    arguments.add_argument("--embedder", default="wordllama")
    arguments.add_argument("--copies", action="store_true")
    arguments.add_argument("--rows", type=int)
    given = arguments.parse_args()
    if given.rows:
        timed(given.rows)
    for folder in given.folders:
        if given.copies:
            texts = [f"{one.title}. {one.text}" for one in read_beir(folder).documents()]
            copies(folder.name, random.Random(1).sample(texts, min(1500, len(texts))), given.embedder)
        else:
            linked(folder, given.embedder)
    if given.copies:
        copies("docstrings", [f"{one['title']}. {one['text']}" for one in docstrings()], given.embedder)


def linked(folder: Path, embedder: str) -> None:
    """Find the duplicates that people linked."""
    beir = read_beir(folder)
    links = {
        tuple(sorted((a, b)))
        for a, relevant in beir.qrels.items()
        for b, score in relevant.items()
        if score > 0
    }
    documents = list(beir.documents())
    texts = {one.id: f"{one.title}\n{one.text}" for one in documents}
    with database() as dsn, Client(dsn) as client:
        docs = client.create_collection("docs", embedder=embedder, chunk_size=100_000)
        docs.ingest(documents)
        found = sampled_pairs(docs, links, documents=len(documents), neighbours=50)
        titles = {one.id: one.title for one in documents}
        with connect(dsn) as connection:
            apart = connection.execute(
                "SELECT pgseek.tell_apart(a, b) IS NOT NULL AS apart FROM unnest(%s::text[], %s::text[])"
                " WITH ORDINALITY AS u (a, b, n) ORDER BY n",
                [[titles[a] for a, _ in found.pairs], [titles[b] for _, b in found.pairs]],
            ).fetchall()
    values, same = np.array(found.similarities), np.array(found.same)
    alike = ~np.array([row["apart"] for row in apart])
    letters = np.array([overlap(texts[a], texts[b]) for a, b in found.pairs])
    print(
        f"{folder.name}, {embedder}: {len(documents):,} documents, {same.sum()} linked pairs, {(~same).sum():,} near ones that are not"
    )
    print(
        f"  cosine, median: linked {np.median(values[same]):.3f}, near {np.median(values[~same]):.3f}; "
        f"overlap: linked {np.median(letters[same]):.3f}, near {np.median(letters[~same]):.3f}"
    )
    for a, b in [found.pairs[n] for n in np.argsort(np.where(same, 0, -values))[:5]]:
        print(f"  nearest that are not linked: {texts[a].splitlines()[0]!r} and {texts[b].splitlines()[0]!r}")
    fold = np.random.default_rng(1).permutation(len(values)) % FOLDS
    counted("fixed .95", same, values >= 0.95)
    counted("fixed .95, overlap .9", same, (values >= 0.95) & (letters >= 0.9))
    counted("fixed .95, titles not told apart", same, (values >= 0.95) & alike)
    counted("fixed .95, overlap .9, titles", same, (values >= 0.95) & (letters >= 0.9) & alike)
    for target in (0.25, 0.5, 0.75):
        reached = np.zeros(len(values), bool)
        chosen = []
        for number in range(FOLDS):
            out = fold == number
            made = calibrate_threshold(values[~out], same[~out], target_precision=target)
            chosen.append(made.target.threshold if made.target else math.inf)
            reached[out] = values[out] >= chosen[-1]
        counted(f"precision {target:g}, at {np.mean(chosen):.3f}", same, reached)
        counted("  and titles not told apart", same, reached & alike)
    for label, overlaps in (("best F1", (0.0,)), ("best F1 with overlap", np.arange(0, 1, 0.05))):
        reached = np.zeros(len(values), bool)
        chosen = []
        for number in range(FOLDS):
            out = fold == number
            chosen.append(best(values[~out], letters[~out], same[~out], overlaps))
            reached[out] = (values[out] >= chosen[-1][0]) & (letters[out] >= chosen[-1][1])
        at, least = np.mean(chosen, axis=0)
        counted(f"{label}, at {at:.3f}" + (f" and {least:.2f}" if len(overlaps) > 1 else ""), same, reached)
        counted("  and titles not told apart", same, reached & alike)
    every = calibrate_threshold(values, same)
    choice = every.least_overlap
    print(
        f"  least overlap of the distributions at {choice.threshold:.3f}: precision {choice.precision:.3f}, recall {choice.recall:.3f}"
    )


def best(
    values: np.ndarray, letters: np.ndarray, same: np.ndarray, overlaps: Sequence[float]
) -> tuple[float, float]:
    """Return the threshold, and the overlap asked for beside it, with the highest F1."""
    found = (-1.0, 1.0, 0.0)
    for least in overlaps:
        kept = np.flatnonzero(letters >= least)
        kept = kept[np.argsort(-values[kept], kind="stable")]
        hits = np.cumsum(same[kept])
        score = 2 * hits / (np.arange(1, len(kept) + 1) + same.sum())
        at = int(np.argmax(score))
        found = max(found, (float(score[at]), float(values[kept[at]]), float(least)))
    return found[1], found[2]


def counted(label: str, same: np.ndarray, reached: np.ndarray) -> None:
    """Print the precision and recall of what was found."""
    hits, wrong = int((reached & same).sum()), int((reached & ~same).sum())
    precision = hits / (hits + wrong) if hits + wrong else math.nan
    print(
        f"  {label:<38} precision {precision:.3f}  recall {hits / same.sum():.3f}  ({hits} of {same.sum()}, {wrong} others)"
    )


def edited(text: str, how: int, draw: random.Random) -> str:
    """Return a copy as copies are."""
    if how == 0:
        return re.sub(r"\s+", " ", text).lower().replace(",", "")
    if how == 1:
        letters = "abcdefghijklmnopqrstuvwxyz"
        return "".join(
            draw.choice(letters) if one.isalpha() and draw.random() < 0.02 else one for one in text
        )
    if how == 2:
        sentences = re.split(r"(?<=[.!?])\s+", text)
        return " ".join([one for one in sentences if draw.random() > 0.15] or sentences)
    return f"Posted by admin on Monday. Read more below. {text} Share this. All rights reserved."


def shingles(text: str) -> set[tuple[str, ...]]:
    words = WORDS.findall(text.lower())
    return {tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))}


def copies(name: str, texts: list[str], embedder: str) -> None:
    """Tell copies from the nearest other texts, by several measures."""
    draw = random.Random(1)
    model = create_embedder(embedder)
    texts = sorted({text[:3000] for text in texts if len(text) > 60})
    vectors = unit(model.embed_documents(texts))
    picked = draw.sample(range(len(texts)), min(250, len(texts)))
    made = [(at, edited(texts[at], how, draw)) for at in picked for how in range(4)]
    of_copies = unit(model.embed_documents([text for _, text in made]))
    near = vectors[picked] @ vectors.T
    near[range(len(picked)), picked] = -1
    others = [(at, int(other)) for row, at in enumerate(picked) for other in np.argsort(-near[row])[:5]]
    frequency = Counter(word for text in texts for word in set(WORDS.findall(text.lower())))
    rare = {word: math.log(1 + len(texts) / count) for word, count in frequency.items()}

    def weight(words: set[str]) -> float:
        return sum(rare.get(word, math.log(1 + len(texts))) for word in words)

    def jaccard(of: Callable[[str], set]) -> Callable[[str, str], float]:
        return lambda a, b: len(of(a) & of(b)) / max(1, len(of(a) | of(b)))

    def contained(of: Callable[[str], set]) -> Callable[[str, str], float]:
        return lambda a, b: len(of(a) & of(b)) / max(1, min(len(of(a)), len(of(b))))

    def bag(text: str) -> set[str]:
        return set(WORDS.findall(text.lower()))

    measures: dict[str, Callable[[str, str], float]] = {
        "trigrams, containment": overlap,
        "trigrams, Jaccard": jaccard(trigrams),
        "3 words, containment": contained(shingles),
        "3 words, Jaccard (MinHash)": jaccard(shingles),
        "words by idf, Jaccard": lambda a, b: weight(bag(a) & bag(b)) / max(1e-9, weight(bag(a) | bag(b))),
        "words by idf, containment": lambda a, b: (
            weight(bag(a) & bag(b)) / max(1e-9, min(weight(bag(a)), weight(bag(b))))
        ),
    }
    ranks = (
        of_copies @ vectors.T
        > np.array([of_copies[n] @ vectors[at] for n, (at, _) in enumerate(made)])[:, None] + 1e-6
    ).sum(1)
    print(
        f"{name}, {embedder}: {len(texts):,} texts, {len(made):,} copies; the original is among the 10 nearest of {np.mean(ranks < 10):.4f}"
    )
    cosines = [float(of_copies[n] @ vectors[at]) for n, (at, _) in enumerate(made)]
    rows = {"cosine": (cosines, [float(vectors[a] @ vectors[b]) for a, b in others])}
    for label, measure in measures.items():
        rows[label] = (
            [measure(texts[at], text) for at, text in made],
            [measure(texts[a], texts[b]) for a, b in others],
        )
    # What has the cosine of a copy already.
    alike = np.array(rows["cosine"][1]) >= np.quantile(cosines, 0.05)
    for label, (yes, no) in rows.items():
        at = np.quantile(yes, 0.05)
        area = (
            np.mean(np.array(yes)[:, None] > np.array(no))
            + np.mean(np.array(yes)[:, None] == np.array(no)) / 2
        )
        hard = np.mean(np.array(no)[alike] >= at) if alike.any() else math.nan
        print(
            f"  {label:<28} AUC {area:.4f}  let through {np.mean(np.array(no) >= at):.4f}, of {alike.sum()} as near as copies {hard:.3f}  (from {at:.3f})"
        )


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def timed(rows: int) -> None:
    """Time the walk through an index over clustered vectors, and a second run, which has nothing to do."""
    texts, vectors = corpus(rows, 256)
    # One in fifty is a copy of another, nearly.
    for n in range(0, rows - 1, 50):
        vectors[n + 1] = vectors[n] + 0.005 * vectors[(n + 7) % rows]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with database() as dsn, Client(dsn) as client:
        docs = client.create_collection("docs", embedder=GivenVectors(vectors))
        docs.ingest({"id": str(n), "text": text} for n, text in enumerate(texts))
        for label in ("first run", "second run"):
            began = time.perf_counter()
            found = find_duplicates(docs, min_similarity=0.99, min_overlap=0)
            seconds = time.perf_counter() - began
            print(
                f"{rows:,} rows, {label}: {seconds:.1f} s, {found.looked_at:,} looked at, {found.pairs:,} pairs, {len(found.groups):,} groups"
            )
        expected = {frozenset((str(n), str(n + 1))) for n in range(0, rows - 1, 50)}
        grouped = {
            frozenset(p)
            for g in found.groups
            for p in itertools.combinations([one.id for one in g.members], 2)
        }
        print(f"  of {len(expected):,} made pairs {len(expected & grouped):,} are in one group")


if __name__ == "__main__":
    main()
