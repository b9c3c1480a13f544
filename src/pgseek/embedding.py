"""Embedding the rows of a batch: equal texts once, known ones from the cache, the rest in the background.

`begin` divides documents, has questions and summaries written where the collection wants them, and sets off
what has to be embedded; `finish` waits for it and keeps it in the cache, whatever becomes of the documents.
Between the two another batch is written. What an edit left as it was keeps the vector that is stored with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID

import numpy as np
from psycopg.sql import SQL

from pgseek import cache, generation, spaces
from pgseek.collections import embedder_of
from pgseek.embedders.base import Embedder, Vectors, usable
from pgseek.embedders.limits import Spending
from pgseek.embedders.reduction import reduction
from pgseek.embedders.remote import RemoteEmbedder
from pgseek.errors import CostLimitReached, GeneratorError, InvalidInput, PgseekError
from pgseek.generators.base import GeneratedKind, Request, TextGenerator, name_of
from pgseek.passages import (
    Passage,
    Passages,
    add_written,
    divide_documents,
    embedding_text,
    read_stored,
    rejections,
    requests_for,
)
from pgseek.prepare import Prepared
from pgseek.steps import Script, Underway, fetch, sleep, start_embedding, wait_at_most
from pgseek.types import CachePolicy, Chunk, CollectionInfo, Rejection, SpaceInfo
from pgseek.writing import EmbeddedChunk, SpaceVectors

__all__ = [
    "Embedding",
    "Pending",
    "begin",
    "beside",
    "check_cost",
    "chunked",
    "embed_stored",
    "embedding_text",
    "finish",
    "guarded",
    "keep",
    "rejections",
    "results",
    "stored_vectors",
]

T = TypeVar("T")
log = logging.getLogger("pgseek")

# How long a claim on a text lasts: a worker that died, or was interrupted, holds others up for no longer.
CLAIM_SECONDS = 20.0
# How often a claim is made to last again, while its text is being embedded.
RENEW_SECONDS = 6.0
# Between two looks at what another worker is embedding, growing from the first to the second.
SHORTEST_WAIT, LONGEST_WAIT = 0.05, 1.0

_STORED = """
SELECT DISTINCT ON (c.text_hash) c.text_hash, e.embedding
  FROM pgseek.chunks c
  JOIN {} e ON e.collection_id = c.collection_id AND e.document_id = c.document_id AND e.ordinal = c.ordinal
 WHERE c.collection_id = %s AND c.document_id = ANY (%s) AND c.text_hash = ANY (%s::bytea[])
 ORDER BY c.text_hash
