-- Purpose:    how many documents a query finds, and how they spread over values of their metadata.
-- Arguments:  collection
--             query    see search(); may be NULL over 'filter'
--             facets   each 'field', 'field:histogram', 'field:year', 'field:month' or 'field:day'; a number more is how many
--                      values (20) or buckets (10) there shall be: 'price:histogram:5'. A field 'a.b' is b within a
--             over     what is counted:
--                      'lexical'     documents with at least one word of the query that meet its +required, -excluded and
--                                    "quoted" parts
--                      'candidates'  documents among the search's candidates, of both legs
--                      'filter'      documents that the filter keeps, whatever the query
--             query_embedding, space_id, model, options  see search() and read_options(); the filter holds for each
--             most     documents that are looked at, 1..10,000,000; if there are more, "complete" is false
-- Returns:    an object: over, statement (what was counted, in words), documents, complete, facets: by the text asked for
--             values   [{"value", "documents"}], most frequent first; an array counts for each of its values, once
--             buckets  [{"from", "to", "documents"}] from the least to the greatest number, "to" excluded except in the last; or
--                      [{"value": "2026-01", "documents"}] of dates
--             others   documents with a value that is not among those, missing those without a value of that kind
-- Errors:     PGS01, PGS02, PGS04, PGS05 as search(); PGS02 a facet that cannot be read
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile, as search(). It writes nothing and runs on a read-only standby.
-- Index:      chunks_codes_idx (GIN) over 'lexical', those of metadata with a filter (see matching_documents()); documents_pkey.
CREATE OR REPLACE FUNCTION pgseek.facets(
    collection text, query text, facets text[] DEFAULT '{}', over text DEFAULT 'lexical',
    query_embedding @vector@.vector DEFAULT NULL, options jsonb DEFAULT '{}', most integer DEFAULT 100000,
    space_id integer DEFAULT NULL, model text DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    of_collection CONSTANT pgseek.collections := pgseek.require_collection(collection);
    of CONSTANT integer := of_collection.collection_id;
    complete CONSTANT jsonb := pgseek.read_options(of_collection, options);
    filter CONSTANT jsonpath := complete ->> 'filter';
    terms pgseek.query_terms;
    codes integer[];
    documents uuid[];
    facet text;
    results jsonb := '{}';
BEGIN
    IF over IS NULL OR over NOT IN ('lexical', 'candidates', 'filter') THEN
        RAISE EXCEPTION 'over is %, but must be ''lexical'', ''candidates'' or ''filter''', coalesce(quote_literal(over), 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    IF most IS NULL OR most NOT BETWEEN 1 AND 10000000 THEN
        RAISE EXCEPTION 'most is %, but must be from 1 to 10000000', coalesce(most::text, 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    IF over <> 'filter' AND btrim(coalesce(query, ''), E' \t\r\n') = '' THEN
        RAISE EXCEPTION 'the query is empty' USING ERRCODE = 'PGS02', HINT = 'give a word, or count over => ''filter''';
    END IF;
    CASE over
    WHEN 'filter' THEN
        EXECUTE format('SELECT array_agg(d.document_id) FROM (SELECT d.document_id FROM pgseek.documents d'
            ' WHERE d.collection_id = $1%s LIMIT $3) AS d',
            CASE WHEN filter IS NOT NULL THEN ' AND d.metadata @@ $2' || pgseek.filter_conditions(of, filter, 'd') ELSE '' END)
        INTO documents USING of, filter, most + 1;
    WHEN 'lexical' THEN
        terms := pgseek.read_query(of_collection, query, complete ->> 'syntax', (complete ->> 'typos')::boolean);
        SELECT array_agg(pgseek.bm25_code(of, u.dimension)) INTO codes FROM unnest(terms.dimensions) AS u (dimension);
        EXECUTE format('SELECT array_agg(f.document_id) FROM (SELECT DISTINCT c.document_id FROM pgseek.chunks c'
            ' WHERE c.collection_id IS NOT DISTINCT FROM $1 AND pgseek.bm25_codes(c.collection_id, c.terms) && $2%s%s LIMIT $5) AS f',
            CASE WHEN terms.restriction IS NOT NULL THEN ' AND c.lexemes @@ $3' || pgseek.restricted(of_collection, '$3') ELSE '' END,
            CASE WHEN filter IS NOT NULL THEN ' AND EXISTS (SELECT FROM pgseek.documents d WHERE d.collection_id = $1'
                ' AND d.document_id = c.document_id AND d.metadata @@ $4)' ELSE '' END)
        INTO documents USING of, codes, terms.restriction, filter, most + 1;
    ELSE
        SELECT array_agg(DISTINCT f.document_id) INTO documents
          FROM (SELECT pgseek.rank(of_collection, query, query_embedding, complete || '{"all": true}', (complete ->> 'k')::integer,
                    space_id, model) AS ranking) AS r
          CROSS JOIN LATERAL unnest((r.ranking).fused) AS f;
    END CASE;
    FOREACH facet IN ARRAY coalesce(facets, '{}') LOOP
        results := results || jsonb_build_object(facet, pgseek.facet(of, documents[:most], facet));
    END LOOP;
    RETURN jsonb_build_object('over', over,
        'statement', CASE over WHEN 'lexical' THEN 'documents with a word of the query' WHEN 'candidates' THEN 'documents among the candidates of the search'
            ELSE 'documents' END || CASE WHEN filter IS NOT NULL THEN ' that the filter keeps' ELSE '' END,
        'documents', least(coalesce(cardinality(documents), 0), most), 'complete', coalesce(cardinality(documents), 0) <= most,
        'facets', results);
END
$function$;
