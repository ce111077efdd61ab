"""Checks of one row's fields. The pipeline, `tillmap predict` and `tillmap submit` all read their rows with them.

A check takes a record (field name to value, as a reader gives it) and the name of a field. It returns the field's
value, or raises BadRowError, which says what was found and what was expected. The caller adds the file, the line and
what to do.
"""

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from tillmap.catalogue.amounts import Mark, parse_amount
from tillmap.core.taxonomy import LabelPath, Levels, fault_of

ID = "indoml_id"  # of the contest's files
MAX_ID = 2**63 - 1  # ids are stored as int64
MAX_SHOWN = 60  # characters of a value in an error message

# Digits that come back unchanged as a number: "7", but not "007", which would come back as 7, the id of another row.
_DIGITS = re.compile(r"0|-?[1-9][0-9]{0,18}")
_SHORTENED = re.compile(r"[+-]?\d+(?:[.,]\d+)?[eE]\+\d+")
_INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp")  # control and format characters, and spaces

Record = Mapping[str, Any]


class BadRowError(Exception):
    """What is wrong with one row, without the file and the line."""


def read_id(record: Record, name: str) -> int | str:
    """The row's id, unchanged: any text but a blank one, or a whole number from -2^63 to 2^63 - 1.

    A float or decimal that is a whole number is that number; a decimal beyond 64 bits is the text of its digits.
    """
    key = record.get(name)
    if type(key) is str and not is_blank(key):
        if _SHORTENED.fullmatch(key):
            raise _fault(record, name, "the whole number, which a spreadsheet has shortened; save that column as text")
        return key
    if type(key) is int and -MAX_ID - 1 <= key <= MAX_ID:  # not isinstance: True is an int, too
        return key
    if type(key) is Decimal and _is_whole(key):  # as Snowflake and Oracle write whole numbers
        whole = int(key)
        return whole if -MAX_ID - 1 <= whole <= MAX_ID else str(whole)
    if type(key) is float and key.is_integer():  # as pandas writes a column of whole numbers with gaps
        if abs(key) < _MAX_EXACT:
            return int(key)
        raise _fault(record, name, "text or a whole number; a float keeps 15 digits, so the others are lost")
    raise _fault(record, name, "text or a whole number of at most 64 bits")


def same_id(key: int | str) -> int | str:
    """The one form of ids that mean the same row: the number for "7" and 7, since all values of a CSV are text."""
    number = parse_digits(key) if isinstance(key, str) else None
    return key if number is None else number


def read_text(record: Record, names: Sequence[str]) -> str:
    """The text of one field, unchanged; or of several, joined by a space, without the blank ones.

    Raises BadRowError if it has no visible character. Among several fields, numbers and null may be texts, too.
    """
    if len(names) == 1:
        value = record.get(names[0])
        if type(value) is not str:
            raise _fault(record, names[0], "text")
    else:
        value = " ".join(filter(None, (_read_optional(record, name) for name in names)))
    if is_blank(value):
        raise BadRowError(f"{' and '.join(f'`{name}`' for name in names)} {_are(names)} empty, expected text")
    return value


def read_retailer(record: Record, name: str | None) -> str:
    """The retailer, unchanged, "" for null or blank text. A whole number is the text of its digits."""
    return "" if name is None else _read_optional(record, name)


def read_price(record: Record, name: str | None, mark: Mark = ".") -> float:
    """A price, given as a number or as text, see `parse_amount`. NaN for null, NaN, blank text and such as NA and `-`.

    `mark` is how to read a text such as 1,234.
    """
    if name is None:
        return math.nan
    given: Any = record.get(name)
    is_null = (given is None and name in record) or (type(given) is float and math.isnan(given))
    if is_null or (type(given) is str and (is_blank(given) or given.strip().casefold() in _NO_PRICE)):
        return math.nan
    price: float | None = None
    if type(given) is str:
        price = parse_amount(given, mark)
    elif type(given) in (int, float, Decimal) and abs(given) < _MAX_PRICE:
        price = float(given)
    if price is None:
        raise _fault(record, name, 'a number, such as 1.99 or "-1,99 €", or null')
    return price + 0.0  # a zero has no sign


