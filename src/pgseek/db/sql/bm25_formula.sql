-- Purpose:    part of the tsquery whose matches are the rows that can still reach a score: the rows
--             where the terms from number "term" on can add up to at least "need". It errs towards
--             more rows, never fewer.
-- Arguments:  term       the first term; terms are ordered by weight, heaviest first
--             need       what they must add up to
--             expected   rows expected to match what was required before
--             first      per term, its first level; one element more than there are terms to tell
--                        apart: of those after them only the sum is known
--             operand    per level, lowest first: the lexeme, then its impact marks, quoted
--             bound      per level: below this is what a row adds that is in no higher level
--             share      per level: its part of the collection
--             rest       per term: what it and all after it add at most; one more element, 0
--             whole      a branch expected to match at most this many rows is not divided further
-- Returns:    '' if no row can reach it, '*' if any may, else the text of a tsquery.
-- Volatility: immutable; recursive.
CREATE OR REPLACE FUNCTION pgseek.bm25_formula(
    term integer, need double precision, expected double precision,
    first integer[], operand text[], bound double precision[], share double precision[],
    rest double precision[], whole double precision)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    result text;
    covered text;
    part text;
    step integer;
    last integer := first[term + 1] - 1;
    level integer := first[term];
BEGIN
    IF need <= 0 THEN
        RETURN '*';
    ELSIF need > rest[term] THEN
        RETURN '';
    ELSIF expected <= whole OR term >= cardinality(first) THEN
        RETURN '*';
    END IF;
    result := pgseek.bm25_formula(term + 1, need, expected, first, operand, bound, share, rest, whole);
    IF result = '*' THEN
        RETURN '*';
    END IF;
    covered := result;
    step := pgseek.bm25_step(expected * share[level]);
    WHILE level <= last LOOP
        part := pgseek.bm25_formula(term + 1, need - bound[least(level + step - 1, last)], expected * share[level],
            first, operand, bound, share, rest, whole);
        IF part = '*' THEN
            RETURN CASE WHEN result = '' THEN operand[level] ELSE result || '|' || operand[level] END;
        ELSIF part <> covered THEN
            result := CASE WHEN result = '' THEN '' ELSE result || '|' END || operand[level] || '&(' || part || ')';
            covered := part;
        END IF;
        level := level + step;
    END LOOP;
    RETURN result;
END
$function$;
