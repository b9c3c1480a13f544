-- Purpose:    the dimension of chunks.terms that a lexeme has.
-- Arguments:  lexeme
-- Returns:    1..1,000,000,000, the leading 30 bits of its SHA-256 modulo a thousand million: the same
--             on every PostgreSQL version and machine, and allowed where MD5 is not. Of a million
--             lexemes about one in a thousand shares its dimension with another.
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.dimension(lexeme text)
RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN ('x' || encode(substr(sha256(convert_to(lexeme, 'UTF8')), 1, 4), 'hex'))::bit(30)::integer % 1000000000 + 1;
END
$function$;
