"""Whether a space's model is still the one that made its vectors.

A provider may change a model under the same name; then new vectors and old ones cannot be compared, and
nothing else tells. A few texts that were embedded when the space was made are embedded again, and the two
vectors of each are compared. A space from before revision 0006 has none: of it, stored chunks are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from psycopg.sql import SQL

from pgseek import collections, spaces
from pgseek.embedders.base import Embedder
from pgseek.embedders.registry import providers
from pgseek.errors import DatabaseError, PgseekError
from pgseek.passages import embedding_text
from pgseek.spaces import Fingerprint
from pgseek.steps import Script, fetch, fetch_one, for_tenant, transact
from pgseek.types import CollectionInfo, InputType, ProbeReport, SpaceInfo, SpaceProbe

# Below it is another model. Batches, threads and half precision leave 1 - cosine below 1e-6, a model in
# bfloat16 below 1e-4; queries turned to .995 move the dense leg's nDCG@10 by .002 at most, to .99 by .006.
AGREES = 0.995
# How far a length may be from the stored one's, where vectors have lengths of their own.
LENGTHS = 0.05
# Stored chunks that stand in for a fingerprint: the shortest of a few.
CHUNKS, AMONG = 5, 50

_SAMPLE = """
SELECT s.title, s.text, s.embedding
  FROM (SELECT c.title, c.text, e.embedding FROM {} e
          JOIN pgseek.chunks c ON c.collection_id = e.collection_id AND c.document_id = e.document_id
                              AND c.ordinal = e.ordinal
         WHERE e.collection_id = %s AND c.kind = 'chunk'
         ORDER BY e.document_id, e.ordinal LIMIT %s) AS s
 ORDER BY length(s.text), s.text LIMIT %s
"""

_WRITABLE = """
SELECT current_setting('transaction_read_only') = 'off'
   AND has_table_privilege('pgseek.space_probes', 'INSERT')
   AND has_table_privilege('pgseek.space_probes', 'UPDATE') AS writable
