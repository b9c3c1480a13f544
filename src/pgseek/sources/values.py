"""Typed values of Parquet files and databases to values that JSON has."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from pgseek.errors import InvalidInput
from pgseek.filters.literals import iso


def json_value(value: Any) -> Any:
    """Return ``value`` as JSON holds it.

    Dates and times become ISO 8601 text (those with a time zone in UTC, as `filters` compares them), spans of
    time seconds. A decimal becomes a number where the number is exactly it, else it stays one. NaN and
    infinities become null: JSON has none. Bytes become the text they encode, or base64 where they are no
    UTF-8. What has no counterpart becomes ``str(value)``.
    """
    made: Any
    match value:
        case None | bool() | int() | str():
            made = value
        case float():
            made = value if math.isfinite(value) else None
        case Decimal():
            made = _decimal(value)
        case date():
            made = iso(value)
        case time():
            made = value.isoformat()
        case timedelta():
            made = value.total_seconds()
        case bytes() | bytearray() | memoryview():
            made = _bytes(bytes(value))
        case Mapping():
            made = {str(name): json_value(part) for name, part in value.items()}
        case list() | tuple():
            made = [json_value(part) for part in value]
        case set() | frozenset():
            # A set has no order; two runs must give the same.
            made = sorted(map(json_value, value), key=str)
        case _:
            made = str(value)
    return made


def text_value(name: str, value: Any) -> str:
    """Return the text of a column's value; '' for null.

    Raises:
        InvalidInput: a list or an object, which is no text.
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"column {name!r} is {not_utf8(error)}") from error
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        raise InvalidInput(f"column {name!r} is a {type(value).__name__}, not text")
    plain = json_value(value)
    return "" if plain is None else str(plain)


def not_utf8(error: UnicodeDecodeError) -> str:
    """Return the reason of a rejection."""
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}"


def _decimal(value: Decimal) -> int | float | Decimal | None:
    if not value.is_finite():
        return None
    if value == value.to_integral_value() and abs(value) < Decimal(2**53):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) and Decimal(repr(number)) == value else value


def _bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
