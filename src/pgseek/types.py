"""Frozen values that cross pgseek's public surface."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, NewType, TypeGuard, get_args
from uuid import UUID

from pgseek.errors import InvalidInput
from pgseek.vectors import Metric, Storage, VectorIndex

CollectionId = NewType("CollectionId", int)
SpaceId = NewType("SpaceId", int)

Fusion = Literal["weighted", "rrf", "auto"]
Alpha = float | Literal["auto"]
Lexical = Literal["bm25", "ts_rank_cd", "ts_rank"]
Normalization = Literal["max", "minmax"]
Syntax = Literal["web", "plain"]
InputType = Literal["document", "query"]
Stage = Literal["storing", "indexing", "removing", "done"]
Indexes = Literal["auto", "keep", "rebuild"]
INDEXES: tuple[Indexes, ...] = ("auto", "keep", "rebuild")
SpaceState = Literal["building", "ready", "active", "retired"]
ReembedStage = Literal[
    "dividing", "embedding", "indexing", "judging", "switching", "switched", "ready", "refused", "stopped"
]
ProbeOutcome = Literal["same", "changed", "failed", "not probed"]
OnEmbedderError = Literal["raise", "lexical"]
ON_EMBEDDER_ERROR: tuple[OnEmbedderError, ...] = ("raise", "lexical")
Kind = Literal["chunk", "document", "question", "summary"]
FUSIONS: tuple[Fusion, ...] = ("weighted", "rrf", "auto")
LEXICALS: tuple[Lexical, ...] = ("bm25", "ts_rank_cd", "ts_rank")
NORMALIZATIONS: tuple[Normalization, ...] = ("max", "minmax")
INPUT_TYPES: tuple[InputType, ...] = ("document", "query")
# What becomes of a chunk that is longer than the model reads: its parts are embedded and their vectors
# averaged, it is divided, its document is refused, or its end is not embedded.
LONG_TEXTS = ("average", "chunk", "refuse", "truncate")
SYNTAXES: tuple[Syntax, ...] = ("web", "plain")

MAX_K = 10_000
MAX_QUERY = 20_000
MAX_BUDGET = 1_000_000_000
MAX_DAYS = 36_500
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def check_collection_name(name: str) -> str:
    """Return ``name`` if a collection may be called that, else raise `InvalidInput`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        length = f" ({len(name)} characters)" if isinstance(name, str) and len(name) > 63 else ""
        raise InvalidInput(
            f"collection name {name!r}{length} is not allowed: use 1 to 63 ASCII letters, digits, "
            "'_', '-' or '.', starting with a letter, digit or '_'"
        )
    return name


@dataclass(frozen=True, slots=True)
class Document:
    """What the caller stores.

    ``id`` is the caller's own identifier, unique within a collection. ``text`` is chunked and
    searched; ``title`` is searched with a higher weight and embedded with every chunk.
    ``metadata`` is any JSON object. ``language`` is the name of a PostgreSQL text-search
    configuration; None means the collection's. ``format`` says what ``text`` is written in, so that it is
    divided where its parts end: '' is plain text, 'markdown', 'pages' (form feeds between pages), or a
    programming language such as 'python'; see `chunking`.
    """

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    language: str | None = None
    format: str = ""


