-- Purpose:    answers "does this document need chunking and embedding again?".
-- Arguments:  title, body, language, format  as stored in documents
-- Returns:    32 bytes: SHA-256 over the SHA-256 of each part, so no text can imitate a border
--             between the parts; plain text is hashed without its format, which is ''. The Python side
--             computes the same bytes.
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.content_hash(title text, body text, language text, format text DEFAULT '')
RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN sha256(
        sha256(convert_to(title, 'UTF8'))
        || sha256(convert_to(body, 'UTF8'))
        || sha256(convert_to(language, 'UTF8'))
        || CASE WHEN format = '' THEN ''::bytea ELSE sha256(convert_to(format, 'UTF8')) END
    );
END
$function$;
