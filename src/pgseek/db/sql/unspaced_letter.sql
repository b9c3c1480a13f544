-- Purpose:    the regular expression of one letter of a script written without spaces, with the marks on it:
--             Han, Kana, Bopomofo and Hangul; Thai, Lao, Burmese and Khmer with vowels and tones.
-- Arguments:  none
-- Returns:    text without a capturing group
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.unspaced_letter()
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN '[\u1100-\u11FF\u3005-\u3007\u3040-\u30FF\u3100-\u318F\u31A0-\u31BF\u31F0-\u31FF\u3400-\u4DBF\u4E00-\u9FFF'
        '\uA960-\uA97F\uAC00-\uD7FF\uF900-\uFAFF\U00020000-\U000323AF]'
        '|[\u0E01-\u0E30\u0E32\u0E33\u0E40-\u0E46\u0E81-\u0EB0\u0EB2\u0EB3\u0EBD-\u0EC6\u0EDC-\u0EDF'
        '\u1000-\u102A\u103F\u1050-\u1055\u1780-\u17B3]'
        '[\u0E31\u0E34-\u0E3A\u0E47-\u0E4E\u0EB1\u0EB4-\u0EBC\u0EC8-\u0ECE\u102B-\u103E\u1056-\u1059\u17B4-\u17D3]*';
END
$function$;
