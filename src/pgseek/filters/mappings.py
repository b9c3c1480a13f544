"""Filters as mappings, such as ``{"year": {"$gte": 2020}, "$or": [{"a": 1}, {"b": 2}]}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pgseek.errors import InvalidInput
from pgseek.filters.expressions import Expression, F, conjunction, disjunction

_OPERATORS: dict[str, Callable[[F, Any], Expression]] = {
    "$eq": F.__eq__,
    "$ne": F.__ne__,
    "$gt": F.__gt__,
    "$gte": F.__ge__,
    "$lt": F.__lt__,
    "$lte": F.__le__,
    "$in": F.in_,
    "$nin": F.not_in,
    "$contains": F.contains,
    "$prefix": F.starts_with,
}
_FLAGS: dict[str, Callable[[F], Expression]] = {"$exists": F.exists, "$null": F.is_null}
_KNOWN = (*_OPERATORS, "$between", *_FLAGS, "$not")
_COMBINING = ("$and", "$or", "$not")


def expression(given: Mapping[str, Any]) -> Expression | None:
    """Return the expression of a mapping, all of whose conditions must hold; None for an empty one.

    Raises:
        InvalidInput: see `pgseek.filters.to_jsonpath`.
    """
    parts = [_condition(key, wanted) for key, wanted in given.items()]
    return conjunction(parts) if parts else None


def _condition(key: str, wanted: Any) -> Expression:
    if key in _COMBINING:
        return _combined(key, wanted)
    if key in _KNOWN:
        raise InvalidInput(
            f"the operator {key} stands where a field is expected: write {{'field': {{'{key}': …}}}}; "
            f"a field of this name is F([{key!r}])"
        )
    field = F(key)
    if not isinstance(wanted, Mapping):
        return _OPERATORS["$eq"](field, wanted)
    return _operations(field, key, wanted)


def _combined(key: str, wanted: Any) -> Expression:
    if key == "$not":
        return ~_filter(key, wanted)
    if not isinstance(wanted, list | tuple) or not wanted:
        raise InvalidInput(f"{key} needs a list with at least one filter, not {wanted!r}")
    parts = [_filter(key, one) for one in wanted]
    return conjunction(parts) if key == "$and" else disjunction(parts)


def _filter(key: str, given: Any) -> Expression:
    made = expression(given) if isinstance(given, Mapping) else given
    if not isinstance(made, Expression):
        raise InvalidInput(f"{key} needs filters with at least one condition each, not {given!r}")
    return made


def _operations(field: F, key: str, wanted: Mapping[str, Any]) -> Expression:
    if not wanted:
        raise InvalidInput(f"filter on {key!r} names no operator; known are {', '.join(_KNOWN)}")
    return conjunction([_operation(field, key, name, value) for name, value in wanted.items()])


def _operation(field: F, key: str, name: str, value: Any) -> Expression:
    if name in _OPERATORS:
        return _OPERATORS[name](field, value)
    if name in _FLAGS:
        if not isinstance(value, bool):
            raise InvalidInput(f"{name} on {key!r} needs true or false, not {value!r}")
        made = _FLAGS[name](field)
        return made if value else ~made
    if name == "$between":
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise InvalidInput(f"$between on {key!r} needs a list of two values, not {value!r}")
        return field.between(*value)
    if name == "$not":
        if not isinstance(value, Mapping):
            raise InvalidInput(f"$not on {key!r} needs operators, such as {{'$gte': 2020}}, not {value!r}")
        return ~_operations(field, key, value)
    raise InvalidInput(f"filter operator {name!r} on {key!r} is unknown; known are {', '.join(_KNOWN)}")
