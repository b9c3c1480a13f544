-- Purpose:    the factor by which a document's metadata raises or lowers its score.
-- Arguments:  metadata  of the document
--             boosts    an array of objects, whose factors are multiplied; each is one of
--                 {"when": jsonpath predicate, "factor": number}            the factor where it holds, else 1
--                 {"newer": field, "half_life": days, "weight": 0..1, "at": date}
--                     1 - weight + weight * 0.5 ^ (age / half_life); weight is 1 by default, at the time of the statement.
--                     The field holds an ISO 8601 text or seconds since 1970; without it a document counts as one
--                     half_life old, and one of the future as new
--                 {"field": field, "scale": "linear" | "sqrt" | "log" | "saturate", "weight": number, "pivot": number}
--                     1 + weight * f(x): x, its root, ln(1 + x), or x / (x + pivot); weight is 1 by default; 1 where
--                     the field holds no number. Below 0 counts as 0 but for linear
--                 {"expression": jsonpath that yields a number, such as "1 + 0.1 * $.rating"}    1 where it yields none
--             at        the time that ages are counted to
-- Returns:    0 or more, at most 1e100; 1 leaves the score as it is. A field "a.b" is b within a. Numbers of metadata count
--             as 1e100 at most, so that no document's keeps a search from being answered.
-- Errors:     PGS02 a boost that is none of these, or with another key or value
-- Volatility: immutable: it reads no table.
CREATE OR REPLACE FUNCTION pgseek.boost(metadata jsonb, boosts jsonb, at timestamptz)
RETURNS double precision
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    result double precision := 1;
    one jsonb;
    kind text;
    allowed jsonb;
    value jsonb;
    x double precision;
    weight double precision;
    factor double precision;
    now double precision := extract(epoch FROM at);
    largest CONSTANT double precision := 1e100;
BEGIN
    IF jsonb_typeof(boosts) <> 'array' THEN
        RAISE EXCEPTION 'boosts is %, but must be an array of objects', boosts
            USING ERRCODE = 'PGS02', HINT = '[{"when": "$.pinned == true", "factor": 2}], say';
    END IF;
    FOR one IN SELECT * FROM jsonb_array_elements(boosts) LOOP
        kind := CASE WHEN jsonb_typeof(one) <> 'object' THEN NULL WHEN one ? 'when' THEN 'when' WHEN one ? 'newer' THEN 'newer'
            WHEN one ? 'field' THEN 'field' WHEN one ? 'expression' THEN 'expression' END;
        -- What each key must be.
        allowed := CASE kind WHEN 'when' THEN '{"when": "string", "factor": "number"}'
            WHEN 'newer' THEN '{"newer": "string", "half_life": "number", "weight": "number", "at": "string"}'
            WHEN 'field' THEN '{"field": "string", "scale": "string", "weight": "number", "pivot": "number"}'
            WHEN 'expression' THEN '{"expression": "string"}' END;
        IF kind IS NULL OR EXISTS (SELECT FROM jsonb_each(one) AS e WHERE jsonb_typeof(e.value) IS DISTINCT FROM allowed ->> e.key) THEN
            RAISE EXCEPTION 'the boost % is not one that can be computed', one USING ERRCODE = 'PGS02',
                HINT = coalesce('with ' || quote_literal(kind) || ' go ' || allowed,
                    'a boost is an object with one of the keys "when", "newer", "field" and "expression"');
        END IF;
        weight := least(greatest(coalesce((one ->> 'weight')::double precision, 1), -largest), largest);
        CASE kind
        WHEN 'when' THEN
            factor := (one ->> 'factor')::double precision;
            IF factor IS NULL OR factor < 0 THEN
                RAISE EXCEPTION 'the boost % needs a factor of 0 or more', one USING ERRCODE = 'PGS02';
            END IF;
            factor := CASE WHEN metadata @@ (one ->> 'when')::jsonpath THEN factor ELSE 1 END;
        WHEN 'expression' THEN
            value := jsonb_path_query_first(metadata, (one ->> 'expression')::jsonpath, silent => true);
            factor := CASE WHEN jsonb_typeof(value) = 'number' THEN pgseek.seconds(value) ELSE 1 END;
        WHEN 'newer' THEN
            IF NOT coalesce((one ->> 'half_life')::double precision > 0, false) THEN
                RAISE EXCEPTION 'the boost % needs a half_life above 0, in days', one USING ERRCODE = 'PGS02';
            ELSIF weight NOT BETWEEN 0 AND 1 THEN
                RAISE EXCEPTION 'the boost % has a weight outside of 0..1', one USING ERRCODE = 'PGS02';
            ELSIF one ? 'at' AND pgseek.seconds(one -> 'at') IS NULL THEN
                RAISE EXCEPTION 'the boost % has an "at" that is not a date such as 2026-01-31', one USING ERRCODE = 'PGS02';
            END IF;
            x := coalesce(pgseek.seconds(one -> 'at'), now) - pgseek.seconds(metadata #> string_to_array(one ->> 'newer', '.'));
            x := greatest(coalesce(x / 86400 / greatest((one ->> 'half_life')::double precision, 1 / largest), 1), 0);
            -- Beyond that it is zero, and power() would underflow.
            factor := 1 - weight + CASE WHEN x < 1000 THEN weight * power(0.5::double precision, x) ELSE 0 END;
        WHEN 'field' THEN
            IF coalesce(one ->> 'scale', 'linear') NOT IN ('linear', 'sqrt', 'log', 'saturate') THEN
                RAISE EXCEPTION 'the boost % has the scale %, but there are linear, sqrt, log and saturate', one,
                    quote_literal(one ->> 'scale') USING ERRCODE = 'PGS02';
            ELSIF one ->> 'scale' = 'saturate' AND NOT coalesce((one ->> 'pivot')::double precision > 0, false) THEN
                RAISE EXCEPTION 'the boost % needs a pivot above 0: the value that counts half', one USING ERRCODE = 'PGS02';
            END IF;
            value := metadata #> string_to_array(one ->> 'field', '.');
            -- A number is a number of seconds, whatever it counts.
            x := CASE WHEN jsonb_typeof(value) = 'number' THEN pgseek.seconds(value) END;
            factor := 1 + weight * CASE coalesce(one ->> 'scale', 'linear')
                WHEN 'linear' THEN x WHEN 'sqrt' THEN sqrt(greatest(x, 0)) WHEN 'log' THEN ln(1 + greatest(x, 0))
                ELSE greatest(x, 0) / (greatest(x, 0) + (one ->> 'pivot')::double precision) END;
        END CASE;
        result := least(result * least(greatest(coalesce(factor, 1), 0), largest), largest);
    END LOOP;
    RETURN result;
END
$function$;
