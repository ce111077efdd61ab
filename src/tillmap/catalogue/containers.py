"""Opens a user's file as plain bytes: packed files are unpacked on the way, other kinds of files are named."""

import bz2
import errno
import gzip
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from tillmap.core.errors import InputError, first_line

PACKED = (".gz", ".zst", ".bz2", ".zip")

_BLOCK_BYTES = 2**16
_PACKINGS = {
    b"\x1f\x8b": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"BZh": ".bz2",
    b"PK\x03\x04": ".zip",
    b"PK\x05\x06": ".zip",  # without a file
}
_PARQUET = b"PAR1"
_AS_CSV = "export the rows as CSV or JSON Lines"
_UNPACK = "unpack it first"
# Other files, by how they start: what they are, and what to do.
_OTHERS = {
    b"\xfd7zXZ\0": ("an xz file", "unpack it on the way: `xzcat FILE | tillmap predict - ...`"),
    b"\x04\x22\x4d\x18": ("an lz4 file", "unpack it on the way: `lz4cat FILE | tillmap predict - ...`"),
    b"\x1f\x9d": ("a .Z file", "unpack it on the way: `zcat FILE | tillmap predict - ...`"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!": ("a rar archive", _UNPACK),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "save the sheet as CSV UTF-8"),
    b"ARROW1\0\0": ("an Arrow file", "write the table as Parquet"),
    b"Obj\x01": ("an Avro file", "write the table as Parquet"),
    b"SQLite format 3\0": ("an SQLite database", _AS_CSV),
    b"%PDF-": ("a PDF", _AS_CSV),
    b"<!doctype": ("a web page", "fetch the file again, perhaps after signing in"),
    b"<html": ("a web page", "fetch the file again, perhaps after signing in"),
    b"<?xml": ("XML", _AS_CSV),
}
_ADDRESS = re.compile(r"(?:https?|ftp|file|s3|gs|az|abfss?):/", re.IGNORECASE)
_IS_NO_FILE = re.compile(r"/$|^__MACOSX/|(?:^|/)\.[^/]*$")  # folders, and what systems note of them
_TAR = slice(257, 262)  # where a tar archive says `ustar`
_WORKBOOKS = {"xl/workbook.xml": "an Excel workbook", "xl/workbook.bin": "an Excel workbook",
              "content.xml": "an OpenDocument file", "Index/Document.iwa": "a Numbers document"}  # fmt: skip


@contextmanager
def opened(path: Path, shown: str, remedy: str) -> Iterator[BufferedReader]:
    """Open a file of rows, unpacked if it is packed. What it starts with counts, not its name.

    Args:
        path: the file.
        shown: what errors call it.
        remedy: what errors say to do if there is no such file.

    Raises InputError if it cannot be read, is damaged, or is an archive or workbook.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        if _ADDRESS.match(shown):
            raise InputError(
                f"{shown}: this is an address, and only files are read; fetch it: `curl -fL ADDRESS | tillmap predict "
                "- ...`"
            ) from None
        raise InputError(f"{shown}: the file is not there; {remedy}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        said = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{shown}: cannot be read ({said}); expected a file you may read") from None
    with file, ExitStack() as stack:
        start = file.peek(_TAR.stop)
        packing = next((ending for mark, ending in _PACKINGS.items() if start.startswith(mark)), "")
        try:
            plain = _unpack(file, packing, shown, stack)
            _refuse_others(plain, shown)
            yield plain
        except (EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, OSError) as error:
            # Arrow's errors and those of gzip have no number; a full disk has one.
            # A damaged zip leads to places before its start.
            if not packing or getattr(error, "errno", None) not in (None, errno.EINVAL):
                raise
            raise InputError(
                f"{shown}: damaged {packing} file ({first_line(error)}); pack it again, or fetch it again"
            ) from None


@contextmanager
def packing(file: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write to, which is packed into an open one as the ending of `path` says. That one stays open.

    The same bytes give the same file.
    """
    ending = path.suffix.lower()
    if ending == ".gz":
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            yield cast(IO[bytes], packed)
    elif ending == ".bz2":
        with bz2.BZ2File(file, "wb") as packed:
            yield packed
    elif ending == ".zst":
        # Arrow closes what it has written to.
        with os.fdopen(os.dup(file.fileno()), "wb") as own, pa.CompressedOutputStream(own, "zstd") as packed:
            yield cast(IO[bytes], packed)
        file.seek(0, os.SEEK_END)
    else:
        yield file


def require_packing(path: Path) -> None:
    """Raise InputError if a file with such an ending cannot be written packed."""
    if path.suffix.lower() == ".zip":
        raise InputError(f"{path}: a zip is read but not written; name a file that ends in .gz, .bz2 or .zst")


def is_parquet(file: BufferedReader) -> bool:
    """Whether an open file starts as a Parquet table does."""
    return file.peek(len(_PARQUET)).startswith(_PARQUET)


def _unpack(file: BufferedReader, packing: str, shown: str, stack: ExitStack) -> BufferedReader:
    if packing == ".gz":
        return cast(BufferedReader, stack.enter_context(gzip.GzipFile(fileobj=file)))
    if packing == ".zip":
        return cast(BufferedReader, stack.enter_context(_only_member(file, shown, stack)))
    if packing:
        codec = {".zst": "zstd", ".bz2": "bz2"}[packing]
        return BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec), _BLOCK_BYTES)
    return file


def _only_member(file: BufferedReader, shown: str, stack: ExitStack) -> IO[bytes]:
    """The one file in a zip. Its name is not used, so it can lead nowhere."""
    archive = stack.enter_context(zipfile.ZipFile(file))
    names = [name for name in archive.namelist() if not _IS_NO_FILE.search(name)]
    for name, what in _WORKBOOKS.items():
        if name in names:
            raise InputError(f"{shown}: this is {what}; save the sheet as CSV UTF-8")
    if len(names) != 1:
        raise InputError(
            f"{shown}: a zip with {len(names):,} files, expected one; unpack it, or name one of them: "
            "`unzip -p ZIP NAME | tillmap predict - ...`"
        )
    return archive.open(names[0])


def _refuse_others(file: BufferedReader, shown: str) -> None:
    start = file.peek(_TAR.stop)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:20].lower()
    if start.startswith(tuple(_PACKINGS)):
        raise InputError(f"{shown}: this is packed twice; {_UNPACK}")
    for mark, (what, remedy) in _OTHERS.items():
        if start.startswith(mark) or (mark.startswith(b"<") and text.startswith(mark)):
            raise InputError(f"{shown}: this is {what}; {remedy}")
    if start[_TAR] == b"ustar":
        raise InputError(f"{shown}: this is a tar archive; {_UNPACK}")
