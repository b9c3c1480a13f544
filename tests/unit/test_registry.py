"""How an embedder is chosen by its name: specifications, prompts, stored spaces, providers of other packages."""

from __future__ import annotations

import importlib
import sys
import textwrap

import numpy as np
import pytest
from support import CountingEmbedder

from pgseek.embedders.base import checked_query, identity_hash
from pgseek.embedders.registry import PROVIDERS, create_embedder, embedder_for, providers
from pgseek.errors import EmbedderError, InvalidInput
from pgseek.types import EmbedderIdentity

# Specifications.


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
        ("azure-openai:text-embedding-3-large=ours@256", None, "azure-openai:text-embedding-3-large@256"),
        ("cohere", None, "cohere:embed-v4.0@1536"),
        ("cohere@512", None, "cohere:embed-v4.0@512"),
        ("cohere:embed-multilingual-v3.0", None, "cohere:embed-multilingual-v3.0@1024"),
        (
            "openai-compatible:nomic-embed-text:latest@768",
            None,
            "openai-compatible:nomic-embed-text:latest@768",
        ),
        ("openai-compatible:folder@home/model", 16, "openai-compatible:folder@home/model@16"),
        ("openai-compatible:tiny", None, "openai-compatible:tiny@32"),
    ],
)
def test_a_specification_names_an_embedder(server, spec, dimensions, identity):
    assert str(create_embedder(spec, dimensions).identity) == identity


@pytest.mark.parametrize(
    ("spec", "dimensions", "words"),
    [
        ("wordlama", None, ["'wordlama' is unknown", "did you mean 'wordllama'?"]),
        ("sentence_transformers:x", None, ["did you mean 'sentence-transformers'?"]),
        ("open-ai:x", None, ["did you mean 'openai'?"]),
        ("voyage", None, ["'voyage' is unknown", *PROVIDERS]),
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
        ("openai:gpt-4", None, ["'gpt-4' is unknown", "openai-compatible:MODEL"]),
        ("openai@1537", None, ["1 to 1536 dimensions, not 1537"]),
        ("openai", 0, ["1 to 1536 dimensions, not 0"]),
        ("openai", -1, ["1 to 1536 dimensions, not -1"]),
        ("openai:text-embedding-ada-002@512", None, ["only 1536 dimensions, not 512"]),
        ("cohere:command", None, ["cohere model 'command' is unknown"]),
        ("cohere@100", None, ["256, 512, 1024, 1536 dimensions, not 100"]),
        ("cohere:embed-english-v3.0@256", None, ["only 1024 dimensions, not 256"]),
        ("openai-compatible", None, ["name the server's model"]),
        ("sentence-transformers", None, ["name a model"]),
    ],
)
def test_a_bad_specification_is_told_what_would_do(spec, dimensions, words):
    with pytest.raises(InvalidInput) as caught:
        create_embedder(spec, dimensions)
    for word in words:
        assert word in str(caught.value)


