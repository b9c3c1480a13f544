"""What a change of model would do and cost, without doing it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from psycopg.sql import SQL

from pgseek import collections, indexes, spaces
from pgseek.embedders.base import Embedder, identity_hash
from pgseek.errors import InvalidInput
from pgseek.passages import embedding_text
from pgseek.plan import count_requests, least_seconds
from pgseek.reembed.filling import existing_space, source_of
from pgseek.steps import (
    Script,
    fetch,
    fetch_one,
    start_embedding,
    wait_for,
)
from pgseek.types import (
    CollectionInfo,
    ReembedPlan,
    SpaceId,
    SpaceInfo,
)
from pgseek.vectors import Metric, Storage, VectorIndex, check_metric, index_for, storage_for

# Chunks up to which all texts are read for a plan; of more, as many are a sample.
PLANNED = 20_000
# Texts that a local model embeds to tell how fast it is.
TIMED = 32


def target(
    info: CollectionInfo,
    embedder: Embedder | str,
    dimensions: int | None,
    metric: str | None,
    storage: str | None,
    index: str | Mapping[str, Any] | VectorIndex | None,
    again: bool = False,
) -> tuple[Embedder, Metric, Storage, VectorIndex]:
    """Return what a new space would be made of; the metric is the present one's unless told.

    Raises:
        InvalidInput: it cannot be made, or it is what the collection has; or, with ``again``, it is not.
    """
    chosen = collections.choose_embedder(embedder, dimensions)
    size = chosen.identity.dimensions
    if again:
        # Only the model is another one.
        storage = info.space.storage if storage is None else storage
        index = info.space.index if index is None else index
    found_metric = check_metric(info.space.metric if metric is None else metric)
    found_storage = storage_for(size, storage)
    found_index = index_for(size, found_storage, found_metric, index)
    same = (chosen.identity, found_metric, found_storage) == (
        info.identity,
        info.space.metric,
        info.space.storage,
    )
    if again and chosen.identity != info.identity:
        raise InvalidInput(
            f"again embeds with the model that the collection has, {spaces.describe(info.identity)}, but the "
            f"embedder is {spaces.describe(chosen.identity)}; leave again out to change to another model"
        )
    if same and not again:
        raise InvalidInput(
            f"collection {info.name!r} is searched by {info.space} already; to change only its index, use "
            "pgseek index build; to embed everything anew, because its provider changed the model under the "
            "same name, say --again (again=True)"
        )
    return chosen, found_metric, found_storage, found_index


def plan(
    info: CollectionInfo,
    embedder: Embedder,
    metric: Metric,
    storage: Storage,
    index: VectorIndex,
    again: bool = False,
) -> Script[ReembedPlan]:
    """Count what has to be embedded, and what that costs and takes; nothing is written.

    Of more than 20,000 chunks the tokens are estimated from as many, in the order of the hashed ids.
    """
    identity = embedder.identity
    existing = yield from existing_space(info, identity, metric, storage, again=again)
    counted = yield from fetch_one(
        "SELECT count(*) AS chunks, count(DISTINCT c.text_hash) AS texts FROM pgseek.chunks c"
        " WHERE c.collection_id = %s AND c.kind <> 'document'",
        [info.collection_id],
    )
    chunks, texts = (counted["chunks"], counted["texts"]) if counted else (0, 0)
    done = 0
    if existing is not None:
        row = yield from fetch_one(
            SQL("SELECT count(*) AS rows FROM {}").format(spaces.table_of(existing.space_id))
        )
        done = row["rows"] if row else 0
    reduced = not again and (yield from source_of(info, identity)) is not None
    cached = left = tokens = requests = 0
    seconds: float | None = None
    if not reduced:
        row = yield from fetch_one(
            "SELECT count(*) AS cached FROM (SELECT DISTINCT c.text_hash FROM pgseek.chunks c"
            " WHERE c.collection_id = %s AND c.kind <> 'document') AS t JOIN pgseek.embedding_cache k"
            " ON k.tenant = pgseek.tenant() AND k.identity = %s AND k.input_type = 'document'"
            " AND k.text_hash = t.text_hash"
            " AND (k.expires_at IS NULL OR k.expires_at > statement_timestamp())",
            [info.collection_id, identity_hash(identity)],
        )
        # What an older version of the model gave is no use.
        cached = row["cached"] if row and not (again and existing is None) else 0
        # What is embedded in the new space already is not asked for again.
        left = max(0, texts - max(cached, round(texts * done / chunks) if chunks else 0))
        tokens, requests, seconds = yield from _effort(info, embedder, left)
    size = vector_bytes(identity.dimensions, storage)
    space = SpaceInfo(
        space_id=SpaceId(0),
        collection_id=info.collection_id,
        identity=identity,
        identity_hash=identity_hash(identity),
        metric=metric,
        storage=storage,
        index=index,
        searching={},
        state="building",
        created_at=info.space.created_at,
        activated_at=None,
    )
    price = float(getattr(embedder, "price", 0.0))
    limits = least_seconds(getattr(embedder, "limits", None), requests, tokens)
    times = [time for time in (seconds, limits) if time is not None]
    return ReembedPlan(
        collection=info.name,
        of=str(info.space),
        to=str(space),
        storage=storage,
        index=str(index),
        chunks=chunks,
        done=done,
        reduced=reduced,
        texts=left,
        cached=cached,
        tokens=tokens if not left or hasattr(embedder, "count_tokens") else None,
        exact=bool(getattr(embedder, "exact_tokens", False)) and chunks <= PLANNED,
        price=price,
        cost=tokens * price / 1e6,
        seconds=max(times, default=None),
        table_bytes=chunks * (size + 60),
        index_bytes=0 if index.method == "none" else int(indexes.build_bytes(space, index, chunks) / 1.3),
    )


def vector_bytes(dimensions: int, storage: Storage) -> int:
    """Return the bytes of a stored vector."""
    return dimensions * (4 if storage == "vector" else 2) + 8


def _effort(info: CollectionInfo, embedder: Embedder, left: int) -> Script[tuple[int, int, float | None]]:
    """Return tokens and requests of the texts that are left, and seconds where a local model was timed."""
    if not left:
        return 0, 0, 0.0
    rows = yield from fetch(
        "SELECT DISTINCT ON (c.text_hash) c.title, c.text FROM (SELECT * FROM pgseek.chunks k"
        " WHERE k.collection_id = %s AND k.kind <> 'document'"
        " ORDER BY k.document_id, k.ordinal LIMIT %s) AS c",
        [info.collection_id, PLANNED],
    )
    sample = [embedding_text(row["title"], row["text"]) for row in rows]
    share = left / len(sample)
    counter = getattr(embedder, "count_tokens", None)
    tokens = round(sum(counter(sample)) * share) if counter is not None else 0
    requests = math.ceil(count_requests(embedder, sample) * share)
    if getattr(embedder, "price", None) is not None:
        return tokens, requests, None
    started = time.perf_counter()
    outcome = yield from wait_for((yield from start_embedding(embedder, sample[:TIMED])))
    if outcome.error is not None:
        raise outcome.error
    return tokens, requests, (time.perf_counter() - started) / min(TIMED, len(sample)) * left
