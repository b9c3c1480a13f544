"""What chat models cost, as far as ``models.toml`` knows."""

from __future__ import annotations

import tomllib
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from pgseek.errors import ConfigurationError

FIELDS = {"provider", "model", "input", "output", "price_read"}


def find_price(spec: str) -> tuple[float, float] | None:
    """Return dollars per million tokens of input and of output of ``provider:model``, None if unknown."""
    return prices().get(spec)


@cache
def prices() -> dict[str, tuple[float, float]]:
    """Return the prices that come with pgseek, by ``provider:model``."""
    return parse_prices(files("pgseek.embedders").joinpath("models.toml").read_text("utf-8"))


def parse_prices(text: str) -> dict[str, tuple[float, float]]:
    """Return the prices of the tables ``[[generator]]`` in ``text``.

    Raises:
        ConfigurationError: an entry is incomplete or there twice; names it.
    """
    found: dict[str, tuple[float, float]] = {}
    for entry in tomllib.loads(text).get("generator", []):
        spec = f"{entry.get('provider', '?')}:{entry.get('model', '?')}"
        if set(entry) != FIELDS or not isinstance(entry["price_read"], date):
            raise ConfigurationError(
                f"the catalogue's generator {spec}: it must have {', '.join(sorted(FIELDS))}"
            )
        if spec in found or not all(_amount(entry[name]) for name in ("input", "output")):
            raise ConfigurationError(
                f"the catalogue's generator {spec}: it is there twice, or its prices are none"
            )
        found[spec] = (float(entry["input"]), float(entry["output"]))
    return found


def _amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
