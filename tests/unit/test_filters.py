"""Filters: mappings become jsonpath in which no key and no value can end its literal.

What PostgreSQL makes of the predicates is tested with the database.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgseek.cli.documents import parse_filters
from pgseek.errors import InvalidInput
from pgseek.filters import Expression, F, to_jsonpath

OPERATORS = [
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$contains",
    "$prefix",
    "$between",
    "$exists",
    "$null",
    "$not",
]
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
        ({"a": {"$ne": "x"}}, '(!($."a" == "x") || ($."a" == "x") is unknown)'),
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
        ({"$schema": 1}, '$."$schema" == 1'),
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
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        [1],
        (1,),
        {1},
        b"x",
        object(),
        1j,
        10**5000,
        Decimal("NaN"),
        Decimal("1e4300"),
    ],
    ids=type,
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
    with pytest.raises(
        InvalidInput, match=r"must be an expression such as F.* a mapping or a jsonpath predicate"
    ):
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


A, B = F("a") == 1, F("b") == 2
NOT_A, NOT_B = '(!($."a" == 1) || ($."a" == 1) is unknown)', '(!($."b" == 2) || ($."b" == 2) is unknown)'


@pytest.mark.parametrize(
    ("made", "mapping", "predicate"),
    [
        (F("a") == 1, {"a": 1}, '$."a" == 1'),
        (F("a.b") > 1, {"a.b": {"$gt": 1}}, '$."a"."b" > 1'),
        (F(["a", "b"]) < 1, {"a.b": {"$lt": 1}}, '$."a"."b" < 1'),
        (F("a") <= "x", {"a": {"$lte": "x"}}, '$."a" <= "x"'),
        (F("a") != 1, {"a": {"$ne": 1}}, NOT_A),
        (F("a").in_([1, "x"]), {"a": {"$in": [1, "x"]}}, '($."a" == 1 || $."a" == "x")'),
        (F("a").in_(range(2)), {"a": {"$in": [0, 1]}}, '($."a" == 0 || $."a" == 1)'),
        (F("a").not_in([1]), {"a": {"$nin": [1]}}, NOT_A),
        (F("a").between(1, 2), {"a": {"$between": [1, 2]}}, '$."a" >= 1 && $."a" <= 2'),
        (F("a").starts_with('x"'), {"a": {"$prefix": 'x"'}}, '$."a" starts with "x\\""'),
        (F("a").contains(1), {"a": {"$contains": 1}}, '($."a".type() == "array" && $."a" == 1)'),
        (
            F("a").contains("x"),
            {"a": {"$contains": "x"}},
            '($."a".type() == "array" && $."a" == "x"'
            ' || $."a".type() == "string" && $."a" like_regex "x" flag "q")',
        ),
        (F("a").exists(), {"a": {"$exists": True}}, 'exists($."a")'),
        (~F("a").exists(), {"a": {"$exists": False}}, '!(exists($."a"))'),
        (F("a").is_null(), {"a": {"$null": True}}, '$."a" == null'),
        (
            ~F("a").is_null(),
            {"a": {"$null": False}},
            '(!($."a" == null) || ($."a" == null) is unknown)',
        ),
        (A & B, {"$and": [{"a": 1}, {"b": 2}]}, '$."a" == 1 && $."b" == 2'),
        (A & B & A, {"$and": [{"a": 1}, B, A]}, '$."a" == 1 && $."b" == 2 && $."a" == 1'),
        (A | B, {"$or": [{"a": 1}, {"b": 2}]}, '($."a" == 1 || $."b" == 2)'),
        ((A & B) | A, {"$or": [{"a": 1, "b": 2}, {"a": 1}]}, '(($."a" == 1 && $."b" == 2) || $."a" == 1)'),
        ((A | B) & A, {"$or": [A, B], "a": 1}, '($."a" == 1 || $."b" == 2) && $."a" == 1'),
        (~(A & B), {"$not": {"a": 1, "b": 2}}, f"({NOT_A} || {NOT_B})"),
        (~(A | B), {"$not": {"$or": [A, B]}}, f"{NOT_A} && {NOT_B}"),
        (~~A, {"$not": {"$not": {"a": 1}}}, '$."a" == 1'),
        (~(F("a") == 1), {"a": {"$not": {"$eq": 1}}}, NOT_A),
        (F("a") == date(2020, 1, 31), {"a": date(2020, 1, 31)}, '$."a" == "2020-01-31"'),
        (
            F("a") >= datetime(2020, 1, 31, 12, 30),
            {"a": {"$gte": datetime(2020, 1, 31, 12, 30)}},
            '$."a" >= "2020-01-31T12:30:00"',
        ),
        (
            F("a") >= datetime(2020, 1, 31, 12, 30, 0, 5, timezone(timedelta(hours=2))),
            {"a": {"$gte": datetime(2020, 1, 31, 10, 30, 0, 5, UTC)}},
            '$."a" >= "2020-01-31T10:30:00.000005+00:00"',
        ),
        (F("a") > Decimal("0.1"), {"a": {"$gt": Decimal("0.1")}}, '$."a" > 0.1'),
        (F("a") > Decimal("1e400"), {"a": {"$gt": Decimal("1e400")}}, '$."a" > 1E+400'),
        (
            F("a") == Decimal("12345678901234567890.0123456789"),
            {"a": Decimal("12345678901234567890.0123456789")},
            '$."a" == 12345678901234567890.0123456789',
        ),
    ],
    ids=str,
)
def test_expressions_and_mappings_become_the_same(made, mapping, predicate):
    assert to_jsonpath(made) == predicate
    assert to_jsonpath(mapping) == predicate


def test_a_key_with_a_dot_is_one_key_where_it_is_given_as_a_list():
    assert to_jsonpath(F(["a.b", "c"]) == 1) == '$."a.b"."c" == 1'
    assert to_jsonpath(F(["$gte"]) == 1) == '$."$gte" == 1'


def test_an_expression_is_a_value():
    assert (F("a") == 1) == A
    assert hash(A) == hash(F("a") == 1)
    assert A != B
    assert isinstance(A, Expression)
    assert repr(A) == '<filter $."a" == 1>'
    assert repr(F("a.b")) == "F('a.b')"
    assert repr(F(["a.b"])) == "F(['a.b'])"
    with pytest.raises(AttributeError, match="immutable"):
        F("a")._path = "x"


@pytest.mark.parametrize(
    "build",
    [lambda: A and B, lambda: A or B, lambda: not A, lambda: 1 <= F("a") <= 2, lambda: bool(A)],
)
def test_an_expression_is_neither_true_nor_false(build):
    with pytest.raises(InvalidInput, match=r"combine expressions with & \| ~ in place of and, or, not"):
        build()


def test_a_field_is_neither_true_nor_false():
    with pytest.raises(InvalidInput, match=r"F\('a'\) == True"):
        bool(F("a"))


@pytest.mark.parametrize("wrong", [1, {"a": 1}, True, F("b"), None])
def test_an_expression_is_combined_with_expressions_only(wrong):
    with pytest.raises(InvalidInput, match="combined with"):
        A & wrong
    with pytest.raises(InvalidInput, match="combined with"):
        A | wrong


@pytest.mark.parametrize("name", ["", "a.", [], [""], [1], 1, None, ("a", None)])
def test_a_field_has_a_name(name):
    with pytest.raises(InvalidInput, match="is not the name of a metadata field"):
        F(name)


@pytest.mark.parametrize("operator", ["$gte", "$in", "$exists", "$between"])
def test_an_operator_where_a_field_is_expected_is_told_so(operator):
    with pytest.raises(InvalidInput, match=rf"\{operator} stands where a field is expected"):
        to_jsonpath({operator: 1})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"$or": []}, "needs a list with at least one filter"),
        ({"$and": {"a": 1}}, "needs a list with at least one filter"),
        ({"$or": [{"a": 1}, {}]}, "at least one condition each"),
        ({"$or": ["$.a == 1"]}, "at least one condition each"),
        ({"$not": []}, "at least one condition each"),
        ({"a": {"$not": 1}}, "needs operators"),
        ({"a": {"$between": [1]}}, "needs a list of two values"),
        ({"a": {"$prefix": 1}}, "needs a text"),
        ({"a": {"$contains": "x" * 10_001}}, "at most 10,000"),
        ({"a": {"$null": 1}}, "needs true or false"),
        ({"a": ["x"]}, r"\$in takes a list"),
        ({"a": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))}, "cannot be written in UTC"),
        ({"a": Decimal("1e-16384")}, "16,383 after the point"),
    ],
)
def test_what_is_no_filter_is_told_what_is(wrong, message):
    with pytest.raises(InvalidInput, match=message):
        to_jsonpath(wrong)


def test_long_lists_are_divided():
    text = to_jsonpath(F("a").in_(list(range(100_000))))
    assert text.count("==") == 100_000
    depth = deepest = longest = 0
    for part in re.findall(r"[()]|[^()]+", text):
        depth += (part == "(") - (part == ")")
        deepest = max(deepest, depth)
        longest = max(longest, part.count("||"))
    assert depth == 0
    assert deepest <= 5
    assert longest <= 100


@given(st.datetimes(timezones=st.timezones()), st.datetimes(timezones=st.timezones()))
def test_times_are_ordered_as_their_texts_are(one, other):
    def text(value):
        try:
            return to_jsonpath(F("a") == value)
        except InvalidInput:
            return None

    first, second = text(one), text(other)
    if first is not None and second is not None:
        assert (first < second) == (one.astimezone(UTC) < other.astimezone(UTC))


@given(st.dates(), st.datetimes())
def test_a_date_is_before_all_times_of_its_day(day, time):
    text = {value: to_jsonpath(F("a") == value) for value in (day, time)}
    assert (text[day].strip('"') <= text[time].strip('"')) == (day <= time.date())
