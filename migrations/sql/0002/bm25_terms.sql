-- Purpose:    the words of a query with their weight, frequency and tiers in one collection.
-- Arguments:  collection_id, lexemes, frequencies  (how often the query says each)
-- Returns:    quoted    the lexeme as a tsquery spells it
--             weight    frequency * idf, idf = ln(1 + (N - df + 0.5) / (df + 0.5)) (as Lucene's)
--             df        chunks with it: of the last refresh, else counted now, 10,000 at most (and
--                       weighed as the rare lexeme it was at the last refresh)
--             tiers     chunks with each impact mark; NULL for a lexeme that is read whole
-- Ordering:   weight descending, lexeme; lexemes of no chunk are left out.
-- Volatility: stable. Index: term_statistics_pkey, chunks_lexemes_idx for lexemes without statistics.
CREATE OR REPLACE FUNCTION pgseek.bm25_terms(collection_id integer, lexemes text[], frequencies integer[])
RETURNS TABLE (lexeme text, quoted text, weight double precision, df double precision, tiers integer[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_variable
DECLARE
    -- refresh_statistics() keeps no row of a lexeme in fewer than three chunks.
    unstored CONSTANT double precision := 2;
    total bigint;
    refreshed boolean;
BEGIN
    SELECT s.chunks INTO total FROM pgseek.collection_statistics s WHERE s.collection_id = collection_id;
    refreshed := coalesce(total, 0) > 0;
    IF NOT refreshed THEN
        -- Never refreshed, so it is small, or being filled for the first time.
        SELECT count(*) INTO total FROM (
            SELECT FROM pgseek.chunks c WHERE c.collection_id = collection_id LIMIT 100000) AS some_chunks;
    END IF;
    RETURN QUERY
    SELECT stated.lexeme, stated.quoted,
           stated.frequency * ln(1 + (greatest(total, stated.df_then) - stated.df_then + 0.5) / (stated.df_then + 0.5))
               AS weight,
           stated.df, stated.tiers
      FROM (SELECT counted.*,
                   -- df and N must be of one time: a lexeme that has become frequent since the last refresh
                   -- was rare then, and is weighed so until the next.
                   CASE WHEN refreshed AND counted.stored IS NULL THEN least(counted.df, unstored)
                        ELSE counted.df END AS df_then
              FROM (SELECT q.lexeme, q.quoted, q.frequency, t.tiers, t.chunks AS stored,
                   coalesce(t.chunks, (SELECT count(*) FROM (
                       SELECT FROM pgseek.chunks c
                        WHERE c.collection_id IS NOT DISTINCT FROM collection_id
                          AND c.lexemes @@ (q.quoted || '&' || quote_literal(pgseek.collection_mark(collection_id)))::tsquery
                        LIMIT 10000) AS some_chunks))::double precision AS df
              FROM (SELECT u.lexeme, u.frequency,
                           '''' || replace(replace(u.lexeme, '\', '\\'), '''', '''''') || '''' AS quoted
                      FROM unnest(lexemes, frequencies) AS u (lexeme, frequency)) AS q
              -- OFFSET 0 keeps this a look-up per word.
              LEFT JOIN LATERAL (
                  SELECT s.chunks, s.tiers FROM pgseek.term_statistics s
                   WHERE s.collection_id = collection_id AND s.lexeme = q.lexeme OFFSET 0) AS t ON true) AS counted) AS stated
     WHERE stated.df > 0
     ORDER BY weight DESC, stated.lexeme;
END
$function$;