def read_label(record: Record, name: str) -> str:
    """A label, unchanged, "" for null or blank text. A whole number is the text of its digits."""
    return _read_optional(record, name)


def read_labels(record: Record, columns: Sequence[str], levels: Levels, *, ragged: bool, hint: str = "") -> LabelPath:
    """The path of a row with a field for each level.

    Args:
        record: the row.
        columns: the fields, one for each level.
        levels: the names of the levels.
        ragged: whether a path may end early. If not, a blank label is an error.
        hint: what the error says then, beside what was expected.
    """
    path = LabelPath(*(read_label(record, column) for column in columns))
    if not ragged:
        for column, label in zip(columns, path, strict=True):
            if not label:
                raise BadRowError(f"{missing_label(record, column)}{hint}")
    if fault := fault_of(path, levels):
        shown = " > ".join(label or "(empty)" for label in path)
        raise BadRowError(f"the path {show(shown)} {fault}")
    return path


def missing_label(record: Record, column: str) -> BadRowError:
    """The error of a row without a label that it must have."""
    if isinstance(record.get(column), str):
        return BadRowError(f"`{column}` is empty, expected text")
    return _fault(record, column, "text")


def is_blank(text: str) -> bool:
    """Whether a text has no visible character: it is empty, or all spaces, control and zero-width characters."""
    text = text.strip()
    return not (text and text[0].isprintable()) and all(unicodedata.category(letter) in _INVISIBLE for letter in text)


def parse_digits(text: str) -> int | None:
    """The whole number of at most 64 bits that a text is; None if the number would be written back in another way.

    >>> parse_digits("7"), parse_digits("007")
    (7, None)
    """
    number = int(text) if _DIGITS.fullmatch(text) else None
    return number if number is not None and -MAX_ID - 1 <= number <= MAX_ID else None


def repeated_id(name: str, key: int | str, first: str, hint: str = "") -> BadRowError:
    """The error of a row whose id was seen before; `first` says where, such as "line 7"."""
    return BadRowError(f"`{name}` is {show(key)} again (first in {first}), expected each id once{hint}")


def show(value: Any) -> str:
    """A value as JSON, cut to `MAX_SHOWN` characters, to quote it in an error message."""
    try:
        # Parquet has values that JSON lacks, such as dates: their text is shown.
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except RecursionError:
        text = "a value that is nested too deep"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


_MAX_PRICE = 1e300  # float() of a larger whole number raises
_MAX_EXACT = 2.0**53  # from here on, a float is not every whole number
# How exports write that there is none.
_NO_PRICE = {
    "na", "n/a", "n.a.", "#n/a", "<na>", "undefined", "?", "nan", "null", "none", "nil", "\\n", "-", "--", "—", ".",
}  # fmt: skip


def _read_optional(record: Record, name: str) -> str:
    """A text that may be blank or null, for which it is "", or a whole number."""
    value = record.get(name)
    if type(value) is str:
        return "" if is_blank(value) else value
    if type(value) is int or (type(value) is Decimal and _is_whole(value)):
        return str(int(value))
    if type(value) is float:  # a column of whole numbers with nulls in a Parquet file of pandas
        if math.isnan(value):
            return ""
        if value.is_integer():
            return str(int(value))
    if value is None and name in record:
        return ""
    raise _fault(record, name, "text or null")


def _is_whole(number: Decimal) -> bool:
    return number.is_finite() and number == number.to_integral_value()


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _fault(record: Record, name: str, expected: str) -> BadRowError:
    value = record.get(name)
    if isinstance(value, dict) and value:
        expected += f"; it has the fields {', '.join(map(str, value))[:MAX_SHOWN]}: write one as a column of its own"
    found = f"is {show(value)}" if name in record else "is missing"
    return BadRowError(f"`{name}` {found}, expected {expected}")
