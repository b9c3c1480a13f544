"""Finding a collection's best fusion and BM25 constants by judged queries, and writing them to it.

Settings are chosen by cross-validation: what is reported of a tuned setting is of queries that it was not
chosen on. Candidates are taken from the database once (`pool`), and settings tried on them (`legs`, `bench`);
the present setting and the winner are then searched for, and nothing is written whose searches are not
better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import numpy as np
from psycopg.types.json import Jsonb

from pgseek.embedding import Embedding
from pgseek.errors import ChangeRefused, CollectionNotFound, InvalidInput
from pgseek.evaluation.bench import Bench, choose, cross_validate
from pgseek.evaluation.bench import folds as divide
from pgseek.evaluation.bootstrap import Interval, bootstrap
from pgseek.evaluation.compare import EQUAL, SEED, load_stats, permutation_p
from pgseek.evaluation.experiment import judged_queries, missing_documents
from pgseek.evaluation.measures import cutoff, parse_measures, score
from pgseek.evaluation.pool import Candidates, candidates
from pgseek.evaluation.runs import Mode, Progress, Searched, run_mode
from pgseek.evaluation.settings import FUSED, WEIGHED, Grid, Setting
from pgseek.evaluation.trec import Qrels, Run
from pgseek.plots import new_figure, save_figure
from pgseek.steps import Row, Script, fetch, transact
from pgseek.types import MAX_K, CollectionInfo

# Documents looked at by a measure that has no cutoff.
DEPTH = 100
# Of the curves over alpha: an interval per point.
CURVE_RESAMPLES = 2_000
KINDS = ("identifier", "short", "question", "other")
ALL = "all"

_WEIGHTING = """
SELECT s.weighting[1]::text AS k1, s.weighting[2]::text AS b, s.weighting[4]::text AS title_weight
  FROM pgseek.collection_statistics s WHERE s.collection_id = %s
"""
_AUTO = """
SELECT a.alpha, k.kind, pgseek.auto_alpha(a.alpha, k.kind, %s) AS weight
  FROM unnest(%s::float8[]) AS a (alpha), unnest(%s::text[]) AS k (kind)
"""


class Tuned(Searched, Protocol):
    """What is tuned: a `Collection`."""

    def _embedding(self, info: CollectionInfo) -> Embedding: ...

    def _renew(self) -> CollectionInfo: ...


@dataclass(frozen=True, slots=True)
class AlphaCurve:
    """A measure over the weight of the dense leg, for one kind of query ('all' for all of them).

    ``means`` stand by ``alphas``, with bootstrap intervals ``low`` to ``high`` over the ``queries``.
    """

    kind: str
    queries: int
    alphas: tuple[float, ...]
    means: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def best(self) -> float:
        """The alpha with the highest mean, of equal ones the lowest."""
        return self.alphas[int(np.argmax(self.means))]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What `tune` found.

    ``source`` is where the judgements are from: 'judgements', 'clicks' or 'known items'. ``current`` and
    ``winner`` are settings; the winner was chosen on all queries, as each of ``chosen`` (with how many folds
    chose it) was on all folds but one. ``before`` and ``after`` are means with bootstrap intervals, of the
    current setting and of settings chosen without the query that is measured; ``difference`` is theirs,
    paired, and ``p`` that of a paired randomisation test. ``searched_before`` and ``searched_after`` are
    means of real searches with the current setting and with the winner: the latter is of queries it was
    chosen on, and None where it needs the chunks weighed anew, which only writing it does. ``agreeing`` is
    the share of queries for which a search with the current setting gave the value it was reckoned with.
    ``values`` are both values by query; ``settings`` were in the grid.
    """

    collection: str
    collection_id: int
    source: str
    measure: str
    kinds: Mapping[str, int]
    unjudged_queries: int
    missing_documents: int
    folds: int
    repeats: int
    seed: int
    significance: float
    settings: int
    current: Setting
    winner: Setting
    chosen: tuple[tuple[Setting, int], ...]
    before: Interval
    after: Interval
    difference: Interval
    better: int
    equal: int
    worse: int
    p: float
    searched_before: float
    searched_after: float | None
    agreeing: float
    curves: tuple[AlphaCurve, ...]
    values: Mapping[str, tuple[float, float]] = field(repr=False)
    queries: Mapping[str, str] = field(repr=False)
    qrels: Qrels = field(repr=False)
    drop_self: bool = False

    @property
    def significant(self) -> bool:
        """Whether tuning beats the current setting by more than chance would."""
        return self.winner != self.current and self.difference.mean > 0 and self.p < self.significance

    @property
    def verdict(self) -> str:
        """What came of it, in words."""
        found = f"{self.measure} {self.before.mean:.4f} with the current setting"
        if self.winner == self.current:
            return f"{found}: none of {self.settings:,} settings is better for these queries, so it stays"
        changed = ", ".join(
            f"{name} {old} → {new}" for name, (old, new) in self.current.differences(self.winner).items()
        )
        figures = (
            f"{found}, {self.after.mean:.4f} tuned, on queries not tuned on ({self.difference.mean:+.4f}, "
            f"95 % interval {self.difference.low:+.4f} to {self.difference.high:+.4f}, p = {self.p:.4f})"
        )
        if self.significant:
            return f"{figures}: a significant gain (p < {self.significance:g}); winner: {changed}"
        return (
            f"{figures}: no significant gain (it takes p < {self.significance:g} and a higher mean); the "
            f"best on all queries was: {changed}"
        )

    @property
    def cautions(self) -> tuple[str, ...]:
        """What to keep in mind with these figures."""
        found = list(CAUTIONS.get(self.source, ()))
        if self.agreeing < 1:
            found.append(
                f"{1 - self.agreeing:.1%} of queries have another value in a search than was reckoned "
                "with for the current setting: the index of vectors is approximate"
            )
        if self.searched_after is None and self.winner != self.current:
            found.append(
                "the winner weighs words otherwise; its searches are measured when it is written, and it "
                "is taken back if they are not better"
            )
        return tuple(found)


