"""Draws the rows that an arm is trained or tuned on."""

from typing import Literal

import numpy as np
import pandas as pd

from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import LEVELS
from tillmap.splitting.subsets import draws

Policy = Literal["stratified", "per_path", "by_retailer", "all"]


def sample_for_training(rows: pd.DataFrame, size: int, policy: Policy, seed: int) -> pd.DataFrame:
    """An arm's training sample: exactly `size` rows (or all, if fewer or by policy "all"), in the rows' order.

    Every label path keeps at least one row; where `size` is below the number of paths, the most frequent paths do.
    What is left is spread
    - "stratified": in proportion to the paths' further rows, each path rounded up or down by chance;
    - "per_path": as evenly over the paths as they allow;
    - "by_retailer": as evenly over the retailers as they allow, in proportion within each.

    `rows` are those of the training subset, all labelled. Raises ParamsError where `size` is below 1.
    """
    if policy == "all" or size >= len(rows):
        return rows
    if size < 1:
        raise ParamsError(f"a training sample of {size} rows was asked for; expected 1 or more")
    table = rows.reset_index(drop=True)
    draw = pd.Series(draws(table["id"], seed))
    path = table.groupby(list(LEVELS), sort=True).ngroup()
    in_path = draw.groupby(path)
    rank, count = in_path.rank(method="first") - 1, in_path.transform("size")
    later = rank > 0
    if policy == "per_path":
        priority = rank
    elif policy == "stratified":
        # Systematic sampling: the k-th further row of n stands at (k - u) / n with the path's own u in [0, 1), so a
        # cut at any height takes that share of each path, to within one row and without bias against short ones.
        start = draws(range(path.max() + 1), seed)[path] / 2.0**64
        priority = ((rank - start) / (count - 1)).where(later, -1.0)
    else:
        order = pd.DataFrame({"later": later, "draw": draw}).sort_values(["later", "draw"], kind="stable").index
        priority = table.loc[order].groupby("retailer").cumcount().reindex(table.index).where(later, -1)
    chosen = pd.DataFrame({"priority": priority, "rare": -count, "path": path, "draw": draw})
    return rows.iloc[np.sort(chosen.sort_values(list(chosen.columns), kind="stable").index[:size])]


def sample_report(sample: pd.DataFrame, rows: pd.DataFrame) -> dict[str, float]:
    """How a sample compares with the rows it was drawn from.

    `singleton_share`: of its paths, those with one row. `head_share`: of its rows, those of its ten largest paths.
    `description_length`: mean, in characters. `supergroup_shift`: total variation distance between the supergroups'
    shares in the sample and in all rows, from 0 (alike) to 1.
    """
    counts = sample.groupby(list(LEVELS)).size()
    paths = rows.groupby(list(LEVELS)).ngroups
    shares = [table["supergroup"].value_counts(normalize=True) for table in (sample, rows)]
    return {
        "rows": len(sample),
        "paths": len(counts),
        "paths_left_out": paths - len(counts),
        "singleton_share": round(float((counts == 1).mean()), 4),
        "head_share": round(float(counts.nlargest(10).sum() / len(sample)), 4),
        "retailers": int(sample["retailer"].nunique()),
        "description_length": round(float(sample["description"].str.len().mean()), 2),
        "supergroup_shift": round(float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2), 4),
    }
