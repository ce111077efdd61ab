"""Writes the demo catalogue as the contest's files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tillmap.catalogue.demo.catalogue import DemoCatalogue
from tillmap.catalogue.rows import ID
from tillmap.core.files import write_jsonl
from tillmap.core.taxonomy import CONTEST

_EVERY_TEXT_PRICE = 4


def write_contest_files(catalogue: DemoCatalogue, folder: Path) -> None:
    """Write train.features, train.labels, test.features and test.labels (JSON Lines) into `folder`.

    The contest has no test.labels; the demo does, so that its test rows can be scored. As in the contest, a price is
    a number, a number as text (here in every fourth row) or null. The folder is made if it does not exist.
    Each file takes its place only once it is whole. Raises OSError if one cannot be written.
    """
    for split, table in (("train", catalogue.train), ("test", catalogue.test)):
        write_jsonl(_features(table), folder / f"{split}.features")
        write_jsonl(_records(table, [ID, *CONTEST]), folder / f"{split}.labels")


def _features(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in _records(table, [ID, "description", "retailer", "price"]):
        if pd.isna(row["price"]):
            row["price"] = None
        elif row[ID] % _EVERY_TEXT_PRICE == 0:
            row["price"] = f"{row['price']:.2f}"
        yield row


def _records(table: pd.DataFrame, columns: list[str]) -> Iterator[dict[str, Any]]:
    for values in table[columns].itertuples(index=False, name=None):
        yield dict(zip(columns, values, strict=True))
