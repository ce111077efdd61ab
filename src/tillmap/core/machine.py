"""What this machine has: threads, a GPU's numbers, a home for its user, and room for files kept between runs."""

import errno
import getpass
import logging
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

from tillmap.core.errors import ResourceError
from tillmap.core.text import whole_number

logger = logging.getLogger(__name__)

_Name = TypeVar("_Name", bound=str)
MAX_THREADS = 1024  # no machine has more; libraries end the process where they cannot make as many as they are told
_SAMPLE_SECONDS = 0.5  # long enough for a steady figure, short compared with loading a model


def use_threads(wanted: int | None = None) -> int:
    """Set the number of torch's CPU threads, to `free_threads()` if `wanted` is none. Returns the number.

    Call it before a model is loaded, because some engines keep the number that they find then.
    """
    import torch

    threads = as_threads(wanted) or free_threads()
    torch.set_num_threads(threads)
    return threads


def as_threads(told: object) -> int:
    """The number of threads that a setting or a file says; 0 if it is no number from 1 to `MAX_THREADS`."""
    threads = whole_number(str(told).strip()) or 0
    return threads if threads <= MAX_THREADS else 0


def free_threads() -> int:
    """The number of processor cores that are idle now, at least 1; or `OMP_NUM_THREADS`, if it is set.

    Threads that wait for each other keep their core busy. So two threads that share a busy core are slower than one.
    """
    import psutil

    if given := as_threads(os.environ.get("OMP_NUM_THREADS")):
        return given
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy: float = psutil.cpu_percent(interval=_SAMPLE_SECONDS) / 100 * (psutil.cpu_count() or 1)
    return max(1, min(cores, round(cores - busy)))


def settle() -> None:
    """Give this process the name and the home of its user, if it has none: in a container with any user id, say.

    Libraries ask for both and fail without. Call it before they are imported. It sets `LOGNAME` and `HOME` of this
    process. A home that is there stays, even if it cannot be written: it may hold keys. If there is no room for
    temporary files either, what needs a home fails later.
    """
    if not has_name():
        os.environ["LOGNAME"] = _stand_in_name()
    if not has_home():
        with suppress(ResourceError):
            os.environ["HOME"] = str(temporary_home())


def has_name() -> bool:
    """Whether the user of this process has a name of its own, in the environment or in the list of users."""
    try:
        return getpass.getuser() not in ("", _stand_in_name())
    except (KeyError, OSError):
        return False


def has_home() -> bool:
    """Whether the user has a home folder of its own.

    `/` is none unless it can be written: Docker gives it to unknown users.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - `Path.expanduser` raises if there is none
    if not home.is_absolute() or not os.path.isdir(home) or home == stand_in_home():  # noqa: PTH112 - so does `is_dir`
        return False
    return home != Path("/") or may_write(home)


def _stand_in_name() -> str:
    return f"user-{os.getuid()}"


def stand_in_home() -> Path | None:
    """Where `temporary_home` is, or would be; None if there is no folder for temporary files."""
    try:
        return Path(tempfile.gettempdir()) / f"tillmap-{os.getuid()}"
    except OSError:  # no folder for temporary files
        return None


def may_write(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself where it does not exist yet. Makes nothing."""
    try:
        os.lstat(folder)
    except FileNotFoundError:
        pass
    except OSError:  # such as of a name that is too long
        return False
    there = next((path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)), Path("/"))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK, effective_ids=True)


def temporary_home() -> Path:
    """A folder of this user alone among the temporary files (`TMPDIR`, else `/tmp`, `/var/tmp`). It is made if needed.

    Raises ResourceError if no temporary files can be made, or if somebody else has made this folder.
    """
    folder = stand_in_home()
    try:
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, "there is no folder for them")
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise ResourceError(
            f"temporary files cannot be made ({error.strerror}); set TMPDIR to a folder that you may write to"
        ) from None
    # Anybody can make a folder in /tmp, and what is read from here is trusted.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ResourceError(
            f"{folder}: expected a folder of yours that nobody else may open; remove it, or set TILLMAP_STATE and HOME "
            "to folders of yours"
        )
    return folder


def usable_dtype(dtype: _Name) -> "_Name | Literal['float16']":
    """The dtype, or float16 instead of bfloat16 on a GPU that cannot compute with that, such as a T4."""
    import torch

    if dtype != "bfloat16" or not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False):
        return dtype
    logger.info("this GPU has no bfloat16: float16 is used instead")
    return "float16"
