-- Purpose:    bring the statistics behind BM25's idf up to date: one scan of the collection's chunks. Searches
--             see the old numbers until it commits, then all the new ones; nothing but another refresh of the
--             same collection waits for it. Results are exact for the statistics in force whether or not this
--             has run lately.
-- Arguments:  collection  name
-- Returns:    the number of chunks (rows for whole documents hold no words and do not count), and the average length now over the one rows are weighed with:
--             when it is far from 1, reweigh() brings the rows up to date.
-- Errors:     PGS01 no such collection
-- Ordering:   none.
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile.
-- Index:      chunks_pkey if the collection is a small part of the table; term_statistics_pkey.
CREATE OR REPLACE FUNCTION pgseek.refresh_statistics(
    collection text, OUT chunks bigint, OUT drift double precision)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    block_size CONSTANT integer := 200;
    id CONSTANT integer := (pgseek.require_collection(collection)).collection_id;
    of_chunks CONSTANT text := format(
        'SELECT c.lexemes FROM pgseek.chunks c WHERE c.collection_id = %s AND c.kind <> ''document''', id);
BEGIN
    PERFORM FROM pgseek.collection_statistics s WHERE s.collection_id = id FOR NO KEY UPDATE;
    DELETE FROM pgseek.rare_lexemes r WHERE r.collection_id = id;
    -- N, df and the length are of one statement, so of one moment.
    WITH counted AS MATERIALIZED (
        SELECT w.word AS lexeme, w.ndoc AS chunks, w.nentry AS occurrences FROM ts_stat(of_chunks) AS w),
    gone AS (
        DELETE FROM pgseek.term_statistics s
         WHERE s.collection_id = id AND NOT EXISTS (SELECT FROM counted m WHERE m.lexeme = s.lexeme AND m.chunks > 1)),
    stored AS (
        INSERT INTO pgseek.term_statistics AS s (collection_id, lexeme, chunks)
        SELECT id, m.lexeme, m.chunks FROM counted m WHERE m.chunks > 1 ORDER BY m.lexeme COLLATE "C"
        ON CONFLICT (collection_id, lexeme) DO UPDATE SET chunks = excluded.chunks WHERE s.chunks <> excluded.chunks),
    -- Half of all lexemes are in one chunk only: a row for each would be the larger part of the statistics.
    rare AS (
        INSERT INTO pgseek.rare_lexemes (collection_id, first, lexemes)
        SELECT id, min(numbered.lexeme COLLATE "C"), string_agg(numbered.lexeme, E'\n' ORDER BY numbered.lexeme COLLATE "C")
          FROM (SELECT m.lexeme, row_number() OVER (ORDER BY m.lexeme COLLATE "C") AS number FROM counted m WHERE m.chunks = 1) AS numbered
         GROUP BY numbered.number / block_size),
    totals AS (
        SELECT (SELECT count(*) FROM pgseek.chunks c WHERE c.collection_id = id AND c.kind <> 'document') AS chunks,
               (SELECT sum(m.occurrences) FROM counted m) AS length)
    UPDATE pgseek.collection_statistics s
       SET chunks = t.chunks, refreshed_at = now(), shares = coalesce(pgseek.bm25_shares(id), s.shares),
           average_length = (t.length + CASE WHEN s.weighting[4] = 1 THEN 0 ELSE (s.weighting[4] - 1)
               * (SELECT coalesce(sum(w.nentry), 0) FROM ts_stat(of_chunks, 'a') AS w) END) / nullif(t.chunks, 0)
      FROM totals t
     WHERE s.collection_id = id
    RETURNING s.chunks, s.average_length / s.weighting[3] INTO chunks, drift;
END
$function$;
