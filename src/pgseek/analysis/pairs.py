"""Labelled pairs, and their similarities: what thresholds are calibrated with."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from psycopg.sql import SQL, Identifier

from pgseek import similarity, spaces
from pgseek.analysis.collection import Analysed, Progress
from pgseek.embedding import Embedding
from pgseek.errors import InvalidInput
from pgseek.prepare import document_id
from pgseek.search import query_embedding
from pgseek.steps import Script, fetch
from pgseek.types import SpaceInfo, check_whole

BATCH = 1000
_TRUE = {"1", "true", "yes"}
_FALSE = {"0", "false", "no"}
_MEANS = """
WITH pairs AS (
    SELECT u.one, u.other, u.place
      FROM unnest(%(ones)s::uuid[], %(others)s::uuid[]) WITH ORDINALITY AS u (one, other, place)),
means AS MATERIALIZED (
    SELECT e.document_id, {vector}.avg({vector}.l2_normalize(e.embedding::{vector}.vector)) AS mean
      FROM {table} e
      JOIN pgseek.chunks c ON c.collection_id = e.collection_id AND c.document_id = e.document_id
       AND c.ordinal = e.ordinal AND c.kind = 'chunk'
     WHERE e.collection_id = %(collection)s AND e.document_id = ANY (%(ones)s::uuid[] || %(others)s::uuid[])
     GROUP BY e.document_id)
SELECT p.place, 1 - (a.mean OPERATOR({vector}.<=>) b.mean) AS similarity
  FROM pairs p JOIN means a ON a.document_id = p.one JOIN means b ON b.document_id = p.other ORDER BY p.place
"""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two documents by id, or two texts, and whether they are the same."""

    one: str
    other: str
    same: bool


@dataclass(frozen=True, slots=True)
class MeasuredPairs:
    """Pairs with their similarities, and how many pairs of the collection each stands for.

    ``missing`` pairs could not be measured: a document is not there, or has no vector.
    """

    pairs: tuple[tuple[str, str], ...]
    similarities: tuple[float, ...]
    same: tuple[bool, ...]
    weights: tuple[float, ...] | None = None
    missing: int = 0


