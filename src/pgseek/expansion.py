"""Query understanding with a model: texts written for a query, whose vectors join the query's own.

HyDE (Gao et al. 2022, https://arxiv.org/abs/2212.10496) has an answer written, which need not be true, and
looks for what stands near it: an answer is nearer to answers than a question is. Multi-query expansion has
the query said in other words. What was written is stored, so a query is asked for once.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from pgseek import cache, generation
from pgseek.embedders.base import Embedder, Vectors, checked_documents, checked_query, normalize, usable
from pgseek.embedding import Embedding
from pgseek.errors import EmbedderError, InvalidInput
from pgseek.generators.base import QueryKind, Request, TextGenerator, WrittenKind, name_of, write_one
from pgseek.generators.registry import create_generator
from pgseek.stages import Stages, within
from pgseek.steps import Script, call, fetch_one
from pgseek.types import CachePolicy, CollectionInfo, InputType

Method = Literal["hyde", "queries"]
METHODS: tuple[Method, ...] = get_args(Method)
KINDS: dict[Method, QueryKind] = {"hyde": "answer", "queries": "rephrasing"}
MOST_TEXTS = 16

_WRITABLE = """
SELECT current_setting('transaction_read_only') = 'off'
   AND has_table_privilege('pgseek.generated_texts', 'INSERT') AS writable
"""


@dataclass(frozen=True, slots=True)
class Expansion:
    """How queries are expanded.

    ``writer`` is a chat model (`create_generator`), any object with the generator protocol, or a function of
    the query that returns a text or several. ``method`` 'hyde' has an answer written, embedded as a document;
    'queries' has ``count`` (1..16) other queries written, embedded as queries. ``weight`` is that of all of
    their vectors together, where the query's own is 1. What a function returns is stored, and it is not asked
    again for the same query, only if ``model`` names what it is.
    """

    writer: TextGenerator | Callable[[str], str | Iterable[str]]
    method: Method = "queries"
    count: int = 3
    weight: float = 1.0
    model: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.writer, TextGenerator) and not callable(self.writer):
            raise InvalidInput(
                f"the writer is a {type(self.writer).__name__}, but must be a generator or a function(query)"
            )
        if self.method not in METHODS:
            raise InvalidInput(f"method is {self.method!r}, but must be one of {', '.join(METHODS)}")
        if type(self.count) is not int or not 1 <= self.count <= MOST_TEXTS:
            raise InvalidInput(f"count is {self.count!r}, but must be a whole number from 1 to {MOST_TEXTS}")
        weight = self.weight
        if not (isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight <= 100):
            raise InvalidInput(f"weight is {weight!r}, but must be above 0 and at most 100")

    @property
    def name(self) -> str:
        """What messages call it."""
        return name_of(self._generator())

    def _generator(self) -> TextGenerator:
        return self.writer if isinstance(self.writer, TextGenerator) else _Function(self.writer, self.model)

    def _request(self, query: str) -> Request:
        return Request(KINDS[self.method], query, "", 1 if self.method == "hyde" else self.count)


class _Function:
    """A function of the query, as a generator."""

    def __init__(self, function: Callable[[str], str | Iterable[str]], model: str) -> None:
        self._function = function
        self.identity = f"callable:{model}" if model else ""
        self.model_id = f"callable:{model or getattr(function, '__name__', type(function).__name__)}"

    def generate(self, kind: WrittenKind, text: str, title: str, count: int) -> list[str]:  # noqa: ARG002
        """Return what the function returns for the query ``text``."""
        made = self._function(text)
        # What is neither is told by who checks all texts.
        return [made] if isinstance(made, str) else made  # type: ignore[return-value]


def create_expansion(spec: str) -> Expansion:
    """Return the expansion named ``hyde:provider:model`` or ``queries:provider:model``.

    The provider is that of a generator: 'openai', or 'openai-compatible' at OPENAI_BASE_URL.

    Raises:
        InvalidInput: an unknown method or provider, or no model.
    """
    method, _, generator = spec.partition(":")
    for known in METHODS:
        if method == known:
            return Expansion(create_generator(generator), known)
    raise InvalidInput(
        f"expansion {spec!r} is unknown: give hyde:PROVIDER:MODEL or queries:PROVIDER:MODEL, such as "
        "hyde:openai:gpt-4.1-mini"
    )


def as_expansion(given: Any) -> Expansion:
    """Return an expansion: the object itself, the one that is named, or one by a function's other queries."""
    if isinstance(given, str):
        return create_expansion(given)
    return given if isinstance(given, Expansion) else Expansion(given)


