"""Draws the rows that an arm is trained or tuned with."""

from typing import Literal

import numpy as np
import pandas as pd

from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import Levels
from tillmap.splitting.subsets import draws

Policy = Literal["stratified", "per_path", "by_retailer", "all"]


def sample_for_training(rows: pd.DataFrame, levels: Levels, size: int, policy: Policy, seed: int) -> pd.DataFrame:
    """Draw exactly `size` rows, in their order in `rows`; all rows if there are fewer or `policy` is "all".

    Each label path gets one row first. If `size` is smaller than the number of paths, the most frequent paths do.
    The policy decides how the remaining rows are spread:
    - "stratified": over the paths, in proportion to their other rows; fractions are rounded up or down at random.
    - "per_path": over the paths, as evenly as their sizes allow.
    - "by_retailer": over the retailers, as evenly as their sizes allow, and in proportion within each.

    `rows` are those of the training subset, all labelled. Raises ParamsError if `size` is below 1.
    """
    if policy == "all" or size >= len(rows):
        return rows
    if size < 1:
        raise ParamsError(f"training sample: the size is {size} rows; expected 1 or more")
    table = rows.reset_index(drop=True)
    draw = pd.Series(draws(table["id"], seed))
    path = table.groupby(list(levels), sort=True, dropna=False).ngroup()
    # Each row gets a priority, and the `size` rows with the lowest are taken. The first row drawn of a path comes
    # before the later rows of all paths, so that no path is left out.
    in_path = draw.groupby(path)
    rank, count = in_path.rank(method="first") - 1, in_path.transform("size")
    later = rank > 0
    if policy == "per_path":
        priority = rank
    elif policy == "stratified":
        # Systematic sampling: the k-th of a path's n later rows gets the priority (k - u) / n, with u in [0, 1) drawn
        # for the path. A cut at 0.3 then takes 0.3 n rows of each path, rounded up or down; with u = 0 for all, paths
        # with one later row would get it only at a cut of 1.
        start = draws(range(path.max() + 1), seed)[path] / 2.0**64
        priority = ((rank - start) / (count - 1)).where(later, -1.0)
    else:
        order = pd.DataFrame({"later": later, "draw": draw}).sort_values(["later", "draw"], kind="stable").index
        priority = table.loc[order].groupby("retailer", dropna=False).cumcount().reindex(table.index).where(later, -1)
    chosen = pd.DataFrame({"priority": priority, "rare": -count, "path": path, "draw": draw})
    return rows.iloc[np.sort(chosen.sort_values(list(chosen.columns), kind="stable").index[:size])]


def sample_report(sample: pd.DataFrame, rows: pd.DataFrame, levels: Levels) -> dict[str, float]:
    """Compare a sample with the rows that it was drawn from.

    Keys: `rows`, `paths`, `paths_left_out` and `retailers`, as counts; `singleton_share`, the share of paths with one
    row; `head_share`, the share of rows in the ten largest paths; `description_length`, the mean in characters;
    `top_level_shift`, the total variation distance between the shares of the first level's labels in the sample and in
    all rows, 0 (equal) to 1.
    """
    counts = sample.groupby(list(levels), dropna=False).size()
    paths = rows.groupby(list(levels), dropna=False).ngroups
    shares = [table[levels.names[0]].value_counts(normalize=True) for table in (sample, rows)]
    return {
        "rows": len(sample),
        "paths": len(counts),
        "paths_left_out": paths - len(counts),
        "singleton_share": round(float((counts == 1).mean()), 4),
        "head_share": round(float(counts.nlargest(10).sum() / len(sample)), 4),
        "retailers": int(sample["retailer"].nunique()),
        "description_length": round(float(sample["description"].str.len().mean()), 2),
        "top_level_shift": round(float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2), 4),
    }
