-- Purpose:    the settings with which a space's index is walked, for the rest of the transaction; end_walk() puts back
--             those that were there.
-- Arguments:  space       a row of embedding_spaces
--             wanted      rows that are taken from the index
--             ef_search   rows that HNSW keeps in mind, 1..1000: more find more of the nearest. Default: the space's
--                         setting, else as many as are wanted, at least 100, or 250 where vectors have 256 numbers or fewer
--             probes      lists that IVFFlat reads at first. Default: the space's setting, else four times the root of
--                         the number of lists, at least 10
--             tuples      rows that HNSW visits at most, where conditions turn many away
-- Returns:    the settings as they were.
-- Volatility: volatile. Literal SET LOCAL: what set_config() sets does not reach other nodes.
CREATE OR REPLACE FUNCTION pgseek.begin_walk(
    space pgseek.embedding_spaces, wanted bigint, ef_search integer DEFAULT NULL, probes integer DEFAULT NULL,
    tuples bigint DEFAULT 0)
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
        'ivfflat.iterative_scan', coalesce(current_setting('ivfflat.iterative_scan', true), 'off'),
        'enable_seqscan', current_setting('enable_seqscan'));
    index CONSTANT regclass := to_regclass(format('pgseek.embeddings_%s_%s', space.space_id, space.indexing ->> 'method'));
BEGIN
    ef_search := coalesce(ef_search, (space.searching ->> 'ef_search')::integer,
        greatest(wanted, CASE WHEN space.dimensions <= 256 THEN 250 ELSE 100 END)::integer);
    probes := coalesce(probes, (space.searching ->> 'probes')::integer,
        (SELECT ceil(4 * sqrt(o.option_value::float8))::integer FROM pg_class c, pg_options_to_table(c.reloptions) o
          WHERE c.oid = index AND o.option_name = 'lists'), 10);
    EXECUTE 'SET LOCAL hnsw.iterative_scan = relaxed_order';
    EXECUTE format('SET LOCAL hnsw.ef_search = %s', least(1000, greatest(1, ef_search)));
    EXECUTE format('SET LOCAL hnsw.max_scan_tuples = %s', least(10000000, greatest(tuples, 4 * wanted, 40000)));
    EXECUTE 'SET LOCAL ivfflat.iterative_scan = relaxed_order';
    EXECUTE format('SET LOCAL ivfflat.probes = %s', least(32768, greatest(1, probes)));
    -- The planner takes a table for small whose vectors lie out of line (from about 2,000 bytes on), and would read
    -- all of them rather than walk the index.
    IF (space.dimensions * CASE space.storage WHEN 'halfvec' THEN 2 ELSE 4 END > 1976)
        AND EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = index AND i.indisvalid) THEN
        EXECUTE 'SET LOCAL enable_seqscan = off';
    END IF;
    RETURN before;
END
$function$;
