"""Filters: mappings become jsonpath in which no key and no value can end its literal.

What PostgreSQL makes of the predicates is tested with the database.
"""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgseek.cli.documents import parse_filters
from pgseek.errors import InvalidInput
from pgseek.filters import to_jsonpath

OPERATORS = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$exists"]
# What PostgreSQL can hold: neither NUL nor lone surrogates.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))


@pytest.mark.parametrize(
    ("given_filter", "predicate"),
    [
        ({"module": "functools"}, '$."module" == "functools"'),
        ({"a": 1, "b": "x"}, '$."a" == 1 && $."b" == "x"'),
        ({"author.name": "Ada"}, '$."author"."name" == "Ada"'),
        ({"a": True}, '$."a" == true'),
        ({"a": False}, '$."a" == false'),
        ({"a": None}, '$."a" == null'),
        ({"a": 0.1}, '$."a" == 0.1'),
        ({"a": -0.0}, '$."a" == -0.0'),
        ({"a": 1e300}, '$."a" == 1e+300'),
        ({"a": 9223372036854775808}, '$."a" == 9223372036854775808'),
        ({"a": -(10**30)}, f'$."a" == -1{"0" * 30}'),
        ({"a": ""}, '$."a" == ""'),
        ({"a": {"$eq": 1}}, '$."a" == 1'),
        ({"a": {"$ne": "x"}}, '$."a" != "x"'),
        ({"a": {"$gt": 1}}, '$."a" > 1'),
        ({"year": {"$gte": 2000, "$lt": 2010}}, '$."year" >= 2000 && $."year" < 2010'),
        ({"a": {"$lte": "b"}}, '$."a" <= "b"'),
        ({"a": {"$in": [1, "x", None]}}, '($."a" == 1 || $."a" == "x" || $."a" == null)'),
        ({"a": {"$in": ("x",)}}, '($."a" == "x")'),
        ({"a.b": {"$in": [1]}, "c": 2}, '($."a"."b" == 1) && $."c" == 2'),
        ({"a": {"$exists": True}}, 'exists($."a")'),
        ({"a": {"$exists": False}}, '!(exists($."a"))'),
        ({"a": "O'Reilly"}, '$."a" == "O\'Reilly"'),
        ({"a": "x' OR '1'='1"}, "$.\"a\" == \"x' OR '1'='1\""),
        ({"a": 'say "hi"'}, r'$."a" == "say \"hi\""'),
        ({"a": '" || true || "'}, r'$."a" == "\" || true || \""'),
        ({"a": "back\\slash"}, r'$."a" == "back\\slash"'),
        ({"a": "two\nlines; DROP TABLE x"}, r'$."a" == "two\nlines; DROP TABLE x"'),
        ({"a": "a :b %s $1 {c}"}, '$."a" == "a :b %s $1 {c}"'),
        ({"a": "日本"}, r'$."a" == "\u65e5\u672c"'),
        ({"a": "😀"}, r'$."a" == "\ud83d\ude00"'),
        ({"it's; --": 1}, '$."it\'s; --" == 1'),
        ({'q"uote': 1}, r'$."q\"uote" == 1'),
        ({"back\\slash\n": 1}, r'$."back\\slash\n" == 1'),
        ({"$gte": 1}, '$."$gte" == 1'),
        ({"*": 1}, '$."*" == 1'),
    ],
)
def test_a_mapping_becomes_a_predicate(given_filter, predicate):
    assert to_jsonpath(given_filter) == predicate


@pytest.mark.parametrize("nothing", [None, {}, ""])
def test_nothing_is_no_filter(nothing):
    assert to_jsonpath(nothing) is None


def test_a_predicate_already_written_is_left_alone():
    assert to_jsonpath('$.year like_regex "^20"') == '$.year like_regex "^20"'


@given(TEXTS)
def test_any_text_survives_as_a_value(value):
    literal = to_jsonpath({"key": value}).removeprefix('$."key" == ')
    assert json.loads(literal) == value


@given(TEXTS.filter(lambda key: key and "." not in key))
def test_any_text_survives_as_a_key(key):
    literal = to_jsonpath({key: 1}).removeprefix("$.").removesuffix(" == 1")
    assert json.loads(literal) == key


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_survives_exactly(value):
    back = json.loads(to_jsonpath({"key": {"$gt": value}}).removeprefix('$."key" > '))
    assert (back, type(back)) == (value, type(value))


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_each_text_of_a_list_survives(values):
    predicate = to_jsonpath({"key": {"$in": values}})
    literals = [json.dumps(value) for value in values]
    assert predicate == "(" + " || ".join(f'$."key" == {literal}' for literal in literals) + ")"


