"""Vectors of a smaller space from those of a larger one: models trained so (Matryoshka) give their beginning.

Only providers whose shorter vectors are the first numbers of the longer ones, scaled to unit length again
where the longer ones were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pgseek.embedders.base import Vectors, normalize
from pgseek.embedders.catalog import find_model
from pgseek.embedders.folders import record_of
from pgseek.types import EmbedderIdentity

# OpenAI documents it of its embedding-3 models; of the others the vectors are cut here, by their embedders.
CUTTING = frozenset({"openai", "azure-openai", "wordllama", "sentence-transformers"})


def reduces(of: EmbedderIdentity, to: EmbedderIdentity) -> bool:
    """Return whether vectors of ``to`` are cut from those of ``of``, without asking the model."""
    if of.provider not in CUTTING or to.dimensions >= of.dimensions:
        return False
    if replace(to, dimensions=of.dimensions) != of:
        return False
    known = find_model(of.provider, of.model)
    trained = record_of(of.model).get("matryoshka", ()) if of.provider == "sentence-transformers" else ()
    return to.dimensions in trained or (known is not None and known.reduces_to(to.dimensions))


def reduction(of: EmbedderIdentity, to: EmbedderIdentity) -> Callable[[Vectors], Vectors] | None:
    """Return what makes a vector of ``to``, shape (d,), of one of ``of``; None where it must be embedded."""
    if not reduces(of, to):
        return None

    def cut(vector: Vectors) -> Vectors:
        shorter = vector[: to.dimensions]
        return normalize(shorter) if to.normalized else shorter

    return cut
