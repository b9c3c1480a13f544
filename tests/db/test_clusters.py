"""Clusters that are known are found, named, mapped and written; wrong input is refused by name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from uuid import UUID

import numpy as np
import pytest
from psycopg.sql import SQL
from support import CountingEmbedder, rows, snapshot
from topics import TOPICS, corpus

from pgseek import Client, InvalidInput, MissingExtra
from pgseek.analysis import (
    ClusterPlan,
    assignments,
    cluster,
    map_clusters,
    plot_map,
    plot_silhouettes,
    write_clusters,
    write_page,
)
from pgseek.analysis import clusters as module
from pgseek.analysis.reading import Reader, count, sampled, select
from pgseek.db.connection import connect


@pytest.fixture(scope="module")
def known(module_dsn):
    documents, embedder, topics = corpus()
    with Client(module_dsn) as client:
        docs = client.create_collection("docs", embedder=embedder)
        docs.ingest(documents)
        docs.refresh_statistics()
        yield docs, topics


@pytest.fixture
def fresh(client):
    documents, embedder, topics = corpus(each=8)
    docs = client.create_collection("docs", embedder=embedder)
    docs.ingest(documents)
    docs.refresh_statistics()
    return docs, topics


def by_cluster(docs, found, topics):
    """Return the topics that each cluster's members have."""
    groups = {}
    for one in assignments(docs, found):
        groups.setdefault(one.cluster, set()).add(topics[one.id])
    return groups


def test_the_number_of_clusters_is_found_by_silhouette_and_the_curve_is_returned(known):
    docs, topics = known
    told = []
    found = cluster(docs, ClusterPlan(k=(2, 6)), progress=lambda *one: told.append(one))
    assert [one.k for one in found.curve] == [2, 3, 4, 5, 6]
    assert len(found.clusters) == 3
    assert max(found.curve, key=lambda one: one.silhouette).k == 3
    assert found.silhouette == pytest.approx(max(one.silhouette for one in found.curve))
    assert found.silhouette > 0.8
    assert (found.units, found.noise, found.missing) == (60, 0, 0)
    assert [one.size for one in found.clusters] == [20, 20, 20]
    groups = by_cluster(docs, found, topics)
    assert sorted(map(sorted, groups.values())) == [["bread"], ["engine"], ["violin"]]
    assert {phase for phase, _, _ in told} >= {"reading a sample", "assigning", "naming the clusters"}


def test_labels_are_the_most_specific_words_as_they_are_written(known):
    docs, topics = known
    found = cluster(docs, ClusterPlan(k=3, words=6))
    for one in found.clusters:
        (topic,) = {topics[each.id] for each in one.representatives}
        written = set(re.findall(r"[a-z]+", TOPICS[topic].lower()))
        assert {word.text for word in one.words} <= written, one.words
        # The stem of "baked" and "baking" is no word.
        assert "bake" not in {word.text for word in one.words}
        assert all(word.share == 1.0 for word in one.words)
        assert one.label == ", ".join(word.text for word in one.words[:3])
    # What all have tells none apart.
    assert not {"number"} & {word.text for one in found.clusters for word in one.words}


def test_representatives_are_nearest_to_the_centre(known):
    docs, _ = known
    found = cluster(docs, ClusterPlan(k=3, representatives=2))
    members = {}
    for one in assignments(docs, found):
        members.setdefault(one.cluster, []).append((one.closeness, one.id))
    for one in found.clusters:
        best = sorted(members[one.number], reverse=True)[:2]
        assert [each.id for each in one.representatives] == [name for _, name in best]
        assert [each.closeness for each in one.representatives] == pytest.approx([near for near, _ in best])
        assert one.representatives[0].text.startswith(("Baking", "Repairing", "Playing"))


def test_the_same_seed_finds_the_same_and_reads_in_pages_too(known, monkeypatch):
    docs, topics = known
    plan = ClusterPlan(k=3, sample=10, seed=5)
    one, other = cluster(docs, plan), cluster(docs, plan)
    assert one == other
    assert np.array_equal(one.model.centres, other.model.centres)
    assert (one.sampled, one.units) == (10, 60)
    monkeypatch.setattr("pgseek.analysis.reading.PAGE_NUMBERS", 7 * 16)
    small = cluster(docs, plan)
    assert sorted(map(sorted, by_cluster(docs, small, topics).values())) == [
        ["bread"],
        ["engine"],
        ["violin"],
    ]


