"""Tenants: what a login role does for its own, through the whole path of each client."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from psycopg.conninfo import make_conninfo
from support import CORPUS, CountingEmbedder, rows

from pgseek import (
    AsyncClient,
    Client,
    CollectionNotFound,
    ConfigurationError,
    DatabaseError,
    InvalidInput,
)
from pgseek.db.connection import connect
from pgseek.integrity import examine

MANY = [
    {"id": str(n), "text": f"text number {n} of many", "metadata": {"even": n % 2 == 0}} for n in range(40)
]


@pytest.fixture
def login(server_dsn, dsn):
    """Make login roles that are members of a role, and nothing else; return the DSN of each."""
    made = []

    def make(of, tenant=None):
        name = f"pgseek_login_{os.getpid()}_{len(made)}"
        rows(server_dsn, f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
        made.append(name)
        rows(dsn, f"GRANT {of} TO {name}")
        if tenant is not None:
            rows(dsn, "INSERT INTO pgseek.tenant_roles VALUES (%s, %s)", [name, tenant])
        return make_conninfo(dsn, user=name, password="x")

    yield make
    for name in made:
        rows(server_dsn, f"DROP ROLE {name}")


def make(dsn, tenant, name="docs", documents=CORPUS, **settings):
    """A collection of a tenant, made and filled by the owner."""
    with Client(dsn, tenant=tenant) as owner:
        docs = owner.create_collection(name, embedder=CountingEmbedder(), **settings)
        docs.ingest(documents)
        return docs._info


def test_collections_of_one_name_are_each_its_tenants(dsn):
    for tenant in ("acme", "beta"):
        make(dsn, tenant, documents=[{"id": "1", "text": f"a zebra of {tenant}"}])
    make(dsn, None, documents=[{"id": "1", "text": "a zebra of nobody"}])
    for tenant in ("acme", "beta", None):
        with Client(dsn, tenant=tenant) as client:
            (hit,) = client.collection("docs", embedder=CountingEmbedder()).search("zebra")
            assert hit.text == f"a zebra of {tenant or 'nobody'}"
    with Client(dsn, tenant="acme") as client:
        assert [(c.tenant, c.name) for c in client.list_collections()] == [("acme", "docs")]
        with pytest.raises(CollectionNotFound, match="there is no collection 'others'; there are: docs"):
            client.collection("others")
        client.drop_collection("docs")
    # Without a tenant, the owner sees whose each is.
    with Client(dsn) as client:
        assert [(c.tenant, c.name) for c in client.list_collections()] == [("", "docs"), ("beta", "docs")]
        assert [(s.tenant, s.collection) for s in client.queue_status()] == [("", "docs"), ("beta", "docs")]


@pytest.mark.parametrize("tenant", ["a b", "back\\slash", "o'neil", '"', "-c x=y", "größe", "a,b;--"])
def test_any_name_is_a_tenants(dsn, tenant):
    make(dsn, tenant)
    with Client(dsn, tenant=tenant) as client:
        assert [c.tenant for c in client.list_collections()] == [tenant]
    with Client(dsn, tenant=f"{tenant}2") as client:
        assert client.list_collections() == []


@pytest.mark.parametrize("tenant", ["", "a\nb", "x" * 201, 7])
def test_what_is_no_name_of_a_tenant(dsn, tenant):
    with pytest.raises(
        InvalidInput, match=r"tenant is .*, but must be text of 1 to 200 printable characters"
    ):
        Client(dsn, tenant=tenant).list_collections()


def test_the_tenant_comes_from_the_environment_too(dsn, monkeypatch):
    make(dsn, "acme")
    monkeypatch.setenv("PGSEEK_TENANT", "acme")
    with Client(dsn) as client:
        assert [c.name for c in client.list_collections()] == ["docs"]
    with Client(dsn, tenant="beta") as client:
        assert client.list_collections() == []
    monkeypatch.setenv("PGSEEK_TENANT", " ")
    with Client(dsn) as client:
        assert [c.tenant for c in client.list_collections()] == ["acme"]


def test_options_of_the_dsn_stay(dsn):
    given = make_conninfo(dsn, options="-c default_transaction_read_only=on")
    with Client(given, tenant="acme") as client, pytest.raises(DatabaseError, match="read-only"):
        client.create_collection("docs", embedder=CountingEmbedder())


def test_a_pooler_that_drops_the_option_is_found_out(dsn, monkeypatch):
    # What such a pooler makes of it: a session that was told nothing.
    monkeypatch.setattr("pgseek.db.session.with_tenant", lambda given, tenant: given)
    with pytest.raises(ConfigurationError, match="the tenant is 'acme', but takes it for '': a pooler"):
        Client(dsn, tenant="acme").list_collections()


def test_a_writer_ingests_syncs_deletes_and_searches(dsn, login):
    make(dsn, "acme", documents=[], document_vectors=True)
    make(dsn, "beta")
    with Client(login("pgseek_writer"), tenant="acme") as client:
        docs = client.collection("docs", embedder=CountingEmbedder())
        assert docs.ingest(MANY).new == 40
        changed = [{**MANY[0], "text": "a quagga"}, {**MANY[1], "metadata": {"even": True}}, *MANY[2:]]
        report = docs.ingest(changed)
        assert (report.changed, report.metadata_changed, report.unchanged) == (1, 1, 38)
        assert docs.ingest(changed[:30], sync=True).removed == 10
        assert docs.search("quagga")[0].id == "0"
        assert {hit.id for hit in docs.search("number", filter={"even": True}, k=30)} <= {
            str(n) for n in range(30)
        }
        assert docs.delete(["1", "2"]) == 2
        assert docs.count() == 28
        assert docs.get("3").text == MANY[3]["text"]
        assert docs.plan(changed).new == 12
        assert docs.refresh_statistics(reweigh=True) == pytest.approx(1.0)
        assert client.cache_stats()
        assert client.clear_cache("docs") > 0
        assert client.prune_cache(max_bytes=0) == 0
        assert client.probe(embedders={"docs": CountingEmbedder()}).ok
        assert docs.info().documents == 28
        # What makes tables is the owner's.
        with pytest.raises(DatabaseError, match="may not do this"):
            client.create_collection("mine", embedder=CountingEmbedder())
        with pytest.raises(DatabaseError, match="may not do this"):
            client.drop_collection("docs")
    with Client(dsn, tenant="beta") as client:
        assert client.collection("docs", embedder=CountingEmbedder()).count() == len(CORPUS)


def test_a_writer_uses_sql_and_works_off_its_own_queue(dsn, login):
    make(dsn, "acme")
    make(dsn, "beta")
    given = login("pgseek_writer")
    put = "SELECT pgseek.put_document('docs', 'new', 'an okapi')"
    for tenant in ("acme", "beta"):
        rows(make_conninfo(given, options=f"-c pgseek.tenant={tenant}"), put)
    with Client(given, tenant="acme") as client:
        report = client.work(embedders={"docs": CountingEmbedder()}, once=True)
        assert report.documents == 1
        assert [(s.tenant, s.waiting) for s in client.queue_status()] == [("acme", 0)]
        docs = client.collection("docs", embedder=CountingEmbedder())
        assert docs.search("okapi")[0].dense_score is not None
    with Client(given, tenant="beta") as client:
        assert [(s.tenant, s.waiting) for s in client.queue_status()] == [("beta", 1)]
        assert client.collection("docs", embedder=CountingEmbedder()).drain_queue().changed == 1


def test_a_reader_searches_and_writes_nothing(dsn, login):
    make(dsn, "acme")
    given = login("pgseek_reader")
    with Client(given, tenant="acme") as client:
        docs = client.collection("docs", embedder=CountingEmbedder())
        found = [hit.id for hit in docs.search("cache the results of a function")]
        assert found
        assert [hit.id for hit in docs.search("cache the results of a function", alpha=1)]
        assert docs.search("suppres", filter={"year": {"$gte": 2000}})[0].id == "suppress"
        with pytest.raises(DatabaseError, match="may not do this"):
            docs.ingest([{"id": "x", "text": "y"}])
        with pytest.raises(DatabaseError, match="may not do this"):
            docs.delete(["errno"])
        assert docs.count() == len(CORPUS)
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.embedding_cache WHERE input_type = 'query'") == [
        {"n": 0}
    ]

    async def search():
        async with AsyncClient(given, tenant="acme") as client:
            docs = await client.collection("docs", embedder=CountingEmbedder())
            return [hit.id for hit in await docs.search("cache the results of a function")]

    assert asyncio.run(search()) == found


def test_the_command_line_searches_as_a_reader(dsn, login, commands):
    with Client(dsn, tenant="acme") as owner:
        owner.create_collection("docs").ingest(CORPUS)
    given = login("pgseek_reader")
    searched = commands.run("--dsn", given, "--tenant", "acme", "search", "docs", "cache a function")
    assert searched.returncode == 0, searched.stderr
    assert b"lru_cache" in searched.stdout
    missed = commands.run("--dsn", given, "--tenant", "beta", "search", "docs", "cache a function")
    assert (missed.returncode, b"there is no collection 'docs'" in missed.stderr) == (3, True)
    listed = commands.run("--dsn", dsn, "collections", "list")
    assert b"acme" in listed.stdout


def test_a_worker_of_the_owner_serves_all_tenants(dsn):
    for tenant in ("acme", "beta", None):
        make(dsn, tenant)
        with connect(dsn) as connection:
            connection.execute("SELECT set_config('pgseek.tenant', %s, false)", [tenant or ""])
            connection.execute("SELECT pgseek.put_document('docs', 'new', 'an okapi')")
    embedder = CountingEmbedder()
    with Client(dsn) as client:
        assert client.work(embedders={"docs": embedder}, once=True).documents == 3
        assert [s.waiting for s in client.queue_status()] == [0, 0, 0]
    # Each tenant's vector is its own: three times the same text.
    assert embedder.documents == ["an okapi"] * 3
    cached = "SELECT tenant, count(*) AS n FROM pgseek.embedding_cache WHERE text_hash = sha256('an okapi') GROUP BY 1"
    assert {(row["tenant"], row["n"]) for row in rows(dsn, cached)} == {("acme", 1), ("beta", 1), ("", 1)}


def test_a_worker_of_the_owner_serves_a_name_of_any_tenant(dsn):
    make(dsn, "acme")
    rows(
        make_conninfo(dsn, options="-c pgseek.tenant=acme"),
        "SELECT pgseek.put_document('docs', 'new', 'an okapi')",
    )
    with Client(dsn) as client:
        with pytest.raises(CollectionNotFound, match="there is no collection 'others'"):
            client.work(["others"], once=True)
        assert client.work(["docs"], embedders={"docs": CountingEmbedder()}, once=True).documents == 1


def test_a_worker_hears_of_every_tenants_writers(dsn):
    make(dsn, "acme")
    stop, heard = threading.Event(), threading.Event()
    with Client(dsn) as client:
        working = threading.Thread(
            target=lambda: client.work(
                embedders={"docs": CountingEmbedder()},
                stop=stop,
                poll=600,
                progress=lambda report: heard.set(),
            )
        )
        working.start()
        try:
            rows(
                make_conninfo(dsn, options="-c pgseek.tenant=acme"),
                "SELECT pgseek.put_document('docs', 'new', 'an okapi')",
            )
            assert heard.wait(60)
        finally:
            stop.set()
            working.join()


def test_reembedding_and_rechunking_keep_the_tenant(dsn, login):
    make(dsn, "acme")
    given = login("pgseek_reader")
    new = CountingEmbedder(12, "new")
    with Client(dsn, tenant="acme") as client:
        docs = client.collection("docs", embedder=[CountingEmbedder()])
        docs.reembed(new)
        docs.rechunk(chunk_size=60)
        copies = rows(dsn, "SELECT DISTINCT tenant FROM pgseek.collections")
        assert copies == [{"tenant": "acme"}]
    with Client(given, tenant="acme") as client:
        assert client.collection("docs", embedder=new).search("cache a function")[0].dense_score is not None
    with Client(given, tenant="beta") as client:
        assert client.list_collections() == []


def test_a_role_of_a_tenant_needs_no_setting(dsn, login):
    make(dsn, "acme")
    make(dsn, "beta", "others")
    with Client(login("pgseek_reader", tenant="acme")) as client:
        assert [c.name for c in client.list_collections()] == ["docs"]
        assert client.collection("docs", embedder=CountingEmbedder()).search("cache")
    with pytest.raises(DatabaseError, match=r"works for tenant 'acme', but pgseek\.tenant is 'beta'"):
        Client(login("pgseek_reader", tenant="acme"), tenant="beta").list_collections()


def test_an_attached_table_feeds_its_collections_tenant_whoever_writes(dsn, login):
    make(dsn, "acme", documents=[])
    make(dsn, "beta", documents=[])
    make(dsn, None, documents=[])
    rows(dsn, "CREATE TABLE products (id int PRIMARY KEY, text text)")
    rows(dsn, "INSERT INTO products VALUES (1, 'there before')")
    given = {"id": "id", "text": "text", "apply": True}
    for tenant in ("acme", None):
        with Client(dsn, tenant=tenant) as client:
            client.attach("products", "docs", **given)
            with pytest.raises(InvalidInput, match="is attached to 'docs' already"):
                client.attach("products", "docs", **given)

    def stored():
        return rows(
            dsn,
            "SELECT c.tenant, array_agg(d.body ORDER BY d.external_id) AS bodies FROM pgseek.collections c"
            " JOIN pgseek.documents d USING (collection_id) GROUP BY c.tenant ORDER BY c.tenant",
        )

    # In a session that works for yet another tenant, and goes on doing so.
    writer = login("pgseek_writer")
    rows(dsn, "GRANT INSERT, DELETE, SELECT ON products TO pgseek_writer")
    try:
        with connect(make_conninfo(writer, options="-c pgseek.tenant=beta")) as session:
            session.execute("INSERT INTO products VALUES (2, 'a zebra')")
            assert session.execute("SELECT pgseek.tenant() AS t").fetchone() == {"t": "beta"}
            session.execute("BEGIN; INSERT INTO products VALUES (3, 'an okapi')")
            assert session.execute("SELECT pgseek.tenant() AS t").fetchone() == {"t": "beta"}
            session.execute("COMMIT")
        bodies = ["there before", "a zebra", "an okapi"]
        assert stored() == [{"tenant": "", "bodies": bodies}, {"tenant": "acme", "bodies": bodies}]
        with (
            Client(dsn, tenant="beta") as client,
            pytest.raises(InvalidInput, match="attached to no collection"),
        ):
            client.detach("products")
        with Client(dsn, tenant="acme") as client:
            client.detach("products", delete_documents=True, apply=True)
        assert stored() == [{"tenant": "", "bodies": bodies}]
    finally:
        rows(dsn, "DROP TABLE products")


def test_what_examines_and_mends_sees_its_own_tenant(dsn, commands):
    make(dsn, "acme")
    make(dsn, "beta", "others")
    rows(dsn, "DELETE FROM pgseek.chunks")
    found = examine(make_conninfo(dsn, options="-c pgseek.tenant=acme"))
    assert {one.name for one in found.collections} == {"docs"}
    assert not found.ok
    run = commands.run("--dsn", dsn, "--tenant", "acme", "doctor", "--deep", "--repair")
    assert b"others" not in run.stdout
    queued = rows(
        dsn,
        "SELECT c.tenant, count(*) AS n FROM pgseek.ingest_queue q JOIN pgseek.collections c USING (collection_id)"
        " GROUP BY 1",
    )
    assert queued == [{"tenant": "acme", "n": len(CORPUS)}]
