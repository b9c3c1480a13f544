-- Purpose:    let documents that were just stored be found by their words until they are chunked and embedded, and put
--             them in the queue for that. Their former chunks are gone already. For put_documents() and
--             mirror_documents().
-- Arguments:  collection_id, document_ids
--             of_document, ordinals, starts, texts, lexemes, terms  their stand-ins, see stand_ins(): arrays of one length
-- Notifies:   pgseek_queue, with the collection's name if it is of tenant '', else with nothing
-- Volatility: volatile. Index: primary keys.
CREATE OR REPLACE FUNCTION pgseek.enqueue_documents(
    collection_id integer, document_ids uuid[], of_document uuid[], ordinals integer[], starts integer[], texts text[],
    lexemes tsvector[], terms @vector@.sparsevec[])
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_column
DECLARE
    of_collection CONSTANT integer := enqueue_documents.collection_id;
BEGIN
    INSERT INTO pgseek.chunks
        (collection_id, document_id, ordinal, kind, title, text, language, char_start, char_end, text_hash, lexemes, terms)
    SELECT of_collection, p.id, p.ordinal, 'chunk', d.title, p.text, d.language,
           p.char_start, p.char_start + length(p.text),
           -- Of the text that will be embedded: a stand-in that the chunker makes just so stays where it is.
           sha256(convert_to(CASE WHEN d.title = '' THEN p.text ELSE d.title || E'\n\n' || p.text END, 'UTF8')),
           p.lexemes, p.terms
      FROM unnest(of_document, ordinals, starts, texts, lexemes, terms) AS p (id, ordinal, char_start, text, lexemes, terms)
      JOIN pgseek.documents d ON d.collection_id = of_collection AND d.document_id = ANY (document_ids) AND d.document_id = p.id;
    INSERT INTO pgseek.ingest_queue AS q (collection_id, document_id, content_hash, enqueued_at, due_at)
    SELECT of_collection, d.document_id, d.content_hash, now(), now()
      FROM pgseek.documents d
     WHERE d.collection_id = of_collection AND d.document_id = ANY (document_ids) ORDER BY d.document_id
    ON CONFLICT (collection_id, document_id) DO UPDATE
       SET content_hash = excluded.content_hash, enqueued_at = excluded.enqueued_at, due_at = excluded.due_at,
           attempts = 0, claimed_by = NULL, error = NULL, failed_at = NULL;
    -- Everybody may listen: of a named tenant nothing is told but that something waits.
    PERFORM pg_notify('pgseek_queue', CASE c.tenant WHEN '' THEN c.name ELSE '' END) FROM pgseek.collections c WHERE c.collection_id = of_collection;
END
$function$;
