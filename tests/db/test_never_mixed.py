"""Vectors of two models are never compared nor stored together: who tries is told both, and what to do."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

import numpy as np
import openai
import psycopg
import pytest
from providers import NATIVE, ProviderServer, vector_of
from psycopg.types.json import Jsonb
from support import CountingEmbedder, rows

from pgseek import CallableEmbedder, Client, InvalidInput, PgseekError, SpaceMismatch, create_embedder, ingest
from pgseek.collections import matching_embedder
from pgseek.db.connection import connect
from pgseek.embedders.base import PROBES, identity_hash
from pgseek.embedders.openai import OpenAIEmbedder
from pgseek.embedders.registry import embedder_for
from pgseek.spaces import describe

SMALL, ADA = "text-embedding-3-small", "text-embedding-ada-002"
# As messages name them.
OF_SMALL, OF_ADA = f"openai:{SMALL}@1536", f"openai:{ADA}@1536"
TEXTS = {"a": "apple pie", "b": "cherry cake"}
DOCUMENTS = [{"id": name, "text": text} for name, text in TEXTS.items()]


@pytest.fixture
def service():
    with ProviderServer() as server, contextlib.ExitStack() as clients:
        server.clients = clients
        yield server


def remote(service, model):
    """Return OpenAI's embedder with its real client, served by this machine."""
    plain = openai.DefaultHttpxClient(verify=False)
    client = service.clients.enter_context(
        openai.OpenAI(api_key="key", base_url=service.base_url + "/v1", http_client=plain)
    )
    return OpenAIEmbedder(model, client=client)


@pytest.fixture
def small(client, service):
    """A collection of text-embedding-3-small with two documents."""
    docs = client.create_collection("docs", embedder=remote(service, SMALL))
    docs.ingest(DOCUMENTS)
    return docs


@pytest.fixture
def ada(client, service, small):
    """Another collection, of text-embedding-ada-002, and a vector of that model."""
    client.create_collection("old", embedder=remote(service, ADA)).ingest(DOCUMENTS)
    return vector_of(ADA, "apple", 1536)


def names_both(error, fix):
    """Whether the message names both models and says what to do."""
    text = str(error.value)
    assert OF_SMALL in text, text
    assert OF_ADA in text or f"openai:{ADA}" in text, text
    assert fix in text, text
    return True


def stored(dsn, space=1):
    return rows(
        dsn, f"SELECT document_id, ordinal, embedding::text FROM pgseek.embeddings_{space} ORDER BY 1, 2"
    )


# Two models of one length.


def test_the_two_have_as_many_numbers():
    assert NATIVE[SMALL] == NATIVE[ADA] == 1536


def test_opening_with_the_other_model_is_refused(client, small, service):
    with pytest.raises(SpaceMismatch) as error:
        client.collection("docs", embedder=remote(service, ADA))
    assert names_both(error, "pgseek reembed")
    with pytest.raises(SpaceMismatch) as error:
        client.create_collection("docs", embedder=remote(service, ADA), exist_ok=True)
    assert names_both(error, "use the collection's embedder")


def test_an_ingest_with_the_other_model_is_refused_by_the_database_and_writes_nothing(dsn, small, service):
    before = stored(dsn)
    script = ingest.ingest(
        small.info(), remote(service, ADA), [{"id": "c", "text": "plum jam"}], ingest.Options()
    )
    with pytest.raises(SpaceMismatch) as error:
        small._client._run(script)
    assert names_both(error, "embed with the model of the space, or re-embed the collection: pgseek reembed")
    assert "space 1 of the collection" in str(error.value)
    assert isinstance(error.value.__cause__, psycopg.Error)
    assert stored(dsn) == before
    assert small.get("c") is None


def test_a_handle_from_before_the_collection_was_made_anew_is_refused(client, dsn, service, small):
    with Client(dsn) as other:
        other.drop_collection("docs")
        other.create_collection("docs", embedder=remote(service, ADA)).ingest(DOCUMENTS)
    with pytest.raises(SpaceMismatch) as error:
        small.search("apple")
    assert names_both(error, "open the collection again")
    assert "(space 1, which is gone)" in str(error.value)
    with pytest.raises(SpaceMismatch) as error:
        small.search("apple", model=f"openai:{SMALL}@1536", query_embedding=vector_of(SMALL, "apple", 1536))
    assert names_both(error, "open the collection again")
    with pytest.raises(PgseekError):
        small.ingest([{"id": "c", "text": "plum jam"}])
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.documents")[0]["n"] == 2


