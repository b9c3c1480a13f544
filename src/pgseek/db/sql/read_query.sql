-- Purpose:    what a query asks for in one collection: its words with their weights, and what hits must match.
-- Arguments:  of_collection  a row of collections
--             query, syntax, typos  see parse_query()
-- Returns:    a query_terms: lexemes (all that the query has), restriction and required as parse_query() gives them;
--             known, dimensions, weights, counts as bm25_terms() does, heaviest first, and the origins of known.
-- Errors:     PGS02 see parse_query()
-- Volatility: stable. Index: those of parse_query() and bm25_terms().
CREATE OR REPLACE FUNCTION pgseek.read_query(
    of_collection pgseek.collections, query text, syntax text DEFAULT 'web', typos boolean DEFAULT true)
RETURNS pgseek.query_terms
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    terms pgseek.query_terms;
    parsed record;
    found record;
BEGIN
    SELECT p.* INTO parsed
      FROM pgseek.parse_query(of_collection.collection_id, of_collection.languages, query, syntax, typos) p;
    SELECT t.* INTO found FROM pgseek.bm25_terms(of_collection.collection_id, parsed.lexemes, parsed.frequencies) t;
    terms.lexemes := parsed.lexemes;
    terms.restriction := parsed.restriction;
    terms.required := parsed.required;
    terms.known := found.known;
    terms.dimensions := found.dimensions;
    terms.weights := found.weights;
    terms.counts := found.counts;
    SELECT array_agg(parsed.origins[array_position(parsed.lexemes, u.lexeme)] ORDER BY u.place)
      INTO terms.origins FROM unnest(found.known) WITH ORDINALITY AS u (lexeme, place);
    RETURN terms;
END
$function$;
