"""A change of model: vectors made, writes to both, the gate, the switch, the way back, and all of it under load."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from support import CORPUS, CountingEmbedder, rows

from pgseek import AsyncClient, Client, Gate, InvalidInput, SpaceMismatch
from pgseek.db.connection import connect
from pgseek.evaluation.measures import score
from pgseek.integrity import examine
from pgseek.reembed import filling
from pgseek.reembed.judging import ndcg

OLD, NEW = CountingEmbedder(8, "old"), CountingEmbedder(12, "new")


def numbered(low, high=None, version=""):
    if high is None:
        low, high = 0, low
    return [{"id": str(n), "text": f"text number {n}{version}"} for n in range(low, high)]


def make(client, count=50, **more):
    docs = client.create_collection("docs", embedder=CountingEmbedder(8, "old"), **more)
    docs.ingest(numbered(count))
    return docs


def vectors(dsn, space):
    found = rows(dsn, f"SELECT document_id, ordinal, embedding::text AS v FROM pgseek.embeddings_{space}")
    return {(row["document_id"], row["ordinal"]): np.array(eval(row["v"])) for row in found}


def whole(dsn, space, embedder):
    """Each chunk has the vector of its text in the space, and nothing else has one."""
    texts = rows(dsn, "SELECT document_id, ordinal, title, text FROM pgseek.chunks WHERE kind = 'chunk'")
    found = vectors(dsn, space)
    assert {(row["document_id"], row["ordinal"]) for row in texts} == set(found)
    for row in texts:
        text = f"{row['title']}\n\n{row['text']}" if row["title"] else row["text"]
        expected = embedder._vector(text)
        assert np.allclose(found[row["document_id"], row["ordinal"]], expected, atol=1e-3), text


def test_a_change_of_model_from_plan_to_retirement(client, dsn):
    docs = make(client)
    new = CountingEmbedder(12, "new")
    plan = docs.plan_reembed(new)
    assert (plan.of, plan.to) == ("tests:old@8", "tests:new@12")
    assert (plan.chunks, plan.texts, plan.cached, plan.done, plan.reduced) == (50, 50, 0, 0, False)
    assert plan.seconds is not None
    assert len(rows(dsn, "SELECT FROM pgseek.embedding_spaces")) == 1

    seen = []
    report = docs.reembed(new, progress=seen.append)
    assert (report.stage, report.done, report.chunks, report.begun) == ("switched", 50, 50, 0)
    assert report.gate.recall == 1
    assert 0 <= report.gate.overlap <= 1
    assert [r.stage for r in seen][-3:] == ["indexing", "judging", "switching"]
    assert [r.done for r in seen if r.stage == "embedding"][-1] == 50
    whole(dsn, 2, new)
    spaces = docs.spaces()
    assert [(s.space_id, s.state, s.rows, s.missing) for s in spaces] == [
        (1, "ready", 50, 0),
        (2, "active", 50, 0),
    ]
    assert docs.info().identity == new.identity
    (hit,) = docs.search(
        "?", model=str(docs.info().identity), query_embedding=new._vector("text number 7"), alpha=1, k=1
    )
    assert (hit.id, round(hit.dense_score, 3)) == ("7", 1.0)

    # Writes go to both, so the way back loses nothing.
    docs.ingest(numbered(40, 60, " again"))
    docs.delete("0")
    assert docs.rollback().space_id == 1
    assert docs.info().identity.model == "old"
    assert [(s.rows, s.missing) for s in docs.spaces()] == [(59, 0), (59, 0)]
    whole(dsn, 1, CountingEmbedder(8, "old"))
    whole(dsn, 2, new)
    assert docs.activate(2) == 0
    with pytest.raises(InvalidInput, match=r"space 2 .* is the one that is searched"):
        docs.retire(2)
    docs.retire("tests:old")
    assert rows(dsn, "SELECT to_regclass('pgseek.embeddings_1') AS t")[0]["t"] is None
    assert [s.state for s in docs.spaces()] == ["retired", "active"]
    with pytest.raises(InvalidInput, match="no earlier space to go back to"):
        docs.rollback()
    docs.ingest(numbered(60, 70))
    assert examine(dsn).ok
    # A handle that still embeds with the old model is told.
    with pytest.raises(SpaceMismatch, match="holds vectors of tests:new@12, but the embedder is tests:old@8"):
        client.collection("docs", embedder=CountingEmbedder(8, "old"))


def test_what_has_a_vector_is_not_embedded_again(client, dsn):
    docs = make(client, 300)
    stop = threading.Event()

    class Failing(CountingEmbedder):
        left = 120

        def embed_documents(self, texts):
            if len(texts) > 5:
                if self.left <= 0:
                    raise RuntimeError("the quota is used up")
                self.left -= len(texts)
            return super().embed_documents(texts)

    with pytest.raises(Exception, match="the quota is used up"):
        docs.reembed(Failing(12, "new"))
    (_, building) = docs.spaces()
    assert building.state == "building"
    assert 0 < building.rows < 300
    # Who searches, or writes, does as before; the new space can be neither searched nor switched to.
    assert docs.search("number 7", k=3)
    with pytest.raises(SpaceMismatch, match="cannot be searched by space 2: it is still being built"):
        docs.search("number 7", space=2, model=str(docs.info().identity), query_embedding=[1] * 12)
    with pytest.raises(InvalidInput, match="is building, but must be ready"):
        docs.activate(2)
    with pytest.raises(
        InvalidInput, match=r"is being re-embedded with tests:new@12 already: .* pgseek spaces retire docs 2"
    ):
        docs.reembed(CountingEmbedder(16, "other"))

    new = CountingEmbedder(12, "new")
    stop.set()
    assert docs.reembed(new, stop=stop).stage == "stopped"
    assert new.documents == []
    # Without the cache, only what has no vector yet is asked for.
    client.clear_cache()
    report = docs.reembed(new)
    assert (report.stage, report.begun) == ("switched", building.rows)
    assert len(new.documents) == 300 - building.rows
    whole(dsn, 2, new)


def test_cached_vectors_are_used(client):
    docs = make(client, 30)
    new = CountingEmbedder(12, "new")
    client.create_collection("other", embedder=new).ingest(numbered(20))
    assert len(new.documents) == 20
    plan = docs.plan_reembed(new)
    assert (plan.cached, plan.texts) == (20, 10)
    # To tell how long it takes, a plan embeds a few.
    asked = len(new.documents)
    docs.reembed(new)
    assert len(new.documents) == asked + 10


def test_a_smaller_matryoshka_size_is_cut_from_stored_vectors(client, dsn):
    docs = client.create_collection("docs", embedder="wordllama", document_vectors=True)
    docs.ingest(CORPUS)
    plan = docs.plan_reembed("wordllama@64")
    assert (plan.reduced, plan.texts, plan.tokens, plan.cost) == (True, 0, 0, 0)
    report = docs.reembed("wordllama@64")
    assert report.stage == "switched"
    own = docs._own_embedder()
    assert own.identity.dimensions == 64
    found = vectors(dsn, 2)
    assert len(found) == report.chunks == len(vectors(dsn, 1))
    for row in rows(dsn, "SELECT document_id, ordinal, title, text FROM pgseek.chunks WHERE kind = 'chunk'"):
        text = f"{row['title']}\n\n{row['text']}" if row["title"] else row["text"]
        assert np.allclose(
            found[row["document_id"], row["ordinal"]], own.embed_documents([text])[0], atol=1e-5
        )
    # What is written since is cut as well, or embedded with the smaller one: the same.
    docs.ingest([{"id": "new", "text": "a text that came later"}])
    found = vectors(dsn, 1), vectors(dsn, 2)
    assert found[0].keys() == found[1].keys()
    docs.rollback()
    docs.ingest([{"id": "newer", "text": "a text that came later still"}])
    after = vectors(dsn, 2)
    (key,) = after.keys() - found[1].keys() - {k for k in after if k[1] == 1}
    assert np.allclose(after[key], own.embed_documents(["a text that came later still"])[0], atol=1e-5)
    assert not docs.plan_reembed("wordllama@128").reduced or docs.info().identity.dimensions == 256


def test_another_metric_and_storage_of_the_same_model(client, dsn):
    docs = make(client, 20)
    report = docs.reembed(CountingEmbedder(8, "old"), metric="l2", storage="halfvec")
    assert report.stage == "switched"
    space = docs.info().space
    assert (space.metric, space.storage) == ("l2", "halfvec")
    # The cache had every vector.
    hit = docs.search(
        "?",
        model=str(docs.info().identity),
        query_embedding=CountingEmbedder(8, "old")._vector("text number 3"),
        alpha=1,
    )[0]
    assert hit.id == "3"
    assert hit.dense_distance == pytest.approx(0, abs=1e-2)
    assert hit.dense_score == pytest.approx(1 / (1 + hit.dense_distance))
    with pytest.raises(
        InvalidInput, match=r"is searched by tests:old@8 by l2 already; to change only its index"
    ):
        docs.reembed(CountingEmbedder(8, "old"), storage="halfvec")


def test_documents_the_new_model_refuses_stand_in_the_way_until_allowed(client, dsn):
    docs = make(client, 20)

    class Short(CountingEmbedder):
        """Reads four tokens: a text of two words with its title does not fit."""

        max_tokens = 5
        exact_tokens = True

        def count_tokens(self, texts):
            return [len(text.split()) for text in texts]

    docs.ingest([{"id": "long", "title": "one two three four five", "text": "six seven"}])
    report = docs.reembed(Short(12, "short"))
    assert report.stage == "refused"
    assert set(report.refused) == {"long"}
    assert "has 7 tokens with its title, but tests:short@12 reads 5" in report.refused["long"]
    assert docs.info().identity.model == "old"
    report = docs.reembed(Short(12, "short"), gate=Gate(allow_refused=True))
    assert (report.stage, set(report.refused), report.queued) == ("switched", {"long"}, 1)
    # Its words are found.
    assert docs.search("seven", k=1)[0].id == "long"


def test_the_gate_keeps_the_old_model(client):
    docs = make(client, 60)
    asked = {str(n): f"text number {n}" for n in range(20)}
    right = {str(n): {str(n): 1} for n in range(20)}
    given = {text: np.eye(12)[0] for text in asked.values()}
    bad = CountingEmbedder(12, "bad", given=given)
    gate = Gate(
        queries=asked, qrels={q: {str(int(q) + 30): 1} for q in asked}, max_loss=0.0, min_overlap=0.99
    )
    report = docs.reembed(CountingEmbedder(12, "new"), gate=gate)
    assert report.stage == "refused"
    assert any("of the hits are the same, but 0.99 are asked for" in reason for reason in report.gate.reasons)
    assert docs.info().identity.model == "old"
    # It is ready: whoever looked at it may switch to it all the same.
    assert docs.spaces()[1].state == "ready"
    docs.retire(2)
    report = docs.reembed(bad, gate=Gate(queries=asked, qrels=right, max_loss=0.0))
    assert (report.gate.queries, report.gate.judged, report.gate.sampled) == (20, 20, False)
    assert report.gate.ndcg_before == pytest.approx(1, abs=0.2)


def test_ndcg_is_that_of_ir_measures():
    rng = np.random.default_rng(5)
    for _ in range(50):
        names = [f"d{n}" for n in rng.permutation(30)]
        judged = {f"d{n}": int(rng.integers(0, 4)) for n in rng.choice(40, 12, replace=False)}
        run = {"q": [(name, 100.0 - place) for place, name in enumerate(names)]}
        if not any(judged.values()):
            continue
        expected = score(["nDCG@10"], {"q": judged}, run)["nDCG@10"]["q"]
        assert ndcg(names, judged, 10) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers is 0, but must be from 1 to 8"),
        ({"metric": "angle"}, "metric is 'angle'"),
        ({"to": "wordllama@100"}, "64, 128, 256 dimensions, not 100"),
        ({"to": CountingEmbedder(8, "old")}, "is searched by tests:old@8 already"),
        ({"max_cost": -1}, "max_cost"),
    ],
)
def test_bad_arguments_change_nothing(client, dsn, arguments, message):
    docs = make(client, 3)
    given = {"to": CountingEmbedder(12, "new"), **arguments}
    with pytest.raises(InvalidInput, match=message):
        docs.reembed(given.pop("to"), **given)
    assert len(docs.spaces()) == 1


def test_a_weight_that_was_the_embedders_follows_it(client):
    docs = client.create_collection("docs", embedder="wordllama")
    docs.ingest(CORPUS)
    assert docs.info().settings["alpha"] == 0.3
    docs.reembed(CountingEmbedder(12, "new"))
    assert (docs.info().settings["alpha"], docs.info().settings["normalization"]) == (0.4, "minmax")
    docs.rollback()
    assert (docs.info().settings["alpha"], docs.info().settings["normalization"]) == (0.3, "max")


def test_a_chosen_weight_stays(client):
    docs = client.create_collection("docs", embedder="wordllama", alpha=0.7)
    docs.ingest(CORPUS)
    docs.reembed(CountingEmbedder(12, "new"))
    assert docs.info().settings["alpha"] == 0.7


def test_sql_writers_are_found_by_both(client, dsn):
    docs = make(client, 10)
    new = CountingEmbedder(12, "new")
    docs.reembed(new, switch=False)
    rows(dsn, "SELECT pgseek.put_document('docs', 'sql', 'written by another language')")
    rows(dsn, "SELECT pgseek.put_document('docs', '3', 'text number three')")
    assert docs.activate(2) == 0
    docs.drain_queue()
    whole(dsn, 1, CountingEmbedder(8, "old"))
    whole(dsn, 2, new)
    assert examine(dsn).ok


def test_who_may_write_may_still_write_and_is_not_waited_for(client, dsn, server_dsn):
    docs = make(client)
    new = CountingEmbedder(12, "new")
    rows(server_dsn, "CREATE ROLE pgseek_reembed_writer")
    try:
        for grant in (
            "USAGE ON SCHEMA pgseek",
            "EXECUTE ON ALL FUNCTIONS IN SCHEMA pgseek",
            "SELECT, UPDATE ON pgseek.collections, pgseek.collection_statistics",
            "SELECT ON pgseek.embedding_spaces",
            "SELECT, INSERT, UPDATE, DELETE ON pgseek.documents, pgseek.chunks, pgseek.ingest_queue",
            f"SELECT, DELETE ON pgseek.embeddings_{docs._info.space_id}",
        ):
            rows(dsn, f"GRANT {grant} TO pgseek_reembed_writer")
        with connect(dsn) as writer:
            writer.execute("SET ROLE pgseek_reembed_writer")
            writer.execute("BEGIN")
            writer.execute("SELECT pgseek.put_document('docs', 'open', 'while the space is made')")
            filling_of(client, docs, new)
            writer.execute("COMMIT")
            writer.execute("SELECT pgseek.put_document('docs', '1', 'by a role of few rights')")
            writer.execute("SELECT pgseek.delete_document('docs', '2')")
    finally:
        rows(dsn, "DROP OWNED BY pgseek_reembed_writer")
        rows(server_dsn, "DROP ROLE pgseek_reembed_writer")
    assert docs.search("rights", alpha=0)[0].id == "1"


def filling_of(client, docs, embedder):
    """The space of a re-embedding that is only begun."""
    index = docs._info.space.index
    return client._run(filling.begin(docs._info, embedder, "cosine", "vector", index))


def test_a_writer_without_the_new_embedder_leaves_a_gap_that_is_closed(client, dsn):
    docs = make(client, 10)
    new = CountingEmbedder(12, "new")
    with Client(dsn) as other:
        writer = other.collection("docs", embedder=CountingEmbedder(8, "old"))
        docs.reembed(new, switch=False)
        assert writer.ingest(numbered(10, 20)).new == 10
        assert [s.missing for s in docs.spaces()] == [0, 10]
        report = docs.reembed(new)
        assert (report.stage, report.queued) == ("switched", 0)
        whole(dsn, 2, new)
        # It cannot embed for what is searched now.
        with pytest.raises(SpaceMismatch, match="tests:new@12"):
            writer.ingest(numbered(20, 30))
        assert docs.count() == 20
    docs.ingest(numbered(20, 30))
    docs.rollback()
    whole(dsn, 1, CountingEmbedder(8, "old"))


def test_a_gap_that_stays_is_left_to_a_worker(client, dsn):
    docs = make(client, 10)
    docs.reembed(CountingEmbedder(12, "new"), switch=False)
    with Client(dsn) as other:
        other.collection("docs", embedder=CountingEmbedder(8, "old")).ingest(numbered(10, 15))
    assert docs.activate(2) == 5
    assert docs.queue_status().waiting == 5
    assert docs.search("number 12", k=1)[0].id == "12"
    docs.drain_queue()
    whole(dsn, 2, CountingEmbedder(12, "new"))


def test_a_switch_between_embedding_and_writing_is_noticed(client, dsn):
    """An ingest has its vectors, and then the collection changes: what it writes has the new ones, too."""
    docs = make(client, 10)
    new = CountingEmbedder(12, "new")
    docs.reembed(new, switch=False)
    with Client(dsn) as other:
        held = threading.Event()
        go = threading.Event()

        class Slow(CountingEmbedder):
            def embed_documents(self, texts):
                if any("late" in text for text in texts):
                    held.set()
                    assert go.wait(20)
                return super().embed_documents(texts)

        writer = other.collection("docs", embedder=[Slow(8, "old"), CountingEmbedder(12, "new")])
        thread = threading.Thread(target=lambda: writer.ingest(numbered(10, 12, " late")))
        thread.start()
        assert held.wait(20)
        docs.activate(2)
        docs.retire(1)
        go.set()
        thread.join(30)
        assert not thread.is_alive()
        assert docs.count() == 12
        whole(dsn, 2, new)
        assert writer.search("late", k=1)[0].id in {"10", "11"}


def test_several_workers_share_the_work(client, dsn, monkeypatch):
    docs = make(client, 400)
    new = CountingEmbedder(12, "new")
    client.clear_cache()
    monkeypatch.setattr(filling, "BATCH_DOCUMENTS", 20)
    other = Client(dsn)
    with other:
        twin = other.collection("docs", embedder=[CountingEmbedder(8, "old"), new])
        threads = [
            threading.Thread(target=lambda d=d: d.reembed(new, workers=2, switch=False)) for d in (docs, twin)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    whole(dsn, 2, new)
    # A part is with one worker at a time, and a text with whoever claimed it.
    assert len(new.documents) == 400
    assert rows(dsn, "SELECT FROM pgseek.embedding_claims") == []


def test_async_does_the_same(dsn, client):
    import asyncio

    make(client, 20)
    new = CountingEmbedder(12, "new")

    async def change():
        async with AsyncClient(dsn) as other:
            docs = await other.collection("docs", embedder=CountingEmbedder(8, "old"))
            report = await docs.reembed(new, workers=2)
            assert report.stage == "switched"
            assert [s.state for s in await docs.spaces()] == ["ready", "active"]
            assert (await docs.rollback()).space_id == 1
            await docs.activate(2)
            await docs.retire(1)
            return await docs.search("text number 3")

    assert asyncio.run(change())[0].id == "3"
    whole(dsn, 2, new)


def test_readers_and_writers_notice_nothing(client, dsn):  # noqa: PLR0915 (one story)
    """A reader loop and a writer loop run throughout: forth, back, forth again, and the old model's end."""
    old, new = CountingEmbedder(8, "old"), CountingEmbedder(12, "new")
    docs = client.create_collection("docs", embedder=old)
    docs.ingest(numbered(1200))
    stop = threading.Event()
    failures: list[BaseException] = []
    written: dict[str, str] = {}
    searches = 0

    def read(seed):
        nonlocal searches
        rng = np.random.default_rng(seed)
        try:
            with Client(dsn) as other:
                handle = other.collection("docs", embedder=[old, new])
                while not stop.is_set():
                    n = int(rng.integers(0, 1000))
                    hits = handle.search(f"text number {n}", alpha=1, k=3)
                    # The vector of that very text is found by either model; a mixture would not give 1.
                    assert hits[0].id == str(n), hits
                    assert hits[0].dense_score == pytest.approx(1, abs=1e-4)
                    searches += 1
        except BaseException as error:
            failures.append(error)

    def write():
        try:
            with Client(dsn) as other:
                handle = other.collection("docs", embedder=[old, new])
                round_ = 0
                while not stop.is_set():
                    round_ += 1
                    name = str(1000 + round_ % 200)
                    text = f"text number {name} in version {round_}"
                    handle.ingest([{"id": name, "text": text}])
                    written[name] = text
                    if round_ % 7 == 0:
                        handle.delete(name)
                        del written[name]
                    time.sleep(0.005)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(2)] + [threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    try:
        report = docs.reembed(new)
        assert report.stage == "switched"
        time.sleep(0.3)
        docs.rollback()
        time.sleep(0.3)
        docs.activate(2)
        time.sleep(0.3)
        docs.retire(1)
        time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert searches > 20
    assert len(written) > 5
    docs.drain_queue()
    whole(dsn, 2, new)
    for name, text in written.items():
        (hit,) = docs.search(text, alpha=1, k=1)
        assert (hit.id, hit.text) == (name, text)
    assert examine(dsn).ok


def test_what_cannot_be_cut_is_embedded(client, dsn):
    docs = client.create_collection("docs", embedder="wordllama")
    docs.ingest(CORPUS)
    # As a writer leaves it that could not embed for a space that is not searched.
    rows(dsn, "DELETE FROM pgseek.embeddings_1 WHERE document_id = pgseek.document_id('suppress')")
    report = docs.reembed("wordllama@64")
    assert (report.stage, report.refused) == ("switched", {})
    assert [(s.rows, s.missing) for s in docs.spaces()] == [(len(CORPUS) - 1, 1), (len(CORPUS), 0)]
    own = docs._own_embedder()
    row = rows(
        dsn,
        "SELECT title, text, embedding::text AS v FROM pgseek.chunks JOIN pgseek.embeddings_2"
        " USING (collection_id, document_id, ordinal) WHERE document_id = pgseek.document_id('suppress')",
    )[0]
    text = f"{row['title']}\n\n{row['text']}" if row["title"] else row["text"]
    assert np.allclose(eval(row["v"]), own.embed_documents([text])[0], atol=1e-5)
