"""Checks of one row's fields. The pipeline, `tillmap predict` and `tillmap submit` all read their rows with them.

A check takes a record (field name to value, as `formats` reads it) and the name of a field. It returns the field's
value, or raises BadRowError, which says what was found and what was expected. The caller adds the file, the line and
what to do. The options of a check say how strict a caller is.
"""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

from tillmap.core.taxonomy import LEVELS, LabelPath

ID = "indoml_id"
MAX_ID = 2**63 - 1  # ids are stored as int64
MAX_SHOWN = 60  # characters of a value in an error message

# Digits that come back unchanged as a number: "7", but not "007", which would come back as 7, the id of another row.
_DIGITS = re.compile(r"0|[1-9][0-9]{0,18}")

Record = Mapping[str, Any]


class BadRowError(Exception):
    """What is wrong with one row, without the file and the line."""


def read_number_id(record: Record, name: str = ID, *, negative: bool = False, digits: bool = False) -> int:
    """The row's id, a whole number from 0 to 2^63 - 1.

    Args:
        record: the row.
        name: the field of the id.
        negative: accept numbers from -2^63.
        digits: accept the number as text, since all values of a CSV are text: "7", but not "007".
    """
    key = record.get(name)
    if digits and type(key) is str:
        key = parse_digits(key)
    if type(key) is int and (-MAX_ID - 1 if negative else 0) <= key <= MAX_ID:  # not isinstance: True is an int, too
        return key
    expected = "a whole number of at most 64 bits" if negative else "a whole number from 0 to 2^63 - 1"
    raise _fault(record, name, expected + (', such as 7 or "7", not "007"' if digits else ""))


def read_any_id(record: Record, name: str = ID) -> int | str:
    """The row's id: any text but the empty one, or a whole number from -2^63 to 2^63 - 1."""
    key = record.get(name)
    if type(key) is str and key:
        return key
    if type(key) is int and -MAX_ID - 1 <= key <= MAX_ID:
        return key
    raise _fault(record, name, "text or a whole number of at most 64 bits")


def read_text(record: Record, name: str, *, blank: bool = True, null: bool = False) -> str:
    """A text, unchanged.

    Args:
        record: the row.
        name: the field of the text.
        blank: accept text that is empty or white space.
        null: accept null, and return "" for it.
    """
    value = record.get(name)
    if null and value is None and name in record:
        return ""
    if type(value) is not str:
        raise _fault(record, name, "text or null" if null else "text")
    if not blank and not value.strip():
        raise BadRowError(f"`{name}` is empty, expected text")
    return value


def read_price(record: Record, name: str = "price", *, blank: bool = False) -> float:
    """A price from 0 up, given as a number or as text: 1.99 or "1.99". NaN for null or NaN.

    `blank`: accept empty text as null, since a CSV has no other null.
    """
    given: Any = record.get(name)
    is_null = (given is None and name in record) or (type(given) is float and math.isnan(given))
    if is_null or (blank and given == ""):
        return math.nan
    price = math.nan
    if type(given) in (int, float, str, Decimal) and "_" not in str(given):  # float("1_000") is 1000
        with suppress(ValueError):
            price = float(given)
    if math.isfinite(price) and price >= 0:
        return price
    raise _fault(record, name, 'a number from 0 up, such as 1.99 or "1.99", or null')


def read_labels(record: Record) -> LabelPath:
    """The row's four labels, none of them blank."""
    return LabelPath(*(read_text(record, level, blank=False) for level in LEVELS))


def parse_digits(text: str) -> int | None:
    """The whole number from 0 to 2^63 - 1 that a text is; None if the number would be written back in another way.

    >>> parse_digits("7"), parse_digits("007")
    (7, None)
    """
    number = int(text) if _DIGITS.fullmatch(text) else None
    return number if number is not None and number <= MAX_ID else None


def repeated_id(name: str, key: int | str, first: str) -> BadRowError:
    """The error of a row whose id was seen before; `first` says where, such as "line 7"."""
    return BadRowError(f"`{name}` is {show(key)} again (first in {first}), expected each id once")


def show(value: Any) -> str:
    """A value as JSON, cut to `MAX_SHOWN` characters, to quote it in an error message."""
    try:
        # Parquet has values that JSON lacks, such as dates: their text is shown.
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except RecursionError:
        text = "a value that is nested too deep"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _fault(record: Record, name: str, expected: str) -> BadRowError:
    found = f"is {show(record[name])}" if name in record else "is missing"
    return BadRowError(f"`{name}` {found}, expected {expected}")
