"""How close a collection's vectors lie, held against numpy over all of them."""

from __future__ import annotations

import numpy as np
import pytest
from support import CountingEmbedder, rows
from topics import corpus

from pgseek import Client, InvalidInput, MemoryIndex
from pgseek.analysis import between, distribution, outliers, plot_distribution
from pgseek.similarity import distances, score_of, scores


@pytest.fixture(scope="module")
def known(module_dsn):
    documents, embedder, _ = corpus(each=15)
    text = "Nothing like the others"
    embedder.given[text] = np.eye(16)[9]
    documents.append({"id": "alone", "text": text})
    with Client(module_dsn) as client:
        docs = client.create_collection("docs", embedder=embedder)
        docs.ingest(documents)
        yield docs, MemoryIndex.from_collection(docs)


def test_scores_of_random_pairs_and_of_neighbours(known, tmp_path):
    docs, index = known
    found = distribution(docs, pairs=5000, probes=46)
    everything = scores(index.vectors, index.vectors)
    apart = everything[~np.eye(len(everything), dtype=bool)]
    assert (found.sampled, found.probed, found.random.pairs) == (46, 46, 5000)
    assert found.random.mean == pytest.approx(apart.mean(), abs=0.03)
    assert found.random.quantiles["0"] >= apart.min() - 1e-6
    np.fill_diagonal(everything, -2)
    nearest = everything.max(axis=1)
    assert found.nearest.mean == pytest.approx(nearest.mean(), abs=1e-5)
    assert found.nearest.quantiles["0"] == pytest.approx(nearest.min(), abs=1e-5)
    assert sum(found.random.counts) == 5000
    assert len(found.random.edges) == len(found.random.counts) + 1
    assert found.random.edges == found.nearest.edges
    assert 0 <= found.overlap < 0.6
    assert distribution(docs, pairs=5000, probes=46) == found
    assert distribution(docs, pairs=5000, probes=46, seed=1).random != found.random
    assert plot_distribution(found, tmp_path / "spread.svg").stat().st_size > 5000
    assert "taken by chance" in (tmp_path / "spread.svg").read_text()


def test_the_outlier_and_the_hubs_are_those_of_numpy(known):
    docs, index = known
    found = outliers(docs, k=3, most=5)
    everything = scores(index.vectors, index.vectors)
    np.fill_diagonal(everything, -2)
    order = np.argsort(-everything, axis=1)[:, :3]
    means = np.take_along_axis(everything, order, axis=1).mean(axis=1)
    names = [name for name, _ in index.keys]
    expected = sorted(zip(means.tolist(), names, strict=True))[:5]
    assert found.outliers[0].id == "alone"
    assert [one.id for one in found.outliers] == [name for _, name in expected]
    assert [one.score for one in found.outliers] == pytest.approx([mean for mean, _ in expected], abs=1e-5)
    assert found.mean == pytest.approx(means.mean(), abs=1e-5)
    times = np.bincount(order.ravel(), minlength=len(names))
    assert {one.id: one.times for one in found.hubs[:1]}.items() <= dict(
        zip(names, times.tolist(), strict=True)
    ).items()
    assert found.hubs[0].times == times.max()
    skewness = (((times - times.mean()) / times.std()) ** 3).mean()
    assert found.hubness == pytest.approx(skewness, rel=1e-6)
    part = outliers(docs, k=3, sample=7)
    assert (part.checked, part.chunks) == (7, 46)


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2", "l1"])
@pytest.mark.parametrize("storage", ["vector", "halfvec"])
def test_every_metric_is_the_operators_own(client, dsn, metric, storage):
    """Vectors of several lengths, so that the metrics disagree."""
    random = np.random.default_rng(4)
    given = {f"text {n}": random.normal(size=8) * (n + 1) for n in range(6)}
    embedder = CountingEmbedder(8, given=given)
    embedder.identity = type(embedder.identity)("tests", "long", 8, normalized=False)
    embedder.model_id = str(embedder.identity)
    docs = client.create_collection("docs", embedder=embedder, metric=metric, storage=storage)
    docs.ingest({"id": f"d{n}", "text": f"text {n}"} for n in range(6))
    sign = {"cosine": "<=>", "inner_product": "<#>", "l2": "<->", "l1": "<+>"}[metric]
    table = f"pgseek.embeddings_{docs.info().space_id}"
    pairs = rows(
        dsn,
        f"SELECT a.embedding AS a, b.embedding AS b, (a.embedding {sign} b.embedding) AS distance FROM {table} a, {table} b",
    )
    for pair in pairs:
        a, b = (np.array(one.strip("[]").split(","), dtype=np.float32) for one in (pair["a"], pair["b"]))
        assert float(distances(a, b, metric)) == pytest.approx(pair["distance"], rel=1e-5, abs=2e-3)
    found = outliers(docs, k=2, most=6)
    index = MemoryIndex.from_collection(docs)
    everything = distances(index.vectors, index.vectors, metric)
    np.fill_diagonal(everything, np.inf)
    nearest = np.sort(everything, axis=1)[:, :2]
    means = dict(zip([name for name, _ in index.keys], score_of(nearest, metric).mean(axis=1), strict=True))
    assert {one.id: one.score for one in found.outliers} == pytest.approx(means, rel=2e-3)
    spread = distribution(docs, pairs=100, probes=6)
    assert spread.metric == metric
    hit = docs.search(
        "text 1", query_embedding=given["text 1"], model=str(embedder.identity), alpha=1.0, k=6
    )[0]
    twin = index.search("text 1", query_embedding=given["text 1"], alpha=1.0)[0]
    assert (hit.id, hit.dense_score) == (twin.id, pytest.approx(twin.dense_score, rel=1e-3))


def test_documents_with_each_other(known):
    docs, _ = known
    found = between(docs, ["bread-0", "bread-1", "alone"])
    assert found.scores[0][0] == pytest.approx(1)
    assert found.scores[0][1] == found.scores[1][0]
    assert found.scores[0][1] > 0.9 > found.scores[0][2]
    assert between(docs, ["bread-0", "alone"], metric="l2").scores[0][1] == pytest.approx(
        1 / (1 + 2**0.5), rel=0.1
    )
    with pytest.raises(InvalidInput, match="has no document 'nobody'"):
        between(docs, ["bread-0", "nobody"])
    with pytest.raises(InvalidInput, match="must be 2 to 1,000 ids"):
        between(docs, ["bread-0"])
    with pytest.raises(InvalidInput, match="metric is 'dot'"):
        between(docs, ["bread-0", "alone"], metric="dot")


def test_neighbours_are_of_other_documents(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(8), chunk_size=30)
    docs.ingest(
        {"id": f"d{n}", "text": "the very same sentence again\n\n" * 6 + f"and {n}"} for n in range(3)
    )
    found = distribution(docs, pairs=50, probes=9)
    assert found.nearest.pairs == 9
    assert found.nearest.quantiles["1"] == pytest.approx(1, abs=1e-6)


def test_what_cannot_be_compared_says_why(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(8))
    for ask in (distribution, outliers):
        with pytest.raises(InvalidInput, match="holds no documents"):
            ask(docs)
    docs.ingest([{"id": "a", "text": "one"}])
    with pytest.raises(InvalidInput, match="are of one document"):
        distribution(docs)
    assert outliers(docs).outliers == ()
    for given, message in (
        ({"sample": 1}, "sample is 1"),
        ({"pairs": 0}, "pairs is 0"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(InvalidInput, match=message):
            distribution(docs, **given)
    with pytest.raises(InvalidInput, match="k is 0"):
        outliers(docs, k=0)
