"""The contest's submission: a zip with one file of predictions, checked before anything is written."""

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tillmap.catalogue.source import ID, BadRowError
from tillmap.core.errors import InputError
from tillmap.core.files import replacing
from tillmap.core.taxonomy import LEVELS, LabelPath, LabelTree
from tillmap.serving.formats import read_records

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_WHEN = (1980, 1, 1, 0, 0, 0)  # of every file in the zip, so that the same predictions give the same bytes


def read_answers(path: Path) -> pd.DataFrame:
    """Predictions as `tillmap predict` writes them, JSON Lines, CSV or Parquet: id (int) and the four levels (str).

    Raises InputError for the first row that lacks one of them or has another kind of value.
    """
    rows = []
    for where, read in read_records(path, [ID, *LEVELS]):
        try:
            rows.append(_answer(read()))
        except BadRowError as fault:
            raise InputError(f"{path}:{where}: {fault}; label the test file again") from None
    return pd.DataFrame(rows, columns=["id", *LEVELS])


def write_submission(predictions: pd.DataFrame, asked: pd.Series, tree: LabelTree | None, name: str, out: Path) -> int:
    """Write `out`, a zip that holds `test_NAME.predict`: a JSON line a row, in the order of `asked`. Gives the rows.

    Args:
        predictions: id and the four labels of the rows asked; others, say held-out ones, must not be in it.
        asked: the id of every test row, in the test file's order.
        tree: the label paths that may be answered; None for any.
        name: letters, digits, - and _, to go into the file's name.
        out: where to, ending in .zip.

    Raises InputError, and writes nothing, where a row is missing, comes twice, was not asked or stands out of order;
    where an id is no whole number; or where a label is missing or the four are no path of the tree.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"submission name {name!r}: expected letters, digits, - and _, 64 at most")
    if out.suffix.lower() != ".zip":
        raise InputError(f"{out}: a submission is a zip; name it so that it ends in .zip")
    _check_ids(predictions["id"].reset_index(drop=True), asked.reset_index(drop=True))
    lines = []
    for row, (key, *labels) in enumerate(predictions[["id", *LEVELS]].itertuples(index=False, name=None), 1):
        blank = [
            level for level, label in zip(LEVELS, labels, strict=True) if type(label) is not str or not label.strip()
        ]
        if blank:
            raise InputError(f"row {row} (id {key}): no {blank[0]}, expected four labels; predict the row anew")
        path = LabelPath(*labels)
        if tree is not None and path not in tree:
            raise InputError(
                f"row {row} (id {key}): {tuple(path)} is no label path of the labelled rows; predict it with an arm "
                "that keeps to known paths, or let such paths through with --unseen"
            )
        lines.append(json.dumps({ID: int(key), **path._asdict()}, ensure_ascii=False) + "\n")
    info = zipfile.ZipInfo(f"test_{name}.predict", date_time=_WHEN)
    info.external_attr = 0o644 << 16
    with replacing(out) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(info, "".join(lines).encode(), compress_type=zipfile.ZIP_DEFLATED)
    return len(lines)


def _answer(record: Mapping[str, Any]) -> tuple[Any, ...]:
    key = record.get(ID)
    if type(key) is str and re.fullmatch(r"0|[1-9][0-9]{0,18}", key):  # a CSV knows only texts
        key = int(key)
    if type(key) is not int:
        raise BadRowError(f"`{ID}` is {key!r}, expected a whole number: a submission needs the test file's own ids")
    for level in LEVELS:
        if type(record.get(level)) is not str:
            raise BadRowError(f"`{level}` is {record.get(level)!r}, expected a text")
    return key, *(record[level] for level in LEVELS)


def _check_ids(given: pd.Series, asked: pd.Series) -> None:
    for row, key in enumerate(given, 1):
        if isinstance(key, bool) or not pd.api.types.is_integer(key):
            raise InputError(f"row {row}: id {key!r} is no whole number; a submission needs the test file's own ids")
    twice = given[given.duplicated()]
    if len(twice):
        row, key = int(twice.index[0]), twice.iloc[0]
        raise InputError(
            f"row {row + 1}: id {key} is already that of row {int((given == key).argmax()) + 1}; expected each test "
            "row once"
        )
    missing, more = asked[~asked.isin(given)], given[~given.isin(asked)]
    if len(missing) or len(more):
        example = f"id {missing.iloc[0]} is missing" if len(missing) else f"id {more.iloc[0]} is no test row's"
        raise InputError(
            f"{len(given):,} rows for the {len(asked):,} of the test file: {example}; label the whole test file, and "
            "nothing else"
        )
    disorder = (given.to_numpy() != asked.to_numpy()).nonzero()[0]
    if len(disorder):
        row = int(disorder[0])
        raise InputError(
            f"row {row + 1} is id {given.iloc[row]}, expected {asked.iloc[row]}: put the rows in the test file's order"
        )
