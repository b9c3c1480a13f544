-- Purpose:    pseudo-relevance feedback: what the first answers have in common is looked for, too.
-- Arguments:  of_collection, of_space  rows of collections and embedding_spaces
--             query_embedding, terms   of the query; the vector may be NULL
--             hits     the first answers, see fuse()
--             options  see read_options()
-- Returns:    vector    Rocchio (1971): the query's direction and 0.3 times the mean of the answers', unit vectors both
--                       for cosine; NULL if the query has none
--             expanded  RM3 (Abdul-Jaleel et al. 2004), for BM25's weights: the 10 lexemes that weigh most in the
--                       answers, each answer counting by its score; the first has 0.2 of the weight of the query's
--                       heaviest word, the others less by what they weigh. What hits must match stays as it is
-- Volatility: stable. Index: primary keys; those of bm25_terms().
CREATE OR REPLACE FUNCTION pgseek.expand_by_feedback(
    of_collection pgseek.collections, of_space pgseek.embedding_spaces, query_embedding @vector@.vector,
    terms pgseek.query_terms, hits pgseek.candidate[], options jsonb,
    OUT vector @vector@.vector, OUT expanded pgseek.query_terms)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    dense_share CONSTANT real := 0.3;
    lexical_share CONSTANT double precision := 0.2;
    most_words CONSTANT integer := 10;
    -- Words that are looked up: those that most of the answers have.
    most_looked_up CONSTANT integer := 60;
    likely text[];
    added record;
BEGIN
    vector := query_embedding;
    expanded := terms;
    IF coalesce(cardinality(hits), 0) = 0 THEN
        RETURN;
    END IF;
    IF query_embedding IS NOT NULL THEN
        EXECUTE format('SELECT @vector@.avg(%1$s) FROM unnest($1) AS f'
            ' JOIN pgseek.%2$I e ON e.collection_id = $2 AND e.document_id = f.document_id AND e.ordinal = f.ordinal',
            CASE of_space.metric WHEN 'cosine' THEN '@vector@.l2_normalize(e.embedding::@vector@.vector)' ELSE 'e.embedding::@vector@.vector' END,
            'embeddings_' || of_space.space_id)
        INTO vector USING hits, of_collection.collection_id;
        IF vector IS NULL OR @vector@.vector_norm(vector) = 0 THEN
            vector := query_embedding;
        ELSE
            IF of_space.metric = 'cosine' THEN
                query_embedding := @vector@.l2_normalize(query_embedding);
                vector := @vector@.l2_normalize(vector);
            END IF;
            vector := query_embedding OPERATOR(@vector@.+)
                (array_fill(dense_share, ARRAY[of_space.dimensions])::@vector@.vector OPERATOR(@vector@.*) vector);
            IF of_space.metric <> 'cosine' THEN
                -- Between the two, where lengths and places count.
                vector := array_fill(1 / (1 + dense_share), ARRAY[of_space.dimensions])::@vector@.vector OPERATOR(@vector@.*) vector;
            END IF;
        END IF;
    END IF;
    IF terms.known IS NULL OR options ->> 'lexical' <> 'bm25' THEN
        RETURN;
    END IF;
    SELECT array_agg(w.lexeme) INTO likely
      FROM (SELECT u.lexeme FROM unnest(hits) AS f
              JOIN pgseek.chunks c ON c.collection_id = of_collection.collection_id AND c.document_id = f.document_id
                                  AND c.ordinal = f.ordinal
              CROSS JOIN LATERAL unnest(tsvector_to_array(c.lexemes)) AS u (lexeme)
             -- Those with a space are marks; those without a letter hardly say what a text is about.
             WHERE u.lexeme !~ ' ' AND u.lexeme ~ '[[:alpha:]]{2}' AND u.lexeme <> ALL (terms.known)
             GROUP BY u.lexeme ORDER BY sum(f.score) DESC, u.lexeme LIMIT most_looked_up) AS w;
    IF likely IS NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(b.lexeme) AS known, array_agg(b.dimension) AS dimensions, array_agg(b.count) AS counts,
           array_agg(b.gain / b.most * lexical_share * terms.weights[1]) AS weights
      INTO added
      FROM (SELECT a.*, max(a.gain) OVER () AS most
              FROM (SELECT t.lexeme, t.dimension, t.count,
                           sum(f.score * (0 - (c.terms OPERATOR(@vector@.<#>) pgseek.bm25_query(ARRAY[t.dimension], ARRAY[t.weight])))) AS gain
                      FROM pgseek.bm25_terms(of_collection.collection_id, likely, array_fill(1::float8, ARRAY[cardinality(likely)])) AS asked
                      CROSS JOIN LATERAL unnest(asked.known, asked.dimensions, asked.weights, asked.counts) AS t (lexeme, dimension, weight, count)
                      CROSS JOIN unnest(hits) AS f
                      JOIN pgseek.chunks c ON c.collection_id = of_collection.collection_id AND c.document_id = f.document_id
                                          AND c.ordinal = f.ordinal
                     GROUP BY t.lexeme, t.dimension, t.count) AS a
             WHERE a.gain > 0 ORDER BY a.gain DESC, a.lexeme LIMIT most_words) AS b;
    IF added.known IS NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(u.lexeme), array_agg(u.dimension), array_agg(u.weight), array_agg(u.count), array_agg(u.origin)
      INTO expanded.known, expanded.dimensions, expanded.weights, expanded.counts, expanded.origins
      FROM (SELECT a.* FROM unnest(terms.known || added.known, terms.dimensions || added.dimensions,
                terms.weights || added.weights, terms.counts || added.counts, terms.origins) AS a (lexeme, dimension, weight, count, origin)
             ORDER BY a.weight DESC, a.lexeme) AS u;
END
$function$;
