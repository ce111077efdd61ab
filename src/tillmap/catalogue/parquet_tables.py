"""Reads Parquet tables of any writer, some rows at a time."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from tempfile import TemporaryFile
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.dataset import ParquetFileFormat

from tillmap.catalogue.reading import Manner, Row, require_format
from tillmap.catalogue.rows import BadRowError
from tillmap.core.errors import InputError, first_line, raise_if_machine

MAX_VALUE_BYTES = 2**20  # as for a line of text

_BATCH_ROWS = 8192  # that are decoded at once
_BATCH_BYTES = 2**25  # of the values of some rows, which become objects at once
_TEXTS = frozenset(kind.id for kind in (pa.string(), pa.large_string(), pa.binary()))
_DAMAGED = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)  # also of text that is not UTF-8


@contextmanager
def open_parquet(file: BufferedReader, manner: Manner) -> Iterator["_Table"]:
    """A `Reader` of a Parquet table. Raises InputError if the file is none, or is damaged."""
    require_format(file, manner, "parquet")
    with TemporaryFile() as plain:
        if not (file.seekable() and isinstance(file, BufferedReader)):  # unpacked on the way; the footer is at the end
            shutil.copyfileobj(file, plain)
        try:
            source = plain if plain.tell() else file
            # As a dictionary, a text that many rows have is in memory once, as it is in the file.
            texts = _texts_of(ParquetFileFormat().inspect(source))
            yield _Table(pq.ParquetFile(source, read_dictionary=texts), manner.shown)
        except _DAMAGED as error:
            raise_if_machine(error, manner.shown)
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InputError(
                f"{manner.shown}: not a Parquet table that can be read ({first_line(error)}); write it again, or "
                "correct the format"
            ) from None


class _Table:
    def __init__(self, table: pq.ParquetFile, shown: str) -> None:
        self._table, self._shown = table, shown
        self.header: list[str] = table.schema_arrow.names

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Raises InputError if the values are larger than a row may be."""
        _require_small(self._table, columns, self._shown)
        for number, row in enumerate(self._records(columns), 1):
            yield Row(number, partial(_plain, row), partial(_shown_record, row))

    def _records(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        for batch in self._table.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns)):
            size = batch.num_rows
            while size > 1 and max(map(_longest, batch.columns), default=0) * size > _BATCH_BYTES:
                size = -(-size // 2)
            for start in range(0, batch.num_rows, size):
                yield from batch.slice(start, size).to_pylist()


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's values as JSON would have them: texts for bytes and UUIDs. Raises BadRowError for other bytes."""
    return {name: _plain_value(name, value) for name, value in row.items()}


def _plain_value(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise BadRowError(f"`{name}` is bytes that are not UTF-8, expected text") from None
    return str(value) if isinstance(value, UUID) else value


def _texts_of(schema: pa.Schema) -> list[str]:
    return [name for name, kind in zip(schema.names, schema.types, strict=True) if _is_text(kind)]


def _longest(column: pa.Array) -> int:
    """The bytes of the longest value, if they are texts."""
    values = column.dictionary if pa.types.is_dictionary(column.type) else column
    return (pc.max(pc.binary_length(values)).as_py() or 0) if _is_text(values.type) else 0


def _is_text(kind: pa.DataType) -> bool:
    return kind.id in _TEXTS


def _require_small(table: pq.ParquetFile, columns: Sequence[str], shown: str) -> None:
    """Raise InputError if a column has more bytes than its rows may have: few bytes of a file can unpack to many."""
    about = table.metadata
    for group in (about.row_group(number) for number in range(about.num_row_groups)):
        if group.total_byte_size <= MAX_VALUE_BYTES * max(group.num_rows, 1):
            continue  # without a look at the columns: of damaged sizes in one Arrow ends the process
        for column in (group.column(number) for number in range(group.num_columns)):
            if column.path_in_schema.partition(".")[0] in columns:
                size = column.total_uncompressed_size
                if size > MAX_VALUE_BYTES * max(group.num_rows, 1):
                    raise InputError(
                        f"{shown}: `{column.path_in_schema}` has {size:,} bytes in {group.num_rows:,} rows; at most "
                        f"{MAX_VALUE_BYTES:,} a row are read; write the table again with shorter values"
                    )


def _shown_record(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)
