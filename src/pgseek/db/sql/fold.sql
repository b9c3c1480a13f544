-- Purpose:    Latin letters without their accents, so that cafe finds café: what the extension unaccent does,
--             without the extension and the same on every server. Other scripts stay as they are.
-- Arguments:  text  in lower or upper case
-- Returns:    text; ß, æ and œ become two letters
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.fold(text text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    IF text !~ '[\u00C0-\u024F\u1E00-\u1EFF]' THEN
        RETURN text;
    END IF;
    text := replace(replace(replace(text, 'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe');
    text := translate(text, 'øđłıħŧþðØĐŁĦŦÞÐ', 'odlihttdODLHTTD');
    RETURN normalize(regexp_replace(normalize(text, NFD), '([A-Za-z])[\u0300-\u036F]+', '\1', 'g'), NFC);
END
$function$;
