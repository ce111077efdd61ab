"""Writes labelled rows as JSON Lines, CSV with a header, or Parquet."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tillmap.catalogue.formats import Format, format_of
from tillmap.core.errors import LostRowsError
from tillmap.core.files import replacing
from tillmap.core.taxonomy import LEVELS

_ANSWERS = [*LEVELS, "confidence", "repair", "in_tree", "source", "status"]  # the columns after the id
Write = Callable[[pd.DataFrame], None]


def format_or_lines(path: Path, stream: bool) -> Format:
    """The format that a file's name says; JSON Lines for a stream whose name says nothing.

    Raises InputError for an unknown ending.
    """
    return "jsonl" if stream and not path.suffix else format_of(path)


@contextmanager
def write_answers(path: Path, format_: Format, id_name: str, *, rows: int, numbers: bool) -> Iterator[Write]:
    """Give a function that appends a table of labelled rows to a file.

    The file takes the place of `path` only once the block ends without an error.

    Args:
        path: the file to write.
        format_: its format.
        id_name: what to call the column of ids. An answer of the same name is called `answer_` and its name.
        rows: how many rows will be written.
        numbers: whether every id is a whole number, or the text of one. Then the ids are written as numbers. Else a
            Parquet file has them all as text, since a column has one type; JSON Lines keep each as it was.

    A table has `key` (the id), the four levels, confidence, repair, in_tree, source and status.

    Raises LostRowsError, and leaves `path` as it is, if another number of rows was written.
    """
    written = 0
    writer = {"jsonl": _jsonl_writer, "csv": _csv_writer, "parquet": _parquet_writer}[format_]
    with replacing(path) as file, writer(file, id_name, numbers) as write:

        def append(answers: pd.DataFrame) -> None:
            nonlocal written
            written += len(answers)
            keys = [int(key) for key in answers["key"]] if numbers else list(answers["key"])
            write(answers.assign(key=pd.Series(keys, index=answers.index, dtype=object)))

        yield append
        if written != rows:
            raise LostRowsError(
                f"{path}: {written:,} rows were to be written, but {rows:,} were read; nothing was written: run again"
            )


def _names(id_name: str) -> list[str]:
    """What the answers' columns are called. No two columns of a file may have one name."""
    return [f"answer_{name}" if name == id_name else name for name in _ANSWERS]


@contextmanager
def _jsonl_writer(file: IO[bytes], id_name: str, numbers: bool) -> Iterator[Write]:
    names = _names(id_name)

    def write(answers: pd.DataFrame) -> None:
        for key, *values in answers[["key", *_ANSWERS]].itertuples(index=False, name=None):
            record = {id_name: key, **dict(zip(names, values, strict=True))}
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY))

    yield write


@contextmanager
def _csv_writer(file: IO[bytes], id_name: str, numbers: bool) -> Iterator[Write]:
    text = TextIOWrapper(file, encoding="utf-8", newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([id_name, *_names(id_name)])

    def write(answers: pd.DataFrame) -> None:
        lines.writerows(answers[["key", *_ANSWERS]].itertuples(index=False, name=None))

    try:
        yield write
    finally:
        text.detach()  # flushes; closing `text` would close `file`, which `replacing` still needs


@contextmanager
def _parquet_writer(file: IO[bytes], id_name: str, numbers: bool) -> Iterator[Write]:
    types = dict.fromkeys(_ANSWERS, pa.string()) | {"confidence": pa.float64(), "in_tree": pa.bool_()}
    named = zip(_names(id_name), types.values(), strict=True)
    schema = pa.schema([(id_name, pa.int64() if numbers else pa.string()), *named])
    with pq.ParquetWriter(file, schema, compression="zstd") as table:

        def write(answers: pd.DataFrame) -> None:
            keys = answers["key"] if numbers else answers["key"].map(str)
            columns = [pa.array(keys, schema.field(0).type)]
            columns += [pa.array(answers[name], type_) for name, type_ in types.items()]
            table.write_table(pa.table(columns, schema=schema))

        yield write
