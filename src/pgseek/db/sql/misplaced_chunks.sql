-- Purpose:    compare the chunks of a document with its body: is each what the body has at its place, and is
--             all of the body in some chunk? For pgseek doctor --deep.
-- Arguments:  collection_id, document_id
--             body        the document's
-- Returns:    misplaced   ordinals of chunks of kind 'chunk' whose text is not the body's at their place
--             uncovered   whether some word of the body lies in none of them; false if there are none at all
-- Ordering:   misplaced by place, then ordinal.
-- Volatility: stable. Index: chunks_pkey.
CREATE OR REPLACE FUNCTION pgseek.misplaced_chunks(
    collection_id integer, document_id uuid, body text, OUT misplaced integer[], OUT uncovered boolean)
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    -- White space as the chunker knows it (Unicode's White_Space), whatever the database's locale is.
    blank CONSTANT text := E'\u0009\u000a\u000b\u000c\u000d\u0020\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005'
        '\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000';
    -- A place in a text is found by walking there from its start: of a long one, what is done with is left behind.
    step CONSTANT integer := 20000;
    -- The body from this place on, counted from 0.
    origin integer := 0;
    rest text := body || '';
    covered integer := 0;
    chunk record;
BEGIN
    misplaced := '{}';
    uncovered := false;
    FOR chunk IN
        SELECT c.ordinal, c.char_start AS start, c.char_end AS stop, c.text FROM pgseek.chunks c
         WHERE c.collection_id = collection_id AND c.document_id = document_id AND c.kind = 'chunk'
         ORDER BY c.char_start, c.ordinal
    LOOP
        IF chunk.start < 0 OR chunk.stop < chunk.start THEN
            misplaced := misplaced || chunk.ordinal;
            CONTINUE;
        END IF;
        uncovered := uncovered OR chunk.start > covered
            AND btrim(substr(rest, covered - origin + 1, chunk.start - covered), blank) <> '';
        covered := greatest(covered, chunk.stop);
        IF chunk.start - origin > step THEN
            rest := substr(rest, chunk.start - origin + 1);
            origin := chunk.start;
        END IF;
        IF chunk.text <> substr(rest, chunk.start - origin + 1, chunk.stop - chunk.start) THEN
            misplaced := misplaced || chunk.ordinal;
        END IF;
    END LOOP;
    uncovered := uncovered OR FOUND AND btrim(substr(rest, covered - origin + 1), blank) <> '';
END
$function$;
