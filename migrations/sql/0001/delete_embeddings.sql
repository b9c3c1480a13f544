-- Purpose:    delete the vectors of documents in every space of a collection. The tables of vectors have no
--             foreign key to chunks: making or dropping one would lock chunks, and with it every other
--             collection's searches.
-- Arguments:  collection_id; document_ids
-- Volatility: volatile. Index: the primary keys of the tables embeddings_<space>.
CREATE OR REPLACE FUNCTION pgseek.delete_embeddings(collection_id integer, document_ids uuid[])
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    space integer;
BEGIN
    FOR space IN
        SELECT s.space_id FROM pgseek.embedding_spaces s
         WHERE s.collection_id = delete_embeddings.collection_id AND s.state <> 'retired'
    LOOP
        EXECUTE format('DELETE FROM pgseek.%I e WHERE e.collection_id = $1 AND e.document_id = ANY ($2)',
            'embeddings_' || space) USING collection_id, document_ids;
    END LOOP;
END
$function$;
