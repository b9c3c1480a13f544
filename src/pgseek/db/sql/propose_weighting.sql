-- Purpose:    the weighting for a collection, from a sample of its chunks: their average length, and
--             edges at fixed quantiles of their BM25 weights.
-- Arguments:  language, titles, bodies  texts of the sample, a thousand or more (arrays of one length)
--             k1, b, title_weight       BM25's constants; a word of the title counts title_weight times
-- Returns:    {k1, b, average length, title_weight, edge 1, ... edge 6}; NULL if there is no lexeme
-- Volatility: immutable in the sense of lexemes().
CREATE OR REPLACE FUNCTION pgseek.propose_weighting(
    language text, titles text[], bodies text[],
    k1 real DEFAULT 1.2, b real DEFAULT 0.75, title_weight real DEFAULT 1)
RETURNS real[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    average real;
    edges real[];
BEGIN
    WITH counted AS (
        SELECT sample.number,
               cardinality(word.positions) + (title_weight - 1)
                   * cardinality(array_positions(word.weights, 'A')) AS tf
          FROM unnest(titles, bodies) WITH ORDINALITY AS sample (title, body, number),
               unnest(setweight(to_tsvector(language::regconfig, sample.title), 'A')
                   || setweight(to_tsvector(language::regconfig, sample.body), 'B')) AS word),
    average_length AS (SELECT sum(c.tf) / cardinality(titles) AS value FROM counted c),
    weighed AS (
        SELECT c.tf / (c.tf + k1 * (1 - b + b * sum(c.tf) OVER (PARTITION BY c.number)
                   / (SELECT a.value FROM average_length a))) AS weight
          FROM counted c)
    SELECT (SELECT a.value FROM average_length a),
           (SELECT array_agg(DISTINCT edge::real ORDER BY edge::real) FROM unnest(
                percentile_cont(ARRAY[0.75, 0.92, 0.975, 0.993, 0.998, 0.9995]) WITHIN GROUP (ORDER BY w.weight)) AS edge)
      INTO average, edges
      FROM weighed w;
    RETURN ARRAY[k1, b, average, title_weight] || edges;
END
$function$;
