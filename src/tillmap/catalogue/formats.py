"""Reads the files that rows come in: JSON Lines, CSV with a header, and Parquet."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tillmap.catalogue.rows import BadRowError, Record, show
from tillmap.core.errors import InputError, first_line

Format = Literal["jsonl", "csv", "parquet"]
# Each row's place in its file, from 1 (see `place_of`), and a function that gives its record or raises BadRowError.
# A function, so that a bad row does not end the reading of the rows after it.
Records = Iterator[tuple[int, Callable[[], Record]]]

MAX_LINE_BYTES = 2**20
_BATCH_ROWS = 8192  # of a Parquet file that are in memory at once
_ENDINGS: Mapping[str, Format] = {
    ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".features": "jsonl", ".predict": "jsonl",
    ".csv": "csv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip


def format_of(path: Path) -> Format:
    """The format that the ending of a file's name says. Raises InputError for an unknown ending."""
    try:
        return _ENDINGS[path.suffix.lower()]
    except KeyError:
        raise InputError(
            f"{path}: unknown file format, expected a name that ends in .jsonl, .csv or .parquet; rename the file, or "
            "name its format with --format (input) or --out-format (output)"
        ) from None


def place_of(format_: Format) -> str:
    """What the numbers of `Records` count: "line" or "row"."""
    return "row" if format_ == "parquet" else "line"


def open_rows(path: Path, remedy: str = "check its name") -> IO[bytes]:
    """Open a user's file. Raises InputError if it cannot be read; `remedy` is what to do if there is no such file."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path}: the file is not there; {remedy}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a file you may read") from None


def read_records(
    path: Path,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    *,
    format_: Format | None = None,
    name: str | None = None,
) -> Records:
    """Read the rows of a file one by one, so that a file may be larger than memory.

    Args:
        path: the file.
        needed: the columns that a CSV or Parquet file must have. The fields of a line of JSON are for `rows` to check.
        optional: columns that are read if they are there; a table's other columns are skipped.
        format_: the file's format; None for the one that its name says.
        name: what errors call the file; None for its path.

    Raises InputError if the file cannot be read, does not have its format, or lacks a needed column.
    """
    shown = name or str(path)
    kind = format_ or format_of(path)
    if kind == "jsonl":
        return _read_jsonl(path)
    return (_read_csv if kind == "csv" else _read_parquet)(path, shown, needed, optional)


def numbered_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of a file and their numbers, from 1.

    Blank lines at the end of the file are left out. Of a longer line come the first `MAX_LINE_BYTES` + 1 bytes, so
    that `parse_line` can tell, and memory stays small for a file that is one endless line.
    """
    blank: list[int] = []
    for number, line in enumerate(iter(partial(file.readline, MAX_LINE_BYTES + 1), b""), 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES)
        if line.isspace():
            blank.append(number)
            continue
        # A row follows, so these blank lines were not the end of the file.
        for earlier in blank:
            yield earlier, b""
        blank.clear()
        # Files saved on Windows may start with a byte order mark.
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def parse_line(line: bytes) -> dict[str, Any]:
    """The JSON object on a line of `numbered_lines`. Raises BadRowError."""
    if not line:
        raise BadRowError("a blank line between rows")
    if len(line) > MAX_LINE_BYTES:
        raise BadRowError(f"the line is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        # orjson also refuses text that is not UTF-8, but does not say which byte it is.
        try:
            line.decode()
        except UnicodeDecodeError as wrong:
            raise BadRowError(f"not UTF-8 (byte 0x{line[wrong.start]:02x} at column {wrong.start + 1})") from None
        raise BadRowError(f"not JSON ({error.msg} at column {error.pos + 1})") from None
    if not isinstance(record, dict):
        raise BadRowError(f"expected a JSON object, found {show(record)}")
    return record


def _read_jsonl(path: Path) -> Records:
    with open_rows(path) as file:
        for number, line in numbered_lines(file):
            yield number, partial(parse_line, line)


def _read_csv(path: Path, shown: str, needed: Sequence[str], optional: Sequence[str]) -> Records:
    """Lines are split as RFC 4180 says."""
    csv.field_size_limit(MAX_LINE_BYTES)
    with open_rows(path) as binary:
        # Bytes that are not UTF-8 become surrogates here, so that `_csv_record` can refuse their row alone.
        text = TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
        lines = csv.reader(text, strict=True)
        try:
            header = next(lines, [])
            if not header:
                return
            columns = _choose_columns(shown, header, needed, optional)
            for fields in lines:
                if fields:  # a blank line has none
                    yield lines.line_num, partial(_csv_record, header, columns, fields)
        except csv.Error as error:
            raise InputError(
                f"{shown}:{lines.line_num}: not CSV ({error}); expected commas between fields, and quotes around a "
                "field that holds a comma, a quote (doubled) or a line break"
            ) from None


def _csv_record(header: list[str], columns: list[str], fields: list[str]) -> dict[str, str]:
    if len(fields) != len(header):
        raise BadRowError(f"{len(fields)} fields, expected {len(header)}: {', '.join(header)[:100]}")
    record = {name: value for name, value in zip(header, fields, strict=True) if name in columns}
    for name, value in record.items():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadRowError(f"`{name}` is not UTF-8, expected a file saved as UTF-8") from None
    return record


def _read_parquet(path: Path, shown: str, needed: Sequence[str], optional: Sequence[str]) -> Records:
    with open_rows(path) as binary:
        try:
            file = pq.ParquetFile(binary)
            columns = _choose_columns(shown, file.schema_arrow.names, needed, optional)
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, partial(dict, row)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{shown}: not a Parquet table ({first_line(error)}); write the file again, or correct the format"
            ) from None


def _choose_columns(shown: str, there: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The columns of a table that are read. Raises InputError if one is missing, or its name is there twice."""
    missing = [name for name in needed if name not in there]
    twice = [name for name in (*needed, *optional) if list(there).count(name) > 1]
    if missing or twice:
        fault = f"no column {', '.join(missing)}" if missing else f"more than one column {', '.join(twice)}"
        raise InputError(
            f"{shown}: {fault}; there are: {', '.join(there)[:200] or 'none'}; rename the columns, or name them with "
            "the command's options (--help)"
        )
    return [name for name in (*needed, *optional) if name in there]
