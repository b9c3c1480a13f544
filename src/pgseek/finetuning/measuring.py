"""A trained model against its base, in the database: two spaces of a collection, by the same queries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pgseek.embedders.base import Embedder, identity_hash
from pgseek.embedders.folders import RECORD
from pgseek.embedders.registry import create_embedder
from pgseek.errors import InvalidInput
from pgseek.evaluation import DEFAULT_MEASURES, Qrels, SpaceComparison
from pgseek.evaluation.compare import load_stats
from pgseek.evaluation.measures import parse_measures
from pgseek.evaluation.runs import Progress, Searched
from pgseek.finetuning.card import write_card, write_record
from pgseek.finetuning.running import FineTuning
from pgseek.types import Gate, ReembedReport, SpaceInfo

# Alone and together with the words: None is as the collection is set.
WAYS: tuple[tuple[str, float | None], ...] = (("dense", 1.0), ("hybrid", None))


class Reembedded(Searched, Protocol):
    """What spaces are made in: a `Collection`."""

    @property
    def reembed(self) -> Callable[..., ReembedReport]:
        """Make another space."""
        ...

    @property
    def compare_spaces(self) -> Callable[..., SpaceComparison]:
        """Search by two spaces."""
        ...

    def spaces(self) -> list[SpaceInfo]:
        """Return its spaces."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """The base (a) and the trained model (b) by the same queries, in spaces ``before`` and ``after``.

    ``dense`` compares the dense legs alone, ``hybrid`` searches as the collection is set; differences are
    b's. Neither space was made the active one: `Collection.activate` does that, `Collection.retire` drops
    one.
    """

    before: int
    after: int
    dense: SpaceComparison
    hybrid: SpaceComparison

    def rows(self) -> list[dict[str, Any]]:
        """Return before, after, difference and p of each measure, by the way of searching, ready for JSON."""
        return [
            {
                "way": way,
                "queries": found.judged,
                "measures": [
                    {
                        "measure": one.measure,
                        "before": found.a.means[one.measure],
                        "after": found.b.means[one.measure],
                        "difference": one.difference,
                        "better": one.better,
                        "worse": one.worse,
                        "p": one.p,
                    }
                    for one in found.comparisons
                ],
            }
            for way, found in (("dense", self.dense), ("hybrid", self.hybrid))
        ]


def measure(
    collection: Reembedded,
    tuned: FineTuning,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    workers: int = 1,
    progress: Progress | None = None,
) -> Measured:
    """Fill a space with the trained model's vectors, and compare it with the base's; adds both to the
    card.

    The new space stands beside the active one, as `Collection.reembed` makes it, and is not searched yet.
    Where the collection has no space of the base, one is made as well. The queries should be none that were
    trained on: such are refused.

    Raises:
        InvalidInput: a query was trained on, none is judged, or none of the judged documents is stored.
        MissingExtra, EmbedderError, DatabaseError.
    """
    parse_measures(measures)
    load_stats()
    known = {" ".join(text.casefold().split()) for text in queries.values()}
    trained_on = [text for text in tuned.trained_on if " ".join(text.casefold().split()) in known]
    if trained_on:
        raise InvalidInput(
            f"{len(trained_on):,} of the queries were trained on, {trained_on[0][:100]!r} for one: measure "
            "with others"
        )
    before = _space_of(collection, create_embedder(tuned.base), workers, progress)
    after = _space_of(collection, create_embedder(tuned.embedder), workers, progress)
    found = [
        collection.compare_spaces(
            before, after, queries, qrels, alpha=alpha, measures=measures, progress=progress
        )
        for _, alpha in WAYS
    ]
    measured = Measured(before, after, *found)
    record = json.loads((tuned.folder / RECORD).read_text(encoding="utf-8"))
    record["measured"] = measured.rows()
    write_card(tuned.folder, record)
    write_record(tuned.folder, record)
    return measured


def _space_of(collection: Reembedded, embedder: Embedder, workers: int, progress: Progress | None) -> int:
    """Return the number of a space that is ready and has the embedder's vectors; made, if there is none."""

    def tell(report: ReembedReport) -> None:
        if progress is not None:
            progress(
                f"embedding with {embedder.identity.model.rpartition('/')[2]}", report.done, report.chunks
            )

    wanted = identity_hash(embedder.identity)
    for space in collection.spaces():
        if space.identity_hash == wanted and space.state in ("active", "ready"):
            return int(space.space_id)
    # What the index finds is another question than what the model does.
    report = collection.reembed(
        embedder, switch=False, gate=Gate(sample=1, min_recall=0.0), workers=workers, progress=tell
    )
    return int(report.space_id)