#: The fields of a document as a mapping.
DOCUMENT_FIELDS = tuple(each.name for each in fields(Document))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A retrieved piece of a document: ``document.text[char_start:char_end] == text``.

    ``heading`` is the path of headings it stands under, outermost first. ``provenance`` says where it
    stands: heading, page and last_page (1-based), lines (first and last, 1-based), what is known of it.
    ``section`` is the span of the text to read around it, in characters. A question or a summary has
    the place of the chunk it was written for, whose ordinal is ``of_ordinal``, and a text of its own.
    """

    ordinal: int
    text: str
    char_start: int
    char_end: int
    kind: Kind = "chunk"
    heading: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    section: tuple[int, int] | None = None
    of_ordinal: int | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A lexeme of the query that a hit has.

    ``weight`` is what it adds to the hit's BM25 score, None with another lexical leg. ``origin`` is
    the word as typed, or the prefix with its ``*``, where the lexeme stands for another.
    """

    lexeme: str
    weight: float | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """Another chunk of a hit's document that the query found, with its fused score (see `Hit`)."""

    ordinal: int
    text: str
    score: float
    char_start: int
    char_end: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One ranked row, in the order SQL ranked it: a chunk as a rule.

    ``score`` is what the fusion orders by, higher is better. ``dense_score`` is higher for what is
    nearer: the cosine similarity in -1..1, the inner product, or 1 / (1 + distance) in 0..1 for the metrics
    l2 and l1. ``dense_distance`` is the distance as pgvector gives it, lower is nearer. Both are None when
    the chunk has no embedding yet or the dense leg did not run.
    ``lexical_score`` is the raw score of the lexical leg, 0 or more. ``dense_rank`` and
    ``lexical_rank`` are 1-based places among that leg's candidates, None when the leg did not
    bring this chunk up. The contributions add up to ``score``; None for a leg that did not run.
    ``matched`` holds the lexemes found, heaviest first. ``degraded`` says why a leg did not take
    part, or that the lexical leg ran out of its budget, else None.

    ``kind`` is what was found. For a question or a summary, ``matched_text`` is that, and ``text``,
    ``ordinal`` and the offsets are those of the chunk it was written for; for a whole document ``text`` is
    its first 2,000 characters. ``title`` is the document's; ``provenance`` says where the chunk stands, see
    `Chunk`; ``section`` is the text to read around it, None where the collection has no sections.

    ``boost`` is the factor by which the boosts asked for changed ``score``. ``relevance`` in 0..1 estimates
    how likely the hit answers the query and can be compared between queries; None without a calibration.
    ``duplicates`` are ids of documents left out as repetitions of this hit. ``other_passages`` are more of
    the document that was found, best first, and ``context`` is the text around the hit, where asked for.

    Where a reranker ordered the hits, ``rerank_score`` is what it gave (higher is better; None for a hit
    that it did not read), and ``fused_rank`` the rank that the fusion had given; else both are None.
    ``dense_candidates`` and ``lexical_candidates`` are how many rows each leg brought to the fusion, the same
    in every hit of a search; None for a leg that did not run.
    """

    rank: int
    id: str
    ordinal: int
    score: float
    dense_score: float | None
    dense_rank: int | None
    dense_contribution: float | None
    lexical_score: float | None
    lexical_rank: int | None
    lexical_contribution: float | None
    matched: tuple[Match, ...]
    title: str
    text: str
    snippet: str | None
    metadata: Mapping[str, Any]
    char_start: int
    char_end: int
    document_id: UUID
    degraded: str | None
    kind: Kind = "chunk"
    provenance: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    section: str | None = None
    matched_text: str | None = None
    dense_distance: float | None = None
    boost: float = 1.0
    relevance: float | None = None
    duplicates: tuple[str, ...] = ()
    other_passages: tuple[Passage, ...] = ()
    context: str | None = None
    dense_candidates: int | None = None
    lexical_candidates: int | None = None
    rerank_score: float | None = None
    fused_rank: int | None = None


@dataclass(frozen=True, slots=True)
class SearchReport:
    """What a search did, in seconds unless named otherwise; ``stages`` says how long each part took.

    They are 'space' (another one looked up), 'embed', 'expand', 'search' (the statement) and 'rerank', as far
    as they were needed. ``cached`` is whether the query's vector was known, None where none was asked for.
    ``reranked`` hits were read by the reranker. ``degraded`` says what the search did without.
    ``texts`` are those that were written for the query, and searched with it.
    """

    collection: str
    hits: int
    seconds: float
    stages: Mapping[str, float]
    cached: bool | None = None
    reranked: int = 0
    degraded: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Search:
    """A search request, checked on construction. None means the collection's own setting.

    ``k`` hits are returned (1..10,000). ``alpha`` in 0..1 is the weight of the dense leg in the weighted
    fusion; 0 and 1 run one leg only; 'auto', or the fusion 'auto', leaves it to the kind of query.
    ``candidates`` rows are taken from each leg (at least ``k``). ``rrf_k`` is RRF's constant. ``filter`` is
    as `Collection.search` takes it. ``normalization`` 'minmax' suits embedders whose cosines lie close
    together, 'max' others. ``syntax`` 'web' reads "phrases", +required, -excluded and prefix*; 'plain'
    reads words only. ``typos`` replaces words that no document has by the likeliest ones that some have.
    ``budget`` is in milliseconds: past them BM25 answers in its approximate form and says so. With
    ``collapse`` each document appears once, with its best row. ``space`` is the number of another space to
    search, which must be ready. ``ef_search`` (1..1,000; HNSW), ``probes`` (1..32,768; IVFFlat) and
    ``rerank`` (1..100; indexes of less than whole vectors) make the dense leg surer and slower.

    ``boosts`` multiply scores by what the metadata says; the forms are those of SQL's ``pgseek.boost``:
    ``{"when": jsonpath, "factor": 2}``, ``{"newer": "published", "half_life": 30}`` (days),
    ``{"field": "stars", "scale": "log", "weight": 0.1}``, ``{"expression": "1 + 0.1 * $.rating"}``.
    Hits below ``min_score``, ``min_dense_score`` or ``min_lexical_score`` are left out; the fused score is
    relative to the best candidate, the others are not. ``diversity`` in 0..1 trades score for difference from
    the hits before; ``near_duplicates`` in 0..1 is the cosine from which on a hit is left out as a repetition
    of a better one. Each hit brings ``passages`` other found chunks of its document and ``neighbours`` chunks
    of text around it. With ``feedback`` the words and vectors of so many first answers are looked for, too.
    """

    query: str
    k: int = 10
    alpha: Alpha | None = None
    fusion: Fusion | None = None
    lexical: Lexical | None = None
    filter: Any = None
    candidates: int | None = None
    rrf_k: int = 60
    snippets: bool = True
    highlight: tuple[str, str] = ("<b>", "</b>")
    normalization: Normalization | None = None
    syntax: Syntax = "web"
    typos: bool = True
    budget: float = 50.0
    collapse: bool | None = None
    space: int | None = None
    ef_search: int | None = None
    probes: int | None = None
    rerank: int | None = None
    boosts: Sequence[Mapping[str, Any]] = ()
    min_score: float | None = None
    min_dense_score: float | None = None
    min_lexical_score: float | None = None
    diversity: float = 0.0
    near_duplicates: float | None = None
    passages: int = 0
    neighbours: int = 0
    feedback: int = 0

    def __post_init__(self) -> None:
        _check_query(self.query)
        check_whole("k", self.k, MAX_K)
        weighed = _is_number(self.alpha) and 0 <= self.alpha <= 1
        if not (self.alpha is None or self.alpha == "auto" or weighed):
            raise InvalidInput(
                f"alpha is {self.alpha!r}, but must lie in 0..1 (1 is dense only), or be 'auto'"
            )
        _check_choice("fusion", self.fusion, FUSIONS)
        if self.fusion == "rrf" and self.alpha is not None:
            raise InvalidInput(
                f"alpha is {self.alpha!r} with fusion 'rrf', which has no weights; "
                "leave alpha out or use fusion 'weighted'"
            )
        if self.fusion == "auto" and self.alpha not in (None, "auto"):
            raise InvalidInput(
                f"alpha is {self.alpha!r} with fusion 'auto', which chooses it; leave one of them out"
            )
        _check_choice("lexical", self.lexical, LEXICALS)
        _check_choice("normalization", self.normalization, NORMALIZATIONS)
        if self.candidates is not None:
            check_whole("candidates", self.candidates, MAX_K)
        check_whole("rrf_k", self.rrf_k, 1_000_000)
        if self.syntax not in SYNTAXES:
            raise InvalidInput(f"syntax is {self.syntax!r}, but must be one of {', '.join(SYNTAXES)}")
        if not isinstance(self.typos, bool):
            raise InvalidInput(f"typos is {self.typos!r}, but must be True or False")
        if self.collapse is not None and not isinstance(self.collapse, bool):
            raise InvalidInput(f"collapse is {self.collapse!r}, but must be True, False or None")
        if not (_is_number(self.budget) and 0 < self.budget <= MAX_BUDGET):
            raise InvalidInput(
                f"budget is {self.budget!r}, but must be above 0 and at most {MAX_BUDGET:,} milliseconds"
            )
        for name, most in (("space", 2**31 - 1), ("ef_search", 1000), ("probes", 32_768), ("rerank", 100)):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), most)
        marks = self.highlight
        if not (isinstance(marks, tuple | list) and len(marks) == 2 and all(map(_is_text, marks))):
            raise InvalidInput(f"highlight is {marks!r}, but must be two texts without NUL bytes")
        self._check_shape()

    def _check_shape(self) -> None:
        listed = isinstance(self.boosts, list | tuple)
        if not listed or not all(isinstance(one, Mapping) for one in self.boosts):
            raise InvalidInput(
                f"boosts is {self.boosts!r}, but must be a list of mappings, such as "
                '[{"when": "$.pinned == true", "factor": 2}]'
            )
        for name in ("min_score", "min_dense_score", "min_lexical_score"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and math.isfinite(value)):
                raise InvalidInput(f"{name} is {value!r}, but must be a number")
        if not (_is_number(self.diversity) and 0 <= self.diversity <= 1):
            raise InvalidInput(
                f"diversity is {self.diversity!r}, but must lie in 0..1 (0 orders by score alone)"
            )
        same = self.near_duplicates
        if same is not None and not (_is_number(same) and 0 < same <= 1):
            raise InvalidInput(
                f"near_duplicates is {same!r}, but must be above 0 and at most 1: the cosine from which on a "
                "hit repeats a better one, 0.95, say"
            )
        for name in ("passages", "neighbours", "feedback"):
            value = getattr(self, name)
            if not _is_int(value) or not 0 <= value <= 100:
                raise InvalidInput(f"{name} is {value!r}, but must be a whole number from 0 to 100")


@dataclass(frozen=True, slots=True)
class SearchPolicy:
    """What a search does besides its statement, checked on construction.

    ``on_embedder_error`` 'lexical' searches by words alone where the query cannot be embedded, and says so in
    each hit. ``timeout`` is in seconds, of all that a search does; None or infinity is no limit.
    ``rerank_top`` hits are read by the reranker, by default 50 or ``k`` if that is more, and after
    ``rerank_budget`` seconds the fused order is returned and says so.
    """

    on_embedder_error: OnEmbedderError = "raise"
    timeout: float | None = None
    rerank_top: int | None = None
    rerank_budget: float | None = None

    def __post_init__(self) -> None:
        check_failure_policy(self.on_embedder_error)
        check_seconds("timeout", self.timeout)
        check_seconds("rerank_budget", self.rerank_budget)
        if self.rerank_top is not None:
            check_whole("rerank_top", self.rerank_top, MAX_K)


def check_failure_policy(value: Any) -> None:
    """Raise `InvalidInput` unless ``value`` says what an embedder's failure means."""
    if not isinstance(value, str) or value not in ON_EMBEDDER_ERROR:
        raise InvalidInput(
            f"on_embedder_error is {value!r}, but must be 'raise' or 'lexical' (search by words alone)"
        )


