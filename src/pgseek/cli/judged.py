"""Where a command takes judged queries from: files, a golden set of the collection, or clicks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pgseek.client import Collection
from pgseek.errors import InvalidInput
from pgseek.evaluation import Beir, Qrels, read_beir, read_clicks, read_golden, read_qrels, read_queries

Folder = Annotated[
    Path | None,
    typer.Option(
        "--beir",
        metavar="FOLDER",
        help="holds queries.jsonl (or .jsonl.gz), qrels/SPLIT.tsv, and corpus.jsonl",
    ),
]
Split = Annotated[str, typer.Option(help="which judgements of the folder to use")]
Queries = Annotated[
    Path | None, typer.Option(metavar="FILE", help="a query a line, or JSON lines with id and text")
]
QrelsFile = Annotated[
    Path | None, typer.Option("--qrels", metavar="FILE", help="judgements of the queries: TREC's or BEIR's")
]
GoldenName = Annotated[
    str | None, typer.Option("--golden", metavar="NAME", help="a golden set of the collection: pgseek golden")
]
ClicksTable = Annotated[
    str | None,
    typer.Option("--clicks", metavar="TABLE", help="a table or view of clicks in the same database"),
]
QueryColumn = Annotated[str, typer.Option(help="of the clicks: the query's text")]
DocumentColumn = Annotated[str, typer.Option(help="of the clicks: the document's id")]
SignalColumn = Annotated[
    str | None,
    typer.Option(
        help="of the clicks: 1 for a click, 0 for shown only, below 0 for rejected; default: each row is 1"
    ),
]
LeastSignal = Annotated[
    float, typer.Option(help="of the clicks: what a document's signals must add up to to be relevant")
]


@dataclass(frozen=True, slots=True)
class Judged:
    """Judged queries, what to call them, and where they came from; ``beir`` is the folder they were read
    from."""

    title: str
    queries: Mapping[str, str]
    qrels: Qrels
    beir: Beir | None = None
    source: str = "judgements"


@dataclass(frozen=True, slots=True)
class Source:
    """What the options say; at most one source may be given."""

    beir: Path | None = None
    split: str = "test"
    queries: Path | None = None
    qrels: Path | None = None
    golden: str | None = None
    clicks: str | None = None
    query_column: str = "query"
    document_column: str = "document"
    signal_column: str | None = None
    least_signal: float = 2.0

    def __post_init__(self) -> None:
        given = {
            "--beir": self.beir,
            "--queries and --qrels": self.queries or self.qrels,
            "--golden": self.golden,
            "--clicks": self.clicks,
        }
        named = [name for name, value in given.items() if value is not None]
        if len(named) > 1:
            raise InvalidInput(f"judged queries are given by {' and by '.join(named)}; give one of them")
        if (self.queries is None) != (self.qrels is None):
            has, lacks = ("--queries", "--qrels") if self.qrels is None else ("--qrels", "--queries")
            raise InvalidInput(f"{has} is given without {lacks}: texts and judgements are needed, give both")

    @property
    def given(self) -> bool:
        """Whether any source is."""
        return any(one is not None for one in (self.beir, self.queries, self.golden, self.clicks))

    def files(self) -> Judged | None:
        """Read what lies in files, None if nothing does: wrong files are told before anything is connected
        to."""
        if self.beir is not None:
            found = read_beir(self.beir, self.split)
            return Judged(f"{found.name}/{self.split}", found.queries, found.qrels, found)
        if self.queries is not None and self.qrels is not None:
            return Judged(self.qrels.name, read_queries(self.queries), read_qrels(self.qrels))
        return None

    def of(self, docs: Collection) -> Judged | None:
        """Read what lies in the database, None if nothing does."""
        if self.golden is not None:
            found = read_golden(docs, self.golden)
            return Judged(f"golden set {found.name}", found.queries, found.qrels)
        if self.clicks is not None:
            clicks = read_clicks(
                docs,
                self.clicks,
                query_column=self.query_column,
                document_column=self.document_column,
                signal_column=self.signal_column,
                least_signal=self.least_signal,
            )
            title = (
                f"{self.clicks}: {clicks.rows:,} rows, {clicks.pairs:,} pairs, {clicks.judged:,} judged; "
                f"{len(clicks.queries):,} of {clicks.all_queries:,} queries"
            )
            return Judged(title, clicks.queries, clicks.qrels, source="clicks")
        return None


def needed(judged: Judged | None, another: str = "--golden NAME") -> Judged:
    """Return what was read, or raise `InvalidInput`: there was no source. ``another`` is one more of them."""
    if judged is None:
        raise InvalidInput(
            f"no judged queries are given: --beir FOLDER, --queries FILE with --qrels FILE, or {another}"
        )
    return judged
