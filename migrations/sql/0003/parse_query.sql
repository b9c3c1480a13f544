-- Purpose:    read a query: what to score, and what every hit must or must not have.
-- Arguments:  collection_id, languages  of the collection
--             query
--             syntax  'web': "words in quotes" stand side by side, +word must be there, -word must not, word* stands
--                     for words that begin so; everything else is looked for, the more the better. A sign before a
--                     number belongs to the number, and a query of nothing but exclusions is plain.
--                     'plain': no sign has a meaning
--             typos   whether a word that no chunk has is replaced by the likeliest one that some have
-- Returns:    lexemes, frequencies  what to score, see bm25_bag(); of several languages, each once
--             origins      per lexeme: the word or prefix as typed, if the lexeme stands for another; else NULL
--             restriction  what the lexemes of a hit must match, or NULL
--             required     lexemes that each match of the restriction has
-- Errors:     PGS02 more than 32 words that end in *
-- Volatility: stable. Index: term_statistics_pkey, with prefixes and typos.
CREATE OR REPLACE FUNCTION pgseek.parse_query(
    collection_id integer, languages text[], query text, syntax text DEFAULT 'web', typos boolean DEFAULT true,
    OUT lexemes text[], OUT frequencies double precision[], OUT origins text[],
    OUT restriction tsquery, OUT required text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    token text[];
    sign text;
    wanted text := '';
    excluded tsquery;
    part tsquery;
    must text := '';
    prefixes text[] := '{}';
    most_prefixes CONSTANT integer := 32;
    started_words integer := 0;
    letter CONSTANT text := pgseek.unspaced_letter();
    plain text := query;
    found record;
    other record;
    name text;
BEGIN
    required := '{}';
    IF syntax = 'web' AND query ~ '["“”„*]|(^|\s)[-+][^\s\d]' THEN
        FOR token IN
            SELECT regexp_matches(translate(query, '“”„', '"""'), '([-+]?)(?:"([^"]+)"|(\S+))', 'g')
        LOOP
            sign := token[1];
            IF token[2] IS NOT NULL THEN
                part := pgseek.match_all(languages, token[2], true);
                IF sign = '-' THEN
                    excluded := coalesce(excluded || part, excluded, part);
                ELSE
                    wanted := wanted || ' ' || token[2];
                    must := must || ' ' || token[2];
                    restriction := coalesce(restriction && part, restriction, part);
                END IF;
            ELSIF token[3] ~ '^[[:alnum:]].*[[:alnum:]_]\*$' THEN
                name := pgseek.fold(lower(rtrim(token[3], '*')));
                IF sign <> '' THEN
                    part := (pgseek.quote_lexeme(name) || ':*')::tsquery;
                    SELECT coalesce(part || string_agg(pgseek.quote_lexeme(e.lexeme), ' | ')::tsquery, part) INTO part
                      FROM pgseek.expand_prefix(collection_id, languages, name) e WHERE NOT starts_with(e.lexeme, name);
                END IF;
                CASE sign
                    WHEN '-' THEN excluded := coalesce(excluded || part, part);
                    WHEN '+' THEN restriction := coalesce(restriction && part, part);
                    ELSE NULL;
                END CASE;
                IF sign <> '-' THEN
                    prefixes := prefixes || name;
                END IF;
                -- Each is looked up; a query of thousands would take seconds.
                started_words := started_words + 1;
                IF started_words > most_prefixes THEN
                    RAISE EXCEPTION 'the query has more than % words that end in *', most_prefixes
                        USING ERRCODE = 'PGS02', HINT = 'use fewer, or syntax => ''plain'', in which * has no meaning';
                END IF;
            ELSIF sign <> '' AND token[3] ~ '^[^-+\d]*[[:alpha:]]' THEN
                part := pgseek.match_all(languages, token[3]);
                IF sign = '-' THEN
                    excluded := coalesce(excluded || part, excluded, part);
                ELSE
                    wanted := wanted || ' ' || token[3];
                    must := must || ' ' || token[3];
                    restriction := coalesce(restriction && part, restriction, part);
                END IF;
            ELSE
                wanted := wanted || ' ' || sign || token[3];
            END IF;
        END LOOP;
        IF wanted = '' AND prefixes = '{}' THEN
            excluded := NULL;
        ELSE
            plain := wanted;
        END IF;
        IF excluded IS NOT NULL THEN
            restriction := coalesce(restriction && !!excluded, !!excluded);
        END IF;
        IF cardinality(languages) = 1 THEN
            required := (pgseek.bm25_bag(languages, must)).lexemes;
        END IF;
    END IF;
    SELECT b.lexemes, b.frequencies INTO lexemes, frequencies FROM pgseek.bm25_bag(languages, plain) b;
    origins := array_fill(NULL::text, ARRAY[cardinality(lexemes)]);

    -- One letter by itself in a script without spaces is the beginning of a pair.
    IF plain ~ letter THEN
        SELECT prefixes || ARRAY(
            SELECT DISTINCT run[1] FROM regexp_matches(plain, '((?:' || letter || ')+)', 'g') AS run
             WHERE run[1] ~ ('^(?:' || letter || ')$') LIMIT most_prefixes) INTO prefixes;
    END IF;
    FOREACH name IN ARRAY prefixes LOOP
        FOR found IN SELECT e.lexeme, e.frequency FROM pgseek.expand_prefix(collection_id, languages, name) e LOOP
            CONTINUE WHEN found.lexeme = ANY (lexemes);
            lexemes := lexemes || found.lexeme;
            frequencies := frequencies || found.frequency;
            origins := origins || (name || '*');
        END LOOP;
    END LOOP;

    -- A single name, pasted: the whole of it weighs as much as all its parts.
    IF plain !~ '\S\s+\S' AND cardinality(lexemes) > 1 AND prefixes = '{}' THEN
        FOR i IN 1 .. cardinality(lexemes) LOOP
            IF lexemes[i] ~ '[-#$%&+./:@\\_~]' AND length(lexemes[i]) = (SELECT max(length(u.lexeme)) FROM unnest(lexemes) AS u (lexeme)) THEN
                frequencies[i] := cardinality(lexemes);
            END IF;
        END LOOP;
    END IF;

    IF typos AND EXISTS (
            SELECT FROM unnest(lexemes) AS u (lexeme)
             WHERE u.lexeme ~ '^[[:alpha:]]{3,}$' AND NOT EXISTS (
                   SELECT FROM pgseek.term_statistics s WHERE s.collection_id = collection_id AND s.lexeme = u.lexeme)) THEN
        FOR found IN
            SELECT typed.word, typed.stems FROM (
                SELECT word, (pgseek.bm25_bag(languages, word)).lexemes AS stems
                  FROM (SELECT DISTINCT lower(run[1]) AS word
                          FROM regexp_matches(pgseek.plain(plain, false), '(?<![[:alnum:]])[[:alpha:]]{4,40}(?![[:alnum:]])', 'g') AS run
                         LIMIT 32) AS words OFFSET 0) AS typed
             WHERE typed.stems <> '{}'
               AND NOT EXISTS (SELECT FROM unnest(typed.stems) AS stem
                                WHERE EXISTS (SELECT FROM pgseek.term_statistics s WHERE s.collection_id = collection_id AND s.lexeme = stem))
               AND (pgseek.bm25_terms(collection_id, typed.stems, array_fill(1::double precision, ARRAY[cardinality(typed.stems)]))).known IS NULL
             LIMIT 3
        LOOP
            FOR other IN SELECT c.lexeme, c.frequency FROM pgseek.correct_word(collection_id, languages, found.word) c LOOP
                CONTINUE WHEN other.lexeme = ANY (lexemes);
                lexemes := lexemes || other.lexeme;
                frequencies := frequencies || other.frequency;
                origins := origins || found.word;
            END LOOP;
        END LOOP;
    END IF;
END
$function$;
