-- Purpose:    what prefix* stands for: the lexemes of a collection that begin with it, weighed as one word that
--             occurs wherever one of them does (by itself the rarest would come first). Lexemes are stems, which
--             may be shorter than the prefix: if none begins with it, its own stem, or else the longest lexeme
--             that it begins with.
-- Arguments:  collection_id
--             languages  of the collection
--             prefix     lower case
--             at_most    lexemes, the most frequent ones
-- Returns:    lexeme, and the frequency that makes it weigh as the group does
-- Ordering:   chunks descending, lexeme.
-- Volatility: stable. Index: see vocabulary().
CREATE OR REPLACE FUNCTION pgseek.expand_prefix(
    collection_id integer, languages text[], prefix text, at_most integer DEFAULT 64)
RETURNS TABLE (lexeme text, frequency double precision)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    total double precision;
    begun text[] := ARRAY[prefix];
BEGIN
    SELECT greatest(s.chunks, 1) INTO total FROM pgseek.collection_statistics s WHERE s.collection_id = collection_id;
    IF NOT EXISTS (SELECT FROM pgseek.vocabulary(collection_id, prefix, 1)) THEN
        begun := (pgseek.bm25_bag(languages, prefix)).lexemes;
        FOR at IN REVERSE length(prefix) - 1 .. greatest(3, length(prefix) - 5) LOOP
            EXIT WHEN EXISTS (SELECT FROM unnest(begun) AS stem, pgseek.vocabulary(collection_id, stem, 1));
            begun := ARRAY[left(prefix, at)];
        END LOOP;
    END IF;
    RETURN QUERY
    SELECT w.lexeme, ln(1 + (total - w.together + 0.5::double precision) / (w.together + 0.5::double precision))
                     / ln(1 + (total - w.chunks + 0.5::double precision) / (w.chunks + 0.5::double precision))
      FROM (SELECT v.lexeme, least(total, greatest(v.chunks, 1)) AS chunks,
                   least(total, sum(greatest(v.chunks, 1)) OVER ()) AS together
              FROM unnest(begun) AS stem, pgseek.vocabulary(collection_id, stem, at_most) v
             WHERE starts_with(v.lexeme, prefix) OR v.lexeme = stem) AS w
     ORDER BY w.chunks DESC, w.lexeme COLLATE "C" LIMIT at_most;
END
$function$;
