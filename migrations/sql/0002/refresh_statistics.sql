-- Purpose:    bring the statistics behind BM25's idf and bounds up to date: one scan of the
--             collection's chunks. Searches see the old numbers until it commits, then all the new
--             ones; nothing but another refresh of the same collection waits for it. Results are
--             exact for the statistics in force whether or not this has run lately.
-- Arguments:  collection  name
-- Returns:    the number of chunks, and the average length now over the one rows are weighed with:
--             when it is far from 1, reweigh() brings the rows up to date.
-- Ordering:   none.
-- Volatility: volatile.
-- Index:      chunks_pkey if the collection is a small part of the table; term_statistics_pkey.
CREATE OR REPLACE FUNCTION pgseek.refresh_statistics(
    collection text, OUT chunks bigint, OUT drift double precision)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    -- Lexemes in fewer chunks have no row: their df is counted while searching, which costs a
    -- fraction of a millisecond and spares the table its long tail.
    stored_from CONSTANT integer := 3;
    -- A lexeme in fewer chunks is always read whole.
    tiers_from CONSTANT integer := 256;
    id integer := (pgseek.require_collection(collection)).collection_id;
BEGIN
    PERFORM FROM pgseek.collection_statistics s WHERE s.collection_id = id FOR NO KEY UPDATE;
    -- The collection's own mark is in every chunk, so its count is N, from the very same scan.
    WITH counted AS MATERIALIZED (
        SELECT w.word, w.ndoc, w.nentry, left(right(w.word, 2), 1) = ' ' AND w.word <> pgseek.collection_mark(id) AS is_tier
          FROM ts_stat(format('SELECT c.lexemes FROM pgseek.chunks c WHERE c.collection_id = %s', id)) AS w
),
    totals AS (
        SELECT coalesce(max(w.ndoc) FILTER (WHERE w.word = pgseek.collection_mark(id)), 0)::bigint AS chunks,
               sum(w.nentry) FILTER (WHERE NOT w.is_tier AND w.word <> pgseek.collection_mark(id)) AS length
          FROM counted w),
    tiers AS (
        SELECT left(w.word, -2) AS lexeme, array_agg(w.ndoc ORDER BY w.word COLLATE "C") AS tiers
          FROM counted w WHERE w.is_tier AND w.ndoc >= stored_from GROUP BY 1),
    merged AS MATERIALIZED (
        SELECT w.word AS lexeme, w.ndoc AS chunks,
               CASE WHEN w.ndoc >= tiers_from THEN coalesce(t.tiers, '{}') END AS tiers
          FROM counted w LEFT JOIN tiers t ON t.lexeme = w.word
         WHERE NOT w.is_tier AND w.ndoc >= stored_from AND w.word <> pgseek.collection_mark(id)),
    gone AS (
        DELETE FROM pgseek.term_statistics s
         WHERE s.collection_id = id
           AND NOT EXISTS (SELECT FROM merged m WHERE m.lexeme = s.lexeme)),
    stored AS (
        INSERT INTO pgseek.term_statistics AS s (collection_id, lexeme, chunks, tiers)
        SELECT id, m.lexeme, m.chunks, m.tiers FROM merged m ORDER BY m.lexeme COLLATE "C"
        ON CONFLICT (collection_id, lexeme) DO UPDATE SET chunks = excluded.chunks, tiers = excluded.tiers
         WHERE (s.chunks, s.tiers) IS DISTINCT FROM (excluded.chunks, excluded.tiers))
    UPDATE pgseek.collection_statistics s
       SET chunks = t.chunks, average_length = (t.length + CASE WHEN s.weighting[4] = 1 THEN 0 ELSE (s.weighting[4] - 1) * (
               SELECT coalesce(sum(w.nentry), 0) FROM ts_stat(
                   format('SELECT c.lexemes FROM pgseek.chunks c WHERE c.collection_id = %s', id), 'a') AS w) END)
               / nullif(t.chunks, 0), refreshed_at = now()
      FROM totals t
     WHERE s.collection_id = id
    RETURNING s.chunks, s.average_length / s.weighting[3] INTO chunks, drift;
END
$function$;
