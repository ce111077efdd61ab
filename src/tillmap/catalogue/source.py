"""Reads a catalogue in the contest's format and checks every row."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TypeVar

import orjson
import pandas as pd
from tqdm import tqdm

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import LEVELS, LabelPath

MAX_LINE_BYTES = 2**20
ID = "indoml_id"

logger = logging.getLogger(__name__)
OnBadRow = Literal["stop", "quarantine"]
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A catalogue's rows, and the lines that were set aside.

    `rows`: split ("train" or "test"), id (int64), description, retailer, price (float64, NaN where unknown) and the
    four labels (null where a test row has none), in the order of the files, train before test.
    `quarantined`: file, line (from 1), reason and raw (the line as it stands, at most `MAX_LINE_BYTES` of it; bytes
    that are not UTF-8 as backslash escapes).
    """

    rows: pd.DataFrame
    quarantined: pd.DataFrame


class _Item(NamedTuple):
    description: str
    retailer: str
    price: float


class BadRowError(Exception):
    """What is wrong with one line, without its place."""


@dataclass
class _Quarantine:
    """Where bad lines go; under "stop" the first of them ends the reading."""

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
    """Raise InputError unless the folder of a catalogue is there."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder; set `data.source` to one with train.features, train.labels and "
            "test.features"
        )


def read_source(folder: Path, on_bad_row: OnBadRow = "stop") -> Source:
    """Read `train.features`, `train.labels`, `test.features` and, where it is there, `test.labels`.

    The files are JSON Lines, joined on `indoml_id`. A row is bad where its line is not a UTF-8 JSON object with the
    expected fields, its id was seen before (the first one stays), or it lacks its other half: a training row its
    label, or a label its row. Under "quarantine" such lines are set aside, both halves of a row together, except that
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
    items = _read_lines(features_path, _item, quarantine)
    labels: dict[int, tuple[int, LabelPath]] = {}
    if split == "train" or labels_path.exists():
        labels = _read_lines(labels_path, _label, quarantine)
        strays = {line: f"id {key} has no row in {features_path.name}" for key, (line, _) in labels.items()
                  if key not in items}  # fmt: skip
        if split == "train":
            lone = {line: f"id {key} has no label in {labels_path.name}" for key, (line, _) in items.items()
                    if key not in labels}  # fmt: skip
            _set_aside(features_path, lone, quarantine)
            items = {key: item for key, item in items.items() if key in labels}
        _set_aside(labels_path, strays, quarantine)
    if not items:
        name, number, reason, _ = next(line for line in quarantine.lines if line[0].startswith(split))
        raise InputError(
            f"{features_path}: no sound row is left, correct the file; first fault: {name}:{number}: {reason}"
        )
    return _to_table(split, items, labels)


def _to_table(
    split: str, items: Mapping[int, tuple[int, _Item]], labels: Mapping[int, tuple[int, LabelPath]]
) -> pd.DataFrame:
    nothing = (0, (None,) * len(LEVELS))
    paths = [labels.get(key, nothing)[1] for key in items]
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


def _read_lines(
    path: Path, check: Callable[[dict[str, Any]], tuple[int, T]], quarantine: _Quarantine
) -> dict[int, tuple[int, T]]:
    """A file's sound rows by id, each with its line number, in the file's order."""
    rows: dict[int, tuple[int, T]] = {}
    number = 0
    for number, line in tqdm(_numbered(path), desc=path.name, unit="row", disable=None):
        try:
            key, value = check(parse_line(line))
            if key in rows:
                raise BadRowError(f"id {key} is already that of line {rows[key][0]}")
        except BadRowError as fault:
            quarantine.add(path, number, str(fault), line[:MAX_LINE_BYTES])
        else:
            rows[key] = (number, value)
    if not number:
        raise InputError(f"{path}: the file is empty; expected a JSON object with `{ID}` on each line")
    return rows


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path}: the file is not there; put it there, or set `data.source` to its folder") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a file you may read") from None
    with file:
        yield from numbered_lines(file)


def numbered_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines and their numbers from 1. Blank lines at the end are left out; a line over the limit comes cut short."""
    blank: list[int] = []
    for number, line in enumerate(iter(partial(file.readline, MAX_LINE_BYTES + 1), b""), 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES)
        if line.isspace():
            blank.append(number)
            continue
        for earlier in blank:
            yield earlier, b""
        blank.clear()
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def parse_line(line: bytes) -> dict[str, Any]:
    """The JSON object on a line. Raises BadRowError."""
    if not line:
        raise BadRowError("a blank line between rows")
    if len(line) > MAX_LINE_BYTES:
        raise BadRowError(f"the line is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode()
        except UnicodeDecodeError as wrong:
            raise BadRowError(f"not UTF-8 (byte 0x{line[wrong.start]:02x} at column {wrong.start + 1})") from None
        raise BadRowError(f"not JSON ({error.msg} at column {error.pos + 1})") from None
    if not isinstance(record, dict):
        raise BadRowError(f"expected a JSON object, found {_shown(record)}")
    return record


def _item(record: dict[str, Any]) -> tuple[int, _Item]:
    key = _id(record)
    description = _text(record, "description")
    if not description.strip():
        raise BadRowError("`description` is empty")
    return key, _Item(description, _text(record, "retailer"), _price(record))


def _label(record: dict[str, Any]) -> tuple[int, LabelPath]:
    key = _id(record)
    path = LabelPath(*(_text(record, level) for level in LEVELS))
    for level, label in zip(LEVELS, path, strict=True):
        if not label.strip():
            raise BadRowError(f"`{level}` is empty, expected four labels: {', '.join(LEVELS)}")
    return key, path


def _id(record: dict[str, Any]) -> int:
    key = record.get(ID)
    if type(key) is int and 0 <= key < 2**63:  # a bool is an int too
        return key
    raise BadRowError(_unfit(record, ID, "a whole number from 0 to 2^63 - 1"))


def _text(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if type(value) is str:
        return value
    raise BadRowError(_unfit(record, name, "text"))


def _price(record: dict[str, Any]) -> float:
    if record.get("price") is None and "price" in record:
        return math.nan
    price = read_price(record.get("price"))
    if price is not None:
        return price
    raise BadRowError(_unfit(record, "price", "a number from 0 up, such a number as text, or null"))


def read_price(value: Any) -> float | None:
    """A number from 0 up, or one written as text; None where it is neither."""
    price = math.nan
    if type(value) in (int, float, str) and "_" not in str(value):  # float() reads "1_000" as 1000
        with suppress(ValueError):
            price = float(value)
    return price if math.isfinite(price) and price >= 0 else None


def _unfit(record: dict[str, Any], name: str, expected: str) -> str:
    return f"`{name}` is {_shown(record[name])}, expected {expected}" if name in record else f"`{name}` is missing"


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _set_aside(path: Path, reasons: Mapping[int, str], quarantine: _Quarantine) -> None:
    """Quarantine lines that are sound by themselves; they are read again for their raw text."""
    if reasons:
        for number, line in _numbered(path):
            if number in reasons:
                quarantine.add(path, number, reasons[number], line)
