"""Confidence thresholds that keep a target accuracy on new rows with a stated probability.

The lowest threshold at which held-out rows happen to reach a target is often one that was lucky, so about every second
one misses it on new rows. Here a threshold counts as safe only if a test shows it: the method is fixed-sequence testing
(Angelopoulos, Bates, Candes, Jordan and Lei 2021, "Learn then test", arXiv 2110.01052).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import betainc

from tillmap.evaluation.bootstrap import cluster_codes

Floats = npt.NDArray[np.float64]

_EPS = 1e-9
_MAX_TIMES = 100  # so many times as many rows are looked for, in so many steps
_STEPS = 100


@dataclass(frozen=True)
class Threshold:
    """The result of `promise`.

    Attributes:
        value: rows with at least this are answered; infinite if no threshold can be promised.
        target: the accuracy to keep.
        probability: that it is kept.
        rows: held-out rows that it was chosen on.
        enough: about how many of these should be enough for a threshold; None if there is one, or if the surest of
            these rows do not reach the target either.
    """

    value: float
    target: float
    probability: float
    rows: int
    enough: int | None = None

    @property
    def why(self) -> str:
        """Why there is no threshold, and what would help, as the end of a sentence; empty if there is one."""
        if np.isfinite(self.value):
            return ""
        said = f"no confidence keeps an accuracy of {self.target:g} with a probability of {self.probability:g}"
        if not self.rows:
            return f"{said}: no row of the calibration subset was answered"
        if self.enough is None:
            return f"{said}: of its {self.rows:,} calibration rows, not even the surest are right so often"
        return f"{said} on its {self.rows:,} calibration rows; about {self.enough:,} should be enough"


def promise(
    confidence: npt.ArrayLike,
    right: npt.ArrayLike,
    target: float,
    probability: float,
    *,
    new_rows: int,
    order: npt.ArrayLike | None = None,
    product: pd.Series | None = None,
) -> Threshold:
    """The lowest threshold whose answered rows are right at the `target` accuracy, with at least this `probability`.

    Thresholds are tested from strict to lax, and the last before the first that fails is taken. A threshold passes if,
    were new rows above it right just as often as the target, so few errors among these rows would have a probability of
    at most 1 - `probability`: the binomial tail of Clopper and Pearson's (1934) interval. Because the sequence ends at
    the first failure, the chance of a wrong threshold is that of one test, however many there are. The first test is
    where the mean confidences promise to pass it most clearly, so the rows' own labels do not choose it.

    It holds if new rows are like these.

    Args:
        confidence: of held-out rows, each by a model that was not fitted on it, see
            `postprocessing.calibration.cross_fit`.
        right: whether their answers were right.
        target: the accuracy to keep, 0 to 1.
        probability: that it is kept, 0 to 1.
        new_rows: on so many new rows, or as many as there are held-out rows if that is more. The fewer they are, the
            more their own accuracy varies; the variances add up, so the test counts n held-out rows as n / (1 + held
            out / new).
        order: scores that the threshold is one of, if rows are not ordered by their confidence.
        product: the product of each row. The lines of one product tend to be right or wrong together; they count as
            fewer rows, as if they always were (Kish 1965).
    """
    given, correct = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    score = given if order is None else np.asarray(order, dtype=np.float64)
    if not given.size:
        return Threshold(np.inf, target, probability, 0)
    surest = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.diff(score[surest], append=-np.inf))
    answered = (ends + 1).astype(np.float64)
    weight = _effective_rows(surest, product)[ends] / answered / (1 + given.size / max(new_rows, given.size))
    errors, expected = (np.cumsum(1 - each[surest])[ends] for each in (correct, given))
    start = int(np.argmin(_tail(answered * weight, expected * weight, target)))
    rows, wrong, foreseen = (each[start:] * weight[start:] for each in (answered, errors, expected))
    passed = _tail(rows, wrong, target) <= 1 - probability
    count = len(passed) if passed.all() else int(np.argmin(passed))
    if count:
        return Threshold(float(score[surest][ends[start + count - 1]]), target, probability, given.size)
    # The fewest errors are often luck, so they do not count as fewer than the confidences say.
    times = _times_enough(rows, np.maximum(wrong, foreseen), target, probability)
    enough = None if times is None else int(np.ceil(given.size * times))
    return Threshold(np.inf, target, probability, given.size, enough)


def _effective_rows(surest: npt.NDArray[np.int64], product: pd.Series | None) -> Floats:
    """What the first 1, 2, 3, ... rows are worth: n squared by the sum of the squared sizes of their products."""
    count = np.arange(1, len(surest) + 1, dtype=np.float64)
    if product is None:
        return count
    codes = pd.Series(cluster_codes(product)[surest])
    before = codes.groupby(codes).cumcount().to_numpy()
    return np.asarray(count**2 / np.cumsum(2.0 * before + 1))


def _tail(rows: Floats, errors: Floats, target: float) -> Floats:
    """The probability of at most so many errors among so many rows if each is right with the probability `target`.

    By the incomplete beta function, so that neither has to be a whole number.
    """
    right = rows - errors
    return np.where(right > 0, betainc(np.maximum(right, _EPS), errors + 1, target), 1.0)


def _times_enough(rows: Floats, errors: Floats, target: float, probability: float) -> float | None:
    """With how many times the rows one of the thresholds would pass; None if with none."""
    for times in np.geomspace(1.01, _MAX_TIMES, _STEPS):
        if (_tail(rows * times, errors * times, target) <= 1 - probability).any():
            return float(times)
    return None
