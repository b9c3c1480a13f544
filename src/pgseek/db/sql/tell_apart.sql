-- Purpose:    why two questions cannot have the same answer, however near their vectors are: "cancel order 123" and "cancel
--             order 124", "enable" and "disable". find_answer() asks it before it serves the answer of another question.
-- Arguments:  one, other
-- Returns:    NULL if nothing tells them apart, else what does, as text. Numbers, identifiers and negations must be the
--             same in both. Of opposites, and of what is asked for (who, when, …), the two must not have different ones.
--             Names tell apart if each question has one that the other does not mention.
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.tell_apart(one text, other text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    a CONSTANT text[] := pgseek.query_marks(one);
    b CONSTANT text[] := pgseek.query_marks(other);
    differing record;
    only_a text;
    only_b text;
BEGIN
    FOR differing IN
        SELECT k.kind, array_agg(k.value ORDER BY k.value) FILTER (WHERE k.whose = 1) AS a, array_agg(k.value ORDER BY k.value) FILTER (WHERE k.whose = 2) AS b
          FROM (SELECT split_part(m, ':', 1) AS kind, substr(m, strpos(m, ':') + 1) AS value, 1 AS whose FROM unnest(a) AS m
                UNION ALL SELECT split_part(m, ':', 1), substr(m, strpos(m, ':') + 1), 2 FROM unnest(b) AS m) AS k
         WHERE k.kind <> 'name' GROUP BY k.kind ORDER BY k.kind
    LOOP
        IF differing.kind IN ('token', 'not') THEN
            CONTINUE WHEN differing.a IS NOT DISTINCT FROM differing.b;
        ELSE
            CONTINUE WHEN differing.a IS NULL OR differing.b IS NULL OR differing.a && differing.b;
        END IF;
        RETURN CASE differing.kind WHEN 'not' THEN 'a negation in one of them'
            ELSE format('%s and %s', coalesce(array_to_string(differing.a, ', '), 'nothing'), coalesce(array_to_string(differing.b, ', '), 'nothing')) END;
    END LOOP;
    SELECT substr(m, 6) INTO only_a FROM unnest(a) AS m WHERE m LIKE 'name:%' AND strpos(lower(other), substr(m, 6)) = 0 ORDER BY m LIMIT 1;
    SELECT substr(m, 6) INTO only_b FROM unnest(b) AS m WHERE m LIKE 'name:%' AND strpos(lower(one), substr(m, 6)) = 0 ORDER BY m LIMIT 1;
    RETURN only_a || ' and ' || only_b;
END
$function$;
