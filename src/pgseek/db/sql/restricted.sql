-- Purpose:    what rows that are no chunks are held to, where a query says what hits must have: a question or a summary
--             counts only if its chunk has it, too, and a whole document has no words to test.
-- Arguments:  of_collection  a row of collections
--             restriction    an expression of type tsquery: a parameter's place
-- Returns:    SQL that continues a WHERE over chunks c, with the collection's number as $1; empty where there are only chunks
-- Volatility: immutable: it reads no table.
CREATE OR REPLACE FUNCTION pgseek.restricted(of_collection pgseek.collections, restriction text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN CASE WHEN coalesce(of_collection.settings ->> 'questions', '0') <> '0'
            OR coalesce((of_collection.settings ->> 'summaries')::boolean, false)
        THEN format(' AND (c.of_ordinal IS NULL OR EXISTS (SELECT FROM pgseek.chunks o WHERE o.collection_id = $1'
            ' AND o.document_id = c.document_id AND o.ordinal = c.of_ordinal AND o.lexemes @@ %s))', restriction) ELSE '' END
        || CASE WHEN coalesce((of_collection.settings ->> 'document_vectors')::boolean, false)
        THEN ' AND c.kind <> ''document''' ELSE '' END;
END
$function$;