def test_no_page_holds_more_rows_than_it_may_and_mini_batches_are_pages(known, monkeypatch):
    """The memory is bounded: of 60 vectors at most 7 are read at a time, and 10 held."""
    docs, _ = known
    sizes = []

    class Watched:
        def __init__(self, made):
            self.made = made

        def partial_fit(self, vectors):
            sizes.append(len(vectors))
            return self.made.partial_fit(vectors)

        @property
        def cluster_centers_(self):
            return self.made.cluster_centers_

    real = module.grouping.minibatch
    monkeypatch.setattr("pgseek.analysis.reading.PAGE_NUMBERS", 7 * 16)
    monkeypatch.setattr(module.grouping, "minibatch", lambda *given: Watched(real(*given)))
    cluster(docs, ClusterPlan(k=3, sample=10, passes=2))
    assert max(sizes) <= 7
    assert sum(sizes) == 2 * 60


def test_hdbscan_finds_them_without_a_number_and_leaves_noise_out(client):
    documents, embedder, topics = corpus()
    for n in range(4):
        text = f"Something else entirely {n}"
        vector = np.zeros(16)
        vector[8 + n] = 1
        embedder.given[text] = vector
        documents.append({"id": f"else-{n}", "text": text})
        topics[f"else-{n}"] = "else"
    docs = client.create_collection("docs", embedder=embedder)
    docs.ingest(documents)
    found = cluster(docs, ClusterPlan(method="hdbscan", min_size=10))
    groups = by_cluster(docs, found, topics)
    assert groups.pop(-1) == {"else"}
    assert sorted(map(sorted, groups.values())) == [["bread"], ["engine"], ["violin"]]
    assert (found.noise, found.units, found.curve) == (4, 64, ())
    # Those that were not sampled join the nearest that was.
    sampled_only = cluster(docs, ClusterPlan(method="hdbscan", min_size=5, sample=40))
    assert sampled_only.sampled == 40
    assert sum(one.size for one in sampled_only.clusters) + sampled_only.noise == 64
    write_clusters(docs, found, "topic")
    assert {name for name in topics if "topic" not in docs.get(name).metadata} == {
        f"else-{n}" for n in range(4)
    }
    # Noise loses what it had.
    docs.ingest([{**documents[-1], "metadata": {"topic": "bread", "kept": 1}}])
    assert write_clusters(docs, found, "topic").cleared == 1
    assert docs.get("else-3").metadata == {"kept": 1}


def test_written_clusters_serve_filters_and_facets_and_nothing_is_embedded_or_divided_anew(fresh, dsn):
    docs, topics = fresh
    embedder = docs._embedder
    asked = len(embedder.documents)
    found = cluster(docs, ClusterPlan(k=3))
    before = snapshot(dsn)
    seen = write_clusters(docs, found, "topic", preview=True)
    assert (seen.changed, seen.cleared, seen.unchanged, seen.preview) == (24, 0, 0, True)
    assert snapshot(dsn) == before
    done = write_clusters(docs, found, "topic")
    assert (done.changed, done.unchanged, done.preview) == (24, 0, False)
    after = snapshot(dsn)
    assert {name for name in after if after[name] != before[name]} == {"documents"}
    hashes = [row[-1] for row in before["documents"]]
    assert [row[-1] for row in after["documents"]] == hashes
    assert len(embedder.documents) == asked
    facet = docs.facets(None, ["topic"], over="filter").facets["topic"]
    assert {value.value: value.documents for value in facet.values} == {
        one.label: one.size for one in found.clusters
    }
    label = found.clusters[1].label
    kept = {hit.id for hit in docs.search("number", k=50, filter={"topic": label})}
    assert kept == {one.id for one in assignments(docs, found) if one.cluster == 1}
    assert docs.get("bread-0").metadata["even"] is True

    stamps = rows(dsn, "SELECT updated_at FROM pgseek.documents ORDER BY document_id")
    again = write_clusters(docs, found, "topic")
    assert (again.changed, again.unchanged) == (0, 24)
    assert rows(dsn, "SELECT updated_at FROM pgseek.documents ORDER BY document_id") == stamps
    write_clusters(docs, found, "number", value="number")
    assert {docs.get(name).metadata["number"] for name in topics} == {0, 1, 2}


