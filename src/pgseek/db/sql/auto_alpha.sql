-- Purpose:    the weight of the dense leg for one kind of query, with fusion 'auto'.
-- Arguments:  alpha     the collection's
--             kind      see query_kind()
--             provider  of the embedding space
-- Returns:    0..1
-- Method:     as measured with benchmarks/understanding.py. Averages of token vectors know words, not their context: names, and
--             statements of many words, are better left to the lexical leg then.
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.auto_alpha(alpha double precision, kind text, provider text)
RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN least(1, alpha * CASE WHEN provider = 'wordllama'
        THEN CASE kind WHEN 'question' THEN 4 / 3.0 WHEN 'identifier' THEN 1 / 2.0 WHEN 'short' THEN 1 ELSE 2 / 3.0 END
        ELSE CASE kind WHEN 'question' THEN 3 / 2.0 ELSE 1 END END);
END
$function$;
