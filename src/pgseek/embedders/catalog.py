"""The catalogue of embedding models: what ``models.toml`` knows of a model by its name."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from pgseek.embedders.folders import record_of
from pgseek.errors import ConfigurationError, InvalidInput
from pgseek.types import NORMALIZATIONS, EmbedderIdentity, Normalization

Speed = Literal["static", "small", "base", "large", "api"]

LOCAL_LIBRARY = "sentence-transformers"
ENGLISH = frozenset({"en", "eng"})
# The same models behind another door.
SAME_MODELS = {"azure-openai": "openai"}


@dataclass(frozen=True, slots=True)
class FusionDefaults:
    """``alpha`` is the weight of the dense leg in 0..1; ``normalization`` makes its scores comparable."""

    alpha: float
    normalization: Normalization


# Cosines of an unknown model may all lie close together (E5's do, between 0.7 and 0.9): 'minmax' stands that.
UNKNOWN = FusionDefaults(0.4, "minmax")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A published measure of retrieval quality, in percent. Its values compare only with each other.

    From ``good`` and from ``best`` on, a value meets the accuracy of that name.
    """

    name: str
    about: str
    good: float
    best: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.good < self.best < self.high <= 100:
            raise InvalidInput("0 <= low < good < best < high <= 100 does not hold")

    def level(self, value: float) -> float:
        """Return the place of ``value`` between ``low`` and ``high``, in 0..1."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An embedding model. ``models.toml`` says what each field means and its unit."""

    provider: str
    model: str
    dimensions: int
    price: float
    speed: Speed
    languages: Literal["english", "multilingual"] | tuple[str, ...]
    licence: str
    normalized: bool
    reductions: tuple[int, ...] | Literal["any"] | None = None
    smallest: int = 1
    max_tokens: int | None = None
    price_read: date | None = None
    quality: float | None = None
    quality_benchmark: str | None = None
    quality_source: str | None = None
    multilingual_quality: float | None = None
    multilingual_benchmark: str | None = None
    multilingual_source: str | None = None
    parameters: float | None = None
    code: bool = False
    query_prompt: str = ""
    document_prompt: str = ""
    alpha: float | None = None
    normalization: Normalization | None = None
    copies: str = ""
    served_as: tuple[str, ...] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        for problem, found in self._problems():
            if found:
                raise InvalidInput(problem)

    @property
    def spec(self) -> str:
        """``provider:model``, as a collection is made with it."""
        return f"{self.provider}:{self.model}"

    @property
    def local(self) -> bool:
        """Whether texts stay on the machine."""
        return self.speed != "api"

    @property
    def sizes(self) -> str:
        """The sizes it gives, for a message: ``1 to 1536``, ``64, 128, 256`` or ``only 384``."""
        if self.reductions == "any":
            return f"{self.smallest} to {self.dimensions}"
        if self.reductions is None:
            return f"only {self.dimensions}"
        return ", ".join(map(str, self.allowed_dimensions()))

    def allowed_dimensions(self) -> Sequence[int]:
        """Return every size it gives, ascending; the last is its native one."""
        if self.reductions == "any":
            return range(self.smallest, self.dimensions + 1)
        return (*(self.reductions or ()), self.dimensions)

    def reduces_to(self, dimensions: int) -> bool:
        """Return whether it gives vectors of this size; it does of its native one."""
        return dimensions in self.allowed_dimensions()

    def check_dimensions(self, dimensions: int | None) -> int:
        """Return the size asked for, its native one for None.

        Raises:
            InvalidInput: it gives no vectors of that size; names those it gives.
        """
        if dimensions is None:
            return self.dimensions
        if not self.reduces_to(dimensions):
            raise InvalidInput(f"{self.spec} gives {self.sizes} dimensions, not {dimensions}")
        return dimensions

    def covers(self, language: str) -> bool:
        """Return whether it was made for texts in ``language``, an ISO 639 code."""
        if self.languages == "english":
            return language in ENGLISH
        return self.languages == "multilingual" or language in self.languages

    def _problems(self) -> list[tuple[str, bool]]:
        names = (self.provider, self.model, self.licence)
        sizes = self.reductions
        fusion = (self.alpha, self.normalization, self.copies or None)
        return [
            (
                "provider, model and licence must be texts",
                not all(isinstance(n, str) and n.strip() for n in names),
            ),
            ("dimensions must be 1 or more", not _whole(self.dimensions)),
            (
                'reductions must be "any" or sizes below dimensions, ascending',
                sizes not in {None, "any"}
                and not (
                    isinstance(sizes, tuple)
                    and len(sizes) > 0
                    and all(_whole(size) and size < self.dimensions for size in sizes)
                    and list(sizes) == sorted(set(sizes))
                ),
            ),
            ("smallest must lie in 1..dimensions", not (_whole(self.smallest, self.dimensions))),
            ("max_tokens must be 1 or more", self.max_tokens is not None and not _whole(self.max_tokens)),
            ("price must be 0 or more", not _number(self.price)),
            (f"speed must be one of {', '.join(get_args(Speed))}", self.speed not in get_args(Speed)),
            ("a service has a price, a local model none", (self.price > 0) is self.local),
            (
                "price_read must be the date of a price",
                isinstance(self.price_read, date) is not (self.price > 0),
            ),
            (
                "languages must be english, multilingual or ISO codes",
                self.languages not in {"english", "multilingual"}
                and not (
                    isinstance(self.languages, tuple) and self.languages and all(map(is_code, self.languages))
                ),
            ),
            (
                "quality, its benchmark and its source belong together",
                _torn(self.quality, self.quality_benchmark, self.quality_source)
                or _torn(self.multilingual_quality, self.multilingual_benchmark, self.multilingual_source),
            ),
            (
                "quality must lie in 0..100",
                not all(_number(value, 100) for value in (self.quality or 0, self.multilingual_quality or 0)),
            ),
            ("a local model has parameters", (self.parameters is not None) is not self.local),
            ("prompts must be texts", not all(map(_text, (self.query_prompt, self.document_prompt)))),
            ("normalized and code must be true or false", not all(map(_flag, (self.normalized, self.code)))),
            ("alpha, normalization and copies belong together", _torn(*fusion)),
            ("alpha must lie in 0..1", not _number(self.alpha or 0, 1)),
            (
                f"normalization must be one of {', '.join(NORMALIZATIONS)}",
                self.normalization not in {None, *NORMALIZATIONS},
            ),
        ]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a catalogue file holds, in its order."""

    models: tuple[Model, ...]
    benchmarks: Mapping[str, Benchmark]


def parse_catalogue(text: str) -> Catalogue:
    """Return the catalogue in ``text``, TOML as in ``models.toml``.

    Raises:
        ConfigurationError: not TOML, or an entry is incomplete, wrong or there twice; names it.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the catalogue of models is not TOML: {error}") from error
    benchmarks: dict[str, Benchmark] = {}
    for entry in raw.get("benchmark", []):
        name = str(entry.get("name", len(benchmarks) + 1))
        benchmarks[name] = _made(Benchmark, entry, f"benchmark {name}")
    models: dict[str, Model] = {}
    for number, entry in enumerate(raw.get("model", []), 1):
        label = f"model {number}, {entry.get('provider', '?')}:{entry.get('model', '?')}"
        made = _made(Model, {key: _frozen(value) for key, value in entry.items()}, label)
        for used in (made.quality_benchmark, made.multilingual_benchmark):
            if used is not None and used not in benchmarks:
                raise ConfigurationError(f"the catalogue's {label}: benchmark {used!r} is not in it")
        if made.spec.lower() in models:
            raise ConfigurationError(f"the catalogue's {label}: it is there twice")
        models[made.spec.lower()] = made
    return Catalogue(tuple(models.values()), benchmarks)


