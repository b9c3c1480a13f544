-- Purpose:    refuse a vector that is not said to be of a space, or is said to be of another one: two models may
--             give as many numbers, and comparing them finds nothing that makes sense.
-- Arguments:  collection  its name, for messages
--             space_id    the space that the vector shall be compared with or stored in
--             given_space, model  what the caller says of the vector: a space's number; or provider:model, with
--                         @dimensions or without, or the identity that embedding_spaces holds, which says all of it.
--                         One of them must be given
-- Errors:     PGS05
-- Volatility: stable.
CREATE OR REPLACE FUNCTION pgseek.check_model(collection text, space_id integer, given_space integer, model text)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    space pgseek.embedding_spaces;
BEGIN
    IF given_space = space_id AND model IS NULL THEN
        RETURN;
    END IF;
    SELECT s.* INTO STRICT space FROM pgseek.embedding_spaces s WHERE s.space_id = space_id;
    IF given_space IS NULL AND model IS NULL THEN
        RAISE EXCEPTION 'a vector is given, but not of which model; collection % holds vectors of %',
            quote_literal(collection), pgseek.describe_space(space_id)
            USING ERRCODE = 'PGS05', HINT = format('say model => %L if that is the one that made it', space.provider || ':' || space.model);
    END IF;
    IF given_space <> space_id THEN
        RAISE EXCEPTION 'the vector is of %, but collection % now uses %',
            CASE WHEN model IS NULL OR EXISTS (SELECT FROM pgseek.embedding_spaces s
                      WHERE s.space_id = given_space AND s.collection_id = ANY (pgseek.tenant_collections()))
                 THEN pgseek.describe_space(given_space) ELSE format('%s (space %s, which is gone)', model, given_space) END, quote_literal(collection), pgseek.describe_space(space_id)
            USING ERRCODE = 'PGS05', HINT = 'open the collection again, or embed with the model that it uses';
    END IF;
    IF model NOT IN (space.provider || ':' || space.model, format('%s:%s@%s', space.provider, space.model, space.dimensions), space.identity) THEN
        RAISE EXCEPTION 'the vector is of %, but collection % uses %',
            coalesce((SELECT pgseek.describe_space(s.space_id) FROM pgseek.embedding_spaces s WHERE s.identity = model AND s.collection_id = ANY (pgseek.tenant_collections()) ORDER BY s.space_id LIMIT 1), model),
            quote_literal(collection), pgseek.describe_space(space_id)
            USING ERRCODE = 'PGS05', HINT = format('embed with %s:%s, or re-embed the collection: pgseek reembed', space.provider, space.model);
    END IF;
END
$function$;
