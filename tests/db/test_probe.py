"""Is it still the same model? What was stored of a space is compared with what its embedder gives now."""

from __future__ import annotations

import asyncio
import contextlib
import json

import numpy as np
import openai
import pytest
from providers import ProviderServer
from psycopg.conninfo import make_conninfo
from support import CORPUS, CountingEmbedder, rows

from pgseek import (
    AsyncClient,
    CallableEmbedder,
    Client,
    CollectionNotFound,
    EmbedderIdentity,
    Gate,
    InvalidInput,
    ProbeReport,
)
from pgseek.embedders.base import PROBES
from pgseek.embedders.openai import OpenAIEmbedder
from pgseek.probing import AGREES

PROBED = len(PROBES) + 1


class Turning(CountingEmbedder):
    """Its vectors of some texts turn, as those of a model that its provider changed."""

    def __init__(self, dimensions=8, model="hash", cosine=1.0, of=None, longer=1.0, normalized=True):
        super().__init__(dimensions, model)
        self.identity = EmbedderIdentity("tests", model, dimensions, normalized=normalized)
        self.cosine, self.of, self.longer = cosine, of, longer
        self.asked = []

    def embed_documents(self, texts):
        self.asked += texts
        return super().embed_documents(texts)

    def _vector(self, text):
        vector = np.asarray(super()._vector(text), dtype=np.float64)
        if self.of is None or self.of in text:
            other = np.asarray(super()._vector(text + " as another model has it"))
            aside = other - (other @ vector) * vector
            aside /= np.linalg.norm(aside)
            vector = self.cosine * vector + np.sqrt(1 - self.cosine**2) * aside
        return self.longer * vector


def probe(client, embedder, name="docs"):
    (found,) = client.collection(name, embedder=embedder).probe().spaces
    return found


def fingerprints(dsn):
    return rows(
        dsn,
        "SELECT space_id, input_type, text, embedding::text AS v FROM pgseek.space_probes ORDER BY 1, 2, 3",
    )


def forget(dsn):
    """Make the spaces such as revision 0005 had: without a fingerprint."""
    rows(dsn, "DELETE FROM pgseek.space_probes")


def test_the_same_model_is_the_same(client, dsn):
    docs = client.create_collection("docs", embedder="wordllama")
    before = fingerprints(dsn)
    report = docs.probe()
    assert report.ok
    (found,) = report.spaces
    assert (found.collection, found.space_id, found.state) == ("docs", 1, "active")
    assert found.model == "wordllama:l2_supercat@256"
    assert (found.outcome, found.against, found.compared, found.recorded) == (
        "same",
        "fingerprint",
        PROBED,
        False,
    )
    assert found.cosine == pytest.approx(1, abs=1e-6)
    assert found.length == pytest.approx(1, abs=1e-6)
    assert found.detail == "the same model: the smallest cosine is 1.0000, of 6 texts"
    assert fingerprints(dsn) == before


@pytest.mark.parametrize(
    ("cosine", "outcome"), [(0.9951, "same"), (0.9949, "changed"), (0.3, "changed"), (-1, "changed")]
)
def test_a_model_that_changed_under_its_name_is_told(client, cosine, outcome):
    client.create_collection("docs", embedder=Turning()).ingest(CORPUS)
    changed = Turning(cosine=cosine, of="E-4021")
    found = probe(client, changed)
    assert (found.outcome, found.ok) == (outcome, outcome == "same")
    assert found.cosine == pytest.approx(cosine, abs=1e-5)
    assert (found.input_type, found.text) == ("document", "error E-4021: connection refused")
    if outcome == "changed":
        assert found.detail == (
            "the model has changed under its name: of 'error E-4021: connection refused' as a document the cosine is "
            f"{cosine:.4f}, below {AGREES}. Its vectors cannot be compared with those that are stored; embed everything "
            "again: collection.reembed(embedder, again=True)"
        )
    # The fingerprint is what it was made of; nothing is stored.
    assert probe(client, Turning()).outcome == "same"


def test_queries_are_looked_at_by_themselves(client):
    class Asked(Turning):
        def embed_query(self, text):
            self.cosine = 0.5
            try:
                return super().embed_query(text)
            finally:
                self.cosine = 1.0

    client.create_collection("docs", embedder=Turning())
    found = probe(client, Asked())
    assert (found.outcome, found.input_type, found.text) == ("changed", "query", PROBES[1])
    assert "as a query the cosine is 0.5000" in found.detail


def test_lengths_count_where_vectors_have_lengths_of_their_own(client):
    client.create_collection("docs", embedder=Turning(normalized=False), metric="inner_product")
    assert probe(client, Turning(normalized=False, longer=1.04)).outcome == "same"
    found = probe(client, Turning(normalized=False, longer=2.0))
    assert (found.outcome, round(found.length, 4), round(found.cosine, 4)) == ("changed", 2, 1)
    assert "the length is 2.000 times the stored one's" in found.detail


