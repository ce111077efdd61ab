"""How well confidences are calibrated, and how many rows can be answered at a target accuracy."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from tillmap.core.errors import InputError

FloatArray = npt.NDArray[np.float64]


def calibration_table(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 10) -> pd.DataFrame:
    """Rows grouped by confidence into `bins` equal widths from 0 to 1: low, high, rows, confidence (mean), accuracy.

    A confidence on an edge belongs to the bin above it, and 1 to the last bin. Empty bins are left out. Raises
    InputError if a confidence is missing or outside 0 to 1, or the inputs differ in length or are empty.
    """
    given, right = _checked(confidence, correct)
    bin_of = np.minimum((given * bins).astype(np.int64), bins - 1)
    rows = np.bincount(bin_of, minlength=bins)
    full = np.flatnonzero(rows)
    return pd.DataFrame(
        {
            "low": full / bins,
            "high": (full + 1) / bins,
            "rows": rows[full],
            "confidence": np.bincount(bin_of, weights=given, minlength=bins)[full] / rows[full],
            "accuracy": np.bincount(bin_of, weights=right, minlength=bins)[full] / rows[full],
        }
    )


def expected_calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 10) -> float:
    """The mean gap between accuracy and confidence over bins, weighted by rows (Naeini, Cooper, Hauskrecht 2015)."""
    table = calibration_table(confidence, correct, bins)
    return float(np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["rows"]))


def coverage_curve(confidence: npt.ArrayLike, correct: npt.ArrayLike, points: int | None = 200) -> pd.DataFrame:
    """The accuracy if only the rows from some confidence on are answered: threshold, coverage, accuracy.

    Coverage is the share of rows answered. There is one row per distinct confidence, the highest first, thinned to
    about `points` rows at even steps of coverage; None keeps all. Raises InputError as `calibration_table` does.
    """
    given, right = _checked(confidence, correct)
    order = np.argsort(-given, kind="stable")
    ends = np.flatnonzero(np.diff(given[order], append=-1.0))
    answered = ends + 1
    curve = pd.DataFrame(
        {
            "threshold": given[order][ends],
            "coverage": answered / given.size,
            "accuracy": np.cumsum(right[order])[ends] / answered,
        }
    )
    if points is None:
        return curve
    wanted = np.searchsorted(answered, np.linspace(0, given.size, points))
    return curve.iloc[np.unique(wanted)].reset_index(drop=True)


def answered_from(confidence: npt.ArrayLike, correct: npt.ArrayLike, threshold: float) -> tuple[float, float]:
    """The share of rows with a confidence of at least `threshold`, and their accuracy; (0, NaN) if there are none."""
    given, right = _checked(confidence, correct)
    answered = given >= threshold
    return float(answered.mean()), float(right[answered].mean()) if answered.any() else float("nan")


def _checked(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    given, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if given.shape != right.shape or given.ndim != 1 or not given.size:
        raise InputError(f"{given.size} confidences for {right.size} outcomes; expected one each, and at least one")
    bad = ~((given >= 0) & (given <= 1))
    if bad.any():
        raise InputError(f"{bad.sum():,} of {given.size:,} confidences are not within 0 to 1, e.g. {given[bad][0]}")
    return given, right
