"""Functions over arrays that numba compiles."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

from tillmap.core.errors import ResourceError
from tillmap.core.machine import settle, temporary_home

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function when it is first called. It runs without Python's lock.

    The machine code is kept for the next process, in the first of these that can be written: `NUMBA_CACHE_DIR`,
    `__pycache__` beside the module, the user's cache folder, `machine.temporary_home`. If there is none, each process
    compiles anew, in seconds.
    """
    made: Any
    try:
        settle()
        try:
            made = numba.njit(cache=True, nogil=True)(function)
        except RuntimeError:  # numba knows no folder that can be written
            numba.config.CACHE_DIR = str(temporary_home() / "numba")
            made = numba.njit(cache=True, nogil=True)(function)
    except (RuntimeError, ResourceError):
        made = numba.njit(nogil=True)(function)
    return made  # type: ignore[no-any-return]
