-- Purpose:    the tsquery of a text all of whose lexemes must be there: of any language the collection has, since
--             a document may be in each.
-- Arguments:  languages  configurations of the collection
--             text
--             phrase     whether the words must also stand side by side, as written
-- Returns:    one alternative per language; NULL if no lexeme is left in any of them
-- Volatility: immutable in the sense of words().
CREATE OR REPLACE FUNCTION pgseek.match_all(languages text[], text text, phrase boolean DEFAULT false)
RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    language text;
    part tsquery;
    adjacent tsquery;
    alternatives tsquery;
BEGIN
    FOREACH language IN ARRAY languages LOOP
        SELECT string_agg(pgseek.quote_lexeme(word.lexeme), ' & ')::tsquery
          INTO part FROM unnest(pgseek.words(language, text, false)) AS word;
        IF phrase AND part IS NOT NULL THEN
            adjacent := phraseto_tsquery(language::regconfig, CASE WHEN language IN ('english', 'simple')
                THEN pgseek.fold(pgseek.plain(text, false)) ELSE pgseek.plain(text, false) END);
            IF numnode(adjacent) > 0 THEN
                part := part && pgseek.fold(adjacent::text)::tsquery;
            END IF;
        END IF;
        alternatives := CASE WHEN alternatives IS NULL THEN part WHEN part IS NULL THEN alternatives ELSE alternatives || part END;
    END LOOP;
    RETURN alternatives;
END
$function$;
