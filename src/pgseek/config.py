"""Settings: argument, then environment (``PGSEEK_*``), then default."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pgseek.errors import ConfigurationError


def default_data_dir() -> Path:
    """Return where the embedded server keeps its data: the user's data directory."""
    if sys.platform == "darwin":
        # Not "Application Support": the server cannot use a path with a space.
        return Path.home() / ".pgseek" / "postgres"
    return Path(platformdirs.user_data_dir("pgseek", appauthor=False)) / "postgres"


class Settings(BaseSettings):
    """What a client needs to know before it connects.

    ``dsn`` is a libpq connection string or URL and is never shown in logs or ``repr``.
    ``data_dir`` belongs to the embedded server. ``embedder`` is the default of new collections.
    ``pool_size`` bounds the connections of one client.
    """

    model_config = SettingsConfigDict(env_prefix="PGSEEK_", extra="ignore")

    dsn: SecretStr | None = None
    data_dir: Path = Field(default_factory=default_data_dir)
    embedder: str = "wordllama"
    pool_size: int = Field(default=10, ge=1, le=1000)
    connect_timeout: int = Field(default=5, ge=1, description="seconds")

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

    def require_dsn(self) -> str:
        """Return the DSN, or raise `ConfigurationError` when none is set."""
        if self.dsn is None:
            raise ConfigurationError("no DSN: set PGSEEK_DSN or pass dsn=")
        return self.dsn.get_secret_value()