def check_seconds(name: str, value: Any) -> None:
    """Raise `InvalidInput` unless ``value`` is a number of seconds, or None."""
    if value is not None and not (_is_number(value) and value > 0):
        raise InvalidInput(f"{name} is {value!r}, but must be above 0 seconds, or None for no limit")


@dataclass(frozen=True, slots=True)
class Rejection:
    """A document that was not stored, and why.

    ``position`` is 1-based: the line in ``source`` where the document came from a file, else the
    place in what was given to ingest.
    """

    position: int
    id: str | None
    reason: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Located:
    """A record as a source read it, not yet checked. ``position`` is its line in ``source``."""

    record: Mapping[str, Any]
    position: int
    source: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did, in documents unless named otherwise.

    ``changed`` counts documents whose text, title or language changed, ``metadata_changed`` those
    where only the metadata did (nothing is embedded for them). ``embedded`` counts texts sent to
    the embedder, ``cached`` texts whose vector the cache held, ``reused`` those whose vector was stored with
    the document already. ``generated`` counts the requests that a generator answered. ``tokens`` were billed
    by the embedder's service (0 for a local one), ``cost`` is in dollars, of vectors and generated texts.
    ``read`` counts what the source gave, ``removed`` what a sync removed. ``stage`` says how far it is:
    'storing', 'indexing', 'removing' or 'done'.
    """

    new: int = 0
    changed: int = 0
    metadata_changed: int = 0
    unchanged: int = 0
    rejected: tuple[Rejection, ...] = ()
    chunks: int = 0
    embedded: int = 0
    cached: int = 0
    seconds: float = 0.0
    tokens: int = 0
    cost: float = 0.0
    read: int = 0
    removed: int = 0
    stage: Stage = "done"
    reused: int = 0
    generated: int = 0

    @property
    def documents(self) -> int:
        """Documents done with, the rejected included."""
        stored = self.new + self.changed + self.metadata_changed + self.unchanged
        return stored + len(self.rejected)


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What an ingest would do, in documents unless named otherwise.

    ``texts`` would be embedded, ``cached`` ones have their vector in the cache already, ``reused`` ones with
    their document; equal texts count once. ``tokens`` are those of ``texts``: a count if ``exact``, else an
    estimate, None where the embedder cannot say. ``seconds`` is the least time that the embedder's and the
    generator's limits leave for it, None where they have none. With a sync, ``gone`` of ``gone_of`` stored
    documents would be removed, the first of them ``gone_ids``; None without.

    ``requests`` would be sent to the generator, with about ``input_tokens``, and about ``output_tokens``
    answered, which are embedded as well; ``written`` requests were answered before. ``cost`` is in dollars:
    of vectors at ``price`` per million tokens, and ``generation_cost``, None where its price is not known.
    """

    new: int
    changed: int
    metadata_changed: int
    unchanged: int
    rejected: tuple[Rejection, ...]
    chunks: int
    texts: int
    cached: int
    tokens: int | None
    exact: bool
    cost: float
    price: float
    seconds: float | None
    gone: int | None = None
    gone_of: int | None = None
    gone_ids: tuple[str, ...] = ()
    reused: int = 0
    requests: int = 0
    written: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    generation_cost: float | None = 0.0

    @property
    def documents(self) -> int:
        """Documents read, the rejected included."""
        return self.new + self.changed + self.metadata_changed + self.unchanged + len(self.rejected)


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How workers treat the queue.

    A claim lasts for ``lease`` seconds and is renewed while its documents are being embedded: after a
    worker that died, others take them that much later. A document that fails is tried again after
    ``backoff`` seconds, doubling up to ``longest_backoff``, ``attempts`` times in all.
    """

    lease: float = 60.0
    attempts: int = 8
    backoff: float = 30.0
    longest_backoff: float = 3600.0

    def __post_init__(self) -> None:
        if not (_is_int(self.attempts) and 1 <= self.attempts <= 1000):
            raise InvalidInput(f"attempts is {self.attempts!r}, but must be a whole number from 1 to 1,000")
        for name, least in (("lease", 0.1), ("backoff", 0.0), ("longest_backoff", 0.0)):
            value = getattr(self, name)
            if not (_is_number(value) and least <= value <= MAX_DAYS * 86_400):
                raise InvalidInput(f"{name} is {value!r}, but must be {least:g} or more seconds")


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A collection's queue, in documents.

    ``waiting`` are due; ``claimed`` are with a worker; ``retrying`` failed and are due later; ``failed``
    were given up, and stay until they are changed, deleted or retried. ``oldest`` is how many seconds ago
    the oldest of the first three was stored, None if there is none.
    """

    collection: str
    waiting: int
    claimed: int
    retrying: int
    failed: int
    oldest: float | None
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class QueueFailure:
    """A document that was given up: its words are found, it has no vectors."""

    id: str
    error: str
    attempts: int
    failed_at: datetime


