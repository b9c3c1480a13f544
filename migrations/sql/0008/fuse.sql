-- Purpose:    both legs of a search and their fusion, in one statement.
-- Arguments:  of_collection, of_space  rows of collections and embedding_spaces
--             query_embedding  NULL: the dense leg does not run
--             terms            see read_query()
--             options          see read_options(); beside those "excluded", ids of documents that the dense leg passes by
--             candidates       rows taken from each leg
--             kept             rows returned, NULL for all that were fused
--             budget           milliseconds for the BM25 leg
-- Returns:    hits           the candidates with their scores, in order of place
--             dense_found, lexical_found  rows that each leg brought; NULL if it did not run
--             exact_dense    the vectors of all rows that the filter and the restriction let through were compared
--             exact_lexical  see bm25_candidates(); NULL if the leg did not run
--             matching       documents (with a filter) or chunks (with required words) that were counted; NULL if
--                            nothing was, or there are more than are compared exactly
--             before         the settings to put back, see end_walk(); NULL if none were changed
-- Ordering:   score descending; ties by document_id, then ordinal.
-- Volatility: volatile: it sets the settings of index walks (the caller puts them back). It writes nothing.
-- Index:      that of embeddings_<space>, chunks_codes_idx (GIN), those of metadata (see matching_documents()), primary keys.
CREATE OR REPLACE FUNCTION pgseek.fuse(
    of_collection pgseek.collections, of_space pgseek.embedding_spaces, query_embedding @vector@.vector,
    terms pgseek.query_terms, options jsonb, candidates integer, kept integer, budget double precision,
    OUT hits pgseek.candidate[], OUT dense_found bigint, OUT lexical_found bigint, OUT exact_dense boolean,
    OUT exact_lexical boolean, OUT matching bigint, OUT before jsonb)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
-- What is costly in a plan is the branch that is taken only where a walk finds too few.
SET jit = off
AS $function$
#variable_conflict use_variable
DECLARE
    -- Filters that keep at most this many documents, and restrictions that keep as many chunks, are answered by an
    -- exact scan of those.
    exact_below CONSTANT integer := 10000;
    -- Rows that a walk past rows of no use must bring at least: some of its first may not be the nearest.
    least_walked CONSTANT integer := 100;
    of CONSTANT integer := of_collection.collection_id;
    fusion CONSTANT text := options ->> 'fusion';
    alpha CONSTANT double precision := options ->> 'alpha';
    lexical CONSTANT text := options ->> 'lexical';
    filter CONSTANT jsonpath := options ->> 'filter';
    excluded CONSTANT uuid[] := (SELECT array_agg(x::uuid) FROM jsonb_array_elements_text(options -> 'excluded') AS x);
    with_dense CONSTANT boolean := query_embedding IS NOT NULL;
    with_lexical boolean := (fusion = 'rrf' OR alpha < 1) AND terms.lexemes <> '{}';
    codes integer[];
    always integer[];
    -- The documents that the filter keeps, where they are few.
    among uuid[];
    asked @vector@.sparsevec;
    words tsquery;
    parts record;
    rerank integer := options ->> 'rerank';
    rank_function text;
    restricted text;
    -- Conditions of the dense leg; those of a walk are values, not joins, so that its order is kept and it ends in time.
    dense_where text := '';
    walk_where text := '';
    dense_order text;
    -- Whether the index is walked past rows that conditions turn away, the rows wanted from the walk, and how many it passes.
    past_others boolean;
    wanted bigint;
    passed bigint;
    dense_sql text;
    lexical_sql text;
    ranking text;
