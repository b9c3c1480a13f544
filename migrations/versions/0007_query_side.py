"""The query side: filters with indexes, pages, facets, result shaping, feedback, tenants.

Landed: never edit this file or the frozen SQL under ``sql/0007``. No column costs a rewrite of its table.
"""

from __future__ import annotations

from pathlib import Path

from alembic import context, op
from sqlalchemy import text

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
# Of revision 0006, with another signature now.
DROPPED = ("search", "bm25_candidates")
# In the order they can be made in.
FUNCTIONS = (
    "tenant",
    "tenant_collections",
    "is_of_tenant",
    "require_collection",
    "describe_space",
    "check_model",
    "refresh_statistics",
    "reweigh",
    "enqueue_documents",
    "mirror_documents",
    "put_documents",
    "put_document",
    "delete_documents",
    "delete_document",
    "put_embeddings",
    "protect",
    "metadata_number",
    "metadata_text",
    "filter_conditions",
    "matching_documents",
    "bm25_candidates",
    "query_kind",
    "seconds",
    "boost",
    "read_options",
    "read_query",
    "restricted",
    "fuse",
    "shape",
    "expand_by_feedback",
    "rank",
    "show",
    "search",
    "search_page",
    "similar",
    "explain",
    "facet",
    "facets",
    "mean_embedding",
)
# What of them earlier revisions had, by the revision that froze it last.
BEFORE = {
    "0005": (
        "bm25_candidates",
        "refresh_statistics",
        "reweigh",
        "put_document",
        "delete_documents",
        "delete_document",
    ),
    "0006": (
        "require_collection",
        "describe_space",
        "check_model",
        "search",
        "enqueue_documents",
        "mirror_documents",
        "put_documents",
        "put_embeddings",
    ),
}

TABLES = """
ALTER TABLE pgseek.collections ADD COLUMN metadata_indexes jsonb NOT NULL DEFAULT '[]';
CREATE TYPE pgseek.query_terms AS (
    lexemes text[], known text[], dimensions integer[], weights double precision[], counts double precision[],
    origins text[], restriction tsquery, required text[]);
CREATE TYPE pgseek.candidate AS (
    document_id uuid, ordinal integer, place bigint, score double precision,
    dense_score double precision, dense_distance double precision, dense_rank bigint,
    dense_part double precision,
    lexical_score double precision, lexical_rank bigint, lexical_part double precision,
    boost double precision, duplicates uuid[]);
ALTER TABLE pgseek.collections ADD COLUMN tenant text NOT NULL DEFAULT '';
DROP INDEX pgseek.collections_name_key;
-- Partial for the reason that revision 0006 gives.
CREATE UNIQUE INDEX collections_name_key ON pgseek.collections (tenant, name) WHERE name IS NOT NULL;
-- Who finds a vector or a text here learns that somebody had it made.
ALTER TABLE pgseek.embedding_cache
    ADD COLUMN tenant text NOT NULL DEFAULT '',
    DROP CONSTRAINT embedding_cache_pkey,
    ADD CONSTRAINT embedding_cache_pkey PRIMARY KEY (tenant, identity, input_type, text_hash);
ALTER TABLE pgseek.embedding_claims
    ADD COLUMN tenant text NOT NULL DEFAULT '',
    DROP CONSTRAINT embedding_claims_pkey,
    ADD CONSTRAINT embedding_claims_pkey PRIMARY KEY (tenant, identity, text_hash);
ALTER TABLE pgseek.generated_texts
    ADD COLUMN tenant text NOT NULL DEFAULT '',
    DROP CONSTRAINT generated_texts_pkey,
    ADD CONSTRAINT generated_texts_pkey PRIMARY KEY (tenant, identity, text_hash);
ALTER TABLE pgseek.rate_limits
    ADD COLUMN tenant text NOT NULL DEFAULT '',
    DROP CONSTRAINT rate_limits_pkey,
    ADD CONSTRAINT rate_limits_pkey PRIMARY KEY (tenant, name);
CREATE TABLE pgseek.tenant_roles (
    role text NOT NULL,
    tenant text NOT NULL,
    CONSTRAINT tenant_roles_pkey PRIMARY KEY (role)
);
"""

# Before the functions go, which these indexes call.
UNINDEX = """
DO $do$
DECLARE
    made record;
BEGIN
    FOR made IN
        SELECT x.relname AS name FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
         WHERE i.indrelid = 'pgseek.documents'::regclass AND x.relname ~ '^documents_metadata_[0-9]+_'
    LOOP
        EXECUTE format('DROP INDEX pgseek.%I', made.name);
    END LOOP;
END
$do$;
"""

