"""New rows to label. The whole file is checked first, then it is read in batches."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import pandas as pd

from tillmap.catalogue.amounts import Mark
from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.items import Fields, Item, OnBadRow, mark_of
from tillmap.catalogue.reading import Format, Row
from tillmap.catalogue.rows import BadRowError, parse_digits, repeated_id, same_id
from tillmap.config.blocks import Data
from tillmap.core.errors import InputError
from tillmap.core.writing import bad_rows_of, is_stream, replacing

logger = logging.getLogger(__name__)

_DO_WITHOUT = ', or no ids, as for the lines of a receipt: --id ""'
_MAX_NAMED = 3  # bad rows that an error quotes; the others are counted


@dataclass(frozen=True)
class Checked:
    """What `Feed.check` found.

    Attributes:
        rows: the number of rows to label.
        numbers: whether all their ids are whole numbers (in CSV, digits without leading zeros).
        bad: the number of bad rows, which are left out.
    """

    rows: int
    numbers: bool
    bad: int = 0


@dataclass(frozen=True)
class Feed:
    """A file of rows to label.

    Attributes:
        file: the file.
        fields: the names of its fields.
        decimal: the decimal mark of its prices; None to recognise it.
        on_bad_row: whether a bad row stops, or is left out.

    Raises InputError if the file cannot be read, or its format is unknown.
    """

    file: RowFile
    fields: Fields
    decimal: Mark | None = None
    on_bad_row: OnBadRow = "stop"

    def __post_init__(self) -> None:
        self.file.check()

    @property
    def id_name(self) -> str:
        """What the column of ids is called: as in the file, or `id` if it has none and the rows are numbered."""
        return self.fields.id or "id"

    @property
    def reading(self) -> dict[str, object]:
        """All that decides what is read of the file, beside its bytes."""
        file = self.file
        how = {"format": file.kind, "encoding": file.encoding, "delimiter": file.delimiter}
        return {**vars(self.fields), **how, "decimal": self.decimal, "on_bad_row": self.on_bad_row}

    def check(self) -> Checked:
        """Check every row, so that a bad one is found before hours of labelling. Keeps the ids in memory.

        Raises InputError if the file has no row; and if it has a bad one, unless these are left out: no id or text, a
        value of the wrong type, or an id that was seen before. The message quotes the first bad rows and counts the
        others.
        """
        faults: list[str] = []
        rows, bad, numbers = 0, 0, True
        for row, item in self._rows():
            if isinstance(item, BadRowError):
                bad += 1
                if bad <= _MAX_NAMED:
                    faults.append(f"{self.file.shown}:{row.place}: {item}")
            else:
                rows += 1
                numbers = numbers and self._is_number(item.key)
        if bad and self.on_bad_row == "stop":
            more = f"\nand {bad - _MAX_NAMED:,} more bad rows" if bad > _MAX_NAMED else ""
            raise InputError(
                "\n".join(faults)
                + f"{more}\ncorrect or remove them and run again, or leave them out with --on-bad-row "
                "quarantine; no row was labelled"
            )
        if not rows:
            first = f"; first fault: {faults[0]}" if faults else ""
            raise InputError(
                f"{self.file.shown}: there is no {'sound ' * bool(bad)}row in it; expected at least one{first}"
            )
        return Checked(rows, numbers, bad)

    def batches(self, size: int) -> Iterator[pd.DataFrame]:
        """Tables of `size` rows; the last one may be shorter.

        Columns: key (int or str), description, retailer ("" where unknown) and price (float, NaN where unknown).
        Raises InputError for a bad row, unless these are left out.
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

    def list_bad(self, out: Path) -> None:
        """List the bad rows that are left out, if there are some, as JSON Lines in a file beside the output.

        Of an output that is a stream, the first ones are logged instead.

        It is called as the output with `.bad.jsonl` after it. A line has file, line (of a Parquet file the row), reason
        and raw, the row itself.
        """
        if self.on_bad_row == "stop":
            return
        if is_stream(out):  # there is nothing beside it
            faults = [f"{row.place}: {fault}" for row, fault in self._rows() if isinstance(fault, BadRowError)]
            if faults:
                shown = "".join(f"\n{self.file.shown}:{fault}" for fault in faults[:_MAX_NAMED])
                logger.warning(
                    "%s: %s bad rows were left out; the first:%s", self.file.shown, f"{len(faults):,}", shown
                )
            return
        place, bad = bad_rows_of(out), 0
        with replacing(place) as file:
            for row, fault in self._rows():
                if isinstance(fault, BadRowError):
                    name = self.file.name or self.file.path.name
                    record = {"file": name, "line": row.place, "reason": str(fault), "raw": row.raw()}
                    file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
                    bad += 1
        if bad:
            logger.warning("%s: %s bad rows were left out; they are in %s", self.file.shown, f"{bad:,}", place)
        else:
            place.unlink()

    @cached_property
    def _mark(self) -> Mark:
        return mark_of([self.file], self.fields, self.decimal)

    def _is_number(self, key: int | str) -> bool:
        """Whether an id is a whole number, or the text in a CSV that such a number would be written back as."""
        return isinstance(key, int) or (self.file.kind == "csv" and parse_digits(key) is not None)

    def _sound(self) -> Iterator[Item]:
        for row, item in self._rows():
            if not isinstance(item, BadRowError):
                yield item
            elif self.on_bad_row == "stop":
                raise InputError(f"{self.file.shown}:{row.place}: {item}; correct the {self.file.unit} and run again")

    def _rows(self) -> Iterator[tuple[Row, Item | BadRowError]]:
        """Each row, and what was read of it or what is wrong with it."""
        first: dict[int | str, int] = {}  # the place of each id
        for number, row in enumerate(self.file.rows(self.fields.needed, self.fields.optional), 1):
            try:
                item = self.fields.read(row.read(), number, self._mark)
                seen = first.setdefault(same_id(item.key), row.place)
                if seen != row.place:
                    raise repeated_id(self.id_name, item.key, f"{self.file.unit} {seen}", _DO_WITHOUT)
            except BadRowError as fault:
                yield row, fault
            else:
                yield row, item


def open_feed(
    path: Path,
    data: Data,
    *,
    id: str | None = None,
    text: Sequence[str] | None = None,
    retailer: str | None = None,
    price: str | None = None,
    format: Format | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    decimal: Mark | None = None,
    on_bad_row: OnBadRow | None = None,
    name: str | None = None,
) -> Feed:
    """A file of new rows, which are read as the `data` block of params.yaml says.

    Args:
        path: the file.
        data: the block. A retailer or price that it names need not be in the file.
        id, text, retailer, price: the names of fields, if they are others; "" for none.
        format: the file's format; None for the one that its name says.
        encoding, delimiter, decimal, on_bad_row: how to read it, if not as the block says.
        name: what errors call the file; None for its path.

    Raises InputError if the file cannot be read.
    """
    usual = Fields.of(data.columns)
    fields = Fields(
        usual.id if id is None else id or None,
        tuple(text or usual.text),
        usual.retailer if retailer is None else retailer or None,
        usual.price if price is None else price or None,
        tuple(each for each, given in ((usual.retailer, retailer), (usual.price, price)) if each and given is None),
    )
    file = RowFile(
        path,
        format,
        encoding or data.encoding,
        delimiter or data.delimiter,
        known=(*fields.needed, *fields.optional),
        name=name,
        remedy="name a file of rows, or - for standard input",
    )
    return Feed(file, fields, decimal or data.decimal, on_bad_row or data.on_bad_row)
