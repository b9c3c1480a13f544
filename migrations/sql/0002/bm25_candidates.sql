-- Purpose:    the n chunks of a collection with the highest BM25 scores, without scoring every chunk
--             that has one of the words: guess the n-th best score, ask GIN for exactly those rows whose
--             impact marks allow that score, score them, and stop when the n-th of them reaches it.
-- Arguments:  collection_id
--             lexemes, frequencies  the query, see bm25_words()
--             n                     rows wanted
--             filter                jsonpath predicate over the documents' metadata
--             budget                milliseconds after which no further attempt starts, and below which
--                                   each attempt is kept as far as the statistics foretell it
--             gamma                 how much likelier words meet in one text than by chance; it moves
--                                   the first guess only, never the result
-- Returns:    exact is true if these are the best n for the statistics in force, false if the budget
--             ran out: then chunks may be missing, but every score is right.
-- Ordering:   score descending, document_id, ordinal.
-- Volatility: stable: it writes nothing and runs on a read-only standby.
-- Index:      chunks_lexemes_idx (GIN); chunks_pkey and documents_pkey with a filter.
CREATE OR REPLACE FUNCTION pgseek.bm25_candidates(
    collection_id integer, lexemes text[], frequencies integer[], n integer,
    filter jsonpath DEFAULT NULL, budget double precision DEFAULT 50, gamma double precision DEFAULT 1)
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
    cells CONSTANT integer := 64;
    -- Branches of the query expected to match so few rows are not divided further.
    whole CONSTANT double precision := 200;
    -- Of a longer query the heaviest words are told apart; the others count with all they could add.
    apart_at_most CONSTANT integer := 16;
    apart integer;
    -- Filters that keep at most this many documents are answered by scoring those.
    exact_below CONSTANT integer := 10000;
    started timestamptz := clock_timestamp();
    round_started timestamptz;
    statistics pgseek.collection_statistics;
    term record;
    mark text := '';
    total double precision;
    -- Terms, heaviest first, each with its levels, lowest first: the lexeme, then its impact marks.
    terms integer := 0;
    first integer[] := '{1}';
    operand text[] := '{}';
    bound double precision[] := '{}';
    share double precision[] := '{}';
    weights double precision[] := '{}';
    rest double precision[];
    edges real[];
    elements text := '';
    asked @vector@.sparsevec;
    occurrences double precision := 0;
    levels integer;
    likely double precision[];
    moved double precision[];
    width double precision;
    shift integer;
    part double precision;
    tail double precision;
    need double precision;
    level integer;
    step integer;
    formula text;
    covered text;
    words tsquery[];
    postings double precision;
    milliseconds_per_posting double precision := 0.0003;
    remaining double precision;
    documents uuid[];
    ordinals integer[];
    scores double precision[];
    found integer;
    certain boolean := false;
    answered boolean := false;
    rounds integer := 0;
