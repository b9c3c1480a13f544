-- Purpose:    the options of a search, checked, with the collection's settings and the defaults filled in.
-- Arguments:  of_collection  a row of collections
--             given          the arguments of search() by their names, but for collection, query and the vectors
-- Returns:    every option with its value; JSON null for those that have no default
-- Errors:     PGS02 an unknown option, or one out of range; both values are named
-- Volatility: immutable: it reads no table.
CREATE OR REPLACE FUNCTION pgseek.read_options(of_collection pgseek.collections, given jsonb)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    -- NULL is refused for those that have a value here, and means the collection's setting or nothing for the others.
    defaults CONSTANT jsonb := '{"k": 10, "alpha": null, "fusion": null, "lexical": null, "filter": null,
        "candidates": null, "rrf_k": 60, "snippets": true, "highlight": ["<b>", "</b>"], "budget": 50,
        "normalization": null, "syntax": "web", "typos": true, "collapse": null, "space": null, "ef_search": null,
        "probes": null, "rerank": null, "boosts": null, "min_score": null, "min_dense_score": null,
        "min_lexical_score": null, "diversity": 0, "near_duplicates": null, "passages": 0, "neighbours": 0,
        "feedback": 0}';
    settings CONSTANT jsonb := of_collection.settings;
    unknown text;
    o jsonb;
    alpha double precision;
    bound record;
    number numeric;
