"""An evaluation from end to end: the queries run in each mode, measured, and the modes compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from statistics import fmean

from pgseek.errors import InvalidInput
from pgseek.evaluation.compare import Comparison, PerQuery, compare, load_stats
from pgseek.evaluation.measures import DEFAULT_MEASURES, cutoff, parse_measures, score
from pgseek.evaluation.runs import (
    DEFAULT_MODES,
    Latency,
    Mode,
    Progress,
    Searched,
    embed_queries,
    run_mode,
)
from pgseek.evaluation.trec import Qrels, Run
from pgseek.prepare import document_id
from pgseek.steps import Script, fetch
from pgseek.types import MAX_K, CollectionId, check_whole

_ID_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, checked on construction.

    ``depth`` documents are kept per query, 1..10,000: measures without a cutoff, such as AP, see
    no more. ``baseline`` is the mode that the others are compared with, None each measure's best.
    ``drop_self`` leaves the document out whose id is the query's: for queries that are documents
    themselves. ``limit`` runs the first judged queries only, for a quick look.

    Raises:
        InvalidInput: modes without or with the same name, an unknown measure or baseline, a
            measure that looks deeper than ``depth``.
        MissingExtra: ir-measures is not installed, or scipy, which comparing two modes needs.
    """

    modes: tuple[Mode, ...] = DEFAULT_MODES
    measures: tuple[str, ...] = DEFAULT_MEASURES
    baseline: str | None = None
    depth: int = 100
    drop_self: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        names = [mode.name for mode in self.modes]
        if not names or len(set(names)) < len(names):
            raise InvalidInput(f"the modes are {', '.join(names) or 'none'}, but each must occur once")
        if self.baseline is not None and self.baseline not in names:
            raise InvalidInput(
                f"the mode to compare with is {self.baseline!r}, which is not among those run: "
                f"{', '.join(names)}; "
                "run it too, or choose one of them"
            )
        if len(names) > 1:
            load_stats()
        check_whole("depth", self.depth, MAX_K)
        if self.limit is not None:
            check_whole("limit", self.limit, 1_000_000_000)
        for name, measure in parse_measures(self.measures).items():
            deepest = cutoff(measure)
            if deepest is not None and deepest > self.depth:
                raise InvalidInput(
                    f"measure {name!r} looks at {deepest:,} documents, but depth is {self.depth:,}; "
                    f"raise the depth to {deepest} or choose another measure"
                )


