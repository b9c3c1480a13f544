-- Purpose:    the BM25 weights of a chunk's words; the expression of the generated column chunks.terms.
--             tf / (tf + k1 * (1 - b + b * length / average length)): all of BM25 but the idf and the
--             query, which are known at search time only. Robertson and Zaragoza 2009; without the
--             factor k1 + 1, as Lucene does.
-- Arguments:  language, title, body, weighting  as in lexemes(); tf counts a word of the title as
--             often as the title weighs, and the length is the sum of tf
-- Returns:    {dimension(lexeme): weight}, the 16,000 heaviest (what a sparsevec holds). Two words that
--             share a dimension keep the heavier weight.
-- Volatility: immutable in the sense of lexemes().
CREATE OR REPLACE FUNCTION pgseek.term_weights(language text, title text, body text, weighting real[])
RETURNS @vector@.sparsevec
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    words tsvector := setweight(to_tsvector(language::regconfig, title), 'A')
        || setweight(to_tsvector(language::regconfig, body), 'B');
    elements text;
BEGIN
    -- The dimension is written out, as in dimension(): a call per word would cost more than the rest.
    SELECT string_agg(kept.dimension || ':' || kept.weight, ',') INTO elements
      FROM (SELECT weighed.dimension, max(weighed.weight) AS weight
              FROM (SELECT counted.dimension,
                           (counted.tf / (counted.tf + weighting[1] * (1 - weighting[2]
                               + weighting[2] * sum(counted.tf) OVER () / weighting[3])))::real AS weight
                      FROM (SELECT ('x' || encode(substr(sha256(convert_to(word.lexeme, 'UTF8')), 1, 4), 'hex'))
                                       ::bit(30)::integer % 1000000000 + 1 AS dimension,
                                   (cardinality(word.positions) + CASE WHEN weighting[4] = 1 THEN 0 ELSE (weighting[4] - 1)
                                       * cardinality(array_positions(word.weights, 'A')) END)::double precision AS tf
                              FROM unnest(words) AS word) AS counted) AS weighed
             GROUP BY weighed.dimension ORDER BY weight DESC, weighed.dimension LIMIT 16000) AS kept;
    RETURN ('{' || coalesce(elements, '') || '}/1000000000')::@vector@.sparsevec;
END
$function$;
