-- Purpose:    the documents that somebody will like, by those that they liked and disliked: their vectors are compared,
--             words are not.
-- Arguments:  collection
--             liked, disliked  external ids of stored documents
--             k                documents returned, 1..1,000
--             options          an object with
--                 strategy     'rocchio': near the mean of the liked ones, away from that of the disliked.
--                              'best_score': near any one of the liked ones, and nearer to it than to all disliked
--                 disliked_weight  of rocchio, 0..1: the share of the disliked mean that is taken off. Default 0.2, which is
--                              0.15 / 0.75 of Manning, Raghavan and Schütze (2008), 9.1.1
--                 history      an array of events {"id", "at", "weight"}: liked with a weight above 0 (1 by default),
--                              disliked below, seen only with 0. Several of one document are added up
--                 half_life    an event counts weight * 2 ^ (-age / half_life); seconds, or an interval as text. Without it
--                              all count alike
--                 now          what ages are counted to: ISO 8601 or seconds since 1970. Default: the statement's time
--                 exclude      ids of documents that are not returned, besides liked, disliked and history; those that the
--                              collection does not have are of no matter
--                 on_missing   'raise', or 'ignore' liked, disliked and events that are no document of the collection
--             and of search()'s: boosts, candidates, collapse, diversity, ef_search, filter, highlight, min_dense_score,
--             min_score, near_duplicates, neighbours, passages, probes, rerank, snippets, space. Each document comes once
--             unless "collapse" says otherwise
-- Returns:    as search(). dense_score is the similarity to the mean, or to the liked one that counts most; score is
--             that (best_score: times the liked one's weight over the heaviest's) over the best candidate's
-- Method:     a document is the mean of its vectors, of unit length where the metric is cosine. The 1,000 heaviest of each
--             side count. rocchio walks the index from liked - share * disliked (Rocchio 1971, without a query); for L2
--             and L1 from liked + share * (liked - disliked), since lengths and places count there. best_score walks it
--             from each of the 50 heaviest liked ones, scores what they brought by all, and drops what is nearer to a
--             disliked one than to the liked one nearest to it. More is taken from the index until there are k documents, at
--             most 10,000 chunks, and of several walks their share of that, but 2 * k of each.
-- Ordering:   score descending; ties by document_id, ordinal.
-- Errors:     PGS01 no such collection; PGS02 nothing is liked, or none of it is embedded; an unknown document; an option
--             out of range; PGS05 no such space
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile, as search(). It writes nothing and runs on a read-only standby.
-- Index:      that of embeddings_<space>, its primary key, documents_pkey.
CREATE OR REPLACE FUNCTION pgseek.recommend(
    collection text, liked text[] DEFAULT '{}', disliked text[] DEFAULT '{}', k integer DEFAULT 10, options jsonb DEFAULT '{}')
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
    own CONSTANT text[] := '{disliked_weight,exclude,half_life,history,now,on_missing,strategy}';
    of_search CONSTANT text[] := '{boosts,candidates,collapse,diversity,ef_search,filter,highlight,min_dense_score,min_score,'
        'near_duplicates,neighbours,passages,probes,rerank,snippets,space}';
    most_examples CONSTANT integer := 1000;
    most_walks CONSTANT integer := 50;
    deepest integer := 10000;
    strategy text;
    share double precision;
    complete jsonb;
    terms pgseek.query_terms;
    of_space pgseek.embedding_spaces;
    unknown text;
    seen uuid[];
    -- Of those that count, heaviest first: external ids, vectors, weights over the heaviest's; below 0 for disliked.
    vectors @vector@.vector[];
    weights double precision[];
    asked @vector@.vector[];
    unembedded text[];
    parts record;
    candidates integer;
    exhausted boolean;
    legs record;
    before jsonb;
    found_rows pgseek.candidate[];
    hits pgseek.candidate[];