def test_a_vector_of_which_nobody_says_what_made_it_is_refused(small):
    with pytest.raises(InvalidInput) as error:
        small.search("apple", query_embedding=vector_of(SMALL, "apple", 1536))
    assert "without the model that made it" in str(error.value)
    assert f"openai:{SMALL}@1536" in str(error.value)


def test_a_vector_is_refused_by_the_model_that_is_said_to_have_made_it(small, ada):
    ours = vector_of(SMALL, "apple", 1536)
    hits = small.search("apple", query_embedding=ours, model=f"openai:{SMALL}", alpha=1)
    assert {hit.id for hit in hits} == {"a", "b"}
    with pytest.raises(SpaceMismatch) as error:
        small.search("apple", query_embedding=ada, model=f"openai:{ADA}")
    assert names_both(error, f"embed with openai:{SMALL}, or re-embed the collection: pgseek reembed")


SEARCH = "SELECT * FROM pgseek.search('docs', 'apple', query_embedding => %(v)s::vector, {})"


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (f"model => 'openai:{ADA}'", f"embed with openai:{SMALL}, or re-embed the collection"),
        (f"model => 'openai:{ADA}@1536'", f"embed with openai:{SMALL}, or re-embed the collection"),
        ("model => (SELECT identity FROM pgseek.embedding_spaces WHERE space_id = 2)", "or re-embed"),
        ("space_id => 2", "open the collection again, or embed with the model that it uses"),
        (f"space_id => 1, model => 'openai:{ADA}'", f"embed with openai:{SMALL}"),
    ],
)
def test_sql_refuses_a_query_of_the_other_model(dsn, ada, said, fix):
    with pytest.raises(psycopg.Error) as error:
        rows(dsn, SEARCH.format(said), {"v": str(ada.tolist())})
    assert error.value.sqlstate == "PGS05"
    assert names_both(error, fix)


def test_sql_refuses_a_vector_of_which_nothing_is_said(dsn, ada):
    with pytest.raises(psycopg.Error) as error:
        rows(dsn, SEARCH.format("k => 3"), {"v": str(ada.tolist())})
    assert error.value.sqlstate == "PGS05"
    text = str(error.value)
    assert (
        f"a vector is given, but not of which model; collection 'docs' holds vectors of {OF_SMALL} (space 1)"
        in text
    )
    assert f"say model => 'openai:{SMALL}' if that is the one that made it" in text


@pytest.mark.parametrize(
    "said",
    [
        f"model => 'openai:{SMALL}'",
        f"model => 'openai:{SMALL}@1536'",
        "model => (SELECT identity FROM pgseek.embedding_spaces WHERE space_id = 1)",
        "space_id => 1",
        f"space_id => 1, model => 'openai:{SMALL}'",
    ],
)
def test_sql_takes_a_vector_of_the_collections_model(dsn, small, said):
    found = rows(dsn, SEARCH.format(said), {"v": str(vector_of(SMALL, "apple", 1536).tolist())})
    assert {row["external_id"] for row in found} == {"a", "b"}


def test_sql_refuses_a_model_that_is_named_without_a_vector(dsn, ada):
    with pytest.raises(psycopg.Error) as error:
        rows(dsn, "SELECT * FROM pgseek.search('docs', 'apple', model => %s)", [f"openai:{ADA}"])
    assert error.value.sqlstate == "PGS05"


def test_sql_refuses_vectors_of_the_other_model(dsn, ada):
    before = stored(dsn)
    with pytest.raises(psycopg.Error) as error:
        put(dsn, [("a", 0, ada)], model=f"openai:{ADA}")
    assert error.value.sqlstate == "PGS05"
    assert names_both(error, f"embed with openai:{SMALL}, or re-embed the collection: pgseek reembed")
    with pytest.raises(psycopg.Error) as error:
        put(dsn, [("a", 0, ada)], model=None)
    assert "not of which model" in str(error.value)
    # Its own space, but that of another collection.
    with pytest.raises(psycopg.Error, match="collection 'docs' has no embedding space 2 to write to"):
        put(dsn, [("a", 0, ada)], model=f"openai:{ADA}", space=2)
    assert stored(dsn) == before


