-- Purpose:    the tsquery of a plain-text query: any of its lexemes (OR). With AND, one word that
--             nobody wrote would empty the leg.
-- Arguments:  languages  configurations of the collection; the query is parsed with each
--             query      plain text; quotes and operators have no meaning here
-- Returns:    lexemes in alphabetical order joined by |; NULL if no lexeme is left.
-- Volatility: immutable in the sense of lexemes().
CREATE OR REPLACE FUNCTION pgseek.lexical_query(languages text[], query text)
RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    quoted text;
BEGIN
    SELECT string_agg(DISTINCT
               '''' || replace(replace(word.lexeme, '\', '\\'), '''', '''''') || '''', ' | ')
      INTO quoted
      FROM unnest(languages) AS configuration (name),
           unnest(to_tsvector(configuration.name::regconfig, query)) AS word;
    RETURN quoted::tsquery;
END
$function$;
