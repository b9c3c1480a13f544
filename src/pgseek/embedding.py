"""Embedding the chunks of a batch: equal texts once, known ones from the cache, the rest in the background.

`begin` chunks documents and sets off what has to be embedded; `finish` waits for it and keeps it in the
cache, whatever becomes of the documents. Between the two another batch is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import numpy as np

from pgseek import cache
from pgseek.chunking import chunk_text, cut_text, divide
from pgseek.embedders.base import Embedder, Vectors, usable
from pgseek.embedders.limits import Spending
from pgseek.embedders.remote import RemoteEmbedder
from pgseek.errors import PgseekError
from pgseek.prepare import Prepared
from pgseek.steps import Script, Underway, sleep, start_embedding, wait_at_most
from pgseek.types import LONG_TEXTS, CachePolicy, Chunk, CollectionInfo, Rejection
from pgseek.writing import EmbeddedChunk

T = TypeVar("T")

# How long a claim on a text lasts: a worker that died, or was interrupted, holds others up for no longer.
CLAIM_SECONDS = 20.0
# How often a claim is made to last again, while its text is being embedded.
RENEW_SECONDS = 6.0
# Between two looks at what another worker is embedding, growing from the first to the second.
SHORTEST_WAIT, LONGEST_WAIT = 0.05, 1.0
# Where tokens cannot be counted: words, numbers, and every other sign or letter by itself.
PIECES = re.compile(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]")
ESTIMATE_MARGIN = 1.15


@dataclass(frozen=True, slots=True)
class Embedding:
    """What stays the same while documents of one collection are embedded."""

    info: CollectionInfo
    embedder: Embedder
    policy: CachePolicy
    spending: Spending

    @property
    def caching(self) -> bool:
        """Whether document vectors are cached: not where making one costs less than keeping it."""
        return bool(getattr(self.embedder, "cache_documents", True))


@dataclass(slots=True)
class Pending:
    """A batch whose chunks are being embedded. Texts are known by their SHA-256."""

    documents: Sequence[Prepared]
    chunks: dict[UUID, list[Chunk]] = field(default_factory=dict)
    keys: dict[UUID, list[bytes]] = field(default_factory=dict)
    texts: dict[bytes, str] = field(default_factory=dict)
    # The texts that a chunk is embedded in, where the model does not read it whole.
    parts: dict[bytes, list[bytes]] = field(default_factory=dict)
    vectors: dict[bytes, Vectors] = field(default_factory=dict)
    # Why a text has no vector, or a document no chunks.
    refused: dict[bytes, str] = field(default_factory=dict)
    unfit: dict[UUID, str] = field(default_factory=dict)
    asked: list[bytes] = field(default_factory=list)
    underway: Underway | None = None
    # The batches next to it, while they are under way, too.
    before: Pending | None = None
    after: Pending | None = None
    embedded: int = 0
    cached: int = 0


def begin(run: Embedding, documents: Sequence[Prepared], before: Pending | None = None) -> Script[Pending]:
    """Chunk documents and set off the embedding of what neither the cache nor ``before`` has."""
    pending = chunked(run, documents)
    pending.before = before
    if before is not None:
        before.after = pending
    if run.caching and pending.texts:
        pending.vectors = yield from cache.look_up(run.info.identity_hash, "document", list(pending.texts))
        pending.cached = len(pending.vectors)
    under_way = set(before.texts) if before is not None else set()
    missing = [key for key in pending.texts if key not in pending.vectors and key not in under_way]
    yield from _ask(run, pending, missing)
    return pending


def finish(run: Embedding, pending: Pending) -> Script[None]:
    """Wait until every text of the batch has its vector, or a reason why it has none.

    Raises:
        PgseekError: the embedder failed; what it had answered is in the cache.
    """
    yield from keep(run, pending, strict=True)
    if pending.before is not None:
        for key in pending.texts.keys() - pending.vectors.keys():
            if key in pending.before.vectors:
                pending.vectors[key] = pending.before.vectors[key]
            elif key in pending.before.refused:
                pending.refused[key] = pending.before.refused[key]
        pending.before = None
    pause = SHORTEST_WAIT
    while missing := [k for k in pending.texts if k not in pending.vectors and k not in pending.refused]:
        # Another worker had claimed these.
        if run.caching:
            found = yield from cache.look_up(run.info.identity_hash, "document", missing)
            pending.vectors.update(found)
            pending.cached += len(found)
            missing = [key for key in missing if key not in found]
        yield from _ask(run, pending, missing)
        yield from keep(run, pending, strict=True)
        if missing and not pending.asked:
            yield from sleep(pause)
            pause = min(pause * 1.5, LONGEST_WAIT)


def _ask(run: Embedding, pending: Pending, missing: Sequence[bytes]) -> Script[None]:
    pending.asked = list(missing)
    if run.caching and missing:
        ours = yield from cache.claim(run.info.identity_hash, missing, CLAIM_SECONDS)
        pending.asked = [key for key in missing if key in ours]
    if pending.asked:
        texts = [pending.texts[key] for key in pending.asked]
        pending.underway = yield from start_embedding(run.embedder, texts, run.spending)


def keep(run: Embedding, pending: Pending, *, strict: bool) -> Script[None]:
    """Take what the embedder answered into the batch and the cache; raise its error if ``strict``."""
    if pending.underway is None:
        return
    while (outcome := (yield from wait_at_most(pending.underway, RENEW_SECONDS))) is None:
        if run.caching:
            # Those of the batch that comes after it, too: nobody waits for that one yet.
            ours = [*pending.asked, *(pending.after.asked if pending.after is not None else ())]
            yield from cache.renew(run.info.identity_hash, ours, CLAIM_SECONDS)
    pending.underway = None
    fresh: dict[bytes, Vectors] = {}
    for place, key in enumerate(pending.asked):
        if place in outcome.refused:
            pending.refused[key] = f"{run.embedder.model_id} refused its text: {outcome.refused[place]}"
        elif place not in outcome.missing:
            pending.embedded += 1
            if usable(outcome.vectors[place]):
                fresh[key] = outcome.vectors[place]
            else:
                reason = f"{run.embedder.model_id} gave no usable vector (zero, NaN or infinite) for its text"
                pending.refused[key] = reason
    pending.vectors.update(fresh)
    if run.caching:
        yield from cache.store(run.info.identity_hash, "document", fresh, run.policy.document_days)
        yield from cache.release(run.info.identity_hash, pending.asked)
    if strict and outcome.error is not None:
        raise outcome.error


def guarded(run: Embedding, flight: Sequence[Pending], script: Script[T]) -> Script[T]:
    """Run a script that has batches under way.

    If it fails, no more is asked for, and what is on its way, and paid for, goes into the cache.
    """
    try:
        return (yield from script)
    except Exception:
        for pending in flight:
            if pending.underway is not None:
                pending.underway.stop.set()
            with contextlib.suppress(PgseekError):
                yield from keep(run, pending, strict=False)
        raise


def results(pending: Pending) -> tuple[dict[UUID, list[EmbeddedChunk]], list[Rejection]]:
    """Return the chunks of each document with their vectors, and the documents that have none."""
    embedded: dict[UUID, list[EmbeddedChunk]] = {}
    rejected: dict[UUID, str] = dict(pending.unfit)
    for document in pending.documents:
        i = document.document_id
        if i in rejected:
            continue
        needed = [part for key in pending.keys[i] for part in pending.parts.get(key, [key])]
        bad = next((key for key in needed if key not in pending.vectors), None)
        if not needed:
            rejected[i] = "the document has no text"
        elif bad is not None:
            rejected[i] = pending.refused[bad]
        else:
            embedded[i] = [
                EmbeddedChunk(chunk, document.title, key, _vector(pending, key))
                for chunk, key in zip(pending.chunks[i], pending.keys[i], strict=True)
            ]
    return embedded, rejections(pending.documents, rejected)


def rejections(documents: Iterable[Prepared], reasons: Mapping[UUID, str]) -> list[Rejection]:
    """Return a rejection for each document that has a reason."""
    return [
        Rejection(d.position, d.external_id, reasons[d.document_id], d.source)
        for d in documents
        if d.document_id in reasons
    ]


def _vector(pending: Pending, key: bytes) -> Vectors:
    """Return a chunk's vector: that of its text, or the mean of its parts', of the length theirs have."""
    parts = pending.parts.get(key)
    if parts is None:
        return pending.vectors[key]
    vectors = np.stack([pending.vectors[part] for part in parts])
    mean: Vectors = vectors.mean(axis=0)
    # Directions count: the mean of unit vectors is shorter than they are.
    length = float(np.linalg.norm(mean))
    return mean * (float(np.linalg.norm(vectors, axis=1).mean()) / length) if length > 0 else vectors[0]


def embedding_text(title: str, chunk: str) -> str:
    """Return what is embedded for a chunk: its document's title, then its own text."""
    return f"{title}\n\n{chunk}" if title else chunk


