"""Errors that the user can fix. The message says where the problem is, what was expected and what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

MAX_LINE_CHARACTERS = 200
_NO_ROOM = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your disk quota is used up",
            errno.EFBIG: "a file would exceed the size limit"}  # fmt: skip
_SAID = {os.strerror(number): text for number, text in _NO_ROOM.items()}
_SAID["File size limit exceeded"] = _NO_ROOM[errno.EFBIG]  # of a program that the signal SIGXFSZ ended
_NOT_NOW = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)  # no thread, memory or open file is to be had
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE}  # such errors of writing


class TillmapError(Exception):
    """Base class of all errors that are shown to the user as one or two lines, without a traceback."""


class InputError(TillmapError):
    """A data file, or a row in one, is invalid."""


class ParamsError(TillmapError):
    """params.yaml has an unknown or missing key, or a value that is out of range or of the wrong type."""


class ModelError(TillmapError):
    """A model is missing, incomplete, or different from what its files or params say."""


class ResourceError(TillmapError):
    """The machine lacks memory, disk space or a device."""


class LostRowsError(TillmapError):
    """The rows of an output are not those of its input. The output is not written."""


def first_line(error: BaseException) -> str:
    """The first line of a library's error, cut to 200 characters, for a message of our own.

    If the error has no text, it is the name of its class.
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0][:MAX_LINE_CHARACTERS]


def cause(error: BaseException) -> str:
    """Why a library failed, in one line of at most 200 characters: the error that the others were raised from.

    pydantic counts its errors in the first line and names them below, so what they say is taken from them.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    details = getattr(error, "errors", None)  # of pydantic's ValidationError, which vLLM's configs raise
    said = "; ".join(str(each["msg"]) for each in details()) if callable(details) else first_line(error)
    return said[:MAX_LINE_CHARACTERS]


def lacks_room(error: BaseException) -> str | None:
    """What the disk lacks, if that is what an error is about; None for other errors."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return _NO_ROOM[error.errno]
    # Native libraries and compilers only say it.
    return next((text for said, text in _SAID.items() if said in str(error)), None)


def raise_if_machine(error: BaseException, path: object) -> None:
    """Raise ResourceError if a file could not be read because of the machine. To call it damaged would be wrong."""
    number = getattr(error, "errno", None)
    if number in _NOT_NOW or any(os.strerror(each) in str(error) for each in _NOT_NOW):  # native libraries: as text
        raise ResourceError(
            f"{path}: cannot be read now ({first_line(error)}); close other programs, or raise the limit (`ulimit -a` "
            "shows it), then run again"
        ) from None


@contextmanager
def model_errors(what: str, remedy: str) -> Iterator[None]:
    """Raise ModelError, `what` (why); `remedy`, for whatever a library raises that reads or runs a foreign model.

    Libraries trust the files of a model. Of a damaged one they raise what their code happens to end in. Errors of the
    disk and of memory are none of the model, and stay what they are.
    """
    try:
        yield
    except (TillmapError, MemoryError):
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # of a library in Rust; it is no Exception
        if not (panic or isinstance(error, Exception)) or (isinstance(error, OSError) and error.errno in OF_THE_DISK):
            raise
        raise ModelError(f"{what} ({cause(error)}); {remedy}") from error
