-- Purpose:    row-level security and rights, for all tables and functions of the schema or for one new table. It may
--             be called any number of times: what is there stays. An administrator calls it after making the roles.
-- Arguments:  one  the only table to see to; functions are left then. Default: everything
-- Policies:   a table with a column tenant shows the rows of pgseek.tenant(); one with collection_id those of its
--             collections; a table of vectors all or nothing. A table with neither shows nothing: whoever adds one says
--             here what is to be seen of it. The owner of the tables, who migrates, is exempt.
-- Statistics: none of columns that hold texts, names or hashes. The planner's estimates tell everybody who may EXPLAIN
--             which values such a column has, whosever the rows are.
-- Rights:     pgseek_reader reads all tables and calls the functions that search; pgseek_writer also writes documents and
--             what belongs to them. PUBLIC calls nothing. A function with the rights of its owner that is not named here
--             is granted to nobody.
-- Volatility: volatile. The caller owns the tables and functions.
CREATE OR REPLACE FUNCTION pgseek.protect(one regclass DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    -- With the rights of their owner: each looks at the tenant itself.
    reading CONSTANT text[] := '{search,search_page,similar,recommend,explain,facets,find_answer,tenant,tenant_collections,is_of_tenant}';
    writing CONSTANT text[] := '{put_documents,put_document,put_embeddings,delete_documents,delete_document,'
        'refresh_statistics,reweigh,put_answer,clear_answers}';
    reader CONSTANT boolean := EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'pgseek_reader');
    writer CONSTANT boolean := EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'pgseek_writer');
    -- Columns of one of a few words each.
    kinds CONSTANT text[] := '{kind,language,languages,format,input_type,metric,storage,state}';
    tables jsonb;
    attribute name;
    found record;
    rule text;
    stored text;
BEGIN
    -- All at once: a query that is still open would keep its tables from being altered.
    SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]') INTO tables FROM (
        SELECT c.oid, c.relname::text, c.relrowsecurity, s.collection_id AS of_collection,
               array_agg(a.attname::text) AS columns
          FROM pg_class c
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pgseek.embedding_spaces s ON c.relname = 'embeddings_' || s.space_id
         WHERE c.relnamespace = 'pgseek'::regnamespace AND c.relkind IN ('r', 'p') AND (one IS NULL OR c.oid = one)
           AND c.relname <> 'alembic_version'
         GROUP BY c.oid, s.collection_id ORDER BY c.relname) AS t;
    FOR found IN SELECT t.* FROM jsonb_to_recordset(tables)
        AS t (oid oid, relname text, relrowsecurity boolean, of_collection integer, columns text[])
    LOOP
        -- What stands in a SELECT of its own is asked once for a statement, and an index can be searched for it.
        rule := CASE
            WHEN found.relname = 'tenant_roles' THEN NULL
            WHEN found.relname = 'space_probes' THEN
                'space_id IN (SELECT s.space_id FROM pgseek.embedding_spaces s'
                ' WHERE s.collection_id = ANY ((SELECT pgseek.tenant_collections())::integer[]))'
            WHEN found.of_collection IS NOT NULL THEN format('(SELECT pgseek.is_of_tenant(%s))', found.of_collection)
            WHEN 'tenant' = ANY (found.columns) THEN 'tenant = (SELECT pgseek.tenant())'
            WHEN 'collection_id' = ANY (found.columns) THEN
                'collection_id = ANY ((SELECT pgseek.tenant_collections())::integer[])' END;
        stored := CASE WHEN found.of_collection IS NOT NULL THEN format('collection_id = %s AND ', found.of_collection) ELSE '' END || rule;
        IF NOT found.relrowsecurity THEN
            EXECUTE format('ALTER TABLE pgseek.%I ENABLE ROW LEVEL SECURITY', found.relname);
        END IF;
        IF rule IS NOT NULL AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = found.oid AND p.polname = 'tenant') THEN
            EXECUTE format('CREATE POLICY tenant ON pgseek.%I USING (%s) WITH CHECK (%s)', found.relname, rule, stored);
        END IF;
        FOR attribute IN
            SELECT a.attname FROM pg_attribute a
             WHERE a.attrelid = found.oid AND a.attnum > 0 AND NOT a.attisdropped AND coalesce(a.attstattarget, -1) <> 0
               AND a.atttypid IN ('text'::regtype, 'bytea'::regtype, 'text[]'::regtype) AND NOT a.attname = ANY (kinds)
        LOOP
            EXECUTE format('ALTER TABLE pgseek.%I ALTER COLUMN %I SET STATISTICS 0', found.relname, attribute);
        END LOOP;
        CONTINUE WHEN rule IS NULL;
        IF reader THEN
            EXECUTE format('GRANT SELECT ON pgseek.%I TO pgseek_reader', found.relname);
        END IF;
        IF writer AND (found.of_collection IS NOT NULL OR found.relname = ANY (
            '{documents,chunks,ingest_queue,embedding_cache,embedding_claims,generated_texts,rate_limits,'
            'golden_sets,golden_queries,golden_judgements}')) THEN
            EXECUTE format('GRANT INSERT, UPDATE, DELETE ON pgseek.%I TO pgseek_writer', found.relname);
        END IF;
    END LOOP;
    IF one IS NOT NULL THEN
        RETURN;
    END IF;
    IF writer THEN
        GRANT UPDATE (languages) ON pgseek.collections TO pgseek_writer;
        GRANT UPDATE ON pgseek.collection_statistics TO pgseek_writer;
    END IF;
    IF reader THEN
        GRANT USAGE ON SCHEMA pgseek TO pgseek_reader;
        GRANT SELECT ON pgseek.alembic_version TO pgseek_reader;
    END IF;
    FOR found IN
        SELECT p.oid::regprocedure AS name, p.proname, p.prosecdef FROM pg_proc p
         WHERE p.pronamespace = 'pgseek'::regnamespace ORDER BY p.oid
    LOOP
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', found.name);
        -- The rest run with the rights of whoever calls them.
        IF reader AND (NOT found.prosecdef OR found.proname = ANY (reading)) THEN
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO pgseek_reader', found.name);
        END IF;
        IF writer AND found.proname = ANY (writing) THEN
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO pgseek_writer', found.name);
        END IF;
    END LOOP;
END
$function$;
