"""Duplicates: pairs, groups, what a later run looks at, what is written and deleted, labelled pairs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from support import CORPUS, CountingEmbedder, rows

from pgseek import Client, InvalidInput, PgseekError
from pgseek.analysis import (
    LabelledPair,
    answered_queries,
    calibrate_threshold,
    delete_duplicates,
    document_pairs,
    exact_duplicates,
    find_duplicates,
    question_pairs,
    repeated_passages,
    sampled_pairs,
    store_threshold,
    stored_thresholds,
    write_representatives,
)
from pgseek.filters import F

POLICY = (
    "Our {} policy. Please read it with care, since it is part of the contract. We answer every message within "
    "two working days; our office is closed on Sundays. "
)
RETURNS = POLICY.format("return") + "Goods may be sent back within thirty days, unworn and in their box."
SHIPPING = POLICY.format("shipping") + "Parcels leave the warehouse at noon and arrive after three days."


def documents(texts, **more):
    return [{"id": name, "text": text, **more} for name, text in texts.items()]


def groups(found):
    return [[one.id for one in group.members] for group in found.groups]


@pytest.fixture
def docs(client):
    return client.create_collection("docs")


@pytest.fixture
def shop(docs):
    docs.ingest(CORPUS)
    docs.ingest(
        documents(
            {
                "returns": RETURNS,
                "shipping": SHIPPING,
                "returns-again": f"Posted on Monday. {RETURNS.upper()}",
                "returns-copy": RETURNS,
            }
        )
    )
    return docs


def test_copies_and_near_copies_are_one_group(shop):
    found = find_duplicates(shop, min_similarity=0.9)
    assert sorted(groups(found)[0]) == ["returns", "returns-again", "returns-copy"]
    assert len(found.groups) == 1
    (group,) = found.groups
    # Two of the three are the same text, and the first of these was stored first.
    assert group.representative == "returns"
    assert not group.exact
    by_id = {one.id: one for one in group.members}
    assert (by_id["returns-copy"].similarity, by_id["returns-copy"].overlap) == (1, 1)
    assert 0.9 < by_id["returns-again"].similarity < 1
    assert by_id["returns-again"].overlap > 0.99
    assert group.least_similarity == pytest.approx(by_id["returns-again"].similarity, abs=0.01)
    assert (found.documents, found.looked_at, found.waiting, found.complete) == (10, 10, 0, True)
    assert found.surplus == 2


def test_the_letters_tell_apart_what_the_model_does_not(shop):
    # The wordings are near enough for the model that the two policies count as one.
    loose = find_duplicates(shop, min_similarity=0.6, min_overlap=0)
    (group,) = [group for group in loose.groups if "returns" in {one.id for one in group.members}]
    assert "shipping" in {one.id for one in group.members}
    checked = find_duplicates(shop, min_similarity=0.6)
    assert "shipping" not in {one.id for group in checked.groups for one in group.members}
    assert sorted(groups(checked)[0]) == ["returns", "returns-again", "returns-copy"]


def test_titles_tell_apart_what_has_one_text(docs):
    text = "Backport the fixes of the server, and make a release of them. " * 3
    docs.ingest(
        {"id": name, "title": title, "text": text}
        for name, title in (
            ("a", "Backport to branch-3.1"),
            ("b", "Backport to branch-3.2"),
            ("c", "backport to Branch-3.1!"),
        )
    )
    found = find_duplicates(docs, min_similarity=0.9)
    assert [sorted(group) for group in groups(found)] == [["a", "c"]]
    assert len(find_duplicates(docs, min_similarity=0.9, guard=False).groups[0].members) == 3


def test_exact_ones_need_no_vectors(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    rows(
        dsn,
        "SELECT pgseek.put_document('docs', 'b', 'one text'), pgseek.put_document('docs', 'a', 'one text')",
    )
    rows(dsn, "SELECT pgseek.put_document('docs', 'c', 'another text')")
    found = exact_duplicates(docs)
    assert (found.space_id, found.pairs, found.looked_at) == (None, 0, 0)
    (group,) = found.groups
    assert group.exact
    assert sorted(one.id for one in group.members) == ["a", "b"]
    # Near ones wait for their vectors, and say so.
    found = find_duplicates(docs)
    assert (found.waiting, found.looked_at) == (3, 0)
    assert docs.drain_queue().changed == 3
    assert find_duplicates(docs).looked_at == 3


def test_a_second_run_looks_at_what_is_new_changed_or_gone(shop, dsn):
    assert find_duplicates(shop, min_similarity=0.9).looked_at == 10
    again = find_duplicates(shop, min_similarity=0.9)
    assert again.looked_at == 0
    assert len(again.groups) == 1
    # Changed: no longer one of them.
    shop.ingest(documents({"returns-again": "Something else altogether, about lamps."}))
    found = find_duplicates(shop, min_similarity=0.9)
    assert found.looked_at == 1
    assert sorted(groups(found)[0]) == ["returns", "returns-copy"]
    # New.
    shop.ingest(documents({"lamps": "Something else altogether, about lamps!"}))
    found = find_duplicates(shop, min_similarity=0.9)
    assert found.looked_at == 1
    assert sorted(map(sorted, groups(found))) == [["lamps", "returns-again"], ["returns", "returns-copy"]]
    # Gone.
    shop.delete("lamps")
    found = find_duplicates(shop, min_similarity=0.9)
    assert (found.looked_at, len(found.groups)) == (0, 1)
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.duplicate_scans") == [{"n": 10}]
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.duplicate_pairs") == [{"n": 0}]
    # A lower similarity has to look again, a higher one does not.
    assert find_duplicates(shop, min_similarity=0.8).looked_at == 10
    assert find_duplicates(shop, min_similarity=0.85).looked_at == 0
    assert find_duplicates(shop, min_similarity=0.85, again=True).looked_at == 10


def test_a_document_that_changes_before_the_next_run_is_in_no_pair(shop):
    assert find_duplicates(shop, min_similarity=0.9).surplus == 2
    shop.ingest(documents({"returns-again": "Something else."}))
    stopped = threading.Event()
    stopped.set()
    found = find_duplicates(shop, min_similarity=0.9, stop=stopped)
    assert not found.complete
    assert sorted(groups(found)[0]) == ["returns", "returns-copy"]


def test_it_goes_on_where_it_was_stopped(docs):
    texts = {f"d{n}": f"A text about subject number {n} and nothing else, {n * n}." for n in range(450)}
    docs.ingest(documents(texts))
    stop = threading.Event()
    told = []

    def progress(stage, done, total):
        told.append((stage, done, total))
        stop.set()

    first = find_duplicates(docs, min_similarity=0.99, progress=progress, stop=stop)
    assert (first.looked_at, first.complete) == (100, False)
    assert told == [("comparing", 100, 450)]
    rest = find_duplicates(docs, min_similarity=0.99)
    assert (rest.looked_at, rest.complete) == (350, True)
    fresh = find_duplicates(docs, min_similarity=0.99, again=True)
    assert fresh.looked_at == 450
    assert (fresh.pairs, groups(fresh)) == (rest.pairs, groups(rest))


_CHILD = """
import sys
from pgseek import Client
from pgseek.analysis import find_duplicates
with Client(sys.argv[1]) as client:
    find_duplicates(client.collection("docs"), min_similarity=0.999, progress=lambda *told: print(*told, flush=True))
