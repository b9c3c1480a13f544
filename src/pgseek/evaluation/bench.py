"""What settings are worth for judged queries, by candidates at hand: hundreds of settings, a search for
none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pgseek.errors import InvalidInput
from pgseek.evaluation.compare import EQUAL
from pgseek.evaluation.legs import Legs, ranked, reweighed
from pgseek.evaluation.measures import load_measures, parse_measures
from pgseek.evaluation.pool import Candidates
from pgseek.evaluation.settings import Grid, Setting
from pgseek.evaluation.trec import Qrels
from pgseek.fusion import Floats, Ints
from pgseek.types import check_whole

# Fusion, then words, then fusion again …: more turns changed nothing where it was tried.
TURNS = 2


class Bench:
    """Values of a measure per setting and query, each computed once.

    ``auto`` gives the weight of the dense leg by alpha and kind of query, as fusion 'auto' has it. ``depth``
    documents are looked at per query.
    """

    def __init__(
        self,
        found: Candidates,
        qrels: Qrels,
        measure: str,
        *,
        current: Setting,
        depth: int,
        auto: Mapping[tuple[float, str], float],
        collapse: bool = False,
        drop_self: bool = False,
    ) -> None:
        self.queries: tuple[str, ...] = tuple(found.legs)
        self._found = found
        self._current = current
        self._depth = depth
        self._auto = auto
        self._collapse = collapse
        numbers = {name: number for number, name in enumerate(found.documents)}
        self._own = {name: numbers.get(name, -1) if drop_self else -1 for name in self.queries}
        (self._measure,) = parse_measures([measure])
        judged = {name: dict(qrels[name]) for name in self.queries}
        parsed = list(parse_measures([measure]).values())
        self._evaluator: Any = load_measures().evaluator(parsed, judged)
        self._values: dict[Setting, Floats] = {}

    def values(self, settings: Sequence[Setting]) -> Floats:
        """Return the values (settings, queries)."""
        blocks: dict[tuple[Any, ...], list[Setting]] = {}
        for setting in settings:
            if setting not in self._values:
                key = (setting.fusion, setting.normalization, setting.candidates, *setting.weighting)
                blocks.setdefault(key, []).append(setting)
        legs: tuple[tuple[float, ...], dict[str, Legs]] | None = None
        # Blocks of one weighting come one after the other, so that it is computed once.
        for _, block in sorted(blocks.items(), key=lambda item: item[0][3:]):
            weighting = block[0].weighting
            if legs is None or legs[0] != weighting:
                legs = (weighting, self._legs(block[0]))
            self._rank(block, legs[1])
        return np.array([self._values[setting] for setting in settings])

    def _legs(self, setting: Setting) -> dict[str, Legs]:
        if setting.weighting == self._current.weighting:
            return dict(self._found.legs)
        average = self._found.average(setting.title_weight)
        return {
            name: reweighed(legs, self._found.words[name], *setting.weighting, average)
            for name, legs in self._found.legs.items()
        }

    def _rank(self, block: Sequence[Setting], legs: Mapping[str, Legs]) -> None:
        one = block[0]
        runs: list[dict[str, dict[str, float]]] = [{} for _ in block]
        documents = self._found.documents
        for name in self.queries:
            if one.fusion == "auto":
                kind = self._found.kinds[name]
                alphas = np.array([self._auto[setting.alpha, kind] for setting in block])
            else:
                alphas = np.array([setting.alpha for setting in block])
            rankings = ranked(
                legs[name],
                alphas,
                fusion="rrf" if one.fusion == "rrf" else "weighted",
                normalization=one.normalization,
                depth=one.candidates,
                k=self._depth,
                collapse=self._collapse,
                left_out=self._own[name],
            )
            for run, ranking in zip(runs, rankings, strict=True):
                if ranking:
                    run[name] = {documents[number]: float(-place) for place, number in enumerate(ranking)}
        places = {name: place for place, name in enumerate(self.queries)}
        for setting, run in zip(block, runs, strict=True):
            values = np.zeros(len(self.queries))
            try:
                for metric in self._evaluator.iter_calc(run):
                    if metric.query_id in run:
                        values[places[metric.query_id]] = metric.value
            except (ArithmeticError, ValueError, RuntimeError, OSError) as error:
                raise InvalidInput(f"ir-measures failed at {self._measure}: {error}") from error
            self._values[setting] = values


def choose(bench: Bench, grid: Grid, current: Setting, chosen_on: Ints, titles: bool = True) -> Setting:
    """Return the setting with the best mean over the queries with these numbers; of equal ones the nearest.

    Fusion and the weighting of words are chosen by turns, each with the other as chosen before.
    """
    best = current
    for _ in range(TURNS):
        before = best
        for options in (grid.fused, lambda one: grid.weighed(one, titles)):
            best = _best(bench, options(best), chosen_on)
        if best == before:
            break
    return best


def _best(bench: Bench, settings: Sequence[Setting], chosen_on: Ints) -> Setting:
    # To leave what is in force only for a gain of one or two standard errors was tried: it cost as much where
    # there was something to gain as it saved elsewhere. What is not significant is not written anyway.
    means = bench.values(settings)[:, chosen_on].mean(axis=1)
    return settings[int(np.flatnonzero(means >= means.max() - EQUAL)[0])]


def folds(queries: int, count: int, repeats: int, seed: int) -> list[list[Ints]]:
    """Return, for each repeat, the numbers of the queries that each fold holds out: a partition of all.

    Raises:
        InvalidInput: fewer than two queries would be in a fold, or there are fewer than two folds or no
            repeat.
    """
    for name, value, least in (("folds", count, 2), ("repeats", repeats, 1)):
        check_whole(name, value, 1000, least)
    if queries < 2 * count:
        raise InvalidInput(
            f"{queries:,} judged queries are too few for {count} folds, which take at least {2 * count}; "
            "judge more queries, or give fewer folds (--folds 2)"
        )
    generator = np.random.default_rng(seed)
    return [
        [np.sort(part) for part in np.array_split(generator.permutation(queries), count)]
        for _ in range(repeats)
    ]


def cross_validate(
    bench: Bench,
    parts: Sequence[Sequence[Ints]],
    choose_on: Callable[[Ints], Setting],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Floats, list[Setting]]:
    """Return each query's mean value by settings that were chosen without it, and the setting each fold
    chose."""
    count = len(bench.queries)
    held_out = np.zeros((len(parts), count))
    chosen = []
    for number, folds_of_repeat in enumerate(parts):
        for place, fold in enumerate(folds_of_repeat):
            setting = choose_on(np.setdiff1d(np.arange(count), fold))
            chosen.append(setting)
            held_out[number, fold] = bench.values([setting])[0, fold]
            if progress is not None:
                progress(number * len(folds_of_repeat) + place + 1, len(parts) * len(folds_of_repeat))
    means: Floats = held_out.mean(axis=0)
    return means, chosen
