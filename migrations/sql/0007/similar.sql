-- Purpose:    the documents most like one that is stored: its vectors' mean for the dense leg, its 20 weightiest words
--             for the lexical one, fused as a search.
-- Arguments:  collection
--             id           the document's external_id
--             k            documents returned, 1..1,000; never the document itself
--             options      see read_options(); each document comes once unless "collapse" says otherwise
-- Returns:    as search()
-- Ordering:   score descending; ties by document_id, ordinal.
-- Errors:     PGS01 no such collection, PGS02 no such document, or an option out of range, PGS05 no such space
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile, as search(). It writes nothing and runs on a read-only standby.
CREATE OR REPLACE FUNCTION pgseek.similar(
    collection text, id text, k integer DEFAULT 10, options jsonb DEFAULT '{}')
RETURNS TABLE (
    rank integer,
    external_id text,
    ordinal integer,
    score double precision,
    dense_score double precision,
    dense_rank integer,
    dense_contribution double precision,
    lexical_score double precision,
    lexical_rank integer,
    lexical_contribution double precision,
    matched jsonb,
    title text,
    text text,
    snippet text,
    metadata jsonb,
    char_start integer,
    char_end integer,
    document_id uuid,
    degraded text,
    kind text,
    provenance jsonb,
    section text,
    matched_text text,
    dense_distance double precision,
    boost double precision,
    relevance double precision,
    duplicates text[],
    other_passages jsonb,
    context text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    of_collection CONSTANT pgseek.collections := pgseek.require_collection(collection);
    most_words CONSTANT integer := 20;
    complete jsonb;
    space integer;
    own uuid;
    words text;
    vector @vector@.vector;
    terms pgseek.query_terms;
    ranking record;
    hits pgseek.candidate[];
BEGIN
    IF k IS NULL OR k NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'k is %, but must be from 1 to 1000', coalesce(k::text, 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    -- One more, for the document finds itself.
    complete := pgseek.read_options(of_collection, CASE jsonb_typeof(options) WHEN 'object'
        THEN '{"collapse": true}' || options || jsonb_build_object('k', k + 1) ELSE options END);
    space := coalesce((complete ->> 'space')::integer, of_collection.active_space_id);
    SELECT d.document_id, btrim(concat_ws(' ', nullif(d.title, ''), left(d.body, 2000))) INTO own, words
      FROM pgseek.documents d
     WHERE d.collection_id = of_collection.collection_id AND d.document_id = pgseek.document_id(id);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'collection % has no document %', quote_literal(of_collection.name), coalesce(quote_literal(id), 'NULL')
            USING ERRCODE = 'PGS02';
    END IF;
    IF EXISTS (SELECT FROM pgseek.embedding_spaces s WHERE s.space_id = space AND s.collection_id = of_collection.collection_id
               AND s.state IN ('active', 'ready')) AND (complete ->> 'fusion' = 'rrf' OR (complete ->> 'alpha')::float8 > 0) THEN
        EXECUTE format('SELECT @vector@.avg(@vector@.l2_normalize(e.embedding::@vector@.vector)) FROM pgseek.%I e'
            ' WHERE e.collection_id = $1 AND e.document_id = $2', 'embeddings_' || space)
        INTO vector USING of_collection.collection_id, own;
    END IF;
    IF vector IS NULL AND complete ->> 'fusion' = 'weighted' AND (complete ->> 'alpha')::float8 = 1 THEN
        RAISE EXCEPTION 'alpha is 1, which asks for the dense leg alone, but document % has no embedding yet', quote_literal(id)
            USING ERRCODE = 'PGS02', HINT = 'leave alpha out, or have it embedded: pgseek worker --once';
    END IF;
    terms := pgseek.read_query(of_collection, words, 'plain', false);
    terms.known := terms.known[:most_words];
    terms.dimensions := terms.dimensions[:most_words];
    terms.weights := terms.weights[:most_words];
    terms.counts := terms.counts[:most_words];
    terms.origins := terms.origins[:most_words];
    ranking := pgseek.rank(of_collection, words, vector, complete, k + 1, space, NULL, terms);
    SELECT array_agg(ROW(h.document_id, h.ordinal, h.n, h.score, h.dense_score, h.dense_distance, h.dense_rank, h.dense_part,
               h.lexical_score, h.lexical_rank, h.lexical_part, h.boost, h.duplicates)::pgseek.candidate ORDER BY h.n)
      INTO hits
      FROM (SELECT u.*, row_number() OVER (ORDER BY u.place) AS n FROM unnest(ranking.hits) AS u
             WHERE u.document_id <> own ORDER BY n LIMIT k) AS h;
    RETURN QUERY SELECT s.* FROM pgseek.show(of_collection, hits, ranking.fused, terms, complete || '{"calibrated": false}',
        CASE WHEN vector IS NULL AND ranking.degraded IS NOT NULL THEN 'lexical only: the document has no embedding yet'
        ELSE ranking.degraded END) AS s;
END
$function$;
