-- Purpose:    what prefix* stands for: the lexemes of a collection that begin with it, weighed as one word that
--             occurs wherever one of them does (by itself the rarest would come first).
-- Arguments:  collection_id
--             prefix   lower case
--             at_most  lexemes, the most frequent ones
-- Returns:    lexeme, and the frequency that makes it weigh as the group does
-- Ordering:   chunks descending, lexeme.
-- Volatility: stable. Index: see vocabulary().
CREATE OR REPLACE FUNCTION pgseek.expand_prefix(collection_id integer, prefix text, at_most integer DEFAULT 64)
RETURNS TABLE (lexeme text, frequency double precision)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    total double precision;
BEGIN
    SELECT greatest(s.chunks, 1) INTO total FROM pgseek.collection_statistics s WHERE s.collection_id = collection_id;
    RETURN QUERY
    SELECT w.lexeme, ln(1 + (total - w.together + 0.5::double precision) / (w.together + 0.5::double precision))
                     / ln(1 + (total - w.chunks + 0.5::double precision) / (w.chunks + 0.5::double precision))
      FROM (SELECT v.lexeme, least(total, greatest(v.chunks, 1)) AS chunks,
                   least(total, sum(greatest(v.chunks, 1)) OVER ()) AS together
              FROM pgseek.vocabulary(collection_id, prefix, at_most) v) AS w
     ORDER BY w.chunks DESC, w.lexeme COLLATE "C";
END
$function$;