def chunked(run: Embedding, documents: Sequence[Prepared]) -> Pending:
    """Divide documents into chunks that the model can read whole, or as the collection's long_texts says."""
    settings = run.info.settings
    pending = Pending(documents)
    for document in documents:
        pending.chunks[document.document_id] = chunk_text(
            document.body, settings["chunk_size"], settings["chunk_overlap"]
        )
    limit = getattr(run.embedder, "max_tokens", None)
    longer = _longer(run, documents, pending, limit) if limit is not None else {}
    for document in documents:
        i = document.document_id
        texts = [[embedding_text(document.title, c.text)] for c in pending.chunks[i]]
        if i in longer and limit is not None:
            texts = _fit(run, document, pending, longer[i], limit, settings.get("long_texts", "average"))
        pending.keys[i] = []
        for read in texts:
            keys = [hashlib.sha256(text.encode()).digest() for text in read]
            pending.texts.update(zip(keys, read, strict=True))
            if len(keys) > 1:
                keys = [hashlib.sha256(b"".join(keys)).digest(), *keys]
                pending.parts[keys[0]] = keys[1:]
            pending.keys[i].append(keys[0])
    return pending


def _longer(
    run: Embedding, documents: Sequence[Prepared], pending: Pending, limit: int
) -> Mapping[UUID, list[bool]]:
    """Return, for documents with chunks longer than the model reads, which chunks are."""
    texts = [
        (d.document_id, embedding_text(d.title, c.text))
        for d in documents
        for c in pending.chunks[d.document_id]
    ]
    # A token has at least one byte: most texts need no counting.
    suspects = [n for n, (_, text) in enumerate(texts) if len(text) * 4 > limit]
    counts = _counter(run.embedder)([texts[n][1] for n in suspects])
    over = {n for n, count in zip(suspects, counts, strict=True) if count > limit}
    found: dict[UUID, list[bool]] = {}
    for n, (i, _) in enumerate(texts):
        found.setdefault(i, []).append(n in over)
    return {i: flags for i, flags in found.items() if any(flags)}


