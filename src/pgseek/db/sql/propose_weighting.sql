-- Purpose:    the weighting for a collection, from a sample of its texts: their average length.
-- Arguments:  language, titles, bodies  texts of the sample, a thousand or more (arrays of one length)
--             k1, b, title_weight       BM25's constants; a word of the title counts title_weight times
-- Returns:    {k1, b, average length, title_weight}; NULL if there is no lexeme
-- Volatility: immutable in the sense of words().
CREATE OR REPLACE FUNCTION pgseek.propose_weighting(
    language text, titles text[], bodies text[], k1 real DEFAULT 1.2, b real DEFAULT 0.75, title_weight real DEFAULT 2)
RETURNS real[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    average real;
BEGIN
    SELECT sum(cardinality(word.positions) * CASE WHEN part.titled THEN title_weight ELSE 1 END) / cardinality(bodies)
      INTO average
      FROM (SELECT true AS titled, u.text FROM unnest(titles) AS u (text)
            UNION ALL
            SELECT false, u.text FROM unnest(bodies) AS u (text)) AS part,
           unnest(pgseek.words(language, part.text)) AS word;
    RETURN CASE WHEN average > 0 THEN ARRAY[k1, b, average, title_weight] END;
END
$function$;
