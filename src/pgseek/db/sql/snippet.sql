-- Purpose:    the passages of a text that hold most of the words asked for, with these marked: the same lexemes
--             that score it, names whole, and pairs of letters where no spaces are written.
-- Arguments:  language   of the text
--             text
--             lexemes    what to mark
--             highlight  the two texts put around each mark; what is between them is not escaped
-- Returns:    a text of up to 240 characters whole, else its two best passages of half as many, joined by " … ";
--             the beginning if nothing is found
-- Volatility: stable.
CREATE OR REPLACE FUNCTION pgseek.snippet(language text, text text, lexemes text[], highlight text[])
RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    whole CONSTANT integer := 240;
    passage CONSTANT integer := 120;
    -- Occurrences of one word, and marks in all, that are looked at.
    looked_at CONSTANT integer := 12;
    marks_at_most CONSTANT integer := 60;
    -- Their stemmers leave the first letters alone, which spares stemming most words.
    keep_first CONSTANT text[] := '{simple,english,danish,finnish,french,german,hungarian,italian,norwegian,portuguese,romanian,russian,spanish,swedish,catalan,turkish}';
    camel_case CONSTANT text := '[a-z][A-Z]|[A-Z][A-Z][a-z]';
    configuration CONSTANT regconfig := language;
    letter CONSTANT text := pgseek.unspaced_letter();
    ascii CONSTANT boolean := octet_length(text) = length(text);
    camel CONSTANT boolean := text ~ camel_case;
    lowered text := lower(text);
    begins text;
    written text[];
    word text;
    bare boolean;
    at integer;
    seen integer;
    starts integer[] := '{}';
    ends integer[] := '{}';
    marked text[] := '{}';
    cuts integer[];
    result text := '';
    piece text;
    place integer;
    until integer;
