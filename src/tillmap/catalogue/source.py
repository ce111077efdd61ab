"""Reads the files of `data.source` and checks every row."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import pandas as pd
from tqdm import tqdm

from tillmap.catalogue.amounts import Mark
from tillmap.catalogue.codelist import CodeList, read_code_list
from tillmap.catalogue.containers import PACKED
from tillmap.catalogue.formats import ENDINGS, RowFile, unpacked
from tillmap.catalogue.items import Fields, Item, mark_of
from tillmap.catalogue.labels import LabelReader, make_label_reader
from tillmap.catalogue.quarantine import Quarantine
from tillmap.catalogue.rows import BadRowError, Record, read_id, repeated_id, same_id
from tillmap.config.blocks import Data, Taxonomy
from tillmap.core.errors import InputError, ParamsError
from tillmap.core.taxonomy import LabelPath, LabelTree, Levels
from tillmap.core.text import normalise

logger = logging.getLogger(__name__)
T = TypeVar("T")
Key = int | str  # an id, as `same_id` gives it

_FEATURES, _LABELS = ".features", ".labels"  # of the contest's files
_DO_WITHOUT = ", or no ids, as for the lines of receipts: `data.columns.id: null`"
_NOT_THERE = "put it there, or correct `data.source`, `data.train` or `data.test`"


@dataclass(frozen=True)
class Source:
    """A catalogue's rows, and those that were set aside.

    Attributes:
        rows: split ("train" or "test"), id (int64), given_id (str, only if some ids are no whole numbers; then id is
            the row's number), description, retailer, price (float64, NaN where unknown) and the levels (null where a
            path has no label, or a test row no path), in the order of the files, train before test.
        quarantined: file, line (from 1; in a Parquet file the row), reason and raw (the row as it is in the file, cut
            to `reading.MAX_LINE_BYTES`; bytes that are not UTF-8 as backslash escapes).
        levels: the names of the levels.
        declared: the paths of the taxonomy file, with codes and definitions and without rows; None if there is none.
        labels: how the labels were read.
    """

    rows: pd.DataFrame
    quarantined: pd.DataFrame
    levels: Levels
    declared: LabelTree | None
    labels: LabelReader


def check_source(source: Path) -> None:
    """Raise InputError if `data.source` does not exist."""
    if not source.exists():
        raise InputError(
            f"{source}: there is no such folder or file; set `data.source` to a file of labelled rows, or to a folder "
            "with training and test rows"
        )


def read_source(data: Data, taxonomy: Taxonomy) -> Source:
    """Read the rows of a folder or file, as `data` and `taxonomy` say.

    A row is bad if it cannot be read, if a field is not as expected, if its id was seen before (the first one stays),
    or, with the labels in a file of their own, if its other half is missing: the label of a training row, or the row of
    a label. Under "quarantine" bad rows are set aside, always both halves. Only a test row that loses its label in such
    a file stays, unlabelled, because it still needs an answer.

    Raises InputError for the first bad row under "stop", and always for a file that is missing, has no sound row, or
    none with a letter or a digit to learn from; ParamsError if the params do not fit together.
    """
    fields, columns = Fields.of(data.columns), data.columns.levels
    of_labels = [columns] if isinstance(columns, str) else columns or taxonomy.levels or []
    files = _find_files(data, (*fields.needed, *of_labels))
    codes = _read_codes(data, taxonomy)
    reader = make_label_reader(taxonomy, columns, [split.labels or split.rows for split in files.values()], codes)
    mark = mark_of([split.rows for split in files.values()], fields, data.decimal)
    reading = _Reading(fields, reader, mark, Quarantine(data.on_bad_row))
    splits = {split: reading.read(split, its_files) for split, its_files in files.items()}
    quarantined = reading.quarantine.to_table()
    if len(quarantined):
        logger.warning("%s: %d bad rows were set aside", data.source, len(quarantined))
    rows = _to_table(splits, reader.levels)
    if not any(map(normalise, rows.loc[rows["split"] == "train", "description"])):
        raise InputError(
            f"{files['train'].rows.shown}: no row to learn from has a letter or a digit in its text "
            f"({data.columns.text}); name the column of the receipt line in data.columns.text"
        )
    known = reader.levels.paths(rows[rows["split"] == "train"])
    declared = codes.declare(reader.levels, known) if codes else None
    return Source(rows, quarantined, reader.levels, declared, reader)


class _Files(NamedTuple):
    """The files of a split. `labels` is None if they are in the same file, or a test split has none."""

    rows: RowFile
    labels: RowFile | None


class _Sound(NamedTuple, Generic[T]):
    """A sound row: its place, its number from 1, and what was read of it."""

    place: int
    number: int
    value: T


_Labelled = tuple[Item, LabelPath | None]  # a row with its path; None if it has none


def _find_files(data: Data, known: tuple[str, ...]) -> dict[str, _Files]:
    """The files of each split; without "test" if there is no file for it."""
    source = Path(data.source)
    check_source(source)
    make = partial(RowFile, encoding=data.encoding, delimiter=data.delimiter, known=known, remedy=_NOT_THERE)
    if not source.is_dir() or _is_table(source, data):
        if data.train or data.test:
            raise ParamsError(
                f"data.train and data.test name files in a folder, but data.source is the file {source}; set them to "
                f"null, or data.source to {source.parent}"
            )
        return {"train": _Files(make(source), None)}
    names = {path.name for path in source.iterdir()}
    found: dict[str, _Files] = {}
    for split, given in (("train", data.train), ("test", data.test)):
        fits = [f"{split}{ending}{packed}" for ending in ENDINGS if ending != _LABELS for packed in ("", *PACKED)]
        there = [given] if given else [name for name in fits if name in names]
        if len(there) > 1:
            raise InputError(
                f"{source}: there are {' and '.join(there)}; name one of them in `data.{split}`, or remove one"
            )
        # The contest's files come together. In other folders a part of the training rows may be the test.
        if not there and split == "test" and unpacked(found["train"].rows.path).name != f"train{_FEATURES}":
            continue
        path = source / (there[0] if there else f"{split}{_FEATURES}")
        labels = _labels_beside(path, names)
        if unpacked(path).name == f"train{_FEATURES}":
            labels = labels or [f"train{_LABELS}"]
        if len(labels) > 1:
            raise InputError(
                f"{source}: there are {' and '.join(labels)}; expected one file for {path.name}; remove one"
            )
        found[split] = _Files(make(path), make(source / labels[0]) if labels else None)
    return found


def _is_table(folder: Path, data: Data) -> bool:
    """Whether a folder is no source but a table in parts, such as rows.parquet/part-0.parquet."""
    own = data.train or data.test or any(unpacked(path).stem == "train" for path in folder.iterdir())
    return unpacked(folder).suffix.lower() in ENDINGS and not own


def _labels_beside(path: Path, names: set[str]) -> list[str]:
    """The files with the labels of a file of rows: train.labels, train.labels.csv, train_labels.csv.gz, ..."""
    stem = unpacked(path).stem
    starts = [f"{stem}{_LABELS}", *(f"{stem}{mark}labels{ending}" for mark in "._-" for ending in ENDINGS)]
    return [name for start in starts for packed in ("", *PACKED) if (name := f"{start}{packed}") in names]


def _read_codes(data: Data, taxonomy: Taxonomy) -> CodeList | None:
    if taxonomy.file is None:
        return None
    source = Path(data.source)
    if not source.is_dir():  # DVC would not see that the taxonomy file changes
        raise ParamsError(
            f"taxonomy.file is a file in the source folder, but data.source is the file {source}; set data.source to "
            f"{source.parent} and data.train to {source.name}"
        )
    file = RowFile(source / taxonomy.file, encoding=data.encoding, remedy="put it there, or correct `taxonomy.file`")
    columns = data.columns.levels
    return read_code_list(file, columns if isinstance(columns, str) else None, taxonomy.separator)


@dataclass(frozen=True)
class _Reading:
    """Reads the files of each split."""

    fields: Fields
    labels: LabelReader
    mark: Mark
    quarantine: Quarantine

    def read(self, split: str, files: _Files) -> list[_Sound[_Labelled]]:
        """The sound rows of a split."""
        fields, labels, lone = self.fields, self.labels, files.labels is None

        def read(record: Record, number: int) -> _Labelled:
            item = fields.read(record, number, self.mark)
            labelled = lone and (split == "train" or labels.is_labelled(record))
            return item, labels.read(record) if labelled else None

        needed = [*fields.needed, *(labels.columns if lone and split == "train" else ())]
        optional = [*fields.optional, *((*labels.columns, *labels.optional) if lone else ())]
        rows = self._rows(files.rows, needed, optional, read)
        if files.labels is not None:
            rows = self._join(split, files.rows, files.labels, rows)
        if not rows:
            names = [file.path.name for file in files if file is not None]
            name, place, reason, _ = next(row for row in self.quarantine.rows if row[0] in names)
            raise InputError(
                f"{files.rows.shown}: no sound row is left, correct the file; first fault: {name}:{place}: {reason}"
            )
        return list(rows.values())

    def _join(
        self, split: str, file: RowFile, labels: RowFile, rows: dict[Key, _Sound[_Labelled]]
    ) -> dict[Key, _Sound[_Labelled]]:
        """The rows with the paths of a file of labels, by id."""
        needed = [*([] if self.fields.id is None else [self.fields.id]), *self.labels.columns]
        paths = self._rows(labels, needed, self.labels.optional, lambda record, _: self.labels.read(record))
        no_row = {path.place: f"id {key} has no row in {file.path.name}" for key, path in paths.items()
                  if key not in rows}  # fmt: skip
        if split == "train":
            no_label = {row.place: f"id {key} has no label in {labels.path.name}" for key, row in rows.items()
                        if key not in paths}  # fmt: skip
            self._set_aside(file, no_label)
            rows = {key: row for key, row in rows.items() if key in paths}
        self._set_aside(labels, no_row)
        return {
            key: row._replace(value=(row.value[0], paths[key].value if key in paths else None))
            for key, row in rows.items()
        }

    def _rows(
        self, file: RowFile, needed: Sequence[str], optional: Sequence[str], read: Callable[[Record, int], T]
    ) -> dict[Key, _Sound[T]]:
        """A file's sound rows by id, in the file's order."""
        rows: dict[Key, _Sound[T]] = {}
        name = self.fields.id
        number = 0
        lines = tqdm(file.rows(needed, optional), desc=file.path.name, unit="row", disable=None)
        for number, row in enumerate(lines, 1):
            try:
                record = row.read()
                key = number if name is None else same_id(read_id(record, name))
                value = read(record, number)
                if name is not None and key in rows:
                    raise repeated_id(name, key, f"{file.unit} {rows[key].place}", _DO_WITHOUT)
            except BadRowError as fault:
                self.quarantine.add(file, row, str(fault))
            else:
                rows[key] = _Sound(row.place, number, value)
        if not number:
            each = f"a JSON object with `{needed[0]}` on each line" if file.kind == "jsonl" else "a header and rows"
            raise InputError(f"{file.shown}: there is no row in it; expected {each}")
        return rows

    def _set_aside(self, file: RowFile, reasons: Mapping[int, str]) -> None:
        """Quarantine rows that are sound by themselves, by place. Their raw text was not kept, so it is read again."""
        if reasons:
            for row in file.rows([]):
                if row.place in reasons:
                    self.quarantine.add(file, row, reasons[row.place])


def _to_table(splits: Mapping[str, Sequence[_Sound[_Labelled]]], levels: Levels) -> pd.DataFrame:
    rows = [(split, row.number, *row.value) for split, sound in splits.items() for row in sound]
    ids = [same_id(item.key) for _, _, item, _ in rows]
    numbers = all(isinstance(key, int) for key in ids)
    texts: dict[str, list[str | None]] = {
        "split": [split for split, *_ in rows],
        "given_id": [] if numbers else [str(item.key) for _, _, item, _ in rows],
        "description": [item.text for _, _, item, _ in rows],
        "retailer": [item.retailer for _, _, item, _ in rows],
    }
    texts |= {level: [path[depth] or None if path else None for *_, path in rows] for depth, level in enumerate(levels)}
    columns = {name: pd.Series(values, dtype="str") for name, values in texts.items()}
    columns["id"] = pd.Series(ids if numbers else [number for _, number, *_ in rows], dtype="int64")
    columns["price"] = pd.Series([item.price for _, _, item, _ in rows], dtype="float64")
    order = ["split", "id", *([] if numbers else ["given_id"]), "description", "retailer", "price", *levels]
    return pd.DataFrame(columns)[order]
