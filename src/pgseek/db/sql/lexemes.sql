-- Purpose:    the tsvector of a chunk; the expression of the generated column chunks.lexemes: its
--             words with positions, the collection's mark, and impact marks. An impact mark 'json c'
--             says that the BM25 weight of "json" in this row is at least the third edge, so that a
--             search finds the rows that can reach a score without reading all of a word's rows. No
--             parser emits a lexeme with a space, so no text can contain a mark.
-- Arguments:  collection_id  adds the collection's mark (a lexeme without position)
--             language       text-search configuration by name. The name is stored, not a regconfig:
--                            pg_upgrade refuses clusters with regconfig columns.
--             title, body    weighted A and B
--             weighting      {k1, b, average length, weight of the title, edge 1, edge 2, ...}, edges
--                            ascending. It is a column of the row, since a generated column sees
--                            nothing else; the mark is thus a property of the row that no later
--                            statistics can make wrong.
-- Volatility: immutable, as to_tsvector(regconfig, text) itself: it changes when somebody edits the
--             configuration, and then needs a rewrite of the chunks.
CREATE OR REPLACE FUNCTION pgseek.lexemes(
    collection_id integer, language text, title text, body text, weighting real[])
RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    words tsvector := setweight(to_tsvector(language::regconfig, title), 'A')
        || setweight(to_tsvector(language::regconfig, body), 'B');
    edges real[] := weighting[5:];
    marks text[];
BEGIN
    -- width_bucket(w, edges) is the number of edges at or below w. A lexeme of 2,046 bytes is the
    -- longest there is; one too long to carry a mark is never asked for by mark.
    SELECT array_agg(weighed.lexeme || ' ' || chr(96 + tier.number))
      INTO marks
      FROM (SELECT counted.lexeme,
                   width_bucket((counted.tf / (counted.tf + weighting[1] * (1 - weighting[2]
                       + weighting[2] * sum(counted.tf) OVER () / weighting[3])))::real, edges) AS tiers
              FROM (SELECT word.lexeme,
                           (cardinality(word.positions) + CASE WHEN weighting[4] = 1 THEN 0 ELSE (weighting[4] - 1)
                               * cardinality(array_positions(word.weights, 'A')) END)::double precision AS tf
                      FROM unnest(words) AS word) AS counted) AS weighed,
           generate_series(1, weighed.tiers) AS tier (number)
     WHERE weighed.tiers > 0 AND octet_length(weighed.lexeme) <= 2040;
    RETURN words || array_to_tsvector(pgseek.collection_mark(collection_id) || marks);
END
$function$;
