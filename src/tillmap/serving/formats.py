"""The files that rows come in and answers go out: JSON Lines, CSV with a header, and Parquet."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Literal

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tillmap.catalogue.source import MAX_LINE_BYTES, BadRowError, numbered_lines, parse_line
from tillmap.core.errors import InputError
from tillmap.core.files import replacing
from tillmap.core.taxonomy import LEVELS

Format = Literal["jsonl", "csv", "parquet"]
# Each row's place, from 1 (its line; in Parquet the row), and what reads it or raises BadRowError.
Records = Iterator[tuple[int, Callable[[], Mapping[str, Any]]]]

_ENDINGS: Mapping[str, Format] = {
    ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".features": "jsonl", ".predict": "jsonl",
    ".csv": "csv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_AT_ONCE = 8192  # rows of a Parquet file in memory
_ANSWERS = [*LEVELS, "confidence", "repair", "in_tree", "source", "status"]


def format_of(path: Path) -> Format:
    """The format that a file's name ends in. Raises InputError where it is none of those known."""
    try:
        return _ENDINGS[path.suffix.lower()]
    except KeyError:
        raise InputError(
            f"{path}: the name does not say the format; name it so that it ends in .jsonl, .csv or .parquet, or say "
            "--format (of what is read) or --out-format"
        ) from None


def read_records(
    path: Path,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    *,
    format_: Format | None = None,
    name: str | None = None,
) -> Records:
    """The rows of a file, one by one, so that any file fits into memory.

    `needed` and `optional` name the columns that are read of a table; whether a line of JSON has them is for its
    reader to see. `format_` None: as the file's name says. `name` stands for the file in errors.

    Raises InputError where the file as a whole is not what its format asks for, or lacks a needed column.
    """
    shown = name or str(path)
    kind = format_ or format_of(path)
    if kind == "jsonl":
        return _read_jsonl(path)
    return (_read_csv if kind == "csv" else _read_parquet)(path, shown, needed, optional)


def _read_jsonl(path: Path) -> Records:
    with path.open("rb") as file:
        for number, line in numbered_lines(file):
            yield number, lambda line=line: parse_line(line)  # type: ignore[misc]


def _read_csv(path: Path, shown: str, needed: Sequence[str], optional: Sequence[str]) -> Records:
    """Lines are split as RFC 4180 says. Bytes that are not UTF-8 are the fault of their own row alone."""
    csv.field_size_limit(MAX_LINE_BYTES)
    with path.open("rb") as binary:
        text = TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
        lines = csv.reader(text, strict=True)
        try:
            header = next(lines, [])
            if not header:
                return
            _choose_columns(shown, header, needed, optional)
            for fields in lines:
                if fields:
                    yield lines.line_num, lambda fields=fields: _named(header, fields)  # type: ignore[misc]
        except csv.Error as error:
            raise InputError(
                f"{shown}:{lines.line_num}: not CSV ({error}); expected commas between fields, and quotes around those "
                "that hold a comma, a quote (twice) or a line end"
            ) from None


def _named(header: list[str], fields: list[str]) -> dict[str, Any]:
    if len(fields) != len(header):
        raise BadRowError(f"{len(fields)} fields, expected {len(header)}: {', '.join(header)[:100]}")
    return dict(zip(header, fields, strict=True))


def _read_parquet(path: Path, shown: str, needed: Sequence[str], optional: Sequence[str]) -> Records:
    try:
        file = pq.ParquetFile(path)
        names = _choose_columns(shown, file.schema_arrow.names, needed, optional)
        number = 0
        for batch in file.iter_batches(batch_size=_AT_ONCE, columns=names):
            for row in batch.to_pylist():
                number += 1
                yield number, lambda row=row: row  # type: ignore[misc]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{shown}: not a Parquet table ({reason}); write it again, or name its format") from None


def _choose_columns(shown: str, there: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The columns of a table that are read, each there once."""
    missing = [name for name in needed if name not in there]
    twice = [name for name in (*needed, *optional) if list(there).count(name) > 1]
    if missing or twice:
        said = f"no column {', '.join(missing)}" if missing else f"more than one column {', '.join(twice)}"
        raise InputError(f"{shown}: {said}; there are: {', '.join(there)[:200] or 'none'}; name the right ones: --help")
    return [name for name in (*needed, *optional) if name in there]


@contextmanager
def write_answers(
    path: Path, format_: Format, id_name: str, *, numbers: bool
) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Give a function that appends a batch of answers; the file takes its place only when the block ends well.

    A batch has `key`, the four labels, confidence, repair, in_tree, source and status. `numbers` says that every key is
    a whole number, or its text. A Parquet column must know beforehand; else it is one of texts, while JSON Lines keep
    each id as it was.
    """
    writer = {"jsonl": _jsonl_writer, "csv": _csv_writer, "parquet": _parquet_writer}[format_]
    with replacing(path) as file, writer(file, id_name, numbers) as write:

        def append(answers: pd.DataFrame) -> None:
            keys = [int(key) for key in answers["key"]] if numbers else list(answers["key"])
            write(answers.assign(key=pd.Series(keys, index=answers.index, dtype=object)))

        yield append


Writer = AbstractContextManager[Callable[[pd.DataFrame], None]]


@contextmanager
def _jsonl_writer(file: IO[bytes], id_name: str, numbers: bool) -> Iterator[Callable[[pd.DataFrame], None]]:
    def write(answers: pd.DataFrame) -> None:
        for key, *values in answers[["key", *_ANSWERS]].itertuples(index=False, name=None):
            record = {id_name: key, **dict(zip(_ANSWERS, values, strict=True))}
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY))

    yield write


@contextmanager
def _csv_writer(file: IO[bytes], id_name: str, numbers: bool) -> Iterator[Callable[[pd.DataFrame], None]]:
    text = TextIOWrapper(file, encoding="utf-8", newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([id_name, *_ANSWERS])

    def write(answers: pd.DataFrame) -> None:
        lines.writerows(answers[["key", *_ANSWERS]].itertuples(index=False, name=None))

    try:
        yield write
    finally:
        text.detach()  # flushes, and leaves the file to its owner


@contextmanager
def _parquet_writer(file: IO[bytes], id_name: str, numbers: bool) -> Iterator[Callable[[pd.DataFrame], None]]:
    texts = [(name, pa.string()) for name in _ANSWERS]
    kinds = dict(texts) | {"confidence": pa.float64(), "in_tree": pa.bool_()}
    schema = pa.schema([(id_name, pa.int64() if numbers else pa.string()), *kinds.items()])
    with pq.ParquetWriter(file, schema, compression="zstd") as table:

        def write(answers: pd.DataFrame) -> None:
            keys = answers["key"] if numbers else answers["key"].map(str)
            columns = [pa.array(keys, schema.field(0).type)]
            columns += [pa.array(answers[name], kind) for name, kind in kinds.items()]
            table.write_table(pa.table(columns, schema=schema))

        yield write
