-- Purpose:    one code as bm25_codes() makes it.
-- Arguments:  collection_id, dimension (of a lexeme, see dimension())
--             level  0: the lexeme itself; 1..5: the mark of weights of at least 0.53, 0.58, 0.66, 0.75, 0.85
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.bm25_code(collection_id integer, dimension integer, level integer DEFAULT 0)
RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    code CONSTANT integer := dimension # (collection_id::bigint * 40503 & 1073741823)::integer;
BEGIN
    RETURN CASE WHEN level = 0 THEN code ELSE -1 - (code + 7919 * level & 524287) END;
END
$function$;
