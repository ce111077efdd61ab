"""Writes tables piece by piece as JSON Lines, CSV with a header, or Parquet."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import TextIOWrapper
from typing import IO

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tillmap.catalogue.reading import Format
from tillmap.core.csv_files import csv_writer

Write = Callable[[pd.DataFrame], None]
Writer = Callable[[IO[bytes], pa.Schema], AbstractContextManager[Write]]


def _is_nested(field: pa.Field) -> bool:
    """Whether a column has lists or objects."""
    return bool(pa.types.is_nested(field.type))


@contextmanager
def _json_lines(file: IO[bytes], schema: pa.Schema) -> Iterator[Write]:
    def write(table: pd.DataFrame) -> None:
        nested = {field.name: table[field.name].map(orjson.Fragment) for field in filter(_is_nested, schema)}
        table = table.assign(**nested)
        for values in table.astype(object).where(table.notna(), None).itertuples(index=False, name=None):
            record = dict(zip(schema.names, values, strict=True))
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY))

    yield write


@contextmanager
def _csv(file: IO[bytes], schema: pa.Schema) -> Iterator[Write]:
    text = TextIOWrapper(file, encoding="utf-8", newline="")
    lines = csv_writer(text)
    lines.writerow(schema.names)

    def write(table: pd.DataFrame) -> None:
        lines.writerows(table.astype(object).where(table.notna(), None).itertuples(index=False, name=None))

    try:
        yield write
    finally:
        text.detach()  # flushes; closing `text` would close `file`, which its owner still needs


@contextmanager
def _parquet(file: IO[bytes], schema: pa.Schema) -> Iterator[Write]:
    with pq.ParquetWriter(file, schema, compression="zstd") as parquet:

        def column(values: pd.Series, field: pa.Field) -> pa.Array:
            if _is_nested(field):
                values = values.map(orjson.loads)
            elif pa.types.is_string(field.type):  # ids may be whole numbers and texts
                values = values.map(str, na_action="ignore")
            return pa.array(values, field.type, from_pandas=True)

        def write(table: pd.DataFrame) -> None:
            arrays = [column(table[field.name], field) for field in schema]
            parquet.write_table(pa.table(arrays, schema=schema))

        yield write


TABLE_WRITERS: dict[Format, Writer] = {"jsonl": _json_lines, "csv": _csv, "parquet": _parquet}
"""For each format, a function that writes a header to an open file and gives one that appends a table to it.

The tables have the columns of the schema; lists and objects are the texts of their JSON. A text column may have other
values, too: JSON Lines and CSV keep them as they are, and Parquet writes their texts.
"""