def test_the_transaction_of_a_write_compares_identities(dsn, small, ada):
    spaces = {row["space_id"]: row["identity"] for row in rows(dsn, "SELECT * FROM pgseek.embedding_spaces")}
    call = "SELECT * FROM pgseek.live_spaces(1, %s::int[], %s::text[])"
    (own,) = rows(dsn, call, [[1], [spaces[1]]])
    assert own == {"space_id": 1, "storage": "vector", "identity": spaces[1], "active": True}
    with pytest.raises(psycopg.Error) as error:
        rows(dsn, call, [[1], [spaces[2]]])
    assert error.value.sqlstate == "PGS05"
    assert names_both(error, "embed with the model of the space")
    with pytest.raises(psycopg.Error, match="the vectors are of another embedder, but space 1"):
        rows(dsn, call, [[1], ["0" * 64]])
    with pytest.raises(
        psycopg.Error, match=f"are of {OF_ADA} .space 2., for space 2 of the collection, which it does"
    ):
        rows(dsn, call, [[2], [spaces[2]]])


# What belongs to an identity.


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"revision": "2024-06"}, "@8 of revision '2024-06'"),
        ({"query_prompt": "query: "}, "@8, query prompt 'query: '"),
        ({"document_prompt": "passage: "}, "@8, document prompt 'passage: '"),
        ({"normalized": False}, "@8, not of unit length"),
        ({"provider": "others"}, "others:hash@8"),
    ],
)
def test_everything_that_changes_a_vector_makes_another_space(client, dsn, changed, told):
    plain, other = CountingEmbedder(), CountingEmbedder()
    other.identity = replace(other.identity, **changed)
    docs = client.create_collection("docs", embedder=plain)
    docs.ingest(DOCUMENTS)
    made = client.create_collection("other", embedder=other)
    with pytest.raises(SpaceMismatch) as error:
        client.collection("docs", embedder=other)
    assert "holds vectors of tests:hash@8, but" in str(error.value)
    assert told in str(error.value)
    with pytest.raises(SpaceMismatch) as error:
        docs._client._run(ingest.ingest(docs.info(), other, [{"id": "c", "text": "jam"}], ingest.Options()))
    assert f"the vectors are of {describe(other.identity)}, but space 1" in str(error.value)
    # The database says it in the same words.
    (told_by_sql,) = rows(dsn, "SELECT pgseek.describe_space(2) AS text")
    assert told_by_sql["text"] == f"{describe(made.info().identity)} (space 2)"
    assert told in told_by_sql["text"]
    assert made.info().identity == other.identity


def test_the_metric_is_told_and_held(client, dsn):
    client.create_collection("docs", embedder=CountingEmbedder(), metric="l2")
    assert rows(dsn, "SELECT pgseek.describe_space(1) AS d")[0]["d"] == "tests:hash@8 by l2 (space 1)"
    opened = client.create_collection("docs", embedder=CountingEmbedder(), exist_ok=True)
    assert opened.info().space.metric == "l2"
    with pytest.raises(
        SpaceMismatch, match="holds vectors of tests:hash@8 by l2, but the metric given is 'cosine'"
    ):
        client.create_collection("docs", embedder=CountingEmbedder(), metric="cosine", exist_ok=True)
    with pytest.raises(psycopg.Error, match="of tests:other, but collection 'docs' uses tests:hash@8 by l2"):
        rows(
            dsn,
            "SELECT * FROM pgseek.search('docs', 'x', query_embedding => '[1,0,0,0,0,0,0,0]', model => 'tests:other')",
        )


