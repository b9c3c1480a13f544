-- Purpose:    delete one document with its chunks and embeddings.
-- Arguments:  collection, external_id
-- Returns:    whether there was such a document
-- Errors:     PGS01 no such collection
-- Volatility: volatile. Index: primary keys.
CREATE OR REPLACE FUNCTION pgseek.delete_document(collection text, external_id text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    of_collection pgseek.collections := pgseek.require_collection(collection);
    existed boolean;
BEGIN
    DELETE FROM pgseek.documents d
     WHERE d.collection_id = of_collection.collection_id
       AND d.document_id = pgseek.document_id(delete_document.external_id);
    existed := FOUND;
    PERFORM pgseek.delete_embeddings(
        of_collection.collection_id, ARRAY[pgseek.document_id(delete_document.external_id)]);
    DELETE FROM pgseek.ingest_queue q
     WHERE q.collection_id = of_collection.collection_id
       AND q.document_id = pgseek.document_id(delete_document.external_id);
    RETURN existed;
END
$function$;
