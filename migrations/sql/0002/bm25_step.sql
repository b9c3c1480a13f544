-- Purpose:    how many impact levels bm25_formula() takes together for a word: few rows are not worth
--             many operands, since GIN pays for each.
-- Arguments:  expected  rows with the word among those required before
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.bm25_step(expected double precision)
RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN CASE WHEN expected > 3000 THEN 1 WHEN expected > 1000 THEN 2 WHEN expected > 100 THEN 3 ELSE 100 END;
END
$function$;