CAUTIONS: Mapping[str, tuple[str, ...]] = {
    "known items": (
        "the queries were made of the documents themselves: they show whether a document is found by its "
        "own words, whether something is broken, and how settings compare for such queries. They favour "
        "the lexical leg, since people ask in words that the document does not have, and know of one "
        "relevant document only: do not choose alpha by them",
    ),
    "clicks": (
        "people click what stands on top: judgements from clicks favour the ranking that was shown, and "
        "know nothing of documents that were never shown. A gain over it is the surer for that, a loss "
        "may be the bias; shuffling some results, or interleaving two rankings, gives clicks without it",
    ),
}


def tune(
    docs: Tuned,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    measure: str = "nDCG@10",
    grid: Grid | None = None,
    folds: int = 5,
    repeats: int = 3,
    seed: int = SEED,
    significance: float = 0.05,
    drop_self: bool = False,
    limit: int | None = None,
    source: str = "judgements",
    progress: Progress | None = None,
) -> Tuning:
    """Find the setting of a collection that is best by a measure; nothing is written, see `write_winner`.

    ``queries`` and ``qrels`` are as `evaluate` takes them; `known_items` makes some of the collection itself,
    `read_clicks` of what people clicked. ``measure`` is any of ir-measures'. Queries are parted into
    ``folds``, ``repeats`` times; each fold is measured with what was chosen on the others. ``limit`` takes
    the first judged queries only.

    Raises:
        InvalidInput: no query is judged, none of the judged documents is stored, there are too few queries,
            the measure is unknown, or an option is out of its range.
        MissingExtra, EmbedderError, DatabaseError.
    """
    grid = Grid() if grid is None else grid
    if source not in {"judgements", *CAUTIONS}:
        raise InvalidInput(f"source is {source!r}, but must be 'judgements', 'clicks' or 'known items'")
    if not 0 < significance < 1:
        raise InvalidInput(f"significance is {significance!r}, but must lie between 0 and 1, such as 0.05")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InvalidInput(f"limit is {limit!r}, but must be a whole number from 1 up")
    load_stats()
    ((measure, parsed),) = parse_measures([measure]).items()
    depth = cutoff(parsed) or DEPTH
    if depth > MAX_K:
        raise InvalidInput(
            f"measure {measure!r} looks at {depth:,} documents, but at most {MAX_K:,} are found"
        )
    judged = judged_queries(queries, qrels)
    asked = {name: queries[name] for name in islice(judged, limit)}
    relevant = {name: qrels[name] for name in asked}
    parts = divide(len(asked), folds, repeats, seed)
    info = docs._renew()
    missing = docs._client._run(
        missing_documents(
            info.name, info.collection_id, {d for judgements in relevant.values() for d in judgements}
        )
    )
    current = docs._client._run(_current(info))
    bm25 = grid.bm25 and info.settings.get("lexical", "bm25") == "bm25"
    grid = replace(grid, bm25=bm25)
    deepest = max(*grid.candidates, current.candidates, 2 * (depth + drop_self))
    found: Candidates = docs._client._run(
        candidates(
            docs._embedding(info),
            asked,
            # Other constants bring up rows that were further down.
            depth=min(MAX_K, 2 * deepest if bm25 else deepest),
            with_words=bm25,
            progress=progress,
        )
    )
    alphas = sorted({*grid.alphas, current.alpha})
    auto: dict[tuple[float, str], float] = docs._client._run(_auto(info, alphas))
    bench = Bench(
        found,
        relevant,
        measure,
        current=current,
        depth=depth,
        auto=auto,
        collapse=bool(info.settings.get("collapse")),
        drop_self=drop_self,
    )
    titles = found.title_length > 0

    def chosen_on(numbers: Any) -> Setting:
        return choose(bench, grid, current, numbers, titles)

    held_out, chosen = cross_validate(
        bench,
        parts,
        chosen_on,
        None if progress is None else lambda done, total: progress("folds", done, total),
    )
    winner = chosen_on(np.arange(len(asked)))
    reckoned = bench.values([current])[0]
    differences = held_out - reckoned
    better, worse = int((differences > EQUAL).sum()), int((differences < -EQUAL).sum())

    def searched(setting: Setting, name: str) -> dict[str, float]:
        run = _searched(docs, setting, name, asked, found.kinds, auto, depth, drop_self, progress)
        return score([measure], relevant, run)[measure]

    before = searched(current, "current")
    after = None
    if winner == current:
        after = before
    elif winner.weighting == current.weighting:
        after = searched(winner, "winner")
    agreeing = np.abs(np.array([before[name] for name in bench.queries]) - reckoned) <= 1e-9
    return Tuning(
        collection=info.name,
        collection_id=info.collection_id,
        source=source,
        measure=measure,
        kinds=dict(Counter(found.kinds.values())),
        unjudged_queries=len(queries) - len(judged),
        missing_documents=missing,
        folds=folds,
        repeats=repeats,
        seed=seed,
        significance=significance,
        settings=grid.size,
        current=current,
        winner=winner,
        chosen=tuple(Counter(chosen).most_common()),
        before=bootstrap(reckoned.tolist()),
        after=bootstrap(held_out.tolist()),
        difference=bootstrap(differences.tolist()),
        better=better,
        equal=len(asked) - better - worse,
        worse=worse,
        p=permutation_p(differences.tolist()),
        searched_before=fmean(before.values()),
        searched_after=None if after is None else fmean(after.values()),
        agreeing=float(agreeing.mean()),
        curves=_curves(bench, current, sorted(grid.alphas), found.kinds),
        values={
            name: (float(old), float(new))
            for name, old, new in zip(bench.queries, reckoned, held_out, strict=True)
        },
        queries=asked,
        qrels=relevant,
        drop_self=drop_self,
    )


