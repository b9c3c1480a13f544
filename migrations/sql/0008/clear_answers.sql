-- Purpose:    delete answers that put_answer() keeps; those that all conditions hold for.
-- Arguments:  collection
--             query        only that of this question, word for word but for case, space and the signs at its end
--             scope        only of this one; '' is one, too
--             documents    only those that cite one of these documents
--             only_stale   only those that are served no more: expired, of another space than the active one, or citing a
--                          document that has changed or gone
-- Returns:    how many there were
-- Errors:     PGS01 no such collection
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile. Index: answers_pkey.
CREATE OR REPLACE FUNCTION pgseek.clear_answers(
    collection text, query text DEFAULT NULL, scope text DEFAULT NULL, documents text[] DEFAULT NULL,
    only_stale boolean DEFAULT false)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    of_collection CONSTANT pgseek.collections := pgseek.require_collection(collection);
    ids CONSTANT uuid[] := CASE WHEN documents IS NOT NULL THEN ARRAY(SELECT pgseek.document_id(u.one) FROM unnest(documents) AS u (one) WHERE u.one <> '') END;
    deleted bigint;
BEGIN
    DELETE FROM pgseek.answers a
     WHERE a.collection_id = of_collection.collection_id AND (scope IS NULL OR a.scope = scope)
       AND (query IS NULL OR a.key = pgseek.question_key(query)) AND (ids IS NULL OR a.documents && ids)
       AND (NOT only_stale OR a.space_id IS DISTINCT FROM of_collection.active_space_id OR a.expires_at <= statement_timestamp()
            OR EXISTS (SELECT FROM unnest(a.documents, a.hashes) AS c (document_id, content_hash)
                LEFT JOIN pgseek.documents d ON d.collection_id = of_collection.collection_id AND d.document_id = c.document_id
               WHERE d.content_hash IS DISTINCT FROM c.content_hash));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$function$;
