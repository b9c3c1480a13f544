-- Purpose:    hybrid search of one collection: both legs, their fusion and the snippets, in one
--             statement. Python and the command line call this function and reorder nothing.
-- Arguments:  collection       name
--             query            see parse_query(); not blank
--             k                rows returned, 1..10,000
--             query_embedding  the query's vector in the collection's active space; the caller says of which model
--                              it is, with model or space_id. Without it the
--                              cached vector of this exact text is used; failing that the rows are
--                              ranked lexically and say so in "degraded"
--             alpha            weight of the dense leg in 0..1; 0 and 1 run a single leg;
--                              default: the collection's setting. Only for fusion 'weighted'
--             fusion           'weighted': every candidate is scored in both legs, each leg divided
--                              by its maximum, alpha * dense + (1 - alpha) * lexical.
--                              'auto': weighted, with an alpha that the kind of the query chooses, see query_kind():
--                              the collection's, 3/2 of it for questions; with the static embedder wordllama 4/3 for
--                              questions, 1/2 for identifiers, 1 for short ones, else 2/3
--                              'rrf': the sum of 1 / (rrf_k + rank) over the legs (Cormack et al. 2009)
--             normalization    how 'weighted' makes the legs comparable: 'max' divides each by its maximum;
--                              'minmax' first takes off the lowest dense score among the first candidates, for
--                              embedders whose cosines all lie close together; default: the collection's
--             lexical          'bm25' (exact, unless the budget runs out) | 'ts_rank_cd' | 'ts_rank'
--             syntax, typos    see parse_query()
--             filter           jsonpath predicate over metadata, such as '$.year >= 2020'
--             candidates       rows taken from each leg, at least k; default: the collection's setting. A
--                              single leg takes k
--             rrf_k            RRF's constant
--             snippets         whether to compute the column "snippet"
--             highlight        the two texts put around matched words
--             budget           milliseconds for reading the query and the BM25 leg; past them its approximate
--                              form answers and the rows say so in "degraded"
--             space_id, model  what query_embedding is of, one of the two: the number of a space, or provider:model
--                              (@dimensions or without). Refused if that is not what is searched, so that vectors of
--                              two models are never compared
--             collapse         each document once, with its best row. More candidates are taken until there are k
--                              documents, or no more candidates; default: the collection's setting
--             space            search this space of the collection in place of the active one; it must be ready
--             ef_search        rows that a walk through an HNSW index keeps in mind, 1..1000: more find more of the
--                              nearest. Default: see begin_walk()
--             probes           lists that are read of an IVFFlat index; default: see begin_walk()
--             rerank           where the index knows less than whole vectors, rows compared by these for each candidate,
--                              1..100; default: see dense_parts()
--             boosts           factors by metadata, see boost(): taken of the candidates' fused scores
--             min_score, min_dense_score, min_lexical_score  rows below are left out
--             diversity        0..1: how much a row's likeness to those before it counts against its score, see shape()
--             near_duplicates  above 0, at most 1: the cosine from which on a row repeats a better one and is left out
--             passages         other rows of the hit's document among the candidates, at most so many, in "other_passages"
--             neighbours       chunks before and after the hit whose text goes into "context"
--             feedback         the words and vectors of so many first answers are looked for, too: see expand_by_feedback()
-- Returns:    a question or a summary ("kind") is shown as the chunk it was written for, with itself as
--             "matched_text"; a whole document as its first 2,000 characters. "section" is the part of the document
--             to read around a chunk, where it has sections.
--             "dense_candidates" and "lexical_candidates" say how many rows each leg brought, the same in every row.
-- Ordering:   score descending; ties by document_id, then the row's ordinal. "rank" is 1-based.
-- Scores:     dense_score is higher for the nearer: the cosine (-1..1), the inner product, or 1 / (1 + distance) of
--             L2 and L1; dense_distance is what pgvector's operator gave. lexical_score is the raw score (>= 0); the
--             contributions are what each leg added to score, NULL for a leg that did not run. "matched" is a
--             JSON array, heaviest first: {"lexeme", "weight": what it added to a BM25 score, "origin": the
--             word or prefix as typed, where the lexeme stands for another}.
-- Errors:     PGS01 no such collection, PGS02 argument out of range, PGS04 wrong dimensions,
--             PGS05 the vector of another space, or nothing said of it; no such space
-- Rights:     its owner's, on collections of the session's tenant: see require_collection().
-- Volatility: volatile, because settings of indexes are set for its statement (and put back). It writes nothing
--             and runs on a read-only standby.
-- Index:      that of embeddings_<space>, chunks_codes_idx (GIN), documents_metadata (GIN), primary keys.
CREATE OR REPLACE FUNCTION pgseek.search(
    collection text,
    query text,
    k integer DEFAULT 10,
    query_embedding @vector@.vector DEFAULT NULL,
    alpha double precision DEFAULT NULL,
    fusion text DEFAULT NULL,
    lexical text DEFAULT NULL,
    filter jsonpath DEFAULT NULL,
    candidates integer DEFAULT NULL,
    rrf_k integer DEFAULT 60,
    snippets boolean DEFAULT true,
    highlight text[] DEFAULT ARRAY['<b>', '</b>'],
    budget double precision DEFAULT 50,
    space_id integer DEFAULT NULL,
    normalization text DEFAULT NULL,
    syntax text DEFAULT 'web',
    typos boolean DEFAULT true,
    collapse boolean DEFAULT NULL,
    model text DEFAULT NULL,
    space integer DEFAULT NULL,
    ef_search integer DEFAULT NULL,
    probes integer DEFAULT NULL,
    rerank integer DEFAULT NULL,
    boosts jsonb DEFAULT NULL,
    min_score double precision DEFAULT NULL,
    min_dense_score double precision DEFAULT NULL,
    min_lexical_score double precision DEFAULT NULL,
    diversity double precision DEFAULT 0,
    near_duplicates double precision DEFAULT NULL,
    passages integer DEFAULT 0,
    neighbours integer DEFAULT 0,
    feedback integer DEFAULT 0)
