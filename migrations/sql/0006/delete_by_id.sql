-- Purpose:    delete documents with their chunks, embeddings and entries in the queue.
-- Arguments:  collection_id
--             document_ids   any number; those that are not there, and NULLs, are passed over
-- Returns:    how many documents there were
-- Ordering:   documents are locked in the order of document_id, as put_documents() does. What somebody stores
--             meanwhile is not deleted: it would be locked out of order.
-- Errors:     PGS01 the collection is gone
-- Volatility: volatile. Index: primary keys.
CREATE OR REPLACE FUNCTION pgseek.delete_by_id(collection_id integer, document_ids uuid[])
RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    -- Those that are there, in the order they are locked in.
    ids uuid[];
BEGIN
    SELECT array_agg(locked.document_id) INTO ids
      FROM (SELECT d.document_id FROM pgseek.documents d
             WHERE d.collection_id = collection_id AND d.document_id = ANY (document_ids)
             ORDER BY d.document_id FOR UPDATE) AS locked;
    PERFORM pgseek.erase_documents(collection_id, ids);
    PERFORM pgseek.mirror_documents(collection_id, ids);
    RETURN coalesce(cardinality(ids), 0);
END
$function$;
