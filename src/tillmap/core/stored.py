"""Reads what stages hand to each other, and checks that it is what they wrote."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from tillmap.core.completions import Completion
from tillmap.core.errors import InputError
from tillmap.core.files import read_jsonl, read_table
from tillmap.core.taxonomy import KEY

ROWS = (*KEY, "subset", "description", "retailer", "price")
NEIGHBOURS = (*KEY, "rank", "neighbour", "score")
PREDICTIONS = (*KEY, "confidence", "repair", "in_tree", "source", "status")

_COMPLETION = TypeAdapter(Completion)


def read_rows(path: Path, columns: Sequence[str] = ROWS, more: Sequence[str] = ()) -> pd.DataFrame:
    """The table of rows: `columns` and `more`; by default all columns.

    Raises InputError if the file is missing or damaged, lacks a column, or has a row twice.
    """
    rows = read_table(path, [*columns, *more] if more or columns is not ROWS else None)
    _require(rows, columns, path)
    key = [name for name in KEY if name in rows]
    if len(key) == len(KEY) and rows.duplicated(key).any():
        raise InputError(f"{path}: a row is there twice; run `dvc repro` to write it again")
    return rows


def read_neighbours(path: Path) -> pd.DataFrame:
    """A table of neighbours. Raises InputError if it is missing or damaged."""
    table = read_table(path)
    _require(table, NEIGHBOURS, path)
    return table


def read_predictions(path: Path) -> pd.DataFrame:
    """A table of predictions; without rows if the arm is off. Raises InputError if it is missing or damaged."""
    table = read_table(path)
    _require(table, PREDICTIONS, path)
    return table


def read_completions(path: Path) -> Iterator[dict[str, Any]]:
    """The records of completions, one at a time. Raises InputError, with the line's number, for anything else."""
    for number, record in enumerate(read_jsonl(path), 1):
        try:
            _COMPLETION.validate_python(record)
            for candidate in record["candidates"] or ():
                _, share = candidate
                float(share)
        except (ValidationError, KeyError, TypeError, ValueError):
            raise InputError(f"{path}:{number}: not an answer; run `dvc repro infer` to write the file again") from None
        yield record


def _require(table: pd.DataFrame, columns: Sequence[str], path: Path) -> None:
    if missing := [name for name in columns if name not in table]:
        raise InputError(f"{path}: no column {', '.join(missing)}; run `dvc repro` to write the table again")
