-- Purpose:    how documents spread over the values of one field; see facets().
-- Arguments:  collection_id, documents
--             facet  'field' or 'field:values', 'field:histogram', 'field:year', 'field:month', 'field:day', with a number after it or without
-- Errors:     PGS02 a facet that cannot be read
-- Volatility: stable. Index: documents_pkey.
CREATE OR REPLACE FUNCTION pgseek.facet(collection_id integer, documents uuid[], facet text)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    part CONSTANT text[] := regexp_match(facet, '^(.+?)(?::(values|histogram|year|month|day))?(?::([1-9]\d{0,3}))?$');
    path CONSTANT text[] := string_to_array(part[1], '.');
    how CONSTANT text := coalesce(part[2], 'values');
    shown CONSTANT integer := coalesce(part[3]::integer, CASE how WHEN 'values' THEN 20 WHEN 'histogram' THEN 10 ELSE 1000 END);
    -- As many characters of an ISO 8601 date as it takes.
    width CONSTANT integer := CASE how WHEN 'year' THEN 4 WHEN 'month' THEN 7 ELSE 10 END;
    total bigint := coalesce(cardinality(documents), 0);
    result jsonb;
BEGIN
    IF part IS NULL OR array_position(path, '') IS NOT NULL OR (part[2] IS NULL AND position(':' IN part[1]) > 0) THEN
        RAISE EXCEPTION 'the facet % cannot be read', coalesce(quote_literal(facet), 'NULL') USING ERRCODE = 'PGS02',
            HINT = 'it is ''field'', ''field:histogram'', ''field:year'', ''field:month'' or ''field:day'', with a number after it or without; '
                '''field:values'' where the field''s name has a colon';
    END IF;
    IF how = 'histogram' THEN
        WITH numbers AS (
            SELECT DISTINCT d.document_id, (v.value #>> '{}')::numeric AS x
              FROM pgseek.documents d
              CROSS JOIN LATERAL jsonb_path_query(d.metadata #> path, '$[*]') AS v (value)
             WHERE d.collection_id = collection_id AND d.document_id = ANY (documents) AND jsonb_typeof(v.value) = 'number'),
        bounds AS (SELECT min(x) AS low, max(x) AS high, count(DISTINCT document_id) AS having FROM numbers),
        counted AS (
            SELECT CASE WHEN b.high = b.low THEN 1 ELSE least(shown, width_bucket(n.x, b.low, b.high, shown)) END AS bucket,
                   count(DISTINCT n.document_id) AS documents
              FROM numbers n, bounds b GROUP BY 1)
        SELECT jsonb_build_object('missing', total - b.having, 'buckets', coalesce((
                   SELECT jsonb_agg(jsonb_build_object(
                              'from', trim_scale(b.low + (b.high - b.low) * (i - 1) / shown),
                              'to', trim_scale(CASE WHEN i = shown OR b.high = b.low THEN b.high ELSE b.low + (b.high - b.low) * i / shown END),
                              'documents', coalesce(c.documents, 0)) ORDER BY i)
                     FROM generate_series(1, CASE WHEN b.high = b.low THEN 1 ELSE shown END) AS i
                     LEFT JOIN counted c ON c.bucket = i), '[]'))
          INTO result FROM bounds b;
        RETURN result;
    END IF;
    WITH found AS (
        SELECT DISTINCT d.document_id, CASE WHEN how = 'values' THEN v.value ELSE to_jsonb(left(v.value #>> '{}', width)) END AS value
          FROM pgseek.documents d
          CROSS JOIN LATERAL jsonb_path_query(d.metadata #> path, '$[*]') AS v (value)
         WHERE d.collection_id = collection_id AND d.document_id = ANY (documents)
           AND CASE WHEN how = 'values' THEN jsonb_typeof(v.value) IN ('string', 'number', 'boolean')
               ELSE jsonb_typeof(v.value) = 'string' AND v.value #>> '{}' ~ '^\d{4}-\d\d-\d\d' END),
    counted AS (
        SELECT f.value, count(*) AS documents FROM found f GROUP BY f.value),
    placed AS (
        SELECT c.*, row_number() OVER (ORDER BY c.documents DESC, c.value) AS place FROM counted c)
    SELECT jsonb_build_object(
               CASE how WHEN 'values' THEN 'values' ELSE 'buckets' END, coalesce((
                   SELECT jsonb_agg(jsonb_build_object('value', p.value, 'documents', p.documents)
                              ORDER BY CASE WHEN how = 'values' THEN p.place END, p.value)
                     FROM placed p WHERE p.place <= shown), '[]'),
               'others', (SELECT count(DISTINCT f.document_id) FROM found f JOIN placed p ON p.value = f.value WHERE p.place > shown),
               'missing', total - (SELECT count(DISTINCT f.document_id) FROM found f))
      INTO result;
    RETURN result;
END
$function$;
