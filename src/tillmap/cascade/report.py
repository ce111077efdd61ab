"""The cascade's scores: against its free arm, and every arm's accuracy on the routed rows."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tillmap.cascade.roles import KEPT, ROUTED
from tillmap.core.taxonomy import KEY
from tillmap.evaluation.comparison import compare_arms


def score_routed(
    marks: Mapping[str, pd.DataFrame], routes: pd.DataFrame, free: str, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Score the kept rows and the routed rows apart.

    Args:
        marks: a `metrics.mark` table per arm, with the cascade and its free arm.
        routes: split, id and role of each row that the cascade answers.
        free: the name of the free arm.
        resamples, seed: of the bootstrap that compares the cascade with the free arm.

    Returns a JSON block: coverage (the share of rows kept), `accuracy_of_answered` (the free arm's, on the kept rows;
    null if there are none), `routed` (rows), `accuracy_on_routed` by arm, and `change` (cascade minus free arm).
    """
    roles = marks["cascade"][KEY].merge(routes[[*KEY, "role"]], on=KEY, how="left")["role"].to_numpy()
    sure, routed = roles == KEPT, roles == ROUTED
    right = {arm: table["right"].to_numpy() for arm, table in marks.items()}
    pair = {arm: marks[arm] for arm in (free, "cascade")}
    change = compare_arms(pair, free, resamples=resamples, seed=seed).iloc[0]
    return {
        "coverage": round(float(sure.mean()), 6),
        "accuracy_of_answered": round(float(right[free][sure].mean()), 6) if sure.any() else None,
        "routed": int(routed.sum()),
        "accuracy_on_routed": {arm: round(float(own[routed].mean()), 6) for arm, own in right.items() if routed.any()},
        "change": {name: round(float(change[name]), 6) for name in ("difference", "low", "high", "p_value")}
        | {"verdict": str(change["verdict"])},
    }