"""


def test_it_goes_on_after_its_process_was_killed(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest(documents({f"d{n}": f"Number {n % 300} of the texts." for n in range(600)}))
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, dsn],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout.readline().startswith("comparing 100")
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    (before,) = rows(dsn, "SELECT count(*) AS n FROM pgseek.duplicate_scans")
    assert 100 <= before["n"] < 600
    found = find_duplicates(docs, min_similarity=0.999)
    assert found.looked_at == 600 - before["n"]
    assert sum(len(group.members) for group in found.groups) == 600


@pytest.mark.parametrize(
    "made",
    [
        {"metric": "l2"},
        {"metric": "inner_product", "storage": "halfvec"},
        {"metric": "l1"},
        {"index": "binary"},
        {"index": "prefix=64"},
        {"index": "ivfflat"},
        {"index": "none"},
    ],
    ids=str,
)
def test_whatever_the_metric_and_the_storage(client, made):
    rng = np.random.default_rng(1)
    base = rng.normal(size=(520, 128))
    given = {}
    for n in range(520):
        vector = base[n - 1] + 0.02 * rng.normal(size=128) if n % 100 == 1 else base[n]
        given[f"text {n} of them"] = vector / np.linalg.norm(vector)
    docs = client.create_collection("docs", embedder=CountingEmbedder(dimensions=128, given=given), **made)
    docs.ingest({"id": f"{n:04}", "text": text} for n, text in enumerate(given))
    found = find_duplicates(docs, min_similarity=0.95, min_overlap=0)
    assert sorted(groups(found)) == [[f"{n - 1:04}", f"{n:04}"] for n in range(1, 520, 100)]
    for group in found.groups:
        one, other = (given[f"text {int(member.id)} of them"] for member in group.members)
        assert group.members[1].similarity == pytest.approx(float(one @ other), abs=2e-3)


def test_documents_of_many_chunks_are_compared_as_wholes(client):
    docs = client.create_collection("docs", chunk_size=200)
    pages = [
        f"Chapter {n}. The {word} stood in the {other} of the house, and nobody had seen it for {n + 3} years. "
        f"They said that {word} was worth more than the {other}, which was not true of it."
        for n, (word, other) in enumerate(
            [
                ("clock", "hall"),
                ("piano", "attic"),
                ("mirror", "cellar"),
                ("chest", "kitchen"),
                ("lamp", "porch"),
            ]
        )
    ]
    book = "\n\n".join(pages)
    docs.ingest(
        documents(
            {
                "book": book,
                "reprint": f"A new preface, which is short.\n\n{book}",
                "chapter": pages[0],
                "other": "\n\n".join(reversed(CORPUS[0]["text"].split())) * 3,
            }
        )
    )
    found = find_duplicates(docs, min_similarity=0.9)
    assert [sorted(group) for group in groups(found)] == [["book", "reprint"]]
    # A chapter's passages stand in the book, word for word.
    (passage, *_) = repeated_passages(docs)
    assert passage.documents >= 2
    assert "book" in passage.ids
    assert repeated_passages(docs, min_length=100_000) == []


def test_many_copies_make_no_pairs(docs, dsn):
    docs.ingest(documents({f"c{n:03}": RETURNS for n in range(120)}))
    docs.ingest(documents({"near": f"{RETURNS} Really!"}))
    found = find_duplicates(docs, min_similarity=0.9)
    assert len(found.groups[0].members) == 121
    assert found.groups[0].representative.startswith("c")
    assert found.pairs <= 120
    assert exact_duplicates(docs).surplus == 119


def test_the_threshold_of_the_space_is_the_default(shop):
    assert find_duplicates(shop).min_similarity == 0.95
    store_threshold(shop, 0.6, "deduplication")
    found = find_duplicates(shop, min_overlap=0)
    assert found.min_similarity == 0.6
    assert "shipping" in {one.id for group in found.groups for one in group.members}
    assert stored_thresholds(shop)["deduplication"]["similarity"] == 0.6
    store_threshold(shop, 0.9, "answer_cache")
    store_threshold(shop, None, "deduplication")
    assert set(stored_thresholds(shop)) == {"answer_cache"}
    assert find_duplicates(shop).min_similarity == 0.95


def test_representatives_are_written_as_metadata(shop, dsn):
    found = find_duplicates(shop, min_similarity=0.9)
    before = rows(dsn, "SELECT xmin::text AS x FROM pgseek.embeddings_1 ORDER BY document_id")
    assert write_representatives(shop, found, "duplicate_of") == 3
    assert write_representatives(shop, found, "duplicate_of") == 0
    hits = shop.search("returns policy", filter=F("duplicate_of") == "returns")
    assert {hit.id for hit in hits} == {"returns", "returns-again", "returns-copy"}
    assert shop.get("lru_cache").metadata == CORPUS[0]["metadata"]
    # Nothing was embedded, and the next run has nothing to look at.
    assert rows(dsn, "SELECT xmin::text AS x FROM pgseek.embeddings_1 ORDER BY document_id") == before
    shop.delete("returns-again")
    found = find_duplicates(shop, min_similarity=0.9)
    assert found.looked_at == 0
    shop.delete("returns-copy")
    found = find_duplicates(shop, min_similarity=0.9)
    assert write_representatives(shop, found, "duplicate_of") == 1
    assert shop.get("returns").metadata == {}


def test_deleting_keeps_the_representative_and_what_has_changed(shop):
    found = find_duplicates(shop, min_similarity=0.9)
    shop.ingest(documents({"returns-again": "It says something else now."}))
    assert delete_duplicates(shop, found) == 1
    assert {one for one in ("returns", "returns-again", "returns-copy") if shop.get(one)} == {
        "returns",
        "returns-again",
    }
    assert delete_duplicates(shop, found) == 0
    # Without its representative a group stays whole.
    shop.ingest(documents({"returns-copy": RETURNS}))
    shop.ingest(documents({"returns": "It says something else, too."}))
    assert delete_duplicates(shop, found) == 0
    assert shop.get("returns-copy") is not None


def test_a_chain_is_told_by_its_least_similarity(client):
    angle = {"a": 0, "b": 25, "c": 50}
    given = {
        f"text {name}": [np.cos(np.radians(a)), np.sin(np.radians(a)), *[0] * 6] for name, a in angle.items()
    }
    docs = client.create_collection("docs", embedder=CountingEmbedder(given=given))
    docs.ingest({"id": name, "text": f"text {name}"} for name in angle)
    found = find_duplicates(docs, min_similarity=0.9, min_overlap=0)
    (group,) = found.groups
    # The middle one is nearest to all.
    assert group.representative == "b"
    assert group.least_similarity == pytest.approx(np.cos(np.radians(25)), abs=1e-6)
    assert found.pairs == 2
    (low,) = find_duplicates(docs, min_similarity=0.6, min_overlap=0).groups
    assert low.least_similarity == pytest.approx(np.cos(np.radians(50)), abs=1e-6)


def test_another_space_has_pairs_of_its_own(client, dsn):
    first = CountingEmbedder(given={"text a": [1] + [0] * 7, "text b": [1, 0.01] + [0] * 6})
    second = CountingEmbedder(model="other", given={"text a": [1] + [0] * 7, "text b": [0, 1] + [0] * 6})
    docs = client.create_collection("docs", embedder=first)
    docs.ingest([{"id": "a", "text": "text a"}, {"id": "b", "text": "text b"}])
    assert find_duplicates(docs, min_overlap=0).pairs == 1
    docs.reembed(second)
    docs.activate(2)
    docs = client.collection("docs", embedder=[first, second])
    assert find_duplicates(docs, min_overlap=0).pairs == 0
    assert find_duplicates(docs, min_overlap=0, space=1).pairs == 1
    docs.retire(1)
    assert find_duplicates(docs, min_overlap=0).pairs == 0
    assert rows(dsn, "SELECT DISTINCT space_id AS s FROM pgseek.duplicate_scans") == [{"s": 2}]
    with pytest.raises(InvalidInput, match="space 1 of collection 'docs' is retired"):
        find_duplicates(docs, space=1)


def test_tenants_do_not_meet(dsn):
    for tenant in ("acme", "beta"):
        with Client(dsn, tenant=tenant) as client:
            made = client.create_collection("docs", embedder=CountingEmbedder())
            made.ingest([{"id": f"of {tenant}", "text": "the very same text"}])
            assert find_duplicates(made, min_similarity=0.5, min_overlap=0).groups == ()
            assert exact_duplicates(made).groups == ()


# Labelled pairs.


def test_pairs_of_documents_are_measured_as_they_are_compared(shop):
    pairs = [
        LabelledPair("returns", "returns-copy", True),
        LabelledPair("returns-again", "returns", True),
        LabelledPair("returns", "lru_cache", False),
        LabelledPair("returns", "nowhere", False),
    ]
    found = document_pairs(shop, pairs)
    assert found.missing == 1
    assert found.same == (True, True, False)
    assert found.similarities[0] == pytest.approx(1, abs=1e-6)
    (group,) = find_duplicates(shop, min_similarity=0.9).groups
    by_id = {one.id: one.similarity for one in group.members}
    assert found.similarities[1] == pytest.approx(by_id["returns-again"], abs=1e-6)
    assert found.similarities[2] < 0.5


def test_a_collection_labels_its_own_pairs(docs):
    # Each word, and each pair of them, occurs in few texts.
    words = [f"{one}{other}" for one in ("pump", "lamp", "ship", "goat", "moon") for other in "bdfgklmnprst"]
    texts = {f"d{n}": f"{word} {words[-n]} {words[n // 2]}" for n, word in enumerate(words)}
    docs.ingest(documents(texts))
    docs.ingest(documents({f"copy{n}": texts[f"d{n}"] for n in range(8)}))
    found = sampled_pairs(docs, documents=68, neighbours=10)
    assert sum(found.same) == 8
    assert set(found.weights) == {1.0}
    half = sampled_pairs(docs, documents=34, neighbours=10)
    assert {round(weight, 6) for weight, same in zip(half.weights, half.same, strict=True) if not same} == {
        round(1 / 0.75, 6)
    }
    made = calibrate_threshold(found.similarities, found.same, weights=found.weights, target_precision=0.5)
    assert made.corrected
    assert made.target.threshold > 0.9
    store_threshold(docs, made)
    assert find_duplicates(docs).min_similarity == made.target.threshold
    mixed = calibrate_threshold([0.5] * 20, [True, False] * 10)
    with pytest.raises(
        InvalidInput, match=r"no threshold reaches a precision of 0.95 .* least overlap at 0.5"
    ):
        store_threshold(docs, mixed)
    given = sampled_pairs(docs, [("d1", "d2"), ("d2", "d1")], documents=5)
    assert sum(given.same) == 1


def test_pairs_of_questions_and_queries_with_answers(docs):
    docs.ingest(CORPUS)
    found = question_pairs(
        docs,
        [
            LabelledPair("how to cache a function", "caching functions", True),
            LabelledPair("how to cache a function", "the weather of Lisbon", False),
        ],
    )
    assert found.similarities[0] > found.similarities[1]
    found = answered_queries(docs, [("cache the results of a function", True), ("weather in Lisbon", False)])
    assert found.same == (True, False)
    assert found.similarities[0] > found.similarities[1]


def test_wrong_input_is_refused(docs):
    docs.ingest(CORPUS)
    for call, message in (
        (lambda: find_duplicates(docs, min_similarity=2), "min_similarity is 2, but must lie in -1..1"),
        (lambda: find_duplicates(docs, min_overlap=-1), "min_overlap is -1, but must lie in 0..1"),
        (lambda: find_duplicates(docs, space=9), "has no embedding space 9"),
        (lambda: write_representatives(docs, exact_duplicates(docs), ""), "the field is '', but must be"),
        (lambda: repeated_passages(docs, most=0), "most is 0, but must be"),
        (lambda: sampled_pairs(docs, documents=0), "documents is 0, but must be"),
        (lambda: store_threshold(docs, 0.5), "purpose is None, but must be one of deduplication"),
        (lambda: store_threshold(docs, 1.5, "no_answer"), "the threshold is 1.5, but must lie in -1..1"),
        (lambda: store_threshold(docs, 0.5, "cache"), "purpose is 'cache', but must be one of"),
        (lambda: store_threshold(docs, 0.5, "no_answer", space=77), "has no embedding space 77"),
    ):
        with pytest.raises(InvalidInput, match=message):
            call()
    with pytest.raises(PgseekError, match="there is no embedding space 77"):
        docs._client._run(iter_call("SELECT pgseek.similar_pairs(77, '{}', 0.5)"))


def iter_call(statement):
    from pgseek.steps import fetch

    return fetch(statement)
