-- Purpose:    conditions that every chunk fulfils which has one lexeme, the lead, none of those before it, and a
--             score of at least "need"; and that few others fulfil. Each is a set of codes of which a chunk must
--             have one. They come from caps: give each lexeme a level so that a chunk in which none passes its
--             cap cannot reach the need; then some lexeme must pass its cap. Every choice of caps gives a
--             condition; those chosen shut out the likeliest combinations that fall short: the lead alone, with
--             one other lexeme, with two.
-- Arguments:  collection_id
--             lead        number of the lexeme; they are ordered by weight, heaviest first
--             need        the score
--             dimensions, weights, counts  per lexeme, see bm25_candidates()
--             total, bounds, shares        see bm25_candidates()
--             at_most     conditions
-- Returns:    codes of a condition, and the chunks that fulfil it, about
-- Ordering:   fewest chunks first.
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.bm25_clauses(
    collection_id integer, lead integer, need double precision,
    dimensions integer[], weights double precision[], counts double precision[], total double precision,
    bounds double precision[], shares double precision[], at_most integer DEFAULT 5)
RETURNS TABLE (codes integer[], postings double precision)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    -- Lexemes told apart; those after them count with all they could add.
    last CONSTANT integer := least(cardinality(weights), lead + 12);
    top CONSTANT integer := cardinality(bounds);
    affinity CONSTANT double precision := 3;
    -- Combinations of fewer chunks, or beyond the first so many, are not worth a condition.
    worth CONSTANT double precision := 30;
    looked_at CONSTANT integer := 30;
    -- A combination: up to two lexemes besides the lead (0: none), the highest level at which it falls short
    -- with every lexeme, and the chunks it is expected in.
    others1 integer[] := '{}';
    others2 integer[] := '{}';
    levels integer[] := '{}';
    masses double precision[] := '{}';
    patterns integer := 0;
    ranked integer[];
    covered boolean[];
    caps integer[];
    remaining double precision;
    cost double precision;
    mass double precision;
    weight double precision;
    level integer;
    other1 integer;
    other2 integer;
    pattern integer;
    made integer := 0;
BEGIN
    FOR i IN last + 1 .. cardinality(weights) LOOP
        need := need - weights[i];
    END LOOP;
    -- Weights are single precision, so a bound may fall short of a score by its last digits.
    need := need * (1 - 1e-6::double precision);
    FOR j IN lead .. last LOOP
        mass := CASE WHEN j = lead THEN counts[lead] ELSE counts[lead] * counts[j] / total * affinity END;
        CONTINUE WHEN mass < worth;
        weight := weights[lead] + CASE WHEN j = lead THEN 0 ELSE weights[j] END;
        level := 0;
        WHILE level < top AND weight * bounds[level + 1] < need LOOP
            level := level + 1;
        END LOOP;
        CONTINUE WHEN level = 0;
        patterns := patterns + 1;
        others1[patterns] := CASE WHEN j = lead THEN 0 ELSE j END;
        others2[patterns] := 0;
        levels[patterns] := level;
        masses[patterns] := mass * (1 - CASE WHEN level < top THEN shares[level + 1] ELSE 0 END);
        CONTINUE WHEN j = lead;
        FOR k IN j + 1 .. last LOOP
            mass := counts[lead] * counts[j] / total * counts[k] / total * affinity * affinity;
            CONTINUE WHEN mass < worth;
            level := 0;
            WHILE level < top AND (weight + weights[k]) * bounds[level + 1] < need LOOP
                level := level + 1;
            END LOOP;
            CONTINUE WHEN level = 0;
            patterns := patterns + 1;
            others1[patterns] := j;
            others2[patterns] := k;
            levels[patterns] := level;
            masses[patterns] := mass * (1 - CASE WHEN level < top THEN shares[level + 1] ELSE 0 END);
        END LOOP;
    END LOOP;
    IF patterns = 0 THEN
        RETURN;
    END IF;
    SELECT array_agg(u.pattern ORDER BY u.mass DESC, u.pattern) INTO ranked
      FROM unnest(masses) WITH ORDINALITY AS u (mass, pattern);
    patterns := least(patterns, looked_at);
    covered := array_fill(false, ARRAY[cardinality(ranked)]);
    FOR seed IN 1 .. patterns LOOP
        CONTINUE WHEN covered[ranked[seed]];
        EXIT WHEN made >= at_most;
        caps := array_fill(0, ARRAY[last]);
        remaining := need;
        FOR place IN seed .. patterns LOOP
            pattern := ranked[place];
            CONTINUE WHEN covered[pattern];
            level := levels[pattern];
            other1 := others1[pattern];
            other2 := others2[pattern];
            cost := 0;
            IF caps[lead] < level THEN
                cost := weights[lead] * (bounds[level] - CASE WHEN caps[lead] > 0 THEN bounds[caps[lead]] ELSE 0 END);
            END IF;
            IF other1 > 0 AND caps[other1] < level THEN
                cost := cost + weights[other1] * (bounds[level] - CASE WHEN caps[other1] > 0 THEN bounds[caps[other1]] ELSE 0 END);
            END IF;
            IF other2 > 0 AND caps[other2] < level THEN
                cost := cost + weights[other2] * (bounds[level] - CASE WHEN caps[other2] > 0 THEN bounds[caps[other2]] ELSE 0 END);
            END IF;
            CONTINUE WHEN cost >= remaining;
            remaining := remaining - cost;
            caps[lead] := greatest(caps[lead], level);
            IF other1 > 0 THEN
                caps[other1] := greatest(caps[other1], level);
            END IF;
            IF other2 > 0 THEN
                caps[other2] := greatest(caps[other2], level);
            END IF;
            covered[pattern] := true;
        END LOOP;
        -- What is left goes to the lightest lexemes, which have the most rows.
        FOR i IN REVERSE last .. lead LOOP
            weight := CASE WHEN caps[i] > 0 THEN bounds[caps[i]] ELSE 0 END;
            level := caps[i];
            WHILE level < top AND weights[i] * (bounds[level + 1] - weight) < remaining LOOP
                level := level + 1;
            END LOOP;
            IF level > caps[i] THEN
                remaining := remaining - weights[i] * (bounds[level] - weight);
                caps[i] := level;
            END IF;
        END LOOP;
        codes := '{}';
        postings := 0;
        FOR i IN lead .. last LOOP
            IF caps[i] < top THEN
                codes := codes || pgseek.bm25_code(collection_id, dimensions[i], caps[i]);
                postings := postings + counts[i] * shares[caps[i] + 1];
            END IF;
        END LOOP;
        made := made + 1;
        RETURN NEXT;
    END LOOP;
END
$function$;
