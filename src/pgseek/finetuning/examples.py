"""What a model learns from: queries with the documents that answer them, or do not."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pgseek.errors import InvalidInput
from pgseek.evaluation.runs import Searched
from pgseek.evaluation.trec import Qrels
from pgseek.passages import embedding_text
from pgseek.prepare import document_id
from pgseek.steps import Script, fetch

Kind = Literal["pairs", "scored", "triplets"]
KEYS = ("query", "document", "text", "score", "negative_documents", "negatives")
# The same in a table, which has one of each.
_SINGULAR = {"negative_document": "negative_documents", "negative": "negatives"}
_BATCH = 5000
# Ids that a message names.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Example:
    """A query, and a text that answers it: ``text``, or that of the stored document with the id
    ``document``.

    With both, the text is what is learnt, and the document what it is a part of. ``score``, 0..1, says how
    well it does; without one it does. ``negatives`` are texts that do not answer it, ``negative_documents``
    stored ones.

    Raises:
        InvalidInput: the query is empty, there is neither document nor text, or the score lies outside.
    """

    query: str
    document: str = ""
    text: str = ""
    score: float | None = None
    negative_documents: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("query", "document", "text"):
            if not isinstance(getattr(self, name), str):
                raise InvalidInput(f"{name} is {getattr(self, name)!r}, but must be a text")
        if not self.query.strip():
            raise InvalidInput("the query is empty; give at least one word")
        if not self.document and not self.text.strip():
            raise InvalidInput("give the id of a stored document, or a text that is not empty")
        score = self.score
        if score is not None and (
            isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1
        ):
            raise InvalidInput(f"score is {score!r}, but must lie in 0..1: divide it by the highest there is")
        for name in ("negatives", "negative_documents"):
            for one in getattr(self, name):
                if not isinstance(one, str) or not one.strip():
                    raise InvalidInput(f"{name} holds {one!r}, but must hold texts that are not empty")


def read_examples(path: str | Path) -> list[Example]:
    """Read examples: JSON lines with the names of `Example`, or a table (.csv, .tsv) with a header of them.

    In a table ``negative_document`` and ``negative`` are one each. Other columns are passed over.

    Raises:
        InvalidInput: no such file, no example in it, or one that cannot be; names the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read examples from {path}: {error}") from error
    table = path.suffix.lower() in {".csv", ".tsv"}
    rows = _table(text, "\t" if path.suffix.lower() == ".tsv" else ",") if table else _lines(path, text)
    found = []
    for number, row in rows:
        try:
            found.append(_example(row))
        except InvalidInput as error:
            raise InvalidInput(f"{path}:{number}: {error}") from error
    if not found:
        raise InvalidInput(f"{path} holds no example")
    return found


def from_qrels(queries: Mapping[str, str], qrels: Qrels) -> list[Example]:
    """Return an example for each document judged relevant (1 and more), of the queries that have a text.

    Raises:
        InvalidInput: none of the judged queries has one.
    """
    found = [
        Example(queries[name], document)
        for name, judged in qrels.items()
        if name in queries
        for document, grade in judged.items()
        if grade > 0
    ]
    if not found:
        raise InvalidInput(
            f"none of the {len(qrels):,} judged queries is among the {len(queries):,} queries with a text "
            "that are there: a split needs the texts of its own queries"
        )
    return found


def title_pairs(collection: Searched, most: int | None = None, seed: int = 42) -> list[Example]:
    """Return titles as queries for the texts below them: pairs that need no judgement.

    Documents without a title, or whose text is no more than it, are left out; of more than ``most`` a sample.

    Raises:
        InvalidInput: no document has a title.
    """
    rows = collection._client._run(_titled(collection))
    found = [
        Example(row["title"], row["external_id"], row["body"])
        for row in rows
        if row["title"].strip() and row["body"].strip() and row["body"].strip() != row["title"].strip()
    ]
    if not found:
        raise InvalidInput(f"no document of collection {collection.name!r} has a title with a text below it")
    return sorted(sorted(found, key=lambda one: _key(one.query, seed))[:most], key=lambda one: one.query)


def with_texts(collection: Searched, examples: Sequence[Example]) -> list[Example]:
    """Return examples whose documents are replaced by their texts, read as they are embedded: title, then
    body.

    Raises:
        InvalidInput: a document is not in the collection.
    """
    ids = sorted({name for one in examples for name in (one.document, *one.negative_documents) if name})
    texts = collection._client._run(_texts(collection, ids))
    missing = [name for name in ids if name not in texts]
    if missing:
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        raise InvalidInput(
            f"collection {collection.name!r} has no document {', '.join(map(repr, missing[:_NAMED]))}{more}, "
            "but the examples name it: store it first, or leave the examples out"
        )
    return [
        replace(
            one,
            document="",
            text=one.text or texts[one.document],
            negative_documents=(),
            negatives=(*(texts[name] for name in one.negative_documents), *one.negatives),
        )
        for one in examples
    ]