def test_a_filter_and_chunks(fresh):
    docs, topics = fresh
    even = cluster(docs, ClusterPlan(k=3, filter={"even": True}))
    assert even.units == 12
    assert {one.id for one in assignments(docs, even)} == {n for n in topics if int(n.split("-")[1]) % 2 == 0}
    written = write_clusters(docs, even, "topic")
    assert written.changed == 12
    chunks = cluster(docs, ClusterPlan(k=3, by="chunk"))
    assert {one.ordinal for one in assignments(docs, chunks)} == {0}
    assert chunks.clusters[0].representatives[0].ordinal == 0
    with pytest.raises(InvalidInput, match="metadata is the documents'"):
        write_clusters(docs, chunks, "topic")


def test_a_documents_vector_is_the_mean_of_its_chunks_wherever_a_page_ends(client, monkeypatch):
    docs = client.create_collection("docs", embedder=CountingEmbedder(8), chunk_size=40)
    docs.ingest(
        {"id": f"d{n}", "text": " ".join(f"word{n}x{m} and more" for m in range(12))} for n in range(5)
    )
    run, info = docs._client._run, docs.info()
    expected = {}
    for row in run(_all_vectors(info)):
        expected.setdefault(row["document_id"], []).append(row["embedding"].to_numpy())
    assert all(len(one) > 3 for one in expected.values())
    selection = run(select(info))
    for page_size in (1, 2, 3, 7, 100):
        monkeypatch.setattr("pgseek.analysis.reading.PAGE_NUMBERS", page_size * 8)
        reader, seen = Reader(selection), {}
        while (page := run(reader.next())) is not None:
            seen.update(zip(page.documents, page.vectors, strict=True))
        assert seen.keys() == expected.keys()
        for key, vectors in expected.items():
            mean = np.mean(vectors, axis=0)
            assert seen[key] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    assert run(count(selection)).units == 5
    assert len(run(sampled(selection, 3))) == 3


def _all_vectors(info):
    from pgseek import spaces
    from pgseek.steps import fetch

    return fetch(SQL("SELECT document_id, embedding FROM {}").format(spaces.table_of(info.space_id)))


@pytest.mark.parametrize("metric", ["inner_product", "l2", "l1"])
def test_half_precision_and_other_metrics(client, metric):
    documents, embedder, topics = corpus(each=8)
    docs = client.create_collection("docs", embedder=embedder, metric=metric, storage="halfvec")
    docs.ingest(documents)
    found = cluster(docs, ClusterPlan(k=3))
    assert found.unit == (metric == "inner_product")
    assert sorted(map(sorted, by_cluster(docs, found, topics).values())) == [
        ["bread"],
        ["engine"],
        ["violin"],
    ]
    dense = cluster(docs, ClusterPlan(method="hdbscan", min_size=5))
    assert len(dense.clusters) == 3


def test_documents_that_wait_are_left_out_and_counted(fresh, dsn):
    docs, _ = fresh
    rows(dsn, "SELECT pgseek.put_document('docs', 'waiting', 'bread and engines')")
    found = cluster(docs, ClusterPlan(k=3))
    assert (found.documents, found.missing, found.units) == (25, 1, 24)


