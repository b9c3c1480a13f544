"""The recall of searches as they are made now, sampled against exact ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pgseek import collections, indexes, spaces
from pgseek.errors import DatabaseError
from pgseek.health.finding import HealthFinding, command
from pgseek.indexing.building import Told
from pgseek.indexing.measuring import Aim, Measure, Source, count_rows, take_sample
from pgseek.indexing.tuning import lists_of
from pgseek.steps import Script, fetch, for_tenant
from pgseek.types import CollectionInfo, SpaceId, SpaceInfo, SpaceState
from pgseek.vectors import VectorIndex

QUERIES = 50
RECALL = 0.95


@dataclass(frozen=True, slots=True)
class SpaceRecall:
    """What searches of a space find of the exact ``k`` nearest.

    ``recall`` is the mean share, 0..1, and None where nothing was measured: ``detail`` says why. ``p50`` and
    ``exact_p50`` are the median times in milliseconds, as the client sees them. ``settings`` are in force:
    ef_search, of IVFFlat probes. ``source`` is what was searched for: 'queries' that were asked before, or
    stored 'vectors', each without itself, which are found more easily. ``finding`` is there if the recall is
    below what was asked for.
    """

    collection: str
    tenant: str
    space_id: SpaceId
    model: str
    state: SpaceState
    index: VectorIndex
    rows: int
    k: int
    queries: int
    source: Source | None
    settings: Mapping[str, int]
    recall: float | None
    p50: float | None
    exact_p50: float | None
    detail: str
    finding: HealthFinding | None

    @property
    def ok(self) -> bool:
        """Whether nothing fell short."""
        return self.finding is None


def measure(names: Sequence[str] | None, aim: Aim, progress: Told | None) -> Script[tuple[SpaceRecall, ...]]:
    """Measure every space that is active or ready, of the named collections or of all. Nothing is written.

    Raises:
        CollectionNotFound: with the nearest name.
    """
    if names is None:
        infos = [info for info in (yield from collections.list_all()) if info.copy_of is None]
    else:
        infos = []
        for name in dict.fromkeys(names):
            infos.append((yield from collections.find(name)))
    found = []
    for info in infos:
        for space in (yield from spaces.live(info.collection_id)):
            if space.state in {"active", "ready"}:
                measured = _patiently(info, space, aim, progress)
                found.append((yield from for_tenant(info.tenant, measured)))
    return tuple(found)


def _patiently(
    info: CollectionInfo, space: SpaceInfo, aim: Aim, progress: Told | None
) -> Script[SpaceRecall]:
    """Measure a space; what keeps it from that is told of it, and the others are measured."""
    left = SpaceRecall(
        info.name,
        info.tenant,
        space.space_id,
        str(space.identity),
        space.state,
        space.index,
        0,
        aim.k,
        0,
        None,
        {},
        None,
        None,
        None,
        "",
        None,
    )
    try:
        return (yield from _measure(left, space, aim, progress))
    except DatabaseError as error:
        return replace(left, detail=f"left out: {error}")


def _measure(left: SpaceRecall, space: SpaceInfo, aim: Aim, progress: Told | None) -> Script[SpaceRecall]:
    rows = yield from count_rows(space)
    left = replace(left, rows=rows)
    if not (yield from fetch(indexes.BUILT, [f"pgseek.{spaces.index_name(space)}"])):
        why = indexes.too_few(rows) if rows < indexes.INDEX_FROM else "it has no index: every search is exact"
        return replace(left, detail=f"left out: {why}")
    sample = yield from take_sample(space, rows, aim.sample)
    if not sample.vectors:
        return replace(left, detail="left out: there is nothing to search for")
    measured = Measure(space, sample, aim.k, progress)
    # Once to warm up: what is read from disk would count against the index only.
    yield from measured.recall({})
    found = yield from measured.recall({})
    truth = yield from measured.exact()
    settings = yield from _in_force(space, measured.asked)
    result = replace(
        left,
        queries=len(sample.vectors),
        source=sample.source,
        settings=settings,
        recall=found.recall,
        p50=found.p50,
        exact_p50=truth.p50,
    )
    return result if found.recall >= aim.recall else replace(result, finding=_short(result, aim))


def _in_force(space: SpaceInfo, wanted: int) -> Script[dict[str, int]]:
    """Return what pgseek.begin_walk() sets for a search that says nothing of it."""
    stored = space.searching
    if space.index.method == "ivfflat":
        lists = yield from lists_of(space)
        return {"probes": stored.get("probes", math.ceil(4 * math.sqrt(lists)))}
    least = 250 if space.identity.dimensions <= 256 else 100
    return {"ef_search": stored.get("ef_search", max(wanted, least))}


def _short(result: SpaceRecall, aim: Aim) -> HealthFinding:
    of = () if result.state == "active" else ("--space", result.space_id)
    mend = command(
        result.tenant, "index tune", result.collection, "--recall", f"{aim.recall:g}", "-k", aim.k, *of
    )
    used = ", ".join(f"{name} {value:,}" for name, value in result.settings.items())
    return HealthFinding(
        "recall_low",
        "fail" if result.state == "active" else "warn",
        f"space {result.space_id} of {result.collection}",
        f"searches find {result.recall:.4f} of the {aim.k} nearest with {used}, less than {aim.recall:g}",
        "Answers are missing that a search of all vectors would give. If no value holds it: "
        + command(result.tenant, "index advise", result.collection, *of),
        mend,
        {"recall": result.recall, "wanted": aim.recall, "k": aim.k, **result.settings},
        result.collection,
        result.tenant,
    )
