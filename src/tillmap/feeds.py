"""New rows to label, read batch by batch from JSON Lines, CSV or Parquet, and the labelled rows written."""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tillmap.errors import InputError
from tillmap.labels import LEVELS
from tillmap.records import ID, MAX_LINE_BYTES, BadRowError, numbered_lines, parse_line, read_price

Format = Literal["jsonl", "csv", "parquet"]
_ENDINGS: Mapping[str, Format] = {
    ".jsonl": "jsonl", ".json": "jsonl", ".features": "jsonl", ".predict": "jsonl", ".ndjson": "jsonl", ".csv": "csv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_SHOWN = 3  # bad rows that an error names
_ANSWERS = [*LEVELS, "confidence", "repair", "in_tree", "source", "status"]


@dataclass(frozen=True)
class Columns:
    """What the fields of a feed are called. Retailer and price may be None: then no row has one."""

    id: str = ID
    description: str = "description"
    retailer: str | None = "retailer"
    price: str | None = "price"


@dataclass(frozen=True)
class Feed:
    """A file of rows to label. Where the name's ending says nothing of the format, `format` must.

    Raises InputError where the file is not there, or its format is not known.
    """

    path: Path
    columns: Columns = Columns()
    format: Format | None = None

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise InputError(f"{self.path}: the file is not there; name a file of rows, or - for standard input")
        _ = self._format

    @property
    def _format(self) -> Format:
        return self.format or format_of(self.path)

    def check(self) -> int:
        """Read the whole file and give the number of its rows.

        Raises InputError that names the first bad rows and says how many there are, so that a run over many rows
        cannot stop at the last of them; also where there is no row, or an id comes twice.
        """
        faults, rows, seen = [], 0, set()
        for where, row in self._rows():
            rows += 1
            if isinstance(row, BadRowError):
                faults.append(f"{self.path}:{where}: {row}")
            elif row[0] in seen:
                faults.append(f"{self.path}:{where}: id {row[0]!r} came before")
            else:
                seen.add(row[0])
        if faults:
            more = f"; {len(faults) - _SHOWN:,} more rows are bad" if len(faults) > _SHOWN else ""
            raise InputError("; ".join(faults[:_SHOWN]) + more + "; correct or remove them: nothing was labelled")
        if not rows:
            raise InputError(f"{self.path}: there is no row in it; expected at least one")
        return rows

    def batches(self, size: int) -> Iterator[pd.DataFrame]:
        """Tables of `size` rows, the last with what is left: key (int or str), description, retailer ("" where there
        is none) and price (float, NaN where unknown). Raises InputError for a bad row."""
        rows = self._sound()
        while batch := list(islice(rows, size)):
            key, description, retailer, price = zip(*batch, strict=True)
            yield pd.DataFrame(
                {
                    "key": pd.Series(key, dtype=object),
                    "description": pd.Series(description, dtype="str"),
                    "retailer": pd.Series(retailer, dtype="str"),
                    "price": pd.Series(price, dtype="float64"),
                }
            )

    def _sound(self) -> Iterator[tuple[int | str, str, str, float]]:
        for where, row in self._rows():
            if isinstance(row, BadRowError):
                raise InputError(f"{self.path}:{where}: {row}")
            yield row

    def _rows(self) -> Iterator[tuple[int, tuple[int | str, str, str, float] | BadRowError]]:
        """Every row, or what is wrong with it, and the line or the row it is in, from 1."""
        for where, read in {"jsonl": self._jsonl, "csv": self._csv, "parquet": self._parquet}[self._format]():
            try:
                yield where, self._row(read())
            except BadRowError as fault:
                yield where, fault

    def _jsonl(self) -> Iterator[tuple[int, Callable[[], dict[str, Any]]]]:
        with self.path.open("rb") as file:
            for number, line in numbered_lines(file):
                yield number, lambda line=line: parse_line(line)  # type: ignore[misc]

    def _csv(self) -> Iterator[tuple[int, Callable[[], dict[str, Any]]]]:
        """Lines are split as RFC 4180 says; a field that is not there or empty is unknown."""
        csv.field_size_limit(MAX_LINE_BYTES)
        with self.path.open("rb") as binary:
            lines = csv.reader(TextIOWrapper(binary, encoding="utf-8-sig", newline=""), strict=True)
            try:
                header = next(lines, [])
                self._require(header)
                for fields in lines:
                    if fields:
                        yield lines.line_num, lambda fields=fields: _named(header, fields)  # type: ignore[misc]
            except csv.Error as error:
                raise InputError(f"{self.path}:{lines.line_num}: not CSV ({error}); correct the line") from None
            except UnicodeDecodeError as error:
                raise InputError(f"{self.path}:{lines.line_num + 1}: not UTF-8 ({error.reason}); save it so") from None

    def _parquet(self) -> Iterator[tuple[int, Callable[[], dict[str, Any]]]]:
        try:
            file = pq.ParquetFile(self.path)
            self._require(file.schema_arrow.names)
            number = 0
            for batch in file.iter_batches(batch_size=8192, columns=self._named_columns()):
                for row in batch.to_pylist():
                    number += 1
                    yield number, lambda row=row: row  # type: ignore[misc]
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0][:200]
            raise InputError(
                f"{self.path}: not a Parquet table ({reason}); write it again, or name its format"
            ) from None

    def _named_columns(self) -> list[str]:
        return [name for name in vars(self.columns).values() if name is not None]

    def _require(self, names: Iterable[str]) -> None:
        there = list(names)
        missing = [name for name in self._named_columns() if name not in there]
        if missing:
            raise InputError(
                f"{self.path}: no column {', '.join(missing)}; there are: {', '.join(there) or 'none'}; name them with "
                "--id, --description, --retailer and --price, or say --retailer '' where there is none"
            )

    def _row(self, record: Mapping[str, Any]) -> tuple[int | str, str, str, float]:
        names = self.columns
        key, description = record.get(names.id), record.get(names.description)
        if type(key) not in (int, str) or key == "":
            raise BadRowError(f"`{names.id}` is {_shown(key)}, expected a whole number or a text")
        if type(description) is not str or not description.strip():
            raise BadRowError(f"`{names.description}` is {_shown(description)}, expected a text")
        retailer = None if names.retailer is None else record.get(names.retailer)
        if retailer is not None and type(retailer) is not str:
            raise BadRowError(f"`{names.retailer}` is {_shown(retailer)}, expected a text or nothing")
        given = None if names.price is None else record.get(names.price)
        price = math.nan if given is None or given == "" else read_price(given)
        if price is None:
            raise BadRowError(f"`{names.price}` is {_shown(given)}, expected a number from 0 up, or nothing")
        return key, description, retailer or "", price  # type: ignore[return-value]  # its type was checked