def test_two_revisions_of_a_model_of_ones_own(client, dsn):
    def embed(texts):
        return [[len(text), 1.0] for text in texts]

    first = CallableEmbedder(embed, model="mine", revision="2024-06")
    second = CallableEmbedder(embed, model="mine", revision="2025-01")
    unsaid = CallableEmbedder(embed, model="mine")
    assert len({identity_hash(one.identity) for one in (first, second, unsaid)}) == 3
    client.create_collection("docs", embedder=first).ingest(DOCUMENTS)
    assert rows(dsn, "SELECT revision FROM pgseek.embedding_spaces") == [{"revision": "2024-06"}]
    assert client.collection("docs", embedder=first).info().identity.revision == "2024-06"
    with pytest.raises(SpaceMismatch) as error:
        client.collection("docs", embedder=second)
    assert "of callable:mine@2 of revision '2024-06', not of unit length, but" in str(error.value)
    assert "the embedder is callable:mine@2 of revision '2025-01', not of unit length" in str(error.value)
    with pytest.raises(SpaceMismatch, match="but the embedder is callable:mine@2, not of unit length"):
        client.collection("docs", embedder=unsaid)
    with pytest.raises(InvalidInput, match="revision is 3, but must be text"):
        CallableEmbedder(embed, model="mine", revision=3)


def test_without_a_revision_an_identity_is_what_it_was_before_there_were_any():
    # SHA-256 of the identity's JSON as revision 0005 wrote it: collections made before stay as they are.
    assert (
        identity_hash(create_embedder("wordllama").identity)
        == "84644c85de4a1c0263f8fea818f3e8b60c9bd28a772d2e10823ee4a72b093d43"
    )


def test_a_provider_without_revisions_is_not_asked_for_one():
    with pytest.raises(InvalidInput, match="wordllama has no revisions to choose from, but 'abc' was given"):
        create_embedder("wordllama", revision="abc")
    stated = replace(create_embedder("wordllama").identity, revision="abc")
    assert embedder_for(stated).identity.revision == ""


# Vectors from writers that embed by themselves.


def put(dsn, vectors, *, model="tests:hash", collection="docs", space=None, hashes=None):
    """Call pgseek.put_embeddings with (external id, ordinal, vector)."""
    names, ordinals, embeddings = zip(*vectors, strict=True) if vectors else ((), (), ())
    texts = [None if v is None else str([float(x) for x in v]) for v in embeddings]
    (row,) = rows(
        dsn,
        "SELECT pgseek.put_embeddings(%s, %s, %s::text[], %s::int[], %s::vector[], %s, %s::bytea[]) AS n",
        [collection, model, list(names), list(ordinals), texts, space, hashes],
    )
    return row["n"]


def put_document(dsn, name, text, **more):
    rows(
        dsn,
        "SELECT pgseek.put_documents('docs', %s)",
        [Jsonb([{"id": name, "text": text, **more}])],
    )


@pytest.fixture
def docs(client):
    """A collection without vectors that anybody made: three dimensions, by name only."""
    return client.create_collection("docs", embedder=CountingEmbedder(3))


def vectors(dsn, space=1):
    found = rows(
        dsn,
        "SELECT d.external_id, e.ordinal, e.embedding::text::vector AS v"
        f" FROM pgseek.embeddings_{space} e JOIN pgseek.documents d USING (collection_id, document_id)"
        " ORDER BY 1, 2",
    )
    return [
        (row["external_id"], row["ordinal"], [float(x) for x in row["v"][1:-1].split(",")]) for row in found
    ]


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2", "l1"])
@pytest.mark.parametrize("storage", ["vector", "halfvec"])
def test_vectors_are_stored_and_searched_whatever_the_metric_and_the_storage(client, dsn, metric, storage):
    client.create_collection("docs", embedder=CountingEmbedder(3), metric=metric, storage=storage)
    for name, text in TEXTS.items():
        put_document(dsn, name, text)
    given = [("a", 0, [1, 0, 0.5]), ("b", 0, [0, 2, 0.25])]
    assert put(dsn, given) == 2
    assert vectors(dsn) == given
    found = rows(
        dsn,
        "SELECT external_id FROM pgseek.search('docs', 'x', alpha => 1, query_embedding => '[1,0,0.4]',"
        " model => 'tests:hash@3')",
    )
    assert [row["external_id"] for row in found] == ["a", "b"]


