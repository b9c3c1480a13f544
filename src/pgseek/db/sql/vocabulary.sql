-- Purpose:    the lexemes of a collection that begin with a prefix: those of the statistics, and those of
--             documents written since the last refresh.
-- Arguments:  collection_id
--             prefix
--             at_most  lexemes
--             newest   documents written since the last refresh that are looked at, newest first
-- Returns:    lexeme, and the chunks that had it at the last refresh (0 for new ones)
-- Ordering:   chunks descending, lexeme.
-- Volatility: stable. Index: term_statistics_pkey, rare_lexemes_pkey, documents_updated_at_idx, chunks_pkey.
CREATE OR REPLACE FUNCTION pgseek.vocabulary(
    collection_id integer, prefix text, at_most integer DEFAULT 64, newest integer DEFAULT 2000)
RETURNS TABLE (lexeme text, chunks integer)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    -- Greater than every text that begins with the prefix.
    beyond CONSTANT text := prefix || chr(1114111);
    begun CONSTANT tsquery := (pgseek.quote_lexeme(prefix) || ':*')::tsquery;
    since timestamptz;
BEGIN
    -- A transaction that was open during the refresh has an earlier time.
    SELECT coalesce(s.refreshed_at, '-infinity') - interval '10 minutes' INTO since
      FROM pgseek.collection_statistics s WHERE s.collection_id = collection_id;
    RETURN QUERY
    WITH known AS (
        (SELECT s.lexeme, s.chunks FROM pgseek.term_statistics s
          WHERE s.collection_id = collection_id AND s.lexeme >= prefix COLLATE "C" AND s.lexeme < beyond COLLATE "C"
          ORDER BY s.chunks DESC, s.lexeme LIMIT at_most)
        UNION ALL
        (SELECT rare.lexeme COLLATE "C", 1 FROM pgseek.rare_lexemes r, string_to_table(r.lexemes, E'\n') AS rare (lexeme)
          WHERE r.collection_id = collection_id AND r.first < beyond COLLATE "C"
            AND r.first >= coalesce((SELECT max(before.first) FROM pgseek.rare_lexemes before
                                      WHERE before.collection_id = collection_id AND before.first <= prefix COLLATE "C"), '')
            AND starts_with(rare.lexeme, prefix)
          LIMIT at_most)),
    fresh AS (
        SELECT DISTINCT word.lexeme COLLATE "C" AS lexeme
          FROM (SELECT d.document_id FROM pgseek.documents d
                 WHERE d.collection_id = collection_id AND d.updated_at > since
                 ORDER BY d.updated_at DESC LIMIT newest) AS written,
               -- OFFSET 0: by key for each document; a generic plan would read the whole table.
               LATERAL (SELECT c.lexemes FROM pgseek.chunks c
                         WHERE c.collection_id = collection_id AND c.document_id = written.document_id OFFSET 0) AS chunk,
               unnest(tsvector_to_array(chunk.lexemes)) AS word (lexeme)
         WHERE chunk.lexemes @@ begun AND starts_with(word.lexeme, prefix))
    SELECT v.lexeme::text, max(v.chunks) AS most
      FROM (SELECT k.lexeme, k.chunks FROM known k UNION ALL SELECT f.lexeme, 0 FROM fresh f) AS v
     GROUP BY v.lexeme ORDER BY most DESC, v.lexeme LIMIT at_most;
END
$function$;
