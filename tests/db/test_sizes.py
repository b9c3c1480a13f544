"""Vectors of every size, metric and form of index: stored, walked and scored as they should be."""

from __future__ import annotations

import numpy as np
import pytest
from support import CountingEmbedder, rows

from pgseek import Client
from pgseek.db.connection import connect

GRID = [(d, "cosine", None) for d in (64, 256, 384, 768, 1024, 1536, 3072, 4096)]
GRID += [(d, m, None) for d in (64, 3072, 4096) for m in ("inner_product", "l2", "l1")]
GRID += [(256, m, i) for m in ("cosine", "l2", "l1") for i in ("binary", "prefix=64")]
GRID += [(64, m, "ivfflat,lists=10") for m in ("cosine", "inner_product", "l2")]


@pytest.mark.parametrize(("dimensions", "metric", "index"), GRID)
def test_every_size_and_metric_is_searched_through_its_index(dsn, dimensions, metric, index):
    """The vector of a document itself finds it; EXPLAIN shows the index; scores are those of numpy."""
    embedder = CountingEmbedder(dimensions)
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=embedder, metric=metric, index=index)
        docs.ingest([{"id": str(n), "text": f"text {n}"} for n in range(1100)])
        space = docs.info().space
        assert space.storage == ("vector" if dimensions <= 2000 else "halfvec")
        if index is None:
            assert space.index.form == ("full" if dimensions <= 4000 else "binary")
        query = embedder._vector("text 7")
        hits = docs.search("?", query_embedding=query, alpha=1, k=5)
        plan = rows(
            dsn,
            "SELECT p.walk FROM pgseek.embedding_spaces s, pgseek.dense_parts(s, '$1') p",
        )[0]
        literal = "'[" + ",".join(map(str, query)) + f"]'::vector({dimensions})"
        walk = plan["walk"].replace("$1", literal)
        with connect(dsn) as connection, connection.transaction():
            # Of so few rows the planner would read all: this is whether it can walk the index.
            connection.execute("SET LOCAL enable_seqscan = off")
            lines = connection.execute(
                f"EXPLAIN SELECT document_id FROM pgseek.embeddings_1 e ORDER BY {walk} LIMIT 10"
            ).fetchall()
        assert any(f"embeddings_1_{space.index.method}" in line["QUERY PLAN"] for line in lines), lines
    assert hits[0].id == "7"
    vectors = {str(n): np.asarray(embedder._vector(f"text {n}")) for n in range(1100)}
    for hit in hits:
        other = vectors[hit.id]
        expected = {
            "cosine": query @ other,
            "inner_product": query @ other,
            "l2": 1 / (1 + np.linalg.norm(query - other)),
            "l1": 1 / (1 + np.abs(query - other).sum()),
        }[metric]
        assert hit.dense_score == pytest.approx(expected, abs=2e-2 if metric != "cosine" else 2e-3)
    assert [hit.dense_score for hit in hits] == sorted((hit.dense_score for hit in hits), reverse=True)
