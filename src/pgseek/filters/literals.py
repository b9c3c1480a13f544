"""Values as a filter compares them: the same text that ingest stores of them."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal

from pgseek.errors import InvalidInput

Value = str | int | float | bool | Decimal | date | datetime | None

# Digits before the point that Python reads back, and after it that PostgreSQL's numeric holds.
MOST_DIGITS = 4300
MOST_DECIMALS = 16_383


def iso(value: date) -> str:
    """Return a date or a datetime as ISO 8601 text, in which the order of texts is the order of times.

    A datetime with a time zone is written in UTC as ``2020-01-31T12:00:00+00:00`` (a fraction of a second
    before the plus sign, if there is one), without a time zone as it stands.

    Raises:
        InvalidInput: in UTC it is before year 1 or after year 9999.
    """
    if isinstance(value, datetime) and value.utcoffset() is not None:
        try:
            return value.astimezone(UTC).isoformat()
        except OverflowError as error:
            raise InvalidInput(f"{value.isoformat()} cannot be written in UTC: {error}") from error
    return value.isoformat()


def digits(value: Decimal) -> str:
    """Return a decimal as a JSON number with exactly its digits.

    Raises:
        InvalidInput: it is not finite, or has too many digits to be stored and read back.
    """
    if not value.is_finite():
        raise InvalidInput(f"{value} is not a finite number")
    exponent = value.as_tuple().exponent
    if value.adjusted() >= MOST_DIGITS or (isinstance(exponent, int) and -exponent > MOST_DECIMALS):
        raise InvalidInput(
            f"a number may have {MOST_DIGITS:,} digits before and {MOST_DECIMALS:,} after the point, but "
            f"the one given has {max(0, value.adjusted() + 1):,} and {max(0, -int(exponent)):,}"
        )
    return str(value)


def literal(value: object, field: str) -> str:
    """Return a value as a jsonpath literal; ``field`` is what a message names.

    Raises:
        InvalidInput: it cannot be compared, or PostgreSQL cannot hold it.
    """
    if isinstance(value, Decimal | date):
        try:
            return digits(value) if isinstance(value, Decimal) else f'"{iso(value)}"'
        except InvalidInput as error:
            raise InvalidInput(f"filter on {field!r}: {error}") from error
    scalar = value is None or isinstance(value, str | int | float | bool)
    if not scalar or (isinstance(value, float) and not math.isfinite(value)):
        hint = "; $in takes a list" if isinstance(value, list | tuple) else ""
        raise InvalidInput(
            f"filter on {field!r} compares with {value!r}, but only texts, finite numbers, dates, true, "
            f"false and null can be compared{hint}"
        )
    if isinstance(value, str) and ("\x00" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        raise InvalidInput(f"filter on {field!r} holds a NUL byte or a lone surrogate in {value!r}")
    # ASCII output: characters beyond come as \\uXXXX pairs, which jsonpath reads as JSON does.
    try:
        return json.dumps(value)
    except ValueError as error:
        raise InvalidInput(
            f"filter on {field!r} compares with a number that cannot be written: {error}"
        ) from error
