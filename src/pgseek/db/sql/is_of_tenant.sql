-- Purpose:    whether a collection is one of the session's tenant. For the policy of a table of vectors, which holds those
--             of one collection: asked once for a statement, so that each row costs next to nothing.
-- Arguments:  collection_id
-- Volatility: stable. Index: collections_pkey. SECURITY DEFINER: as tenant_collections().
CREATE OR REPLACE FUNCTION pgseek.is_of_tenant(collection_id integer)
RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN EXISTS (SELECT FROM pgseek.collections c
                    WHERE c.collection_id = is_of_tenant.collection_id AND c.tenant = pgseek.tenant());
END
$function$;
