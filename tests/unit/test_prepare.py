"""Preparing documents: what is stored of a good one, why a bad one is not, and the hashes."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import itertools
import json
import math
from types import MappingProxyType
from uuid import RFC_4122, UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import CountingEmbedder

from pgseek.collections import Languages
from pgseek.embedders.base import identity_hash
from pgseek.embedding import embedding_text
from pgseek.errors import InvalidInput
from pgseek.filters import to_jsonpath
from pgseek.ingest import Options, ingest
from pgseek.prepare import Prepared, Supply, content_hash, document_from, document_id, prepare
from pgseek.steps import advance
from pgseek.types import CollectionInfo, Document, Located, Rejection

LANGUAGES = Languages(["simple", "english", "german", "public.own"])
TEXTS = st.text(max_size=30)


def prepared(record, position: int = 1) -> Prepared | Rejection:
    return prepare(record, position, "english", LANGUAGES)


def nested(value, depth: int):
    """Return a value inside ``depth`` lists."""
    for _ in range(depth):
        value = [value]
    return value


def test_a_document_is_prepared_as_it_is_stored():
    made = prepared({"id": "a", "text": " Body\n", "title": "T", "metadata": {"k": ["é", 1, None]}}, 7)
    assert made == Prepared(
        position=7,
        source=None,
        document_id=document_id("a"),
        external_id="a",
        title="T",
        body=" Body\n",
        language="english",
        metadata='{"k": ["é", 1, null]}',
        content_hash=content_hash("T", " Body\n", "english"),
    )


def test_a_document_object_is_prepared_like_its_mapping():
    document = Document("a", "Body", "T", {"k": 1}, "german")
    record = {"id": "a", "text": "Body", "title": "T", "metadata": {"k": 1}, "language": "german"}
    assert prepared(document) == prepared(record)
    assert prepared(document).language == "german"


def test_a_read_record_keeps_its_place():
    made = prepared(Located({"id": "a", "text": "x"}, 12, "corpus.jsonl"), 99)
    assert (made.position, made.source) == (12, "corpus.jsonl")
    bad = prepared(Located({"id": "a", "text": ""}, 12, "corpus.jsonl"), 99)
    assert bad == Rejection(12, "a", "the document has no text", "corpus.jsonl")


def test_a_rejection_of_the_source_passes_through():
    given_one = Rejection(3, None, "line 3 is not JSON", "a.jsonl")
    assert prepared(given_one) is given_one


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"id": "a\x00b", "text": "x"}, "id holds a NUL byte at character 1"),
        ({"id": "a", "text": "ab\x00"}, "text holds a NUL byte at character 2"),
        ({"id": "a", "text": "x", "title": "\x00"}, "title holds a NUL byte at character 0"),
        ({"id": "a\ud800", "text": "x"}, "id holds a lone surrogate at character 1"),
        ({"id": "a", "text": "\udfff"}, "text holds a lone surrogate at character 0"),
        ({"id": "a", "text": "x", "title": "ab\ud83d"}, "title holds a lone surrogate at character 2"),
        ({"id": "a", "text": ""}, "the document has no text"),
        ({"id": "a", "text": " \n\t\u3000"}, "the document has no text"),
        ({"id": "a"}, "the document has no text"),
        ({"id": "a", "text": None}, "the document has no text"),
        ({"text": "x"}, "the document has no id"),
        ({"id": None, "text": "x"}, "the document has no id"),
        ({"id": "", "text": "x"}, "the id is empty"),
        ({"id": True, "text": "x"}, "id is a bool, but must be text"),
        ({"id": 1.5, "text": "x"}, "id is a float, but must be text"),
        ({"id": b"a", "text": "x"}, "id is a bytes, but must be text"),
        ({"id": "a", "text": 5}, "text is a int, but must be text"),
        ({"id": "a", "text": ["x"]}, "text is a list, but must be text"),
        ({"id": "a", "text": "x", "title": 5}, "title is a int, but must be text"),
        ({"id": "a", "text": "x", "title": 0}, "title is a int, but must be text"),
        (
            {"id": "a", "text": "x", "body": "y"},
            "the key 'body' is none of id, text, title, metadata, language, format",
        ),
        (
            {"id": "a", "text": "x", 5: "y"},
            "the key '5' is none of id, text, title, metadata, language, format",
        ),
        ({"id": "a", "text": "x", "metadata": [1]}, "metadata is a list, but must be a JSON object"),
        ({"id": "a", "text": "x", "metadata": []}, "metadata is a list, but must be a JSON object"),
        ({"id": "a", "text": "x", "metadata": "{}"}, "metadata is a str, but must be a JSON object"),
        ({"id": "a", "text": "x", "metadata": 5}, "metadata is a int, but must be a JSON object"),
        ("text", "a document is a Document or a mapping, not a str"),
        (("a", "x"), "a document is a Document or a mapping, not a tuple"),
        (None, "a document is a Document or a mapping, not a NoneType"),
        (Document(5, "x"), "id is a int, but must be text"),
        (Document("a", None), "text is a NoneType, but must be text"),
        (Document("a", "x", metadata=None), "metadata is a NoneType, but must be a JSON object"),
    ],
    ids=str,
)
def test_a_bad_document_is_rejected_with_the_reason(record, reason):
    made = prepared(record, 4)
    assert isinstance(made, Rejection)
    assert (made.position, made.reason) == (4, reason)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"k": "a\x00b"}, "metadata holds a NUL byte"),
        ({"a\x00": 1}, "metadata holds a NUL byte"),
        ({"k": {"deep": [1, {"x": "\x00"}]}}, "metadata holds a NUL byte"),
        ({"k": {"deep": [1, {"\x00": "x"}]}}, "metadata holds a NUL byte"),
        ({"k": ({"x": ("\x00",)},)}, "metadata holds a NUL byte"),
        ({"k": "\ud800"}, "metadata holds a lone surrogate"),
        ({"\udc00": 1}, "metadata holds a lone surrogate"),
        ({"k": [{"x": "\ud800"}]}, "metadata holds a lone surrogate"),
        ({"k": math.nan}, "metadata cannot be written as JSON"),
        ({"k": [math.inf]}, "metadata cannot be written as JSON"),
        ({"k": datetime.time(1, 2)}, "metadata cannot be written as JSON: Object of type time"),
        ({"k": decimal.Decimal("Infinity")}, "metadata cannot be stored: Infinity is not a finite number"),
        (
            {"k": decimal.Decimal("1e-20000")},
            "metadata cannot be stored: a number may have 4,300 digits before and 16,383 after the point",
        ),
        ({"k": ["\x001", decimal.Decimal(1)]}, "metadata holds a NUL byte"),
        ({"\x00": decimal.Decimal(1)}, "metadata holds a NUL byte"),
        ({"k": {1, 2}}, "metadata cannot be written as JSON: Object of type set"),
        ({"k": b"x"}, "metadata cannot be written as JSON: Object of type bytes"),
        ({("a", "b"): 1}, "metadata cannot be written as JSON: keys must be str"),
        ({"k": 10**5000}, "metadata cannot be written as JSON"),
        ({"k": nested(1, 100_000)}, "metadata cannot be written as JSON"),
        ({"k": nested("\x00", 600)}, "metadata "),
    ],
    ids=lambda value: value if isinstance(value, str) else "metadata",
)
def test_bad_metadata_is_rejected_with_the_reason(metadata, reason):
    made = prepared({"id": "a", "text": "x", "metadata": metadata})
    assert isinstance(made, Rejection)
    assert made.id == "a"
    assert made.reason.startswith(reason)


def test_metadata_that_contains_itself_is_rejected():
    metadata = {}
    metadata["self"] = metadata
    made = prepared({"id": "a", "text": "x", "metadata": metadata})
    assert made.reason == "metadata cannot be written as JSON: Circular reference detected"


@pytest.mark.parametrize("text", ["\\u0000", "\\x00", "O'Reilly", '"', "\\", "\u2028", "😀", "\x01\x1f\x7f"])
def test_any_other_text_may_be_in_metadata(text):
    made = prepared({"id": "a", "text": "x", "metadata": {text: [text]}})
    assert json.loads(made.metadata) == {text: [text]}


def test_any_mapping_may_be_metadata():
    assert prepared(Document("a", "x", metadata=MappingProxyType({"k": 1}))).metadata == '{"k": 1}'


@pytest.mark.parametrize("nothing", [{}, None])
def test_no_metadata_is_an_empty_object(nothing):
    assert prepared({"id": "a", "text": "x", "metadata": nothing}).metadata == "{}"


@pytest.mark.parametrize(
    ("language", "hint"),
    [
        ("englsh", "did you mean 'english'?"),
        ("German", "did you mean 'german'?"),
        ("klingon", "SELECT cfgname FROM pg_ts_config lists them"),
        ("english'; DROP TABLE x", ""),
        (5, "SELECT cfgname FROM pg_ts_config lists them"),
        (["english"], ""),
        ({"name": "english"}, ""),
    ],
    ids=str,
)
def test_an_unknown_language_is_rejected_with_the_nearest(language, hint):
    made = prepared({"id": "a", "text": "x", "language": language})
    assert isinstance(made, Rejection)
    assert made.reason.startswith(f"language {language!r} is not a text-search configuration")
    assert made.reason.endswith(hint)


@pytest.mark.parametrize(
    ("language", "stored"),
    [(None, "english"), ("", "english"), ("pg_catalog.german", "german"), ("public.own", "public.own")],
)
def test_a_language_is_stored_under_one_name(language, stored):
    assert prepared({"id": "a", "text": "x", "language": language}).language == stored


@pytest.mark.parametrize(("given_id", "stored"), [(5, "5"), (0, "0"), (-1, "-1"), (2**70, str(2**70))])
def test_a_whole_number_becomes_the_text_of_an_id(given_id, stored):
    assert document_from({"id": given_id, "text": "x"}).id == stored
    assert prepared({"_id": given_id, "text": "x"}).document_id == document_id(stored)


def test_an_id_too_long_to_write_is_rejected():
    assert isinstance(prepared({"id": 10**5000, "text": "x"}), Rejection)


def test_beir_calls_the_id_otherwise():
    assert document_from({"_id": "MED-1", "text": "x"}) == document_from({"id": "MED-1", "text": "x"})


def test_a_mapping_is_not_changed():
    record = {"_id": 1, "text": "x", "title": None, "metadata": None}
    document_from(record)
    assert record == {"_id": 1, "text": "x", "title": None, "metadata": None}


@pytest.mark.parametrize(
    ("item", "reason"), [(5, "not a int"), ({"id": "a", "url": 1}, "'url'"), ({"text": "x"}, "has no id")]
)
def test_what_is_no_document_is_refused(item, reason):
    with pytest.raises(InvalidInput, match=reason):
        document_from(item)


# Identity and hashes.


@given(TEXTS)
@example("")
def test_a_document_id_is_a_version_8_uuid(external_id):
    made = document_id(external_id)
    assert (made.version, made.variant) == (8, RFC_4122)


@given(TEXTS)
def test_a_document_id_is_the_hash_of_the_id_but_for_six_bits(external_id):
    digest = hashlib.sha256(external_id.encode()).digest()[:16]
    mask = ~(0xF << 76 | 0x3 << 62)
    assert document_id(external_id).int & mask == int.from_bytes(digest, "big") & mask


def test_a_document_id_never_changes():
    assert document_id("1") == UUID("6b86b273-ff34-8ce1-9d6b-804eff5a3f57")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c", "x"), ("a", "bc", "x")),
        (("", "ab", "x"), ("ab", "", "x")),
        (("t", "bodyenglish", ""), ("t", "body", "english")),
        (("a\x00", "b", "x"), ("a", "\x00b", "x")),
        (("a", "b", "x"), ("b", "a", "x")),
        (("a", "b", "english"), ("a", "b", "german")),
        (("é", "b", "x"), ("e\u0301", "b", "x")),
    ],
)
def test_a_content_hash_knows_where_its_parts_end(one, other):
    assert content_hash(*one) != content_hash(*other)


@given(st.tuples(TEXTS, TEXTS, TEXTS), st.tuples(TEXTS, TEXTS, TEXTS))
def test_content_hashes_are_equal_only_for_equal_contents(one, other):
    assert (content_hash(*one) == content_hash(*other)) == (one == other)
    assert len(content_hash(*one)) == 32


def test_metadata_and_id_are_no_part_of_the_content_hash():
    one, other = {"id": "a", "text": "x", "metadata": {"k": 1}}, {"id": "b", "text": "x"}
    assert prepared(one).content_hash == prepared(other).content_hash


@pytest.mark.parametrize(
    ("title", "chunk", "text"), [("T", "body", "T\n\nbody"), ("", "body", "body"), ("T\n", "b", "T\n\n\nb")]
)
def test_the_title_is_embedded_before_the_chunk(title, chunk, text):
    assert embedding_text(title, chunk) == text


# The way into the ingest.

EMBEDDER = CountingEmbedder()
INFO = CollectionInfo(
    1,
    "docs",
    "english",
    {"chunk_size": 100, "chunk_overlap": 0},
    1,
    EMBEDDER.identity,
    identity_hash(EMBEDDER.identity),
    "vector",
)


def supply(documents, size=500):
    refused = []
    return Supply(documents, "english", LANGUAGES, size, lambda *given: refused.append(given)), refused


def test_an_endless_source_is_read_batch_by_batch():
    taken = itertools.count()
    checked, _ = supply(({"id": number, "text": "x"} for number in taken), 3)
    assert [d.external_id for d in next(iter(checked))] == ["0", "1", "2"]
    assert next(taken) == 3
    assert checked.read == 3


def test_the_first_of_two_equal_ids_is_kept():
    documents = [{"id": "a", "text": "one"}, {"id": "a", "text": "two"}, {"id": "b", "text": "three"}]
    checked, refused = supply(documents)
    (batch,) = checked
    assert [d.body for d in batch] == ["one", "three"]
    ((rejection, record),) = refused
    assert (rejection.position, rejection.id, record) == (2, "a", documents[1])
    assert checked.seen == {document_id(i).bytes for i in "ab"}


def test_a_refused_document_leaves_its_id_to_a_good_one():
    checked, refused = supply([{"id": "a", "text": ""}, {"id": "a", "text": "one"}, {"text": "x"}, 5])
    assert [d.body for batch in checked for d in batch] == ["one"]
    assert len(refused) == 3
    assert (checked.refused, checked.nameless) == ({document_id("a").bytes}, 2)


def test_what_a_source_gave_before_it_failed_is_a_batch():
    def source():
        yield {"id": "a", "text": "one"}
        raise OSError("gone")

    batches = iter(supply(source())[0])
    assert [d.external_id for d in next(batches)] == ["a"]
    with pytest.raises(OSError, match="gone"):
        next(batches)


DEEP = {"a": {"b": {"c": {"d": 1}}}}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"metadata": {"a": DEEP}}, "metadata is nested 5 levels deep, at most 4 are allowed"),
        ({"metadata": {"a": [[[[]]]]}}, "metadata is nested 5 levels deep, at most 4 are allowed"),
        (
            {"metadata": {"a": "é" * 131_072}},
            "metadata has 262,153 bytes as JSON, at most 262,144 are allowed",
        ),
        (
            {"text": "ab " * 2_666_667},
            "the text has 8,000,001 bytes, at most 8,000,000 are allowed; divide it",
        ),
        (
            {"text": "a word " + "x" * 100_000},
            "the text has 50,000 characters without a space from character 7 on",
        ),
    ],
    ids=["objects", "arrays", "large metadata", "large text", "token"],
)
def test_what_is_too_much_is_refused_with_both_numbers(record, reason):
    made = prepared({"id": "a", "text": "x", **record})
    assert isinstance(made, Rejection)
    assert made.reason.startswith(reason)


@pytest.mark.parametrize(
    "record",
    [
        {"metadata": DEEP},
        {"metadata": {"a": "x" * 262_135}},
        {"text": "x" * 49_999},
        {"text": "漢字" * 40_000},
        {"text": "ab " * 2_666_666},
    ],
    ids=["four levels", "metadata", "word", "no spaces in its script", "text"],
)
def test_what_is_just_allowed_is_taken(record):
    assert isinstance(prepared({"id": "a", "text": "x", **record}), Prepared)


@pytest.mark.parametrize("size", [0, -1, 10_001, 1.5, "500", None])
def test_a_bad_batch_size_is_named_with_its_range(size):
    with pytest.raises(InvalidInput) as caught:
        advance(ingest(INFO, EMBEDDER, [], Options(batch_size=size)))
    assert f"batch_size is {size!r}" in str(caught.value)
    assert "1 to 10,000" in str(caught.value)


@pytest.mark.parametrize("single", ["text", b"text", {"id": "a", "text": "x"}, Document("a", "x")], ids=type)
def test_one_document_is_not_a_list_of_documents(single):
    with pytest.raises(InvalidInput, match=f"not one {type(single).__name__}"):
        advance(ingest(INFO, EMBEDDER, single, Options()))


UTC_TWO = datetime.timezone(datetime.timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (datetime.date(2024, 1, 31), '"2024-01-31"'),
        (datetime.datetime(2024, 1, 31, 12), '"2024-01-31T12:00:00"'),
        (datetime.datetime(2024, 1, 31, 12, tzinfo=UTC_TWO), '"2024-01-31T10:00:00+00:00"'),
        (decimal.Decimal("0.10"), "0.10"),
        (decimal.Decimal("12345678901234567890.123456789"), "12345678901234567890.123456789"),
        (decimal.Decimal("1e400"), "1E+400"),
        ([{"a": decimal.Decimal(-1)}, ("\\u00005", None)], '[{"a": -1}, ["\\\\u00005", null]]'),
    ],
)
def test_dates_and_decimals_are_written_as_filters_compare_them(value, written):
    made = prepared({"id": "1", "text": "x", "metadata": {"k": value}})
    assert made.metadata == f'{{"k": {written}}}'
    if not isinstance(value, list):
        assert to_jsonpath({"k": value}) == f'$."k" == {written}'