def read_pairs(path: str | Path, columns: int = 3) -> list[tuple[str, ...]]:
    """Read a file of pairs: CSV, TSV (by its ending) or JSON lines, a pair a line.

    A line has ``columns`` values, in JSON an array or an object in the order of its keys, the last of them
    the label: 1, true, yes, or 0, false, no. A first line whose label is none is a heading.

    Raises:
        InvalidInput: no such file, or a line that is no pair; with its number.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
    found: list[tuple[str, ...]] = []
    for number, values in _lines(path, text):
        label = values[-1].strip().lower() if values else ""
        if len(values) == columns and all(values) and label in _TRUE | _FALSE:
            found.append((*values[:-1], "1" if label in _TRUE else "0"))
        elif number > 1 or not values:
            raise InvalidInput(
                f"{path}:{number}: {values!r} is not {columns - 1} values and a label, such as 1 or 0"
            )
    return found


def _lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    if path.suffix in {".jsonl", ".ndjson", ".json"}:
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                made = json.loads(line)
            except ValueError as error:
                raise InvalidInput(f"{path}:{number}: not JSON: {error}") from error
            values = list(made.values()) if isinstance(made, dict) else made
            yield number, [_as_text(one) for one in values] if isinstance(values, list) else []
        return
    reader = csv.reader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ",")
    for row in reader:
        if row:
            yield reader.line_num, row


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def labelled(rows: Iterable[Sequence[str]]) -> list[LabelledPair]:
    """Return the pairs of rows of three, as `read_pairs` reads them."""
    return [LabelledPair(one, other, label == "1") for one, other, label in rows]


def document_pairs(
    collection: Analysed, pairs: Iterable[LabelledPair], *, space: int | str | None = None
) -> MeasuredPairs:
    """Return the cosines of pairs of documents, by their mean vectors, as `find_duplicates` compares them."""
    info = collection.info()
    of = collection._client._run(spaces.with_vectors(info, space))
    found: MeasuredPairs = collection._client._run(_documents(of, list(pairs)))
    return found


def sampled_pairs(
    collection: Analysed,
    known: Iterable[tuple[str, str]] | None = None,
    *,
    documents: int = 500,
    neighbours: int = 20,
    space: int | str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> MeasuredPairs:
    """Return pairs of the collection itself: known duplicates, and different documents that are near.

    ``known`` are pairs of ids, all that there are; by default the exact copies, of which each makes a pair
    with the first. The others are sampled: some ``documents``, each with the documents of its ``neighbours``
    nearest chunks, taken for different unless they are known. These are the pairs that a threshold may
    wrongly let through; each stands for as many as there would be had all documents been taken, so the
    prevalence needs no guess. Nothing is known of thresholds that even the last neighbours reach. A duplicate
    that is not known counts as a mistake: precision is then a lower bound.

    Raises:
        InvalidInput.
    """
    for name, value, most in (("documents", documents, 1_000_000), ("neighbours", neighbours, 1000)):
        check_whole(name, value, most)
    info = collection.info()
    of = collection._client._run(spaces.with_vectors(info, space))
    script = _sampled(of, known, documents, neighbours, seed, progress)
    found: MeasuredPairs = collection._client._run(script)
    return found


def question_pairs(
    collection: Analysed, pairs: Iterable[LabelledPair], *, progress: Progress | None = None
) -> MeasuredPairs:
    """Return the cosines of pairs of questions, embedded as queries, through the cache."""
    given = list(pairs)
    run: Embedding = collection._embedding(collection.info())
    texts = sorted({text for pair in given for text in (pair.one, pair.other)})
    vectors: Mapping[str, Any] = collection._client._run(_questions(run, texts, progress))
    return MeasuredPairs(
        tuple((pair.one, pair.other) for pair in given),
        tuple(float(similarity.scores(vectors[pair.one], vectors[pair.other])) for pair in given),
        tuple(pair.same for pair in given),
    )


def answered_queries(
    collection: Analysed, queries: Iterable[tuple[str, bool]], *, progress: Progress | None = None
) -> MeasuredPairs:
    """Return the dense score of each query's nearest chunk; ``same`` is whether the query has an answer."""
    given = list(queries)
    found = []
    for done, (query, answered) in enumerate(given, 1):
        hits = collection.search(query, k=1, alpha=1.0, syntax="plain", snippets=False)
        if hits and hits[0].dense_score is not None:
            found.append(((query, hits[0].id), float(hits[0].dense_score), answered))
        if progress is not None:
            progress("searching", done, len(given))
    return MeasuredPairs(
        tuple(pair for pair, _, _ in found),
        tuple(score for _, score, _ in found),
        tuple(answered for _, _, answered in found),
        missing=len(given) - len(found),
    )


def _documents(of: SpaceInfo, given: Sequence[LabelledPair]) -> Script[MeasuredPairs]:
    schema = yield from spaces.vector_schema()
    statement = SQL(_MEANS).format(vector=Identifier(schema), table=spaces.table_of(of.space_id))
    measured: list[tuple[LabelledPair, float]] = []
    for start in range(0, len(given), BATCH):
        batch = given[start : start + BATCH]
        rows = yield from fetch(
            statement,
            {
                "collection": of.collection_id,
                "ones": [document_id(pair.one) for pair in batch],
                "others": [document_id(pair.other) for pair in batch],
            },
        )
        measured += [
            (batch[row["place"] - 1], row["similarity"]) for row in rows if np.isfinite(row["similarity"])
        ]
    return MeasuredPairs(
        tuple((pair.one, pair.other) for pair, _ in measured),
        tuple(similarity for _, similarity in measured),
        tuple(pair.same for pair, _ in measured),
        missing=len(given) - len(measured),
    )


