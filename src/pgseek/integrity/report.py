"""What an examination of a database found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# So many examples of each finding.
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is broken ``count`` times; ``collection`` is None where it belongs to none.

    ``harmless`` is what searches do not notice, and what goes away by itself or at the next ingest.
    """

    key: str
    collection: str | None
    count: int
    what: str
    examples: tuple[str, ...]
    mend: str
    harmless: bool = False

    def __str__(self) -> str:
        named = f" ({', '.join(self.examples)}{', …' if self.count > len(self.examples) else ''})"
        return f"{self.count:,} {self.what}{named if self.examples else ''}; {self.mend}"


@dataclass(frozen=True, slots=True)
class Examined:
    """A collection that was examined: ``broken`` has a number for every rule looked at, 0 included."""

    name: str
    documents: int
    chunks: int
    embeddings: int
    queued: int
    broken: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Examination:
    """All of one moment, as one transaction sees it.

    ``rules`` says in words what the keys of `Examined.broken` stand for. ``pages`` tells whether PostgreSQL's
    amcheck read the tables and indexes page by page, and if not, why.
    """

    collections: tuple[Examined, ...]
    findings: tuple[Finding, ...]
    rules: Mapping[str, str]
    pages: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing was found but what is harmless."""
        return all(finding.harmless for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Repaired:
    """Rows that nothing referred to and that were deleted, chunks whose words were made anew, and how many
    documents were put in the queue, by collection.
    """

    deleted: int
    corrected: int
    queued: Mapping[str, int]
