-- Purpose:    set a collection's BM25 constants and measure its average length and edges anew; rewrites
--             its chunks. Searches go on with the old weights until it commits; writers of the
--             collection wait. For an empty collection it only sets the constants.
-- Arguments:  collection  name
--             k1, b, title_weight  NULL keeps what is set
-- Returns:    chunks rewritten
-- Volatility: volatile. Index: chunks_pkey.
CREATE OR REPLACE FUNCTION pgseek.reweigh(
    collection text, k1 real DEFAULT NULL, b real DEFAULT NULL, title_weight real DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    sample_size CONSTANT integer := 20000;
    of_collection pgseek.collections := pgseek.require_collection(collection);
    old real[];
    new real[];
    changed bigint;
BEGIN
    -- FOR UPDATE waits for writers, which hold FOR KEY SHARE while they use the old weighting.
    SELECT s.weighting INTO STRICT old FROM pgseek.collection_statistics s
     WHERE s.collection_id = of_collection.collection_id FOR UPDATE;
    -- Document ids are hashes, so the first ones are a random sample.
    SELECT pgseek.propose_weighting(of_collection.language, array_agg(sample.title), array_agg(sample.text),
               coalesce(k1, old[1]), coalesce(b, old[2]), coalesce(title_weight, old[4]))
      INTO new
      FROM (SELECT c.title, c.text FROM pgseek.chunks c WHERE c.collection_id = of_collection.collection_id
             ORDER BY c.document_id, c.ordinal LIMIT sample_size) AS sample;
    new := coalesce(new, ARRAY[coalesce(k1, old[1]), coalesce(b, old[2]), old[3], coalesce(title_weight, old[4])] || old[5:]);
    UPDATE pgseek.collection_statistics s SET weighting = new WHERE s.collection_id = of_collection.collection_id;
    UPDATE pgseek.chunks c SET weighting = new
     WHERE c.collection_id = of_collection.collection_id AND c.weighting <> new;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM pgseek.refresh_statistics(collection);
    RETURN changed;
END
$function$;
