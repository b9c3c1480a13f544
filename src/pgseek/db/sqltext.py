"""The text of pgseek's SQL functions at head, one file per function under ``sql/``."""

from __future__ import annotations

from importlib.resources import files

# The order they can be created in.
FUNCTIONS = (
    "document_id",
    "content_hash",
    "dimension",
    "unspaced_letter",
    "plain",
    "fold",
    "words",
    "weigh",
    "analyze",
    "propose_weighting",
    "bm25_code",
    "bm25_codes",
    "bm25_query",
    "quote_lexeme",
    "match_all",
    "bm25_bag",
    "tenant",
    "tenant_collections",
    "is_of_tenant",
    "require_collection",
    "delete_embeddings",
    "add_language",
    "metadata_number",
    "metadata_text",
    "filter_conditions",
    "matching_documents",
    "bm25_terms",
    "bm25_guess",
    "bm25_clauses",
    "bm25_scan",
    "bm25_candidates",
    "bm25_shares",
    "vocabulary",
    "expand_prefix",
    "correct_word",
    "parse_query",
    "snippet",
    "refresh_statistics",
    "reweigh",
    "describe_space",
    "check_model",
    "dense_parts",
    "begin_walk",
    "end_walk",
    "nearest",
    "live_spaces",
    "query_kind",
    "seconds",
    "boost",
    "read_options",
    "read_query",
    "restricted",
    "fuse",
    "shape",
    "expand_by_feedback",
    "rank",
    "show",
    "search",
    "search_page",
    "similar",
    "explain",
    "facet",
    "facets",
    "mean_embedding",
    "canonical_language",
    "document_problem",
    "stand_ins",
    "enqueue_documents",
    "erase_documents",
    "mirror_documents",
    "put_documents",
    "put_document",
    "delete_by_id",
    "delete_documents",
    "delete_document",
    "follow_rows",
    "misplaced_chunks",
    "put_embeddings",
    "protect",
)


def function_sql(name: str, vector_schema: str = "public") -> str:
    """Return the CREATE statement of one function.

    ``vector_schema`` is the quoted name of the schema pgvector is installed in: operators are
    written with it because the functions pin ``search_path``.
    """
    text = files("pgseek.db").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    return text.replace("@vector@", vector_schema)