# Earlier revisions keep nobody's documents from anybody, so those of named tenants go.
BACK = """
ALTER TABLE pgseek.collections DROP COLUMN metadata_indexes;
DROP TYPE pgseek.candidate;
DROP TYPE pgseek.query_terms;
DO $do$
DECLARE
    gone record;
BEGIN
    FOR gone IN
        SELECT s.space_id FROM pgseek.collections c JOIN pgseek.embedding_spaces s USING (collection_id)
         WHERE c.tenant <> ''
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS pgseek.%I', 'embeddings_' || gone.space_id);
    END LOOP;
    DELETE FROM pgseek.ingest_queue q USING pgseek.collections c
     WHERE c.collection_id = q.collection_id AND c.tenant <> '';
    DELETE FROM pgseek.term_statistics t USING pgseek.collections c
     WHERE c.collection_id = t.collection_id AND c.tenant <> '';
    DELETE FROM pgseek.rare_lexemes r USING pgseek.collections c
     WHERE c.collection_id = r.collection_id AND c.tenant <> '';
    DELETE FROM pgseek.collections c WHERE c.tenant <> '';
END
$do$;
DROP INDEX pgseek.collections_name_key;
ALTER TABLE pgseek.collections DROP COLUMN tenant;
CREATE UNIQUE INDEX collections_name_key ON pgseek.collections (name) WHERE name IS NOT NULL;
DELETE FROM pgseek.embedding_cache WHERE tenant <> '';
DELETE FROM pgseek.embedding_claims WHERE tenant <> '';
DELETE FROM pgseek.generated_texts WHERE tenant <> '';
DELETE FROM pgseek.rate_limits WHERE tenant <> '';
ALTER TABLE pgseek.embedding_cache DROP COLUMN tenant,
    ADD CONSTRAINT embedding_cache_pkey PRIMARY KEY (identity, input_type, text_hash);
ALTER TABLE pgseek.embedding_claims DROP COLUMN tenant,
    ADD CONSTRAINT embedding_claims_pkey PRIMARY KEY (identity, text_hash);
ALTER TABLE pgseek.generated_texts DROP COLUMN tenant,
    ADD CONSTRAINT generated_texts_pkey PRIMARY KEY (identity, text_hash);
ALTER TABLE pgseek.rate_limits DROP COLUMN tenant,
    ADD CONSTRAINT rate_limits_pkey PRIMARY KEY (name);
DROP TABLE pgseek.tenant_roles;
"""

# Roles belong to the cluster: another database may have made them, or is making them. Who could search or
# write by rights on tables can do so still, now that functions are no longer everybody's to call.
PROTECT = """
DO $do$
DECLARE
    one record;
BEGIN
    IF (SELECT r.rolsuper OR r.rolcreaterole FROM pg_roles r WHERE r.rolname = current_user) THEN
        FOR one IN
            SELECT * FROM (VALUES
                ('pgseek_reader', 'CREATE ROLE pgseek_reader NOLOGIN'),
                ('pgseek_writer', 'CREATE ROLE pgseek_writer NOLOGIN'),
                (NULL, 'GRANT pgseek_reader TO pgseek_writer')) AS s (role, statement)
        LOOP
            CONTINUE WHEN to_regrole(one.role) IS NOT NULL;
            BEGIN
                EXECUTE one.statement;
            EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN
                NULL;
            END;
        END LOOP;
    ELSE
        RAISE NOTICE 'pgseek: % may not make the roles pgseek_reader and pgseek_writer; see: pgseek db roles',
            current_user;
    END IF;
    FOR one IN
        SELECT p.oid::regprocedure AS name, g.grantee
          FROM pg_proc p
          LEFT JOIN (VALUES
                   ('put_documents', '{INSERT documents,INSERT chunks,INSERT ingest_queue}'::text[]),
                   ('put_document', '{INSERT documents,INSERT chunks,INSERT ingest_queue}'),
                   ('delete_documents', '{DELETE documents,DELETE ingest_queue}'),
                   ('delete_document', '{DELETE documents,DELETE ingest_queue}'),
                   ('put_embeddings', '{UPDATE documents,DELETE ingest_queue}'),
                   ('refresh_statistics', '{INSERT term_statistics,UPDATE collection_statistics}'),
                   ('reweigh', '{UPDATE chunks,INSERT term_statistics,UPDATE collection_statistics}'),
                   ('search', '{SELECT collections,SELECT documents,SELECT chunks}'),
                   ('search_page', '{SELECT collections,SELECT documents,SELECT chunks}'),
                   ('similar', '{SELECT collections,SELECT documents,SELECT chunks}'),
                   ('explain', '{SELECT collections,SELECT documents,SELECT chunks}'),
                   ('facets', '{SELECT collections,SELECT documents,SELECT chunks}'),
                   ('tenant', '{}'), ('tenant_collections', '{}'), ('is_of_tenant', '{}')
               ) AS needs (name, rights)
            ON needs.name = p.proname,
               LATERAL (
                   SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC'
                               ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee,
                          array_agg(format('%s %s', a.privilege_type, c.relname)) AS rights
                     FROM pg_class c, aclexplode(c.relacl) AS a
                    WHERE c.relnamespace = 'pgseek'::regnamespace AND a.grantee <> c.relowner
                    GROUP BY a.grantee) AS g
         WHERE p.pronamespace = 'pgseek'::regnamespace
           AND (NOT p.prosecdef AND needs.name IS NULL OR g.rights @> needs.rights)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', one.name, one.grantee);
    END LOOP;
END
$do$;
-- What the planner knew of texts, names and hashes goes: protect() lets it learn no more. A column that is
-- given the type it has is not rewritten.
DO $do$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type, o.collname
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
          LEFT JOIN pg_collation o ON o.oid = a.attcollation AND o.collname <> 'default'
         WHERE c.relnamespace = 'pgseek'::regnamespace AND c.relkind = 'r' AND c.relname <> 'alembic_version'
           AND a.attnum > 0 AND a.atttypid IN ('text'::regtype, 'bytea'::regtype, 'text[]'::regtype)
           AND EXISTS (SELECT FROM pg_stats s WHERE s.schemaname = 'pgseek' AND s.tablename = c.relname
                          AND s.attname = a.attname)
         ORDER BY 1, 2
    LOOP
        EXECUTE format('ALTER TABLE pgseek.%I ALTER COLUMN %I TYPE %s %s', one.relname, one.attname, one.type,
            'COLLATE ' || quote_ident(one.collname));
    END LOOP;
END
$do$;
SELECT pgseek.protect();
"""