def test_an_embedder_that_no_longer_gives_vectors_of_the_space_fails(client):
    client.create_collection("docs", embedder=Turning())
    found = probe(client, Turning(longer=2.0))
    assert (found.outcome, found.ok) == ("failed", False)
    assert "says that its vectors have unit length, but one has length 2" in found.detail

    class Silent(Turning):
        def embed_documents(self, texts):
            raise RuntimeError("no answer")

    assert probe(client, Silent()).detail == "tests:hash@8 failed: no answer"

    class Wider(Turning):
        def embed_documents(self, texts):
            return np.ones((len(texts), 9), np.float32)

    assert (
        "returned vectors of shape (5, 9) for 5 texts, but the space needs (5, 8)"
        in probe(client, Wider()).detail
    )


def test_what_is_asked_is_no_more_than_the_texts_of_the_fingerprint(client):
    client.create_collection("docs", embedder=Turning()).ingest(CORPUS)
    asked = Turning()
    client.collection("docs", embedder=asked).probe()
    assert asked.asked == sorted(PROBES)
    assert (asked.documents, asked.queries) == ([], [])


def test_one_model_of_several_collections_is_asked_once(client, dsn):
    asked = Turning()
    for name in ("a", "b", "c"):
        client.create_collection(name, embedder=asked)
    asked.asked.clear()
    report = client.probe(["c", "a", "c"], embedders={"a": asked, "c": [asked]})
    assert [(one.collection, one.outcome) for one in report.spaces] == [("c", "same"), ("a", "same")]
    assert len(asked.asked) == len(PROBES)
    report = client.probe(embedders={"a": asked})
    assert [(one.collection, one.outcome) for one in report.spaces] == [
        ("a", "same"),
        ("b", "not probed"),
        ("c", "not probed"),
    ]
    assert "client.collection('b', embedder=…).probe()" in report.spaces[1].detail
    assert report.ok
    with pytest.raises(CollectionNotFound, match="'d'"):
        client.probe(["d"])
    assert client.probe([]) == ProbeReport(())


def test_every_space_that_is_not_retired_is_probed(client, dsn):
    docs = client.create_collection("docs", embedder=Turning(8, "old"))
    docs.ingest(CORPUS)
    docs.reembed(Turning(12, "new"), gate=Gate(min_recall=0))
    changed = Turning(8, "old", cosine=0.2)
    report = client.collection("docs", embedder=[changed, Turning(12, "new")]).probe()
    assert [(one.space_id, one.state, one.outcome) for one in report.spaces] == [
        (2, "active", "same"),
        (1, "ready", "changed"),
    ]
    assert not report.ok
    docs.retire(1)
    assert [
        one.space_id for one in client.collection("docs", embedder=[Turning(12, "new")]).probe().spaces
    ] == [2]


# Spaces from before there were fingerprints.


@pytest.mark.parametrize("storage", ["vector", "halfvec"])
def test_a_space_without_a_fingerprint_is_compared_by_its_chunks_and_gets_one(client, dsn, storage):
    client.create_collection("docs", embedder=Turning(), storage=storage).ingest(CORPUS)
    before = fingerprints(dsn)
    forget(dsn)
    found = probe(client, Turning())
    assert (found.outcome, found.against, found.compared, found.recorded) == ("same", "chunks", 5, True)
    assert found.cosine > 1 - 1e-6
    assert found.detail.endswith("of 5 stored chunks; its fingerprint is recorded now")
    assert fingerprints(dsn) == before
    assert probe(client, Turning()).against == "fingerprint"


def test_a_model_that_changed_leaves_no_fingerprint(client, dsn):
    client.create_collection("docs", embedder=Turning()).ingest(CORPUS)
    forget(dsn)
    found = probe(client, Turning(cosine=0.9))
    assert (found.outcome, found.against, found.recorded) == ("changed", "chunks", False)
    assert found.text.startswith(
        ("errno\n\nThis module", "functools.reduce\n\n", "os.path.join\n\nJoin", "heapq")
    )
    assert len(found.detail) < 400
    assert fingerprints(dsn) == []


def test_chunks_that_the_model_does_not_read_whole_are_no_measure(client, dsn):
    class Short(Turning):
        max_tokens = 30
        exact_tokens = True

        def count_tokens(self, texts):
            return [len(text.split()) for text in texts]

    client.create_collection("docs", embedder=Short()).ingest(
        [{"id": "long", "text": "word " * 200}, {"id": "short", "text": "a few words"}]
    )
    forget(dsn)
    assert probe(client, Short()).compared == 1