@cache
def catalogue() -> Catalogue:
    """Return the catalogue that comes with pgseek."""
    return parse_catalogue(files("pgseek.embedders").joinpath("models.toml").read_text("utf-8"))


def models() -> tuple[Model, ...]:
    """Return the models that come with pgseek, in the order of the file."""
    return catalogue().models


@cache
def _by_name() -> dict[tuple[str, str], Model]:
    return {(model.provider, _key(model.provider, model.model)): model for model in models()}


def known_models(provider: str) -> tuple[str, ...]:
    """Return the names of the provider's models, in the catalogue's order."""
    return tuple(model.model for model in models() if model.provider == provider)


def find_model(provider: str, model: str) -> Model | None:
    """Return what the catalogue knows of a model, else None.

    Names of sentence-transformers are compared without case, and need not name the organisation
    ``sentence-transformers/``. A local folder is no model of the catalogue, whatever its name:
    its weights may be anything.
    """
    provider = SAME_MODELS.get(provider, provider)
    found = _by_name().get((provider, _key(provider, model)))
    # The library prefers a folder of that name to the hub.
    if found is not None and provider == LOCAL_LIBRARY and Path(model).is_dir():
        return None
    return found


def served_model(name: str) -> Model | None:
    """Return what the catalogue knows of a local model under the name that a server gives it, else None.

    Ollama's and LM Studio's names have no organisation and may have a tag and a prefix
    (``mxbai-embed-large:latest``, ``text-embedding-nomic-embed-text-v1.5``); ``served_as`` lists
    others. A name that fits two models is none.
    """
    found = find_model(LOCAL_LIBRARY, name)
    if found is not None:
        return found
    tagged = name.lower().rpartition("/")[2].removeprefix("text-embedding-")
    # A tag may name the size, as in qwen3-embedding:4b; else it says nothing.
    for wanted in (tagged, tagged.partition(":")[0]):
        fitting = [
            known
            for known in models()
            if known.provider == LOCAL_LIBRARY
            and (wanted == known.model.lower().rpartition("/")[2] or wanted in known.served_as)
        ]
        if fitting:
            return fitting[0] if len(fitting) == 1 else None
    return None


