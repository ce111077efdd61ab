"""What an arm is given to work with, from tables at hand instead of files."""

from pathlib import Path

import pandas as pd

from tillmap.arms.context import Context
from tillmap.core.taxonomy import CONTEST, LabelTree

NOWHERE = Path("nowhere")
NO_NEIGHBOURS = pd.DataFrame(columns=["split", "id", "rank", "neighbour", "score"])


def make_context(arm, settings, training, neighbours=NO_NEIGHBOURS, *, model=NOWHERE, linear=NOWHERE, levels=CONTEST):
    """The context of an arm whose rows are those of the training subset; every retriever gives `neighbours`."""
    context = Context(
        arm,
        settings,
        seed=1,
        model=model,
        base=NOWHERE,
        linear=linear,
        rows_file=NOWHERE,
        tree_file=NOWHERE,
        neighbours=lambda rows, retriever: neighbours,
    )
    context.rows = training.assign(subset="train")
    context.tree = LabelTree.from_rows(training, levels)
    return context
