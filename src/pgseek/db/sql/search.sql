-- Purpose:    hybrid search of one collection: both legs, their fusion and the snippets, in one
--             statement. Python and the command line call this function and reorder nothing.
-- Arguments:  collection       name
--             query            see parse_query(); not blank
--             k                rows returned, 1..10,000
--             query_embedding  the query's vector in the collection's active space; the caller says of which model
--                              it is, with model or space_id. Without it the
--                              cached vector of this exact text is used; failing that the rows are
--                              ranked lexically and say so in "degraded"
--             alpha            weight of the dense leg in 0..1; 0 and 1 run a single leg;
--                              default: the collection's setting. Only for fusion 'weighted'
--             fusion           'weighted': every candidate is scored in both legs, each leg divided
--                              by its maximum, alpha * dense + (1 - alpha) * lexical.
--                              'rrf': the sum of 1 / (rrf_k + rank) over the legs (Cormack et al. 2009)
--             normalization    how 'weighted' makes the legs comparable: 'max' divides each by its maximum;
--                              'minmax' first takes off the lowest dense score among the first candidates, for
--                              embedders whose cosines all lie close together; default: the collection's
--             lexical          'bm25' (exact, unless the budget runs out) | 'ts_rank_cd' | 'ts_rank'
--             syntax, typos    see parse_query()
--             filter           jsonpath predicate over metadata, such as '$.year >= 2020'
--             candidates       rows taken from each leg, at least k; default: the collection's setting. A
--                              single leg takes k
--             rrf_k            RRF's constant
--             snippets         whether to compute the column "snippet"
--             highlight        the two texts put around matched words
--             budget           milliseconds for reading the query and the BM25 leg; past them its approximate
--                              form answers and the rows say so in "degraded"
--             space_id, model  what query_embedding is of, one of the two: the number of a space, or provider:model
--                              (@dimensions or without). Refused if that is not what is searched, so that vectors of
--                              two models are never compared
--             collapse         each document once, with its best row. More candidates are taken until there are k
--                              documents, or no more candidates; default: the collection's setting
--             space            search this space of the collection in place of the active one; it must be ready
--             ef_search        rows that a walk through an HNSW index keeps in mind, 1..1000: more find more of the
--                              nearest. Default: see begin_walk()
--             probes           lists that are read of an IVFFlat index; default: see begin_walk()
--             rerank           where the index knows less than whole vectors, rows compared by these for each candidate,
--                              1..100; default: see dense_parts()
-- Returns:    a question or a summary ("kind") is shown as the chunk it was written for, with itself as
--             "matched_text"; a whole document as its first 2,000 characters. "section" is the part of the document
--             to read around a chunk, where it has sections.
-- Ordering:   score descending; ties by document_id, then the row's ordinal. "rank" is 1-based.
-- Scores:     dense_score is higher for the nearer: the cosine (-1..1), the inner product, or 1 / (1 + distance) of
--             L2 and L1; dense_distance is what pgvector's operator gave. lexical_score is the raw score (>= 0); the
--             contributions are what each leg added to score, NULL for a leg that did not run. "matched" is a
--             JSON array, heaviest first: {"lexeme", "weight": what it added to a BM25 score, "origin": the
--             word or prefix as typed, where the lexeme stands for another}.
-- Errors:     PGS01 no such collection, PGS02 argument out of range, PGS04 wrong dimensions,
--             PGS05 the vector of another space, or nothing said of it; no such space
-- Volatility: volatile, because settings of indexes are set for its statement (and put back). It writes nothing
--             and runs on a read-only standby.
-- Index:      that of embeddings_<space>, chunks_codes_idx (GIN), documents_metadata (GIN), primary keys.
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
    space_id integer DEFAULT NULL,
    normalization text DEFAULT NULL,
    syntax text DEFAULT 'web',
    typos boolean DEFAULT true,
    collapse boolean DEFAULT NULL,
    model text DEFAULT NULL,
    space integer DEFAULT NULL,
    ef_search integer DEFAULT NULL,
    probes integer DEFAULT NULL,
    rerank integer DEFAULT NULL)
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
    dense_distance double precision)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    -- Filters that keep at most this many documents are answered by an exact scan of those.
    exact_below CONSTANT integer := 10000;
    -- What is taken from each leg at most.
    deepest CONSTANT integer := 10000;
    started CONSTANT timestamptz := clock_timestamp();
    of_collection pgseek.collections := pgseek.require_collection(collection);
    of_space pgseek.embedding_spaces;
    parts record;
    parsed record;
    terms record;
    words tsquery;
    asked @vector@.sparsevec;
    -- Per lexeme, the vector that asks for it alone.
    alone @vector@.sparsevec[];
    codes integer[];
    origins text[];
    always integer[];
    with_dense boolean;
    with_lexical boolean;
    reason text;
    matching bigint;
    depth integer;
    rank_function text;
    dense_where text := '';
    exact_dense boolean := false;
    dense_order text;
    dense_sql text;
    lexical_sql text;
    single_score text;
    matched_sql text;
    ranking text;
    before jsonb;
    settings_before jsonb;
    -- Whether there are rows besides chunks: written ones, and ones for whole documents.
    with_written boolean;
    with_whole boolean;
    -- What such rows are held to, besides the restriction, and how they are shown.
    restricted text := '';
    shown text := 'c.text';
    columns CONSTANT text := 'document_id uuid, ordinal integer, place bigint, score float8, dense_score float8, dense_distance float8, dense_rank bigint,'
        ' dense_part float8, lexical_score float8, lexical_rank bigint, lexical_part float8';
    -- Of a collapsed ranking: its rows, and what is known of the legs they came from.
    places jsonb;
    exact_lexical boolean;
    distinct_documents bigint;
    exhausted boolean;
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
    normalization := coalesce(normalization, of_collection.settings ->> 'normalization', 'max');
    IF normalization NOT IN ('max', 'minmax') THEN
        RAISE EXCEPTION 'normalization is %, but must be ''max'' or ''minmax''', quote_literal(normalization) USING ERRCODE = 'PGS02';
    END IF;
    IF syntax IS NULL OR syntax NOT IN ('web', 'plain') THEN
        RAISE EXCEPTION 'syntax is %, but must be ''web'' or ''plain''', coalesce(quote_literal(syntax), 'NULL') USING ERRCODE = 'PGS02';
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
    depth := coalesce(candidates, (of_collection.settings ->> 'candidates')::integer, 100);
    collapse := coalesce(collapse, (of_collection.settings ->> 'collapse')::boolean, false);
    with_written := coalesce(of_collection.settings ->> 'questions', '0') <> '0'
        OR coalesce((of_collection.settings ->> 'summaries')::boolean, false);
    with_whole := coalesce((of_collection.settings ->> 'document_vectors')::boolean, false);

    -- The dense leg: whether it can run, and with which vector.
    SELECT s.* INTO of_space FROM pgseek.embedding_spaces s
     WHERE s.space_id = coalesce(space, of_collection.active_space_id) AND s.collection_id = of_collection.collection_id;
    IF of_space.state IS NULL OR of_space.state NOT IN ('active', 'ready') THEN
        RAISE EXCEPTION 'collection % cannot be searched by space %: %', quote_literal(of_collection.name), space,
            coalesce(format('it is %s', CASE of_space.state WHEN 'building' THEN 'still being built' ELSE of_space.state END), 'it has no such space')
            USING ERRCODE = 'PGS05', HINT = 'pgseek spaces list shows those it has';
    END IF;
    with_dense := fusion = 'rrf' OR alpha > 0;
    IF space_id IS NOT NULL OR model IS NOT NULL THEN
        PERFORM pgseek.check_model(of_collection.name, of_space.space_id, space_id, model);
    END IF;
    IF query_embedding IS NOT NULL AND @vector@.vector_dims(query_embedding) <> of_space.dimensions THEN
        RAISE EXCEPTION 'the query embedding has % dimensions, but collection % uses %:% with %',
            @vector@.vector_dims(query_embedding), quote_literal(of_collection.name),
            of_space.provider, of_space.model, of_space.dimensions
            USING ERRCODE = 'PGS04', HINT = 'embed the query with the model of the collection';
    END IF;
    IF query_embedding IS NOT NULL THEN
        PERFORM pgseek.check_model(of_collection.name, of_space.space_id, space_id, model);
    END IF;
    IF query_embedding IS NOT NULL AND of_space.metric = 'cosine' AND @vector@.vector_norm(query_embedding) = 0 THEN
        RAISE EXCEPTION 'the query embedding is zero; cosine needs a direction' USING ERRCODE = 'PGS02';
    END IF;
    IF ef_search IS NOT NULL AND ef_search NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'ef_search is %, but must be from 1 to 1000', ef_search USING ERRCODE = 'PGS02';
    END IF;
    IF probes IS NOT NULL AND probes NOT BETWEEN 1 AND 32768 THEN
        RAISE EXCEPTION 'probes is %, but must be from 1 to 32768', probes USING ERRCODE = 'PGS02';
    END IF;
    IF rerank IS NOT NULL AND rerank NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION 'rerank is %, but must be from 1 to 100', rerank USING ERRCODE = 'PGS02';
    END IF;
    IF with_dense AND query_embedding IS NULL THEN
        SELECT c.embedding INTO query_embedding FROM pgseek.embedding_cache c
         WHERE c.identity = of_space.identity AND c.input_type = 'query'
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

    -- The lexical leg.
    SELECT p.* INTO parsed FROM pgseek.parse_query(of_collection.collection_id, of_collection.languages, query, syntax, coalesce(typos, true)) p;
    with_lexical := (fusion = 'rrf' OR alpha < 1) AND parsed.lexemes <> '{}';
    IF parsed.lexemes = '{}' AND (fusion = 'rrf' OR alpha < 1) THEN
        reason := concat_ws('; ', reason, CASE WHEN with_dense THEN 'dense only: ' END
            || 'the query holds no lexeme in ' || array_to_string(of_collection.languages, ', '));
        IF NOT with_dense THEN
            RAISE NOTICE 'no leg can answer: the query holds no lexeme in %, and has no embedding',
                array_to_string(of_collection.languages, ', ');
            RETURN;
        END IF;
    END IF;
    SELECT t.* INTO terms FROM pgseek.bm25_terms(of_collection.collection_id, parsed.lexemes, parsed.frequencies) t;
    SELECT array_agg(pgseek.bm25_code(of_collection.collection_id, u.dimension)),
           array_agg(pgseek.bm25_query(ARRAY[u.dimension], ARRAY[u.weight]))
      INTO codes, alone FROM unnest(terms.dimensions, terms.weights) AS u (dimension, weight);
    SELECT array_agg(parsed.origins[array_position(parsed.lexemes, u.lexeme)] ORDER BY u.place)
      INTO origins FROM unnest(terms.known) WITH ORDINALITY AS u (lexeme, place);
    -- Words that no chunk has leave the whole weight to the other leg.
    with_lexical := with_lexical AND (codes IS NOT NULL OR NOT with_dense);
    -- What else a single leg brought would only change the places within it.
    candidates := CASE WHEN collapse THEN least(deepest, greatest(2 * k, depth))
        WHEN with_dense AND with_lexical THEN greatest(k, depth) ELSE k END;
    parts := pgseek.dense_parts(of_space, candidates => candidates, rerank => rerank);
    rerank := parts.rerank;
    SELECT array_agg(pgseek.bm25_code(of_collection.collection_id, pgseek.dimension(u.lexeme))) INTO always
      FROM unnest(parsed.required) AS u (lexeme);
    -- What scores one chunk c; every row of the union is scored so.
    IF lexical = 'bm25' THEN
        asked := pgseek.bm25_query(coalesce(terms.dimensions, '{}'), coalesce(terms.weights, '{}'));
        rank_function := '0 - (c.terms OPERATOR(@vector@.<#>) $13)';
    ELSE
        SELECT string_agg(pgseek.quote_lexeme(u.lexeme), ' | ')::tsquery
          INTO words FROM unnest(parsed.lexemes) AS u (lexeme);
        rank_function := format('CASE WHEN c.lexemes @@ $3 THEN %s(c.lexemes, $3) ELSE 0 END', lexical);
    END IF;

    -- A question counts only if its chunk meets the restriction, too. A whole document has no words to test.
    IF with_written THEN
        restricted := ' AND (c.of_ordinal IS NULL OR EXISTS (SELECT FROM pgseek.chunks o WHERE o.collection_id = $1'
            ' AND o.document_id = c.document_id AND o.ordinal = c.of_ordinal AND o.lexemes @@ $16))';
        shown := 'coalesce(o.text, c.text)';
    END IF;
    IF with_whole THEN
        restricted := restricted || ' AND c.kind <> ''document''';
        shown := format('CASE c.kind WHEN ''document'' THEN left(d.body, 2000) ELSE %s END', shown);
    END IF;

    IF with_dense AND filter IS NOT NULL THEN
        SELECT count(*) INTO matching FROM (
            SELECT FROM pgseek.documents d
             WHERE d.collection_id = of_collection.collection_id AND d.metadata @@ filter
             LIMIT exact_below + 1) AS counted;
        exact_dense := matching <= exact_below;
        dense_where := CASE WHEN exact_dense
            THEN ' AND e.document_id IN (SELECT d.document_id FROM pgseek.documents d'
                 ' WHERE d.collection_id = $1 AND d.metadata @@ $6)'
            ELSE ' AND EXISTS (SELECT FROM pgseek.documents d WHERE d.collection_id = $1'
                 ' AND d.document_id = e.document_id AND d.metadata @@ $6)' END;
    END IF;
    IF with_dense AND parsed.restriction IS NOT NULL THEN
        IF always IS NOT NULL AND NOT exact_dense THEN
            SELECT count(*) INTO matching FROM (
                SELECT FROM pgseek.chunks c
                 WHERE c.collection_id = of_collection.collection_id
                   AND pgseek.bm25_codes(c.collection_id, c.terms) @> always AND c.lexemes @@ parsed.restriction
                 LIMIT exact_below + 1) AS counted;
            exact_dense := matching <= exact_below;
        END IF;
        dense_where := dense_where || CASE WHEN always IS NOT NULL AND exact_dense
            THEN ' AND (e.document_id, e.ordinal) IN (SELECT c.document_id, c.ordinal FROM pgseek.chunks c WHERE c.collection_id = $1'
                 ' AND pgseek.bm25_codes(c.collection_id, c.terms) @> $17 AND c.lexemes @@ $16' || restricted || ')'
            ELSE ' AND EXISTS (SELECT FROM pgseek.chunks c WHERE c.collection_id = $1'
                 ' AND c.document_id = e.document_id AND c.ordinal = e.ordinal AND c.lexemes @@ $16' || restricted || ')' END;
    END IF;
    -- Adding zero keeps the planner from walking the index for the few that match.
    IF exact_dense THEN
        rerank := 1;
        dense_order := format('(%s) + 0', parts.distance);
    ELSE
        dense_order := parts.walk;
    END IF;

    -- Each leg limits in its own CTE; places are given in a second one, so that the first keeps its
    -- index order (and can run next to the data when the tables are distributed).
    dense_sql := format('SELECT e.document_id, e.ordinal, %s AS distance FROM pgseek.%I e WHERE true%s ORDER BY %s LIMIT $4%s',
        parts.distance, 'embeddings_' || of_space.space_id, dense_where, dense_order, CASE WHEN rerank > 1 THEN ' * $28' ELSE '' END);
    IF rerank > 1 THEN
        -- The index knows a sketch of each vector: the best by it are compared by what is stored.
        dense_sql := format('SELECT n.document_id, n.ordinal, n.distance FROM (%s) AS n ORDER BY n.distance, n.document_id, n.ordinal LIMIT $4',
            dense_sql);
    END IF;
    lexical_sql := CASE
        WHEN lexical = 'bm25' THEN
            'SELECT b.document_id, b.ordinal, b.score, b.exact'
            ' FROM pgseek.bm25_candidates($1, $14, $15, $18, $4, $6, $16, $19, $25) b'
            || CASE WHEN parsed.restriction IS NOT NULL AND restricted <> '' THEN
                ' JOIN pgseek.chunks c ON c.collection_id = $1 AND c.document_id = b.document_id AND c.ordinal = b.ordinal'
                ' WHERE true' || restricted ELSE '' END
            || ' ORDER BY b.score DESC, b.document_id, b.ordinal LIMIT $4'
        ELSE format(
            'SELECT c.document_id, c.ordinal, %s(c.lexemes, $3)::float8 AS score, true AS exact FROM pgseek.chunks c'
            ' WHERE c.collection_id IS NOT DISTINCT FROM $1 AND pgseek.bm25_codes(c.collection_id, c.terms) && $20 AND c.lexemes @@ $3%s%s'
            ' ORDER BY score DESC, c.document_id, c.ordinal LIMIT $4', lexical,
            CASE WHEN parsed.restriction IS NOT NULL THEN ' AND c.lexemes @@ $16' || restricted ELSE '' END,
            CASE WHEN filter IS NOT NULL THEN ' AND EXISTS (SELECT FROM pgseek.documents d WHERE d.collection_id = $1'
                ' AND d.document_id = c.document_id AND d.metadata @@ $6)' ELSE '' END) END;
    -- One leg by itself: divided by its maximum, or by rank.
    single_score := CASE fusion WHEN 'rrf' THEN '1.0::float8 / ($9 + r.place)'
        ELSE 'r.raw / coalesce(nullif(abs(max(r.raw) OVER ()), 0), 1)' END;
    -- Why a hit was found, heaviest lexeme first.
    matched_sql := format('SELECT jsonb_agg(jsonb_build_object(''lexeme'', m.lexeme, ''weight'', m.weight::real)'
        ' || CASE WHEN m.origin IS NULL THEN ''{}'' ELSE jsonb_build_object(''origin'', m.origin) END ORDER BY m.weight DESC, m.lexeme) AS matched,'
        ' array_agg(m.lexeme) AS lexemes FROM (SELECT u.lexeme, u.origin, %s) AS m',
        CASE WHEN lexical = 'bm25' THEN '0 - (c.terms OPERATOR(@vector@.<#>) u.alone) AS weight'
            ' FROM unnest($21, $22, $23) AS u (lexeme, alone, origin) WHERE c.terms OPERATOR(@vector@.<#>) u.alone < 0'
        ELSE 'NULL::float8 AS weight FROM unnest($21, $22, $23) AS u (lexeme, alone, origin)'
            ' WHERE u.lexeme = ANY (tsvector_to_array(c.lexemes))' END);

    -- How the legs become one ranking: keys, both scores and ranks, both parts, score and place.
    IF with_dense AND with_lexical THEN
        ranking := format($ranking$
        dense AS (%1$s),
        dense_ranked AS (
            SELECT r.document_id, r.ordinal, row_number() OVER (ORDER BY r.distance, r.document_id, r.ordinal) AS dense_rank
              FROM dense r),
        lexical AS (%2$s),
        lexical_ranked AS (
            SELECT r.document_id, r.ordinal, row_number() OVER (ORDER BY r.score DESC, r.document_id, r.ordinal) AS lexical_rank
              FROM lexical r),
        candidates AS (
            SELECT document_id, ordinal, d.dense_rank, l.lexical_rank
              FROM dense_ranked d FULL JOIN lexical_ranked l USING (document_id, ordinal)),
        -- Materialized, or each distance would be computed twice.
        measured AS MATERIALIZED (
            SELECT x.*, %10$s AS dense_distance, (%4$s)::float8 AS lexical_score
              FROM candidates x
              JOIN pgseek.chunks c ON c.collection_id = $1 AND c.document_id = x.document_id AND c.ordinal = x.ordinal
              LEFT JOIN pgseek.%5$I e ON e.collection_id = $1 AND e.document_id = x.document_id AND e.ordinal = x.ordinal),
        scored AS (
            SELECT m.*, %3$s AS dense_score FROM measured m),
        bounded AS (
            SELECT s.*, max(s.dense_score) OVER () AS dense_highest, max(s.lexical_score) OVER () AS lexical_highest,
                   min(s.dense_score) FILTER (WHERE s.dense_rank <= $24 OR s.lexical_rank <= $24) OVER () AS dense_lowest
              FROM scored s),
        fused AS (
            SELECT s.*, coalesce(%6$s, 0) AS dense_part, coalesce(%7$s, 0) AS lexical_part FROM bounded s),
        %8$splaced AS (
            SELECT f.*, f.dense_part + f.lexical_part AS score,
                   row_number() OVER (ORDER BY f.dense_part + f.lexical_part DESC, f.document_id, f.ordinal) AS place
              FROM %9$s f ORDER BY place LIMIT $7)$ranking$,
            dense_sql, lexical_sql, format(parts.similarity, 'm.dense_distance'), rank_function, 'embeddings_' || of_space.space_id,
            CASE WHEN fusion = 'rrf' THEN '1.0::float8 / ($9 + s.dense_rank)'
                -- A leg that scored nothing leaves its weight to the other: hybrid then is that leg, not half of it.
                -- Dividing by the size of the maximum keeps the order even where every cosine is negative.
                WHEN normalization = 'max' THEN
                    'CASE WHEN coalesce(s.lexical_highest, 0) = 0 THEN 1 ELSE $8 END'
                    ' * s.dense_score / coalesce(nullif(abs(s.dense_highest), 0), 1)'
                ELSE
                    'CASE WHEN coalesce(s.lexical_highest, 0) = 0 THEN 1 ELSE $8 END'
                    ' * coalesce((s.dense_score - s.dense_lowest) / nullif(s.dense_highest - s.dense_lowest, 0),'
                    '     CASE WHEN s.dense_score IS NOT NULL THEN 1 END)' END,
            CASE WHEN fusion = 'rrf' THEN '1.0::float8 / ($9 + s.lexical_rank)'
                ELSE 'CASE WHEN s.dense_highest IS NULL THEN 1 ELSE 1 - $8 END'
                     ' * s.lexical_score / coalesce(nullif(s.lexical_highest, 0), 1)' END,
            CASE WHEN collapse THEN 'best AS (SELECT DISTINCT ON (f.document_id) f.* FROM fused f'
                ' ORDER BY f.document_id, f.dense_part + f.lexical_part DESC, f.ordinal), ' ELSE '' END,
            CASE WHEN collapse THEN 'best' ELSE 'fused' END,
            parts.distance);
    ELSE
        ranking := format($ranking$
        %1$s AS (%2$s),
        ranked AS (
            SELECT r.document_id, r.ordinal, %3$s AS raw, %13$s AS distance, row_number() OVER (ORDER BY %3$s DESC, r.document_id, r.ordinal) AS place
              FROM %1$s r),
        %11$s AS (
            SELECT r.document_id, r.ordinal, r.place, %4$s AS score,
                   %5$s AS dense_score, r.distance AS dense_distance, %6$s AS dense_rank, %7$s AS dense_part,
                   %8$s AS lexical_score, %9$s AS lexical_rank, %10$s AS lexical_part
              FROM ranked r)%12$s$ranking$,
            CASE WHEN with_dense THEN 'dense' ELSE 'lexical' END,
            CASE WHEN with_dense THEN dense_sql ELSE lexical_sql END,
            CASE WHEN with_dense THEN format(parts.similarity, 'r.distance') ELSE 'r.score' END,
            single_score,
            CASE WHEN with_dense THEN 'r.raw' ELSE 'NULL::float8' END,
            CASE WHEN with_dense THEN 'r.place' ELSE 'NULL::bigint' END,
            CASE WHEN with_dense THEN single_score ELSE 'NULL::float8' END,
            CASE WHEN with_dense THEN 'NULL::float8' ELSE 'r.raw' END,
            CASE WHEN with_dense THEN 'NULL::bigint' ELSE 'r.place' END,
            CASE WHEN with_dense THEN 'NULL::float8' ELSE single_score END,
            CASE WHEN collapse THEN 'scored' ELSE 'placed' END,
            CASE WHEN collapse THEN ', best AS (SELECT DISTINCT ON (s.document_id) s.* FROM scored s ORDER BY s.document_id, s.place),'
                ' placed AS (SELECT b.document_id, b.ordinal, b.score, b.dense_score, b.dense_distance, b.dense_rank, b.dense_part, b.lexical_score,'
                ' b.lexical_rank, b.lexical_part, row_number() OVER (ORDER BY b.place) AS place FROM best b ORDER BY place LIMIT $7)'
                ELSE '' END,
            CASE WHEN with_dense THEN 'r.distance' ELSE 'NULL::float8' END);
    END IF;

    LOOP
        IF with_dense THEN
            before := pgseek.begin_walk(of_space, candidates::bigint * rerank, ef_search, probes,
                -- A condition that keeps few of many rows needs a longer walk for as many candidates.
                CASE WHEN dense_where <> '' THEN 4 * candidates::bigint * (SELECT s.chunks FROM pgseek.collection_statistics s
                    WHERE s.collection_id = of_collection.collection_id) / exact_below END);
            settings_before := coalesce(settings_before, before);
        END IF;
        EXIT WHEN NOT collapse;
        -- How many candidates make k documents is only known when they are there.
        EXECUTE format('WITH %1$s SELECT (SELECT jsonb_agg(to_jsonb(p)) FROM placed p), (SELECT count(*) FROM placed), %2$s, %3$s',
            ranking,
            concat_ws(' AND ', CASE WHEN with_dense THEN '(SELECT count(*) < $4 FROM dense)' END,
                CASE WHEN with_lexical THEN '(SELECT count(*) < $4 FROM lexical)' END),
            CASE WHEN with_lexical THEN '(SELECT bool_and(l.exact) FROM lexical l)' ELSE 'true' END)
        INTO places, distinct_documents, exhausted, exact_lexical
        USING of_collection.collection_id, query_embedding, words, candidates, budget,
              filter, k, alpha, rrf_k, snippets, highlight, reason, asked, terms.dimensions, terms.weights,
              parsed.restriction, always, terms.counts, parsed.required, codes, terms.known, alone, origins, depth,
              greatest(budget / 5, budget - extract(epoch FROM clock_timestamp() - started) * 1000), places, exact_lexical, rerank;
        EXIT WHEN distinct_documents >= k OR exhausted OR candidates >= deepest;
        candidates := least(deepest, 4 * candidates);
    END LOOP;
    IF collapse THEN
        ranking := format('placed AS (SELECT * FROM jsonb_to_recordset($26) AS p (%s))', columns);
    END IF;

    RETURN QUERY EXECUTE format($statement$
        WITH %1$s
        SELECT p.place::integer, d.external_id, %4$s, p.score,
               p.dense_score, p.dense_rank::integer, p.dense_part,
               p.lexical_score, p.lexical_rank::integer, p.lexical_part,
               coalesce(found.matched, '[]'),
               d.title, %5$s,
               CASE WHEN $10 THEN pgseek.snippet(c.language, %5$s, coalesce(found.lexemes, '{}'), $11) END,
               d.metadata, c.char_start, c.char_end, p.document_id,
               nullif(concat_ws('; ', $12, %2$s), ''),
               c.kind, c.provenance,
               CASE WHEN c.section_start IS NOT NULL THEN substr(d.body, c.section_start + 1, c.section_end - c.section_start) END,
               CASE WHEN c.of_ordinal IS NOT NULL THEN c.text END,
               p.dense_distance
          FROM placed p
          JOIN pgseek.chunks c ON c.collection_id = $1 AND c.document_id = p.document_id AND c.ordinal = p.ordinal
          JOIN pgseek.documents d ON d.collection_id = $1 AND d.document_id = p.document_id%6$s
          LEFT JOIN LATERAL (%3$s) AS found ON true
         ORDER BY p.place
        $statement$, ranking,
        CASE WHEN with_lexical AND lexical = 'bm25' THEN format($note$CASE WHEN NOT %s THEN
                   'lexical leg approximate: its budget of ' || $5 || ' ms ran out' END$note$,
                CASE WHEN collapse THEN '$27' ELSE '(SELECT bool_and(l.exact) FROM lexical l)' END) ELSE 'NULL' END,
        matched_sql,
        CASE WHEN with_written THEN 'coalesce(c.of_ordinal, p.ordinal)' ELSE 'p.ordinal' END,
        shown,
        CASE WHEN with_written THEN ' LEFT JOIN pgseek.chunks o ON o.collection_id = $1 AND o.document_id = p.document_id'
            ' AND o.ordinal = c.of_ordinal' ELSE '' END)
    USING of_collection.collection_id, query_embedding, words, candidates, budget,
          filter, k, alpha, rrf_k, snippets, highlight, reason, asked, terms.dimensions, terms.weights,
          parsed.restriction, always, terms.counts, parsed.required, codes, terms.known, alone, origins, depth,
          -- Reading the query counts too; what is left is never so little that nothing could be found.
          greatest(budget / 5, budget - extract(epoch FROM clock_timestamp() - started) * 1000),
          places, exact_lexical, rerank;

    IF settings_before IS NOT NULL THEN
        PERFORM pgseek.end_walk(settings_before);
    END IF;
END
$function$;
