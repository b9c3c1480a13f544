-- Purpose:    what a filter asks of fields that have an index, in the form that the index answers. The filter
--             implies it and is asked besides: it spares reading documents, and decides nothing.
-- Arguments:  collection_id
--             filter         jsonpath predicate over metadata
--             of_row         the alias of the table of documents
-- Returns:    conditions of SQL, each with AND before it; '' where no part of the filter can be answered so. Parts are
--             comparisons of a field with a text or a number (==, <, <=, >, >=, starts with) that must all hold, and
--             parts of which one must hold, if all of them can.
-- Volatility: stable. Index: primary key of collections.
CREATE OR REPLACE FUNCTION pgseek.filter_conditions(collection_id integer, filter jsonpath, of_row text DEFAULT 'd')
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    -- As in metadata_text().
    longest CONSTANT integer := 200;
    written CONSTANT text := filter::text;
    indexes jsonb;
    token text[];
    -- Comparisons: a key path, a sign, a value as written; whether it begins a group of which one must hold.
    paths text[] := '{}';
    signs text[] := '{}';
    literals text[] := '{}';
    begins boolean[] := '{}';
    n integer := 0;
    -- Open parentheses: what joins their operands, whether both signs do, whether an operand joined by && is within
    -- and whether one that says nothing; the number of comparisons before them and before the last operand, and
    -- whether that one says nothing.
    depth integer := 1;
    joined text[] := '{NULL}';
    mixed boolean[] := '{f}';
    with_and boolean[] := '{f}';
    with_other boolean[] := '{f}';
    before integer[] := '{0}';
    before_last integer[] := '{0}';
    other boolean[] := '{f}';
    last_sign text;
    closes boolean;
    -- Of a group: its conditions, and the fields they are on.
    conditions text[];
    fields text[];
    equal text[];
    usable boolean;
    field text;
    of_type text;
    sentinel text;
    path text[];
    path_read text;
    value text;
    -- Per field, what its conditions are so far.
    known_fields text[] := '{}';
    known text[] := '{}';
    place integer;
    result text := '';
