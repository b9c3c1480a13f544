-- Purpose:    delete documents with their chunks, embeddings and entries in the queue.
-- Arguments:  collection
--             external_ids  any number; those that are not there, and NULLs, are passed over
-- Returns:    how many documents there were
-- Ordering:   documents are locked in the order of document_id, as put_documents() does.
-- Errors:     PGS01 no such collection
-- Volatility: volatile. Index: primary keys.
CREATE OR REPLACE FUNCTION pgseek.delete_documents(collection text, external_ids text[])
RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    of_collection CONSTANT pgseek.collections := pgseek.require_collection(collection);
    -- Those that are there, in the order they are locked in. What somebody stores meanwhile is not deleted: it would
    -- be locked out of order.
    ids uuid[];
BEGIN
    SELECT array_agg(locked.document_id) INTO ids
      FROM (SELECT d.document_id FROM pgseek.documents d
             WHERE d.collection_id = of_collection.collection_id
               AND d.document_id = ANY (ARRAY(SELECT pgseek.document_id(name) FROM unnest(external_ids) AS name))
             ORDER BY d.document_id FOR UPDATE) AS locked;
    DELETE FROM pgseek.documents d
     WHERE d.collection_id = of_collection.collection_id AND d.document_id = ANY (ids);
    PERFORM pgseek.delete_embeddings(of_collection.collection_id, ids);
    DELETE FROM pgseek.ingest_queue q
     WHERE q.collection_id = of_collection.collection_id AND q.document_id = ANY (ids);
    RETURN coalesce(cardinality(ids), 0);
END
$function$;
