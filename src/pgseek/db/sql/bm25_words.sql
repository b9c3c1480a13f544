-- Purpose:    a text as a bag of lexemes, for the functions bm25_*: each with how often it occurs. A
--             collection of several languages parses it with each; the higher count stands.
-- Arguments:  languages, query  as in lexical_query()
-- Returns:    two arrays of one length, lexemes in alphabetical order; empty if no lexeme is left
-- Volatility: immutable in the sense of lexemes().
CREATE OR REPLACE FUNCTION pgseek.bm25_words(
    languages text[], query text, OUT lexemes text[], OUT frequencies integer[])
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    SELECT coalesce(array_agg(counted.lexeme ORDER BY counted.lexeme), '{}'),
           coalesce(array_agg(counted.times ORDER BY counted.lexeme), '{}')
      INTO lexemes, frequencies
      FROM (SELECT word.lexeme, max(cardinality(word.positions)) AS times
              FROM unnest(languages) AS configuration (name),
                   unnest(to_tsvector(configuration.name::regconfig, query)) AS word
             GROUP BY word.lexeme) AS counted;
END
$function$;
