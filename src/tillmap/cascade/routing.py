"""Which rows the cascade routes to its language model: those that the free arm is not sure of, as a budget allows."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from tillmap.cascade.roles import KEPT, ROUTED, TRIAL
from tillmap.core.taxonomy import KEY
from tillmap.splitting.subsets import rows_to_answer


def plan_routes(predictions: pd.DataFrame, threshold: float, held_out_rows: int, seed: int) -> pd.DataFrame:
    """The rows that the cascade answers, in their order, with a column `role`.

    - Every test row: kept from the threshold on, else routed.
    - Of the `calibration` subset, up to `held_out_rows` below the threshold, to try the model on, and as large a share
      of those above it, which are kept: together they are like the whole subset.
    - Where no test row is labelled, up to `held_out_rows` of the `holdout` subset stand in for them to be scored. They
      are drawn by chance, because the easy ones alone would flatter the score.

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
        rows_to_answer(sure, round(share * len(sure)), seed).assign(role=KEPT),
        tried.assign(role=TRIAL),
        new.assign(role=np.where(below[new.index], ROUTED, KEPT)),
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
    order = pd.concat([routes[routes["role"] == role].sort_values("confidence") for role in (TRIAL, ROUTED)]).index
    too_dear = order[_affordable(np.array([usd[key] for key in keys[order]]), budget_usd) :]
    kept: pd.DataFrame = routes.drop(index=too_dear[routes.loc[too_dear, "role"] == TRIAL])
    kept["role"] = kept["role"].mask(kept.index.isin(too_dear), KEPT)
    return kept


def _affordable(usd: npt.NDArray[np.float64], budget_usd: float) -> int:
    """How many of the first rows the budget pays for."""
    return int(np.searchsorted(np.cumsum(usd), budget_usd, side="right"))
