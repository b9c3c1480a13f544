-- Purpose:    the spaces of a collection that a writer of chunks writes vectors to, after a look at what the writer
--             brings: vectors of one space are never stored in another. It also keeps a switch of spaces, and a new
--             weighing of words, out until the transaction is over.
-- Arguments:  collection_id
--             space_ids     the spaces that the writer has vectors for
--             identities    the identity of what made them, each
--             names         what messages call that; default: as a space with that identity
-- Returns:    spaces that are not retired; "active" is the one that is searched.
-- Errors:     PGS05 a vector of another space
-- Ordering:   space_id.
-- Volatility: volatile: it locks a row.
CREATE OR REPLACE FUNCTION pgseek.live_spaces(
    collection_id integer, space_ids integer[] DEFAULT '{}', identities text[] DEFAULT '{}', names text[] DEFAULT '{}')
RETURNS TABLE (space_id integer, storage text, identity text, active boolean)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    wrong record;
BEGIN
    PERFORM FROM pgseek.collection_statistics s WHERE s.collection_id = live_spaces.collection_id FOR KEY SHARE;
    SELECT u.space_id, s.space_id AS found,
           coalesce(u.name, (SELECT pgseek.describe_space(o.space_id) FROM pgseek.embedding_spaces o
                              WHERE o.identity = u.identity ORDER BY o.space_id LIMIT 1), 'another embedder') AS given
      INTO wrong
      FROM unnest(space_ids, live_spaces.identities, live_spaces.names) AS u (space_id, identity, name)
      LEFT JOIN pgseek.embedding_spaces s
        ON s.space_id = u.space_id AND s.collection_id = live_spaces.collection_id
     WHERE s.identity IS DISTINCT FROM u.identity
     LIMIT 1;
    IF FOUND AND wrong.found IS NULL THEN
        RAISE EXCEPTION 'the vectors are of %, for space % of the collection, which it does not have', wrong.given, wrong.space_id
            USING ERRCODE = 'PGS05', HINT = 'open the collection again';
    ELSIF FOUND THEN
        RAISE EXCEPTION 'the vectors are of %, but space % of the collection holds those of %',
            wrong.given, wrong.space_id, pgseek.describe_space(wrong.space_id)
            USING ERRCODE = 'PGS05', HINT = 'embed with the model of the space, or re-embed the collection: pgseek reembed';
    END IF;
    RETURN QUERY
    SELECT s.space_id, s.storage, s.identity, s.space_id = c.active_space_id
      FROM pgseek.embedding_spaces s JOIN pgseek.collections c ON c.collection_id = s.collection_id
     WHERE s.collection_id = live_spaces.collection_id AND s.state <> 'retired'
     ORDER BY s.space_id;
END
$function$;
