"""Reads the files that rows come in: JSON Lines, CSV with a header, and Parquet; plain, or packed as .gz or .zst.

A file is read as a stream: a line, a packed file or a table may be larger than memory.
"""

import codecs
import csv
import gzip
import json
import logging
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BufferedReader, RawIOBase
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Literal, NamedTuple, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tillmap.catalogue.rows import BadRowError, Record, show
from tillmap.core.errors import InputError, first_line

logger = logging.getLogger(__name__)
Format = Literal["jsonl", "csv", "parquet"]
MAX_LINE_BYTES = 2**20
DELIMITERS = (",", ";", "\t", "|")
PACKED = (".gz", ".zst")

_ENDINGS: Mapping[str, Format] = {
    ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".features": "jsonl", ".labels": "jsonl",
    ".predict": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
ENDINGS = tuple(_ENDINGS)
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_BATCH_ROWS = 8192  # of a Parquet file that are in memory at once
_BLOCK_BYTES = 2**16
_SAMPLE_LINES = 200  # of a CSV, to recognise its delimiter
_MAX_ROW_LINES = 100  # of a CSV row, whose quoted fields may have line breaks
_SAMPLE_BYTES = 2**20
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # how these files start
_SEP = re.compile(rb"sep=([,;|\t])\s*", re.IGNORECASE)
_LATIN = ("cp1252", "iso8859-1", "iso8859-15")  # in these, a text that is also UTF-8 is a mistake


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
    try:
        return _ENDINGS[path.suffix.lower()]
    except KeyError:
        raise InputError(
            f"{path}: unknown file format, expected a name that ends in .jsonl, .csv or .parquet; rename the file, or "
            "name its format with --format (input) or --out-format (output)"
        ) from None


def unpacked(path: Path) -> Path:
    """The path without .gz or .zst at its end."""
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
        try:
            "a".encode(self.encoding)
        except (LookupError, ValueError):
            raise InputError(
                f"{self.shown}: {self.encoding} is no known encoding; expected a name such as utf-8, cp1252 or utf-16 "
                "(`data.encoding`, --encoding)"
            ) from None
        with self._opened():
            pass

    def rows(self, needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
        """The rows, one by one.

        Args:
            needed: the columns that a CSV or Parquet file must have. The fields of a line of JSON are for
                `catalogue.rows` to check.
            optional: columns that are read if they are there; a table's other columns are skipped.

        Raises InputError if the file cannot be read, does not have its format, or lacks a needed column.
        """
        self.check()
        if self.kind == "parquet":
            return self._parquet_rows(needed, optional)
        return self._jsonl_rows() if self.kind == "jsonl" else self._csv_rows(needed, optional)

    def header(self) -> tuple[str, ...] | None:
        """The names of a table's columns; None for JSON Lines, where each line has its own."""
        self.check()
        if self.kind == "jsonl":
            return None
        if self.kind == "parquet":
            with self._table() as table:
                return tuple(table.schema_arrow.names)
        with self._lines() as lines:
            return tuple(self._csv_header(lines)[0])

    @contextmanager
    def _opened(self) -> Iterator[BufferedReader]:
        """The file's bytes, unpacked."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            raise InputError(f"{self.shown}: the file is not there; {self.remedy}") from None
        except OSError as error:
            raise InputError(f"{self.shown}: cannot be read ({error.strerror}); expected a file you may read") from None
        with file:
            start = file.peek(4)[:4]
            ending = ".gz" if start.startswith(_GZIP) else ".zst" if start == _ZSTD else ""
            try:
                if ending == ".gz":
                    yield cast(BufferedReader, gzip.GzipFile(fileobj=file))
                elif ending == ".zst":
                    packed = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
                    yield BufferedReader(packed, _BLOCK_BYTES)
                else:
                    yield file
            except (EOFError, zlib.error, OSError) as error:
                # Arrow's errors and those of gzip have no number; a full disk has one.
                if not ending or getattr(error, "errno", None) is not None:
                    raise
                raise InputError(
                    f"{self.shown}: damaged {ending} file ({first_line(error)}); pack it again, or fetch it again"
                ) from None

    @contextmanager
    def _lines(self) -> Iterator[Iterator[tuple[int, bytes]]]:
        """The numbered lines as UTF-8. Bytes that do not fit the encoding are not UTF-8 in them."""
        with self._opened() as file:
            start = file.peek(4)
            marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
            encoding = codecs.lookup(marked or self.encoding).name
            if encoding in ("utf-8", "utf-8-sig", "ascii"):
                yield numbered_lines(file)
                return
            encoding = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(encoding, encoding)  # there is no mark
            try:
                yield numbered_lines(BufferedReader(_Transcoded(file, encoding), _BLOCK_BYTES))
            except UnicodeError as error:
                raise InputError(
                    f"{self.shown}: not {self.encoding} ({first_line(error)}); name the file's own encoding "
                    "(`data.encoding`, --encoding)"
                ) from None

    def _jsonl_rows(self) -> Iterator[Row]:
        with self._lines() as lines:
            for number, line in lines:
                yield Row(number, partial(parse_line, line, self.encoding), partial(_shown_bytes, line))

    def _csv_rows(self, needed: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
        with self._lines() as lines:
            header, sample, delimiter = self._csv_header(lines)
            if not header:
                return
            columns = _choose_columns(self.shown, header, needed, optional)
            for taken, fields in _csv_records(chain(sample, lines), delimiter):
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
        if not all(map(_is_unicode, header)):
            raise InputError(
                f"{self.shown}:{taken[0][0]}: the header is not {_spelled(self.encoding)}; name the file's encoding, "
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
            _say(f"{self.shown}: CSV with {_NAMES[best[0]]} between fields")
            return best[0]
        raise InputError(
            f"{self.shown}: cannot tell what is between the fields of this CSV, whose header is "
            f"{show(_shown_bytes(sample[0][1]))}; expected , ; | or a tab in it and in the rows; name it "
            "(`data.delimiter`, --delimiter)"
        )

    def _parquet_rows(self, needed: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
        with self._table() as table:
            columns = _choose_columns(self.shown, table.schema_arrow.names, needed, optional)
            number = 0
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield Row(number, partial(dict, row), partial(_shown_record, row))

    @contextmanager
    def _table(self) -> Iterator[pq.ParquetFile]:
        with self._opened() as file, TemporaryFile() as plain:
            if isinstance(file, gzip.GzipFile) or not file.seekable():  # the footer is at the end
                shutil.copyfileobj(file, plain)
            try:
                yield pq.ParquetFile(plain if plain.tell() else file)
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{self.shown}: not a Parquet table ({first_line(error)}); write it again, or correct the format"
                ) from None


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
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        # orjson also refuses text that is not UTF-8, but does not say which byte it is.
        try:
            line.decode()
        except UnicodeDecodeError as wrong:
            raise BadRowError(
                f"not {_spelled(encoding)} (byte 0x{line[wrong.start]:02x} at column {wrong.start + 1})"
            ) from None
        raise BadRowError(f"not JSON ({error.msg} at column {error.pos + 1})") from None
    if not isinstance(record, dict):
        raise BadRowError(f"expected a JSON object, found {show(record)}")
    if _is_utf8_in(encoding, line.decode()):
        raise BadRowError(f"UTF-8, not {encoding}, expected one encoding in the whole file")
    return record


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
                f"not CSV ({error}), expected {_NAMES[delimiter]} between fields, and quotes around a field that holds "
                "one of them, a quote (doubled) or a line break"
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
            f"{len(fields)} fields, expected {len(header)} with {_NAMES[delimiter]} between them: "
            f"{', '.join(header)[:100]}"
        )
    record = {name: value for name, value in zip(header, fields, strict=True) if name in columns}
    for name, value in record.items():
        if not _is_unicode(value):
            raise BadRowError(
                f"`{name}` is not {_spelled(encoding)}, expected a file saved as {_spelled(encoding)}, or its own "
                "encoding in `data.encoding` (--encoding)"
            )
        if _is_utf8_in(encoding, value):
            raise BadRowError(f"`{name}` is UTF-8, not {encoding}, expected one encoding in the whole file")
    return record


class _Transcoded(RawIOBase):
    """A file of another encoding, read as UTF-8. What does not fit the encoding becomes bytes that are not UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)(_KEEP)
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            block = self._file.read(_BLOCK_BYTES)
            self._ended = not block
            self._ready = self._decoder.decode(block, self._ended).encode("utf-8", _KEEP)
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


_KEEP = "tillmap.keep"


def _keep(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a codec puts in the place of wrong bytes: surrogates when it decodes, which are bytes when it encodes."""
    if isinstance(error, UnicodeDecodeError):
        wrong = error.object[error.start : error.end] or b"\xff"
        return "".join(chr(0xDC00 + max(byte, 0x80)) for byte in wrong), error.end
    if isinstance(error, UnicodeEncodeError):
        return bytes(ord(letter) & 0xFF | 0x80 for letter in error.object[error.start : error.end]), error.end
    raise error


codecs.register_error(_KEEP, _keep)


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    with suppress(UnicodeEncodeError):
        text.encode()
        return True
    return False


def _is_utf8_in(encoding: str, text: str) -> bool:
    """Whether a text of a Latin encoding was UTF-8, so that "é" came out as "Ã©"."""
    if text.isascii() or codecs.lookup(encoding).name not in _LATIN:
        return False
    with suppress(UnicodeError):
        text.encode(encoding).decode()
        return True
    return False


def _spelled(encoding: str) -> str:
    return "UTF-8" if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii") else encoding


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
