-- Purpose:    what search knows of a chunk: its lexemes and their BM25 weights, from one reading. Every
--             writer of chunks stores these two.
-- Arguments:  language, title, body  see words(); lexemes of the title have weight A, of the body B
--             weighting              see weigh(): the collection's of now, read with FOR KEY SHARE
-- Volatility: immutable in the sense of words().
CREATE OR REPLACE FUNCTION pgseek.analyze(
    language text, title text, body text, weighting real[],
    OUT lexemes tsvector, OUT terms @vector@.sparsevec)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    lexemes := setweight(pgseek.words(language, body), 'B');
    IF title <> '' THEN
        lexemes := setweight(pgseek.words(language, title), 'A') || lexemes;
    END IF;
    terms := pgseek.weigh(lexemes, weighting);
END
$function$;
