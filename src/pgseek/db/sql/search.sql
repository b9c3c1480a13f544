-- Purpose:    hybrid search of one collection: both legs, their fusion and the snippets, in one
--             statement. Python and the command line call this function and reorder nothing.
-- Arguments:  collection       name
--             query            plain text, not blank
--             k                rows returned, 1..10,000
--             query_embedding  the query's vector in the collection's active space. Without it the
--                              cached vector of this exact text is used; failing that the rows are
--                              ranked lexically and say so in "degraded"
--             alpha            weight of the dense leg in 0..1; 0 and 1 run a single leg;
--                              default: the collection's setting. Only for fusion 'weighted'
--             fusion           'weighted': every candidate is scored in both legs, each leg divided
--                              by its maximum, alpha * dense + (1 - alpha) * lexical.
--                              'rrf': the sum of 1 / (rrf_k + rank) over the legs (Cormack et al. 2009)
--             lexical          'bm25' (exact, unless the budget runs out) | 'ts_rank_cd' | 'ts_rank'
--             filter           jsonpath predicate over metadata, such as '$.year >= 2020'
--             candidates       rows taken from each leg, at least k; default: the collection's setting
--             rrf_k            RRF's constant
--             snippets         whether to compute the column "snippet"
--             highlight        the two texts put around matched words
--             budget           milliseconds for the BM25 leg; past them its approximate form answers and
--                              the rows say so in "degraded"
--             space_id         the space that query_embedding belongs to: refused if it is not the active
--                              one, so that vectors of two models are never compared
-- Ordering:   score descending; ties by document_id, ordinal. "rank" is 1-based.
-- Scores:     dense_score is the cosine similarity (-1..1), lexical_score the raw score (>= 0).
-- Errors:     PGS01 no such collection, PGS02 argument out of range, PGS04 wrong dimensions,
--             PGS05 the vector of another space
-- Volatility: volatile, because hnsw.* are set for its statement (and put back). It writes nothing
--             and runs on a read-only standby.
-- Index:      embeddings_<space>_hnsw, chunks_lexemes_idx (GIN), documents_metadata (GIN), primary keys.
CREATE OR REPLACE FUNCTION pgseek.search(
    collection text,
    query text,
    k integer DEFAULT 10,
    query_embedding @vector@.vector DEFAULT NULL,
    alpha double precision DEFAULT NULL,
    fusion text DEFAULT NULL,
    lexical text DEFAULT NULL,
    filter jsonpath DEFAULT NULL,
    candidates integer DEFAULT NULL,
    rrf_k integer DEFAULT 60,
    snippets boolean DEFAULT true,
    highlight text[] DEFAULT ARRAY['<b>', '</b>'],
    budget double precision DEFAULT 50,
    space_id integer DEFAULT NULL)
