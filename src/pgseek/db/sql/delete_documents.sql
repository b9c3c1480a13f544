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
    ids uuid[];
    deleted integer;
BEGIN
    SELECT array_agg(DISTINCT pgseek.document_id(name)) INTO ids
      FROM unnest(external_ids) AS name WHERE name IS NOT NULL;
    PERFORM FROM pgseek.documents d JOIN unnest(ids) AS given (id) ON d.document_id = given.id
      WHERE d.collection_id = of_collection.collection_id ORDER BY d.document_id FOR UPDATE OF d;
    DELETE FROM pgseek.documents d USING unnest(ids) AS given (id)
     WHERE d.collection_id = of_collection.collection_id AND d.document_id = given.id;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM pgseek.delete_embeddings(of_collection.collection_id, ids);
    DELETE FROM pgseek.ingest_queue q USING unnest(ids) AS given (id)
     WHERE q.collection_id = of_collection.collection_id AND q.document_id = given.id;
    RETURN deleted;
END
$function$;
