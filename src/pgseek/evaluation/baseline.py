"""A saved evaluation that later ones are held against, and what they must reach.

The file is JSON with a format version, sorted, without times and latencies: the same figures are the same
file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from pgseek.errors import InvalidInput
from pgseek.evaluation.compare import EQUAL, holm, permutation_p
from pgseek.evaluation.experiment import Evaluation
from pgseek.evaluation.measures import parse_measures
from pgseek.evaluation.runs import Searched
from pgseek.evaluation.trec import Qrels
from pgseek.steps import Script, fetch

FORMAT = "pgseek evaluation"
VERSION = 1
# The mode that users' searches run in.
GATED = "hybrid"
SIGNIFICANCE = 0.05
# Digits of a stored value: more are noise of the order in which sums are added.
DIGITS = 12

_STATE = """
SELECT current_setting('server_version') AS server, s.weighting[1]::text AS k1, s.weighting[2]::text AS b,
       s.weighting[4]::text AS title_weight
  FROM pgseek.collections c JOIN pgseek.collection_statistics s USING (collection_id)
 WHERE c.collection_id = %s
"""


@dataclass(frozen=True, slots=True)
class SavedRun:
    """An evaluation as it was saved.

    ``versions`` are those of pgseek and PostgreSQL; ``settings`` the collection's (with k1, b and
    title_weight as its chunks are weighed), ``space`` its model. ``judgements`` is a hash of each query's
    text and judgements, by query. ``values`` are mode → measure → query → value.
    """

    collection: str
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    space: str
    depth: int
    drop_self: bool
    judgements: Mapping[str, str]
    values: Mapping[str, Mapping[str, Mapping[str, float]]]

    def to_json(self) -> str:
        """Return the text of the file."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "collection": self.collection,
            "versions": dict(self.versions),
            "settings": dict(self.settings),
            "space": self.space,
            "depth": self.depth,
            "drop_self": self.drop_self,
            "judgements": dict(self.judgements),
            "modes": {
                mode: {
                    measure: {
                        "mean": round(fmean(by_query.values()), DIGITS),
                        "queries": {query: round(value, DIGITS) for query, value in by_query.items()},
                    }
                    for measure, by_query in by_measure.items()
                }
                for mode, by_measure in self.values.items()
            },
        }
        return json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"

    def write(self, path: str | Path) -> None:
        """Write the file. Raises `InvalidInput` if that is not possible."""
        try:
            Path(path).write_text(self.to_json(), encoding="utf-8")
        except OSError as error:
            raise InvalidInput(f"cannot write to {path}: {error.strerror}") from error


def saved_run(docs: Searched, found: Evaluation, queries: Mapping[str, str], qrels: Qrels) -> SavedRun:
    """Return what is kept of an evaluation of ``docs`` by these queries and judgements."""
    info = docs.info()
    state = docs._client._run(_state(info.collection_id))
    weighed = {name: float(state[name]) for name in ("k1", "b", "title_weight")}
    asked = next(iter(found.modes[0].per_query.values()))
    return SavedRun(
        collection=found.collection,
        versions={"pgseek": version("pgseek"), "postgresql": state["server"]},
        settings={**info.settings, **weighed},
        space=str(info.space),
        depth=found.plan.depth,
        drop_self=found.plan.drop_self,
        judgements={query: _hash_of(queries[query], qrels[query]) for query in asked},
        values={result.name: result.per_query for result in found.modes},
    )


def _state(collection_id: int) -> Script[dict[str, Any]]:
    return (yield from fetch(_STATE, [collection_id]))[0]


def _hash_of(text: str, judged: Mapping[str, int]) -> str:
    return hashlib.sha256(json.dumps([text, sorted(judged.items())]).encode()).hexdigest()[:16]