def test_collections_that_cannot_be_clustered_say_why(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder(8))
    with pytest.raises(InvalidInput, match="'docs' holds no documents"):
        cluster(docs)
    rows(dsn, "SELECT pgseek.put_document('docs', 'a', 'some text')")
    with pytest.raises(InvalidInput, match=r"none of the 1 documents .* pgseek queue drain docs"):
        cluster(docs)
    docs.drain_queue()
    with pytest.raises(InvalidInput, match="1 document with a vector: too few"):
        cluster(docs)
    with pytest.raises(InvalidInput, match="no document of collection 'docs' meets the filter"):
        cluster(docs, ClusterPlan(filter={"year": 3}))
    docs.ingest([{"id": "b", "text": "other"}, {"id": "c", "text": "more"}])
    with pytest.raises(
        InvalidInput, match="k is 4, but collection 'docs' has 3 documents with a vector: give fewer"
    ):
        cluster(docs, ClusterPlan(k=4))
    with pytest.raises(InvalidInput, match="HDBSCAN takes at least 10"):
        cluster(docs, ClusterPlan(method="hdbscan"))
    with pytest.raises(InvalidInput, match="has no embedding space 99"):
        cluster(docs, ClusterPlan(space=99))
    assert [one.size for one in cluster(docs, ClusterPlan(k=3)).clusters] == [1, 1, 1]
    # Equal vectors make fewer clusters than were asked for; none is empty.
    docs.ingest({"id": f"same{n}", "text": "the same"} for n in range(9))
    assert sum(one.size for one in cluster(docs, ClusterPlan(k=6)).clusters) == 12


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "spectral"}, "method is 'spectral'"),
        ({"k": 0}, "k is 0"),
        ({"k": (9, 4)}, "k is \\(9, 4\\)"),
        ({"k": (1, 4)}, "begin with 2"),
        ({"k": 2.5}, "k is 2.5"),
        ({"k": 5, "method": "hdbscan"}, "HDBSCAN finds the number"),
        ({"by": "word"}, "by is 'word'"),
        ({"seed": -1}, "seed is -1"),
        ({"sample": 3}, "sample is 3"),
        ({"passes": 0}, "passes is 0"),
        ({"min_size": 1}, "min_size is 1"),
        ({"reduction": "tsne"}, "reduction is 'tsne'"),
        ({"dimensions": 1}, "dimensions is 1"),
    ],
)
def test_plans_are_checked_before_anything_is_read(given, message):
    with pytest.raises(InvalidInput, match=message):
        ClusterPlan(**given)


def test_what_is_not_installed_is_named_before_anything_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtra, match=r"pip install 'pgseek\[umap\]'"):
        ClusterPlan(method="hdbscan", reduction="umap")
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtra, match=r"pip install 'pgseek\[analysis\]'"):
        ClusterPlan()


@pytest.mark.parametrize("name", ["", "a.b", "x" * 300, 3])
def test_a_field_must_be_a_key(known, name):
    docs, _ = known
    found = cluster(docs, ClusterPlan(k=2))
    with pytest.raises(InvalidInput, match="the field is"):
        write_clusters(docs, found, name)
    with pytest.raises(InvalidInput, match="value is 'size'"):
        write_clusters(docs, found, "topic", value="size")


def test_a_map_keeps_clusters_apart_and_says_how_much_it_shows(known, tmp_path):
    docs, topics = known
    found = cluster(docs, ClusterPlan(k=3))
    made = map_clusters(docs, found)
    assert len(made.points) == 60
    assert sum(made.explained) > 0.9
    assert [(one.points, one.size) for one in made.clusters] == [(20, 20)] * 3
    centres = {}
    for point in made.points:
        centres.setdefault(topics[point.id], []).append((point.x, point.y))
    middles = {topic: np.mean(places, axis=0) for topic, places in centres.items()}
    for topic, places in centres.items():
        others = [middles[one] for one in middles if one != topic]
        for place in places:
            own = np.linalg.norm(place - middles[topic])
            assert own < min(np.linalg.norm(place - one) for one in others)
    assert map_clusters(docs, found) == made
    assert len(map_clusters(docs, found, points=10).points) == 10
    for name in ("map.png", "map.svg"):
        assert plot_map(made, tmp_path / name).stat().st_size > 5000
    assert "engine" in (tmp_path / "map.svg").read_text()
    with pytest.raises(InvalidInput, match="ends in none of"):
        plot_map(made, tmp_path / "map.txt")
    with pytest.raises(InvalidInput, match="the folder"):
        plot_map(made, tmp_path / "nowhere" / "map.png")
    with pytest.raises(InvalidInput, match="points is 5"):
        map_clusters(docs, found, points=5)
    with pytest.raises(InvalidInput, match="projection is 'tsne'"):
        map_clusters(docs, found, projection="tsne")
    with pytest.raises(InvalidInput, match="no curve to draw"):
        plot_silhouettes(found, tmp_path / "curve.png")
    chosen = cluster(docs, ClusterPlan(k=(2, 4)))
    assert plot_silhouettes(chosen, tmp_path / "curve.png").stat().st_size > 5000


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!-- \u2028 & @@data@@ $x$ \\"


