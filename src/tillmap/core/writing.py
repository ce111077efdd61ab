"""Writing files and folders whole.

Every output goes through `replacing` or `new_folder`: it is written under another name beside its place, and moved
there once it is complete. So a killed run never leaves half a file under the final name.
"""

import errno
import fcntl
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tillmap.core.errors import OF_THE_DISK, InputError, ResourceError
from tillmap.core.machine import may_write

STANDARD = Path("-")  # as an output: standard output

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_IN_DVC_CACHE = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?$")
_MAX_LINKS = 40  # as in Linux
# What is said of a file that cannot be exchanged for a new one, though it may be written: its owner would change, or it
# is mounted by itself, as a container's files often are.
_NOT_EXCHANGED = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.EBUSY, errno.EXDEV}


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file for writing. When the block ends without an error, its bytes are the content of `path`.

    Until then `path` is as it was, after an error too, and nothing is left beside it.

    * A file keeps its mode and owner. A new file has the mode that the umask says. Of a link the target is replaced.
    * A device, a pipe or an open file such as `/dev/stdout` gets the bytes; `-` is standard output.
    * A file that can be written but not exchanged is overwritten where it is: one of another user, one that is mounted
      by itself, one in a folder that is read-only. A kill in that moment leaves it half written.

    Raises OSError if the file cannot be written, InputError if its links lead in a circle, and ResourceError if another
    process is writing it.
    """
    place = _place_of(path)
    with _naming(path, _partial_of(place)):
        if not is_stream(path) and (not place.exists() or may_write(place.parent)):
            place.parent.mkdir(parents=True, exist_ok=True)
            with _started(_partial_of(place)) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _exchange(file, place)
        else:
            with TemporaryFile() as file:
                yield file
                _copy_into(file, path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Create an empty folder. When the block ends without an error, it takes the place of `path`.

    An existing folder passes on its mode and its owner. The files have the mode that the umask says, whatever library
    wrote them. Of a link the target is replaced. After an error `path` is as it was, and after a kill it is the old
    folder, the new one or none.
    """
    place = _place_of(path)
    partial, old = _partial_of(place), place.with_name(f".{place.name}.old")
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        _use_umask(partial)
        if place.is_dir() and not place.is_symlink():
            with suppress(OSError):  # it is a new folder, and of less worth than its files
                _take_after(place, partial)
            place.replace(old)  # to remove it here would leave half of it after a kill
        else:
            place.unlink(missing_ok=True)
        partial.replace(place)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def require_writable(path: Path) -> None:
    """Raise InputError unless `replacing` can write to `path`. Call it before long work. It changes nothing."""
    try:
        number = descriptor_of(path)
        if number == 1 and sys.stdout is None:
            raise InputError(f"{path}: standard output is closed; open it, or name a file")
        if number is not None:
            if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:  # such as standard input
                raise InputError(f"{path}: this is open for reading only; name a file, or - for standard output")
            return
        place = _place_of(path)
        if place.is_dir():
            raise InputError(f"{path}: this is a folder; name a file in it")
        if place.is_block_device():
            raise InputError(f"{path}: this is a disk, and all that is on it would be lost; name a file")
        folder = next(parent for parent in place.parents if os.path.lexists(parent))
        if place.exists() and not os.access(place, os.W_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, "it may not be written")
        if folder != place.parent:
            TemporaryFile(dir=folder).close()
        elif not is_stream(path) and (not place.exists() or may_write(folder)):
            with _started(_partial_of(place)):
                _partial_of(place).unlink()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); name a file in a folder that you may write to"
        ) from None


def bad_rows_of(out: Path) -> Path:
    """The file beside an output that lists the bad rows of its input."""
    return out.with_name(f"{out.name}.bad.jsonl")


