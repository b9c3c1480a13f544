-- Purpose:    the row of a collection of the session's tenant by name, or an error that names those there are. The one
--             gate of all functions that are called by a collection's name, and then run with the rights of their
--             owner: of another tenant's collection it says what it says of one that nobody has.
-- Arguments:  name
-- Errors:     PGS01 no such collection
-- Volatility: stable. Index: collections_name_key.
CREATE OR REPLACE FUNCTION pgseek.require_collection(name text)
RETURNS pgseek.collections
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    found_collection pgseek.collections;
    known text;
BEGIN
    SELECT c.* INTO found_collection FROM pgseek.collections c WHERE c.tenant = pgseek.tenant() AND c.name = require_collection.name;
    IF found_collection.collection_id IS NULL THEN
        SELECT string_agg(listed.name, ', ') INTO known
          FROM (SELECT c.name FROM pgseek.collections c
                 WHERE c.tenant = pgseek.tenant() AND c.copy_of IS NULL ORDER BY c.name LIMIT 10) AS listed;
        RAISE EXCEPTION 'there is no collection %', coalesce(quote_literal(require_collection.name), 'NULL')
            USING ERRCODE = 'PGS01',
                  HINT = coalesce('collections here: ' || known, 'there are no collections yet');
    END IF;
    RETURN found_collection;
END
$function$;
