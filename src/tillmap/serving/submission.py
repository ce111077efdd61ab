"""The contest's submission: a zip with one file of predictions. Everything is checked before the zip is written."""

import json
import re
import zipfile
from pathlib import Path

import pandas as pd

from tillmap.catalogue.formats import Format, format_of, place_of, read_records
from tillmap.catalogue.rows import ID, BadRowError, read_labels, read_number_id, repeated_id
from tillmap.core.errors import InputError
from tillmap.core.files import is_stream, replacing
from tillmap.core.taxonomy import LEVELS, LabelTree

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DATE = (1980, 1, 1, 0, 0, 0)  # of the file in the zip: the same predictions give the same bytes on any day


def read_answers(path: Path, format_: Format | None = None, name: str | None = None) -> pd.DataFrame:
    """Read predictions as `tillmap predict` writes them, from JSON Lines, CSV or Parquet.

    `format_` is None for the one that the file's name says; `name` is what errors call the file, None for its path.

    Columns: id (int) and the four levels (str).

    Raises InputError for the first row without a whole number as id, with an id that was seen before, or without its
    four labels.
    """
    answers = []
    seen: dict[int, int] = {}
    kind, shown = format_ or format_of(path), name or str(path)
    for where, read in read_records(path, [ID, *LEVELS], format_=kind, name=shown):
        try:
            record = read()
            key = read_number_id(record, negative=True, digits=True)
            first = seen.setdefault(key, where)
            if first != where:
                raise repeated_id(ID, key, f"{place_of(kind)} {first}")
            answers.append((key, *read_labels(record)))
        except BadRowError as fault:
            raise InputError(f"{shown}:{where}: {fault}; label the test file again with `tillmap predict`") from None
    return pd.DataFrame(answers, columns=["id", *LEVELS])


def write_submission(predictions: pd.DataFrame, asked: pd.Series, tree: LabelTree | None, name: str, out: Path) -> int:
    """Write `out`, a zip with `test_NAME.predict`: one line of JSON per row, in the order of `asked`.

    Args:
        predictions: id and the four labels of the rows in `asked`, and of no others.
        asked: the id of every test row, in the test file's order.
        tree: the label paths that are allowed; None for any.
        name: goes into the file's name; letters, digits, - and _.
        out: the zip to write; its name ends in .zip.

    Returns the number of rows.

    Raises InputError, and writes nothing, if a row is missing, repeated, unknown or out of order, if an id is not a
    whole number, if a label is missing, or if the four labels are not a path of the tree.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"submission name {name!r}: expected letters, digits, - and _, 64 at most")
    if out.suffix.lower() != ".zip" and not is_stream(out):
        raise InputError(f"{out}: a submission is a zip; name it so that it ends in .zip")
    _check_ids(predictions["id"].reset_index(drop=True), asked.reset_index(drop=True))
    lines = []
    for row, (key, *labels) in enumerate(predictions[["id", *LEVELS]].itertuples(index=False, name=None), 1):
        try:
            path = read_labels(dict(zip(LEVELS, labels, strict=True)))
        except BadRowError as fault:
            raise InputError(f"row {row} (id {key}): {fault}; label the test file again") from None
        if tree is not None and path not in tree:
            raise InputError(
                f"row {row} (id {key}): {tuple(path)} is not a label path of the labelled rows; predict it with an arm "
                "that answers with known paths only, or allow other paths with --unseen"
            )
        lines.append(json.dumps({ID: int(key), **path._asdict()}, ensure_ascii=False) + "\n")
    info = zipfile.ZipInfo(f"test_{name}.predict", date_time=_DATE)
    info.external_attr = 0o644 << 16  # the mode of the unpacked file; zipfile's own is 0600
    with replacing(out) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(info, "".join(lines).encode(), compress_type=zipfile.ZIP_DEFLATED)
    return len(lines)


def _check_ids(given: pd.Series, asked: pd.Series) -> None:
    """Raise InputError unless the ids are those of the test rows, in the same order."""
    for row, key in enumerate(given, 1):
        try:
            read_number_id({"id": key}, "id", negative=True)
        except BadRowError as fault:
            raise InputError(f"row {row}: {fault}; use the ids of the test file") from None
    repeated = given[given.duplicated()]
    if len(repeated):
        row, key = int(repeated.index[0]), repeated.iloc[0]
        first = int((given == key).argmax()) + 1
        raise InputError(f"row {row + 1}: {repeated_id('id', int(key), f'row {first}')}; label the test file again")
    missing, unknown = asked[~asked.isin(given)], given[~given.isin(asked)]
    if len(missing) or len(unknown):
        example = f"{missing.iloc[0]} is missing" if len(missing) else f"{unknown.iloc[0]} is not in the test file"
        raise InputError(
            f"{len(given):,} rows for the {len(asked):,} of the test file: id {example}; label the whole test file, "
            "and no other rows"
        )
    disorder = (given.to_numpy() != asked.to_numpy()).nonzero()[0]
    if len(disorder):
        row = int(disorder[0])
        raise InputError(
            f"row {row + 1} is id {given.iloc[row]}, expected {asked.iloc[row]}: put the rows in the test file's order"
        )
