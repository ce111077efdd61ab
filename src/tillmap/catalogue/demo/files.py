"""Write the demo catalogue as the contest's files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tillmap.catalogue.demo.catalogue import DemoCatalogue
from tillmap.core.taxonomy import LEVELS

_EVERY_TEXT_PRICE = 4


def write_contest_files(catalogue: DemoCatalogue, folder: Path) -> None:
    """Write train.features, train.labels, test.features and test.labels (JSON Lines) into `folder`.

    The contest has no test.labels; the demo does, so that its test rows can be scored. As in the contest a price
    is a number, a numeric string (here in every fourth row) or null. A file is written beside its place and renamed
    when it is whole; the folder is made if need be. Raises OSError where it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, table in (("train", catalogue.train), ("test", catalogue.test)):
        _write_lines(folder / f"{split}.features", _features(table))
        _write_lines(folder / f"{split}.labels", table[["indoml_id", *LEVELS]].to_dict("records"))


def _features(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in table[["indoml_id", "description", "retailer", "price"]].to_dict("records"):
        if pd.isna(row["price"]):
            row["price"] = None
        elif row["indoml_id"] % _EVERY_TEXT_PRICE == 0:
            row["price"] = f"{row['price']:.2f}"
        yield {str(name): value for name, value in row.items()}


def _write_lines(path: Path, rows: Any) -> None:
    beside = path.with_name(f"{path.name}.part")
    with beside.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    beside.replace(path)
