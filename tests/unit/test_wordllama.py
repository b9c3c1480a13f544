"""WordLlama: its dimensions, its meaning, no network, and no trace in the caller's logging."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest

from pgseek.embedders.base import usable
from pgseek.embedders.wordllama import ALLOWED, WordLlamaEmbedder
from pgseek.errors import InvalidInput


@pytest.fixture(scope="module")
def embedder() -> WordLlamaEmbedder:
    return WordLlamaEmbedder()


@pytest.mark.parametrize("dimensions", [0, -64, 65, 512, 1.5, "64"])
def test_bad_dimensions_are_told_the_allowed_ones(dimensions):
    with pytest.raises(InvalidInput, match=rf"64, 128, 256 dimensions, not {dimensions}"):
        WordLlamaEmbedder(dimensions=dimensions)


@pytest.mark.parametrize("dimensions", ALLOWED[:-1])
def test_shorter_vectors_are_prefixes_of_the_longest_scaled_again(embedder, dimensions):
    texts = ["caching a function", "merge sorted inputs", "日本語"]
    prefixes = embedder.embed_documents(texts)[:, :dimensions]
    expected = prefixes / np.linalg.norm(prefixes, axis=1, keepdims=True)
    assert WordLlamaEmbedder(dimensions=dimensions).embed_documents(texts) == pytest.approx(
        expected, abs=1e-6
    )


def test_a_text_is_nearest_to_the_one_that_says_the_same(embedder):
    query = embedder.embed_query("how do I cache the results of a function")
    documents = embedder.embed_documents(
        ["join path components", "a memoizing decorator saves function results", "sort a list of numbers"]
    )
    assert int(np.argmax(documents @ query)) == 1


def test_case_means_nothing(embedder):
    assert np.array_equal(embedder.embed_query("Errno ENOENT"), embedder.embed_query("errno enoent"))


@pytest.mark.parametrize("text", ["", " ", "\n", "\x00", "\x1c"])
def test_a_text_without_words_spoils_no_batch(embedder, text):
    first, odd, last = embedder.embed_documents(["before", text, "after"])
    assert np.isfinite(odd).all()
    assert usable(first)
    assert usable(last)
    assert np.array_equal(odd, embedder.embed_query(text))


@pytest.mark.parametrize("text", ["x" * 100_000, "word " * 20_000, "長" * 30_000], ids=lambda text: text[:5])
def test_a_very_long_text_has_a_vector_of_unit_length(embedder, text):
    vectors = embedder.embed_documents([text, "short"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(vectors[1], embedder.embed_query("short"))


def _no_network() -> tuple[str, ...]:
    """Return the command that takes the network away, or nothing where that is not permitted."""
    for command in (("unshare", "-n"), ("unshare", "-r", "-n")):
        try:
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                return command
        except OSError:
            break
    return ()


def test_it_works_without_network_and_never_tries_it(fresh_python, tmp_path):
    printed = fresh_python(
        f"""
        import os, socket
        os.environ.pop("HF_HUB_OFFLINE", None)
        tried = []
        def refuse(*given, **named):
            tried.append(given)
            raise OSError("there is no network")
        socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
        from pgseek.embedders.wordllama import WordLlamaEmbedder
        for dimensions in {ALLOWED}:
            print(WordLlamaEmbedder(dimensions=dimensions).embed_documents(["hello", "world"]).shape)
        print(tried)
        """,
        wrapper=_no_network(),
        HOME=str(tmp_path),
        HF_HOME=str(tmp_path / "hf"),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert printed.splitlines() == [*(f"(2, {dimensions})" for dimensions in ALLOWED), "[]"]
    assert [name for _, _, names in os.walk(tmp_path) for name in names] == []


@pytest.mark.parametrize(("level", "handlers"), [("WARNING", "[]"), ("DEBUG", "[logging.NullHandler()]")])
def test_using_it_leaves_the_root_logger_alone(fresh_python, level, handlers):
    printed = fresh_python(
        f"""
        import logging
        root = logging.getLogger()
        root.setLevel({level!r})
        before = {handlers}
        root.handlers[:] = before
        from pgseek.embedders.wordllama import WordLlamaEmbedder
        WordLlamaEmbedder().embed_query("hello")
        print(root.handlers == before, logging.getLevelName(root.level))
        """
    )
    assert printed == f"True {level}"