def test_what_is_not_there_is_passed_over(docs, dsn):
    put_document(dsn, "a", "apple pie")
    v = [1, 0, 0]
    assert put(dsn, [("a", 0, v), ("a", 1, v), ("none", 0, v), (None, 0, v), ("a", None, v), ("", 0, v)]) == 1
    assert vectors(dsn) == [("a", 0, [1, 0, 0])]
    assert put(dsn, []) == 0
    assert rows(dsn, "SELECT pgseek.put_embeddings('docs', 'tests:hash', NULL, NULL, NULL) AS n") == [
        {"n": 0}
    ]


def test_of_two_vectors_for_one_chunk_the_last_is_stored(docs, dsn):
    put_document(dsn, "a", "apple pie")
    assert put(dsn, [("a", 0, [1, 0, 0]), ("a", 0, [0, 1, 0]), ("a", 0, [0, 0, 1])]) == 1
    assert vectors(dsn) == [("a", 0, [0, 0, 1])]
    assert put(dsn, [("a", 0, [0.5, 0.5, 0])]) == 1
    assert vectors(dsn) == [("a", 0, [0.5, 0.5, 0])]


def test_a_text_that_was_changed_since_it_was_read_keeps_no_vector_of_the_old_one(docs, dsn):
    read = "SELECT text_hash FROM pgseek.chunks"
    put_document(dsn, "a", "apple pie")
    (old,) = rows(dsn, read)
    put_document(dsn, "a", "apple tart")
    assert put(dsn, [("a", 0, [1, 0, 0])], hashes=[old["text_hash"]]) == 0
    assert vectors(dsn) == []
    (new,) = rows(dsn, read)
    assert put(dsn, [("a", 0, [1, 0, 0])], hashes=[new["text_hash"]]) == 1
    assert vectors(dsn) == [("a", 0, [1, 0, 0])]


@pytest.mark.parametrize(
    ("given", "state", "message"),
    [
        ([("a", 0, [0, 0, 0])], "PGS02", "vector 1 is zero; cosine needs a direction"),
        ([("a", 0, [1, 0, 0]), ("a", 0, [0, 0, 0])], "PGS02", "vector 2 is zero"),
        ([("a", 0, [1, 0])], "PGS04", "vector 1 has 2 dimensions, but tests:hash@3 (space 1) has 3"),
        ([("a", 0, [1, 0, 0]), ("a", 0, None)], "PGS04", "vector 2 has no dimensions, but tests:hash@3"),
        ([("a", 0, [1, float("nan"), 0])], "22000", "NaN not allowed in vector"),
        ([("a", 0, [1, float("inf"), 0])], "22000", "infinite value not allowed in vector"),
    ],
)
def test_a_vector_that_cannot_be_compared_is_refused_with_its_place(docs, dsn, given, state, message):
    put_document(dsn, "a", "apple pie")
    with pytest.raises(psycopg.Error) as error:
        put(dsn, given)
    assert message in str(error.value)
    assert error.value.sqlstate == state
    assert vectors(dsn) == []


@pytest.mark.parametrize("metric", ["inner_product", "l2", "l1"])
def test_a_zero_vector_has_a_distance_by_other_metrics(client, dsn, metric):
    client.create_collection("docs", embedder=CountingEmbedder(3), metric=metric)
    put_document(dsn, "a", "apple pie")
    assert put(dsn, [("a", 0, [0, 0, 0])]) == 1


def test_half_precision_makes_nothing_of_what_is_tiny_and_refuses_what_is_large(client, dsn):
    client.create_collection("docs", embedder=CountingEmbedder(3), storage="halfvec")
    put_document(dsn, "a", "apple pie")
    with pytest.raises(psycopg.Error, match="vector 1 is zero"):
        put(dsn, [("a", 0, [1e-9, 0, 0])])
    with pytest.raises(psycopg.Error, match='"70000" is out of range for type halfvec'):
        put(dsn, [("a", 0, [70000, 0, 0])])
    assert vectors(dsn) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "ARRAY['a', 'b'], ARRAY[0], ARRAY['[1,2,3]'::vector]",
            "have 2, 1, 1 elements, but must have as many each",
        ),
        ("ARRAY['a'], ARRAY[0], '{}'", "have 1, 1, 0 elements"),
        ("ARRAY['a'], ARRAY[0], NULL", "have 1, 1, 0 elements"),
        ("NULL, ARRAY[0], ARRAY['[1,2,3]'::vector]", "have 0, 1, 1 elements"),
        (
            "ARRAY['a'], ARRAY[0], ARRAY['[1,2,3]'::vector], NULL, '{}'",
            "external_ids, ordinals and embeddings, and text_hashes, have 1, 1, 1, 0 elements",
        ),
    ],
)
def test_arrays_of_different_lengths_are_refused(docs, dsn, arguments, message):
    with pytest.raises(psycopg.Error) as error:
        rows(dsn, f"SELECT pgseek.put_embeddings('docs', 'tests:hash', {arguments})")
    assert message in str(error.value)
    assert error.value.sqlstate == "PGS02"


