-- Purpose:    the name under which a text-search configuration is stored.
-- Arguments:  language  as given: a configuration's name, or a language written without spaces, which is read
--                       as 'simple' where the server has no parser of its own for it
-- Returns:    the name, NULL if there is no such configuration. The Python side agrees.
-- Volatility: stable: it reads the catalogue.
CREATE OR REPLACE FUNCTION pgseek.canonical_language(language text)
RETURNS text
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    plain text := regexp_replace(language, '^pg_catalog\.', '');
BEGIN
    PERFORM FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace
      WHERE plain = CASE n.nspname WHEN 'pg_catalog' THEN quote_ident(c.cfgname)
                         ELSE quote_ident(n.nspname) || '.' || quote_ident(c.cfgname) END;
    IF FOUND THEN
        RETURN plain;
    END IF;
    RETURN CASE WHEN lower(plain) = ANY ('{chinese,japanese,korean,thai,lao,khmer,burmese}') THEN 'simple' END;
END
$function$;
