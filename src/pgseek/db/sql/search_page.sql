-- Purpose:    a search in pages over one frozen ranking: documents written meanwhile neither move hits between pages nor
--             come twice. Nothing is kept on the server: the cursor holds what is still to be shown.
-- Arguments:  collection, query, query_embedding, space_id, model  see search()
--             size     hits of a page, 1..1,000
--             cursor   NULL: the ranking is made, and its first page shown; else next_cursor of the page before, with the same
--                      collection, query and options
--             options  see read_options(); k is how many hits are ranked and frozen, 100 by default, at most 2,000
-- Returns:    as search(), with next_cursor, NULL on the last page, and total, the hits that were frozen. Deleted documents,
--             and those that the filter no longer keeps, are left out; a page that has none left is passed over.
-- Ordering:   that of the frozen ranking. Texts and metadata are as they are now, scores as they were.
-- Errors:     as search(); PGS02 a cursor that cannot be read, or of another search
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile, as search(). It writes nothing and runs on a read-only standby.
CREATE OR REPLACE FUNCTION pgseek.search_page(
    collection text, query text, size integer DEFAULT 10, cursor text DEFAULT NULL,
    query_embedding @vector@.vector DEFAULT NULL, options jsonb DEFAULT '{}', space_id integer DEFAULT NULL, model text DEFAULT NULL)
RETURNS TABLE (
    rank integer,
    external_id text,
    ordinal integer,
    score double precision,
    dense_score double precision,
    dense_rank integer,
    dense_contribution double precision,
    lexical_score double precision,
    lexical_rank integer,
    lexical_contribution double precision,
    matched jsonb,
    title text,
    text text,
    snippet text,
    metadata jsonb,
    char_start integer,
    char_end integer,
    document_id uuid,
    degraded text,
    kind text,
    provenance jsonb,
    section text,
    matched_text text,
    dense_distance double precision,
    boost double precision,
    relevance double precision,
    duplicates text[],
    other_passages jsonb,
    context text,
    next_cursor text,
    total integer)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    of_collection CONSTANT pgseek.collections := pgseek.require_collection(collection);
    -- Passages are of the other candidates, which are not kept.
    complete CONSTANT jsonb := pgseek.read_options(of_collection,
        CASE jsonb_typeof(options) WHEN 'object' THEN '{"k": 100}' || options ELSE options END);
    -- What the ranking depends on; which texts are shown with it may change from page to page.
    asked CONSTANT text := md5(jsonb_build_array(of_collection.collection_id, query,
        complete - '{snippets,highlight,neighbours,budget}'::text[])::text);
    frozen jsonb;
    ranking record;
    terms pgseek.query_terms;
    hits pgseek.candidate[];
    page pgseek.candidate[];
    note text;
    next text;
    shown boolean := false;
BEGIN
    IF size IS NULL OR size NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'size is %, but must be from 1 to 1000', coalesce(size::text, 'NULL') USING ERRCODE = 'PGS02';
    ELSIF (complete ->> 'k')::integer > 2000 THEN
        RAISE EXCEPTION 'k is %, but a cursor holds at most 2000 hits', complete ->> 'k' USING ERRCODE = 'PGS02';
    ELSIF (complete ->> 'passages')::integer > 0 THEN
        RAISE EXCEPTION 'passages is %, but pages do not keep the other candidates', complete ->> 'passages'
            USING ERRCODE = 'PGS02', HINT = 'leave it out, or use search(); neighbours is possible';
    END IF;
    IF cursor IS NULL THEN
        ranking := pgseek.rank(of_collection, query, query_embedding, complete, (complete ->> 'k')::integer, space_id, model);
        hits := ranking.hits;
        terms := ranking.terms;
        note := ranking.degraded;
        total := coalesce(cardinality(hits), 0);
    ELSE
        BEGIN
            frozen := convert_from(decode(cursor, 'base64'), 'UTF8')::jsonb;
            SELECT array_agg(ROW((r ->> 0)::uuid, (r ->> 1)::integer, (r ->> 2)::bigint, (r ->> 3)::float8, (r ->> 4)::float8, (r ->> 5)::float8,
                       (r ->> 6)::bigint, (r ->> 7)::float8, (r ->> 8)::float8, (r ->> 9)::bigint, (r ->> 10)::float8, (r ->> 11)::float8,
                       CASE WHEN r -> 12 <> 'null' THEN (SELECT array_agg(d::uuid) FROM jsonb_array_elements_text(r -> 12) AS d) END
                       )::pgseek.candidate ORDER BY n)
              INTO hits FROM jsonb_array_elements(frozen -> 'hits') WITH ORDINALITY AS h (r, n);
            total := frozen ->> 'total';
        EXCEPTION WHEN data_exception OR invalid_text_representation OR character_not_in_repertoire THEN
            hits := NULL;
        END;
        IF hits IS NULL OR total IS NULL OR frozen ->> 'asked' IS NULL THEN
            RAISE EXCEPTION 'the cursor cannot be read' USING ERRCODE = 'PGS02', HINT = 'give next_cursor of the page before as it was returned';
        ELSIF frozen ->> 'asked' <> asked THEN
            RAISE EXCEPTION 'the cursor is of another search' USING ERRCODE = 'PGS02',
                HINT = 'collection, query and options must be those of the first page';
        END IF;
        note := frozen ->> 'note';
        terms := pgseek.read_query(of_collection, query, complete ->> 'syntax', (complete ->> 'typos')::boolean);
    END IF;
    WHILE NOT shown AND cardinality(hits) > 0 LOOP
        page := hits[:size];
        hits := hits[size + 1:];
        next := CASE WHEN cardinality(hits) > 0 THEN translate(encode(convert_to(jsonb_build_object(
            'asked', asked, 'total', total, 'note', note, 'hits', (
                SELECT jsonb_agg(jsonb_build_array(h.document_id, h.ordinal, h.place, h.score::real, h.dense_score::real, h.dense_distance::real,
                           h.dense_rank, h.dense_part::real, h.lexical_score::real, h.lexical_rank, h.lexical_part::real, h.boost::real,
                           h.duplicates) ORDER BY h.place)
                  FROM unnest(hits) AS h))::text, 'UTF8'), 'base64'), E'\n', '') END;
        RETURN QUERY SELECT s.*, next, total
          FROM pgseek.show(of_collection, page, NULL, terms, complete, note, (complete ->> 'filter')::jsonpath) AS s;
        shown := FOUND;
    END LOOP;
END
$function$;
