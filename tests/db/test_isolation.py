"""Login roles of one tenant try to reach what is another's: each way must end as if there were no other."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re

import psycopg
import pytest
from functions import OWNERS_RIGHTS
from psycopg.conninfo import make_conninfo
from support import CORPUS, CountingEmbedder, rows

from pgseek import Client
from pgseek.db.connection import connect
from pgseek.evaluation import save_golden

# Words and texts that nobody else has.
SECRETS = [
    {
        "id": "plan",
        "title": "Operation Zyzzogeton",
        "text": "The zyzzogeton leaves at midnight from quay seven.",
    },
    {
        "id": "price",
        "title": "Offer",
        "text": "We shall bid 4,711 for the quokka.",
        "metadata": {"secret": "yes"},
    },
    *({"id": f"more{n}", "text": f"zyzzogeton number {n} of the fleet"} for n in range(30)),
]
# What is left when nobody has it.
NOWHERE = 987_654
# Of each table that a tenant has rows in.
HOLDS_ROWS = {
    *("collections", "embedding_spaces", "space_probes", "documents", "chunks", "collection_statistics"),
    *(
        "term_statistics",
        "rare_lexemes",
        "embedding_cache",
        "embedding_claims",
        "generated_texts",
        "rate_limits",
    ),
    *("ingest_queue", "embeddings_1", "embeddings_2", "duplicate_scans", "duplicate_pairs", "answers"),
    *("golden_sets", "golden_queries", "golden_judgements"),
}
NAMES_NOBODY = {"alembic_version"}


class Places:
    """Two tenants in one database: how each logs in, and the numbers of what is theirs."""

    def __init__(self, dsn, logins):
        self.dsn = dsn
        self.logins = logins
        self.own, self.other = (self._ids(tenant) for tenant in ("acme", "beta"))

    def _ids(self, tenant):
        (row,) = rows(
            self.dsn,
            "SELECT collection_id AS collection, active_space_id AS space FROM pgseek.collections WHERE tenant = %s",
            [tenant],
        )
        return row

    @contextlib.contextmanager
    def session(self, kind="reader", tenant="acme", bound=True):
        """A connection of a login role; one that is not bound to a tenant chooses it by the setting."""
        name = f"{tenant}_{kind}" if bound else kind
        with connect(make_conninfo(self.dsn, user=self.logins[name], password="x")) as connection:
            if not bound:
                connection.execute("SELECT set_config('pgseek.tenant', %s, false)", [tenant])
            yield connection

    def client(self, kind="reader", tenant="acme"):
        return Client(
            make_conninfo(self.dsn, user=self.logins[f"{tenant}_{kind}"], password="x"), tenant=tenant
        )


@pytest.fixture(scope="module")
def places(module_dsn, server_dsn):
    logins = {
        f"{tenant}{kind}": f"pgseek_{tenant}{kind}_{os.getpid()}"
        for tenant in ("acme_", "beta_", "")
        for kind in ("reader", "writer")
    }
    dsn = module_dsn
    for key, name in logins.items():
        rows(server_dsn, f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
        rows(dsn, f"GRANT pgseek_{key.split('_')[-1]} TO {name}")
        if "_" in key:
            rows(dsn, "INSERT INTO pgseek.tenant_roles VALUES (%s, %s)", [name, key.split("_")[0]])
    for tenant, name, documents in (("acme", "docs", CORPUS), ("beta", "secrets", SECRETS)):
        with Client(dsn, tenant=tenant) as owner:
            collection = owner.create_collection(name, embedder=CountingEmbedder())
            collection.ingest(documents)
            # Filters on these are put into the words of a statement.
            for field, of_type in (("a", "text"), ("year", "number")) if tenant == "acme" else ():
                collection.index_metadata(field, of_type)
    made = Places(dsn, logins)
    for tenant, name in (("acme", "docs"), ("beta", "secrets")):
        with made.client("writer", tenant) as client:
            client.collection(name, embedder=CountingEmbedder()).search("where is the quokka")
        with made.session("writer", tenant) as session:
            session.execute("SELECT pgseek.put_document(%s, 'queued', 'a text that waits')", [name])
            session.execute(
                "SELECT pgseek.put_answer(%s, 'where is the quokka', %s)", [name, f"at the {tenant} zoo"]
            )
            for statement in (
                "INSERT INTO pgseek.embedding_claims VALUES ('i', '\\x01', now() + interval '1 day', %s)",
                "INSERT INTO pgseek.generated_texts (identity, text_hash, texts, tenant) VALUES ('i', '\\x01', '{q}', %s)",
                "INSERT INTO pgseek.rate_limits (name, state, tenant) VALUES ('i', '{1}', %s)",
            ):
                session.execute(statement, [tenant])
        with made.client("writer", tenant) as client:
            save_golden(
                client.collection(name, embedder=CountingEmbedder()),
                "golden",
                {"q": "where is the quokka"},
                {"q": {"secret": 1}},
            )
    for ids in (made.own, made.other):
        place = [ids["collection"], ids["space"]]
        rows(dsn, "INSERT INTO pgseek.duplicate_scans SELECT %s, %s, gen_random_uuid(), 'h', 0.9", place)
        rows(
            dsn,
            "INSERT INTO pgseek.duplicate_pairs SELECT %s, %s, gen_random_uuid(), gen_random_uuid(), 1, 1, false",
            place,
        )
    rows(dsn, "ANALYZE")
    yield made
    for name in logins.values():
        rows(dsn, f"DROP OWNED BY {name}")
        rows(server_dsn, f"DROP ROLE {name}")


def tables(dsn):
    found = rows(
        dsn,
        "SELECT relname AS name, relrowsecurity AS protected, relforcerowsecurity AS forced FROM pg_class"
        " WHERE relnamespace = 'pgseek'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1",
    )
    return [row for row in found if row["name"] not in NAMES_NOBODY]


def outcome(session, statement, parameters=None):
    """What a statement gives or how it fails, all that the server says of it."""
    try:
        with session.transaction(force_rollback=True):
            cursor = session.execute(statement, parameters)
            return (
                [list(row.values()) for row in cursor.fetchall()] if cursor.description else cursor.rowcount
            )
    except psycopg.Error as error:
        diag = error.diag
        parts = (diag.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint)
        return tuple(parts)


# Tables, read and written.


def test_every_table_has_policies_and_its_owner_is_exempt(places):
    found = tables(places.dsn)
    assert {row["name"] for row in found} >= HOLDS_ROWS | {"tenant_roles"}
    assert [row["name"] for row in found if not row["protected"] or row["forced"]] == []


def test_a_table_that_nobody_thought_of_shows_nothing(places):
    with connect(places.dsn) as owner, owner.transaction(force_rollback=True):
        owner.execute("CREATE TABLE pgseek.forgotten AS SELECT 1 AS x")
        owner.execute("SELECT pgseek.protect()")
        owner.execute("GRANT SELECT ON pgseek.forgotten TO pgseek_reader")
        owner.execute(
            psycopg.sql.SQL("SET ROLE {}").format(psycopg.sql.Identifier(places.logins["acme_reader"]))
        )
        assert owner.execute("SELECT * FROM pgseek.forgotten").fetchall() == []


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("kind", ["reader", "writer"])
def test_no_row_is_seen_by_two_tenants(places, kind, bound):
    seen = {}
    for tenant in ("acme", "beta", "gamma", ""):
        if bound and tenant in ("gamma", ""):
            continue
        with places.session(kind, tenant, bound) as session:
            for table in tables(places.dsn):
                found = outcome(session, f"SELECT t::text FROM pgseek.{table['name']} AS t")
                if table["name"] == "tenant_roles":
                    assert found[0] == "42501"
                    continue
                seen[tenant, table["name"]] = {row[0] for row in found}
    for (tenant, table), found in seen.items():
        if tenant in ("gamma", ""):
            assert found == set(), table
    for table in {table for _, table in seen}:
        assert seen["acme", table] & seen["beta", table] == set(), table
    assert {table for (tenant, table), found in seen.items() if found and tenant == "beta"} == HOLDS_ROWS - {
        "embeddings_1"
    }
    assert {table for (tenant, table), found in seen.items() if found and tenant == "acme"} == HOLDS_ROWS - {
        "embeddings_2"
    }


def test_a_role_of_a_tenant_cannot_take_another(places):
    for kind in ("reader", "writer"):
        with places.session(kind) as session:
            session.execute("SET pgseek.tenant = 'beta'")
            for statement in (
                "SELECT count(*) FROM pgseek.chunks",
                "SELECT pgseek.tenant()",
                "SELECT * FROM pgseek.search('secrets', 'quokka')",
                "SELECT * FROM pgseek.embeddings_2",
            ):
                found = outcome(session, statement)
                assert found[:2] == (
                    "42501",
                    f"role {places.logins[f'acme_{kind}']} works for tenant 'acme', but pgseek.tenant is 'beta'",
                )
            # Whoever it becomes meanwhile, it is who logged in.
            session.execute(f"SET ROLE pgseek_{kind}")
            assert outcome(session, "SELECT pgseek.tenant()")[0] == "42501"
            session.execute("SET pgseek.tenant = ''")
            assert outcome(session, "SELECT pgseek.tenant()") == [["acme"]]
            session.execute("RESET ROLE")
            for statement in (
                "INSERT INTO pgseek.tenant_roles VALUES (current_user, 'beta')",
                "UPDATE pgseek.tenant_roles SET tenant = 'beta'",
                "SELECT * FROM pgseek.tenant_roles",
                "ALTER TABLE pgseek.chunks DISABLE ROW LEVEL SECURITY",
                "DROP POLICY tenant ON pgseek.chunks",
            ):
                assert outcome(session, statement)[0] == "42501", statement
            session.execute("SET row_security = off")
            assert outcome(session, "SELECT count(*) FROM pgseek.documents")[0] == "42501"


def test_another_tenants_rows_are_not_written(places):
    with connect(places.dsn) as owner, places.session("writer") as session:
        for name in sorted(HOLDS_ROWS - {"embeddings_1"}):
            columns = {
                row["name"]
                for row in rows(
                    places.dsn,
                    "SELECT attname::text AS name FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0",
                    [f"pgseek.{name}"],
                )
            }
            own = next(column for column in ("tenant", "collection_id", "space_id") if column in columns)
            value = {"tenant": "'beta'", "collection_id": places.other["collection"]}.get(
                own, places.other["space"]
            )
            theirs = f"{own} = {value}"
            (row,) = owner.execute(
                f"SELECT to_jsonb(t)::text AS row FROM pgseek.{name} AS t WHERE {theirs} LIMIT 1"
            ).fetchall()
            insert = f"INSERT INTO pgseek.{name} OVERRIDING SYSTEM VALUE SELECT (jsonb_populate_record(NULL::pgseek.{name}, %s::jsonb)).*"
            assert outcome(session, insert, [row["row"]])[0] == "42501", name
            for statement in (
                f"DELETE FROM pgseek.{name} WHERE {theirs}",
                f"UPDATE pgseek.{name} SET {own} = {own} WHERE {theirs}",
            ):
                found = outcome(session, statement)
                assert found == 0 or found[0] == "42501", (name, statement)
            if "collection_id" in columns:
                moved = outcome(
                    session, f"UPDATE pgseek.{name} SET collection_id = {places.other['collection']}"
                )
                assert moved == 0 or moved[0] in ("42501", "428C9"), name


def test_a_collection_that_is_anothers_is_refused_like_one_that_is_nobodys(places):
    insert = (
        "INSERT INTO pgseek.documents (collection_id, document_id, external_id, body, language, content_hash)"
        " VALUES (%s, gen_random_uuid(), 'x', 'y', 'english', 'h')"
    )
    with places.session("writer") as session:
        theirs, nobodys = (outcome(session, insert, [i]) for i in (places.other["collection"], NOWHERE))
    assert theirs == nobodys
    assert theirs[1] == 'new row violates row-level security policy for table "documents"'


# Functions.

BY_NAME = {
    "search": "SELECT * FROM pgseek.search(%s, 'quokka')",
    "search_page": "SELECT * FROM pgseek.search_page(%s, 'quokka')",
    "similar": "SELECT * FROM pgseek.similar(%s, 'plan')",
    "recommend": "SELECT * FROM pgseek.recommend(%s, '{plan}')",
    "explain": "SELECT pgseek.explain(%s, 'quokka')",
    "facets": "SELECT pgseek.facets(%s, 'quokka', '{secret}')",
    "put_documents": """SELECT * FROM pgseek.put_documents(%s, '[{"id": "plan", "text": "new"}]')""",
    "put_document": "SELECT pgseek.put_document(%s, 'plan', 'new')",
    "put_embeddings": "SELECT pgseek.put_embeddings(%s, 'tests:hash', '{plan}', '{0}', ARRAY['[1,0,0,0,0,0,0,0]'::vector])",
    "delete_documents": "SELECT pgseek.delete_documents(%s, '{plan}')",
    "delete_document": "SELECT pgseek.delete_document(%s, 'plan')",
    "refresh_statistics": "SELECT * FROM pgseek.refresh_statistics(%s)",
    "reweigh": "SELECT pgseek.reweigh(%s)",
    "find_answer": "SELECT * FROM pgseek.find_answer(%s, 'where is the quokka')",
    "put_answer": "SELECT pgseek.put_answer(%s, 'where is the quokka', 'here')",
    "clear_answers": "SELECT pgseek.clear_answers(%s)",
    "require_collection": "SELECT (pgseek.require_collection(%s)).*",
    "follow_rows": """SELECT pgseek.follow_rows(%s, NULL, '{plan}')""",
}
BY_ID = {
    "add_language": "SELECT pgseek.add_language({collection}, 'french')",
    "bm25_candidates": "SELECT * FROM pgseek.bm25_candidates({collection}, ARRAY[pgseek.dimension('quokka')], '{{1}}', '{{1}}', 5)",
    "bm25_clauses": "SELECT * FROM pgseek.bm25_clauses({collection}, 1, 0.1, '{{3}}', '{{1}}', '{{5}}', 100,"
    " '{{0.53,0.58,0.66,0.75,0.85,1}}', '{{1,0.3,0.2,0.1,0.03,0.01}}')",
    "bm25_scan": "SELECT * FROM pgseek.bm25_scan({collection}, '{{1:1}}/1000000000', 5, ARRAY[pgseek.bm25_code({collection},"
    " pgseek.dimension('quokka'))], NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "bm25_shares": "SELECT pgseek.bm25_shares({collection})",
    "bm25_terms": "SELECT * FROM pgseek.bm25_terms({collection}, '{{quokka,zyzzogeton}}', '{{1,1}}')",
    "correct_word": "SELECT * FROM pgseek.correct_word({collection}, '{{english}}', 'zyzzogetom')",
    "delete_by_id": "SELECT pgseek.delete_by_id({collection}, ARRAY[pgseek.document_id('plan')])",
    "delete_embeddings": "SELECT pgseek.delete_embeddings({collection}, ARRAY[pgseek.document_id('plan')])",
    "describe_space": "SELECT replace(pgseek.describe_space({space}), '{space}', '')",
    "enqueue_documents": "SELECT pgseek.enqueue_documents({collection}, ARRAY[pgseek.document_id('plan')],"
    " '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')",
    "erase_documents": "SELECT pgseek.erase_documents({collection}, ARRAY[pgseek.document_id('plan')])",
    "expand_prefix": "SELECT * FROM pgseek.expand_prefix({collection}, '{{english}}', 'zyzz')",
    "filter_conditions": "SELECT pgseek.filter_conditions({collection}, '$.secret == \"yes\"')",
    "is_of_tenant": "SELECT pgseek.is_of_tenant({collection})",
    "live_spaces": "SELECT * FROM pgseek.live_spaces({collection})",
    "matching_documents": "SELECT pgseek.matching_documents({collection}, '$.secret == \"yes\"')",
    "mirror_documents": "SELECT pgseek.mirror_documents({collection}, ARRAY[pgseek.document_id('plan')])",
    "misplaced_chunks": "SELECT * FROM pgseek.misplaced_chunks({collection}, pgseek.document_id('plan'), 'x')",
    "nearest": "SELECT * FROM pgseek.nearest({space}, '[1,0,0,0,0,0,0,0]')",
    "similar_pairs": "SELECT * FROM pgseek.similar_pairs({space}, ARRAY[pgseek.document_id('plan')], 0.5)",
    "parse_query": "SELECT * FROM pgseek.parse_query({collection}, '{{english}}', '+quokka zyzz* zyzzogetom')",
    "vocabulary": "SELECT * FROM pgseek.vocabulary({collection}, 'z')",
    "check_model": "SELECT pgseek.check_model('docs', 1, {space}, NULL)",
}
# What a caller can put together who knows a collection's numbers.
_ROW = (
    'jsonb_populate_record(NULL::pgseek.collections, \'{{"collection_id": {collection}, "active_space_id": {space},'
    ' "name": "x", "tenant": "beta", "languages": ["english"], "settings": {{}}}}\')'
)
BY_ROW = {
    "read_query": f"SELECT (pgseek.read_query({_ROW}, '+quokka zyzz* zyzzogetom')).*",
    "rank": f"SELECT * FROM pgseek.rank({_ROW}, 'where is the quokka', NULL, pgseek.read_options({_ROW}, '{{{{}}}}'), 3)",
    "show": f"SELECT * FROM pgseek.show({_ROW}, ARRAY[ROW(pgseek.document_id('plan'), 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,"
    f" NULL)::pgseek.candidate], NULL, pgseek.read_query({_ROW}, 'quokka'), pgseek.read_options({_ROW}, '{{{{}}}}'), NULL)",
    "question_vector": "SELECT pgseek.question_vector(jsonb_populate_record(NULL::pgseek.embedding_spaces,"
    " jsonb_build_object('space_id', {space}, 'dimensions', 8, 'identity', 'x')), 'beta', 'where is the quokka', NULL)",
    "facet": "SELECT pgseek.facet({collection}, ARRAY[pgseek.document_id('price')], 'secret')",
}
# Of numbers that are salted or compared, and nothing else.
PURE = {"bm25_code", "bm25_codes"}


def test_every_function_that_is_given_somebodys_number_or_name_is_tried(places):
    found = rows(
        places.dsn,
        "SELECT proname AS name FROM pg_proc WHERE pronamespace = 'pgseek'::regnamespace AND proargnames &&"
        " '{collection,name,collection_id,space_id,given_space}' AND EXISTS (SELECT FROM unnest(proargnames)"
        " WITH ORDINALITY AS a (name, place) WHERE a.name = ANY ('{collection,name,collection_id,space_id,given_space}')"
        " AND a.place <= pronargs)",
    )
    assert {row["name"] for row in found} - PURE - set(BY_ROW) == set(BY_NAME) | set(BY_ID)
    tenants_own = {"tenant", "tenant_collections", "is_of_tenant"}
    assert set(BY_NAME) >= OWNERS_RIGHTS - tenants_own


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_name_that_is_anothers_is_one_that_nobody_has(places, name):
    with places.session("writer") as session:
        theirs, nobodys = (outcome(session, BY_NAME[name], [who]) for who in ("secrets", "nowhere"))
        assert theirs[:2] == ("PGS01", "there is no collection 'secrets'")
        assert theirs == tuple(part and part.replace("nowhere", "secrets") for part in nobodys)
        assert theirs[3] == "collections here: docs"
    # It is there for its own.
    with places.session("writer", "beta") as session:
        assert outcome(session, BY_NAME[name], ["secrets"])[0] != "PGS01"


@pytest.mark.parametrize("name", sorted({**BY_ID, **BY_ROW}))
def test_a_number_that_is_anothers_is_one_that_nobody_has(places, name):
    def ask(session, ids):
        found = outcome(session, {**BY_ID, **BY_ROW}[name].format(**ids))
        return json.loads(
            re.sub(rf"\b({ids['collection']}|{ids['space']})\b", "#", json.dumps(found, default=str))
        )

    nobody = {"collection": NOWHERE, "space": NOWHERE}
    with places.session("writer") as session:
        assert ask(session, places.other) == ask(session, nobody)


def test_functions_that_write_are_not_for_readers(places):
    writing = {"put_documents", "put_document", "put_embeddings", "delete_documents", "delete_document"}
    with places.session("reader") as session:
        for name in writing | {"refresh_statistics", "reweigh"}:
            assert outcome(session, BY_NAME[name], ["docs"])[:2] == (
                "42501",
                f"permission denied for function {name}",
            )
        for name in ("delete_by_id", "erase_documents", "add_language", "enqueue_documents"):
            assert outcome(session, BY_ID[name].format(**places.own))[0] == "42501", name


def test_nobody_else_calls_anything(places, server_dsn):
    granted = rows(
        places.dsn,
        "SELECT p.proname FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a"
        " WHERE p.pronamespace = 'pgseek'::regnamespace AND a.grantee = 0",
    )
    assert granted == []


@pytest.mark.parametrize(
    "argument", ["space => {}", "space_id => {}, query_embedding => '[1,0,0,0,0,0,0,0]'"]
)
def test_a_search_by_a_space_of_another_tells_nothing_of_it(places, argument):
    def ask(session, space):
        found = outcome(session, f"SELECT * FROM pgseek.search('docs', 'quokka', {argument.format(space)})")
        assert found[0] == "PGS05"
        return tuple(part and part.replace(str(space), "#") for part in found)

    with places.session() as session:
        assert ask(session, places.other["space"]) == ask(session, NOWHERE)


# What was embedded, written and asked by others.


def test_the_cache_does_not_tell_what_others_embedded(places):
    with places.session() as session:
        found = outcome(
            session, "SELECT DISTINCT degraded FROM pgseek.search('docs', 'where is the quokka now')"
        )
        asked = outcome(session, "SELECT DISTINCT degraded FROM pgseek.search('docs', 'cache')")
    assert asked == [["lexical only: no query_embedding was given and the cache has none for this text"]]
    embedder = CountingEmbedder()
    with places.client("writer") as client:
        docs = client.collection("docs", embedder=embedder)
        docs.ingest([{"id": "guess", "text": SECRETS[1]["text"], "title": SECRETS[1]["title"]}])
        assert len(embedder.documents) == 1
        docs.search("where is the zyzzogeton")
        assert embedder.queries == ["where is the zyzzogeton"]
        docs.delete("guess")
        assert client.clear_cache(input_type="document") > 0
    assert found == [] or found[0][0] is not None
    left = rows(places.dsn, "SELECT DISTINCT tenant FROM pgseek.embedding_cache")
    assert {"tenant": "beta"} in left


def test_a_text_that_another_is_embedding_is_not_waited_for(places):
    text = "a text of both"
    with places.client("reader", "beta") as client:
        identity = client.collection("secrets", embedder=CountingEmbedder())._info.identity_hash
    with places.session("writer", "beta") as session:
        session.execute(
            "INSERT INTO pgseek.embedding_claims (tenant, identity, text_hash, claimed_until)"
            " VALUES ('beta', %s, %s, now() + interval '1 hour')",
            [identity, hashlib.sha256(text.encode()).digest()],
        )
    embedder = CountingEmbedder()
    with places.client("writer") as client:
        docs = client.collection("docs", embedder=embedder)
        assert docs.ingest([{"id": "both", "text": text}]).embedded == 1
        docs.delete("both")


def test_words_of_others_are_not_suggested(places):
    with places.session() as session:
        for query in ("zyzzogetom", "zyzz*", "quoka", "+zyzzogeton", "zyzzogeton"):
            assert outcome(session, "SELECT * FROM pgseek.search('docs', %s)", [query]) == [], query
    with places.session("reader", "beta") as session:
        for query in ("zyzzogetom", "zyzz*", "+zyzzogeton"):
            assert outcome(session, "SELECT * FROM pgseek.search('secrets', %s)", [query]), query


def test_weights_do_not_tell_what_others_have(places):
    query = "SELECT external_id, score, lexical_score, matched, snippet FROM pgseek.search('docs', 'function cache')"
    with places.session() as session:
        before = outcome(session, query)
        with places.client("writer", "beta") as client:
            docs = client.collection("secrets", embedder=CountingEmbedder())
            docs.ingest([{"id": f"f{n}", "text": "function cache " * (n + 1)} for n in range(50)])
            docs.refresh_statistics(reweigh=True)
        after = outcome(session, query)
        with places.client("writer", "beta") as client:
            client.collection("secrets", embedder=CountingEmbedder()).delete([f"f{n}" for n in range(50)])
    assert before
    assert after == before


def test_statistics_of_the_planner_hide_values(places):
    with places.session() as session:
        for view in ("pg_stats", "pg_stats_ext", "pg_stats_ext_exprs"):
            found = outcome(session, f"SELECT tablename FROM {view} WHERE schemaname = 'pgseek'")
            assert [row for row in found if row[0] != "alembic_version"] == [], view
        assert outcome(session, "SELECT * FROM pg_statistic LIMIT 1")[0] == "42501"
    assert rows(places.dsn, "SELECT FROM pg_stats WHERE schemaname = 'pgseek' AND tablename = 'documents'")


TEXTS = ("text", "bytea", "text[]")


def test_the_planner_knows_no_texts_and_so_tells_none(places):
    """Estimates come from common values and bounds between values, which whoever asks often enough reads off."""
    number = places.other["collection"]
    owner = Client(places.dsn, tenant="beta")
    secrets = owner.collection("secrets", embedder=CountingEmbedder())
    secrets.index_metadata("secret", "text")
    with owner, places.session() as session:

        def estimate(condition):
            (row,) = session.execute(f"EXPLAIN (FORMAT json) SELECT FROM pgseek.{condition}").fetchall()
            return row["QUERY PLAN"][0]["Plan"]["Plan Rows"]

        for table, column, theirs, nobodys in (
            ("documents", "external_id", "more7", "zzz"),
            ("documents", "title", "Operation Zyzzogeton", "zzz"),
            ("chunks", "text", SECRETS[0]["text"], "zzz"),
            # The planner does not use what it knows of an index over some of the rows.
            ("documents", "pgseek.metadata_text(metadata, '{secret}')", "yes", "zzz"),
            (
                "documents",
                f"collection_id = {number} AND pgseek.metadata_text(metadata, '{{secret}}')",
                "yes",
                "zzz",
            ),
            ("term_statistics", "lexeme", "zyzzogeton", "zzz"),
            ("collections", "name", "secrets", "zzz"),
            ("collections", "tenant", "beta", "zzz"),
            ("embedding_spaces", "model", "hash", "zzz"),
        ):
            for operator in ("=", "<", ">"):
                asked = [f"{table} WHERE {column} {operator} '{value}'" for value in (theirs, nobodys)]
                assert estimate(asked[0]) == estimate(asked[1]), asked
        secrets.drop_metadata_index("secret")
    kept = rows(
        places.dsn,
        "SELECT DISTINCT s.attname FROM pg_stats s JOIN pg_class c ON c.relname = s.tablename AND c.relkind = 'r'"
        " AND c.relnamespace = 'pgseek'::regnamespace JOIN pg_attribute a ON a.attname = s.attname AND a.attrelid ="
        " format('pgseek.%%I', s.tablename)::regclass WHERE s.schemaname = 'pgseek' AND s.tablename <> 'alembic_version'"
        " AND format_type(a.atttypid, NULL) = ANY (%s)",
        [list(TEXTS)],
    )
    assert {row["attname"] for row in kept} <= {
        *("kind", "language", "languages", "format", "input_type", "metric", "storage", "state")
    }


def explained(session, statement, parameters=None):
    (row,) = session.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json) {statement}", parameters
    ).fetchall()
    return row["QUERY PLAN"][0]["Plan"]


def nodes(plan):
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


@pytest.mark.parametrize("table", ["documents", "chunks", "ingest_queue", "term_statistics", "rare_lexemes"])
def test_no_page_is_read_for_anothers_rows(places, table):
    """Timing would tell how many there are; so none may be read that would not be for nobody's."""

    def read(session, collection):
        session.execute("SET LOCAL enable_seqscan = off")
        plan = explained(session, f"SELECT count(*) FROM pgseek.{table} WHERE collection_id = {collection}")
        scanned = sum(
            n["Actual Rows"] + n.get("Rows Removed by Filter", 0) for n in nodes(plan) if "Relation Name" in n
        )
        return scanned, plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]

    with places.session() as session, session.transaction():
        for _ in range(2):
            theirs, nobodys = (read(session, i) for i in (places.other["collection"], NOWHERE))
        assert theirs == nobodys
        assert nobodys[0] == 0
        assert read(session, places.own["collection"])[0] > 0


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"require_collection", "follow_rows"}))
def test_the_error_comes_before_anything_is_counted(places, name):
    counted = (
        "SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS n FROM pg_stat_xact_user_tables"
        " WHERE schemaname = 'pgseek' AND relname NOT IN ('collections', 'tenant_roles') ORDER BY 1"
    )
    with places.session("writer") as session, session.transaction():
        before = session.execute(counted).fetchall()
        outcome(session, BY_NAME[name], ["secrets"])
        assert session.execute(counted).fetchall() == before


