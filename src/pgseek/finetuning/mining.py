"""Hard negatives: documents that a search finds for a query, and that do not answer it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pgseek.errors import EmbedderError, InvalidInput
from pgseek.evaluation.runs import BASE, Progress, Searched
from pgseek.finetuning.examples import Example
from pgseek.steps import Script, fetch
from pgseek.types import Hit


@dataclass(frozen=True, slots=True)
class Mined:
    """Examples with negatives, and how many of these were found how.

    ``by_rank`` were among the hits of the window; ``too_near`` hits were passed over, because they were as
    near to the query as what answers it. ``at_random`` were taken anywhere in the collection, for want of
    hits.
    """

    examples: tuple[Example, ...]
    by_rank: int
    too_near: int
    at_random: int


def mine(
    collection: Searched,
    examples: Sequence[Example],
    count: int = 3,
    window: tuple[int, int] = (3, 50),
    margin: float = 0.05,
    seed: int = 42,
    *,
    judged: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> Mined:
    """Give each example ``count`` negatives out of the collection, by the collection's own search.

    Of the query's hits at the ranks of ``window`` (1-based, documents) those are drawn that are not
    relevant by ``examples`` nor by ``judged`` (documents by query), and whose cosine with the query is at
    most (1 - ``margin``) times that of what answers it: nearer ones are likely to answer it, too, and
    nobody has judged them (de Souza P. Moreira et al., NV-Retriever, 2024, whose margin is 0.05). Where the
    answer is not among the first hits its cosine is taken as that of the last of them. What lacks then is
    drawn from all documents. The collection should be searched by the model that is to be trained, or one
    like it.

    Raises:
        InvalidInput: an example has negatives or a score, or names no document; the collection has too few.
        EmbedderError, DatabaseError.
    """
    for one in examples:
        if one.score is not None or one.negatives or one.negative_documents:
            raise InvalidInput(
                f"the example of query {one.query!r} has a score or negatives; they are mined for pairs only"
            )
    relevant: dict[str, set[str]] = defaultdict(set)
    for one in examples:
        if one.document:
            relevant[one.query].add(one.document)
    for query, documents in (judged or {}).items():
        relevant[query].update(documents)
    everything = collection._client._run(_ids(collection))
    chosen = random.Random(seed)  # noqa: S311 (a draw, not a secret)
    mined: list[Example] = []
    counts = {"by_rank": 0, "too_near": 0, "at_random": 0}
    found: dict[str, list[Hit]] = {}
    queries = list(dict.fromkeys(one.query for one in examples))
    for number, query in enumerate(queries, 1):
        found[query] = _hits(collection, query, window[1])
        if progress is not None:
            progress("mining", number, len(queries))
    for one in examples:
        hits = found[one.query]
        own = {*relevant[one.query], one.document}
        if not one.document:
            # Where the text is stored, it is found as what it is a part of.
            own.update(hit.id for hit in hits if hit.text.strip() in one.text)
        answers = [hit for hit in hits if hit.id in own] or hits[-1:]
        limit = max((hit.dense_score for hit in answers if hit.dense_score is not None), default=1.0)
        limit = limit * (1 - margin) if limit > 0 else limit
        usable = [hit for hit in hits[window[0] - 1 :] if hit.id not in own]
        far = [hit.id for hit in usable if hit.dense_score is None or hit.dense_score <= limit]
        counts["too_near"] += len(usable) - len(far)
        drawn = chosen.sample(far, min(count, len(far)))
        counts["by_rank"] += len(drawn)
        counts["at_random"] += count - len(drawn)
        drawn += _others(
            chosen, everything, {*own, *drawn, *(hit.id for hit in hits)}, count - len(drawn), one
        )
        mined.append(replace(one, negative_documents=tuple(drawn)))
    return Mined(tuple(mined), **counts)


def _hits(collection: Searched, query: str, depth: int) -> list[Hit]:
    try:
        return collection.search(query, k=depth, collapse=True, **BASE)
    except (InvalidInput, EmbedderError) as error:
        raise type(error)(f"query {query[:100]!r}: {error}") from error


def _others(
    chosen: random.Random, everything: Sequence[str], left_out: set[str], count: int, of: Example
) -> list[str]:
    drawn: list[str] = []
    if count and len(everything) - len(left_out) < 2 * count:
        pool = [name for name in everything if name not in left_out]
        if len(pool) < count:
            raise InvalidInput(
                f"the collection has too few documents for {count} more negatives of the query "
                f"{of.query[:100]!r}: ask for fewer, or for a smaller window"
            )
        return chosen.sample(pool, count)
    while len(drawn) < count:
        name = chosen.choice(everything)
        if name not in left_out and name not in drawn:
            drawn.append(name)
    return drawn


def _ids(collection: Searched) -> Script[list[str]]:
    info = collection.info()
    rows = yield from fetch(
        "SELECT d.external_id FROM pgseek.documents d WHERE d.collection_id = %s ORDER BY d.document_id",
        [info.collection_id],
    )
    return [row["external_id"] for row in rows]
