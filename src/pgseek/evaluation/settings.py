"""The settings of a collection that decide its ranking, and a grid of them to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pgseek.errors import InvalidInput
from pgseek.types import FUSIONS, MAX_K, NORMALIZATIONS, Fusion, Normalization

FUSED = ("fusion", "alpha", "normalization", "candidates")
WEIGHED = ("k1", "b", "title_weight")
_ALPHAS = tuple(round(step / 20, 2) for step in range(21))


@dataclass(frozen=True, slots=True)
class Setting:
    """What `tune` chooses: how the legs are fused, and how BM25 weighs words.

    With the fusion 'auto' ``alpha`` is what the kind of query multiplies; with 'rrf' it is kept for later
    use.
    """

    fusion: Fusion
    alpha: float
    normalization: Normalization
    candidates: int
    k1: float
    b: float
    title_weight: float

    @classmethod
    def of(cls, settings: Mapping[str, Any], weighting: Mapping[str, float]) -> Setting:
        """Return that of a collection: its settings, and what its chunks are weighed with."""
        return cls(
            fusion=settings.get("fusion", "weighted"),
            alpha=float(settings.get("alpha", 0.4)),
            normalization=settings.get("normalization", "max"),
            candidates=int(settings.get("candidates", 100)),
            **{name: float(weighting[name]) for name in WEIGHED},
        )

    def to_json(self) -> dict[str, Any]:
        """Return what is stored in the collection's settings."""
        return asdict(self)

    @property
    def weighting(self) -> tuple[float, float, float]:
        """Return k1, b and the weight of the title."""
        return self.k1, self.b, self.title_weight

    def weighed_as(self, other: Setting) -> Setting:
        """Return this one with the BM25 constants of another."""
        return replace(self, k1=other.k1, b=other.b, title_weight=other.title_weight)

    def fused_as(self, other: Setting) -> Setting:
        """Return this one with the fusion of another."""
        return other.weighed_as(self)

    def differences(self, other: Setting) -> dict[str, tuple[Any, Any]]:
        """Return by name what differs: the value here, and the other's."""
        own, others = asdict(self), asdict(other)
        return {name: (own[name], others[name]) for name in own if own[name] != others[name]}

    def __str__(self) -> str:
        parts = [f"fusion {self.fusion}"]
        if self.fusion != "rrf":
            parts += [f"alpha {self.alpha:g}", f"normalization {self.normalization}"]
        parts.append(f"candidates {self.candidates}")
        return ", ".join([*parts, f"k1 {self.k1:g}", f"b {self.b:g}", f"title_weight {self.title_weight:g}"])


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that `tune` tries, besides those in force.

    Every fusion is tried with every ``alphas`` (those of 'auto' above 0), ``normalizations`` and
    ``candidates``; every ``k1`` with every ``b`` and ``title_weight``, unless ``bm25`` is False, which leaves
    them as they are: changing them rewrites every chunk.

    Raises:
        InvalidInput: a value is out of its range, or there is none to choose from.
    """

    fusions: tuple[Fusion, ...] = ("weighted", "auto", "rrf")
    alphas: tuple[float, ...] = _ALPHAS
    normalizations: tuple[Normalization, ...] = ("max", "minmax")
    candidates: tuple[int, ...] = (50, 100, 200)
    k1: tuple[float, ...] = (0.6, 0.9, 1.2, 1.6, 2.0)
    b: tuple[float, ...] = (0.3, 0.5, 0.75, 0.9)
    title_weight: tuple[float, ...] = (1.0, 2.0, 4.0)
    bm25: bool = True
    # How many settings there are.
    size: int = field(init=False)

    def __post_init__(self) -> None:
        for name, allowed in (("fusions", FUSIONS), ("normalizations", NORMALIZATIONS)):
            unknown = [value for value in getattr(self, name) if value not in allowed]
            if unknown:
                raise InvalidInput(
                    f"{name} has {unknown[0]!r}, but they must be among {', '.join(map(str, allowed))}"
                )
        for name, low, high in (
            ("alphas", 0.0, 1.0),
            ("candidates", 1, MAX_K),
            ("k1", 0.0, 100.0),
            ("b", 0.0, 1.0),
            ("title_weight", 1.0, 100.0),
        ):
            for value in getattr(self, name):
                whole = name == "candidates"
                if (
                    isinstance(value, bool)
                    or not isinstance(value, int if whole else int | float)
                    or not low <= value <= high
                ):
                    kind = "whole numbers" if whole else "numbers"
                    raise InvalidInput(
                        f"{name} has {value!r}, but they must be {kind} from {low:g} to {high:g}"
                    )
        for name in ("fusions", "alphas", "normalizations", "candidates", *WEIGHED):
            if not getattr(self, name):
                raise InvalidInput(f"{name} is empty; give at least one value to try")
        weightings = len(self.k1) * len(self.b) * len(self.title_weight) if self.bm25 else 1
        fusions = sum(
            1 if fusion == "rrf" else len(self.alphas) * len(self.normalizations) for fusion in self.fusions
        )
        object.__setattr__(self, "size", fusions * len(self.candidates) * weightings)

    def fused(self, current: Setting) -> list[Setting]:
        """Return ``current`` and every other fusion to be tried with its BM25 constants, each once."""
        found = [current]
        depths = _with(self.candidates, current.candidates)
        for fusion in self.fusions:
            if fusion == "rrf":
                found += [replace(current, fusion=fusion, candidates=depth) for depth in depths]
                continue
            # Among settings that are equally good, the first is taken: the one that changes least.
            for normalization in _with(self.normalizations, current.normalization):
                found += [
                    replace(
                        current, fusion=fusion, alpha=alpha, normalization=normalization, candidates=depth
                    )
                    for depth in depths
                    for alpha in _with(self.alphas, current.alpha)
                    if fusion == "weighted" or alpha > 0
                ]
        return list(dict.fromkeys(found))

    def weighed(self, current: Setting, titles: bool = True) -> list[Setting]:
        """Return ``current`` and every other weighting of words with its fusion; title weights only if there
        are ``titles``.
        """
        if not self.bm25:
            return [current]
        title_weights = _with(self.title_weight, current.title_weight) if titles else [current.title_weight]
        found = [
            replace(current, k1=k1, b=b, title_weight=title_weight)
            for title_weight in title_weights
            for k1 in _with(self.k1, current.k1)
            for b in _with(self.b, current.b)
        ]
        return list(dict.fromkeys([current, *found]))


def _with(values: tuple[Any, ...], current: Any) -> list[Any]:
    """Return the values, each once, with the current one first, numbers by their distance to it."""
    if not isinstance(current, str):
        values = tuple(sorted(values, key=lambda value: abs(value - current)))
    return list(dict.fromkeys([current, *values]))
