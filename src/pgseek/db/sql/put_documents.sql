-- Purpose:    store documents from SQL, all in one statement. Their words are searchable in the same
--             transaction; their embeddings follow when a worker or a drain takes them from the queue. Equal
--             documents cost a comparison and no lock.
-- Arguments:  collection
--             documents  a JSON array of objects; see document_problem() for what they may hold. language is a
--                        text-search configuration, by default the collection's; format says what the text is
--                        written in: '' is plain text, 'markdown', 'pages', or a programming language
-- Returns:    a row per element: its place (from 1), its id, 'new', 'changed', 'metadata_changed',
--             'unchanged' or 'rejected', and why it was rejected. Of two elements with one id the first is kept.
-- Ordering:   by place. Documents are locked in the order of document_id, so that two calls do not deadlock.
-- Errors:     PGS01 no such collection, PGS02 documents is not an array
-- Notifies:   pgseek_queue, as enqueue_documents() does, if something was enqueued
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile. Index: primary keys.
CREATE OR REPLACE FUNCTION pgseek.put_documents(collection text, documents jsonb)
RETURNS TABLE ("position" integer, external_id text, outcome text, reason text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- Planning for every call would take as long as storing one document.
SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_column
DECLARE
    of_collection CONSTANT pgseek.collections := pgseek.require_collection(collection);
    -- One entry per element, in the order of document_id; NULL in ids: rejected.
    ids uuid[];
    places integer[];
    names text[];
    titles text[];
    bodies text[];
    languages text[];
    formats text[];
    metadatas jsonb[];
    hashes bytea[];
    reasons text[];
    outcomes text[];
    inserted uuid[];
    changed uuid[];
    weighting real[];
    new_language text;
    -- The stand-ins of all new and changed documents.
    of_document uuid[];
    ordinals integer[];
    starts integer[];
    texts text[];
    lexemes tsvector[];
    terms @vector@.sparsevec[];
BEGIN
    IF documents IS NULL OR jsonb_typeof(documents) <> 'array' THEN
        RAISE EXCEPTION 'documents is %, but must be a JSON array of objects',
            coalesce('a JSON ' || jsonb_typeof(documents), 'NULL') USING ERRCODE = 'PGS02';
    END IF;

    WITH elements AS MATERIALIZED (
        SELECT e.place::integer AS place, e.document, pgseek.document_problem(e.document) AS problem
          FROM jsonb_array_elements(documents) WITH ORDINALITY AS e (document, place)),
    known AS MATERIALIZED (
        SELECT given.language, CASE given.language WHEN of_collection.language THEN given.language
                                    ELSE pgseek.canonical_language(given.language) END AS canonical
          FROM (SELECT DISTINCT coalesce(e.document ->> 'language', of_collection.language) AS language
                  FROM elements e WHERE e.problem IS NULL) AS given),
    read AS (
        SELECT e.place, k.canonical AS language,
               -- Of an element that is no object nothing else is known.
               CASE WHEN jsonb_typeof(e.document) = 'object'
                    THEN coalesce(e.document ->> '_id', e.document ->> 'id') END AS name,
               coalesce(e.document ->> 'title', '') AS title, e.document ->> 'text' AS body,
               coalesce(e.document ->> 'format', '') AS format,
               coalesce(nullif(e.document -> 'metadata', 'null'), '{}') AS metadata,
               CASE WHEN e.problem IS NOT NULL THEN e.problem
                    WHEN k.canonical IS NULL
                    THEN format('language %L is not a text-search configuration of this server', k.language)
               END AS problem
          FROM elements e
          LEFT JOIN known k ON k.language = coalesce(e.document ->> 'language', of_collection.language)),
    checked AS (
        SELECT r.*, coalesce(r.problem, CASE WHEN row_number() OVER (PARTITION BY r.name, r.problem ORDER BY r.place) > 1
                   THEN 'the id occurred before in this call; the first is kept' END) AS reason
          FROM read r),
    hashed AS (
        SELECT c.*, CASE WHEN c.reason IS NULL THEN pgseek.document_id(c.name) END AS id,
               CASE WHEN c.reason IS NULL THEN pgseek.content_hash(c.title, c.body, c.language, c.format) END AS hash
          FROM checked c)
    SELECT array_agg(h.id ORDER BY h.id, h.place), array_agg(h.place ORDER BY h.id, h.place),
           array_agg(h.name ORDER BY h.id, h.place), array_agg(h.title ORDER BY h.id, h.place),
           array_agg(h.body ORDER BY h.id, h.place), array_agg(h.language ORDER BY h.id, h.place),
           array_agg(h.format ORDER BY h.id, h.place), array_agg(h.metadata ORDER BY h.id, h.place),
           array_agg(h.hash ORDER BY h.id, h.place), array_agg(h.reason ORDER BY h.id, h.place)
      INTO ids, places, names, titles, bodies, languages, formats, metadatas, hashes, reasons
      FROM hashed h;

    -- "= ANY (ids)", here and below, although the join says it too: a plan that was made when the table was small
    -- and is kept by the session goes by its primary key then as well.
    SELECT array_agg(CASE WHEN g.reason IS NOT NULL THEN 'rejected'
                          WHEN d.content_hash = g.hash AND d.metadata = g.metadata THEN 'unchanged' END ORDER BY g.n)
      INTO outcomes
      FROM unnest(ids, hashes, metadatas, reasons) WITH ORDINALITY AS g (id, hash, metadata, reason, n)
      LEFT JOIN pgseek.documents d ON d.collection_id = of_collection.collection_id
                                  AND d.document_id = ANY (ids) AND d.document_id = g.id;

    IF array_position(outcomes, NULL) IS NOT NULL THEN
        FOR new_language IN
            SELECT DISTINCT g.language FROM unnest(languages, outcomes) AS g (language, outcome)
             WHERE g.outcome IS NULL AND NOT g.language = ANY (of_collection.languages) ORDER BY 1
        LOOP
            PERFORM pgseek.add_language(of_collection.collection_id, new_language);
        END LOOP;

        -- One pass in the order of the ids inserts what is new and locks, unchanged, what is there.
        WITH put AS (
            INSERT INTO pgseek.documents AS d
                (collection_id, document_id, external_id, title, body, language, format, metadata, content_hash,
                 created_at, updated_at)
            SELECT of_collection.collection_id, g.id, g.name, g.title, g.body, g.language, g.format, g.metadata,
                   g.hash, now(), now()
              FROM unnest(ids, names, titles, bodies, languages, formats, metadatas, hashes, outcomes)
                   AS g (id, name, title, body, language, format, metadata, hash, outcome)
             WHERE g.outcome IS NULL ORDER BY g.id
            ON CONFLICT (collection_id, document_id) DO UPDATE SET external_id = excluded.external_id WHERE false
            RETURNING d.document_id)
        SELECT array_agg(p.document_id) INTO inserted FROM put p;

        SELECT array_agg(coalesce(g.outcome,
                   CASE WHEN n.id IS NOT NULL THEN 'new'
                        WHEN d.content_hash <> g.hash THEN 'changed'
                        WHEN d.metadata <> g.metadata THEN 'metadata_changed'
                        ELSE 'unchanged' END) ORDER BY g.n)
          INTO outcomes
          FROM unnest(ids, hashes, metadatas, outcomes) WITH ORDINALITY AS g (id, hash, metadata, outcome, n)
          LEFT JOIN unnest(inserted) AS n (id) ON n.id = g.id
          LEFT JOIN pgseek.documents d ON d.collection_id = of_collection.collection_id
                                      AND d.document_id = ANY (ids) AND d.document_id = g.id;

        IF outcomes && '{new,changed}' THEN
            -- The lock keeps reweigh() out until this transaction is over; other writers share it.
            SELECT s.weighting INTO STRICT weighting FROM pgseek.collection_statistics s
             WHERE s.collection_id = of_collection.collection_id FOR KEY SHARE;
            LOOP
                -- Nothing is written in this block, so that it costs no transaction number.
                BEGIN
                    SELECT array_agg(g.id), array_agg(p.ordinal), array_agg(p.char_start), array_agg(p.text),
                           array_agg(p.lexemes), array_agg(p.terms)
                      INTO of_document, ordinals, starts, texts, lexemes, terms
                      FROM unnest(ids, titles, bodies, languages, outcomes) AS g (id, title, body, language, outcome),
                           LATERAL pgseek.stand_ins(g.language, g.title, g.body, weighting) AS p
                     WHERE g.outcome IN ('new', 'changed');
                    EXIT;
                EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
                    FOR i IN 1 .. cardinality(ids) LOOP
                        CONTINUE WHEN outcomes[i] NOT IN ('new', 'changed');
                        BEGIN
                            PERFORM FROM pgseek.stand_ins(languages[i], titles[i], bodies[i], weighting);
                        EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
                            reasons[i] := 'the server cannot hold it: ' || SQLERRM;
                            outcomes[i] := 'rejected';
                        END;
                    END LOOP;
                END;
            END LOOP;
            DELETE FROM pgseek.documents d USING unnest(ids, outcomes) AS g (id, outcome)
             WHERE g.outcome = 'rejected' AND g.id = ANY (inserted) AND d.collection_id = of_collection.collection_id
               AND d.document_id = ANY (inserted) AND d.document_id = g.id;
        END IF;

        IF outcomes && '{changed,metadata_changed}' THEN
            UPDATE pgseek.documents d
               SET title = g.title, body = g.body, language = g.language, format = g.format, metadata = g.metadata,
                   content_hash = g.hash, updated_at = now()
              FROM unnest(ids, titles, bodies, languages, formats, metadatas, hashes, outcomes)
                   AS g (id, title, body, language, format, metadata, hash, outcome)
             WHERE g.outcome IN ('changed', 'metadata_changed')
               AND d.collection_id = of_collection.collection_id AND d.document_id = ANY (ids) AND d.document_id = g.id;
            SELECT array_agg(g.id) INTO changed FROM unnest(ids, outcomes) AS g (id, outcome) WHERE g.outcome = 'changed';
            DELETE FROM pgseek.chunks c
             WHERE c.collection_id = of_collection.collection_id AND c.document_id = ANY (changed);
            PERFORM pgseek.delete_embeddings(of_collection.collection_id, changed);
        END IF;

        IF outcomes && '{new,changed}' THEN
            PERFORM pgseek.enqueue_documents(of_collection.collection_id,
                ARRAY(SELECT g.id FROM unnest(ids, outcomes) AS g (id, outcome) WHERE g.outcome IN ('new', 'changed')),
                of_document, ordinals, starts, texts, lexemes, terms);
        END IF;
        PERFORM pgseek.mirror_documents(of_collection.collection_id,
            ARRAY(SELECT g.id FROM unnest(ids, outcomes) AS g (id, outcome)
                   WHERE g.outcome IN ('new', 'changed', 'metadata_changed')));
    END IF;

    RETURN QUERY
        SELECT g.place, g.name, g.outcome, g.reason
          FROM unnest(places, names, outcomes, reasons) AS g (place, name, outcome, reason) ORDER BY g.place;
END
$function$;
