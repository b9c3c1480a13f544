"""Settings: argument, then environment (``PGSEEK_*``), then default."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pgseek.errors import ConfigurationError
from pgseek.types import MAX_DAYS, CachePolicy, OnEmbedderError

MEBIBYTE = 1024 * 1024


def default_data_dir() -> Path:
    """Return where the embedded server keeps its data: the user's data directory."""
    if sys.platform == "darwin":
        # Not "Application Support": the server cannot use a path with a space.
        return Path.home() / ".pgseek" / "postgres"
    return Path(platformdirs.user_data_dir("pgseek", appauthor=False)) / "postgres"


class Settings(BaseSettings):
    """What a client needs to know before it connects.

    ``dsn`` is a libpq connection string or URL and is never shown in logs or ``repr``.
    ``tenant`` is whose collections are worked with.
    ``data_dir`` belongs to the embedded server. ``embedder`` is the default of new collections.
    ``pool_size`` bounds the connections of one client. ``cache_document_days`` and
    ``cache_query_days`` are how long vectors are kept, ``cache_max_mb`` what pruning leaves of them;
    no value (in the environment: an empty one) means no bound. ``on_embedder_error`` and
    ``search_timeout`` (seconds) are what searches go by unless told otherwise. Searches of
    ``slow_query_seconds`` and more are logged; ``record_queries`` puts queries' text into log and spans.
    """

    model_config = SettingsConfigDict(env_prefix="PGSEEK_", extra="ignore")

    dsn: SecretStr | None = None
    tenant: str | None = None
    data_dir: Path = Field(default_factory=default_data_dir)
    embedder: str = "wordllama"
    pool_size: int = Field(default=10, ge=1, le=1000)
    connect_timeout: int = Field(default=5, ge=1, description="seconds")
    cache_document_days: float | None = Field(default=None, gt=0, le=MAX_DAYS)
    cache_query_days: float | None = Field(default=30, gt=0, le=MAX_DAYS)
    cache_max_mb: int | None = Field(default=None, ge=0, description="1024 * 1024 bytes")
    on_embedder_error: OnEmbedderError = "raise"
    search_timeout: float | None = Field(default=None, gt=0, description="seconds")
    slow_query_seconds: float | None = Field(default=None, ge=0)
    record_queries: bool = False

    def __init__(self, **given: Any) -> None:
        """Read the environment. Raises `ConfigurationError`, naming the variable that is wrong."""
        try:
            super().__init__(**given)
        except ValidationError as error:
            wrong = [
                f"PGSEEK_{str(problem['loc'][0]).upper()} is {problem['input']!r}: {problem['msg']}"
                for problem in error.errors()
                if problem["loc"]
            ]
            raise ConfigurationError("; ".join(wrong) or str(error)) from None

    @field_validator(
        "tenant",
        "cache_document_days",
        "cache_query_days",
        "cache_max_mb",
        "search_timeout",
        "slow_query_seconds",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        # An environment variable has no other way to say None.
        return None if isinstance(value, str) and not value.strip() else value

    def cache_policy(self) -> CachePolicy:
        """Return how long the cache keeps vectors, and how many."""
        return CachePolicy(
            document_days=self.cache_document_days,
            query_days=self.cache_query_days,
            max_bytes=None if self.cache_max_mb is None else self.cache_max_mb * MEBIBYTE,
        )

    def require_dsn(self) -> str:
        """Return the DSN, or raise `ConfigurationError` when none is set."""
        if self.dsn is None:
            raise ConfigurationError("no DSN: set PGSEEK_DSN or pass dsn=")
        return self.dsn.get_secret_value()
