"""Loading: what an ingest does before and after its batches, so that a large one costs less.

`Load` watches how much comes and leaves an index out when a new one will be cheaper; `settle` builds what
is missing, and brings the statistics up to date.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.sql import SQL, Identifier

from pgseek import indexes, spaces
from pgseek.steps import Script, fetch, fetch_one, join, start, transact
from pgseek.types import CollectionInfo, Indexes

# Rows: an index over more is being used, and is left out only where that was asked for.
SERVING_FROM = 100_000
# Up to this many chunks an ingest may rewrite them all to weigh them anew.
REWEIGH_UP_TO = 50_000
# The planner's statistics are gathered anew after an ingest that wrote this many chunks.
ANALYZE_FROM = 1000
# Sampled rows are three hundred times as many: for each the index of words is computed anew.
STATISTICS_TARGET = 20


@dataclass(slots=True)
class Load:
    """How much is stored and how much comes. ``size`` is the length of the source, None if not known."""

    info: CollectionInfo
    how: Indexes
    size: int | None
    # Chunks that the collection had, and that came since.
    stored: int
    # Whether the collection held nothing when the ingest began.
    empty: bool
    chunks: int = 0
    # Which of the two indexes may still be left out.
    codes: bool = True
    graph: bool = True
    # Whether the planner has yet to see the tables with something in them.
    unseen: bool = True

    @classmethod
    def begin(cls, info: CollectionInfo, how: Indexes, size: int | None) -> Script[Load]:
        """Look at what is stored."""
        row = yield from fetch_one(
            "SELECT s.chunks, EXISTS (SELECT FROM pgseek.documents d"
            " WHERE d.collection_id = s.collection_id) AS filled"
            " FROM pgseek.collection_statistics s WHERE s.collection_id = %s",
            [info.collection_id],
        )
        stored, filled = (row["chunks"], row["filled"]) if row else (0, True)
        left_out = how != "keep"
        # Nothing stored is nothing indexed: the first build comes in the end anyway.
        return cls(info, how, size, stored, not filled, codes=left_out, graph=left_out and stored > 0)

    def first_rows(self) -> Script[None]:
        """After the first batch is written: let the planner know that keys are keys, if it never looked.

        Without statistics it takes each batch's keys for common values, and reads whole tables for them.
        """
        if not self.unseen:
            return
        self.unseen = False
        for table in ("documents", "chunks", f"embeddings_{self.info.space_id}"):
            if (yield from _never_analyzed(table)):
                yield from _analyze_keys(table)

    def expect(self, chunks: int, read: int) -> Script[None]:
        """Take in that a batch of so many chunks is about to be written; ``read`` documents are behind us."""
        self.chunks += chunks
        if not self.chunks:
            return
        # As many again as there were, unless the length of the source says how many.
        coming = self.chunks
        if self.size is not None:
            coming = int((self.size - read) * self.chunks / max(read, 1)) + chunks
        stored = self.stored + self.chunks - chunks
        if self.how == "auto" and stored > SERVING_FROM:
            self.codes = self.graph = False
        if self.codes and indexes.pays(stored, coming, indexes.CODES_RATIO):
            self.codes = False
            yield from indexes.suspend_codes(stored + chunks)
        if self.graph and indexes.pays(stored, coming, indexes.GRAPH_RATIO):
            self.graph = False
            yield from indexes.suspend_graph(self.info.space)


def settle(info: CollectionInfo, written: int) -> Script[None]:
    """After writing ``written`` chunks: the indexes if they are due, statistics, and the planner's view."""
    # Asked of the catalogue, not of this run: an earlier one may have been killed before it came here.
    words = yield from start(lambda: _settle_words(info, written))
    # Of the spaces that there are by now: the one written to may have been retired since.
    for space in (yield from spaces.live(info.collection_id)):
        if space.state == "building":
            continue
        yield from indexes.ensure_graph(space)
        table = f"embeddings_{space.space_id}"
        if written >= ANALYZE_FROM or (yield from _never_analyzed(table)):
            yield from _analyze_keys(table)
    yield from join(words)


def _settle_words(info: CollectionInfo, written: int) -> Script[None]:
    yield from indexes.ensure_codes()
    yield from keep_statistics(info)
    # What was written last waits in the index's list of pending entries: searches need not read it.
    yield from fetch(
        "SELECT gin_clean_pending_list(oid) FROM pg_class WHERE oid = to_regclass('pgseek.chunks_codes_idx')"
        " AND pg_has_role(relowner, 'USAGE') AND current_setting('transaction_read_only') = 'off'"
    )
    if written >= ANALYZE_FROM or (yield from _never_analyzed("chunks")):

        def analyze() -> Script[None]:
            yield from fetch(SQL("SET LOCAL default_statistics_target = {}").format(STATISTICS_TARGET))
            # A user who does not own the tables gets a warning from the server, not an error.
            yield from fetch("ANALYZE pgseek.documents, pgseek.chunks")

        yield from transact(analyze)


def _analyze_keys(table: str) -> Script[None]:
    """Gather statistics of a table's keys; of texts and vectors the planner can make little."""
    more = SQL("" if table == "documents" else ", ordinal")
    statement = SQL("ANALYZE {} (collection_id, document_id{})")
    yield from fetch(statement.format(Identifier("pgseek", table), more))


def _never_analyzed(table: str) -> Script[bool]:
    row = yield from fetch_one(
        "SELECT FROM pg_class WHERE oid = to_regclass(%s) AND reltuples < 0", [f"pgseek.{table}"]
    )
    return row is not None


def keep_statistics(info: CollectionInfo) -> Script[None]:
    """Refresh BM25's statistics once the collection has grown or shrunk by a tenth since the last time.

    A collection of moderate size whose average length has moved by a tenth is weighed anew, too.
    """
    row = yield from fetch_one(
        "SELECT s.chunks AS then, (SELECT count(*) FROM pgseek.chunks c"
        " WHERE c.collection_id = s.collection_id AND c.kind <> 'document') AS now"
        " FROM pgseek.collection_statistics s WHERE s.collection_id = %s",
        [info.collection_id],
    )
    if row is None or abs(row["now"] - row["then"]) * 10 < row["then"] or row["now"] == row["then"]:
        return
    refreshed = yield from fetch_one("SELECT drift FROM pgseek.refresh_statistics(%s)", [info.name])
    drift = refreshed["drift"] if refreshed else None
    if drift is not None and not 0.9 <= drift <= 1.1 and row["now"] <= REWEIGH_UP_TO:
        yield from fetch("SELECT pgseek.reweigh(%s)", [info.name])
