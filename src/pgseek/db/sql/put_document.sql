-- Purpose:    store one document from SQL. Its words are searchable in the same transaction; its
--             embedding follows when a client drains the queue (pgseek queue drain).
-- Arguments:  collection, external_id
--             body      the text, not blank
--             title     weighted above the body
--             metadata  a JSON object
--             format    what the body is written in: '' is plain text, 'markdown', 'pages' (form feeds between
--                       pages), or a programming language such as 'python'
--             language  text-search configuration; default: the collection's. Languages written without
--                       spaces are read as 'simple', where the server has no parser of their own
-- Returns:    'new', 'changed', 'metadata_changed' or 'unchanged'
-- Errors:     PGS01 no such collection, PGS02 argument out of range
-- Volatility: volatile. Index: primary keys.
CREATE OR REPLACE FUNCTION pgseek.put_document(
    collection text,
    external_id text,
    body text,
    title text DEFAULT '',
    metadata jsonb DEFAULT '{}',
    language text DEFAULT NULL,
    format text DEFAULT '')
RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    -- A tsvector holds 1 MiB at most; these pieces stand in until the chunker has run.
    piece_length CONSTANT integer := 20000;
    of_collection pgseek.collections := pgseek.require_collection(collection);
    id uuid;
    hash bytea;
    stored pgseek.documents;
    weighting real[];
    inserted boolean;
BEGIN
    IF external_id IS NULL OR external_id = '' THEN
        RAISE EXCEPTION 'the external id is empty' USING ERRCODE = 'PGS02';
    END IF;
    IF body IS NULL OR body !~ '\S' OR btrim(body, E' \t\r\n\u00a0\u2028\u2029\u3000') = '' THEN
        RAISE EXCEPTION 'document % has no text', quote_literal(external_id) USING ERRCODE = 'PGS02';
    END IF;
    IF metadata IS NULL OR jsonb_typeof(metadata) <> 'object' THEN
        RAISE EXCEPTION 'the metadata of document % is %, but must be a JSON object',
            quote_literal(external_id), coalesce('a JSON ' || jsonb_typeof(metadata), 'NULL') USING ERRCODE = 'PGS02';
    END IF;
    title := coalesce(title, '');
    format := coalesce(format, '');
    language := coalesce(language, of_collection.language);
    PERFORM FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace
      WHERE language = CASE n.nspname WHEN 'pg_catalog' THEN quote_ident(c.cfgname)
                            ELSE quote_ident(n.nspname) || '.' || quote_ident(c.cfgname) END;
    IF NOT FOUND AND lower(language) = ANY ('{chinese,japanese,korean,thai,lao,khmer,burmese}') THEN
        language := 'simple';
    ELSIF NOT FOUND THEN
        RAISE EXCEPTION 'language % is not a text-search configuration of this server', quote_literal(language)
            USING ERRCODE = 'PGS02', HINT = 'SELECT cfgname FROM pg_ts_config lists them';
    END IF;
    IF NOT language = ANY (of_collection.languages) THEN
        PERFORM pgseek.add_language(of_collection.collection_id, language);
    END IF;
    id := pgseek.document_id(external_id);
    hash := pgseek.content_hash(title, body, language, format);

    LOOP
        INSERT INTO pgseek.documents AS d
            (collection_id, document_id, external_id, title, body, language, format, metadata, content_hash, created_at, updated_at)
        VALUES (of_collection.collection_id, id, put_document.external_id, put_document.title, put_document.body,
                put_document.language, put_document.format, put_document.metadata, hash, now(), now())
        ON CONFLICT (collection_id, document_id) DO NOTHING;
        inserted := FOUND;
        EXIT WHEN inserted;
        SELECT d.* INTO stored FROM pgseek.documents d
         WHERE d.collection_id = of_collection.collection_id AND d.document_id = id FOR UPDATE;
        -- Not found: somebody deleted it between the two statements; insert again.
        EXIT WHEN FOUND;
    END LOOP;
    IF NOT inserted THEN
        IF stored.content_hash = hash THEN
            IF stored.metadata = put_document.metadata THEN
                RETURN 'unchanged';
            END IF;
            UPDATE pgseek.documents d SET metadata = put_document.metadata, updated_at = now()
             WHERE d.collection_id = of_collection.collection_id AND d.document_id = id;
            RETURN 'metadata_changed';
        END IF;
        UPDATE pgseek.documents d
           SET title = put_document.title, body = put_document.body, language = put_document.language,
               format = put_document.format, metadata = put_document.metadata, content_hash = hash, updated_at = now()
         WHERE d.collection_id = of_collection.collection_id AND d.document_id = id;
        DELETE FROM pgseek.chunks c
         WHERE c.collection_id = of_collection.collection_id AND c.document_id = id;
        PERFORM pgseek.delete_embeddings(of_collection.collection_id, ARRAY[id]);
    END IF;

    -- The lock keeps reweigh() out until this transaction is over; other writers share it.
    SELECT s.weighting INTO STRICT weighting FROM pgseek.collection_statistics s
     WHERE s.collection_id = of_collection.collection_id FOR KEY SHARE;
    INSERT INTO pgseek.chunks
        (collection_id, document_id, ordinal, kind, title, text, language, char_start, char_end, text_hash, lexemes, terms)
    SELECT of_collection.collection_id, id, piece.number, 'chunk', put_document.title, piece.text, put_document.language,
           piece.number * piece_length, piece.number * piece_length + length(piece.text),
           sha256(convert_to(piece.text, 'UTF8')), analysis.lexemes, analysis.terms
      FROM (SELECT n AS number, substr(put_document.body, n * piece_length + 1, piece_length) AS text
              FROM generate_series(0, (length(put_document.body) - 1) / piece_length) AS n) AS piece,
           pgseek.analyze(put_document.language, put_document.title, piece.text, weighting) AS analysis;
    INSERT INTO pgseek.ingest_queue (collection_id, document_id, content_hash, enqueued_at)
    VALUES (of_collection.collection_id, id, hash, now())
    ON CONFLICT (collection_id, document_id)
    DO UPDATE SET content_hash = excluded.content_hash, enqueued_at = excluded.enqueued_at;
    RETURN CASE WHEN inserted THEN 'new' ELSE 'changed' END;
END
$function$;
