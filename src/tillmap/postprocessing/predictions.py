"""From completions to predictions: one valid row for every answer, whatever the model said."""

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

import pandas as pd

from tillmap.core.taxonomy import LEVELS
from tillmap.postprocessing.repair import Neighbours, Repairer

COLUMNS = ["split", "id", *LEVELS, "confidence", "repair", "in_tree", "source", "status"]


def predict(
    completions: Sequence[Mapping[str, Any]],
    repairer: Repairer,
    votes: Mapping[tuple[str, int], Neighbours],
    arm: str,
) -> pd.DataFrame:
    """A predictions table with the completions' rows in their order.

    `votes` are each row's neighbours' paths with weights, asked where an answer says nothing. `confidence` is how
    likely the model thought its answer (the first candidate's share, where an arm gives candidates) times how sure the
    repair is; it is not calibrated. `status` is the completion's: an empty or failed answer keeps its mark.
    """
    keys = [(answer["split"], answer["id"]) for answer in completions]
    repaired = repairer.repair_all([answer["text"] for answer in completions], [votes.get(key, ()) for key in keys])
    table = [
        (
            *key,
            *found.path,
            _own_confidence(answer, found.repair) * found.confidence,
            found.repair,
            found.in_tree,
            arm,
            answer["status"],
        )
        for key, answer, found in zip(keys, completions, repaired, strict=True)
    ]
    return pd.DataFrame(table, columns=COLUMNS)


def no_predictions() -> pd.DataFrame:
    """What an arm that is off predicts: a table with every column and no row."""
    return pd.DataFrame([], columns=COLUMNS)


def _own_confidence(answer: Mapping[str, Any], repair: str) -> float:
    if repair == "vote":
        return 1.0  # the model said nothing; the vote has its own share
    if answer["candidates"]:
        return float(answer["candidates"][0][1])
    return exp(answer["logprob"]) if answer["logprob"] is not None else 1.0