BEGIN
    SELECT c.metadata_indexes INTO indexes FROM pgseek.collections c WHERE c.collection_id = collection_id;
    IF coalesce(indexes, '[]') = '[]' OR filter IS NULL OR written ~ '^strict' THEN
        RETURN '';
    END IF;

    -- PostgreSQL writes every jsonpath in one form: keys in quotes, a space around signs, parentheses around chains.
    FOR token IN
        SELECT m FROM regexp_matches(written,
            '\$((?:\."(?:[^"\\]|\\.)*")+) (==|<=|>=|<|>|starts with) ("(?:[^"\\]|\\.)*"|-?[0-9][0-9.]*)(?=\)| && | \|\| |$)'
            '|("(?:[^"\\]|\\.)*")|(&&|\|\||[()])|([^"()&|\s]+)', 'g') AS m
        UNION ALL SELECT ARRAY[NULL, NULL, NULL, NULL, 'end', NULL]
    LOOP
        IF token[1] IS NOT NULL THEN
            n := n + 1;
            paths[n] := token[1];
            signs[n] := token[2];
            literals[n] := token[3];
            begins[n] := last_sign IS DISTINCT FROM '||';
        ELSIF token[5] IS NULL THEN
            other[depth] := true;
        ELSIF token[5] = '(' THEN
            depth := depth + 1;
            joined[depth] := NULL;
            mixed[depth] := false;
            with_and[depth] := false;
            with_other[depth] := false;
            before[depth] := n;
            before_last[depth] := n;
            other[depth] := false;
        ELSE
            -- An operand ends: one that says nothing of indexes takes back what was read in it.
            IF other[depth] THEN
                n := before_last[depth];
                with_other[depth] := true;
                other[depth] := false;
            END IF;
            before_last[depth] := n;
            IF token[5] IN ('&&', '||') THEN
                last_sign := token[5];
                mixed[depth] := mixed[depth] OR joined[depth] <> last_sign;
                joined[depth] := last_sign;
                CONTINUE;
            END IF;
            closes := coalesce(mixed[depth], false)
                OR (joined[depth] IS NOT DISTINCT FROM '||' AND (with_and[depth] OR with_other[depth]));
            IF closes THEN
                n := before[depth];
            END IF;
            IF token[5] = ')' THEN
                depth := depth - 1;
                other[depth] := other[depth] OR closes
                    OR (joined[depth + 1] IS NULL AND with_other[depth + 1]);
                with_and[depth] := with_and[depth] OR with_and[depth + 1]
                    OR joined[depth + 1] IS NOT DISTINCT FROM '&&';
            END IF;
        END IF;
    END LOOP;

    FOR i IN 1 .. n LOOP
        IF begins[i] THEN
            conditions := '{}';
            fields := '{}';
            equal := '{}';
            usable := true;
        END IF;
        IF usable THEN
            IF paths[i] IS DISTINCT FROM path_read THEN
                path_read := paths[i];
                path := ARRAY(SELECT m[1]::jsonb #>> '{}' FROM regexp_matches(path_read, '("(?:[^"\\]|\\.)*")', 'g') AS m);
                of_type := (SELECT CASE e.index ->> 'type' WHEN 'number' THEN 'number' ELSE 'text' END
                              FROM jsonb_array_elements(indexes) AS e (index) WHERE e.index -> 'field' = to_jsonb(path) LIMIT 1);
                field := format('pgseek.metadata_%s(%I.metadata, %L)', of_type, of_row, path);
            END IF;
            usable := of_type IS NOT NULL AND (left(literals[i], 1) = '"') = (of_type = 'text');
        END IF;
        IF usable THEN
            IF of_type = 'number' THEN
                value := quote_literal(literals[i]) || '::numeric';
                conditions := conditions || format('%s %s %s', field, CASE signs[i] WHEN '==' THEN '=' ELSE signs[i] END, value);
            ELSE
                value := left(literals[i]::jsonb #>> '{}', longest);
                -- What is cut off may decide: so < is <= here.
                conditions := conditions || CASE signs[i]
                    WHEN 'starts with' THEN format('(%1$s >= %2$L COLLATE "C" AND %1$s <= %3$L COLLATE "C")', field, value,
                        value || repeat(chr(1114111), longest - length(value)))
                    WHEN '==' THEN format('%s = %L COLLATE "C"', field, value)
                    ELSE format('%s %s %L COLLATE "C"', field, left(signs[i], 1) || '=', value) END;
                value := quote_literal(value);
            END IF;
            IF signs[i] = '==' THEN
                equal := equal || value;
            END IF;
            IF fields = '{}' OR fields[cardinality(fields)] <> field THEN
                fields := fields || field;
            END IF;
        END IF;
        CONTINUE WHEN i < n AND NOT begins[i + 1] OR NOT usable;
        -- The group is complete. Documents that must be looked at themselves are let through.
        IF cardinality(fields) > 1 THEN
            result := result || format(' AND (%s OR %s)', array_to_string(conditions, ' OR '), (
                SELECT string_agg(f.name || CASE WHEN f.name LIKE 'pgseek.metadata\_number%' THEN ' = ''NaN''' ELSE format(' = %L COLLATE "C"', chr(1)) END, ' OR ')
                  FROM (SELECT DISTINCT u.name FROM unnest(fields) AS u (name)) AS f));
            CONTINUE;
        END IF;
        place := array_position(known_fields, field);
        IF place IS NULL THEN
            place := coalesce(cardinality(known_fields), 0) + 1;
            known_fields[place] := field;
            known[place] := NULL;
        END IF;
        known[place] := concat_ws(' AND ', known[place], CASE
            WHEN cardinality(equal) = cardinality(conditions) AND cardinality(equal) > 1
            THEN format('%s = ANY (ARRAY[%s]%s)', field, array_to_string(equal, ', '), CASE of_type WHEN 'text' THEN ' COLLATE "C"' ELSE '' END)
            ELSE '(' || array_to_string(conditions, ' OR ') || ')' END);
    END LOOP;
    FOR i IN 1 .. cardinality(known_fields) LOOP
        sentinel := CASE WHEN known_fields[i] LIKE 'pgseek.metadata\_number%' THEN '''NaN''' ELSE format('%L COLLATE "C"', chr(1)) END;
        result := result || format(' AND ((%s) OR %s = %s)', known[i], known_fields[i], sentinel);
    END LOOP;
    RETURN result;
END
$function$;
