"""Takes JSON values apart that are not one on each line: an array, or objects that are spread over several lines."""

import re
from collections.abc import Iterator
from typing import IO

_BLOCK_BYTES = 2**16
_OUTSIDE = re.compile(rb'[\[{]+|[\]},"\n]')  # brackets that open come together: a hostile file is millions of them
_INSIDE = re.compile(rb'["\\\n]')
_UNENDED = "the array does not end; the file is cut short, fetch or write it again"

Value = tuple[int, bytes, str]  # the line where it starts, its bytes, and what is wrong with them


def is_array(start: bytes) -> bool:
    """Whether a JSON file that starts so is an array."""
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def is_spread(start: bytes) -> bool:
    """Whether a JSON file that starts so has objects of several lines, as a pretty-printer writes them."""
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0].rstrip() == b"{"


def split_values(file: IO[bytes], most: int, *, array: bool) -> Iterator[Value]:
    """The values of an array, or objects one after the other. Read as a stream; nothing is parsed.

    Of a longer value come the first `most` + 1 bytes.
    """
    splitter = _Splitter(most, array)
    if block := file.read(_BLOCK_BYTES):
        yield from splitter.feed(block.removeprefix(b"\xef\xbb\xbf"))
    while block := file.read(_BLOCK_BYTES):
        yield from splitter.feed(block)
    yield from splitter.end()


class _Splitter:
    """Finds the ends of values: of an array the commas between them, else the brackets that close an object."""

    def __init__(self, most: int, array: bool) -> None:
        self._most, self._array = most, array
        self._depth = -1 if array else 0  # of brackets within a value
        self._ended = False  # the array
        self._text = self._escaped = False
        self._line = 1
        self._kept = bytearray()
        self._began = 1  # the line where `_kept` begins
        self._values = 0

    def feed(self, block: bytes) -> Iterator[Value]:
        place = done = 0
        if self._escaped:
            self._escaped, place = False, 1
        while found := (_INSIDE if self._text else _OUTSIDE).search(block, place):
            sign, at, place = found[0], found.start(), found.end()
            if sign == b"\n":
                self._line += 1
            elif sign == b'"':
                self._text = not self._text
            elif sign == b"\\":
                self._escaped = place == len(block)
                place += 1
            elif sign[0] in b"[{":
                if self._array and self._depth == -1 and not self._ended:
                    self._kept.clear()  # blanks and a mark before the array
                    self._began, done = self._line, at + 1
                self._depth += len(sign)
            elif sign in b"]}":
                self._depth -= 1
                if self._array and self._depth == -1 and not self._ended:
                    self._keep(block[done:at])
                    if self._values or self._kept.strip():
                        yield self._take()
                    self._kept.clear()
                    self._ended, done, self._began = True, place, self._line
                elif not self._array and self._depth <= 0:
                    self._depth = 0
                    self._keep(block[done:place])
                    done = place
                    yield self._take()
            elif sign == b"," and self._array and not self._depth and not self._ended:
                self._keep(block[done:at])
                done = place
                yield self._take()
        self._keep(block[done:])

    def end(self) -> Iterator[Value]:
        if self._kept.strip():
            yield self._take()
        if self._array and not self._ended:
            yield self._line, b"", _UNENDED

    def _keep(self, piece: bytes) -> None:
        if not self._kept:  # blanks before a value are not part of it, however many there are
            bare = piece.lstrip()
            self._began += piece.count(b"\n", 0, len(piece) - len(bare))
            piece = bare
        self._kept += piece[: self._most + 1 - len(self._kept)]

    def _take(self) -> Value:
        value = self._began, bytes(self._kept).rstrip(), ""
        self._kept.clear()
        self._began = self._line
        self._values += 1
        return value