def test_an_unknown_collection_or_space_is_named(docs, dsn):
    with pytest.raises(psycopg.Error, match="there is no collection 'dogs'") as error:
        put(dsn, [("a", 0, [1, 0, 0])], collection="dogs")
    assert error.value.sqlstate == "PGS01"
    with pytest.raises(
        psycopg.Error, match="collection 'docs' has no embedding space 99 to write to"
    ) as error:
        put(dsn, [("a", 0, [1, 0, 0])], space=99)
    assert error.value.sqlstate == "PGS05"
    assert "pgseek spaces list" in str(error.value)


# Whether a document goes on waiting.


def waiting(dsn):
    found = rows(
        dsn,
        "SELECT d.external_id FROM pgseek.ingest_queue q"
        " JOIN pgseek.documents d USING (collection_id, document_id) ORDER BY 1",
    )
    return [row["external_id"] for row in found]


def test_a_document_whose_chunks_have_their_vectors_waits_no_longer(docs, dsn):
    for name, text in TEXTS.items():
        put_document(dsn, name, text)
    assert waiting(dsn) == ["a", "b"]
    assert put(dsn, [("a", 0, [1, 0, 0])]) == 1
    assert waiting(dsn) == ["b"]
    report = docs.drain_queue()
    assert (report.changed, report.embedded) == (1, 1)
    # A worker leaves it alone from now on.
    assert vectors(dsn)[0] == ("a", 0, [1, 0, 0])
    # A change of its text is a new wait, without the old vector.
    put_document(dsn, "a", "apple tart")
    assert waiting(dsn) == ["a"]
    assert [name for name, *_ in vectors(dsn)] == ["b"]


def test_a_long_document_waits_for_all_of_its_pieces(docs, dsn):
    put_document(dsn, "long", "word " * 9000)
    pieces = rows(dsn, "SELECT ordinal, length(text) AS n FROM pgseek.chunks ORDER BY 1")
    assert [(row["ordinal"], row["n"]) for row in pieces] == [(0, 20000), (1, 20000), (2, 5000)]
    assert put(dsn, [("long", 2, [1, 0, 0]), ("long", 0, [0, 1, 0])]) == 2
    assert waiting(dsn) == ["long"]
    assert put(dsn, [("long", 1, [0, 0, 1])]) == 1
    assert waiting(dsn) == []
    assert docs.drain_queue().changed == 0
    assert len(vectors(dsn)) == 3


def test_a_worker_keeps_a_vector_of_a_text_that_its_chunker_leaves_as_it_is(docs, dsn):
    put_document(dsn, "a", "apple pie", title="Pies")
    put_document(dsn, "long", "word " * 9000)
    assert put(dsn, [("long", 0, [1, 0, 0])]) == 1
    report = docs.drain_queue()
    assert report.changed == 2
    # Divided anew, into chunks of 2,000 characters; the piece's vector went with it.
    assert len(vectors(dsn)) == 1 + 45000 // 2000 + 1
    assert [0, 0, 1] not in [v for *_, v in vectors(dsn)]


def test_a_document_that_was_given_up_is_taken_back(docs, dsn):
    put_document(dsn, "a", "apple pie")
    rows(dsn, "UPDATE pgseek.ingest_queue SET failed_at = now(), error = 'refused'")
    assert docs.queue_status().failed == 1
    assert put(dsn, [("a", 0, [1, 0, 0])]) == 1
    assert docs.queue_status().failed == 0


