-- Purpose:    what in a question decides which answer is right, though a model hardly sees it: numbers, identifiers,
--             negations, names, and words whose opposites mean something else. For tell_apart().
-- Arguments:  query
-- Returns:    "kind:value" each, sorted, once: token (with a digit, an underscore, a dot within, or capitals within),
--             not (of any negation), name (with a capital, but for the first word), asks (who, when, where, why, how many, …),
--             and a kind for each set of opposites: switch:on, switch:off. English and German; other languages have
--             their numbers, identifiers and names.
-- Volatility: immutable.
CREATE OR REPLACE FUNCTION pgseek.query_marks(query text)
RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    sets CONSTANT text[] := ARRAY[
        'switch:on enable enabled enables enabling activate activated activating allow allowed permit aktivieren aktiviert einschalten erlauben',
        'switch:off disable disabled disables disabling deactivate deactivated deactivating deny block blocked forbid prevent deaktivieren deaktiviert ausschalten abschalten verbieten',
        'make:more add adds added adding insert create install installing increase increased raise hinzufügen installieren anlegen erhöhen',
        'make:less remove removes removed removing delete deleting uninstall uninstalling decrease decreased reduce löschen entfernen deinstallieren verringern senken drop',
        'begin:start start starts started starting begin begins began launch starten beginnen beginnt begann',
        'begin:stop stop stops stopped stopping end ends ended quit cancel stoppen beenden endet endete',
        'open:yes open opens opened opening öffnen geöffnet', 'open:no close closes closed closing schließen geschlossen',
        'time:before before prior vor', 'time:after after since nach',
        'order:first first earliest oldest erste ersten erster älteste', 'order:last last latest newest letzte letzten letzter neueste',
        'size:most most maximum max highest largest biggest longest meisten höchste größte', 'size:least least minimum min lowest smallest shortest wenigsten niedrigste kleinste',
        'grade:up upgrade upgrading', 'grade:down downgrade downgrading', 'port:in import importing upload uploading', 'port:out export exporting download downloading',
        'lock:yes lock encrypt encryption sperren verschlüsseln', 'lock:no unlock decrypt decryption entsperren entschlüsseln',
        'log:in login signin anmelden', 'log:out logout signout abmelden', 'trade:buy buy buying bought kaufen', 'trade:sell sell selling sold verkaufen',
        'say:yes accept accepted approve subscribe annehmen abonnieren', 'say:no reject rejected decline unsubscribe ablehnen kündigen',
        'win:yes win won wins winner gewann gewonnen', 'win:no lose lost loses loser verlor verloren',
        'way:north north northern norden', 'way:south south southern süden', 'way:east east eastern osten', 'way:west west western westen',
        'asks:who who whom whose wer wen wem', 'asks:when when wann', 'asks:where where wo woher wohin', 'asks:why why warum weshalb wieso'];
    counted CONSTANT text[] := '{two,three,four,five,six,seven,eight,nine,ten,eleven,twelve}';
    counted_de CONSTANT text[] := '{zwei,drei,vier,fünf,sechs,sieben,acht,neun,zehn,elf,zwölf}';
    plain CONSTANT text := lower(translate(query, '’', ''''));
    words CONSTANT text[] := ARRAY(SELECT m[1] FROM regexp_matches(plain, '([[:alpha:]]+)', 'g') AS m);
    -- As written, with what holds names and numbers together.
    tokens CONSTANT text[] := ARRAY(SELECT m[1] FROM regexp_matches(query, '([[:alnum:]_]+(?:(?:::|[-._:/#@+,])[[:alnum:]_]+)*(?:\+\+|#)?)', 'g') AS m);
    marks text[];
BEGIN
    marks := ARRAY(SELECT 'token:' || lower(t) FROM unnest(tokens) AS t
                    WHERE t ~ '[0-9_#]|\+\+|::|[[:alpha:]]\.[[:alpha:]]{2}|[[:lower:]][[:upper:]]')
        || ARRAY(SELECT 'token:' || coalesce(array_position(counted, w), array_position(counted_de, w)) + 1 FROM unnest(words) AS w
                  WHERE w = ANY (counted || counted_de))
        || ARRAY(SELECT 'name:' || lower(t.token) FROM unnest(tokens) WITH ORDINALITY AS t (token, place)
                  WHERE t.place > 1 AND t.token ~ '^[[:upper:]]' AND t.token <> 'I')
        || ARRAY(SELECT split_part(s, ' ', 1) FROM unnest(sets) AS s WHERE string_to_array(s, ' ') && words);
    IF words && '{not,no,never,none,without,cannot,nor,neither,except,nicht,kein,keine,keinen,keiner,nie,niemals,ohne}' OR plain ~ 'n''t\M' THEN
        marks := marks || 'not:'::text;
    END IF;
    IF plain ~ '\m(turn|turned|turning|switch|switched|switching)\s+(\w+\s+){0,3}on\M' THEN
        marks := marks || 'switch:on'::text;
    ELSIF plain ~ '\m(turn|turned|turning|switch|switched|switching)\s+(\w+\s+){0,3}off\M' THEN
        marks := marks || 'switch:off'::text;
    END IF;
    IF plain ~ '\m(what|which|welche[mnrs]?)\s+(year|day|date|month|time|century|jahr|tag|monat)\M' THEN
        marks := marks || 'asks:when'::text;
    ELSIF plain ~ '\m(what|which|welche[mnrs]?)\s+(city|country|place|state|stadt|land|ort)\M' THEN
        marks := marks || 'asks:where'::text;
    END IF;
    marks := marks || ARRAY(SELECT 'asks:' || CASE WHEN m[1] ~ 'many|viele' THEN 'how many' WHEN m[1] ~ 'much|viel' THEN 'how much' ELSE 'how long' END
        FROM regexp_matches(plain, '\m((?:how|wie)\s+(?:many|much|long|viele|viel|lange))\M', 'g') AS m);
    RETURN ARRAY(SELECT DISTINCT m FROM unnest(marks) AS m ORDER BY m);
END
$function$;
