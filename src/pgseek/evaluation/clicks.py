"""Judgements from what people clicked: a table of queries, documents and signals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from psycopg import errors as pg
from psycopg.sql import SQL, Composed, Identifier

from pgseek.errors import InvalidInput, PgseekError
from pgseek.evaluation.runs import Searched
from pgseek.evaluation.trec import Qrels
from pgseek.steps import Script, fetch

if TYPE_CHECKING:
    from sqlalchemy import Select

# A pair with less than this counts as chance.
LEAST_SIGNAL = 2.0
# What the server says of a table, a column or a signal that is not there or no number.
_WRONG = (pg.UndefinedTable, pg.UndefinedColumn, pg.UndefinedFunction, pg.InvalidSchemaName, pg.CannotCoerce)
# From this share of the query's highest sum on, a document has grade 2.
OFTEN = 0.5


@dataclass(frozen=True, slots=True)
class Clicks:
    """Judgements made of clicks. Queries are their own ids.

    ``rows`` were read; ``pairs`` of a query and a document are in them, of which ``judged`` have enough
    signal. Of ``all_queries``, those without a relevant document are left out of ``queries``.
    """

    queries: dict[str, str]
    qrels: Qrels
    rows: int
    pairs: int
    judged: int
    all_queries: int


def read_clicks(
    docs: Searched,
    table: str | Select[Any],
    *,
    query_column: str = "query",
    document_column: str = "document",
    signal_column: str | None = None,
    least_signal: float = LEAST_SIGNAL,
) -> Clicks:
    """Read clicks from the collection's database, and make judgements of them, see `judge_clicks`.

    ``table`` is the name of a table or view, with its schema if need be, or a SQLAlchemy select; the columns
    are looked for in it. Rows are summed up by the database.

    Raises:
        InvalidInput: no such table or column, a signal that is no number, or no query has a relevant
            document.
        DatabaseError: the database refused otherwise.
    """
    columns = [query_column, document_column, *([] if signal_column is None else [signal_column])]
    for column in columns:
        if not isinstance(column, str) or not column:
            raise InvalidInput(f"a column of the clicks is {column!r}, but must be its name")
    rows = docs._client._run(_read(_from(table), columns))
    return judge_clicks(
        [(row["query"], row["document"], row["signal"]) for row in rows],
        least_signal=least_signal,
        rows=sum(row["rows"] for row in rows),
    )


def judge_clicks(
    signals: Iterable[tuple[str, str, float]],
    *,
    least_signal: float = LEAST_SIGNAL,
    rows: int | None = None,
) -> Clicks:
    """Make graded judgements of signals: (query, document id, signal), several for a pair are added up.

    A signal is 1 for a click, more for what says more (a purchase), 0 for a document that was shown and not
    clicked, below 0 for one that was rejected. A document whose sum is at least half of the query's highest
    is judged 2, one with less but at least ``least_signal`` 1, one whose sum is 0 or less 0; between those
    lies chance, and the document stays unjudged. So does a query none of whose documents reaches
    ``least_signal``.

    Raises:
        InvalidInput: a signal is no finite number, or no query has a relevant document.
    """
    if isinstance(least_signal, bool) or not isinstance(least_signal, int | float) or not least_signal > 0:
        raise InvalidInput(f"least_signal is {least_signal!r}, but must be a number above 0")
    sums: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    read = 0
    for query, document, signal in signals:
        read += 1
        number = _number(query, document, signal)
        if query.strip():
            sums[query.strip()][document] += number
    qrels: dict[str, dict[str, int]] = {}
    for query, by_document in sums.items():
        highest = max(by_document.values())
        if highest < least_signal:
            continue
        qrels[query] = {
            document: 0 if total <= 0 else 2 if total >= OFTEN * highest else 1
            for document, total in by_document.items()
            if total <= 0 or total >= least_signal
        }
    if not qrels:
        raise InvalidInput(
            f"none of the {len(sums):,} queries clicked for has a document with a signal of "
            f"{least_signal:g} or more; gather more clicks, or lower least_signal (--least-signal)"
        )
    return Clicks(
        queries={query: query for query in qrels},
        qrels=qrels,
        rows=read if rows is None else rows,
        pairs=sum(map(len, sums.values())),
        judged=sum(map(len, qrels.values())),
        all_queries=len(sums),
    )


def _number(query: str, document: str, signal: Any) -> float:
    if (
        isinstance(signal, bool)
        or not isinstance(signal, int | float | Decimal)
        or not abs(float(signal)) < float("inf")
    ):
        raise InvalidInput(
            f"the signal of document {document!r} for query {query!r} is {signal!r}, but must be a "
            "number: 1 for a click, 0 for a document that was shown only"
        )
    return float(signal)


def _from(table: str | Select[Any]) -> tuple[Composed, dict[str, Any] | None]:
    """Return what stands after FROM, and its parameters."""
    if isinstance(table, str):
        parts = table.split(".")
        if not all(parts):
            raise InvalidInput(
                f"the table of clicks is {table!r}, but must be a name such as clicks or shop.clicks"
            )
        return SQL("{}").format(Identifier(*parts)), None
    from sqlalchemy import Select as SelectOf  # noqa: PLC0415 (takes a while to load)
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg  # noqa: PLC0415

    if not isinstance(table, SelectOf):
        raise InvalidInput(
            f"the clicks are a {type(table).__name__}, but must be the name of a table, or a SQLAlchemy "
            "select"
        )
    dialect: Any = PGDialect_psycopg
    compiled = table.compile(dialect=dialect(), compile_kwargs={"render_postcompile": True})
    text: Any = f"({compiled})"
    return Composed([SQL(text)]), dict(compiled.params)


def _read(source: tuple[Composed, dict[str, Any] | None], columns: list[str]) -> Script[list[Any]]:
    query, document, *signal = (Identifier("c", column) for column in columns)
    statement = SQL(
        "SELECT {query}::text AS query, {document}::text AS document, {signal} AS signal, count(*) AS rows"
        " FROM {source} AS c WHERE {query} IS NOT NULL AND {document} IS NOT NULL"
        " GROUP BY 1, 2 ORDER BY 1, 2"
    ).format(
        query=query,
        document=document,
        signal=SQL("coalesce(sum({}), 0)::float8").format(signal[0]) if signal else SQL("count(*)::float8"),
        source=source[0],
    )
    try:
        return (yield from fetch(statement, source[1]))
    except PgseekError as error:
        if isinstance(error.__cause__, _WRONG):
            told = " ".join(str(error.__cause__).split())
            raise InvalidInput(
                f"the clicks cannot be read: {told}; name the table and its columns (--query-column, "
                "--document-column, and --signal-column, which holds numbers)"
            ) from error
        raise
