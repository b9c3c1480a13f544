-- Purpose:    one vector for several: of a query said in several ways, of examples, of a question and a made-up answer.
--             Its cosine with a document's vector is the weighted mean of theirs, up to a factor, so a search by it is
--             the sum fusion of a search by each.
-- Arguments:  embeddings  one or more of one dimension
--             weights     one for each; negative ones keep away. NULL: all the same
-- Returns:    the weighted sum of the unit vectors, divided by the weights' absolute sum
-- Errors:     PGS02 no vector, a zero one, other dimensions, another number of weights, or vectors that cancel each other
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.mean_embedding(embeddings @vector@.vector[], weights real[] DEFAULT NULL)
RETURNS @vector@.vector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    n CONSTANT integer := coalesce(cardinality(embeddings), 0);
    total CONSTANT real := (SELECT nullif(sum(abs(w)), 0) FROM unnest(weights) AS w);
    mean @vector@.vector;
    one @vector@.vector;
BEGIN
    IF n = 0 OR array_position(embeddings, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'embeddings is %, but must be one vector or more', CASE WHEN n = 0 THEN 'empty' ELSE 'partly NULL' END USING ERRCODE = 'PGS02';
    ELSIF weights IS NOT NULL AND (cardinality(weights) <> n OR array_position(weights, NULL) IS NOT NULL
        OR total IS NULL OR total > 3e38) THEN
        RAISE EXCEPTION 'weights is %, but must be as many finite numbers as vectors (%), not all zero', weights, n USING ERRCODE = 'PGS02';
    END IF;
    FOR i IN 1..n LOOP
        IF @vector@.vector_dims(embeddings[i]) <> @vector@.vector_dims(embeddings[1]) THEN
            RAISE EXCEPTION 'vector % has % dimensions, but the first has %', i, @vector@.vector_dims(embeddings[i]),
                @vector@.vector_dims(embeddings[1]) USING ERRCODE = 'PGS02';
        ELSIF @vector@.vector_norm(embeddings[i]) = 0 THEN
            RAISE EXCEPTION 'vector % is zero and has no direction', i USING ERRCODE = 'PGS02';
        END IF;
        one := array_fill(coalesce(weights[i] / total, (1.0 / n)::real), ARRAY[@vector@.vector_dims(embeddings[i])])::@vector@.vector
            OPERATOR(@vector@.*) @vector@.l2_normalize(embeddings[i]);
        mean := CASE WHEN mean IS NULL THEN one ELSE mean OPERATOR(@vector@.+) one END;
    END LOOP;
    IF @vector@.vector_norm(mean) < 1e-6 THEN
        RAISE EXCEPTION 'the vectors cancel each other' USING ERRCODE = 'PGS02', HINT = 'give them other weights';
    END IF;
    RETURN mean;
END
$function$;