def format_of(path: Path) -> Format:
    """The format that a file's name ends in. Raises InputError where it is none of those known."""
    try:
        return _ENDINGS[path.suffix.lower()]
    except KeyError:
        raise InputError(
            f"{path}: the name does not say the format; name it so that it ends in .jsonl, .csv or .parquet, or say "
            "--format / --out-format"
        ) from None


@contextmanager
def write_answers(path: Path, format_: Format, id_name: str, numbers: bool) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Give a function that appends a batch of answers; the file takes its place only when the block ends well.

    A batch has `key`, the four labels, confidence, repair, in_tree, source and status. `numbers` says that every key is
    a whole number, which a Parquet column must know beforehand.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    writer = {"jsonl": _jsonl_writer, "csv": _csv_writer, "parquet": _parquet_writer}[format_]
    with partial.open("wb") as file, writer(file, id_name, numbers) as write:
        yield write
    partial.replace(path)


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

    yield write
    text.flush()
    text.detach()


@contextmanager
def _parquet_writer(file: IO[bytes], id_name: str, numbers: bool) -> Iterator[Callable[[pd.DataFrame], None]]:
    schema = pa.schema(
        [
            (id_name, pa.int64() if numbers else pa.string()),
            *((level, pa.string()) for level in LEVELS),
            ("confidence", pa.float64()),
            ("repair", pa.string()),
            ("in_tree", pa.bool_()),
            ("source", pa.string()),
            ("status", pa.string()),
        ]
    )
    with pq.ParquetWriter(file, schema, compression="zstd") as table:

        def write(answers: pd.DataFrame) -> None:
            keys = answers["key"] if numbers else answers["key"].map(str)
            named = answers[_ANSWERS].assign(**{id_name: keys})[[id_name, *_ANSWERS]]
            table.write_table(pa.Table.from_pandas(named, schema=schema, preserve_index=False))

        yield write


def _named(header: list[str], fields: list[str]) -> dict[str, Any]:
    if len(fields) != len(header):
        raise BadRowError(f"{len(fields)} fields, expected {len(header)}: {', '.join(header)[:100]}")
    return dict(zip(header, fields, strict=True))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
