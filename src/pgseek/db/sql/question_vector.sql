-- Purpose:    the vector of a question: the one given, or what the cache has of this exact text.
-- Arguments:  space            a row of embedding_spaces
--             tenant           whose cache
--             query
--             query_embedding  of that space; NULL: from the cache
-- Returns:    NULL if there is none
-- Errors:     PGS02 a zero vector, PGS04 wrong dimensions
-- Volatility: stable. Index: embedding_cache_pkey.
CREATE OR REPLACE FUNCTION pgseek.question_vector(
    space pgseek.embedding_spaces, tenant text, query text, query_embedding @vector@.vector)
RETURNS @vector@.vector
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
BEGIN
    IF query_embedding IS NULL THEN
        RETURN (SELECT c.embedding FROM pgseek.embedding_cache c
                 WHERE c.tenant = tenant AND c.identity = space.identity AND c.input_type = 'query'
                   AND c.text_hash = sha256(convert_to(query, 'UTF8'))
                   AND (c.expires_at IS NULL OR c.expires_at > statement_timestamp()));
    ELSIF @vector@.vector_dims(query_embedding) <> space.dimensions THEN
        RAISE EXCEPTION 'the query embedding has % dimensions, but % has %',
            @vector@.vector_dims(query_embedding), pgseek.describe_space(space.space_id), space.dimensions
            USING ERRCODE = 'PGS04', HINT = 'embed the query with the model of the collection';
    ELSIF @vector@.vector_norm(query_embedding) = 0 THEN
        RAISE EXCEPTION 'the query embedding is zero; cosine needs a direction' USING ERRCODE = 'PGS02';
    END IF;
    RETURN query_embedding;
END
$function$;
