"""Which rows the cascade's language model is to answer: those that the free arm is not sure of, or a budget's worth."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tillmap.evaluation.calibration_curves import threshold_for
from tillmap.evaluation.metrics import KEY
from tillmap.splitting.subsets import rows_to_answer

FREE, TRIED, ASKED = "free", "tried", "asked"
Role = Literal["free", "tried", "asked"]  # a row is the free arm's, or is asked to try the model, or for its answer


def choose_threshold(confidence: npt.ArrayLike, right: npt.ArrayLike, target: float) -> float:
    """The least confidence from which on rows are answered at the `target` accuracy; infinite where none is.

    Args:
        confidence: of held-out rows, each by a model that has not seen it: see `confidence.cross_fit`.
        right: whether their answers were right.

    The accuracy above a threshold is taken as the mean of what came out and of what the confidences expect. Of the
    two, the first alone follows the luck of few rows, and the largest set that reaches the target is the luckiest; the
    second alone keeps what is wrong with the confidences' shape.
    """
    given = np.asarray(confidence, dtype=np.float64)
    found = threshold_for(given, (given + np.asarray(right, dtype=np.float64)) / 2, target)
    return float("inf") if found is None else found


def plan_routes(predictions: pd.DataFrame, threshold: float, held_out_rows: int, seed: int) -> pd.DataFrame:
    """The rows that the cascade answers, in their order, with a column `role`.

    All test rows; of the `calibration` subset up to `held_out_rows` below the threshold, to try the model on, and as large
    a share of those above it, which are the free arm's: together they are like the whole part. Where no test row is
    labelled, up to `held_out_rows` of the `holdout` subset stand in for them to be scored: drawn by chance, for of the
    easy ones alone a score would flatter.

    `predictions` are the free arm's: split, id, subset, confidence, and `labelled`, whether the truth is known.
    """
    below = predictions["confidence"] < threshold
    part = predictions["subset"]
    calibrate, test = predictions[part == "calibration"], predictions[part == "test"]
    report = predictions.head(0) if test["labelled"].any() else predictions[part == "holdout"]
    new = pd.concat([test, rows_to_answer(report, held_out_rows, seed)])
    unsure, sure = (calibrate[below[calibrate.index] == is_below] for is_below in (True, False))
    tried = rows_to_answer(unsure, held_out_rows, seed)
    share = len(tried) / len(unsure) if len(unsure) else 1.0
    parts = [
        rows_to_answer(sure, round(share * len(sure)), seed).assign(role=FREE),
        tried.assign(role=TRIED),
        new.assign(role=np.where(below[new.index], ASKED, FREE)),
    ]
    return pd.concat(parts).sort_index()


def threshold_of_budget(
    confidence: npt.ArrayLike, usd: npt.ArrayLike, budget_usd: float, held_out: npt.ArrayLike, held_out_rows: int
) -> float:
    """The confidence below which a budget pays for all rows and for the trial; infinite where it pays for every one.

    `confidence` and `usd` (what a row may cost at most) are of the rows that might be asked, `held_out` the confidences
    of those that the model may be tried on: up to `held_out_rows` that lie below the threshold, too, each taken to cost
    what the others do on average.
    """
    given, each = np.asarray(confidence, dtype=np.float64), np.asarray(usd, dtype=np.float64)
    if not len(given):
        return float("inf")
    order = np.argsort(given, kind="stable")
    thresholds = np.append(given[order], np.inf)  # of asking the first 0, 1, 2 ... rows
    tried = np.minimum(np.searchsorted(np.sort(np.asarray(held_out, dtype=np.float64)), thresholds), held_out_rows)
    costs = np.append(0.0, np.cumsum(each[order])) + tried * each.mean()
    return float(thresholds[max(int(np.searchsorted(costs, budget_usd, side="right")) - 1, 0)])


def keep_to_budget(routes: pd.DataFrame, usd: Mapping[tuple[str, int], float], budget_usd: float) -> pd.DataFrame:
    """The routes with only as many rows to ask as the budget pays for: those to try, then the least sure first.

    The others are the free arm's; those of them that were to be tried are left out, like all that are not.
    """
    keys = pd.Series(list(routes[KEY].itertuples(index=False, name=None)), index=routes.index)
    order = pd.concat([routes[routes["role"] == role].sort_values("confidence") for role in (TRIED, ASKED)]).index
    too_dear = order[_affordable(np.array([usd[key] for key in keys[order]]), budget_usd) :]
    kept: pd.DataFrame = routes.drop(index=too_dear[routes.loc[too_dear, "role"] == TRIED])
    kept["role"] = kept["role"].mask(kept.index.isin(too_dear), FREE)
    return kept


def _affordable(usd: npt.NDArray[np.float64], budget_usd: float) -> int:
    """How many of the first rows the budget pays for."""
    return int(np.searchsorted(np.cumsum(usd), budget_usd, side="right"))
