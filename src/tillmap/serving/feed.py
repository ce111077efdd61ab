"""New rows to label: checked as a whole, then read batch by batch."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from tillmap.catalogue.source import ID, BadRowError, read_price
from tillmap.core.errors import InputError
from tillmap.serving.formats import Format, format_of, read_records

Row = tuple[int | str, str, str, float]

_SHOWN = 3  # bad rows that an error names


@dataclass(frozen=True)
class Columns:
    """What the fields of a feed are called.

    None stands for `retailer` and `price`, which may then be missing; a name that was given must be there.
    """

    id: str = ID
    description: str = "description"
    retailer: str | None = None
    price: str | None = None


@dataclass(frozen=True)
class Checked:
    """What `Feed.check` found: how many rows, and whether all their ids are whole numbers (in CSV, written as such)."""

    rows: int
    numbers: bool


@dataclass(frozen=True)
class Feed:
    """A file of rows to label. `format` None: the one that the name's ending says. `name` is for errors.

    Raises InputError where the file cannot be read, or its format is not known.
    """

    path: Path
    columns: Columns = Columns()
    format: Format | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        try:
            with self.path.open("rb"):
                _ = self.format or format_of(self.path)
        except FileNotFoundError:
            raise InputError(
                f"{self.path}: the file is not there; name a file of rows, or - for standard input"
            ) from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}); expected a file you may read") from None

    def check(self) -> Checked:
        """Read the whole file, before hours go into a part of it. Memory: the ids.

        Raises InputError that names the first bad rows and says how many there are: rows that lack an id or a
        description, whose values are of another kind, or whose id came before; also where there is no row at all.
        """
        faults: list[str] = []
        rows, bad, numbers = 0, 0, True
        seen: dict[int | str, int] = {}
        for rows, (where, row) in enumerate(self._rows(), 1):  # noqa: B007 - counted
            fault: object = row
            if not isinstance(row, BadRowError):
                key = row[0]
                numbers = numbers and (type(key) is int or self._is_number(key))
                if seen.setdefault(key, where) == where:
                    continue
                fault = (
                    f"`{self.columns.id}` {key!r} is already that of {self._unit} {seen[key]}, expected one of its own"
                )
            bad += 1
            if bad <= _SHOWN:
                faults.append(f"{self._name}:{where}: {fault}")
        if bad:
            more = f"\nand {bad - _SHOWN:,} more bad rows" if bad > _SHOWN else ""
            raise InputError("\n".join(faults) + f"{more}\ncorrect or remove them and run again: nothing was labelled")
        if not rows:
            raise InputError(f"{self._name}: there is no row in it; expected at least one")
        return Checked(rows, numbers)

    def batches(self, size: int) -> Iterator[pd.DataFrame]:
        """Tables of `size` rows, the last with what is left.

        Columns: key (int or str), description, retailer ("" where unknown) and price (float, NaN where unknown).
        Raises InputError for a bad row.
        """
        rows = self._sound()
        while batch := list(islice(rows, size)):
            key, description, retailer, price = zip(*batch, strict=True)
            yield pd.DataFrame(
                {
                    "key": pd.Series(key, dtype=object),
                    "description": pd.Series(description, dtype="str"),
                    "retailer": pd.Series(retailer, dtype="str"),
                    "price": pd.Series(price, dtype="float64"),
                }
            )

    @property
    def _format(self) -> Format:
        return self.format or format_of(self.path)

    @property
    def _name(self) -> str:
        return self.name or str(self.path)

    @property
    def _unit(self) -> str:
        return "row" if self._format == "parquet" else "line"

    def _is_number(self, key: int | str) -> bool:
        """Whether a CSV's text is how a whole number is written; 007 is not, and must come back as it was."""
        text = str(key)
        return (
            self._format == "csv" and text.isascii() and text.isdigit() and str(int(text[:20])) == text and _fits(text)
        )

    def _sound(self) -> Iterator[Row]:
        for where, row in self._rows():
            if isinstance(row, BadRowError):
                raise InputError(f"{self._name}:{where}: {row}; correct the row and run again")
            yield row

    def _rows(self) -> Iterator[tuple[int, Row | BadRowError]]:
        """Every row, or what is wrong with it, and its place."""
        columns = self.columns
        needed = [columns.id, columns.description, *filter(None, (columns.retailer, columns.price))]
        optional = [name for name in self._named() if name not in needed]
        for where, read in read_records(self.path, needed, optional, format_=self.format, name=self._name):
            try:
                yield where, self._row(read())
            except BadRowError as fault:
                yield where, fault

    def _named(self) -> list[str]:
        columns = self.columns
        return [columns.id, columns.description, columns.retailer or "retailer", columns.price or "price"]

    def _row(self, record: Mapping[str, Any]) -> Row:
        id_name, text_name, retailer_name, price_name = self._named()
        for name in filter(None, (self.columns.retailer, self.columns.price)):
            if name not in record:
                raise BadRowError(f"`{name}` is missing, expected it, were it null")
        key, description = record.get(id_name), record.get(text_name)
        if not (type(key) is str and key != "") and not (type(key) is int and _fits(key)):
            raise BadRowError(f"{_found(record, id_name)}, expected a text, or a whole number of at most 64 bits")
        if type(description) is not str or not description.strip():
            raise BadRowError(f"{_found(record, text_name)}, expected a text")
        retailer, given = record.get(retailer_name), record.get(price_name)
        if retailer is not None and type(retailer) is not str:
            raise BadRowError(f"{_found(record, retailer_name)}, expected a text, or null")
        for name, text in ((id_name, key), (text_name, description), (retailer_name, retailer)):
            if type(text) is str and not _is_utf8(text):
                raise BadRowError(f"`{name}` is not UTF-8, expected a file saved as UTF-8")
        price = _price(given)
        if price is None:
            raise BadRowError(f"{_found(record, price_name)}, expected a number from 0 up, or nothing")
        return key, description, retailer or "", price


def _price(given: Any) -> float | None:
    """NaN where there is none, None where it is no price."""
    if given is None or given == "" or (isinstance(given, float) and math.isnan(given)):
        return math.nan
    return read_price(float(given) if isinstance(given, Decimal) else given)


def _fits(number: int | str) -> bool:
    return -(2**63) <= int(number) < 2**63


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _found(record: Mapping[str, Any], name: str) -> str:
    if name not in record:
        return f"`{name}` is missing"
    text = repr(record[name])
    return f"`{name}` is {text if len(text) <= 60 else f'{text[:57]}...'}"
