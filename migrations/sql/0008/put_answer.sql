-- Purpose:    keep the answer to a question, for find_answer(). The same question in the same scope has one answer: the last.
-- Arguments:  collection, query, query_embedding, scope, space_id, model  see find_answer(). Without a vector the answer is
--                        found for the same question only
--             answer     any text
--             ttl        how long it is served; default: until it is cleared or a cited document changes
--             documents  external ids of the documents it rests on: once one of them changes or goes, it is not served
--             metadata   a JSON object, given back with it
-- Errors:     PGS01 no such collection, PGS02 argument out of range, or a cited document that is not there, PGS04 and PGS05
--             see search()
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile. Index: answers_pkey, documents_pkey.
CREATE OR REPLACE FUNCTION pgseek.put_answer(
    collection text, query text, answer text, query_embedding @vector@.vector DEFAULT NULL, ttl interval DEFAULT NULL,
    documents text[] DEFAULT '{}', scope text DEFAULT '', metadata jsonb DEFAULT '{}', space_id integer DEFAULT NULL,
    model text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    of_collection CONSTANT pgseek.collections := pgseek.require_collection(collection);
    of_space pgseek.embedding_spaces;
    ids uuid[];
    hashes bytea[];
    missing text;
BEGIN
    PERFORM pgseek.check_question(query, scope);
    IF answer IS NULL THEN
        RAISE EXCEPTION 'the answer is NULL, but must be a text' USING ERRCODE = 'PGS02';
    ELSIF ttl <= interval '0' THEN
        RAISE EXCEPTION 'ttl is %, but must be above 0', ttl USING ERRCODE = 'PGS02', HINT = 'leave it out to keep the answer';
    ELSIF metadata IS NULL OR jsonb_typeof(metadata) <> 'object' THEN
        RAISE EXCEPTION 'metadata is %, but must be a JSON object', coalesce('a JSON ' || jsonb_typeof(metadata), 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    -- Who drops the collection waits until this is over, and deletes it, too.
    PERFORM FROM pgseek.collections c WHERE c.collection_id = of_collection.collection_id FOR KEY SHARE;
    SELECT s.* INTO STRICT of_space FROM pgseek.embedding_spaces s WHERE s.space_id = of_collection.active_space_id;
    IF query_embedding IS NOT NULL OR space_id IS NOT NULL OR model IS NOT NULL THEN
        PERFORM pgseek.check_model(collection, of_space.space_id, space_id, model);
    END IF;
    query_embedding := pgseek.question_vector(of_space, of_collection.tenant, query, query_embedding);
    SELECT array_agg(d.document_id ORDER BY c.place), array_agg(d.content_hash ORDER BY c.place),
           min(c.external_id) FILTER (WHERE d.document_id IS NULL)
      INTO ids, hashes, missing
      FROM unnest(documents) WITH ORDINALITY AS c (external_id, place)
      LEFT JOIN pgseek.documents d ON d.collection_id = of_collection.collection_id AND d.document_id = pgseek.document_id(c.external_id);
    IF missing IS NOT NULL OR array_position(documents, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'the answer cites document %, which collection % does not have', coalesce(quote_literal(missing), 'NULL'), quote_literal(collection)
            USING ERRCODE = 'PGS02', HINT = 'documents are given by the ids they were stored with';
    END IF;
    INSERT INTO pgseek.answers AS a (collection_id, space_id, scope, key, question, answer, embedding, sketch, documents, hashes,
        metadata, stored_at, expires_at)
    VALUES (of_collection.collection_id, of_space.space_id, scope, pgseek.question_key(query), query, answer, query_embedding,
        @vector@.binary_quantize(query_embedding), coalesce(ids, '{}'), coalesce(hashes, '{}'), metadata,
        statement_timestamp(), statement_timestamp() + ttl)
    ON CONFLICT (collection_id, space_id, scope, key) DO UPDATE
       SET question = excluded.question, answer = excluded.answer, embedding = excluded.embedding, sketch = excluded.sketch,
           documents = excluded.documents, hashes = excluded.hashes, metadata = excluded.metadata,
           stored_at = excluded.stored_at, expires_at = excluded.expires_at;
END
$function$;
