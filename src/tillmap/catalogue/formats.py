"""Reads the files that rows come in: JSON, CSV with a header, and Parquet; plain or packed; one file, or a folder.

A file is read as a stream: a line, a packed file or a table may be larger than memory.
"""

import codecs
import csv
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import orjson

from tillmap.catalogue import tables
from tillmap.catalogue.containers import PACKED, is_parquet, opened
from tillmap.catalogue.encodings import as_utf8, is_unicode, is_utf8_in, require_encoding, spelled
from tillmap.catalogue.json_values import is_array, is_spread, split_values
from tillmap.catalogue.rows import BadRowError, Record, show
from tillmap.core.errors import InputError

logger = logging.getLogger(__name__)
Format = Literal["jsonl", "csv", "parquet"]
MAX_LINE_BYTES = 2**20
DELIMITERS = (",", ";", "\t", "|")

_ENDINGS: Mapping[str, Format] = {
    ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".features": "jsonl", ".labels": "jsonl",
    ".predict": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
ENDINGS = tuple(_ENDINGS)
_SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
_NAME_END = re.compile(rb'"\s*:')  # of a name in JSON; some texts have it, too
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAMPLE_LINES = 200  # of a CSV, to recognise its delimiter
_MAX_ROW_LINES = 100  # of a CSV row, whose quoted fields may have line breaks
_SAMPLE_BYTES = 2**20
_DELIMITER = re.compile(r'\t|[^\w\s"]')
_BEYOND_JSON = re.compile(rb"\b(?:NaN|Infinity)\b")
_LOOK = 2**13  # bytes that tell how a JSON file is laid out
_SEP = re.compile(rb"sep=([,;|\t])\s*", re.IGNORECASE)


Line = tuple[int, bytes]  # of a file: its number, from 1, and its bytes


class Row(NamedTuple):
    """One row of a file.

    `place`: its line, or in a Parquet file its number, from 1.
    `read`: gives its record or raises BadRowError. A function, so that a bad row does not end the reading.
    `raw`: gives the row as it is in the file, to list it among the bad ones.
    """

    place: int
    read: Callable[[], Record]
    raw: Callable[[], str]


def format_of(path: Path) -> Format:
    """The format that the ending of a file's name says. Raises InputError for an unknown ending."""
    ending = path.suffix.lower()
    if ending in _SPREADSHEETS:
        raise InputError(
            f"{path}: a spreadsheet is neither read nor written; use CSV UTF-8, which it can save and open"
        )
    try:
        return _ENDINGS[ending]
    except KeyError:
        if path.is_dir():
            raise InputError(
                f"{path}: this is a folder whose name does not say the format of its files; name it with --format"
            ) from None
        raise InputError(
            f"{path}: unknown file format, expected a name that ends in .jsonl, .csv or .parquet; rename the file, or "
            "name its format with --format (input) or --out-format (output)"
        ) from None


def delimiter_of(given: str | None) -> str | None:
    """The delimiter that an option of the command line means: `tab` is hard to type."""
    return "\t" if given in ("tab", "\\t") else given


def unpacked(path: Path) -> Path:
    """The path without the ending of a packed file, such as .gz."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


@dataclass(frozen=True)
class RowFile:
    """A file of rows.

    Attributes:
        path: the file.
        format: its format; None for the one that its name says.
        encoding: of CSV and JSON Lines, if they do not start with a byte order mark.
        delimiter: of CSV; None to recognise it.
        known: names of columns that may be in it, which help to recognise the delimiter.
        name: what errors call the file; None for its path.
        remedy: what errors say to do if there is no such file.
    """

    path: Path
    format: Format | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    known: tuple[str, ...] = ()
    name: str | None = None
    remedy: str = "check its name"

    @property
    def shown(self) -> str:
        """What errors call the file."""
        return self.name or str(self.path)

    @property
    def kind(self) -> Format:
        """The file's format. Raises InputError for an unknown ending."""
        return self.format or format_of(unpacked(self.path))

    @property
    def unit(self) -> str:
        """What the places of rows count: "line" or "row"."""
        return "row" if self.kind == "parquet" else "line"

    def check(self) -> None:
        """Raise InputError if the file cannot be opened, or its format or encoding is unknown."""
        _ = self.kind
        require_encoding(self.encoding, self.shown)
        if self.delimiter is not None and not _DELIMITER.fullmatch(self.delimiter):
            raise InputError(
                f"{self.shown}: {show(self.delimiter)} cannot be between fields; expected one sign, such as ; or tab "
                "(`data.delimiter`, --delimiter)"
            )
        for part in self.parts():
            with part._opened():
                pass

    def parts(self) -> list["RowFile"]:
        """The file itself; or of a folder, as Spark writes it, its files with rows, by name.

        Raises InputError if there is none.
        """
        if not self.path.is_dir():
            return [self]
        there = sorted(path for path in self.path.rglob("*") if path.is_file())
        files = [path for path in there if _is_part(path.relative_to(self.path))]
        if not files:
            raise InputError(f"{self.shown}: this folder has no files with rows; name a file, or a folder of parts")
        return [replace(self, path=path, format=self.kind, name=f"{self.shown}/{path.name}") for path in files]

    def rows(self, needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
        """The rows, one by one.

        Args:
            needed: the columns that a CSV or Parquet file must have. The fields of a line of JSON are for
                `catalogue.rows` to check.
            optional: columns that are read if they are there; a table's other columns are skipped.

        Raises InputError if the file cannot be read, does not have its format, or lacks a needed column.
        """
        self.check()
        parts = self.parts()
        return self._own_rows(needed, optional) if parts == [self] else _rows_of(parts, needed, optional)

    def _own_rows(self, needed: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
        if self.kind == "parquet":
            return self._parquet_rows(needed, optional)
        return self._json_rows() if self.kind == "jsonl" else self._csv_rows(needed, optional)

    def header(self) -> tuple[str, ...] | None:
        """The names of a table's columns; None for JSON Lines, where each line has its own."""
        self.check()
        if self.kind == "jsonl":
            return None
        part = self.parts()[0]
        if self.kind == "parquet":
            with part._opened() as file, tables.opened(file, part.shown) as table:
                return tuple(table.schema_arrow.names)
        with part._text() as text:
            return tuple(part._csv_header(numbered_lines(text))[0])

    def _opened(self) -> AbstractContextManager[BufferedReader]:
        """The file's bytes, unpacked."""
        return opened(self.path, self.shown, self.remedy)

    @contextmanager
    def _text(self) -> Iterator[BufferedReader]:
        """The file as UTF-8 with line feeds."""
        with self._opened() as file:
            if is_parquet(file):
                raise InputError(
                    f"{self.shown}: this is a Parquet table; name it so: rename the file, or --format parquet"
                )
            yield as_utf8(file, self.encoding, self.shown)

    def _json_rows(self) -> Iterator[Row]:
        with self._text() as file:
            start = file.peek(_LOOK)
            if is_array(start) or is_spread(start):
                for number, value, fault in split_values(file, MAX_LINE_BYTES, array=is_array(start)):
                    yield Row(number, partial(_parse_value, value, fault, self.encoding), partial(_shown_bytes, value))
            else:
                for number, line in numbered_lines(file):
                    yield Row(number, partial(parse_line, line, self.encoding), partial(_shown_bytes, line))

    def _csv_rows(self, needed: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
        with self._text() as file:
            lines = numbered_lines(file)
            header, sample, delimiter = self._csv_header(lines)
            if not header:
                return
            columns = _choose_columns(self.shown, header, needed, optional)
            broken = False
            for taken, fields in _csv_records(chain(sample, lines), delimiter):
                if len(taken) > 1 and not broken:
                    broken = True
                    _say(
                        f"{self.shown}:{taken[0][0]}: this row has {len(taken)} lines: a line break between quotes; "
                        "if it should not, look for a stray quote"
                    )
                yield Row(
                    taken[0][0],
                    partial(_csv_record, header, columns, fields, delimiter, self.encoding),
                    partial(_shown_bytes, b"".join(line for _, line in taken)),
                )

    def _csv_header(self, lines: Iterator[Line]) -> tuple[list[str], list[Line], str]:
        """The names of the columns, the lines that were read after them, and the delimiter."""
        sample: list[Line] = []
        size = 0
        while len(sample) < _SAMPLE_LINES and size < _SAMPLE_BYTES and (line := next(lines, None)):
            sample.append(line)
            size += len(line[1])
        delimiter = self.delimiter
        if sample and (said := _SEP.fullmatch(sample[0][1])):  # how Excel notes it
            delimiter = delimiter or said[1].decode()
            del sample[0]
        if not delimiter:
            delimiter = self._find_delimiter(sample)
        taken, header = next(_csv_records(iter(sample), delimiter), ([], []))
        if isinstance(header, str):
            raise InputError(f"{self.shown}:{taken[0][0]}: the header is {header}")
        if not all(map(is_unicode, header)):
            raise InputError(
                f"{self.shown}:{taken[0][0]}: the header is not {spelled(self.encoding)}; name the file's encoding, "
                "such as cp1252 (`data.encoding`, --encoding)"
            )
        rest = [line for line in sample if line[0] > taken[-1][0]] if taken else []
        return [name.strip() for name in header], rest, delimiter

    def _find_delimiter(self, sample: Sequence[Line]) -> str:
        """The sign with which the header has the most known names, and the most rows have as many fields as it.

        Raises InputError if no sign fits, or two fit as well.
        """
        if not sample:
            return DELIMITERS[0]
        fits: dict[str, tuple[int, float]] = {}
        widths: dict[str, int] = {}
        for sign in DELIMITERS:
            header, *rows = [fields for _, fields in _csv_records(iter(sample), sign)] or [""]
            known = sum(name.strip() in self.known for name in header)
            if isinstance(header, list) and (known or len(header) > 1):
                alike = sum(len(row) == len(header) for row in rows if isinstance(row, list))
                fits[sign] = (known, round(alike / max(1, len(rows)), 1))
                widths[sign] = len(header)
        best = [sign for sign in fits if fits[sign] == max(fits.values())]
        if len(best) == 1 or (best and widths[best[0]] == 1):  # a single column needs none
            _say(f"{self.shown}: CSV with {_between(best[0])} between fields")
            return best[0]
        raise InputError(
            f"{self.shown}: cannot tell what is between the fields of this CSV, whose header is "
            f"{show(_shown_bytes(sample[0][1]))}; expected , ; | or a tab in it and in the rows; name it "
            "(`data.delimiter`, --delimiter)"
        )

    def _parquet_rows(self, needed: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
        with self._opened() as file, tables.opened(file, self.shown) as table:
            columns = _choose_columns(self.shown, table.schema_arrow.names, needed, optional)
            for number, row in enumerate(tables.records(table, columns, self.shown), 1):
                yield Row(number, partial(tables.plain, row), partial(_shown_record, row))


def numbered_lines(file: IO[bytes]) -> Iterator[Line]:
    """The lines of a file and their numbers, from 1.

    Blank lines at the end of the file are left out. Of a longer line come the first `MAX_LINE_BYTES` + 1 bytes, so
    that `parse_line` can tell, and memory stays small for a file that is one endless line.
    """
    blank: list[int] = []  # the first and the last number of blank lines in a row
    ending = b""
    for number, line in enumerate(iter(partial(file.readline, MAX_LINE_BYTES + 1), b""), 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES)
        if line.isspace():
            blank = [blank[0] if blank else number, number]
            ending = b"\r\n" if line.endswith(b"\r\n") else b"\n"
            continue
        if blank:  # a row follows, so these blank lines were not the end of the file
            for earlier in range(blank[0], blank[1] + 1):
                yield earlier, ending
            blank = []
        # Files saved on Windows may start with a byte order mark.
        yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def parse_line(line: bytes, encoding: str = "utf-8") -> dict[str, Any]:
    """The JSON object on a line of `numbered_lines`. `encoding` is the file's own. Raises BadRowError."""
    if line.isspace():
        raise BadRowError("a blank line between rows")
    if len(line) > MAX_LINE_BYTES:
        raise BadRowError(_too_long())
    record = _parsed(line, encoding)
    if not isinstance(record, dict):
        raise BadRowError(f"expected a JSON object, found {show(record)}")
    if is_utf8_in(encoding, line.decode()):
        raise BadRowError(f"UTF-8, not {encoding}, expected one encoding in the whole file")
    return record


def _parsed(line: bytes, encoding: str) -> Any:
    """The JSON value on a line. NaN and Infinity, which JSON lacks, are read as Python writes them."""
    try:
        value = orjson.loads(line)
        if isinstance(value, dict) and len(_NAME_END.findall(line)) > len(value):  # maybe a name twice
            json.loads(line, object_pairs_hook=_once)
        return value
    except orjson.JSONDecodeError as error:
        if _BEYOND_JSON.search(line):
            with suppress(ValueError, RecursionError):
                value = json.loads(line, object_pairs_hook=_once)
                json.dumps(value, ensure_ascii=False).encode()  # half a surrogate is no text
                return value
        # orjson also refuses text that is not UTF-8, but does not say which byte it is.
        try:
            line.decode()
        except UnicodeDecodeError as wrong:
            raise BadRowError(
                f"not {spelled(encoding)} (byte 0x{line[wrong.start]:02x} at column {wrong.start + 1})"
            ) from None
        raise BadRowError(f"not JSON ({error.msg} at column {error.pos + 1})") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises BadRowError if a name is in it twice: readers would differ in which value they take."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRowError(f"`{show(twice)[1:-1]}` is there twice, expected each name once")
    return record


def _parse_value(value: bytes, fault: str, encoding: str) -> dict[str, Any]:
    if fault:
        raise BadRowError(fault)
    return parse_line(value, encoding)


def _csv_records(lines: Iterator[Line], delimiter: str) -> Iterator[tuple[list[Line], list[str] | str]]:
    """Rows as RFC 4180 says: the lines of each, and its fields, or what is wrong with it. Blank rows are left out.

    Bytes that are not UTF-8 become surrogates in the fields. A row that is no CSV ends with its first line, so that a
    quote that is never closed costs one row and not the rest of the file.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    again: list[Line] = []  # lines to read again, the next one last
    taken: list[Line] = []
    fault = ""

    def feed() -> Iterator[str]:
        nonlocal fault
        size = 0
        while line := again.pop() if again else next(lines, None):
            size = len(line[1]) + (size if taken else 0)
            taken.append(line)
            if len(line[1]) > MAX_LINE_BYTES:
                fault = _too_long()
                yield "\n"
            elif len(taken) > _MAX_ROW_LINES or size > MAX_LINE_BYTES:
                raise csv.Error("the row does not end")
            else:
                yield line[1].decode("utf-8", "surrogateescape")

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        taken.clear()
        fault = ""
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = (
                f"not CSV ({error}), expected {_between(delimiter)} between fields, and quotes around a field that "
                "holds one of them, a quote (doubled) or a line break"
            )
            yield taken[:1], fault
            again += reversed(taken[1:])
            reader = csv.reader(feed(), delimiter=delimiter, strict=True)
            continue
        if fault or any(fields):
            yield taken.copy(), fault or fields


def _csv_record(
    header: Sequence[str], columns: Sequence[str], fields: list[str] | str, delimiter: str, encoding: str
) -> dict[str, str]:
    if isinstance(fields, str):
        raise BadRowError(fields)
    if len(fields) != len(header):
        raise BadRowError(
            f"{len(fields)} fields, expected {len(header)} with {_between(delimiter)} between them: "
            f"{', '.join(header)[:100]}"
        )
    record = {name: value for name, value in zip(header, fields, strict=True) if name in columns}
    for name, value in record.items():
        if not is_unicode(value):
            raise BadRowError(
                f"`{name}` is not {spelled(encoding)}, expected a file saved as {spelled(encoding)}, or its own "
                "encoding in `data.encoding` (--encoding)"
            )
        if is_utf8_in(encoding, value):
            raise BadRowError(f"`{name}` is UTF-8, not {encoding}, expected one encoding in the whole file")
    return record


def _between(delimiter: str) -> str:
    return _NAMES.get(delimiter, show(delimiter))


def _too_long() -> str:
    return f"the line is longer than {MAX_LINE_BYTES:,} bytes"


def _shown_bytes(line: bytes) -> str:
    return line[:MAX_LINE_BYTES].rstrip(b"\r\n").decode(errors="backslashreplace")


def _shown_record(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)


@lru_cache(maxsize=1000)
def _say(message: str) -> None:
    """Log a line once, though the file is read several times."""
    logger.info(message)


def _rows_of(parts: Sequence[RowFile], needed: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    """The rows of a folder's parts. The places of a part go on from those of the part before."""
    last = 0
    for part in parts:
        before = last
        for row in part._own_rows(needed, optional):
            last = before + row.place
            yield row._replace(place=last)


def _is_part(path: Path) -> bool:
    """Whether a file of a folder has rows. Those with a writer's notes start with a point or an underscore."""
    return not any(name.startswith((".", "_")) for name in path.parts)


def _choose_columns(shown: str, there: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The columns of a table that are read. Raises InputError if one is missing, or its name is there twice."""
    wanted = list(dict.fromkeys((*needed, *optional)))
    missing = [name for name in dict.fromkeys(needed) if name not in there]
    twice = [name for name in wanted if list(there).count(name) > 1]
    if missing or twice:
        fault = f"no column {', '.join(missing)}" if missing else f"more than one column {', '.join(twice)}"
        raise InputError(
            f"{shown}: {fault}; there are: {', '.join(there)[:200] or 'none'}; rename the columns, or name them in "
            "`data.columns` (or with the command's options, --help)"
        )
    return [name for name in wanted if name in there]
