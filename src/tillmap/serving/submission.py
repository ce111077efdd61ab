"""A submission: a zip with one file of predictions. Everything is checked before the zip is written."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd

from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.reading import Format
from tillmap.catalogue.rows import ID, BadRowError, read_id, read_labels, repeated_id, same_id
from tillmap.core.errors import InputError
from tillmap.core.taxonomy import LabelTree, Levels
from tillmap.core.writing import is_stream, replacing
from tillmap.serving.formats import answer_columns

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DATE = (1980, 1, 1, 0, 0, 0)  # of the file in the zip: the same predictions give the same bytes on any day


def read_answers(
    path: Path,
    levels: Levels,
    id_name: str = ID,
    *,
    ragged: bool = False,
    format: Format | None = None,
    name: str | None = None,
) -> pd.DataFrame:
    """Read predictions as `tillmap predict` writes them, from JSON Lines, CSV or Parquet.

    Args:
        path: the file.
        levels: the names of the levels.
        id_name: the column of the ids.
        ragged: whether a path may end early.
        format: the file's format; None for the one that its name says.
        name: what errors call the file; None for its path.

    Columns: id (int or str) and the levels (str, null where a path ends).

    Raises InputError for the first row without an id, with an id that was seen before, or without its labels.
    """
    written = answer_columns(id_name, levels, codes=False)
    columns = [written[level] for level in levels]
    file = RowFile(path, format, known=(id_name, *columns), name=name)
    paths, first = [], dict[int | str, int]()
    for row in file.rows([id_name, *columns]):
        try:
            record = row.read()
            key = read_id(record, id_name)
            seen = first.setdefault(same_id(key), row.place)
            if seen != row.place:
                raise repeated_id(id_name, key, f"{file.unit} {seen}")
            paths.append(read_labels(record, columns, levels, ragged=ragged))
        except BadRowError as fault:
            raise InputError(
                f"{file.shown}:{row.place}: {fault}; label the test file again with `tillmap predict`"
            ) from None
    table = levels.columns(paths)
    table.insert(0, "id", pd.Series(list(first), dtype=object))
    return table


def write_submission(
    predictions: pd.DataFrame,
    asked: "pd.Series[Any]",
    tree: LabelTree,
    name: str,
    out: Path,
    *,
    id_name: str = ID,
    unseen: bool = False,
) -> int:
    """Write `out`, a zip with `test_NAME.predict`: one line of JSON per row, in the order of `asked`.

    A line has the id, the labels (null where a path ends) and, if the tree has codes, the path's code.

    Args:
        predictions: id and the levels of the rows in `asked`, and of no others.
        asked: the id of every test row, in the test file's order.
        tree: the known label paths.
        name: goes into the file's name; letters, digits, - and _.
        out: the zip to write; its name ends in .zip.
        id_name: what to call the ids.
        unseen: whether other label paths are allowed, too.

    Returns the number of rows.

    Raises InputError, and writes nothing, if a row is missing, repeated, unknown or out of order, if an id is neither a
    whole number nor text, if a label is missing, or if the labels are not a path of the tree.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"submission name {name!r}: expected letters, digits, - and _, 64 at most")
    if out.suffix.lower() != ".zip" and not is_stream(out):
        raise InputError(f"{out}: a submission is a zip; name it so that it ends in .zip")
    _check_ids(predictions["id"].reset_index(drop=True), asked.reset_index(drop=True))
    levels, lines = tree.levels, []
    ids = [same_id(key) for key in asked]
    if not all(isinstance(key, int) for key in ids):
        ids = list(asked)
    ragged = not all(map(all, tree))
    columns = answer_columns(id_name, levels, codes=bool(tree.codes))
    labels = predictions[list(levels)].astype(object).itertuples(index=False, name=None)
    for row, (key, values) in enumerate(zip(ids, labels, strict=True), 1):
        record = {level: None if pd.isna(label) else label for level, label in zip(levels, values, strict=True)}
        try:
            path = read_labels(record, list(levels), levels, ragged=ragged)
        except BadRowError as fault:
            raise InputError(f"row {row} (id {key}): {fault}; label the test file again") from None
        if not unseen and path not in tree:
            raise InputError(
                f"row {row} (id {key}): {tuple(path)} is not a label path of the labelled rows; predict it with an arm "
                "that answers with known paths only, or allow other paths with --unseen"
            )
        answer = {level: label or None for level, label in zip(levels, path, strict=True)}
        if tree.codes:
            answer["code"] = tree.code_of(path) or None
        line = {id_name: key, **{columns[what]: value for what, value in answer.items()}}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    info = zipfile.ZipInfo(f"test_{name}.predict", date_time=_DATE)
    info.external_attr = 0o644 << 16  # the mode of the unpacked file; zipfile's own is 0600
    with replacing(out) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(info, "".join(lines).encode(), compress_type=zipfile.ZIP_DEFLATED)
    return len(lines)


def _check_ids(predicted: "pd.Series[Any]", asked: "pd.Series[Any]") -> None:
    """Raise InputError unless the ids are those of the test rows, in the same order."""
    for row, key in enumerate(predicted, 1):
        try:
            read_id({"id": key}, "id")
        except BadRowError as fault:
            raise InputError(f"row {row}: {fault}; use the ids of the test file") from None
    given, asked = predicted.map(same_id), asked.map(same_id)
    repeated = given[given.duplicated()]
    if len(repeated):
        row = int(repeated.index[0])
        key = given.tolist()[row]
        first = int((given == key).argmax()) + 1
        raise InputError(f"row {row + 1}: {repeated_id('id', key, f'row {first}')}; label the test file again")
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