def test_notifications_name_nobodys_collection(places):
    with places.session() as listener:
        listener.execute("LISTEN pgseek_queue")
        with places.session("writer", "beta") as session:
            session.execute("SELECT pgseek.put_document('secrets', 'told', 'to whom it may concern')")
            session.execute("SELECT pgseek.delete_document('secrets', 'told')")
        with places.client("writer", "beta") as client:
            client.collection("secrets", embedder=CountingEmbedder()).retry_queue()
        heard = list(listener.notifies(timeout=10, stop_after=1))
        heard += listener.notifies(timeout=0.2)
    assert {note.payload for note in heard} == {""}


# Who is given the owner's rights must do nothing else with them.

HOSTILE = [
    "'); DROP TABLE pgseek.documents; --",
    "$$; SELECT pg_sleep(1); $$",
    "quokka' OR '1'='1",
    "\\'; --",
    "%1$s %L {0} :name",
    "$function$ || current_user",
    '"secrets" OR collection_id > 0 -zebra +"',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_texts(places, text):
    before = {
        t: rows(places.dsn, f"SELECT count(*) AS n FROM pgseek.{t}")
        for t in sorted(HOLDS_ROWS - {"embedding_cache"})
    }
    own = {document["id"] for document in CORPUS} | {"queued"}
    as_path = '$.a starts with "' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    with places.session("writer") as session:
        for statement, parameters in (
            ("SELECT external_id FROM pgseek.search('docs', %s)", [text]),
            ("SELECT external_id FROM pgseek.search('docs', 'function', filter => %s::jsonpath)", [as_path]),
            (
                "SELECT external_id FROM pgseek.search('docs', 'function', filter => %s::jsonpath)",
                [as_path.replace("starts with", "==") + ' || $.year > 3 || $."' + as_path[17:] + " == 1"],
            ),
            (
                "SELECT external_id FROM pgseek.search('docs', 'function', highlight => ARRAY[%s, %s])",
                [text, text],
            ),
            (
                "SELECT external_id FROM pgseek.search('docs', %s, syntax => 'plain', lexical => 'ts_rank')",
                [text],
            ),
        ):
            found = outcome(session, statement, parameters)
            assert isinstance(found, list), found
            assert {row[0] for row in found} <= own
        for argument in ("fusion", "lexical", "normalization", "syntax", "model"):
            found = outcome(
                session, f"SELECT * FROM pgseek.search('docs', 'function', {argument} => %s)", [text]
            )
            assert found[0] in ("PGS02", "PGS05"), found
        assert outcome(session, "SELECT * FROM pgseek.search(%s, 'function')", [text])[0] == "PGS01"
        put = json.dumps([{"id": text, "text": text, "title": text, "language": text, "format": text}])
        assert outcome(session, "SELECT outcome FROM pgseek.put_documents('docs', %s)", [put]) == [
            ["rejected"]
        ]
        put = json.dumps([{"id": text, "text": text + " word", "title": text, "metadata": {text: text}}])
        assert outcome(session, "SELECT outcome FROM pgseek.put_documents('docs', %s)", [put]) == [["new"]]
    assert {t: rows(places.dsn, f"SELECT count(*) AS n FROM pgseek.{t}") for t in before} == before


def test_a_filter_sees_its_own_tenants_documents_only(places):
    with places.session() as session:
        for path in (
            '$.secret == "yes"',
            "exists ($.secret)",
            '$.** like_regex "yes"',
            "!(exists ($.nothing))",
        ):
            found = outcome(
                session,
                "SELECT external_id FROM pgseek.search('docs', 'quokka function', filter => %s)",
                [path],
            )
            assert {row[0] for row in found} <= {document["id"] for document in CORPUS} | {"queued"}


def test_nothing_of_the_callers_own_is_run_with_the_owners_rights(places):
    """A cursor's query runs when it is read from, so whoever reads from it must be its maker."""
    with places.session("writer") as session, session.transaction(force_rollback=True):
        session.execute(
            "CREATE FUNCTION pg_temp.spy() RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN"
            " RETURN jsonb_build_object('id', 'spy', 'text', 'run as ' || current_user); END $$"
        )
        # Nor does anything of the session's stand in for what the functions mean.
        for table in ("collections", "documents", "chunks", "unnest"):
            session.execute(f"CREATE TEMPORARY TABLE {table} (x int)")
        session.execute(
            "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT 1/0, ''::bytea $$".replace(
                "1/0, ", ""
            )
        )
        session.execute("SET LOCAL search_path = pg_temp, pg_catalog")
        session.execute("DECLARE spied CURSOR FOR SELECT pg_temp.spy()")
        session.execute("SELECT pgseek.follow_rows('docs', 'spied', NULL)")
        (row,) = session.execute("SELECT body FROM pgseek.documents WHERE external_id = 'spy'").fetchall()
        assert row["body"] == f"run as {places.logins['acme_writer']}"
        assert session.execute("SELECT * FROM pgseek.search('docs', 'run as spy')").fetchall()


def test_a_role_without_a_tenant_of_its_own_chooses_by_the_setting(places):
    """That is what an application does that serves all; whoever may send SQL of his own needs a bound role."""
    for tenant, name in (("acme", "docs"), ("beta", "secrets")):
        with places.session("reader", tenant, bound=False) as session:
            assert outcome(session, "SELECT name FROM pgseek.collections") == [[name]]
            assert outcome(session, "SELECT pgseek.tenant()") == [[tenant]]


def test_a_cursor_that_was_made_up_shows_nothing_of_others(places):
    """A cursor holds a ranking, and is the caller's to write."""
    calibrated = "UPDATE pgseek.embedding_spaces SET searching = %s WHERE space_id = %s"
    rows(
        places.dsn,
        calibrated,
        ['{"calibration": {"bias": 1, "dense": 2, "lexical": 3}}', places.other["space"]],
    )
    options = json.dumps({"k": 100, "space": places.other["space"]})
    craft = (
        "WITH complete AS (SELECT pgseek.read_options(c, %(options)s) AS o, c FROM pgseek.collections c)"
        " SELECT translate(encode(convert_to(jsonb_build_object('total', 2, 'asked', md5(jsonb_build_array("
        "(c).collection_id, 'cache', o - '{snippets,highlight,neighbours,budget}'::text[])::text), 'hits', jsonb_build_array("
        "jsonb_build_array(pgseek.document_id('plan'), 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, null),"
        "jsonb_build_array(pgseek.document_id('lru_cache'), 0, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, null)))::text, 'UTF8'),"
        " 'base64'), E'\\n', '') AS cursor FROM complete"
    )
    with places.session() as session:
        (row,) = session.execute(craft, {"options": options}).fetchall()
        found = outcome(
            session,
            "SELECT external_id, relevance FROM pgseek.search_page('docs', 'cache', 10, %s, options => %s)",
            [row["cursor"], options],
        )
    rows(places.dsn, calibrated, ["{}", places.other["space"]])
    assert found == [["lru_cache", None]]
