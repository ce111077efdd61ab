"""Files of other encodings and line ends, read as UTF-8 with line feeds."""

import codecs
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader, RawIOBase
from typing import IO, Any

from tillmap.core.errors import InputError, first_line

_BLOCK_BYTES = 2**16
_MARKS = {  # in this order: that of UTF-32 starts like that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be", codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
_PLAIN = ("utf-8", "utf-8-sig", "ascii")
_LATIN = ("cp1252", "iso8859-1", "iso8859-15")  # in these, a text that is also UTF-8 is a mistake
_MANY = 0.4  # the share of zeros among the odd or the even bytes of a file that is UTF-16
_LOOK = 200


def require_encoding(encoding: str, shown: str) -> None:
    """Raise InputError if there is no text encoding of this name."""
    try:
        "a".encode(encoding)
    except (LookupError, ValueError):
        raise InputError(
            f"{shown}: {encoding} is no known encoding; expected a name such as utf-8, cp1252 or utf-16 "
            "(`data.encoding`, --encoding)"
        ) from None


def as_utf8(file: BufferedReader, encoding: str, shown: str) -> BufferedReader:
    """A file as UTF-8, whatever encoding and line ends it has. Bytes that do not fit the encoding are not UTF-8 in it.

    A byte order mark at the start wins over `encoding`. Raises InputError for UTF-16 without a mark or a name.
    """
    start = file.peek(_LOOK)[:_LOOK]
    marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    if start and not any(start):
        raise InputError(f"{shown}: it starts with zeros, as a file does that was not written whole; fetch it again")
    used = codecs.lookup(marked or encoding).name
    if used in _PLAIN:
        wide = _wide(start)
        if wide:
            raise InputError(
                f"{shown}: this looks like {wide} without a mark; say so: `data.encoding`, --encoding {wide}"
            )
    else:
        used = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(used, used)  # there is no mark
        decoder = codecs.getincrementaldecoder(used)(_KEEP)
        file = _changed(file, lambda block, ended: _decoded(decoder, block, ended, encoding, shown))
    seen = file.peek(_BLOCK_BYTES)
    if b"\r" in seen[:-1] and b"\n" not in seen:  # as old programs for the Mac write it
        file = _changed(file, lambda block, ended: block.replace(b"\r", b"\n"))
    return file


def _decoded(decoder: codecs.IncrementalDecoder, block: bytes, ended: bool, encoding: str, shown: str) -> bytes:
    try:
        return decoder.decode(block, ended).encode("utf-8", _KEEP)
    except UnicodeError as error:
        raise InputError(
            f"{shown}: not {encoding} ({first_line(error)}); name the file's own encoding (`data.encoding`, --encoding)"
        ) from None


def is_unicode(text: str) -> bool:
    """Whether a text came from bytes that fitted the encoding."""
    if text.isascii():
        return True
    with suppress(UnicodeEncodeError):
        text.encode()
        return True
    return False


def is_utf8_in(encoding: str, text: str) -> bool:
    """Whether a text of a Latin encoding was UTF-8, so that "é" came out as "Ã©"."""
    if text.isascii() or codecs.lookup(encoding).name not in _LATIN:
        return False
    with suppress(UnicodeError):
        text.encode(encoding).decode()
        return True
    return False


def spelled(encoding: str) -> str:
    """The name of an encoding for messages."""
    return "UTF-8" if codecs.lookup(encoding).name in _PLAIN else encoding


def _wide(start: bytes) -> str | None:
    """UTF-16 or UTF-32 of Western text, told by its zeros."""
    start = start.rstrip(b"\0")  # with many at its end it was not written whole
    even, odd = start[0::2], start[1::2]
    if not odd or max(even.count(0), odd.count(0)) < _MANY * len(odd):
        return None
    if min(even.count(0), odd.count(0)) >= _MANY * len(odd):
        return "utf-32-le" if start[0] else "utf-32-be"
    return "utf-16-le" if odd.count(0) > even.count(0) else "utf-16-be"


class _Changed(RawIOBase):
    """A file whose blocks are changed while it is read. `change` gets a block, and whether the file has ended."""

    def __init__(self, file: IO[bytes], change: Callable[[bytes, bool], bytes]) -> None:
        self._file, self._change = file, change
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            block = self._file.read(_BLOCK_BYTES)
            self._ended = not block
            self._ready = self._change(block, self._ended)
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def _changed(file: IO[bytes], change: Callable[[bytes, bool], bytes]) -> BufferedReader:
    return BufferedReader(_Changed(file, change), _BLOCK_BYTES)


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