# A role stays where it has members, or rights in this or another database.
UNPROTECT = """
DO $do$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT c.relname FROM pg_class c
         WHERE c.relnamespace = 'pgseek'::regnamespace AND c.relrowsecurity ORDER BY 1
    LOOP
        EXECUTE format('DROP POLICY IF EXISTS tenant ON pgseek.%I', one.relname);
        EXECUTE format('ALTER TABLE pgseek.%I DISABLE ROW LEVEL SECURITY', one.relname);
    END LOOP;
    FOR one IN
        SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
         WHERE c.relnamespace = 'pgseek'::regnamespace AND c.relkind = 'r'
           AND a.attnum > 0 AND a.attstattarget = 0
    LOOP
        EXECUTE format('ALTER TABLE pgseek.%I ALTER COLUMN %I SET STATISTICS -1', one.relname, one.attname);
    END LOOP;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgseek TO PUBLIC;
    FOR one IN SELECT r.oid, r.rolname FROM pg_roles r
                WHERE r.rolname IN ('pgseek_reader', 'pgseek_writer') ORDER BY 2 DESC
    LOOP
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA pgseek FROM %I', one.rolname);
        EXECUTE format('REVOKE ALL (languages) ON pgseek.collections FROM %I', one.rolname);
        EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgseek FROM %I', one.rolname);
        EXECUTE format('REVOKE ALL ON SCHEMA pgseek FROM %I', one.rolname);
        IF NOT EXISTS (
            SELECT FROM pg_auth_members m WHERE m.roleid = one.oid
               AND pg_get_userbyid(m.member) NOT IN (current_user, 'pgseek_writer')) THEN
            BEGIN
                EXECUTE format('DROP ROLE %I', one.rolname);
            EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege OR undefined_object THEN
                RAISE NOTICE 'pgseek: role % stays: %', one.rolname, SQLERRM;
            END;
        END IF;
    END LOOP;
END
$do$;
"""


def vector_schema():
    if context.is_offline_mode():
        return "public"
    return op.get_bind().scalar(
        text(
            "SELECT quote_ident(n.nspname) FROM pg_extension e "
            "JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
        )
    )


def run(script):
    # The driver's own cursor takes a script as it is: no sign in it is a placeholder.
    script = script.replace("@vector@", vector_schema())
    if context.is_offline_mode():
        op.execute(text(script.replace(":", "\\:")))
    else:
        op.get_bind().connection.cursor().execute(script)


def run_files(of_revision, names):
    for name in names:
        run((SQL / of_revision / f"{name}.sql").read_text(encoding="utf-8"))


def upgrade():
    for name in DROPPED:
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run(TABLES)
    run_files("0007", FUNCTIONS)
    run(PROTECT)


def downgrade():
    run(UNPROTECT)
    run(UNINDEX)
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION pgseek.{name}")
    run(BACK)
    for of_revision, names in BEFORE.items():
        run_files(of_revision, names)