BEGIN
    IF k IS NULL OR k NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'k is %, but must be from 1 to 1000', coalesce(k::text, 'NULL') USING ERRCODE = 'PGS02';
    ELSIF options IS NULL OR jsonb_typeof(options) <> 'object' THEN
        RAISE EXCEPTION 'options is %, but must be an object such as {"strategy": "best_score"}', coalesce(options::text, 'NULL')
            USING ERRCODE = 'PGS02';
    END IF;
    SELECT string_agg(quote_literal(o.key), ', ' ORDER BY o.key) INTO unknown
      FROM jsonb_object_keys(options) AS o (key) WHERE o.key <> ALL (own || of_search);
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'unknown options: %', unknown USING ERRCODE = 'PGS02',
            HINT = 'vectors are compared, and no words; known are ' || (SELECT string_agg(u.key, ', ' ORDER BY u.key) FROM unnest(own || of_search) AS u (key));
    END IF;
    strategy := coalesce(options ->> 'strategy', 'rocchio');
    IF strategy NOT IN ('rocchio', 'best_score') THEN
        RAISE EXCEPTION 'strategy is %, but must be ''rocchio'' or ''best_score''', quote_literal(strategy) USING ERRCODE = 'PGS02';
    END IF;
    IF jsonb_typeof(coalesce(options -> 'disliked_weight', '0')) NOT IN ('number', 'null')
        OR (options ->> 'disliked_weight')::numeric NOT BETWEEN 0 AND 1 THEN
        RAISE EXCEPTION 'disliked_weight is %, but must lie in 0..1', options -> 'disliked_weight' USING ERRCODE = 'PGS02';
    END IF;
    share := coalesce((options ->> 'disliked_weight')::double precision, 0.2);
    IF (CASE jsonb_typeof(coalesce(options -> 'exclude', '[]')) WHEN 'array'
        THEN EXISTS (SELECT FROM jsonb_array_elements(options -> 'exclude') AS x (id) WHERE jsonb_typeof(x.id) <> 'string')
        ELSE options ->> 'exclude' IS NOT NULL END) THEN
        RAISE EXCEPTION 'exclude is %, but must be an array of ids', left(options ->> 'exclude', 200) USING ERRCODE = 'PGS02';
    END IF;
    -- The dense leg alone, whatever the collection's settings.
    complete := pgseek.read_options(of_collection, '{"collapse": true}' || (options - own)
        || jsonb_build_object('k', k, 'alpha', 1, 'fusion', 'weighted'));
    SELECT s.* INTO of_space FROM pgseek.embedding_spaces s
     WHERE s.space_id = coalesce((complete ->> 'space')::integer, of_collection.active_space_id)
       AND s.collection_id = of_collection.collection_id;
    IF of_space.state IS NULL OR of_space.state NOT IN ('active', 'ready') THEN
        RAISE EXCEPTION 'collection % cannot be searched by space %: %', quote_literal(of_collection.name), complete ->> 'space',
            coalesce('it is ' || CASE of_space.state WHEN 'building' THEN 'still being built' ELSE of_space.state END, 'it has no such space')
            USING ERRCODE = 'PGS05', HINT = 'pgseek spaces list shows those it has';
    END IF;

    -- Who is compared with, and who is not returned.
    parts := pgseek.dense_parts(of_space, 'x.vector', candidates => 10);
    EXECUTE format($statement$
        WITH examples AS MATERIALIZED (SELECT x.* FROM pgseek.read_examples($1, $2, $3, $4) AS x),
        heaviest AS (
            (SELECT x.* FROM examples x WHERE x.weight > 0 ORDER BY x.weight DESC, x.document_id LIMIT $5)
            UNION ALL (SELECT x.* FROM examples x WHERE x.weight < 0 ORDER BY x.weight, x.document_id LIMIT $5)),
        embedded AS MATERIALIZED (
            SELECT h.*, (SELECT @vector@.avg(%1$s) FROM pgseek.%2$I e
                          WHERE e.collection_id = $6 AND e.document_id = h.document_id) AS vector
              FROM heaviest h),
        relative AS (
            SELECT m.vector, m.weight / max(abs(m.weight)) OVER (PARTITION BY sign(m.weight)) AS weight, m.document_id
              FROM embedded m WHERE m.vector IS NOT NULL AND @vector@.vector_norm(m.vector) > 0)
        -- Those that weigh nothing next to the heaviest would be lost in single precision.
        SELECT (SELECT array_agg(r.vector ORDER BY r.weight DESC, r.document_id) FROM relative r WHERE abs(r.weight) > 1e-18),
               (SELECT array_agg(r.weight ORDER BY r.weight DESC, r.document_id) FROM relative r WHERE abs(r.weight) > 1e-18),
               (SELECT array_agg(m.external_id ORDER BY m.external_id) FROM embedded m WHERE m.vector IS NULL),
               (SELECT array_agg(x.document_id) FROM examples x)
        $statement$,
        CASE of_space.metric WHEN 'cosine' THEN '@vector@.l2_normalize(e.embedding::@vector@.vector)' ELSE 'e.embedding::@vector@.vector' END,
        'embeddings_' || of_space.space_id)
    INTO vectors, weights, unembedded, seen
    USING of_collection, liked, disliked, options, most_examples, of_collection.collection_id;
    IF coalesce(weights[1], 0) <= 0 THEN
        RAISE EXCEPTION '%', CASE WHEN unembedded IS NOT NULL THEN format('none of the liked documents has an embedding yet: %s%s',
                (SELECT string_agg(quote_literal(u.id), ', ' ORDER BY u.id) FROM unnest(unembedded[:5]) AS u (id)),
                CASE WHEN cardinality(unembedded) > 5 THEN ', …' ELSE '' END)
            WHEN weights IS NOT NULL OR cardinality(disliked) > 0 THEN
                'nothing is liked: what is disliked alone tells what to keep away from, not where to look'
            ELSE 'nothing is liked: liked is empty, and history has no event of a stored document with a weight above 0' END
            USING ERRCODE = 'PGS02', HINT = CASE WHEN unembedded IS NOT NULL THEN 'have them embedded: pgseek worker --once'
                ELSE 'give one id or more that are liked' END;
    END IF;
    IF of_space.metric = 'cosine' THEN
        SELECT array_agg(@vector@.l2_normalize(u.vector) ORDER BY u.n) INTO vectors FROM unnest(vectors) WITH ORDINALITY AS u (vector, n);
    END IF;
    IF strategy = 'rocchio' THEN
        -- Weights that sum up to one, or to minus the share, on each side.
        SELECT ARRAY[@vector@.sum(array_fill((CASE WHEN u.weight > 0
                   THEN CASE WHEN of_space.metric IN ('l2', 'l1') AND u.lowest < 0 THEN 1 + share ELSE 1 END ELSE share END
                   * u.weight / u.side)::real, ARRAY[of_space.dimensions])::@vector@.vector OPERATOR(@vector@.*) u.vector)]
          INTO asked
          FROM (SELECT w.*, sum(abs(w.weight)) OVER (PARTITION BY sign(w.weight)) AS side, min(w.weight) OVER () AS lowest
                  FROM unnest(vectors, weights) AS w (vector, weight)) AS u;
        IF of_space.metric = 'cosine' AND @vector@.vector_norm(asked[1]) < 1e-6 THEN
            RAISE EXCEPTION 'the liked and disliked vectors cancel each other' USING ERRCODE = 'PGS02',
                HINT = 'say "strategy": "best_score", or a lower "disliked_weight"';
        END IF;
    ELSE
        SELECT array_agg(w.vector ORDER BY w.n) INTO asked
          FROM unnest(vectors, weights) WITH ORDINALITY AS w (vector, weight, n) WHERE w.weight > 0 AND w.n <= most_walks;
    END IF;
    seen := ARRAY(SELECT u.id FROM unnest(seen) AS u (id) UNION
                  SELECT pgseek.document_id(x.id) FROM jsonb_array_elements_text(nullif(options -> 'exclude', 'null')) AS x (id));
    complete := complete || jsonb_build_object('excluded', seen, 'calibrated', false);
    terms.lexemes := '{}';

    -- Many walks overlap, and what each brings is compared with all that counts: each goes less deep.
    candidates := least(deepest, greatest(2 * k / cardinality(asked), (complete ->> 'depth')::integer));
    deepest := least(deepest, greatest(2 * k, candidates, deepest / cardinality(asked)));
    LOOP
        found_rows := NULL;
        exhausted := true;
        FOR walks IN 1 .. cardinality(asked) LOOP
            legs := pgseek.fuse(of_collection, of_space, asked[walks], terms, complete, candidates, NULL, 1000);
            before := coalesce(before, legs.before);
            exhausted := exhausted AND legs.dense_found < candidates;
            found_rows := found_rows || legs.hits;
        END LOOP;
        IF strategy = 'best_score' THEN
            EXECUTE format($statement$
                WITH rows AS (SELECT DISTINCT c.document_id, c.ordinal FROM unnest($2) AS c),
                measured AS (
                    SELECT r.document_id, r.ordinal, best.distance, best.similarity, best.weighted
                      FROM rows r
                      JOIN pgseek.%1$I e ON e.collection_id = $1 AND e.document_id = r.document_id AND e.ordinal = r.ordinal
                      CROSS JOIN LATERAL (
                          SELECT (array_agg(s.distance ORDER BY s.weighted DESC, s.distance))[1] AS distance,
                                 (array_agg(s.similarity ORDER BY s.weighted DESC, s.distance))[1] AS similarity,
                                 max(s.weighted) AS weighted, max(s.similarity) AS nearest
                            FROM (SELECT y.distance, y.similarity,
                                         CASE WHEN y.similarity >= 0 THEN y.similarity * y.weight ELSE y.similarity / y.weight END AS weighted
                                    FROM (SELECT d.distance, %3$s AS similarity, x.weight FROM unnest($3, $4) AS x (vector, weight)
                                           CROSS JOIN LATERAL (SELECT %2$s AS distance) AS d WHERE x.weight > 0) AS y) AS s) AS best
                     WHERE NOT EXISTS (
                         SELECT FROM unnest($3, $4) AS x (vector, weight) CROSS JOIN LATERAL (SELECT %2$s AS distance) AS d
                          WHERE x.weight < 0 AND %3$s > best.nearest)),
                placed AS (
                    SELECT m.*, m.weighted / coalesce(nullif(abs(max(m.weighted) OVER ()), 0), 1) AS score,
                           row_number() OVER (ORDER BY m.weighted DESC, m.document_id, m.ordinal) AS place
                      FROM measured m)
                SELECT array_agg(ROW(p.document_id, p.ordinal, p.place, p.score, p.similarity, p.distance, p.place, p.score,
                           NULL, NULL, NULL, 1, NULL)::pgseek.candidate ORDER BY p.place)
                  FROM placed p
                $statement$, 'embeddings_' || of_space.space_id, parts.distance, format(parts.similarity, 'd.distance'))
            INTO found_rows USING of_collection.collection_id, found_rows, vectors, weights;
        END IF;
        hits := pgseek.shape(of_collection, of_space, found_rows, complete, k);
        EXIT WHEN cardinality(hits) >= k OR candidates >= deepest OR exhausted;
        candidates := least(deepest, 4 * candidates);
    END LOOP;
    IF before IS NOT NULL THEN
        PERFORM pgseek.end_walk(before);
    END IF;
    RETURN QUERY SELECT s.* FROM pgseek.show(of_collection, hits, found_rows, terms, complete,
        CASE WHEN unembedded IS NOT NULL THEN format('without %s of the liked and disliked, not embedded yet: %s%s', cardinality(unembedded),
            array_to_string(unembedded[:5], ', '), CASE WHEN cardinality(unembedded) > 5 THEN ', …' ELSE '' END) END) AS s;
END
$function$;
