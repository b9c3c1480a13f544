-- Purpose:    the pieces of a document that are searched by their words until the chunker has run.
-- Arguments:  language, title, body  of the document
--             weighting              see weigh()
-- Returns:    a row per piece of at most 20,000 characters (a tsvector holds 1 MiB at most): its place (from 0),
--             the place of its first character (from 0), its text, and what analyze() makes of it
-- Ordering:   by place.
-- Volatility: immutable in the sense of words().
CREATE OR REPLACE FUNCTION pgseek.stand_ins(language text, title text, body text, weighting real[])
RETURNS TABLE (ordinal integer, char_start integer, text text, lexemes tsvector, terms @vector@.sparsevec)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    piece_length CONSTANT integer := 20000;
BEGIN
    FOR number IN 0 .. (length(body) - 1) / piece_length LOOP
        ordinal := number;
        char_start := number * piece_length;
        text := substr(body, char_start + 1, piece_length);
        SELECT a.lexemes, a.terms INTO lexemes, terms FROM pgseek.analyze(language, title, text, weighting) AS a;
        RETURN NEXT;
    END LOOP;
END
$function$;