BEGIN
    IF language = ANY (keep_first) THEN
        SELECT string_agg(DISTINCT left(u.lexeme, CASE WHEN length(u.lexeme) > 3 THEN 2 ELSE 1 END), '|') INTO begins
          FROM unnest(lexemes) AS u (lexeme) WHERE u.lexeme ~ '^[[:alnum:]]+$';
    ELSE
        begins := '[[:alnum:]]';
    END IF;
    IF length(lowered) <> length(text) THEN
        lowered := text;
    END IF;
    -- As written here: the words whose lexemes are asked for, and names that are lexemes themselves.
    SELECT array_agg(DISTINCT found.word) INTO written
      FROM (SELECT lower(token.word) AS word
              FROM (SELECT DISTINCT m[1] AS word FROM regexp_matches(text, '(?<![[:alnum:]])(?:' || begins || ')[[:alnum:]]*', 'gi') AS m) AS token
             WHERE tsvector_to_array(to_tsvector(configuration, token.word)) && lexemes
            UNION ALL
            SELECT lower(token.word)
              FROM (SELECT DISTINCT m[1] AS word FROM regexp_matches(text, '[A-Za-z0-9]*(?:' || camel_case || ')[A-Za-z0-9]*', 'g') AS m
                     WHERE camel) AS token
             WHERE tsvector_to_array(to_tsvector(configuration, regexp_replace(regexp_replace(
                       token.word, '([a-z0-9])([A-Z])', '\1 \2', 'g'), '([A-Z])([A-Z][a-z][a-z])', '\1 \2', 'g'))) && lexemes
            UNION ALL
            SELECT lower(token.word)
              FROM (SELECT DISTINCT m[1] AS word
                      FROM regexp_matches(pgseek.plain(text), '[[:alnum:]\u00AA-\u1FFF\u2C00-\uFFEF\U00010000-\U0010FFFF]+', 'g') AS m
                     WHERE NOT ascii) AS token
             WHERE octet_length(token.word) > length(token.word) AND tsvector_to_array(pgseek.words(language, token.word)) && lexemes
            UNION ALL
            SELECT u.lexeme FROM unnest(lexemes) AS u (lexeme) WHERE u.lexeme ~ '[-#$%&+./:@\\_~]') AS found;
    FOREACH word IN ARRAY coalesce(written, '{}') LOOP
        bare := word ~ letter;
        at := 1;
        seen := 0;
        LOOP
            place := strpos(substr(lowered, at), word);
            EXIT WHEN place = 0 OR seen = looked_at;
            at := at + place - 1;
            -- Only whole words, but for scripts that do not divide them.
            IF bare OR (substr(lowered, at - 1, CASE WHEN at = 1 THEN 0 ELSE 1 END) || substr(lowered, at + length(word), 1)) !~ '[[:alnum:]]' THEN
                starts := starts || at;
                ends := ends || at + length(word);
                marked := marked || word;
                seen := seen + 1;
            END IF;
            at := at + CASE WHEN bare THEN 1 ELSE length(word) END;
        END LOOP;
    END LOOP;
    IF starts = '{}' THEN
        RETURN left(text, whole);
    END IF;
    -- Marks that overlap, or have nothing but the signs of a name between them, are one.
    SELECT array_agg(m.start ORDER BY m.start), array_agg(m.stop ORDER BY m.start), array_agg(m.word ORDER BY m.start)
      INTO starts, ends, marked
      FROM (SELECT min(g.start) AS start, max(g.stop) AS stop, min(g.word) AS word
              FROM (SELECT o.*, count(*) FILTER (WHERE o.before IS NULL
                               OR o.start > o.before AND substr(text, o.before, o.start - o.before) !~ '^[-#$%&+./:@\\_~]+$') OVER (ORDER BY o.start, o.stop) AS mark
                      FROM (SELECT u.*, max(u.stop) OVER (ORDER BY u.start, u.stop ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                              FROM unnest(starts, ends, marked) AS u (start, stop, word)) AS o) AS g
             GROUP BY g.mark ORDER BY start LIMIT marks_at_most) AS m;

    IF length(text) <= whole THEN
        cuts := '{1}';
    ELSE
        WITH marks AS (
            SELECT u.start, u.word FROM unnest(starts, marked) AS u (start, word)),
        rated AS (
            SELECT m.start, (SELECT count(DISTINCT other.word) FROM marks other
                              WHERE other.start BETWEEN m.start AND m.start + passage - 40) AS words FROM marks m),
        first AS (
            SELECT r.start FROM rated r ORDER BY r.words DESC, r.start LIMIT 1),
        second AS (
            SELECT r.start FROM rated r, first WHERE abs(r.start - first.start) >= passage ORDER BY r.words DESC, r.start LIMIT 1)
        SELECT array_agg(least(greatest(1, chosen.start - 20), length(text) - passage + 1) ORDER BY chosen.start) INTO cuts
          FROM (SELECT start FROM first UNION ALL SELECT start FROM second) AS chosen;
    END IF;
    FOREACH place IN ARRAY cuts LOOP
        until := CASE WHEN length(text) <= whole THEN length(text) + 1 ELSE place + passage END;
        -- Words that a cut divides are left out.
        IF place > 1 THEN
            place := place + length(coalesce((regexp_match(substr(text, place, 16), '^\S*\s+'))[1], ''));
        END IF;
        IF until <= length(text) THEN
            until := until - length(coalesce((regexp_match(substr(text, until - 16, 16), '\s+\S*$'))[1], ''));
        END IF;
        piece := '';
        FOR i IN 1 .. cardinality(starts) LOOP
            CONTINUE WHEN starts[i] < place;
            EXIT WHEN ends[i] > until;
            piece := piece || substr(text, place, starts[i] - place) || highlight[1]
                || substr(text, starts[i], ends[i] - starts[i]) || highlight[2];
            place := ends[i];
        END LOOP;
        result := result || CASE WHEN result = '' THEN '' ELSE ' … ' END || piece || substr(text, place, until - place);
    END LOOP;
    RETURN result;
END
$function$;
