"""Chunking libraries side by side: speed, offsets that quote the text, and borders that make sense.

    pip install chonkie
    python benchmarks/chunkers.py [--megabytes 4] [--size 2000]

Text: the docstrings of the standard library, joined into long documents. A border is clean when the
chunk ends with a sentence or a paragraph.
"""

from __future__ import annotations

import argparse
import time

import chonkie

from pgseek.chunking import chunk_text
from pgseek.demo.corpus import documents


def corpus(megabytes: float) -> list[str]:
    joined, made = [], []
    size = 0
    for document in documents():
        joined.append(document["text"])
        size += len(document["text"])
        if sum(map(len, joined)) > 50_000:
            made.append("\n\n".join(joined))
            joined = []
        if size > megabytes * 1e6:
            break
    return made


def measure(name: str, split, texts: list[str]) -> None:
    started = time.perf_counter()
    made = [(text, split(text)) for text in texts]
    seconds = time.perf_counter() - started
    chunks = [(text, *chunk) for text, parts in made for chunk in parts]
    exact = sum(text[start:end] == part for text, start, end, part in chunks) / len(chunks)
    clean = sum(
        part.rstrip()[-1:] in ".!?:)]`" or text[end : end + 2] == "\n\n" for text, _, end, part in chunks
    )
    length = sum(len(part) for *_, part in chunks) / len(chunks)
    print(
        f"{name:<38} {sum(map(len, texts)) / 1e6 / seconds:>8.1f} MB/s {len(chunks):>7} chunks "
        f"mean {length:>6.0f}  offsets exact {exact:>6.1%}  clean ends {clean / len(chunks):>6.1%}"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--megabytes", type=float, default=4)
    arguments.add_argument("--size", type=int, default=2000)
    given = arguments.parse_args()
    texts = corpus(given.megabytes)
    print(
        f"{len(texts)} documents, {sum(map(len, texts)) / 1e6:.1f} MB, at most {given.size} characters a chunk"
    )
    own = "semantic-text-splitter"
    measure(
        own,
        lambda t: [(c.char_start, c.char_end, c.text) for c in chunk_text(t, given.size)],
        texts,
    )
    for chunker in (
        chonkie.RecursiveChunker(tokenizer="character", chunk_size=given.size),
        chonkie.SentenceChunker(tokenizer="character", chunk_size=given.size, chunk_overlap=0),
    ):
        measure(
            f"chonkie {type(chunker).__name__}",
            lambda t, c=chunker: [(x.start_index, x.end_index, x.text) for x in c.chunk(t)],
            texts,
        )


if __name__ == "__main__":
    main()
