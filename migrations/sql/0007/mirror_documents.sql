-- Purpose:    make what was just written to a collection in the other one of a pair, too: a collection and the copy
--             of it that is made beside it with other chunks (copies.py) hold the same documents, whichever of the two a
--             writer goes to. Every writer of documents calls it, in its own transaction; a collection without a copy
--             costs two look-ups by key.
-- Arguments:  collection_id  the one that was written to
--             document_ids   new, changed and deleted documents; those that are equal in both are left
-- Returns:    how many documents were written or deleted in the other one. Their words are found there in the same
--             transaction; chunks and embeddings follow from its queue.
-- Ordering:   documents are locked in the order of document_id, first where they were written, then in the other.
-- Errors:     PGS01 the collection is gone
-- Notifies:   pgseek_queue, as enqueue_documents() does, if something was enqueued
-- Volatility: volatile. Index: primary keys, collections_copy_of_key.
CREATE OR REPLACE FUNCTION pgseek.mirror_documents(collection_id integer, document_ids uuid[])
RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_column
DECLARE
    written_to CONSTANT integer := mirror_documents.collection_id;
    pair record;
    other pgseek.collections;
    -- Those the other one has, that it has to delete, to write, and to divide and embed anew.
    held uuid[];
    gone uuid[];
    different uuid[];
    changed uuid[];
    weighting real[];
    new_language text;
    of_document uuid[];
    ordinals integer[];
    starts integer[];
    texts text[];
    lexemes tsvector[];
    terms @vector@.sparsevec[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- Its snapshot may be older than a copy, which it would not see: then this fails, and is run again.
        PERFORM FROM pgseek.collections c WHERE c.collection_id = written_to FOR SHARE;
    END IF;
    -- One statement: the two change places at any time.
    SELECT coalesce(c.copy_of, p.collection_id) AS other INTO pair
      FROM pgseek.collections c LEFT JOIN pgseek.collections p ON p.copy_of = c.collection_id
     WHERE c.collection_id = written_to;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the collection was dropped in the meantime' USING ERRCODE = 'PGS01';
    ELSIF pair.other IS NULL OR coalesce(cardinality(document_ids), 0) = 0 THEN
        RETURN 0;
    END IF;
    -- The lock keeps it from being dropped; one that is about to be has no space to search any more.
    SELECT c.* INTO other FROM pgseek.collections c
     WHERE c.collection_id = pair.other AND c.active_space_id IS NOT NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;

    -- A writer holds its documents already; who copies what was there must not copy what is being changed.
    PERFORM FROM pgseek.documents d
      WHERE d.collection_id = written_to AND d.document_id = ANY (document_ids) ORDER BY d.document_id FOR SHARE;
    SELECT array_agg(locked.document_id) INTO held
      FROM (SELECT d.document_id FROM pgseek.documents d
             WHERE d.collection_id = other.collection_id AND d.document_id = ANY (document_ids)
             ORDER BY d.document_id FOR UPDATE) AS locked;
    SELECT array_agg(h.id) INTO gone FROM unnest(held) AS h (id)
     WHERE NOT EXISTS (SELECT FROM pgseek.documents s WHERE s.collection_id = written_to AND s.document_id = h.id);
    PERFORM pgseek.erase_documents(other.collection_id, gone);

    SELECT array_agg(s.document_id ORDER BY s.document_id),
           array_agg(s.document_id ORDER BY s.document_id) FILTER (WHERE o.content_hash IS DISTINCT FROM s.content_hash)
      INTO different, changed
      FROM pgseek.documents s
      LEFT JOIN pgseek.documents o ON o.collection_id = other.collection_id
                                  AND o.document_id = ANY (document_ids) AND o.document_id = s.document_id
     WHERE s.collection_id = written_to AND s.document_id = ANY (document_ids)
       AND (o.content_hash IS DISTINCT FROM s.content_hash OR o.metadata <> s.metadata);
    IF different IS NULL THEN
        RETURN coalesce(cardinality(gone), 0);
    END IF;
    FOR new_language IN
        SELECT DISTINCT s.language FROM pgseek.documents s
         WHERE s.collection_id = written_to AND s.document_id = ANY (changed)
           AND NOT s.language = ANY (other.languages) ORDER BY 1
    LOOP
        PERFORM pgseek.add_language(other.collection_id, new_language);
    END LOOP;
    INSERT INTO pgseek.documents AS d
        (collection_id, document_id, external_id, title, body, language, format, metadata, content_hash,
         created_at, updated_at)
    SELECT other.collection_id, s.document_id, s.external_id, s.title, s.body, s.language, s.format, s.metadata,
           s.content_hash, s.created_at, s.updated_at
      FROM pgseek.documents s
     WHERE s.collection_id = written_to AND s.document_id = ANY (different) ORDER BY s.document_id
    ON CONFLICT (collection_id, document_id) DO UPDATE
       SET title = excluded.title, body = excluded.body, language = excluded.language, format = excluded.format,
           metadata = excluded.metadata, content_hash = excluded.content_hash, updated_at = excluded.updated_at;
    IF changed IS NULL THEN
        RETURN cardinality(different) + coalesce(cardinality(gone), 0);
    END IF;

    -- As in put_documents(), which says why.
    SELECT s.weighting INTO STRICT weighting FROM pgseek.collection_statistics s
     WHERE s.collection_id = other.collection_id FOR KEY SHARE;
    BEGIN
        SELECT array_agg(s.document_id), array_agg(p.ordinal), array_agg(p.char_start), array_agg(p.text),
               array_agg(p.lexemes), array_agg(p.terms)
          INTO of_document, ordinals, starts, texts, lexemes, terms
          FROM pgseek.documents s, LATERAL pgseek.stand_ins(s.language, s.title, s.body, weighting) AS p
         WHERE s.collection_id = written_to AND s.document_id = ANY (changed);
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        -- Pieces are larger than chunks: one may be too much where they were not. It is found when it is embedded.
        RAISE WARNING 'pgseek: % documents of collection % are not found before they are embedded: %',
            cardinality(changed), other.name, SQLERRM;
    END;
    DELETE FROM pgseek.chunks c WHERE c.collection_id = other.collection_id AND c.document_id = ANY (changed);
    PERFORM pgseek.delete_embeddings(other.collection_id, changed);
    PERFORM pgseek.enqueue_documents(other.collection_id, changed, of_document, ordinals, starts, texts, lexemes, terms);
    RETURN cardinality(different) + coalesce(cardinality(gone), 0);
END
$function$;
