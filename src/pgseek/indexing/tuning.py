"""The smallest settings of a search that hold a recall: found by measuring, and stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from pgseek import indexes, spaces
from pgseek.errors import DatabaseError, InvalidInput
from pgseek.indexing.building import Told, chosen
from pgseek.indexing.measuring import (
    SETTINGS,
    Aim,
    IndexRecall,
    Measure,
    Source,
    count_rows,
    take_sample,
)
from pgseek.steps import Script, fetch, fetch_one
from pgseek.types import CollectionInfo, SpaceId, SpaceInfo
from pgseek.vectors import VectorIndex

LEAST_EF_SEARCH = 10
MOST_EF_SEARCH = 1000
MOST_RERANK = 100


@dataclass(frozen=True, slots=True)
class IndexTuning:
    """What a tuning found.

    ``held`` is whether some value holds ``recall`` of the ``k`` nearest; then ``after`` has the smallest
    that does, and ``stored`` is whether searches use it from now on. If not, ``after`` is the best there
    was, and nothing is stored. ``before`` is how the space is searched until now. ``source`` says
    what was searched for: 'queries' that were asked before and are in the cache, or stored 'vectors',
    each without itself: they lie among the others, where questions of people often do not, so what
    they show is the better case. ``tried`` is everything that was measured.
    """

    collection: str
    space_id: SpaceId
    index: VectorIndex
    recall: float
    k: int
    held: bool
    before: IndexRecall
    after: IndexRecall
    stored: bool
    source: Source
    queries: int
    rows: int
    tried: tuple[IndexRecall, ...]


def lists_of(space: SpaceInfo) -> Script[int]:
    """Return how many lists a space's IVFFlat index has."""
    row = yield from fetch_one(
        "SELECT o.option_value::integer AS lists FROM pg_class c, pg_options_to_table(c.reloptions) o"
        " WHERE c.oid = to_regclass(%s) AND o.option_name = 'lists'",
        [f"pgseek.{spaces.index_name(space)}"],
    )
    return row["lists"] if row else 100


def tune(
    info: CollectionInfo, space: int | str | None, aim: Aim, store: bool, progress: Told | None
) -> Script[IndexTuning]:
    """Find the smallest settings that hold a recall, and store them.

    Raises:
        InvalidInput: the space has no index that is built.
        DatabaseError: the index was changed meanwhile.
    """
    found = yield from chosen(info, space)
    if not (yield from fetch(indexes.BUILT, [f"pgseek.{spaces.index_name(found)}"])):
        raise InvalidInput(
            f"space {found.space_id} of collection {info.name!r} has no index: every search is exact, and "
            f"there is nothing to tune; pgseek index build {info.name} builds one, from "
            f"{indexes.INDEX_FROM:,} rows on"
        )
    rows = yield from count_rows(found)
    sample = yield from take_sample(found, rows, aim.sample)
    if not sample.vectors:
        raise InvalidInput(f"space {found.space_id} of collection {info.name!r} has no vectors to search for")
    measure = Measure(found, sample, aim.k, progress)
    # Once to warm up: what is read from disk would count against the present settings only.
    yield from measure.recall({})
    measure.tried.clear()
    before = yield from measure.recall({})
    best = yield from _smallest(measure, aim.recall)
    held = best.recall >= aim.recall
    if held and store:
        yield from _store(found, best, aim, measure.asked, rows)
    return IndexTuning(
        info.name,
        found.space_id,
        found.index,
        aim.recall,
        aim.k,
        held,
        before,
        best,
        held and store,
        sample.source,
        len(sample.vectors),
        rows,
        tuple(measure.tried),
    )


def _smallest(measure: Measure, recall: float) -> Script[IndexRecall]:
    """Return the fastest of the smallest settings that hold the recall, else the best there is."""
    width, high = "ef_search", MOST_EF_SEARCH
    if measure.space.index.method == "ivfflat":
        width, high = "probes", (yield from lists_of(measure.space))
    if measure.space.index.form == "full":
        return (yield from _bisect(measure, recall, {}, width, _narrowest(measure, 1), high))
    # First how many rows must be compared if the walk misses nothing, then how little of a walk will do.
    most = yield from _bisect(measure, recall, {width: high}, "rerank", 1, MOST_RERANK)
    if most.recall < recall:
        return most
    enough = most.settings["rerank"]
    found = [most]
    for rerank in sorted({enough, min(MOST_RERANK, 2 * enough)}):
        low = _narrowest(measure, rerank)
        found.append((yield from _bisect(measure, recall, {"rerank": rerank}, width, low, high)))
    return min((one for one in found if one.recall >= recall), key=lambda one: one.p50)


def _narrowest(measure: Measure, rerank: int) -> int:
    """Return where to begin: a walk that keeps fewer rows in mind than are wanted only begins again."""
    if measure.space.index.method == "ivfflat":
        return 1
    return min(MOST_EF_SEARCH, max(LEAST_EF_SEARCH, measure.k * rerank))


def _bisect(
    measure: Measure, recall: float, fixed: Mapping[str, int], name: str, low: int, high: int
) -> Script[IndexRecall]:
    """Return what the smallest value that holds the recall finds, else what the highest does."""
    fails, value = low - 1, low
    while True:
        found = yield from measure.recall({**fixed, name: value})
        if found.recall >= recall:
            break
        if value >= high:
            return found
        fails, value = value, min(high, 2 * value)
    while value - fails > 1:
        middle = (fails + value) // 2
        tried = yield from measure.recall({**fixed, name: middle})
        if tried.recall >= recall:
            found, value = tried, middle
        else:
            fails = middle
    return found


def _store(space: SpaceInfo, found: IndexRecall, aim: Aim, asked: int, rows: int) -> Script[None]:
    settings = dict(found.settings)
    if "rerank" in settings:
        # It is stored for ten candidates: see dense_parts().
        scale = math.sqrt(max(asked, 10) / 10)
        settings["rerank"] = min(MOST_RERANK, math.ceil(settings["rerank"] * scale))
    kept = {name: value for name, value in space.searching.items() if name not in SETTINGS}
    tuned = {"recall": aim.recall, "k": aim.k, "measured": round(found.recall, 4), "rows": rows}
    changed = yield from fetch(
        "UPDATE pgseek.embedding_spaces SET searching = %s WHERE space_id = %s AND indexing = %s"
        " RETURNING space_id",
        [Jsonb({**kept, **settings, "tuned": tuned}), space.space_id, Jsonb(space.index.to_json())],
    )
    if not changed:
        raise DatabaseError(
            f"the index of space {space.space_id} was changed while it was tuned; nothing was stored: tune "
            "it again"
        )
