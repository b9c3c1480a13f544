-- Purpose:    delete documents with their chunks, embeddings and entries in the queue.
-- Arguments:  collection
--             external_ids  any number; those that are not there, and NULLs, are passed over
-- Returns:    how many documents there were
-- Ordering:   documents are locked in the order of document_id, as put_documents() does.
-- Errors:     PGS01 no such collection
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile. Index: primary keys.
CREATE OR REPLACE FUNCTION pgseek.delete_documents(collection text, external_ids text[])
RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN pgseek.delete_by_id(
        (pgseek.require_collection(collection)).collection_id,
        ARRAY(SELECT pgseek.document_id(name) FROM unnest(external_ids) AS name));
END
$function$;
