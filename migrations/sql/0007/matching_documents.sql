-- Purpose:    the documents that a filter keeps, if they are so few that all of them can be compared.
-- Arguments:  collection_id
--             filter         jsonpath predicate over metadata
--             most           how many are few
-- Returns:    their ids; NULL if there are more of them. A sample of the collection may decide that there are.
-- Ordering:   none.
-- Volatility: stable: it sets a setting and puts it back. Index: the indexes of metadata fields; for equality
--             documents_metadata_idx (GIN). Where none answers, the documents of the collection are read until there
--             are more than "most".
CREATE OR REPLACE FUNCTION pgseek.matching_documents(collection_id integer, filter jsonpath, most integer DEFAULT 10000)
RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $function$
#variable_conflict use_variable
DECLARE
    sample CONSTANT integer := 300;
    chunks CONSTANT bigint := coalesce(
        (SELECT s.chunks FROM pgseek.collection_statistics s WHERE s.collection_id = collection_id), 0);
    conditions CONSTANT text := pgseek.filter_conditions(collection_id, filter, 'd');
    workers CONSTANT text := current_setting('max_parallel_workers_per_gather');
    matching integer;
    found uuid[];
BEGIN
    IF chunks > 3 * most THEN
        -- Ids are hashes: the first ones are as good a sample as any.
        SELECT count(*) INTO matching FROM (
            SELECT d.metadata FROM pgseek.documents d
             WHERE d.collection_id = collection_id ORDER BY d.document_id LIMIT sample) AS s
         WHERE s.metadata @@ filter;
        IF matching * (chunks / sample) > 1.5 * most THEN
            RETURN NULL;
        END IF;
    END IF;
    IF conditions <> '' THEN
        -- To start workers takes longer than what an index leaves to do.
        PERFORM set_config('max_parallel_workers_per_gather', '0', true);
    END IF;
    EXECUTE format('SELECT array_agg(few.document_id) FROM (SELECT d.document_id FROM pgseek.documents d'
        ' WHERE d.collection_id = $1 AND d.metadata @@ $2%s LIMIT $3) AS few', conditions)
    INTO found USING collection_id, filter, most + 1;
    IF conditions <> '' THEN
        PERFORM set_config('max_parallel_workers_per_gather', workers, true);
    END IF;
    RETURN CASE WHEN found IS NULL THEN '{}' WHEN cardinality(found) <= most THEN found END;
END
$function$;
