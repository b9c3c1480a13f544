-- Purpose:    delete documents, which the caller has locked, with their chunks, embeddings and entries in the queue.
--             For delete_by_id() and mirror_documents(): it tells nobody else.
-- Arguments:  collection_id, document_ids
-- Volatility: volatile. Index: primary keys.
CREATE OR REPLACE FUNCTION pgseek.erase_documents(collection_id integer, document_ids uuid[])
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
BEGIN
    IF coalesce(cardinality(document_ids), 0) = 0 THEN
        RETURN;
    END IF;
    DELETE FROM pgseek.documents d WHERE d.collection_id = collection_id AND d.document_id = ANY (document_ids);
    PERFORM pgseek.delete_embeddings(collection_id, document_ids);
    DELETE FROM pgseek.ingest_queue q WHERE q.collection_id = collection_id AND q.document_id = ANY (document_ids);
END
$function$;
