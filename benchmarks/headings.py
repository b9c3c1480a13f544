"""What headings read before chunks, and chunks by format, are worth: sentences that link to a section as queries.

    python benchmarks/headings.py FOLDER [--embedder wordllama] [--size 2000] [--queries 1500]

The folder holds Markdown pages that link to each other's sections (the documentation of Node.js does:
doc/api of its repository). A query is a sentence with a link in it, without the marks; what it asks for is the section
that the link leads to. Chunks that hold the sentence itself are left out. Told are the mean reciprocal rank of
the first chunk of that section among ten, and how often there is one.
"""

from __future__ import annotations

import argparse
import random
import re
from pathlib import Path

from common import database

from pgseek import Client
from pgseek.chunking.markdown import headings

LINK = re.compile(r"\[([^\[\]]+)\]\[([^\[\]]*)\]")
DEFINITION = re.compile(r"^\[([^\[\]]+)\]: (\S*)#(\S+)$", re.MULTILINE)
MODES = {"dense": {"alpha": 1.0}, "bm25": {"alpha": 0.0}, "hybrid": {}}


def slug(heading: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower()))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--embedder", default="wordllama")
    arguments.add_argument("--size", type=int, default=2000)
    arguments.add_argument("--queries", type=int, default=1500)
    given = arguments.parse_args()
    pages = {path.name: path.read_text(encoding="utf-8") for path in sorted(given.folder.glob("*.md"))}
    sections = {}
    for name, text in pages.items():
        found = headings(text)
        for n, heading in enumerate(found):
            end = found[n + 1].start if n + 1 < len(found) else len(text)
            sections.setdefault((name, slug(heading.text)), (heading.start, end))
    queries = list(questions(pages, sections))
    random.Random(3).shuffle(queries)
    queries = queries[: given.queries]
    print(
        f"{len(pages)} pages, {len(sections)} sections, {len(queries)} queries, {given.embedder}, {given.size} characters"
    )
    for label, form, context in (
        ("plain text", "", False),
        ("markdown", "markdown", False),
        ("markdown with headings", "markdown", True),
    ):
        with database() as dsn, Client(dsn) as client:
            docs = client.create_collection(
                "docs", embedder=given.embedder, chunk_size=given.size, heading_context=context
            )
            report = docs.ingest(
                {"id": n, "title": title(t), "text": t, "format": form} for n, t in pages.items()
            )
            for mode, options in MODES.items():
                ranks = [
                    rank(docs, query, source, target, sections[target], options)
                    for query, source, target in queries
                ]
                found = [1 / r for r in ranks if r is not None]
                print(
                    f"{label:<24} {report.chunks:6,} chunks  {mode:<7} RR@10 {sum(found) / len(ranks):.3f}"
                    f"  found {len(found) / len(ranks):.3f}",
                    flush=True,
                )


def title(text: str) -> str:
    """Return a page's first heading."""
    found = headings(text)
    return found[0].text if found else ""


def questions(pages, sections):
    """Yield sentences with their page and the section they lead to."""
    for name, text in pages.items():
        targets = {label: (page or name, anchor) for label, page, anchor in DEFINITION.findall(text)}
        for line in re.split(r"\n\s*\n", text):
            if line.startswith(("#", "[", "|", "<", "`" * 3, "*", ">", "    ")):
                continue
            for sentence in re.split(r"(?<=[.:])\s+", " ".join(line.split())):
                links = LINK.findall(sentence)
                if len(links) != 1 or not 6 <= len(sentence.split()) <= 40:
                    continue
                target = targets.get(links[0][1] or links[0][0])
                if target in sections:
                    yield LINK.sub(r"\1", sentence).replace("`", ""), (name, sentence), target


def rank(docs, query, source, target, section, options):
    """Return the place of the first chunk of the section among ten, None if there is none."""
    place = 0
    hits = docs.search(query, k=14, snippets=False, syntax="plain", typos=False, **options)
    for hit in hits:
        if hit.id == source[0] and source[1] in " ".join(hit.text.split()):
            continue
        place += 1
        if place > 10:
            return None
        if hit.id == target[0] and hit.char_start < section[1] and hit.char_end > section[0]:
            return place
    return None


if __name__ == "__main__":
    main()
