-- Purpose:    put back the settings that begin_walk() returned.
-- Arguments:  before  name: value
-- Volatility: volatile.
CREATE OR REPLACE FUNCTION pgseek.end_walk(before jsonb)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    EXECUTE format('SET LOCAL hnsw.ef_search = %L', before ->> 'hnsw.ef_search');
    EXECUTE format('SET LOCAL hnsw.iterative_scan = %L', before ->> 'hnsw.iterative_scan');
    EXECUTE format('SET LOCAL hnsw.max_scan_tuples = %L', before ->> 'hnsw.max_scan_tuples');
    EXECUTE format('SET LOCAL ivfflat.probes = %L', before ->> 'ivfflat.probes');
    EXECUTE format('SET LOCAL ivfflat.iterative_scan = %L', before ->> 'ivfflat.iterative_scan');
    EXECUTE format('SET LOCAL enable_seqscan = %L', before ->> 'enable_seqscan');
END
$function$;
