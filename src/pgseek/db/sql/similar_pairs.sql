-- Purpose:    the documents most like some that are given, as pairs: the self-join of a space's vectors, a batch at a
--             time, for finding duplicates.
-- Arguments:  space_id      a space that is not retired
--             document_ids  documents of its collection; each of their chunks walks the index
--             min_similarity  the cosine from which on two documents are a pair, -1..1
--             neighbours    chunks that are looked at for each chunk, 1..1,000; four times as many, and again, while the
--                           last of them is so near that there may be more
--             most          but never more than these, up to 1,000
-- Returns:    document_id, which is the smaller one, other_id, and similarity: the cosine of the two documents' mean
--             vectors, over their chunks' unit vectors; whatever the metric and the storage. A pair is looked at if a
--             chunk of the one is among the nearest of a chunk of the other, and not farther than twice what is allowed to
--             the documents: where text was put in front, the same words are divided in other places. Of documents with the
--             very same text there are no pairs: those are found by their hashes, and a thousand copies would make half a
--             million pairs.
-- Ordering:   document_id, other_id.
-- Errors:     PGS02 argument out of range, PGS05 no such space
-- Volatility: volatile, because settings of indexes are set and put back; it writes nothing.
-- Index:      that of the space, primary keys.
CREATE OR REPLACE FUNCTION pgseek.similar_pairs(
    space_id integer, document_ids uuid[], min_similarity double precision, neighbours integer DEFAULT 10,
    most integer DEFAULT 1000)
RETURNS TABLE (document_id uuid, other_id uuid, similarity double precision)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    space pgseek.embedding_spaces;
    parts record;
    walked record;
    before jsonb;
    k integer := neighbours;
    -- Chunks that are still to be looked at, NULL: all of the documents.
    of_documents uuid[] := document_ids;
    of_ordinals integer[];
    low uuid[] := '{}';
    high uuid[] := '{}';
BEGIN
    SELECT s.* INTO space FROM pgseek.embedding_spaces s WHERE s.space_id = space_id AND s.state <> 'retired';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no embedding space %', coalesce(space_id::text, 'NULL')
            USING ERRCODE = 'PGS05', HINT = 'SELECT space_id, model, state FROM pgseek.embedding_spaces lists them';
    END IF;
    IF min_similarity IS NULL OR NOT min_similarity BETWEEN -1 AND 1 THEN
        RAISE EXCEPTION 'min_similarity is %, but must lie in -1..1', coalesce(min_similarity::text, 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    IF most IS NULL OR most NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'most is %, but must be from 1 to 1000', coalesce(most::text, 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    IF neighbours IS NULL OR neighbours NOT BETWEEN 1 AND most THEN
        RAISE EXCEPTION 'neighbours is %, but must be from 1 to %', coalesce(neighbours::text, 'NULL'), most USING ERRCODE = 'PGS02';
    END IF;
    LOOP
        -- One more, for each chunk finds itself.
        parts := pgseek.dense_parts(space, 'a.embedding', candidates => k + 1);
        before := pgseek.begin_walk(space, (k + 1) * parts.rerank);
        EXECUTE format(
            'WITH asked AS MATERIALIZED (SELECT e.document_id, e.ordinal, e.embedding FROM pgseek.%1$I e'
            '   JOIN pgseek.chunks c ON c.collection_id = $1 AND c.document_id = e.document_id AND c.ordinal = e.ordinal AND c.kind = ''chunk'''
            '  WHERE e.collection_id = $1 AND e.document_id = ANY ($2) AND ($3 IS NULL OR (e.document_id, e.ordinal) IN'
            '        (SELECT u.document_id, u.ordinal FROM unnest($2, $3) AS u (document_id, ordinal)))),'
            ' near AS (SELECT a.document_id, a.ordinal, n.document_id AS other_id, row_number() OVER'
            '        (PARTITION BY a.document_id, a.ordinal ORDER BY n.distance, n.document_id, n.ordinal) AS place,'
            '        coalesce(nullif(1 - (n.embedding::@vector@.vector OPERATOR(@vector@.<=>) a.embedding::@vector@.vector), ''NaN''), -1) AS cosine'
            '   FROM asked a CROSS JOIN LATERAL (SELECT e.document_id, e.ordinal, e.embedding, %2$s AS distance'
            '        FROM pgseek.%1$I e ORDER BY %3$s LIMIT $4) AS n),'
            ' pairs AS (SELECT DISTINCT least(n.document_id, n.other_id) AS low, greatest(n.document_id, n.other_id) AS high FROM near n'
            '   WHERE n.place <= $5 AND n.document_id <> n.other_id AND n.cosine >= $6),'
            ' crowded AS (SELECT n.document_id, n.ordinal FROM near n WHERE n.place = $5 AND n.cosine >= $7)'
            ' SELECT ARRAY(SELECT p.low FROM pairs p ORDER BY p.low, p.high) AS low, ARRAY(SELECT p.high FROM pairs p ORDER BY p.low, p.high) AS high,'
            ' ARRAY(SELECT c.document_id FROM crowded c ORDER BY c.document_id, c.ordinal) AS of_documents,'
            ' ARRAY(SELECT c.ordinal FROM crowded c ORDER BY c.document_id, c.ordinal) AS of_ordinals',
            'embeddings_' || space_id, parts.distance, parts.walk)
        INTO walked
        USING space.collection_id, of_documents, of_ordinals, (k + 1) * parts.rerank, k + 1, 2 * min_similarity - 1, min_similarity;
        PERFORM pgseek.end_walk(before);
        low := low || walked.low;
        high := high || walked.high;
        EXIT WHEN walked.of_documents = '{}' OR k >= most;
        of_documents := walked.of_documents;
        of_ordinals := walked.of_ordinals;
        k := least(most, 4 * k);
    END LOOP;
    RETURN QUERY EXECUTE format(
        'WITH pairs AS MATERIALIZED (SELECT DISTINCT u.low, u.high FROM unnest($2, $3) AS u (low, high)),'
        ' means AS MATERIALIZED (SELECT e.document_id, @vector@.avg(@vector@.l2_normalize(e.embedding::@vector@.vector)) AS mean FROM pgseek.%I e'
        '   JOIN pgseek.chunks c ON c.collection_id = $1 AND c.document_id = e.document_id AND c.ordinal = e.ordinal AND c.kind = ''chunk'''
        '  WHERE e.collection_id = $1 AND e.document_id = ANY ($2 || $3) GROUP BY e.document_id)'
        ' SELECT * FROM (SELECT p.low, p.high, coalesce(nullif(1 - (a.mean OPERATOR(@vector@.<=>) b.mean), ''NaN''), -1) AS similarity'
        '   FROM pairs p JOIN means a ON a.document_id = p.low JOIN means b ON b.document_id = p.high'
        '   JOIN pgseek.documents d ON d.collection_id = $1 AND d.document_id = p.low'
        '   JOIN pgseek.documents o ON o.collection_id = $1 AND o.document_id = p.high AND o.content_hash <> d.content_hash) AS s'
        -- A hair''s breadth of rounding must not keep a copy from being one.
        ' WHERE s.similarity >= $4 - 1e-6 ORDER BY s.low, s.high', 'embeddings_' || space_id)
    USING space.collection_id, low, high, min_similarity;
END
$function$;
