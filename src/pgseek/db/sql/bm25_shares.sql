-- Purpose:    how heavy the lexemes of a collection are: of all its lexemes in all its chunks, the share whose
--             weight reaches each edge of bm25_codes(). Searches plan with it; their results do not depend on it.
-- Arguments:  collection_id
-- Returns:    {1, share at edge 1, ... edge 5}; NULL without chunks
-- Volatility: stable. Index: chunks_pkey.
CREATE OR REPLACE FUNCTION pgseek.bm25_shares(collection_id integer)
RETURNS double precision[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    sample_size CONSTANT integer := 2000;
    weights double precision[];
BEGIN
    -- Document ids are hashes, so the first ones are a random sample.
    SELECT array_agg(split_part(element, ':', 2)::double precision) INTO weights
      FROM (SELECT c.terms FROM pgseek.chunks c WHERE c.collection_id = collection_id AND c.kind <> 'document'
             ORDER BY c.document_id, c.ordinal LIMIT sample_size) AS sample,
           unnest(string_to_array(split_part(ltrim(sample.terms::text, '{'), '}', 1), ',')) AS element
     WHERE element <> '';
    RETURN (SELECT ARRAY[1, avg((w.weight >= 0.53)::integer), avg((w.weight >= 0.58)::integer), avg((w.weight >= 0.66)::integer),
                         avg((w.weight >= 0.75)::integer), avg((w.weight >= 0.85)::integer)]
              FROM unnest(weights) AS w (weight) HAVING count(*) > 0);
END
$function$;
