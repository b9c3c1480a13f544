-- Purpose:    delete the vectors of documents, or of single chunks, in every space of a collection. The tables
--             of vectors have no foreign key to chunks: making or dropping one would lock chunks, and with it
--             every other collection's searches.
-- Arguments:  collection_id
--             document_ids
--             ordinals       NULL: all chunks of these documents; else as many as document_ids: pairs
-- Volatility: volatile. Index: the primary keys of the tables embeddings_<space>.
CREATE OR REPLACE FUNCTION pgseek.delete_embeddings(
    collection_id integer, document_ids uuid[], ordinals integer[] DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    space integer;
BEGIN
    IF coalesce(cardinality(document_ids), 0) = 0 THEN
        RETURN;
    END IF;
    FOR space IN
        SELECT s.space_id FROM pgseek.embedding_spaces s
         WHERE s.collection_id = delete_embeddings.collection_id AND s.state <> 'retired'
    LOOP
        IF ordinals IS NULL THEN
            EXECUTE format('DELETE FROM pgseek.%I e WHERE e.collection_id = $1 AND e.document_id = ANY ($2)',
                'embeddings_' || space) USING collection_id, document_ids;
        ELSE
            EXECUTE format('DELETE FROM pgseek.%I e USING unnest($2, $3) AS gone (document_id, ordinal)'
                ' WHERE e.collection_id = $1 AND e.document_id = gone.document_id AND e.ordinal = gone.ordinal',
                'embeddings_' || space) USING collection_id, document_ids, ordinals;
        END IF;
    END LOOP;
END
$function$;
