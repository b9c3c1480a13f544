"""Every SQL function with a call of it, on the side it belongs to: searches and readers, or writers.

A standby answers the first and refuses the second. Whoever adds a function adds it here.
"""

from __future__ import annotations

# Collection 1 is "docs"; the other parameters of a query's words come from the query itself.
_ASKED = "pgseek.bm25_terms(1, '{function,cach}', '{1,1}')"
_STATISTICS = "(SELECT s.shares FROM pgseek.collection_statistics s WHERE s.collection_id = 1)"
_BOUNDS = "'{0.53,0.58,0.66,0.75,0.85,1}'"
_WEIGHTING = "'{1.2,0.75,20,2}'"
_DOCS = "pgseek.require_collection('docs')"
_OPTIONS = f"pgseek.read_options({_DOCS}, '{{}}')"
_FUSED = (
    f"(SELECT s AS space FROM pgseek.embedding_spaces s WHERE s.space_id = 1) AS of, pgseek.fuse({_DOCS}, of.space, NULL,"
    f" pgseek.read_query({_DOCS}, 'function'), {_OPTIONS}, 10, NULL, 50)"
)

READING = {
    # Without a copy of the collection it writes nothing.
    "mirror_documents": "SELECT pgseek.mirror_documents(1, ARRAY[pgseek.document_id('lru_cache')])",
    "document_id": "SELECT pgseek.document_id('lru_cache')",
    "content_hash": "SELECT pgseek.content_hash('title', 'body', 'english')",
    "dimension": "SELECT pgseek.dimension('cach')",
    "unspaced_letter": "SELECT pgseek.unspaced_letter()",
    "plain": "SELECT pgseek.plain('functools.lru_cache')",
    "fold": "SELECT pgseek.fold('Crème brûlée')",
    "words": "SELECT pgseek.words('english', 'functools.lru_cache saves results')",
    "weigh": f"SELECT pgseek.weigh(pgseek.words('english', 'saves results'), {_WEIGHTING})",
    "analyze": f"SELECT * FROM pgseek.analyze('english', 'title', 'saves results', {_WEIGHTING})",
    "propose_weighting": "SELECT pgseek.propose_weighting('english', '{t}', '{saves results}')",
    "bm25_code": "SELECT pgseek.bm25_code(1, 7)",
    "bm25_codes": "SELECT pgseek.bm25_codes(collection_id, terms) FROM pgseek.chunks ORDER BY collection_id,"
    " document_id, ordinal LIMIT 5",
    "bm25_query": "SELECT pgseek.bm25_query('{3,5}', '{1,0.5}')",
    "quote_lexeme": "SELECT pgseek.quote_lexeme('don''t')",
    "match_all": "SELECT pgseek.match_all('{english}', 'saves results', true)",
    "bm25_bag": "SELECT * FROM pgseek.bm25_bag('{english}', 'functions cache functions')",
    "tenant": "SELECT pgseek.tenant()",
    "tenant_collections": "SELECT pgseek.tenant_collections()",
    "is_of_tenant": "SELECT pgseek.is_of_tenant(1)",
    "require_collection": "SELECT (pgseek.require_collection('docs')).*",
    "bm25_terms": f"SELECT * FROM {_ASKED}",
    "bm25_guess": f"SELECT pgseek.bm25_guess(2, t.weights, t.counts, 6, {_BOUNDS}, {_STATISTICS}, 1.2, 0.75)"
    f" FROM {_ASKED} t",
    "bm25_clauses": "SELECT c.* FROM "
    f"{_ASKED} t, pgseek.bm25_clauses(1, 1, t.weights[1] * 0.8, t.dimensions, t.weights,"
    f" '{{5000,40000}}', 100000, {_BOUNDS}, {_STATISTICS}) c",
    "bm25_scan": "SELECT s.* FROM "
    f"{_ASKED} t, pgseek.bm25_scan(1, pgseek.bm25_query(t.dimensions, t.weights), 5,"
    " ARRAY[pgseek.bm25_code(1, t.dimensions[1])], NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) s",
    "bm25_candidates": "SELECT c.* FROM "
    f"{_ASKED} t, pgseek.bm25_candidates(1, t.dimensions, t.weights, t.counts, 5) c",
    "bm25_shares": "SELECT pgseek.bm25_shares(1)",
    "vocabulary": "SELECT * FROM pgseek.vocabulary(1, 'func')",
    "expand_prefix": "SELECT * FROM pgseek.expand_prefix(1, '{english}', 'func')",
    "correct_word": "SELECT * FROM pgseek.correct_word(1, '{english}', 'functoin')",
    "parse_query": "SELECT * FROM pgseek.parse_query(1, '{english}', '+function cach* -zebra functoin')",
    "metadata_number": """SELECT pgseek.metadata_number('{"a": {"b": 1.5}}', '{a,b}')""",
    "metadata_text": """SELECT pgseek.metadata_text('{"a": "x"}', '{a}')""",
    "filter_conditions": """SELECT pgseek.filter_conditions(1, '$.year >= 2020')""",
    "matching_documents": "SELECT pgseek.matching_documents(1, '$.module == \"functools\"')",
    "snippet": "SELECT pgseek.snippet('english', 'it saves the results', '{save}', '{<,>}')",
    "describe_space": "SELECT pgseek.describe_space(1)",
    "check_model": "SELECT pgseek.check_model('docs', 1, 1, NULL)",
    "dense_parts": "SELECT p.* FROM pgseek.embedding_spaces s, pgseek.dense_parts(s) p ORDER BY s.space_id",
    "begin_walk": "SELECT pgseek.begin_walk(s, 100) FROM pgseek.embedding_spaces s ORDER BY s.space_id",
    "end_walk": "SELECT pgseek.end_walk(pgseek.begin_walk(s, 100)) FROM pgseek.embedding_spaces s"
    " ORDER BY s.space_id",
    "nearest": "SELECT n.* FROM (SELECT embedding FROM pgseek.embeddings_1 ORDER BY document_id, ordinal LIMIT 1)"
    " AS one, pgseek.nearest(1, one.embedding, 3) AS n",
    "similar_pairs": "SELECT p.* FROM pgseek.similar_pairs(1, ARRAY[pgseek.document_id('lru_cache')], 0.1) AS p",
    "query_marks": "SELECT pgseek.query_marks('how do I disable the cache of 2 functions')",
    "tell_apart": "SELECT pgseek.tell_apart('cancel order 123', 'cancel order 124')",
    "question_key": "SELECT pgseek.question_key('How is a function cached?')",
    "check_question": "SELECT pgseek.check_question('how', '')",
    "question_vector": "SELECT pgseek.question_vector(s, '', 'how', NULL) FROM pgseek.embedding_spaces s"
    " WHERE s.space_id = 1",
    "find_answer": "SELECT count(*) AS answers FROM pgseek.find_answer('docs', 'how is a function cached')",
    "query_kind": "SELECT pgseek.query_kind('how do I cache')",
    "auto_alpha": "SELECT pgseek.auto_alpha(0.3, 'question', 'wordllama')",
    "seconds": """SELECT pgseek.seconds('"2026-02-30T10:00:00+02:00"')""",
    "boost": """SELECT pgseek.boost('{"year": 2020}', '[{"when": "$.year > 2000", "factor": 2}]', 'epoch')""",
    "read_options": f"SELECT pgseek.read_options({_DOCS}, '{{}}')",
    "read_query": f"SELECT (pgseek.read_query({_DOCS}, 'function cach*')).*",
    "restricted": f"SELECT pgseek.restricted({_DOCS}, '$1')",
    "fuse": f"SELECT f.hits, f.lexical_found FROM {_FUSED} AS f",
    "shape": f"SELECT pgseek.shape({_DOCS}, s, f.hits, {_OPTIONS}, 2)"
    f" FROM pgseek.embedding_spaces s, {_FUSED} AS f WHERE s.space_id = 1",
    "expand_by_feedback": f"SELECT (x.expanded).known FROM pgseek.embedding_spaces s, {_FUSED} AS f,"
    f" pgseek.expand_by_feedback({_DOCS}, s, NULL, pgseek.read_query({_DOCS}, 'function'), f.hits, {_OPTIONS}) AS x"
    " WHERE s.space_id = 1",
    "rank": f"SELECT r.hits FROM pgseek.rank({_DOCS}, 'function', NULL, {_OPTIONS}, 3) AS r",
    "show": f"SELECT s.* FROM {_FUSED} AS f, pgseek.show({_DOCS}, f.hits, NULL,"
    f" pgseek.read_query({_DOCS}, 'function'), {_OPTIONS}, NULL) AS s",
    "search_page": "SELECT * FROM pgseek.search_page('docs', 'function', 1)",
    "similar": "SELECT * FROM pgseek.similar('docs', 'lru_cache', 3)",
    "read_examples": f"SELECT x.* FROM pgseek.read_examples({_DOCS}, '{{lru_cache}}', '{{reduce}}', '{{}}') AS x"
    " ORDER BY x.external_id",
    "recommend": "SELECT * FROM pgseek.recommend('docs', '{lru_cache}', '{reduce}')",
    "explain": "SELECT pgseek.explain('docs', 'function') - 'milliseconds'",
    "facet": "SELECT pgseek.facet(1, ARRAY[pgseek.document_id('lru_cache')], 'module')",
    "facets": "SELECT pgseek.facets('docs', 'function', '{module,year:histogram:2}')",
    "mean_embedding": "SELECT pgseek.mean_embedding(ARRAY['[1,0]', '[0,2]']::vector[], '{2,-1}')",
    "search": "SELECT * FROM pgseek.search('docs', 'cache the results of a function')",
    "canonical_language": "SELECT pgseek.canonical_language('pg_catalog.english')",
    "document_problem": """SELECT pgseek.document_problem('{"id": "", "text": "x"}')""",
    "stand_ins": f"SELECT * FROM pgseek.stand_ins('english', 'title', 'some text', {_WEIGHTING})",
    "misplaced_chunks": "SELECT m.* FROM pgseek.documents d, pgseek.misplaced_chunks(d.collection_id,"
    " d.document_id, d.body) m ORDER BY d.collection_id, d.document_id",
}

