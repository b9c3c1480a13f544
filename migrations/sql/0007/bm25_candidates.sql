-- Purpose:    the n chunks of a collection with the highest BM25 scores, without scoring every chunk that has one
--             of the words. Lexemes lead in turn, heaviest first: the rows of rare ones are all scored, of others
--             only those whose impact marks let them reach the n-th best score so far (bm25_clauses), and the
--             search is over when all lexemes that are left could not reach it together. Only if no lexeme is
--             rare does it begin from a guess, and takes another round if the guess was too high.
-- Arguments:  collection_id
--             dimensions, weights, counts  the query, see bm25_terms(); heaviest lexeme first
--             n            rows wanted
--             filter       jsonpath predicate over the documents' metadata
--             restriction  what the chunk's lexemes must match, or NULL
--             required     lexemes that every match of the restriction has; they spare reading other rows
--             budget       milliseconds that the scans may take, as far as it can be foretold
--             among        the documents that the filter keeps, where they are few (matching_documents()): theirs are
--                          scored and no others
-- Returns:    exact is true if these are the best n for the statistics in force, false if the budget
--             ran out: then chunks may be missing, but every score is right.
-- Ordering:   score descending, document_id, ordinal.
-- Volatility: stable: it writes nothing and runs on a read-only standby.
-- Index:      chunks_codes_idx (GIN); chunks_pkey and documents_pkey with a filter.
CREATE OR REPLACE FUNCTION pgseek.bm25_candidates(
    collection_id integer, dimensions integer[], weights double precision[], counts double precision[], n integer,
    filter jsonpath DEFAULT NULL, restriction tsquery DEFAULT NULL, required text[] DEFAULT '{}',
    budget double precision DEFAULT 50, among uuid[] DEFAULT NULL)
