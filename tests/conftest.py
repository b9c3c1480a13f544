"""One real server for the whole run, one migrated template, and a database of its own per test."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import Forks
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

IN_MEMORY = Path("/dev/shm")
ENOUGH_MEMORY = 4 * 2**30


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute a parallel run test by test, but for modules that make something once for all their tests."""
    from xdist.scheduler import LoadScopeScheduling

    @functools.cache
    def shares(file: str) -> bool:
        text = (config.rootpath / file).read_text(encoding="utf-8")
        return "module_dsn" in text or 'scope="module"' in text

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if shares(file) else nodeid

    return Scheduling(config, log)


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
    """The DSN of a superuser's database on the test server: PGSEEK_TEST_DSN, or an embedded server, which
    each process of a parallel run has for itself.
    """
    given = os.environ.get("PGSEEK_TEST_DSN")
    if given:
        yield given
        return
    with _folder_in_memory(server_folder) as folder:
        data_dir = folder / "data"
        dsn = embedded.start(data_dir)
        with connect(dsn) as connection:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
        yield dsn
        embedded.stop(data_dir)


@contextlib.contextmanager
def _folder_in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder in memory where there is enough: a database is three hundred files, and every test has its own.

    Only what a server does with its files is another there; servers that crash or are restarted are on a disk.
    """
    if not IN_MEMORY.is_dir() or shutil.disk_usage(IN_MEMORY).free < ENOUGH_MEMORY:
        yield otherwise
        return
    # Of runs that were killed.
    for left in IN_MEMORY.glob("pgseek-tests-*"):
        if left.stat().st_uid == os.getuid() and not Path("/proc", left.name.split("-")[-1]).exists():
            embedded.stop(left / "data")
            shutil.rmtree(left, ignore_errors=True)
    folder = IN_MEMORY / f"pgseek-tests-{os.getpid()}"
    folder.mkdir(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
def commands() -> Iterator[Forks]:
    """Runs ``python -m pgseek …``, a process for each, without the second that its imports take."""
    made = Forks()
    yield made
    made.close()


@pytest.fixture(scope="session")
def shared_data() -> Path | None:
    """The folder of the judged test collections beside the checkout, None where there is none."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None
