"""Ranking quality on judged collections with the default embedder and default settings."""

from __future__ import annotations

import gzip
import json

import ir_measures
import pytest
from ir_measures import nDCG

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("folder", "language", "lexical_floor", "hybrid_floor"),
    [("scifact", "english", 0.68, 0.70), ("xquad-r/de", "german", 0.78, 0.80)],
)
def test_hybrid_is_not_below_its_better_leg(
    client, shared_data, folder, language, lexical_floor, hybrid_floor
):
    if shared_data is None:
        pytest.skip("the judged collections lie beside the checkout, and are not there")

    def read(name):
        with gzip.open(shared_data / folder / name, "rt", encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]

    docs = client.create_collection("docs", language=language, chunk_size=100_000)
    docs.ingest(
        {"id": d["_id"], "title": d.get("title") or "", "text": d["text"]} for d in read("corpus.jsonl.gz")
    )
    docs.refresh_statistics(reweigh=True)
    rows = [
        line.split("\t") for line in (shared_data / folder / "qrels/test.tsv").read_text().splitlines()[1:]
    ]
    qrels = [ir_measures.Qrel(query, document, int(score)) for query, document, score in rows]
    judged = {qrel.query_id for qrel in qrels}
    asked = [query for query in read("queries.jsonl.gz") if query["_id"] in judged]
    assert len(asked) >= 300

    def measured(**options):
        run = [
            ir_measures.ScoredDoc(query["_id"], hit.id, -hit.rank)
            for query in asked
            for hit in docs.search(query["text"], k=10, snippets=False, **options)
        ]
        return ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]

    dense, lexical, hybrid = measured(alpha=1), measured(alpha=0), measured()
    assert lexical >= lexical_floor
    assert hybrid >= hybrid_floor
    assert hybrid >= max(dense, lexical)