def expand(
    expansion: Expansion, run: Embedding, query: str, own: Vectors, stages: Stages, share: float
) -> Script[Vectors]:
    """Return the query's vector joined with those of what is written for it: the mean of their directions.

    Writing, and embedding what was written, may each take that share of the time that is left.

    Raises:
        GeneratorError, EmbedderError, CallTimeout.
    """
    texts = yield from _written(expansion, query, stages, share)
    stages.texts = texts
    input_type: InputType = "document" if expansion.method == "hyde" else "query"
    vectors = yield from _embedded(run.info, run.embedder, run.policy, texts, input_type, stages, share)
    return joined(own, vectors, expansion.weight)


def joined(own: Vectors, others: Sequence[Vectors], weight: float) -> Vectors:
    """Return the weighted mean of directions, of the length that the vectors (d,) have as a rule."""
    if not others:
        return own
    vectors = np.stack([own, *others])
    weights = [1.0, *(weight / len(others) for _ in others)]
    mean: Vectors = np.average(normalize(vectors), axis=0, weights=weights).astype(np.float32)
    if not usable(mean):
        # They cancel each other out: opposite things were written.
        return own
    length = float(np.average(np.linalg.norm(vectors, axis=1), weights=weights))
    scaled: Vectors = normalize(mean) * np.float32(length)
    return scaled


def _written(expansion: Expansion, query: str, stages: Stages, share: float) -> Script[tuple[str, ...]]:
    generator, request = expansion._generator(), expansion._request(query)
    if generator.identity:
        known = yield from within(stages, lambda: generation.look_up(generator, [request]))
        if request in known:
            return known[request]
    stop = threading.Event()
    try:
        texts = yield from call(partial(write_one, generator, request, stop), stages.left(share))
    finally:
        # Whoever gave up waits for no further attempt.
        stop.set()
    if generator.identity:
        yield from within(stages, lambda: _keep(generator, request, texts))
    return texts


def _keep(generator: TextGenerator, request: Request, texts: tuple[str, ...]) -> Script[None]:
    """Store what was written, where this user and this server may write."""
    row = yield from fetch_one(_WRITABLE)
    if row is not None and row["writable"]:
        yield from generation.store(generator, {request: texts})


def _embedded(
    info: CollectionInfo,
    embedder: Embedder,
    policy: CachePolicy,
    texts: Sequence[str],
    input_type: InputType,
    stages: Stages,
    share: float,
) -> Script[list[Vectors]]:
    keys = {hashlib.sha256(text.encode()).digest(): text for text in texts}
    found = yield from within(stages, lambda: cache.look_up(info.identity_hash, input_type, list(keys)))
    missing = {key: text for key, text in keys.items() if key not in found}
    if missing:
        embed = partial(_embed, embedder, list(missing.values()), input_type)
        made = dict(zip(missing, (yield from call(embed, stages.left(share))), strict=True))
        # Kept as long as a query's: it is of one.
        days = policy.query_days
        yield from within(stages, lambda: cache.store(info.identity_hash, input_type, made, days))
        found.update(made)
    return [found[key] for key in keys]


def _embed(embedder: Embedder, texts: list[str], input_type: InputType) -> list[Vectors]:
    if input_type == "document":
        vectors = list(checked_documents(embedder, texts))
        if not all(map(usable, vectors)):
            raise EmbedderError(f"{embedder.model_id} returned a zero or non-finite vector for an answer")
        return vectors
    if len(texts) == 1 or not hasattr(embedder, "embed_many"):
        return [checked_query(embedder, text) for text in texts]
    # Of a service: all at once.
    with ThreadPoolExecutor(len(texts), thread_name_prefix="pgseek-expand") as pool:
        return list(pool.map(partial(checked_query, embedder), texts))
