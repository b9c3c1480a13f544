"""Every error pgseek raises on purpose.

::

    PgseekError
    ├── InvalidInput (ValueError)      an argument out of its range; names the value and the range
    │   └── DimensionMismatch          a vector whose length is not the space's; names both
    ├── ConfigurationError             no usable DSN, unknown setting
    │   └── MissingExtra               an optional package is not installed; gives the pip command
    ├── DatabaseError                  the server refused or failed; ``__cause__`` is the driver's error
    │   ├── ConnectionFailed           no server answers at the DSN
    │   ├── UnsupportedServer          PostgreSQL or pgvector missing or too old
    │   └── SchemaError                the schema is not the one this pgseek works with
    │       ├── SchemaNotMigrated      no schema, or an older one: run ``pgseek db upgrade``
    │       └── SchemaTooNew           migrated by a newer pgseek: upgrade the package
    ├── CollectionNotFound             no such collection; suggests the nearest name
    ├── CollectionExists
    ├── SpaceMismatch                  an embedder other than the one the collection was made with
    ├── DocumentRejected               a strict ingest met a document that cannot be stored
    ├── SyncRefused                    a sync would have removed more than it may
    ├── ChangeRefused                  a change of chunks or model cannot begin or take effect now
    ├── EmbedderError                  an embedder failed or returned something unusable
    │   └── CostLimitReached           the next request would cost more than ``max_cost``
    ├── GeneratorError                 what writes questions and summaries failed
    ├── RerankerError                  a reranker failed or returned something unusable
    └── SearchTimeout (TimeoutError)   a search took longer than it may; says what took how long
"""

from __future__ import annotations

from typing import Any


class PgseekError(Exception):
    """Root of all errors raised by pgseek."""


class InvalidInput(PgseekError, ValueError):
    """An argument is outside its range."""


class DimensionMismatch(InvalidInput):
    """A vector's length differs from the dimensions of the embedding space."""


class ConfigurationError(PgseekError):
    """A setting is missing or unusable."""


class MissingExtra(ConfigurationError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed; pip install 'pgseek[{extra}]'")


class DatabaseError(PgseekError):
    """The server refused or failed."""


class ConnectionFailed(DatabaseError):
    """No server answers at the DSN."""


class UnsupportedServer(DatabaseError):
    """PostgreSQL or pgvector is missing or too old."""


class SchemaError(DatabaseError):
    """The pgseek schema in the database is not the one this version works with."""


class SchemaNotMigrated(SchemaError):
    """The schema is absent or older than this pgseek."""


class SchemaTooNew(SchemaError):
    """The schema was migrated by a newer pgseek."""


class CollectionNotFound(PgseekError):
    """No collection has this name."""


class CollectionExists(PgseekError):
    """The name is taken."""


class SpaceMismatch(PgseekError):
    """The embedder differs from the one that made the collection's vectors."""


class EmbedderError(PgseekError):
    """An embedder failed or returned something unusable."""


class DocumentRejected(PgseekError):
    """A strict ingest met a document that cannot be stored; ``rejection`` says which and why."""

    def __init__(self, message: str, rejection: Any) -> None:
        super().__init__(message)
        self.rejection = rejection


class SyncRefused(PgseekError):
    """A sync would have removed more than it may; everything else of the ingest is done."""


class ChangeRefused(PgseekError):
    """A change of chunks or model cannot begin, go on or take effect now; the message says why."""


class CostLimitReached(EmbedderError):
    """The next request would cost more than was allowed."""


class GeneratorError(PgseekError):
    """What writes questions and summaries failed or returned something unusable."""


class RerankerError(PgseekError):
    """A reranker failed or returned something unusable."""


class SearchTimeout(PgseekError, TimeoutError):
    """A search took longer than its ``timeout``; the message says what took how long."""
