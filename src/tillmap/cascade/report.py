"""What routing came to: the cascade against the arm that answers for it, and every arm on the routed rows."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tillmap.cascade.roles import FREE_ARM, KEPT, ROUTED
from tillmap.core.taxonomy import KEY
from tillmap.evaluation.comparison import compare_arms


def score_routed(
    marks: Mapping[str, pd.DataFrame], routes: pd.DataFrame, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Score the rows that were kept and those that were routed; `marks` has a `metrics.mark` table an arm."""
    roles = marks["cascade"][KEY].merge(routes[[*KEY, "role"]], on=KEY, how="left")["role"].to_numpy()
    sure, routed = roles == KEPT, roles == ROUTED
    right = {arm: table["right"].to_numpy() for arm, table in marks.items()}
    pair = {arm: marks[arm] for arm in (FREE_ARM, "cascade")}
    change = compare_arms(pair, FREE_ARM, resamples=resamples, seed=seed).iloc[0]
    return {
        "coverage": round(float(sure.mean()), 6),
        "accuracy_of_answered": round(float(right[FREE_ARM][sure].mean()), 6) if sure.any() else None,
        "routed": int(routed.sum()),
        "accuracy_on_routed": {arm: round(float(own[routed].mean()), 6) for arm, own in right.items() if routed.any()},
        "change": {name: round(float(change[name]), 6) for name in ("difference", "low", "high", "p_value")}
        | {"verdict": str(change["verdict"])},
    }
