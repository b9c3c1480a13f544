-- Purpose:    a text as the parser should see it. PostgreSQL's parser takes functools.lru, -4021 and a/b for a
--             host, a number and a file, each one lexeme; with these signs as spaces it sees words only, and
--             names are added whole by words(). Scripts written without spaces (Chinese, Japanese, Korean, Thai,
--             Lao, Khmer, Burmese) become overlapping pairs of letters: ABC is read as A AB BC C.
-- Arguments:  text
--             edges  whether the first and the last letter of such a run stand alone too. They let one letter
--                    be found as the beginning of a pair; queries and phrases leave them out.
-- Returns:    text; with ASCII input as long as the input, character for character
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.plain(text text, edges boolean DEFAULT true)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    letter text;
BEGIN
    IF octet_length(text) <> length(text) THEN
        letter := pgseek.unspaced_letter();
        -- Compatible forms become plain ones: ligatures, full-width letters, subscripts. What would become
        -- letters that are none goes first. Dashes and quotes are named because a database with the locale
        -- C takes every character beyond ASCII for a letter.
        text := regexp_replace(text, '[™℠®©]', ' ', 'g');
        IF text IS NOT NFKC NORMALIZED THEN
            text := normalize(text, NFKC);
        END IF;
        text := regexp_replace(text, '[\u2010-\u206F«»¡¿·•、。〈-】〔-〟・｡،؛؟]', ' ', 'g');
        IF text ~ letter THEN
            text := regexp_replace(text, '((?:' || letter || ')+)', ' \1 ', 'g');
            text := regexp_replace(text, '(' || letter || ')', '\1 \1', 'g');
            IF NOT edges THEN
                text := regexp_replace(text, '(^|\s)(?:' || letter || ')(?=\s|$)', '\1', 'g');
            END IF;
        END IF;
    END IF;
    -- C++ and C# are names of their own, not the word C.
    IF strpos(text, '#') > 0 OR strpos(text, '++') > 0 THEN
        text := regexp_replace(text, '\m[A-Za-z]#(?!\w)', '  ', 'g');
        text := regexp_replace(text, '\m[A-Za-z]\+\+(?!\w)', '   ', 'g');
    END IF;
    -- The other signs are spaces to the parser as they are.
    -- (A chain of replace() is many times faster than translate() or a regular expression.)
    RETURN replace(replace(replace(replace(replace(replace(replace(replace(replace(
        text, '-', ' '), '.', ' '), '/', ' '), '_', ' '), '@', ' '), '+', ' '), '&', ' '), '<', ' '), '~', ' ');
END
$function$;
