-- Purpose:    delete one document with its chunks and embeddings.
-- Arguments:  collection, external_id
-- Returns:    whether there was such a document
-- Errors:     PGS01 no such collection
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile. Index: primary keys.
CREATE OR REPLACE FUNCTION pgseek.delete_document(collection text, external_id text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN pgseek.delete_documents(collection, ARRAY[external_id]) > 0;
END
$function$;
