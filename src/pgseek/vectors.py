"""How vectors are stored, compared and indexed: what pgvector can do at which size, and the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from pgseek.errors import InvalidInput

Storage = Literal["vector", "halfvec"]
STORAGES: tuple[Storage, ...] = ("vector", "halfvec")
Metric = Literal["cosine", "inner_product", "l2", "l1"]
METRICS: tuple[Metric, ...] = ("cosine", "inner_product", "l2", "l1")
Method = Literal["hnsw", "ivfflat", "none"]
METHODS: tuple[Method, ...] = ("hnsw", "ivfflat", "none")
Form = Literal["full", "binary", "prefix"]
FORMS: tuple[Form, ...] = ("full", "binary", "prefix")

# pgvector's bound of either column type.
MOST_DIMENSIONS = 16_000
# What its indexes take, by the type that is indexed.
INDEXED_UP_TO: dict[str, int] = {"vector": 2000, "halfvec": 4000, "bit": 64_000}
# The part of an operator class's name, and the operator, of each metric.
OPERATORS: dict[Metric, tuple[str, str]] = {
    "cosine": ("cosine_ops", "<=>"),
    "inner_product": ("ip_ops", "<#>"),
    "l2": ("l2_ops", "<->"),
    "l1": ("l1_ops", "<+>"),
}


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """How a space's vectors are indexed.

    ``method`` is 'hnsw', 'ivfflat' (quicker to build, less recall at the same speed; it needs rows to learn
    from) or 'none' (every search compares all vectors). ``form`` is what is indexed: the vectors in 'full',
    'binary' (the sign of each number, compared by Hamming distance) or the first ``prefix`` numbers (for
    models trained so: Matryoshka); with the last two the best rows are compared again by their stored
    vectors. ``m`` (2..100) and ``ef_construction`` (4..1,000, at least 2 m) are HNSW's, ``lists``
    (1..32,768) IVFFlat's. None is pgvector's own default; of ``lists``, a choice by the number of rows.
    """

    method: Method = "hnsw"
    form: Form = "full"
    prefix: int | None = None
    m: int | None = None
    ef_construction: int | None = None
    lists: int | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (("method", self.method, METHODS), ("form", self.form, FORMS)):
            if value not in allowed:
                raise InvalidInput(
                    f"the index's {name} is {value!r}, but must be one of {', '.join(allowed)}"
                )
        if self.method == "none" and self.form != "full":
            raise InvalidInput(f"form is {self.form!r}, but without an index vectors are compared in full")
        bounds = (
            ("prefix", 1, INDEXED_UP_TO["halfvec"], self.form == "prefix", "form 'prefix'"),
            ("m", 2, 100, self.method == "hnsw", "method 'hnsw'"),
            ("ef_construction", 4, 1000, self.method == "hnsw", "method 'hnsw'"),
            ("lists", 1, 32_768, self.method == "ivfflat", "method 'ivfflat'"),
        )
        for name, low, high, fits, where in bounds:
            value = getattr(self, name)
            if value is None:
                continue
            if not fits:
                raise InvalidInput(f"{name} is {value!r}, but belongs to an index of {where}")
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InvalidInput(f"{name} is {value!r}, but must be a whole number from {low} to {high:,}")
        if self.form == "prefix" and self.prefix is None:
            raise InvalidInput("an index of form 'prefix' needs to know how many numbers: prefix=256")
        if self.method == "hnsw" and (self.ef_construction or 64) < 2 * (self.m or 16):
            raise InvalidInput(
                f"ef_construction is {self.ef_construction or 64}, but must be at least twice m, "
                f"which is {self.m or 16}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return it as the database keeps it: what is None is left out."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}

    @classmethod
    def parse(cls, given: str | Mapping[str, Any] | VectorIndex) -> VectorIndex:
        """Return the index meant by ``hnsw``, ``binary``, ``prefix=256`` or ``ivfflat,lists=200``.

        Raises:
            InvalidInput.
        """
        if isinstance(given, VectorIndex):
            return given
        if isinstance(given, str):
            given = dict(_parts(given))
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                raise InvalidInput(f"an index has no {name!r}; it has {', '.join(known)}")
        return cls(**given)

    def __str__(self) -> str:
        numbers = {"m": self.m, "ef_construction": self.ef_construction, "lists": self.lists}
        parts: list[str] = [self.method]
        if self.form != "full":
            parts.append(self.form if self.prefix is None else f"prefix={self.prefix}")
        return ",".join(
            [*parts, *(f"{name}={value}" for name, value in numbers.items() if value is not None)]
        )


def _parts(text: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            if part in METHODS:
                found.append(("method", part))
            elif part in FORMS:
                found.append(("form", part))
            else:
                raise InvalidInput(
                    f"index {text!r}: {part!r} is none of {', '.join((*METHODS, *FORMS))}; an index is "
                    "written as hnsw, binary, prefix=256 or ivfflat,lists=200"
                )
            continue
        if name in {"method", "form"}:
            found.append((name, value))
            continue
        if not (value.isascii() and value.isdigit()):
            raise InvalidInput(f"index {text!r}: {value!r} is not a whole number")
        found.append((name, int(value)))
        if name == "prefix":
            found.append(("form", "prefix"))
    return found


def check_metric(metric: object) -> Metric:
    """Return the metric, or raise `InvalidInput`."""
    if metric not in METRICS:
        raise InvalidInput(f"metric is {metric!r}, but must be one of {', '.join(METRICS)}")
    found: Metric = metric
    return found


def storage_for(dimensions: int, given: str | None = None) -> Storage:
    """Return the column type for vectors of so many numbers; half precision where an index asks for it.

    Raises:
        InvalidInput: ``dimensions`` is below 1 or above 16,000, or there is no such storage.
    """
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise InvalidInput(
            f"{dimensions} dimensions cannot be stored: use 1 to {MOST_DIMENSIONS:,}; "
            "many models give fewer through their dimensions argument"
        )
    if given is None:
        return "vector" if dimensions <= INDEXED_UP_TO["vector"] else "halfvec"
    if given not in STORAGES:
        raise InvalidInput(f"storage is {given!r}, but must be one of {', '.join(STORAGES)}")
    found: Storage = given
    return found


def index_for(
    dimensions: int,
    storage: Storage,
    metric: Metric,
    given: str | Mapping[str, Any] | VectorIndex | None = None,
) -> VectorIndex:
    """Return how vectors are indexed: in full where pgvector can, else by their signs; or as given.

    Raises:
        InvalidInput: pgvector has no such index; the message says what would do.
    """
    if given is None:
        return VectorIndex(form="full" if dimensions <= INDEXED_UP_TO[storage] else "binary")
    index = VectorIndex.parse(given)
    if index.method == "none":
        return index
    if index.form == "full" and dimensions > INDEXED_UP_TO[storage]:
        raise InvalidInput(
            f"an index of whole vectors takes {INDEXED_UP_TO[storage]:,} dimensions of {storage}, but these "
            f"have {dimensions:,}; "
            + ("store them as halfvec, or " if dimensions <= INDEXED_UP_TO["halfvec"] else "")
            + "index them as binary, or by a prefix"
        )
    if index.prefix is not None and index.prefix >= dimensions:
        raise InvalidInput(f"prefix is {index.prefix}, but must be below the {dimensions} dimensions")
    if index.prefix is not None and index.prefix > INDEXED_UP_TO[storage]:
        raise InvalidInput(
            f"prefix is {index.prefix}, but an index takes {INDEXED_UP_TO[storage]:,} dimensions of {storage}"
        )
    if index.method == "ivfflat" and metric == "l1" and index.form != "binary":
        raise InvalidInput("IVFFlat has no l1 metric; use hnsw")
    return index
