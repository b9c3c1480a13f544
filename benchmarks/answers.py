"""Answers kept by their questions: how many repeated questions are answered, and how many others are answered wrongly.

    python benchmarks/answers.py xquad-r/en gitbugs-hadoop --duplicates gitbugs-hadoop [--embedder wordllama]
    python benchmarks/answers.py --rows 100000

Of a BEIR folder every second question is kept. Asked are the kept ones in other words (rules, see `reworded`), which should be
answered by their own; the other half, which should not be answered: in xquad-r they are about the same paragraphs; and the
kept ones with another number in them, which should not be answered either. With ``--duplicates`` the questions of that folder
are titles of reports: asked are those whose qrels link a kept one. The threshold is calibrated on a third of what is asked;
the figures are of the rest.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from pathlib import Path

import numpy as np
from common import database

from pgseek import Client
from pgseek.analysis import calibrate_threshold
from pgseek.db.connection import connect
from pgseek.evaluation import read_beir


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("folders", nargs="*", type=Path)
    arguments.add_argument("--duplicates", nargs="*", default=[])
    arguments.add_argument("--embedder", default="wordllama")
    arguments.add_argument("--precision", type=float, default=0.95)
    arguments.add_argument("--rows", type=int)
    given = arguments.parse_args()
    if given.rows:
        timed(given.rows)
    for folder in given.folders:
        measured(folder, folder.name in given.duplicates, given.embedder, given.precision)


def reworded(question: str, draw: random.Random) -> str:
    """Return the question as somebody else would type it."""
    bare = question.rstrip("?!. ")
    low = bare[0].lower() + bare[1:]
    first = low.split(" ", 1)[0]
    asked = {
        "what",
        "who",
        "when",
        "where",
        "why",
        "how",
        "which",
        "was",
        "wer",
        "wann",
        "wo",
        "wie",
        "warum",
        "welche",
    }
    how = draw.randrange(4 if first in asked else 3)
    if how == 0:
        return question.lower().rstrip("?") + " please"
    if how == 1:
        # A slip of the finger in a long word.
        words = question.split(" ")
        at = max(range(len(words)), key=lambda n: (words[n].islower(), len(words[n])))
        word, place = words[at], len(words[at]) // 2
        words[at] = (
            word[: place - 1] + word[place] + word[place - 1] + word[place + 1 :] if len(word) > 3 else word
        )
        return " ".join(words)
    if how == 2:
        left = [
            word
            for word in bare.split(" ")
            if word.lower() not in {"the", "a", "an", "did", "does", "do", "der", "die", "das"}
        ]
        return " ".join(left)
    return f"I would like to know: {low}"


def renumbered(question: str) -> str | None:
    """Return the question with another number in it; None if it has none."""
    found = re.search(r"\d+", question)
    return (
        None
        if found is None
        else question[: found.start()] + str(int(found[0]) + 1) + question[found.end() :]
    )


def measured(folder: Path, linked: bool, embedder: str, target: float) -> None:
    beir = read_beir(folder)
    draw = random.Random(1)
    if linked:
        texts = {one.id: one.title for one in beir.documents() if one.title.strip()}
        ids = sorted(texts, key=lambda one: (one in beir.qrels, one))
        partner = {
            a: b
            for a, r in beir.qrels.items()
            for b, score in r.items()
            if score > 0 and a in texts and b in texts
        }
        asked_links = {max(a, b) for a, b in partner.items()}
        kept = [one for one in ids if one not in asked_links][::2] + [min(a, b) for a, b in partner.items()]
        kept = sorted(set(kept) - asked_links)
        same = [(texts[a], texts[partner[a]]) for a in sorted(asked_links) if partner[a] in set(kept)]
        other = [texts[one] for one in ids if one not in set(kept) and one not in asked_links]
    else:
        texts = {name: beir.queries[name] for name in beir.queries if name in beir.qrels}
        ids = sorted(texts)
        kept = ids[::2]
        same = [(reworded(texts[one], draw), texts[one]) for one in kept]
        other = [texts[one] for one in ids[1::2]]
    held = {texts[one] for one in kept}
    other = [text for text in dict.fromkeys(other) if text not in held][:600]
    numbers = [(made, text) for text in sorted(held) if (made := renumbered(text)) and made not in held][:300]
    with database() as dsn, Client(dsn) as client:
        docs = client.create_collection("docs", embedder=embedder)
        for text in held:
            docs.put_answer(text, text)
        asked = [
            *((q, own, "same") for q, own in same),
            *((q, None, "other") for q in other),
            *((q, None, "number") for q, _ in numbers),
        ]
        draw.shuffle(asked)
        # The nearest, whoever it is: what a threshold judges.
        nearest = {q: docs.find_answer(q, min_similarity=-1, guard=False) for q, _, _ in asked}
        third = len(asked) // 3
        learned = [(q, own) for q, own, kind in asked[:third] if kind != "number" and not nearest[q].exact]
        made = calibrate_threshold(
            [nearest[q].similarity for q, _ in learned],
            [own is not None and nearest[q].question == own for q, own in learned],
            "answer_cache",
            target_precision=target,
        )
        print(
            f"{folder.name}, {embedder}: {len(held):,} questions kept, {len(same)} asked again, {len(other)} others, {len(numbers)} with another number"
        )
        if made.target is None:
            print(f"  no threshold reaches a precision of {target:g} on the third that it is calibrated with")
        chosen = [] if made.target is None else [("calibrated", made.target.threshold)]
        for label, least in (*chosen, ("fixed", 0.95)):
            for guard in (True, False):
                counts = {kind: [0, 0, 0] for kind in ("same", "other", "number")}
                for q, own, kind in asked[third:]:
                    found = docs.find_answer(q, min_similarity=least, guard=guard)
                    counts[kind][0] += 1
                    counts[kind][1] += found is not None and found.question == own
                    counts[kind][2] += found is not None and found.question != own
                (n, hits, swapped), (m, _, wrong), (k, _, renamed) = counts.values()
                number = f", another number {renamed / k:.3f}" if k else ""
                print(
                    f"  {label:<10} {least:.3f} {'guard' if guard else 'none ':<6} hit rate {hits / max(1, n):.3f}  false hits: "
                    f"asked again {swapped / max(1, n):.3f}, others {wrong / max(1, m):.3f}{number}",
                    flush=True,
                )


def timed(rows: int) -> None:
    """Time look-ups among many answers: the same question, and the nearest."""
    rng = np.random.default_rng(1)
    for dimensions in (256, 1536):
        with database() as dsn, Client(dsn) as client, connect(dsn) as connection:
            client.create_collection("docs", embedder="wordllama")
            connection.execute("UPDATE pgseek.embedding_spaces SET dimensions = %s", [dimensions])
            connection.execute(
                "INSERT INTO pgseek.answers (collection_id, space_id, scope, key, question, answer, embedding, sketch, documents,"
                " hashes, stored_at) SELECT 1, 1, '', pgseek.question_key('question ' || n), 'question ' || n, repeat('some words ', 60),"
                " v, binary_quantize(v), '{}', '{}', now() FROM (SELECT n, (SELECT array_agg(random() - 0.5)"
                " FROM generate_series(1, %s) WHERE n > 0)::vector AS v FROM generate_series(1, %s) AS n) AS made",
                [dimensions, rows],
            )
            connection.commit()
            connection.autocommit = True
            for state in ("as written", "after VACUUM"):
                if state == "after VACUUM":
                    connection.execute("VACUUM ANALYZE pgseek.answers")
                times: dict[str, list[float]] = {"the same": [], "the nearest": []}
                for n in range(20):
                    vector = str(rng.normal(size=dimensions).round(4).tolist())
                    for label, query in (("the same", f"Question {n + 1}?"), ("the nearest", f"unknown {n}")):
                        began = time.perf_counter()
                        connection.execute(
                            "SELECT * FROM pgseek.find_answer('docs', %s, %s::vector, 0.9, space_id => 1)",
                            [query, vector],
                        ).fetchall()
                        times[label].append(time.perf_counter() - began)
                told = ", ".join(
                    f"{label} {np.median(seconds) * 1000:.1f} ms" for label, seconds in times.items()
                )
                print(f"{rows:,} answers, {dimensions} dimensions, {state}: {told}", flush=True)


if __name__ == "__main__":
    main()