@dataclass(frozen=True, slots=True)
class WorkReport:
    """What a worker did, in one batch of one collection or (``collection`` is None) in all.

    ``documents`` were embedded and stored; ``failed`` were given up, ``retried`` are due again later.
    ``waited`` is how many seconds the document that was due longest had been due, at most.
    """

    collection: str | None = None
    documents: int = 0
    chunks: int = 0
    embedded: int = 0
    cached: int = 0
    failed: int = 0
    retried: int = 0
    tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class EmbedderIdentity:
    """Everything that changes a vector: vectors of two identities are never compared."""

    provider: str
    model: str
    dimensions: int
    normalized: bool
    query_prompt: str = ""
    document_prompt: str = ""
    # Which version of the model, where its provider tells.
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}@{self.dimensions}"


@dataclass(frozen=True, slots=True)
class SpaceInfo:
    """An embedding space of a collection: vectors that can be compared with each other, and their index.

    ``state`` is 'building' (vectors are missing yet), 'ready' (complete, and kept so by every write),
    'active' (ready, and the one that is searched) or 'retired' (its vectors are gone). ``searching`` holds
    what searches use unless they say otherwise: ef_search, probes, rerank. ``rows`` have a vector,
    ``missing`` chunks have none yet; ``table_bytes`` and ``index_bytes`` are sizes on disk; None where they
    were not asked for.
    """

    space_id: SpaceId
    collection_id: CollectionId
    identity: EmbedderIdentity
    identity_hash: str
    metric: Metric
    storage: Storage
    index: VectorIndex
    searching: Mapping[str, Any]
    state: SpaceState
    created_at: datetime
    activated_at: datetime | None
    rows: int | None = None
    missing: int | None = None
    table_bytes: int | None = None
    index_bytes: int | None = None

    def __str__(self) -> str:
        return str(self.identity) if self.metric == "cosine" else f"{self.identity} by {self.metric}"