RETURNS TABLE (
    rank integer,
    external_id text,
    ordinal integer,
    score double precision,
    dense_score double precision,
    dense_rank integer,
    dense_contribution double precision,
    lexical_score double precision,
    lexical_rank integer,
    lexical_contribution double precision,
    matched jsonb,
    title text,
    text text,
    snippet text,
    metadata jsonb,
    char_start integer,
    char_end integer,
    document_id uuid,
    degraded text,
    kind text,
    provenance jsonb,
    section text,
    matched_text text,
    dense_distance double precision,
    boost double precision,
    relevance double precision,
    duplicates text[],
    other_passages jsonb,
    context text,
    dense_candidates integer,
    lexical_candidates integer)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    of_collection CONSTANT pgseek.collections := pgseek.require_collection(collection);
    options CONSTANT jsonb := pgseek.read_options(of_collection, jsonb_build_object(
        'k', k, 'alpha', alpha, 'fusion', fusion, 'lexical', lexical, 'filter', filter, 'candidates', candidates,
        'rrf_k', rrf_k, 'snippets', snippets, 'highlight', highlight, 'budget', budget, 'normalization', normalization,
        'syntax', syntax, 'typos', typos, 'collapse', collapse, 'space', space, 'ef_search', ef_search, 'probes', probes,
        'rerank', rerank, 'boosts', boosts, 'min_score', min_score, 'min_dense_score', min_dense_score,
        'min_lexical_score', min_lexical_score, 'diversity', diversity, 'near_duplicates', near_duplicates,
        'passages', passages, 'neighbours', neighbours, 'feedback', feedback));
    ranking record;
BEGIN
    ranking := pgseek.rank(of_collection, query, query_embedding, options, k, space_id, model);
    RETURN QUERY SELECT s.*, ranking.dense_found::integer, ranking.lexical_found::integer
      FROM pgseek.show(of_collection, ranking.hits, ranking.fused, ranking.terms, options, ranking.degraded,
        -- Metadata may have changed since it was asked.
        filter) AS s;
END
$function$;
