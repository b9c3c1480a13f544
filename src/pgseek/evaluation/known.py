"""Queries made of a collection's own documents, where nobody has judged any: known items.

Each query has one document that it was made of. Such queries favour the lexical leg, since their words are
the document's; they show whether documents are found at all, and what breaks when something is changed. See
Azzopardi, de Rijke and Balog, Building simulated queries for known-item topics (SIGIR 2007).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgseek.embedders.limits import Spending
from pgseek.errors import InvalidInput
from pgseek.evaluation.runs import Searched
from pgseek.evaluation.trec import Qrels
from pgseek.generation import generate, look_up
from pgseek.generators.base import Request, TextGenerator
from pgseek.steps import Row, Script, fetch
from pgseek.types import check_whole

KINDS = ("titles", "sentences", "questions")
# A sentence with fewer words says too little, one with more is no query.
SENTENCE_WORDS = (5, 25)
# Characters of a document's body that are looked at, from its beginning.
READ = 20_000
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n\s*\n")

_TITLES = """
SELECT min(d.external_id) AS id, btrim(d.title) AS title, array_agg(d.external_id ORDER BY d.external_id) AS
ids
  FROM pgseek.documents d
 WHERE d.collection_id = %(collection)s AND btrim(d.title) <> ''
 GROUP BY btrim(d.title) ORDER BY md5(btrim(d.title) || %(seed)s), btrim(d.title) LIMIT %(count)s
"""
_BODIES = """
SELECT d.external_id AS id, d.title, left(d.body, %(read)s) AS body
  FROM pgseek.documents d WHERE d.collection_id = %(collection)s
 ORDER BY md5(d.document_id::text || %(seed)s), d.document_id LIMIT %(count)s
"""


@dataclass(frozen=True, slots=True)
class KnownItems:
    """Queries made of documents, and which document each was made of; ``kinds`` counts them by how."""

    queries: Mapping[str, str]
    qrels: Qrels
    kinds: Mapping[str, int]


def known_items(
    docs: Searched, *, count: int = 200, seed: int = 1, generator: TextGenerator | None = None
) -> KnownItems:
    """Make up to ``count`` queries of each kind from a collection, the same for the same documents and
    ``seed``.

    Titles ask for their document (for all that have the same title), sentences drawn from bodies for theirs;
    with a ``generator`` so do questions that it writes for a passage, through the cache of generated texts.

    Raises:
        InvalidInput: the collection gives none, or an argument is out of its range.
        GeneratorError: it answered nothing.
    """
    for name, value, least, most in (("count", count, 1, 100_000), ("seed", seed, 0, 2**63 - 1)):
        check_whole(name, value, most, least)
    info = docs.info()
    parameters = {"collection": info.collection_id, "seed": str(seed), "count": count, "read": READ}
    titles, bodies = docs._client._run(_read(parameters))
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    kinds = dict.fromkeys(KINDS, 0)

    def add(kind: str, text: str, ids: Sequence[str]) -> None:
        kinds[kind] += 1
        name = f"{kind}-{kinds[kind]}"
        queries[name] = text
        qrels[name] = dict.fromkeys(ids, 1)

    for row in titles:
        add("titles", row["title"], row["ids"])
    passages: list[tuple[str, Request]] = []
    for row in bodies:
        sentence = draw_sentence(row["body"], f"{seed}:{row['id']}")
        if sentence is not None:
            add("sentences", sentence, [row["id"]])
            passages.append((row["id"], Request("question", sentence, row["title"], 1)))
    if generator is not None and passages:
        written = docs._client._run(_questions(generator, [request for _, request in passages]))
        for name, request in passages:
            for text in written.get(request, ())[:1]:
                add("questions", text, [name])
    if not queries:
        raise InvalidInput(
            f"collection {info.name!r} gives no query: it has no document with a title, nor with a "
            f"sentence of {SENTENCE_WORDS[0]} to {SENTENCE_WORDS[1]} words; store documents first, or "
            "give judged queries"
        )
    return KnownItems(queries, qrels, kinds)


def draw_sentence(body: str, seed: str) -> str | None:
    """Return one of the sentences of a text that are of a query's length, None if it has none."""
    least, most = SENTENCE_WORDS
    found = [
        " ".join(words)
        for part in _SENTENCE.split(body)
        if least <= len(words := part.split()) <= most and any(word.isalpha() for word in words)
    ]
    return random.Random(seed).choice(found) if found else None  # noqa: S311 (a sample, no secret)


def _read(parameters: dict[str, Any]) -> Script[tuple[list[Row], list[Row]]]:
    titles = yield from fetch(_TITLES, parameters)
    return titles, (yield from fetch(_BODIES, parameters))


def _questions(
    generator: TextGenerator, requests: Sequence[Request]
) -> Script[dict[Request, tuple[str, ...]]]:
    wanted = list(dict.fromkeys(requests))
    known = yield from look_up(generator, wanted)
    lacking = [request for request in wanted if request not in known]
    if lacking:
        made, _ = yield from generate(generator, lacking, Spending())
        known.update(made)
    return known