def lookup(spec: str) -> tuple[Model, int]:
    """Return the model and the size that ``provider:model[@dimensions]`` names.

    The model may be left out where the provider has only one.

    Raises:
        InvalidInput: not in the catalogue (names the nearest), or a size the model does not give.
    """
    named, at, size = spec.rpartition("@")
    name = named if at else spec
    provider, _, model = name.partition(":")
    own = [known for known in models() if known.provider == SAME_MODELS.get(provider, provider)]
    found = find_model(provider, model) if model else own[0] if len(own) == 1 else None
    if found is None:
        near = [known.spec for known in own] if own and not model else _nearest(name)
        hint = f"did you mean {' or '.join(near)}?" if near else "pgseek models list names them all"
        raise InvalidInput(f"model {name!r} is not in the catalogue; {hint}")
    if at and not (size.isascii() and size.isdigit()):
        raise InvalidInput(f"model {spec!r}: {size!r} after '@' is not a number of dimensions")
    return found, found.check_dimensions(int(size) if at else None)


def fusion_defaults(identity: EmbedderIdentity) -> FusionDefaults:
    """Return how a new collection with this embedder fuses its legs unless told otherwise."""
    name = identity.model.lower()
    if identity.provider == LOCAL_LIBRARY:
        # A fine-tuned model is fused as what it was made of.
        name = str(record_of(identity.model).get("base", name)).lower()
    for known in models():
        if (
            known.alpha is not None
            and known.normalization is not None
            and known.provider == identity.provider
            and re.fullmatch(known.copies, name, re.DOTALL)
        ):
            return FusionDefaults(known.alpha, known.normalization)
    return UNKNOWN


def _nearest(name: str) -> list[str]:
    shapes: dict[str, str] = {}
    for known in models():
        for shape in (known.spec, known.model, known.model.rpartition("/")[2]):
            shapes.setdefault(shape.lower(), known.spec)
    near = difflib.get_close_matches(name.lower(), shapes, 6, 0.6)
    return list(dict.fromkeys(shapes[shape] for shape in near))[:3]


def _key(provider: str, model: str) -> str:
    return model.lower().removeprefix(f"{LOCAL_LIBRARY}/") if provider == LOCAL_LIBRARY else model


def _made(kind: Any, entry: Mapping[str, Any], label: str) -> Any:
    try:
        return kind(**entry)
    except (TypeError, InvalidInput) as error:
        # Python's own words name what is missing or unknown.
        raise ConfigurationError(f"the catalogue's {label}: {error}") from error


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _torn(*parts: object) -> bool:
    return len({part is None for part in parts}) != 1


def _whole(value: object, most: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _number(value: object, most: float = math.inf) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= most
        and value != math.inf
    )


def _text(value: object) -> bool:
    return isinstance(value, str)


def is_code(language: object) -> bool:
    """Return whether ``language`` looks like an ISO 639 code: two or three small letters."""
    return isinstance(language, str) and re.fullmatch(r"[a-z]{2,3}", language) is not None


def _flag(value: object) -> bool:
    return isinstance(value, bool)