def read_run(path: str | Path) -> SavedRun:
    """Read what `SavedRun.write` wrote.

    Raises:
        InvalidInput: no such file, or it is none of these, or of a version that is not known here.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read the saved evaluation {path}: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InvalidInput(
            f"{path} is no saved evaluation; pgseek eval COLLECTION … --save {path} writes one"
        )
    if content.get("version") != VERSION:
        raise InvalidInput(
            f"{path} has the format version {content.get('version')!r}, but this pgseek knows {VERSION}; "
            "save it anew, or use the pgseek that wrote it"
        )
    try:
        run = SavedRun(
            collection=str(content["collection"]),
            versions=content["versions"],
            settings=content["settings"],
            space=str(content["space"]),
            depth=int(content["depth"]),
            drop_self=bool(content["drop_self"]),
            judgements=dict(content["judgements"]),
            values={
                str(mode): {
                    str(measure): {str(query): float(value) for query, value in of_measure["queries"].items()}
                    for measure, of_measure in by_measure.items()
                }
                for mode, by_measure in content["modes"].items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"{path} is damaged: {error!r}; save it anew") from error
    if not all(math.isfinite(v) for m in run.values.values() for by in m.values() for v in by.values()):
        raise InvalidInput(f"{path} is damaged: it holds a value that is not a number; save it anew")
    return run


@dataclass(frozen=True, slots=True)
class Limit:
    """What one measure of one mode must not fall below, or how far it may fall."""

    measure: str
    value: float
    mode: str = GATED


def parse_limit(text: str, option: str, modes: Sequence[str]) -> Limit:
    """Read ``MEASURE=VALUE`` or ``MODE:MEASURE=VALUE``; without a mode it is hybrid, or the only one run.

    Raises:
        InvalidInput: it is none of these; the mode was not run, the measure is unknown, or the value does not
            lie in 0..1.
    """
    name, equals, given = text.rpartition("=")
    mode, colon, measure = name.rpartition(":")
    if not equals or not measure or (colon and not mode):
        raise InvalidInput(f"{option} is {text!r}, but must be a measure and a number, such as nDCG@10=0.65")
    try:
        value = float(given)
    except ValueError as error:
        raise InvalidInput(f"{option} is {text!r}, but {given!r} is no number; write nDCG@10=0.65") from error
    if not 0 <= value <= 1:
        raise InvalidInput(f"{option} is {text!r}, but {given} does not lie in 0..1")
    if not mode:
        mode = modes[0] if len(modes) == 1 else GATED
    if mode not in modes:
        raise InvalidInput(
            f"{option} is {text!r}, for the mode {mode!r}, but run are {', '.join(modes)}; "
            "choose one of them: MODE:nDCG@10=0.65"
        )
    (canonical,) = parse_measures([measure])
    return Limit(canonical, value, mode)


@dataclass(frozen=True, slots=True)
class Lost:
    """A query whose value fell: by how much, and from what to what."""

    query: str
    before: float
    now: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one measure of one mode is as it must be.

    ``kind`` is 'least' (a fixed bound), 'drop' (how far it may fall) or 'significance' (it may not fall
    significantly). ``before`` is the mean of the saved run over the ``queries`` that both have, None for a
    fixed bound; ``p`` that of the paired randomisation test against it. ``lost`` are the queries that lost
    most; for a fixed bound, those with the least values.
    """

    kind: str
    mode: str
    measure: str
    passed: bool
    now: float
    before: float | None
    limit: float
    p: float | None
    queries: int
    lost: tuple[Lost, ...]

    def __str__(self) -> str:
        name = f"{self.measure} of {self.mode}"
        if self.before is None:
            sign = ("is not below" if self.passed else "is below") + f" {self.limit:g}"
            return f"{name} is {self.now:.4f}, which {sign}"
        change = self.now - self.before
        told = f"{name} was {self.before:.4f} and is {self.now:.4f} ({change:+.4f}, p = {self.p:.4f}"
        told += f", {self.queries:,} queries)"
        if self.kind == "drop":
            return told + (
                f": a drop of up to {self.limit:g} is allowed"
                if self.passed
                else f", a drop of more than {self.limit:g}"
            )
        return told + (
            ": no significant drop" if self.passed else f", a significant drop (p < {self.limit:g})"
        )


