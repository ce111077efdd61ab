"""A user's input, which can be read as often as needed and gives the same bytes each time.

A pipe gives its bytes only once, and a file can change between two readings. So what is no ordinary file is copied
once, and an ordinary file is watched.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple, cast

from tillmap.core.errors import OF_THE_DISK, InputError, TillmapError
from tillmap.core.writing import STANDARD, descriptor_of, is_stream

_BLOCK_BYTES = 2**16


class Input(NamedTuple):
    """An input that gives the same bytes each time it is opened.

    Attributes:
        path: the file to open.
        shown: what errors call the input.
        stream: whether it was no ordinary file but standard input, a pipe or a device.
    """

    path: Path
    shown: str
    stream: bool


@contextmanager
def steady(given: Path) -> Iterator[Input]:
    """Give an input for a block that reads it several times. `-` is standard input.

    A stream is copied to a temporary file without a name, which is gone when the process ends, however it ends.

    Raises InputError if a stream cannot be read, or if a file changes while the block runs, and OSError if there is no
    room for the copy. A file that is missing is left to the reader.
    """
    if not is_stream(given):
        check = watch(given)
        try:
            yield Input(given, str(given), stream=False)
        except TillmapError:
            check()  # what looks like a fault of a row may be half of a row that is being written
            raise
        check()
        return
    # Opened first: the number of a closed file is free, and the copy would get it.
    with _open_stream(given) as source, TemporaryFile() as copy:
        with _told(given):
            # Once at the end is enough: to read on would ask a person at a terminal for a second Ctrl-D.
            copy.writelines(iter(partial(source.read1, _BLOCK_BYTES), b""))
            copy.flush()
        shown = "standard input" if given == STANDARD else str(given)
        yield Input(Path(f"/proc/self/fd/{copy.fileno()}"), shown, stream=True)


def watch(*files: Path) -> Callable[[], None]:
    """A function that raises InputError if a file is no longer as it is now: it is longer, newer, or another one.

    Of a folder, all that is in it is watched.
    """
    before = {each: _look(each) for path in files for each in (path, *(path.rglob("*") if path.is_dir() else ()))}

    def check() -> None:
        for path, look in before.items():
            if _look(path) != look:
                raise InputError(f"{path}: it changed while it was read; wait until it is complete, then run again")

    return check


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _open_stream(given: Path) -> BufferedReader:
    """Open a stream, which is read from where it is now. Raises InputError if that is not possible."""
    number = 0 if given == STANDARD else descriptor_of(given)
    if number == 0 and sys.stdin is None:
        raise InputError("standard input is closed; name a file, or feed it: `zcat FILE | tillmap ...`")
    if given == STANDARD:
        return cast(BufferedReader, sys.stdin.buffer)
    with _told(given):
        return given.open("rb") if number is None else os.fdopen(os.dup(number), "rb")


@contextmanager
def _told(given: Path) -> Iterator[None]:
    """Turn an error of reading into an InputError. One of writing, such as a full disk, stays."""
    try:
        yield
    except OSError as error:
        if error.errno in OF_THE_DISK:
            raise
        raise InputError(f"{given}: cannot be read ({error.strerror}); expected a file or an open pipe") from None
