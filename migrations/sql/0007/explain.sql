-- Purpose:    how a search comes to its hits: what was read of the query, what each leg brought, what took how long.
-- Arguments:  as of search(); options has all others of its arguments by name, such as '{"k": 5, "alpha": 0.7}'
-- Returns:    an object: options (as asked for), kind (with fusion 'auto', see query_kind()), alpha (that was used), space, words (lexeme, chunks that have it, weight, origin),
--             unknown_words, restriction, candidates per leg, dense and lexical (rows found; whether exactly), matching
--             (documents that the filter keeps, or chunks with the required words; null where nothing was counted, or
--             more than are compared exactly), fused (candidates, if the ranking was shaped after the fusion), degraded,
--             milliseconds (reading, fusing, shaping, showing), hits (as search() returns them, without texts)
-- Errors:     see search()
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile, as search(). It writes nothing and runs on a read-only standby.
CREATE OR REPLACE FUNCTION pgseek.explain(
    collection text, query text, query_embedding @vector@.vector DEFAULT NULL, options jsonb DEFAULT '{}',
    space_id integer DEFAULT NULL, model text DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    of_collection CONSTANT pgseek.collections := pgseek.require_collection(collection);
    complete CONSTANT jsonb := pgseek.read_options(of_collection, options);
    ranking record;
    ranked_at timestamptz;
    hits jsonb;
BEGIN
    ranking := pgseek.rank(of_collection, query, query_embedding, complete || '{"about": true}', (complete ->> 'k')::integer, space_id, model);
    ranked_at := clock_timestamp();
    SELECT coalesce(jsonb_agg(to_jsonb(s) - '{title,text,snippet,metadata,section,matched_text,context,other_passages,provenance,degraded}'::text[]
               ORDER BY s.rank), '[]')
      INTO hits
      FROM pgseek.show(of_collection, ranking.hits, ranking.fused, ranking.terms, complete, ranking.degraded, (complete ->> 'filter')::jsonpath) AS s;
    RETURN jsonb_build_object('options', jsonb_strip_nulls(complete - 'depth'), 'degraded', ranking.degraded, 'hits', hits)
        || coalesce(jsonb_set(ranking.about, '{milliseconds,show}',
            to_jsonb(round((extract(epoch FROM clock_timestamp() - ranked_at) * 1000)::numeric, 3))), '{}');
END
$function$;
