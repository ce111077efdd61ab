"""The contest's submission: a zip with one file of predictions, checked before anything is written."""

import io
import json
import re
import zipfile
from pathlib import Path

import pandas as pd

from tillmap.errors import InputError
from tillmap.labels import LEVELS, LabelPath, LabelTree
from tillmap.records import ID

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_WHEN = (1980, 1, 1, 0, 0, 0)  # of every file in the zip, so that the same predictions give the same bytes


def write_submission(predictions: pd.DataFrame, asked: pd.DataFrame, tree: LabelTree, name: str, out: Path) -> int:
    """Write `out`, a zip that holds `test_NAME.predict`: a JSON line a row, in the order of `asked`. Gives the rows.

    Args:
        predictions: id and the four labels of the rows asked; others, say held-out ones, must not be in it.
        asked: id of every test row, in the test file's order.
        tree: the label paths that may be answered.
        name: letters, digits, - and _, to go into the file's name.

    Raises InputError, and writes nothing, where a row is missing, comes twice, was not asked or stands out of order;
    where an id is no whole number; or where a label is missing or the four are no path of the tree.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"submission name {name!r}: expected letters, digits, - and _, 64 at most")
    if not out.name.endswith(".zip"):
        raise InputError(f"{out}: a submission is a zip; name it so that it ends in .zip")
    _check_ids(predictions["id"], asked["id"])
    paths = [LabelPath(*labels) for labels in predictions[list(LEVELS)].itertuples(index=False, name=None)]
    for row, (key, path) in enumerate(zip(predictions["id"], paths, strict=True), 1):
        if path not in tree:
            raise InputError(
                f"row {row} (id {key}): {tuple(path)} is no label path of the tree; predict it anew, with an arm that "
                "keeps to known paths"
            )
    lines = io.BytesIO()
    for key, path in zip(predictions["id"], paths, strict=True):
        lines.write(json.dumps({ID: int(key), **path._asdict()}, ensure_ascii=False).encode() + b"\n")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    with zipfile.ZipFile(partial, "w") as archive:
        info = zipfile.ZipInfo(f"test_{name}.predict", date_time=_WHEN)
        info.external_attr = 0o644 << 16
        archive.writestr(info, lines.getvalue(), compress_type=zipfile.ZIP_DEFLATED)
    partial.replace(out)
    return len(paths)


def _check_ids(given: pd.Series, asked: pd.Series) -> None:
    wrong = next((key for key in given if type(key) is bool or not isinstance(key, int)), None)
    if wrong is not None and not pd.api.types.is_integer_dtype(given.dtype):
        raise InputError(f"id {wrong!r} is no whole number; a submission needs the test file's own ids")
    twice = given[given.duplicated()]
    if len(twice):
        raise InputError(f"id {twice.iloc[0]} comes twice; a submission has each test row once")
    missing, more = asked[~asked.isin(given)], given[~given.isin(asked)]
    if len(missing) or len(more):
        example = f"id {missing.iloc[0]} is missing" if len(missing) else f"id {more.iloc[0]} was not asked"
        raise InputError(
            f"{len(given):,} rows for the {len(asked):,} of the test file: {example}; predict the whole test file"
        )
    disorder = (given.to_numpy() != asked.to_numpy()).nonzero()[0]
    if len(disorder):
        row = int(disorder[0])
        raise InputError(
            f"row {row + 1} is id {given.iloc[row]}, expected {asked.iloc[row]}: rows stand in the test file's order"
        )
