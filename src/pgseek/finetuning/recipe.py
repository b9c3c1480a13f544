"""How a model is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from pgseek.errors import InvalidInput
from pgseek.types import check_whole

Loss = Literal["auto", "cosine", "ranking", "triplet"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained; checked on construction.

    ``loss``: 'cosine' fits cosines to scores; 'ranking' (MultipleNegativesRankingLoss) has each query find
    its text among those of the batch and the negatives; 'triplet' keeps the text nearer than the negative
    by a cosine of 0.2. 'auto' is 'cosine' for scored pairs, else 'ranking'. ``negatives`` (0..20) are mined
    for each pair: see `mine` for ``window`` and ``margin``. ``matryoshka`` are lengths that the beginnings
    of vectors shall be good at, too. ``steps`` end the training in place of ``epochs``. ``learning_rate``
    rises over the share ``warmup`` of all steps, then falls to 0. Of the queries a share ``dev`` is not
    trained on: their loss is looked at ``evaluations`` times, and the model that had the lowest is kept.
    Texts are cut at ``max_tokens``, at most what the model reads. ``checkpoints`` are written so many
    times, for going on after an end that was not planned; with ``dev`` as often as is evaluated.

    Raises:
        InvalidInput.
    """

    loss: Loss = "auto"
    negatives: int = 0
    window: tuple[int, int] = (3, 50)
    margin: float = 0.05
    matryoshka: tuple[int, ...] = ()
    epochs: float = 1.0
    steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 2e-5
    warmup: float = 0.1
    dev: float = 0.1
    evaluations: int = 5
    max_tokens: int | None = None
    checkpoints: int = 5
    seed: int = 42

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise InvalidInput(f"loss is {self.loss!r}, but must be one of {', '.join(LOSSES)}")
        for name, least, most in (
            ("negatives", 0, 20),
            ("batch_size", 2, 100_000),
            ("evaluations", 1, 1000),
            ("checkpoints", 1, 1000),
            ("seed", 0, 2**32 - 1),
        ):
            check_whole(name, getattr(self, name), most, least)
        if self.steps is not None:
            check_whole("steps", self.steps, 100_000_000)
        if self.max_tokens is not None:
            check_whole("max_tokens", self.max_tokens, 1_000_000, 8)
        for name, low, high in (("margin", 0, 1), ("warmup", 0, 1), ("dev", 0, 0.5)):
            value = getattr(self, name)
            if not (_is_number(value) and low <= value <= high):
                raise InvalidInput(f"{name} is {value!r}, but must lie in {low}..{high:g}")
        for name, high in (("epochs", 1000.0), ("learning_rate", 1.0)):
            value = getattr(self, name)
            if not (_is_number(value) and 0 < value <= high):
                raise InvalidInput(f"{name} is {value!r}, but must be above 0 and at most {high:g}")
        first, last = self.window
        if not (isinstance(first, int) and isinstance(last, int) and 1 <= first <= last <= 1000):
            raise InvalidInput(f"window is {self.window!r}, but must be two ranks, 1..1000, such as (3, 50)")
        for length in self.matryoshka:
            check_whole("matryoshka", length, 100_000)

    def plain(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {**asdict(self), "window": list(self.window), "matryoshka": list(self.matryoshka)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