"""


@dataclass(frozen=True, slots=True)
class Embedding:
    """What stays the same while documents of one collection are embedded."""

    info: CollectionInfo
    embedder: Embedder
    policy: CachePolicy
    spending: Spending
    generator: TextGenerator | None = None
    # What the caller gave to embed with: one of them may be that of another space of the collection.
    given: tuple[Embedder, ...] = ()
    # What was made for other spaces, by the hash of its identity.
    made: dict[str, Embedder] = field(default_factory=dict, compare=False)

    def of(self, space: SpaceInfo) -> Embedding:
        """Return the same for another space of the collection.

        Raises:
            PgseekError: its embedder was an object that is not given, or cannot be made.
        """
        if space.space_id == self.info.space_id:
            return self
        info = replace(self.info, space=space)
        embedder = self.made.get(space.identity_hash)
        if embedder is None:
            embedder = embedder_of(info, (self.embedder, *self.given))
            self.made[space.identity_hash] = embedder
        return replace(self, info=info, embedder=embedder, generator=None)

    @property
    def kinds(self) -> list[tuple[GeneratedKind, int]]:
        """What is written for each chunk, and how many of it."""
        return generation.wanted(self.info)

    @property
    def caching(self) -> bool:
        """Whether document vectors are cached: not where making one costs less than keeping it."""
        return bool(getattr(self.embedder, "cache_documents", True))


@dataclass(slots=True)
class Pending(Passages):
    """A batch whose rows are being embedded. With ``whole`` each document gets a row of its own."""

    whole: bool = False
    vectors: dict[bytes, Vectors] = field(default_factory=dict)
    # Why a text has no vector.
    refused: dict[bytes, str] = field(default_factory=dict)
    asked: list[bytes] = field(default_factory=list)
    underway: Underway | None = None
    # The batches next to it, while they are under way, too.
    before: Pending | None = None
    after: Pending | None = None
    embedded: int = 0
    cached: int = 0
    # Texts whose vector is stored with their document, and requests that a generator answered.
    reused: int = 0
    generated: int = 0
    # What kept texts from being written: told when the batches before are stored.
    failed: PgseekError | None = None


def check_cost(embedder: Embedder, generator: TextGenerator | None, max_cost: float | None) -> None:
    """Raise `InvalidInput` if the cost shall be bounded and a price is not known."""
    if max_cost is None:
        return
    if getattr(embedder, "price", 0.0) == 0 and isinstance(embedder, RemoteEmbedder):
        raise InvalidInput(
            f"max_cost is {max_cost!r}, but nothing is known of what {embedder.model_id} costs; leave it out"
        )
    if generator is not None and getattr(generator, "price", (0.0, 0.0)) is None:
        raise InvalidInput(
            f"max_cost is {max_cost!r}, but nothing is known of what {name_of(generator)} costs; give the "
            "generator its price, or leave max_cost out"
        )


def begin(
    run: Embedding,
    documents: Sequence[Prepared],
    before: Pending | None = None,
    new: Container[UUID] = (),
) -> Script[Pending]:
    """Divide documents and set off the embedding of what neither the database nor ``before`` has.

    Of those that are ``new`` nothing can be stored.

    Where the collection wants questions or summaries, they are written first; an error of that is raised by
    `finish`.

    Raises:
        EmbedderError: that of ``before``, where texts are to be written.
    """
    pending = chunked(run, documents)
    pending.before = before
    if before is not None:
        before.after = pending
        pending.failed = before.failed
    if run.kinds and pending.failed is None:
        if before is not None:
            # Writing may take minutes: vectors that are on their way shall not wait for the cache so long.
            yield from keep(run, before, strict=True)
        try:
            yield from _write(run, pending)
        except (GeneratorError, CostLimitReached) as error:
            pending.failed = error
    if pending.failed is not None:
        return pending
    if run.caching and pending.texts:
        pending.vectors = yield from cache.look_up(run.info.identity_hash, "document", list(pending.texts))
        pending.cached = len(pending.vectors)
    yield from _reuse(run, pending, [d.document_id for d in documents if d.document_id not in new])
    under_way = set(before.texts) if before is not None else set()
    missing = [key for key in pending.texts if key not in pending.vectors and key not in under_way]
    yield from _ask(run, pending, missing)
    return pending


def chunked(run: Embedding, documents: Sequence[Prepared]) -> Pending:
    """Divide documents into chunks that the model can read whole, or as the collection's long_texts says."""
    pending = Pending(documents, whole=bool(run.info.settings.get("document_vectors", False)))
    divide_documents(pending, run.info.settings, run.embedder)
    return pending


def _write(run: Embedding, pending: Pending) -> Script[None]:
    """Add the questions and summaries of a batch, known ones and new ones."""
    if run.generator is None:
        raise InvalidInput(
            f"collection {run.info.name!r} has texts written for its chunks; "
            "give the generator: client.collection(name, generator=…)"
        )
    asked = requests_for(pending, run.kinds)
    requests = list(dict.fromkeys(request for pairs in asked.values() for _, request in pairs))
    written = yield from generation.look_up(run.generator, requests)
    missing = [request for request in requests if request not in written]
    refused: dict[Request, str] = {}
    if missing:
        fresh, not_written = yield from generation.generate(run.generator, missing, run.spending)
        written.update(fresh)
        refused.update(not_written)
        pending.generated = len(fresh)
    name = name_of(run.generator)
    for document, pairs in asked.items():
        bad = next(((row, request) for row, request in pairs if request in refused), None)
        if bad is None:
            add_written(pending, run.embedder, document, pairs, written)
        else:
            row, request = bad
            what = "a summary" if request.kind == "summary" else f"{request.count} questions"
            reason = f"{name} did not write {what} for chunk {row.chunk.ordinal}: {refused[request]}"
            pending.refuse(document, reason)
    if refused:
        _forget_texts(pending)