def is_stream(path: Path) -> bool:
    """Whether a path is no file or folder of a disk but `-`, an open file, a device or a pipe."""
    if descriptor_of(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def is_standard_output(path: Path) -> bool:
    """Whether an output is this process's standard output, where nothing else may be printed then."""
    return descriptor_of(path) == 1


def descriptor_of(path: Path) -> int | None:
    """The number of the open file of this process that a path names, such as 1 for `-` and `/dev/stdout`; else None."""
    if path == STANDARD:
        return 1
    for _ in range(_MAX_LINKS):
        path = Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow the links
        if found := _DESCRIPTOR.fullmatch(str(path)):
            return int(found[1])
        try:
            path = path.parent / path.readlink()
        except OSError:
            break
    return None


def _place_of(path: Path) -> Path:
    """The file or folder at the end of a path's links. Raises InputError if they lead in a circle."""
    end = Path(os.path.realpath(path))
    if end.is_symlink():
        raise InputError(f"{path}: the links lead in a circle; name another place")
    # With DVC's `cache.type: symlink` an output is a link to its copy in the cache, which must never change.
    return path if path.is_symlink() and _IN_DVC_CACHE.search(str(end)) else end


def _partial_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.partial")


@contextmanager
def _started(partial: Path) -> Iterator[IO[bytes]]:
    """Open a new file, and remove it if the block ends with an error.

    It is locked, which tells the file of a running process from one that a kill left behind.
    """
    try:
        _remove_left(partial)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        file = os.fdopen(descriptor, "w+b")
        _lock(file.fileno())
    except (BlockingIOError, FileExistsError):
        raise ResourceError(
            f"{partial}: another process is writing this file; wait for it, or name another file"
        ) from None
    with file:
        try:
            yield file
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _remove_left(partial: Path) -> None:
    """Remove the file that a killed process has left. Raises BlockingIOError if its process still runs."""
    try:
        left = os.open(partial, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError:  # of another user, or a link that somebody has put there
        partial.unlink()
        return
    try:
        _lock(left)
        partial.unlink()
    finally:
        os.close(left)


def _lock(descriptor: int) -> None:
    """Lock an open file. Raises BlockingIOError if another process has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a disk without locks
        return


def _exchange(file: IO[bytes], place: Path) -> None:
    """Put the finished file in the place of the old one, which passes on its mode and its owner."""
    partial = _partial_of(place)
    try:
        if os.fstat(file.fileno()).st_ino != partial.stat().st_ino:
            raise ResourceError(f"{place}: another process has written this file at the same time; run again")
        if place.exists() and not place.is_symlink():
            _take_after(place, partial)
        partial.replace(place)
    except OSError as error:
        if error.errno not in _NOT_EXCHANGED or not place.exists():
            raise
        _copy_into(file, place)
        partial.unlink()


def _take_after(old: Path, new: Path) -> None:
    """Give a new file or folder the owner, mode and access list of an old one. Raises OSError if it is not allowed."""
    was, now = old.stat(), new.stat()
    if (was.st_uid, was.st_gid) != (now.st_uid, now.st_gid):
        os.chown(new, was.st_uid, was.st_gid)
    shutil.copystat(old, new)
    os.utime(new)


def _copy_into(file: IO[bytes], path: Path) -> None:
    """Write a finished file to what is at `path`: an open file, a device, a pipe, or a file that stays where it is."""
    file.seek(0)
    number = descriptor_of(path)
    if number == 1 and sys.stdout is not None:
        sys.stdout.flush()  # what was printed before comes first
    with os.fdopen(os.open(path, os.O_WRONLY) if number is None else os.dup(number), "wb") as there:
        shutil.copyfileobj(file, there)
        there.flush()
        if number is None and stat.S_ISREG(os.fstat(there.fileno()).st_mode):
            there.truncate()
            os.fsync(there.fileno())


def _use_umask(folder: Path) -> None:
    """Give all that is in a new folder the mode that its own has shown to be usual. safetensors' files are private."""
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o777
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(mode if path.is_dir() else mode & 0o666)


@contextmanager
def _naming(path: Path, partial: Path) -> Iterator[None]:
    """Let an error of the disk name the file that was asked for. One that comes from writing names none."""
    try:
        yield
    except OSError as error:
        if error.filename == str(partial) or (error.filename is None and error.errno in OF_THE_DISK):
            error.filename = str(path)
        raise
