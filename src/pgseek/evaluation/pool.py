"""The candidates of judged queries, taken once from both legs and deep, with what BM25 knows of their
words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
from psycopg.types.json import Jsonb

from pgseek.embedding import Embedding
from pgseek.errors import EmbedderError, InvalidInput
from pgseek.evaluation.legs import Legs, Words
from pgseek.evaluation.runs import BASE, Progress
from pgseek.search import query_embedding
from pgseek.steps import Row, Script, fetch
from pgseek.types import Search

# Chunks whose words are read at a time, and documents whose ids are.
_BATCH = 1000

_CANDIDATES = """
SELECT f.*, pgseek.query_kind(%(query)s) AS kind
  FROM pgseek.collections c
  JOIN pgseek.embedding_spaces s ON s.space_id = c.active_space_id,
       LATERAL pgseek.read_query(c, %(query)s, %(syntax)s) AS t,
       LATERAL (
           SELECT t.known, t.weights, array_agg(h.document_id ORDER BY h.document_id, h.ordinal) AS documents,
                  array_agg(h.ordinal ORDER BY h.document_id, h.ordinal) AS ordinals,
                  array_agg(h.dense_score ORDER BY h.document_id, h.ordinal) AS dense,
                  array_agg(h.dense_rank ORDER BY h.document_id, h.ordinal) AS dense_ranks,
                  array_agg(h.lexical_score ORDER BY h.document_id, h.ordinal) AS lexical,
                  array_agg(h.lexical_rank ORDER BY h.document_id, h.ordinal) AS lexical_ranks
             FROM pgseek.fuse(c, s, %(embedding)s, t, pgseek.read_options(c, %(options)s), %(depth)s, NULL,
                      %(budget)s) AS fused,
                  LATERAL unnest(fused.hits) AS h) AS f
 WHERE c.collection_id = %(collection)s
"""
_IDS = """
SELECT d.document_id, d.external_id FROM pgseek.documents d
 WHERE d.collection_id = %s AND d.document_id = ANY (%s)
"""
# How often each word stands in a chunk and in its title, of the words asked for, and of all words together.
_WORDS = """
SELECT k.place, w.length, w.title_length, w.words, w.occurrences, w.titled
  FROM unnest(%(documents)s::uuid[], %(ordinals)s::integer[]) WITH ORDINALITY AS k (document_id, ordinal,
  place)
  JOIN pgseek.chunks c ON c.collection_id = %(collection)s AND c.document_id = k.document_id
                      AND c.ordinal = k.ordinal,
       LATERAL (
           SELECT coalesce(sum(cardinality(u.positions)), 0)::float8 AS length,
                  coalesce(sum(cardinality(array_positions(u.weights, 'A'))), 0)::float8 AS title_length,
                  array_agg(u.lexeme) FILTER (WHERE u.lexeme = ANY (%(lexemes)s::text[])) AS words,
                  array_agg(cardinality(u.positions)) FILTER (WHERE u.lexeme = ANY (%(lexemes)s::text[]))
                      AS occurrences,
                  array_agg(cardinality(array_positions(u.weights, 'A')))
                      FILTER (WHERE u.lexeme = ANY (%(lexemes)s::text[])) AS titled
             FROM unnest(c.lexemes) AS u) AS w
"""
# As refresh_statistics() measures it.
_LENGTHS = """
SELECT (SELECT count(*) FROM pgseek.chunks c WHERE c.collection_id = %(collection)s AND c.kind <> 'document')
           AS chunks,
       (SELECT coalesce(sum(w.nentry), 0) FROM ts_stat(o.chunks) AS w) AS words,
       (SELECT coalesce(sum(w.nentry), 0) FROM ts_stat(o.chunks, 'a') AS w) AS of_titles
  FROM (SELECT format('SELECT c.lexemes FROM pgseek.chunks c WHERE c.collection_id = %%s'
                      ' AND c.kind <> $$document$$', %(collection)s::integer) AS chunks) AS o
"""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What both legs found for the judged queries.

    ``legs``, ``kinds`` and, if they were asked for, ``words`` are by query. ``documents`` are the ids that
    the rows' numbers stand for. Chunks have ``length`` words in the mean, ``title_length`` of them in titles.
    """

    legs: Mapping[str, Legs]
    kinds: Mapping[str, str]
    words: Mapping[str, Words] = field(default_factory=dict)
    documents: Sequence[str] = ()
    length: float = 0.0
    title_length: float = 0.0

    def average(self, title_weight: float) -> float:
        """Return the average length where a word of the title counts so often."""
        return self.length + (title_weight - 1) * self.title_length