def _curves(
    bench: Bench, current: Setting, alphas: list[float], kinds: Mapping[str, str]
) -> tuple[AlphaCurve, ...]:
    values = bench.values([replace(current, fusion="weighted", alpha=alpha) for alpha in alphas])
    found = []
    for kind in (ALL, *KINDS):
        of_kind = [place for place, name in enumerate(bench.queries) if kind in (ALL, kinds[name])]
        if of_kind:
            points = [bootstrap(row[of_kind].tolist(), resamples=CURVE_RESAMPLES) for row in values]
            found.append(
                AlphaCurve(
                    kind,
                    len(of_kind),
                    tuple(alphas),
                    tuple(point.mean for point in points),
                    tuple(point.low for point in points),
                    tuple(point.high for point in points),
                )
            )
    return tuple(found)


def _searched(
    docs: Tuned,
    setting: Setting,
    name: str,
    queries: Mapping[str, str],
    kinds: Mapping[str, str],
    auto: Mapping[tuple[float, str], float],
    depth: int,
    drop_self: bool,
    progress: Progress | None,
) -> Run:
    """Search for every query by a setting whose words are weighed as the chunks are."""
    if setting.fusion == "rrf":
        groups = {"rrf": dict(queries)}
        arguments: dict[str, dict[str, Any]] = {"rrf": {"fusion": "rrf"}}
    else:
        groups, arguments = {}, {}
        for query, text in queries.items():
            alpha = auto[setting.alpha, kinds[query]] if setting.fusion == "auto" else setting.alpha
            groups.setdefault(str(alpha), {})[query] = text
            arguments[str(alpha)] = {"alpha": alpha, "normalization": setting.normalization}
    run: dict[str, Any] = {}
    for key, of_group in groups.items():
        mode = Mode(name, {**arguments[key], "candidates": setting.candidates})
        begun = len(run)

        def advance(what: str, done: int, _: int, begun: int = begun) -> None:
            if progress is not None:
                progress(what, begun + done, len(queries))

        run.update(run_mode(docs, mode, of_group, depth=depth, drop_self=drop_self, progress=advance).run)
    return {query: run[query] for query in queries}


