-- Purpose:    store one document from SQL. Its words are searchable in the same transaction; its
--             embedding follows when a worker or a drain takes it from the queue. Many documents at once are
--             put_documents().
-- Arguments:  collection, external_id
--             body      the text, not blank
--             title     weighted above the body
--             metadata  a JSON object
--             format    what the body is written in: '' is plain text, 'markdown', 'pages' (form feeds between
--                       pages), or a programming language such as 'python'
--             language  text-search configuration; default: the collection's. Languages written without
--                       spaces are read as 'simple', where the server has no parser of their own
-- Returns:    'new', 'changed', 'metadata_changed' or 'unchanged'
-- Errors:     PGS01 no such collection, PGS02 argument out of range; for the limits see document_problem()
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile. Index: primary keys.
CREATE OR REPLACE FUNCTION pgseek.put_document(
    collection text,
    external_id text,
    body text,
    title text DEFAULT '',
    metadata jsonb DEFAULT '{}',
    language text DEFAULT NULL,
    format text DEFAULT '')
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    result record;
BEGIN
    PERFORM pgseek.require_collection(collection);
    IF external_id IS NULL OR external_id = '' THEN
        RAISE EXCEPTION 'the external id is empty' USING ERRCODE = 'PGS02';
    END IF;
    IF metadata IS NULL THEN
        RAISE EXCEPTION 'the metadata of document % is NULL, but must be a JSON object', quote_literal(external_id)
            USING ERRCODE = 'PGS02';
    END IF;
    SELECT p.outcome, p.reason INTO STRICT result
      FROM pgseek.put_documents(collection, jsonb_build_array(jsonb_build_object('id', external_id, 'text', body,
               'title', title, 'metadata', metadata, 'language', language, 'format', format))) AS p;
    IF result.reason ~ '^language ' THEN
        RAISE EXCEPTION 'document % is refused: %', quote_literal(external_id), result.reason
            USING ERRCODE = 'PGS02', HINT = 'SELECT cfgname FROM pg_ts_config lists them';
    ELSIF result.outcome = 'rejected' THEN
        RAISE EXCEPTION 'document % %', quote_literal(external_id),
            CASE WHEN result.reason ~ '^the document ' THEN substr(result.reason, 14) ELSE 'is refused: ' || result.reason END
            USING ERRCODE = 'PGS02';
    END IF;
    RETURN result.outcome;
END
$function$;