def test_where_there_is_nothing_to_compare_with_a_fingerprint_is_a_beginning(client, dsn):
    client.create_collection("docs", embedder=Turning())
    forget(dsn)
    found = probe(client, Turning())
    assert (found.outcome, found.ok, found.recorded, found.cosine) == ("not probed", True, True, None)
    assert found.detail == (
        "there is nothing to compare with: no fingerprint, and no chunk with a vector; its fingerprint is recorded now"
    )
    assert probe(client, Turning()).outcome == "same"


def test_on_a_server_that_only_reads_nothing_is_recorded(client, dsn):
    client.create_collection("docs", embedder=Turning()).ingest(CORPUS)
    forget(dsn)
    with Client(make_conninfo(dsn, options="-c default_transaction_read_only=on")) as reader:
        found = probe(reader, Turning())
    assert (found.outcome, found.compared, found.recorded) == ("same", 5, False)
    assert found.detail.endswith("; no fingerprint is recorded: it may not be written here")
    assert fingerprints(dsn) == []


def test_under_asyncio(client, dsn):
    client.create_collection("docs", embedder="wordllama")

    async def ask():
        async with AsyncClient(dsn) as other:
            docs = await other.collection("docs")
            return await other.probe(), await docs.probe()

    everything, one = asyncio.run(ask())
    assert everything == one
    assert everything.spaces[0].outcome == "same"


def test_vectors_of_a_service_are_not_taken_from_the_cache(client, monkeypatch):
    """A service that answers as another model under the old name: what the cache has would hide it."""
    with ProviderServer() as service, contextlib.ExitStack() as stack:
        plain = openai.DefaultHttpxClient(verify=False)
        made = stack.enter_context(
            openai.OpenAI(api_key="key", base_url=service.base_url + "/v1", http_client=plain)
        )
        docs = client.create_collection("docs", embedder=OpenAIEmbedder(dimensions=8, client=made))
        docs.ingest([{"id": str(n), "text": text} for n, text in enumerate(PROBES)])
        docs.search(PROBES[1])
        (found,) = docs.probe().spaces
        assert found.outcome == "same"
        monkeypatch.setattr("providers.vector_of", _as_another_model)
        (found,) = docs.probe().spaces
    assert (found.outcome, found.against) == ("changed", "fingerprint")
    assert found.detail.endswith(
        "embed everything again: pgseek reembed docs --to openai:text-embedding-3-small@8 --again"
    )


def _as_another_model(model, text, dimensions, input_type=""):
    seed = int.from_bytes(f"{model} 2 {text}".encode()[:64], "big")
    vector = np.random.default_rng(seed).normal(size=dimensions)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


# From the command line.


@pytest.fixture
def pgseek(dsn, commands):
    def run(*arguments, dsn=dsn):
        made = commands.run("--dsn", dsn, *arguments)
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


def test_the_command(pgseek, client, dsn):
    client.create_collection("docs", embedder="wordllama").ingest(CORPUS)
    client.create_collection(
        "own", embedder=CallableEmbedder(lambda texts: [[1.0, 0.0]] * len(texts), model="mine")
    )
    code, out, err = pgseek("doctor", "--probe")
    assert (code, err) == (0, "")
    assert (
        "ok    docs, space 1 (wordllama:l2_supercat@256)  the same model: the smallest cosine is 1.0000, of 6 texts"
        in out
    )
    assert "note  own, space 2 (callable:mine@2)  not probed: it was made with an embedder object" in out
    code, out, _ = pgseek("doctor", "--probe", "docs", "--json")
    assert code == 0
    found = json.loads(out)
    assert {check["name"] for check in found["checks"]} >= {"server", "schema"}
    (one,) = found["probes"]
    assert (one["collection"], one["outcome"], one["compared"]) == ("docs", "same", 6)

    # As another model would have it.
    rows(
        dsn,
        "UPDATE pgseek.space_probes p SET embedding = q.embedding FROM pgseek.space_probes q"
        " WHERE p.space_id = 1 AND q.space_id = 1 AND p.text = %s AND q.text = %s AND p.input_type = 'document'",
        [PROBES[2], PROBES[3]],
    )
    code, out, _ = pgseek("doctor", "--probe", "docs")
    assert code == 1
    assert "FAIL  docs, space 1" in out
    assert "pgseek reembed docs --to wordllama:l2_supercat@256 --again" in out
    code, out, _ = pgseek("doctor", "--probe", "--deep", "docs", "--json")
    assert code == 1
    found = json.loads(out)
    assert found["examination"]["findings"] == []
    assert [one["outcome"] for one in found["probes"]] == ["changed"]
    assert pgseek("doctor")[0] == 0
    # What it says mends it.
    assert pgseek("reembed", "docs", "--to", "wordllama:l2_supercat@256")[0] == 2
    assert pgseek("reembed", "docs", "--to", "wordllama:l2_supercat@256", "--again", "--dry-run")[0] == 0
    assert pgseek("reembed", "docs", "--to", "wordllama:l2_supercat@256", "--again")[0] == 0
    code, out, _ = pgseek("doctor", "--probe", "docs")
    assert code == 1
    assert "ok    docs, space 3" in out
    assert out.rstrip().endswith("retire the space: pgseek spaces retire docs 1")
    assert pgseek("spaces", "retire", "docs", "1", "--yes")[0] == 0
    assert pgseek("doctor", "--probe", "docs")[0] == 0

    assert pgseek("doctor", "--probe", "nothing")[0] == 3
    assert pgseek("doctor", "docs")[::2] == (
        2,
        "error: naming collections needs --deep, --probe or --recall\n",
    )
    code, out, _ = pgseek("doctor", "--probe", dsn="host=127.0.0.1 port=9 dbname=x")
    assert code == 1
    assert "FAIL  server" in out


