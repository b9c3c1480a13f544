"""Maps and clusters by UMAP, which compiles itself for half a minute first."""

from __future__ import annotations

import pytest
from topics import corpus

from pgseek.analysis import ClusterPlan, assignments, cluster, map_clusters

pytestmark = [
    pytest.mark.slow,
    # What numba and scikit-learn say of their own future.
    pytest.mark.filterwarnings("default"),
]


def test_umap_keeps_topics_apart_and_the_same_seed_gives_the_same_map(client):
    documents, embedder, topics = corpus(each=30, spread=0.1)
    docs = client.create_collection("docs", embedder=embedder)
    docs.ingest(documents)
    found = cluster(docs, ClusterPlan(method="hdbscan", reduction="umap", min_size=10))
    groups = {}
    for one in assignments(docs, found):
        groups.setdefault(one.cluster, set()).add(topics[one.id])
    groups.pop(-1, None)
    assert sorted(map(sorted, groups.values())) == [["bread"], ["engine"], ["violin"]]
    made = map_clusters(docs, found, projection="umap")
    assert made.explained is None
    assert len(made.points) == 90
    assert map_clusters(docs, found, projection="umap") == made
