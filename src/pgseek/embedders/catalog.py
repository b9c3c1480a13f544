"""What is known of models by name. For now: how their scores are best fused with the lexical ones."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pgseek.types import EmbedderIdentity, Normalization


@dataclass(frozen=True, slots=True)
class FusionDefaults:
    """``alpha`` is the weight of the dense leg in 0..1; ``normalization`` makes its scores comparable."""

    alpha: float
    normalization: Normalization


# Cosines of an unknown model may all lie close together (E5's do, between 0.7 and 0.9): 'minmax' stands that.
UNKNOWN = FusionDefaults(0.4, "minmax")
# Provider and a pattern of the model's name; measured by benchmarks/quality.py --sweep.
_MEASURED: tuple[tuple[str, str, FusionDefaults], ...] = (
    ("wordllama", r".*", FusionDefaults(0.3, "max")),
    ("sentence-transformers", r".*minilm.l(6|12).v2.*", FusionDefaults(0.4, "max")),
)


def fusion_defaults(identity: EmbedderIdentity) -> FusionDefaults:
    """Return how a new collection with this embedder fuses its legs unless told otherwise."""
    for provider, pattern, defaults in _MEASURED:
        if identity.provider == provider and re.fullmatch(pattern, identity.model.lower(), re.DOTALL):
            return defaults
    return UNKNOWN
