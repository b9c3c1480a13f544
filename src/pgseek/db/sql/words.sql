-- Purpose:    the lexemes of a text: its words, the parts of names in camel case, and every name as written.
--             "functools.lru_cache" gives functool, lru, cach and functools.lru_cache; "path/to/file.py" also
--             file.py; "NameNode" also name, node and namenode. A name holds a sign of -#$%&+./:@\_~ between
--             or before its letters, in lower case. Accents are folded: before the stemmer where it knows no
--             accents, else after it.
-- Arguments:  language  text-search configuration by name. The name is stored, not a regconfig: pg_upgrade
--                       refuses clusters with regconfig columns
--             text
--             edges     as in plain()
-- Returns:    tsvector; words have their places in the text, parts and names later ones
-- Volatility: immutable, as to_tsvector(regconfig, text) itself: it changes when somebody edits the
--             configuration, and then needs a rewrite of the chunks.
CREATE OR REPLACE FUNCTION pgseek.words(language text, text text, edges boolean DEFAULT true)
RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    configuration regconfig := language;
    plain text := pgseek.plain(text, edges);
    ascii CONSTANT boolean := octet_length(text) = length(text);
    folded_first CONSTANT boolean := NOT ascii AND language IN ('english', 'simple');
    words tsvector;
    names text;
    parts text;
BEGIN
    words := to_tsvector(configuration, CASE WHEN folded_first THEN pgseek.fold(plain) ELSE plain END);
    IF plain ~ '[a-z][A-Z]|[A-Z][A-Z][a-z][a-z]' THEN
        SELECT string_agg(split.parts, ' '),
               -- The stemmer takes two names for one (getUser, getUsers): then the name as written counts too.
               string_agg('''' || split.name || ''':' || split.place, ' ')
                   -- (Encoded data looks like one long name.)
                   FILTER (WHERE octet_length(split.name) <= 255
                       AND NOT split.name = ANY (tsvector_to_array(to_tsvector(configuration, split.name))))
          INTO parts, names
          FROM (SELECT lower(matched.name[1]) AS name, least(matched.place, 16383) AS place,
                       regexp_replace(regexp_replace(matched.name[1], '([a-z0-9])([A-Z])', '\1 \2', 'g'),
                           '([A-Z])([A-Z][a-z][a-z])', '\1 \2', 'g') AS parts
                  FROM regexp_matches(plain, '[A-Za-z0-9]*(?:[a-z][A-Z]|[A-Z][A-Z][a-z][a-z])[A-Za-z0-9]*', 'g')
                       WITH ORDINALITY AS matched (name, place) OFFSET 0) AS split;
        words := words || to_tsvector(configuration, parts) || coalesce(names, '')::tsvector;
    END IF;
    IF text ~ '\S[-#$%&+./:@\\_~]\S|[#$@~._]\S|\S[#+_]' THEN
        SELECT string_agg('''' || replace(lower(found.name), '\', '\\') || ''':' || found.place, ' ')
          INTO names
          FROM (SELECT part.name, whole.place
                  FROM (SELECT rtrim(ltrim(matched.name[1], '-:+&%\'), '.:-/&\~$@%') AS name,
                               least(matched.place, 16383) AS place
                          -- (Not the end of a tag.)
                          FROM regexp_matches(text,
                                   '(?<!<)[^\s,;()\[\]{}<>"''`!?|*^=“”„‘’«»…]*[-#$%&+./:@\\_~][^\s,;()\[\]{}<>"''`!?|*^=“”„‘’«»…]*', 'g')
                               WITH ORDINALITY AS matched (name, place) OFFSET 0) AS whole,
                       LATERAL (
                           SELECT whole.name
                           -- The names in a name: of a path its file, of an address its host.
                           UNION ALL
                           SELECT btrim(piece, '.') FROM regexp_split_to_table(whole.name, '[-/@:#&\\+]') AS piece
                            WHERE whole.name ~ '[-/@:#&\\+].*[._$~]|[._$~].*[-/@:#&\\+]' AND btrim(piece, '.') ~ '[._$~]') AS part
                 WHERE octet_length(part.name) BETWEEN 2 AND 255) AS found
         WHERE found.name ~ '[-#$%&+./:@\\_~]' AND found.name ~ '[^-#$%&+./:@\\_~]';
        words := words || coalesce(names, '')::tsvector;
    END IF;
    IF NOT ascii AND words::text ~ '[\u00C0-\u024F\u1E00-\u1EFF]' THEN
        words := pgseek.fold(words::text)::tsvector;
    END IF;
    RETURN words;
END
$function$;
