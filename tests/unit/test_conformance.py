"""What holds of every embedder: one suite that all of them pass.

A new embedder joins it with one line in ``CASES``.
"""

from __future__ import annotations

import gc
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from providers import NATIVE, OTHERS, Fault, vector_of

from pgseek.embedders.base import Embedder, check_probe, checked_query, embed_many, identity_hash
from pgseek.embedders.callable import CallableEmbedder
from pgseek.embedders.registry import create_embedder, embedder_for
from pgseek.embedders.wordllama import WordLlamaEmbedder
from pgseek.errors import EmbedderError, InvalidInput

BGE, E5 = "BAAI/bge-small-en-v1.5", "intfloat/e5-small-v2"
TEXTS = [
    "caching the results of a function",
    "A cat.",
    "two\nlines\r\nand a tab\t",
    "über naïve Straße",
    "日本語のテキスト",
    "👨‍👩‍👧 😀",
    "e\u0301\u0323 n\u0303",
    "שלום \u202eمرحبا\u202c",
    "'; DROP TABLE x; --",
    "\u200b\ufeff",
    "a\x01b",
    "x" * 5_000,
]


def hashed(texts: list[str]) -> np.ndarray:
    return np.stack([vector_of("mine", text, 16) for text in texts])


def hashed_queries(texts: list[str]) -> np.ndarray:
    return np.stack([vector_of("mine", text, 16, "query") for text in texts])


@cache
def wordllama(dimensions: int) -> WordLlamaEmbedder:
    """Loading the weights takes longer than the tests that need them."""
    return WordLlamaEmbedder(dimensions=dimensions)


@cache
def minilm_embedder(folder: str) -> Embedder:
    return create_embedder(f"sentence-transformers:{folder}")


@dataclass(frozen=True)
class Case:
    """An embedder, and what is known of it. ``make`` is called with a function that returns a fixture."""

    name: str
    make: Callable[[Callable[[str], Any]], Embedder]
    dimensions: int
    remote: bool = False
    two_sided: bool = False  # documents and queries are embedded differently
    stored: bool = True  # an identity leads back to it
    tolerance: float = 0.0  # of a text in other company
    slow: bool = False


CASES = [
    *(Case(f"wordllama@{d}", lambda _, d=d: wordllama(d), d) for d in (64, 128, 256)),
    Case("openai 3-small@8", lambda get: get("services").openai(), 8, remote=True),
    *(
        Case(name, lambda get, name=name: get("services").openai(name, None), NATIVE[name], remote=True)
        for name in ("text-embedding-3-large", "text-embedding-ada-002")
    ),
    Case("openai-compatible", lambda get: get("services").compatible(), OTHERS, remote=True),
    *(
        Case(
            f"openai-compatible {name}",
            lambda get, name=name: get("services").compatible(name),
            OTHERS,
            remote=True,
            two_sided=True,
        )
        for name in (BGE, E5)
    ),
    Case("azure-openai", lambda get: get("services").azure(), 8, remote=True),
    *(
        Case(
            f"cohere {name}",
            lambda get, name=name, size=size: get("services").cohere(name, size),
            size,
            remote=True,
            two_sided=True,
        )
        for name, size in (("embed-english-v3.0", 1024), ("embed-v4.0", 256))
    ),
    Case("callable", lambda _: CallableEmbedder(hashed, model="mine"), 16, stored=False),
    Case(
        "callable for queries",
        lambda _: CallableEmbedder(hashed, model="mine", query_function=hashed_queries),
        16,
        two_sided=True,
        stored=False,
    ),
    Case(
        "sentence-transformers",
        lambda get: minilm_embedder(get("minilm")),
        384,
        # Padding changes the order of the sums.
        tolerance=1e-6,
        slow=True,
    ),
]
SLOW = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(params=[pytest.param(c, id=c.name, marks=SLOW if c.slow else []) for c in CASES])
def case(request) -> Case:
    return request.param


@pytest.fixture
def embedder(request, case) -> Embedder:
    return case.make(request.getfixturevalue)


def test_it_has_the_protocol_and_names_its_space(case, embedder):
    assert isinstance(embedder, Embedder)
    assert embedder.model_id == str(embedder.identity)
    assert embedder.model_id.endswith(f"@{case.dimensions}")
    assert embedder.identity.dimensions == case.dimensions


def test_documents_become_one_float32_row_each(case, embedder):
    vectors = embedder.embed_documents(TEXTS)
    assert vectors.shape == (len(TEXTS), case.dimensions)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()


def test_a_query_becomes_one_float32_vector(case, embedder):
    for text in TEXTS:
        vector = checked_query(embedder, text)
        assert vector.shape == (case.dimensions,)
        assert vector.dtype == np.float32
        assert embedder.embed_query(text).dtype == np.float32


def test_rows_come_in_the_order_of_the_texts(case, embedder):
    forwards = embedder.embed_documents(TEXTS)
    backwards = embedder.embed_documents(TEXTS[::-1])
    assert np.abs(forwards - backwards[::-1]).max() <= case.tolerance
    # Each text has a vector of its own.
    assert len(np.unique(forwards, axis=0)) == len(TEXTS)


def test_a_text_has_the_same_vector_every_time_and_in_every_company(case, embedder):
    alone = np.stack([embedder.embed_documents([text])[0] for text in TEXTS])
    together = embedder.embed_documents([*TEXTS, "word " * 500, *TEXTS])
    for vectors in (together[: len(TEXTS)], together[-len(TEXTS) :]):
        assert np.abs(alone - vectors).max() <= case.tolerance


