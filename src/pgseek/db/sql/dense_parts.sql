-- Purpose:    the pieces of SQL with which a space's vectors are compared: its metric picks the operator, its
--             storage the type, its index what a walk through it is ordered by.
-- Arguments:  space    a row of embedding_spaces
--             vector   an expression of type vector: the query, '$2'
--             of_row   the alias of the space's table
--             candidates  rows wanted
--             rerank   rows to take from the index for each one wanted: they are compared again by distance, since
--                      the index knows a sketch of each vector. Default: the space's setting for 10 candidates,
--                      else 8 with a prefix, and with signs 32, 16 (from 1,024 numbers on) or 8 (from 2,048 on);
--                      fewer for each of more candidates, by the root of their number
-- Returns:    distance    the exact distance of a row, lower is nearer: cosine distance, the inner product with its
--                         sign turned, L2 or L1 distance
--             similarity  what format() makes of a distance: the score, higher is nearer. The cosine (-1..1), the
--                         inner product, or 1 / (1 + distance) (0..1)
--             walk        what the index is ordered by; the distance itself where the index holds whole vectors
--             rerank      as above; 1 where the index holds whole vectors
-- Volatility: immutable: it reads no table.
CREATE OR REPLACE FUNCTION pgseek.dense_parts(
    space pgseek.embedding_spaces, vector text DEFAULT '$2', of_row text DEFAULT 'e', candidates integer DEFAULT 10,
    INOUT rerank integer DEFAULT NULL, OUT distance text, OUT similarity text, OUT walk text)
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    operator CONSTANT text := CASE space.metric
        WHEN 'cosine' THEN '<=>' WHEN 'inner_product' THEN '<#>' WHEN 'l2' THEN '<->' ELSE '<+>' END;
    typed CONSTANT text := format('%s::@vector@.%s(%s)', vector, space.storage, space.dimensions);
    prefix CONSTANT integer := (space.indexing ->> 'prefix')::integer;
    usual integer;
BEGIN
    distance := format('%I.embedding OPERATOR(@vector@.%s) %s', of_row, operator, typed);
    similarity := CASE space.metric
        WHEN 'cosine' THEN '1 - (%s)' WHEN 'inner_product' THEN '0 - (%s)' ELSE '1 / (1 + (%s))' END;
    CASE space.indexing ->> 'form'
        WHEN 'binary' THEN
            walk := format('@vector@.binary_quantize(%1$I.embedding)::bit(%2$s)'
                ' OPERATOR(@vector@.<~>) @vector@.binary_quantize(%3$s)::bit(%2$s)', of_row, space.dimensions, typed);
            usual := CASE WHEN space.dimensions < 1024 THEN 32 WHEN space.dimensions < 2048 THEN 16 ELSE 8 END;
        WHEN 'prefix' THEN
            walk := format('@vector@.subvector(%1$I.embedding, 1, %2$s)::@vector@.%3$s(%2$s)'
                ' OPERATOR(@vector@.%4$s) @vector@.subvector(%5$s, 1, %2$s)::@vector@.%3$s(%2$s)',
                of_row, prefix, space.storage, operator, typed);
            usual := 8;
        ELSE
            walk := distance;
            rerank := 1;
    END CASE;
    rerank := coalesce(rerank, greatest(2, ceil(
        coalesce((space.searching ->> 'rerank')::integer, usual) / sqrt(greatest(candidates, 10) / 10.0)))::integer);
END
$function$;