BEGIN
    SELECT array_agg(pgseek.bm25_code(of, u.dimension)) INTO codes FROM unnest(terms.dimensions) AS u (dimension);
    SELECT array_agg(pgseek.bm25_code(of, pgseek.dimension(u.lexeme))) INTO always FROM unnest(terms.required) AS u (lexeme);
    -- Words that no chunk has leave the whole weight to the other leg.
    with_lexical := with_lexical AND (codes IS NOT NULL OR NOT with_dense);
    parts := pgseek.dense_parts(of_space, candidates => candidates, rerank => rerank);
    rerank := parts.rerank;
    -- What scores one chunk c; every row of the union is scored so.
    IF lexical = 'bm25' THEN
        asked := pgseek.bm25_query(coalesce(terms.dimensions, '{}'), coalesce(terms.weights, '{}'));
        rank_function := '0 - (c.terms OPERATOR(@vector@.<#>) $5)';
    ELSE
        SELECT string_agg(pgseek.quote_lexeme(u.lexeme), ' | ')::tsquery INTO words FROM unnest(terms.lexemes) AS u (lexeme);
        rank_function := format('CASE WHEN c.lexemes @@ $3 THEN %s(c.lexemes, $3) ELSE 0 END', lexical);
    END IF;
    restricted := pgseek.restricted(of_collection, '$10');

    IF filter IS NOT NULL THEN
        among := pgseek.matching_documents(of, filter, exact_below);
        matching := cardinality(among);
        exact_dense := with_dense AND among IS NOT NULL;
        dense_where := CASE WHEN exact_dense THEN ' AND e.collection_id = $1 AND e.document_id = ANY ($20)'
            ELSE ' AND EXISTS (SELECT FROM pgseek.documents d WHERE d.collection_id = $1'
                 ' AND d.document_id = e.document_id AND d.metadata @@ $6)' END;
        walk_where := ' AND (SELECT d.metadata @@ $6 FROM pgseek.documents d WHERE d.collection_id = $1 AND d.document_id = e.document_id)';
    END IF;
    exact_dense := coalesce(exact_dense, false);
    IF with_dense AND terms.restriction IS NOT NULL THEN
        IF always IS NOT NULL AND NOT exact_dense THEN
            SELECT count(*) INTO matching FROM (
                SELECT FROM pgseek.chunks c
                 WHERE c.collection_id = of
                   AND pgseek.bm25_codes(c.collection_id, c.terms) @> always AND c.lexemes @@ terms.restriction
                 LIMIT exact_below + 1) AS counted;
            exact_dense := matching <= exact_below;
            matching := CASE WHEN exact_dense THEN matching END;
        END IF;
        dense_where := dense_where || CASE WHEN always IS NOT NULL AND exact_dense
            THEN ' AND (e.document_id, e.ordinal) IN (SELECT c.document_id, c.ordinal FROM pgseek.chunks c WHERE c.collection_id = $1'
                 ' AND pgseek.bm25_codes(c.collection_id, c.terms) @> $11 AND c.lexemes @@ $10' || restricted || ')'
            ELSE ' AND EXISTS (SELECT FROM pgseek.chunks c WHERE c.collection_id = $1'
                 ' AND c.document_id = e.document_id AND c.ordinal = e.ordinal AND c.lexemes @@ $10' || restricted || ')' END;
        walk_where := walk_where || ' AND (SELECT c.lexemes @@ $10' || restricted || ' FROM pgseek.chunks c WHERE c.collection_id = $1'
            ' AND c.document_id = e.document_id AND c.ordinal = e.ordinal)';
    END IF;
    IF excluded IS NOT NULL THEN
        -- A hashed list, however long it is; in every version of PostgreSQL.
        dense_where := dense_where || ' AND e.document_id NOT IN (SELECT unnest($22))';
        walk_where := walk_where || ' AND e.document_id NOT IN (SELECT unnest($22))';
    END IF;
    -- Adding zero keeps the planner from walking the index for the few that match.
    IF exact_dense THEN
        rerank := 1;
        dense_order := format('(%s) + 0', parts.distance);
    ELSE
        dense_order := parts.walk;
    END IF;
    past_others := dense_where <> '' AND NOT exact_dense;
    wanted := CASE WHEN past_others THEN greatest(candidates, least_walked) ELSE candidates END::bigint * rerank;
    -- So many rows would hold those wanted if the filter kept the fewest that are not compared exactly, evenly, and half as
    -- many again; with a restriction, more. In what a walk brings after its end, the nearest are not complete.
    SELECT greatest(3 * wanted, CASE WHEN terms.restriction IS NULL THEN 1.5 ELSE 4 END * wanted * s.chunks / exact_below) INTO passed
      FROM pgseek.collection_statistics s WHERE s.collection_id = of;
    IF excluded IS NOT NULL THEN
        -- Should all of them be nearer than what is wanted.
        SELECT CASE WHEN filter IS NULL AND terms.restriction IS NULL THEN wanted ELSE passed END + count(*) INTO passed
          FROM pgseek.chunks c WHERE c.collection_id = of AND c.document_id = ANY (excluded);
    END IF;

    -- Each leg limits in its own CTE; places are given in a second one, so that the first keeps its
    -- index order (and can run next to the data when the tables are distributed).
    dense_sql := format('SELECT e.document_id, e.ordinal, %s AS distance FROM pgseek.%I e WHERE true%s ORDER BY %s LIMIT $19',
        parts.distance, 'embeddings_' || of_space.space_id, dense_where, dense_order);
    IF rerank > 1 AND NOT past_others THEN
        -- The index knows a sketch of each vector: the best by it are compared by what is stored.
        dense_sql := format('SELECT n.document_id, n.ordinal, n.distance FROM (%s) AS n ORDER BY n.distance, n.document_id, n.ordinal LIMIT $4',
            dense_sql);
    END IF;
    IF past_others THEN
        -- If too few are among the nearest rows, what lies far from the query is found by comparing all that the conditions keep.
        dense_sql := format('WITH walked AS MATERIALIZED (SELECT e.* FROM (SELECT e.document_id, e.ordinal, %2$s AS distance'
            ' FROM pgseek.%3$I e ORDER BY %1$s LIMIT $21) AS e WHERE true%5$s LIMIT $19) (SELECT w.document_id, w.ordinal, w.distance FROM walked w'
            ' WHERE (SELECT count(*) FROM walked) >= $19 ORDER BY w.distance, w.document_id, w.ordinal LIMIT $4)'
            ' UNION ALL (SELECT e.document_id, e.ordinal, %2$s AS distance FROM pgseek.%3$I e'
            ' WHERE (SELECT count(*) FROM walked) < $19%4$s%6$s ORDER BY (%2$s) + 0 LIMIT $4)',
            dense_order, parts.distance, 'embeddings_' || of_space.space_id, dense_where, walk_where,
            CASE WHEN filter IS NOT NULL THEN coalesce(' AND e.document_id IN (SELECT d.document_id FROM pgseek.documents d'
                ' WHERE d.collection_id = $1' || nullif(pgseek.filter_conditions(of, filter, 'd'), '') || ')', '') ELSE '' END);
    END IF;
    lexical_sql := CASE
        WHEN lexical = 'bm25' THEN
            'SELECT b.document_id, b.ordinal, b.score, b.exact'
            ' FROM pgseek.bm25_candidates($1, $12, $13, $14, $4, $6, $10, $15, $18, $20) b'
            || CASE WHEN terms.restriction IS NOT NULL AND restricted <> '' THEN
                ' JOIN pgseek.chunks c ON c.collection_id = $1 AND c.document_id = b.document_id AND c.ordinal = b.ordinal'
                ' WHERE true' || restricted ELSE '' END
            || ' ORDER BY b.score DESC, b.document_id, b.ordinal LIMIT $4'
        ELSE format('SELECT c.document_id, c.ordinal, %s(c.lexemes, $3)::float8 AS score, true AS exact FROM pgseek.chunks c'
            ' WHERE c.collection_id IS NOT DISTINCT FROM $1 AND pgseek.bm25_codes(c.collection_id, c.terms) && $16 AND c.lexemes @@ $3%s%s'
            ' ORDER BY score DESC, c.document_id, c.ordinal LIMIT $4', lexical,
            CASE WHEN terms.restriction IS NOT NULL THEN ' AND c.lexemes @@ $10' || restricted ELSE '' END,
            CASE WHEN among IS NOT NULL THEN ' AND c.document_id = ANY ($20)'
                WHEN filter IS NOT NULL THEN ' AND EXISTS (SELECT FROM pgseek.documents d WHERE d.collection_id = $1'
                ' AND d.document_id = c.document_id AND d.metadata @@ $6)' ELSE '' END) END;

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
            SELECT x.*, %8$s AS dense_distance, (%4$s)::float8 AS lexical_score
              FROM candidates x
              JOIN pgseek.chunks c ON c.collection_id = $1 AND c.document_id = x.document_id AND c.ordinal = x.ordinal
              LEFT JOIN pgseek.%5$I e ON e.collection_id = $1 AND e.document_id = x.document_id AND e.ordinal = x.ordinal),
        scored AS (
            SELECT m.*, %3$s AS dense_score FROM measured m),
        bounded AS (
            SELECT s.*, max(s.dense_score) OVER () AS dense_highest, max(s.lexical_score) OVER () AS lexical_highest,
                   min(s.dense_score) FILTER (WHERE s.dense_rank <= $17 OR s.lexical_rank <= $17) OVER () AS dense_lowest
              FROM scored s),
        fused AS (
            SELECT s.*, coalesce(%6$s, 0) AS dense_part, coalesce(%7$s, 0) AS lexical_part FROM bounded s),
        placed AS (
            SELECT f.*, f.dense_part + f.lexical_part AS score,
                   row_number() OVER (ORDER BY f.dense_part + f.lexical_part DESC, f.document_id, f.ordinal) AS place
              FROM fused f ORDER BY place LIMIT $7)$ranking$,
            dense_sql, lexical_sql, format(parts.similarity, 'm.dense_distance'), rank_function, 'embeddings_' || of_space.space_id,
            CASE WHEN fusion = 'rrf' THEN '1.0::float8 / ($9 + s.dense_rank)'
                -- A leg that scored nothing leaves its weight to the other: hybrid then is that leg, not half of it.
                -- Dividing by the size of the maximum keeps the order even where every cosine is negative.
                WHEN options ->> 'normalization' = 'max' THEN
                    'CASE WHEN coalesce(s.lexical_highest, 0) = 0 THEN 1 ELSE $8 END'
                    ' * s.dense_score / coalesce(nullif(abs(s.dense_highest), 0), 1)'
                ELSE
                    'CASE WHEN coalesce(s.lexical_highest, 0) = 0 THEN 1 ELSE $8 END'
                    ' * coalesce((s.dense_score - s.dense_lowest) / nullif(s.dense_highest - s.dense_lowest, 0),'
                    '     CASE WHEN s.dense_score IS NOT NULL THEN 1 END)' END,
            CASE WHEN fusion = 'rrf' THEN '1.0::float8 / ($9 + s.lexical_rank)'
                ELSE 'CASE WHEN s.dense_highest IS NULL THEN 1 ELSE 1 - $8 END'
                     ' * s.lexical_score / coalesce(nullif(s.lexical_highest, 0), 1)' END,
            parts.distance);
    ELSIF with_dense THEN
        ranking := format($ranking$
        dense AS (%1$s),
        ranked AS (
            SELECT r.*, %2$s AS raw, row_number() OVER (ORDER BY r.distance, r.document_id, r.ordinal) AS place FROM dense r),
        placed AS (
            SELECT r.document_id, r.ordinal, r.place, %3$s AS score, r.raw AS dense_score, r.distance AS dense_distance,
                   r.place AS dense_rank, %3$s AS dense_part, NULL::float8 AS lexical_score, NULL::bigint AS lexical_rank,
                   NULL::float8 AS lexical_part
              FROM ranked r ORDER BY place LIMIT $7)$ranking$,
            dense_sql, format(parts.similarity, 'r.distance'),
            CASE fusion WHEN 'rrf' THEN '1.0::float8 / ($9 + r.place)'
                ELSE 'r.raw / coalesce(nullif(abs(max(r.raw) OVER ()), 0), 1)' END);
    ELSE
        ranking := format($ranking$
        lexical AS (%1$s),
        ranked AS (
            SELECT r.*, row_number() OVER (ORDER BY r.score DESC, r.document_id, r.ordinal) AS place FROM lexical r),
        placed AS (
            SELECT r.document_id, r.ordinal, r.place, %2$s AS score, NULL::float8 AS dense_score, NULL::float8 AS dense_distance,
                   NULL::bigint AS dense_rank, NULL::float8 AS dense_part, r.score AS lexical_score, r.place AS lexical_rank,
                   %2$s AS lexical_part
              FROM ranked r ORDER BY place LIMIT $7)$ranking$,
            lexical_sql,
            CASE fusion WHEN 'rrf' THEN '1.0::float8 / ($9 + r.place)'
                ELSE 'r.score / coalesce(nullif(abs(max(r.score) OVER ()), 0), 1)' END);
    END IF;

    IF with_dense THEN
        before := pgseek.begin_walk(of_space, CASE WHEN past_others THEN passed ELSE wanted END, (options ->> 'ef_search')::integer,
            (options ->> 'probes')::integer);
    END IF;
    EXECUTE format($statement$
        WITH %1$s
        SELECT (SELECT array_agg(ROW(p.document_id, p.ordinal, p.place, p.score, p.dense_score, p.dense_distance, p.dense_rank,
                    p.dense_part, p.lexical_score, p.lexical_rank, p.lexical_part, 1, NULL)::pgseek.candidate ORDER BY p.place)
                  FROM placed p), %2$s, %3$s, %4$s
        $statement$, ranking,
        CASE WHEN with_dense THEN '(SELECT count(*) FROM dense)' ELSE 'NULL::bigint' END,
        CASE WHEN with_lexical OR NOT with_dense THEN '(SELECT count(*) FROM lexical)' ELSE 'NULL::bigint' END,
        CASE WHEN with_lexical OR NOT with_dense THEN '(SELECT bool_and(l.exact) FROM lexical l)' ELSE 'NULL::boolean' END)
    INTO hits, dense_found, lexical_found, exact_lexical
    USING of, query_embedding, words, candidates, asked, filter, kept, alpha, (options ->> 'rrf_k')::integer,
          terms.restriction, always, terms.dimensions, terms.weights, terms.counts, terms.required, codes,
          (options ->> 'depth')::integer, budget, wanted, among, passed, excluded;
END
$function$;