RETURNS TABLE (
    rank integer,
    external_id text,
    ordinal integer,
    score double precision,
    dense_score double precision,
    dense_rank integer,
    lexical_score double precision,
    lexical_rank integer,
    title text,
    text text,
    snippet text,
    metadata jsonb,
    char_start integer,
    char_end integer,
    document_id uuid,
    degraded text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    -- Filters that keep at most this many documents are answered by an exact scan of those.
    exact_below CONSTANT integer := 10000;
    of_collection pgseek.collections := pgseek.require_collection(collection);
    space pgseek.embedding_spaces;
    words tsquery;
    bag record;
    asked @vector@.sparsevec;
    with_dense boolean;
    with_lexical boolean;
    reason text;
    matching bigint;
    operand text;
    rank_function text;
    dense_where text := '';
    lexical_where text := '';
    dense_order text;
    dense_sql text;
    lexical_sql text;
    score_sql text;
    headline text;
    old_ef text;
    old_scan text;
    old_tuples text;
BEGIN
    IF query IS NULL OR btrim(query, E' \t\r\n') = '' THEN
        RAISE EXCEPTION 'the query is empty' USING ERRCODE = 'PGS02', HINT = 'give at least one word';
    END IF;
    IF length(query) > 20000 THEN
        RAISE EXCEPTION 'the query has % characters, but at most 20000 are allowed', length(query) USING ERRCODE = 'PGS02';
    END IF;
    IF k IS NULL OR k NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'k is %, but must be from 1 to 10000', coalesce(k::text, 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    IF alpha IS NOT NULL AND NOT alpha BETWEEN 0 AND 1 THEN
        RAISE EXCEPTION 'alpha is %, but must lie in 0..1', alpha
            USING ERRCODE = 'PGS02', HINT = '1 is the dense leg alone, 0 the lexical leg alone';
    END IF;
    IF fusion = 'rrf' AND alpha IS NOT NULL THEN
        RAISE EXCEPTION 'alpha is % with fusion ''rrf'', which has no weights', alpha
            USING ERRCODE = 'PGS02', HINT = 'leave alpha out or use fusion => ''weighted''';
    END IF;
    fusion := coalesce(fusion, CASE WHEN alpha IS NULL THEN of_collection.settings ->> 'fusion' END, 'weighted');
    lexical := coalesce(lexical, of_collection.settings ->> 'lexical', 'bm25');
    alpha := coalesce(alpha, (of_collection.settings ->> 'alpha')::double precision, 0.4);
    IF fusion NOT IN ('weighted', 'rrf') THEN
        RAISE EXCEPTION 'fusion is %, but must be ''weighted'' or ''rrf''', quote_literal(fusion) USING ERRCODE = 'PGS02';
    END IF;
    IF lexical NOT IN ('bm25', 'ts_rank_cd', 'ts_rank') THEN
        RAISE EXCEPTION 'lexical is %, but must be ''bm25'', ''ts_rank_cd'' or ''ts_rank''', quote_literal(lexical) USING ERRCODE = 'PGS02';
    END IF;
    IF candidates IS NOT NULL AND candidates NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'candidates is %, but must be from 1 to 10000', candidates USING ERRCODE = 'PGS02';
    END IF;
    IF rrf_k IS NULL OR rrf_k NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION 'rrf_k is %, but must be from 1 to 1000000', coalesce(rrf_k::text, 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    IF snippets AND (highlight IS NULL OR cardinality(highlight) <> 2 OR array_position(highlight, NULL) IS NOT NULL) THEN
        RAISE EXCEPTION 'highlight is %, but must be two texts', coalesce(highlight::text, 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    IF budget IS NULL OR NOT budget > 0 THEN
        RAISE EXCEPTION 'budget is %, but must be above 0 milliseconds', coalesce(budget::text, 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    candidates := greatest(k, coalesce(candidates, (of_collection.settings ->> 'candidates')::integer, 100));

    -- The dense leg: whether it can run, and with which vector.
    SELECT s.* INTO STRICT space FROM pgseek.embedding_spaces s WHERE s.space_id = of_collection.active_space_id;
    with_dense := fusion = 'rrf' OR alpha > 0;
    IF space_id <> space.space_id THEN
        RAISE EXCEPTION 'the query was embedded for space %, but collection % now uses space % (%:% with % dimensions)',
            space_id, quote_literal(of_collection.name), space.space_id, space.provider, space.model, space.dimensions
            USING ERRCODE = 'PGS05', HINT = 'open the collection again';
    END IF;
    IF query_embedding IS NOT NULL AND @vector@.vector_dims(query_embedding) <> space.dimensions THEN
        RAISE EXCEPTION 'the query embedding has % dimensions, but collection % uses %:% with %',
            @vector@.vector_dims(query_embedding), quote_literal(of_collection.name),
            space.provider, space.model, space.dimensions
            USING ERRCODE = 'PGS04', HINT = 'embed the query with the model of the collection';
    END IF;
    IF query_embedding IS NOT NULL AND @vector@.vector_norm(query_embedding) = 0 THEN
        RAISE EXCEPTION 'the query embedding is zero; cosine needs a direction' USING ERRCODE = 'PGS02';
    END IF;
    IF with_dense AND query_embedding IS NULL THEN
        SELECT c.embedding INTO query_embedding FROM pgseek.embedding_cache c
         WHERE c.identity = space.identity AND c.input_type = 'query'
           AND c.text_hash = sha256(convert_to(query, 'UTF8'));
        IF query_embedding IS NULL THEN
            IF fusion = 'weighted' AND alpha = 1 THEN
                RAISE EXCEPTION 'alpha => 1 asks for the dense leg alone, but the query has no embedding'
                    USING ERRCODE = 'PGS02', HINT = 'give query_embedding, or search once through a client to cache it';
            END IF;
            with_dense := false;
            reason := 'lexical only: no query_embedding was given and the cache has none for this text';
        END IF;
    END IF;

    -- The lexical leg.
    words := pgseek.lexical_query(of_collection.languages, query);
    with_lexical := (fusion = 'rrf' OR alpha < 1) AND words IS NOT NULL;
    IF words IS NULL AND (fusion = 'rrf' OR alpha < 1) THEN
        reason := concat_ws('; ', reason, CASE WHEN with_dense THEN 'dense only: ' END
            || 'the query holds no lexeme in ' || array_to_string(of_collection.languages, ', '));
        IF NOT with_dense THEN
            RAISE NOTICE 'no leg can answer: the query holds no lexeme in %, and has no embedding',
                array_to_string(of_collection.languages, ', ');
            RETURN;
        END IF;
    END IF;
    operand := CASE space.storage
        WHEN 'halfvec' THEN format('$2::@vector@.halfvec(%s)', space.dimensions)
        ELSE format('$2::@vector@.vector(%s)', space.dimensions) END;
    dense_order := format('e.embedding OPERATOR(@vector@.<=>) %s', operand);
    -- What scores one chunk c; every row of the union is scored so.
    IF lexical = 'bm25' AND with_lexical THEN
        bag := pgseek.bm25_words(of_collection.languages, query);
        asked := pgseek.bm25_query(of_collection.collection_id, bag.lexemes, bag.frequencies);
        rank_function := '0 - (c.terms OPERATOR(@vector@.<#>) $13)';
    ELSE
        SELECT '{}'::text[] AS lexemes, '{}'::integer[] AS frequencies INTO bag;
        rank_function := format('CASE WHEN c.lexemes @@ $3 THEN %s(c.lexemes, $3) ELSE 0 END', lexical);
    END IF;

    IF filter IS NOT NULL THEN
        SELECT count(*) INTO matching FROM (
            SELECT FROM pgseek.documents d
             WHERE d.collection_id = of_collection.collection_id AND d.metadata @@ filter
             LIMIT exact_below + 1) AS counted;
        lexical_where := ' AND EXISTS (SELECT FROM pgseek.documents d WHERE d.collection_id = $1'
            ' AND d.document_id = c.document_id AND d.metadata @@ $6)';
        IF matching <= exact_below THEN
            dense_where := ' WHERE e.document_id IN (SELECT d.document_id FROM pgseek.documents d'
                ' WHERE d.collection_id = $1 AND d.metadata @@ $6)';
            -- Adding zero keeps the planner from walking the HNSW graph for the few that match.
            dense_order := format('(%s) + 0', dense_order);
        ELSE
            dense_where := ' WHERE EXISTS (SELECT FROM pgseek.documents d WHERE d.collection_id = $1'
                ' AND d.document_id = e.document_id AND d.metadata @@ $6)';
        END IF;
    END IF;

    -- Each leg limits in its own CTE; places are given in a second one, so that the first keeps its
    -- index order (and can run next to the data when the tables are distributed).
    dense_sql := CASE WHEN with_dense THEN format(
        'SELECT e.document_id, e.ordinal, e.embedding OPERATOR(@vector@.<=>) %s AS distance'
        ' FROM pgseek.%I e%s ORDER BY %s LIMIT $4',
        operand, 'embeddings_' || space.space_id, dense_where, dense_order)
        ELSE 'SELECT NULL::uuid AS document_id, NULL::integer AS ordinal, NULL::float8 AS distance WHERE false' END;
    lexical_sql := CASE
        WHEN NOT with_lexical THEN
            'SELECT NULL::uuid AS document_id, NULL::integer AS ordinal, NULL::float8 AS score, true AS exact WHERE false'
        WHEN lexical = 'bm25' THEN
            'SELECT b.document_id, b.ordinal, b.score, b.exact'
            ' FROM pgseek.bm25_candidates($1, $14, $15, $4, $6, $16) b'
            ' ORDER BY b.score DESC, b.document_id, b.ordinal LIMIT $4'
        ELSE format(
            'SELECT c.document_id, c.ordinal, %s(c.lexemes, $3)::float8 AS score, true AS exact FROM pgseek.chunks c'
            ' WHERE c.collection_id = $1 AND c.lexemes @@ $5%s'
            ' ORDER BY score DESC, c.document_id, c.ordinal LIMIT $4', lexical, lexical_where) END;
    score_sql := CASE fusion
        WHEN 'rrf' THEN 'coalesce(1.0::float8 / ($9 + s.dense_rank), 0) + coalesce(1.0::float8 / ($9 + s.lexical_rank), 0)'
        -- Dividing by the size of the maximum keeps the order even where every cosine is negative.
        -- A leg that scored nothing leaves its weight to the other: hybrid then is that leg, not half of it.
        ELSE 'CASE WHEN coalesce(max(s.lexical_score) OVER (), 0) = 0 THEN 1'
             '     WHEN max(s.dense_score) OVER () IS NULL THEN 0 ELSE $8 END'
             ' * coalesce(s.dense_score / coalesce(nullif(abs(max(s.dense_score) OVER ()), 0), 1), 0)'
             ' + CASE WHEN max(s.dense_score) OVER () IS NULL THEN 1 ELSE 1 - $8 END'
             ' * coalesce(s.lexical_score / coalesce(nullif(max(s.lexical_score) OVER (), 0), 1), 0)' END;
    headline := format('StartSel="%s", StopSel="%s", MaxFragments=2, MaxWords=18, MinWords=8, FragmentDelimiter=" … "',
        replace(highlight[1], '"', '""'), replace(highlight[2], '"', '""'));

    IF with_dense THEN
        old_ef := coalesce(current_setting('hnsw.ef_search', true), '40');
        old_scan := coalesce(current_setting('hnsw.iterative_scan', true), 'off');
        old_tuples := coalesce(current_setting('hnsw.max_scan_tuples', true), '20000');
        EXECUTE format('SET LOCAL hnsw.ef_search = %s', least(1000, greatest(candidates, 100)));
        EXECUTE 'SET LOCAL hnsw.iterative_scan = relaxed_order';
        -- A filter that keeps few of many rows needs a longer walk for as many candidates.
        EXECUTE format('SET LOCAL hnsw.max_scan_tuples = %s', least(10000000, greatest(40000, 4 * candidates,
            CASE WHEN filter IS NOT NULL THEN 4 * candidates * (SELECT s.chunks FROM pgseek.collection_statistics s
                WHERE s.collection_id = of_collection.collection_id) / exact_below END)));
    END IF;

    RETURN QUERY EXECUTE format($statement$
        WITH dense AS (%1$s),
        dense_ranked AS (
            SELECT r.document_id, r.ordinal,
                   row_number() OVER (ORDER BY r.distance, r.document_id, r.ordinal) AS dense_rank
              FROM dense r),
        lexical AS (%2$s),
        lexical_ranked AS (
            SELECT r.document_id, r.ordinal,
                   row_number() OVER (ORDER BY r.score DESC, r.document_id, r.ordinal) AS lexical_rank
              FROM lexical r),
        candidates AS (
            SELECT document_id, ordinal, d.dense_rank, l.lexical_rank
              FROM dense_ranked d FULL JOIN lexical_ranked l USING (document_id, ordinal)),
        scored AS (
            SELECT x.document_id, x.ordinal, x.dense_rank, x.lexical_rank,
                   %3$s AS dense_score,
                   %4$s AS lexical_score
              FROM candidates x
              JOIN pgseek.chunks c ON c.collection_id = $1 AND c.document_id = x.document_id AND c.ordinal = x.ordinal
              LEFT JOIN pgseek.%5$I e ON e.collection_id = $1 AND e.document_id = x.document_id AND e.ordinal = x.ordinal),
        fused AS (
            SELECT s.*, %6$s AS score FROM scored s),
        best AS (
            SELECT f.*, row_number() OVER (ORDER BY f.score DESC, f.document_id, f.ordinal) AS place
              FROM fused f ORDER BY f.score DESC, f.document_id, f.ordinal LIMIT $7)
        SELECT b.place::integer, d.external_id, b.ordinal, b.score,
               b.dense_score, b.dense_rank::integer, b.lexical_score, b.lexical_rank::integer,
               c.title, c.text,
               CASE WHEN $10 THEN coalesce(ts_headline(c.language::regconfig, c.text, $3, $11), left(c.text, 200)) END,
               d.metadata, c.char_start, c.char_end, b.document_id,
               nullif(concat_ws('; ', $12, CASE WHEN NOT (SELECT bool_and(l.exact) FROM lexical l) THEN
                   'lexical leg approximate: its budget of ' || $16 || ' ms ran out' END), '')
          FROM best b
          JOIN pgseek.chunks c ON c.collection_id = $1 AND c.document_id = b.document_id AND c.ordinal = b.ordinal
          JOIN pgseek.documents d ON d.collection_id = $1 AND d.document_id = b.document_id
         ORDER BY b.place
        $statement$,
        dense_sql, lexical_sql,
        CASE WHEN with_dense THEN format('1 - (e.embedding OPERATOR(@vector@.<=>) %s)', operand) ELSE 'NULL::float8' END,
        CASE WHEN with_lexical THEN format('(%s)::float8', rank_function) ELSE 'NULL::float8' END,
        'embeddings_' || space.space_id, score_sql)
    USING of_collection.collection_id, query_embedding, words, candidates,
          words && quote_literal(pgseek.collection_mark(of_collection.collection_id))::tsquery,
          filter, k, alpha, rrf_k, snippets, headline, reason, asked, bag.lexemes, bag.frequencies, budget;

    IF with_dense THEN
        EXECUTE format('SET LOCAL hnsw.ef_search = %L', old_ef);
        EXECUTE format('SET LOCAL hnsw.iterative_scan = %L', old_scan);
        EXECUTE format('SET LOCAL hnsw.max_scan_tuples = %L', old_tuples);
    END IF;
END
$function$;
