-- Purpose:    what the index of chunks knows of a row: a code per lexeme, and more codes, its impact marks,
--             for each of five edges that the lexeme's weight reaches, so that a search finds the rows that can
--             reach a score without reading all of a lexeme's rows. A mark is a property of its row, so no later
--             write can make a bound wrong. Codes are hashes: two lexemes may share one, which costs a search a
--             few rows more and never one less, since rows are scored by their terms. Marks have half a million
--             codes for all lexemes together: a key of its own for each would double the index, most of it for
--             rare words, which are read whole.
-- Arguments:  collection_id  lexemes of two collections have different codes
--             terms          {dimension: weight}, see weigh()
-- Returns:    codes of lexemes, 0 or more, and of marks, below 0; NULL without terms
-- Volatility: immutable; the expression of the index chunks_codes_idx. bm25_code() gives single codes.
CREATE OR REPLACE FUNCTION pgseek.bm25_codes(collection_id integer, terms @vector@.sparsevec)
RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    salt CONSTANT integer := collection_id::bigint * 40503 & 1073741823;
    parts CONSTANT text[] := string_to_array(replace(split_part(ltrim(terms::text, '{'), '}', 1), ':', ','), ',');
    codes integer[];
    code integer;
    weight double precision;
BEGIN
    FOR i IN 1 .. cardinality(parts) - 1 BY 2 LOOP
        code := parts[i]::integer # salt;
        weight := parts[i + 1]::real;
        codes := codes || code;
        IF weight >= 0.53 THEN
            codes := codes || (-1 - (code + 7919 & 524287));
            IF weight >= 0.58 THEN
                codes := codes || (-1 - (code + 15838 & 524287));
                IF weight >= 0.66 THEN
                    codes := codes || (-1 - (code + 23757 & 524287));
                    IF weight >= 0.75 THEN
                        codes := codes || (-1 - (code + 31676 & 524287));
                        IF weight >= 0.85 THEN
                            codes := codes || (-1 - (code + 39595 & 524287));
                        END IF;
                    END IF;
                END IF;
            END IF;
        END IF;
    END LOOP;
    RETURN codes;
END
$function$;
