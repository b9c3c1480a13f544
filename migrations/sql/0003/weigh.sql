-- Purpose:    the BM25 weights of a chunk's lexemes: tf / (tf + k1 (1 - b + b length / average length)), all
--             of BM25 but the idf and the query, which are known at search time only (Robertson and Zaragoza
--             2009; without the factor k1 + 1, as Lucene does).
-- Arguments:  lexemes    the chunk's, with places; weight A marks those of the title
--             weighting  {k1, b, average length, weight of the title}. tf counts a lexeme of the title as often
--                        as the title weighs, and the length is the sum of tf
-- Returns:    {dimension(lexeme): weight}, the 16,000 heaviest (what a sparsevec holds). Two lexemes that share
--             a dimension keep the heavier weight.
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.weigh(lexemes tsvector, weighting real[])
RETURNS @vector@.sparsevec
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    titled CONSTANT double precision := weighting[4] - 1;
    at_most CONSTANT integer := 16000;
    dimensions integer[];
    occurrences double precision[];
    length double precision;
    norm double precision;
    elements text := '';
BEGIN
    -- The dimension is written out, as in dimension(), and the elements are put together in a loop: a call per
    -- lexeme or another query per chunk would cost as much as the rest.
    SELECT array_agg(counted.dimension), array_agg(counted.occurrences), sum(counted.occurrences)
      INTO dimensions, occurrences, length
      FROM (SELECT ('x' || encode(substr(sha256(convert_to(word.lexeme, 'UTF8')), 1, 4), 'hex'))::bit(30)::integer % 1000000000 + 1 AS dimension,
                   cardinality(word.positions) + CASE WHEN titled = 0 THEN 0
                       ELSE titled * cardinality(array_positions(word.weights, 'A')) END AS occurrences
              FROM unnest(lexemes) AS word ORDER BY dimension, occurrences DESC) AS counted;
    IF cardinality(dimensions) > at_most THEN
        SELECT array_agg(kept.dimension), array_agg(kept.occurrences) INTO dimensions, occurrences
          FROM (SELECT heaviest.* FROM (
                    SELECT u.* FROM unnest(dimensions, occurrences) AS u (dimension, occurrences)
                     ORDER BY u.occurrences DESC, u.dimension LIMIT at_most) AS heaviest
                 ORDER BY heaviest.dimension, heaviest.occurrences DESC) AS kept;
    END IF;
    norm := weighting[1] * (1 - weighting[2] + weighting[2] * length / weighting[3]);
    FOR i IN 1 .. coalesce(cardinality(dimensions), 0) LOOP
        CONTINUE WHEN dimensions[i] = dimensions[i - 1];
        elements := elements || ',' || dimensions[i] || ':' || (occurrences[i] / (occurrences[i] + norm))::real;
    END LOOP;
    RETURN ('{' || substr(elements, 2) || '}/1000000000')::@vector@.sparsevec;
END
$function$;
