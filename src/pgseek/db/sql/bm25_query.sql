-- Purpose:    a query as a vector: -(chunks.terms <#> vector) is the BM25 score of a chunk, 0 for one
--             without any of the lexemes. Ask once, then score any rows with one operator each.
-- Arguments:  dimensions, weights  see bm25_terms(); of a dimension given twice the higher weight stands
-- Returns:    {dimension: weight}
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.bm25_query(dimensions integer[], weights double precision[])
RETURNS @vector@.sparsevec
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN ('{' || coalesce((
        SELECT string_agg(asked.dimension || ':' || asked.weight, ',')
          FROM (SELECT u.dimension, max(u.weight)::real AS weight
                  FROM unnest(dimensions, weights) AS u (dimension, weight) GROUP BY u.dimension) AS asked), '')
        || '}/1000000000')::@vector@.sparsevec;
END
$function$;
