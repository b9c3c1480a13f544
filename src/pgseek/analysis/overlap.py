"""How much of one text is in another: what a model that reads for meaning does not tell."""

from __future__ import annotations

import re

# Characters that are read of each text: beyond that a duplicate is a duplicate.
MOST = 20_000
_SIGNS = re.compile(r"[\W_]+")


def overlap(one: str, other: str) -> float:
    """Return the share of the shorter text's letter trigrams that the longer one has, 0..1.

    Case, and whatever is no letter or digit, does not count; a text of fewer than three letters is compared
    as a whole. Containment (Broder 1997), not Jaccard's measure: a copy with a line put in front of it, or a
    sentence left out, keeps the value of a copy.
    """
    a, b = trigrams(one), trigrams(other)
    return len(a & b) / min(len(a), len(b)) if a and b else float(a == b)


def trigrams(text: str) -> set[str]:
    """Return the trigrams of a text's letters and digits, words one blank apart."""
    plain = _SIGNS.sub(" ", text[:MOST].casefold()).strip()
    if len(plain) < 3:
        return {plain} if plain else set()
    return {plain[at : at + 3] for at in range(len(plain) - 2)}
