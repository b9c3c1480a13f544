-- Purpose:    one scan of the index of chunks: the n best of the rows that hold a code of each given array.
-- Arguments:  collection_id, asked, n        see bm25_candidates() and bm25_query()
--             lead                           codes, see bm25_codes()
--             clause1 .. clause5             more arrays of codes, or NULL; those given come first
--             filter, restriction, required  see bm25_candidates(), but required as codes; each may be NULL
-- Ordering:   score descending, document_id, ordinal. A row whose code is another lexeme's scores 0.
-- Volatility: stable. Index: chunks_codes_idx (GIN); documents_pkey with a filter. It plans under the settings of
--             bm25_candidates(), its caller.
CREATE OR REPLACE FUNCTION pgseek.bm25_scan(
    collection_id integer, asked @vector@.sparsevec, n integer, lead integer[],
    clause1 integer[], clause2 integer[], clause3 integer[], clause4 integer[], clause5 integer[],
    filter jsonpath, restriction tsquery, required integer[])
RETURNS TABLE (document_id uuid, ordinal integer, score double precision)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    statement text;
BEGIN
    IF filter IS NULL AND restriction IS NULL THEN
        -- A statement for each number of clauses, because a session plans each once: to plan takes as long as to scan.
        CASE num_nonnulls(clause1, clause2, clause3, clause4, clause5)
            WHEN 0 THEN
                RETURN QUERY
                SELECT c.document_id, c.ordinal, 0 - (c.terms OPERATOR(@vector@.<#>) asked) AS score FROM pgseek.chunks c
                 WHERE c.collection_id IS NOT DISTINCT FROM collection_id
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && lead
                 ORDER BY score DESC, c.document_id, c.ordinal LIMIT n;
            WHEN 1 THEN
                RETURN QUERY
                SELECT c.document_id, c.ordinal, 0 - (c.terms OPERATOR(@vector@.<#>) asked) AS score FROM pgseek.chunks c
                 WHERE c.collection_id IS NOT DISTINCT FROM collection_id
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && lead
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause1
                 ORDER BY score DESC, c.document_id, c.ordinal LIMIT n;
            WHEN 2 THEN
                RETURN QUERY
                SELECT c.document_id, c.ordinal, 0 - (c.terms OPERATOR(@vector@.<#>) asked) AS score FROM pgseek.chunks c
                 WHERE c.collection_id IS NOT DISTINCT FROM collection_id
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && lead
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause1
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause2
                 ORDER BY score DESC, c.document_id, c.ordinal LIMIT n;
            WHEN 3 THEN
                RETURN QUERY
                SELECT c.document_id, c.ordinal, 0 - (c.terms OPERATOR(@vector@.<#>) asked) AS score FROM pgseek.chunks c
                 WHERE c.collection_id IS NOT DISTINCT FROM collection_id
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && lead
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause1
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause2
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause3
                 ORDER BY score DESC, c.document_id, c.ordinal LIMIT n;
            WHEN 4 THEN
                RETURN QUERY
                SELECT c.document_id, c.ordinal, 0 - (c.terms OPERATOR(@vector@.<#>) asked) AS score FROM pgseek.chunks c
                 WHERE c.collection_id IS NOT DISTINCT FROM collection_id
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && lead
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause1
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause2
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause3
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause4
                 ORDER BY score DESC, c.document_id, c.ordinal LIMIT n;
            ELSE
                RETURN QUERY
                SELECT c.document_id, c.ordinal, 0 - (c.terms OPERATOR(@vector@.<#>) asked) AS score FROM pgseek.chunks c
                 WHERE c.collection_id IS NOT DISTINCT FROM collection_id
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && lead
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause1
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause2
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause3
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause4
                   AND pgseek.bm25_codes(c.collection_id, c.terms) && clause5
                 ORDER BY score DESC, c.document_id, c.ordinal LIMIT n;
        END CASE;
        RETURN;
    END IF;
    statement := 'SELECT c.document_id, c.ordinal, 0 - (c.terms OPERATOR(@vector@.<#>) $1) AS score FROM pgseek.chunks c'
        ' WHERE c.collection_id IS NOT DISTINCT FROM $2'
        ' AND pgseek.bm25_codes(c.collection_id, c.terms) && $4';
    FOR place IN 1 .. num_nonnulls(clause1, clause2, clause3, clause4, clause5) LOOP
        statement := statement || ' AND pgseek.bm25_codes(c.collection_id, c.terms) && $' || place + 4;
    END LOOP;
    IF required IS NOT NULL THEN
        statement := statement || ' AND pgseek.bm25_codes(c.collection_id, c.terms) @> $12';
    END IF;
    IF restriction IS NOT NULL THEN
        statement := statement || ' AND c.lexemes @@ $11';
    END IF;
    statement := statement || ' ORDER BY score DESC, c.document_id, c.ordinal';
    IF filter IS NOT NULL THEN
        -- The filter is a value, not a join: it is then asked from the best row down, until n pass.
        statement := 'SELECT ranked.* FROM (' || statement || ' OFFSET 0) AS ranked WHERE (SELECT d.metadata @@ $10'
            ' FROM pgseek.documents d WHERE d.collection_id = $2 AND d.document_id = ranked.document_id)';
    END IF;
    RETURN QUERY EXECUTE statement || ' LIMIT $3'
    USING asked, collection_id, n, lead, clause1, clause2, clause3, clause4, clause5, filter, restriction, required;
END
$function$;
