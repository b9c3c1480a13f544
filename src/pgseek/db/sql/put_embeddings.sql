-- Purpose:    store vectors that the caller made, of chunks that are stored: for writers that embed by themselves.
-- Arguments:  collection    name
--             model         what made the vectors: provider:model, with @dimensions or without; refused if the space
--                           holds those of another
--             external_ids, ordinals, embeddings  arrays of one length: the chunks, and their vectors
--             space         default: the active space
-- Returns:    how many were stored; chunks that are not there are passed over.
-- Errors:     PGS01 no such collection, PGS02 arrays of different lengths, or a vector that is zero or not finite,
--             PGS04 wrong dimensions, PGS05 the vectors of another model, or no such space
-- Volatility: volatile.
CREATE OR REPLACE FUNCTION pgseek.put_embeddings(
    collection text, model text, external_ids text[], ordinals integer[], embeddings @vector@.vector[],
    space integer DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    of_collection pgseek.collections := pgseek.require_collection(collection);
    of_space pgseek.embedding_spaces;
    place integer;
    stored bigint;
BEGIN
    SELECT s.* INTO of_space FROM pgseek.embedding_spaces s
     WHERE s.space_id = coalesce(space, of_collection.active_space_id) AND s.collection_id = of_collection.collection_id
       AND s.state <> 'retired';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'collection % has no embedding space %', quote_literal(collection), space
            USING ERRCODE = 'PGS05', HINT = 'pgseek spaces list shows those it has';
    END IF;
    PERFORM pgseek.check_model(collection, of_space.space_id, NULL, model);
    IF cardinality(external_ids) IS DISTINCT FROM cardinality(ordinals) OR cardinality(ordinals) IS DISTINCT FROM cardinality(embeddings) THEN
        RAISE EXCEPTION 'external_ids, ordinals and embeddings have % elements, but must have as many each',
            concat_ws(', ', coalesce(cardinality(external_ids), 0), coalesce(cardinality(ordinals), 0), coalesce(cardinality(embeddings), 0))
            USING ERRCODE = 'PGS02';
    END IF;
    SELECT u.place INTO place FROM unnest(embeddings) WITH ORDINALITY AS u (embedding, place)
     WHERE @vector@.vector_dims(u.embedding) IS DISTINCT FROM of_space.dimensions LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'vector % has % dimensions, but % has %', place,
            coalesce(@vector@.vector_dims(embeddings[place])::text, 'no'), pgseek.describe_space(of_space.space_id), of_space.dimensions
            USING ERRCODE = 'PGS04', HINT = 'embed with the model of the space';
    END IF;
    SELECT u.place INTO place FROM unnest(embeddings) WITH ORDINALITY AS u (embedding, place)
     WHERE of_space.metric = 'cosine' AND @vector@.vector_norm(u.embedding) = 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'vector % is zero; cosine needs a direction', place USING ERRCODE = 'PGS02';
    END IF;
    PERFORM FROM pgseek.live_spaces(of_collection.collection_id);
    EXECUTE format(
        'INSERT INTO pgseek.%1$I AS e (collection_id, document_id, ordinal, embedding)'
        ' SELECT DISTINCT ON (c.document_id, c.ordinal) $1, c.document_id, c.ordinal, u.embedding::@vector@.%2$s(%3$s)'
        '   FROM unnest($2, $3, $4) WITH ORDINALITY AS u (external_id, ordinal, embedding, place)'
        '   JOIN pgseek.chunks c ON c.collection_id = $1 AND c.document_id = pgseek.document_id(u.external_id) AND c.ordinal = u.ordinal'
        '  ORDER BY c.document_id, c.ordinal, u.place DESC'
        ' ON CONFLICT (collection_id, document_id, ordinal) DO UPDATE SET embedding = excluded.embedding',
        'embeddings_' || of_space.space_id, of_space.storage, of_space.dimensions)
    USING of_collection.collection_id, external_ids, ordinals, embeddings;
    GET DIAGNOSTICS stored = ROW_COUNT;
    RETURN stored;
END
$function$;
