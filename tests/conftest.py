"""One real server for the whole run, one migrated template, and a database of its own per test."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo
from support import create_database, drop_database

from pgseek import Client
from pgseek.db import embedded, schema
from pgseek.db.connection import connect

os.environ["HF_HUB_OFFLINE"] = "1"
# Started in the background of a shell, the run ignores interrupts, and so would every child of a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside():
    """Tests choose their database themselves; the developer's own is never touched."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PGSEEK_") and name != "PGSEEK_TEST_DSN"]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder for data of servers. Not pytest's own: run as root, the server is another user, and the
    next pytest on the machine would close that folder to it.
    """
    folder = Path(tempfile.mkdtemp(prefix="pgseek-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def data_dir(server_folder: Path) -> Iterator[Path]:
    """A data directory for an embedded server of the test's own; stopped afterwards."""
    folder = server_folder / f"data{next(_numbers)}"
    yield folder
    embedded.stop(folder)


@pytest.fixture(scope="session")
def server_dsn(server_folder: Path) -> Iterator[str]:
    """The DSN of a superuser's database on the test server: PGSEEK_TEST_DSN, or the embedded server."""
    given = os.environ.get("PGSEEK_TEST_DSN")
    if given:
        yield given
        return
    data_dir = server_folder / "data"
    dsn = embedded.start(data_dir)
    with connect(dsn) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")
    yield dsn
    embedded.stop(data_dir)


@pytest.fixture(scope="session")
def template(server_dsn: str) -> Iterator[str]:
    """The name of a migrated database without data."""
    name = f"pgseek_template_{os.getpid()}"
    create_database(server_dsn, name)
    schema.upgrade(make_conninfo(server_dsn, dbname=name))
    yield name
    drop_database(server_dsn, name)


@pytest.fixture
def empty_dsn(server_dsn: str) -> Iterator[str]:
    """The DSN of a new database that holds nothing at all."""
    name = f"pgseek_test_{os.getpid()}_{next(_numbers)}"
    create_database(server_dsn, name)
    yield make_conninfo(server_dsn, dbname=name)
    drop_database(server_dsn, name)


@pytest.fixture
def dsn(server_dsn: str, template: str) -> Iterator[str]:
    """The DSN of a new, migrated database."""
    name = f"pgseek_test_{os.getpid()}_{next(_numbers)}"
    create_database(server_dsn, name, template)
    yield make_conninfo(server_dsn, dbname=name)
    drop_database(server_dsn, name)


@pytest.fixture(scope="module")
def module_dsn(server_dsn: str, template: str) -> Iterator[str]:
    """The DSN of a new, migrated database that the tests of one module share."""
    name = f"pgseek_module_{os.getpid()}_{next(_numbers)}"
    create_database(server_dsn, name, template)
    yield make_conninfo(server_dsn, dbname=name)
    drop_database(server_dsn, name)


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    """A client of a database of its own."""
    with Client(dsn) as made:
        yield made


@pytest.fixture(scope="session")
def shared_data() -> Path | None:
    """The folder of the judged test collections beside the checkout, None where there is none."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None
