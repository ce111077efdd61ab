"""Writes labelled rows as JSON Lines, CSV with a header, or Parquet."""

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tillmap.catalogue.containers import packing
from tillmap.catalogue.formats import Format, format_of
from tillmap.core.errors import LostRowsError
from tillmap.core.taxonomy import Levels
from tillmap.core.writing import replacing
from tillmap.serving.explanation import EXPLANATION

Write = Callable[[pd.DataFrame], None]
_PATH = pa.list_(pa.string())
_OTHER_TYPES = {  # than text
    "confidence": pa.float64(),
    "needs_review": pa.bool_(),
    "in_tree": pa.bool_(),
    "candidates": pa.list_(pa.struct({"path": _PATH, "share": pa.float64()})),
    "neighbours": pa.list_(
        pa.struct({"id": pa.string(), "text": pa.string(), "path": _PATH, "similarity": pa.float64()})
    ),
    "words": pa.list_(pa.struct({"word": pa.string(), "adds": pa.float64()})),
}


def answer_columns(
    id_name: str, levels: Levels, *, codes: bool, reviewed: bool = True, explained: bool = False
) -> dict[str, str]:
    """What the columns after the id are called in a file of answers, by their own names.

    They have their own names, but for one that the column of ids has: it is called `answer_NAME`.
    """
    names = [*levels, *(["code"] if codes else []), "confidence", *(["needs_review"] if reviewed else [])]
    names += ["repair", "in_tree", "source", "status", *(EXPLANATION if explained else ())]
    return {name: f"answer_{name}" if name == id_name else name for name in names}


def format_or_lines(path: Path, stream: bool) -> Format:
    """The format that a file's name says; JSON Lines for a stream whose name says nothing.

    Raises InputError for an unknown ending.
    """
    return "jsonl" if stream and not path.suffix else format_of(path)


def format_of_input(path: Path, stream: bool) -> Format | None:
    """The format of an input, as `format_or_lines` says; None for a file, whose reader looks at its name itself."""
    return format_or_lines(path, stream) if stream else None


@contextmanager
def write_answers(
    path: Path,
    format_: Format,
    id_name: str,
    *,
    rows: int,
    numbers: bool,
    levels: Levels,
    codes: bool,
    reviewed: bool = True,
    explained: bool = False,
) -> Iterator[Write]:
    """Give a function that appends a table of labelled rows to a file.

    The file takes the place of `path` only once the block ends without an error. It is packed if its name ends in .gz,
    .bz2 or .zst.

    Args:
        path: the file to write.
        format_: its format.
        id_name: what to call the column of ids.
        rows: how many rows will be written.
        numbers: whether every id is a whole number, or the text of one. Then the ids are written as numbers. Else a
            Parquet file has them all as text, since a column has one type; JSON Lines keep each as it was.
        levels: the names of the levels.
        codes: whether there is a code for each path.
        reviewed: whether the answers say which rows a person should look at.
        explained: whether the answers are explained. JSON Lines have an explanation as objects, CSV as the text of
            these objects, and Parquet as lists of structs.

    A table has `key` (the id), the levels (null where a path ends), `code` if there are codes, confidence,
    `needs_review` if they are reviewed, repair, in_tree, source and status; and the columns of `EXPLANATION` as JSON
    texts if there are explanations.

    Raises LostRowsError, and leaves `path` as it is, if another number of rows was written.
    """
    written = 0
    writer = {"jsonl": _jsonl_writer, "csv": _csv_writer, "parquet": _parquet_writer}[format_]
    columns = answer_columns(id_name, levels, codes=codes, reviewed=reviewed, explained=explained)
    texts = [*levels, *(["code"] if codes else [])]
    with replacing(path) as file, packing(file, path) as plain, writer(plain, id_name, columns, numbers) as write:

        def append(answers: pd.DataFrame) -> None:
            nonlocal written
            written += len(answers)
            keys = [int(key) for key in answers["key"]] if numbers else list(answers["key"])
            labels = answers[texts].astype(object)
            labels = labels.where(labels.notna() & (labels != ""), None)
            ids = pd.Series(keys, index=answers.index, dtype=object)
            write(answers.assign(key=ids, **{name: labels[name] for name in texts})[["key", *columns]])

        yield append
        if written != rows:
            raise LostRowsError(
                f"{path}: {written:,} rows were to be written, but {rows:,} were read; nothing was written: run again"
            )


Columns = Mapping[str, str]  # see `answer_columns`


@contextmanager
def _jsonl_writer(file: IO[bytes], id_name: str, columns: Columns, numbers: bool) -> Iterator[Write]:
    def write(answers: pd.DataFrame) -> None:
        names = [id_name, *columns.values()]
        for name in EXPLANATION:
            if name in answers:
                answers[name] = answers[name].map(orjson.Fragment)
        for values in answers.itertuples(index=False, name=None):
            record = dict(zip(names, values, strict=True))
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY))

    yield write


@contextmanager
def _csv_writer(file: IO[bytes], id_name: str, columns: Columns, numbers: bool) -> Iterator[Write]:
    text = TextIOWrapper(file, encoding="utf-8", newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([id_name, *columns.values()])

    def write(answers: pd.DataFrame) -> None:
        lines.writerows(answers.itertuples(index=False, name=None))

    try:
        yield write
    finally:
        text.detach()  # flushes; closing `text` would close `file`, which `replacing` still needs


@contextmanager
def _parquet_writer(file: IO[bytes], id_name: str, columns: Columns, numbers: bool) -> Iterator[Write]:
    types: dict[str, Any] = {name: _OTHER_TYPES.get(name, pa.string()) for name in columns}
    fields = [(columns[name], type_) for name, type_ in types.items()]
    schema = pa.schema([(id_name, pa.int64() if numbers else pa.string()), *fields])
    with pq.ParquetWriter(file, schema, compression="zstd") as table:

        def write(answers: pd.DataFrame) -> None:
            keys = answers["key"] if numbers else answers["key"].map(str)
            arrays = [pa.array(keys, schema.field(0).type)]
            arrays += [
                pa.array(answers[name].map(orjson.loads) if name in EXPLANATION else answers[name], type_)
                for name, type_ in types.items()
            ]
            table.write_table(pa.table(arrays, schema=schema))

        yield write
