-- Purpose:    note that a collection holds documents of a language, so that queries are parsed
--             with it too. Called before the first document of the language is written.
-- Arguments:  collection_id; language  a text-search configuration by name
-- Volatility: volatile. Index: collections_pkey.
CREATE OR REPLACE FUNCTION pgseek.add_language(collection_id integer, language text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    UPDATE pgseek.collections c
       SET languages = c.languages || add_language.language
     WHERE c.collection_id = add_language.collection_id
       AND NOT add_language.language = ANY (c.languages);
END
$function$;