BEGIN
    SELECT s.* INTO statistics FROM pgseek.collection_statistics s WHERE s.collection_id = collection_id;
    edges := statistics.weighting[5:];
    total := greatest(statistics.chunks, 1);
    -- Only a small part of the table is worth the mark, whose postings every branch reads again: at the
    -- whole table it makes a search four times slower.
    IF 5 * total < (SELECT sum(s.chunks) FROM pgseek.collection_statistics s) OR coalesce(statistics.chunks, 0) = 0 THEN
        mark := '&''' || pgseek.collection_mark(collection_id) || '''';
    END IF;
    FOR term IN SELECT t.* FROM pgseek.bm25_terms(collection_id, lexemes, frequencies) t LOOP
        terms := terms + 1;
        occurrences := occurrences + term.df;
        part := pgseek.dimension(term.lexeme);
        IF position(',' || part || ':' IN elements) = 0 THEN
            elements := elements || ',' || part || ':' || term.weight::real;
        END IF;
        levels := CASE WHEN term.tiers IS NULL OR octet_length(term.lexeme) > 2040 THEN 0 ELSE cardinality(edges) END;
        operand := operand || term.quoted;
        share := share || term.df / total;
        bound := bound || term.weight * CASE WHEN levels = 0 THEN 1 ELSE edges[1] END;
        FOR tier IN 1 .. levels LOOP
            operand := operand || (left(term.quoted, -1) || ' ' || chr(96 + tier) || '''');
            share := share || coalesce(term.tiers[tier], 0) / total;
            bound := bound || term.weight * coalesce(edges[tier + 1], 1);
        END LOOP;
        first := first || cardinality(operand) + 1;
        weights := weights || term.weight;
    END LOOP;
    IF terms = 0 THEN
        RETURN;
    END IF;
    apart := least(terms, apart_at_most);
    asked := ('{' || substr(elements, 2) || '}/1000000000')::@vector@.sparsevec;
    rest := array_fill(0::double precision, ARRAY[terms + 1]);
    FOR i IN REVERSE terms .. 1 LOOP
        rest[i] := rest[i + 1] + weights[i];
    END LOOP;

    IF filter IS NOT NULL AND exact_below >= (SELECT count(*) FROM (
            SELECT FROM pgseek.documents d WHERE d.collection_id = collection_id AND d.metadata @@ filter
             LIMIT exact_below + 1) AS matching) THEN
        RETURN QUERY
        SELECT c.document_id, c.ordinal, -(c.terms OPERATOR(@vector@.<#>) asked) AS score, true
          FROM pgseek.documents d
          JOIN pgseek.chunks c ON c.collection_id = d.collection_id AND c.document_id = d.document_id
         WHERE d.collection_id = collection_id AND d.metadata @@ filter
           AND c.terms OPERATOR(@vector@.<#>) asked < 0
         ORDER BY score DESC, c.document_id, c.ordinal LIMIT n;
        RETURN;
    END IF;

    IF occurrences <= 20 * n + 1000 OR coalesce(statistics.chunks, 0) = 0 THEN
        need := 0;
    ELSE
        -- How scores spread if words met by chance: the sum of one independent variable per word.
        width := (rest[1] - rest[apart + 1]) / cells;
        likely := array_fill(0::double precision, ARRAY[cells + 1]);
        likely[1] := total;
        FOR i IN 1 .. apart LOOP
            moved := likely;
            FOR level IN first[i] .. first[i + 1] - 1 LOOP
                part := share[level] - CASE WHEN level < first[i + 1] - 1 THEN share[level + 1] ELSE 0 END;
                CONTINUE WHEN part <= 0;
                shift := least(cells, round((bound[level]
                    + CASE WHEN level > first[i] THEN bound[level - 1] ELSE bound[level] * 0.7 END) / 2 / width));
                FOR cell IN 1 .. cells + 1 - shift LOOP
                    IF likely[cell] > 1e-6 THEN
                        moved[cell + shift] := moved[cell + shift] + likely[cell] * part;
                        moved[cell] := moved[cell] - likely[cell] * part;
                    END IF;
                END LOOP;
            END LOOP;
            likely := moved;
        END LOOP;
        IF filter IS NOT NULL THEN
            gamma := gamma / 4;
        END IF;
    END IF;

    LOOP
        IF need IS NULL THEN
            need := 0;
            tail := 0;
            FOR cell IN REVERSE cells + 1 .. 1 LOOP
                tail := tail + likely[cell];
                IF tail * gamma >= n THEN
                    need := (cell - 1.5) * width;
                    EXIT;
                END IF;
            END LOOP;
            gamma := gamma / 20;
        END IF;
        -- One tsquery per word and level, heaviest word first: a row is found by its heaviest word. A
        -- bitmap of many small queries costs less than one of all, as GIN evaluates the whole query
        -- for each row it meets.
        LOOP
            words := '{}';
            postings := 0;
            FOR i IN 1 .. CASE WHEN need > 0 THEN apart ELSE 0 END LOOP
                EXIT WHEN need > rest[i];
                covered := '';
                level := first[i];
                step := pgseek.bm25_step(total * share[level]);
                WHILE level < first[i + 1] LOOP
                    formula := pgseek.bm25_formula(i + 1, need - bound[least(level + step - 1, first[i + 1] - 1)],
                        total * share[level], first[:apart + 1], operand, bound, share, rest, whole);
                    IF formula = '*' THEN
                        words := words || (operand[level] || mark)::tsquery;
                        postings := postings + 6 * total * share[level];
                        EXIT;
                    ELSIF formula <> covered THEN
                        words := words || (operand[level] || mark || '&(' || formula || ')')::tsquery;
                        postings := postings + total * share[level];
                        covered := formula;
                    END IF;
                    level := level + step;
                END LOOP;
            END LOOP;
            IF cardinality(words) = 0 OR (apart < terms AND need <= rest[apart + 1]) THEN
                need := 0;
                postings := 6 * occurrences;
                SELECT array_agg((operand[f.i] || mark)::tsquery) INTO words FROM unnest(first[:terms]) AS f (i);
            END IF;
            remaining := budget - extract(epoch FROM clock_timestamp() - started) * 1000;
            EXIT WHEN postings * milliseconds_per_posting <= remaining
                OR answered OR (greatest(need, rest[1] / 100) * 1.15 > rest[1] AND need > rest[apart + 1]) OR occurrences <= 20 * n + 1000;
            -- Too dear: ask for higher scores, which fewer rows can have.
            need := greatest(least(greatest(need, rest[1] / 100) * 1.15, rest[1]), rest[apart + 1] * 1.001);
        END LOOP;
        EXIT WHEN answered AND postings * milliseconds_per_posting > remaining;

        round_started := clock_timestamp();
        -- The key is compared by IS NOT DISTINCT FROM to keep chunks_pkey out of the plan.
        IF filter IS NULL THEN
            SELECT array_agg(best.document_id), array_agg(best.ordinal), array_agg(best.score)
              INTO documents, ordinals, scores
              FROM (SELECT c.document_id, c.ordinal, -(c.terms OPERATOR(@vector@.<#>) asked) AS score
                      FROM pgseek.chunks c
                     WHERE c.collection_id IS NOT DISTINCT FROM collection_id AND c.lexemes @@ ANY (words)
                     ORDER BY score DESC, c.document_id, c.ordinal
                     LIMIT n) AS best;
        ELSE
            -- The filter is a value, not a join: it is then asked from the best row down, until n pass.
            SELECT array_agg(best.document_id), array_agg(best.ordinal), array_agg(best.score)
              INTO documents, ordinals, scores
              FROM (SELECT ranked.* FROM (
                        SELECT c.document_id, c.ordinal, -(c.terms OPERATOR(@vector@.<#>) asked) AS score
                          FROM pgseek.chunks c
                         WHERE c.collection_id IS NOT DISTINCT FROM collection_id AND c.lexemes @@ ANY (words)
                         ORDER BY score DESC, c.document_id, c.ordinal OFFSET 0) AS ranked
                     WHERE (SELECT d.metadata @@ filter FROM pgseek.documents d
                             WHERE d.collection_id = collection_id AND d.document_id = ranked.document_id)
                     LIMIT n) AS best;
        END IF;
        rounds := rounds + 1;
        answered := true;
        found := coalesce(cardinality(documents), 0);
        -- Weights are single precision, so a bound may fall short of a score by its last digits.
        certain := need <= 0 OR (found = n AND scores[n] * (1 - 1e-5) >= need);
        EXIT WHEN certain;
        milliseconds_per_posting := greatest(0.0001, least(0.001,
            extract(epoch FROM clock_timestamp() - round_started) * 1000 / greatest(postings, 1)));
        IF found = n THEN
            -- The n-th best so far: no later guess can be higher.
            need := scores[n] * (1 - 1e-5);
        ELSIF rounds < 4 THEN
            need := NULL;
        ELSE
            need := 0;
        END IF;
    END LOOP;
    RETURN QUERY
    SELECT u.document_id, u.ordinal, u.score, certain
      FROM unnest(documents, ordinals, scores) WITH ORDINALITY AS u (document_id, ordinal, score, place)
     ORDER BY u.place;
END
$function$;
