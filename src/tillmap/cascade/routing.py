"""Which rows the cascade routes to its language model: the least confident ones, as far as a budget allows."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from tillmap.cascade.roles import KEPT, ROUTED, TRIAL
from tillmap.core.taxonomy import KEY, Key
from tillmap.splitting.subsets import rows_to_answer


def plan_routes(predictions: pd.DataFrame, threshold: float, held_out_rows: int, seed: int) -> pd.DataFrame:
    """Choose the rows that the cascade answers, and give each a role.

    - Test rows: kept if their confidence is at least the threshold, else routed.
    - Rows of the `calibration` subset below the threshold: up to `held_out_rows` are the trial. The same share of the
      rows above it is kept, so that together they are a sample of the whole subset.
    - If no test row is labelled, up to `held_out_rows` rows of the `holdout` subset are scored in their place. They are
      drawn at random from all of it: confident rows alone would give too high a score.

    Args:
        predictions: the free arm's: split, id, subset, confidence, and `labelled` (whether the true labels are known).
        threshold: rows with a lower confidence are routed.
        held_out_rows: the most rows of a held-out subset that are asked about.
        seed: of the draws.

    Returns the chosen rows of `predictions`, in their order, with a column `role`.
    """
    below = predictions["confidence"] < threshold
    subset = predictions["subset"]
    calibration, test = predictions[subset == "calibration"], predictions[subset == "test"]
    holdout = predictions.head(0) if test["labelled"].any() else predictions[subset == "holdout"]
    new = pd.concat([test, rows_to_answer(holdout, held_out_rows, seed)])
    unsure, sure = (calibration[below[calibration.index] == is_below] for is_below in (True, False))
    tried = rows_to_answer(unsure, held_out_rows, seed)
    share = len(tried) / len(unsure) if len(unsure) else 1.0
    chosen = [
        rows_to_answer(sure, round(share * len(sure)), seed).assign(role=KEPT),
        tried.assign(role=TRIAL),
        new.assign(role=np.where(below[new.index], ROUTED, KEPT)),
    ]
    return pd.concat(chosen).sort_index()


def threshold_of_budget(
    confidence: npt.ArrayLike, usd: npt.ArrayLike, budget_usd: float, held_out: npt.ArrayLike, held_out_rows: int
) -> float:
    """The highest threshold whose routed rows and trial the budget pays for; infinite if it pays for every row.

    The trial is part of the cost: a higher threshold also lets more held-out rows into it, up to `held_out_rows`. Their
    questions are not written yet, so each counts as the mean of `usd`.

    Args:
        confidence: of the rows that may be routed (rows,).
        usd: the most that each of them may cost (rows,).
        budget_usd: dollars for the trial and the routed rows together.
        held_out: confidences of the rows that the trial draws from (any number,).
        held_out_rows: the most rows in the trial.
    """
    given, each = np.asarray(confidence, dtype=np.float64), np.asarray(usd, dtype=np.float64)
    if not len(given):
        return float("inf")
    order = np.argsort(given, kind="stable")
    # Item i is the threshold that routes the i least confident rows, and what that costs.
    thresholds = np.append(given[order], np.inf)
    tried = np.minimum(np.searchsorted(np.sort(np.asarray(held_out, dtype=np.float64)), thresholds), held_out_rows)
    costs = np.append(0.0, np.cumsum(each[order])) + tried * each.mean()
    return float(thresholds[max(int(np.searchsorted(costs, budget_usd, side="right")) - 1, 0)])


def keep_to_budget(routes: pd.DataFrame, usd: Mapping[Key, float], budget_usd: float) -> pd.DataFrame:
    """Cut the routes to what the budget pays for: the trial first, then the least confident routed rows.

    Routed rows that are cut are kept by the free arm. Trial rows that are cut are dropped, as are all held-out rows
    that were not drawn.

    Args:
        routes: the result of `plan_routes`.
        usd: the most that each trial and routed row may cost, by (split, id).
        budget_usd: dollars for all of them.
    """
    keys = pd.Series(list(routes[KEY].itertuples(index=False, name=None)), index=routes.index)
    order = pd.concat([routes[routes["role"] == role].sort_values("confidence") for role in (TRIAL, ROUTED)]).index
    affordable = int(np.searchsorted(np.cumsum([usd[key] for key in keys[order]]), budget_usd, side="right"))
    too_dear = order[affordable:]
    kept: pd.DataFrame = routes.drop(index=too_dear[routes.loc[too_dear, "role"] == TRIAL])
    kept["role"] = kept["role"].mask(kept.index.isin(too_dear), KEPT)
    return kept
