"""Checks of arrays that were read from files. Compiled code trusts its arrays: a wrong place would be read outside."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def require_starts(starts: Array, size: int) -> None:
    """Raise ValueError unless `starts` cuts `size` entries into parts: whole numbers that rise from 0 to it."""
    whole = starts.ndim == 1 and starts.dtype.kind in "iu" and len(starts) > 0
    if not whole or starts[0] != 0 or starts[-1] != size or (np.diff(starts.astype(np.int64)) < 0).any():
        raise ValueError(f"starts that do not cut {size} entries into parts")


def require_places(places: Array, size: int) -> None:
    """Raise ValueError unless `places` are whole numbers from 0 to below `size`."""
    whole = places.ndim == 1 and places.dtype.kind in "iu"
    if not whole or (places.size and not 0 <= int(places.min()) <= int(places.max()) < size):
        raise ValueError(f"places outside of {size} entries")


def require_numbers(numbers: Array, size: int) -> None:
    """Raise ValueError unless `numbers` are so many finite floats."""
    if numbers.shape != (size,) or numbers.dtype.kind != "f" or not np.isfinite(numbers).all():
        raise ValueError(f"numbers that are not {size} finite ones")