@dataclass(frozen=True, slots=True)
class ModeResult:
    """How one mode did.

    ``means`` are over all judged queries that were run, ``per_query`` is measure → query → value;
    a query that found nothing counts as 0 in both. ``empty`` counts those queries, ``degraded``
    those whose hits say that a leg did not take part. ``latency`` is in milliseconds, of this run.
    """

    mode: Mode
    means: Mapping[str, float]
    per_query: PerQuery
    run: Run
    latency: Latency
    empty: int
    degraded: int

    @property
    def name(self) -> str:
        """The mode's name."""
        return self.mode.name


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of `evaluate`.

    ``documents`` and ``waiting`` (for embeddings) are the collection's. ``queries`` were run;
    ``unjudged_queries`` were not, for want of judgements; ``lost_queries`` are judged but have no
    text. Of ``judged_documents``, those judged for the queries run, ``missing_documents`` are not
    in the collection. ``comparisons`` stand by measure, then mode.
    """

    collection: str
    documents: int
    waiting: int
    queries: int
    unjudged_queries: int
    lost_queries: int
    judged_documents: int
    missing_documents: int
    plan: Plan
    modes: tuple[ModeResult, ...]
    comparisons: tuple[Comparison, ...]

    def mode(self, name: str) -> ModeResult:
        """Return the result of the mode with this name. Raises `InvalidInput` if it was not run."""
        for result in self.modes:
            if result.name == name:
                return result
        raise InvalidInput(f"mode {name!r} was not run; there are {', '.join(r.name for r in self.modes)}")


def evaluate(
    collection: Searched,
    queries: Mapping[str, str],
    qrels: Qrels,
    plan: Plan | None = None,
    *,
    progress: Progress | None = None,
) -> Evaluation:
    """Run the judged queries in each mode, measure the runs and compare the modes.

    ``queries`` maps ids to texts, ``qrels`` query id → document id → relevance. A query is a plain
    text: + and - and quotes in it are no operators. Unless all modes are lexical, every query is
    embedded before the first is timed. ``progress`` is called with what runs, the queries done,
    and how many there are.

    Raises:
        InvalidInput: no query is judged, the collection is empty or holds none of the judged
            documents, or a query cannot be searched.
        MissingExtra, EmbedderError, DatabaseError.
    """
    plan = Plan() if plan is None else plan
    judged = judged_queries(queries, qrels)
    asked = {name: queries[name] for name in islice(judged, plan.limit)}
    relevant = {name: qrels[name] for name in asked}
    info = collection.info()
    if not info.documents:
        raise InvalidInput(
            f"collection {collection.name!r} holds no documents; store the corpus first: "
            f"pgseek eval {collection.name} --beir FOLDER --ingest"
        )
    documents = {document for judgements in relevant.values() for document in judgements}
    missing = collection._client._run(missing_documents(collection.name, info.collection_id, documents))
    if any(mode.arguments.get("alpha") != 0 for mode in plan.modes):
        embed_queries(collection, asked, progress)
    results = tuple(_result(collection, mode, asked, relevant, plan, progress) for mode in plan.modes)
    return Evaluation(
        collection=collection.name,
        documents=info.documents,
        waiting=info.queued or 0,
        queries=len(asked),
        unjudged_queries=len(queries) - len(judged),
        lost_queries=len(qrels) - len(judged),
        judged_documents=len(documents),
        missing_documents=missing,
        plan=plan,
        modes=results,
        comparisons=compare({result.name: result.per_query for result in results}, plan.baseline),
    )


def _result(
    collection: Searched,
    mode: Mode,
    queries: Mapping[str, str],
    qrels: Qrels,
    plan: Plan,
    progress: Progress | None,
) -> ModeResult:
    found = run_mode(collection, mode, queries, depth=plan.depth, drop_self=plan.drop_self, progress=progress)
    values = score(plan.measures, qrels, found.run)
    return ModeResult(
        mode=mode,
        means={measure: fmean(by_query.values()) for measure, by_query in values.items()},
        per_query=values,
        run=found.run,
        latency=found.latency,
        empty=sum(not ranking for ranking in found.run.values()),
        degraded=found.degraded,
    )


def judged_queries(queries: Mapping[str, str], qrels: Qrels) -> list[str]:
    """Return the ids of queries that are judged, or raise `InvalidInput` if none is."""
    judged = [name for name in queries if name in qrels]
    if not judged:
        raise InvalidInput(
            f"none of the {len(qrels):,} judged queries is among the {len(queries):,} queries given; "
            "choose another split, or the queries that belong to these judgements"
        )
    return judged


def missing_documents(name: str, collection_id: CollectionId, ids: Iterable[str]) -> Script[int]:
    """Return how many judged documents the collection does not hold, or raise `InvalidInput` if it is all."""
    wanted = set(ids)
    missing = yield from count_missing(collection_id, wanted)
    if missing == len(wanted):
        raise InvalidInput(
            f"collection {name!r} holds none of the {missing:,} judged documents; "
            "store the corpus that was judged in it, under its own ids"
        )
    return missing


def count_missing(collection_id: CollectionId, ids: Iterable[str]) -> Script[int]:
    """Return how many different documents of these ids the collection does not hold."""
    keys = sorted(set(map(document_id, ids)))
    missing = len(keys)
    for start in range(0, len(keys), _ID_BATCH):
        rows = yield from fetch(
            "SELECT count(*) AS found FROM pgseek.documents"
            " WHERE collection_id = %s AND document_id = ANY (%s)",
            [collection_id, keys[start : start + _ID_BATCH]],
        )
        missing -= rows[0]["found"]
    return missing