class Elements(HTMLParser):
    """Collects elements with their attributes, and the text of scripts."""

    def __init__(self):
        super().__init__()
        self.elements, self.scripts, self.texts, self._in = [], [], [], None

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in = tag

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, data):
        (self.scripts if self._in == "script" else self.texts).append(data)


def test_a_page_holds_texts_as_data_and_loads_nothing(client, tmp_path):
    documents, embedder, _ = corpus(each=6)
    documents[0] = {**documents[0], "title": HOSTILE, "id": f"id{HOSTILE}"}
    text = documents[1]["text"] + HOSTILE
    embedder.given[text] = embedder.given[documents[1]["text"]]
    documents[1] = {**documents[1], "text": text}
    docs = client.create_collection("docs", embedder=embedder)
    docs.ingest(documents)
    made = map_clusters(docs, cluster(docs, ClusterPlan(k=3)))
    page = write_page(made, tmp_path / "map.html").read_text(encoding="utf-8")
    read = Elements()
    read.feed(page)
    tags = [tag for tag, _ in read.elements]
    assert tags.count("script") == 2
    assert "img" not in tags
    assert not any(
        name in given for _, given in read.elements for name in ("src", "href", "onerror", "onload")
    )
    data = json.loads(read.scripts[0])
    assert HOSTILE in data["titles"]
    assert f"id{HOSTILE}" in data["ids"]
    assert any(HOSTILE.split(" ", maxsplit=1)[0] in one for one in data["texts"])
    assert not re.search("[<>&\u2028\u2029]", read.scripts[0])
    assert len(data["x"]) == len(data["y"]) == len(data["of"]) == 18
    # Only this page's own script and style may run, by their hashes.
    (policy,) = [given["content"] for tag, given in read.elements if given.get("http-equiv")]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    # Everything that can be operated is reached by keys and has a name.
    named = {given.get("id"): given for _, given in read.elements}
    assert named["map"]["tabindex"] == "0"
    assert named["map"]["aria-label"]
    assert ("label", {"for": "search"}) in read.elements
    assert not re.search(r"https?://", page)
    with pytest.raises(InvalidInput, match=r"must end in \.html"):
        write_page(made, tmp_path / "map.txt")
    with pytest.raises(InvalidInput, match="the folder"):
        write_page(made, tmp_path / "nowhere" / "map.html")
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(InvalidInput, match="cannot write the page"):
        write_page(made, tmp_path / "taken.html")
    _check_script(read.scripts[1], tmp_path)


def _check_script(script, folder):
    assert "innerHTML" not in script
    assert "document.write" not in script
    node = shutil.which("node")
    if node is not None:
        (folder / "map.js").write_text(script)
        checked = subprocess.run(
            [node, "--check", folder / "map.js"], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("filtered", [None, "$.even == true"], ids=["all", "filtered"])
def test_a_page_is_read_by_key_wherever_it_begins(known, module_dsn, filtered):
    """No page reads what stands before it: neither vectors, nor chunks, nor documents."""
    docs, _ = known
    reader = Reader(docs._client._run(select(docs.info(), filter=filtered)), 10)
    parameters = {
        **reader._selection.parameters,
        "document": UUID("80000000-0000-8000-8000-000000000000"),
        "ordinal": 0,
    }
    with connect(module_dsn) as connection:
        # The tables are so small that reading them whole is cheapest.
        connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        for mode in ("force_custom_plan", "force_generic_plan"):
            connection.execute(f"SET plan_cache_mode = {mode}")
            explain = SQL("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) ") + reader._statement
            plan = "\n".join(
                line["QUERY PLAN"] for line in connection.execute(explain, parameters).fetchall()
            )
            assert not re.search("Join|Nested Loop|Sort", plan), plan
            assert re.search(r"Index Scan using embeddings_\d+_pkey on embeddings_\d+ e \(.*rows=10", plan), (
                plan
            )
            assert re.search(
                r"Index Scan using chunks_pkey on chunks c \(.*rows=1(\.00)? loops=10\)", plan
            ), plan
