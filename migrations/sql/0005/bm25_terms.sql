-- Purpose:    the lexemes of a query with their weight and frequency in one collection.
-- Arguments:  collection_id, lexemes, frequencies  (how often the query says each)
-- Returns:    arrays of one length, without the lexemes that no chunk has; NULL if none is left
--             known       the lexemes
--             dimensions  see dimension()
--             weights     frequency * idf, idf = ln(1 + (N - df + 0.5) / (df + 0.5)) (as Lucene's)
--             counts      df, chunks with it: of the last refresh, else (for lexemes that were in one chunk or
--                         none then, and are weighed so) counted now, 10,000 at most
-- Ordering:   weight descending, lexeme.
-- Volatility: stable. Index: term_statistics_pkey, chunks_codes_idx for lexemes without statistics.
CREATE OR REPLACE FUNCTION pgseek.bm25_terms(
    collection_id integer, lexemes text[], frequencies double precision[],
    OUT known text[], OUT dimensions integer[], OUT weights double precision[], OUT counts double precision[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_variable
DECLARE
    total bigint;
    refreshed boolean;
BEGIN
    SELECT s.chunks INTO total FROM pgseek.collection_statistics s WHERE s.collection_id = collection_id;
    refreshed := coalesce(total, 0) > 0;
    IF NOT refreshed THEN
        -- Never refreshed, so it is small, or being filled for the first time.
        SELECT count(*) INTO total FROM (
            SELECT FROM pgseek.chunks c
             WHERE c.collection_id = collection_id AND c.kind <> 'document' LIMIT 100000) AS some_chunks;
    END IF;
    SELECT array_agg(asked.lexeme), array_agg(asked.dimension), array_agg(asked.weight), array_agg(asked.df)
      INTO known, dimensions, weights, counts
      FROM (SELECT stated.lexeme, stated.dimension, stated.df,
                   stated.frequency * ln(1 + (greatest(total, stated.df_then) - stated.df_then + 0.5::double precision)
                       / (stated.df_then + 0.5::double precision)) AS weight
              FROM (SELECT counted.*,
                           -- df and N must be of one time: a lexeme that has become frequent since the last refresh
                           -- was in one chunk then, or in none, and is weighed so until the next.
                           CASE WHEN refreshed AND counted.stored IS NULL THEN least(counted.df, 1) ELSE counted.df END AS df_then
                      FROM (SELECT q.lexeme, q.dimension, q.frequency, t.chunks AS stored,
                                   coalesce(t.chunks, (SELECT count(*) FROM (
                                       SELECT FROM pgseek.chunks c
                                        WHERE c.collection_id IS NOT DISTINCT FROM collection_id
                                          AND pgseek.bm25_codes(c.collection_id, c.terms) && ARRAY[pgseek.bm25_code(collection_id, q.dimension)]
                                          AND c.terms OPERATOR(@vector@.<#>) q.alone < 0
                                        LIMIT 10000) AS some_chunks))::double precision AS df
                              FROM (SELECT u.lexeme, u.frequency, pgseek.dimension(u.lexeme) AS dimension,
                                           ('{' || pgseek.dimension(u.lexeme) || ':1}/1000000000')::@vector@.sparsevec AS alone
                                      FROM unnest(lexemes, frequencies) AS u (lexeme, frequency)) AS q
                              -- OFFSET 0 keeps this a look-up per lexeme.
                              LEFT JOIN LATERAL (
                                  SELECT s.chunks FROM pgseek.term_statistics s
                                   WHERE s.collection_id = collection_id AND s.lexeme = q.lexeme OFFSET 0) AS t ON true) AS counted) AS stated
             WHERE stated.df > 0
             ORDER BY weight DESC, stated.lexeme COLLATE "C") AS asked;
END
$function$;
