"""Makes an arm's context from params.yaml and the files of earlier stages."""

import pandas as pd

from tillmap.arms import ARMS
from tillmap.arms.context import Context
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.stored import read_neighbours
from tillmap.retrieval import PATHS, TRAINING_PATHS


def neighbours(retriever: str) -> pd.DataFrame:
    """The neighbours table of all rows outside the training subset; for `paths` the table of their candidate paths.

    For `training_paths` it is the one of the rows in it.
    """
    folder = paths.CANDIDATES if retriever in (PATHS, TRAINING_PATHS) else paths.NEIGHBOURS
    return read_neighbours(folder / f"{retriever}.parquet")


def context_of(params: Params, arm: str) -> Context:
    return Context(
        arm=arm,
        settings=params.block(arm),
        seed=params.seed,
        model=paths.MODELS / arm,
        base=paths.BASE / arm,
        linear=paths.LINEAR,
        rows_file=paths.ROWS,
        tree_file=paths.TREE,
        neighbours=lambda _, retriever: neighbours(retriever),
        engine=getattr(params, "engine", None),  # None if the stage does not declare it
        provider=getattr(params, "provider", None),
        curve=paths.CURVES / f"{arm}.csv",
        about_file=paths.ABOUT,
        prompts=None if ARMS[arm].free else paths.PROMPTS / arm,
    )