def _fit(
    run: Embedding, document: Prepared, pending: Pending, over: Sequence[bool], limit: int, how: str
) -> list[list[str]]:
    """Make a document's chunks fit the model and return what is read of each; or note it as unfit."""
    i, title = document.document_id, document.title
    count = _counter(run.embedder)

    def length(text: str) -> int:
        return count([embedding_text(title, text)])[0]

    made: list[Chunk] = []
    texts: list[list[str]] = []
    for chunk, too_long in zip(pending.chunks[i], over, strict=True):
        for piece, read in _read(chunk, limit, length, how) if too_long else [(chunk, [chunk.text])]:
            if too_long and any(not text or length(text) > limit for text in read):
                pending.unfit[i] = (
                    f"a chunk has {length(piece.text):,} tokens with its title, but {run.embedder.model_id} "
                    f"reads {limit:,}; long_texts is {how!r} ({', '.join(LONG_TEXTS)})"
                )
                pending.chunks[i] = []
                return []
            made.append(Chunk(len(made), piece.text, piece.char_start, piece.char_end))
            texts.append([embedding_text(title, text) for text in read])
    pending.chunks[i] = made
    return texts


def _read(chunk: Chunk, limit: int, length: Callable[[str], int], how: str) -> list[tuple[Chunk, list[str]]]:
    """Return the chunks that stand for one that is too long, each with the texts that are read of it."""
    if how == "refuse":
        return [(chunk, [chunk.text])]
    if how == "truncate":
        return [(chunk, [cut_text(chunk.text, limit, length)])]
    # Every piece is read with the title: beside one of half the model's length they would be too many.
    pieces = divide(chunk, limit, length) if 2 * length("") <= limit else [chunk]
    if how == "chunk":
        return [(piece, [piece.text]) for piece in pieces]
    return [(chunk, [piece.text for piece in pieces])]


def _counter(embedder: Any) -> Callable[[Sequence[str]], list[int]]:
    count: Callable[[Sequence[str]], list[int]] | None = getattr(embedder, "count_tokens", None)
    if count is not None and getattr(embedder, "exact_tokens", False):
        return count
    # A service's estimate learns: it would divide a text otherwise each time, and its parts be paid again.
    if count is None or isinstance(embedder, RemoteEmbedder):
        prompt = embedder.identity.document_prompt
        return lambda texts: [_estimated(prompt + text) for text in texts]
    return lambda texts: [int(tokens * ESTIMATE_MARGIN) + 1 for tokens in count(texts)]


def _estimated(text: str) -> int:
    """Return about how many tokens a text has, on the safe side.

    Seven letters or three digits are one, and each other sign is; tokenizers of today need fewer for prose.
    """
    tokens = 0
    for run in PIECES.finditer(text):
        letters = run[0]
        tokens += -(-len(letters) // (3 if letters[0].isdigit() else 7))
    return int(tokens * ESTIMATE_MARGIN) + 1