def kind_of(examples: Sequence[Example]) -> Kind:
    """Return what all examples are: 'scored', 'triplets' with negatives, else 'pairs'.

    Raises:
        InvalidInput: some are of one kind, and some of another.
    """
    scored = sum(one.score is not None for one in examples)
    negative = sum(bool(one.negatives or one.negative_documents) for one in examples)
    for count, what in ((scored, "scores"), (negative, "negatives")):
        if count not in (0, len(examples)):
            raise InvalidInput(
                f"{count:,} of {len(examples):,} examples have {what}: give them to all, or to none"
            )
    if scored and negative:
        raise InvalidInput("the examples have scores and negatives: leave one of the two out")
    return "scored" if scored else "triplets" if negative else "pairs"


def split(examples: Sequence[Example], dev: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Return examples to train on and to look at meanwhile, a share ``dev`` of the queries.

    A query's examples all go to the same side, letter case and spaces aside. The side is drawn by a hash of
    seed and query, so that it stays where others are added.

    Raises:
        InvalidInput: there are too few queries to leave one out.
    """
    names = sorted({_normal(one.query) for one in examples}, key=lambda name: _key(name, seed))
    count = round(len(names) * dev)
    if dev > 0 and (count == 0 or count == len(names)):
        raise InvalidInput(
            f"there are {len(names):,} different queries, of which a share of {dev:g} leaves none on one "
            "side: give more, or set dev to 0"
        )
    left_out = set(names[:count])
    sides: tuple[list[Example], list[Example]] = ([], [])
    for one in examples:
        sides[_normal(one.query) in left_out].append(one)
    return sides


def judgements(examples: Iterable[Example]) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Return the queries and qrels that examples with stored documents amount to; a score counts from 0.5."""
    ids: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for one in examples:
        if one.document and (one.score is None or one.score >= 0.5):
            name = ids.setdefault(one.query, f"q{len(ids) + 1}")
            qrels.setdefault(name, {})[one.document] = 1
    return {name: query for query, name in ids.items()}, qrels


def unique(examples: Iterable[Example]) -> list[Example]:
    """Return examples without those that repeat an earlier one."""
    return list(dict.fromkeys(examples))


def _normal(query: str) -> str:
    return " ".join(query.casefold().split())


def _key(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def _table(text: str, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
    for row in reader:
        found: dict[str, Any] = {}
        for name, value in row.items():
            if value and name:
                many = _SINGULAR.get(name)
                found[many or name] = [value] if many else value
        if "score" in found:
            # What is no number is refused below, as it was given.
            with contextlib.suppress(ValueError):
                found["score"] = float(found["score"])
        yield reader.line_num, found


def _lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidInput(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InvalidInput(f'{path}:{number}: not an object such as {{"query": "…", "document": "id"}}')
        for one, many in _SINGULAR.items():
            if one in row:
                row[many] = [row.pop(one)]
        yield number, row


def _example(row: Mapping[str, Any]) -> Example:
    if "query" not in row:
        raise InvalidInput(f"there is no query; an example has some of {', '.join(KEYS)}")
    given = {name: row[name] for name in KEYS if row.get(name) is not None}
    for name in ("negatives", "negative_documents"):
        many = given.get(name, ())
        if isinstance(many, str) or not isinstance(many, Iterable):
            raise InvalidInput(f"{name} is {many!r}, but must be a list")
        given[name] = tuple(many)
    score = given.get("score")
    if isinstance(score, float) and not math.isfinite(score):
        raise InvalidInput(f"score is {score}, but must lie in 0..1")
    return Example(**given)


def _titled(collection: Searched) -> Script[list[dict[str, Any]]]:
    info = collection.info()
    return (
        yield from fetch(
            "SELECT d.external_id, d.title, d.body FROM pgseek.documents d"
            " WHERE d.collection_id = %s AND d.title <> '' ORDER BY d.document_id",
            [info.collection_id],
        )
    )


def _texts(collection: Searched, ids: Sequence[str]) -> Script[dict[str, str]]:
    info = collection.info()
    found: dict[str, str] = {}
    batches = iter(ids)
    while batch := list(islice(batches, _BATCH)):
        rows = yield from fetch(
            "SELECT d.external_id, d.title, d.body FROM pgseek.documents d"
            " WHERE d.collection_id = %s AND d.document_id = ANY (%s)",
            [info.collection_id, [document_id(name) for name in batch]],
        )
        found.update((row["external_id"], embedding_text(row["title"], row["body"])) for row in rows)
    return found
