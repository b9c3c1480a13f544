"""Which embedding model to take: needs in, ranked models of the catalogue out, with reasons and costs.

What a need excludes is excluded. The rest is ranked in three tiers: models whose published quality meets
the accuracy asked for, then those whose quality falls short of it, then those of which none is published.
Within a tier the score decides, a weighted sum of three numbers in 0..1:

* quality: the place of the published value on its benchmark's scale, as ``models.toml`` gives it;
* speed: by the model's class, see ``SPEEDS``;
* cost: 1 for what is free, 1/2 at ``HALF_COST`` US dollars a month, averaged over the first year.

Equal scores are ordered by name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pgseek.embedders.catalog import ENGLISH, Benchmark, Model, Speed, catalogue, is_code
from pgseek.errors import InvalidInput

Accuracy = Literal["basic", "good", "best"]

# Weights of quality, speed and cost.
WEIGHTS: Mapping[Accuracy, tuple[float, float, float]] = {
    "basic": (0.2, 0.5, 0.3),
    "good": (0.4, 0.4, 0.2),
    "best": (0.8, 0.1, 0.1),
}
SPEEDS: Mapping[Speed, float] = {"static": 1.0, "small": 0.7, "api": 0.6, "base": 0.4, "large": 0.05}
SPEEDS_ON_GPU: Mapping[Speed, float] = {**SPEEDS, "small": 0.9, "base": 0.8, "large": 0.6}
SPEED_WORDS: Mapping[Speed, str] = {
    "static": "thousands of texts a second on any processor",
    "small": "small: fast enough for a processor",
    "base": "of middle size: a processor will do, a GPU is far faster",
    "large": "large: slow without a GPU",
    "api": "a service: as fast as its rate limits, a network trip for every query",
}
HALF_COST = 20.0
# A local model above so many millions of parameters is for GPUs only.
GPU_ONLY = 1000.0
QUERY_TOKENS = 20
# A collection's default of 2,000 characters a chunk, at about four a token.
CHUNK_TOKENS = 500
# A character is rarely less than a third of a token in languages written with spaces.
SAFE_CHARACTERS = 3
# What pgvector's HNSW can index: full precision up to the first, halfvec up to the second.
FULL_PRECISION, INDEXABLE = 2000, 4000
SHORTENED = 1024

MILLION = 1_000_000
PAGE, PAGE_ROOM, HNSW_ROOM = 8192, 8168, 8160


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a model is wanted for, checked on construction.

    ``documents`` have ``mean_tokens`` tokens each. ``monthly_documents`` are new or changed each month;
    None means a tenth of ``documents``. ``queries`` are per month. ``network`` says whether texts may
    leave it for a service. ``languages`` are ISO 639 codes. ``budget`` is in US dollars a month, None for
    no bound. ``code`` asks for a model made for code as well as prose. ``gpu`` says that there is one.
    """

    documents: int
    mean_tokens: int
    monthly_documents: int | None = None
    queries: int = 0
    network: bool = True
    languages: tuple[str, ...] = ("en",)
    budget: float | None = None
    accuracy: Accuracy = "good"
    code: bool = False
    gpu: bool = False

    def __post_init__(self) -> None:
        _check_whole("documents", self.documents, 1)
        _check_whole("mean_tokens", self.mean_tokens, 1)
        _check_whole("queries", self.queries, 0)
        if self.monthly_documents is not None:
            _check_whole("monthly_documents", self.monthly_documents, 0)
        for name in ("network", "code", "gpu"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInput(f"{name} is {getattr(self, name)!r}, but must be True or False")
        codes = self.languages
        if not isinstance(codes, tuple) or not codes or not all(map(is_code, codes)):
            raise InvalidInput(
                f"languages is {codes!r}, but must be one or more ISO 639 codes, such as ('en', 'de')"
            )
        budget = self.budget
        if budget is not None and not (
            isinstance(budget, int | float) and not isinstance(budget, bool) and 0 <= budget < math.inf
        ):
            raise InvalidInput(f"budget is {budget!r}, but must be 0 or more US dollars a month, or None")
        if self.accuracy not in get_args(Accuracy):
            allowed = ", ".join(get_args(Accuracy))
            raise InvalidInput(f"accuracy is {self.accuracy!r}, but must be one of {allowed}")

    @property
    def english(self) -> bool:
        """Whether English is all that is asked for."""
        return set(self.languages) <= ENGLISH

    @property
    def changing(self) -> int:
        """Documents to embed each month after the first."""
        return -(-self.documents // 10) if self.monthly_documents is None else self.monthly_documents


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A model that meets the needs, at ``dimensions``.

    ``first_cost`` pays for embedding all documents once, ``monthly_cost`` for a month of changes and
    queries (`QUERY_TOKENS` each), both in US dollars. ``vector_bytes`` and ``index_bytes`` are estimates
    for a million documents of the length asked about, each in ``vectors_per_document`` chunks.
    ``score`` in 0..1 ranks within a tier.
    """

    model: Model
    dimensions: int
    score: float
    reasons: tuple[str, ...]
    cautions: tuple[str, ...]
    first_cost: float
    monthly_cost: float
    vectors_per_document: int
    vector_bytes: int
    index_bytes: int


def recommend(needs: Needs, limit: int = 5) -> tuple[Recommendation, ...]:
    """Return at most ``limit`` models that meet ``needs``, best first; none if nothing does.

    `excluded` says why the others are not among them.

    Raises:
        InvalidInput: ``limit`` is below 1.
    """
    _check_whole("limit", limit, 1)
    fitting = [model for model in catalogue().models if _obstacle(model, needs) is None]
    used = Counter(found[1].name for model in fitting if (found := _quality(model, needs)))
    # The benchmark most of them have a value of: the others stand beside it, not in it.
    usual = min(used, key=lambda name: (-used[name], name), default=None)
    ranked = sorted(fitting, key=lambda m: (_tier(m, needs), -_score(m, needs), m.spec))
    return tuple(_recommendation(model, needs, usual) for model in ranked[:limit])


def excluded(needs: Needs) -> Mapping[str, str]:
    """Return why each model of the catalogue that `recommend` never returns does not fit, by its spec."""
    reasons = ((model.spec, _obstacle(model, needs)) for model in catalogue().models)
    return {spec: reason for spec, reason in reasons if reason is not None}


def costs(model: Model, needs: Needs) -> tuple[float, float]:
    """Return US dollars for embedding all documents once, and for each month of changes and queries."""
    first = needs.documents * needs.mean_tokens
    monthly = needs.changing * needs.mean_tokens + needs.queries * QUERY_TOKENS
    return first * model.price / MILLION, monthly * model.price / MILLION


def vector_bytes(dimensions: int, rows: int = MILLION) -> int:
    """Estimate the size of an embedding table without its indexes, in bytes.

    A vector takes 4 bytes a dimension and 8 more, a halfvec (above 2,000 dimensions) 2 and 8; its row 24
    bytes of header, 24 of key and 4 of line pointer. A row above 2,032 bytes has its vector moved to the
    TOAST table, in pieces of 1,996 bytes and what remains, each with 36 bytes of header, 4 of line pointer
    and 22 in the TOAST table's index. Rows and pieces fill pages of 8,192 bytes (8,168 usable) in turn and
    never span them, which is why sizes step.
    """
    width, inline = _width(dimensions), 48
    if inline + width <= 2032:
        return math.ceil(rows / (PAGE_ROOM // (_aligned(inline + width) + 4))) * PAGE
    full, rest = divmod(width - 4, 1996)
    pieces = [2036] * full + ([_aligned(36 + rest) + 4] if rest else [])
    pages, used, sample = 1, 0, 1000
    for size in pieces * sample:
        fits = used + size <= PAGE_ROOM
        pages, used = (pages, used + size) if fits else (pages + 1, size)
    pointers = math.ceil(rows / (PAGE_ROOM // (_aligned(inline + 18) + 4))) * PAGE
    return pointers + rows * (pages * PAGE // sample + 22 * len(pieces))


def index_bytes(dimensions: int, rows: int = MILLION, m: int = 16) -> int:
    """Estimate the size of an HNSW index in bytes.

    A row has an element of 72 bytes and its vector, and its neighbours: 4 bytes and 6 for each of m links
    a layer above the lowest and 2m in it, m/(m-1) + 1 layers' worth on average. Both lie on one page of
    8,192 bytes (8,160 usable) where they fit, and a row never spans pages: what is left of a page is lost.
    """
    element = _aligned(72 + _width(dimensions)) + 4
    neighbours = _aligned(4 + round(6 * m * (2 + 1 / (m - 1)))) + 4
    if element + neighbours <= HNSW_ROOM:
        return math.ceil(rows / (HNSW_ROOM // (element + neighbours))) * PAGE
    return rows * PAGE + math.ceil(rows / (HNSW_ROOM // neighbours)) * PAGE


def _obstacle(model: Model, needs: Needs) -> str | None:
    """Return the first need that the model does not meet, None if it meets all."""
    missing = ", ".join(code for code in needs.languages if not model.covers(code))
    spent = sum(costs(model, needs))
    budget = math.inf if needs.budget is None else needs.budget
    parameters = model.parameters or 0
    obstacles = (
        (not needs.network and not model.local, "texts would leave the network"),
        (bool(missing), f"not made for {missing}"),
        (needs.code and not model.code, "not made for code"),
        (spent > budget, f"the first month costs ${spent:,.2f}, above the budget of ${budget:,.2f}"),
        (not needs.gpu and parameters > GPU_ONLY, f"{parameters:,.0f} million parameters need a GPU"),
        (
            _size(model, needs) is None,
            f"pgvector indexes {INDEXABLE:,} dimensions at most; it gives {model.sizes}",
        ),
    )
    return next((reason for stands, reason in obstacles if stands), None)


def _size(model: Model, needs: Needs) -> int | None:
    """Return the dimensions to store, None if it gives none that can be indexed.

    Its own, unless pgvector would have to store them at half precision: shorter ones cost less quality
    than they save space, where the best is not asked for.
    """
    if model.dimensions > FULL_PRECISION and needs.accuracy != "best" and model.reduces_to(SHORTENED):
        return SHORTENED
    return max((size for size in model.allowed_dimensions() if size <= INDEXABLE), default=None)


def _quality(model: Model, needs: Needs) -> tuple[float, Benchmark] | None:
    """Return the published value that speaks of the languages asked for, None if there is none."""
    value, name = (
        (model.quality, model.quality_benchmark)
        if needs.english
        else (model.multilingual_quality, model.multilingual_benchmark)
    )
    return None if value is None or name is None else (value, catalogue().benchmarks[name])


def _wanted(benchmark: Benchmark, accuracy: Accuracy) -> float:
    return {"basic": 0.0, "good": benchmark.good, "best": benchmark.best}[accuracy]


def _tier(model: Model, needs: Needs) -> int:
    found = _quality(model, needs)
    if found is None:
        return 2
    value, benchmark = found
    return 0 if value >= _wanted(benchmark, needs.accuracy) else 1


def _score(model: Model, needs: Needs) -> float:
    quality, speed, cost = WEIGHTS[needs.accuracy]
    found = _quality(model, needs)
    level = found[1].level(found[0]) if found else 0.0
    first, monthly = costs(model, needs)
    cheapness = 1 / (1 + (first / 12 + monthly) / HALF_COST)
    speeds = SPEEDS_ON_GPU if needs.gpu else SPEEDS
    return quality * level + speed * speeds[model.speed] + cost * cheapness


def _recommendation(model: Model, needs: Needs, usual: str | None) -> Recommendation:
    dimensions = _size(model, needs) or model.dimensions
    first, monthly = costs(model, needs)
    chunk = min(CHUNK_TOKENS, model.max_tokens or CHUNK_TOKENS)
    vectors = -(-needs.mean_tokens // chunk)
    return Recommendation(
        model=model,
        dimensions=dimensions,
        score=_score(model, needs),
        reasons=_reasons(model, needs, dimensions),
        cautions=_cautions(model, needs, dimensions, usual),
        first_cost=first,
        monthly_cost=monthly,
        vectors_per_document=vectors,
        vector_bytes=vector_bytes(dimensions, MILLION * vectors),
        index_bytes=index_bytes(dimensions, MILLION * vectors),
    )


def _reasons(model: Model, needs: Needs, dimensions: int) -> tuple[str, ...]:
    said = []
    found = _quality(model, needs)
    if found is not None and _tier(model, needs) == 0:
        value, benchmark = found
        wanted = _wanted(benchmark, needs.accuracy)
        enough = f"; {needs.accuracy!r} starts at {wanted:g}" if wanted else ""
        said.append(f"quality {value:g} of 100 on {benchmark.name}{enough}")
    if model.local:
        said.append("runs on your own machine: no text leaves it, and no token is paid for")
    else:
        first, monthly = costs(model, needs)
        said.append(f"${first:,.2f} to embed every document once, then ${monthly:,.2f} a month")
    said.append(SPEED_WORDS[model.speed])
    if not needs.english:
        said.append(f"covers {', '.join(needs.languages)}")
    if needs.code:
        said.append("made for code as well as prose")
    if dimensions < model.dimensions:
        why = "pgvector indexes no more" if model.dimensions > INDEXABLE else "less space at full precision"
        said.append(f"{dimensions:,} of its {model.dimensions:,} dimensions: {why}")
    return tuple(said)


def _cautions(model: Model, needs: Needs, dimensions: int, usual: str | None) -> tuple[str, ...]:
    said = []
    found = _quality(model, needs)
    if found is None and model.quality is not None and not needs.english:
        said.append(
            f"no published quality in other languages is known; {model.quality:g} on "
            f"{model.quality_benchmark} is for English"
        )
    elif found is None:
        said.append("no published quality is known: try it on your own queries (pgseek eval)")
    else:
        value, benchmark = found
        if _tier(model, needs) == 1:
            wanted = _wanted(benchmark, needs.accuracy)
            said.append(f"quality {value:g} on {benchmark.name}, below the {wanted:g} of {needs.accuracy!r}")
        if benchmark.name != usual:
            said.append(f"its quality on {benchmark.name} does not compare with values on {usual}")
        if dimensions < model.dimensions:
            said.append(f"the published quality is for {model.dimensions:,} dimensions")
    if dimensions > FULL_PRECISION:
        said.append("stored at half precision (halfvec)")
    if model.max_tokens is not None and needs.mean_tokens > model.max_tokens:
        said.append(
            f"reads {model.max_tokens:,} tokens: longer documents are embedded in chunks, which fit with "
            f"--chunk-size {SAFE_CHARACTERS * model.max_tokens} or less"
        )
    if model.price_read is not None:
        said.append(f"${model.price:.2f} a million tokens was its price on {model.price_read}")
    if model.notes:
        said.append(model.notes)
    return tuple(said)


def _width(dimensions: int) -> int:
    return (4 if dimensions <= FULL_PRECISION else 2) * dimensions + 8


def _aligned(size: int) -> int:
    return -(-size // 8) * 8


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInput(f"{name} is {value!r}, but must be a whole number of {least} or more")
