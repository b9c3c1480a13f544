"""What holds of every embedder, and how one is chosen by its name.

A new embedder joins the suite with one line in ``MAKERS``.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from support import CountingEmbedder

from pgseek.embedders.base import Embedder, checked_documents, checked_query
from pgseek.embedders.openai import OpenAIEmbedder
from pgseek.embedders.registry import PROVIDERS, create_embedder, embedder_for
from pgseek.embedders.wordllama import WordLlamaEmbedder
from pgseek.errors import InvalidInput
from pgseek.types import EmbedderIdentity


@cache
def wordllama(dimensions: int) -> WordLlamaEmbedder:
    """Loading the weights takes longer than the tests that need them."""
    return WordLlamaEmbedder(dimensions=dimensions)


MAKERS = {
    "wordllama@256": lambda _: wordllama(256),
    "wordllama@128": lambda _: wordllama(128),
    "wordllama@64": lambda _: wordllama(64),
    "openai@1536": lambda client: OpenAIEmbedder(client=client),
    "openai@256": lambda client: OpenAIEmbedder(dimensions=256, client=client),
}
TEXTS = [
    "caching the results of a function",
    "A cat.",
    "two\nlines\r\nand a tab\t",
    "über naïve Straße",
    "日本語のテキスト",
    "👨‍👩‍👧 😀",
    "e\u0301\u0323",
    "שלום \u202eمرحبا\u202c",
    "'; DROP TABLE x; --",
    "\u200b\ufeff",
    "a\x01b",
]
LONG = ["x" * 100_000, "word " * 20_000, "長" * 30_000]


@pytest.fixture(params=MAKERS)
def embedder(request, openai_client) -> Embedder:
    return MAKERS[request.param](openai_client)


def test_it_has_the_protocol_and_names_its_space(embedder):
    assert isinstance(embedder, Embedder)
    assert embedder.model_id == str(embedder.identity)
    assert embedder.model_id.endswith(f"@{embedder.identity.dimensions}")


def test_documents_become_one_float32_row_each(embedder):
    vectors = embedder.embed_documents(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.identity.dimensions)
    assert vectors.dtype == np.float32


def test_a_query_becomes_one_float32_vector(embedder):
    vector = embedder.embed_query(TEXTS[0])
    assert vector.shape == (embedder.identity.dimensions,)
    assert vector.dtype == np.float32


def test_rows_come_in_the_order_of_the_texts(embedder):
    forwards = embedder.embed_documents(TEXTS)
    backwards = embedder.embed_documents(TEXTS[::-1])
    assert np.array_equal(forwards, backwards[::-1])
    assert len(np.unique(forwards, axis=0)) == len(TEXTS)


def test_a_text_has_the_same_bits_in_every_batch(embedder):
    alone = np.stack([embedder.embed_documents([text])[0] for text in TEXTS])
    together = embedder.embed_documents([*TEXTS, "word " * 500, *TEXTS])
    assert alone.tobytes() == together[: len(TEXTS)].tobytes() == together[-len(TEXTS) :].tobytes()


def test_vectors_have_unit_length_where_the_identity_says_so(embedder):
    assert embedder.identity.normalized
    vectors = [embedder.embed_documents(TEXTS), *(embedder.embed_documents([text]) for text in LONG)]
    lengths = np.linalg.norm(np.concatenate(vectors), axis=1)
    assert lengths == pytest.approx(1, abs=1e-5)


def test_no_texts_give_no_rows(embedder):
    vectors = embedder.embed_documents([])
    assert vectors.shape == (0, embedder.identity.dimensions)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("text", LONG, ids=["one token", "many words", "no spaces"])
def test_a_very_long_text_is_embedded(embedder, text):
    assert checked_documents(embedder, [text, "short"]).shape == (2, embedder.identity.dimensions)


def test_without_prompts_a_query_has_the_vector_of_its_document(embedder):
    assert embedder.identity.query_prompt == embedder.identity.document_prompt
    documents = embedder.embed_documents(TEXTS)
    for text, vector in zip(TEXTS, documents, strict=True):
        assert np.array_equal(checked_query(embedder, text), vector)


def test_any_sequence_of_texts_will_do(embedder):
    assert np.array_equal(embedder.embed_documents(tuple(TEXTS)), embedder.embed_documents(TEXTS))


def test_a_stored_identity_leads_back_to_the_embedder(embedder):
    assert embedder_for(embedder.identity).identity == embedder.identity


# The registry.


@pytest.mark.parametrize(
    ("spec", "dimensions", "identity"),
    [
        ("wordllama", None, "wordllama:l2_supercat@256"),
        ("wordllama:", None, "wordllama:l2_supercat@256"),
        ("wordllama:l2_supercat", None, "wordllama:l2_supercat@256"),
        ("wordllama@64", None, "wordllama:l2_supercat@64"),
        ("wordllama", 128, "wordllama:l2_supercat@128"),
        ("wordllama@128", 128, "wordllama:l2_supercat@128"),
        ("openai", None, "openai:text-embedding-3-small@1536"),
        ("openai@512", None, "openai:text-embedding-3-small@512"),
        ("openai:text-embedding-3-large", None, "openai:text-embedding-3-large@3072"),
        ("openai:text-embedding-3-large@1024", None, "openai:text-embedding-3-large@1024"),
        ("openai:text-embedding-ada-002", 1536, "openai:text-embedding-ada-002@1536"),
    ],
)
def test_a_specification_names_an_embedder(spec, dimensions, identity):
    assert str(create_embedder(spec, dimensions).identity) == identity


@pytest.mark.parametrize(
    ("spec", "dimensions", "words"),
    [
        ("wordlama", None, ["'wordlama' is unknown", "did you mean 'wordllama'?"]),
        ("sentence_transformers:x", None, ["did you mean 'sentence-transformers'?"]),
        ("open-ai:x", None, ["did you mean 'openai'?"]),
        ("cohere", None, ["'cohere' is unknown", *PROVIDERS]),
        ("", None, ["'' is unknown", *PROVIDERS]),
        ("WordLlama", None, ["'WordLlama' is unknown"]),
        ("wordllama@", None, ["'' after '@' is not a number"]),
        ("wordllama@x", None, ["'x' after '@' is not a number"]),
        ("wordllama@-64", None, ["'-64' after '@' is not a number"]),
        ("wordllama@0", None, ["'0' after '@' is not a number"]),
        ("wordllama@6.4", None, ["'6.4' after '@' is not a number"]),
        ("wordllama@²", None, ["'²' after '@' is not a number"]),
        ("wordllama@64", 128, ["names 64 dimensions", "dimensions is 128"]),
        ("wordllama:other", None, ["'other' is not in the wheel", "'l2_supercat'"]),
        ("wordllama@100", None, ["64, 128, 256 dimensions, not 100"]),
        ("wordllama", 0, ["64, 128, 256 dimensions, not 0"]),
        ("openai:gpt-4", None, ["'gpt-4' is unknown", "text-embedding-3-small", "text-embedding-ada-002"]),
        ("openai@1537", None, ["1 to 1536 dimensions, not 1537"]),
        ("openai", 0, ["1 to 1536 dimensions, not 0"]),
        ("openai", -1, ["1 to 1536 dimensions, not -1"]),
        ("openai:text-embedding-ada-002@512", None, ["only 1536 dimensions, not 512"]),
        ("sentence-transformers", None, ["name a model"]),
    ],
)
def test_a_bad_specification_is_told_what_would_do(spec, dimensions, words):
    with pytest.raises(InvalidInput) as caught:
        create_embedder(spec, dimensions)
    for word in words:
        assert word in str(caught.value)


def test_a_space_of_the_callers_own_embedder_asks_for_it():
    with pytest.raises(InvalidInput, match=r"tests:hash@8.*pass the same one"):
        embedder_for(CountingEmbedder().identity)


def test_a_stored_identity_keeps_its_dimensions():
    identity = EmbedderIdentity("openai", "text-embedding-3-large", 1024, normalized=True)
    assert embedder_for(identity).identity == identity


# Optional packages that are not there.


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [
        ("wordllama", "wordllama", "embedded"),
        ("openai", "openai", "openai"),
        ("sentence-transformers:some/model", "sentence_transformers", "sentence-transformers"),
    ],
)
def test_a_missing_extra_is_told_with_its_pip_command(fresh_python, spec, package, extra):
    printed = fresh_python(
        f"""
        import sys
        sys.modules[{package!r}] = None
        from pgseek.embedders.base import checked_query
        from pgseek.embedders.registry import create_embedder
        for use in (
            lambda: create_embedder({spec!r}).embed_query("x"),
            lambda: create_embedder({spec!r}).embed_documents(["x"]),
            lambda: checked_query(create_embedder({spec!r}), "x"),
        ):
            try:
                use()
            except Exception as error:
                print(type(error).__name__, error)
        """
    )
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines] == ["MissingExtra"] * 3
    assert all(line.endswith(f"pip install 'pgseek[{extra}]'") for line in lines)