def _current(info: CollectionInfo) -> Script[Setting]:
    rows = yield from fetch(_WEIGHTING, [info.collection_id])
    if not rows:
        raise CollectionNotFound(f"collection {info.name!r} was dropped in the meantime")
    return Setting.of(info.settings, rows[0])


def _auto(info: CollectionInfo, alphas: list[float]) -> Script[dict[tuple[float, str], float]]:
    rows = yield from fetch(_AUTO, [info.identity.provider, alphas, list(KINDS)])
    return {(row["alpha"], row["kind"]): float(row["weight"]) for row in rows}


@dataclass(frozen=True, slots=True)
class Written:
    """Whether a winner is in force now, and why.

    ``before`` and ``after`` are means of real searches with the setting there was and with the winner;
    ``after`` is None if it was not tried.
    """

    written: bool
    reason: str
    before: float
    after: float | None


def write_winner(
    docs: Tuned, tuning: Tuning, *, known_items: bool = False, progress: Progress | None = None
) -> Written:
    """Write a winner to its collection if it beats the current setting significantly, and its searches do.

    Settings change in one transaction, and searches use them from then on; others stay. BM25 constants take
    every chunk to be weighed anew (`reweigh`; writers wait, searches do not); what searches find is measured
    then, and if it is not better, or the measuring breaks off, the old weights are put back. A winner by
    known items is written only with ``known_items``.

    Raises:
        ChangeRefused: the collection's settings have changed since, or a copy of it is being made.
        CollectionNotFound, DatabaseError.
    """
    before = tuning.searched_before
    if not tuning.significant:
        return Written(False, tuning.verdict, before, tuning.searched_after)
    if tuning.source == "known items" and not known_items:
        return Written(
            False,
            "queries made of the documents themselves favour the lexical leg, so what they choose is "
            "written on demand only (--write; known_items=True)",
            before,
            tuning.searched_after,
        )
    after = tuning.searched_after
    if after is not None and after <= before + EQUAL:
        return Written(
            False,
            f"searches with the winner have {tuning.measure} {after:.4f}, which is not above "
            f"{before:.4f}: nothing was written",
            before,
            after,
        )
    docs._client._run(_change(tuning, tuning.current, tuning.winner))
    docs._renew()
    if after is None:
        try:
            run = run_mode(
                docs,
                Mode("winner"),
                tuning.queries,
                depth=cutoff(next(iter(parse_measures([tuning.measure]).values()))) or DEPTH,
                drop_self=tuning.drop_self,
                progress=progress,
            ).run
            after = fmean(score([tuning.measure], tuning.qrels, run)[tuning.measure].values())
        except BaseException:
            docs._client._run(_change(tuning, tuning.winner, tuning.current))
            docs._renew()
            raise
        if after <= before + EQUAL:
            docs._client._run(_change(tuning, tuning.winner, tuning.current))
            docs._renew()
            return Written(
                False,
                f"searches with the winner had {tuning.measure} {after:.4f}, which is not above "
                f"{before:.4f}: the old setting is in force again",
                before,
                after,
            )
    return Written(
        True,
        f"written: searches have {tuning.measure} {after:.4f} with it, and had {before:.4f} before "
        "(on the queries it was chosen on)",
        before,
        after,
    )