RETURNS TABLE (document_id uuid, ordinal integer, score double precision, exact boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
SET max_parallel_workers_per_gather = 0
AS $function$
#variable_conflict use_variable
DECLARE
    -- What a lexeme that reaches no mark, the first mark, ... adds at most, over its weight in the query.
    bounds CONSTANT double precision[] := '{0.53,0.58,0.66,0.75,0.85,1}';
    top CONSTANT integer := 6;
    -- Restrictions that keep at most so many chunks are answered by scoring those.
    exact_below CONSTANT integer := 10000;
    -- With the last round nothing is guessed.
    last_round CONSTANT integer := 6;
    -- Milliseconds, as measured; the ratio of what scans took to what was foretold corrects them.
    per_row CONSTANT double precision := 0.0012 * (1 + coalesce(cardinality(dimensions), 0) / 100.0);
    per_posting CONSTANT double precision := 0.0001;
    per_other_posting CONSTANT double precision := 0.000006;
    per_scan CONSTANT double precision := 0.1;
    started CONSTANT timestamptz := clock_timestamp();
    scan_started timestamptz;
    pace double precision := 1;
    foretold double precision;
    statistics pgseek.collection_statistics;
    shares double precision[];
    total double precision;
    asked @vector@.sparsevec;
    m CONSTANT integer := coalesce(cardinality(dimensions), 0);
    -- Per lexeme, and one more: what it and all after it add at most, and how many postings they have.
    rest double precision[];
    postings double precision[];
    always integer[];
    clause record;
    lead_codes integer[];
    c1 integer[];
    c2 integer[];
    c3 integer[];
    c4 integer[];
    c5 integer[];
    clauses integer;
    rows double precision;
    level integer;
    highest integer := top - 1;
    i integer;
    need double precision := 0;
    guess double precision := 0;
    -- The n-th best score so far, 0 while there are fewer.
    reached double precision := 0;
    documents uuid[];
    ordinals integer[];
    scores double precision[];
    found integer := 0;
    cut boolean := false;
    few bigint;
BEGIN
    IF m = 0 THEN
        RETURN;
    END IF;
    SELECT s.* INTO statistics FROM pgseek.collection_statistics s WHERE s.collection_id = collection_id;
    asked := pgseek.bm25_query(dimensions, weights);
    shares := statistics.shares;
    total := greatest(statistics.chunks, counts[m], 1);
    rest := array_fill(0::double precision, ARRAY[m + 1]);
    postings := rest;
    FOR j IN REVERSE m .. 1 LOOP
        rest[j] := rest[j + 1] + weights[j];
        postings[j] := postings[j + 1] + counts[j];
    END LOOP;

    -- A filter or a restriction that keeps little is cheaper to score whole.
    IF among IS NOT NULL THEN
        RETURN QUERY
        SELECT c.document_id, c.ordinal, 0 - (c.terms OPERATOR(@vector@.<#>) asked) AS score, true
          FROM pgseek.chunks c
         WHERE c.collection_id = collection_id AND c.document_id = ANY (among)
           AND c.terms OPERATOR(@vector@.<#>) asked < 0
           AND (restriction IS NULL OR c.lexemes @@ restriction)
         ORDER BY score DESC, c.document_id, c.ordinal LIMIT n;
        RETURN;
    END IF;
    -- A large load leaves the index out and builds it in the end: until then every chunk is scored.
    IF to_regclass('pgseek.chunks_codes_idx') IS NULL THEN
        RETURN QUERY
        SELECT c.document_id, c.ordinal, 0 - (c.terms OPERATOR(@vector@.<#>) asked) AS score, true
          FROM pgseek.chunks c
         WHERE c.collection_id = collection_id AND c.terms OPERATOR(@vector@.<#>) asked < 0
           AND (restriction IS NULL OR c.lexemes @@ restriction)
           AND (filter IS NULL OR (SELECT d.metadata @@ filter FROM pgseek.documents d
                                    WHERE d.collection_id = c.collection_id AND d.document_id = c.document_id))
         ORDER BY score DESC, c.document_id, c.ordinal LIMIT n;
        RETURN;
    END IF;
    IF required <> '{}' THEN
        SELECT array_agg(pgseek.bm25_code(collection_id, pgseek.dimension(u.lexeme))), min(coalesce(s.chunks, 0))
          INTO always, few
          FROM unnest(required) AS u (lexeme)
          LEFT JOIN pgseek.term_statistics s ON s.collection_id = collection_id AND s.lexeme = u.lexeme;
        IF few <= exact_below OR coalesce(statistics.chunks, 0) = 0 THEN
            RETURN QUERY
            SELECT ranked.document_id, ranked.ordinal, ranked.score, true FROM (
                SELECT c.document_id, c.ordinal, 0 - (c.terms OPERATOR(@vector@.<#>) asked) AS score
                  FROM pgseek.chunks c
                 WHERE c.collection_id IS NOT DISTINCT FROM collection_id
                   AND pgseek.bm25_codes(c.collection_id, c.terms) @> always
                   AND c.lexemes @@ restriction AND c.terms OPERATOR(@vector@.<#>) asked < 0
                 ORDER BY score DESC, c.document_id, c.ordinal OFFSET 0) AS ranked
             WHERE filter IS NULL OR (SELECT d.metadata @@ filter FROM pgseek.documents d
                                       WHERE d.collection_id = collection_id AND d.document_id = ranked.document_id)
             LIMIT n;
            RETURN;
        END IF;
    END IF;

    <<rounds>>
    FOR round IN 1 .. last_round LOOP
        i := 1;
        WHILE i <= m LOOP
            need := greatest(reached, guess);
            EXIT WHEN rest[i] < need;
            IF found > 0 AND extract(epoch FROM clock_timestamp() - started) * 1000 > budget THEN
                cut := true;
                EXIT rounds;
            END IF;
            lead_codes := '{}';
            rows := 0;
            clauses := 0;
            c1 := NULL;
            c2 := NULL;
            c3 := NULL;
            c4 := NULL;
            c5 := NULL;
            level := 0;
            -- Rare lexemes are read whole, several at once; until there are n rows, as many as it takes for these.
            WHILE i <= m AND rest[i] >= need
              AND CASE WHEN need = 0 THEN rows < 3 * n + 100 AND (counts[i] <= 20 * n + 1500 AND (m > 1 OR counts[i] <= 20 * n)
                                                                  OR coalesce(statistics.chunks, 0) = 0)
                       ELSE counts[i] * per_row <= per_scan + counts[i] * per_posting + postings[i + 1] * per_other_posting END LOOP
                lead_codes := lead_codes || pgseek.bm25_code(collection_id, dimensions[i]);
                rows := rows + counts[i];
                i := i + 1;
            END LOOP;
            foretold := per_scan + rows * per_row;
            IF lead_codes = '{}' THEN
                IF need = 0 AND round < last_round THEN
                    IF i = m THEN
                        -- One lexeme is left: the highest level with rows enough, as far as is known.
                        WHILE highest > 0 AND counts[i] * shares[highest + 1] < 1.3 * (n - found) + 3 LOOP
                            highest := highest - 1;
                        END LOOP;
                        guess := CASE WHEN highest > 0 THEN weights[i] * bounds[highest] ELSE 0 END;
                        highest := greatest(highest - 1, 0);
                    ELSE
                        -- Too low costs little, too high another round. Long chunks repeat frequent words: the guess,
                        -- which knows frequencies only, is too low by a factor that grows with the length.
                        guess := (0.88 + 0.075 * ln(least(190, greatest(10, statistics.weighting[3])) / 10)) * pgseek.bm25_guess(n - found, weights[i:], counts[i:], total, bounds, shares,
                            statistics.weighting[1], statistics.weighting[2]);
                    END IF;
                    IF filter IS NOT NULL OR restriction IS NOT NULL THEN
                        guess := guess * 0.7;
                    END IF;
                    need := greatest(reached, guess);
                    EXIT WHEN rest[i] < need;
                END IF;
                WHILE weights[i] * bounds[level + 1] + rest[i + 1] <= need LOOP
                    level := level + 1;
                END LOOP;
                rows := counts[i] * shares[level + 1];
                lead_codes := ARRAY[pgseek.bm25_code(collection_id, dimensions[i], level)];
                foretold := per_scan + rows * per_row;
                IF need > 0 AND rows * per_row > per_scan THEN
                    FOR clause IN
                        SELECT c.codes FROM pgseek.bm25_clauses(
                            collection_id, i, need, dimensions, weights, counts, total, bounds, shares) c
                         ORDER BY c.postings
                    LOOP
                        clauses := clauses + 1;
                        CASE clauses
                            WHEN 1 THEN c1 := clause.codes;
                            WHEN 2 THEN c2 := clause.codes;
                            WHEN 3 THEN c3 := clause.codes;
                            WHEN 4 THEN c4 := clause.codes;
                            ELSE c5 := clause.codes;
                        END CASE;
                    END LOOP;
                    IF clauses > 0 THEN
                        foretold := per_scan + rows * per_posting * 1.5 + postings[i + 1] * per_other_posting;
                    END IF;
                END IF;
                -- Too dear: only rows of a higher level, while there are enough.
                WHILE level < top - 1 AND counts[i] * shares[level + 2] > n
                  AND foretold * pace > budget - extract(epoch FROM clock_timestamp() - started) * 1000 LOOP
                    cut := true;
                    level := level + 1;
                    foretold := foretold * shares[level + 1] / greatest(shares[level], 1e-9);
                    lead_codes := ARRAY[pgseek.bm25_code(collection_id, dimensions[i], level)];
                END LOOP;
                i := i + 1;
            END IF;
            -- Past the budget, what was found is the answer; an empty one is worth some more time, and a short scan
            -- always: on a busy machine the time may be over before the first.
            -- The case stands in brackets, or its THEN would end the condition.
            IF (CASE WHEN found > 0 THEN foretold * pace > budget - extract(epoch FROM clock_timestamp() - started) * 1000
                ELSE foretold > greatest(5 * budget + 5 - extract(epoch FROM clock_timestamp() - started) * 1000, 5) END) THEN
                cut := true;
                EXIT rounds;
            END IF;

            scan_started := clock_timestamp();
            SELECT array_agg(best.document_id), array_agg(best.ordinal), array_agg(best.score) INTO documents, ordinals, scores
              FROM (SELECT * FROM pgseek.bm25_scan(
                        collection_id, asked, n, lead_codes, c1, c2, c3, c4, c5, filter, restriction, always)
                    UNION SELECT * FROM unnest(documents, ordinals, scores)
                    ORDER BY 3 DESC, 1, 2 LIMIT n) AS best
             WHERE best.score > 0;
            found := coalesce(cardinality(documents), 0);
            IF found = n THEN
                -- Weights are single precision: the last digits of two equal scores may differ.
                reached := scores[n] * (1 - 1e-5::double precision);
            END IF;
            pace := greatest(pace * 0.7, least(10, extract(epoch FROM clock_timestamp() - scan_started) * 1000 / foretold));
        END LOOP;
        EXIT WHEN (cut AND found > 0) OR reached >= guess;
        -- The guess was too high. What was found is a lower bound, if it is enough; else guess lower.
        guess := CASE WHEN reached > 0 OR highest < top - 1 OR round >= last_round - 1 THEN 0 ELSE guess * 0.6 END;
    END LOOP;
    RETURN QUERY
    SELECT u.document_id, u.ordinal, u.score, NOT cut
      FROM unnest(documents, ordinals, scores) WITH ORDINALITY AS u (document_id, ordinal, score, place)
     ORDER BY u.place;
END
$function$;
