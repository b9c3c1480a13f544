-- Purpose:    the ranking of one query, in keys and scores: reads the query, runs both legs, fuses and shapes.
-- Arguments:  of_collection    a row of collections
--             query, query_embedding, space_id, model  see search()
--             options          see read_options()
--             k                rows wanted
--             given_terms      in place of those of the query
-- Returns:    hits       the rows, see shape()
--             fused      all candidates that there were, in order of place: hits is made of these. NULL if only the
--                        first k were looked at
--             terms      see read_query()
--             degraded   why a leg did not take part, or not exactly; else NULL
--             about      what was done, for explain()
--             dense_found, lexical_found  see fuse()
-- Errors:     PGS02 an empty or too long query, PGS04 and PGS05 see search()
-- Volatility: volatile, because settings of indexes are set for its statements (and put back). It writes nothing.
CREATE OR REPLACE FUNCTION pgseek.rank(
    of_collection pgseek.collections, query text, query_embedding @vector@.vector, options jsonb, k integer,
    space_id integer DEFAULT NULL, model text DEFAULT NULL, given_terms pgseek.query_terms DEFAULT NULL,
    OUT hits pgseek.candidate[], OUT fused pgseek.candidate[], OUT terms pgseek.query_terms, OUT degraded text, OUT about jsonb,
    OUT dense_found bigint, OUT lexical_found bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    -- What is taken from each leg at most.
    deepest CONSTANT integer := 10000;
    started CONSTANT timestamptz := clock_timestamp();
    space CONSTANT integer := options ->> 'space';
    fusion text := options ->> 'fusion';
    alpha double precision := options ->> 'alpha';
    kind text;
    budget CONSTANT double precision := options ->> 'budget';
    depth CONSTANT integer := options ->> 'depth';
    collapse CONSTANT boolean := options ->> 'collapse';
    feedback CONSTANT integer := options ->> 'feedback';
    -- Whether the ranking changes after the fusion, so that it takes all candidates.
    shaped CONSTANT boolean := collapse OR nullif(options -> 'boosts', 'null') IS NOT NULL OR (options ->> 'diversity')::float8 > 0
        OR options ->> 'near_duplicates' IS NOT NULL OR options ->> 'min_score' IS NOT NULL
        OR options ->> 'min_dense_score' IS NOT NULL OR options ->> 'min_lexical_score' IS NOT NULL
        OR (options ->> 'passages')::integer > 0 OR coalesce((options ->> 'all')::boolean, false);
    of_space pgseek.embedding_spaces;
    with_dense boolean;
    reason text;
    read_at timestamptz;
    fused_at timestamptz;
    candidates integer;
    legs record;
    more record;
    before jsonb;
BEGIN
    IF query IS NULL OR btrim(query, E' \t\r\n') = '' THEN
        RAISE EXCEPTION 'the query is empty' USING ERRCODE = 'PGS02', HINT = 'give at least one word';
    END IF;
    IF length(query) > 20000 THEN
        RAISE EXCEPTION 'the query has % characters, but at most 20000 are allowed', length(query) USING ERRCODE = 'PGS02';
    END IF;

    -- The dense leg: whether it can run, and with which vector.
    SELECT s.* INTO of_space FROM pgseek.embedding_spaces s
     WHERE s.space_id = coalesce(space, of_collection.active_space_id) AND s.collection_id = of_collection.collection_id;
    IF of_space.state IS NULL OR of_space.state NOT IN ('active', 'ready') THEN
        RAISE EXCEPTION 'collection % cannot be searched by space %: %', quote_literal(of_collection.name), space,
            coalesce('it is ' || CASE of_space.state WHEN 'building' THEN 'still being built' ELSE of_space.state END, 'it has no such space')
            USING ERRCODE = 'PGS05', HINT = 'pgseek spaces list shows those it has';
    END IF;
    IF fusion = 'auto' THEN
        kind := pgseek.query_kind(query);
        fusion := 'weighted';
        alpha := pgseek.auto_alpha(alpha, kind, of_space.provider);
        options := options || jsonb_build_object('fusion', fusion, 'alpha', alpha);
    END IF;
    with_dense := fusion = 'rrf' OR alpha > 0;
    IF query_embedding IS NOT NULL AND @vector@.vector_dims(query_embedding) <> of_space.dimensions THEN
        RAISE EXCEPTION 'the query embedding has % dimensions, but collection % uses %:% with %',
            @vector@.vector_dims(query_embedding), quote_literal(of_collection.name),
            of_space.provider, of_space.model, of_space.dimensions
            USING ERRCODE = 'PGS04', HINT = 'embed the query with the model of the collection';
    END IF;
    IF query_embedding IS NOT NULL OR space_id IS NOT NULL OR model IS NOT NULL THEN
        PERFORM pgseek.check_model(of_collection.name, of_space.space_id, space_id, model);
    END IF;
    IF query_embedding IS NOT NULL AND of_space.metric = 'cosine' AND @vector@.vector_norm(query_embedding) = 0 THEN
        RAISE EXCEPTION 'the query embedding is zero; cosine needs a direction' USING ERRCODE = 'PGS02';
    END IF;
    IF with_dense AND query_embedding IS NULL THEN
        SELECT c.embedding INTO query_embedding FROM pgseek.embedding_cache c
         WHERE c.tenant = of_collection.tenant AND c.identity = of_space.identity AND c.input_type = 'query'
           AND c.text_hash = sha256(convert_to(query, 'UTF8'))
           AND (c.expires_at IS NULL OR c.expires_at > statement_timestamp());
        IF query_embedding IS NULL THEN
            IF fusion = 'weighted' AND alpha = 1 THEN
                RAISE EXCEPTION 'alpha => 1 asks for the dense leg alone, but the query has no embedding'
                    USING ERRCODE = 'PGS02', HINT = 'give query_embedding, or search once through a client to cache it';
            END IF;
            with_dense := false;
            reason := 'lexical only: no query_embedding was given and the cache has none for this text';
        END IF;
    END IF;
    IF NOT with_dense THEN
        query_embedding := NULL;
    END IF;

    terms := CASE WHEN given_terms.lexemes IS NULL
        THEN pgseek.read_query(of_collection, query, options ->> 'syntax', (options ->> 'typos')::boolean) ELSE given_terms END;
    IF terms.lexemes = '{}' AND (fusion = 'rrf' OR alpha < 1) THEN
        reason := concat_ws('; ', reason, CASE WHEN with_dense THEN 'dense only: ' END
            || 'the query holds no lexeme in ' || array_to_string(of_collection.languages, ', '));
        IF NOT with_dense THEN
            degraded := format('no leg can answer: the query holds no lexeme in %s, and has no embedding',
                array_to_string(of_collection.languages, ', '));
            RAISE NOTICE '%', degraded;
            RETURN;
        END IF;
    END IF;
    read_at := clock_timestamp();
    IF feedback > 0 THEN
        -- What the first answers have in common is looked for, too.
        legs := pgseek.fuse(of_collection, of_space, query_embedding, terms, options, greatest(feedback, depth), feedback, budget);
        before := legs.before;
        more := pgseek.expand_by_feedback(of_collection, of_space, query_embedding, terms, legs.hits, options);
        query_embedding := more.vector;
        terms := more.expanded;
    END IF;

    -- What else a single leg brought would only change the places within it.
    candidates := CASE WHEN collapse THEN least(deepest, greatest(2 * k, depth))
        WHEN shaped OR (with_dense AND (fusion = 'rrf' OR alpha < 1) AND terms.known IS NOT NULL) THEN greatest(k, depth) ELSE k END;
    LOOP
        legs := pgseek.fuse(of_collection, of_space, query_embedding, terms, options, candidates, CASE WHEN NOT shaped THEN k END,
            -- Reading the query counts too; what is left is never so little that nothing could be found.
            greatest(budget / 5, budget - extract(epoch FROM clock_timestamp() - started) * 1000));
        before := coalesce(before, legs.before);
        fused_at := clock_timestamp();
        hits := CASE WHEN shaped THEN pgseek.shape(of_collection, of_space, legs.hits, options, k) ELSE legs.hits END;
        -- How many candidates make k documents is only known when they are there.
        EXIT WHEN NOT collapse OR cardinality(hits) >= k OR candidates >= deepest
            OR (coalesce(legs.dense_found, 0) < candidates AND coalesce(legs.lexical_found, 0) < candidates);
        candidates := least(deepest, 4 * candidates);
    END LOOP;
    fused := CASE WHEN shaped THEN legs.hits END;
    dense_found := legs.dense_found;
    lexical_found := legs.lexical_found;
    degraded := concat_ws('; ', reason, CASE WHEN NOT legs.exact_lexical AND options ->> 'lexical' = 'bm25' THEN
        format('lexical leg approximate: its budget of %s ms ran out', budget) END);
    degraded := nullif(degraded, '');
    IF (options ->> 'about')::boolean THEN
        about := jsonb_build_object(
            'kind', kind,
            'alpha', CASE WHEN fusion = 'weighted' THEN alpha END,
            'space', pgseek.describe_space(of_space.space_id),
            'words', coalesce((SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('lexeme', u.lexeme, 'chunks', u.chunks,
                'weight', round(u.weight::numeric, 4), 'origin', u.origin)) ORDER BY u.weight DESC, u.lexeme)
                FROM unnest(terms.known, terms.counts, terms.weights, terms.origins) AS u (lexeme, chunks, weight, origin)), '[]'),
            'unknown_words', (SELECT coalesce(jsonb_agg(u.lexeme ORDER BY u.lexeme), '[]') FROM unnest(terms.lexemes) AS u (lexeme)
                WHERE u.lexeme <> ALL (coalesce(terms.known, '{}'))),
            'restriction', terms.restriction::text,
            'candidates', candidates,
            'dense', CASE WHEN query_embedding IS NOT NULL THEN jsonb_build_object('found', legs.dense_found,
                'exact', legs.exact_dense OR of_space.indexing ->> 'method' = 'none') END,
            'lexical', CASE WHEN legs.lexical_found IS NOT NULL THEN jsonb_build_object('found', legs.lexical_found, 'exact', legs.exact_lexical) END,
            'matching', legs.matching,
            'fused', CASE WHEN shaped THEN cardinality(legs.hits) END,
            'milliseconds', jsonb_build_object(
                'read', round((extract(epoch FROM read_at - started) * 1000)::numeric, 3),
                'fuse', round((extract(epoch FROM fused_at - read_at) * 1000)::numeric, 3),
                'shape', round((extract(epoch FROM clock_timestamp() - fused_at) * 1000)::numeric, 3)));
    END IF;
    IF before IS NOT NULL THEN
        PERFORM pgseek.end_walk(before);
    END IF;
END
$function$;
