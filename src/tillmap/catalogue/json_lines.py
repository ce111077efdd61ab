"""Reads JSON: an object on each line, objects that are spread over lines, or an array of them."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import BufferedReader
from typing import Any

import orjson

from tillmap.catalogue import reading
from tillmap.catalogue.encodings import is_utf8_in, spelled
from tillmap.catalogue.json_values import is_array, is_spread, split_values
from tillmap.catalogue.reading import Manner, Row, as_text, numbered_lines, shown_bytes, too_long
from tillmap.catalogue.rows import BadRowError, show

_NAME_END = re.compile(rb'"\s*:')  # of a name in JSON; some texts have it, too
_BEYOND_JSON = re.compile(rb"\b(?:NaN|Infinity)\b")
_LOOK = 2**13  # bytes that tell how a JSON file is laid out


@contextmanager
def open_json(file: BufferedReader, manner: Manner) -> Iterator["_Json"]:
    """A `Reader` of JSON. Raises InputError if the file has another format."""
    yield _Json(as_text(file, manner, "jsonl"), manner.encoding)


class _Json:
    header = None

    def __init__(self, file: BufferedReader, encoding: str) -> None:
        self._file, self._encoding = file, encoding

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """The rows with all their fields, whose names differ from row to row."""
        start = self._file.peek(_LOOK)
        if is_array(start) or is_spread(start):
            for number, value, fault in split_values(self._file, reading.MAX_LINE_BYTES, array=is_array(start)):
                yield Row(number, partial(_parse_value, value, fault, self._encoding), partial(shown_bytes, value))
        else:
            for number, line in numbered_lines(self._file):
                yield Row(number, partial(_parse_line, line, self._encoding), partial(shown_bytes, line))


def _parse_line(line: bytes, encoding: str = "utf-8") -> dict[str, Any]:
    """The JSON object on a line of `numbered_lines`. `encoding` is the file's own. Raises BadRowError."""
    if line.isspace():
        raise BadRowError("a blank line between rows")
    if len(line) > reading.MAX_LINE_BYTES:
        raise BadRowError(too_long())
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
    return _parse_line(value, encoding)
