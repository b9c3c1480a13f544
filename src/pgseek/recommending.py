"""Recommendations from liked and disliked documents: arguments to the one SQL function, rows to hits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from psycopg.types.json import Jsonb

from pgseek import search
from pgseek.errors import InvalidInput
from pgseek.prepare import checked_text
from pgseek.querying import search_options
from pgseek.stages import Stages, within
from pgseek.steps import Script, fetch
from pgseek.types import CollectionInfo, Hit, Search, check_whole

Strategy = Literal["rocchio", "best_score"]
OnMissing = Literal["raise", "ignore"]
# A point in time: with a zone, or in UTC; ISO 8601, or seconds since 1970.
When = datetime | date | str | float

_RECOMMEND = (
    "SELECT * FROM pgseek.recommend(%(collection)s, %(liked)s, %(disliked)s, %(k)s, %(options)s)"
    " ORDER BY rank"
)


@dataclass(frozen=True, slots=True)
class Event:
    """What somebody did with a document: liked it (``weight`` above 0), disliked it (below), saw it (0)."""

    id: str
    at: When | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Examples:
    """Whom to recommend to: see `Collection.recommend`. Checked on construction.

    Raises:
        InvalidInput.
    """

    liked: tuple[str, ...] = ()
    disliked: tuple[str, ...] = ()
    history: tuple[Event, ...] = ()
    half_life: timedelta | float | str | None = None
    now: When | None = None
    exclude: tuple[str, ...] = ()
    strategy: Strategy = "rocchio"
    disliked_weight: float | None = None
    on_missing: OnMissing = "raise"

    def options(self) -> dict[str, Any]:
        """Return what of it is not the default, as the SQL function takes it."""
        half_life = self.half_life
        given = {
            "strategy": self.strategy,
            "disliked_weight": self.disliked_weight,
            "history": [_event(event) for event in self.history],
            "half_life": half_life.total_seconds() if isinstance(half_life, timedelta) else half_life,
            "now": _time(self.now),
            "exclude": list(self.exclude),
            "on_missing": self.on_missing,
        }
        return {name: value for name, value in given.items() if value not in (None, [])}


def ids(name: str, given: str | Iterable[str]) -> tuple[str, ...]:
    """Return ids, of which a single one may be given as it is. Raises `InvalidInput` for what is no text."""
    if not isinstance(given, Iterable):
        raise InvalidInput(f"{name} is {given!r}, but must be a document's id or several of them")
    found = (given,) if isinstance(given, str) else tuple(given)
    for one in found:
        if not isinstance(one, str):
            raise InvalidInput(f"{name} holds {one!r}, but must hold ids of documents, which are texts")
        checked_text(f"an id of {name}", one)
    return found


def events(given: Iterable[Event | Mapping[str, Any] | tuple[str, When]]) -> tuple[Event, ...]:
    """Return events: given as such, as mappings with their keys, or as pairs of an id and a time.

    Raises:
        InvalidInput: one is none of these.
    """
    found = []
    for one in given:
        try:
            if isinstance(one, Mapping):
                event = Event(**one)
            else:
                event = one if isinstance(one, Event) else Event(*one)
            if isinstance(one, str) or not isinstance(event.id, str) or not math.isfinite(event.weight):
                raise TypeError("its id is not a text, or its weight no number")
            checked_text("an id of history", event.id)
        except TypeError as error:
            raise InvalidInput(
                f"history holds {one!r}, which is no event: give Event(id, at, weight), a mapping with these "
                "keys, or a pair (id, at)"
            ) from error
        found.append(event)
    return tuple(found)


def recommend(
    info: CollectionInfo, examples: Examples, k: int, request: Search, stages: Stages
) -> Script[list[Hit]]:
    """Return the documents that are most like what is liked. Raises `InvalidInput`."""
    check_whole("k", k, 1000)
    parameters = {
        "collection": info.name,
        "liked": list(examples.liked),
        "disliked": list(examples.disliked),
        "k": k,
        "options": Jsonb({**search_options(request), **examples.options()}),
    }
    with stages.stage("search"):
        rows = yield from within(stages, lambda: fetch(_RECOMMEND, parameters))
    return [search.hit(row) for row in rows]


def _event(event: Event) -> dict[str, Any]:
    found = {"id": event.id, "at": _time(event.at), "weight": event.weight}
    return {name: value for name, value in found.items() if value is not None}


def _time(given: When | None) -> str | float | None:
    if isinstance(given, datetime):
        return (given if given.tzinfo is not None else given.replace(tzinfo=UTC)).isoformat()
    return given.isoformat() if isinstance(given, date) else given