def test_vectors_have_unit_length_where_the_identity_says_so(embedder):
    assert embedder.identity.normalized
    vectors = np.concatenate([embedder.embed_documents(TEXTS), [embedder.embed_query(t) for t in TEXTS]])
    assert np.linalg.norm(vectors.astype(np.float64), axis=1) == pytest.approx(1, abs=1e-5)
    check_probe(embedder, embedder.embed_documents(["pgseek"]))


def test_no_texts_give_no_rows(case, embedder):
    vectors = embedder.embed_documents([])
    assert vectors.shape == (0, case.dimensions)
    assert vectors.dtype == np.float32
    outcome = embed_many(embedder, [])
    assert (outcome.vectors.shape, outcome.error) == ((0, case.dimensions), None)


def test_any_sequence_of_texts_will_do(embedder):
    assert np.array_equal(embedder.embed_documents(tuple(TEXTS)), embedder.embed_documents(TEXTS))


def test_many_and_documents_are_the_same(case, embedder):
    outcome = embed_many(embedder, TEXTS)
    assert (outcome.error, outcome.refused, outcome.missing) == (None, {}, frozenset())
    assert np.abs(outcome.vectors - embedder.embed_documents(TEXTS)).max() <= case.tolerance


def test_queries_differ_from_documents_where_the_space_says_so(case, embedder):
    documents = embedder.embed_documents(TEXTS)
    queries = np.stack([embedder.embed_query(text) for text in TEXTS])
    equal = np.abs(documents - queries).max(axis=1) <= case.tolerance
    assert not equal.any() if case.two_sided else equal.all()


def test_prompts_and_input_types_reach_the_service(request, case, embedder):
    if not case.remote:
        return
    server = request.getfixturevalue("server")
    server.reset()
    embedder.embed_documents(["text"])
    embedder.embed_query("text")
    document, query = server.requests
    identity = embedder.identity
    assert document.texts == (identity.document_prompt + "text",)
    assert query.texts == (identity.query_prompt + "text",)
    types = ("search_document", "search_query") if identity.provider == "cohere" else (None, None)
    assert (document.arguments.get("input_type"), query.arguments.get("input_type")) == types
    if identity.model == E5:
        assert (document.texts, query.texts) == (("passage: text",), ("query: text",))
    if identity.model == BGE:
        assert query.texts == ("Represent this sentence for searching relevant passages: text",)


def test_an_over_long_text_is_never_cut_in_silence(request, case, embedder):
    long = "cat " * 9_000 + "dog " * 9_000
    if case.remote:
        server = request.getfixturevalue("server")
        server.reset()
        if embedder.identity.provider == "cohere":
            # The real service refuses what is too long as long as it is not told to cut.
            server.bad_text = "cat dog"
        with pytest.raises(EmbedderError, match=r"refused text 2 of 3: \w+") as caught:
            embedder.embed_documents(["short", long, "also short"])
        assert str(caught.value).startswith(embedder.model_id)
        with pytest.raises(EmbedderError, match=r"refused the query: \w+"):
            embedder.embed_query(long)
        if embedder.identity.provider == "cohere":
            assert {request.arguments["truncate"] for request in server.requests} == {"NONE"}
            assert embedder.max_tokens is not None
    elif embedder.identity.provider == "sentence-transformers":
        # The caller can see that it is too long, and divide it.
        assert embedder.exact_tokens
        assert embedder.count_tokens([long])[0] > embedder.max_tokens
    else:
        # What has no limit reads to the end.
        assert embedder.embed_query(long) @ embedder.embed_query("cat " * 9_000) < 0.99


def test_its_identity_is_stable_and_leads_back_to_it(request, case, embedder):
    before = identity_hash(embedder.identity)
    assert len({embedder.identity, case.make(request.getfixturevalue).identity}) == 1
    embedder.embed_documents(TEXTS[:2])
    assert identity_hash(embedder.identity) == before
    if not case.stored:
        with pytest.raises(InvalidInput, match="pass the same one"):
            embedder_for(embedder.identity)
        return
    again = embedder_for(embedder.identity)
    assert again.identity == embedder.identity
    assert again.model_id == embedder.model_id
    assert np.array_equal(again.embed_documents(TEXTS[:2]), embedder.embed_documents(TEXTS[:2]))
    assert np.array_equal(again.embed_query(TEXTS[0]), embedder.embed_query(TEXTS[0]))
    with warnings.catch_warnings():
        # One of the libraries leaves its connection to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        del again
        gc.collect()


def test_errors_name_the_model_and_never_the_key(request, case, embedder):
    if case.remote:
        services = request.getfixturevalue("services")
        for status in (400, 401, 403, 404, 429, 500):
            # Another function than a list: every request fails, those that are tried again too.
            services.server.faults = lambda _, status=status: Fault(status, retry_after=0)
            embedder.attempts = 2
            for ask in (lambda: embedder.embed_documents(TEXTS), lambda: embedder.embed_query("text")):
                with pytest.raises(EmbedderError) as caught:
                    ask()
                assert embedder.model_id in str(caught.value)
                assert "\n" not in str(caught.value)
                shown = "".join(traceback.format_exception(caught.value))
                assert services.key not in shown + repr(embedder) + repr(vars(embedder))
    elif case.name.startswith("callable"):
        failing = CallableEmbedder(lambda texts: 1 / 0, model="mine", dimensions=3, normalized=True)
        for ask in (lambda: failing.embed_documents(TEXTS), lambda: failing.embed_query("text")):
            with pytest.raises(EmbedderError, match="callable:mine@3 failed: division by zero") as caught:
                ask()
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
    else:
        identity = embedder.identity
        with pytest.raises(InvalidInput, match=rf"{identity.model}|wordllama") as caught:
            create_embedder(f"{identity.provider}:{identity.model}@{case.dimensions + 1}")
        assert str(case.dimensions) in str(caught.value)