@pytest.mark.parametrize(
    "settings", [{"document_vectors": True}, {"questions": 2, "generator": "openai:gpt-4.1-mini"}]
)
def test_where_more_than_chunks_is_wanted_a_document_goes_on_waiting(client, dsn, settings):
    client.create_collection("docs", embedder=CountingEmbedder(3), **settings)
    put_document(dsn, "a", "apple pie")
    assert put(dsn, [("a", 0, [1, 0, 0])]) == 1
    assert waiting(dsn) == ["a"]


def test_every_space_of_the_collection_must_have_them(docs, dsn):
    rows(
        dsn,
        "INSERT INTO pgseek.embedding_spaces (collection_id, provider, model, dimensions, metric, storage, prompts,"
        " normalized, identity, state) SELECT collection_id, provider, 'second', 2, 'l2', storage, prompts, normalized,"
        " repeat('f', 64), 'building' FROM pgseek.embedding_spaces",
    )
    rows(
        dsn,
        "CREATE TABLE pgseek.embeddings_2 (collection_id integer, document_id uuid, ordinal integer,"
        " embedding vector(2), PRIMARY KEY (collection_id, document_id, ordinal))",
    )
    put_document(dsn, "a", "apple pie")
    assert put(dsn, [("a", 0, [1, 0, 0])]) == 1
    assert waiting(dsn) == ["a"]
    with pytest.raises(
        psycopg.Error, match="the vector is of tests:hash, but collection 'docs' uses tests:second@2 by l2"
    ):
        put(dsn, [("a", 0, [1, 0])], space=2)
    assert put(dsn, [("a", 0, [1, 0])], space=2, model="tests:second@2") == 1
    assert waiting(dsn) == []
    rows(dsn, "UPDATE pgseek.embedding_spaces SET state = 'retired' WHERE space_id = 2")
    with pytest.raises(psycopg.Error, match="has no embedding space 2 to write to"):
        put(dsn, [("a", 0, [1, 0])], space=2, model="tests:second")


def test_a_writer_that_changes_the_document_meanwhile_is_waited_for(docs, dsn):
    """The vector of a text never comes to stand with another: its hash is compared after the wait."""
    put_document(dsn, "a", "apple pie")
    (old,) = rows(dsn, "SELECT text_hash FROM pgseek.chunks")
    done = []
    with connect(dsn, autocommit=False) as writer:
        writer.execute("SELECT pgseek.put_document('docs', 'a', 'apple tart')")
        thread = threading.Thread(
            target=lambda: done.append(put(dsn, [("a", 0, [1, 0, 0])], hashes=[old["text_hash"]]))
        )
        thread.start()
        while not rows(dsn, "SELECT FROM pg_locks WHERE NOT granted"):
            assert thread.is_alive()
        writer.commit()
        thread.join()
    assert done == [0]
    assert vectors(dsn) == []
    assert waiting(dsn) == ["a"]


def test_a_worker_that_has_the_document_meanwhile_leaves_what_was_put(docs, dsn):
    class Interrupted(CountingEmbedder):
        def embed_documents(self, texts):
            if "apple pie" in texts:
                assert put(dsn, [("a", 0, [1, 0, 0])]) == 1
            return super().embed_documents(texts)

    put_document(dsn, "a", "apple pie")
    with Client(dsn) as other:
        assert other.collection("docs", embedder=Interrupted(3)).drain_queue().changed == 0
    assert vectors(dsn) == [("a", 0, [1, 0, 0])]
    assert waiting(dsn) == []


def test_the_fingerprint_of_a_space_is_what_its_embedder_gives(docs, dsn):
    found = rows(dsn, "SELECT input_type, text, embedding::text AS v FROM pgseek.space_probes ORDER BY 1, 2")
    assert sorted(row["text"] for row in found if row["input_type"] == "document") == sorted(PROBES)
    assert [row["text"] for row in found if row["input_type"] == "query"] == [PROBES[1]]
    embedder = matching_embedder(docs.info(), CountingEmbedder(3))
    for row in found:
        np.testing.assert_allclose(
            [float(x) for x in row["v"][1:-1].split(",")], embedder.embed_query(row["text"]), atol=1e-6
        )