"""


def probe(
    names: Sequence[str] | None,
    given: Mapping[str, Embedder | Sequence[Embedder]],
    share: Callable[[object], None],
) -> Script[ProbeReport]:
    """Probe every space, that is not retired, of the named collections or of all; nothing else is changed.

    ``given`` holds, by collection, the objects of each that was made with one. A few texts are embedded for
    each model, and not taken from the cache. A space without a fingerprint gets one, where this user and
    this server may write.

    Raises:
        CollectionNotFound, DatabaseError; what embedders do is in the report.
    """
    if names is None:
        infos = yield from collections.list_all()
    else:
        infos = []
        for name in dict.fromkeys(names):
            infos.append((yield from collections.find(name)))
    prober = _Prober(given, share)
    found: list[SpaceProbe] = []
    for info in infos:
        for space in (yield from spaces.live(info.collection_id)):
            probed = prober.probe(replace(info, space=space))
            found.append((yield from for_tenant(info.tenant, probed)))
    return ProbeReport(tuple(found))


class _Prober:
    """Several spaces may have one model: its embedder is made once, and asked once."""

    def __init__(
        self, given: Mapping[str, Embedder | Sequence[Embedder]], share: Callable[[object], None]
    ) -> None:
        self._given = given
        self._share = share
        self._made: dict[str, Embedder] = {}
        self._answers: dict[tuple[str, frozenset[tuple[InputType, str]]], Fingerprint] = {}

    def probe(self, info: CollectionInfo) -> Script[SpaceProbe]:
        """Probe the space of ``info``."""
        space = info.space
        result = SpaceProbe(
            info.name, space.space_id, spaces.describe(space.identity), space.state, "not probed", ""
        )
        given = self._given.get(info.name, ())
        objects = tuple(given) if isinstance(given, Sequence) else (given,)
        if collections.own_embedder(info, objects) is None and info.identity.provider not in providers():
            return replace(
                result,
                detail="it was made with an embedder object, which only your program has; in Python: "
                f"client.collection({info.name!r}, embedder=…).probe()",
            )
        stored = yield from spaces.stored_fingerprint(space.space_id)
        try:
            embedder = self._embedder(info, objects)
            if stored:
                fresh = yield from self._ask(embedder, stored)
                return judged(replace(result, against="fingerprint"), space, stored, fresh)
            stored = yield from _chunks(info, embedder)
            if stored:
                fresh = yield from self._ask(embedder, stored)
                result = judged(replace(result, against="chunks"), space, stored, fresh)
            if not result.ok:
                return result
            fingerprint = yield from self._ask(embedder, spaces.FINGERPRINT)
        except DatabaseError:
            raise
        except PgseekError as error:
            return replace(result, outcome="failed", detail=str(error))
        return (yield from _record(result, fingerprint))

    def _embedder(self, info: CollectionInfo, objects: tuple[Embedder, ...]) -> Embedder:
        found = self._made.get(info.identity_hash)
        if found is None:
            found = collections.embedder_of(info, objects)
            self._share(found)
            self._made[info.identity_hash] = found
        return found

    def _ask(self, embedder: Embedder, texts: Collection[tuple[InputType, str]]) -> Script[Fingerprint]:
        key = (spaces.describe(embedder.identity), frozenset(texts))
        if key not in self._answers:
            self._answers[key] = yield from spaces.fingerprint(embedder, texts)
        return self._answers[key]


def judged(result: SpaceProbe, space: SpaceInfo, stored: Fingerprint, fresh: Fingerprint) -> SpaceProbe:
    """Return the result with how far vectors, by input type and text, agree with the stored ones."""
    cosines: dict[tuple[InputType, str], float] = {}
    lengths: dict[tuple[InputType, str], float] = {}
    for key, old in stored.items():
        before, now = old.astype(np.float64), fresh[key].astype(np.float64)
        long, short = float(np.linalg.norm(now)), float(np.linalg.norm(before))
        cosines[key] = float(before @ now) / (long * short) if long * short > 0 else 0.0
        lengths[key] = long / short if short > 0 else 0.0
    worst = min(cosines, key=lambda key: cosines[key])
    stretched = max(lengths, key=lambda key: abs(lengths[key] - 1))
    turned = cosines[worst] < AGREES
    longer = not space.identity.normalized and abs(lengths[stretched] - 1) > LENGTHS
    if longer and not turned:
        worst = stretched
    result = replace(
        result,
        outcome="changed" if turned or longer else "same",
        compared=len(stored),
        cosine=cosines[worst],
        length=lengths[stretched],
        input_type=worst[0],
        text=worst[1],
    )
    what = "texts" if result.against == "fingerprint" else "stored chunks"
    if result.ok:
        detail = f"the same model: the smallest cosine is {cosines[worst]:.4f}, of {len(stored)} {what}"
        return replace(result, detail=detail)
    of = f"{_short(worst[1])!r} as a {worst[0]}"
    how = f"the cosine is {cosines[worst]:.4f}, below {AGREES}"
    if not turned:
        how = f"the length is {lengths[worst]:.3f} times the stored one's"
    mend = f"embed everything again: pgseek reembed {result.collection} --to {space.identity} --again"
    if space.identity.provider not in providers():
        mend = "embed everything again: collection.reembed(embedder, again=True)"
    if space.state != "active":
        mend = f"retire the space: pgseek spaces retire {result.collection} {space.space_id}"
    return replace(
        result,
        detail=f"the model has changed under its name: of {of} {how}. Its vectors cannot be compared with "
        f"those that are stored; {mend}",
    )


def _chunks(info: CollectionInfo, embedder: Embedder) -> Script[Fingerprint]:
    """Return stored vectors, by the texts they were made of: of short chunks, which the model reads whole."""
    rows = yield from fetch(
        SQL(_SAMPLE).format(spaces.table_of(info.space_id)), [info.collection_id, AMONG, CHUNKS]
    )
    texts = {embedding_text(row["title"], row["text"]): row["embedding"].to_numpy() for row in rows}
    most = getattr(embedder, "max_tokens", None)
    counter = getattr(embedder, "count_tokens", None)
    if most is not None and counter is not None:
        whole = [tokens <= most for tokens in counter(list(texts))]
        texts = {text: v for (text, v), fits in zip(texts.items(), whole, strict=True) if fits}
    return {("document", text): vector.astype(np.float32) for text, vector in texts.items()}


def _record(result: SpaceProbe, fingerprint: Fingerprint) -> Script[SpaceProbe]:
    """Keep a fingerprint for later, where that is possible, and say so."""
    row = yield from fetch_one(_WRITABLE)
    detail = result.detail or "there is nothing to compare with: no fingerprint, and no chunk with a vector"
    if row is None or not row["writable"]:
        return replace(result, detail=f"{detail}; no fingerprint is recorded: it may not be written here")
    yield from transact(lambda: spaces.keep_fingerprint(result.space_id, fingerprint))
    return replace(result, recorded=True, detail=f"{detail}; its fingerprint is recorded now")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