def _forget_texts(pending: Passages) -> None:
    """Leave out texts that no row needs any more."""
    needed = {part for rows in pending.rows.values() for row in rows for part in _read(pending, row)}
    pending.texts = {key: text for key, text in pending.texts.items() if key in needed}


def _read(pending: Passages, row: Passage) -> list[bytes]:
    return pending.parts.get(row.key, [row.key])


def _reuse(run: Embedding, pending: Pending, stored: Sequence[UUID]) -> Script[None]:
    """Take over vectors that are stored with the same documents: an edit leaves most chunks as they were."""
    if not stored:
        return
    keys = {
        row.key
        for rows in pending.rows.values()
        for row in rows
        if any(part not in pending.vectors for part in _read(pending, row))
    }
    found = yield from stored_vectors(run.info, stored, keys)
    pending.vectors.update(found)
    pending.reused = len(found)
    whole = [key for key in found if key in pending.parts]
    for key in whole:
        # The mean is there: its parts need not be.
        del pending.parts[key]
    if whole:
        _forget_texts(pending)


def stored_vectors(
    info: CollectionInfo, documents: Sequence[UUID], keys: set[bytes]
) -> Script[dict[bytes, Vectors]]:
    """Return the vectors, float32 (d,), that rows of these documents have for these keys."""
    if not documents or not keys:
        return {}
    table = spaces.table_of(info.space_id)
    rows = yield from fetch(SQL(_STORED).format(table), [info.collection_id, list(documents), sorted(keys)])
    return {row["text_hash"]: row["embedding"].to_numpy().astype(np.float32) for row in rows}


def finish(run: Embedding, pending: Pending) -> Script[None]:
    """Wait until every text of the batch has its vector, or a reason why it has none.

    Raises:
        PgseekError: the embedder or the generator failed; what they had answered is stored.
    """
    if pending.failed is not None:
        raise pending.failed
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
            if pending.after is not None:
                # That worker may be waiting for what we asked for since: two would wait for each other.
                yield from keep(run, pending.after, strict=True)
            yield from sleep(pause)
            pause = min(pause * 1.5, LONGEST_WAIT)


def _ask(run: Embedding, pending: Pending, missing: Sequence[bytes]) -> Script[None]:
    pending.asked = list(missing)
    if run.caching and missing:
        identity = run.info.identity_hash
        ours = yield from cache.claim(identity, missing, CLAIM_SECONDS)
        # Who had claimed them may have answered and let go between our look and our claim.
        late = yield from cache.look_up(identity, "document", [key for key in missing if key in ours])
        if late:
            pending.vectors.update(late)
            pending.cached += len(late)
            yield from cache.release(identity, list(late))
        pending.asked = [key for key in missing if key in ours and key not in late]
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


def embed_stored(
    run: Embedding, stored: Mapping[UUID, Sequence[tuple[Chunk, str]]]
) -> Script[tuple[dict[tuple[UUID, int], Vectors], dict[UUID, str]]]:
    """Embed rows as they are stored, each with its title, for the space of ``run``: whole documents.

    Returns the vectors by document and ordinal, and why a document has none.

    Raises:
        EmbedderError, CostLimitReached: what was answered is in the cache.
    """
    pending = Pending(())
    given = {
        i: [(chunk, title) for chunk, title in rows if chunk.kind != "document"] for i, rows in stored.items()
    }
    read_stored(pending, given, run.info.settings.get("long_texts", "average"), run.embedder)
    if run.caching and pending.texts:
        pending.vectors = yield from cache.look_up(run.info.identity_hash, "document", list(pending.texts))
    yield from _reuse(run, pending, list(stored))

    def embed() -> Script[None]:
        yield from _ask(run, pending, [key for key in pending.texts if key not in pending.vectors])
        yield from finish(run, pending)

    yield from guarded(run, [pending], embed())
    found: dict[tuple[UUID, int], Vectors] = {}
    refused = dict(pending.unfit)
    for i, rows in pending.rows.items():
        bad = next((k for row in rows for k in _read(pending, row) if k in pending.refused), None)
        if bad is not None:
            refused[i] = pending.refused[bad]
        if i in refused:
            continue
        vectors = [_vector(pending, row.key) for row in rows]
        found.update({(i, row.chunk.ordinal): v for row, v in zip(rows, vectors, strict=True)})
        for chunk, _ in stored[i]:
            if chunk.kind == "document":
                parts = [n for n, row in enumerate(rows) if row.chunk.kind == "chunk"]
                lengths = [float(len(rows[n].chunk.text)) for n in parts]
                found[i, chunk.ordinal] = _mean([vectors[n] for n in parts], lengths)
    return found, refused


