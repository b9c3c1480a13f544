-- Purpose:    of what kind a query is, for the weight of its legs: names are found by their letters, questions by what
--             they mean.
-- Arguments:  query
-- Returns:    'question'    with a question mark, or a question word or an auxiliary verb at its beginning (English,
--                           German, French, Spanish, Italian)
--             'identifier'  more than a tenth of its words look like names, paths, versions or numbers
--             'short'       seven words or fewer
--             'other'
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.query_kind(query text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    words CONSTANT text[] := regexp_split_to_array(btrim(query), '\s+');
    names CONSTANT bigint := (SELECT count(*) FROM unnest(words) AS w WHERE w ~ '[a-z][A-Z]|[._/\\:]\w|\d|_');
BEGIN
    RETURN CASE
        WHEN query ~ '\?' OR lower(query) ~ ('^\W*(who|whom|whose|what|when|where|why|how|which|is|are|was|were|do|does|did|can|could'
            '|should|will|wer|wen|wem|wessen|wann|wo|woher|wohin|warum|wieso|wie|welche[rsnm]?|qui|que|quoi|quand|où|pourquoi'
            '|comment|quel(le)?s?|quién|qué|cuándo|dónde|cómo|cuál|chi|che|quando|dove|perché|come|quale)\M') THEN 'question'
        WHEN names > cardinality(words) * 0.1 THEN 'identifier'
        WHEN cardinality(words) <= 7 THEN 'short'
        ELSE 'other' END;
END
$function$;
