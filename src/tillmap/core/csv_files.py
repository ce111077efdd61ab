"""Writes CSV that every reader takes apart as it was; and in files for people, a spreadsheet computes nothing."""

import csv
import re
from io import StringIO
from typing import TYPE_CHECKING, TextIO

import pandas as pd

if TYPE_CHECKING:
    from _csv import Writer

# What begins a formula, also in the wide forms of Chinese and Japanese keyboards. The apostrophe is here so that
# `text_of` gives back every text.
_COMPUTED = re.compile(r"['=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def csv_writer(file: TextIO) -> "Writer":
    """A writer whose lines end with a line feed. A field with a line feed or a carriage return is quoted."""
    return csv.writer(_Lines(file), lineterminator="\r\n")


class _Lines:
    """Takes the carriage return from the ends of lines. `csv.writer` quotes one only if it ends lines, too."""

    def __init__(self, file: TextIO):
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix("\r\n") + "\n")


def to_csv(table: pd.DataFrame, *, for_people: bool = False) -> str:
    """A table as CSV with a header.

    `for_people`: put an apostrophe before a text that a spreadsheet might compute (OWASP, "CSV Injection"). `text_of`
    takes it away.
    """
    text = StringIO(newline="")
    lines = csv_writer(text)
    lines.writerow(table.columns)
    for row in table.astype(object).where(table.notna(), None).itertuples(index=False, name=None):
        lines.writerow(map(_as_text, row) if for_people else row)
    return text.getvalue()


def text_of(cell: str) -> str:
    """The text of a cell that `to_csv` wrote for people.

    >>> text_of("'=1+1"), text_of("tea")
    ('=1+1', 'tea')
    """
    return cell.removeprefix("'")


def _as_text(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and _COMPUTED.match(cell) else cell
