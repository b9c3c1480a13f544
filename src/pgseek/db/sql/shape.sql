-- Purpose:    a ranking as the caller wants it: boosted, above least scores, each document once, without repetitions.
-- Arguments:  of_collection, of_space  rows of collections and embedding_spaces
--             hits     candidates in order of place, see fuse()
--             options  see read_options()
--             k        rows returned
-- Returns:    the first k, with their new places. score is multiplied by boost (divided, where it is below zero); the
--             parts are those of the fusion. duplicates are the documents left out as near-duplicates of the row.
-- Method:     diversity d: the next row is the one with the highest (1 - d) * score / highest - d * s, where s is the
--             highest cosine between its vector and those of the rows before (maximal marginal relevance, Carbonell and
--             Goldstein 1998), among the best 1,000. Rows without a vector repeat nothing.
-- Ordering:   score descending, or the order in which diversity picked; ties by document_id, ordinal.
-- Volatility: stable. Index: documents_pkey, primary key of embeddings_<space>.
CREATE OR REPLACE FUNCTION pgseek.shape(
    of_collection pgseek.collections, of_space pgseek.embedding_spaces, hits pgseek.candidate[], options jsonb, k integer)
RETURNS pgseek.candidate[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    pool CONSTANT integer := 1000;
    boosts CONSTANT jsonb := nullif(options -> 'boosts', 'null');
    least_score CONSTANT double precision := options ->> 'min_score';
    least_dense CONSTANT double precision := options ->> 'min_dense_score';
    least_lexical CONSTANT double precision := options ->> 'min_lexical_score';
    diversity CONSTANT double precision := options ->> 'diversity';
    same_from CONSTANT double precision := options ->> 'near_duplicates';
    asked_at CONSTANT timestamptz := statement_timestamp();
    rows pgseek.candidate[] := hits;
    vectors @vector@.vector[];
    relevance double precision[];
    -- Per row, the highest cosine with one that is picked, and with which.
    closest double precision[];
    closest_to integer[];
    highest double precision;
    picked integer[] := '{}';
    next integer;
BEGIN
    IF boosts IS NOT NULL THEN
        SELECT array_agg(ROW(b.document_id, b.ordinal, b.place, b.boosted, b.dense_score, b.dense_distance, b.dense_rank,
                   b.dense_part, b.lexical_score, b.lexical_rank, b.lexical_part, b.factor, NULL)::pgseek.candidate
                   ORDER BY b.boosted DESC, b.document_id, b.ordinal)
          INTO rows
          FROM (SELECT r.*, f.factor,
                       CASE WHEN r.score >= 0 THEN r.score * f.factor ELSE r.score / greatest(f.factor, 1e-9) END AS boosted
                  FROM unnest(rows) AS r
                  JOIN pgseek.documents d ON d.collection_id = of_collection.collection_id AND d.document_id = r.document_id
                  CROSS JOIN LATERAL (SELECT pgseek.boost(d.metadata, boosts, asked_at) AS factor) AS f) AS b;
    END IF;
    IF least_score IS NOT NULL OR least_dense IS NOT NULL OR least_lexical IS NOT NULL THEN
        SELECT array_agg(r ORDER BY r.score DESC, r.document_id, r.ordinal) INTO rows
          FROM unnest(rows) AS r
         WHERE r.score >= coalesce(least_score, r.score)
           AND (least_dense IS NULL OR r.dense_score >= least_dense)
           AND (least_lexical IS NULL OR r.lexical_score >= least_lexical);
    END IF;
    IF (options ->> 'collapse')::boolean THEN
        SELECT array_agg(b.best ORDER BY (b.best).score DESC, (b.best).document_id, (b.best).ordinal) INTO rows
          FROM (SELECT DISTINCT ON (r.document_id) r AS best FROM unnest(rows) AS r
                 ORDER BY r.document_id, r.score DESC, r.ordinal) AS b;
    END IF;
    IF cardinality(rows) > 0 AND (diversity > 0 OR same_from IS NOT NULL) THEN
        rows := rows[:pool];
        EXECUTE format('SELECT array_agg(e.embedding::@vector@.vector ORDER BY r.n) FROM unnest($1, $2) WITH ORDINALITY AS r (document_id, ordinal, n)'
            ' LEFT JOIN pgseek.%I e ON e.collection_id = $3 AND e.document_id = r.document_id AND e.ordinal = r.ordinal',
            'embeddings_' || of_space.space_id)
        INTO vectors
        USING (SELECT array_agg((rows[i]).document_id ORDER BY i) FROM generate_subscripts(rows, 1) AS i),
              (SELECT array_agg((rows[i]).ordinal ORDER BY i) FROM generate_subscripts(rows, 1) AS i),
              of_collection.collection_id;
        highest := greatest(abs(rows[1].score), 1e-9);
        SELECT array_agg((1 - diversity) * (rows[i]).score / highest ORDER BY i) INTO relevance
          FROM generate_subscripts(rows, 1) AS i;
        closest := array_fill(0::double precision, ARRAY[cardinality(rows)]);
        closest_to := array_fill(0, ARRAY[cardinality(rows)]);
        WHILE cardinality(picked) < k LOOP
            SELECT i INTO next FROM generate_subscripts(rows, 1) AS i
             WHERE i <> ALL (picked) AND NOT coalesce(closest[i] >= same_from, false)
             ORDER BY relevance[i] - diversity * closest[i] DESC, i LIMIT 1;
            EXIT WHEN next IS NULL;
            picked := picked || next;
            CONTINUE WHEN vectors[next] IS NULL;
            SELECT array_agg(greatest(c.near, c.cosine) ORDER BY c.n),
                   array_agg(CASE WHEN c.cosine > c.near THEN next ELSE c.whose END ORDER BY c.n)
              INTO closest, closest_to
              FROM (SELECT u.n, u.near, u.whose,
                           -- A hair's breadth of rounding must not keep a copy from being one.
                           coalesce(nullif(1 - (u.vector OPERATOR(@vector@.<=>) vectors[next]), 'NaN') + 1e-6, 0) AS cosine
                      FROM unnest(closest, closest_to, vectors) WITH ORDINALITY AS u (near, whose, vector, n)) AS c;
        END LOOP;
        SELECT array_agg(ROW(r.document_id, r.ordinal, r.n, r.score, r.dense_score, r.dense_distance, r.dense_rank, r.dense_part,
                   r.lexical_score, r.lexical_rank, r.lexical_part, r.boost,
                   CASE WHEN same_from IS NOT NULL THEN (
                       SELECT array_agg(DISTINCT (rows[o]).document_id) FROM generate_subscripts(rows, 1) AS o
                        WHERE closest_to[o] = r.i AND closest[o] >= same_from AND o <> ALL (picked)
                          AND (rows[o]).document_id <> r.document_id) END)::pgseek.candidate ORDER BY r.n)
          INTO rows
          FROM (SELECT (rows[p.i]).*, p.i, p.n FROM unnest(picked) WITH ORDINALITY AS p (i, n)) AS r;
        RETURN rows;
    END IF;
    SELECT array_agg(ROW(r.document_id, r.ordinal, r.n, r.score, r.dense_score, r.dense_distance, r.dense_rank, r.dense_part,
               r.lexical_score, r.lexical_rank, r.lexical_part, r.boost, NULL)::pgseek.candidate ORDER BY r.n)
      INTO rows
      FROM (SELECT (rows[i]).*, i AS n FROM generate_series(1, least(k, coalesce(cardinality(rows), 0))) AS i) AS r;
    RETURN rows;
END
$function$;