def candidates(
    run: Embedding,
    queries: Mapping[str, str],
    *,
    depth: int,
    with_words: bool,
    progress: Progress | None = None,
) -> Script[Candidates]:
    """Take ``depth`` candidates of each leg for each query, and score all of them in both.

    Queries' vectors are taken from the cache, else made and kept there.

    Raises:
        InvalidInput, EmbedderError: with the query's id.
    """
    info = run.info
    rows: dict[str, Row] = {}
    options = Jsonb({"alpha": 0.5, "fusion": "weighted"})
    for number, (name, text) in enumerate(queries.items(), 1):
        try:
            # What a search would refuse is refused here, too.
            Search(text)
            vector = yield from query_embedding(info, run.embedder, text, run.policy)
        except (InvalidInput, EmbedderError) as error:
            raise type(error)(f"query {name!r}: {error}") from error
        found = yield from fetch(
            _CANDIDATES,
            {
                "query": text,
                "syntax": BASE["syntax"],
                "embedding": vector,
                "options": options,
                "depth": depth,
                "budget": BASE["budget"],
                "collection": info.collection_id,
            },
        )
        rows[name] = found[0]
        if progress is not None:
            progress("candidates", number, len(queries))
    keys = sorted({document for row in rows.values() for document in row["documents"] or ()})
    names: dict[UUID, str] = {}
    for part in _parts(keys):
        of_part = yield from fetch(_IDS, [info.collection_id, part])
        names.update((row["document_id"], row["external_id"]) for row in of_part)
    numbers = {key: number for number, key in enumerate(keys)}
    legs = {name: _legs(row, numbers) for name, row in rows.items()}
    kinds = {name: str(row["kind"]) for name, row in rows.items()}
    documents = [names.get(key, "") for key in keys]
    if not with_words:
        return Candidates(legs, kinds, documents=documents)
    words = yield from _words(info.collection_id, rows, progress)
    (total,) = yield from fetch(_LENGTHS, {"collection": info.collection_id})
    chunks = max(1, int(total["chunks"]))
    return Candidates(
        legs, kinds, words, documents, float(total["words"]) / chunks, float(total["of_titles"]) / chunks
    )


def _legs(row: Row, numbers: Mapping[UUID, int]) -> Legs:
    documents = row["documents"] or []
    return Legs(
        np.array([numbers[key] for key in documents], dtype=np.int64),
        np.array([np.nan if v is None else v for v in row["dense"] or []], dtype=np.float64),
        np.array([v or 0 for v in row["dense_ranks"] or []], dtype=np.int64),
        np.array([v or 0.0 for v in row["lexical"] or []], dtype=np.float64),
        np.array([v or 0 for v in row["lexical_ranks"] or []], dtype=np.int64),
        bool(row["known"]),
    )


def _words(
    collection_id: int, rows: Mapping[str, Row], progress: Progress | None
) -> Script[dict[str, Words]]:
    lexemes = sorted({word for row in rows.values() for word in row["known"] or ()})
    chunks = sorted(
        {
            key
            for row in rows.values()
            for key in zip(row["documents"] or (), row["ordinals"] or (), strict=True)
        }
    )
    # Per chunk: its length, that of its title, and each word's occurrences in both.
    known: dict[tuple[UUID, int], tuple[float, float, dict[str, tuple[int, int]]]] = {}
    for part in _parts(chunks):
        found = yield from fetch(
            _WORDS,
            {
                "documents": [document for document, _ in part],
                "ordinals": [ordinal for _, ordinal in part],
                "collection": collection_id,
                "lexemes": lexemes,
            },
        )
        for row in found:
            counts = zip(row["words"] or (), row["occurrences"] or (), row["titled"] or (), strict=True)
            known[part[row["place"] - 1]] = (
                row["length"],
                row["title_length"],
                {word: (occurrences or 0, titled or 0) for word, occurrences, titled in counts},
            )
        if progress is not None:
            progress("words", len(known), len(chunks))
    return {name: _words_of(row, known) for name, row in rows.items()}


def _words_of(
    row: Row, known: Mapping[tuple[UUID, int], tuple[float, float, dict[str, tuple[int, int]]]]
) -> Words:
    asked = {word: column for column, word in enumerate(row["known"] or ())}
    keys = list(zip(row["documents"] or (), row["ordinals"] or (), strict=True))
    occurrences, titled = np.zeros((2, len(keys), len(asked)))
    length, title_length = np.zeros((2, len(keys)))
    nothing: tuple[float, float, dict[str, tuple[int, int]]] = (0.0, 0.0, {})
    for place, key in enumerate(keys):
        length[place], title_length[place], counts = known.get(key, nothing)
        for word in asked.keys() & counts.keys():
            occurrences[place, asked[word]], titled[place, asked[word]] = counts[word]
    return Words(occurrences, titled, length, title_length, np.array(row["weights"] or [], dtype=np.float64))


def _parts(keys: Sequence[Any]) -> Iterator[Any]:
    for start in range(0, len(keys), _BATCH):
        yield keys[start : start + _BATCH]
