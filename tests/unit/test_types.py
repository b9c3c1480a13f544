"""Public values: what a Search and a collection name may be, and that nothing can be changed."""

from __future__ import annotations

import dataclasses
import math
from types import MappingProxyType

import pytest

from pgseek import types
from pgseek.errors import InvalidInput
from pgseek.types import Document, EmbedderIdentity, IngestReport, Rejection, Search, check_collection_name

K_RANGE = "1 to 10,000"
VALUES = [
    value
    for value in vars(types).values()
    if dataclasses.is_dataclass(value) and value.__module__ == types.__name__
]


@pytest.mark.parametrize("query", ["", " ", "\n\t\u3000", None, 5, ["word"]])
def test_an_empty_query_is_refused(query):
    with pytest.raises(InvalidInput, match="the query is empty; give at least one word"):
        Search(query)


def test_a_nul_byte_in_the_query_is_refused():
    with pytest.raises(InvalidInput, match="the query holds a NUL byte"):
        Search("cache\x00d")


def test_a_lone_surrogate_in_the_query_is_refused_with_its_place():
    with pytest.raises(InvalidInput, match="the query holds a lone surrogate at character 5"):
        Search("cache\ud83d")


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        *[({"k": k}, K_RANGE) for k in (0, -1, 10_001, True, 1.5, "10", None, math.nan)],
        *[({"candidates": n}, K_RANGE) for n in (0, -1, 10_001, False, 2.5, "x")],
        *[({"rrf_k": n}, "1 to 1,000,000") for n in (0, -60, 1_000_001, True, 60.5, None)],
        *[({"alpha": a}, "0..1") for a in (-0.1, 1.1, math.nan, math.inf, True, "0.5", [])],
        *[({"fusion": f}, "weighted, rrf") for f in ("RRF", "", "sum", 1, ["rrf"])],
        *[({"lexical": x}, "bm25, ts_rank_cd, ts_rank") for x in ("tfidf", "", "ts_rank; DROP TABLE x", 0)],
    ],
    ids=str,
)
def test_a_value_out_of_its_range_is_named_with_the_range(given, allowed):
    ((name, value),) = given.items()
    with pytest.raises(InvalidInput) as caught:
        Search("cache", **given)
    assert str(caught.value).startswith(f"{name} is {value!r}")
    assert allowed in str(caught.value)


@pytest.mark.parametrize("alpha", [0, 0.5, 1])
def test_rrf_has_no_alpha(alpha):
    with pytest.raises(InvalidInput, match=rf"alpha is {alpha} with fusion 'rrf'.*leave alpha out"):
        Search("cache", fusion="rrf", alpha=alpha)


@pytest.mark.parametrize(
    "given",
    [
        {"k": 1},
        {"k": 10_000},
        {"alpha": 0},
        {"alpha": 1},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"fusion": "rrf"},
        {"fusion": "weighted", "alpha": 0.3},
        {"lexical": "ts_rank"},
        {"candidates": 1},
        {"candidates": 10_000},
        {"rrf_k": 1},
        {"rrf_k": 1_000_000},
    ],
    ids=str,
)
def test_the_ends_of_each_range_are_allowed(given):
    request = Search("cache", **given)
    assert {name: getattr(request, name) for name in given} == given


@pytest.mark.parametrize(
    "query", ["'", '"', "a & !b | (c", "\\", "x'; DROP TABLE y --", "日本", "😀", "a\nb"]
)
def test_any_other_text_is_a_query(query):
    assert Search(query).query == query


@pytest.mark.parametrize("name", ["a", "A1", "_private", "9lives", "docs-2024.v1", "x" * 63])
def test_a_collection_may_be_called(name):
    assert check_collection_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "docs\n",
        "\ndocs",
        ".hidden",
        "-flag",
        "o'reilly",
        'quo"ted',
        "a;b",
        "a\\b",
        "a/b",
        "a\x00b",
        "x'; DROP SCHEMA pgseek CASCADE; --",
        "naïve",
        "文書",
        "٣",
        "dοcs",
        "$1",
        "%s",
        None,
        5,
        b"docs",
    ],
)
def test_a_collection_may_not_be_called(name):
    with pytest.raises(InvalidInput) as caught:
        check_collection_name(name)
    assert repr(name) in str(caught.value)
    assert "1 to 63 ASCII letters, digits" in str(caught.value)


def test_a_long_collection_name_is_told_its_length():
    with pytest.raises(InvalidInput, match=r"\(64 characters\).*1 to 63"):
        check_collection_name("x" * 64)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_values_are_frozen(value):
    made = object.__new__(value)
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, "changed")
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(made, name)


def test_every_public_value_is_among_the_frozen_ones():
    assert {value.__name__ for value in VALUES} == {
        "CachePolicy",
        "CacheStats",
        "Chunk",
        "CollectionInfo",
        "CopyStatus",
        "Document",
        "EmbedderIdentity",
        "Gate",
        "GateReport",
        "Hit",
        "IngestPlan",
        "IngestReport",
        "Located",
        "Match",
        "MetadataIndex",
        "Passage",
        "ProbeReport",
        "QueueFailure",
        "QueuePolicy",
        "QueueStatus",
        "ReembedPlan",
        "ReembedReport",
        "Rejection",
        "Search",
        "SearchPolicy",
        "SearchReport",
        "SpaceInfo",
        "SpaceProbe",
        "WorkReport",
    }


def test_values_take_no_new_attributes():
    with pytest.raises((AttributeError, TypeError)):
        Document("1", "text").colour = "red"


def test_the_default_metadata_cannot_be_changed():
    metadata = Document("1", "text").metadata
    assert isinstance(metadata, MappingProxyType)
    with pytest.raises(TypeError):
        metadata["a"] = 1


def test_a_report_counts_the_documents_read():
    report = IngestReport(
        new=1, changed=2, metadata_changed=3, unchanged=4, rejected=(Rejection(1, None, "x"),)
    )
    assert report.documents == 11


def test_an_identity_reads_as_its_specification():
    assert str(EmbedderIdentity("openai", "m", 256, normalized=True)) == "openai:m@256"
