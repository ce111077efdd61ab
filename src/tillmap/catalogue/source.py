"""Reads a catalogue in the contest's format and checks every row."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import pandas as pd
from tqdm import tqdm

from tillmap.catalogue import formats
from tillmap.catalogue.rows import (
    ID,
    BadRowError,
    Record,
    read_labels,
    read_number_id,
    read_price,
    read_text,
    repeated_id,
)
from tillmap.core.errors import InputError
from tillmap.core.taxonomy import LEVELS, LabelPath

logger = logging.getLogger(__name__)
OnBadRow = Literal["stop", "quarantine"]
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A catalogue's rows, and the lines that were set aside.

    `rows`: split ("train" or "test"), id (int64), description, retailer, price (float64, NaN where unknown) and the
    four labels (null where a test row has none), in the order of the files, train before test.
    `quarantined`: file, line (from 1), reason and raw (the line unchanged, cut to `formats.MAX_LINE_BYTES`; bytes that
    are not UTF-8 as backslash escapes).
    """

    rows: pd.DataFrame
    quarantined: pd.DataFrame


class _Item(NamedTuple):
    description: str
    retailer: str
    price: float


@dataclass
class _Quarantine:
    """Collects bad lines; under "stop" the first one raises InputError."""

    on_bad_row: OnBadRow
    lines: list[tuple[str, int, str, str]] = field(default_factory=list)

    def add(self, path: Path, number: int, reason: str, raw: bytes) -> None:
        if self.on_bad_row == "stop":
            raise InputError(
                f"{path}:{number}: {reason}; correct the line, or set bad rows aside with `data.on_bad_row: quarantine`"
            )
        self.lines.append((path.name, number, reason, raw.rstrip(b"\r\n").decode(errors="backslashreplace")))

    def to_table(self) -> pd.DataFrame:
        table = pd.DataFrame(sorted(self.lines), columns=["file", "line", "reason", "raw"])
        return table.astype({"file": "str", "line": "int64", "reason": "str", "raw": "str"})


def check_folder(folder: Path) -> None:
    """Raise InputError if the folder of a catalogue does not exist."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder; set `data.source` to one with train.features, train.labels and "
            "test.features"
        )


def read_source(folder: Path, on_bad_row: OnBadRow = "stop") -> Source:
    """Read `train.features`, `train.labels`, `test.features` and, if it is there, `test.labels`.

    The files are JSON Lines, joined on `indoml_id`. A row is bad if its line is not a UTF-8 JSON object with the
    expected fields, if its id was seen before (the first one stays), or if its other half is missing: the label of a
    training row, or the row of a label. Under "quarantine" bad lines are set aside, always both halves of a row. Only
    a test row that loses its label stays, unlabelled, because it still needs an answer.

    Raises InputError for the first bad row under "stop", and always for a file that is missing or has no sound row.
    """
    check_folder(folder)
    quarantine = _Quarantine(on_bad_row)
    tables = [_read_split(folder, split, quarantine) for split in ("train", "test")]
    quarantined = quarantine.to_table()
    if len(quarantined):
        logger.warning("%s: %d bad lines were set aside", folder, len(quarantined))
    return Source(pd.concat(tables, ignore_index=True), quarantined)


def _read_split(folder: Path, split: str, quarantine: _Quarantine) -> pd.DataFrame:
    features_path, labels_path = folder / f"{split}.features", folder / f"{split}.labels"
    items = _read_lines(features_path, _read_item, quarantine)
    labels: dict[int, tuple[int, LabelPath]] = {}
    if split == "train" or labels_path.exists():
        labels = _read_lines(labels_path, read_labels, quarantine)
        no_row = {line: f"id {key} has no row in {features_path.name}" for key, (line, _) in labels.items()
                  if key not in items}  # fmt: skip
        if split == "train":
            no_label = {line: f"id {key} has no label in {labels_path.name}" for key, (line, _) in items.items()
                        if key not in labels}  # fmt: skip
            _set_aside(features_path, no_label, quarantine)
            items = {key: item for key, item in items.items() if key in labels}
        _set_aside(labels_path, no_row, quarantine)
    if not items:
        name, number, reason, _ = next(line for line in quarantine.lines if line[0].startswith(split))
        raise InputError(
            f"{features_path}: no sound row is left, correct the file; first fault: {name}:{number}: {reason}"
        )
    return _to_table(split, items, labels)


def _to_table(
    split: str, items: Mapping[int, tuple[int, _Item]], labels: Mapping[int, tuple[int, LabelPath]]
) -> pd.DataFrame:
    unlabelled = (0, (None,) * len(LEVELS))
    paths = [labels.get(key, unlabelled)[1] for key in items]
    text: dict[str, Iterable[str | None]] = {
        "description": [item.description for _, item in items.values()],
        "retailer": [item.retailer for _, item in items.values()],
    }
    text |= {level: [path[depth] for path in paths] for depth, level in enumerate(LEVELS)}
    columns = {name: pd.Series(values, dtype="str") for name, values in text.items()}
    price = pd.Series([item.price for _, item in items.values()], dtype="float64")
    table = pd.DataFrame({"id": pd.Series(list(items), dtype="int64"), **columns, "price": price})
    return table.assign(split=pd.Series(split, index=table.index, dtype="str"))[
        ["split", "id", "description", "retailer", "price", *LEVELS]
    ]


def _read_item(record: Record) -> _Item:
    return _Item(
        read_text(record, "description", blank=False),
        read_text(record, "retailer"),
        read_price(record),
    )


def _read_lines(path: Path, read: Callable[[Record], T], quarantine: _Quarantine) -> dict[int, tuple[int, T]]:
    """A file's sound rows by id, each with its line number, in the file's order."""
    rows: dict[int, tuple[int, T]] = {}
    number = 0
    for number, line in tqdm(_numbered_lines(path), desc=path.name, unit="row", disable=None):
        try:
            record = formats.parse_line(line)
            key, value = read_number_id(record), read(record)
            if key in rows:
                raise repeated_id(ID, key, f"line {rows[key][0]}")
        except BadRowError as fault:
            quarantine.add(path, number, str(fault), line[: formats.MAX_LINE_BYTES])
        else:
            rows[key] = (number, value)
    if not number:
        raise InputError(f"{path}: the file is empty; expected a JSON object with `{ID}` on each line")
    return rows


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with formats.open_rows(path, "put it there, or set `data.source` to its folder") as file:
        yield from formats.numbered_lines(file)


def _set_aside(path: Path, reasons: Mapping[int, str], quarantine: _Quarantine) -> None:
    """Quarantine lines that are sound by themselves, by number. Their raw text was not kept, so it is read again."""
    if reasons:
        for number, line in _numbered_lines(path):
            if number in reasons:
                quarantine.add(path, number, reasons[number], line)
