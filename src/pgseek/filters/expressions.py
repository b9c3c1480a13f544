"""Expressions over metadata: ``F("year") >= 2020``, combined with ``&``, ``|`` and ``~``.

What is true of a document is decided as jsonpath's lax mode does: a condition on an array holds if it holds
for one of its elements; on a key that is not there, or on a value of another type, it does not hold. ``~`` is
the complement: it keeps exactly the documents that the expression does not keep. ``!=`` and ``not_in`` are
such complements, too, so they keep documents without the field.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from pgseek.errors import InvalidInput
from pgseek.filters.literals import Value, literal

# PostgreSQL walks a chain of conditions by recursion: longer ones are divided.
LONGEST_CHAIN = 100
# A longer text is too complex for the server's regular expressions.
LONGEST_CONTAINED = 10_000


class Expression:
    """A condition on a document's metadata; ``str()`` gives its jsonpath predicate."""

    __slots__ = ()

    def __and__(self, other: Expression) -> Expression:
        return _joined(_All, self, other)

    def __or__(self, other: Expression) -> Expression:
        return _joined(_Any, self, other)

    def __invert__(self) -> Expression:
        raise NotImplementedError

    def __bool__(self) -> NoReturn:
        raise InvalidInput(
            "a filter expression is neither true nor false by itself: combine expressions with & | ~ in "
            "place of and, or, not, each in parentheses, and write a <= F(…) <= b as F(…).between(a, b)"
        )

    def __repr__(self) -> str:
        return f"<filter {self}>"


@dataclass(frozen=True, slots=True, repr=False)
class _Test(Expression):
    """One predicate. ``certain`` is one that is never unknown: then ``!`` alone is its complement."""

    predicate: str
    certain: bool = False
    negated: bool = False

    def __invert__(self) -> Expression:
        return _Test(self.predicate, self.certain, not self.negated)

    def __str__(self) -> str:
        if not self.negated:
            return self.predicate
        inner = self.predicate
        if not (inner.startswith("(") and inner.endswith(")")):
            inner = f"({inner})"
        return f"!{inner}" if self.certain else f"(!{inner} || {inner} is unknown)"


@dataclass(frozen=True, slots=True, repr=False)
class _All(Expression):
    parts: tuple[Expression, ...]

    def __invert__(self) -> Expression:
        return _Any(tuple(~part for part in self.parts))

    def __str__(self) -> str:
        return _chain([str(part) for part in self.parts], " && ")


@dataclass(frozen=True, slots=True, repr=False)
class _Any(Expression):
    parts: tuple[Expression, ...]

    def __invert__(self) -> Expression:
        return _All(tuple(~part for part in self.parts))

    def __str__(self) -> str:
        return any_of([f"({part})" if isinstance(part, _All) else str(part) for part in self.parts])


def any_of(predicates: Sequence[str]) -> str:
    """Return the predicate, in parentheses, that one of some holds."""
    return f"({_chain(predicates, ' || ')})"


def _chain(predicates: Sequence[str], sign: str) -> str:
    found = list(predicates)
    while len(found) > LONGEST_CHAIN:
        found = [
            f"({sign.join(found[start : start + LONGEST_CHAIN])})"
            for start in range(0, len(found), LONGEST_CHAIN)
        ]
    return sign.join(found)


def _joined(kind: type[_All] | type[_Any], one: Expression, other: object) -> Expression:
    if not isinstance(other, Expression):
        raise InvalidInput(
            f"a filter expression is combined with {other!r}, but must be with another one, in parentheses: "
            "(F('a') == 1) & (F('b') == 2)"
        )
    parts: list[Expression] = []
    for each in (one, other):
        parts += each.parts if isinstance(each, kind) else (each,)
    return kind(tuple(parts))


def conjunction(parts: Sequence[Expression]) -> Expression:
    """Return the expression that all of at least one hold."""
    return functools.reduce(operator.and_, parts)


def disjunction(parts: Sequence[Expression]) -> Expression:
    """Return the expression that one of at least one holds."""
    return functools.reduce(operator.or_, parts)


