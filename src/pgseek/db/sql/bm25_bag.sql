-- Purpose:    a text as a bag of lexemes: each with how often it occurs. A collection of several languages reads
--             it with each; the higher count stands.
-- Arguments:  languages, text  see words()
-- Returns:    two arrays of one length, lexemes in alphabetical order; empty if no lexeme is left
-- Volatility: immutable in the sense of words().
CREATE OR REPLACE FUNCTION pgseek.bm25_bag(
    languages text[], text text, OUT lexemes text[], OUT frequencies double precision[])
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    SELECT coalesce(array_agg(counted.lexeme ORDER BY counted.lexeme COLLATE "C"), '{}'),
           coalesce(array_agg(counted.times ORDER BY counted.lexeme COLLATE "C"), '{}')
      INTO lexemes, frequencies
      FROM (SELECT word.lexeme, max(cardinality(word.positions)) AS times
              FROM unnest(languages) AS configuration (name), unnest(pgseek.words(configuration.name, text, false)) AS word
             GROUP BY word.lexeme) AS counted;
END
$function$;
