-- Purpose:    refuse a question, or a scope, that answers cannot be kept by.
-- Arguments:  query, scope
-- Errors:     PGS02
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.check_question(query text, scope text)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    IF query IS NULL OR btrim(query, E' \t\r\n') = '' THEN
        RAISE EXCEPTION 'the query is empty' USING ERRCODE = 'PGS02', HINT = 'give at least one word';
    ELSIF length(query) > 20000 THEN
        RAISE EXCEPTION 'the query has % characters, but at most 20000 are allowed', length(query) USING ERRCODE = 'PGS02';
    ELSIF scope IS NULL OR length(scope) > 500 THEN
        RAISE EXCEPTION 'the scope has % characters, but must have from 0 to 500', coalesce(length(scope)::text, 'NULL')
            USING ERRCODE = 'PGS02', HINT = 'of a longer one give a hash';
    END IF;
END
$function$;
