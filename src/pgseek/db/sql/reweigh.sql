-- Purpose:    set a collection's BM25 constants, measure its average length and weigh its chunks anew; their
--             texts are not read again. Searches go on with the old weights until it commits; writers of the
--             collection wait. For an empty collection it only sets the constants.
-- Arguments:  collection  name
--             k1            how much a repeated word counts, 0..100
--             b             how much longer texts are held back, 0..1
--             title_weight  what a word of the title counts for, 1..100. NULL keeps what is set, of each
-- Returns:    chunks weighed anew
-- Errors:     PGS01 no such collection, PGS02 a constant out of range
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile. Index: chunks_pkey.
CREATE OR REPLACE FUNCTION pgseek.reweigh(
    collection text, k1 real DEFAULT NULL, b real DEFAULT NULL, title_weight real DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    id CONSTANT integer := (pgseek.require_collection(collection)).collection_id;
    old real[];
    new real[];
    changed bigint := 0;
    bound record;
BEGIN
    FOR bound IN SELECT * FROM (VALUES ('k1', k1, 0, 100), ('b', b, 0, 1), ('title_weight', title_weight, 1, 100))
        AS v (name, given, least, most)
    LOOP
        IF NOT bound.given BETWEEN bound.least AND bound.most THEN
            RAISE EXCEPTION '% is %, but must lie in %..%', bound.name, bound.given, bound.least, bound.most USING ERRCODE = 'PGS02';
        END IF;
    END LOOP;
    -- FOR UPDATE waits for writers, which hold FOR KEY SHARE while they use the old weighting.
    SELECT s.weighting INTO STRICT old FROM pgseek.collection_statistics s WHERE s.collection_id = id FOR UPDATE;
    new := ARRAY[coalesce(k1, old[1]), coalesce(b, old[2]), old[3], coalesce(title_weight, old[4])];
    UPDATE pgseek.collection_statistics s SET weighting = new WHERE s.collection_id = id;
    PERFORM pgseek.refresh_statistics(collection);
    new[3] := coalesce((SELECT s.average_length FROM pgseek.collection_statistics s WHERE s.collection_id = id), new[3]);
    IF new <> old THEN
        UPDATE pgseek.chunks c SET terms = pgseek.weigh(c.lexemes, new)
         WHERE c.collection_id = id AND c.kind <> 'document';
        GET DIAGNOSTICS changed = ROW_COUNT;
        UPDATE pgseek.collection_statistics s SET weighting = new, shares = coalesce(pgseek.bm25_shares(id), s.shares)
         WHERE s.collection_id = id;
    END IF;
    RETURN changed;
END
$function$;