def test_a_server_without_an_address_is_told_the_variable(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(
        InvalidInput, match="openai-compatible:mine needs the server's address: set OPENAI_BASE_URL"
    ):
        create_embedder("openai-compatible:mine")


# Prompts.


def test_other_prompts_make_another_space(server):
    spec = "openai-compatible:intfloat/e5-small-v2@32"
    own = create_embedder(spec)
    assert (own.identity.query_prompt, own.identity.document_prompt) == ("query: ", "passage: ")
    made = [
        own,
        create_embedder(spec, query_prompt="Q: "),
        create_embedder(spec, document_prompt="D: "),
        create_embedder(spec, query_prompt="", document_prompt=""),
    ]
    assert len({identity_hash(embedder.identity) for embedder in made}) == 4
    # None of them falls back to the catalogue's when it is opened again.
    for embedder in made:
        assert embedder_for(embedder.identity).identity == embedder.identity
    made[3].embed_query("text")
    assert server.requests[-1].texts == ("text",)


@pytest.mark.parametrize("spec", ["wordllama", "openai", "azure-openai", "cohere"])
def test_prompts_are_refused_where_there_are_none(spec):
    with pytest.raises(InvalidInput, match=f"{spec} has no prompts, but query_prompt was given"):
        create_embedder(spec, query_prompt="q")
    with pytest.raises(InvalidInput, match="but query_prompt and document_prompt was given"):
        create_embedder(spec, query_prompt="", document_prompt="")


# Stored spaces.


def test_a_space_of_the_callers_own_embedder_asks_for_it():
    with pytest.raises(InvalidInput, match=r"tests:hash@8.*pass the same one"):
        embedder_for(CountingEmbedder().identity)


def test_a_stored_identity_keeps_its_dimensions():
    identity = EmbedderIdentity("openai", "text-embedding-3-large", 1024, normalized=True)
    assert embedder_for(identity).identity == identity


# Providers of other packages.

MODULE = """
import numpy as np
from pgseek import EmbedderIdentity
from pgseek.errors import InvalidInput

class Embedder:
    def __init__(self, model, dimensions, query_prompt="", document_prompt="", revision=""):
        if model == "wrong":
            raise InvalidInput("this provider has no such model")
        self.identity = EmbedderIdentity(
            "acme", model or "first", dimensions or 4, True, query_prompt, document_prompt, revision
        )
        self.model_id = str(self.identity)

    def embed_documents(self, texts):
        return np.eye(len(texts), self.identity.dimensions, dtype=np.float32)

    def embed_query(self, text):
        return self.embed_documents([text])[0]

class Renamed(Embedder):
    pass

def plain(model, dimensions):
    return Embedder(model, dimensions)

def rubbish(model, dimensions):
    return 17

def half(model, dimensions):
    made = Embedder(model, dimensions)
    made.identity = "acme"
    return made

def failing(model, dimensions):
    raise RuntimeError("no licence")
"""


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """Install a distribution whose entry points are those it is called with."""
    name = f"acme_{tmp_path.name}"

    def install(**entry_points: str) -> None:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODULE))
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "\n".join(f"{key} = {value.replace('@', name)}" for key, value in entry_points.items())
        (info / "entry_points.txt").write_text(f"[pgseek.embedders]\n{lines}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    yield install
    sys.modules.pop(name, None)


def test_another_package_brings_a_provider(acme):
    acme(acme="@:Embedder")
    assert "acme" in providers()
    made = create_embedder("acme:second@6")
    assert made.model_id == "acme:second@6"
    assert create_embedder("acme").model_id == "acme:first@4"
    assert np.array_equal(checked_query(made, "x"), np.eye(6, dtype=np.float32)[0])
    prompted = create_embedder("acme", query_prompt="q: ")
    assert prompted.identity.query_prompt == "q: "
    dated = create_embedder("acme", revision="2024-06")
    assert dated.identity.revision == "2024-06"
    for embedder in (made, prompted, dated):
        assert embedder_for(embedder.identity).identity == embedder.identity
    with pytest.raises(InvalidInput, match="did you mean 'acme'"):
        create_embedder("acmee")
    with pytest.raises(InvalidInput, match="no such model"):
        create_embedder("acme:wrong")


def test_a_provider_of_ours_cannot_be_replaced(acme):
    acme(wordllama="@:Embedder")
    assert providers() == tuple(PROVIDERS)
    assert create_embedder("wordllama").model_id == "wordllama:l2_supercat@256"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("acme", "nowhere_at_all:Embedder", "cannot be used: ModuleNotFoundError: .*nowhere_at_all"),
        ("acme", "@:Missing", "cannot be used: AttributeError: .*Missing"),
        ("acme", "@:failing", "cannot be used: RuntimeError: no licence"),
        ("acme", "@:MODEL", "cannot be used: AttributeError"),
        ("acme", "@:rubbish", "made a int, which is no embedder"),
        ("acme", "@:half", "made a Embedder, which is no embedder"),
        ("other", "@:Embedder", "made an embedder of acme:first@4, whose provider has another name"),
    ],
)
def test_a_provider_that_does_not_work_is_named(acme, name, value, words):
    acme(**{name: value})
    with pytest.raises(EmbedderError, match=rf"the provider '{name}' \(.*\) {words}"):
        create_embedder(name)


def test_a_provider_that_takes_no_prompts_says_so(acme):
    acme(acme="@:plain")
    assert create_embedder("acme").model_id == "acme:first@4"
    with pytest.raises(EmbedderError, match="unexpected keyword argument 'query_prompt'"):
        create_embedder("acme", query_prompt="q: ")


# Optional packages that are not there.


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [
        ("wordllama", "wordllama", "embedded"),
        ("openai", "openai", "openai"),
        ("openai", "pyrate_limiter", "openai"),
        ("openai", "tenacity", "openai"),
        ("azure-openai", "openai", "openai"),
        ("openai-compatible:x", "openai", "openai"),
        ("cohere", "cohere", "cohere"),
        ("sentence-transformers:some/model", "sentence_transformers", "sentence-transformers"),
    ],
)
def test_a_missing_extra_is_told_with_its_pip_command(fresh_python, spec, package, extra):
    printed = fresh_python(
        f"""
        import sys
        sys.modules[{package!r}] = None
        from pgseek.embedders.base import checked_query, embed_many
        from pgseek.embedders.registry import create_embedder
        def raised():
            raise embed_many(create_embedder({spec!r}), ["x"]).error
        for use in (
            lambda: create_embedder({spec!r}).embed_query("x"),
            lambda: create_embedder({spec!r}).embed_documents(["x"]),
            lambda: checked_query(create_embedder({spec!r}), "x"),
            raised,
        ):
            try:
                use()
            except Exception as error:
                print(type(error).__name__, error)
        """,
        OPENAI_BASE_URL="http://127.0.0.1:1/v1",
    )
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines] == ["MissingExtra"] * 4
    assert all(line.endswith(f"pip install 'pgseek[{extra}]'") for line in lines)