def _change(tuning: Tuning, old: Setting, new: Setting) -> Script[None]:
    """Exchange one setting for another in one transaction; refuse if the old one is not in force."""

    def write() -> Script[None]:
        of = [tuning.collection_id]
        # In the order in which writers and changes of model come to the rows.
        weighed = yield from fetch(_WEIGHTING + " FOR UPDATE", of)
        rows = yield from fetch(
            "SELECT c.name, c.settings, c.copy_of, EXISTS (SELECT FROM pgseek.collections o"
            " WHERE o.copy_of = c.collection_id AND NOT o.collection_id = ANY (c.formerly)) AS copied"
            " FROM pgseek.collections c WHERE c.collection_id = %s FOR NO KEY UPDATE",
            of,
        )
        if not rows or not weighed or rows[0]["copy_of"] is not None:
            raise CollectionNotFound(
                f"collection {tuning.collection!r} was dropped, or another took its name; tune it again"
            )
        _check_unchanged(tuning, old, weighed[0], rows[0])
        changed = {name: value for name, value in new.to_json().items() if name in FUSED}
        if new.weighting != old.weighting:
            changed = new.to_json()
            yield from fetch(
                "SELECT pgseek.reweigh(%s, %s::real, %s::real, %s::real)",
                [rows[0]["name"], *(getattr(new, name) for name in WEIGHED)],
            )
        yield from fetch(
            "UPDATE pgseek.collections SET settings = settings || %s WHERE collection_id = %s",
            [Jsonb(changed), *of],
        )

    yield from transact(write)


def _check_unchanged(tuning: Tuning, old: Setting, weighed: Row, row: Row) -> None:
    found = Setting.of(row["settings"], weighed)
    if found != old:
        other = ", ".join(
            f"{name} was {was} and is {now}" for name, (was, now) in old.differences(found).items()
        )
        raise ChangeRefused(
            f"collection {tuning.collection!r} has changed since it was tuned ({other}); tune it again"
        )
    if row["copied"]:
        raise ChangeRefused(
            f"collection {tuning.collection!r} has a copy under way that will take its place with the "
            "settings there were; finish or drop that first (pgseek reembed shows how far it is)"
        )


def summary(found: Tuning) -> dict[str, Any]:
    """Return all but the queries, their values and judgements, ready for JSON."""
    left_out = {"values", "queries", "qrels"}
    return {
        **{each.name: getattr(found, each.name) for each in fields(found) if each.name not in left_out},
        "queries": len(found.queries),
        "chosen": [{"setting": setting, "folds": count} for setting, count in found.chosen],
        "significant": found.significant,
        "verdict": found.verdict,
        "cautions": list(found.cautions),
    }


def plot_alpha(found: Tuning, path: str | Path) -> Path:
    """Draw the measure over alpha for each kind of query, with intervals, and the alpha in force; return the
    path.

    Raises:
        InvalidInput: see `pgseek.plots.check_picture`.
        MissingExtra: matplotlib is not installed.
    """
    figure = new_figure(8.0, 5.0)
    (axes,) = figure.axes
    for curve in found.curves:
        label = f"{curve.kind} ({curve.queries:,})"
        (line,) = axes.plot(
            curve.alphas, curve.means, label=label, linewidth=2.5 if curve.kind == ALL else 1.5
        )
        axes.fill_between(
            curve.alphas, curve.low, curve.high, color=line.get_color(), alpha=0.12, linewidth=0
        )
        at = curve.alphas.index(curve.best)
        axes.plot([curve.best], [curve.means[at]], "o", color=line.get_color())
    axes.axvline(
        found.current.alpha, color="#555555", linestyle=":", label=f"in force: {found.current.alpha:g}"
    )
    axes.set(
        xlabel="alpha, the weight of the dense leg (0: words alone, 1: vectors alone)",
        ylabel=f"{found.measure}, 95 % interval",
        title=f"{found.collection}: {found.measure} over alpha by kind of query",
        xlim=(0, 1),
    )
    axes.legend(title="kind of query (how many)")
    return save_figure(figure, path)
