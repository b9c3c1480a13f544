-- Purpose:    an embedding space as messages name it: provider:model@dimensions; its revision, metric, prompts and that
--             its vectors are not of unit length, where these are not the usual ones; and its number.
-- Arguments:  space_id  of the session's tenant; of others it tells nothing
-- Volatility: stable.
CREATE OR REPLACE FUNCTION pgseek.describe_space(space_id integer)
RETURNS text
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    described text;
BEGIN
    SELECT format('%s:%s@%s%s%s%s%s%s (space %s)', s.provider, s.model, s.dimensions,
               CASE WHEN s.revision <> '' THEN format(' of revision %L', s.revision) ELSE '' END,
               CASE WHEN s.metric <> 'cosine' THEN format(' by %s', s.metric) ELSE '' END,
               CASE WHEN s.prompts ->> 'query' <> '' THEN format(', query prompt %L', s.prompts ->> 'query') ELSE '' END,
               CASE WHEN s.prompts ->> 'document' <> '' THEN format(', document prompt %L', s.prompts ->> 'document') ELSE '' END,
               CASE WHEN NOT s.normalized THEN ', not of unit length' ELSE '' END,
               s.space_id)
      INTO described
      FROM pgseek.embedding_spaces s
     WHERE s.space_id = describe_space.space_id AND s.collection_id = ANY (pgseek.tenant_collections());
    RETURN coalesce(described, format('space %s, which is not there', space_id));
END
$function$;
