-- Purpose:    the document_id of an external id, so that the primary key of documents also makes
--             the external id unique within its collection.
-- Arguments:  external_id  the caller's identifier, any text
-- Returns:    a version 8 UUID (RFC 9562): the first 16 bytes of the SHA-256 of the UTF-8 text,
--             with version and variant bits set. PostgreSQL has no SHA-1 without an extension,
--             which rules out version 5.
-- Volatility: immutable. Index: the primary keys, by way of the value.
CREATE OR REPLACE FUNCTION pgseek.document_id(external_id text)
RETURNS uuid
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    digest bytea := substr(sha256(convert_to(external_id, 'UTF8')), 1, 16);
BEGIN
    digest := set_byte(digest, 6, (get_byte(digest, 6) & 15) | 128);
    digest := set_byte(digest, 8, (get_byte(digest, 8) & 63) | 128);
    RETURN encode(digest, 'hex')::uuid;
END
$function$;