def beside(run: Embedding, embedded: Mapping[UUID, Sequence[EmbeddedChunk]]) -> Script[list[SpaceVectors]]:
    """Return a batch's vectors in the other spaces of its collection.

    A space that is not searched does without where they cannot be had: whoever builds it makes up for that.

    Raises:
        PgseekError: the collection is searched by another space by now, and its vectors cannot be had.
    """
    found: list[SpaceVectors] = []
    if not embedded:
        return found
    for space in (yield from spaces.live(run.info.collection_id)):
        if space.space_id == run.info.space_id:
            continue
        cut = reduction(run.info.identity, space.identity)
        try:
            if cut is not None:
                vectors = {
                    (i, row.chunk.ordinal): cut(row.vector) for i, rows in embedded.items() for row in rows
                }
            else:
                rows = {i: [(row.chunk, row.title) for row in rows] for i, rows in embedded.items()}
                vectors, _ = yield from embed_stored(run.of(space), rows)
        except PgseekError as error:
            if space.state == "active":
                raise
            log.warning("space %s of %r is left without a batch: %s", space.space_id, run.info.name, error)
            continue
        found.append(SpaceVectors(space, vectors))
    return found


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
    """Return the rows of each document with their vectors, and the documents that have none."""
    embedded: dict[UUID, list[EmbeddedChunk]] = {}
    rejected: dict[UUID, str] = dict(pending.unfit)
    for document in pending.documents:
        i = document.document_id
        if i in rejected:
            continue
        rows = pending.rows[i]
        bad = next((key for row in rows for key in _read(pending, row) if key not in pending.vectors), None)
        if not rows:
            rejected[i] = "the document has no text"
        elif bad is not None:
            rejected[i] = pending.refused[bad]
        else:
            embedded[i] = [
                EmbeddedChunk(row.chunk, row.title, row.key, _vector(pending, row.key)) for row in rows
            ]
            if pending.whole:
                embedded[i].append(_whole(document, embedded[i]))
    return embedded, rejections(pending.documents, rejected)


def _vector(pending: Pending, key: bytes) -> Vectors:
    """Return a row's vector: that of its text, or the mean of its parts'."""
    parts = pending.parts.get(key)
    if parts is None:
        return pending.vectors[key]
    return _mean([pending.vectors[part] for part in parts], [1.0] * len(parts))


def _whole(document: Prepared, rows: Sequence[EmbeddedChunk]) -> EmbeddedChunk:
    """Return the row of a whole document: the mean of its chunks' vectors by their lengths, and no words.

    Its words are those of its chunks: counted again they would distort what is known of their frequency.
    """
    chunks = [row for row in rows if row.chunk.kind == "chunk"]
    vector = _mean([row.vector for row in chunks], [float(len(row.chunk.text)) for row in chunks])
    key = hashlib.sha256(b"document" + b"".join(row.text_hash for row in chunks)).digest()
    return EmbeddedChunk(Chunk(len(rows), "", 0, len(document.body), "document"), "", key, vector)


def _mean(given: Sequence[Vectors], weights: Sequence[float]) -> Vectors:
    """Return the mean direction of vectors (d,), of the length that they have as a rule."""
    if len(given) == 1:
        return given[0]
    vectors = np.stack(given)
    mean: Vectors = np.average(vectors, axis=0, weights=weights).astype(np.float32)
    # Directions count: the mean of unit vectors is shorter than they are.
    length = float(np.linalg.norm(mean))
    return mean * (float(np.linalg.norm(vectors, axis=1).mean()) / length) if length > 0 else vectors[0]
