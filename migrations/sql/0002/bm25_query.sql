-- Purpose:    a query as a vector: -(chunks.terms <#> vector) is the BM25 score of a chunk, 0 for one
--             without any of the words. Ask once, then score any rows with one operator each.
-- Arguments:  collection_id, lexemes, frequencies  as in bm25_terms()
-- Returns:    {dimension(lexeme): weight}
-- Volatility: stable. Index: term_statistics_pkey.
CREATE OR REPLACE FUNCTION pgseek.bm25_query(collection_id integer, lexemes text[], frequencies integer[])
RETURNS @vector@.sparsevec
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    elements text;
BEGIN
    SELECT string_agg(asked.element, ',') INTO elements
      FROM (SELECT pgseek.dimension(t.lexeme) || ':' || max(t.weight)::real AS element
              FROM pgseek.bm25_terms(collection_id, lexemes, frequencies) t
             GROUP BY pgseek.dimension(t.lexeme)) AS asked;
    RETURN ('{' || coalesce(elements, '') || '}/1000000000')::@vector@.sparsevec;
END
$function$;
