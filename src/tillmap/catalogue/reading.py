"""What the readers of all formats share: what they are told, what they give, and lines of text."""

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BufferedReader
from typing import Literal, NamedTuple, Protocol

from tillmap.catalogue.containers import is_parquet
from tillmap.catalogue.encodings import as_utf8
from tillmap.catalogue.rows import Record
from tillmap.core.errors import InputError

MAX_LINE_BYTES = 2**20

DELIMITERS = (",", ";", "\t", "|")  # of CSV, as far as they are recognised
Format = Literal["jsonl", "csv", "parquet"]

_CALLED: dict[Format, str] = {"jsonl": "JSON", "csv": "CSV", "parquet": "a Parquet table"}
_JSON = re.compile(rb"(?:\[\s*)?\{\s*[\"}]")  # how a file of objects starts, or an array of them
_LOOK = 2**13  # bytes that tell the format of a file
_NOTHING = b" \t\n\v\f\r\x1a"  # the last one ends files of DOS, and so of old tills

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


class Manner(NamedTuple):
    """How to read a file.

    Attributes:
        shown: what errors call the file.
        encoding: of text that does not start with a byte order mark.
        delimiter: of CSV; None to recognise it.
        known: names of columns that may be in it, which help to recognise the delimiter.
    """

    shown: str
    encoding: str = "utf-8"
    delimiter: str | None = None
    known: tuple[str, ...] = ()


class Reader(Protocol):
    """An open file of one format.

    `header`: the names of a table's columns; None for a format in which each row has its own.
    """

    @property
    def header(self) -> Sequence[str] | None: ...

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """The rows, one by one, with these columns of a table. Raises InputError if the file is damaged."""


def as_text(file: BufferedReader, manner: Manner, kind: Format) -> BufferedReader:
    """The file as UTF-8 with line feeds. Raises InputError if it has another format than `kind`."""
    require_format(file, manner, kind)
    text = as_utf8(file, manner.encoding, manner.shown)
    require_format(text, manner, kind)
    return text


def require_format(file: BufferedReader, manner: Manner, kind: Format) -> None:
    """Raise InputError if what a file starts with is plainly another format than the one that its name says."""
    found: Format | None = "parquet" if is_parquet(file) else _format_of_text(file.peek(_LOOK)[:_LOOK], manner.known)
    if found not in (None, kind):
        raise InputError(
            f"{manner.shown}: this is {_CALLED[found]}, not {_CALLED[kind]}; name it so: rename the file to end in "
            f".{found}, or --format {found}"
        )


def _format_of_text(start: bytes, known: Sequence[str]) -> Format | None:
    """JSON, or CSV if the header has a known name or as many fields as the row after it; None if it is not plain."""
    start = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if b"\0" in start:  # of UTF-16, or no text
        return None
    if _JSON.match(start):
        return "jsonl"
    lines = (line.strip() for line in start.decode(errors="replace").splitlines())
    header, row, *_ = [*filter(None, lines), "", ""]
    if not header or header.startswith(("{", "[")) or row.startswith(("{", "[")):
        return None
    for sign in DELIMITERS:
        names = [name.strip(' "') for name in header.split(sign)]
        if not {*names}.isdisjoint(known) or 1 < len(names) == len(row.split(sign)):
            return "csv"
    return None


def numbered_lines(file: BufferedReader) -> Iterator[Line]:
    """The lines of a file and their numbers, from 1.

    Blank lines at the end of the file are left out. Of a longer line come the first `MAX_LINE_BYTES` + 1 bytes, so
    that a reader can tell, and memory stays small for a file that is one endless line.
    """
    blank: list[int] = []  # the first and the last number of blank lines in a row
    ending = b""
    number = 0
    for line in iter(partial(file.readline, MAX_LINE_BYTES + 1), b""):
        number += 1
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES)
        # Files saved on Windows may start with a byte order mark, or with two; so do the parts that `cat` has joined.
        while line.startswith(codecs.BOM_UTF8):
            line = line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901
        if not line.strip(_NOTHING):
            first = blank[0] if blank else number
            number += _skip_blank(file)
            blank = [first, number]
            ending = b"\r\n" if line.endswith(b"\r\n") else b"\n"
            continue
        if blank:  # a row follows, so these blank lines were not the end of the file
            for earlier in range(blank[0], blank[1] + 1):
                yield earlier, ending
            blank = []
        yield number, line


def _skip_blank(file: BufferedReader) -> int:
    """Skip the blank lines that come next, and count them. A packed file of a few bytes may have a billion of them."""
    lines = 0
    while ahead := file.peek(1):
        end = ahead.rfind(b"\n", 0, len(ahead) - len(ahead.lstrip(_NOTHING))) + 1
        if not end:
            break
        lines += ahead.count(b"\n", 0, end)
        file.read(end)
    return lines


def too_long() -> str:
    """What is wrong with a longer line."""
    return f"the line is longer than {MAX_LINE_BYTES:,} bytes"


def shown_bytes(line: bytes) -> str:
    """A line as it is in the file, to list it among the bad ones."""
    return line[:MAX_LINE_BYTES].rstrip(b"\r\n").decode(errors="backslashreplace")
