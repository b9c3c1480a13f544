"""A new space beside the one that is searched: the same hits, the recall of its index, quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pgseek.embedders.base import Vectors
from pgseek.embedding import Embedding
from pgseek.reembed.switching import fusion_of
from pgseek.search import query_embedding, search_with
from pgseek.steps import (
    Script,
    fetch,
)
from pgseek.types import (
    CollectionInfo,
    Gate,
    GateReport,
    Search,
    SpaceInfo,
)


def judge(before: Embedding, after: Embedding, gate: Gate) -> Script[GateReport]:
    """Compare a new space with the one that is searched, by queries: given ones, or texts of the collection.

    Overlap and quality are of whole searches as the collection is set; recall is the index of the new space
    against all of its vectors.
    """
    queries = dict(gate.queries)
    sampled = not queries
    if sampled:
        queries = yield from _sample(before.info, gate.sample)
    old_runs: dict[str, list[str]] = {}
    new_runs: dict[str, list[str]] = {}
    recalls: list[float] = []
    for name, text in queries.items():
        request = Search(text[:1000], k=gate.k, snippets=False, syntax="plain")
        for run, runs in ((before, old_runs), (after, new_runs)):
            vector = yield from query_embedding(run.info, run.embedder, request.query, run.policy)
            asked = replace(request, space=run.info.space_id)
            if run is after:
                recalls.append((yield from _recall(run.info.space, vector, gate.k)))
                # As it would be searched once it is the active one.
                beside = before.info.collection_id == after.info.collection_id
                chosen = fusion_of(before.info, after.info.space) if beside else {}
                if chosen and before.info.settings.get("fusion") == "weighted":
                    asked = replace(asked, alpha=chosen["alpha"], normalization=chosen["normalization"])
            hits = yield from search_with(run.info, asked, vector)
            runs[name] = list(dict.fromkeys(hit.id for hit in hits))
    shares = [
        len(set(old_runs[name]) & set(new_runs[name])) / max(len(old_runs[name]), len(new_runs[name]), 1)
        for name in queries
    ]
    judged = [name for name in queries if gate.qrels.get(name)]
    quality = [
        math.fsum(ndcg(runs[name], gate.qrels[name], gate.k) for name in judged) / len(judged)
        if judged
        else None
        for runs in (old_runs, new_runs)
    ]
    overlap, recall = (math.fsum(v) / len(v) if v else 1.0 for v in (shares, recalls))
    reasons = []
    if recall < gate.min_recall:
        reasons.append(f"the index finds {recall:.3f} of the nearest, but {gate.min_recall:g} are asked for")
    if overlap < gate.min_overlap:
        reasons.append(f"{overlap:.3f} of the hits are the same, but {gate.min_overlap:g} are asked for")
    if quality[0] is not None and quality[1] is not None and quality[1] < quality[0] - gate.max_loss:
        reasons.append(
            f"nDCG@{gate.k} falls from {quality[0]:.3f} to {quality[1]:.3f}, by more than {gate.max_loss:g}"
        )
    return GateReport(
        len(queries), sampled, gate.k, overlap, recall, len(judged), quality[0], quality[1], tuple(reasons)
    )


def _sample(info: CollectionInfo, most: int) -> Script[dict[str, str]]:
    """Return beginnings of chunks as queries: nobody's questions are known."""
    rows = yield from fetch(
        "SELECT c.document_id, c.ordinal, left(c.text, 200) AS text FROM pgseek.chunks c"
        " WHERE c.collection_id = %s AND c.kind <> 'document' AND btrim(c.text) <> ''"
        " ORDER BY sha256(c.text_hash) LIMIT %s",
        [info.collection_id, most],
    )
    found = {}
    for row in rows:
        # A sentence, or what there is of one.
        text = row["text"].replace("\x00", "").strip()
        end = min((i + 1 for i in map(text.find, ".?!\n") if i > 20), default=len(text))
        found[f"{row['document_id']}:{row['ordinal']}"] = text[:end].strip()
    return found


def _recall(space: SpaceInfo, vector: Vectors, k: int) -> Script[float]:
    found = []
    for exact in (False, True):
        rows = yield from fetch(
            "SELECT document_id, ordinal, distance FROM pgseek.nearest(%s, %s, %s, exact => %s)",
            [space.space_id, vector, k, exact],
        )
        found.append(rows)
    walked, best = found
    if not best:
        return 1.0
    # Of rows that are equally near any will do.
    farthest = best[-1]["distance"] + 1e-9
    return len([row for row in walked if row["distance"] <= farthest]) / len(best)


def ndcg(ranking: Sequence[str], judged: Mapping[str, int], k: int) -> float:
    """Return nDCG@k of a ranking, in 0..1: gain = grade, discount = log2(1 + rank).

    Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, 2002, as trec_eval has it.
    """
    gain = math.fsum(max(0, judged.get(name, 0)) / math.log2(n + 2) for n, name in enumerate(ranking[:k]))
    best = sorted((grade for grade in judged.values() if grade > 0), reverse=True)[:k]
    ideal = math.fsum(grade / math.log2(n + 2) for n, grade in enumerate(best))
    return gain / ideal if ideal > 0 else 0.0