@dataclass(frozen=True, slots=True)
class GateResult:
    """All verdicts of a gate, and ``notes`` on what makes the two runs comparable only in part."""

    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every verdict is."""
        return all(verdict.passed for verdict in self.verdicts)


def judge_run(
    now: SavedRun,
    before: SavedRun | None = None,
    *,
    least: Sequence[Limit] = (),
    drops: Sequence[Limit] = (),
    significance: float = SIGNIFICANCE,
    shown: int = 5,
) -> GateResult:
    """Hold an evaluation against fixed bounds (``least``) and against an earlier one.

    ``drops`` say how far a mean may fall against ``before``. Without any, no measure that both have may fall
    significantly, in the mode hybrid, or in those both have where it was not run: p by paired randomisation
    tests, corrected after Holm, below ``significance``. Only queries that both have are compared, and of
    those whose text or judgements have changed since a note says how many.

    Raises:
        InvalidInput: drops without a run to compare with; or that has other queries, or lacks a mode or
            measure.
        MissingExtra: scipy is not installed.
    """
    verdicts = []
    for limit in least:
        by_query = _values(now, limit, "this run")
        mean = fmean(by_query.values())
        worst = sorted(by_query.items(), key=lambda item: (item[1], item[0]))[:shown]
        verdicts.append(
            Verdict(
                "least",
                limit.mode,
                limit.measure,
                mean >= limit.value - EQUAL,
                mean,
                None,
                limit.value,
                None,
                len(by_query),
                tuple(Lost(query, value, value) for query, value in worst),
            )
        )
    if before is None:
        if drops:
            raise InvalidInput(
                "a largest drop needs an earlier run to compare with; give one: --baseline run.json"
            )
        return GateResult(tuple(verdicts))
    shared = [query for query in now.judgements if query in before.judgements]
    if not shared:
        raise InvalidInput(
            f"the saved run has none of the {len(now.judgements):,} queries of this one; it is of other "
            "judgements: save a baseline of these"
        )
    notes = _notes(now, before, shared)
    compared = [(one, one.value, "drop") for one in drops] or [
        (one, significance, "significance") for one in _all_shared(now, before)
    ]
    found = []
    for limit, bound, kind in compared:
        old, new = _values(before, limit, "the saved run"), _values(now, limit, "this run")
        differences = {query: new[query] - old[query] for query in shared}
        found.append((limit, bound, kind, old, new, permutation_p(list(differences.values()))))
    corrected = holm([p for *_, p in found]) if not drops else [p for *_, p in found]
    for (limit, bound, kind, old, new, _), p in zip(found, corrected, strict=True):
        was, is_now = (fmean(values[query] for query in shared) for values in (old, new))
        fell = was - is_now
        passed = fell <= bound + EQUAL if kind == "drop" else not (fell > EQUAL and p < bound)
        fallen = sorted((new[query] - old[query], query) for query in shared)[:shown]
        lost = tuple(Lost(query, old[query], new[query]) for change, query in fallen if change < -EQUAL)
        verdicts.append(
            Verdict(kind, limit.mode, limit.measure, passed, is_now, was, bound, float(p), len(shared), lost)
        )
    return GateResult(tuple(verdicts), notes)


def _values(run: SavedRun, limit: Limit, which: str) -> Mapping[str, float]:
    by_measure = run.values.get(limit.mode)
    if by_measure is None:
        raise InvalidInput(
            f"mode {limit.mode!r} is not in {which}, which has {', '.join(run.values)}; "
            "run it too, or choose one of them"
        )
    if limit.measure not in by_measure:
        raise InvalidInput(
            f"measure {limit.measure!r} is not in {which}, which has {', '.join(by_measure)}; "
            f"measure it too: --measure {limit.measure}"
        )
    return by_measure[limit.measure]


def _all_shared(now: SavedRun, before: SavedRun) -> list[Limit]:
    modes = [mode for mode in now.values if mode in before.values]
    if GATED in modes:
        modes = [GATED]
    found = [Limit(m, 0.0, mode) for mode in modes for m in now.values[mode] if m in before.values[mode]]
    if not found:
        raise InvalidInput(
            f"the saved run has no measure in common with this one: it has {_inventory(before)}, this one "
            f"{_inventory(now)}"
        )
    return found


def _inventory(run: SavedRun) -> str:
    return "; ".join(f"{mode}: {', '.join(by_measure)}" for mode, by_measure in run.values.items())


def _notes(now: SavedRun, before: SavedRun, shared: Sequence[str]) -> tuple[str, ...]:
    notes = []
    gone, fresh = len(before.judgements) - len(shared), len(now.judgements) - len(shared)
    if gone or fresh:
        notes.append(
            f"{len(shared):,} queries are in both runs and compared; {gone:,} are in the saved one only, "
            f"{fresh:,} in this one only"
        )
    changed = sum(now.judgements[query] != before.judgements[query] for query in shared)
    if changed:
        notes.append(
            f"the text or the judgements of {changed:,} of {len(shared):,} compared queries have changed "
            "since the saved run: what changed may be those, not the search"
        )
    for name in ("space", "depth", "drop_self"):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            notes.append(f"{name} was {old} and is {new}")
    other = [
        f"{name} was {before.settings.get(name)!r} and is {value!r}"
        for name, value in now.settings.items()
        if before.settings.get(name) != value
    ]
    if other:
        notes.append("settings differ: " + ", ".join(other))
    return tuple(notes)