WRITING = {
    "protect": "SELECT pgseek.protect()",
    "erase_documents": "SELECT pgseek.erase_documents(1, ARRAY[pgseek.document_id('lru_cache')])",
    "enqueue_documents": "SELECT pgseek.enqueue_documents(1, ARRAY[pgseek.document_id('lru_cache')],"
    " '{}', '{}', '{}', '{}', '{}', '{}')",
    "delete_embeddings": "SELECT pgseek.delete_embeddings(1, ARRAY[pgseek.document_id('lru_cache')])",
    "live_spaces": "SELECT * FROM pgseek.live_spaces(1)",
    "put_embeddings": "SELECT pgseek.put_embeddings('docs', s.provider || ':' || s.model, '{lru_cache}', '{0}',"
    " ARRAY[e.embedding]) FROM pgseek.embeddings_1 e, pgseek.embedding_spaces s WHERE s.space_id = 1 LIMIT 1",
    "add_language": "SELECT pgseek.add_language(1, 'french')",
    "refresh_statistics": "SELECT pgseek.refresh_statistics('docs')",
    "reweigh": "SELECT pgseek.reweigh('docs')",
    "put_documents": """SELECT pgseek.put_documents('docs', '[{"id": "n", "text": "new"}]')""",
    "put_document": "SELECT pgseek.put_document('docs', 'n', 'new')",
    "delete_by_id": "SELECT pgseek.delete_by_id(1, ARRAY[pgseek.document_id('lru_cache')])",
    "delete_documents": "SELECT pgseek.delete_documents('docs', '{lru_cache}')",
    "delete_document": "SELECT pgseek.delete_document('docs', 'lru_cache')",
    "put_answer": "SELECT pgseek.put_answer('docs', 'how is a function cached', 'by lru_cache')",
    "clear_answers": "SELECT pgseek.clear_answers('docs')",
    "follow_rows": "SELECT pgseek.follow_rows('docs', NULL, '{lru_cache}')",
}

# Run with the rights of their owner, past all policies: each is called by a collection's name and hands it to
# require_collection() before anything else, or tells of the session's own tenant only.
OWNERS_RIGHTS = {
    "tenant",
    "tenant_collections",
    "is_of_tenant",
    "search",
    "search_page",
    "similar",
    "recommend",
    "explain",
    "facets",
    "put_documents",
    "put_document",
    "put_embeddings",
    "delete_documents",
    "delete_document",
    "refresh_statistics",
    "reweigh",
    "find_answer",
    "put_answer",
    "clear_answers",
}

# What a user calls, and docs/sql.md describes; the rest is internal.
PUBLIC = (
    "search",
    "search_page",
    "similar",
    "recommend",
    "facets",
    "explain",
    "put_documents",
    "put_document",
    "delete_documents",
    "delete_document",
    "put_embeddings",
    "refresh_statistics",
    "reweigh",
    "mean_embedding",
    "find_answer",
    "put_answer",
    "clear_answers",
    "tell_apart",
    "query_kind",
    "boost",
    "document_id",
    "tenant",
)
# These begin with a collection's name, too, but are called by triggers and by other functions.
INTERNAL_BY_NAME = {"follow_rows", "check_model"}
