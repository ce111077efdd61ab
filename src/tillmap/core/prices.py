"""Prices as numbers that can be compared: whole cents for exact matches, logs for distances."""

import numpy as np
from numpy.typing import NDArray

_CENTS = 100
_MAX = 1e12  # more is no price, and its cents would not fit a whole number


def cents(prices: NDArray[np.floating]) -> NDArray[np.int64]:
    """Prices in cents; -1 if unknown. `prices` (rows,); NaN, infinity, 0 and less are unknown."""
    known = np.isfinite(prices) & (prices > 0) & (prices < _MAX)
    return np.where(known, np.round(np.where(known, prices, 0) * _CENTS), -1).astype(np.int64)


def log_prices(prices: NDArray[np.floating]) -> NDArray[np.float64]:
    """The logs of prices; NaN if unknown."""
    known = np.isfinite(prices) & (prices > 0)
    return np.where(known, np.log(np.where(known, prices, 1.0)), np.nan)
