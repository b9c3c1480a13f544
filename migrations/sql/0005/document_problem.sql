-- Purpose:    what keeps a document from being stored, as far as the document alone can tell. The Python side
--             has the same limits.
-- Arguments:  document  a JSON object with id (or _id), text, and optionally title, metadata, language, format
-- Returns:    the reason, NULL if there is none. An id is text or a whole number, metadata an object of at most
--             256 KiB as text and four levels (an object is one); text has at most 8,000,000 bytes and no
--             word (a run of printable ASCII) of 50,000 characters, the title at most 10,000 characters.
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.document_problem(document jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    fields CONSTANT text[] := '{id,text,title,metadata,language,format}';
    max_text_bytes CONSTANT integer := 8000000;
    max_title CONSTANT integer := 10000;
    max_metadata_bytes CONSTANT integer := 262144;
    max_word CONSTANT integer := 50000;
    -- What Python's str.strip() takes for white space.
    white CONSTANT text := E' \t\n\x0b\f\r\x1c\x1d\x1e\x1f\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006'
        '\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000';
    id jsonb;
    body text;
    metadata jsonb;
    wrong text;
BEGIN
    IF document IS NULL OR jsonb_typeof(document) <> 'object' THEN
        RETURN format('a document is an object, not a JSON %s', coalesce(jsonb_typeof(document), 'null'));
    END IF;
    SELECT min(key COLLATE "C") INTO wrong FROM jsonb_object_keys(document) AS key
     WHERE NOT key = ANY (fields) AND key <> '_id';
    IF wrong IS NOT NULL THEN
        RETURN format('the key %L is none of %s', wrong, array_to_string(fields, ', '));
    END IF;
    id := CASE WHEN document ? '_id' THEN document -> '_id' ELSE document -> 'id' END;
    IF coalesce(jsonb_typeof(id), 'null') = 'null' THEN
        RETURN 'the document has no id';
    ELSIF jsonb_typeof(id) <> 'string' AND NOT (jsonb_typeof(id) = 'number' AND (id #>> '{}') ~ '^-?[0-9]+$') THEN
        RETURN format('id is a JSON %s, but must be text', jsonb_typeof(id));
    END IF;
    SELECT f.key || ' is a JSON ' || jsonb_typeof(f.value) || ', but must be text' INTO wrong
      FROM jsonb_each(document) AS f
     WHERE f.key = ANY ('{text,title,language,format}') AND jsonb_typeof(f.value) NOT IN ('string', 'null')
     ORDER BY array_position(fields, f.key) LIMIT 1;
    IF wrong IS NOT NULL THEN
        RETURN wrong;
    END IF;
    IF id #>> '{}' = '' THEN
        RETURN 'the id is empty';
    END IF;
    IF length(document ->> 'title') > max_title THEN
        RETURN format('the title has %s characters, at most %s are allowed',
            to_char(length(document ->> 'title'), 'FM999,999,999'), to_char(max_title, 'FM999,999,999'));
    END IF;
    body := document ->> 'text';
    IF body IS NULL OR ltrim(body, white) = '' THEN
        RETURN 'the document has no text';
    END IF;
    IF octet_length(body) > max_text_bytes THEN
        RETURN format('the text has %s bytes, at most %s are allowed',
            to_char(octet_length(body), 'FM999,999,999'), to_char(max_text_bytes, 'FM999,999,999'));
    END IF;
    -- A run as long as that covers one of these places; how far it reaches before and after is looked at there.
    FOR place IN max_word .. length(body) BY max_word LOOP
        IF length(substring(reverse(substr(body, place - max_word + 1, max_word)) FROM '^[!-~]*'))
            + length(substring(substr(body, place + 1, max_word) FROM '^[!-~]*')) >= max_word
        THEN
            RETURN format('one word of the text has %s characters or more, which is no word',
                to_char(max_word, 'FM999,999,999'));
        END IF;
    END LOOP;
    metadata := document -> 'metadata';
    IF coalesce(jsonb_typeof(metadata), 'null') = 'null' THEN
        RETURN NULL;
    ELSIF jsonb_typeof(metadata) <> 'object' THEN
        RETURN format('metadata is a JSON %s, but must be a JSON object', jsonb_typeof(metadata));
    ELSIF octet_length(metadata::text) > max_metadata_bytes THEN
        RETURN format('the metadata has %s bytes as text, at most %s are allowed',
            to_char(octet_length(metadata::text), 'FM999,999,999'), to_char(max_metadata_bytes, 'FM999,999,999'));
    -- The values at depth 4 are in the fifth level if they hold others.
    ELSIF jsonb_path_exists(metadata, 'strict $.**{4} ? (@.type() == "object" || @.type() == "array")') THEN
        RETURN 'the metadata is nested deeper than 4 levels';
    END IF;
    RETURN NULL;
END
$function$;
