"""Whether confidences can be believed, and how much can be answered at a wished accuracy."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from tillmap.core.errors import InputError

FloatArray = npt.NDArray[np.float64]


def calibration_table(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 10) -> pd.DataFrame:
    """Group rows by confidence in `bins` equal widths of 0 to 1: low, high, rows, mean confidence, accuracy.

    A confidence on an edge counts to the bin above it, 1 to the last; empty bins are left out. Raises InputError
    for a confidence outside 0 to 1 or missing.
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
    """Give the gap between accuracy and confidence, a mean over bins by rows (Naeini, Cooper, Hauskrecht 2015)."""
    table = calibration_table(confidence, correct, bins)
    return float(np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["rows"]))


def coverage_curve(confidence: npt.ArrayLike, correct: npt.ArrayLike, points: int | None = 200) -> pd.DataFrame:
    """Give the accuracy of answering only rows of at least some confidence: threshold, coverage, accuracy.

    One row a distinct confidence, the highest first (rows that tie are answered together), thinned to about
    `points`, evenly in coverage; None keeps all. Coverage is a share of all rows. Errors as `calibration_table`.
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


def coverage_at(confidence: npt.ArrayLike, correct: npt.ArrayLike, target_accuracy: float) -> float:
    """Give the largest share of the rows that can be answered at `target_accuracy` or better; 0 where none can.

    The threshold is chosen on these very rows: to set one for use, take another part's.
    """
    curve = coverage_curve(confidence, correct, points=None)
    return float(curve.loc[curve["accuracy"] >= target_accuracy, "coverage"].to_numpy().max(initial=0.0))


def threshold_for(confidence: npt.ArrayLike, correct: npt.ArrayLike, target_accuracy: float) -> float | None:
    """Give the lowest confidence from which on the rows are right at `target_accuracy`; None where they never are."""
    curve = coverage_curve(confidence, correct, points=None)
    reached = curve.loc[curve["accuracy"] >= target_accuracy, "threshold"]
    return float(reached.min()) if len(reached) else None


def answered_from(confidence: npt.ArrayLike, correct: npt.ArrayLike, threshold: float | None) -> tuple[float, float]:
    """Give the share of rows whose confidence reaches a threshold, and their accuracy; (0, NaN) where none does."""
    given, right = _checked(confidence, correct)
    answered = given >= (np.inf if threshold is None else threshold)
    return float(answered.mean()), float(right[answered].mean()) if answered.any() else float("nan")


def _checked(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    given, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if given.shape != right.shape or given.ndim != 1 or not given.size:
        raise InputError(f"{given.size} confidences for {right.size} outcomes; expected one each, and at least one")
    bad = ~((given >= 0) & (given <= 1))
    if bad.any():
        raise InputError(f"{bad.sum():,} of {given.size:,} confidences are not within 0 to 1, e.g. {given[bad][0]}")
    return given, right
