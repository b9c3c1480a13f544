-- Purpose:    the collections of the session's tenant: what policies compare collection_id with.
-- Arguments:  none
-- Returns:    collection_id of each, hidden copies included
-- Ordering:   ascending.
-- Volatility: stable. Index: collections_name_key. SECURITY DEFINER: whoever may read a table need not have rights on
--             collections.
CREATE OR REPLACE FUNCTION pgseek.tenant_collections()
RETURNS integer[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN ARRAY(SELECT c.collection_id FROM pgseek.collections c WHERE c.tenant = pgseek.tenant() ORDER BY 1);
END
$function$;
