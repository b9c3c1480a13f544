"""Metadata filters: expressions and mappings, both compiled to the jsonpath that the SQL function takes.

``F("year") >= 2020`` and ``{"year": {"$gte": 2020}}`` become ``$."year" >= 2020``. Every key and value is
written as a JSON literal, so no text in them can end the expression.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgseek.errors import InvalidInput
from pgseek.filters.expressions import Expression, F, path_of
from pgseek.filters.literals import Value, iso
from pgseek.filters.mappings import expression

Filter = Expression | Mapping[str, Any] | str

__all__ = ["Expression", "F", "Filter", "Value", "iso", "path_of", "to_jsonpath"]


def to_jsonpath(given: Filter | None) -> str | None:
    """Return the jsonpath predicate of a filter; a string is taken as one already written.

    None, ``""`` and ``{}`` mean no filter.

    Raises:
        InvalidInput: an unknown operator, an empty ``$in``, or a value that cannot be compared.
    """
    if given is None or isinstance(given, str):
        return given or None
    if isinstance(given, Expression):
        return str(given)
    if not isinstance(given, Mapping):
        raise InvalidInput(
            f"filter is {given!r}, but must be an expression such as F('year') >= 2020, a mapping or a "
            "jsonpath predicate"
        )
    made = expression(given)
    return None if made is None else str(made)
