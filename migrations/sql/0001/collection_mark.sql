-- Purpose:    one extra lexeme in every chunk that names its collection. A search asks for the
--             mark AND its words, so GIN skips the postings of other collections instead of
--             reading them and filtering afterwards.
-- Arguments:  collection_id
-- Returns:    ' c<id>', with a space in front. No parser emits a lexeme with a space, so no text can
--             contain the mark. (Signs such as § would not do: with the locale C the parser takes
--             every character beyond ASCII for a letter.)
-- Volatility: immutable. Index: chunks_lexemes (GIN).
CREATE OR REPLACE FUNCTION pgseek.collection_mark(collection_id integer)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN ' c' || collection_id::text;
END
$function$;
