"""Who reads a query's words: the collection's database, as searches there do, or plain folding."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pgseek.errors import InvalidInput
from pgseek.steps import Script, fetch
from pgseek.types import Syntax

_WORD = re.compile(r"\w+")
_READ = """
SELECT t.lexemes, t.known, t.dimensions, t.weights, t.origins, t.restriction::text AS restriction,
       c.languages, pgseek.query_kind(%(query)s) AS kind
  FROM pgseek.require_collection(%(collection)s) AS c,
       pgseek.read_query(c, %(query)s, %(syntax)s, %(typos)s) AS t
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A query's words: ``known`` ones, heaviest first, with dimensions, weights and what was typed for them.

    ``any`` says whether the query holds a word at all, ``kind`` of what kind it is, None if nobody knows.
    """

    known: tuple[str, ...]
    dimensions: tuple[int, ...]
    weights: tuple[float, ...]
    origins: tuple[str | None, ...]
    any: bool
    languages: tuple[str, ...]
    kind: str | None = None


class Words(Protocol):
    """Reads queries."""

    def read(self, query: str, syntax: Syntax, typos: bool) -> Asked:
        """Return the words of a query. Raises `InvalidInput` for what only the database can answer."""
        ...


class DatabaseWords:
    """The words as the collection's own searches read them: dictionaries, statistics, typos and prefixes."""

    def __init__(self, run: Callable[[Script[Any]], Any], collection: str) -> None:
        self._run = run
        self._collection = collection

    def read(self, query: str, syntax: Syntax, typos: bool) -> Asked:
        """Return the words, weighed by the collection's statistics of now."""
        (row,) = self._run(
            fetch(_READ, {"collection": self._collection, "query": query, "syntax": syntax, "typos": typos})
        )
        if row["restriction"] is not None:
            raise InvalidInput(
                f"the query {query!r} says what hits must or must not hold ({row['restriction']}), which "
                "only a search in the database decides: give syntax='plain', or search the collection"
            )
        return Asked(
            tuple(row["known"] or ()),
            tuple(row["dimensions"] or ()),
            tuple(row["weights"] or ()),
            tuple(row["origins"] or ()),
            bool(row["lexemes"]),
            tuple(row["languages"]),
            row["kind"],
        )


@dataclass(slots=True)
class FoldedWords:
    """Words without a dictionary: lower case, accents off, and through ``stem`` where there is one.

    BM25 has the formula and the constants of `pgseek.weigh` and `pgseek.bm25_terms`: a word's weight in a row
    is tf / (tf + k1 (1 - b + b length / average length)), in a query its count there times
    ln(1 + (N - df + 0.5) / (df + 0.5)); a word of the title counts ``title_weight`` times.
    """

    stem: Callable[[str], str] | None = None
    k1: float = 1.2
    b: float = 0.75
    title_weight: float = 2.0
    _dimensions: dict[str, int] = field(default_factory=dict)
    _documents: Counter[int] = field(default_factory=Counter)
    _rows: int = 0

    def read(self, query: str, syntax: Syntax, typos: bool) -> Asked:  # noqa: ARG002
        """Return the words; typos are not corrected, since that takes the database's vocabulary."""
        if syntax == "web" and re.search(r'["“”„*]|(?:^|\s)[-+][^\s\d]', query):
            raise InvalidInput(
                f'the query {query!r} holds one of the signs + - * ", which only a search in the database '
                "obeys: give syntax='plain', or search a collection"
            )
        counted = Counter(self.words(query))
        known = []
        for word, times in counted.items():
            dimension = self._dimensions.get(word)
            df = self._documents[dimension] if dimension is not None else 0
            if dimension is not None and df:
                weight = times * math.log(1 + (self._rows - df + 0.5) / (df + 0.5))
                known.append((-weight, word, dimension))
        known.sort()
        return Asked(
            tuple(word for _, word, _ in known),
            tuple(dimension for _, _, dimension in known),
            tuple(-weight for weight, _, _ in known),
            (None,) * len(known),
            bool(counted),
            ("folded words",),
        )

    def words(self, text: str) -> list[str]:
        """Return the words of a text, in order."""
        folded = unicodedata.normalize("NFKD", text.lower())
        found = _WORD.findall("".join(sign for sign in folded if not unicodedata.combining(sign)))
        return found if self.stem is None else [self.stem(word) for word in found]

    def weigh(self, texts: Sequence[tuple[str, str]]) -> list[dict[int, float]]:
        """Return the weights of all rows there are, by their titles and texts, and remember how many have
        each word."""
        counts: list[Counter[int]] = []
        for title, text in texts:
            counted: Counter[str] = Counter(self.words(text))
            weighed = {word: float(times) for word, times in counted.items()}
            for word in self.words(title):
                weighed[word] = weighed.get(word, 0.0) + self.title_weight
            row: Counter[int] = Counter()
            for word, times in weighed.items():
                row[self._dimensions.setdefault(word, len(self._dimensions))] = times  # type: ignore[assignment]
            counts.append(row)
        self._rows = len(counts)
        self._documents = Counter(dimension for row in counts for dimension in row)
        lengths = [sum(row.values()) for row in counts]
        average = sum(lengths) / len(lengths) if lengths else 1.0
        found = []
        for row, length in zip(counts, lengths, strict=True):
            norm = self.k1 * (1 - self.b + self.b * length / (average or 1.0))
            found.append({dimension: tf / (tf + norm) for dimension, tf in row.items()})
        return found
