"""Metadata filters: a mapping becomes the jsonpath predicate that the SQL function takes.

``{"module": "functools", "year": {"$gte": 2020}}`` becomes
``$."module" == "functools" && $."year" >= 2020``. Every key and value is written as a JSON literal,
so no text in them can end the expression.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pgseek.errors import InvalidInput

Filter = Mapping[str, Any] | str

_COMPARISONS = {"$eq": "==", "$ne": "!=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = (*_COMPARISONS, "$in", "$exists")


def to_jsonpath(given: Filter | None) -> str | None:
    """Return the jsonpath predicate of a filter; a string is taken as one already written.

    A key is one name at the top of the metadata; ``"author.name"`` with a dot walks into objects.
    A condition on an array holds if one element fulfils it. None and ``{}`` mean no filter.

    Raises:
        InvalidInput: an unknown operator, an empty ``$in``, or a value JSON cannot hold.
    """
    if given is None or isinstance(given, str):
        return given or None
    if not isinstance(given, Mapping):
        raise InvalidInput(f"filter is {given!r}, but must be a mapping or a jsonpath predicate")
    return " && ".join(_condition(key, wanted) for key, wanted in given.items()) or None


def _condition(key: str, wanted: Any) -> str:
    if not isinstance(key, str) or not key or "" in key.split("."):
        raise InvalidInput(f"filter key {key!r} is not the name of a metadata field")
    path = "$" + "".join(f".{_literal(part, key)}" for part in key.split("."))
    if not isinstance(wanted, Mapping):
        return f"{path} == {_literal(wanted, key)}"
    if not wanted:
        raise InvalidInput(f"filter on {key!r} names no operator; known are {', '.join(_OPERATORS)}")
    return " && ".join(_operation(path, key, name, value) for name, value in wanted.items())


def _operation(path: str, key: str, name: str, value: Any) -> str:
    if name in _COMPARISONS:
        return f"{path} {_COMPARISONS[name]} {_literal(value, key)}"
    if name == "$in":
        if not isinstance(value, list | tuple) or not value:
            raise InvalidInput(f"$in on {key!r} needs a list with at least one value, not {value!r}")
        return "(" + " || ".join(f"{path} == {_literal(one, key)}" for one in value) + ")"
    if name == "$exists":
        if not isinstance(value, bool):
            raise InvalidInput(f"$exists on {key!r} needs true or false, not {value!r}")
        return f"exists({path})" if value else f"!(exists({path}))"
    raise InvalidInput(f"filter operator {name!r} on {key!r} is unknown; known are {', '.join(_OPERATORS)}")


def _literal(value: Any, key: str) -> str:
    scalar = value is None or isinstance(value, str | int | float | bool)
    if not scalar or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidInput(
            f"filter on {key!r} compares with {value!r}, but only texts, finite numbers, true, "
            "false and null can be compared"
        )
    if isinstance(value, str) and ("\x00" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        raise InvalidInput(f"filter on {key!r} holds a NUL byte or a lone surrogate in {value!r}")
    # ASCII output: characters beyond come as \\uXXXX pairs, which jsonpath reads as JSON does.
    try:
        return json.dumps(value)
    except ValueError as error:
        raise InvalidInput(
            f"filter on {key!r} compares with a number that cannot be written: {error}"
        ) from error
