-- Purpose:    the tsvector of a chunk; the expression of the generated column chunks.lexemes.
-- Arguments:  collection_id  adds the collection's mark (a lexeme without position)
--             language       text-search configuration by name. The name is stored, not a regconfig:
--                            pg_upgrade refuses clusters with regconfig columns.
--             title, body    weighted A and B
-- Volatility: immutable, as to_tsvector(regconfig, text) itself: it changes when somebody edits the
--             configuration, and then needs a rewrite of the chunks.
CREATE OR REPLACE FUNCTION pgseek.lexemes(
    collection_id integer, language text, title text, body text)
RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN setweight(to_tsvector(language::regconfig, title), 'A')
        || setweight(to_tsvector(language::regconfig, body), 'B')
        || array_to_tsvector(ARRAY[pgseek.collection_mark(collection_id)]);
END
$function$;
