-- Purpose:    the hits of a ranking, with what a reader needs of them.
-- Arguments:  of_collection  a row of collections
--             hits, fused, terms  see rank(); note is its degraded
--             options        see read_options()
--             recheck        a filter that the documents must meet now; NULL for none
-- Returns:    see search(). relevance is 1 / (1 + exp(-(bias + dense * dense_score + lexical * share))), with the
--             space's calibration, where share is the lexical score over the most that the query's words could
--             bring; NULL without a calibration.
-- Ordering:   place.
-- Volatility: stable. Index: primary keys of chunks and documents.
CREATE OR REPLACE FUNCTION pgseek.show(
    of_collection pgseek.collections, hits pgseek.candidate[], fused pgseek.candidate[], terms pgseek.query_terms, options jsonb,
    note text, recheck jsonpath DEFAULT NULL)
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
    context text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_variable
DECLARE
    of CONSTANT integer := of_collection.collection_id;
    with_weights CONSTANT boolean := options ->> 'lexical' = 'bm25';
    with_snippet CONSTANT boolean := options ->> 'snippets';
    highlight CONSTANT text[] := ARRAY[options -> 'highlight' ->> 0, options -> 'highlight' ->> 1];
    passages CONSTANT integer := options ->> 'passages';
    neighbours CONSTANT integer := options ->> 'neighbours';
    calibration CONSTANT jsonb := CASE WHEN with_weights AND coalesce((options ->> 'calibrated')::boolean, true) THEN (
        SELECT s.searching -> 'calibration' FROM pgseek.embedding_spaces s
         WHERE s.space_id = coalesce((options ->> 'space')::integer, of_collection.active_space_id)
           -- A cursor is the caller's: its search may name any space.
           AND s.collection_id = of) END;
    most CONSTANT double precision := (SELECT nullif(sum(u.weight), 0) FROM unnest(terms.weights) AS u (weight));
    -- Per lexeme, the vector that asks for it alone.
    alone CONSTANT @vector@.sparsevec[] := (
        SELECT array_agg(pgseek.bm25_query(ARRAY[u.dimension], ARRAY[u.weight]) ORDER BY u.n)
          FROM unnest(terms.dimensions, terms.weights) WITH ORDINALITY AS u (dimension, weight, n));
BEGIN
    RETURN QUERY
    SELECT p.place::integer, d.external_id, coalesce(c.of_ordinal, p.ordinal), p.score,
           p.dense_score, p.dense_rank::integer, p.dense_part, p.lexical_score, p.lexical_rank::integer, p.lexical_part,
           coalesce(why.matched, '[]'),
           d.title, shown.text,
           CASE WHEN with_snippet THEN pgseek.snippet(c.language, shown.text, coalesce(why.lexemes, '{}'), highlight) END,
           d.metadata, c.char_start, c.char_end, p.document_id, note, c.kind, c.provenance,
           CASE WHEN c.section_start IS NOT NULL THEN substr(d.body, c.section_start + 1, c.section_end - c.section_start) END,
           CASE WHEN c.of_ordinal IS NOT NULL THEN c.text END,
           p.dense_distance, p.boost,
           -- Beyond 700 exp() would overflow.
           CASE WHEN calibration IS NOT NULL THEN 1 / (1 + exp(least(700, greatest(-700, -(
               (calibration ->> 'bias')::float8 + (calibration ->> 'dense')::float8 * coalesce(p.dense_score, 0)
               + (calibration ->> 'lexical')::float8 * coalesce(p.lexical_score / most, 0)))))) END,
           CASE WHEN p.duplicates IS NULL THEN '{}' ELSE (
               SELECT array_agg(same.external_id ORDER BY same.external_id) FROM pgseek.documents same
                WHERE same.collection_id = of AND same.document_id = ANY (p.duplicates)) END,
           CASE WHEN passages = 0 THEN '[]' ELSE (
               SELECT coalesce(jsonb_agg(jsonb_build_object('ordinal', m.ordinal, 'text', m.text, 'score', m.score,
                   'char_start', m.char_start, 'char_end', m.char_end) ORDER BY m.place), '[]')
                 FROM (SELECT best.* FROM (
                           SELECT DISTINCT ON (b.ordinal) b.ordinal, b.text, b.char_start, b.char_end, f.score, f.place
                             FROM unnest(fused) AS f
                             JOIN pgseek.chunks a ON a.collection_id = of AND a.document_id = f.document_id AND a.ordinal = f.ordinal
                             JOIN pgseek.chunks b ON b.collection_id = of AND b.document_id = f.document_id
                                                 AND b.ordinal = coalesce(a.of_ordinal, a.ordinal)
                            WHERE f.document_id = p.document_id AND b.kind = 'chunk'
                              AND b.ordinal <> coalesce(c.of_ordinal, p.ordinal)
                            ORDER BY b.ordinal, f.place) AS best
                        ORDER BY best.place LIMIT passages) AS m) END,
           CASE WHEN neighbours > 0 THEN (
               SELECT substr(d.body, min(n.char_start) + 1, max(n.char_end) - min(n.char_start)) FROM pgseek.chunks n
                WHERE n.collection_id = of AND n.document_id = p.document_id AND n.kind = 'chunk'
                  AND n.ordinal BETWEEN coalesce(c.of_ordinal, p.ordinal) - neighbours
                                    AND coalesce(c.of_ordinal, p.ordinal) + neighbours) END
      FROM unnest(hits) AS p
      JOIN pgseek.chunks c ON c.collection_id = of AND c.document_id = p.document_id AND c.ordinal = p.ordinal
      JOIN pgseek.documents d ON d.collection_id = of AND d.document_id = p.document_id
      LEFT JOIN pgseek.chunks o ON o.collection_id = of AND o.document_id = p.document_id AND o.ordinal = c.of_ordinal
      CROSS JOIN LATERAL (SELECT CASE c.kind WHEN 'document' THEN left(d.body, 2000) ELSE coalesce(o.text, c.text) END AS text) AS shown
      -- Why a hit was found, heaviest lexeme first.
      LEFT JOIN LATERAL (
          SELECT jsonb_agg(jsonb_build_object('lexeme', m.lexeme, 'weight', m.weight::real)
                     || CASE WHEN m.origin IS NULL THEN '{}' ELSE jsonb_build_object('origin', m.origin) END
                     ORDER BY m.weight DESC, m.lexeme) AS matched,
                 array_agg(m.lexeme) AS lexemes
            FROM (SELECT u.lexeme, u.origin,
                         CASE WHEN with_weights THEN 0 - (c.terms OPERATOR(@vector@.<#>) u.alone) END AS weight
                    FROM unnest(terms.known, alone, terms.origins) AS u (lexeme, alone, origin)
                   WHERE CASE WHEN with_weights THEN c.terms OPERATOR(@vector@.<#>) u.alone < 0
                         ELSE u.lexeme = ANY (tsvector_to_array(c.lexemes)) END) AS m) AS why ON true
     WHERE recheck IS NULL OR d.metadata @@ recheck
     ORDER BY p.place;
END
$function$;
