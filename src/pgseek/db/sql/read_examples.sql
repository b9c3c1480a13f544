-- Purpose:    what a reader liked, disliked and saw, as documents with weights.
-- Arguments:  of_collection    a row of collections
--             liked, disliked  external ids; each counts 1
--             options          "history", "half_life", "now" and "on_missing", see recommend()
-- Returns:    each document once: its weight is the sum of what is said of it, above 0 for liked, below for disliked
--             and 0 for seen only. Those that the collection does not have are left out.
-- Method:     an event counts weight * 2 ^ (-age / half_life). Only ratios of weights matter, so ages are counted from the
--             newest event: a history in which all is old says as much as one of today.
-- Errors:     PGS02 a document that the collection does not have, a history that cannot be read
-- Volatility: stable. Index: documents_pkey.
CREATE OR REPLACE FUNCTION pgseek.read_examples(
    of_collection pgseek.collections, liked text[], disliked text[], options jsonb)
RETURNS TABLE (document_id uuid, external_id text, weight double precision)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    history CONSTANT jsonb := coalesce(nullif(options -> 'history', 'null'), '[]');
    on_missing CONSTANT text := coalesce(options ->> 'on_missing', 'raise');
    -- Below single precision next to the newest, and power() would underflow.
    most_half_lives CONSTANT integer := 60;
    half_life double precision;
    at double precision;
    wrong text;
    unknown text[];
BEGIN
    IF array_position(liked, NULL) IS NOT NULL OR array_position(disliked, NULL) IS NOT NULL THEN
        RAISE EXCEPTION '% holds NULL, but must hold ids of documents', CASE WHEN array_position(liked, NULL) IS NOT NULL
            THEN 'liked' ELSE 'disliked' END USING ERRCODE = 'PGS02';
    END IF;
    SELECT string_agg(quote_literal(u.id), ', ' ORDER BY u.id) INTO wrong
      FROM (SELECT DISTINCT l.id FROM unnest(liked) AS l (id) WHERE l.id = ANY (disliked) ORDER BY l.id LIMIT 5) AS u;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '% is both liked and disliked', wrong USING ERRCODE = 'PGS02', HINT = 'leave it out of one of them';
    END IF;
    IF on_missing NOT IN ('raise', 'ignore') THEN
        RAISE EXCEPTION 'on_missing is %, but must be ''raise'' or ''ignore''', quote_literal(on_missing) USING ERRCODE = 'PGS02';
    END IF;
    IF jsonb_typeof(history) <> 'array' THEN
        RAISE EXCEPTION 'history is %, but must be an array of objects', left(history::text, 200)
            USING ERRCODE = 'PGS02', HINT = '[{"id": "a", "at": "2026-01-31T10:00:00Z", "weight": 1}], say';
    END IF;
    IF options ->> 'half_life' IS NOT NULL THEN
        BEGIN
            half_life := CASE jsonb_typeof(options -> 'half_life') WHEN 'number' THEN (options ->> 'half_life')::double precision
                WHEN 'string' THEN extract(epoch FROM (options ->> 'half_life')::interval) ELSE 0 END;
        EXCEPTION WHEN data_exception THEN
            half_life := 0;
        END;
        IF NOT half_life > 0 OR half_life NOT BETWEEN 1e-6 AND 1e15 THEN
            RAISE EXCEPTION 'half_life is %, but must be a number of seconds above 0, or an interval such as "30 days"', options -> 'half_life'
                USING ERRCODE = 'PGS02';
        END IF;
    END IF;
    at := CASE WHEN options ->> 'now' IS NULL THEN extract(epoch FROM statement_timestamp()) ELSE pgseek.seconds(options -> 'now') END;
    IF at IS NULL THEN
        RAISE EXCEPTION 'now is %, but must be a date and time such as "2026-01-31T10:00:00Z", or seconds since 1970', options -> 'now'
            USING ERRCODE = 'PGS02';
    END IF;
    SELECT h.event::text INTO wrong FROM jsonb_array_elements(history) WITH ORDINALITY AS h (event, n)
     WHERE CASE WHEN jsonb_typeof(h.event) <> 'object' THEN true
           ELSE jsonb_typeof(h.event -> 'id') IS DISTINCT FROM 'string'
                OR h.event - '{id,at,weight}'::text[] <> '{}'
                OR CASE jsonb_typeof(coalesce(h.event -> 'weight', '1')) WHEN 'number'
                   THEN coalesce((h.event ->> 'weight')::numeric, 1) NOT BETWEEN -1e9 AND 1e9 ELSE true END
                OR h.event ->> 'at' IS NOT NULL AND pgseek.seconds(h.event -> 'at') IS NULL
                OR half_life IS NOT NULL AND h.event ->> 'at' IS NULL END
     ORDER BY h.n LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the event % of history cannot be read', left(wrong, 200) USING ERRCODE = 'PGS02',
            HINT = 'an event is {"id": text, "at": a date and time, "weight": number from -1e9 to 1e9}; "at" is needed with half_life, "weight" is 1 by default';
    END IF;
    SELECT array_agg(u.id ORDER BY u.id) INTO unknown
      FROM (SELECT l.id FROM unnest(liked) AS l (id) UNION SELECT l.id FROM unnest(disliked) AS l (id)
            UNION SELECT h.event ->> 'id' FROM jsonb_array_elements(history) AS h (event)) AS u
     WHERE NOT EXISTS (SELECT FROM pgseek.documents d
                        WHERE d.collection_id = of_collection.collection_id AND d.document_id = pgseek.document_id(u.id));
    IF unknown IS NOT NULL AND on_missing = 'raise' THEN
        RAISE EXCEPTION 'collection % has no document %', quote_literal(of_collection.name),
            (SELECT string_agg(quote_literal(left(u.id, 100)), ', ' ORDER BY u.id) FROM unnest(unknown[:5]) AS u (id))
            || CASE WHEN cardinality(unknown) > 5 THEN format(', nor %s more', cardinality(unknown) - 5) ELSE '' END
            USING ERRCODE = 'PGS02', HINT = 'to go on without them, say "on_missing": "ignore"';
    END IF;
    RETURN QUERY
    WITH said AS (
        SELECT l.id, 1::double precision AS weight, 0::double precision AS age FROM unnest(liked) AS l (id)
        UNION ALL SELECT l.id, -1, 0 FROM unnest(disliked) AS l (id)
        UNION ALL SELECT h.event ->> 'id', coalesce((h.event ->> 'weight')::double precision, 1),
               -- What is of the future is new.
               CASE WHEN half_life IS NULL THEN 0 ELSE least(1e30, greatest(0, at - pgseek.seconds(h.event -> 'at')) / half_life) END
          FROM jsonb_array_elements(history) AS h (event)),
    aged AS (
        SELECT s.*, s.age - min(s.age) OVER () AS half_lives FROM said s),
    summed AS (
        SELECT a.id, sum(CASE WHEN a.half_lives > most_half_lives THEN 0
                   ELSE a.weight * power(0.5::double precision, a.half_lives) END) AS weight
          FROM aged a GROUP BY a.id)
    SELECT d.document_id, d.external_id, s.weight
      FROM summed s
      JOIN pgseek.documents d ON d.collection_id = of_collection.collection_id AND d.document_id = pgseek.document_id(s.id);
END
$function$;
