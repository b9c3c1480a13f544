-- Purpose:    the rows of one space nearest to a vector: what an index finds, or what there is. With both, the recall
--             of the index is measured.
-- Arguments:  space_id         a space that is not retired
--             query_embedding  of that space
--             k                rows returned, 1..10,000
--             exact            compare every vector: no index is used
--             ef_search, probes, rerank  see search(); default: the space's setting
-- Returns:    distance as in dense_parts(): lower is nearer.
-- Ordering:   distance, document_id, ordinal.
-- Errors:     PGS02 argument out of range, PGS04 wrong dimensions, PGS05 no such space
-- Volatility: volatile, because settings of indexes are set and put back; it writes nothing.
-- Index:      that of the space.
CREATE OR REPLACE FUNCTION pgseek.nearest(
    space_id integer, query_embedding @vector@.vector, k integer DEFAULT 10, exact boolean DEFAULT false,
    ef_search integer DEFAULT NULL, probes integer DEFAULT NULL, rerank integer DEFAULT NULL)
RETURNS TABLE (document_id uuid, ordinal integer, distance double precision)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    space pgseek.embedding_spaces;
    parts record;
    before jsonb;
BEGIN
    SELECT s.* INTO space FROM pgseek.embedding_spaces s WHERE s.space_id = space_id AND s.state <> 'retired';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no embedding space %', coalesce(space_id::text, 'NULL')
            USING ERRCODE = 'PGS05', HINT = 'SELECT space_id, model, state FROM pgseek.embedding_spaces lists them';
    END IF;
    IF k IS NULL OR k NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'k is %, but must be from 1 to 10000', coalesce(k::text, 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    IF @vector@.vector_dims(query_embedding) IS DISTINCT FROM space.dimensions THEN
        RAISE EXCEPTION 'the query embedding has % dimensions, but % has %',
            coalesce(@vector@.vector_dims(query_embedding)::text, 'no'), pgseek.describe_space(space_id), space.dimensions
            USING ERRCODE = 'PGS04', HINT = 'embed the query with the model of the space';
    END IF;
    parts := pgseek.dense_parts(space, '$1', candidates => k, rerank => rerank);
    rerank := CASE WHEN exact THEN 1 ELSE parts.rerank END;
    IF NOT exact THEN
        before := pgseek.begin_walk(space, k * rerank, ef_search, probes);
    END IF;
    -- Adding zero keeps the planner off the index.
    RETURN QUERY EXECUTE format(
        'WITH near AS (SELECT e.document_id, e.ordinal, %s AS distance FROM pgseek.%I e ORDER BY (%s)%s LIMIT $2)'
        ' SELECT n.document_id, n.ordinal, n.distance FROM near n ORDER BY n.distance, n.document_id, n.ordinal LIMIT $3',
        parts.distance, 'embeddings_' || space_id, CASE WHEN exact THEN parts.distance ELSE parts.walk END,
        CASE WHEN exact THEN ' + 0' ELSE '' END)
    USING query_embedding, k * rerank, k;
    IF NOT exact THEN
        PERFORM pgseek.end_walk(before);
    END IF;
END
$function$;