def _sampled(
    of: SpaceInfo,
    known: Iterable[tuple[str, str]] | None,
    documents: int,
    neighbours: int,
    seed: int,
    progress: Progress | None,
) -> Script[MeasuredPairs]:
    if known is None:
        copies = yield from fetch(
            "SELECT array_agg(external_id ORDER BY document_id) AS ids FROM pgseek.documents"
            " WHERE collection_id = %s GROUP BY content_hash HAVING count(*) > 1",
            [of.collection_id],
        )
        known = [(row["ids"][0], one) for row in copies for one in row["ids"][1:]]
    pairs = sorted({tuple(sorted(pair)) for pair in known})
    positive = yield from _documents(of, [LabelledPair(one, other, True) for one, other in pairs])
    counted = yield from fetch(
        SQL("SELECT count(DISTINCT document_id) AS documents FROM {} WHERE collection_id = %s").format(
            spaces.table_of(of.space_id)
        ),
        [of.collection_id],
    )
    total = int(counted[0]["documents"])
    picked = yield from _picked(of, min(documents, total), seed)
    near: dict[tuple[UUID, UUID], float] = {}
    for start in range(0, len(picked), 100):
        rows = yield from fetch(
            "SELECT * FROM pgseek.similar_pairs(%s, %s::uuid[], -1, %s, %s)",
            [of.space_id, picked[start : start + 100], neighbours, neighbours],
        )
        for row in rows:
            near[row["document_id"], row["other_id"]] = row["similarity"]
        if progress is not None:
            progress("sampling", min(start + 100, len(picked)), len(picked))
    same = {tuple(sorted((document_id(one), document_id(other)))) for one, other in pairs}
    different = {pair: value for pair, value in near.items() if pair not in same}
    names: dict[UUID, str] = {}
    ids = sorted({one for pair in different for one in pair})
    for start in range(0, len(ids), BATCH):
        rows = yield from fetch(
            "SELECT document_id, external_id FROM pgseek.documents"
            " WHERE collection_id = %s AND document_id = ANY (%s)",
            [of.collection_id, ids[start : start + BATCH]],
        )
        names.update((row["document_id"], row["external_id"]) for row in rows)
    share = len(picked) / max(1, total)
    # A pair is met from either side.
    stands_for = 1 / (1 - (1 - share) ** 2) if picked else 1.0
    return MeasuredPairs(
        (*positive.pairs, *((names.get(a, str(a)), names.get(b, str(b))) for a, b in different)),
        (*positive.similarities, *different.values()),
        (*positive.same, *([False] * len(different))),
        (*([1.0] * len(positive.pairs)), *([stands_for] * len(different))),
        positive.missing,
    )


def _picked(of: SpaceInfo, wanted: int, seed: int) -> Script[list[UUID]]:
    """Return a sample of documents with vectors: what follows places drawn at random among the ids, which are
    hashes."""
    if not wanted:
        return []
    draw = random.Random(seed)  # noqa: S311 (a sample, no secret)
    places = sorted(UUID(int=draw.getrandbits(128)) for _ in range(wanted))
    # With all of them there is nothing to draw.
    rows = yield from fetch(
        SQL(
            "SELECT DISTINCT n.document_id FROM unnest(%s::uuid[]) AS p (place) CROSS JOIN LATERAL ("
            " SELECT e.document_id FROM {table} e WHERE e.collection_id = %s AND e.document_id >= p.place"
            " ORDER BY e.document_id LIMIT 1) AS n ORDER BY n.document_id"
        ).format(table=spaces.table_of(of.space_id)),
        [places, of.collection_id],
    )
    found = [row["document_id"] for row in rows]
    if len(found) < wanted:
        # Places that met the same document, or none: fill up in the order of the ids.
        more = yield from fetch(
            SQL(
                "SELECT DISTINCT e.document_id FROM {table} e WHERE e.collection_id = %s"
                " AND e.document_id <> ALL (%s) ORDER BY e.document_id LIMIT %s"
            ).format(table=spaces.table_of(of.space_id)),
            [of.collection_id, found, wanted - len(found)],
        )
        found += [row["document_id"] for row in more]
    return found


def _questions(run: Embedding, texts: Sequence[str], progress: Progress | None) -> Script[dict[str, Any]]:
    found = {}
    for done, text in enumerate(texts, 1):
        found[text] = yield from query_embedding(run.info, run.embedder, text, run.policy)
        if progress is not None:
            progress("embedding", done, len(texts))
    return found
