"""Reads what is known of a row without its labels: id, text, retailer and price. For the pipeline and `predict`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

from tillmap.catalogue.amounts import Mark, find_mark
from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.rows import BadRowError, Record, read_id, read_price, read_retailer, read_text
from tillmap.config.blocks import Columns

OnBadRow = Literal["stop", "quarantine"]


class Item(NamedTuple):
    """A row without its labels. `retailer` is "" and `price` NaN where they are not known."""

    key: int | str
    text: str
    retailer: str
    price: float


@dataclass(frozen=True)
class Fields:
    """The names of the fields of a row.

    Attributes:
        id: None if the rows have none. A row's id is its number then, from 1.
        text: the fields whose texts are joined, at least one.
        retailer: None if the rows have none.
        price: None if the rows have none.
        optional: fields that a file need not have.
    """

    id: str | None
    text: tuple[str, ...]
    retailer: str | None = None
    price: str | None = None
    optional: tuple[str, ...] = ()

    @classmethod
    def of(cls, columns: Columns) -> Self:
        """The fields that `data.columns` names."""
        text = (columns.text,) if isinstance(columns.text, str) else tuple(columns.text)
        return cls(columns.id, text, columns.retailer, columns.price)

    @property
    def needed(self) -> list[str]:
        """The fields that a file must have."""
        named = [self.id, *self.text, self.retailer, self.price]
        return [name for name in named if name is not None and name not in self.optional]

    def read(self, record: Record, number: int, mark: Mark) -> Item:
        """Read a row. `number` is its own, from 1; `mark` is the file's decimal mark. Raises BadRowError."""
        record = {**dict.fromkeys(self.optional), **record}
        return Item(
            number if self.id is None else read_id(record, self.id),
            read_text(record, self.text),
            read_retailer(record, self.retailer),
            read_price(record, self.price, mark),
        )


def mark_of(files: Sequence[RowFile], fields: Fields, decimal: Mark | None) -> Mark:
    """The decimal mark of the prices: `decimal`, or what the files themselves show if that is None."""
    return decimal or ("." if fields.price is None else find_mark(_prices(files, fields, fields.price)))


def _prices(files: Iterable[RowFile], fields: Fields, name: str) -> Iterator[Any]:
    for file in files:
        for row in file.rows(fields.needed, fields.optional):
            with suppress(BadRowError):
                yield row.read().get(name)
