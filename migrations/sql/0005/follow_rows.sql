-- Purpose:    what the triggers and the back-fill of an attached table (pgseek attach) do with documents: store
--             them in bulk, and delete those that are gone. A document that is refused is deleted and told in a
--             warning, never an error: the statement on the table goes on.
-- Arguments:  collection
--             documents  an open cursor over one column of JSON objects as put_documents() takes them; closed in
--                        the end. Those without an id are passed over, those without text deleted. Ordered by
--                        document_id, so that two statements lock in one order; NULL: none
--             gone       ids of documents to delete; NULL: none
-- Errors:     PGS01 no such collection
-- Volatility: volatile. Index: primary keys.
CREATE OR REPLACE FUNCTION pgseek.follow_rows(collection text, documents refcursor, gone text[])
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    batch_documents CONSTANT integer := 500;
    batch_bytes CONSTANT integer := 4000000;
    batch jsonb[] := '{}';
    bytes integer := 0;
    document jsonb;
    more boolean := documents IS NOT NULL;
    refused text[];
    reason text;
BEGIN
    WHILE more LOOP
        FETCH documents INTO document;
        more := FOUND;
        IF more THEN
            CONTINUE WHEN document ->> 'id' IS NULL;
            IF coalesce(document ->> 'text', '') !~ '\S' THEN
                gone := array_append(gone, document ->> 'id');
                CONTINUE;
            END IF;
            batch := array_append(batch, document);
            bytes := bytes + octet_length(document ->> 'text');
            CONTINUE WHEN cardinality(batch) < batch_documents AND bytes < batch_bytes;
        END IF;
        IF cardinality(batch) > 0 THEN
            SELECT array_agg(p.external_id), min(format('%s: %s', p.external_id, p.reason))
              INTO refused, reason
              FROM pgseek.put_documents(collection, to_jsonb(batch)) AS p WHERE p.outcome = 'rejected';
            IF refused IS NOT NULL THEN
                RAISE WARNING 'pgseek: % rows are not in collection %, such as %', cardinality(refused), collection, reason;
                gone := gone || refused;
            END IF;
            batch := '{}';
            bytes := 0;
        END IF;
    END LOOP;
    IF documents IS NOT NULL THEN
        CLOSE documents;
    END IF;
    IF cardinality(gone) > 0 THEN
        PERFORM pgseek.delete_documents(collection, gone);
    END IF;
END
$function$;
