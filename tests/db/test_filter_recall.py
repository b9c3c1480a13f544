"""Recall of filtered searches, where the filter keeps what is near to the query and where what is far from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support import CountingEmbedder, rows

from pgseek import Client, F
from pgseek.db.connection import connect

# More than are compared exactly, so that the graph is walked.
MANY, DIMENSIONS = 24_000, 16


@pytest.fixture(scope="module")
def sides(module_dsn):
    """Documents whose metadata says how near they are to the first axis: 0 is the nearest."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(MANY, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = np.argsort(np.argsort(-vectors[:, 0]))
    with Client(module_dsn) as client:
        info = client.create_collection("sides", embedder=CountingEmbedder(DIMENSIONS)).info()
        with connect(module_dsn) as connection:
            connection.execute(
                "INSERT INTO pgseek.documents (collection_id, document_id, external_id, body, language, metadata,"
                " content_hash) SELECT %s, pgseek.document_id(n::text), n::text, 'w', 'simple',"
                " jsonb_build_object('near', m), 'x' FROM unnest(%s::int[]) WITH ORDINALITY AS u (m, p),"
                " LATERAL (SELECT p - 1) AS l (n)",
                [info.collection_id, near.tolist()],
            )
            connection.execute(
                "INSERT INTO pgseek.chunks (collection_id, document_id, ordinal, title, text, language, char_start,"
                " char_end, text_hash, lexemes, terms) SELECT %s, document_id, 0, '', 'w', 'simple', 0, 1, 'x', a.lexemes,"
                " a.terms FROM pgseek.documents JOIN pgseek.collection_statistics s USING (collection_id),"
                " pgseek.analyze('simple', '', 'w', s.weighting) a WHERE collection_id = %s",
                [info.collection_id] * 2,
            )
            ids = rows(module_dsn, "SELECT document_id, external_id FROM pgseek.documents")
            with connection.cursor().copy(f"COPY pgseek.embeddings_{info.space_id} FROM STDIN") as copy:
                for row in ids:
                    vector = str(vectors[int(row["external_id"])].tolist())
                    copy.write_row((info.collection_id, row["document_id"], 0, vector))
            connection.execute("SET search_path = public")
            connection.execute(
                f"CREATE INDEX embeddings_{info.space_id}_hnsw ON pgseek.embeddings_{info.space_id}"
                " USING hnsw (embedding vector_cosine_ops)"
            )
            connection.execute("ANALYZE")
            connection.execute("SELECT pgseek.refresh_statistics('sides')")
    return module_dsn, vectors, near


@pytest.mark.parametrize("kept", [MANY // 2, 11_000, 9_000, 240, 24, 2])
@pytest.mark.parametrize("which", ["near", "far"])
def test_what_lies_far_from_the_query_is_found_as_well(sides, kept, which):
    """The filter keeps what is nearest to the query, or what is farthest from it."""
    dsn, vectors, near = sides
    query = np.zeros(DIMENSIONS)
    query[0] = 1
    condition = F("near") < kept if which == "near" else F("near") >= MANY - kept
    order = np.argsort(near)
    nearest = order[:kept] if which == "near" else order[MANY - kept :]
    with Client(dsn) as client:
        docs = client.collection("sides", embedder=CountingEmbedder(DIMENSIONS))
        for k in (10, 100):
            hits = docs.search(
                "zzz",
                model=str(docs.info().identity),
                query_embedding=query,
                alpha=1,
                filter=condition,
                k=k,
                snippets=False,
            )
            best = {str(n) for n in nearest[np.argsort(-(vectors[nearest] @ query), kind="stable")][:k]}
            assert len(hits) == min(k, kept)
            assert len({hit.id for hit in hits} & best) >= 0.98 * len(best)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, MANY), st.integers(0, MANY), st.integers(1, 60), st.integers(0, 5))
def test_never_fewer_than_k_or_all_that_match(sides, one, other, k, seed):
    dsn, _, near = sides
    low, high = sorted((one, other))
    matching = int(((near >= low) & (near < high)).sum())
    assume(matching)
    with Client(dsn) as client:
        docs = client.collection("sides", embedder=CountingEmbedder(DIMENSIONS))
        query = np.random.default_rng(seed).normal(size=DIMENSIONS)
        condition = {"near": {"$gte": low, "$lt": high}}
        hits = docs.search(
            "w", model=str(docs.info().identity), query_embedding=query, filter=condition, k=k, snippets=False
        )
    assert len({hit.id for hit in hits}) == len(hits) == min(k, matching)
    assert all(low <= hit.metadata["near"] < high for hit in hits)
