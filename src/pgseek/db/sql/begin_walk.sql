-- Purpose:    the settings with which an index of vectors is walked, for the rest of the transaction; end_walk() puts
--             back those that were there.
-- Arguments:  ef_search   rows that HNSW keeps in mind, 1..1000: more find more of the nearest
--             tuples      rows it visits at most, where conditions turn many away
--             probes      lists that IVFFlat reads at first
-- Returns:    the settings as they were.
-- Volatility: volatile. Literal SET LOCAL: what set_config() sets does not reach other nodes.
CREATE OR REPLACE FUNCTION pgseek.begin_walk(ef_search integer, tuples bigint, probes integer)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    before CONSTANT jsonb := jsonb_build_object(
        'hnsw.ef_search', coalesce(current_setting('hnsw.ef_search', true), '40'),
        'hnsw.iterative_scan', coalesce(current_setting('hnsw.iterative_scan', true), 'off'),
        'hnsw.max_scan_tuples', coalesce(current_setting('hnsw.max_scan_tuples', true), '20000'),
        'ivfflat.probes', coalesce(current_setting('ivfflat.probes', true), '1'),
        'ivfflat.iterative_scan', coalesce(current_setting('ivfflat.iterative_scan', true), 'off'));
BEGIN
    EXECUTE 'SET LOCAL hnsw.iterative_scan = relaxed_order';
    EXECUTE format('SET LOCAL hnsw.ef_search = %s', least(1000, greatest(1, ef_search)));
    EXECUTE format('SET LOCAL hnsw.max_scan_tuples = %s', least(10000000, greatest(tuples, 40000)));
    EXECUTE 'SET LOCAL ivfflat.iterative_scan = relaxed_order';
    EXECUTE format('SET LOCAL ivfflat.probes = %s', least(32768, greatest(1, probes)));
    RETURN before;
END
$function$;
