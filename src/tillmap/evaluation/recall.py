"""How often the true path is among the paths that a retriever or a free arm finds."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tillmap.core.taxonomy import Levels
from tillmap.evaluation.metrics import WHOLE_PATH, recall_table
from tillmap.postprocessing.calibration import CandidateScores
from tillmap.retrieval import PATHS
from tillmap.retrieval.paths import paths_of_neighbours, paths_of_ranking

MOST = 20  # of an arm's candidates


def paths_found(
    neighbours: Mapping[str, pd.DataFrame],
    candidates: pd.DataFrame,
    ranked: Mapping[str, CandidateScores],
    training: pd.DataFrame,
    levels: Levels,
) -> dict[str, pd.DataFrame]:
    """What retrievers and arms found, as paths tables by name, for `recall_of`.

    Args:
        neighbours: the neighbours table of each retriever of rows.
        candidates: the paths table of the candidates.
        ranked: the candidate scores of each free arm, of which the first 20 count.
        training: the rows that the neighbours are from.
        levels: the names of the levels.
    """
    found = {name: paths_of_neighbours(table, training, levels) for name, table in neighbours.items()}
    return found | {PATHS: candidates} | {arm: paths_of_ranking(own, levels, MOST) for arm, own in ranked.items()}


def recall_of(
    paths: Mapping[str, pd.DataFrame], truth: pd.DataFrame, levels: Levels, *, resamples: int, seed: int
) -> pd.DataFrame:
    """How often each retriever finds the truth: `metrics.recall_table` of its paths table, with its name."""
    return pd.concat(
        recall_table(table, truth, levels, resamples=resamples, seed=seed).assign(retriever=name)
        for name, table in paths.items()
    )


def by_retriever(recall: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The recall of each retriever, as numbers for a metrics file: of the whole path, and in `levels` of each label."""
    found: dict[str, dict[str, Any]] = {}
    for (name, level), table in recall.groupby(["retriever", "level"], sort=False):
        at = {f"at_{k}": round(float(share), 6) for k, share in zip(table["k"], table["recall"], strict=True)}
        if level == WHOLE_PATH:
            found[str(name)] = at | {"levels": {}}
        else:
            found[str(name)]["levels"][str(level)] = at
    return found


def of_whole_paths(recall: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of recall that are about whole paths, without the column `level`."""
    return recall[recall["level"] == WHOLE_PATH].drop(columns="level")
