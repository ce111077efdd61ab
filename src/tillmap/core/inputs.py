"""A user's input, which can be read as often as needed and gives the same bytes each time.

A pipe gives its bytes only once, and a file can change between two readings. So what is no ordinary file, or is
compressed, is copied once, and an ordinary file is watched.
"""

import bz2
import gzip
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

from tillmap.core.errors import InputError, TillmapError, first_line
from tillmap.core.files import STANDARD, descriptor_of

# How compressed files begin, how their names end, and what reads them.
_PACKED: Mapping[bytes, tuple[str, Callable[[Path], Any]]] = {
    b"\x1f\x8b": (".gz", gzip.open),
    b"BZh": (".bz2", bz2.open),
    b"\xfd7zXZ\x00": (".xz", lzma.open),
}
_NOT_PACKED = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what those raise
_CHUNK_BYTES = 2**20
# Rows of a shop shrink to a tenth or so. What grows two hundredfold was made to fill the disk.
_MAX_GROWTH = 200
_ANY_GROWTH_BYTES = 2**28


class Input(NamedTuple):
    """An input that gives the same bytes each time it is opened.

    Attributes:
        path: the file to open.
        named: the path that was given, without the ending of a compression; it may tell the format.
        shown: what errors call the input.
        stream: whether it is no ordinary file but standard input, a pipe or a device.
    """

    path: Path
    named: Path
    shown: str
    stream: bool


@contextmanager
def steady(given: Path) -> Iterator[Input]:
    """Give an input for a block that reads it several times. `-` is standard input.

    A stream is copied to a temporary file without a name, which is gone when the process ends, however it ends. The
    same is done with a file that is compressed by gzip, bzip2 or xz.

    Raises InputError if the file changes while the block runs or is not a whole compressed file, and OSError if there
    is no room for the copy. A file that is missing is left to the reader.
    """
    number = 0 if given == STANDARD else descriptor_of(given)
    stream = number is not None or _is_stream(given)
    shown = "standard input" if given == STANDARD else str(given)
    check, path, named = _no_check if stream else watch(given), given, given
    with ExitStack() as copies:
        try:
            if stream:
                path = copies.enter_context(_copied(_open_stream(given, number), shown))
            if packing := _packing_of(path):
                ending, unpack = packing
                path = copies.enter_context(_copied(unpack(path), shown, path.stat().st_size))
                named = given.with_suffix("") if given.suffix.lower() == ending else given
            if path != given:
                check()
                check = _no_check  # a copy stays as it is, whatever becomes of the original
            yield Input(path, named, shown, stream)
        except TillmapError:
            check()  # what looks like a fault of a row may be half of a row that is being written
            raise
        check()


def watch(path: Path) -> Callable[[], None]:
    """A function that raises InputError if the file is no longer as it is now: longer, newer, or another one."""
    before = _look(path)

    def check() -> None:
        if _look(path) != before:
            raise InputError(f"{path}: it changed while it was read; wait until it is complete, then run again")

    return check


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _no_check() -> None:
    return


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def _open_stream(given: Path, number: int | None) -> IO[bytes]:
    """Open a stream, which is read from where it is now. Raises InputError if that is not possible."""
    try:
        if given == STANDARD:
            if sys.stdin is None:
                raise InputError("standard input is closed; name a file, or feed it: `zcat FILE | tillmap ...`")
            return sys.stdin.buffer
        return given.open("rb") if number is None else os.fdopen(os.dup(number), "rb")
    except OSError as error:
        raise InputError(f"{given}: cannot be read ({error.strerror}); expected a file or an open pipe") from None


def _packing_of(path: Path) -> tuple[str, Callable[[Path], Any]] | None:
    try:
        with path.open("rb") as file:
            start = file.read(max(map(len, _PACKED)))
    except OSError:
        return None
    return next((packing for magic, packing in _PACKED.items() if start.startswith(magic)), None)


@contextmanager
def _copied(source: IO[bytes], shown: str, packed_bytes: int | None = None) -> Iterator[Path]:
    """Copy a stream to a file without a name; gives a path that opens it. `packed_bytes`: its compressed size."""
    with TemporaryFile() as copy:
        with source:
            for chunk in _chunks(source, shown):
                copy.write(chunk)
                if packed_bytes and copy.tell() > max(_ANY_GROWTH_BYTES, packed_bytes * _MAX_GROWTH):
                    raise InputError(
                        f"{shown}: unpacks to more than {_MAX_GROWTH} times its size, as no feed does; unpack it "
                        "yourself if it is one"
                    )
        copy.flush()
        yield Path(f"/proc/self/fd/{copy.fileno()}")


def _chunks(source: IO[bytes], shown: str) -> Iterator[bytes]:
    try:
        while chunk := source.read(_CHUNK_BYTES):
            yield chunk
    except _NOT_PACKED as error:
        raise InputError(f"{shown}: cannot be read to its end ({first_line(error)}); fetch it again") from None
