-- Purpose:    a question without what does not change it, so that the same one is found by key: case, runs of space, and
--             the signs at its end.
-- Arguments:  query
-- Returns:    the SHA-256 of that
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.question_key(query text)
RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    plain CONSTANT text := lower(btrim(regexp_replace(normalize(query, NFC), '\s+', ' ', 'g')));
BEGIN
    -- Of nothing but signs, all of them count.
    RETURN sha256(convert_to(coalesce(nullif(rtrim(plain, ' ?!.'), ''), plain), 'UTF8'));
END
$function$;
