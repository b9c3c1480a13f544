-- Purpose:    the answer that was stored for a question, or for one so near to it that the answer is the same.
-- Arguments:  collection
--             query            the question, not blank
--             query_embedding  its vector in the collection's active space, said to be so by space_id or model. Default:
--                              the cached vector of this exact text; without one only the same question is found
--             min_similarity   the cosine of two questions from which on one's answer serves the other, -1..1. Default:
--                              the space's threshold 'answer_cache'; without one only the same question is found
--             scope            only answers that were stored for this: a filter, a user, whatever changes the answer
--             guard            leave out questions that tell_apart() tells apart
--             space_id, model  what query_embedding is of, see search()
-- Returns:    one row, or none. similarity is NULL for the same question (exact), which is found without comparing vectors.
--             documents are those that the answer cites.
-- Served:     what has not expired, of the space that is active now, and cites no document that has changed or gone since.
-- Method:     the same question by key; else the 200 whose vectors' signs agree most, compared exactly (below 128 dimensions
--             all are). Nothing is written, not even that there was a hit.
-- Ordering:   similarity, then key: the nearest that the guard lets pass.
-- Errors:     PGS01 no such collection, PGS02 argument out of range, PGS04 and PGS05 see search()
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: stable; it runs on a read-only standby. Index: answers_pkey, answers_sketch_idx, documents_pkey.
CREATE OR REPLACE FUNCTION pgseek.find_answer(
    collection text, query text, query_embedding @vector@.vector DEFAULT NULL, min_similarity double precision DEFAULT NULL,
    scope text DEFAULT '', guard boolean DEFAULT true, space_id integer DEFAULT NULL, model text DEFAULT NULL)
RETURNS TABLE (
    answer text, question text, similarity double precision, exact boolean, metadata jsonb, documents text[],
    stored_at timestamptz, expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    of_collection CONSTANT pgseek.collections := pgseek.require_collection(collection);
    compared CONSTANT integer := 200;
    of_space pgseek.embedding_spaces;
    wanted double precision;
    keys bytea[];
    near record;
BEGIN
    PERFORM pgseek.check_question(query, scope);
    SELECT s.* INTO STRICT of_space FROM pgseek.embedding_spaces s WHERE s.space_id = of_collection.active_space_id;
    IF query_embedding IS NOT NULL OR space_id IS NOT NULL OR model IS NOT NULL THEN
        PERFORM pgseek.check_model(collection, of_space.space_id, space_id, model);
    END IF;
    query_embedding := pgseek.question_vector(of_space, of_collection.tenant, query, query_embedding);
    wanted := coalesce(min_similarity, (of_space.searching #>> '{thresholds,answer_cache,similarity}')::double precision);
    IF NOT wanted BETWEEN -1 AND 1 THEN
        RAISE EXCEPTION 'min_similarity is %, but must lie in -1..1', wanted
            USING ERRCODE = 'PGS02', HINT = 'leave it out for the threshold that pgseek threshold found';
    END IF;

    keys := ARRAY[pgseek.question_key(query)];
    FOR step IN 1..2 LOOP
        FOR near IN
            SELECT a.*, s.cosine FROM pgseek.answers a
              CROSS JOIN LATERAL (SELECT CASE WHEN step = 2 THEN 1 - (a.embedding OPERATOR(@vector@.<=>) query_embedding) END AS cosine) AS s
             WHERE a.collection_id = of_collection.collection_id AND a.space_id = of_space.space_id AND a.scope = scope
               AND a.key = ANY (keys) AND (step = 1 OR s.cosine >= wanted)
               AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp())
               AND NOT EXISTS (SELECT FROM unnest(a.documents, a.hashes) AS c (document_id, content_hash)
                       LEFT JOIN pgseek.documents d ON d.collection_id = of_collection.collection_id AND d.document_id = c.document_id
                      WHERE d.content_hash IS DISTINCT FROM c.content_hash)
             ORDER BY s.cosine DESC, a.key
        LOOP
            CONTINUE WHEN step = 2 AND guard AND pgseek.tell_apart(query, near.question) IS NOT NULL;
            RETURN QUERY SELECT near.answer, near.question, near.cosine, step = 1, near.metadata,
                ARRAY(SELECT d.external_id FROM unnest(near.documents) WITH ORDINALITY AS c (document_id, place)
                        JOIN pgseek.documents d ON d.collection_id = of_collection.collection_id AND d.document_id = c.document_id
                       ORDER BY c.place),
                near.stored_at, near.expires_at;
            RETURN;
        END LOOP;
        EXIT WHEN step = 2 OR wanted IS NULL OR query_embedding IS NULL;
        IF of_space.dimensions < 128 THEN
            keys := ARRAY(SELECT a.key FROM pgseek.answers a
                WHERE a.collection_id = of_collection.collection_id AND a.space_id = of_space.space_id AND a.scope = scope
                ORDER BY a.embedding OPERATOR(@vector@.<=>) query_embedding, a.key LIMIT compared);
        ELSE
            keys := ARRAY(SELECT a.key FROM pgseek.answers a
                WHERE a.collection_id = of_collection.collection_id AND a.space_id = of_space.space_id AND a.scope = scope
                ORDER BY @vector@.hamming_distance(a.sketch, @vector@.binary_quantize(query_embedding)), a.key LIMIT compared);
        END IF;
    END LOOP;
END
$function$;
