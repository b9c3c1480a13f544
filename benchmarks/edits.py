"""How many chunks an edit leaves as they were, by format: those need no new vector.

    python benchmarks/edits.py [FOLDER …] [--size 2000] [--edits 20]

Every Markdown and Python file of the folders (by default the standard library) from four chunks up; one paragraph
at a time gets a sentence more, loses half of its words, or a new one comes after it. Told is the share of the chunks,
by their text and headings, that were there before. Beside it, the splitter alone over the whole text.
"""

from __future__ import annotations

import argparse
import os
import random
import re
from collections import Counter
from pathlib import Path

from semantic_text_splitter import CodeSplitter, MarkdownSplitter

from pgseek.chunking import chunk_text
from pgseek.chunking.code import load

ENDINGS = {".md": "markdown", ".py": "python"}
SENTENCES = {
    ".md": "One more sentence about how this is done, and what it is good for.\n",
    ".py": "# One more sentence about how this is done, and what it is good for.\n",
}


def edited(text: str, kind: str, sentence: str, rng: random.Random) -> str:
    """Return the text with one paragraph changed; quotes and fences stay, so that the rest means what it meant."""
    paragraphs = [
        m
        for m in re.finditer(r"(?:[^\n]*\S[^\n]*\n)+", text)
        if len(m[0]) > 80 and not re.search("[\"'`]{3}", m[0])
    ]
    chosen = rng.choice(paragraphs)
    if kind == "more":
        return text[: chosen.end()] + sentence + text[chosen.end() :]
    if kind == "less":
        words = chosen[0].split(" ")
        return text[: chosen.start()] + " ".join(words[: len(words) // 2]) + "\n" + text[chosen.end() :]
    return text[: chosen.end()] + "\n" + sentence * 5 + "\n" + text[chosen.end() :]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folders", nargs="*", default=[Path(os.__file__).parent])
    arguments.add_argument("--size", type=int, default=2000)
    arguments.add_argument("--edits", type=int, default=20)
    given = arguments.parse_args()
    parser = load("python")
    rng = random.Random(3)

    def own(form: str):
        return lambda t: [(c.heading, c.text) for c in chunk_text(t, given.size, 0, form)]

    for ending, form in ENDINGS.items():
        splitters = {"''": own(""), repr(form): own(form)}
        if form == "markdown":
            splitters["MarkdownSplitter alone"] = MarkdownSplitter(given.size).chunks
        elif parser is not None:
            splitters["CodeSplitter alone"] = CodeSplitter(parser.language, given.size).chunks
        files = [f for folder in given.folders for f in sorted(Path(folder).glob(f"*{ending}"))]
        texts = [f.read_text(encoding="utf-8", errors="replace") for f in files]
        texts = [t for t in texts if 4 * given.size < len(t) < 400_000]
        edits = {
            kind: [
                (text, edited(text, kind, SENTENCES[ending], rng))
                for text in texts
                for _ in range(given.edits)
            ]
            for kind in ("more", "less", "new")
        }
        for name, split in splitters.items():
            before = {text: Counter(split(text)) for text in texts}
            if not texts:
                continue
            total = sum(before[t].total() for t in texts) / len(texts)
            shares = []
            for pairs in edits.values():
                kept = [(before[old], Counter(split(new))) for old, new in pairs]
                anew = [(new - old).total() for old, new in kept]
                shares.append(
                    (
                        sum(anew) / len(anew),
                        sum((n & o).total() for o, n in kept) / sum(n.total() for _, n in kept),
                    )
                )
            print(
                f"{ending} {name:<24} {len(texts)} files, {total:6.1f} chunks each; kept "
                + ", ".join(
                    f"{kind} {share:.1%} ({new:.1f} new)"
                    for kind, (new, share) in zip(edits, shares, strict=True)
                )
            )


if __name__ == "__main__":
    main()
