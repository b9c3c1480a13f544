"""Questions and summaries for chunks: known ones from the database, the others from the generator.

What a generator writes is stored as soon as it is there: an ingest that was killed does not pay for it again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from queue import Empty
from typing import Any

from pgseek.embedders.limits import Spending
from pgseek.errors import PgseekError
from pgseek.generators.base import GeneratedKind, Request, TextGenerator, cache_identity
from pgseek.steps import Script, Underway, fetch, start_generation, wait_for_texts
from pgseek.types import CollectionInfo

# How long what was written may wait until it is stored, in seconds.
STORE_EVERY = 0.5

_LOOK_UP = """
SELECT text_hash, texts FROM pgseek.generated_texts WHERE tenant = pgseek.tenant() AND identity = %s
   AND text_hash = ANY (%s::bytea[])
"""

# Each row's texts as one JSON array: arrays of arrays would have to be of one length.
_STORE = """
INSERT INTO pgseek.generated_texts (tenant, identity, text_hash, texts, created_at)
SELECT pgseek.tenant(), s.identity, s.text_hash,
       ARRAY(SELECT jsonb_array_elements_text(s.texts::jsonb)), now()
  FROM unnest(%s::text[], %s::bytea[], %s::text[]) AS s (identity, text_hash, texts)
    ON CONFLICT (tenant, identity, text_hash) DO NOTHING
"""


def wanted(info: CollectionInfo) -> list[tuple[GeneratedKind, int]]:
    """Return the kinds of texts that a collection has written for its chunks, and how many of each."""
    kinds: list[tuple[GeneratedKind, int]] = []
    if questions := int(info.settings.get("questions", 0)):
        kinds.append(("question", questions))
    if info.settings.get("summaries", False):
        kinds.append(("summary", 1))
    return kinds


def look_up(generator: TextGenerator, requests: Iterable[Request]) -> Script[dict[Request, tuple[str, ...]]]:
    """Return what was written for these requests before."""
    groups: dict[str, dict[bytes, Request]] = {}
    for request in requests:
        identity = cache_identity(generator, request.kind, request.count)
        groups.setdefault(identity, {})[request.key] = request
    found: dict[Request, tuple[str, ...]] = {}
    for identity, by_key in groups.items():
        rows = yield from fetch(_LOOK_UP, [identity, list(by_key)])
        found.update({by_key[row["text_hash"]]: tuple(row["texts"]) for row in rows})
    return found


def generate(
    generator: TextGenerator, requests: Sequence[Request], spending: Spending
) -> Script[tuple[dict[Request, tuple[str, ...]], dict[Request, str]]]:
    """Have texts written and store them; return them, and why the others were refused.

    Raises:
        GeneratorError, CostLimitReached: it ended before all was written; what was, is stored.
    """
    made: dict[Request, tuple[str, ...]] = {}
    refused: dict[Request, str] = {}
    underway = yield from start_generation(generator, requests, spending)
    try:
        done, error = False, None
        while not done:
            done, error = yield from wait_for_texts(underway, STORE_EVERY)
            yield from _keep(generator, requests, underway, made, refused)
    except Exception:
        underway.stop.set()
        with contextlib.suppress(PgseekError):
            while not (yield from wait_for_texts(underway, STORE_EVERY))[0]:
                pass
            yield from _keep(generator, requests, underway, made, refused)
        raise
    if error is not None:
        raise error
    return made, refused


def _keep(
    generator: TextGenerator,
    requests: Sequence[Request],
    underway: Underway,
    made: dict[Request, tuple[str, ...]],
    refused: dict[Request, str],
) -> Script[None]:
    """Store what arrived since the last time."""
    fresh: dict[Request, tuple[str, ...]] = {}
    with contextlib.suppress(Empty):
        while True:
            arrival = underway.arrived.get_nowait()
            if arrival.refused is None:
                fresh[requests[arrival.place]] = arrival.texts
            else:
                refused[requests[arrival.place]] = arrival.refused
    if fresh:
        made.update(fresh)
        yield from store(generator, fresh)


def store(generator: TextGenerator, texts: Mapping[Request, tuple[str, ...]]) -> Script[None]:
    """Keep what was written."""
    # In the order of the key: two workers that store the same then wait for each other, but never both.
    rows: list[Any] = sorted(
        (cache_identity(generator, request.kind, request.count), request.key, json.dumps(made))
        for request, made in texts.items()
    )
    yield from fetch(_STORE, [list(column) for column in zip(*rows, strict=True)])
