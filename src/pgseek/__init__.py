"""pgseek: hybrid search on the PostgreSQL you already run.

>>> from pgseek import Client
>>> with Client() as client:                                       # doctest: +SKIP
...     docs = client.create_collection("docs")
...     docs.ingest([{"id": "1", "text": "functools.lru_cache caches a function"}])
...     docs.search("how do I cache a function", k=5)
"""

from __future__ import annotations

__version__ = "0.1.0"

from pgseek.aclient import AsyncClient, AsyncCollection
from pgseek.answers import Answer, AnswerCounts, AnswerStats
from pgseek.client import Client, Collection
from pgseek.embedders.base import Embedder
from pgseek.embedders.callable import CallableEmbedder
from pgseek.embedders.limits import Limits
from pgseek.embedders.recommend import Needs, Recommendation, recommend
from pgseek.embedders.registry import create_embedder
from pgseek.errors import (
    ChangeRefused,
    CollectionExists,
    CollectionNotFound,
    ConfigurationError,
    ConnectionFailed,
    CostLimitReached,
    DatabaseError,
    DimensionMismatch,
    DocumentRejected,
    EmbedderError,
    GeneratorError,
    InvalidInput,
    MissingExtra,
    PgseekError,
    RerankerError,
    SchemaError,
    SchemaNotMigrated,
    SchemaTooNew,
    SearchTimeout,
    SpaceMismatch,
    SyncRefused,
    UnsupportedServer,
)
from pgseek.expansion import Expansion, create_expansion
from pgseek.filters import Expression, F
from pgseek.following import attach, detach
from pgseek.generators.base import TextGenerator
from pgseek.generators.callable import CallableGenerator
from pgseek.generators.registry import create_generator
from pgseek.health.finding import HealthFinding
from pgseek.health.recall import SpaceRecall
from pgseek.indexing.advising import IndexAdvice
from pgseek.indexing.building import IndexBuild, IndexProgress
from pgseek.indexing.describing import IndexState
from pgseek.indexing.measuring import IndexRecall
from pgseek.indexing.options import IndexOption
from pgseek.indexing.tuning import IndexTuning
from pgseek.memory import MemoryIndex
from pgseek.querying import Explanation, Facet, Facets, FacetValue, Page
from pgseek.recommending import Event
from pgseek.rerankers.base import Reranker
from pgseek.rerankers.callable import CallableReranker
from pgseek.rerankers.registry import create_reranker
from pgseek.sources import Columns, Files, sql_source
from pgseek.types import (
    CacheStats,
    Chunk,
    CollectionInfo,
    CopyStatus,
    Document,
    EmbedderIdentity,
    Gate,
    GateReport,
    Hit,
    IngestPlan,
    IngestReport,
    Match,
    MetadataIndex,
    Passage,
    ProbeReport,
    QueueFailure,
    QueuePolicy,
    QueueStatus,
    ReembedPlan,
    ReembedReport,
    Rejection,
    Search,
    SearchReport,
    SpaceInfo,
    SpaceProbe,
    WorkReport,
)
from pgseek.vectors import VectorIndex

__all__ = [
    "Answer",
    "AnswerCounts",
    "AnswerStats",
    "AsyncClient",
    "AsyncCollection",
    "CacheStats",
    "CallableEmbedder",
    "CallableGenerator",
    "CallableReranker",
    "ChangeRefused",
    "Chunk",
    "Client",
    "Collection",
    "CollectionExists",
    "CollectionInfo",
    "CollectionNotFound",
    "Columns",
    "ConfigurationError",
    "ConnectionFailed",
    "CopyStatus",
    "CostLimitReached",
    "DatabaseError",
    "DimensionMismatch",
    "Document",
    "DocumentRejected",
    "Embedder",
    "EmbedderError",
    "EmbedderIdentity",
    "Event",
    "Expansion",
    "Explanation",
    "Expression",
    "F",
    "Facet",
    "FacetValue",
    "Facets",
    "Files",
    "Gate",
    "GateReport",
    "GeneratorError",
    "HealthFinding",
    "Hit",
    "IndexAdvice",
    "IndexBuild",
    "IndexOption",
    "IndexProgress",
    "IndexRecall",
    "IndexState",
    "IndexTuning",
    "IngestPlan",
    "IngestReport",
    "InvalidInput",
    "Limits",
    "Match",
    "MemoryIndex",
    "MetadataIndex",
    "MissingExtra",
    "Needs",
    "Page",
    "Passage",
    "PgseekError",
    "ProbeReport",
    "QueueFailure",
    "QueuePolicy",
    "QueueStatus",
    "Recommendation",
    "ReembedPlan",
    "ReembedReport",
    "Rejection",
    "Reranker",
    "RerankerError",
    "SchemaError",
    "SchemaNotMigrated",
    "SchemaTooNew",
    "Search",
    "SearchReport",
    "SearchTimeout",
    "SpaceInfo",
    "SpaceMismatch",
    "SpaceProbe",
    "SpaceRecall",
    "SyncRefused",
    "TextGenerator",
    "UnsupportedServer",
    "VectorIndex",
    "WorkReport",
    "__version__",
    "attach",
    "create_embedder",
    "create_expansion",
    "create_generator",
    "create_reranker",
    "detach",
    "recommend",
    "sql_source",
]