@dataclass(frozen=True, slots=True)
class CopyStatus:
    """How far a collection's copy is, in documents.

    The collection has ``of`` documents; ``documents`` of them are in the copy as they are now, ``surplus``
    ones are in the copy only. Of the copy's, ``queued`` wait for their chunks and vectors, ``failed`` were
    given up. ``kept`` says that it had the collection's name before, and may have it again.
    """

    name: str
    kept: bool
    of: int
    documents: int
    surplus: int
    queued: int
    failed: int

    @property
    def complete(self) -> bool:
        """Whether it holds what the collection holds; documents may wait in its queue."""
        return self.documents == self.of and not self.surplus


MetadataType = Literal["text", "number", "date"]
METADATA_TYPES: tuple[MetadataType, ...] = get_args(MetadataType)


@dataclass(frozen=True, slots=True)
class MetadataIndex:
    """A metadata field that has an index: the keys that lead to it, and what it holds.

    A date is kept as ISO 8601 text; its index is one of texts.
    """

    field: tuple[str, ...]
    type: MetadataType

    def __str__(self) -> str:
        plain = all("." not in key for key in self.field)
        return f"{'.'.join(self.field) if plain else list(self.field)} ({self.type})"


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection as the database holds it.

    ``settings`` holds the search and chunking defaults; ``space`` is the active embedding space. One that is
    hidden, because it is a copy of another, has the number and the name of that in ``copy_of`` and
    ``original``, and ``kept`` says whether it had the name before. ``metadata_indexes`` are the fields of the
    metadata that have an index. ``documents``, ``chunks``, ``queued`` and ``copy`` are None where they were
    not asked for. ``tenant`` is whose it is, '' for nobody's.
    """

    collection_id: CollectionId
    name: str
    language: str
    settings: Mapping[str, Any]
    space: SpaceInfo
    documents: int | None = None
    chunks: int | None = None
    queued: int | None = None
    copy_of: CollectionId | None = None
    original: str | None = None
    kept: bool = False
    copy: CopyStatus | None = None
    metadata_indexes: tuple[MetadataIndex, ...] = ()
    tenant: str = ""

    @property
    def space_id(self) -> SpaceId:
        """The number of the active space."""
        return self.space.space_id

    @property
    def identity(self) -> EmbedderIdentity:
        """What makes the vectors of the active space."""
        return self.space.identity

    @property
    def identity_hash(self) -> str:
        """The SHA-256 of `identity`, in hexadecimal."""
        return self.space.identity_hash


@dataclass(frozen=True, slots=True)
class SpaceProbe:
    """Whether the model of a space still gives the vectors that it gave.

    ``outcome`` is 'same', 'changed', 'failed' (the embedder did not answer, or not with vectors of the space)
    or 'not probed' (it is an object that was not given, or there is nothing to compare with); ``detail`` says
    why, and what to do. ``compared`` vectors were, with the ``against`` 'fingerprint' of the space or, of a
    space that had none, 'chunks'. ``cosine`` is the smallest between one made now and the stored one, that of
    ``text``, embedded as ``input_type``; ``length`` is the length of one made now over the stored one's, the
    farthest from 1. None if nothing was compared. With ``recorded`` the space has a fingerprint since now.
    """

    collection: str
    space_id: SpaceId
    model: str
    state: SpaceState
    outcome: ProbeOutcome
    detail: str
    against: Literal["fingerprint", "chunks"] | None = None
    compared: int = 0
    cosine: float | None = None
    length: float | None = None
    text: str | None = None
    input_type: InputType | None = None
    recorded: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against it."""
        return self.outcome in {"same", "not probed"}


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What `probe` found, by collection and space: the active one of each first."""

    spaces: tuple[SpaceProbe, ...]

    @property
    def ok(self) -> bool:
        """Whether no space has changed or failed."""
        return all(space.ok for space in self.spaces)


@dataclass(frozen=True, slots=True)
class ReembedPlan:
    """What a change of model would do.

    ``chunks`` would have a vector in the new space, ``done`` have one from a time before. With ``reduced``
    they are cut from stored vectors, and nothing is embedded; else ``texts`` are (equal ones count once),
    and ``cached`` ones are known. ``tokens`` are those of ``texts``: a count if ``exact``, else an
    estimate, None where the embedder cannot say; ``cost`` is in dollars, at ``price`` per million.
    ``seconds`` is the least time that the embedder's limits leave, or what a local model would take by
    itself; None if nothing is known. ``table_bytes`` and ``index_bytes`` are about what the new space takes
    on disk, beside the old one. With ``rechunked`` documents are divided anew, in a copy of the collection,
    and all numbers are estimated from some of them.
    """

    collection: str
    of: str
    to: str
    storage: Storage
    index: str
    chunks: int
    done: int
    reduced: bool
    texts: int
    cached: int
    tokens: int | None
    exact: bool
    price: float
    cost: float
    seconds: float | None
    table_bytes: int
    index_bytes: int
    rechunked: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """What a new space must show before it is searched.

    ``queries`` are texts by their ids; without any, ``sample`` beginnings of chunks are. ``k`` hits are
    compared (1..100). ``min_recall`` is what the new index must find of the nearest, ``min_overlap`` the
    share of hits that must be as before (a better model finds others: 0 by default), ``max_loss`` how far
    nDCG@k on ``qrels`` (grades by query id and document id) may fall. With ``allow_refused`` documents that
    the new model cannot embed stand in nobody's way.
    """

    queries: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    qrels: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: _NOTHING)
    k: int = 10
    sample: int = 50
    min_recall: float = 0.95
    min_overlap: float = 0.0
    max_loss: float = 0.01
    allow_refused: bool = False

    def __post_init__(self) -> None:
        check_whole("k", self.k, 100)
        check_whole("sample", self.sample, 10_000)
        for name in ("min_recall", "min_overlap", "max_loss"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value <= 1):
                raise InvalidInput(f"{name} is {value!r}, but must lie in 0..1")
        for name, text in self.queries.items():
            if not isinstance(text, str) or not text.strip():
                raise InvalidInput(f"query {name!r} is empty; give at least one word")
        if self.qrels and not set(self.qrels) & set(self.queries):
            raise InvalidInput(
                "no query has judgements: the ids of the queries and of the qrels must be the same"
            )


@dataclass(frozen=True, slots=True)
class GateReport:
    """How a new space compares with the old one, by ``queries`` (``sampled`` from the collection or given).

    ``overlap`` is the mean share of hits both find among ``k``, ``recall`` that of the nearest which the
    new index finds. ``ndcg_before`` and ``ndcg_after`` are means over ``judged`` queries, None without any.
    ``reasons`` say what was not as asked for.
    """

    queries: int
    sampled: bool
    k: int
    overlap: float
    recall: float
    judged: int
    ndcg_before: float | None
    ndcg_after: float | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """How far a change of model is, or how it ended.

    ``stage`` is 'embedding', 'indexing', 'judging' or 'switching' while it goes on; in the end 'switched',
    'ready' (a switch was not asked for), 'refused' (by the gate, see ``gate`` and ``refused``) or
    'stopped'. ``done`` of ``chunks`` have a vector in the new space, ``begun`` of them had one before.
    ``refused`` are documents that the new model cannot embed, by id, with the reason; ``queued`` ones wait
    for a worker. ``tokens`` were billed, ``cost`` is in dollars. Where documents are divided anew, the
    stage 'dividing' comes first, ``chunks``, ``done`` and ``begun`` count documents, and ``copy`` is the
    name of the hidden collection that has them.
    """

    collection: str
    space_id: SpaceId
    stage: ReembedStage
    chunks: int
    done: int
    begun: int
    seconds: float
    tokens: int
    cost: float
    refused: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    gate: GateReport | None = None
    queued: int = 0
    copy: str | None = None


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long the cache keeps vectors, and how many.

    ``document_days`` and ``query_days`` are the life of a vector from the day it was stored, None for ever.
    ``max_bytes`` is what pruning leaves, least recently used first to go; None for no bound.
    """

    document_days: float | None = None
    query_days: float | None = 30.0
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        check_days("document_days", self.document_days)
        check_days("query_days", self.query_days)
        if self.max_bytes is not None and not (_is_int(self.max_bytes) and self.max_bytes >= 0):
            raise InvalidInput(
                f"max_bytes is {self.max_bytes!r}, but must be a whole number from 0 up, or None for no bound"
            )


