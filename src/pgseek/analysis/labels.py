"""What a cluster is about, in words: its most specific lexemes, by c-TF-IDF.

Grootendorst (BERTopic, 2022) weighs a word t of a class c by tf(t, c) * ln(1 + A / f(t)): how frequent it is
in the class, how frequent in all, and A, the average size of a class. Here both are counted in chunks, since
that is what the collection's term statistics hold and since a chunk that repeats a word says it once: tf is
the share of the class's chunks that have the word, f the chunks of the collection that have it, and A the
collection's chunks per class.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pgseek.steps import Script, fetch
from pgseek.types import CollectionInfo

# Chunks of a class whose text is looked at for how a lexeme is written.
READ = 40
READ_CHARACTERS = 2000
_WORD = re.compile(r"[^\W\d_]{2,40}")

_SPECIFIC = """
WITH members AS (
    SELECT m.document_id, m.ordinal
      FROM unnest(%(documents)s::uuid[], %(ordinals)s::int[]) AS m (document_id, ordinal)),
of_class AS MATERIALIZED (
    SELECT c.lexemes FROM members m
      JOIN pgseek.chunks c ON c.collection_id = %(collection)s AND c.document_id = m.document_id
     WHERE c.kind = 'chunk' AND (m.ordinal IS NULL OR c.ordinal = m.ordinal)),
counted AS (
    SELECT u.lexeme, count(*) AS inside
      FROM of_class k, unnest(tsvector_to_array(k.lexemes)) AS u (lexeme) GROUP BY u.lexeme),
sizes AS (
    SELECT (SELECT count(*) FROM of_class) AS inside, s.chunks FROM pgseek.collection_statistics s
     WHERE s.collection_id = %(collection)s)
SELECT w.lexeme, w.inside::float8 / z.inside AS share,
       w.inside::float8 / z.inside
       * ln(1 + greatest(z.chunks, z.inside)::float8 / %(classes)s
                / greatest(coalesce(t.chunks, 1), w.least)) AS weight
  FROM (SELECT c.*, CASE WHEN z.chunks > 0 THEN 1 ELSE c.inside END AS least FROM counted c, sizes z) AS w
  CROSS JOIN sizes z
  LEFT JOIN pgseek.term_statistics t ON t.collection_id = %(collection)s AND t.lexeme = w.lexeme
 WHERE (w.inside > 1 OR z.inside < 4) AND w.lexeme ~ '[[:alpha:]]{2}'
 ORDER BY weight DESC, w.lexeme COLLATE "C" LIMIT %(most)s
"""
_TEXTS = """
SELECT concat_ws(E'\\n', c.title, left(c.text, %(characters)s)) AS text
  FROM unnest(%(documents)s::uuid[], %(ordinals)s::int[]) AS m (document_id, ordinal)
  JOIN pgseek.chunks c ON c.collection_id = %(collection)s AND c.document_id = m.document_id
 WHERE c.kind = 'chunk' AND (m.ordinal IS NULL OR c.ordinal = m.ordinal)
 ORDER BY c.document_id, c.ordinal LIMIT %(read)s
"""
_LEXEMES = """
SELECT u.word, tsvector_to_array(pgseek.words(%(language)s, u.word, false)) AS lexemes
  FROM unnest(%(words)s::text[]) AS u (word)
"""


@dataclass(frozen=True, slots=True)
class Word:
    """A word that tells a cluster apart: its lexeme, how it is mostly written there, its weight, and the
    share of the cluster's chunks that have it."""

    lexeme: str
    text: str
    weight: float
    share: float


@dataclass(frozen=True, slots=True)
class Members:
    """Some members of a class: documents, and the ordinals of chunks (None: all chunks of the document)."""

    documents: Sequence[UUID]
    ordinals: Sequence[int | None]


def specific_words(
    info: CollectionInfo, classes: Mapping[int, Members], most: int
) -> Script[dict[int, tuple[Word, ...]]]:
    """Return the words of each class, heaviest first, as far as its members show them."""
    found: dict[int, list[dict[str, Any]]] = {}
    written: dict[int, Counter[str]] = {}
    for number, members in classes.items():
        parameters = {
            "collection": info.collection_id,
            "documents": list(members.documents),
            "ordinals": list(members.ordinals),
            "classes": max(1, len(classes)),
            "most": most,
            "read": READ,
            "characters": READ_CHARACTERS,
        }
        found[number] = yield from fetch(_SPECIFIC, parameters)
        texts = yield from fetch(_TEXTS, parameters)
        written[number] = _written(texts, {_folded(row["lexeme"])[:3] for row in found[number]})
    every = sorted({word for counted in written.values() for word in counted})
    rows = yield from fetch(_LEXEMES, {"language": info.language, "words": every})
    lexemes = {row["word"]: set(row["lexemes"] or ()) for row in rows}
    return {
        number: tuple(
            Word(
                row["lexeme"], _surface(row["lexeme"], written[number], lexemes), row["weight"], row["share"]
            )
            for row in rows_of_class
        )
        for number, rows_of_class in found.items()
    }


def _written(rows: Sequence[Mapping[str, Any]], beginnings: set[str]) -> Counter[str]:
    """Count the words that may be a form of one of the lexemes: those that begin as one does."""
    counted: Counter[str] = Counter()
    for row in rows:
        counted.update(word.lower() for word in _WORD.findall(row["text"]))
    return Counter({word: times for word, times in counted.items() if _folded(word)[:3] in beginnings})


def _surface(lexeme: str, written: Counter[str], lexemes: Mapping[str, set[str]]) -> str:
    forms = [(-times, len(word), word) for word, times in written.items() if lexeme in lexemes.get(word, ())]
    return min(forms)[2] if forms else lexeme


def _folded(text: str) -> str:
    return "".join(
        sign for sign in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(sign)
    )