BEGIN
    IF given IS NULL OR jsonb_typeof(given) <> 'object' THEN
        RAISE EXCEPTION 'options is %, but must be an object such as {"k": 5}', coalesce(given::text, 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    SELECT string_agg(quote_literal(key), ', ' ORDER BY key) INTO unknown
      FROM jsonb_object_keys(given) AS key WHERE NOT defaults ? key;
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'unknown options: %', unknown
            USING ERRCODE = 'PGS02', HINT = 'known are ' || (SELECT string_agg(key, ', ' ORDER BY key) FROM jsonb_object_keys(defaults) AS key);
    END IF;
    o := defaults || given;
    -- Those with a default that must not be NULL come with their bounds; the others may be NULL.
    FOR bound IN SELECT * FROM (VALUES
        ('k', 1::numeric, 10000::numeric, true), ('candidates', 1, 10000, false), ('rrf_k', 1, 1000000, true),
        ('space', 1, 2147483647, false), ('ef_search', 1, 1000, false), ('probes', 1, 32768, false), ('rerank', 1, 100, false),
        ('passages', 0, 100, true), ('neighbours', 0, 100, true), ('feedback', 0, 100, true)) AS b (name, least, most, needed)
    LOOP
        IF o ->> bound.name IS NULL AND NOT bound.needed THEN
            CONTINUE;
        END IF;
        number := CASE WHEN jsonb_typeof(o -> bound.name) = 'number' THEN (o ->> bound.name)::numeric END;
        CONTINUE WHEN number BETWEEN bound.least AND bound.most AND number = trunc(number);
        RAISE EXCEPTION '% is %, but must be % % to %', bound.name, coalesce(nullif(o -> bound.name, 'null')::text, 'NULL'),
            CASE WHEN number = trunc(number) OR o ->> bound.name IS NULL THEN 'from' ELSE 'a whole number from' END, bound.least, bound.most
            USING ERRCODE = 'PGS02';
    END LOOP;
    FOR bound IN SELECT * FROM (VALUES ('alpha'), ('diversity'), ('near_duplicates'), ('min_score'), ('min_dense_score'),
        ('min_lexical_score'), ('budget')) AS b (name)
    LOOP
        -- A double precision that JSON has no number for comes as text.
        IF o ->> bound.name IS NOT NULL AND jsonb_typeof(o -> bound.name) <> 'number' AND o ->> bound.name <> ALL ('{Infinity,-Infinity,NaN}')
            OR o ->> bound.name = 'NaN' AND bound.name ~ '^(min_|budget)' THEN
            RAISE EXCEPTION '% is %, but must be a number', bound.name, o ->> bound.name USING ERRCODE = 'PGS02';
        END IF;
    END LOOP;
    FOR bound IN SELECT * FROM (VALUES ('snippets'), ('typos'), ('collapse')) AS b (name) LOOP
        IF o ->> bound.name IS NOT NULL AND jsonb_typeof(o -> bound.name) <> 'boolean' THEN
            RAISE EXCEPTION '% is %, but must be true or false', bound.name, o ->> bound.name USING ERRCODE = 'PGS02';
        END IF;
    END LOOP;
    alpha := o ->> 'alpha';
    IF alpha IS NOT NULL AND NOT alpha BETWEEN 0 AND 1 THEN
        RAISE EXCEPTION 'alpha is %, but must lie in 0..1', alpha
            USING ERRCODE = 'PGS02', HINT = '1 is the dense leg alone, 0 the lexical leg alone';
    END IF;
    IF o ->> 'fusion' IN ('rrf', 'auto') AND alpha IS NOT NULL THEN
        RAISE EXCEPTION 'alpha is % with fusion %', alpha, CASE o ->> 'fusion' WHEN 'rrf' THEN '''rrf'', which has no weights'
            ELSE '''auto'', which chooses it' END
            USING ERRCODE = 'PGS02', HINT = 'leave alpha out or use fusion => ''weighted''';
    END IF;
    o := o || jsonb_build_object(
        'fusion', coalesce(o ->> 'fusion', CASE WHEN alpha IS NULL THEN settings ->> 'fusion' END, 'weighted'),
        'lexical', coalesce(o ->> 'lexical', settings ->> 'lexical', 'bm25'),
        'alpha', coalesce(alpha, (settings ->> 'alpha')::double precision, 0.4),
        'normalization', coalesce(o ->> 'normalization', settings ->> 'normalization', 'max'),
        'depth', coalesce((o ->> 'candidates')::integer, (settings ->> 'candidates')::integer, 100),
        'snippets', coalesce((o ->> 'snippets')::boolean, false),
        'typos', coalesce((o ->> 'typos')::boolean, true),
        'collapse', coalesce((o ->> 'collapse')::boolean, (settings ->> 'collapse')::boolean, false),
        'diversity', coalesce((o ->> 'diversity')::double precision, 0));
    IF o ->> 'fusion' NOT IN ('weighted', 'rrf', 'auto') THEN
        RAISE EXCEPTION 'fusion is %, but must be ''weighted'', ''rrf'' or ''auto''', quote_literal(o ->> 'fusion') USING ERRCODE = 'PGS02';
    END IF;
    IF o ->> 'lexical' NOT IN ('bm25', 'ts_rank_cd', 'ts_rank') THEN
        RAISE EXCEPTION 'lexical is %, but must be ''bm25'', ''ts_rank_cd'' or ''ts_rank''', quote_literal(o ->> 'lexical') USING ERRCODE = 'PGS02';
    END IF;
    IF o ->> 'normalization' NOT IN ('max', 'minmax') THEN
        RAISE EXCEPTION 'normalization is %, but must be ''max'' or ''minmax''', quote_literal(o ->> 'normalization') USING ERRCODE = 'PGS02';
    END IF;
    IF o ->> 'syntax' IS NULL OR o ->> 'syntax' NOT IN ('web', 'plain') THEN
        RAISE EXCEPTION 'syntax is %, but must be ''web'' or ''plain''', coalesce(quote_literal(o ->> 'syntax'), 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    IF (o ->> 'snippets')::boolean AND NOT coalesce(
        jsonb_typeof(o -> 'highlight') = 'array' AND jsonb_array_length(o -> 'highlight') = 2
        AND jsonb_typeof(o -> 'highlight' -> 0) = 'string' AND jsonb_typeof(o -> 'highlight' -> 1) = 'string', false) THEN
        RAISE EXCEPTION 'highlight is %, but must be two texts', coalesce(nullif(o -> 'highlight', 'null')::text, 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    IF o ->> 'budget' IS NULL OR NOT (o ->> 'budget')::double precision > 0 THEN
        RAISE EXCEPTION 'budget is %, but must be above 0 milliseconds', coalesce(o ->> 'budget', 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    IF NOT (o ->> 'diversity')::double precision BETWEEN 0 AND 1 THEN
        RAISE EXCEPTION 'diversity is %, but must lie in 0..1', o ->> 'diversity'
            USING ERRCODE = 'PGS02', HINT = '0 orders by score alone, 1 by how little a hit repeats those before it';
    END IF;
    IF o ->> 'near_duplicates' IS NOT NULL AND NOT ((o ->> 'near_duplicates')::double precision > 0
        AND (o ->> 'near_duplicates')::double precision <= 1) THEN
        RAISE EXCEPTION 'near_duplicates is %, but must be above 0 and at most 1', o ->> 'near_duplicates'
            USING ERRCODE = 'PGS02', HINT = 'it is the cosine from which on a hit repeats a better one: 0.95, say';
    END IF;
    IF o ->> 'boosts' IS NOT NULL THEN
        BEGIN
            PERFORM pgseek.boost('{}', o -> 'boosts', timestamptz 'epoch');
        EXCEPTION WHEN syntax_error OR undefined_object OR data_exception THEN
            RAISE EXCEPTION 'boosts is %, which cannot be computed: %', o -> 'boosts', SQLERRM USING ERRCODE = 'PGS02';
        END;
    END IF;
    IF o ->> 'filter' IS NOT NULL THEN
        BEGIN
            -- A number or an array would be a jsonpath, too, that nothing fulfils.
            PERFORM (CASE jsonb_typeof(o -> 'filter') WHEN 'string' THEN o ->> 'filter' ELSE '{}' END)::jsonpath;
        EXCEPTION WHEN syntax_error OR data_exception THEN
            RAISE EXCEPTION 'filter is %, but must be the text of a jsonpath predicate: %', o -> 'filter', SQLERRM
                USING ERRCODE = 'PGS02', HINT = 'such as "$.year >= 2020"';
        END;
    END IF;
    RETURN o;
END
$function$;