def test_an_unknown_operator_is_told_the_known_ones():
    with pytest.raises(InvalidInput) as caught:
        to_jsonpath({"year": {"$near": 2000}})
    assert "'$near'" in str(caught.value)
    assert "'year'" in str(caught.value)
    assert re.findall(r"\$\w+", str(caught.value).split("known are")[1]) == OPERATORS


def test_a_mapping_without_an_operator_is_told_the_known_ones():
    with pytest.raises(InvalidInput) as caught:
        to_jsonpath({"year": {}})
    assert re.findall(r"\$\w+", str(caught.value).split("known are")[1]) == OPERATORS


def test_an_operator_must_be_written_with_its_sign():
    with pytest.raises(InvalidInput, match="'name' on 'author' is unknown"):
        to_jsonpath({"author": {"name": "Ada"}})


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, [1], (1,), {1}, b"x", object(), 1j, 10**5000], ids=type
)
@pytest.mark.parametrize("operator", ["$eq", "$gt"])
def test_a_value_that_cannot_be_compared_is_refused_with_its_key(value, operator):
    with pytest.raises(InvalidInput, match="filter on 'year'"):
        to_jsonpath({"year": {operator: value}})


@pytest.mark.parametrize("value", ["a\x00b", "\ud800", "\udfff x"])
@pytest.mark.parametrize("build", [lambda v: {"k": v}, lambda v: {"k": {"$in": ["ok", v]}}, lambda v: {v: 1}])
def test_what_postgresql_text_cannot_hold_is_refused(value, build):
    with pytest.raises(InvalidInput, match="NUL byte or a lone surrogate"):
        to_jsonpath(build(value))


@pytest.mark.parametrize("key", ["", ".", "a.", ".a", "a..b", 1, None])
def test_a_bad_key_is_named(key):
    with pytest.raises(InvalidInput, match=re.escape(repr(key))):
        to_jsonpath({key: 1})


@pytest.mark.parametrize("value", [[], (), "abc", 5, None, {"a": 1}, {1, 2}, b"ab"])
def test_in_needs_a_list_with_a_value(value):
    with pytest.raises(InvalidInput, match=r"\$in on 'a' needs a list") as caught:
        to_jsonpath({"a": {"$in": value}})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [1, 0, "true", None])
def test_exists_needs_true_or_false(value):
    with pytest.raises(InvalidInput, match=r"\$exists on 'a' needs true or false") as caught:
        to_jsonpath({"a": {"$exists": value}})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("wrong", [5, ["a"], [("a", 1)], b"$.a == 1", True])
def test_neither_mapping_nor_predicate_is_refused(wrong):
    with pytest.raises(InvalidInput, match="must be a mapping or a jsonpath predicate"):
        to_jsonpath(wrong)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], None),
        (["module=functools"], '($."module" == "functools")'),
        (["year=2010"], '(($."year" == 2010 || $."year" == "2010"))'),
        (["version=1.10"], '(($."version" == 1.1 || $."version" == "1.10"))'),
        (["draft=true"], '(($."draft" == true || $."draft" == "true"))'),
        (["draft=null"], '(($."draft" == null || $."draft" == "null"))'),
        (['year="2010"'], '($."year" == "2010")'),
        (["a=b=c"], '($."a" == "b=c")'),
        (["a="], '($."a" == "")'),
        (["a=O'Reilly; --"], '($."a" == "O\'Reilly; --")'),
        (['year={"$gte": 2000}'], '($."year" >= 2000)'),
        (["a=x", "b=y"], '($."a" == "x") && ($."b" == "y")'),
        (['{"y": {"$gte": 1}}', '{"y": {"$lt": 2}}'], '($."y" >= 1) && ($."y" < 2)'),
        (['{"a": {"$in": [1, 2]}}', "b=x"], '(($."a" == 1 || $."a" == 2)) && ($."b" == "x")'),
        (["{}"], None),
        (["$.a == 1"], "($.a == 1)"),
        (["$.a == 1 || $.b == 2", "c=x"], '($.a == 1 || $.b == 2) && ($."c" == "x")'),
    ],
)
def test_the_command_line_reads_filters(options, expected):
    assert parse_filters(options) == expected


@pytest.mark.parametrize("option", ["module", "=x", "", "[1, 2]"])
def test_the_command_line_names_what_is_no_filter(option):
    with pytest.raises(InvalidInput, match=re.escape(repr(option))):
        parse_filters([option])


def test_the_command_line_says_where_json_is_broken():
    with pytest.raises(InvalidInput, match="is not JSON: Expecting"):
        parse_filters(['{"a": }'])


def test_the_command_line_refuses_nan_as_the_library_does():
    with pytest.raises(InvalidInput, match="filter on 'a' compares with nan"):
        to_jsonpath(parse_filters(["a=NaN"]))


def test_a_number_beyond_what_python_reads_stays_text_on_the_command_line():
    digits = "1" * 5000
    assert parse_filters([f"a={digits}"]) == f'($."a" == "{digits}")'
