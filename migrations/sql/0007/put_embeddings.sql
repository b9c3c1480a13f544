-- Purpose:    store vectors that the caller made, of chunks that are stored: for writers that embed by themselves.
-- Arguments:  collection    name
--             model         what made the vectors: provider:model, with @dimensions or without, or the identity that
--                           embedding_spaces holds; refused if the space holds those of another
--             external_ids, ordinals, embeddings  arrays of one length: the chunks, and their vectors; of two for one
--                           chunk the last is stored
--             space         default: the active space
--             text_hashes   of the chunks as the caller read them: one that reads otherwise by now is passed over.
--                           Without them a vector may come to stand with a text that it was not made of
-- Returns:    how many were stored; chunks that are not there are passed over.
-- Queue:      a document that waits, and whose chunks have vectors in all spaces of the collection with this, leaves the
--             queue and stays divided as it is: into plain pieces of at most 20,000 characters, if no worker has had
--             it. Where the collection wants more than chunks (document_vectors, questions, summaries) it goes on
--             waiting.
-- Errors:     PGS01 no such collection, PGS02 arrays of different lengths, or a vector that is zero,
--             PGS04 wrong dimensions, PGS05 the vectors of another model, or no such space
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile. Documents are locked in the order of their ids. Index: primary keys.
CREATE OR REPLACE FUNCTION pgseek.put_embeddings(
    collection text, model text, external_ids text[], ordinals integer[], embeddings @vector@.vector[],
    space integer DEFAULT NULL, text_hashes bytea[] DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    of_collection CONSTANT pgseek.collections := pgseek.require_collection(collection);
    of_space pgseek.embedding_spaces;
    -- Every space that has vectors.
    live integer[];
    one integer;
    documents uuid[];
    place bigint;
    stored bigint;
BEGIN
    IF cardinality(external_ids) IS DISTINCT FROM cardinality(ordinals) OR cardinality(ordinals) IS DISTINCT FROM cardinality(embeddings)
        OR text_hashes IS NOT NULL AND cardinality(text_hashes) IS DISTINCT FROM cardinality(embeddings) THEN
        RAISE EXCEPTION 'external_ids, ordinals and embeddings% have % elements, but must have as many each',
            CASE WHEN text_hashes IS NULL THEN '' ELSE ', and text_hashes,' END,
            concat_ws(', ', coalesce(cardinality(external_ids), 0), coalesce(cardinality(ordinals), 0),
                      coalesce(cardinality(embeddings), 0), cardinality(text_hashes))
            USING ERRCODE = 'PGS02';
    END IF;
    -- The order of all writers: documents, the collection, the queue. Whoever changes a document waits, or was first.
    SELECT array_agg(DISTINCT pgseek.document_id(u.external_id)) INTO documents
      FROM unnest(external_ids) AS u (external_id) WHERE u.external_id <> '';
    PERFORM FROM pgseek.documents d
      WHERE d.collection_id = of_collection.collection_id AND d.document_id = ANY (documents)
      ORDER BY d.document_id FOR UPDATE;
    live := ARRAY(SELECT l.space_id FROM pgseek.live_spaces(of_collection.collection_id) AS l);
    SELECT s.* INTO of_space
      FROM pgseek.collections c JOIN pgseek.embedding_spaces s ON s.space_id = coalesce(space, c.active_space_id)
     WHERE c.collection_id = of_collection.collection_id AND s.space_id = ANY (live);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'collection % has no embedding space % to write to', quote_literal(collection), space
            USING ERRCODE = 'PGS05', HINT = 'pgseek spaces list shows those it has';
    END IF;
    PERFORM pgseek.check_model(collection, of_space.space_id, NULL, model);
    SELECT u.place INTO place FROM unnest(embeddings) WITH ORDINALITY AS u (embedding, place)
     WHERE @vector@.vector_dims(u.embedding) IS DISTINCT FROM of_space.dimensions LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'vector % has % dimensions, but % has %', place,
            coalesce(@vector@.vector_dims(embeddings[place])::text, 'no'), pgseek.describe_space(of_space.space_id), of_space.dimensions
            USING ERRCODE = 'PGS04', HINT = 'embed with the model of the space';
    END IF;
    IF of_space.metric = 'cosine' THEN
        -- As it will be stored: half precision makes nothing of what is tiny.
        SELECT u.place INTO place FROM unnest(embeddings) WITH ORDINALITY AS u (embedding, place)
         WHERE CASE of_space.storage WHEN 'halfvec' THEN @vector@.l2_norm(u.embedding::@vector@.halfvec)
                                     ELSE @vector@.vector_norm(u.embedding) END = 0 LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'vector % is zero; cosine needs a direction', place USING ERRCODE = 'PGS02';
        END IF;
    END IF;

    EXECUTE format(
        'INSERT INTO pgseek.%1$I AS e (collection_id, document_id, ordinal, embedding)'
        ' SELECT DISTINCT ON (c.document_id, c.ordinal) $1, c.document_id, c.ordinal, u.embedding::@vector@.%2$s(%3$s)'
        '   FROM unnest($2, $3, $4, $5) WITH ORDINALITY AS u (external_id, ordinal, embedding, text_hash, place)'
        '   JOIN pgseek.chunks c ON c.collection_id = $1 AND c.document_id = pgseek.document_id(u.external_id) AND c.ordinal = u.ordinal'
        '  WHERE $5 IS NULL OR c.text_hash = u.text_hash'
        '  ORDER BY c.document_id, c.ordinal, u.place DESC'
        ' ON CONFLICT (collection_id, document_id, ordinal) DO UPDATE SET embedding = excluded.embedding',
        'embeddings_' || of_space.space_id, of_space.storage, of_space.dimensions)
    USING of_collection.collection_id, external_ids, ordinals, embeddings, text_hashes;
    GET DIAGNOSTICS stored = ROW_COUNT;

    IF coalesce(of_collection.settings ->> 'questions', '0') <> '0'
        OR coalesce((of_collection.settings ->> 'summaries')::boolean, false)
        OR coalesce((of_collection.settings ->> 'document_vectors')::boolean, false) THEN
        RETURN stored;
    END IF;
    documents := ARRAY(SELECT q.document_id FROM pgseek.ingest_queue q
                        WHERE q.collection_id = of_collection.collection_id AND q.document_id = ANY (documents));
    FOREACH one IN ARRAY live LOOP
        EXIT WHEN documents = '{}';
        EXECUTE format(
            'SELECT coalesce(array_agg(c.document_id), ''{}'') FROM ('
            ' SELECT c.document_id FROM pgseek.chunks c LEFT JOIN pgseek.%I e'
            '     ON e.collection_id = c.collection_id AND e.document_id = c.document_id AND e.ordinal = c.ordinal'
            '  WHERE c.collection_id = $1 AND c.document_id = ANY ($2)'
            '  GROUP BY c.document_id HAVING count(*) = count(e.ordinal)) AS c',
            'embeddings_' || one)
        INTO documents USING of_collection.collection_id, documents;
    END LOOP;
    DELETE FROM pgseek.ingest_queue q
     WHERE q.collection_id = of_collection.collection_id AND q.document_id = ANY (documents);
    RETURN stored;
END
$function$;
