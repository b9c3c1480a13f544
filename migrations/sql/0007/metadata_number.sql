-- Purpose:    the number of a metadata field, as an index of the field holds it (see Collection.index_metadata).
-- Arguments:  metadata  a document's
--             path      the keys that lead to the field
-- Returns:    the number; NULL where the field holds none; NaN where the document itself must be looked at: an
--             array stands on the way or is the value, or the number has more digits than an index takes.
-- Volatility: immutable: it reads no table.
CREATE OR REPLACE FUNCTION pgseek.metadata_number(metadata jsonb, path text[])
RETURNS numeric
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    found jsonb := metadata;
    key text;
    number numeric;
BEGIN
    FOREACH key IN ARRAY path LOOP
        IF jsonb_typeof(found) = 'array' THEN
            RETURN 'NaN';
        END IF;
        found := found -> key;
    END LOOP;
    CASE jsonb_typeof(found)
        WHEN 'number' THEN
            number := found::numeric;
            RETURN CASE WHEN pg_column_size(number) > 500 THEN 'NaN' ELSE number END;
        WHEN 'array' THEN
            RETURN 'NaN';
        ELSE
            RETURN NULL;
    END CASE;
END
$function$;
