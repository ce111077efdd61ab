"""From completions to predictions: one valid row for every answer, whatever the model said."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import pandas as pd

from tillmap.arms.rules import AnswerRules
from tillmap.config.blocks import Embedding, Postprocess
from tillmap.core.files import OFF, write_json
from tillmap.core.taxonomy import KEY, LEVELS, Key, LabelTree, RankedPaths
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.postprocessing.calibration import CandidateScores, calibrate, make_signals
from tillmap.postprocessing.repair import Repairer
from tillmap.retrieval.embedding import Embedder

COLUMNS = [*KEY, *LEVELS, "confidence", "repair", "in_tree", "source", "status"]
Completions = Sequence[Mapping[str, Any]]
ALONE, TOGETHER = "alone", "together"  # whether a confidence leans on the free arms, too

logger = logging.getLogger(__name__)


def make_repairer(rules: AnswerRules, training: LabelTree, settings: Postprocess, embedding: Embedding) -> Repairer:
    """The repairer of an arm's answers; `training` holds the paths of the training subset."""
    tree = rules.paths or training
    embed = None
    if rules.free_text and settings.repair and settings.embed:  # answers that are paths need no model of meaning
        embed = Embedder(embedding.model, embedding.revision, embedding.batch_size).encode
    return Repairer(
        tree,
        make_answer_format(rules.format, tree),
        embed=embed,
        unseen_brand=rules.unseen,
        min_score=settings.min_similarity,
        exact_only=not settings.repair,
    )


def predict(completions: Completions, repairer: Repairer, votes: Mapping[Key, RankedPaths], arm: str) -> pd.DataFrame:
    """A predictions table with the completions' rows in their order.

    `votes` are each row's neighbours' paths with weights, used where an answer says nothing. `confidence` is how
    likely the model thought its answer (the first candidate's share, where an arm gives candidates) times how sure the
    repair is; it is not calibrated. `status` is the completion's: an empty or failed answer keeps its mark.
    """
    keys = [(answer["split"], answer["id"]) for answer in completions]
    neighbours: list[RankedPaths] = [votes.get(key, ()) for key in keys]
    repaired = repairer.repair_all([answer["text"] for answer in completions], neighbours)
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


def calibrate_arm(
    arm: str,
    completions: Completions,
    predictions: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    free: Mapping[str, CandidateScores],
    training: LabelTree,
    folder: Path,
) -> pd.DataFrame:
    """The predictions with calibrated confidences; the two models that gave them are saved in an empty folder.

    One leans on the arm alone, one on the free arms too: the first serves where the free arms' files are missing.

    Args:
        arm: whose completions and predictions, in the same order, these are.
        rows: the split's rows.
        free: the candidate scores of the other free arms, by name.
        training: the paths of the training subset. In a tree of all labelled rows a row of the calibration subset
            would speak for its own answer.
    """
    held_out = rows.loc[rows["subset"] == "calibration", KEY]
    if predictions.merge(held_out, on=KEY).empty:
        logger.warning("%s answered no row of the calibration subset: its confidences are not calibrated", arm)
        write_json({"off": True}, folder / OFF)
        return predictions
    calibrated = predictions
    for name, scores in ((ALONE, {}), (TOGETHER, free)):
        signals = make_signals(completions, predictions, rows, scores, training)
        calibrated, model = calibrate(predictions, signals, rows)
        replace(model, free=tuple(scores)).save(folder / f"{name}.json")
    return calibrated


def count_repairs(predictions: pd.DataFrame) -> dict[str, Any]:
    """How many answers took which repair, and how many are no known path, for a metrics file."""
    kinds = predictions["repair"].value_counts()
    return {
        "rows": len(predictions),
        "repair": {str(kind): int(count) for kind, count in kinds.items()},
        "out_of_tree": int((~predictions["in_tree"]).sum()),
    }


def _own_confidence(answer: Mapping[str, Any], repair: str) -> float:
    if repair == "vote":
        return 1.0  # the model said nothing; the vote has its own share
    if answer["candidates"]:
        return float(answer["candidates"][0][1])
    return exp(answer["logprob"]) if answer["logprob"] is not None else 1.0
