-- Purpose:    what a word that no chunk has may have been meant to be: of the collection's words that differ by two
--             letters swapped, or by one missing, too many or wrong, the most frequent; where there is none and
--             pg_trgm is installed, the word that begins alike and shares most trigrams.
-- Arguments:  collection_id
--             languages  of the collection
--             word       letters only, lower case, 4 to 40; of four letters, only swaps are undone
--             at_most    corrections
-- Returns:    lexeme, and how often it counts, against once for a word spelt right
-- Ordering:   likeliest first.
-- Volatility: stable. Index: see vocabulary().
CREATE OR REPLACE FUNCTION pgseek.correct_word(
    collection_id integer, languages text[], word text, at_most integer DEFAULT 1)
RETURNS TABLE (lexeme text, frequency double precision)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    -- With a larger vocabulary, words must begin with the same two letters to be compared by trigrams.
    large CONSTANT bigint := 20000;
    -- Words that begin alike and are compared, the most frequent ones.
    compared CONSTANT integer := 10000;
    -- It may be wrong, so it counts less than a word as typed.
    trust CONSTANT double precision := 0.7;
    alike CONSTANT double precision := 0.45;
    -- The letters of English, and those that the word itself has.
    alphabet CONSTANT text := 'abcdefghijklmnopqrstuvwxyz' || word;
    trigrams text;
    swapped text[];
    near text[] := '{}';
    begins text;
BEGIN
    SELECT array_agg(left(word, at) || substr(word, at + 2, 1) || substr(word, at + 1, 1) || right(word, - at - 2)) INTO swapped
      FROM generate_series(0, length(word) - 2) AS at;
    SELECT coalesce(array_agg(DISTINCT variant.text), '{}') INTO near FROM (
        SELECT left(word, at) || right(word, - at - 1) FROM generate_series(0, length(word) - 1) AS at
        UNION ALL
        SELECT left(word, at) || letter || right(word, - at) FROM generate_series(0, length(word)) AS at, regexp_split_to_table(alphabet, '') AS letter
        UNION ALL
        SELECT left(word, at) || letter || right(word, - at - 1)
          FROM generate_series(0, length(word) - 1) AS at, regexp_split_to_table(alphabet, '') AS letter) AS variant (text)
     WHERE length(word) > 4;
    RETURN QUERY
    SELECT known.lexeme, trust
      FROM (SELECT stem.lexeme, min(variants.kind) AS kind
              FROM unnest(languages) AS configuration (name),
                   (VALUES (1, swapped), (2, near)) AS variants (kind, texts),
                   unnest(pgseek.words(configuration.name, array_to_string(variants.texts, ' '))) AS stem
             WHERE length(stem.lexeme) > 1 GROUP BY stem.lexeme) AS candidate,
           LATERAL (
               SELECT s.lexeme, s.chunks FROM pgseek.term_statistics s
                WHERE s.collection_id = collection_id AND s.lexeme = candidate.lexeme
               UNION ALL
               SELECT candidate.lexeme, 1
                 FROM (SELECT r.lexemes FROM pgseek.rare_lexemes r
                        WHERE r.collection_id = collection_id AND r.first <= candidate.lexeme COLLATE "C"
                        ORDER BY r.first DESC LIMIT 1) AS block
                WHERE strpos(E'\n' || block.lexemes || E'\n', E'\n' || candidate.lexeme || E'\n') > 0) AS known
     ORDER BY candidate.kind, known.chunks DESC, known.lexeme LIMIT at_most;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT format('%I.similarity', n.nspname) INTO trigrams
      FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_trgm';
    IF trigrams IS NULL OR length(word) < 5 THEN
        RETURN;
    END IF;
    begins := left(word, CASE WHEN large < (SELECT count(*) FROM (
        SELECT FROM pgseek.term_statistics s WHERE s.collection_id = collection_id LIMIT large + 1) AS vocabulary) THEN 2 ELSE 1 END);
    RETURN QUERY EXECUTE format(
        'SELECT best.lexeme, best.similarity * $6 FROM ('
        '    SELECT v.lexeme, v.chunks, max(%1$s(v.lexeme, spelt.word))::double precision AS similarity'
        '      FROM pgseek.vocabulary($1, $2, $5, 0) v, unnest($4) AS spelt (word)'
        '     WHERE v.lexeme ~ ''^[[:alpha:]]+$'' AND length(v.lexeme) BETWEEN length(spelt.word) - 3 AND length(spelt.word) + 3'
        '     GROUP BY v.lexeme, v.chunks) AS best'
        ' WHERE best.similarity >= $7 ORDER BY best.similarity DESC, best.chunks DESC, best.lexeme LIMIT $3', trigrams)
      USING collection_id, begins, at_most,
            (SELECT array_agg(DISTINCT stem.lexeme) || word FROM unnest(languages) AS configuration (name),
                    unnest(pgseek.words(configuration.name, word)) AS stem),
            compared, trust, alike;
END
$function$;
