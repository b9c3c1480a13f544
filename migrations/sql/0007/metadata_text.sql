-- Purpose:    the text of a metadata field, as an index of the field holds it (see Collection.index_metadata).
-- Arguments:  metadata  a document's
--             path      the keys that lead to the field
-- Returns:    the first 200 characters, since an index takes no long texts; NULL where the field holds no text; the
--             character U+0001 alone where the document itself must be looked at: an array stands on the way or is
--             the value.
-- Volatility: immutable: it reads no table.
CREATE OR REPLACE FUNCTION pgseek.metadata_text(metadata jsonb, path text[])
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    found jsonb := metadata;
    key text;
BEGIN
    FOREACH key IN ARRAY path LOOP
        IF jsonb_typeof(found) = 'array' THEN
            RETURN chr(1);
        END IF;
        found := found -> key;
    END LOOP;
    RETURN CASE jsonb_typeof(found) WHEN 'string' THEN left(found #>> '{}', 200) WHEN 'array' THEN chr(1) END;
END
$function$;