def check_days(name: str, value: object) -> None:
    """Raise `InvalidInput` unless ``value`` is a time in days, or None."""
    if value is not None and not (_is_number(value) and 0 < value <= MAX_DAYS):
        raise InvalidInput(
            f"{name} is {value!r}, but must be above 0 and at most {MAX_DAYS:,} days, or None for ever"
        )


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What the cache holds of one embedder and input type.

    ``identity`` is the hash of everything that changes a vector; ``provider``, ``model`` and
    ``dimensions`` are None where no collection has that identity any more. ``bytes`` counts the rows,
    without the index. ``expired`` entries are no longer used and go with the next pruning. Times of use
    are known to the hour.
    """

    identity: str
    provider: str | None
    model: str | None
    dimensions: int | None
    input_type: InputType
    entries: int
    bytes: int
    expired: int
    oldest_used_at: datetime
    newest_used_at: datetime


def _check_query(query: object) -> None:
    if not isinstance(query, str) or not query.strip():
        raise InvalidInput("the query is empty; give at least one word")
    if len(query) > MAX_QUERY:
        raise InvalidInput(f"the query has {len(query):,} characters, but at most {MAX_QUERY:,} are allowed")
    if "\x00" in query:
        raise InvalidInput("the query holds a NUL byte, which PostgreSQL text cannot; remove it")
    try:
        query.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"the query holds a lone surrogate at character {error.start}; it is not valid text"
        ) from error


def check_whole(name: str, value: object, most: int, least: int = 1) -> None:
    """Raise `InvalidInput` for what is not a whole number from ``least`` to ``most``."""
    if not _is_int(value) or not least <= value <= most:
        raise InvalidInput(f"{name} is {value!r}, but must be a whole number from {least} to {most:,}")


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise InvalidInput(f"{name} is {value!r}, but must be one of {', '.join(allowed)}")


def _is_text(value: object) -> bool:
    return (
        isinstance(value, str) and "\x00" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
    )


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
