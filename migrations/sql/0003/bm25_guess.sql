-- Purpose:    a guess at the n-th best score, from frequencies alone: how many chunks hold words of a given
--             total weight if words met by chance, and how heavy words are in chunks that hold several (a chunk
--             with many words of a query is a long one, where each weighs little). A wrong guess costs time,
--             never a row.
-- Arguments:  n                how many rows
--             weights, counts  per lexeme of the query: its weight, and chunks with it
--             total            chunks of the collection
--             bounds, shares   see bm25_candidates()
--             k1, b            BM25's constants
-- Returns:    the guess; 0 if fewer rows than n are to be expected
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.bm25_guess(
    n double precision, weights double precision[], counts double precision[], total double precision,
    bounds double precision[], shares double precision[], k1 double precision, b double precision)
RETURNS double precision
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    cells CONSTANT integer := 32;
    steps CONSTANT integer := 50;
    top CONSTANT integer := cardinality(bounds);
    m CONSTANT integer := cardinality(weights);
    -- How much likelier a second word is where there is one.
    affinity CONSTANT double precision := 2;
    likely double precision[] := array_fill(0::double precision, ARRAY[cells + 1]);
    -- Of chunks with 1, 2, 3, 4 of the words: the share whose words reach each level.
    reach double precision[] := array_fill(0::double precision, ARRAY[4 * top]);
    share double precision;
    lower double precision;
    length double precision;
    width double precision := 0;
    mean double precision;
    need double precision;
    weight double precision;
    rows double precision;
    level integer;
    shift integer;
BEGIN
    FOR words IN 0 .. 3 LOOP
        share := 0;
        FOR l IN REVERSE top .. 1 LOOP
            -- The length, over the average, at which a word that occurs once has the middle weight of the level.
            lower := CASE WHEN l = 1 THEN 0.2 ELSE bounds[l - 1] END;
            length := greatest(0.02, ((2 / (lower + bounds[l]) - 1) / greatest(k1, 0.1) - (1 - b)) / greatest(b, 0.1));
            share := share + greatest(0, shares[l] - CASE WHEN l < top THEN shares[l + 1] ELSE 0 END) * length ^ words;
            reach[words * top + l] := share;
        END LOOP;
        FOR l IN 1 .. top LOOP
            reach[words * top + l] := reach[words * top + l] / greatest(share, 1e-9);
        END LOOP;
    END LOOP;
    FOR i IN 1 .. m LOOP
        width := width + weights[i];
    END LOOP;
    mean := width / m;
    width := width / cells;
    likely[1] := total;
    FOR i IN 1 .. m LOOP
        shift := greatest(1, round(weights[i] / width));
        share := counts[i] / total;
        FOR cell IN REVERSE cells + 1 .. 1 + shift LOOP
            likely[cell] := likely[cell] + likely[cell - shift] * share * CASE WHEN cell - shift = 1 THEN 1 ELSE affinity END;
        END LOOP;
    END LOOP;
    FOR step IN REVERSE steps .. 1 LOOP
        need := width * cells * 0.85 * step / steps;
        rows := 0;
        FOR cell IN REVERSE cells + 1 .. 2 LOOP
            weight := need / ((cell - 1) * width);
            EXIT WHEN weight > 0.85;
            CONTINUE WHEN likely[cell] < 0.1;
            level := 1;
            WHILE level < top AND bounds[level] <= weight LOOP
                level := level + 1;
            END LOOP;
            lower := CASE WHEN level = 1 THEN 0.2 ELSE bounds[level - 1] END;
            shift := top * (least(4, greatest(1, round((cell - 1) * width / mean)))::integer - 1) + level;
            share := reach[shift];
            rows := rows + likely[cell] * (share + (CASE WHEN level < top THEN reach[shift + 1] ELSE 0 END - share)
                * greatest(0, weight - lower) / (bounds[level] - lower));
            EXIT WHEN rows >= n;
        END LOOP;
        IF rows >= n THEN
            RETURN need;
        END IF;
    END LOOP;
    RETURN 0;
END
$function$;