def path_of(name: object) -> tuple[str, ...]:
    """Return the keys of a field: ``"a.b"`` walks into an object, ``["a.b"]`` is one key with a dot.

    Raises:
        InvalidInput: it is no name.
    """
    keys: list[object]
    if isinstance(name, str):
        keys = list(name.split("."))
    else:
        keys = list(name) if isinstance(name, list | tuple) else []
    found = tuple(key for key in keys if isinstance(key, str) and key)
    if not found or len(found) != len(keys):
        raise InvalidInput(
            f"filter key {name!r} is not the name of a metadata field, such as 'year', 'author.name' or "
            "['name with a .']"
        )
    for key in found:
        literal(key, str(name))
    return found


class F:
    """A field of the metadata, to be compared: ``F("year") >= 2020``, ``F("tags").contains("sql")``.

    ``F("author.name")`` walks into objects, ``F(["author.name"])`` is one key with a dot in it. Dates and
    datetimes are compared as the ISO 8601 text that ingest stores of them, numbers by all their digits.
    """

    __slots__ = ("_given", "_name", "_path")
    _given: str | list[str]
    _name: str
    _path: str
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str | Sequence[str]) -> None:
        keys = path_of(name)
        object.__setattr__(self, "_given", name if isinstance(name, str) else list(keys))
        object.__setattr__(self, "_name", str(self._given))
        object.__setattr__(self, "_path", "$" + "".join(f".{literal(key, key)}" for key in keys))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"F is immutable; {name} cannot be set")

    def __repr__(self) -> str:
        return f"F({self._given!r})"

    def __bool__(self) -> NoReturn:
        raise InvalidInput(f"{self!r} is neither true nor false by itself; compare it: {self!r} == True")

    def __eq__(self, value: Value) -> Expression:  # type: ignore[override]
        return self._compared("==", value)

    def __ne__(self, value: Value) -> Expression:  # type: ignore[override]
        return ~self._compared("==", value)

    def __lt__(self, value: Value) -> Expression:
        return self._compared("<", value)

    def __le__(self, value: Value) -> Expression:
        return self._compared("<=", value)

    def __gt__(self, value: Value) -> Expression:
        return self._compared(">", value)

    def __ge__(self, value: Value) -> Expression:
        return self._compared(">=", value)

    def in_(self, values: Sequence[Value]) -> Expression:
        """Equal to one of at least one value."""
        if isinstance(values, str | bytes | bytearray) or not isinstance(values, Sequence) or not values:
            raise InvalidInput(f"$in on {self._name!r} needs a list with at least one value, not {values!r}")
        return _Test(any_of([f"{self._path} == {literal(one, self._name)}" for one in values]))

    def not_in(self, values: Sequence[Value]) -> Expression:
        """Equal to none of the values, or not there."""
        return ~self.in_(values)

    def between(self, low: Value, high: Value) -> Expression:
        """From ``low`` to ``high``, both included."""
        return (self >= low) & (self <= high)

    def contains(self, value: Value) -> Expression:
        """An array with this element, or, if ``value`` is a text, a text with this part in it."""
        written = literal(value, self._name)
        element = f'{self._path}.type() == "array" && {self._path} == {written}'
        if not isinstance(value, str):
            return _Test(f"({element})")
        if len(value) > LONGEST_CONTAINED:
            raise InvalidInput(
                f"$contains on {self._name!r} looks for a text of {len(value):,} characters, but at most "
                f"{LONGEST_CONTAINED:,} are possible"
            )
        part = f'{self._path}.type() == "string" && {self._path} like_regex {written} flag "q"'
        return _Test(f"({element} || {part})")

    def starts_with(self, prefix: str) -> Expression:
        """A text that begins so."""
        if not isinstance(prefix, str):
            raise InvalidInput(f"$prefix on {self._name!r} needs a text, not {prefix!r}")
        return _Test(f"{self._path} starts with {literal(prefix, self._name)}")

    def exists(self) -> Expression:
        """The key is there, be its value null."""
        return _Test(f"exists({self._path})", certain=True)

    def is_null(self) -> Expression:
        """The key is there and its value is null; ``~F(…).exists()`` is one that is not there."""
        return self._compared("==", None)

    def _compared(self, sign: str, value: Value) -> Expression:
        return _Test(f"{self._path} {sign} {literal(value, self._name)}")
