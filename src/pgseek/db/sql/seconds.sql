-- Purpose:    a point in time written in metadata, as seconds since 1970 in UTC.
-- Arguments:  value  a number of seconds, or an ISO 8601 text: a date, or date and time with or without a zone
-- Returns:    NULL if it is neither. A day that its month lacks counts on into the next: it never fails.
-- Volatility: immutable: no setting changes how it reads.
CREATE OR REPLACE FUNCTION pgseek.seconds(value jsonb)
RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    part text[];
    day date;
BEGIN
    IF jsonb_typeof(value) = 'number' THEN
        -- What a double precision cannot hold is an error of the cast: too large, or too close to zero.
        RETURN round(least(greatest((value #>> '{}')::numeric, -1e100), 1e100), 100)::double precision;
    END IF;
    part := regexp_match(value #>> '{}', '^([1-9]\d{3})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])'
        '(?:[T ]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?\s*(?:[Zz]|([-+])(\d{2}):?(\d{2})?)?)?$');
    IF part IS NULL OR jsonb_typeof(value) <> 'string' THEN
        RETURN NULL;
    END IF;
    day := make_date(part[1]::integer, part[2]::integer, 1) + (part[3]::integer - 1);
    RETURN extract(epoch FROM day) + coalesce(part[4]::integer, 0) * 3600 + coalesce(part[5]::integer, 0) * 60
        + coalesce(part[6]::double precision, 0)
        - CASE part[7] WHEN '-' THEN -1 ELSE 1 END * (coalesce(part[8]::integer, 0) * 3600 + coalesce(part[9]::integer, 0) * 60);
END
$function$;
