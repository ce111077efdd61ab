"""New rows to label. The whole file is checked first, then it is read in batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd

from tillmap.catalogue.formats import Format, format_of, open_rows, place_of, read_records
from tillmap.catalogue.rows import (
    ID,
    BadRowError,
    Record,
    parse_digits,
    read_any_id,
    read_price,
    read_text,
    repeated_id,
)
from tillmap.core.errors import InputError

Row = tuple[int | str, str, str, float]  # id, description, retailer, price

_MAX_NAMED = 3  # bad rows that an error quotes; the others are counted


@dataclass(frozen=True)
class Columns:
    """The names of a feed's fields.

    None for `retailer` or `price` means the field of that name, if there is one. A field that is named must be there.
    """

    id: str = ID
    description: str = "description"
    retailer: str | None = None
    price: str | None = None


@dataclass(frozen=True)
class Checked:
    """What `Feed.check` found.

    `rows`: the number of rows. `numbers`: whether all ids are whole numbers (in CSV, digits without leading zeros).
    """

    rows: int
    numbers: bool


@dataclass(frozen=True)
class Feed:
    """A file of rows to label.

    `format` is None for the one that the file's name says. `name` is what errors call the file, None for its path.

    Raises InputError if the file cannot be read, or its format is unknown.
    """

    path: Path
    columns: Columns = Columns()
    format: Format | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        open_rows(self.path, "name a file of rows, or - for standard input").close()
        _ = self._format

    def check(self) -> Checked:
        """Check every row, so that a bad one is found before hours of labelling. Keeps the ids in memory.

        Raises InputError if the file has no row, or a bad one: no id or description, a value of the wrong type, or an
        id that was seen before. The message quotes the first bad rows and counts the others.
        """
        faults: list[str] = []
        rows, bad, numbers = 0, 0, True
        seen: dict[int | str, int] = {}
        for rows, (where, row) in enumerate(self._rows(), 1):  # noqa: B007 - counted
            fault: object = row
            if not isinstance(row, BadRowError):
                key = row[0]
                numbers = numbers and self._is_number(key)
                first = seen.setdefault(key, where)
                if first == where:
                    continue
                fault = repeated_id(self.columns.id, key, f"{place_of(self._format)} {first}")
            bad += 1
            if bad <= _MAX_NAMED:
                faults.append(f"{self._name}:{where}: {fault}")
        if bad:
            more = f"\nand {bad - _MAX_NAMED:,} more bad rows" if bad > _MAX_NAMED else ""
            raise InputError("\n".join(faults) + f"{more}\ncorrect or remove them and run again; no row was labelled")
        if not rows:
            raise InputError(f"{self._name}: there is no row in it; expected at least one")
        return Checked(rows, numbers)

    def batches(self, size: int) -> Iterator[pd.DataFrame]:
        """Tables of `size` rows; the last one may be shorter.

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

    def _is_number(self, key: int | str) -> bool:
        """Whether an id is a whole number, or the text in a CSV that such a number would be written back as."""
        return type(key) is int or (self._format == "csv" and parse_digits(str(key)) is not None)

    def _sound(self) -> Iterator[Row]:
        for where, row in self._rows():
            if isinstance(row, BadRowError):
                raise InputError(f"{self._name}:{where}: {row}; correct the row and run again")
            yield row

    def _rows(self) -> Iterator[tuple[int, Row | BadRowError]]:
        """Each row, or what is wrong with it, and its place."""
        columns = self.columns
        needed = [columns.id, columns.description, *filter(None, (columns.retailer, columns.price))]
        unnamed = [name for name, given in (("retailer", columns.retailer), ("price", columns.price)) if given is None]
        optional = [name for name in unnamed if name not in needed]
        for where, read in read_records(self.path, needed, optional, format_=self.format, name=self._name):
            try:
                yield where, self._row({**dict.fromkeys(optional), **read()})
            except BadRowError as fault:
                yield where, fault

    def _row(self, record: Record) -> Row:
        columns = self.columns
        return (
            read_any_id(record, columns.id),
            read_text(record, columns.description, blank=False),
            read_text(record, columns.retailer or "retailer", null=True),
            read_price(record, columns.price or "price", blank=True),
        )
