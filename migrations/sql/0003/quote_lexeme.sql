-- Purpose:    a lexeme as a tsquery spells it.
-- Arguments:  lexeme
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.quote_lexeme(lexeme text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''';
END
$function$;
