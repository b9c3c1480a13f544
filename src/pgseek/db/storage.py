"""Names and column types of the schema that need no SQLAlchemy, which takes a while to load."""

from __future__ import annotations

from typing import Literal

from pgseek.errors import InvalidInput

SCHEMA = "pgseek"
Storage = Literal["vector", "halfvec"]
# What pgvector's HNSW can index per column type.
MAX_DIMENSIONS: dict[Storage, int] = {"vector": 2000, "halfvec": 4000}


def storage_for(dimensions: int) -> Storage:
    """Return the column type that HNSW can index at ``dimensions``.

    Raises:
        InvalidInput: ``dimensions`` is below 1 or above 4,000.
    """
    if not 1 <= dimensions <= MAX_DIMENSIONS["halfvec"]:
        raise InvalidInput(
            f"{dimensions} dimensions cannot be indexed: use 1 to {MAX_DIMENSIONS['halfvec']:,}; "
            "many models give fewer through their dimensions argument"
        )
    return "vector" if dimensions <= MAX_DIMENSIONS["vector"] else "halfvec"
