"""Reads CSV with a header, as RFC 4180 says and as spreadsheets write it."""

import csv
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from io import BufferedReader
from itertools import chain

from tillmap.catalogue import reading
from tillmap.catalogue.encodings import is_unicode, is_utf8_in, spelled
from tillmap.catalogue.reading import (
    DELIMITERS,
    Line,
    Manner,
    Row,
    as_text,
    numbered_lines,
    shown_bytes,
    too_long,
)
from tillmap.catalogue.rows import BadRowError, show
from tillmap.core.errors import InputError

logger = logging.getLogger(__name__)

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAMPLE_LINES = 200  # of a CSV, to recognise its delimiter
_MAX_ROW_LINES = 100  # of a CSV row, whose quoted fields may have line breaks
_SAMPLE_BYTES = 2**20
_DELIMITER = re.compile(r'\t|[^\w\s"]')
_SEP = re.compile(rb"sep=([,;|\t])\s*", re.IGNORECASE)


def delimiter_of(given: str | None) -> str | None:
    """The delimiter that an option of the command line means: `tab` is hard to type."""
    return "\t" if given in ("tab", "\\t") else given


def require_delimiter(delimiter: str | None, shown: str) -> None:
    """Raise InputError for a sign that cannot be between fields. `shown` is what errors call the file."""
    if delimiter is not None and not _DELIMITER.fullmatch(delimiter):
        raise InputError(
            f"{shown}: {show(delimiter)} cannot be between fields; expected one sign, such as ; or tab "
            "(`data.delimiter`, --delimiter)"
        )


@contextmanager
def open_csv(file: BufferedReader, manner: Manner) -> Iterator["_Csv"]:
    """A `Reader` of CSV. Raises InputError if the file has another format, or its header or delimiter is unclear."""
    yield _Csv(as_text(file, manner, "csv"), manner)


class _Csv:
    def __init__(self, file: BufferedReader, manner: Manner) -> None:
        self._shown, self._encoding, self._delimiter, self._known = manner
        self._lines = numbered_lines(file)
        self.header, self._sample, self._between = self._read_header()

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """The rows of CSV are those behind the header, as texts."""
        broken = False
        for taken, fields in _csv_records(chain(self._sample, self._lines), self._between):
            if len(taken) > 1 and not broken:
                broken = True
                _say(
                    f"{self._shown}:{taken[0][0]}: this row has {len(taken)} lines: a line break between quotes; "
                    "if it should not, look for a stray quote"
                )
            yield Row(
                taken[0][0],
                partial(_csv_record, self.header, columns, fields, self._between, self._encoding),
                partial(shown_bytes, b"".join(line for _, line in taken)),
            )

    def _read_header(self) -> tuple[list[str], list[Line], str]:
        """The names of the columns, the lines that were read after them, and the delimiter."""
        sample: list[Line] = []
        size = 0
        while len(sample) < _SAMPLE_LINES and size < _SAMPLE_BYTES and (line := next(self._lines, None)):
            sample.append(line)
            size += len(line[1])
        delimiter = self._delimiter
        if sample and (said := _SEP.fullmatch(sample[0][1])):  # how Excel notes it
            delimiter = delimiter or said[1].decode()
            del sample[0]
        if not delimiter:
            delimiter = self._find_delimiter(sample)
        taken, header = next(_csv_records(iter(sample), delimiter), ([], []))
        if isinstance(header, str):
            raise InputError(f"{self._shown}:{taken[0][0]}: the header is {header}")
        if not all(map(is_unicode, header)):
            raise InputError(
                f"{self._shown}:{taken[0][0]}: the header is not {spelled(self._encoding)}; name the file's encoding, "
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
            known = sum(name.strip() in self._known for name in header)
            if isinstance(header, list) and (known or len(header) > 1):
                alike = sum(len(row) == len(header) for row in rows if isinstance(row, list))
                fits[sign] = (known, round(alike / max(1, len(rows)), 1))
                widths[sign] = len(header)
        best = [sign for sign in fits if fits[sign] == max(fits.values())]
        if len(best) == 1 or (best and widths[best[0]] == 1):  # a single column needs none
            _say(f"{self._shown}: CSV with {_between(best[0])} between fields")
            return best[0]
        raise InputError(
            f"{self._shown}: cannot tell what is between the fields of this CSV, whose header is "
            f"{show(shown_bytes(sample[0][1]))}; expected , ; | or a tab in it and in the rows; name it "
            "(`data.delimiter`, --delimiter)"
        )


def _csv_records(lines: Iterator[Line], delimiter: str) -> Iterator[tuple[list[Line], list[str] | str]]:
    """Rows as RFC 4180 says: the lines of each, and its fields, or what is wrong with it. Blank rows are left out.

    Bytes that are not UTF-8 become surrogates in the fields. A row that is no CSV ends with its first line, so that a
    quote that is never closed costs one row and not the rest of the file.
    """
    csv.field_size_limit(reading.MAX_LINE_BYTES)
    again: list[Line] = []  # lines to read again, the next one last
    taken: list[Line] = []
    fault = ""

    def feed() -> Iterator[str]:
        nonlocal fault
        size = 0
        while line := again.pop() if again else next(lines, None):
            size = len(line[1]) + (size if taken else 0)
            taken.append(line)
            if len(line[1]) > reading.MAX_LINE_BYTES:
                fault = too_long()
                yield "\n"
            elif len(taken) > _MAX_ROW_LINES or size > reading.MAX_LINE_BYTES:
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
                f"not CSV ({_said(error)}), expected {_between(delimiter)} between fields, and quotes around a field "
                "that holds one of them, a quote (doubled) or a line break"
            )
            yield taken[:1], fault
            again += reversed(taken[1:])
            reader = csv.reader(feed(), delimiter=delimiter, strict=True)
            continue
        if fault or any(fields):
            yield taken.copy(), fault or fields


def _said(error: csv.Error) -> str:
    """What Python's reader says, without its advice to programmers."""
    text = str(error).partition(" - ")[0]
    return "a carriage return that ends no line" if text.startswith("new-line character") else text


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
    if fields[0].strip() == header[0] and len(header) > 1 and [name.strip() for name in fields] == header:
        raise BadRowError("this is the header again, as where files were joined; expected a row")
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


@lru_cache(maxsize=1000)
def _say(message: str) -> None:
    """Log a line once, though the file is read several times."""
    logger.info(message)