# What to do about it.


def test_what_is_advised_makes_a_space_of_the_changed_model(client, dsn):
    """The same name, and other vectors: all of them are made anew, none is taken from the cache or a larger space."""
    with ProviderServer() as service, contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        plain = openai.DefaultHttpxClient(verify=False)
        made = stack.enter_context(
            openai.OpenAI(api_key="key", base_url=service.base_url + "/v1", http_client=plain)
        )
        embedder, larger = (OpenAIEmbedder(dimensions=n, client=made) for n in (8, 16))
        docs = client.create_collection("docs", embedder=embedder, storage="halfvec", index="none")
        docs.ingest(CORPUS)
        docs.search("a cache")
        docs.reembed(larger, switch=False, gate=Gate(min_recall=0))
        with pytest.raises(InvalidInput, match=r"is searched by .*@8 already; .* say --again"):
            docs.reembed(embedder, storage="halfvec")
        patch.setattr("providers.vector_of", _as_another_model)
        service.reset()
        asked = docs.plan_reembed(embedder, again=True)
        assert (asked.texts, asked.cached, asked.reduced, asked.storage, asked.index) == (
            6,
            0,
            False,
            "halfvec",
            "none",
        )
        report = docs.reembed(embedder, again=True, gate=Gate(min_recall=0))
        assert (report.stage, report.space_id, report.done) == ("switched", 3, 6)
        # Of the cache nothing was left.
        asked_for = {text for request in service.requests for text in request.texts}
        assert asked_for >= {f"{document['title']}\n\n{document['text']}" for document in CORPUS}
        for row in rows(
            dsn,
            "SELECT c.title, c.text, e.embedding::text AS v FROM pgseek.chunks c JOIN pgseek.embeddings_3 e"
            " USING (collection_id, document_id, ordinal)",
        ):
            expected = _as_another_model("text-embedding-3-small", f"{row['title']}\n\n{row['text']}", 8)
            assert np.allclose([float(x) for x in row["v"][1:-1].split(",")], expected, atol=1e-3)
        outcomes = {one.space_id: (one.state, one.outcome, one.detail) for one in docs.probe().spaces}
        assert {number: found[:2] for number, found in outcomes.items()} == {
            3: ("active", "same"),
            1: ("ready", "changed"),
            2: ("ready", "changed"),
        }
        assert outcomes[1][2].endswith("retire the space: pgseek spaces retire docs 1")
        # Interrupted and begun again it goes on with what it had; when it is done, another change is a new space.
        assert docs.plan_reembed(embedder, again=True).texts == 6
        with pytest.raises(InvalidInput, match="again embeds with the model that the collection has"):
            docs.plan_reembed(larger, again=True)


def test_the_same_command_goes_on_with_a_space_that_was_begun(client, dsn):
    docs = client.create_collection("docs", embedder=Turning())
    docs.ingest(CORPUS)
    changed = Turning(cosine=0.2)
    again = client.collection("docs", embedder=changed)
    report = again.reembed(changed, again=True, switch=False, gate=Gate(min_recall=0))
    assert (report.stage, report.space_id) == ("ready", 2)
    rows(dsn, "DELETE FROM pgseek.embeddings_2 WHERE document_id = pgseek.document_id('errno')")
    report = again.reembed(changed, again=True, gate=Gate(min_recall=0))
    assert (report.stage, report.space_id, report.begun, report.done) == ("switched", 2, 5, 6)
    report = again.reembed(changed, again=True, gate=Gate(min_recall=0))
    assert (report.stage, report.space_id) == ("switched", 3)
