"""Functions over arrays that numba compiles."""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function when it is first called, and keep the result on disk. It runs without Python's lock."""
    return njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]
